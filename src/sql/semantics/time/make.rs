//! Functions that make and take apart dates, timestamps and intervals: `timezone` (AT TIME ZONE), `age`, `make_timestamp`,
//! `make_interval`, `date_diff`, `last_day`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Date32Array, Int64Array, IntervalMonthDayNanoArray};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Date32Type, Float64Type, Int64Type, IntervalMonthDayNano, TimeUnit,
};
use datafusion::common::Result;
use datafusion::logical_expr::ScalarUDF;

use super::calendar::{
    NANOS_PER_DAY, NANOS_PER_SECOND, SECONDS_PER_DAY, civil_from_days, days_from_civil,
    days_in_month, ticks_per_second,
};
use super::cast::{Unfit, cast_time};
use super::cast_function::failure_of;
use super::function::Function;
use super::interval::{INTERVAL, intervals};
use super::text::NamedZone;
use super::zone::zone;
use crate::sql::Error;
use crate::sql::types::UTC;

const MICROS: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

/// The functions of this file.
pub(crate) fn functions() -> Vec<ScalarUDF> {
    vec![timezone(), age(), make_timestamp(), make_interval(), date_diff(), last_day()]
}

fn usage(text: &str) -> datafusion::error::DataFusionError {
    Error::data(format!("the function is {text}")).into()
}

/// `timezone(zone, timestamp)`, which AT TIME ZONE is. DataFusion casts to a type with that zone (apache/datafusion#12218,
/// #25165).
fn timezone() -> ScalarUDF {
    Function::udf(
        "timezone",
        |types| {
            let [zone, moment] = types else { return Err(usage("timezone(zone, timestamp)")) };
            let zone =
                if matches!(zone, DataType::Interval(_)) { INTERVAL } else { DataType::Utf8 };
            let moment = match moment {
                DataType::Timestamp(..) => moment.clone(),
                // As in PostgreSQL a date or a text is an instant here.
                _ => DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::from(UTC))),
            };
            Ok(vec![zone, moment])
        },
        |types| match types {
            [_, DataType::Timestamp(unit, Some(_))] => Ok(DataType::Timestamp(*unit, None)),
            [_, DataType::Timestamp(unit, None)] => {
                Ok(DataType::Timestamp(*unit, Some(Arc::from(UTC))))
            }
            _ => Err(usage("timezone(zone, timestamp)")),
        },
        |arrays, args| in_zone(&arrays[0], &arrays[1], args.return_field.data_type()),
    )
}

fn in_zone(zones: &ArrayRef, moments: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    let DataType::Timestamp(unit, label) = moments.data_type() else {
        return Err(usage("timezone(zone, timestamp)"));
    };
    let second = ticks_per_second(*unit);
    let ticks = cast(moments, &DataType::Int64)?;
    let ticks: &Int64Array = ticks.as_primitive();
    let mut last: Option<(String, NamedZone)> = None;
    let mut find = |row: usize| -> Result<NamedZone> {
        if let DataType::Interval(_) = zones.data_type() {
            let interval = intervals(zones)?.value(row);
            if interval.months != 0 || interval.days != 0 {
                return Err(
                    Error::data("the interval of a time zone has no months and days").into()
                );
            }
            return Ok(NamedZone::Offset((interval.nanoseconds / NANOS_PER_SECOND) as i32));
        }
        let name = zones.as_string::<i32>().value(row);
        if let Some((known, zone)) = &last
            && known == name
        {
            return Ok(*zone);
        }
        let found = zone(name)
            .ok_or_else(|| Error::data(format!("the time zone \"{name}\" is not known")))?;
        last = Some((name.to_owned(), found));
        Ok(found)
    };
    let out = (0..ticks.len())
        .map(|row| {
            if zones.is_null(row) || ticks.is_null(row) {
                return Ok(None);
            }
            let (zone, tick) = (find(row)?, ticks.value(row));
            let seconds = tick.div_euclid(second);
            let moved = match label {
                Some(_) => zone
                    .offset_at(seconds)
                    .and_then(|offset| tick.checked_add(i64::from(offset) * second)),
                None => zone
                    .offset_of_wall(seconds)
                    .and_then(|offset| tick.checked_sub(i64::from(offset) * second)),
            };
            let moved = moved.ok_or_else(|| Error::data("the timestamp is out of range"))?;
            Ok(Some(moved))
        })
        .collect::<Result<Int64Array>>()?;
    Ok(cast(&(Arc::new(out) as ArrayRef), to)?)
}

/// The wall clocks of a timestamp array in nanoseconds.
pub(super) fn walls(array: &ArrayRef) -> Result<Vec<Option<i128>>> {
    let naive = match array.data_type() {
        DataType::Timestamp(unit, Some(_)) => {
            let to = DataType::Timestamp(*unit, None);
            cast_time(array, &to, Unfit::Fails).map_err(|f| failure_of(array, &to, &f))?
        }
        _ => Arc::clone(array),
    };
    let DataType::Timestamp(unit, _) = naive.data_type() else {
        return Err(Error::internal("a wall clock is a timestamp").into());
    };
    let factor = i128::from(NANOS_PER_SECOND / ticks_per_second(*unit));
    let ticks = cast(&naive, &DataType::Int64)?;
    Ok(ticks
        .as_primitive::<Int64Type>()
        .iter()
        .map(|t| t.map(|t| i128::from(t) * factor))
        .collect())
}

