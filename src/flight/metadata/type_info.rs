//! The types of this server in the words of XDBC (ODBC and JDBC).

use std::sync::LazyLock;

use crate::flight::status;
use crate::sql::Code;
use arrow::array::RecordBatch;
use arrow_flight::sql::metadata::{XdbcTypeInfo, XdbcTypeInfoData, XdbcTypeInfoDataBuilder};
use arrow_flight::sql::{Nullable, Searchable, XdbcDataType, XdbcDatetimeSubcode};
use tonic::Status;

static DATA: LazyLock<Result<XdbcTypeInfoData, String>> = LazyLock::new(|| {
    let mut builder = XdbcTypeInfoDataBuilder::new();
    for info in types() {
        builder.append(info);
    }
    builder.build().map_err(|e| e.to_string())
});

/// The types with an XDBC code; all for none.
pub(super) fn rows(data_type: Option<i32>) -> Result<RecordBatch, Status> {
    let data = DATA
        .as_ref()
        .map_err(|e| status::new(Code::InternalError, format!("XdbcTypeInfo: {e}")))?;
    data.record_batch(data_type)
        .map_err(|e| status::new(Code::InternalError, format!("XdbcTypeInfo: {e}")))
}

fn base(name: &str, data_type: XdbcDataType, size: Option<i32>) -> XdbcTypeInfo {
    XdbcTypeInfo {
        type_name: name.to_owned(),
        local_type_name: Some(name.to_owned()),
        data_type,
        sql_data_type: data_type,
        column_size: size,
        nullable: Nullable::NullabilityNullable,
        searchable: Searchable::Full,
        ..XdbcTypeInfo::default()
    }
}

/// A number: its size is in digits of `radix`.
fn number(
    name: &str,
    data_type: XdbcDataType,
    size: i32,
    radix: i32,
    unsigned: bool,
) -> XdbcTypeInfo {
    XdbcTypeInfo {
        unsigned_attribute: Some(unsigned),
        auto_increment: Some(false),
        num_prec_radix: Some(radix),
        minimum_scale: Some(0),
        maximum_scale: Some(0),
        ..base(name, data_type, Some(size))
    }
}

fn quoted(name: &str, data_type: XdbcDataType, size: i32, prefix: &str) -> XdbcTypeInfo {
    XdbcTypeInfo {
        literal_prefix: Some(prefix.to_owned()),
        literal_suffix: Some("'".to_owned()),
        ..base(name, data_type, Some(size))
    }
}

fn datetime(
    name: &str,
    data_type: XdbcDataType,
    size: i32,
    subcode: Option<XdbcDatetimeSubcode>,
) -> XdbcTypeInfo {
    let fraction = (data_type != XdbcDataType::XdbcDate).then_some(0);
    XdbcTypeInfo {
        sql_data_type: XdbcDataType::XdbcDatetime,
        datetime_subcode: subcode,
        minimum_scale: fraction,
        maximum_scale: fraction.map(|_| 9),
        ..quoted(name, data_type, size, "'")
    }
}

fn types() -> Vec<XdbcTypeInfo> {
    use XdbcDataType as X;
    use XdbcDatetimeSubcode as S;
    vec![
        base("BOOLEAN", X::XdbcBit, Some(1)),
        number("TINYINT", X::XdbcTinyint, 3, 10, false),
        number("SMALLINT", X::XdbcSmallint, 5, 10, false),
        number("INTEGER", X::XdbcInteger, 10, 10, false),
        number("BIGINT", X::XdbcBigint, 19, 10, false),
        number("TINYINT UNSIGNED", X::XdbcTinyint, 3, 10, true),
        number("SMALLINT UNSIGNED", X::XdbcSmallint, 5, 10, true),
        number("INTEGER UNSIGNED", X::XdbcInteger, 10, 10, true),
        number("BIGINT UNSIGNED", X::XdbcBigint, 20, 10, true),
        number("REAL", X::XdbcReal, 24, 2, false),
        number("DOUBLE PRECISION", X::XdbcDouble, 53, 2, false),
        XdbcTypeInfo {
            create_params: Some(vec!["precision".to_owned(), "scale".to_owned()]),
            maximum_scale: Some(38),
            ..number("NUMERIC", X::XdbcNumeric, 38, 10, false)
        },
        XdbcTypeInfo { case_sensitive: true, ..quoted("TEXT", X::XdbcVarchar, i32::MAX, "'") },
        quoted("BYTEA", X::XdbcVarbinary, i32::MAX, "X'"),
        // XDBC's subcode 1 is the date, which the protocol calls YEAR.
        datetime("DATE", X::XdbcDate, 10, Some(S::XdbcSubcodeYear)),
        datetime("TIME", X::XdbcTime, 18, Some(S::XdbcSubcodeTime)),
        datetime("TIMESTAMP", X::XdbcTimestamp, 29, Some(S::XdbcSubcodeTimestamp)),
        datetime("TIMESTAMPTZ", X::XdbcTimestamp, 35, Some(S::XdbcSubcodeTimestampWithTimezone)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_filtered_by_code() {
        assert_eq!(rows(None).unwrap().num_rows(), types().len());
        assert_eq!(rows(Some(XdbcDataType::XdbcBigint as i32)).unwrap().num_rows(), 2);
    }
}
