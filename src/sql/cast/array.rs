//! Casts of arrays that either keep every value or say which one they cannot keep.
//!
//! Arrow's own casts turn what does not fit into NULL (`safe`) or name no row (not `safe`), and round, wrap
//! and truncate silently. Here a cast is made in the first way and then checked: no value may have become NULL, and, where
//! nothing may be lost, casting back must give what was there.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryBuilder, FixedSizeListArray, GenericListArray, MapArray,
    OffsetSizeTrait, StructArray, new_null_array,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::kernels::cmp::distinct;
use arrow::compute::{CastOptions, can_cast_types, cast_with_options, take};
use arrow::datatypes::{
    DataType, FieldRef, Float32Type, Float64Type, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};

use crate::engine::size;
use crate::sql::semantics::time::cast::{Unfit, cast_time, is_time_cast};

/// What a cast may do to a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CastPolicy {
    /// Nothing: the value can be had back. For bulk loads.
    Lossless,
    /// What an assignment in PostgreSQL does: fractions of numbers and times are rounded;
    /// overflow and what cannot be parsed is an error.
    Assign,
}

/// Why an array was not cast.
#[derive(Debug)]
pub(crate) enum Failure {
    /// There is no such cast between the types.
    Type,
    /// The value of a row does not fit.
    Value {
        /// The row, counted from 0.
        row: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The value of a row is longer than its column.
    TooLong {
        /// The row, counted from 0.
        row: usize,
    },
    /// The array as a whole cannot be held.
    Whole(String),
}

/// Bytes that the values of one array may take once they are written out, each by itself.
pub(crate) const MAX_BATCH_BYTES: u64 = 256 << 20;

const NO_FIT: &str = "does not fit";
const LOSES: &str = "cannot be held without loss";
const NOT_TEXT_OF: &str = "cannot be read as this type";

/// Casts `array` to `to`.
pub(crate) fn cast_array(
    array: &ArrayRef,
    to: &DataType,
    policy: CastPolicy,
) -> Result<ArrayRef, Failure> {
    use DataType::*;
    let from = array.data_type();
    match (from, to) {
        _ if from == to => Ok(Arc::clone(array)),
        (Null, _) => nulls(to, array.len()),
        (Dictionary(_, _) | RunEndEncoded(_, _) | Utf8View | BinaryView, _)
        | (ListView(_) | LargeListView(_), _)
            if size::written_bytes(array.as_ref()) > MAX_BATCH_BYTES =>
        {
            Err(too_large(size::written_bytes(array.as_ref())))
        }
        (Dictionary(_, _), _) => cast_dictionary(array, to, policy),
        (RunEndEncoded(_, values), _) => {
            let plain = convert(array, values.data_type(), NO_FIT)?;
            cast_array(&plain, to, policy)
        }
        (_, List(field)) => cast_list::<i32>(array, field, policy),
        (_, LargeList(field)) => cast_list::<i64>(array, field, policy),
        (FixedSizeList(_, n), FixedSizeList(field, m)) if n == m => {
            let list = array.as_fixed_size_list();
            let values = cast_array(list.values(), field.data_type(), policy)
                .map_err(|f| at_parent(f, |child| child / (*n).max(1) as usize))?;
            FixedSizeListArray::try_new(Arc::clone(field), *n, values, list.nulls().cloned())
                .map(|a| Arc::new(a) as ArrayRef)
                .map_err(|e| Failure::Whole(e.to_string()))
        }
        (Struct(_), Struct(fields)) => cast_struct(array, fields, policy),
        (Map(_, _), Map(entries, sorted)) => cast_map(array, entries, *sorted, policy),
        _ => cast_plain(array, to, policy),
    }
}

/// So many NULLs: those of types of a fixed size take as much as values.
pub(crate) fn nulls(data_type: &DataType, row_count: usize) -> Result<ArrayRef, Failure> {
    let bytes = size::null_bytes(data_type).saturating_mul(row_count as u64);
    if bytes > MAX_BATCH_BYTES {
        return Err(too_large(bytes));
    }
    Ok(new_null_array(data_type, row_count))
}

fn too_large(bytes: u64) -> Failure {
    Failure::Whole(format!(
        "its values take {bytes} bytes once they are written out, and {MAX_BATCH_BYTES} are allowed at a time: \
         send fewer rows"
    ))
}

fn cast_plain(array: &ArrayRef, to: &DataType, policy: CastPolicy) -> Result<ArrayRef, Failure> {
    let from = array.data_type();
    let lossless = policy == CastPolicy::Lossless;
    match (Family::of(from), Family::of(to)) {
        (Family::Number, Family::Number) if lossless => round_trip(array, to),
        (Family::Number, Family::Number) => assign_number(array, to),
        (Family::Text, Family::Text) | (Family::Binary, Family::Binary) => {
            convert(array, to, NO_FIT)
        }
        (Family::Text, Family::Binary) if !lossless => parse_binary(array, to),
        (Family::Text, Family::Binary) => convert(array, to, NO_FIT),
        (Family::Binary, Family::Text) => convert(array, to, "is not UTF-8"),
        (Family::Text, Family::Number) if lossless => parse_number_exactly(array, to),
        _ if policy == CastPolicy::Assign && is_time_cast(from, to) => {
            cast_time(array, to, Unfit::Fails)
        }
        (Family::Text, Family::Bool | Family::Date | Family::Time | Family::Timestamp) => {
            cast_time(array, to, Unfit::Fails)
        }
        (Family::Date | Family::Time | Family::Timestamp, Family::Text) => {
            cast_time(array, to, Unfit::Fails)
        }
        (Family::Text, _) => convert(array, to, NOT_TEXT_OF),
        (Family::Other, Family::Text) => Err(Failure::Type),
        (_, Family::Text) => convert(array, to, NO_FIT),
        (Family::Timestamp, Family::Timestamp) => cast_timestamp(array, to, lossless),
        (Family::Date | Family::Timestamp, Family::Date | Family::Timestamp) => {
            // A date is its midnight, in UTC where the column has a zone.
            let unit_only = zoneless(to);
            let from_zoneless = relabel(array, None);
            let out = temporal(&from_zoneless, &unit_only, lossless)?;
            Ok(match to {
                DataType::Timestamp(_, zone) => relabel(&out, zone.clone()),
                _ => out,
            })
        }
        (Family::Timestamp, Family::Time) if !lossless => convert(array, to, NO_FIT),
        (Family::Time, Family::Time) | (Family::Duration, Family::Duration) => {
            temporal(array, to, lossless)
        }
        (Family::Interval, Family::Interval) | (Family::Duration, Family::Interval) => {
            round_trip(array, to)
        }
        _ => Err(Failure::Type),
    }
}

/// Types between whose members a cast makes sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Number,
    Bool,
    Text,
    Binary,
    Date,
    Time,
    Timestamp,
    Duration,
    Interval,
    Other,
}

