//! Changes of rows: INSERT, UPDATE, DELETE, TRUNCATE, compiled to the engine's transactions.

use arrow::array::RecordBatch;
use datafusion::sql::sqlparser::ast;

use super::context::{Description, PlanContext, StatementContext};
use super::{Error, Outcome, Result};
use crate::engine::Transaction;

/// The rows that a statement returns and the parameters it takes. Blocks; executes nothing.
pub(crate) fn describe(_context: &PlanContext, _statement: &ast::Statement) -> Result<Description> {
    Ok(Description::default())
}

/// Runs one statement in `transaction`, for every row of `parameters`. Blocks; runs on a worker thread
/// inside the runtime.
pub(crate) fn execute(
    _context: &StatementContext,
    _transaction: &mut Transaction,
    _statement: &ast::Statement,
    _parameters: Option<&RecordBatch>,
) -> Result<Outcome> {
    Err(Error::unsupported("changes of rows are not supported yet"))
}
