//! SQL inside a program, without a server: [`Database::sql`] waits for what a session would answer.

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::runtime::Handle;

use super::code::Code;
use super::error::{Error, Result};
use super::parse::Statement;
use super::{Database, StatementKind};

/// What a statement answers: its rows, read as they are asked for.
pub struct Answer {
    schema: SchemaRef,
    affected_count: Option<u64>,
    rows: BoxStream<'static, Result<RecordBatch>>,
    /// Its threads make the rows.
    database: Database,
}

impl Answer {
    /// The columns of the rows; none where the statement returns none.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Rows that the statement changed; `None` for queries and definitions.
    pub fn affected_count(&self) -> Option<u64> {
        self.affected_count
    }
}

impl Iterator for Answer {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        self.database.runtime().block_on(self.rows.next())
    }
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer").field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl Database {
    /// Runs one statement in a transaction of its own and waits for it; a query is read as its answer is. BEGIN and SET are
    /// errors, for they are about a session that lasts ([`Database::session`]), and so is a call from asynchronous code.
    ///
    /// ```
    /// use omendb::engine::{Engine, Options};
    /// use omendb::sql::{Database, SqlOptions};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let dir = tempfile::tempdir()?;
    /// let database = Database::new(Engine::open(dir.path(), Options::default())?, SqlOptions::default())?;
    /// database.sql("CREATE TABLE metrics (timestamp BIGINT PRIMARY KEY, value DOUBLE)")?;
    /// let inserted = database.sql("INSERT INTO metrics VALUES (1, 0.5), (2, 1.5)")?;
    /// assert_eq!(inserted.affected_count(), Some(2));
    /// for batch in database.sql("SELECT value FROM metrics WHERE timestamp > 1")? {
    ///     assert_eq!(batch?.num_rows(), 1);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn sql(&self, text: &str) -> Result<Answer> {
        if Handle::try_current().is_ok() {
            return Err(Error::new(
                Code::InvalidTransactionState,
                "Database::sql waits and must not be called from asynchronous code: use a session there",
            ));
        }
        let session = self.session();
        let (schema, affected_count, rows) = self.runtime().block_on(async {
            let statement = session.prepare(text).await?;
            if matches!(statement.statement, Statement::Control(_) | Statement::Set(_)) {
                return Err(Error::new(
                    Code::InvalidTransactionState,
                    "transactions and settings are those of a session, and Database::sql has none that lasts: use a session",
                ));
            }
            if statement.kind() == StatementKind::Query {
                let rows = session.query(&statement, None).await?;
                return Ok((rows.schema, None, rows.stream));
            }
            let outcome = session.execute(&statement, None).await?;
            let (schema, batches) =
                outcome.returned.unwrap_or_else(|| (Schema::empty().into(), Vec::new()));
            let rows = futures::stream::iter(batches.into_iter().map(Ok)).boxed();
            Ok::<_, Error>((schema, outcome.affected_count, rows))
        })?;
        Ok(Answer { schema, affected_count, rows, database: self.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Engine, Options};
    use crate::sql::SqlOptions;

    #[test]
    fn answers_outlive_the_database_and_session_statements_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::open(dir.path(), Options::default()).unwrap();
        let database = Database::new(engine, SqlOptions::default()).unwrap();
        assert_eq!(
            database.sql("CREATE TABLE t (k BIGINT PRIMARY KEY)").unwrap().affected_count(),
            None
        );
        let inserted = database.sql("INSERT INTO t VALUES (1), (2) RETURNING k").unwrap();
        assert_eq!((inserted.affected_count(), inserted.schema().fields().len()), (Some(2), 1));
        assert_eq!(inserted.map(|batch| batch.unwrap().num_rows()).sum::<usize>(), 2);
        for sql in ["BEGIN", "COMMIT", "SET time_zone = 'UTC'"] {
            assert_eq!(
                database.sql(sql).unwrap_err().code(),
                Code::InvalidTransactionState,
                "{sql}"
            );
        }
        // Planned, and so read on the database's own threads.
        let rows = database.sql("SELECT a.k FROM t a, t b ORDER BY a.k + b.k").unwrap();
        drop(database);
        assert_eq!(rows.map(|batch| batch.unwrap().num_rows()).sum::<usize>(), 4);
    }
}
