//! `date_trunc`, `date_bin` and `time_bucket`: where buckets of time begin, in the unit of the timestamps. DataFusion goes through
//! nanoseconds, which end in 2262 (apache/datafusion#1360).

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, IntervalMonthDayNano, TimeUnit};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};

use super::calendar::{
    NANOS_PER_SECOND, SECONDS_PER_DAY, add_months, civil_from_days, days_from_civil,
    ticks_per_second,
};
use super::interval::{INTERVAL, intervals};
use super::text::NamedZone;
use super::zone::zone;
use crate::sql::Error;

/// 2000-01-03, a Monday: where buckets of `time_bucket` begin; those of months on the first of the month.
const MONDAY: i64 = 10_959;
const JANUARY: i64 = 10_957;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Trunc,
    Bin,
    Bucket,
}

/// One of the three.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Bucket {
    kind: Kind,
    aliases: Vec<String>,
    signature: Signature,
}

/// The functions; `time` is what DataFusion has for times of the day.
pub(crate) fn functions() -> Vec<ScalarUDF> {
    let make = |kind, aliases: &[&str]| {
        ScalarUDF::from(Bucket {
            kind,
            aliases: aliases.iter().map(|a| (*a).to_owned()).collect(),
            signature: Signature::user_defined(Volatility::Immutable),
        })
    };
    vec![make(Kind::Trunc, &["datetrunc"]), make(Kind::Bin, &[]), make(Kind::Bucket, &[])]
}

impl ScalarUDFImpl for Bucket {
    fn name(&self) -> &str {
        match self.kind {
            Kind::Trunc => "date_trunc",
            Kind::Bin => "date_bin",
            Kind::Bucket => "time_bucket",
        }
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let wrong = || {
            let usage = match self.kind {
                Kind::Trunc => {
                    "date_trunc('day', timestamp) or date_trunc('day', timestamptz, 'zone')"
                }
                Kind::Bin => "date_bin(interval, timestamp, origin)",
                Kind::Bucket => "time_bucket(interval, timestamp, origin)",
            };
            Error::data(format!("{} takes other arguments: {usage}", self.name()))
        };
        if !(2..=3).contains(&types.len()) {
            return Err(wrong().into());
        }
        let moment = |t: &DataType| match t {
            DataType::Timestamp(..) => Some(t.clone()),
            DataType::Time32(_) | DataType::Time64(_) if self.kind != Kind::Bucket => {
                Some(t.clone())
            }
            DataType::Date32 | DataType::Date64 | DataType::Null => {
                Some(DataType::Timestamp(TimeUnit::Microsecond, None))
            }
            t if t.is_string() => Some(DataType::Timestamp(TimeUnit::Microsecond, None)),
            _ => None,
        };
        let mut out = types.to_vec();
        out[1] = moment(&types[1]).ok_or_else(wrong)?;
        match self.kind {
            Kind::Trunc => {
                if !types[0].is_string() && !types[0].is_null() {
                    return Err(wrong().into());
                }
                out[0] = DataType::Utf8;
                if types.len() == 3 {
                    if !matches!(out[1], DataType::Timestamp(_, Some(_))) {
                        return Err(wrong().into());
                    }
                    out[2] = DataType::Utf8;
                }
            }
            _ => {
                let interval = matches!(types[0], DataType::Interval(_) | DataType::Duration(_));
                if !interval && !types[0].is_string() && !types[0].is_null() {
                    return Err(wrong().into());
                }
                if !matches!(types[0], DataType::Duration(_)) {
                    out[0] = INTERVAL;
                }
                if let Some(origin) = types.get(2) {
                    if matches!(origin, DataType::Interval(_)) || moment(origin).is_none() {
                        return Err(wrong().into());
                    }
                    out[2] = out[1].clone();
                }
            }
        }
        Ok(out)
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types[1].clone())
    }

    /// NULL comes of NULL only.
    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let nullable = args.arg_fields.iter().any(|f| f.is_nullable());
        let data_type = args.arg_fields[1].data_type().clone();
        Ok(Arc::new(Field::new(self.name(), data_type, nullable)))
    }

    fn output_ordering(&self, input: &[ExprProperties]) -> Result<SortProperties> {
        let constant = |p: &ExprProperties| p.sort_properties == SortProperties::Singleton;
        let steady = constant(&input[0]) && input.get(2).is_none_or(constant);
        Ok(if steady { input[1].sort_properties } else { SortProperties::Unordered })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let scalar = args.args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let out = match self.kind {
            Kind::Trunc => truncate(&arrays)?,
            _ => bin(&arrays, self.kind)?,
        };
        if scalar && out.len() == 1 {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&out, 0)?));
        }
        Ok(ColumnarValue::Array(out))
    }
}

