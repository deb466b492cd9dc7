//! What CASE and FILTER keep from being computed. DataFusion makes ANDs and ORs of a CASE of conditions, whose parts it may compute for all rows,
//! and computes the arguments of an aggregate for rows that FILTER leaves out: `CASE WHEN x = 0 THEN false ELSE 1 / x > 3 END` failed.

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::expr::{
    AggregateFunction, AggregateFunctionParams, Case, WindowFunction, WindowFunctionParams,
};
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, lit, when};
use datafusion::optimizer::AnalyzerRule;

use super::plans::{input_schema, rewrite_expressions};

/// Keeps what is guarded from being computed for other rows.
#[derive(Debug)]
pub(crate) struct Guards;

impl AnalyzerRule for Guards {
    fn name(&self) -> &str {
        "Guards"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let plan = plan.transform_up_with_subqueries(|node| {
            let schema = input_schema(&node)?;
            rewrite_expressions(node, &schema, guarded)
        })?;
        Ok(plan.data)
    }
}

fn guarded(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    match expr {
        Expr::Case(Case { expr: None, when_then_expr, else_expr })
            if is_condition(&when_then_expr[0].1, schema)
                && when_then_expr.iter().any(|(w, t)| may_fail(w) || may_fail(t))
                    | else_expr.as_ref().is_some_and(|e| may_fail(e)) =>
        {
            // The same in a form that DataFusion leaves as it is.
            let expr = Some(Box::new(lit(true)));
            Ok(Transformed::yes(Expr::Case(Case { expr, when_then_expr, else_expr })))
        }
        Expr::AggregateFunction(AggregateFunction { func, params }) => {
            let AggregateFunctionParams { mut args, filter, .. } = params;
            let changed = only_where(&mut args, filter.as_deref())?;
            let params = AggregateFunctionParams { args, filter, ..params };
            let expr = Expr::AggregateFunction(AggregateFunction { func, params });
            Ok(if changed { Transformed::yes(expr) } else { Transformed::no(expr) })
        }
        Expr::WindowFunction(window) => {
            let WindowFunction { fun, params } = *window;
            let WindowFunctionParams { mut args, filter, .. } = params;
            let changed = only_where(&mut args, filter.as_deref())?;
            let params = WindowFunctionParams { args, filter, ..params };
            let expr = Expr::WindowFunction(Box::new(WindowFunction { fun, params }));
            Ok(if changed { Transformed::yes(expr) } else { Transformed::no(expr) })
        }
        other => Ok(Transformed::no(other)),
    }
}

fn is_condition(expr: &Expr, schema: &DFSchema) -> bool {
    use arrow::datatypes::DataType;
    matches!(expr.get_type(schema), Ok(DataType::Boolean | DataType::Null))
}

/// Arguments that are computed where the filter holds.
fn only_where(args: &mut [Expr], filter: Option<&Expr>) -> Result<bool> {
    let Some(filter) = filter else { return Ok(false) };
    let mut changed = false;
    // Constants may have to stay such.
    let guarded = |arg: &&mut Expr| may_fail(arg) && !arg.column_refs().is_empty();
    for arg in args.iter_mut().filter(guarded) {
        *arg = when(filter.clone(), std::mem::take(arg)).end()?;
        changed = true;
    }
    Ok(changed)
}

/// Whether computing an expression may be an error: all but columns, literals and comparisons.
fn may_fail(expr: &Expr) -> bool {
    expr.exists(|e| {
        Ok(matches!(e, Expr::ScalarFunction(_) | Expr::Cast(_))
            || matches!(e, Expr::BinaryExpr(binary) if binary.op.is_numerical_operators()))
    })
    .unwrap_or(true)
}
