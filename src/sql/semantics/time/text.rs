//! Texts of dates, times, timestamps and booleans as PostgreSQL reads and writes them, in the ISO forms.

use arrow::array::timezone::Tz;
use std::fmt::Write;

use super::calendar::{
    NANOS_PER_DAY, NANOS_PER_SECOND, civil_from_days, days_from_civil, days_in_month,
};

/// Bytes as PostgreSQL writes them: `\\x` and two hexadecimal digits each.
pub(super) fn write_bytes(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(2 + 2 * bytes.len());
    out.push_str("\\x");
    put_hex(&mut out, bytes);
    out
}

/// Two hexadecimal digits for each byte.
pub(crate) fn put_hex(out: &mut String, bytes: &[u8]) {
    let digit = |n: u8| char::from_digit(u32::from(n), 16).unwrap_or('0');
    out.extend(bytes.iter().flat_map(|b| [digit(b >> 4), digit(b & 15)]));
}

/// Why a text is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unread {
    /// It is no such text.
    Syntax,
    /// A month 13, a 30 February.
    Range,
    /// `infinity` and `-infinity`.
    Infinity,
}

impl Unread {
    /// For messages: "the value '...' ...".
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Syntax => "cannot be read as this type",
            Self::Range => "has a field that is out of range",
            Self::Infinity => "is not supported: there are no infinite times",
        }
    }
}

/// The zone that a text names.
#[derive(Debug, Clone, Copy)]
pub(crate) enum NamedZone {
    /// Seconds east of Greenwich.
    Offset(i32),
    Place(Tz),
}

/// What a text says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    /// From 1970-01-01; `None` where the text names no date.
    pub(crate) days: Option<i64>,
    /// Of the day, up to and with 24:00; `None` where the text names no time.
    pub(crate) nanos: Option<i64>,
    pub(crate) zone: Option<NamedZone>,
}

impl Moment {
    /// Nanoseconds of the wall clock from 1970-01-01.
    #[cfg(test)]
    fn wall(&self) -> Option<i128> {
        Some(
            i128::from(self.days?) * i128::from(NANOS_PER_DAY)
                + i128::from(self.nanos.unwrap_or(0)),
        )
    }
}

/// Reads a boolean: any beginning of true, false, yes, no, and on, off, 1, 0.
pub(crate) fn boolean(text: &str) -> Option<bool> {
    let text = text.trim().to_ascii_lowercase();
    let begins = |word: &str, least: usize| text.len() >= least && word.starts_with(&text);
    if begins("true", 1) || begins("yes", 1) || text == "on" || text == "1" {
        Some(true)
    } else if begins("false", 1) || begins("no", 1) || begins("off", 2) || text == "0" {
        Some(false)
    } else {
        None
    }
}

/// Reads a date, a time, or both.
pub(crate) fn moment(text: &str) -> Result<Moment, Unread> {
    let text = text.trim();
    let (text, before_christ) = match text.len().checked_sub(3).and_then(|n| text.get(n..)) {
        Some(end) if end.eq_ignore_ascii_case(" bc") => (text[..text.len() - 3].trim_end(), true),
        Some(end) if end.eq_ignore_ascii_case(" ad") => (text[..text.len() - 3].trim_end(), false),
        _ => (text, false),
    };
    let mut cursor = Cursor { rest: text.as_bytes() };
    let mut moment = Moment { days: None, nanos: None, zone: None };
    if cursor.begins_time() {
        moment.nanos = Some(cursor.time()?);
    } else {
        match text.to_ascii_lowercase().as_str() {
            "epoch" => {
                return Ok(Moment {
                    days: Some(0),
                    nanos: Some(0),
                    zone: Some(NamedZone::Offset(0)),
                });
            }
            "infinity" | "-infinity" | "+infinity" => return Err(Unread::Infinity),
            _ => {}
        }
        moment.days = Some(cursor.date(before_christ)?);
        let apart = cursor.skip_spaces();
        let marked = matches!(cursor.rest.first(), Some(b'T' | b't'));
        if marked {
            cursor.rest = &cursor.rest[1..];
            cursor.skip_spaces();
        }
        if cursor.rest.first().is_some_and(u8::is_ascii_digit) && (apart || marked) {
            moment.nanos = Some(cursor.time()?);
        } else if marked {
            return Err(Unread::Syntax);
        }
    }
    if before_christ && moment.days.is_none() {
        return Err(Unread::Syntax);
    }
    moment.zone = cursor.zone()?;
    if cursor.rest.is_empty() { Ok(moment) } else { Err(Unread::Syntax) }
}

struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    /// Whether a time stands first: two digits and a colon, or four or six digits and nothing that makes them a date.
    fn begins_time(&self) -> bool {
        let digits = self.rest.iter().take_while(|b| b.is_ascii_digit()).count();
        match self.rest.get(digits) {
            Some(b':') => digits >= 1,
            Some(b'-' | b'/') if digits == 4 => self.rest.len() < 7,
            Some(b'.') => digits == 6,
            _ => digits == 4,
        }
    }

    fn skip_spaces(&mut self) -> bool {
        let spaces = self.rest.iter().take_while(|b| b.is_ascii_whitespace()).count();
        self.rest = &self.rest[spaces..];
        spaces > 0
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.rest.first() == Some(&byte);
        if found {
            self.rest = &self.rest[1..];
        }
        found
    }

    fn digits(&mut self) -> &'a [u8] {
        let count = self.rest.iter().take_while(|b| b.is_ascii_digit()).count();
        let (digits, rest) = self.rest.split_at(count);
        self.rest = rest;
        digits
    }

    fn number(&mut self, most: usize) -> Result<i64, Unread> {
        let digits = self.digits();
        if digits.is_empty() || digits.len() > most {
            Err(Unread::Syntax)
        } else {
            Ok(value(digits))
        }
    }

    fn date(&mut self, before_christ: bool) -> Result<i64, Unread> {
        let first = self.digits();
        let (mut year, month, day) = match (first.len(), self.rest.first()) {
            (3..=7, Some(separator @ (b'-' | b'/' | b'.'))) => {
                let separator = *separator;
                self.rest = &self.rest[1..];
                let second = self.digits();
                if second.len() == 3 && separator == b'-' {
                    // A day of the year.
                    let (year, day) = (value(first), value(second));
                    let start = days_from_civil(year, 1, 1);
                    let length = days_from_civil(year + 1, 1, 1) - start;
                    if year == 0 || before_christ || !(1..=length).contains(&day) {
                        return Err(Unread::Range);
                    }
                    return Ok(start + day - 1);
                }
                if second.is_empty() || second.len() > 2 || !self.eat(separator) {
                    return Err(Unread::Syntax);
                }
                (value(first), value(second), self.number(2)?)
            }
            (8, _) => (value(&first[..4]), value(&first[4..6]), value(&first[6..])),
            (6, _) => {
                let year = value(&first[..2]);
                (
                    year + if year < 70 { 2000 } else { 1900 },
                    value(&first[2..4]),
                    value(&first[4..]),
                )
            }
            _ => return Err(Unread::Syntax),
        };
        if year == 0 || !(1..=12).contains(&month) {
            return Err(Unread::Range);
        }
        if before_christ {
            year = 1 - year;
        }
        if day < 1 || day > i64::from(days_in_month(year, month as u32)) {
            return Err(Unread::Range);
        }
        Ok(days_from_civil(year, month as u32, day as u32))
    }

    fn time(&mut self) -> Result<i64, Unread> {
        let first = self.digits();
        let (hour, minute, second) = match first.len() {
            1 | 2 => {
                if !self.eat(b':') {
                    return Err(Unread::Syntax);
                }
                let minute = self.number(2)?;
                let second = if self.eat(b':') { Some(self.number(2)?) } else { None };
                (value(first), minute, second)
            }
            4 => (value(&first[..2]), value(&first[2..]), None),
            6 => (value(&first[..2]), value(&first[2..4]), Some(value(&first[4..]))),
            _ => return Err(Unread::Syntax),
        };
        let fraction = if second.is_some() && self.eat(b'.') { self.fraction() } else { 0 };
        let hour = self.half_of_day(hour)?;
        let second = second.unwrap_or(0);
        let nanos = ((hour * 60 + minute) * 60 + second) * NANOS_PER_SECOND + fraction;
        if hour > 24 || minute > 59 || second > 60 || nanos > NANOS_PER_DAY {
            return Err(Unread::Range);
        }
        Ok(nanos)
    }

    /// The digits after the point in nanoseconds; rounded, halves to even.
    fn fraction(&mut self) -> i64 {
        let digits = self.digits();
        let kept = &digits[..digits.len().min(9)];
        let nanos = value(kept) * 10i64.pow(9 - kept.len() as u32);
        let rest = digits.get(9..).unwrap_or_default();
        let up = match rest.first() {
            Some(b'5') if rest[1..].iter().all(|d| *d == b'0') => nanos % 2 == 1,
            Some(digit) => *digit >= b'5',
            None => false,
        };
        nanos + i64::from(up)
    }

    /// AM and PM.
    fn half_of_day(&mut self, hour: i64) -> Result<i64, Unread> {
        let before = self.rest;
        self.skip_spaces();
        let afternoon = match self.rest {
            [a, b, after @ ..]
                if b.eq_ignore_ascii_case(&b'm')
                    && !after.first().is_some_and(u8::is_ascii_alphabetic) =>
            {
                match a.to_ascii_lowercase() {
                    b'a' => Some(false),
                    b'p' => Some(true),
                    _ => None,
                }
            }
            _ => None,
        };
        let Some(afternoon) = afternoon else {
            self.rest = before;
            return Ok(hour);
        };
        self.rest = &self.rest[2..];
        match (hour, afternoon) {
            (13.., _) => Err(Unread::Range),
            (12, false) => Ok(0),
            (12, true) => Ok(12),
            (hour, true) => Ok(hour + 12),
            (hour, false) => Ok(hour),
        }
    }

    fn zone(&mut self) -> Result<Option<NamedZone>, Unread> {
        self.skip_spaces();
        let sign = match self.rest.first() {
            None => return Ok(None),
            Some(b'+') => 1,
            Some(b'-') => -1,
            Some(letter) if letter.is_ascii_alphabetic() => return self.place().map(Some),
            Some(_) => return Err(Unread::Syntax),
        };
        self.rest = &self.rest[1..];
        let first = self.digits();
        let (hour, minute, second) = match first.len() {
            1 | 2 => {
                let minute = if self.eat(b':') { self.number(2)? } else { 0 };
                let second = if self.eat(b':') { self.number(2)? } else { 0 };
                (value(first), minute, second)
            }
            3 | 4 => (value(&first[..first.len() - 2]), value(&first[first.len() - 2..]), 0),
            6 => (value(&first[..2]), value(&first[2..4]), value(&first[4..])),
            _ => return Err(Unread::Syntax),
        };
        if hour > 15 || minute > 59 || second > 59 {
            return Err(Unread::Range);
        }
        let seconds = (hour * 60 + minute) * 60 + second;
        Ok(Some(NamedZone::Offset(sign * seconds as i32)))
    }

    /// `Z`, `UTC` or a name such as Europe/Berlin.
    fn place(&mut self) -> Result<NamedZone, Unread> {
        let name = std::str::from_utf8(self.rest).map_err(|_| Unread::Syntax)?.trim_end();
        self.rest = &[];
        zone_by_name(name).ok_or(Unread::Syntax)
    }
}

