//! UPDATE and DELETE of one row by its primary key, for many bindings at once: what `executemany` sends.
//!
//! Planning such a statement for every binding takes longer than running it. Here the keys of all bindings are looked up
//! together, and parameters in SET are columns beside the rows that were found.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Field, Schema};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, TableReference};
use datafusion::logical_expr::Expr;
use datafusion::sql::sqlparser::ast;

use super::evaluate::{Evaluator, is_subquery, wanted_types};
use super::on_conflict::distinct_prefix;
use super::row_source::Target;
use super::{assignments, set_value};
use crate::engine::{self, KeyColumn, KeyKind, OnConflict, RowAddress, TableSnapshot, Transaction};
use crate::sql::cast::{BatchCaster, CastPolicy, cast_array};
use crate::sql::context::{PlanContext, StatementContext, fold};
use crate::sql::{Error, Result};

/// The relation that parameters are columns of.
const PARAMETERS: &str = "__omendb_parameters";

/// The bindings of a statement that finds one row by its key.
pub(super) struct KeyBindings {
    /// Bindings whose key is not NULL: one that is NULL finds nothing.
    bindings: RecordBatch,
    /// Their keys.
    keys: Vec<ArrayRef>,
}

impl KeyBindings {
    /// Whether `selection` is an equation of a parameter for each key column and nothing else, and the
    /// parameters are keys.
    pub(super) fn new(
        target: &Target,
        selection: Option<&ast::Expr>,
        parameters: Option<&RecordBatch>,
    ) -> Option<Self> {
        let parameters = parameters.filter(|p| p.num_rows() > 1)?;
        let meta = target.table.meta();
        if meta.key_kind != KeyKind::Primary {
            return None;
        }
        let key = meta.key_indices();
        let mut found: Vec<Option<usize>> = vec![None; key.len()];
        equations(target, selection?, &mut |column, parameter| {
            let place = key.iter().position(|k| *meta.columns[*k].field.name() == column)?;
            found[place].replace(parameter).is_none().then_some(())
        })?;
        let found = found.into_iter().collect::<Option<Vec<_>>>()?;
        let columns: Vec<&ArrayRef> =
            found.iter().map(|p| parameters.columns().get(*p)).collect::<Option<_>>()?;
        let valid: BooleanArray = (0..parameters.num_rows())
            .map(|row| Some(columns.iter().all(|c| c.is_valid(row))))
            .collect();
        let bindings = if valid.true_count() == valid.len() {
            parameters.clone()
        } else {
            filter_record_batch(parameters, &valid).ok()?
        };
        let keys = key
            .iter()
            .zip(&found)
            .map(|(column, parameter)| {
                let data_type = meta.columns[*column].field.data_type();
                cast_array(bindings.column(*parameter), data_type, CastPolicy::Lossless).ok()
            })
            .collect::<Option<Vec<_>>>()?;
        // A value that is no key (NaN) is left to the planner, too.
        target.table.codec().encode(&keys).ok()?;
        Some(Self { bindings, keys })
    }

    fn encode(&self, table: &TableSnapshot, start: usize, length: usize) -> Result<KeyColumn> {
        let keys: Vec<ArrayRef> = self.keys.iter().map(|k| k.slice(start, length)).collect();
        Ok(table.codec().encode(&keys)?)
    }

    /// Deletes the rows. Says how many there were.
    pub(super) fn delete(&self, target: &Target, transaction: &mut Transaction) -> Result<u64> {
        let keys = self.encode(&target.table, 0, self.bindings.num_rows())?;
        let mut rows: Vec<RowAddress> = target.table.locate(&keys)?.into_iter().flatten().collect();
        rows.sort_unstable();
        rows.dedup();
        let mut write = transaction.write(target.table.id(), OnConflict::Error)?;
        write.delete(&rows)?;
        transaction.apply(write)?;
        Ok(rows.len() as u64)
    }

    /// Updates the rows, each binding on what those before it left. Says how many rows it were, or `None`
    /// where SET has to be planned.
    pub(super) fn update(
        &self,
        context: &StatementContext,
        transaction: &mut Transaction,
        target: &Target,
        set: &[ast::Assignment],
    ) -> Result<Option<u64>> {
        let plan_context = context.plan_context(&transaction.snapshot());
        let Some(evaluator) = self.evaluator(&plan_context, target, set)? else {
            return Ok(None);
        };
        let id = target.table.id();
        let meta = target.table.meta();
        let all: Vec<usize> = (0..meta.columns.len()).collect();
        let mut caster = BatchCaster::by_position(meta, &all, CastPolicy::Assign, |_| {
            Err(Error::internal("every column of an updated row is given"))
        })?;
        let keys = self.encode(&target.table, 0, self.bindings.num_rows())?;
        let (mut start, mut count) = (0, 0);
        while start < self.bindings.num_rows() {
            let length = distinct_prefix(&keys, start);
            let mut write = transaction.write(id, OnConflict::Error)?;
            let table = write.table().clone();
            let found = table.locate(&self.encode(&table, start, length)?)?;
            let mask: BooleanArray = found.iter().map(|a| Some(a.is_some())).collect();
            let rows: Vec<RowAddress> = found.into_iter().flatten().collect();
            let bound = filter_record_batch(&self.bindings.slice(start, length), &mask)
                .map_err(engine::Error::from)?;
            let old = table.take(&rows, None)?;
            let values = evaluator.columns(&beside(&old, &bound)?)?;
            write.delete(&rows)?;
            write.insert(&caster.cast_columns(&values, rows.len())?)?;
            transaction.apply(write)?;
            count += rows.len() as u64;
            start += length;
        }
        Ok(Some(count))
    }