impl Family {
    fn of(data_type: &DataType) -> Self {
        use DataType::*;
        match data_type {
            t if t.is_numeric() => Self::Number,
            Boolean => Self::Bool,
            Utf8 | LargeUtf8 | Utf8View => Self::Text,
            Binary | LargeBinary | BinaryView | FixedSizeBinary(_) => Self::Binary,
            Date32 | Date64 => Self::Date,
            Time32(_) | Time64(_) => Self::Time,
            Timestamp(_, _) => Self::Timestamp,
            Duration(_) => Self::Duration,
            Interval(_) => Self::Interval,
            _ => Self::Other,
        }
    }
}

/// Arrow's cast, and the check that it has made no value NULL.
fn convert(array: &ArrayRef, to: &DataType, reason: &'static str) -> Result<ArrayRef, Failure> {
    if array.data_type() == to {
        return Ok(Arc::clone(array));
    }
    if !can_cast_types(array.data_type(), to) {
        return Err(Failure::Type);
    }
    let options = CastOptions { safe: true, ..CastOptions::default() };
    let out = cast_with_options(array, to, &options).map_err(|e| Failure::Whole(e.to_string()))?;
    let had = array.logical_null_count();
    if out.null_count() > had {
        let nulls = array.logical_nulls();
        let was_null = |row| nulls.as_ref().is_some_and(|n| n.is_null(row));
        let row = (0..out.len()).find(|&row| out.is_null(row) && !was_null(row)).unwrap_or(0);
        return Err(Failure::Value { row, reason });
    }
    Ok(out)
}

