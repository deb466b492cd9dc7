//! Bulk loads: Arrow batches pushed into a table in one transaction.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::parser::Parser;

use super::admission::Place;
use super::cast::{BatchCaster, CastPolicy, storable_schema};
use super::code::Code;
use super::context::StatementContext;
use super::dialect::OmenDialect;
use super::error::{Error, Result};
use super::queries::{Query, RunningQuery};
use super::transaction::Turn;
use super::{ddl, defaults, dml};
use crate::engine::{
    self, KeyKind, KeySpec, OnConflict, TableName, TableSnapshot, Transaction, Write, WriteResult,
};

/// Schema metadata that names the primary key of a table to be created.
const PRIMARY_KEY: &str = "primary_key";

/// Schema metadata that names the clustering key of a table to be created.
const CLUSTER_BY: &str = "cluster_by";

/// What to do where the target of a load exists or does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IngestMode {
    /// The table must not exist and is created.
    Create,
    /// The table must exist.
    Append,
    /// The table is dropped, if it exists, and created.
    Replace,
    /// The table is created if it does not exist.
    CreateAppend,
}

/// A bulk load to begin.
#[derive(Debug, Clone)]
pub struct IngestRequest {
    /// The table.
    pub table: TableName,
    /// What to do where it exists or does not.
    pub mode: IngestMode,
    /// What to do with rows whose key exists.
    pub on_conflict: OnConflict,
    /// The schema of the batches to come. Its metadata `primary_key` or `cluster_by` (column names, separated
    /// by commas) names the key of a table to be created.
    pub schema: SchemaRef,
}

/// A bulk load: batches are pushed from a blocking thread. Dropped, it leaves nothing.
#[derive(Debug)]
pub struct Ingest {
    within: Within,
    rows: Loading,
    running: RunningQuery,
    _place: Place,
}

/// The transaction of a load.
#[derive(Debug)]
enum Within {
    /// Its own.
    Own(Transaction),
    /// The session's.
    Joined(Turn),
}

/// The rows of a load, on their way into the table.
#[derive(Debug)]
struct Loading {
    write: Write,
    caster: BatchCaster,
    schema: SchemaRef,
}

impl Ingest {
    /// Begins a load. Blocks.
    pub(crate) fn begin(
        context: &StatementContext,
        running: RunningQuery,
        place: Place,
        request: IngestRequest,
    ) -> Result<Self> {
        let mut transaction = context.database.engine().begin()?;
        let rows = Loading::begin(context, &mut transaction, request)?;
        Ok(Self { within: Within::Own(transaction), rows, running, _place: place })
    }

    /// Begins a load that is part of the session's transaction. Blocks.
    pub(crate) fn join(
        context: &StatementContext,
        running: RunningQuery,
        place: Place,
        mut turn: Turn,
        request: IngestRequest,
    ) -> Result<Self> {
        let begun = turn.transaction().and_then(|t| Loading::begin(context, t, request));
        match begun {
            Ok(rows) => {
                turn.fail(&Error::data("a load broke off"));
                Ok(Self { within: Within::Joined(turn), rows, running, _place: place })
            }
            Err(e) => {
                turn.fail(&e);
                Err(e)
            }
        }
    }

    /// The load as it is listed: it may be stopped.
    pub fn query(&self) -> &Arc<Query> {
        self.running.query()
    }

    /// Adds a batch: columns are matched by name, cast where that loses nothing. Blocks.
    pub fn push(&mut self, batch: &RecordBatch) -> Result<()> {
        let query = self.running.query();
        query.read(batch.num_rows());
        let pushed = query.check().and_then(|()| self.rows.push(batch));
        if let (Err(e), Within::Joined(turn)) = (&pushed, &mut self.within) {
            turn.fail(e);
        }
        pushed
    }

    /// Commits: when this returns, the rows are durable, visible and indexed. In the session's transaction they are
    /// visible there. Blocks.
    ///
    /// The rows are gone once they are pushed, so a conflict with another transaction is not tried again but
    /// returned: the load left nothing, and the caller may send it anew.
    pub fn finish(self) -> Result<WriteResult> {
        let write = self.rows.write;
        let query = self.running.query();
        match self.within {
            Within::Own(mut transaction) => {
                let result = transaction.apply(write)?;
                query.begin_commit()?;
                transaction.commit()?;
                Ok(result)
            }
            Within::Joined(mut turn) => {
                let result = turn
                    .transaction()
                    .and_then(|t| Ok(t.apply(write)?))
                    .and_then(|result| query.begin_commit().map(|()| result));
                match &result {
                    Ok(_) => turn.keep(),
                    Err(e) => turn.fail(e),
                }
                result
            }
        }
    }
}

