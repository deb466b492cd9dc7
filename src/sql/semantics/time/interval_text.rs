//! Texts of intervals as PostgreSQL reads them: `1 year 2 months 3 days 04:05:06.7`, `-1 day ago`, `P1Y2M3DT4H5M6S`.

use arrow::datatypes::IntervalMonthDayNano;

use super::calendar::NANOS_PER_SECOND;

/// Reads an interval; `None` where it is none.
pub(crate) fn read(text: &str) -> Option<IntervalMonthDayNano> {
    let text = text.trim();
    let mut sum = Sum::default();
    if let Some(rest) = text.strip_prefix(['P', 'p']) {
        sum.iso(rest)?;
        return sum.interval();
    }
    let lower = text.to_ascii_lowercase();
    let (words, ago) = match lower.strip_suffix("ago") {
        Some(words) if words.ends_with(char::is_whitespace) => (words.trim_end(), true),
        _ => (lower.as_str(), false),
    };
    let mut words = Words { rest: words.strip_prefix('@').unwrap_or(words) };
    let mut any = false;
    while let Some(word) = words.next() {
        any = true;
        if word.contains(':') {
            sum.clock(word)?;
        } else if let Some((years, months)) = word.get(1..).and_then(|rest| rest.split_once('-')) {
            // Years and months as 1-2.
            let negative = word.starts_with('-');
            let years = format!("{}{years}", word[..1].trim_start_matches(['+', '-']));
            let months = years.parse::<i64>().ok()? * 12 + months.parse::<i64>().ok()?;
            let months = if negative { -months } else { months };
            sum.months += months as f64;
        } else {
            let unit = words.unit();
            sum.add(word.parse().ok()?, unit.unwrap_or("second"))?;
        }
    }
    if ago {
        sum = Sum { months: -sum.months, days: -sum.days, nanos: -sum.nanos };
    }
    if any { sum.interval() } else { None }
}

/// A text cut into numbers and words.
struct Words<'a> {
    rest: &'a str,
}

impl<'a> Words<'a> {
    fn take(&mut self, belongs: impl Fn(char) -> bool) -> Option<&'a str> {
        self.rest = self.rest.trim_start();
        let end = self.rest.find(|c: char| !belongs(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        (!word.is_empty()).then_some(word)
    }

    fn next(&mut self) -> Option<&'a str> {
        let whole = self.rest.trim_start();
        match self.take(|c| c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | ':')) {
            Some(word) => Some(word),
            // What is no number is no interval: it fails to be read as one.
            None if !whole.is_empty() => {
                self.rest = "";
                Some(whole)
            }
            None => None,
        }
    }

    fn unit(&mut self) -> Option<&'a str> {
        self.take(|c| c.is_ascii_alphabetic())
    }
}

/// Months, days and nanoseconds with fractions that have not been passed on yet.
#[derive(Debug, Default)]
struct Sum {
    months: f64,
    days: f64,
    nanos: i128,
}

impl Sum {
    fn add(&mut self, value: f64, unit: &str) -> Option<()> {
        if !value.is_finite() {
            return None;
        }
        let unit = match unit {
            "mon" | "mons" | "ms" | "us" | "s" | "m" | "h" | "d" | "w" | "y" | "c" => unit,
            other => other.strip_suffix('s').unwrap_or(other),
        };
        match unit {
            "millennium" | "mil" | "millennia" => self.add_months(value * 12_000.0),
            "century" | "centurie" | "c" | "cent" => self.add_months(value * 1_200.0),
            "decade" | "dec" => self.add_months(value * 120.0),
            "year" | "y" | "yr" => self.add_months((value * 12.0).round_ties_even()),
            "quarter" | "qtr" => self.add_months(value * 3.0),
            "month" | "mon" | "mons" => self.add_months(value),
            "week" | "w" => self.add_days(value * 7.0),
            "day" | "d" => self.add_days(value),
            "hour" | "h" | "hr" => self.add_seconds(value * 3_600.0),
            "minute" | "m" | "min" => self.add_seconds(value * 60.0),
            "second" | "s" | "sec" => self.add_seconds(value),
            "millisecond" | "ms" | "msec" => self.nanos += (value * 1e6).round_ties_even() as i128,
            "microsecond" | "us" | "usec" => self.nanos += (value * 1e3).round_ties_even() as i128,
            "nanosecond" | "nsec" => self.nanos += value.round_ties_even() as i128,
            _ => return None,
        }
        Some(())
    }

