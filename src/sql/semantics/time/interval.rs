//! Intervals: compared by PostgreSQL's rule, in which a month has 30 days and a day 24 hours, and multiplied with numbers. Arrow
//! compares months, days and nanoseconds one after the other, and DataFusion knows no such product (apache/datafusion#8468).

use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Decimal128Array, Int64Array, IntervalMonthDayNanoArray,
};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Float64Type, Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit,
};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{Expr, ExprSchemable, ScalarUDF};
use datafusion::sql::sqlparser::ast::BinaryOperator;

use super::calendar::{NANOS_PER_DAY, NANOS_PER_SECOND, ticks_per_second};
use super::cast_function::cast_literal;
use super::common_type::is_text;
use super::date_part::Wrapped;
use super::function::Function;
use super::rules::Typed;
use super::text::put_time;
use crate::sql::Error;

/// The type of INTERVAL.
pub(crate) const INTERVAL: DataType = DataType::Interval(IntervalUnit::MonthDayNano);

const DAYS_PER_MONTH: i64 = 30;
const SECONDS_PER_DAY: f64 = 86_400.0;

/// Whether it is an interval, or the difference of two timestamps.
pub(crate) fn is_interval(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Interval(_) | DataType::Duration(_))
}

/// What two intervals are compared by; `None` where they are none.
pub(super) fn meet(left: &Typed, right: &Typed) -> Result<Option<(Expr, Expr)>> {
    let text = |typed: &Typed| is_text(&typed.data_type) && typed.literal().is_some();
    let (l, r) = (is_interval(&left.data_type), is_interval(&right.data_type));
    if !(l && (r || text(right)) || r && text(left)) {
        return Ok(None);
    }
    let side = |typed: &Typed| match typed.literal() {
        Some(value) if is_text(&typed.data_type) => Ok::<_, datafusion::error::DataFusionError>(
            key(Expr::Literal(value.cast_to(&INTERVAL)?, None)),
        ),
        _ => Ok(key(typed.expr.clone())),
    };
    Ok(Some((side(left)?, side(right)?)))
}

/// The length of an interval in nanoseconds: equal for equal intervals.
pub(crate) fn key(interval: Expr) -> Expr {
    Function::udf(
        "interval_length",
        |types| Ok(types.to_vec()),
        |_| Ok(DataType::Decimal128(38, 0)),
        |arrays, _| {
            let nanos: Decimal128Array = match arrays[0].data_type() {
                DataType::Duration(unit) => {
                    let factor = i128::from(NANOS_PER_SECOND / ticks_per_second(*unit));
                    let ticks = cast(&arrays[0], &DataType::Int64)?;
                    let ticks = ticks.as_primitive::<Int64Type>().iter();
                    ticks.map(|t| t.map(|t| i128::from(t) * factor)).collect()
                }
                _ => intervals(&arrays[0])?.iter().map(|i| i.map(length)).collect(),
            };
            Ok(Arc::new(nanos.with_precision_and_scale(38, 0)?))
        },
    )
    .call(vec![interval])
}

pub(super) fn length(interval: IntervalMonthDayNano) -> i128 {
    let days = i64::from(interval.months) * DAYS_PER_MONTH + i64::from(interval.days);
    i128::from(days) * i128::from(NANOS_PER_DAY) + i128::from(interval.nanoseconds)
}

/// Intervals of months, days and nanoseconds; differences of timestamps as days and what is left.
pub(crate) fn intervals(array: &ArrayRef) -> Result<IntervalMonthDayNanoArray> {
    match array.data_type() {
        DataType::Duration(unit) => {
            let factor = i128::from(NANOS_PER_SECOND / ticks_per_second(*unit));
            let ticks = cast(array, &DataType::Int64)?;
            let ticks: &Int64Array = ticks.as_primitive();
            Ok(ticks.iter().map(|t| t.map(|t| of_length(i128::from(t) * factor))).collect())
        }
        _ => Ok(cast(array, &INTERVAL)?.as_primitive::<IntervalMonthDayNanoType>().clone()),
    }
}

/// Writes an interval: years, months and days by their names, and a time; a sign before each part that is negative.
pub(super) fn write(out: &mut String, interval: IntervalMonthDayNano) {
    let begin = out.len();
    let mut after_negative = false;
    let parts =
        [(interval.months / 12, "year"), (interval.months % 12, "mon"), (interval.days, "day")];
    for (value, name) in parts.into_iter().filter(|(value, _)| *value != 0) {
        let gap = if out.len() > begin { " " } else { "" };
        let plus = if after_negative && value > 0 { "+" } else { "" };
        let plural = if value == 1 { "" } else { "s" };
        let _ = write!(out, "{gap}{plus}{value} {name}{plural}");
        after_negative = value < 0;
    }
    if out.len() > begin && interval.nanoseconds == 0 {
        return;
    }
    if out.len() > begin {
        out.push(' ');
    }
    match interval.nanoseconds {
        nanos if nanos < 0 => out.push('-'),
        _ if after_negative => out.push('+'),
        _ => {}
    }
    put_time(out, interval.nanoseconds.saturating_abs());
}

/// Days and what is left of a number of nanoseconds.
fn of_length(nanos: i128) -> IntervalMonthDayNano {
    let day = i128::from(NANOS_PER_DAY);
    IntervalMonthDayNano::new(0, (nanos / day) as i32, (nanos % day) as i64)
}

/// Plans products of intervals and numbers, comparisons with texts, and EXTRACT.
#[derive(Debug)]
pub(crate) struct TimeOperators;

