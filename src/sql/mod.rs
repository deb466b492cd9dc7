//! SQL over the engine: DataFusion parses, plans and executes queries; definitions (DDL) and changes
//! (DML) are compiled here to the engine's transactions.

mod admission;
mod allow;
mod balance;
mod cast;
mod clauses;
mod code;
mod context;
mod database;
mod ddl;
mod defaults;
mod definitions;
mod dialect;
mod dml;
mod embedded;
mod error;
mod explain;
mod ingest;
mod key_filter;
mod key_range;
mod limits;
mod memory;
mod modifier;
mod parameters;
mod parse;
mod planning;
mod prepared;
mod provider;
mod queries;
mod query;
mod rank;
mod reader;
mod room;
mod rules;
mod runtimes;
mod scan_exec;
mod script;
mod semantics;
mod session;
mod settings;
mod show;
mod system;
#[cfg(test)]
mod testing;
mod transaction;
mod types;
pub(crate) mod upkeep;
mod with_clause;
mod workers;

use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::stream::BoxStream;

pub use code::Code;
pub use database::Database;
pub use embedded::Answer;
pub use error::{Error, ErrorKind, Result};
pub use ingest::{Ingest, IngestMode, IngestRequest};
pub use memory::{Budget, Memory, Reservation, Sharer, Shares};
pub use prepared::Prepared;
pub use queries::{Query, RunningQuery};
pub use room::{Held, Room};
pub use session::{Meaning, Pinned, Session};
pub use transaction::{Reading, SavepointId, TransactionId, Within};

/// Limits of SQL execution.
#[derive(Debug, Clone)]
pub struct SqlOptions {
    /// What the memory is for.
    pub memory: Shares,
    /// Statements that run at once, at most; others wait.
    pub max_statements: usize,
    /// Bulk loads at once, at most; others wait.
    pub max_loads: usize,
    /// How long what finds no place or no room waits for it.
    pub queue_timeout: Duration,
    /// Bytes of one SQL text at most.
    pub max_sql_bytes: usize,
    /// Directory for what sorts and joins spill; `None` refuses to spill.
    pub spill_dir: Option<std::path::PathBuf>,
    /// Time that planning one statement may take.
    pub planning_timeout: Duration,
    /// Bytes of one value that a function makes, at most.
    pub max_value_bytes: usize,
}

impl Default for SqlOptions {
    fn default() -> Self {
        Self {
            memory: Shares::of(1 << 30),
            max_statements: 256,
            max_loads: 16,
            queue_timeout: Duration::from_secs(30),
            max_sql_bytes: 1 << 20,
            spill_dir: None,
            planning_timeout: Duration::from_secs(10),
            max_value_bytes: semantics::bounded::MAX_VALUE_BYTES,
        }
    }
}

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
    /// The room that was taken for them, where the statement was given some ([`Query::set_room`]).
    pub held: Option<Held>,
}

impl Outcome {
    /// A definition changed.
    pub(crate) fn definition() -> Self {
        Self { affected_count: None, returned: None, held: None }
    }

    /// Rows changed.
    pub(crate) fn affected(count: u64) -> Self {
        Self { affected_count: Some(count), returned: None, held: None }
    }
}
