//! Definitions: CREATE, ALTER and DROP, compiled to the engine's transactions.

use arrow::array::RecordBatch;
use datafusion::sql::sqlparser::ast;

use super::context::StatementContext;
use super::{Error, Outcome, Result};
use crate::engine::Transaction;

/// Runs one statement in `transaction`. Blocks; runs on a worker thread inside the runtime.
pub(crate) fn execute(
    _context: &StatementContext,
    _transaction: &mut Transaction,
    _statement: &ast::Statement,
    _parameters: Option<&RecordBatch>,
) -> Result<Outcome> {
    Err(Error::unsupported("definitions are not supported yet"))
}
