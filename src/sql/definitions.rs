//! What a statement was planned on: definitions of tables and views. While they are the same its plan can be used again; of
//! tables the plan keeps the definition alone, not their rows.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Constraints, DataFusionError};
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::logical_expr::{
    Expr, LogicalPlan, TableProviderFilterPushDown, TableScan, TableSource, Volatility,
};

use super::error::{Error, Result};
use super::provider::EngineTable;
use crate::engine::{Snapshot, TableMeta, TableName};

/// The definitions that a statement was planned on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Definitions {
    tables: Vec<Arc<TableMeta>>,
    views: Vec<(TableName, Arc<str>)>,
    /// It reads what is made anew for each statement: a table of the system.
    passing: bool,
}

impl Definitions {
    pub(crate) fn add_table(&mut self, meta: &Arc<TableMeta>) {
        self.tables.push(Arc::clone(meta));
    }

    pub(crate) fn add_view(&mut self, name: &TableName, sql: &Arc<str>) {
        self.views.push((name.clone(), Arc::clone(sql)));
    }

    pub(crate) fn add_passing(&mut self) {
        self.passing = true;
    }

    /// Whether there are views among them.
    pub(crate) fn has_views(&self) -> bool {
        !self.views.is_empty()
    }

    /// Whether a plan on them is of use later.
    pub(crate) fn last(&self) -> bool {
        !self.passing
    }

    /// Whether they are the very same in `snapshot`: two transactions may each make another definition of the same version.
    pub(crate) fn are_current(&self, snapshot: &Snapshot) -> bool {
        let same = |meta: &Arc<TableMeta>| {
            snapshot.table(&meta.name).is_some_and(|t| Arc::ptr_eq(t.meta(), meta))
        };
        self.tables.iter().all(same)
            && self.views.iter().all(|(name, sql)| {
                snapshot.table(name).is_none()
                    && snapshot.view(name).is_some_and(|current| current == *sql)
            })
    }
}

/// A table of a plan that is kept, without its rows.
#[derive(Debug)]
struct Kept {
    meta: Arc<TableMeta>,
    schema: SchemaRef,
    constraints: Constraints,
}

impl TableSource for Kept {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn constraints(&self) -> Option<&Constraints> {
        Some(&self.constraints)
    }

    /// Never asked: the plan is given its tables before anything is done with it.
    fn supports_filters_pushdown(
        &self,
        _filters: &[&Expr],
    ) -> datafusion::error::Result<Vec<TableProviderFilterPushDown>> {
        Err(DataFusionError::Internal(format!(
            "table {} of a kept plan is used without its rows",
            self.meta.name
        )))
    }
}

/// The plan without the rows of its tables. `None` where it reads what cannot be kept.
pub(crate) fn without_rows(plan: LogicalPlan) -> Result<Option<LogicalPlan>> {
    let mut lasting = true;
    let plan = replace_sources(plan, |source| {
        // What else there is may hold rows: samples, series.
        let provider = source_as_provider(source).ok();
        let table = provider.as_ref().and_then(|p| p.downcast_ref::<EngineTable>());
        let table = table.filter(|table| !table.is_sample());
        lasting &= table.is_some();
        Ok(table.map(|table| {
            let kept = Kept {
                meta: Arc::clone(table.meta()),
                schema: table.schema(),
                constraints: table.constraints().cloned().unwrap_or_default(),
            };
            Arc::new(kept) as Arc<dyn TableSource>
        }))
    })?;
    Ok(lasting.then_some(plan))
}

/// The plan of [`without_rows`] on the tables of a snapshot, in which its definitions are current.
pub(crate) fn with_rows(plan: LogicalPlan, snapshot: &Snapshot) -> Result<LogicalPlan> {
    replace_sources(plan, |source| {
        let Some(kept) = source.downcast_ref::<Kept>() else { return Ok(None) };
        let table = snapshot.table(&kept.meta.name).ok_or_else(|| {
            Error::internal(format!("table {} of a kept plan is gone", kept.meta.name))
        })?;
        Ok(Some(provider_as_source(Arc::new(EngineTable::new(table)))))
    })
}

fn replace_sources(
    plan: LogicalPlan,
    mut by: impl FnMut(&Arc<dyn TableSource>) -> Result<Option<Arc<dyn TableSource>>>,
) -> Result<LogicalPlan> {
    let replaced = plan.transform_up_with_subqueries(|node| {
        let LogicalPlan::TableScan(scan) = node else { return Ok(Transformed::no(node)) };
        match by(&scan.source).map_err(|e| DataFusionError::External(Box::new(e)))? {
            Some(source) => {
                Ok(Transformed::yes(LogicalPlan::TableScan(TableScan { source, ..scan })))
            }
            None => Ok(Transformed::no(LogicalPlan::TableScan(scan))),
        }
    })?;
    Ok(replaced.data)
}

/// Whether optimizing a plan now and later gives the same: no function in it is of the moment, as `now()` is.
pub(crate) fn is_timeless(plan: &LogicalPlan) -> Result<bool> {
    let mut timeless = true;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let Expr::ScalarFunction(call) = expr
                    && call.func.signature().volatility != Volatility::Immutable
                {
                    timeless = false;
                    return Ok(TreeNodeRecursion::Stop);
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(timeless)
}

#[cfg(test)]
mod tests;
