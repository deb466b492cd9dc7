//! Which types a column may have, and how Parquet holds those that it has no exact type for.
//!
//! | declared | stored |
//! |---|---|
//! | Timestamp(s) | Timestamp(ms), of the same zone |
//! | Time32(s) | Time32(ms) |
//! | Date64 | Timestamp(ms) without zone |
//! | Interval(month-day-nano) | 16 fixed bytes, as in memory |
//! | Dictionary of anything but text and binary (not views) | its values |
//! | ListView, LargeListView | List, LargeList |
//!
//! All others are stored as they are. What is read is given back as declared.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeBinaryArray, PrimitiveArray};
use arrow::compute::{CastOptions, can_cast_types, cast_with_options};
use arrow::datatypes::{
    DataType, Field, FieldRef, Fields, IntervalMonthDayNanoType, IntervalUnit, Schema, SchemaRef,
    TimeUnit,
};

use crate::engine::error::{Error, ErrorKind, Result};

/// Bytes of an interval of months, days and nanoseconds in memory.
const INTERVAL_BYTES: i32 = 16;
const INTERVAL: DataType = DataType::Interval(IntervalUnit::MonthDayNano);

/// Checks that a column of `data_type` can be stored and given back unchanged.
pub fn check_column_type(data_type: &DataType) -> Result<()> {
    stored_type(data_type).map(drop)
}

/// Checks that values can be stored: those of some types are stored in a type of a smaller range. Where one cannot, the error
/// says in which row, counted from 0.
pub fn check_values(array: &ArrayRef) -> Result<(), usize> {
    if !narrows(array.data_type()) {
        return Ok(());
    }
    let Ok(stored) = stored_type(array.data_type()) else { return Err(0) };
    if to_stored(array, &stored).is_ok() {
        return Ok(());
    }
    let fails = |row: &usize| to_stored(&array.slice(*row, 1), &stored).is_err();
    Err((0..array.len()).find(fails).unwrap_or(0))
}

/// Whether values of `data_type`, or values inside them, may be out of the range of the type that they are stored as.
fn narrows(data_type: &DataType) -> bool {
    use DataType::*;
    match data_type {
        Timestamp(TimeUnit::Second, _) | Time32(TimeUnit::Second) => true,
        Dictionary(_, values) => narrows(values),
        List(item) | LargeList(item) | ListView(item) | LargeListView(item) => {
            narrows(item.data_type())
        }
        FixedSizeList(item, _) | Map(item, _) => narrows(item.data_type()),
        Struct(fields) => fields.iter().any(|field| narrows(field.data_type())),
        _ => false,
    }
}

/// The schema that a segment's Parquet file has for rows of `schema`.
pub(super) fn stored_schema(schema: &Schema) -> Result<SchemaRef> {
    let fields: Fields = schema
        .fields()
        .iter()
        .map(|field| {
            let stored = stored_type(field.data_type())
                .map_err(|e| e.context(format_args!("column \"{}\"", field.name())))?;
            Ok(Arc::new(field.as_ref().clone().with_data_type(stored)))
        })
        .collect::<Result<_>>()?;
    Ok(Arc::new(Schema::new(fields)))
}

/// The type that values of `data_type` are stored as.
pub(super) fn stored_type(data_type: &DataType) -> Result<DataType> {
    if data_type == &INTERVAL {
        return Ok(DataType::FixedSizeBinary(INTERVAL_BYTES));
    }
    let stored = nearest(data_type).map_err(|e| {
        if data_type.is_nested() { e.context(format_args!("type {data_type}")) } else { e }
    })?;
    if &stored != data_type
        && !(can_cast_types(data_type, &stored) && can_cast_types(&stored, data_type))
    {
        return Err(unsupported(data_type, "use a plain type instead"));
    }
    Ok(stored)
}

