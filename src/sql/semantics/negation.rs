//! `- x` of what is no literal: a function of ours. DataFusion's planner refuses differences of timestamps, its operator wraps around
//! (the least BIGINT is its own opposite), and its optimizer takes it for `~`: of `-(a & b)` it makes `-a | -b`, and of `a & -a` zero.

use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::{ArrayRef, IntervalMonthDayNanoArray};
use arrow::compute::kernels::numeric::neg;
use arrow::datatypes::{DataType, IntervalMonthDayNano};
use datafusion::common::Result;
use datafusion::logical_expr::ScalarUDF;
use datafusion::sql::sqlparser::ast::{self, UnaryOperator, VisitMut, visit_expressions_mut};

use super::time::function::Function;
use super::time::interval::{INTERVAL, intervals, is_interval};
use crate::sql::types::sql_name;
use crate::sql::{Code, Error};

const NAME: &str = "__negative";

/// Writes the minus before an expression as a call.
pub(super) fn rewrite<T: VisitMut>(tree: &mut T) {
    let _: ControlFlow<()> = visit_expressions_mut(tree, |expr| {
        if let ast::Expr::UnaryOp { op: UnaryOperator::Minus, expr: inner } = expr
            && let Some(number) = negative(inner)
        {
            // The opposite of the least BIGINT is a literal of its own.
            *expr = number;
        } else if let ast::Expr::UnaryOp { op: UnaryOperator::Minus, expr: inner } = expr
            && !is_plain(inner)
        {
            let inner = std::mem::replace(inner.as_mut(), ast::Expr::value(ast::Value::Null));
            *expr = call(inner);
        }
        ControlFlow::Continue(())
    });
}

/// The number of a literal with a minus.
fn negative(expr: &ast::Expr) -> Option<ast::Expr> {
    match expr {
        ast::Expr::Nested(inner) => negative(inner),
        ast::Expr::UnaryOp { op: UnaryOperator::Minus, expr } => match expr.as_ref() {
            ast::Expr::Value(value) if matches!(value.value, ast::Value::Number(..)) => {
                Some(expr.as_ref().clone())
            }
            _ => None,
        },
        _ => None,
    }
}

/// Whether the planner takes the sign into a literal, or must give a parameter its type.
fn is_plain(expr: &ast::Expr) -> bool {
    match expr {
        ast::Expr::Nested(inner) => is_plain(inner),
        ast::Expr::UnaryOp { op: UnaryOperator::Minus, expr } => is_plain(expr),
        expr => matches!(expr, ast::Expr::Value(_) | ast::Expr::Interval(_)),
    }
}

fn call(argument: ast::Expr) -> ast::Expr {
    ast::Expr::Function(ast::Function {
        name: ast::ObjectName::from(vec![ast::Ident::new(NAME)]),
        uses_odbc_syntax: false,
        parameters: ast::FunctionArguments::None,
        args: ast::FunctionArguments::List(ast::FunctionArgumentList {
            duplicate_treatment: None,
            args: vec![ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(argument))],
            clauses: Vec::new(),
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

/// The function.
pub(super) fn function() -> Arc<ScalarUDF> {
    Arc::new(Function::udf(
        NAME,
        |types| match types {
            [t] if t.is_null() || t.is_signed_integer() => Ok(types.to_vec()),
            [t] if t.is_floating() || t.is_decimal() || is_interval(t) => Ok(types.to_vec()),
            [t] => {
                let message = format!("operator does not exist: - {}", sql_name(t));
                Err(Error::new(Code::UndefinedFunction, message).into())
            }
            _ => Err(Error::internal("a minus has one operand").into()),
        },
        |types| Ok(if is_interval(&types[0]) { INTERVAL } else { types[0].clone() }),
        |arrays, _| match arrays[0].data_type() {
            DataType::Null => Ok(Arc::clone(&arrays[0])),
            t if is_interval(t) => opposite(&arrays[0]),
            t => neg(&arrays[0]).map_err(|_| out_of_range(&sql_name(t))),
        },
    ))
}

fn out_of_range(what: &str) -> datafusion::error::DataFusionError {
    Error::new(Code::NumericValueOutOfRange, format!("{what} out of range")).into()
}

/// Each part of an interval with the other sign.
fn opposite(array: &ArrayRef) -> Result<ArrayRef> {
    let intervals = intervals(array)?;
    let opposites = intervals.iter().map(|interval| {
        let Some(IntervalMonthDayNano { months, days, nanoseconds }) = interval else {
            return Ok(None);
        };
        match (months.checked_neg(), days.checked_neg(), nanoseconds.checked_neg()) {
            (Some(m), Some(d), Some(n)) => Ok(Some(IntervalMonthDayNano::new(m, d, n))),
            _ => Err(out_of_range("INTERVAL")),
        }
    });
    Ok(Arc::new(opposites.collect::<Result<IntervalMonthDayNanoArray>>()?))
}
