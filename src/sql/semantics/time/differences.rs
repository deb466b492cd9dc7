//! Differences of timestamps beside what they are added to, a date with a time of the day, and dates
//! and times some days or hours later. A difference is a Duration in Arrow, which
//! DataFusion adds to nothing but timestamps; a date with a time is a timestamp of nanoseconds there, which ends in 2262, and days are
//! an interval of nanoseconds, which ends after 292 years.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, Date32Array, Int64Array, Time64MicrosecondArray, TimestampMicrosecondArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, TimeUnit};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{ExprSchemable, ScalarUDF};
use datafusion::sql::sqlparser::ast::BinaryOperator;

use super::calendar::SECONDS_PER_DAY;
use super::function::Function;
use super::interval::{INTERVAL, intervals};
use crate::sql::{Code, Error};

const TIME: DataType = DataType::Time64(TimeUnit::Microsecond);
const MICROS_PER_DAY: i64 = SECONDS_PER_DAY * 1_000_000;
/// PostgreSQL's dates: from 4714-11-24 BC to 5874897-12-31.
const DATES: std::ops::RangeInclusive<i64> = -2_440_588..=2_145_031_948;

/// Plans sums and differences of these.
#[derive(Debug)]
pub(crate) struct Differences;

impl ExprPlanner for Differences {
    fn plan_binary_op(
        &self,
        mut expr: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        use DataType as D;
        if !matches!(expr.op, BinaryOperator::Plus | BinaryOperator::Minus) {
            return Ok(PlannerResult::Original(expr));
        }
        let (Ok(left), Ok(right)) = (expr.left.get_type(schema), expr.right.get_type(schema))
        else {
            return Ok(PlannerResult::Original(expr));
        };
        // An instant some days later is one by the session's clocks.
        let other = |t: &D| {
            matches!(t, D::Interval(_) | D::Time64(_) | D::Time32(_) | D::Date32)
                || matches!(t, D::Timestamp(_, Some(_)))
        };
        let is_time = |t: &D| matches!(t, D::Time64(_) | D::Time32(_));
        let is_interval = |t: &D| matches!(t, D::Interval(_) | D::Duration(_));
        let plus = expr.op == BinaryOperator::Plus;
        match (&left, &right) {
            (time, interval) if is_time(time) && is_interval(interval) => {
                let shift = if plus { time_later() } else { time_earlier() };
                return Ok(PlannerResult::Planned(shift.call(vec![expr.left, expr.right])));
            }
            (interval, time) if is_time(time) && is_interval(interval) && plus => {
                return Ok(PlannerResult::Planned(time_later().call(vec![expr.right, expr.left])));
            }
            (D::Duration(_), t) if other(t) => expr.left = interval_of().call(vec![expr.left]),
            (t, D::Duration(_)) if other(t) => expr.right = interval_of().call(vec![expr.right]),
            (D::Date32, D::Time64(_) | D::Time32(_)) if expr.op == BinaryOperator::Plus => {
                let arguments = vec![expr.left, expr.right];
                return Ok(PlannerResult::Planned(date_and_time().call(arguments)));
            }
            (D::Time64(_) | D::Time32(_), D::Date32) if expr.op == BinaryOperator::Plus => {
                let arguments = vec![expr.right, expr.left];
                return Ok(PlannerResult::Planned(date_and_time().call(arguments)));
            }
            (D::Date32, days) if days.is_integer() => {
                let shift = if expr.op == BinaryOperator::Plus { later() } else { earlier() };
                return Ok(PlannerResult::Planned(shift.call(vec![expr.left, expr.right])));
            }
            (days, D::Date32) if days.is_integer() && expr.op == BinaryOperator::Plus => {
                return Ok(PlannerResult::Planned(later().call(vec![expr.right, expr.left])));
            }
            _ => {}
        }
        Ok(PlannerResult::Original(expr))
    }
}

/// A difference of timestamps as an interval of days and time.
fn interval_of() -> ScalarUDF {
    Function::udf(
        "interval_of",
        |types| Ok(types.to_vec()),
        |_| Ok(INTERVAL),
        |arrays, _| Ok(Arc::new(intervals(&arrays[0])?)),
    )
}

