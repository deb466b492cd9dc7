//! SQL as files of statements and their answers (`tests/slt/*.slt`), each on a fresh database, and the
//! statements of the page on SQL.

use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::TryStreamExt;
use omendb::engine::{Engine, Options};
use omendb::sql::{Database, Error, Session, SqlOptions, StatementKind};
use sqllogictest::{DBOutput, DefaultColumnType, Runner};

/// A session on a database of its own.
struct Connection {
    session: Session,
    database: Database,
    _dir: tempfile::TempDir,
}

impl Connection {
    fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::open(dir.path(), Options::default()).unwrap();
        let database = Database::new(engine, SqlOptions::default()).unwrap();
        Self { session: database.session(), database, _dir: dir }
    }

    async fn execute(&self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Error> {
        // Some files ask what is stored: the memtable is written out first.
        if sql.trim() == "-- flush" {
            self.database.engine().flush(None)?;
            return Ok(DBOutput::StatementComplete(0));
        }
        let statement = self.session.prepare(sql).await?;
        if statement.kind() != StatementKind::Query {
            let outcome = self.session.execute(&statement, None).await?;
            if let Some((_, batches)) = outcome.returned {
                return Ok(rows(statement.schema().fields().len(), &batches));
            }
            return Ok(DBOutput::StatementComplete(outcome.affected_count.unwrap_or(0)));
        }
        let answer = self.session.query(&statement, None).await?;
        assert_eq!(answer.schema, statement.schema(), "announced schema of {sql}");
        let batches: Vec<RecordBatch> = answer.stream.try_collect().await?;
        for batch in &batches {
            assert_eq!(batch.schema(), statement.schema(), "schema of {sql}");
        }
        Ok(rows(statement.schema().fields().len(), &batches))
    }
}

fn rows(columns: usize, batches: &[RecordBatch]) -> DBOutput<DefaultColumnType> {
    let options = FormatOptions::default().with_null("NULL");
    let mut rows = Vec::new();
    for batch in batches {
        let formatters: Vec<ArrayFormatter<'_>> = batch
            .columns()
            .iter()
            .map(|c| ArrayFormatter::try_new(c.as_ref(), &options).unwrap())
            .collect();
        for row in 0..batch.num_rows() {
            let text = formatters.iter().map(|f| match f.value(row).to_string() {
                empty if empty.is_empty() => "(empty)".to_owned(),
                // A plan's lines, each fed by the next.
                text => text.trim_end().lines().map(str::trim).collect::<Vec<_>>().join(" <- "),
            });
            rows.push(text.collect());
        }
    }
    DBOutput::Rows { types: vec![DefaultColumnType::Any; columns], rows }
}

#[async_trait::async_trait]
impl sqllogictest::AsyncDB for Connection {
    type Error = Error;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Error> {
        self.execute(sql).await
    }

    async fn shutdown(&mut self) {}

    fn engine_name(&self) -> &str {
        "omendb"
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// `SLT=name` runs one file.
#[test]
fn files() {
    let only = std::env::var("SLT").ok();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slt");
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let runtime = runtime();
    let mut failures = Vec::new();
    for path in paths {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        if path.extension().is_none_or(|e| e != "slt") || only.as_ref().is_some_and(|o| *o != name)
        {
            continue;
        }
        let result = runtime.block_on(async {
            let mut runner = Runner::new(|| async { Ok(Connection::open()) });
            runner.run_file_async(&path).await
        });
        if let Err(e) = result {
            failures.push(format!("{name}: {e}"));
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n\n"));
}

/// The statements of `docs/sql.md` run as they stand there, in order.
#[test]
fn page() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/sql.md");
    let page = std::fs::read_to_string(page).unwrap();
    let connection = Connection::open();
    let runtime = runtime();
    let mut sql = false;
    let mut statement = String::new();
    for line in page.lines() {
        match line.trim() {
            "```sql" => sql = true,
            "```" => sql = false,
            text if sql => {
                statement.push_str(text);
                statement.push('\n');
                if text.ends_with(';') {
                    let result = runtime.block_on(connection.execute(&statement));
                    assert!(result.is_ok(), "{statement}: {}", result.err().unwrap());
                    statement.clear();
                }
            }
            _ => {}
        }
    }
    assert!(statement.trim().is_empty(), "not ended: {statement}");
}
