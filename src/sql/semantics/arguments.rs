//! Constant arguments of functions, in the type that the function takes. Coercion would put a cast around them, a later rule fold it, and
//! a function whose type depends on a literal (`round` of decimals) have one type before and another one after that.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::type_coercion::functions::fields_with_udf;
use datafusion::logical_expr::{EmptyRelation, Expr, ExprSchemable, LogicalPlan, Projection};
use datafusion::optimizer::AnalyzerRule;
use datafusion::optimizer::simplify_expressions::ExprSimplifier;

use super::numbers::CHOOSING;
use super::plans::{input_schema, rewrite_expressions};
use crate::sql::Error;

/// Folds arguments that are constant and gives them their types.
#[derive(Debug)]
pub(crate) struct ConstantArguments;

impl AnalyzerRule for ConstantArguments {
    fn name(&self) -> &str {
        "ConstantArguments"
    }

    fn analyze(&self, plan: LogicalPlan, config: &ConfigOptions) -> Result<LogicalPlan> {
        let plan = plan.transform_up_with_subqueries(|node| {
            let schema = input_schema(&node)?;
            let node = rewrite_expressions(node, &schema, |expr, schema| {
                Ok(match expr {
                    Expr::ScalarFunction(f) => {
                        Transformed::yes(Expr::ScalarFunction(with_constants(f, schema, config)))
                    }
                    other => Transformed::no(other),
                })
            })?;
            Ok(Transformed::yes(node.data.recompute_schema()?))
        })?;
        Ok(plan.data)
    }
}

fn with_constants(
    function: ScalarFunction,
    schema: &DFSchema,
    config: &ConfigOptions,
) -> ScalarFunction {
    let ScalarFunction { func, args } = function;
    let mut args: Vec<Expr> = args.into_iter().map(|arg| folded(arg, config)).collect();
    // These choose among values, whose common type another rule finds.
    if CHOOSING.contains(&func.name()) {
        return ScalarFunction { func, args };
    }
    let fields = args.iter().map(|arg| arg.to_field(schema).map(|(_, field)| field));
    // What cannot be coerced is an error, which coercion reports.
    let types = fields.collect::<Result<Vec<_>>>().and_then(|f| fields_with_udf(&f, func.as_ref()));
    for (arg, field) in args.iter_mut().zip(types.into_iter().flatten()) {
        if let Expr::Literal(value, _) = arg
            && value.data_type() != *field.data_type()
            && !value.is_null()
            && let Some(cast) = literal_as(value, field.data_type())
        {
            *value = cast;
        }
    }
    ScalarFunction { func, args }
}

/// A literal in another type, if that holds it.
pub(super) fn literal_as(value: &ScalarValue, to: &DataType) -> Option<ScalarValue> {
    match (value, to) {
        // The double nearest to the digits, as a text would give it; a cast divides, and may miss it.
        (ScalarValue::Decimal128(Some(digits), _, scale), DataType::Float64) => {
            let double = format!("{digits}e{}", -i32::from(*scale)).parse().ok()?;
            Some(ScalarValue::Float64(Some(double)))
        }
        _ => value.cast_to(to).ok().filter(|cast| !cast.is_null()),
    }
}

/// The value of an expression that is constant; the expression itself where it is not, or fails.
fn folded(expr: Expr, config: &ConfigOptions) -> Expr {
    let variable = |e: &Expr| {
        Ok(matches!(
            e,
            Expr::Column(_)
                | Expr::OuterReferenceColumn(..)
                | Expr::Placeholder(_)
                | Expr::ScalarSubquery(_)
                | Expr::InSubquery(_)
                | Expr::Exists(_)
                | Expr::AggregateFunction(_)
                | Expr::WindowFunction(_)
        ) || e.is_volatile_node())
    };
    if matches!(expr, Expr::Literal(..)) || expr.exists(variable).unwrap_or(true) {
        return expr;
    }
    let simplifier = ExprSimplifier::new(SimplifyContext::default());
    let constant = simplifier
        .coerce(expr.clone(), &DFSchema::empty())
        .and_then(|coerced| in_our_terms(coerced, config))
        .and_then(|ours| simplifier.simplify(ours));
    match constant {
        Ok(literal @ Expr::Literal(..)) => literal,
        _ => expr,
    }
}

/// What the rules that follow would make of a constant expression: it must not be worked out as DataFusion would.
fn in_our_terms(expr: Expr, config: &ConfigOptions) -> Result<Expr> {
    let schema = Arc::new(DFSchema::empty());
    let row = LogicalPlan::EmptyRelation(EmptyRelation { produce_one_row: true, schema });
    let mut plan = LogicalPlan::Projection(Projection::try_new(vec![expr], Arc::new(row))?);
    for rule in super::after_coercion() {
        plan = rule.analyze(plan, config)?;
    }
    match plan {
        LogicalPlan::Projection(Projection { expr, .. }) if expr.len() == 1 => {
            Ok(expr.into_iter().next().map(Expr::unalias).unwrap_or_default())
        }
        other => Err(Error::internal(format!("a constant became {}", other.display())).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decimal_becomes_the_nearest_double() {
        let pi = ScalarValue::Decimal128(Some(314_159_265_358_979_323_846), 21, 20);
        let double = literal_as(&pi, &DataType::Float64);
        assert_eq!(double, Some(ScalarValue::Float64(Some(std::f64::consts::PI))));
        assert_eq!(literal_as(&ScalarValue::Int64(Some(300)), &DataType::Int8), None);
    }
}
