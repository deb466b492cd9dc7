//! Puts answers from positions where a plan would read rows.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::physical_expr::PhysicalSortExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::{
    AggregateExec, AggregateInputMode, AggregateOutputMode,
};

use super::RankExec;
use super::aggregates::Aggregates;
use super::buckets::Buckets;
use super::input::KeyInput;

/// Aggregates that need no more of the rows than the ranks of their keys are answered from positions.
#[derive(Debug, Default)]
pub(crate) struct KeyRanks;

impl PhysicalOptimizerRule for KeyRanks {
    fn name(&self) -> &str {
        "KeyRanks"
    }

    fn schema_check(&self) -> bool {
        true
    }

    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_down(|plan| {
            Ok(match answered(&plan)? {
                Some(answer) => Transformed::yes(answer),
                None => Transformed::no(plan),
            })
        })
        .data()
    }
}

/// The plan that answers an aggregation from positions; `None` where that is not possible or does not pay.
fn answered(plan: &Arc<dyn ExecutionPlan>) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let Some(whole) = plan.downcast_ref::<AggregateExec>() else { return Ok(None) };
    // What takes rows in: this one, or the one that hands it partial results.
    let first = match whole.mode().input_mode() {
        AggregateInputMode::Raw => whole,
        AggregateInputMode::Partial => match whole.input().downcast_ref::<AggregateExec>() {
            Some(first) if first.mode().input_mode() == AggregateInputMode::Raw => first,
            _ => return Ok(None),
        },
    };
    let complete = whole.mode().output_mode() == AggregateOutputMode::Final;
    let filtered = first.filter_expr().iter().any(Option::is_some);
    let limited = whole.limit_options().is_some() || first.limit_options().is_some();
    if !complete || filtered || limited {
        return Ok(None);
    }
    let Some(input) = KeyInput::new(first.input()) else { return Ok(None) };
    let schema = plan.schema();
    let groups = first.group_expr();
    if groups.is_empty() {
        let answer = Aggregates::new(&input, first.aggr_expr());
        return Ok(answer.map(|a| Arc::new(RankExec::new(Arc::new(a), schema, vec![])) as _));
    }
    let ([(group, _)], true) = (groups.expr(), groups.is_single()) else { return Ok(None) };
    let Some(buckets) = Buckets::new(&input, group, first.aggr_expr())? else { return Ok(None) };
    let bucket = Arc::new(Column::new(schema.field(0).name(), 0));
    let order = vec![PhysicalSortExpr::new_default(bucket)];
    Ok(Some(Arc::new(RankExec::new(Arc::new(buckets), schema, order))))
}