/// Times of the day and timestamps as numbers, and how many of these make a second.
fn numbers(array: &ArrayRef) -> Result<(Int64Array, i64)> {
    let second = match array.data_type() {
        DataType::Timestamp(unit, _) | DataType::Time32(unit) | DataType::Time64(unit) => {
            ticks_per_second(*unit)
        }
        other => return Err(Error::internal(format!("{other} is no time")).into()),
    };
    let whole = match array.data_type() {
        DataType::Time32(_) => cast(array, &DataType::Int32)?,
        _ => Arc::clone(array),
    };
    Ok((cast(&whole, &DataType::Int64)?.as_primitive::<Int64Type>().clone(), second))
}

fn back(numbers: Int64Array, to: &DataType) -> Result<ArrayRef> {
    let numbers: ArrayRef = Arc::new(numbers);
    Ok(match to {
        DataType::Time32(_) => cast(&cast(&numbers, &DataType::Int32)?, to)?,
        _ => cast(&numbers, to)?,
    })
}

fn out_of_range() -> Error {
    Error::data("the timestamp is out of range")
}

/// What `date_trunc` cuts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Granularity {
    /// Parts of a second, as many as this.
    Fraction(i64),
    Seconds(i64),
    Days,
    Weeks,
    Months(i64),
    Years(i64),
}

impl Granularity {
    fn of(name: &str) -> Result<Self> {
        Ok(match name.trim().to_ascii_lowercase().as_str() {
            "nanosecond" | "nanoseconds" => Self::Fraction(NANOS_PER_SECOND),
            "microsecond" | "microseconds" | "us" => Self::Fraction(1_000_000),
            "millisecond" | "milliseconds" | "ms" => Self::Fraction(1_000),
            "second" | "seconds" | "s" | "sec" => Self::Seconds(1),
            "minute" | "minutes" | "m" | "min" => Self::Seconds(60),
            "hour" | "hours" | "h" => Self::Seconds(3_600),
            "day" | "days" | "d" => Self::Days,
            "week" | "weeks" | "w" => Self::Weeks,
            "month" | "months" | "mon" => Self::Months(1),
            "quarter" | "quarters" | "qtr" => Self::Months(3),
            "year" | "years" | "y" => Self::Years(1),
            "decade" | "decades" => Self::Years(10),
            "century" | "centuries" => Self::Years(100),
            "millennium" | "millenniums" | "millennia" => Self::Years(1_000),
            other => {
                return Err(
                    Error::data(format!("date_trunc: the unit \"{other}\" is not known")).into()
                );
            }
        })
    }

    /// A wall clock cut down.
    fn cut(self, wall: i64, second: i64) -> Option<i64> {
        let day = SECONDS_PER_DAY * second;
        let days = match self {
            Self::Fraction(parts) => {
                let step = (second / parts).max(1);
                return wall.checked_sub(wall.rem_euclid(step));
            }
            Self::Seconds(seconds) => return wall.checked_sub(wall.rem_euclid(seconds * second)),
            Self::Days => wall.div_euclid(day),
            Self::Weeks => {
                let days = wall.div_euclid(day);
                // 1970-01-01 was a Thursday.
                days - (days + 3).rem_euclid(7)
            }
            Self::Months(months) => {
                let (year, month, _) = civil_from_days(wall.div_euclid(day));
                let month = i64::from(month) - 1;
                days_from_civil(year, (month - month % months + 1) as u32, 1)
            }
            Self::Years(years) => {
                let (year, ..) = civil_from_days(wall.div_euclid(day));
                // Centuries and millennia begin with the year 1, decades with a 0.
                let first = if years >= 100 { 1 } else { 0 };
                days_from_civil((year - first).div_euclid(years) * years + first, 1, 1)
            }
        };
        days.checked_mul(day)
    }
}

fn truncate(arrays: &[ArrayRef]) -> Result<ArrayRef> {
    let (units, source) = (arrays[0].as_string::<i32>(), &arrays[1]);
    let (values, second) = numbers(source)?;
    let label = match source.data_type() {
        DataType::Timestamp(_, Some(label)) => Some(known(label)?),
        _ => None,
    };
    let zones = arrays.get(2).map(|zones| zones.as_string::<i32>());
    let mut field: Option<(&str, Granularity)> = None;
    let mut named: Option<(&str, NamedZone)> = None;
    let out = (0..values.len())
        .map(|row| {
            let zone = match zones {
                Some(zones) if zones.is_null(row) => return Ok(None),
                Some(zones) => {
                    let name = zones.value(row);
                    match named {
                        Some((known, zone)) if known == name => Some(zone),
                        _ => Some(named.insert((name, known(name)?)).1),
                    }
                }
                None => label,
            };
            if values.is_null(row) || units.is_null(row) {
                return Ok(None);
            }
            let name = units.value(row);
            let cut = match field {
                Some((known, field)) if known == name => field,
                _ => field.insert((name, Granularity::of(name)?)).1,
            };
            let value = truncated(values.value(row), second, cut, zone);
            Ok(Some(value.ok_or_else(out_of_range)?))
        })
        .collect::<Result<Int64Array>>()?;
    back(out, source.data_type())
}

