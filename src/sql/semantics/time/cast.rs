//! Casts to, from and between dates, times and timestamps, and of text to booleans, as PostgreSQL makes them. A wall clock and
//! an instant are turned into each other on the clocks of the zone that the type names; a time is rounded to the unit.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, StringArray, StringBuilder,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, TimeUnit};

use super::calendar::{
    NANOS_PER_DAY, NANOS_PER_SECOND, SECONDS_PER_DAY, round_div, round_moment, ticks_per_second,
};
use super::interval::{self, intervals, is_interval};
use super::text::{self, Moment, NamedZone, Unread};
use super::zone::zone;
use crate::sql::cast::Failure;

/// What happens to a value that has no counterpart in the other type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Unfit {
    /// It is an error.
    Fails,
    /// It is NULL.
    IsNull,
}

const NO_FIT: &str = "does not fit";

/// Whether [`cast_time`] makes the cast, rather than Arrow.
pub(crate) fn is_time_cast(from: &DataType, to: &DataType) -> bool {
    use DataType::*;
    match (from, to) {
        (_, _) if from == to => false,
        (Utf8 | LargeUtf8 | Utf8View, Boolean | Date32 | Date64 | Time32(_) | Time64(_)) => true,
        (Utf8 | LargeUtf8 | Utf8View, Timestamp(..)) => true,
        (Date32 | Date64, Timestamp(..) | Utf8 | LargeUtf8 | Utf8View) => true,
        (Timestamp(..), Timestamp(..) | Date32 | Date64 | Time32(_) | Time64(_)) => true,
        (Timestamp(..), Utf8 | LargeUtf8 | Utf8View) => true,
        (Time32(_) | Time64(_), Time32(_) | Time64(_) | Utf8 | LargeUtf8 | Utf8View) => true,
        (Interval(_) | Duration(_), Utf8 | LargeUtf8 | Utf8View) => true,
        _ => false,
    }
}

/// Casts between types of [`is_time_cast`], and of binary to text.
pub(crate) fn cast_time(
    array: &ArrayRef,
    to: &DataType,
    unfit: Unfit,
) -> Result<ArrayRef, Failure> {
    use DataType::*;
    let from = array.data_type();
    match (from, to) {
        (Utf8 | LargeUtf8 | Utf8View, _) => {
            let texts = arrow_cast(array, &Utf8)?;
            read(&texts, to, unfit)
        }
        (_, Utf8 | LargeUtf8 | Utf8View) => arrow_cast(&write(array)?, to),
        (Timestamp(_, from_zone), Timestamp(_, zone)) if from_zone.is_some() == zone.is_some() => {
            rescale(array, to, unfit)
        }
        (Timestamp(..), Timestamp(_, None)) => {
            let walls = to_walls(array, unfit)?;
            rescale(&walls, to, unfit)
        }
        (Timestamp(unit, _), Timestamp(_, Some(_))) => {
            let instants = to_instants(array, *unit, to, unfit)?;
            rescale(&instants, to, unfit)
        }
        (Timestamp(unit, _), Date32 | Date64) => {
            let walls = to_walls(array, unfit)?;
            let day = ticks_per_second(*unit) * SECONDS_PER_DAY;
            let days = map(&ticks(&walls)?, unfit, |tick| Ok(tick.div_euclid(day)))?;
            days_as(&days, to, unfit)
        }
        (Timestamp(unit, _), _) => {
            let walls = to_walls(array, unfit)?;
            let day = ticks_per_second(*unit) * SECONDS_PER_DAY;
            let times = map(&ticks(&walls)?, unfit, |tick| Ok(tick.rem_euclid(day)))?;
            times_as(&times, *unit, to, unfit)
        }
        (Date32 | Date64, Timestamp(unit, zone)) => {
            let day = SECONDS_PER_DAY * ticks_per_second(*unit);
            let midnights =
                map(&days_of(array)?, unfit, |days| days.checked_mul(day).ok_or(NO_FIT))?;
            let walls = arrow_cast(&(Arc::new(midnights) as ArrayRef), &Timestamp(*unit, None))?;
            match zone {
                None => Ok(walls),
                Some(_) => to_instants(&walls, *unit, to, unfit),
            }
        }
        (Time32(unit) | Time64(unit), _) => times_as(&ticks(array)?, *unit, to, unfit),
        _ => Err(Failure::Type),
    }
}

