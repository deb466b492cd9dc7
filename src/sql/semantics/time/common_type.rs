//! The type in which dates, times, timestamps and texts meet.

use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::ScalarValue;

use super::calendar::ticks_per_second;
use crate::sql::types::UTC;

/// What is known of a value that meets others.
#[derive(Debug, Clone, Copy)]
pub(super) struct Item<'a> {
    pub(super) data_type: &'a DataType,
    pub(super) literal: Option<&'a ScalarValue>,
}

/// Whether it is a text.
pub(super) fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// Whether it is a date, time or timestamp.
pub(super) fn is_temporal(data_type: &DataType) -> bool {
    use DataType::*;
    matches!(data_type, Timestamp(..) | Date32 | Date64 | Time32(_) | Time64(_))
}

/// The finer of two units.
pub(super) fn finer(a: TimeUnit, b: TimeUnit) -> TimeUnit {
    if ticks_per_second(a) >= ticks_per_second(b) { a } else { b }
}

/// The type of a choice among values, where one of them is a date, time, timestamp or boolean and they differ; `None` where
/// DataFusion is to say.
pub(super) fn common_type<'a>(items: impl Iterator<Item = Item<'a>>) -> Option<DataType> {
    let items: Vec<Item<'a>> = items.filter(|i| !i.data_type.is_null()).collect();
    let first = items.first()?.data_type;
    if items.iter().all(|i| i.data_type == first) {
        return None;
    }
    let mut common: Option<DataType> = None;
    for item in &items {
        common = match (common, item.data_type) {
            (common, text) if is_text(text) => common,
            (None, DataType::Boolean) => Some(DataType::Boolean),
            (None, other) if is_temporal(other) => Some(other.clone()),
            (Some(common), other) => Some(meet(&common, other)?),
            (None, _) => return None,
        };
    }
    let common = common?;
    let texts_are_read = items.iter().all(|item| {
        // Texts that are no literals are never taken for booleans, as in PostgreSQL.
        !is_text(item.data_type) || common != DataType::Boolean || item.literal.is_some()
    });
    texts_are_read.then_some(common)
}

/// The type of two values that are no texts.
fn meet(a: &DataType, b: &DataType) -> Option<DataType> {
    use DataType::*;
    Some(match (a, b) {
        (a, b) if a == b => a.clone(),
        (Timestamp(u, z), Timestamp(v, y)) => {
            let zone = match (z, y) {
                (Some(z), Some(y)) if z != y => Some(Arc::from(UTC)),
                (Some(z), _) | (None, Some(z)) => Some(Arc::clone(z)),
                (None, None) => None,
            };
            Timestamp(finer(*u, *v), zone)
        }
        (Timestamp(u, z), Date32 | Date64) | (Date32 | Date64, Timestamp(u, z)) => {
            Timestamp(*u, z.clone())
        }
        (Date32 | Date64, Date32 | Date64) => Date32,
        (Time32(u) | Time64(u), Time32(v) | Time64(v)) => match finer(*u, *v) {
            unit @ (TimeUnit::Second | TimeUnit::Millisecond) => Time32(unit),
            unit => Time64(unit),
        },
        _ => return None,
    })
}