    /// The new value of every column, over the old row and the parameters.
    fn evaluator(
        &self,
        context: &PlanContext,
        target: &Target,
        set: &[ast::Assignment],
    ) -> Result<Option<Evaluator>> {
        let row = target.df_schema()?;
        let parameters = DFSchema::try_from_qualified_schema(
            TableReference::bare(PARAMETERS),
            &parameter_schema(&self.bindings),
        )?;
        let input = row.join(&parameters)?;
        let meta = target.table.meta();
        let mut named: Vec<(Expr, String)> = row
            .iter()
            .map(|(qualifier, field)| (Expr::from((qualifier, field)), field.name().clone()))
            .collect();
        for (column, value) in assignments(&target.table, set)? {
            // A key that changes may be that of another binding.
            if meta.key_indices().contains(&column) {
                return Ok(None);
            }
            let value = set_value(&target.table, column, value)?;
            let planned = context.expression(&value, &row)?;
            let typed = wanted_types(&planned, &row)?.iter().all(|(name, data_type)| {
                parameters.index_of_column_by_name(None, name).is_none_or(|i| {
                    let given = parameters.field(i).data_type();
                    given == data_type || given.is_null()
                })
            });
            if !typed || planned.exists(|e| Ok(is_subquery(e)))? {
                return Ok(None);
            }
            named[column].0 = planned
                .transform_up(|e| {
                    Ok(match e {
                        Expr::Placeholder(parameter) => Transformed::yes(Expr::Column(
                            Column::new(Some(TableReference::bare(PARAMETERS)), parameter.id),
                        )),
                        other => Transformed::no(other),
                    })
                })?
                .data;
        }
        Evaluator::compile(context, named, &input, None, "UPDATE").map(Some)
    }
}

fn parameter_schema(bindings: &RecordBatch) -> Schema {
    let fields = bindings.columns().iter().enumerate();
    Schema::new(
        fields
            .map(|(i, c)| Field::new(format!("${}", i + 1), c.data_type().clone(), true))
            .collect::<Vec<_>>(),
    )
}

/// The columns of two batches of equally many rows.
fn beside(rows: &RecordBatch, bound: &RecordBatch) -> Result<RecordBatch> {
    let columns = rows.columns().iter().chain(bound.columns()).cloned().collect();
    let fields: Vec<_> =
        rows.schema().fields().iter().chain(parameter_schema(bound).fields()).cloned().collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
        .map_err(|e| engine::Error::from(e).into())
}

/// Tells `found` of every `column = $n` of a conjunction; `None` where it is anything else.
fn equations(
    target: &Target,
    expression: &ast::Expr,
    found: &mut dyn FnMut(String, usize) -> Option<()>,
) -> Option<()> {
    match expression {
        ast::Expr::Nested(inner) => equations(target, inner, found),
        ast::Expr::BinaryOp { left, op: ast::BinaryOperator::And, right } => {
            equations(target, left, found)?;
            equations(target, right, found)
        }
        ast::Expr::BinaryOp { left, op: ast::BinaryOperator::Eq, right } => {
            match (parameter(left), parameter(right)) {
                (None, Some(n)) => found(column(target, left)?, n),
                (Some(n), None) => found(column(target, right)?, n),
                _ => None,
            }
        }
        _ => None,
    }
}

fn parameter(expression: &ast::Expr) -> Option<usize> {
    let ast::Expr::Value(value) = expression else { return None };
    let ast::Value::Placeholder(name) = &value.value else { return None };
    name.strip_prefix('$')?.parse::<usize>().ok()?.checked_sub(1)
}

fn column(target: &Target, expression: &ast::Expr) -> Option<String> {
    match expression {
        ast::Expr::Identifier(name) => Some(fold(name)),
        ast::Expr::CompoundIdentifier(parts) => match parts.as_slice() {
            [table, name] if fold(table) == target.qualifier.table() => Some(fold(name)),
            _ => None,
        },
        _ => None,
    }
}
