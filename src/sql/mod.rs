//! SQL over the engine: DataFusion parses, plans and executes queries; definitions (DDL) and changes
//! (DML) are compiled here to the engine's transactions.

mod error;

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::stream::BoxStream;

pub use error::{Error, ErrorKind, Result};

use crate::engine::{Engine, OnConflict, TableName, WriteResult};

/// Limits of SQL execution.
#[derive(Debug, Clone)]
pub struct SqlOptions {
    /// Memory for sorts, joins and aggregates of all queries together, in bytes.
    pub query_memory_bytes: usize,
    /// Bytes of one SQL text at most.
    pub max_sql_bytes: usize,
    /// Directory for what sorts and joins spill; `None` refuses to spill.
    pub spill_dir: Option<std::path::PathBuf>,
    /// Time that planning one statement may take.
    pub planning_timeout: Duration,
}

impl Default for SqlOptions {
    fn default() -> Self {
        Self {
            query_memory_bytes: 256 << 20,
            max_sql_bytes: 1 << 20,
            spill_dir: None,
            planning_timeout: Duration::from_secs(10),
        }
    }
}

/// A database that understands SQL. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Database {}

impl Database {
    /// SQL over `engine`.
    pub fn new(_engine: Engine, _options: SqlOptions) -> Result<Self> {
        todo!()
    }

    /// The engine below.
    pub fn engine(&self) -> &Engine {
        todo!()
    }

    /// A new session with default settings.
    pub fn session(&self) -> Session {
        todo!()
    }
}

/// What one client has set, and (later) its open transaction. Calls may come from several tasks at once.
#[derive(Debug)]
pub struct Session {}

/// What a statement does, as far as a client must know before it runs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatementKind {
    /// Returns rows and changes nothing: SELECT, SHOW, DESCRIBE, EXPLAIN.
    Query,
    /// Changes rows: INSERT, UPDATE, DELETE, TRUNCATE. With RETURNING it also returns rows.
    Update,
    /// Changes definitions, or the session.
    Definition,
}

/// A parsed and checked statement. Holds no snapshot: it is planned anew on each execution's snapshot
/// (the logical plan may be cached while the tables' versions stay).
#[derive(Debug, Clone)]
pub struct Prepared {}

impl Prepared {
    /// The SQL text.
    pub fn sql(&self) -> &str {
        todo!()
    }

    /// What it does.
    pub fn kind(&self) -> StatementKind {
        todo!()
    }

    /// The schema of the rows it returns; empty where it returns none. Equal to the stream's schema, nullability included.
    pub fn schema(&self) -> SchemaRef {
        todo!()
    }

    /// A field for each parameter, named "$1", "$2", ... (`?` counts up). A type that cannot be inferred is Utf8.
    pub fn parameters(&self) -> SchemaRef {
        todo!()
    }
}

/// Rows that come as they are asked for.
pub struct Rows {
    /// The schema of the batches.
    pub schema: SchemaRef,
    /// The batches. Dropping it stops the work.
    pub stream: BoxStream<'static, Result<RecordBatch>>,
}

/// What a statement that changes something did.
pub struct Outcome {
    /// Rows changed; `None` for definitions.
    pub affected_count: Option<u64>,
    /// The rows of RETURNING.
    pub returned: Option<(SchemaRef, Vec<RecordBatch>)>,
}

impl Session {
    /// The database.
    pub fn database(&self) -> &Database {
        todo!()
    }

    /// Parses and checks one statement. More than one is an error that says so.
    pub async fn prepare(&self, _sql: &str) -> Result<Arc<Prepared>> {
        todo!()
    }

    /// Runs a [`StatementKind::Query`] on the snapshot of this moment. `parameters` has one column for each
    /// parameter, by position; with several rows, the answer has the rows of every binding. Planning and row production run off the
    /// async threads.
    pub async fn query(
        &self,
        _statement: &Prepared,
        _parameters: Option<&RecordBatch>,
    ) -> Result<Rows> {
        todo!()
    }

    /// Runs a statement that changes something, once: for every row of `parameters`, all in one transaction.
    /// Conflicts with other transactions are retried.
    pub async fn execute(
        &self,
        _statement: &Prepared,
        _parameters: Option<&RecordBatch>,
    ) -> Result<Outcome> {
        todo!()
    }

    /// Runs the statements of a script, in one transaction; the affected rows are their sum. A
    /// query among them runs and its rows are dropped.
    pub async fn execute_script(&self, _sql: &str) -> Result<Outcome> {
        todo!()
    }

    /// Begins a bulk load.
    pub async fn ingest(&self, _request: IngestRequest) -> Result<Ingest> {
        todo!()
    }
}

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
pub struct Ingest {}

impl Ingest {
    /// Adds a batch: columns are matched by name, cast where that loses nothing. Blocks.
    pub fn push(&mut self, _batch: &RecordBatch) -> Result<()> {
        todo!()
    }

    /// Commits: when this returns, the rows are durable, visible and indexed. Blocks.
    pub fn finish(self) -> Result<WriteResult> {
        todo!()
    }
}
