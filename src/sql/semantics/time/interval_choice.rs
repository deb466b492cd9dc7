//! `greatest` and `least` of intervals, by their lengths; of intervals of one length the first. DataFusion compares months, then days,
//! then nanoseconds, and holds a month for more than 40 days.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, IntervalMonthDayNanoArray};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, ScalarUDF};
use datafusion::optimizer::AnalyzerRule;

use super::function::Function;
use super::interval::{INTERVAL, intervals, is_interval, length};
use super::rules::rewrite;

/// Puts functions of intervals in the place of those of anything.
#[derive(Debug)]
pub(crate) struct IntervalChoice;

impl AnalyzerRule for IntervalChoice {
    fn name(&self) -> &str {
        "IntervalChoice"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        rewrite(plan, &expression, &|plan| Ok(Transformed::no(plan)))
    }
}

fn expression(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let Expr::ScalarFunction(ScalarFunction { func, args }) = expr else {
        return Ok(Transformed::no(expr));
    };
    let types: Vec<_> = args.iter().map_while(|arg| arg.get_type(schema).ok()).collect();
    let of_intervals = types.len() == args.len()
        && types.iter().any(is_interval)
        && types.iter().all(|t| is_interval(t) || t.is_null());
    let function = match func.name() {
        "greatest" if of_intervals => greatest(),
        "least" if of_intervals => least(),
        _ => return Ok(Transformed::no(Expr::ScalarFunction(ScalarFunction { func, args }))),
    };
    Ok(Transformed::yes(function.call(args)))
}

fn greatest() -> ScalarUDF {
    let run = |arrays: &[ArrayRef], _: &_| chosen(arrays, |next, best| next > best);
    Function::udf("interval_greatest", |types| Ok(types.to_vec()), |_| Ok(INTERVAL), run)
}

fn least() -> ScalarUDF {
    let run = |arrays: &[ArrayRef], _: &_| chosen(arrays, |next, best| next < best);
    Function::udf("interval_least", |types| Ok(types.to_vec()), |_| Ok(INTERVAL), run)
}

/// Of each row the interval that is better than all before it.
fn chosen(arrays: &[ArrayRef], better: fn(i128, i128) -> bool) -> Result<ArrayRef> {
    let columns = arrays.iter().map(intervals).collect::<Result<Vec<_>>>()?;
    let rows = arrays.first().map_or(0, |array| array.len());
    let chosen: IntervalMonthDayNanoArray = (0..rows)
        .map(|row| {
            let values = columns.iter().filter(|c| c.is_valid(row)).map(|c| c.value(row));
            values.reduce(|best, next| match better(length(next), length(best)) {
                true => next,
                false => best,
            })
        })
        .collect();
    Ok(Arc::new(chosen))
}
