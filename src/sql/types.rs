//! SQL type names (PostgreSQL's) as Arrow types, one mapping for definitions and casts.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, IntervalUnit, TimeUnit};
use datafusion::logical_expr::planner::TypePlanner;
use datafusion::sql::sqlparser::ast::{
    ArrayElemTypeDef, DataType as SqlType, ExactNumberInfo, TimezoneInfo,
};

use super::error::{Error, Result};
use super::modifier::{Modifier, unit};
use super::semantics::time_zone::TimeZone;

/// The time zone that TIMESTAMPTZ columns carry.
pub(crate) const UTC: &str = "UTC";

/// Precision and scale of DECIMAL and NUMERIC without any.
const DEFAULT_DECIMAL: (u8, i8) = (38, 10);

/// The Arrow type of a SQL type.
pub(crate) fn data_type(sql: &SqlType) -> Result<DataType> {
    Ok(match sql {
        SqlType::Boolean | SqlType::Bool => DataType::Boolean,
        SqlType::TinyInt(None) | SqlType::Int8(Some(_)) => DataType::Int8,
        SqlType::SmallInt(None) | SqlType::Int2(None) => DataType::Int16,
        SqlType::Int(None) | SqlType::Integer(None) | SqlType::Int4(None) => DataType::Int32,
        SqlType::BigInt(None) | SqlType::Int8(None) | SqlType::Int64 => DataType::Int64,
        SqlType::TinyIntUnsigned(None) | SqlType::UTinyInt => DataType::UInt8,
        SqlType::SmallIntUnsigned(None) | SqlType::USmallInt => DataType::UInt16,
        SqlType::IntUnsigned(None) | SqlType::IntegerUnsigned(None) => DataType::UInt32,
        SqlType::BigIntUnsigned(None) | SqlType::UBigInt => DataType::UInt64,
        SqlType::Real | SqlType::Float4 => DataType::Float32,
        SqlType::Float(ExactNumberInfo::None) => DataType::Float64,
        SqlType::Float(ExactNumberInfo::Precision(p)) => match p {
            1..=24 => DataType::Float32,
            25..=53 => DataType::Float64,
            _ => return Err(Error::unsupported(format!("the precision of {sql} is not 1 to 53"))),
        },
        SqlType::Double(_) | SqlType::DoublePrecision | SqlType::Float8 => DataType::Float64,
        SqlType::Numeric(info) | SqlType::Decimal(info) | SqlType::Dec(info) => decimal(sql, info)?,
        SqlType::Text | SqlType::String(None) => DataType::Utf8,
        SqlType::Varchar(_)
        | SqlType::CharacterVarying(_)
        | SqlType::CharVarying(_)
        | SqlType::Nvarchar(_)
        | SqlType::Char(_)
        | SqlType::Character(_) => DataType::Utf8,
        SqlType::Bytea | SqlType::Blob(None) | SqlType::Varbinary(_) => DataType::Binary,
        SqlType::Binary(Some(_)) => DataType::Binary,
        SqlType::Date => DataType::Date32,
        SqlType::Time(precision, zone) => match (zone, precision) {
            (TimezoneInfo::None | TimezoneInfo::WithoutTimeZone, p) => time(sql, *p)?,
            _ => {
                return Err(Error::unsupported(format!(
                    "the type {sql} is not supported; use TIME"
                )));
            }
        },
        SqlType::Timestamp(precision, zone) => {
            let zoned = matches!(zone, TimezoneInfo::Tz | TimezoneInfo::WithTimeZone);
            DataType::Timestamp(unit(sql, *precision)?, zoned.then(|| Arc::from(UTC)))
        }
        SqlType::Datetime(precision) => DataType::Timestamp(unit(sql, *precision)?, None),
        SqlType::Interval { fields: None, precision: None } => {
            DataType::Interval(IntervalUnit::MonthDayNano)
        }
        SqlType::Array(
            ArrayElemTypeDef::AngleBracket(item)
            | ArrayElemTypeDef::SquareBracket(item, None)
            | ArrayElemTypeDef::Parenthesis(item),
        ) => DataType::List(Arc::new(Field::new_list_field(data_type(item)?, true))),
        other => {
            return Err(Error::unsupported(format!("the type {other} is not supported")));
        }
    })
}