fn arrow_cast(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, Failure> {
    cast(array, to).map_err(|e| Failure::Whole(e.to_string()))
}

/// The numbers behind timestamps and times.
fn ticks(array: &ArrayRef) -> Result<Int64Array, Failure> {
    let array = match array.data_type() {
        DataType::Time32(_) => arrow_cast(array, &DataType::Int32)?,
        _ => Arc::clone(array),
    };
    Ok(arrow_cast(&array, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
}

/// Days from 1970-01-01.
fn days_of(array: &ArrayRef) -> Result<Int64Array, Failure> {
    let days = arrow_cast(&arrow_cast(array, &DataType::Date32)?, &DataType::Int32)?;
    ticks(&days)
}

fn map(
    values: &Int64Array,
    unfit: Unfit,
    f: impl FnMut(i64) -> Result<i64, &'static str>,
) -> Result<Int64Array, Failure> {
    collect(values.iter(), unfit, f)
}

/// An array of what `f` makes of each value that is there.
fn collect<I, T>(
    values: impl Iterator<Item = Option<I>>,
    unfit: Unfit,
    mut f: impl FnMut(I) -> Result<T, &'static str>,
) -> Result<<Option<T> as Collect>::Array, Failure>
where
    Option<T>: Collect,
{
    let mut failure = None;
    let out =
        Collect::collect(values.enumerate().map_while(|(row, value)| match value.map(&mut f) {
            None => Some(None),
            Some(Ok(made)) => Some(Some(made)),
            Some(Err(_)) if unfit == Unfit::IsNull => Some(None),
            Some(Err(reason)) => {
                failure = Some(Failure::Value { row, reason });
                None
            }
        }));
    failure.map_or(Ok(out), Err)
}

/// The arrays that [`collect`] makes.
trait Collect: Sized {
    type Array;
    fn collect(values: impl Iterator<Item = Self>) -> Self::Array;
}

impl Collect for Option<i64> {
    type Array = Int64Array;
    fn collect(values: impl Iterator<Item = Self>) -> Int64Array {
        values.collect()
    }
}

impl Collect for Option<bool> {
    type Array = BooleanArray;
    fn collect(values: impl Iterator<Item = Self>) -> BooleanArray {
        values.collect()
    }
}

/// Timestamps in the unit and under the label of `to`.
fn rescale(array: &ArrayRef, to: &DataType, unfit: Unfit) -> Result<ArrayRef, Failure> {
    let (DataType::Timestamp(from, _), DataType::Timestamp(unit, _)) = (array.data_type(), to)
    else {
        return Err(Failure::Type);
    };
    let values = ticks(array)?;
    let second = i128::from(ticks_per_second(*from));
    let round = |value, step| round_moment(value, step, second);
    let values = if from == unit { values } else { in_unit(&values, *from, *unit, unfit, round)? };
    arrow_cast(&(Arc::new(values) as ArrayRef), to)
}

fn in_unit(
    values: &Int64Array,
    from: TimeUnit,
    to: TimeUnit,
    unfit: Unfit,
    round: impl Fn(i128, i128) -> i128,
) -> Result<Int64Array, Failure> {
    let (from, to) = (ticks_per_second(from), ticks_per_second(to));
    if from <= to {
        let factor = to / from;
        map(values, unfit, |tick| tick.checked_mul(factor).ok_or(NO_FIT))
    } else {
        let unit = i128::from(from / to);
        map(values, unfit, |tick| i64::try_from(round(tick.into(), unit)).map_err(|_| NO_FIT))
    }
}

/// What the clocks of their zone show at instants; wall clocks as they are.
fn to_walls(array: &ArrayRef, unfit: Unfit) -> Result<ArrayRef, Failure> {
    let DataType::Timestamp(unit, Some(label)) = array.data_type() else {
        return Ok(Arc::clone(array));
    };
    let zone = known_zone(label)?;
    let second = ticks_per_second(*unit);
    let walls = match zone {
        NamedZone::Offset(0) => ticks(array)?,
        _ => map(&ticks(array)?, unfit, |tick| {
            let offset = zone.offset_at(tick.div_euclid(second)).ok_or(NO_FIT)?;
            tick.checked_add(i64::from(offset) * second).ok_or(NO_FIT)
        })?,
    };
    arrow_cast(&(Arc::new(walls) as ArrayRef), &DataType::Timestamp(*unit, None))
}

/// The instants at which the clocks of the zone of `to` show wall clocks, in `unit`.
fn to_instants(
    array: &ArrayRef,
    unit: TimeUnit,
    to: &DataType,
    unfit: Unfit,
) -> Result<ArrayRef, Failure> {
    let DataType::Timestamp(_, Some(label)) = to else { return Err(Failure::Type) };
    let zone = known_zone(label)?;
    let second = ticks_per_second(unit);
    let instants = match zone {
        NamedZone::Offset(0) => ticks(array)?,
        _ => map(&ticks(array)?, unfit, |tick| {
            let offset = zone.offset_of_wall(tick.div_euclid(second)).ok_or(NO_FIT)?;
            tick.checked_sub(i64::from(offset) * second).ok_or(NO_FIT)
        })?,
    };
    let to = DataType::Timestamp(unit, Some(Arc::clone(label)));
    arrow_cast(&(Arc::new(instants) as ArrayRef), &to)
}

fn known_zone(label: &str) -> Result<NamedZone, Failure> {
    zone(label).ok_or_else(|| Failure::Whole(format!("the time zone \"{label}\" is not known")))
}

fn days_as(days: &Int64Array, to: &DataType, unfit: Unfit) -> Result<ArrayRef, Failure> {
    let days = map(days, unfit, |day| i32::try_from(day).map(i64::from).map_err(|_| NO_FIT))?;
    let days = arrow_cast(&(Arc::new(days) as ArrayRef), &DataType::Int32)?;
    arrow_cast(&arrow_cast(&days, &DataType::Date32)?, to)
}

/// Times of the day, in ticks of `from`.
fn times_as(
    times: &Int64Array,
    from: TimeUnit,
    to: &DataType,
    unfit: Unfit,
) -> Result<ArrayRef, Failure> {
    let (DataType::Time32(unit) | DataType::Time64(unit)) = to else { return Err(Failure::Type) };
    let day = ticks_per_second(*unit) * SECONDS_PER_DAY;
    let times = in_unit(times, from, *unit, unfit, round_div)?;
    let times: ArrayRef =
        Arc::new(map(&times, unfit, |t| if t < day { Ok(t) } else { Err(NO_FIT) })?);
    match to {
        DataType::Time32(_) => arrow_cast(&arrow_cast(&times, &DataType::Int32)?, to),
        _ => arrow_cast(&times, to),
    }
}

/// Reads texts.
fn read(texts: &ArrayRef, to: &DataType, unfit: Unfit) -> Result<ArrayRef, Failure> {
    let texts = texts.as_string::<i32>().iter();
    match to {
        DataType::Boolean => {
            let read = |text| text::boolean(text).ok_or(Unread::Syntax.reason());
            Ok(Arc::new(collect(texts, unfit, read)?))
        }
        DataType::Date32 | DataType::Date64 => {
            let days = collect(texts, unfit, |text| {
                let moment = text::moment(text).map_err(Unread::reason)?;
                // 24:00 is the next day's, as a timestamp's date.
                moment.days.ok_or(Unread::Syntax.reason())
            })?;
            days_as(&days, to, unfit)
        }
        DataType::Time32(unit) | DataType::Time64(unit) => {
            let nanos = collect(texts, unfit, |text| {
                let moment = text::moment(text).map_err(Unread::reason)?;
                // 'epoch' is a moment and no time of a day.
                let is_time = !text.trim().eq_ignore_ascii_case("epoch");
                let nanos = moment.nanos.filter(|_| is_time).ok_or(Unread::Syntax.reason())?;
                if nanos < NANOS_PER_DAY { Ok(nanos) } else { Err(NO_FIT) }
            })?;
            let micros = *unit != TimeUnit::Nanosecond;
            let nanos = if micros { map(&nanos, unfit, |n| Ok(to_micros(n)))? } else { nanos };
            times_as(&nanos, TimeUnit::Nanosecond, to, unfit)
        }
        DataType::Timestamp(unit, label) => {
            let zone = label.as_deref().map(known_zone).transpose()?;
            let ticks = collect(texts, unfit, |text| {
                let moment = text::moment(text).map_err(Unread::reason)?;
                timestamp(&moment, *unit, zone)
            })?;
            arrow_cast(&(Arc::new(ticks) as ArrayRef), to)
        }
        _ => Err(Failure::Type),
    }
}

/// Text is read to microseconds first, halves to even, and rounded to coarser units from there.
fn to_micros(nanos: i64) -> i64 {
    let (micros, rest) = (nanos.div_euclid(1_000), nanos.rem_euclid(1_000));
    let up = rest > 500 || (rest == 500 && micros % 2 != 0);
    (micros + i64::from(up)) * 1_000
}

/// What a text says as a timestamp: without a zone its offset is ignored; with one it is the offset, or the clock of `zone`.
pub(crate) fn timestamp(
    moment: &Moment,
    unit: TimeUnit,
    zone: Option<NamedZone>,
) -> Result<i64, &'static str> {
    let days = moment.days.ok_or(Unread::Syntax.reason())?;
    let nanos = moment.nanos.unwrap_or(0);
    let nanos = if unit == TimeUnit::Nanosecond { nanos } else { to_micros(nanos) };
    let mut wall = i128::from(days) * i128::from(NANOS_PER_DAY) + i128::from(nanos);
    if let Some(zone) = zone {
        let second = i128::from(NANOS_PER_SECOND);
        let seconds = i64::try_from(wall.div_euclid(second)).map_err(|_| NO_FIT)?;
        let offset = moment.zone.unwrap_or(zone).offset_of_wall(seconds).ok_or(NO_FIT)?;
        wall -= i128::from(offset) * second;
    }
    let tick = i128::from(NANOS_PER_SECOND / ticks_per_second(unit));
    i64::try_from(round_moment(wall, tick, NANOS_PER_SECOND.into())).map_err(|_| NO_FIT)
}

/// The values as text.
fn write(array: &ArrayRef) -> Result<ArrayRef, Failure> {
    if is_interval(array.data_type()) {
        return write_intervals(array);
    }
    if let Some(bytes) = arrow_cast(array, &DataType::Binary).ok().filter(|_| is_binary(array)) {
        let bytes = bytes.as_binary::<i32>();
        if 2 * bytes.value_data().len() + 2 * bytes.len() > i32::MAX as usize {
            return Err(Failure::Whole("the texts take more than 2 GiB".to_owned()));
        }
        let texts = bytes.iter().map(|bytes| bytes.map(text::write_bytes));
        return Ok(Arc::new(texts.collect::<StringArray>()));
    }
    let mut builder = StringBuilder::with_capacity(array.len(), array.len() * 20);
    let mut out = String::new();
    let values = match array.data_type() {
        DataType::Date32 | DataType::Date64 => days_of(array)?,
        _ => ticks(array)?,
    };
    let (unit, zone) = match array.data_type() {
        DataType::Timestamp(unit, label) => (*unit, label.as_deref().map(known_zone).transpose()?),
        DataType::Time32(unit) | DataType::Time64(unit) => (*unit, None),
        _ => (TimeUnit::Second, None),
    };
    let second = ticks_per_second(unit);
    for (row, value) in values.iter().enumerate() {
        let Some(value) = value else {
            builder.append_null();
            continue;
        };
        out.clear();
        match array.data_type() {
            DataType::Timestamp(..) => {
                let offset = match &zone {
                    None => None,
                    Some(zone) => Some(
                        zone.offset_at(value.div_euclid(second))
                            .ok_or(Failure::Value { row, reason: NO_FIT })?,
                    ),
                };
                let nanos = i128::from(value) * i128::from(NANOS_PER_SECOND / second)
                    + i128::from(offset.unwrap_or(0)) * i128::from(NANOS_PER_SECOND);
                text::write_timestamp(&mut out, nanos, offset);
            }
            DataType::Time32(_) | DataType::Time64(_) => {
                text::put_time(&mut out, value * (NANOS_PER_SECOND / second));
            }
            _ => text::write_date(&mut out, value),
        }
        builder.append_value(&out);
    }
    Ok(Arc::new(builder.finish()))
}

fn is_binary(array: &ArrayRef) -> bool {
    use DataType::*;
    matches!(array.data_type(), Binary | LargeBinary | BinaryView | FixedSizeBinary(_))
}

fn write_intervals(array: &ArrayRef) -> Result<ArrayRef, Failure> {
    let intervals = intervals(array).map_err(|e| Failure::Whole(e.to_string()))?;
    let texts = intervals.iter().map(|interval| {
        let mut out = String::new();
        interval::write(&mut out, interval?);
        Some(out)
    });
    Ok(Arc::new(texts.collect::<StringArray>()))
}

/// Rounds the values of a time or timestamp to so many digits of a second; the type stays.
pub(crate) fn round_to(array: &ArrayRef, digits: u8) -> Result<ArrayRef, Failure> {
    let (DataType::Timestamp(unit, _) | DataType::Time32(unit) | DataType::Time64(unit)) =
        array.data_type()
    else {
        return Err(Failure::Type);
    };
    let held = super::calendar::digits_of(*unit);
    if digits >= held {
        return Ok(Arc::clone(array));
    }
    let step = i128::from(10i64.pow(u32::from(held - digits)));
    let second = i128::from(ticks_per_second(*unit));
    let is_moment = matches!(array.data_type(), DataType::Timestamp(..));
    let rounded = map(&ticks(array)?, Unfit::Fails, |tick| {
        let parts = match is_moment {
            true => round_moment(tick.into(), step, second),
            false => round_div(tick.into(), step),
        };
        i64::try_from(parts * step).map_err(|_| NO_FIT)
    })?;
    match array.data_type() {
        DataType::Timestamp(..) => arrow_cast(&(Arc::new(rounded) as ArrayRef), array.data_type()),
        to => times_as(&rounded, *unit, to, Unfit::Fails),
    }
}
