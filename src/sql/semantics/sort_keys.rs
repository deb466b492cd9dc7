//! Keys of ORDER BY inside of aggregates and DISTINCT ON: each once. DataFusion leaves a second one out of what it sorts by, and not out of
//! what the aggregate expects, which then fails.

use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::logical_expr::{Distinct, Expr, LogicalPlan, SortExpr};
use datafusion::optimizer::AnalyzerRule;

use super::plans::{input_schema, rewrite_expressions};

/// The rule.
#[derive(Debug)]
pub(crate) struct SortKeys;

impl AnalyzerRule for SortKeys {
    fn name(&self) -> &str {
        "SortKeys"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let plan = plan.transform_up_with_subqueries(|node| {
            let node = match node {
                LogicalPlan::Distinct(Distinct::On(mut on)) => {
                    if let Some(keys) = &mut on.sort_expr {
                        once(keys);
                    }
                    LogicalPlan::Distinct(Distinct::On(on))
                }
                other => other,
            };
            let schema = input_schema(&node)?;
            rewrite_expressions(node, &schema, |expr, _| {
                Ok(match expr {
                    Expr::AggregateFunction(mut function) => {
                        match once(&mut function.params.order_by) {
                            true => Transformed::yes(Expr::AggregateFunction(function)),
                            false => Transformed::no(Expr::AggregateFunction(function)),
                        }
                    }
                    other => Transformed::no(other),
                })
            })
        })?;
        Ok(plan.data)
    }
}

/// Leaves out keys that come again, in whatever direction: they order nothing. Whether there were any.
fn once(keys: &mut Vec<SortExpr>) -> bool {
    let before = keys.len();
    let mut kept: Vec<SortExpr> = Vec::with_capacity(before);
    for key in keys.drain(..) {
        if !kept.iter().any(|k| k.expr == key.expr) {
            kept.push(key);
        }
    }
    *keys = kept;
    keys.len() < before
}