fn time(sql: &SqlType, precision: Option<u64>) -> Result<DataType> {
    Ok(match unit(sql, precision)? {
        unit @ (TimeUnit::Second | TimeUnit::Millisecond) => DataType::Time32(unit),
        unit => DataType::Time64(unit),
    })
}

fn decimal(sql: &SqlType, info: &ExactNumberInfo) -> Result<DataType> {
    let (precision, scale) = match *info {
        ExactNumberInfo::None => return Ok(decimal_128(DEFAULT_DECIMAL)),
        ExactNumberInfo::Precision(p) => (p, 0),
        ExactNumberInfo::PrecisionAndScale(p, s) => (p, s),
    };
    match (u8::try_from(precision), i8::try_from(scale)) {
        (Ok(p @ 1..=38), Ok(s)) if s >= 0 && s as u8 <= p => Ok(decimal_128((p, s))),
        _ => Err(Error::unsupported(format!(
            "{sql}: the precision must be 1 to 38 and the scale 0 to the precision"
        ))),
    }
}

fn decimal_128((precision, scale): (u8, i8)) -> DataType {
    DataType::Decimal128(precision, scale)
}

/// Gives DataFusion's planner the mapping of [`data_type`] for casts.
#[derive(Debug)]
pub(crate) struct SqlTypes {
    /// The zone of TIMESTAMPTZ in casts.
    pub(crate) zone: TimeZone,
}

impl TypePlanner for SqlTypes {
    fn plan_type_field(&self, sql: &SqlType) -> datafusion::error::Result<Option<FieldRef>> {
        let field = Field::new("", self.zone.in_cast(data_type(sql)?), true);
        let modifier = Modifier::of_type(sql)?;
        Ok(Some(Arc::new(match modifier {
            Some(modifier) => modifier.on(field),
            None => field,
        })))
    }
}

/// The SQL name of a field's type, with its length or precision.
pub(crate) fn sql_name_of_field(field: &Field) -> String {
    match Modifier::of_field(field) {
        Some(modifier) => modifier.sql_name(field.data_type()),
        None => sql_name(field.data_type()),
    }
}

/// The SQL name of an Arrow type.
pub(crate) fn sql_name(data_type: &DataType) -> String {
    let digits = |unit: &TimeUnit| match unit {
        TimeUnit::Second => "(0)",
        TimeUnit::Millisecond => "(3)",
        TimeUnit::Microsecond => "",
        TimeUnit::Nanosecond => "(9)",
    };
    match data_type {
        DataType::Boolean => "BOOLEAN".to_owned(),
        DataType::Int8 => "TINYINT".to_owned(),
        DataType::Int16 => "SMALLINT".to_owned(),
        DataType::Int32 => "INTEGER".to_owned(),
        DataType::Int64 => "BIGINT".to_owned(),
        DataType::UInt8 => "TINYINT UNSIGNED".to_owned(),
        DataType::UInt16 => "SMALLINT UNSIGNED".to_owned(),
        DataType::UInt32 => "INTEGER UNSIGNED".to_owned(),
        DataType::UInt64 => "BIGINT UNSIGNED".to_owned(),
        DataType::Float32 => "REAL".to_owned(),
        DataType::Float64 => "DOUBLE PRECISION".to_owned(),
        DataType::Decimal128(p, s) => format!("NUMERIC({p},{s})"),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "TEXT".to_owned(),
        DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::FixedSizeBinary(_) => "BYTEA".to_owned(),
        DataType::Date32 | DataType::Date64 => "DATE".to_owned(),
        DataType::Time32(unit) | DataType::Time64(unit) => format!("TIME{}", digits(unit)),
        DataType::Timestamp(unit, None) => format!("TIMESTAMP{}", digits(unit)),
        DataType::Timestamp(unit, Some(_)) => {
            format!("TIMESTAMP{} WITH TIME ZONE", digits(unit))
        }
        DataType::Interval(_) => "INTERVAL".to_owned(),
        DataType::List(item) | DataType::LargeList(item) => {
            format!("{}[]", sql_name(item.data_type()))
        }
        DataType::Dictionary(_, value) => sql_name(value),
        other => other.to_string(),
    }
}
