//! Bulk loads: Arrow batches pushed into a table in one transaction.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use super::context::StatementContext;
use super::error::Result;
use crate::engine::{OnConflict, TableName, WriteResult};

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
    /// Begins a load. Blocks.
    pub(crate) fn begin(_context: &StatementContext, _request: IngestRequest) -> Result<Self> {
        todo!()
    }

    /// Adds a batch: columns are matched by name, cast where that loses nothing. Blocks.
    pub fn push(&mut self, _batch: &RecordBatch) -> Result<()> {
        todo!()
    }

    /// Commits: when this returns, the rows are durable, visible and indexed. Blocks.
    pub fn finish(self) -> Result<WriteResult> {
        todo!()
    }
}
