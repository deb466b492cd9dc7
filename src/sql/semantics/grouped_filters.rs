//! Conditions over groups that ask nothing of a group. DataFusion moves a condition of grouping columns below the grouping, and takes
//! one without any columns for such: but where there is a group of no rows (`SELECT count(*) FROM t`, ROLLUP), `WHERE 1 = 0` below
//! leaves that group where above it leaves nothing. Nor may what is random move to where it is asked of other rows.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::Transformed;
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{Aggregate, Expr, Filter, LogicalPlan};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

type Rule = Arc<dyn OptimizerRule + Send + Sync>;

/// DataFusion's rule that moves conditions, kept from moving these.
#[derive(Debug)]
pub(crate) struct GroupedFilters(Rule);

impl GroupedFilters {
    /// The rules with this one around the one that it is for.
    pub(crate) fn around(rules: Vec<Rule>) -> Vec<Rule> {
        let wrap = |rule: Rule| match rule.name() {
            "push_down_filter" => Arc::new(Self(rule)) as Rule,
            _ => rule,
        };
        rules.into_iter().map(wrap).collect()
    }
}

impl OptimizerRule for GroupedFilters {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        config: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Filter(filter) = &plan else { return self.0.rewrite(plan, config) };
        // The rule makes one of filters that lie on one another.
        let mut conditions = split_conjunction_owned(filter.predicate.clone());
        let mut input = &filter.input;
        while let LogicalPlan::Filter(inner) = input.as_ref() {
            conditions.extend(split_conjunction_owned(inner.predicate.clone()));
            input = &inner.input;
        }
        let stays: fn(&Expr) -> bool = match input.as_ref() {
            LogicalPlan::Aggregate(aggregate) if has_empty_group(aggregate) => {
                |e| e.is_volatile() || e.column_refs().is_empty()
            }
            LogicalPlan::Aggregate(_) | LogicalPlan::Window(_) => Expr::is_volatile,
            _ => return self.0.rewrite(plan, config),
        };
        let (kept, moving): (Vec<_>, Vec<_>) = conditions.into_iter().partition(stays);
        let Some(kept) = conjunction(kept) else { return self.0.rewrite(plan, config) };
        let Some(moving) = conjunction(moving) else { return Ok(Transformed::no(plan)) };
        let below = Filter::try_new(moving, Arc::clone(input))?;
        let moved = self.0.rewrite(LogicalPlan::Filter(below), config)?;
        if !moved.transformed {
            return Ok(Transformed::no(plan));
        }
        Ok(Transformed::yes(LogicalPlan::Filter(Filter::try_new(kept, Arc::new(moved.data))?)))
    }
}

/// Whether there is a group even where there are no rows.
fn has_empty_group(aggregate: &Aggregate) -> bool {
    aggregate.group_expr.is_empty()
        || matches!(aggregate.group_expr.as_slice(), [Expr::GroupingSet(_)])
}