fn time_later() -> ScalarUDF {
    Function::udf("time_later", time_and_interval, |_| Ok(TIME), |arrays, _| moved(arrays, 1))
}

fn time_earlier() -> ScalarUDF {
    Function::udf("time_earlier", time_and_interval, |_| Ok(TIME), |arrays, _| moved(arrays, -1))
}

fn time_and_interval(types: &[DataType]) -> Result<Vec<DataType>> {
    Ok(types.iter().enumerate().map(|(i, t)| if i == 0 { TIME } else { t.clone() }).collect())
}

/// Times of the day so much later that the hours and less of an interval say; the clock goes around, and days change nothing.
fn moved(arrays: &[ArrayRef], sign: i64) -> Result<ArrayRef> {
    let times = integers(&cast(&arrays[0], &TIME)?, &DataType::Int64)?;
    let intervals = intervals(&arrays[1])?;
    let moved: Time64MicrosecondArray = times
        .iter()
        .zip(intervals.iter())
        .map(|(time, interval)| {
            let micros = interval?.nanoseconds / 1_000 % MICROS_PER_DAY;
            Some((time? + sign * micros).rem_euclid(MICROS_PER_DAY))
        })
        .collect();
    Ok(Arc::new(moved))
}

fn later() -> ScalarUDF {
    Function::udf(
        "days_later",
        date_and_days,
        |_| Ok(DataType::Date32),
        |arrays, _| shifted(arrays, i64::checked_add),
    )
}

fn earlier() -> ScalarUDF {
    Function::udf(
        "days_earlier",
        date_and_days,
        |_| Ok(DataType::Date32),
        |arrays, _| shifted(arrays, i64::checked_sub),
    )
}

fn date_and_days(_types: &[DataType]) -> Result<Vec<DataType>> {
    Ok(vec![DataType::Date32, DataType::Int64])
}

fn shifted(arrays: &[ArrayRef], shift: fn(i64, i64) -> Option<i64>) -> Result<ArrayRef> {
    let dates = integers(&cast(&arrays[0], &DataType::Date32)?, &DataType::Int32)?;
    let days = integers(&arrays[1], &DataType::Int64)?;
    let shifted = dates.iter().zip(days.iter()).map(|(date, days)| {
        let (Some(date), Some(days)) = (date, days) else { return Ok(None) };
        let day = shift(date, days).filter(|day| DATES.contains(day));
        match day.and_then(|day| i32::try_from(day).ok()) {
            Some(day) => Ok(Some(day)),
            None => Err(datafusion::error::DataFusionError::from(Error::new(
                Code::DatetimeFieldOverflow,
                "date out of range",
            ))),
        }
    });
    Ok(Arc::new(shifted.collect::<Result<Date32Array>>()?))
}

/// The numbers behind dates and times, or integers themselves.
fn integers(array: &ArrayRef, through: &DataType) -> Result<Int64Array> {
    let array = cast(&cast(array, through)?, &DataType::Int64)?;
    Ok(array.as_primitive::<Int64Type>().clone())
}

fn date_and_time() -> ScalarUDF {
    Function::udf(
        "date_and_time",
        |_| Ok(vec![DataType::Date32, DataType::Time64(TimeUnit::Microsecond)]),
        |_| Ok(DataType::Timestamp(TimeUnit::Microsecond, None)),
        |arrays, _| {
            // A microsecond is one in the timestamp too; no date is so far that its microseconds do not fit, or nearly none.
            let days = integers(&cast(&arrays[0], &DataType::Date32)?, &DataType::Int32)?;
            let times = cast(&arrays[1], &DataType::Time64(TimeUnit::Microsecond))?;
            let times = integers(&times, &DataType::Int64)?;
            let moments = days.iter().zip(times.iter()).map(|(day, time)| {
                let (Some(day), Some(time)) = (day, time) else { return Ok(None) };
                let moment = day.checked_mul(MICROS_PER_DAY).and_then(|day| day.checked_add(time));
                moment.map(Some).ok_or_else(|| {
                    datafusion::error::DataFusionError::from(Error::data("timestamp out of range"))
                })
            });
            Ok(Arc::new(moments.collect::<Result<TimestampMicrosecondArray>>()?))
        },
    )
}