impl ExprPlanner for TimeOperators {
    fn plan_extract(&self, args: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        Ok(PlannerResult::Planned(Wrapped::extract().call(args)))
    }

    fn plan_binary_op(
        &self,
        expr: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        use BinaryOperator as Op;
        let divides = match expr.op {
            Op::Multiply => false,
            Op::Divide => true,
            Op::Eq | Op::NotEq | Op::Lt | Op::LtEq | Op::Gt | Op::GtEq => {
                return read_literal(expr, schema).map(PlannerResult::Original);
            }
            _ => return Ok(PlannerResult::Original(expr)),
        };
        let is_number = |t: &DataType| t.is_numeric() || t.is_null();
        let (Ok(left), Ok(right)) = (expr.left.get_type(schema), expr.right.get_type(schema))
        else {
            return Ok(PlannerResult::Original(expr));
        };
        let arguments = match (is_interval(&left), is_interval(&right)) {
            (true, false) if is_number(&right) => vec![expr.left, expr.right],
            (false, true) if is_number(&left) && !divides => vec![expr.right, expr.left],
            _ => return Ok(PlannerResult::Original(expr)),
        };
        Ok(PlannerResult::Planned(product(divides).call(arguments)))
    }
}

/// A text beside a boolean or an interval is one: DataFusion's planner asks for the type of a comparison before the rules run.
fn read_literal(mut expr: RawBinaryExpr, schema: &DFSchema) -> Result<RawBinaryExpr> {
    let (left, right) = (expr.left.clone(), expr.right.clone());
    for (beside, text) in [(left, &mut expr.right), (right, &mut expr.left)] {
        let Expr::Literal(value, _) = &*text else { continue };
        if !is_text(&value.data_type()) || value.is_null() {
            continue;
        }
        let read = match beside.get_type(schema) {
            Ok(DataType::Boolean) => cast_literal(value, &DataType::Boolean)?,
            Ok(DataType::Interval(_) | DataType::Duration(_)) => {
                Expr::Literal(value.cast_to(&INTERVAL)?, None)
            }
            _ => continue,
        };
        *text = read;
    }
    Ok(expr)
}

fn product(divides: bool) -> ScalarUDF {
    Function::udf(
        if divides { "interval_quotient" } else { "interval_product" },
        |types| match types {
            [interval, _] if is_interval(interval) => Ok(vec![interval.clone(), DataType::Float64]),
            _ => Err(Error::data("an interval is multiplied with or divided by a number").into()),
        },
        |_| Ok(INTERVAL),
        if divides {
            |arrays, _| scaled(arrays, |value, factor| value / factor)
        } else {
            |arrays, _| scaled(arrays, |value, factor| value * factor)
        },
    )
}

fn scaled(arrays: &[ArrayRef], by: fn(f64, f64) -> f64) -> Result<ArrayRef> {
    let intervals = intervals(&arrays[0])?;
    let factors = arrays[1].as_primitive::<Float64Type>();
    let out = intervals
        .iter()
        .zip(factors)
        .map(|pair| match pair {
            (Some(interval), Some(factor)) => scale(interval, factor, by).map(Some),
            _ => Ok(None),
        })
        .collect::<Result<IntervalMonthDayNanoArray>>()?;
    Ok(Arc::new(out))
}

/// Fractions of months become days, and fractions of days time, as PostgreSQL has it.
fn scale(
    interval: IntervalMonthDayNano,
    factor: f64,
    by: fn(f64, f64) -> f64,
) -> Result<IntervalMonthDayNano> {
    if by(1.0, factor).is_infinite() {
        return Err(Error::data("division by zero").into());
    }
    let round = |x: f64| (x * 1e6).round_ties_even() / 1e6;
    let (months, days) = (by(interval.months.into(), factor), by(interval.days.into(), factor));
    let month_days = round((months - months.trunc()) * DAYS_PER_MONTH as f64);
    let mut seconds =
        round((days - days.trunc() + month_days - month_days.trunc()) * SECONDS_PER_DAY);
    let mut whole_days = days.trunc() + month_days.trunc();
    if seconds.abs() >= SECONDS_PER_DAY {
        let more = (seconds / SECONDS_PER_DAY).trunc();
        whole_days += more;
        seconds -= more * SECONDS_PER_DAY;
    }
    let nanos = match exact_product(interval.nanoseconds, factor, by) {
        Some(nanos) if seconds == 0.0 => nanos as f64,
        _ => {
            let micros = by(interval.nanoseconds as f64 / 1e3, factor) + seconds * 1e6;
            micros.round_ties_even() * 1e3
        }
    };
    let fits = |x: f64, most: f64| x.abs() <= most;
    let whole = f64::from(i32::MIN)..=f64::from(i32::MAX);
    if !whole.contains(&months.trunc()) || !whole.contains(&whole_days) || !fits(nanos, 9.22e18) {
        return Err(Error::data("the interval is out of range").into());
    }
    let exact = exact_product(interval.nanoseconds, factor, by).filter(|_| seconds == 0.0);
    Ok(IntervalMonthDayNano::new(
        months.trunc() as i32,
        whole_days as i32,
        exact.unwrap_or(nanos as i64),
    ))
}

/// A product with a whole number, exactly.
fn exact_product(nanos: i64, factor: f64, by: fn(f64, f64) -> f64) -> Option<i64> {
    let multiplies = by(1.0, 2.0) == 2.0;
    let whole = factor.trunc() == factor && factor.abs() < 9e15;
    (multiplies && whole).then(|| nanos.checked_mul(factor as i64)).flatten()
}