    fn add_months(&mut self, months: f64) {
        self.months += months.trunc();
        self.add_days((months - months.trunc()) * 30.0);
    }

    fn add_days(&mut self, days: f64) {
        self.days += days.trunc();
        self.add_seconds((days - days.trunc()) * 86_400.0);
    }

    fn add_seconds(&mut self, seconds: f64) {
        let whole = seconds.trunc();
        let micros = ((seconds - whole) * 1e6).round_ties_even();
        self.nanos += whole as i128 * i128::from(NANOS_PER_SECOND) + micros as i128 * 1_000;
    }

    /// `[-]hours:minutes[:seconds]`.
    fn clock(&mut self, word: &str) -> Option<()> {
        let digits = word.trim_start_matches(['+', '-']);
        let mut parts = digits.split(':');
        let hours: i128 = parts.next()?.parse().ok()?;
        let minutes: i128 = parts.next()?.parse().ok().filter(|m| *m < 60)?;
        let seconds: f64 = parts.next().map_or(Some(0.0), |s| s.parse().ok())?;
        if parts.next().is_some() || !(0.0..=60.0).contains(&seconds) {
            return None;
        }
        let mut time = Self::default();
        time.add_seconds(seconds);
        time.nanos += (hours * 60 + minutes) * 60 * i128::from(NANOS_PER_SECOND);
        self.nanos += if word.starts_with('-') { -time.nanos } else { time.nanos };
        Some(())
    }

    /// ISO 8601 after the P.
    fn iso(&mut self, text: &str) -> Option<()> {
        let (date, time) = text.split_once(['T', 't']).unwrap_or((text, ""));
        if date.is_empty() && time.is_empty() {
            return None;
        }
        for (part, units) in [
            (date, [('Y', "year"), ('M', "month"), ('W', "week"), ('D', "day")].as_slice()),
            (time, [('H', "hour"), ('M', "minute"), ('S', "second")].as_slice()),
        ] {
            let mut words = Words { rest: part };
            while let Some(number) = words.next() {
                let unit = words.unit()?.to_ascii_uppercase();
                let (_, unit) = units.iter().find(|(letter, _)| unit == letter.to_string())?;
                self.add(number.parse().ok()?, unit)?;
            }
        }
        Some(())
    }

    fn interval(self) -> Option<IntervalMonthDayNano> {
        let whole = |x: f64| (x.abs() <= f64::from(i32::MAX)).then_some(x as i32);
        let nanos = i64::try_from(self.nanos).ok()?;
        Some(IntervalMonthDayNano::new(whole(self.months)?, whole(self.days)?, nanos))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_read_as_postgresql_reads_them() {
        let hour = 3_600 * NANOS_PER_SECOND;
        for (text, expected) in [
            ("1 year 2 months 3 days 04:05:06.5", Some((14, 3, 4 * hour + 306_500_000_000))),
            ("1.5 months", Some((1, 15, 0))),
            ("1.5 days", Some((0, 1, 12 * hour))),
            ("-1 day +02:00", Some((0, -1, 2 * hour))),
            ("-02:30", Some((0, 0, -5 * hour / 2))),
            ("3 hours ago", Some((0, 0, -3 * hour))),
            ("1-2", Some((14, 0, 0))),
            ("10", Some((0, 0, 10 * NANOS_PER_SECOND))),
            ("2weeks", Some((0, 14, 0))),
            ("P1Y2M3DT4H5M6.5S", Some((14, 3, 4 * hour + 306_500_000_000))),
            ("PT36H", Some((0, 0, 36 * hour))),
            ("15 minutes", Some((0, 0, hour / 4))),
            ("", None),
            ("1 fortnight", None),
            ("soon", None),
            ("10:75", None),
        ] {
            let read = read(text).map(|i| (i.months, i.days, i.nanoseconds));
            assert_eq!(read, expected, "{text}");
        }
    }
}
