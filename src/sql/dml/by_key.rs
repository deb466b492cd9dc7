//! UPDATE and DELETE of one row by its primary key, for one binding or many at once (`executemany`).
//!
//! Planning such a statement takes longer than running it. Here the keys of all bindings are looked up
//! together, and parameters in SET are columns beside the rows that were found.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions, StringArray,
};
use arrow::compute::{filter, filter_record_batch};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, TableReference};
use datafusion::logical_expr::Expr;
use datafusion::sql::sqlparser::ast;

use super::evaluate::{Evaluator, is_subquery, wanted_types};
use super::on_conflict::distinct_prefix;
use super::row_source::Target;
use super::values::{Cell, plain_cell};
use super::{assignments, set_value};
use crate::engine::{self, KeyColumn, KeyKind, OnConflict, RowAddress, TableSnapshot, Transaction};
use crate::sql::cast::{BatchCaster, CastPolicy};
use crate::sql::context::{PlanContext, StatementContext, fold};
use crate::sql::semantics::floats::canonical_batch;
use crate::sql::semantics::time_zone::TimeZone;
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
    /// Whether `selection` is an equation of each key column with a parameter or a literal and nothing else, and these
    /// are keys.
    pub(super) fn new(
        target: &Target,
        selection: Option<&ast::Expr>,
        parameters: Option<&RecordBatch>,
        zone: &TimeZone,
    ) -> Option<Self> {
        let meta = target.table.meta();
        if meta.key_kind != KeyKind::Primary {
            return None;
        }
        let key = meta.key_indices();
        let mut found: Vec<Option<Cell>> = vec![None; key.len()];
        equations(target, selection?, &mut |column, cell| {
            let place = key.iter().position(|k| *meta.columns[*k].field.name() == column)?;
            found[place].replace(cell).is_none().then_some(())
        })?;
        let none = RecordBatchOptions::new().with_row_count(Some(1));
        let one =
            RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &none).ok()?;
        let parameters = parameters.unwrap_or(&one);
        let given = key
            .iter()
            .zip(found)
            .map(|(column, cell)| {
                key_values(&cell?, meta.columns[*column].field.data_type(), parameters)
            })
            .collect::<Option<Vec<_>>>()?;
        let valid: BooleanArray = (0..parameters.num_rows())
            .map(|row| Some(given.iter().all(|c| !c.data_type().is_null() && c.is_valid(row))))
            .collect();
        let all = valid.true_count() == valid.len();
        let keys = key
            .iter()
            .zip(&given)
            .map(|(column, given)| {
                let data_type = meta.columns[*column].field.data_type();
                let given = if all { Arc::clone(given) } else { filter(given, &valid).ok()? };
                zone.cast_array(&given, data_type, CastPolicy::Lossless).ok()
            })
            .collect::<Option<Vec<_>>>()?;
        let bindings = match all {
            true => parameters.clone(),
            false => filter_record_batch(parameters, &valid).ok()?,
        };
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
        })?
        .in_zone(context.settings.zone());
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
            let old = canonical_batch(table.take(&rows, None)?)?;
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
                    given == data_type
                        || given.is_null()
                        || (given.is_numeric() && data_type.is_numeric())
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

/// What a key column is compared with, for every binding.
fn key_values(cell: &Cell, data_type: &DataType, parameters: &RecordBatch) -> Option<ArrayRef> {
    let count = parameters.num_rows();
    match cell {
        Cell::Parameter(n) => parameters.columns().get(*n).cloned(),
        // A fraction, or a number beside a key of another kind, is compared as the planner does it.
        Cell::Number(digits) if data_type.is_numeric() => {
            Some(Arc::new(Int64Array::from(vec![digits.parse::<i64>().ok()?; count])))
        }
        Cell::Text(text) => Some(Arc::new(StringArray::from(vec![text.as_str(); count]))),
        _ => None,
    }
}

/// Tells `found` of every `column = value` of a conjunction; `None` where it is anything else.
fn equations(
    target: &Target,
    expression: &ast::Expr,
    found: &mut dyn FnMut(String, Cell) -> Option<()>,
) -> Option<()> {
    match expression {
        ast::Expr::Nested(inner) => equations(target, inner, found),
        ast::Expr::BinaryOp { left, op: ast::BinaryOperator::And, right } => {
            equations(target, left, found)?;
            equations(target, right, found)
        }
        ast::Expr::BinaryOp { left, op: ast::BinaryOperator::Eq, right } => {
            match (plain_cell(left, None), plain_cell(right, None)) {
                (None, Some(cell)) => found(column(target, left)?, cell),
                (Some(cell), None) => found(column(target, right)?, cell),
                _ => None,
            }
        }
        _ => None,
    }
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
