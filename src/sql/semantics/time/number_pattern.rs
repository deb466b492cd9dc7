//! `to_char` of numbers: the patterns of digits, point, groups and sign. Others are refused by name.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray, StringBuilder};
use arrow::datatypes::{DataType, Float64Type};
use arrow::util::display::array_value_to_string;
use datafusion::common::Result;

use crate::sql::Error;

/// Writes numbers by patterns.
pub(super) fn write(values: &ArrayRef, patterns: &StringArray) -> Result<ArrayRef> {
    let mut out = StringBuilder::new();
    for row in 0..values.len() {
        if values.is_null(row) || patterns.is_null(row) {
            out.append_null();
            continue;
        }
        let pattern = Pattern::parse(patterns.value(row))?;
        let text = match values.data_type() {
            DataType::Float64 => {
                let value = values.as_primitive::<Float64Type>().value(row);
                if !value.is_finite() {
                    return Err(Error::data("to_char: the number is not finite").into());
                }
                format!("{value:.*}", pattern.fraction.len())
            }
            _ => array_value_to_string(values, row)?,
        };
        out.append_value(pattern.write(&text));
    }
    Ok(Arc::new(out.finish()))
}

/// Where the sign goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sign {
    /// Before the first digit, in the blank kept for it.
    Blank,
    /// Before the number, plus too.
    Before,
    /// After the number, plus too.
    After,
    /// A minus or blank after the number.
    MinusAfter,
    /// Negative numbers in angle brackets.
    Brackets,
}

/// A pattern.
struct Pattern {
    /// `9`, `0`, `,` before the point.
    whole: Vec<char>,
    /// `9`, `0` after it.
    fraction: Vec<char>,
    point: bool,
    sign: Sign,
    fill: bool,
}

impl Pattern {
    fn parse(text: &str) -> Result<Self> {
        let mut pattern = Self {
            whole: Vec::new(),
            fraction: Vec::new(),
            point: false,
            sign: Sign::Blank,
            fill: true,
        };
        let upper = text.to_ascii_uppercase();
        let mut rest = upper.as_str();
        let refuse = |what: &str| -> Result<Self> {
            Err(Error::unsupported(format!(
                "to_char: the pattern {what} of numbers is not supported"
            ))
            .into())
        };
        while let Some(c) = rest.chars().next() {
            let mut length = c.len_utf8();
            match c {
                'F' if rest.starts_with("FM") => {
                    pattern.fill = false;
                    length = 2;
                }
                'M' if rest.starts_with("MI") => {
                    pattern.sign = Sign::MinusAfter;
                    length = 2;
                }
                'P' if rest.starts_with("PR") => {
                    pattern.sign = Sign::Brackets;
                    length = 2;
                }
                'S' if rest.starts_with("SG") => return refuse("SG"),
                'S' => {
                    let before = pattern.whole.is_empty() && pattern.fraction.is_empty();
                    pattern.sign = if before { Sign::Before } else { Sign::After };
                }
                '9' | '0' if pattern.point => pattern.fraction.push(c),
                '9' | '0' => pattern.whole.push(c),
                ',' | 'G' if !pattern.point => pattern.whole.push(','),
                '.' | 'D' if !pattern.point => pattern.point = true,
                _ => return refuse(&rest.chars().take(4).collect::<String>()),
            }
            rest = &rest[length..];
        }
        Ok(pattern)
    }

    fn write(&self, number: &str) -> String {
        let negative = number.starts_with('-');
        let (whole, fraction) = self.rounded(number.trim_start_matches('-'));
        let is_zero = whole.bytes().chain(fraction.bytes()).all(|d| d == b'0');
        let negative = negative && !is_zero;
        let places = self.whole.iter().filter(|c| **c != ',').count();
        let whole = whole.trim_start_matches('0');
        let overflows = whole.len() > places;
        let mut out = String::new();
        // Digits from the left; blanks stand for zeros until a digit or a `0`.
        let digits: Vec<char> = format!("{whole:0>places$}").chars().collect();
        let mut begun = false;
        let mut place = 0;
        let no_digits = !self.whole.contains(&'0') && whole.is_empty();
        for c in &self.whole {
            if *c == ',' {
                out.push(if begun { ',' } else { ' ' });
                continue;
            }
            begun |= *c == '0' || place + whole.len() >= places;
            let last = place + 1 == places;
            // A number without whole part has a zero where no fraction follows.
            let shown = begun || (last && no_digits && self.fraction.is_empty());
            out.push(match (overflows, shown) {
                (true, _) => '#',
                (false, true) => digits.get(place).copied().unwrap_or('0'),
                (false, false) => ' ',
            });
            place += 1;
        }
        if self.point {
            out.push('.');
            if overflows {
                out.extend(self.fraction.iter().map(|_| '#'));
            } else if self.fill {
                out.push_str(&fraction);
            } else {
                let least = self.fraction.iter().rposition(|c| *c == '0').map_or(0, |i| i + 1);
                let kept = fraction.trim_end_matches('0').len().max(least);
                out.push_str(&fraction[..kept]);
            }
        }
        self.signed(&out, negative)
    }

    /// Whole part and fraction with as many digits as the pattern has; halves away from zero.
    fn rounded(&self, number: &str) -> (String, String) {
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let wanted = self.fraction.len();
        let mut digits: Vec<u8> = whole.bytes().chain(fraction.bytes().take(wanted)).collect();
        digits.resize(whole.len() + wanted, b'0');
        if fraction.as_bytes().get(wanted).is_some_and(|d| *d >= b'5') {
            let mut place = digits.len();
            loop {
                if place == 0 {
                    digits.insert(0, b'1');
                    break;
                }
                place -= 1;
                if digits[place] == b'9' {
                    digits[place] = b'0';
                } else {
                    digits[place] += 1;
                    break;
                }
            }
        }
        let text: String = digits.into_iter().map(char::from).collect();
        let (whole, fraction) = text.split_at(text.len() - wanted);
        (whole.to_owned(), fraction.to_owned())
    }

    fn signed(&self, digits: &str, negative: bool) -> String {
        let blanks = digits.len() - digits.trim_start_matches(' ').len();
        let (blanks, digits) = digits.split_at(blanks);
        let blanks = if self.fill { blanks } else { "" };
        match (self.sign, negative) {
            (Sign::Blank, true) => format!("{blanks}-{digits}"),
            (Sign::Blank, false) if self.fill => format!("{blanks} {digits}"),
            (Sign::Blank, false) => digits.to_owned(),
            (Sign::Before, negative) => {
                format!("{blanks}{}{digits}", if negative { '-' } else { '+' })
            }
            (Sign::After, negative) => {
                format!("{blanks}{digits}{}", if negative { '-' } else { '+' })
            }
            (Sign::MinusAfter, true) => format!("{blanks}{digits}-"),
            (Sign::MinusAfter, false) if self.fill => format!("{blanks}{digits} "),
            (Sign::MinusAfter, false) => digits.to_owned(),
            (Sign::Brackets, true) => format!("{blanks}<{digits}>"),
            (Sign::Brackets, false) if self.fill => format!("{blanks} {digits} "),
            (Sign::Brackets, false) => digits.to_owned(),
        }
    }
}
