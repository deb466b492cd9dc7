//! `to_char` of dates, timestamps and intervals with PostgreSQL's patterns. DataFusion's takes those of `strftime`.

use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringBuilder};
use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::Result;
use datafusion::logical_expr::ScalarUDF;

use super::calendar::{NANOS_PER_DAY, NANOS_PER_SECOND, civil_from_days, days_from_civil};
use super::function::Function;
use super::interval::{INTERVAL, intervals, is_interval};
use super::make::walls;
use super::number_pattern;
use super::text::put_offset;
use super::zone::zone;
use crate::sql::Error;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] =
    ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const ROMAN: [&str; 12] =
    ["I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII"];

/// `to_char(value, pattern)`.
pub(crate) fn function() -> ScalarUDF {
    Function::udf(
        "to_char",
        |types| {
            let [value, _] = types else {
                return Err(Error::data("the function is to_char(value, pattern)").into());
            };
            let value = match value {
                DataType::Timestamp(..) => value.clone(),
                DataType::Date32 | DataType::Date64 => {
                    DataType::Timestamp(TimeUnit::Microsecond, None)
                }
                t if is_interval(t) => t.clone(),
                DataType::Time32(_) | DataType::Time64(_) => INTERVAL,
                DataType::Float16 | DataType::Float32 | DataType::Float64 => DataType::Float64,
                t if t.is_decimal() => t.clone(),
                t if t.is_integer() => DataType::Decimal128(20, 0),
                DataType::Null => DataType::Timestamp(TimeUnit::Microsecond, None),
                other => {
                    let name = crate::sql::types::sql_name(other);
                    return Err(
                        Error::data(format!("to_char of {name} is not known; cast it")).into()
                    );
                }
            };
            Ok(vec![value, DataType::Utf8])
        },
        |_| Ok(DataType::Utf8),
        |arrays, _| to_char(&arrays[0], &arrays[1]),
    )
}

fn to_char(values: &ArrayRef, patterns: &ArrayRef) -> Result<ArrayRef> {
    let patterns = patterns.as_string::<i32>();
    if values.data_type().is_numeric() {
        return number_pattern::write(values, patterns);
    }
    let moments: Vec<Option<Moment>> = if is_interval(values.data_type()) {
        let of = |i| Moment::of_interval(i);
        intervals(values)?.iter().map(|i| i.map(of)).collect()
    } else {
        let offsets = offsets(values)?;
        let of = |(wall, offset)| Option::map(wall, |wall| Moment::of_wall(wall, offset));
        walls(values)?.into_iter().zip(offsets).map(of).collect()
    };
    let mut out = StringBuilder::new();
    let mut parsed: Option<(&str, Vec<Part>)> = None;
    let mut text = String::new();
    for (row, moment) in moments.iter().enumerate() {
        let (Some(moment), true) = (moment, patterns.is_valid(row)) else {
            out.append_null();
            continue;
        };
        let pattern = patterns.value(row);
        if parsed.as_ref().is_none_or(|(known, _)| *known != pattern) {
            parsed = Some((pattern, parse(pattern)?));
        }
        text.clear();
        for part in parsed.iter().flat_map(|(_, parts)| parts) {
            part.write(&mut text, moment)?;
        }
        out.append_value(&text);
    }
    Ok(Arc::new(out.finish()))
}

/// The offsets from UTC that the instants of an array have in their zone.
fn offsets(values: &ArrayRef) -> Result<Vec<Option<i32>>> {
    let DataType::Timestamp(unit, Some(label)) = values.data_type() else {
        return Ok(vec![None; values.len()]);
    };
    let zone = zone(label)
        .ok_or_else(|| Error::data(format!("the time zone \"{label}\" is not known")))?;
    let second = super::calendar::ticks_per_second(*unit);
    let ticks = arrow::compute::cast(values, &DataType::Int64)?;
    let ticks = ticks.as_primitive::<arrow::datatypes::Int64Type>();
    Ok(ticks.iter().map(|t| t.and_then(|t| zone.offset_at(t.div_euclid(second)))).collect())
}

/// What is written.
struct Moment {
    year: i64,
    month: i64,
    day: i64,
    /// Of the day, or of an interval, whose hours go on.
    nanos: i64,
    /// From 1970-01-01; none of an interval.
    days: Option<i64>,
    offset: Option<i32>,
}

