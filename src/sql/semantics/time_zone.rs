//! The session's time zone: a text or wall clock that becomes a TIMESTAMPTZ is a time there, and what an instant looks like is
//! what the clocks there show. Instants themselves are stored and returned in UTC, unless a CAST makes them.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field};

use crate::sql::cast::{CastPolicy, Failure, cast_array};
use crate::sql::types::UTC;

/// A session's time zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TimeZone(Arc<str>);

impl TimeZone {
    pub(crate) fn new(name: &Arc<str>) -> Self {
        Self(Arc::clone(name))
    }

    pub(crate) fn utc() -> Self {
        Self(Arc::from(UTC))
    }

    /// Whether text is read as it would be without any zone.
    pub(crate) fn is_utc(&self) -> bool {
        *self.0 == *UTC
    }

    /// The type that SQL's name of `data_type` means in a cast: instants carry this zone.
    pub(crate) fn in_cast(&self, data_type: DataType) -> DataType {
        use DataType::*;
        let item = |f: &Arc<Field>| {
            Arc::new(f.as_ref().clone().with_data_type(self.in_cast(f.data_type().clone())))
        };
        match data_type {
            Timestamp(unit, Some(_)) => Timestamp(unit, Some(Arc::clone(&self.0))),
            List(field) => List(item(&field)),
            LargeList(field) => LargeList(item(&field)),
            FixedSizeList(field, n) => FixedSizeList(item(&field), n),
            Struct(fields) => Struct(fields.iter().map(item).collect()),
            other => other,
        }
    }

    /// [`cast_array`] of what a statement gives: texts and wall clocks are times in this zone, and instants show what its
    /// clocks show.
    pub(crate) fn cast_array(
        &self,
        given: &ArrayRef,
        to: &DataType,
        policy: CastPolicy,
    ) -> Result<ArrayRef, Failure> {
        if self.is_utc() || given.data_type() == to {
            return cast_array(given, to, policy);
        }
        let (from, over) = (given.data_type(), self.in_cast(to.clone()));
        let from = match from {
            DataType::Timestamp(unit, Some(label)) if **label == *UTC => {
                DataType::Timestamp(*unit, Some(Arc::clone(&self.0)))
            }
            other => other.clone(),
        };
        let given = cast_array(given, &from, policy)?;
        cast_array(&cast_array(&given, &over, policy)?, to, policy)
    }
}

/// Whether values of the type are text.
pub(crate) fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}