impl Loading {
    fn begin(
        context: &StatementContext,
        transaction: &mut Transaction,
        request: IngestRequest,
    ) -> Result<Self> {
        let id = target(context, transaction, &request)?;
        let write = transaction.write(id, request.on_conflict)?;
        let plan_context = context.plan_context(&transaction.snapshot());
        let meta = write.table().meta();
        let caster = BatchCaster::by_name(meta, &request.schema, CastPolicy::Lossless, |column| {
            defaults::column_default(&plan_context, meta, column)
        });
        let caster = caster.map_err(|e| match (request.mode, e.code()) {
            // Whoever would have made the table learns that there is another one, as ADBC says.
            (IngestMode::CreateAppend, Code::UndefinedColumn) => Error::new(
                Code::DuplicateTable,
                format!("the table exists and has other columns than the load: {e}"),
            ),
            _ => e,
        })?;
        Ok(Self { write, caster, schema: request.schema })
    }

    fn push(&mut self, batch: &RecordBatch) -> Result<()> {
        let given = batch.schema();
        let same = given.fields().len() == self.schema.fields().len()
            && given.fields().iter().zip(self.schema.fields()).all(|(a, b)| a.name() == b.name());
        if !same {
            return Err(Error::data(
                "a batch of the load has other columns than the schema it began with",
            ));
        }
        let write = &mut self.write;
        self.caster.cast_each(batch, |piece| Ok(write.insert(&piece)?))
    }
}

/// Finds or makes the table of a load.
fn target(
    context: &StatementContext,
    transaction: &mut Transaction,
    request: &IngestRequest,
) -> Result<engine::TableId> {
    let plan_context = context.plan_context(&transaction.snapshot());
    let existing = plan_context.snapshot().table(&request.table);
    let key = key_of(&request.schema)?;
    match (request.mode, existing) {
        (IngestMode::Append | IngestMode::CreateAppend, Some(table)) => {
            check_key(&table, key.as_ref())?;
            Ok(table.id())
        }
        // Says that there is none, or that it is a view.
        (IngestMode::Append, None) => Ok(dml::table(&plan_context, &request.table)?.id()),
        (mode, existing) => {
            if let (IngestMode::Replace, Some(table)) = (mode, existing) {
                transaction.drop_table(table.id())?;
            }
            let schema = storable_schema(&request.schema)?;
            ddl::check_column_names(&schema)?;
            let key = key.unwrap_or_else(KeySpec::row_id);
            Ok(transaction.create_table(&request.table, &schema, &key)?)
        }
    }
}

/// The key that schema metadata names.
fn key_of(schema: &Schema) -> Result<Option<KeySpec>> {
    let metadata = schema.metadata();
    match (metadata.get(PRIMARY_KEY), metadata.get(CLUSTER_BY)) {
        (None, None) => Ok(None),
        (Some(columns), None) => column_list(PRIMARY_KEY, columns).map(KeySpec::primary).map(Some),
        (None, Some(columns)) => column_list(CLUSTER_BY, columns).map(KeySpec::cluster).map(Some),
        (Some(_), Some(_)) => Err(Error::data(format!(
            "the schema's metadata has both {PRIMARY_KEY} and {CLUSTER_BY}; a table has one key"
        ))),
    }
}

/// Column names separated by commas. They keep their case, quoted or not, as ingested columns do.
fn column_list(what: &str, text: &str) -> Result<Vec<String>> {
    let bad = || {
        Error::data(format!(
            "the schema's metadata {what} is \"{text}\", and not a list of column names with commas between"
        ))
    };
    if !text.contains('"') {
        let names: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
        return if names.iter().any(String::is_empty) { Err(bad()) } else { Ok(names) };
    }
    let mut parser = Parser::new(&OmenDialect).try_with_sql(text).map_err(|_| bad())?;
    let names: Vec<ast::Ident> =
        parser.parse_comma_separated(Parser::parse_identifier).map_err(|_| bad())?;
    Ok(names.into_iter().map(|name| name.value).collect())
}

/// Checks that a key that a load names is the one of the table that exists.
fn check_key(table: &TableSnapshot, wanted: Option<&KeySpec>) -> Result<()> {
    let Some(wanted) = wanted else { return Ok(()) };
    let meta = table.meta();
    let columns: Vec<&str> =
        meta.key_indices().iter().map(|i| meta.columns[*i].field.name().as_str()).collect();
    if wanted.kind == meta.key_kind && wanted.columns == columns {
        return Ok(());
    }
    let is = match meta.key_kind {
        KeyKind::Primary => format!("has the primary key ({})", columns.join(", ")),
        KeyKind::Cluster => format!("is clustered by ({})", columns.join(", ")),
        KeyKind::RowId => "has no key".to_owned(),
    };
    Err(engine::Error::invalid(format!(
        "the load names another key than that of table {}, which {is}",
        meta.name
    ))
    .into())
}

#[cfg(test)]
mod tests;