impl Moment {
    fn of_wall(wall: i128, offset: Option<i32>) -> Self {
        let days = wall.div_euclid(i128::from(NANOS_PER_DAY)) as i64;
        let nanos = wall.rem_euclid(i128::from(NANOS_PER_DAY)) as i64;
        let (year, month, day) = civil_from_days(days);
        Self { year, month: month.into(), day: day.into(), nanos, days: Some(days), offset }
    }

    fn of_interval(interval: arrow::datatypes::IntervalMonthDayNano) -> Self {
        let (year, month) = (i64::from(interval.months) / 12, i64::from(interval.months) % 12);
        let (day, nanos) = (interval.days.into(), interval.nanoseconds);
        Self { year, month, day, nanos, days: None, offset: None }
    }

    fn days(&self, name: &str) -> Result<i64> {
        let message = || Error::data(format!("to_char: an interval has no {name}"));
        Ok(self.days.ok_or_else(message)?)
    }

    fn hour(&self) -> i64 {
        self.nanos / (3_600 * NANOS_PER_SECOND)
    }

    fn day_of_year(&self, name: &str) -> Result<i64> {
        Ok(self.days(name)? - days_from_civil(self.year, 1, 1) + 1)
    }

    /// Sunday is 0.
    fn day_of_week(&self, name: &str) -> Result<i64> {
        Ok((self.days(name)? + 4).rem_euclid(7))
    }

    /// Year, week and day of ISO 8601.
    fn iso(&self, name: &str) -> Result<(i64, i64, i64)> {
        let days = self.days(name)?;
        let day = (days + 3).rem_euclid(7);
        // The week is of the year in which its Thursday lies.
        let thursday = days - day + 3;
        let (year, ..) = civil_from_days(thursday);
        let first = days_from_civil(year, 1, 1);
        Ok((year, (thursday - first) / 7 + 1, day + 1))
    }
}

/// A piece of a pattern.
#[derive(Debug, Clone)]
enum Part {
    Literal(String),
    Field { name: &'static str, text: String, fill: bool, ordinal: Option<bool> },
}

/// Names of fields, the longer before what they begin with.
const FIELDS: [&str; 69] = [
    "A.D.", "a.d.", "A.M.", "a.m.", "AD", "ad", "AM", "am", "B.C.", "b.c.", "BC", "bc", "CC", "cc",
    "DAY", "Day", "day", "DDD", "ddd", "DD", "dd", "DY", "Dy", "dy", "D", "d", "FF1", "FF2", "FF3",
    "FF4", "FF5", "FF6", "HH24", "hh24", "HH12", "hh12", "HH", "hh", "IDDD", "iddd", "ID", "id",
    "IW", "iw", "IYYY", "IYY", "IY", "I", "J", "j", "MI", "mi", "MM", "mm", "MONTH", "Month",
    "month", "MON", "Mon", "mon", "MS", "ms", "OF", "P.M.", "p.m.", "PM", "pm", "Q", "q",
];
const MORE_FIELDS: [&str; 24] = [
    "RM", "rm", "SSSSS", "SSSS", "sssss", "ssss", "SS", "ss", "TZH", "tzh", "TZM", "tzm", "TZ",
    "tz", "US", "us", "WW", "ww", "W", "w", "Y,YYY", "y,yyy", "YYYY", "yyyy",
];
const YEARS: [&str; 9] = ["IYYY", "iyyy", "iyy", "iy", "i", "YYY", "YY", "Y", "yyy"];
const LAST: [&str; 2] = ["yy", "y"];

fn field_at(rest: &str) -> Option<&'static str> {
    let all = FIELDS.iter().chain(&MORE_FIELDS).chain(&YEARS).chain(&LAST);
    all.copied().find(|name| rest.starts_with(name)).or_else(|| mixed_case(rest))
}

/// Fields of digits may be written in any case.
fn mixed_case(rest: &str) -> Option<&'static str> {
    let all = FIELDS.iter().chain(&MORE_FIELDS).chain(&YEARS);
    all.copied().find(|name| {
        name.len() > 1 && rest.get(..name.len()).is_some_and(|r| r.eq_ignore_ascii_case(name))
    })
}

