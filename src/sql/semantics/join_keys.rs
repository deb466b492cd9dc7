//! Names of join keys that are computed. DataFusion computes them beside the columns of their side, where each must have a name of its own:
//! our casts have that of what is cast, as its own have, for which it makes other names (`wrap_projection_for_join_if_necessary`).

use datafusion::common::Result;
use datafusion::common::tree_node::Transformed;
use datafusion::logical_expr::{Expr, Join, LogicalPlan};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

/// Gives computed join keys names. The last rule, as others make join keys of conditions.
#[derive(Debug)]
pub(crate) struct JoinKeyNames;

impl OptimizerRule for JoinKeyNames {
    fn name(&self) -> &str {
        "join_key_names"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        _config: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Join(Join { on, .. }) = &plan else { return Ok(Transformed::no(plan)) };
        if !on.iter().any(|(left, right)| is_nameless(left) || is_nameless(right)) {
            return Ok(Transformed::no(plan));
        }
        let LogicalPlan::Join(mut join) = plan else { return Ok(Transformed::no(plan)) };
        for (i, (left, right)) in join.on.iter_mut().enumerate() {
            for key in [left, right] {
                if is_nameless(key) {
                    let name = format!("__key_{i}_{key}");
                    *key = std::mem::take(key).alias(name);
                }
            }
        }
        Ok(Transformed::yes(LogicalPlan::Join(join)))
    }
}

fn is_nameless(key: &Expr) -> bool {
    matches!(key, Expr::ScalarFunction(_))
}