fn nearest(data_type: &DataType) -> Result<DataType> {
    use DataType::*;
    Ok(match data_type {
        Timestamp(TimeUnit::Second, zone) => Timestamp(TimeUnit::Millisecond, zone.clone()),
        Time32(TimeUnit::Second) => Time32(TimeUnit::Millisecond),
        Date64 => Timestamp(TimeUnit::Millisecond, None),
        Decimal32(_, scale) | Decimal64(_, scale) | Decimal128(_, scale) | Decimal256(_, scale)
            if *scale < 0 =>
        {
            return Err(unsupported(data_type, "the scale of a decimal must not be negative"));
        }
        FixedSizeBinary(size) if *size <= 0 => {
            return Err(unsupported(data_type, "the size must be positive"));
        }
        Interval(IntervalUnit::MonthDayNano) => {
            return Err(unsupported(data_type, "an interval cannot be inside another type"));
        }
        Union(_, _) => return Err(unsupported(data_type, "use a struct of nullable fields")),
        Dictionary(key, values) => {
            // The values of one row group may come from batches with different dictionaries.
            if matches!(key.as_ref(), Int8 | Int16 | UInt8 | UInt16) {
                let hint = format!("use type {values}, or a dictionary with Int32 keys");
                return Err(unsupported(data_type, &hint));
            }
            match values.as_ref() {
                Utf8 | LargeUtf8 | Binary | LargeBinary => data_type.clone(),
                other => plain_values(data_type, other)?,
            }
        }
        RunEndEncoded(_, values) => {
            return Err(unsupported(
                data_type,
                &format!("use type {} instead", values.data_type()),
            ));
        }
        List(item) | ListView(item) => List(nearest_field(item)?),
        LargeList(item) | LargeListView(item) => LargeList(nearest_field(item)?),
        FixedSizeList(_, size) if *size <= 0 => {
            return Err(unsupported(data_type, "the size must be positive"));
        }
        FixedSizeList(item, size) => FixedSizeList(nearest_field(item)?, *size),
        Map(entries, sorted) => Map(nearest_field(entries)?, *sorted),
        Struct(fields) if fields.is_empty() => {
            return Err(unsupported(data_type, "a struct needs at least one field"));
        }
        Struct(fields) => Struct(fields.iter().map(nearest_field).collect::<Result<_>>()?),
        other => other.clone(),
    })
}

/// The values of a dictionary, if they are stored as they are: Arrow's cast between units of
/// time forgets to convert inside a dictionary.
fn plain_values(data_type: &DataType, values: &DataType) -> Result<DataType> {
    if &nearest(values)? == values {
        return Ok(values.clone());
    }
    Err(unsupported(data_type, &format!("use type {values} instead")))
}

fn nearest_field(field: &FieldRef) -> Result<FieldRef> {
    let stored = nearest(field.data_type())?;
    if &stored == field.data_type() {
        return Ok(Arc::clone(field));
    }
    Ok(Arc::new(Field::clone(field).with_data_type(stored)))
}

fn unsupported(data_type: &DataType, hint: &str) -> Error {
    Error::new(ErrorKind::Unsupported, format!("type {data_type} cannot be stored: {hint}"))
}

/// The array as it is stored. A value that the stored type cannot hold is an error.
pub(super) fn to_stored(array: &ArrayRef, stored: &DataType) -> Result<ArrayRef> {
    if array.data_type() == stored {
        return Ok(Arc::clone(array));
    }
    if array.data_type() == &INTERVAL && stored == &DataType::FixedSizeBinary(INTERVAL_BYTES) {
        let array = array.as_primitive::<IntervalMonthDayNanoType>();
        let bytes = array.values().inner().clone();
        let stored = FixedSizeBinaryArray::try_new(INTERVAL_BYTES, bytes, array.nulls().cloned())?;
        return Ok(Arc::new(stored));
    }
    cast(array, stored).map_err(|e| {
        Error::new(
            ErrorKind::Constraint,
            format!("a value of type {} is out of range", array.data_type()),
        )
        .with_source(e)
    })
}

/// The array as it was declared.
pub(super) fn from_stored(array: ArrayRef, declared: &DataType) -> Result<ArrayRef> {
    if array.data_type() == declared {
        return Ok(array);
    }
    if declared == &INTERVAL && array.data_type() == &DataType::FixedSizeBinary(INTERVAL_BYTES) {
        let array = array.as_fixed_size_binary();
        // Copied where it is not aligned.
        let data = array.to_data();
        let aligned = arrow::array::ArrayData::builder(INTERVAL)
            .len(array.len())
            .add_buffer(arrow::buffer::Buffer::from(array.value_data()))
            .nulls(data.nulls().cloned())
            .align_buffers(true)
            .build()?;
        return Ok(Arc::new(PrimitiveArray::<IntervalMonthDayNanoType>::from(aligned)));
    }
    cast(&array, declared).map_err(|e| {
        Error::corruption(format!(
            "a value stored as {} does not fit {declared}",
            array.data_type()
        ))
        .with_source(e)
    })
}

fn cast(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, arrow::error::ArrowError> {
    cast_with_options(array, to, &CastOptions { safe: false, ..CastOptions::default() })
}