fn days_and_nanos(wall: i128) -> (i64, i64) {
    let day = i128::from(NANOS_PER_DAY);
    (wall.div_euclid(day) as i64, wall.rem_euclid(day) as i64)
}

fn two_moments(types: &[DataType], text: &str) -> Result<Vec<DataType>> {
    types
        .iter()
        .map(|t| match t {
            DataType::Timestamp(..) => Ok(t.clone()),
            DataType::Date32 | DataType::Date64 | DataType::Null => Ok(MICROS),
            t if t.is_string() => Ok(MICROS),
            _ => Err(usage(text)),
        })
        .collect()
}

/// `age(later, earlier)`: years, months and days as the calendar counts them.
fn age() -> ScalarUDF {
    Function::udf(
        "age",
        |types| match types {
            [_, _] => two_moments(types, "age(later, earlier)"),
            _ => Err(usage("age(later, earlier)")),
        },
        |_| Ok(INTERVAL),
        |arrays, _| {
            let (later, earlier) = (walls(&arrays[0])?, walls(&arrays[1])?);
            let ages: IntervalMonthDayNanoArray =
                later.into_iter().zip(earlier).map(|(a, b)| Some(age_of(a?, b?))).collect();
            Ok(Arc::new(ages))
        },
    )
}

fn age_of(a: i128, b: i128) -> IntervalMonthDayNano {
    let sign = if a < b { -1 } else { 1 };
    let (later, earlier) = if a < b { (b, a) } else { (a, b) };
    let (later_days, later_nanos) = days_and_nanos(later);
    let (earlier_days, earlier_nanos) = days_and_nanos(earlier);
    let (y2, m2, d2) = civil_from_days(later_days);
    let (y1, m1, d1) = civil_from_days(earlier_days);
    let mut months = (y2 - y1) * 12 + i64::from(m2) - i64::from(m1);
    let mut days = i64::from(d2) - i64::from(d1);
    let mut nanos = later_nanos - earlier_nanos;
    if nanos < 0 {
        nanos += NANOS_PER_DAY;
        days -= 1;
    }
    if days < 0 {
        // Borrowed from the month of the earlier one.
        days += i64::from(days_in_month(y1, m1));
        months -= 1;
    }
    IntervalMonthDayNano::new(sign * months as i32, sign * days as i32, i64::from(sign) * nanos)
}

fn make_timestamp() -> ScalarUDF {
    Function::udf(
        "make_timestamp",
        |types| match types.len() {
            6 => Ok([vec![DataType::Int64; 5], vec![DataType::Float64]].concat()),
            _ => Err(usage("make_timestamp(year, month, day, hour, minute, second)")),
        },
        |_| Ok(MICROS),
        |arrays, _| {
            let whole: Vec<&Int64Array> = arrays[..5].iter().map(|a| a.as_primitive()).collect();
            let seconds = arrays[5].as_primitive::<Float64Type>();
            let out = (0..seconds.len())
                .map(|row| {
                    if arrays.iter().any(|a| a.is_null(row)) {
                        return Ok(None);
                    }
                    let [year, month, day, hour, minute] =
                        std::array::from_fn(|i| whole[i].value(row));
                    let micros = timestamp_of(year, month, day, hour, minute, seconds.value(row));
                    let wrong = || Error::data("make_timestamp: a field is out of range");
                    Ok(Some(micros.ok_or_else(wrong)?))
                })
                .collect::<Result<Int64Array>>()?;
            Ok(cast(&(Arc::new(out) as ArrayRef), &MICROS)?)
        },
    )
}

fn timestamp_of(year: i64, month: i64, day: i64, hour: i64, minute: i64, s: f64) -> Option<i64> {
    let month = u32::try_from(month).ok().filter(|m| (1..=12).contains(m))?;
    // Years before Christ are negative.
    let year = match year {
        0 => return None,
        year if year < 0 => year + 1,
        year => year,
    };
    let day = u32::try_from(day).ok().filter(|d| (1..=days_in_month(year, month)).contains(d))?;
    let fits = (0..=24).contains(&hour) && (0..60).contains(&minute) && (0.0..=60.0).contains(&s);
    let micros = (s * 1e6).round_ties_even() as i64 + (hour * 60 + minute) * 60_000_000;
    if !fits || micros > SECONDS_PER_DAY * 1_000_000 {
        return None;
    }
    days_from_civil(year, month, day).checked_mul(SECONDS_PER_DAY * 1_000_000)?.checked_add(micros)
}

