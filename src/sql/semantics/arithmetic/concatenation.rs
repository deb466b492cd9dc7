//! Texts joined by `||`: NULL where any of them is, and an error where a value would be larger than values may be.

use std::sync::Arc;

use arrow::array::{Array, AsArray, StringArray, StringBuilder};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs};

use crate::sql::semantics::bounded::check_made;

/// A text for each row, or one for all.
enum Texts<'a> {
    Each(&'a StringArray),
    One(Option<&'a str>),
}

impl<'a> Texts<'a> {
    fn new(value: &'a ColumnarValue) -> Self {
        match value {
            ColumnarValue::Array(array) => match array.as_string_opt::<i32>() {
                Some(texts) => Self::Each(texts),
                None => Self::One(None),
            },
            ColumnarValue::Scalar(value) => Self::One(value.try_as_str().flatten()),
        }
    }

    fn get(&self, row: usize) -> Option<&'a str> {
        match self {
            Self::Each(texts) => texts.is_valid(row).then(|| texts.value(row)),
            Self::One(text) => *text,
        }
    }
}

/// The texts of each row, one after the other.
pub(super) fn concatenated(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let is_constant = args.args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
    let rows = if is_constant { 1 } else { args.number_rows };
    let parts: Vec<Texts<'_>> = args.args.iter().map(Texts::new).collect();
    let length = |row| {
        let lengths = parts.iter().map(|part| part.get(row).map(|text| text.len() as u64));
        lengths.sum::<Option<u64>>().unwrap_or(0)
    };
    let bytes = check_made("||", args, (0..rows).map(length))?;
    let mut out = StringBuilder::with_capacity(rows, bytes as usize);
    for row in 0..rows {
        if parts.iter().any(|part| part.get(row).is_none()) {
            out.append_null();
            continue;
        }
        for part in &parts {
            // A writer of strings in memory cannot fail.
            let _ = std::fmt::Write::write_str(&mut out, part.get(row).unwrap_or_default());
        }
        out.append_value("");
    }
    let out = out.finish();
    Ok(match is_constant {
        true => ColumnarValue::Scalar(ScalarValue::try_from_array(&out, 0)?),
        false => ColumnarValue::Array(Arc::new(out)),
    })
}