/// The zone of an offset such as +09:00.
pub(crate) fn zone_of_offset(text: &str) -> Option<NamedZone> {
    let mut cursor = Cursor { rest: text.as_bytes() };
    let zone = cursor.zone().ok()?;
    if cursor.rest.is_empty() { zone } else { None }
}

/// The zone of a name, in any case.
pub(crate) fn zone_by_name(name: &str) -> Option<NamedZone> {
    if ["z", "utc", "gmt", "zulu"].iter().any(|n| name.eq_ignore_ascii_case(n)) {
        return Some(NamedZone::Offset(0));
    }
    if let Ok(place) = name.parse::<Tz>() {
        return Some(NamedZone::Place(place));
    }
    // Names are written Europe/Berlin, and abbreviations EST.
    let mut titled = String::with_capacity(name.len());
    let mut first = true;
    for c in name.chars() {
        titled.push(if first { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() });
        first = matches!(c, '/' | '_' | '-');
    }
    let place = titled.parse::<Tz>().or_else(|_| name.to_ascii_uppercase().parse::<Tz>());
    place.ok().map(NamedZone::Place)
}

/// Digits as a number; there are few of them.
fn value(digits: &[u8]) -> i64 {
    digits.iter().fold(0, |n, d| n * 10 + i64::from(d - b'0'))
}

/// Writes a date; says whether it lies before Christ.
fn put_date(out: &mut String, days: i64) -> bool {
    let (year, month, day) = civil_from_days(days);
    let shown = if year > 0 { year } else { 1 - year };
    let _ = write!(out, "{shown:04}-{month:02}-{day:02}");
    year <= 0
}

