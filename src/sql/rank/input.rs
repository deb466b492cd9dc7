//! The key ranges that an aggregate reads and nothing else of them.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::{DataFusionError, Result};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{CastExpr, Column};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};

use crate::engine::{EncodedKey, KeyColumn, KeyRange, TableSnapshot};
use crate::sql::key_filter::keeps_order;
use crate::sql::scan_exec::ScanExec;

/// A scan of key ranges, under projections.
#[derive(Debug, Clone)]
pub(super) struct KeyInput {
    pub(super) table: TableSnapshot,
    /// Disjoint, ascending.
    pub(super) ranges: Vec<KeyRange>,
    /// From the scan upwards.
    projections: Vec<Vec<ProjectionExpr>>,
    /// Where the first key column is among the columns of the scan.
    key: Option<usize>,
    /// A batch of that column alone.
    schema: SchemaRef,
    scanned: SchemaRef,
}

impl KeyInput {
    /// What `plan` reads; `None` where it does more than read key ranges.
    pub(super) fn new(plan: &Arc<dyn ExecutionPlan>) -> Option<Self> {
        if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
            let mut input = Self::new(projection.input())?;
            input.projections.push(projection.expr().to_vec());
            return Some(input);
        }
        let scan = plan.downcast_ref::<ScanExec>()?;
        let (table, ranges) = scan.whole_ranges()?;
        let meta = table.meta();
        let key = meta.key_indices().first().map(|i| Arc::clone(&meta.columns[*i].field));
        Some(Self {
            table: table.clone(),
            ranges,
            projections: Vec::new(),
            key: scan.key_column(),
            schema: Arc::new(Schema::new(key.into_iter().collect::<Vec<_>>())),
            scanned: scan.schema(),
        })
    }

    /// The definition of the first key column.
    pub(super) fn key_field(&self) -> Option<&Field> {
        self.schema.fields().first().map(AsRef::as_ref)
    }

    /// An expression over the columns of the scan.
    fn below(&self, expr: &Arc<dyn PhysicalExpr>) -> Option<Arc<dyn PhysicalExpr>> {
        let mut expr = Arc::clone(expr);
        for projection in self.projections.iter().rev() {
            expr = replace_columns(expr, &|column| {
                Some(Arc::clone(&projection.get(column.index())?.expr))
            })?;
        }
        Some(expr)
    }

    /// An expression of nothing but the first key column, as one over [`KeyInput::batch`].
    pub(super) fn of_key(&self, expr: &Arc<dyn PhysicalExpr>) -> Option<Arc<dyn PhysicalExpr>> {
        let key = self.key?;
        let name = self.key_field()?.name().clone();
        replace_columns(self.below(expr)?, &|column| {
            (column.index() == key).then(|| Arc::new(Column::new(&name, 0)) as _)
        })
    }

    /// [`KeyInput::of_key`], where the expression is the key itself or a cast that keeps its order.
    pub(super) fn ordered(&self, expr: &Arc<dyn PhysicalExpr>) -> Option<Arc<dyn PhysicalExpr>> {
        self.of_key(expr).filter(|expr| self.is_ordered(expr))
    }

    /// Whether an expression made by [`KeyInput::of_key`] is the key itself or a cast that keeps its order.
    pub(super) fn is_ordered(&self, expr: &Arc<dyn PhysicalExpr>) -> bool {
        is_ordered(expr, &self.schema)
    }

    /// Whether an expression has a value in every row.
    pub(super) fn never_null(&self, expr: &Arc<dyn PhysicalExpr>) -> bool {
        self.below(expr).is_some_and(|e| e.nullable(&self.scanned).is_ok_and(|null| !null))
    }

    /// The first key columns of these keys, one row for each.
    pub(super) fn batch(&self, keys: &[EncodedKey]) -> Result<RecordBatch> {
        let encoded: Vec<KeyColumn> = keys.iter().map(KeyColumn::from).collect();
        let encoded = KeyColumn::concat(&encoded.iter().collect::<Vec<_>>())?;
        let column = self.table.codec().decode(&encoded)?.into_iter().next();
        let column = column.ok_or_else(|| DataFusionError::Internal("a key of nothing".into()))?;
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), vec![column])?)
    }

    /// The values of an expression made by [`KeyInput::of_key`] for these keys.
    pub(super) fn values(
        &self,
        expr: &Arc<dyn PhysicalExpr>,
        keys: &[EncodedKey],
    ) -> Result<ArrayRef> {
        let values = expr.evaluate(&self.batch(keys)?)?.into_array(keys.len())?;
        if values.null_count() > 0 {
            return Err(DataFusionError::Internal(format!("{expr} of a key is NULL")));
        }
        Ok(values)
    }
}

/// The expression with what `replacement` gives in the place of each column; `None` where it gives nothing for one.
pub(super) fn replace_columns(
    expr: Arc<dyn PhysicalExpr>,
    replacement: &dyn Fn(&Column) -> Option<Arc<dyn PhysicalExpr>>,
) -> Option<Arc<dyn PhysicalExpr>> {
    let mut complete = true;
    // What was put in is not looked at again: it counts columns of another schema.
    let replaced = expr.transform_up(|e| {
        let Some(column) = e.downcast_ref::<Column>() else { return Ok(Transformed::no(e)) };
        match replacement(column) {
            Some(new) => Ok(Transformed::yes(new)),
            None => {
                complete = false;
                Ok(Transformed::no(e))
            }
        }
    });
    replaced.data().ok().filter(|_| complete)
}

fn is_ordered(expr: &Arc<dyn PhysicalExpr>, schema: &Schema) -> bool {
    if expr.downcast_ref::<Column>().is_some() {
        return true;
    }
    let Some(cast) = expr.downcast_ref::<CastExpr>() else { return false };
    let inner = cast.expr();
    is_ordered(inner, schema)
        && inner.data_type(schema).is_ok_and(|from| keeps_order(&from, cast.cast_type()))
}
