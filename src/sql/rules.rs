//! Physical rules of our own: LIMIT and OFFSET in key order become positions, joins give way.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use datafusion::physical_plan::limit::{GlobalLimitExec, LocalLimitExec};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
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

/// DataFusion leaves a column that is constant in each partition out of the sort of a partition: one of a UNION ALL of constants. All
/// partitions of a sort with a limit share what they have found so far, and pass over rows that are no better by what is left.
/// Those may be better by the column that was left out. This rule puts it back.
#[derive(Debug, Default)]
pub(crate) struct WholeSorts;

impl PhysicalOptimizerRule for WholeSorts {
    fn name(&self) -> &str {
        "WholeSorts"
    }

    fn schema_check(&self) -> bool {
        true
    }

    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|plan| {
            let Some(merge) = plan.downcast_ref::<SortPreservingMergeExec>() else {
                return Ok(Transformed::no(plan));
            };
            let Some(sort) = merge.input().downcast_ref::<SortExec>() else {
                return Ok(Transformed::no(plan));
            };
            if sort.fetch().is_none() || sort.expr() == merge.expr() {
                return Ok(Transformed::no(plan));
            }
            let whole = SortExec::new(merge.expr().clone(), Arc::clone(sort.input()))
                .with_preserve_partitioning(sort.preserve_partitioning())
                .with_fetch(sort.fetch());
            Ok(Transformed::yes(replace_children_if_necessary(plan, vec![Arc::new(whole)])?))
        })
        .data()
    }
}

/// Of joins on one way, so many yield each.
const MAX_YIELDING: usize = 32;

/// A join may make rows without end of the few batches that it has read, and so never come to a point where its task
/// yields: such a query could not be stopped, and none beside it would run. DataFusion lets scans and exchanges yield;
/// this rule lets joins yield too.
///
/// Each that yields takes a unit of its task's budget on the way down to what it reads, and gets it back only with a row. Were
/// there more of them on one way than units (128), no poll would ever come to a row.
#[derive(Debug, Default)]
pub(crate) struct YieldingJoins;

impl PhysicalOptimizerRule for YieldingJoins {
    fn name(&self) -> &str {
        "YieldingJoins"
    }

    fn schema_check(&self) -> bool {
        true
    }

    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|plan| {
            // Nothing but joins, unions and recursion has several inputs, and yielding costs next to nothing.
            let joins = joins_on_a_way(&plan);
            let yields = joins <= MAX_YIELDING || joins.is_power_of_two();
            Ok(if plan.children().len() > 1 && yields {
                Transformed::yes(Arc::new(CooperativeExec::new(plan)) as _)
            } else {
                Transformed::no(plan)
            })
        })
        .data()
    }
}

/// Joins on the longest way from `plan` to what it reads.
fn joins_on_a_way(plan: &Arc<dyn ExecutionPlan>) -> usize {
    let children = plan.children();
    let below = children.iter().map(|child| joins_on_a_way(child)).max().unwrap_or(0);
    below + usize::from(children.len() > 1)
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

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::execution::session_state::SessionStateBuilder;
    use datafusion::physical_plan::displayable;
    use datafusion::prelude::SessionContext;

    #[tokio::test]
    async fn every_join_gives_way() {
        let state = SessionStateBuilder::new_with_default_features()
            .with_physical_optimizer_rule(Arc::new(YieldingJoins))
            .build();
        let context = SessionContext::new_with_state(state);
        for (condition, join) in [
            ("a.x = b.x", "HashJoinExec"),
            ("a.x * b.x > 3", "NestedLoopJoinExec"),
            ("true", "CrossJoinExec"),
        ] {
            let sql = format!(
                "SELECT a.x, b.x FROM (VALUES (1), (2)) a (x) JOIN (VALUES (1)) b (x) ON {condition}"
            );
            let plan = context.sql(&sql).await.unwrap().create_physical_plan().await.unwrap();
            let text = displayable(plan.as_ref()).indent(false).to_string();
            let lines: Vec<&str> = text.lines().map(str::trim).collect();
            let at = lines.iter().position(|line| line.starts_with(join)).expect(&text);
            assert_eq!(lines[at - 1], "CooperativeExec", "{text}");
        }
    }
}