fn parse(pattern: &str) -> Result<Vec<Part>> {
    let mut parts = Vec::new();
    let mut rest = pattern;
    while let Some(first) = rest.chars().next() {
        if first == '"' {
            let mut literal = String::new();
            let mut chars = rest[1..].char_indices();
            let mut end = rest.len();
            while let Some((i, c)) = chars.next() {
                match c {
                    '"' => {
                        end = i + 2;
                        break;
                    }
                    '\\' => literal.extend(chars.next().map(|(_, c)| c)),
                    c => literal.push(c),
                }
            }
            parts.push(Part::Literal(literal));
            rest = &rest[end..];
            continue;
        }
        if first == '\\' && rest[1..].starts_with('"') {
            parts.push(Part::Literal("\"".to_owned()));
            rest = &rest[2..];
            continue;
        }
        let mut fill = true;
        let begins = |rest: &str, word: &str| {
            rest.get(..word.len()).is_some_and(|r| r.eq_ignore_ascii_case(word))
        };
        while begins(rest, "FM") || begins(rest, "FX") {
            fill &= !begins(rest, "FM");
            rest = &rest[2..];
        }
        if begins(rest, "TM") {
            return Err(unsupported("TM"));
        }
        let Some(name) = field_at(rest) else {
            let Some(c) = rest.chars().next() else { break };
            parts.push(Part::Literal(c.to_string()));
            rest = &rest[c.len_utf8()..];
            continue;
        };
        let text = rest[..name.len()].to_owned();
        rest = &rest[name.len()..];
        let ordinal = match rest.get(..2) {
            Some("TH") => Some(true),
            Some("th") => Some(false),
            Some(word) if word.eq_ignore_ascii_case("SP") => return Err(unsupported("SP")),
            _ => None,
        };
        if ordinal.is_some() {
            rest = &rest[2..];
        }
        parts.push(Part::Field { name, text, fill, ordinal });
    }
    Ok(parts)
}

fn unsupported(pattern: &str) -> datafusion::error::DataFusionError {
    Error::unsupported(format!("to_char: the pattern {pattern} is not supported")).into()
}

impl Part {
    fn write(&self, out: &mut String, moment: &Moment) -> Result<()> {
        let (name, text, fill, ordinal) = match self {
            Self::Literal(literal) => {
                out.push_str(literal);
                return Ok(());
            }
            Self::Field { name, text, fill, ordinal } => (*name, text, *fill, *ordinal),
        };
        let upper = name.to_ascii_uppercase();
        if let Some(word) = word(&upper, moment)? {
            put_word(out, &word, text, fill);
            return Ok(());
        }
        let (value, width) = number(&upper, moment)?;
        let width = if fill { width } else { 0 };
        let begin = out.len();
        match (upper.as_str(), value < 0) {
            ("Y,YYY", _) => {
                let _ = write!(out, "{},{:03}", value / 1_000, value % 1_000);
            }
            (_, true) => {
                let _ = write!(out, "-{:0width$}", -value);
            }
            _ => {
                let _ = write!(out, "{value:0width$}");
            }
        }
        if let Some(upper) = ordinal {
            let suffix = ordinal_suffix(&out[begin..]);
            out.push_str(&if upper { suffix.to_uppercase() } else { suffix.to_owned() });
        }
        Ok(())
    }
}

fn ordinal_suffix(digits: &str) -> &'static str {
    let tens = digits.len() > 1 && digits.as_bytes()[digits.len() - 2] == b'1';
    match digits.as_bytes().last() {
        Some(b'1') if !tens => "st",
        Some(b'2') if !tens => "nd",
        Some(b'3') if !tens => "rd",
        _ => "th",
    }
}

/// Fields that are words: the word, and the width that names of its kind are filled to.
fn word(upper: &str, moment: &Moment) -> Result<Option<(String, usize)>> {
    let month = |moment: &Moment| {
        let index = usize::try_from(moment.month - 1).ok().filter(|i| *i < 12);
        index.ok_or_else(|| Error::data("to_char: an interval of no months has no month's name"))
    };
    Ok(Some(match upper {
        "MONTH" | "MON" | "RM" if moment.days.is_none() && upper != "RM" => {
            return Err(Error::data("to_char: an interval has no name of a month").into());
        }
        "MONTH" => (MONTHS[month(moment)?].to_owned(), 9),
        "MON" => (MONTHS[month(moment)?][..3].to_owned(), 0),
        "RM" => (ROMAN[month(moment)?].to_owned(), 4),
        "DAY" => (DAYS[moment.day_of_week("name of a day")? as usize].to_owned(), 9),
        "DY" => (DAYS[moment.day_of_week("name of a day")? as usize][..3].to_owned(), 0),
        "AM" | "PM" => (if moment.hour().rem_euclid(24) < 12 { "AM" } else { "PM" }.to_owned(), 0),
        "A.M." | "P.M." => {
            (if moment.hour().rem_euclid(24) < 12 { "A.M." } else { "P.M." }.to_owned(), 0)
        }
        "AD" | "BC" => (if moment.year > 0 { "AD" } else { "BC" }.to_owned(), 0),
        "A.D." | "B.C." => (if moment.year > 0 { "A.D." } else { "B.C." }.to_owned(), 0),
        "OF" => {
            let mut text = String::new();
            put_offset(&mut text, moment.offset.unwrap_or(0));
            (text, 0)
        }
        "TZ" => match moment.offset {
            None => (String::new(), 0),
            Some(0) => ("UTC".to_owned(), 0),
            Some(offset) => {
                let mut text = String::new();
                put_offset(&mut text, offset);
                (text, 0)
            }
        },
        "TZH" => {
            let offset = moment.offset.unwrap_or(0);
            (format!("{}{:02}", if offset < 0 { '-' } else { '+' }, offset.abs() / 3_600), 0)
        }
        "TZM" => (format!("{:02}", moment.offset.unwrap_or(0).abs() / 60 % 60), 0),
        _ => return Ok(None),
    }))
}

