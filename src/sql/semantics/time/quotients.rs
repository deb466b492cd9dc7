//! Quotients of what EXTRACT gives. PostgreSQL's EXTRACT is a decimal, `extract(hour FROM t) / 24` a fraction; here whole parts are integers, whose
//! quotient is one. So before a division they are made decimals, and what is added up of them.

use arrow::datatypes::DataType;
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::expr::{Alias, Cast};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Operator};
use datafusion::sql::sqlparser::ast::BinaryOperator;

/// Plans divisions.
#[derive(Debug)]
pub(crate) struct ExtractQuotients;

impl ExprPlanner for ExtractQuotients {
    fn plan_binary_op(
        &self,
        mut expr: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        if expr.op != BinaryOperator::Divide {
            return Ok(PlannerResult::Original(expr));
        }
        for operand in [&mut expr.left, &mut expr.right] {
            if is_of_parts(operand) && operand.get_type(schema).is_ok_and(|t| t.is_integer()) {
                let whole = std::mem::take(operand);
                *operand = Expr::Cast(Cast::new(Box::new(whole), DataType::Decimal128(20, 0)));
            }
        }
        Ok(PlannerResult::Original(expr))
    }
}

/// Whether a number is a part of a time, or made of such by what keeps it a decimal in PostgreSQL.
fn is_of_parts(expr: &Expr) -> bool {
    match expr {
        Expr::Alias(Alias { expr, .. }) | Expr::Negative(expr) => is_of_parts(expr),
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let keeps = [Operator::Plus, Operator::Minus, Operator::Multiply, Operator::Modulo];
            keeps.contains(op) && (is_of_parts(left) || is_of_parts(right))
        }
        Expr::ScalarFunction(function) => match function.name() {
            "date_part" => true,
            "abs" | "coalesce" | "greatest" | "least" | "nullif" | "mod" | "__negative" => {
                function.args.iter().any(is_of_parts)
            }
            _ => false,
        },
        Expr::AggregateFunction(function) => {
            matches!(function.func.name(), "sum" | "min" | "max")
                && function.params.args.iter().any(is_of_parts)
        }
        _ => false,
    }
}
