//! Physical rules of our own: LIMIT and OFFSET in key order become positions.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use datafusion::physical_plan::limit::{GlobalLimitExec, LocalLimitExec};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};

use super::scan_exec::ScanExec;

/// DataFusion pushes a limit into a scan, but not what OFFSET passes over, and merges ordered partitions row by row
/// where reading them one after the other is enough. This rule does both.
#[derive(Debug, Default)]
pub(crate) struct KeyPositions;

impl PhysicalOptimizerRule for KeyPositions {
    fn name(&self) -> &str {
        "KeyPositions"
    }

    fn schema_check(&self) -> bool {
        true
    }

    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        // From the leaves up, so that a limit meets the scan that a merge below it became.
        plan.transform_up(|plan| {
            let replaced = if let Some(limit) = plan.downcast_ref::<GlobalLimitExec>() {
                positions(limit.input(), limit.skip(), limit.fetch())?
            } else if let Some(limit) = plan.downcast_ref::<LocalLimitExec>() {
                match limit.input().output_partitioning().partition_count() {
                    1 => positions(limit.input(), 0, Some(limit.fetch()))?,
                    _ => None,
                }
            } else if let Some(merge) = plan.downcast_ref::<SortPreservingMergeExec>() {
                concatenated(merge.input(), merge.fetch())?
            } else if let Some(merge) = plan.downcast_ref::<CoalescePartitionsExec>() {
                concatenated(merge.input(), merge.fetch())?
            } else {
                None
            };
            Ok(match replaced {
                Some(replaced) => Transformed::yes(replaced),
                None => Transformed::no(plan),
            })
        })
        .data()
    }
}

/// The plan with skip and fetch in its scan, where only projections lie between.
fn positions(
    plan: &Arc<dyn ExecutionPlan>,
    skip: usize,
    fetch: Option<usize>,
) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    through_projections(plan, &|scan| scan.with_positions(skip as u64, fetch.map(|f| f as u64)))
}

/// The plan with its scan's partitions read one after the other: they are in key order as a whole.
fn concatenated(
    plan: &Arc<dyn ExecutionPlan>,
    fetch: Option<usize>,
) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    through_projections(plan, &|scan| {
        let scan = scan.in_one_partition();
        match fetch {
            Some(fetch) => scan.with_positions(0, Some(fetch as u64)),
            None => Some(scan),
        }
    })
}

fn through_projections(
    plan: &Arc<dyn ExecutionPlan>,
    change: &dyn Fn(&ScanExec) -> Option<ScanExec>,
) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    if let Some(scan) = plan.downcast_ref::<ScanExec>() {
        return Ok(change(scan).map(|scan| Arc::new(scan) as _));
    }
    if let Some(projection) = plan.downcast_ref::<ProjectionExec>()
        && let Some(input) = through_projections(projection.input(), change)?
    {
        return Ok(Some(replace_children_if_necessary(Arc::clone(plan), vec![input])?));
    }
    Ok(None)
}