/// A word in the case of the pattern: MONTH, Month or month.
fn put_word(out: &mut String, (word, width): &(String, usize), pattern: &str, fill: bool) {
    let mut letters = pattern.chars().filter(|c| c.is_ascii_alphabetic());
    let (first, second) = (letters.next(), letters.next());
    let is_lower = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase());
    let cased = match (is_lower(first), is_lower(second)) {
        (true, _) => word.to_lowercase(),
        (false, true) => {
            let lower = word.to_lowercase();
            let mut chars = lower.chars();
            chars.next().map(|c| c.to_ascii_uppercase()).into_iter().chain(chars).collect()
        }
        _ => word.to_uppercase(),
    };
    let width = if fill { *width } else { 0 };
    let _ = write!(out, "{cased:<width$}");
}

/// Fields that are numbers, and the digits that they are filled to.
fn number(upper: &str, moment: &Moment) -> Result<(i64, usize)> {
    let seconds = moment.nanos / NANOS_PER_SECOND;
    let fraction = moment.nanos % NANOS_PER_SECOND;
    // Years before Christ are counted from 1.
    let year = |year: i64| if year <= 0 && moment.days.is_some() { 1 - year } else { year };
    let hour = moment.hour();
    Ok(match upper {
        "HH24" => (hour, 2),
        "HH" | "HH12" => {
            let hour = hour % 12;
            (if hour == 0 { 12 } else { hour }, 2)
        }
        "MI" => (seconds / 60 % 60, 2),
        "SS" => (seconds % 60, 2),
        "SSSS" | "SSSSS" => (seconds, 1),
        "MS" | "FF3" => (fraction / 1_000_000, 3),
        "US" | "FF6" => (fraction / 1_000, 6),
        "FF1" => (fraction / 100_000_000, 1),
        "FF2" => (fraction / 10_000_000, 2),
        "FF4" => (fraction / 100_000, 4),
        "FF5" => (fraction / 10_000, 5),
        "Y,YYY" => (year(moment.year), 4),
        "YYYY" => (year(moment.year), 4),
        "YYY" => (year(moment.year) % 1_000, 3),
        "YY" => (year(moment.year) % 100, 2),
        "Y" => (year(moment.year) % 10, 1),
        "IYYY" => (year(moment.iso("year")?.0), 4),
        "IYY" => (year(moment.iso("year")?.0) % 1_000, 3),
        "IY" => (year(moment.iso("year")?.0) % 100, 2),
        "I" => (year(moment.iso("year")?.0) % 10, 1),
        "MM" => (moment.month, 2),
        "DD" => (moment.day, 2),
        "DDD" => (moment.day_of_year("day of a year")?, 3),
        "IDDD" => {
            let (_, week, day) = moment.iso("day of a year")?;
            ((week - 1) * 7 + day, 3)
        }
        "D" => (moment.day_of_week("day of a week")? + 1, 1),
        "ID" => (moment.iso("day of a week")?.2, 1),
        "W" => ((moment.day - 1) / 7 + 1, 1),
        "WW" => ((moment.day_of_year("week")? - 1) / 7 + 1, 2),
        "IW" => (moment.iso("week")?.1, 2),
        "CC" => {
            let century = match moment.year {
                year if year > 0 => (year - 1) / 100 + 1,
                year => year / 100 - 1,
            };
            (century, 2)
        }
        // 1970-01-01 is the Julian day 2440588.
        "J" => (moment.days("Julian day")? + 2_440_588, 1),
        "Q" => ((moment.month - 1) / 3 + 1, 1),
        other => return Err(unsupported(other)),
    })
}
