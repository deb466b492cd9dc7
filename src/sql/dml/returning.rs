//! RETURNING: expressions over the rows that a statement has changed.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::{DFSchema, ParamValues, TableReference};
use datafusion::logical_expr::Expr;
use datafusion::sql::sqlparser::ast;

use super::evaluate::Evaluator;
use crate::engine::size;
use crate::sql::context::{PlanContext, fold};
use crate::sql::room::Held;
use crate::sql::semantics::names::name_of;
use crate::sql::{Error, Outcome, Result};

/// The rows of a RETURNING clause.
#[derive(Debug)]
pub(super) struct Returning {
    evaluator: Evaluator,
    batches: Vec<RecordBatch>,
    /// Room for the batches, where whoever runs the statement wants to know of it.
    held: Option<Held>,
}

impl Returning {
    /// Compiles a clause over the columns of `input`.
    pub(super) fn compile(
        context: &PlanContext,
        items: &[ast::SelectItem],
        input: &DFSchema,
        parameters: Option<&ParamValues>,
    ) -> Result<Self> {
        let mut named = Vec::new();
        for item in items {
            match item {
                ast::SelectItem::Wildcard(options) => {
                    plain(options)?;
                    named.extend(columns(input, |_| true));
                }
                ast::SelectItem::QualifiedWildcard(
                    ast::SelectItemQualifiedWildcardKind::ObjectName(name),
                    options,
                ) => {
                    plain(options)?;
                    let wanted = reference(name)?;
                    let before = named.len();
                    named.extend(columns(input, |q| q.is_some_and(|q| q.resolved_eq(&wanted))));
                    if named.len() == before {
                        return Err(Error::data(format!(
                            "RETURNING: there is no table \"{name}\""
                        )));
                    }
                }
                ast::SelectItem::UnnamedExpr(expression) => {
                    let planned = context.expression(expression, input)?;
                    let name = name_of(expression);
                    named.push((planned, name));
                }
                ast::SelectItem::ExprWithAlias { expr, alias } => {
                    named.push((context.expression(expr, input)?, fold(alias)));
                }
                other => {
                    return Err(Error::unsupported(format!("RETURNING {other} is not supported")));
                }
            }
        }
        let evaluator = Evaluator::compile(context, named, input, parameters, "RETURNING")?;
        let room = context.statement().query.as_ref().and_then(|query| query.room());
        Ok(Self { evaluator, batches: Vec::new(), held: room.map(Held::new) })
    }

    /// The schema of the rows.
    pub(super) fn schema(&self) -> &SchemaRef {
        self.evaluator.schema()
    }

    /// Adds changed rows.
    pub(super) fn push(&mut self, rows: &RecordBatch) -> Result<()> {
        if rows.num_rows() > 0 {
            let batch = compact(self.evaluator.batch(rows)?)?;
            if let Some(held) = &mut self.held {
                held.take(batch.get_array_memory_size())?;
            }
            self.batches.push(batch);
        }
        Ok(())
    }

    /// Adds the rows of another run of the same clause.
    pub(super) fn finish(returning: Option<Self>, affected: u64) -> Outcome {
        let mut outcome = Outcome::affected(affected);
        if let Some(returning) = returning {
            outcome.returned = Some((returning.evaluator.schema().clone(), returning.batches));
            outcome.held = returning.held;
        }
        outcome
    }
}

/// The rows in buffers of their own, where they are a small part of larger ones: kept, they would keep those.
fn compact(batch: RecordBatch) -> Result<RecordBatch> {
    let all = UInt32Array::from_iter_values(0..batch.num_rows() as u32);
    let own = |column: &ArrayRef| -> Result<ArrayRef> {
        let needed = size::written_bytes(column.as_ref());
        if column.get_array_memory_size() as u64 <= needed.saturating_mul(2).saturating_add(4096) {
            return Ok(Arc::clone(column));
        }
        Ok(match column.data_type() {
            DataType::Utf8View => Arc::new(column.as_string_view().gc()),
            DataType::BinaryView => Arc::new(column.as_binary_view().gc()),
            _ => take(column, &all, None)?,
        })
    };
    let columns = batch.columns().iter().map(own).collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(batch.schema(), columns, &options)?)
}

fn plain(options: &ast::WildcardAdditionalOptions) -> Result<()> {
    if options.to_string().is_empty() {
        return Ok(());
    }
    Err(Error::unsupported(format!("RETURNING *{options} is not supported")))
}

fn columns(
    input: &DFSchema,
    wanted: impl Fn(Option<&TableReference>) -> bool,
) -> Vec<(Expr, String)> {
    input
        .iter()
        .filter(|(qualifier, _)| wanted(*qualifier))
        .map(|(qualifier, field)| (Expr::from((qualifier, field)), field.name().clone()))
        .collect()
}

fn reference(name: &ast::ObjectName) -> Result<TableReference> {
    let parts: Option<Vec<String>> = name.0.iter().map(|part| part.as_ident().map(fold)).collect();
    match parts.as_deref() {
        Some([table]) => Ok(TableReference::bare(table.as_str())),
        Some([schema, table]) => Ok(TableReference::partial(schema.as_str(), table.as_str())),
        _ => Err(Error::unsupported(format!("RETURNING {name}.* is not supported"))),
    }
}