fn truncated(value: i64, second: i64, cut: Granularity, zone: Option<NamedZone>) -> Option<i64> {
    let zone = match zone {
        None | Some(NamedZone::Offset(0)) => return cut.cut(value, second),
        Some(zone) => zone,
    };
    let offset = i64::from(zone.offset_at(value.div_euclid(second))?) * second;
    let wall = cut.cut(value.checked_add(offset)?, second)?;
    // An hour that comes twice stays the one that it is; days begin by their own clock.
    let offset = match cut {
        Granularity::Fraction(_) | Granularity::Seconds(_) => offset,
        _ => i64::from(zone.offset_of_wall(wall.div_euclid(second))?) * second,
    };
    wall.checked_sub(offset)
}

fn known(label: &str) -> Result<NamedZone> {
    Ok(zone(label).ok_or_else(|| Error::data(format!("the time zone \"{label}\" is not known")))?)
}

/// The width of a bucket.
#[derive(Debug, Clone, Copy)]
enum Stride {
    Months(i64),
    Ticks(i128),
}

impl Stride {
    fn of(interval: IntervalMonthDayNano, second: i64, name: &str) -> Result<Self> {
        let day = i128::from(SECONDS_PER_DAY) * i128::from(NANOS_PER_SECOND);
        let nanos = i128::from(interval.days) * day + i128::from(interval.nanoseconds);
        let tick = i128::from(NANOS_PER_SECOND / second);
        let wrong = |what: &str| Err(Error::data(format!("{name}: the interval {what}")).into());
        match (interval.months, nanos) {
            (0, nanos) if nanos <= 0 => wrong("must be longer than nothing"),
            (0, nanos) if nanos % tick != 0 => wrong("is finer than the timestamp"),
            (0, nanos) => Ok(Self::Ticks(nanos / tick)),
            (months, 0) if months > 0 => Ok(Self::Months(months.into())),
            (_, 0) => wrong("must be longer than nothing"),
            _ => wrong("has months and days or less; a bucket has one of them"),
        }
    }

    /// Where the bucket of a value begins.
    fn begin(self, value: i64, origin: i64, second: i64) -> Option<i64> {
        match self {
            Self::Ticks(stride) => {
                let distance = i128::from(value) - i128::from(origin);
                i64::try_from(i128::from(value) - distance.rem_euclid(stride)).ok()
            }
            Self::Months(months) => {
                let day = SECONDS_PER_DAY * second;
                let (days, time) = (origin.div_euclid(day), origin.rem_euclid(day));
                let (year, month, _) = civil_from_days(days);
                let (to_year, to_month, _) = civil_from_days(value.div_euclid(day));
                let distance = (to_year - year) * 12 + i64::from(to_month) - i64::from(month);
                let begin = |number: i64| {
                    add_months(days, number * months).checked_mul(day)?.checked_add(time)
                };
                let number = distance.div_euclid(months);
                let begins = begin(number)?;
                if begins <= value { Some(begins) } else { begin(number - 1) }
            }
        }
    }
}

fn bin(arrays: &[ArrayRef], kind: Kind) -> Result<ArrayRef> {
    let name = if kind == Kind::Bin { "date_bin" } else { "time_bucket" };
    let strides = intervals(&arrays[0])?;
    let (values, second) = numbers(&arrays[1])?;
    let origins = arrays.get(2).map(numbers).transpose()?.map(|(origins, _)| origins);
    let is_time = !matches!(arrays[1].data_type(), DataType::Timestamp(..));
    let mut last: Option<(IntervalMonthDayNano, Stride)> = None;
    let out = (0..values.len())
        .map(|row| {
            let no_origin = origins.as_ref().is_some_and(|o| o.is_null(row));
            if strides.is_null(row) || values.is_null(row) || no_origin {
                return Ok(None);
            }
            let interval = strides.value(row);
            let stride = match last {
                Some((known, stride)) if known == interval => stride,
                _ => last.insert((interval, Stride::of(interval, second, name)?)).1,
            };
            if is_time && matches!(stride, Stride::Months(_)) {
                return Err(Error::data(format!("{name}: a time of the day has no months")).into());
            }
            let origin = match (&origins, kind, stride) {
                (Some(origins), ..) => origins.value(row),
                (None, Kind::Bucket, Stride::Months(_)) => JANUARY * SECONDS_PER_DAY * second,
                (None, Kind::Bucket, _) => MONDAY * SECONDS_PER_DAY * second,
                (None, ..) => 0,
            };
            let begin = stride.begin(values.value(row), origin, second);
            let begin = if is_time {
                // Before midnight there is no time.
                begin.map(|b| b.rem_euclid(SECONDS_PER_DAY * second))
            } else {
                begin
            };
            Ok(Some(begin.ok_or_else(out_of_range)?))
        })
        .collect::<Result<Int64Array>>()?;
    back(out, arrays[1].data_type())
}