/// Writes a time of the day, with as many digits of the second as it has.
pub(crate) fn put_time(out: &mut String, nanos: i64) {
    let seconds = nanos / NANOS_PER_SECOND;
    let _ = write!(out, "{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    put_fraction(out, nanos % NANOS_PER_SECOND);
}

/// Writes a fraction of a second, without zeros at its end.
pub(crate) fn put_fraction(out: &mut String, nanos: i64) {
    if nanos != 0 {
        let _ = write!(out, ".{nanos:09}");
        out.truncate(out.trim_end_matches('0').len());
    }
}

/// Writes a date.
pub(crate) fn write_date(out: &mut String, days: i64) {
    if put_date(out, days) {
        out.push_str(" BC");
    }
}

/// Writes a timestamp by its wall clock in nanoseconds, with the offset of its zone in seconds where it has one.
pub(crate) fn write_timestamp(out: &mut String, wall: i128, offset: Option<i32>) {
    let day = i128::from(NANOS_PER_DAY);
    let before_christ = put_date(out, wall.div_euclid(day) as i64);
    out.push(' ');
    put_time(out, wall.rem_euclid(day) as i64);
    if let Some(offset) = offset {
        put_offset(out, offset);
    }
    if before_christ {
        out.push_str(" BC");
    }
}

/// Writes an offset from UTC: hours, and minutes and seconds where there are any.
pub(crate) fn put_offset(out: &mut String, offset: i32) {
    let size = offset.abs();
    let _ = write!(out, "{}{:02}", if offset < 0 { '-' } else { '+' }, size / 3600);
    if size % 3600 != 0 {
        let _ = write!(out, ":{:02}", size / 60 % 60);
    }
    if size % 60 != 0 {
        let _ = write!(out, ":{:02}", size % 60);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        match moment(text) {
            Err(error) => format!("{error:?}"),
            Ok(moment) => {
                let mut out = String::new();
                match (moment.wall(), moment.nanos) {
                    (Some(wall), _) => write_timestamp(&mut out, wall, None),
                    (None, Some(nanos)) => put_time(&mut out, nanos),
                    (None, None) => {}
                }
                match moment.zone {
                    Some(NamedZone::Offset(offset)) => put_offset(&mut out, offset),
                    Some(NamedZone::Place(place)) => out.push_str(&format!(" {place:?}")),
                    None => {}
                }
                out
            }
        }
    }

    #[test]
    fn moments_are_read_as_postgresql_reads_them() {
        for (text, expected) in [
            ("2024-05-02", "2024-05-02 00:00:00"),
            (" 2024-5-2 1:2:3.5 ", "2024-05-02 01:02:03.5"),
            ("2024-05-02 10:00", "2024-05-02 10:00:00"),
            ("2024-05-02T1000", "2024-05-02 10:00:00"),
            ("20240502T101112.5", "2024-05-02 10:11:12.5"),
            ("20240502 1011", "2024-05-02 10:11:00"),
            ("990108", "1999-01-08 00:00:00"),
            ("2024-123", "2024-05-02 00:00:00"),
            ("2024/05/02", "2024-05-02 00:00:00"),
            ("10:00", "10:00:00"),
            ("1011", "10:11:00"),
            ("24:00:00", "24:00:00"),
            ("2024-05-02 24:00:00", "2024-05-03 00:00:00"),
            ("2024-05-02 23:59:60", "2024-05-03 00:00:00"),
            ("2024-05-02 12:30 am", "2024-05-02 00:30:00"),
            ("2024-05-02 12:30pm", "2024-05-02 12:30:00"),
            ("2024-05-02 10:00+0530", "2024-05-02 10:00:00+05:30"),
            ("2024-05-02 10:00 +5:30", "2024-05-02 10:00:00+05:30"),
            ("2024-05-02 10:00:00+15:59:59", "2024-05-02 10:00:00+15:59:59"),
            ("2024-05-02Z", "2024-05-02 00:00:00+00"),
            ("2024-05-02 -03", "2024-05-02 00:00:00-03"),
            ("2024-05-02t10:00:00 utc", "2024-05-02 10:00:00+00"),
            ("0044-03-15 BC", "0044-03-15 00:00:00 BC"),
            ("12345-01-01", "12345-01-01 00:00:00"),
            ("2024-05-02 10:00:00.0000000005", "2024-05-02 10:00:00"),
            ("2024-05-02 10:00:00.", "2024-05-02 10:00:00"),
            ("2024-05-02 10", "Syntax"),
            ("2024-05-02 10:00:00,5", "Syntax"),
            ("2024-05", "Syntax"),
            ("2024-05-02 10:00-", "Syntax"),
            ("10", "Syntax"),
            ("", "Syntax"),
            ("2024-05-02 10:00 Mars/Base", "Syntax"),
            ("2024-02-30", "Range"),
            ("0000-01-01", "Range"),
            ("2024-05-02 24:00:01", "Range"),
            ("2024-05-02 10:60", "Range"),
            ("10:00:61", "Range"),
            ("2024-05-02 13:30 pm", "Range"),
            ("2024-05-02 10:00+16", "Range"),
            ("-infinity", "Infinity"),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
        assert!(shown("2024-05-02 10:00 europe/berlin").contains("Berlin"));
    }

    #[test]
    fn booleans_are_beginnings_of_words() {
        for text in ["t", "TRUE", " tru ", "y", "yes", "on", "1"] {
            assert_eq!(boolean(text), Some(true), "{text}");
        }
        for text in ["f", "false", "n", "no", "of", "off", "0"] {
            assert_eq!(boolean(text), Some(false), "{text}");
        }
        for text in ["", "o", "2", "truer", "offf"] {
            assert_eq!(boolean(text), None, "{text}");
        }
    }
}