/// [`convert`], and the check that casting back gives the same values.
fn round_trip(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, Failure> {
    let out = convert(array, to, NO_FIT)?;
    if widens(array.data_type(), to) {
        return Ok(out);
    }
    let back = convert(&out, array.data_type(), LOSES)?;
    let differs = distinct(&back, array).map_err(|e| Failure::Whole(e.to_string()))?;
    match differs.values().set_indices().next() {
        None => Ok(out),
        Some(row) => Err(Failure::Value { row, reason: LOSES }),
    }
}

fn temporal(array: &ArrayRef, to: &DataType, lossless: bool) -> Result<ArrayRef, Failure> {
    if lossless { round_trip(array, to) } else { convert(array, to, NO_FIT) }
}

/// Whether every value of `from` is one of `to`, so that nothing needs checking.
fn widens(from: &DataType, to: &DataType) -> bool {
    use DataType::*;
    // (mantissa bits, signed, float)
    let shape = |t: &DataType| match t {
        Int8 => Some((7, true, false)),
        Int16 => Some((15, true, false)),
        Int32 => Some((31, true, false)),
        Int64 => Some((63, true, false)),
        UInt8 => Some((8, false, false)),
        UInt16 => Some((16, false, false)),
        UInt32 => Some((32, false, false)),
        UInt64 => Some((64, false, false)),
        Float16 => Some((11, true, true)),
        Float32 => Some((24, true, true)),
        Float64 => Some((53, true, true)),
        _ => None,
    };
    match (shape(from), shape(to)) {
        (Some((a, a_signed, a_float)), Some((b, b_signed, b_float))) => {
            a <= b && (!a_signed || b_signed) && (!a_float || b_float)
        }
        _ => false,
    }
}

/// Numbers as PostgreSQL assigns them: rounded to the nearest, an error where they overflow.
fn assign_number(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, Failure> {
    use DataType::*;
    let from = array.data_type();
    match (from, to) {
        (Float16 | Float32 | Float64, t) if t.is_integer() => {
            let wide = convert(array, &Float64, NO_FIT)?;
            let rounded: ArrayRef = Arc::new(
                wide.as_primitive::<Float64Type>().unary::<_, Float64Type>(f64::round_ties_even),
            );
            convert(&rounded, to, NO_FIT)
        }
        (Decimal32(p, s) | Decimal64(p, s) | Decimal128(p, s) | Decimal256(p, s), t)
            if t.is_integer() && *s > 0 =>
        {
            // Rounding 9.9 to a whole number takes a digit more than the type may have.
            let whole = match from {
                Decimal256(_, _) => Decimal256(*p, 0),
                _ => Decimal128((*p + 1).min(38), 0),
            };
            convert(&convert(array, &whole, NO_FIT)?, to, NO_FIT)
        }
        (_, Float32) => {
            let out = convert(array, to, NO_FIT)?;
            let wide = convert(array, &Float64, NO_FIT)?;
            let (narrow, wide) =
                (out.as_primitive::<Float32Type>(), wide.as_primitive::<Float64Type>());
            let overflow = (0..out.len()).find(|&row| {
                out.is_valid(row)
                    && narrow.value(row).is_infinite()
                    && !wide.value(row).is_infinite()
            });
            match overflow {
                None => Ok(out),
                Some(row) => Err(Failure::Value { row, reason: NO_FIT }),
            }
        }
        _ => convert(array, to, NO_FIT),
    }
}

/// Text to a number with no digit dropped.
fn parse_number_exactly(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, Failure> {
    use DataType::*;
    if !matches!(to, Decimal32(..) | Decimal64(..) | Decimal128(..) | Decimal256(..)) {
        return convert(array, to, NOT_TEXT_OF);
    }
    // Wide enough on both sides of the point that what it drops would not have fitted anyway.
    let exact = convert(array, &Decimal256(76, 38), NOT_TEXT_OF)?;
    round_trip(&exact, to)
}

/// Text as PostgreSQL reads it for BYTEA: hexadecimal after `\x`, else the bytes themselves.
fn parse_binary(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, Failure> {
    let text = convert(array, &DataType::Utf8, NO_FIT)?;
    let text = text.as_string::<i32>();
    if !text.iter().flatten().any(|t| t.starts_with("\\x")) {
        return convert(array, &DataType::Binary, NO_FIT).and_then(|a| convert(&a, to, NO_FIT));
    }
    let mut out = BinaryBuilder::with_capacity(text.len(), text.value_data().len());
    for (row, value) in text.iter().enumerate() {
        match value.map(|v| v.strip_prefix("\\x").map_or(Ok(v.as_bytes().to_vec()), unhex)) {
            None => out.append_null(),
            Some(Ok(bytes)) => out.append_value(bytes),
            Some(Err(())) => return Err(Failure::Value { row, reason: "is not hexadecimal" }),
        }
    }
    convert(&(Arc::new(out.finish()) as ArrayRef), to, NO_FIT)
}

fn unhex(text: &str) -> Result<Vec<u8>, ()> {
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect();
    let digits = digits.ok_or(())?;
    let (pairs, rest) = digits.as_chunks::<2>();
    if rest.is_empty() { Ok(pairs.iter().map(|[h, l]| h << 4 | l).collect()) } else { Err(()) }
}

fn cast_timestamp(array: &ArrayRef, to: &DataType, lossless: bool) -> Result<ArrayRef, Failure> {
    let (DataType::Timestamp(_, from_zone), DataType::Timestamp(_, zone)) = (array.data_type(), to)
    else {
        return Err(Failure::Type);
    };
    // A time without zone is taken as UTC, the zone of sessions; one with a zone loses the zone.
    if let (Some(from_zone), None, true) = (from_zone, zone, lossless) {
        let utc = ["UTC", "Etc/UTC", "Z", "+00:00", "+0000"];
        if !utc.contains(&from_zone.as_ref()) {
            return Err(Failure::Type);
        }
    }
    temporal(&relabel(array, zone.clone()), to, lossless)
}

fn zoneless(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Timestamp(unit, _) => DataType::Timestamp(*unit, None),
        other => other.clone(),
    }
}

/// The same instants under another zone; other arrays as they are.
fn relabel(array: &ArrayRef, zone: Option<Arc<str>>) -> ArrayRef {
    macro_rules! with_zone {
        ($t:ty) => {
            Arc::new(array.as_primitive::<$t>().clone().with_timezone_opt(zone))
        };
    }
    match array.data_type() {
        DataType::Timestamp(TimeUnit::Second, _) => with_zone!(TimestampSecondType),
        DataType::Timestamp(TimeUnit::Millisecond, _) => with_zone!(TimestampMillisecondType),
        DataType::Timestamp(TimeUnit::Microsecond, _) => with_zone!(TimestampMicrosecondType),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => with_zone!(TimestampNanosecondType),
        _ => Arc::clone(array),
    }
}

fn cast_dictionary(
    array: &ArrayRef,
    to: &DataType,
    policy: CastPolicy,
) -> Result<ArrayRef, Failure> {
    let dictionary = array.as_any_dictionary();
    if let Ok(values) = cast_array(dictionary.values(), to, policy) {
        return take(&values, dictionary.keys(), None).map_err(|e| Failure::Whole(e.to_string()));
    }
    // A value that does not fit may be one that no row uses, and the row has to be named.
    let plain = take(dictionary.values(), dictionary.keys(), None)
        .map_err(|e| Failure::Whole(e.to_string()))?;
    cast_array(&plain, to, policy)
}

/// Any list to `List` or `LargeList`.
fn cast_list<O: OffsetSizeTrait>(
    array: &ArrayRef,
    field: &FieldRef,
    policy: CastPolicy,
) -> Result<ArrayRef, Failure> {
    let list = match array.data_type() {
        DataType::List(f)
        | DataType::LargeList(f)
        | DataType::FixedSizeList(f, _)
        | DataType::ListView(f)
        | DataType::LargeListView(f) => {
            let plain = (GenericListArray::<O>::DATA_TYPE_CONSTRUCTOR)(Arc::clone(f));
            convert(array, &plain, NO_FIT)?
        }
        _ => return Err(Failure::Type),
    };
    let list = list.as_list::<O>();
    let offsets = list.offsets();
    let (first, last) = (offsets[0].as_usize(), offsets[list.len()].as_usize());
    let values = list.values().slice(first, last - first);
    let values = cast_array(&values, field.data_type(), policy).map_err(|f| {
        at_parent(f, |child| offsets.partition_point(|o| o.as_usize() <= child + first) - 1)
    })?;
    let moved = OffsetBuffer::new(offsets.iter().map(|o| *o - offsets[0]).collect());
    GenericListArray::<O>::try_new(Arc::clone(field), moved, values, list.nulls().cloned())
        .map(|a| Arc::new(a) as ArrayRef)
        .map_err(|e| Failure::Whole(e.to_string()))
}

/// Struct fields by name; a field that is missing is NULL.
fn cast_struct(
    array: &ArrayRef,
    fields: &arrow::datatypes::Fields,
    policy: CastPolicy,
) -> Result<ArrayRef, Failure> {
    let source = array.as_struct();
    if source.column_names().iter().any(|name| fields.find(name).is_none()) {
        return Err(Failure::Type);
    }
    let columns = fields
        .iter()
        .map(|field| match source.column_by_name(field.name()) {
            Some(column) => cast_array(column, field.data_type(), policy),
            None => nulls(field.data_type(), source.len()),
        })
        .collect::<Result<Vec<_>, _>>()?;
    StructArray::try_new_with_length(fields.clone(), columns, source.nulls().cloned(), source.len())
        .map(|a| Arc::new(a) as ArrayRef)
        .map_err(|e| Failure::Whole(e.to_string()))
}

fn cast_map(
    array: &ArrayRef,
    entries: &FieldRef,
    sorted: bool,
    policy: CastPolicy,
) -> Result<ArrayRef, Failure> {
    let map = array.as_map();
    let DataType::Struct(fields) = entries.data_type() else {
        return Err(Failure::Type);
    };
    let [key, value] = fields.as_ref() else {
        return Err(Failure::Type);
    };
    // Keys and values go by position: producers do not agree on what they are called.
    let parent =
        |f| at_parent(f, |child| map.offsets().partition_point(|o| *o as usize <= child) - 1);
    let keys = cast_array(map.keys(), key.data_type(), policy).map_err(parent)?;
    let values = cast_array(map.values(), value.data_type(), policy).map_err(parent)?;
    let entries_array = StructArray::try_new(fields.clone(), vec![keys, values], None)
        .map_err(|e| Failure::Whole(e.to_string()))?;
    MapArray::try_new(
        Arc::clone(entries),
        map.offsets().clone(),
        entries_array,
        map.nulls().cloned(),
        sorted,
    )
    .map(|a| Arc::new(a) as ArrayRef)
    .map_err(|e| Failure::Whole(e.to_string()))
}

/// A failure in a child, at the row of its parent.
fn at_parent(failure: Failure, row_of: impl Fn(usize) -> usize) -> Failure {
    match failure {
        Failure::Value { row, reason } => Failure::Value { row: row_of(row), reason },
        other => other,
    }
}
