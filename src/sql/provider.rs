//! A table of one snapshot as DataFusion sees it: exact predicates on the key, exact statistics.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{Constraint, Constraints, DFSchema, ScalarValue};
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::filter::FilterExecBuilder;

use super::key_filter::KeyFilter;
use super::rank::{Sample, Sampling};
use super::scan_exec::ScanExec;
use crate::engine::{KeyKind, ROW_ADDRESS_COLUMN, TableMeta, TableSnapshot};

/// A table of one snapshot.
#[derive(Debug)]
pub(crate) struct EngineTable {
    table: TableSnapshot,
    schema: SchemaRef,
    constraints: Constraints,
    sampling: Option<Sampling>,
}

impl EngineTable {
    /// With the users' columns.
    pub(crate) fn new(table: TableSnapshot) -> Self {
        Self::with_schema(Arc::new(Schema::new(plain_fields(&table))), table)
    }

    /// With the users' columns, and the row address (UInt64) as the last one.
    pub(crate) fn with_row_address(table: TableSnapshot) -> Self {
        let mut fields = plain_fields(&table);
        fields.push(Arc::new(Field::new(ROW_ADDRESS_COLUMN, DataType::UInt64, false)));
        Self::with_schema(Arc::new(Schema::new(fields)), table)
    }

    /// Whether it is a sample of the table's rows.
    pub(crate) fn is_sample(&self) -> bool {
        self.sampling.is_some()
    }

    /// The definition of the table.
    pub(crate) fn meta(&self) -> &Arc<TableMeta> {
        self.table.meta()
    }

    fn with_schema(schema: SchemaRef, table: TableSnapshot) -> Self {
        let meta = table.meta();
        let constraints = match meta.key_kind {
            KeyKind::Primary => {
                Constraints::new_unverified(vec![Constraint::PrimaryKey(meta.key_indices())])
            }
            KeyKind::Cluster | KeyKind::RowId => Constraints::default(),
        };
        Self { table, schema, constraints, sampling: None }
    }

    /// A sample of its rows in the place of all.
    pub(crate) fn sampled(&self, sampling: Sampling) -> Self {
        let mut sampled = Self::new(self.table.clone());
        sampled.sampling = Some(sampling);
        sampled
    }
}

/// The table's fields without lengths and precisions, which are of columns and not of what is computed from them.
fn plain_fields(table: &TableSnapshot) -> Vec<Arc<Field>> {
    let schema = table.schema();
    let plain = |field: &Arc<Field>| match field.metadata().is_empty() {
        true => Arc::clone(field),
        false => Arc::new(field.as_ref().clone().with_metadata(HashMap::new())),
    };
    schema.fields().iter().map(plain).collect()
}

#[async_trait]
impl TableProvider for EngineTable {
    fn schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.schema)
    }

    fn constraints(&self) -> Option<&Constraints> {
        Some(&self.constraints)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> datafusion::error::Result<Vec<TableProviderFilterPushDown>> {
        if self.sampling.is_some() {
            // Rows are picked first.
            return Ok(vec![TableProviderFilterPushDown::Unsupported; filters.len()]);
        }
        let key = KeyFilter::new(self.table.meta(), self.table.codec(), filters)?;
        Ok(key
            .exact
            .iter()
            .zip(&key.relevant)
            .map(|(exact, relevant)| match (exact, relevant) {
                (true, _) => TableProviderFilterPushDown::Exact,
                (false, true) => TableProviderFilterPushDown::Inexact,
                (false, false) => TableProviderFilterPushDown::Unsupported,
            })
            .collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> datafusion::error::Result<Arc<dyn ExecutionPlan>> {
        let projection =
            projection.cloned().unwrap_or_else(|| (0..self.schema.fields().len()).collect());
        if let Some(sampling) = self.sampling {
            return Sample::plan(&self.table, sampling, projection, limit);
        }
        let key = KeyFilter::new(
            self.table.meta(),
            self.table.codec(),
            &filters.iter().collect::<Vec<_>>(),
        )?;
        // What was taken as exact may have been made smaller since, so that it is nothing of the key any more: nobody else looks at it.
        // And filters taken as exact one group at a time may multiply out to too many ranges together.
        let constant = |filter: &Expr| match filter {
            Expr::Literal(ScalarValue::Boolean(value), _) => Some(value.unwrap_or(false)),
            _ => None,
        };
        let rest = conjunction(
            filters
                .iter()
                .zip(key.relevant.iter().zip(&key.exact))
                .filter(|(filter, (relevant, exact))| {
                    !**exact && (key.overflow || !**relevant) && constant(filter).is_none()
                })
                .map(|(filter, _)| filter.clone()),
        );
        let ranges = match filters.iter().any(|filter| constant(filter) == Some(false)) {
            true => Vec::new(),
            false => key.ranges,
        };
        let Some(rest) = rest else {
            // A limit comes only where every filter is exact, or there is none.
            let scan = ScanExec::new(self.table.clone(), &self.schema, projection, ranges)?
                .with_limit(limit.map(|l| l as u64));
            return Ok(Arc::new(scan));
        };
        let all = (0..self.schema.fields().len()).collect();
        let scan = ScanExec::new(self.table.clone(), &self.schema, all, ranges)?;
        let predicate =
            state.create_physical_expr(rest, &DFSchema::try_from(Arc::clone(&self.schema))?)?;
        let filter = FilterExecBuilder::new(predicate, Arc::new(scan))
            .apply_projection(Some(projection))?
            .build()?;
        Ok(Arc::new(filter))
    }
}
