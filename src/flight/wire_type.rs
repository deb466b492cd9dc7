//! The types in which columns leave the server, and what their fields say of them. Many clients know neither views,
//! dictionaries nor the wide and narrow cousins of lists and numbers, and one such column breaks a whole result.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef, TimeUnit};

/// Prefix of the field metadata that Flight SQL defines.
pub(crate) const METADATA_PREFIX: &str = "ARROW:FLIGHT:SQL:";

/// `schema` with its columns in types that every client understands, each with its SQL type in the metadata.
pub(crate) fn schema(schema: &Schema) -> SchemaRef {
    let fields: Fields = schema.fields().iter().map(|f| describe(&field(f))).collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// `schema` with its columns as they are, each with its SQL type in the metadata.
pub(crate) fn native_schema(schema: &Schema) -> SchemaRef {
    let fields: Fields = schema.fields().iter().map(describe).collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// [`schema`] for a client in Java. Its drivers read unsigned numbers as signed ones of the same width, so that 255 would be
/// -1: they leave in the next wider type.
pub(crate) fn java_schema(schema: &Schema) -> SchemaRef {
    let fields: Fields = schema
        .fields()
        .iter()
        .map(|f| {
            let f = field(f);
            let wider = match f.data_type() {
                DataType::UInt8 => DataType::Int16,
                DataType::UInt16 => DataType::Int32,
                DataType::UInt32 => DataType::Int64,
                DataType::UInt64 => DataType::Decimal128(20, 0),
                _ => return describe(&f),
            };
            describe(&Arc::new(f.as_ref().clone().with_data_type(wider)))
        })
        .collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// Parameters as a client in Java is told of them. Its drivers put the milliseconds of a java.sql.Timestamp or Time into a
/// vector of the announced type as they are, whatever unit that has, so the unit must be the millisecond; values are cast
/// to the parameter's own type when they are bound.
pub(crate) fn java_parameters(parameters: &Schema) -> SchemaRef {
    let fields: Fields = parameters
        .fields()
        .iter()
        .map(|f| {
            let data_type = match f.data_type() {
                DataType::Time32(_) | DataType::Time64(_) => {
                    DataType::Time32(TimeUnit::Millisecond)
                }
                DataType::Timestamp(_, zone) => {
                    DataType::Timestamp(TimeUnit::Millisecond, zone.clone())
                }
                other => data_type(other),
            };
            Arc::new(f.as_ref().clone().with_data_type(data_type))
        })
        .collect();
    Arc::new(Schema::new(fields))
}

fn field(f: &FieldRef) -> FieldRef {
    let plain = data_type(f.data_type());
    if plain == *f.data_type() {
        return Arc::clone(f);
    }
    let field = Field::new(f.name(), plain, f.is_nullable());
    Arc::new(field.with_metadata(f.metadata().clone()))
}

fn data_type(t: &DataType) -> DataType {
    match t {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::Float16 => DataType::Float32,
        DataType::Decimal32(p, s) | DataType::Decimal64(p, s) => DataType::Decimal128(*p, *s),
        DataType::Dictionary(_, values) => data_type(values),
        DataType::RunEndEncoded(_, values) => data_type(values.data_type()),
        DataType::List(child)
        | DataType::LargeList(child)
        | DataType::ListView(child)
        | DataType::LargeListView(child) => DataType::List(field(child)),
        DataType::FixedSizeList(child, size) => DataType::FixedSizeList(field(child), *size),
        DataType::Map(child, sorted) => DataType::Map(field(child), *sorted),
        DataType::Struct(children) => DataType::Struct(children.iter().map(field).collect()),
        other => other.clone(),
    }
}

/// Adds what Flight SQL says of a column: the name of its type, its precision and its scale.
fn describe(f: &FieldRef) -> FieldRef {
    let mut metadata: HashMap<String, String> = f.metadata().clone();
    let mut put = |key: &str, value: String| {
        metadata.entry(format!("{METADATA_PREFIX}{key}")).or_insert(value);
    };
    put("TYPE_NAME", type_name(f.data_type()));
    if let DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) =
        f.data_type()
    {
        put("PRECISION", precision.to_string());
        put("SCALE", scale.to_string());
    }
    Arc::new(f.as_ref().clone().with_metadata(metadata))
}

/// `schema` without what [`describe`] adds: results that are loaded again must not carry it into a table.
pub(crate) fn strip(schema: &Schema) -> SchemaRef {
    let fields: Fields = schema
        .fields()
        .iter()
        .map(|f| {
            if !f.metadata().keys().any(|k| k.starts_with(METADATA_PREFIX)) {
                return Arc::clone(f);
            }
            let mut metadata = f.metadata().clone();
            metadata.retain(|k, _| !k.starts_with(METADATA_PREFIX));
            Arc::new(f.as_ref().clone().with_metadata(metadata))
        })
        .collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// The SQL name of a type.
pub(crate) fn type_name(t: &DataType) -> String {
    let name = match t {
        DataType::Null => "NULL",
        DataType::Boolean => "BOOLEAN",
        DataType::Int8 => "TINYINT",
        DataType::Int16 => "SMALLINT",
        DataType::Int32 => "INTEGER",
        DataType::Int64 => "BIGINT",
        DataType::UInt8 => "TINYINT UNSIGNED",
        DataType::UInt16 => "SMALLINT UNSIGNED",
        DataType::UInt32 => "INTEGER UNSIGNED",
        DataType::UInt64 => "BIGINT UNSIGNED",
        DataType::Float16 | DataType::Float32 => "REAL",
        DataType::Float64 => "DOUBLE PRECISION",
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "TEXT",
        DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::FixedSizeBinary(_) => "BYTEA",
        DataType::Date32 | DataType::Date64 => "DATE",
        DataType::Time32(_) | DataType::Time64(_) => "TIME",
        DataType::Timestamp(_, None) => "TIMESTAMP",
        DataType::Timestamp(_, Some(_)) => "TIMESTAMPTZ",
        DataType::Duration(_) | DataType::Interval(_) => "INTERVAL",
        DataType::Decimal32(..)
        | DataType::Decimal64(..)
        | DataType::Decimal128(..)
        | DataType::Decimal256(..) => "NUMERIC",
        DataType::Struct(_) => "STRUCT",
        DataType::Map(..) => "MAP",
        DataType::Union(..) => "UNION",
        DataType::Dictionary(_, values) => return type_name(values),
        DataType::RunEndEncoded(_, values) => return type_name(values.data_type()),
        DataType::List(child)
        | DataType::LargeList(child)
        | DataType::ListView(child)
        | DataType::LargeListView(child)
        | DataType::FixedSizeList(child, _) => {
            return format!("{}[]", type_name(child.data_type()));
        }
    };
    name.to_owned()
}