fn make_interval() -> ScalarUDF {
    Function::udf(
        "make_interval",
        |types| match types.len() {
            n @ 0..=6 => Ok(vec![DataType::Int64; n]),
            7 => Ok([vec![DataType::Int64; 6], vec![DataType::Float64]].concat()),
            _ => Err(usage("make_interval(years, months, weeks, days, hours, mins, secs)")),
        },
        |_| Ok(INTERVAL),
        |arrays, args| {
            let rows = arrays.first().map_or(args.number_rows, |a| a.len());
            let out = (0..rows)
                .map(|row| {
                    if arrays.iter().any(|a| a.is_null(row)) {
                        return Ok(None);
                    }
                    let part = |i: usize| match arrays.get(i) {
                        Some(array) if i < 6 => array.as_primitive::<Int64Type>().value(row),
                        _ => 0,
                    };
                    let seconds = match arrays.get(6) {
                        Some(seconds) => seconds.as_primitive::<Float64Type>().value(row),
                        None => 0.0,
                    };
                    let months = part(0).checked_mul(12).and_then(|m| m.checked_add(part(1)));
                    let days = part(2).checked_mul(7).and_then(|d| d.checked_add(part(3)));
                    let minutes = part(4).checked_mul(60).and_then(|m| m.checked_add(part(5)));
                    let nanos =
                        minutes.and_then(|m| m.checked_mul(60 * NANOS_PER_SECOND)).and_then(|n| {
                            n.checked_add((seconds * 1e6).round_ties_even() as i64 * 1_000)
                        });
                    let interval = months
                        .and_then(|m| i32::try_from(m).ok())
                        .zip(days.and_then(|d| i32::try_from(d).ok()))
                        .zip(nanos);
                    let ((months, days), nanos) =
                        interval.ok_or_else(|| Error::data("the interval is out of range"))?;
                    Ok(Some(IntervalMonthDayNano::new(months, days, nanos)))
                })
                .collect::<Result<IntervalMonthDayNanoArray>>()?;
            Ok(Arc::new(out))
        },
    )
}

/// `date_diff('day', start, end)`: how many beginnings of such a part lie between the two.
fn date_diff() -> ScalarUDF {
    Function::udf(
        "date_diff",
        |types| match types {
            [_, start, end] => {
                let moments =
                    two_moments(&[start.clone(), end.clone()], "date_diff(part, start, end)")?;
                Ok([vec![DataType::Utf8], moments].concat())
            }
            _ => Err(usage("date_diff(part, start, end)")),
        },
        |_| Ok(DataType::Int64),
        |arrays, _| {
            let parts = arrays[0].as_string::<i32>();
            let (starts, ends) = (walls(&arrays[1])?, walls(&arrays[2])?);
            let out = starts
                .into_iter()
                .zip(ends)
                .enumerate()
                .map(|(row, pair)| match pair {
                    (Some(start), Some(end)) if parts.is_valid(row) => {
                        let part = parts.value(row);
                        Ok(Some(number_of(part, end)? - number_of(part, start)?))
                    }
                    _ => Ok(None),
                })
                .collect::<Result<Int64Array>>()?;
            Ok(Arc::new(out))
        },
    )
}

/// The number of a part of time, counted from any beginning.
fn number_of(part: &str, wall: i128) -> Result<i64> {
    let (days, _) = days_and_nanos(wall);
    let (year, month, _) = civil_from_days(days);
    let nanos = |n: i128| wall.div_euclid(n) as i64;
    let second = i128::from(NANOS_PER_SECOND);
    let part = part.trim().to_ascii_lowercase();
    Ok(match part.strip_suffix('s').unwrap_or(&part) {
        "microsecond" => nanos(1_000),
        "millisecond" => nanos(1_000_000),
        "second" => nanos(second),
        "minute" => nanos(60 * second),
        "hour" => nanos(3_600 * second),
        "day" => days,
        // Weeks begin on Mondays.
        "week" => (days + 3).div_euclid(7),
        "month" => year * 12 + i64::from(month),
        "quarter" => year * 4 + i64::from(month - 1) / 3,
        "year" => year,
        "decade" => year.div_euclid(10),
        "century" => (year - 1).div_euclid(100),
        "millennium" => (year - 1).div_euclid(1_000),
        _ => return Err(Error::data(format!("date_diff: the part \"{part}\" is not known")).into()),
    })
}

/// `last_day(date)`: the last day of its month.
fn last_day() -> ScalarUDF {
    Function::udf(
        "last_day",
        |types| match types {
            [DataType::Timestamp(..)] => Ok(types.to_vec()),
            [_] => Ok(vec![DataType::Date32]),
            _ => Err(usage("last_day(date)")),
        },
        |_| Ok(DataType::Date32),
        |arrays, _| {
            let to = DataType::Date32;
            let days = match arrays[0].data_type() {
                DataType::Date32 => Arc::clone(&arrays[0]),
                _ => cast_time(&arrays[0], &to, Unfit::Fails)
                    .map_err(|f| failure_of(&arrays[0], &to, &f))?,
            };
            let days = days.as_primitive::<Date32Type>();
            let last: Date32Array = days.unary(|day| {
                let (year, month, _) = civil_from_days(day.into());
                days_from_civil(year, month, days_in_month(year, month)) as i32
            });
            Ok(Arc::new(last))
        },
    )
}
