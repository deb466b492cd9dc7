//! Dates, times, timestamps and intervals: texts, zones, casts, the types that values are compared in, and functions.

pub(crate) mod bucket;
pub(crate) mod calendar;
pub(crate) mod cast;
pub(crate) mod cast_function;
mod common_type;
mod compare;
pub(crate) mod date_part;
pub(crate) mod differences;
pub(crate) mod function;
pub(crate) mod interval;
pub(crate) mod interval_choice;
pub(crate) mod interval_rules;
pub(crate) mod interval_text;
pub(crate) mod make;
mod number_pattern;
pub(crate) mod quotients;
pub(crate) mod rules;
pub(crate) mod text;
pub(crate) mod to_char;
pub(crate) mod zone;

use datafusion::logical_expr::ScalarUDF;

/// The functions that are here or in the place of DataFusion's.
pub(crate) fn functions() -> Vec<ScalarUDF> {
    let mut functions = bucket::functions();
    functions.extend(make::functions());
    functions.extend(date_part::Wrapped::choices());
    functions.extend([
        date_part::Wrapped::date_part(),
        date_part::Wrapped::strftime(),
        to_char::function(),
    ]);
    functions
}
