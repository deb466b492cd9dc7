//! What this server can do, in the words of Flight SQL's SqlInfo. Clients crash on codes that the protocol does not
//! define and on values of other types than it says, so each value is typed here by hand.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, AsArray, BooleanArray, MapArray, RecordBatch, StructArray, UnionArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, UInt32Type};
use arrow::error::ArrowError;
use arrow_flight::sql::metadata::SqlInfoDataBuilder;
use arrow_flight::sql::{
    SqlInfo, SqlNullOrdering, SqlOuterJoinsSupportLevel, SqlSupportedCaseSensitivity,
    SqlSupportedTransaction, SqlSupportsConvert, SqlTransactionIsolationLevel,
};
use tonic::Status;

use crate::flight::status;
use crate::sql::Code;

static DATA: LazyLock<Result<RecordBatch, String>> = LazyLock::new(|| {
    let data = builder().build().map_err(|e| e.to_string())?;
    let batch = data.record_batch([]).map_err(|e| e.to_string())?;
    with_named_entries(&batch).map_err(|e| e.to_string())
});

/// The union's child for maps.
const MAP: i8 = 5;

/// The crate's schema with the entries of its map named as Arrow names them: Java finds them by name.
pub(super) static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let fields = SqlInfoDataBuilder::schema().fields();
    let value = match fields[1].data_type() {
        DataType::Union(children, mode) => {
            let children = children.iter().map(|(id, child)| {
                let child = Arc::clone(child);
                (id, if id == MAP { Arc::new(named_entries(&child)) } else { child })
            });
            DataType::Union(children.collect(), *mode)
        }
        other => other.clone(),
    };
    Arc::new(Schema::new(vec![fields[0].as_ref().clone(), with_type(&fields[1], value)]))
});

fn with_type(field: &Field, data_type: DataType) -> Field {
    field.clone().with_data_type(data_type)
}

fn named_entries(map: &Field) -> Field {
    let DataType::Map(entries, sorted) = map.data_type() else { return map.clone() };
    let DataType::Struct(columns) = entries.data_type() else { return map.clone() };
    let columns: Fields = columns
        .iter()
        .zip(["key", "value"])
        .map(|(column, name)| column.as_ref().clone().with_name(name))
        .collect();
    let entries = Arc::new(with_type(entries, DataType::Struct(columns)));
    with_type(map, DataType::Map(entries, *sorted))
}

/// The crate's rows in [`SCHEMA`].
fn with_named_entries(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let DataType::Union(fields, _) = SCHEMA.field(1).data_type() else {
        return Err(ArrowError::SchemaError("the values are no union".to_owned()));
    };
    let (_, ids, offsets, mut children) = batch.column(1).as_union().clone().into_parts();
    for ((_, field), child) in fields.iter().zip(&mut children) {
        if let DataType::Map(entries, sorted) = field.data_type()
            && let DataType::Struct(columns) = entries.data_type()
        {
            let map = child.as_map();
            let rows =
                StructArray::try_new(columns.clone(), map.entries().columns().to_vec(), None)?;
            let (offsets, nulls) = (map.offsets().clone(), map.nulls().cloned());
            *child = Arc::new(MapArray::try_new(entries.clone(), offsets, rows, nulls, *sorted)?);
        }
    }
    let values = UnionArray::try_new(fields.clone(), ids, offsets, children)?;
    RecordBatch::try_new(SCHEMA.clone(), vec![batch.column(0).clone(), Arc::new(values)])
}

/// The rows of the codes asked for; of all for none.
pub(super) fn rows(codes: &[u32]) -> Result<RecordBatch, Status> {
    let data =
        DATA.as_ref().map_err(|e| status::new(Code::InternalError, format!("SqlInfo: {e}")))?;
    if codes.is_empty() {
        return Ok(data.clone());
    }
    let wanted: BooleanArray = data
        .column(0)
        .as_primitive::<UInt32Type>()
        .values()
        .iter()
        .map(|code| Some(codes.contains(code)))
        .collect();
    filter_record_batch(data, &wanted).map_err(status::from_arrow)
}

fn builder() -> SqlInfoDataBuilder {
    let mut b = SqlInfoDataBuilder::new();
    server(&mut b);
    syntax(&mut b);
    support(&mut b);
    limits(&mut b);
    b
}

fn server(b: &mut SqlInfoDataBuilder) {
    b.append(SqlInfo::FlightSqlServerName, "OmenDB");
    b.append(SqlInfo::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    b.append(SqlInfo::FlightSqlServerArrowVersion, "1.5");
    b.append(SqlInfo::FlightSqlServerReadOnly, false);
    b.append(SqlInfo::FlightSqlServerSql, true);
    b.append(SqlInfo::FlightSqlServerSubstrait, false);
    b.append(SqlInfo::FlightSqlServerTransaction, SqlSupportedTransaction::Savepoint as i32);
    b.append(SqlInfo::FlightSqlServerCancel, true);
    b.append(SqlInfo::FlightSqlServerBulkIngestion, true);
    b.append(SqlInfo::FlightSqlServerIngestTransactionsSupported, true);
    b.append(SqlInfo::FlightSqlServerStatementTimeout, 0_i32);
    b.append(SqlInfo::FlightSqlServerTransactionTimeout, 0_i32);
}

fn syntax(b: &mut SqlInfoDataBuilder) {
    b.append(SqlInfo::SqlDdlCatalog, false);
    b.append(SqlInfo::SqlDdlSchema, true);
    b.append(SqlInfo::SqlDdlTable, true);
    b.append(
        SqlInfo::SqlIdentifierCase,
        SqlSupportedCaseSensitivity::SqlCaseSensitivityLowercase as i32,
    );
    b.append(SqlInfo::SqlIdentifierQuoteChar, "\"");
    // The protocol has no word for "case sensitive".
    b.append(
        SqlInfo::SqlQuotedIdentifierCase,
        SqlSupportedCaseSensitivity::SqlCaseSensitivityUnknown as i32,
    );
    b.append(SqlInfo::SqlAllTablesAreSelectable, true);
    // Last when ascending, first when descending.
    b.append(SqlInfo::SqlNullOrdering, SqlNullOrdering::SqlNullsSortedHigh as i32);
    b.append(SqlInfo::SqlKeywords, KEYWORDS);
    b.append(SqlInfo::SqlNumericFunctions, NUMERIC);
    b.append(SqlInfo::SqlStringFunctions, STRING);
    b.append(SqlInfo::SqlSystemFunctions, SYSTEM);
    b.append(SqlInfo::SqlDatetimeFunctions, DATETIME);
    b.append(SqlInfo::SqlSearchStringEscape, "\\");
    b.append(SqlInfo::SqlExtraNameCharacters, "");
    b.append(SqlInfo::SqlSchemaTerm, "schema");
    b.append(SqlInfo::SqlProcedureTerm, "procedure");
    b.append(SqlInfo::SqlCatalogTerm, "catalog");
    b.append(SqlInfo::SqlCatalogAtStart, true);
}

fn support(b: &mut SqlInfoDataBuilder) {
    b.append(SqlInfo::SqlSupportsColumnAliasing, true);
    b.append(SqlInfo::SqlNullPlusNullIsNull, true);
    b.append(SqlInfo::SqlSupportsConvert, conversions());
    b.append(SqlInfo::SqlSupportsTableCorrelationNames, true);
    b.append(SqlInfo::SqlSupportsDifferentTableCorrelationNames, false);
    b.append(SqlInfo::SqlSupportsExpressionsInOrderBy, true);
    b.append(SqlInfo::SqlSupportsOrderByUnrelated, true);
    b.append(SqlInfo::SqlSupportedGroupBy, 0b11_i32);
    b.append(SqlInfo::SqlSupportsLikeEscapeClause, true);
    b.append(SqlInfo::SqlSupportsNonNullableColumns, true);
    b.append(SqlInfo::SqlSupportedGrammar, 0b11_i32);
    b.append(SqlInfo::SqlAnsi92SupportedLevel, 0b1_i32);
    b.append(SqlInfo::SqlSupportsIntegrityEnhancementFacility, false);
    // A bit for each level.
    b.append(
        SqlInfo::SqlOuterJoinsSupportLevel,
        1_i32 << SqlOuterJoinsSupportLevel::SqlLimitedOuterJoins as i32
            | 1_i32 << SqlOuterJoinsSupportLevel::SqlFullOuterJoins as i32,
    );
    b.append(SqlInfo::SqlSchemasSupportedActions, 0_i32);
    b.append(SqlInfo::SqlCatalogsSupportedActions, 0_i32);
    b.append(SqlInfo::SqlSupportedPositionedCommands, 0_i32);
    b.append(SqlInfo::SqlSelectForUpdateSupported, false);
    b.append(SqlInfo::SqlStoredProceduresSupported, false);
    b.append(SqlInfo::SqlSupportedSubqueries, 0b1111_i32);
    b.append(SqlInfo::SqlCorrelatedSubqueriesSupported, true);
    b.append(SqlInfo::SqlSupportedUnions, 0b11_i32);
    b.append(
        // The one ordinal that JDBC and ODBC read as an int64.
        SqlInfo::SqlDefaultTransactionIsolation,
        SqlTransactionIsolationLevel::SqlTransactionRepeatableRead as i64,
    );
    b.append(SqlInfo::SqlTransactionsSupported, true);
    // Snapshot isolation is called by the name that PostgreSQL gives it.
    let levels = 1_i32 << SqlTransactionIsolationLevel::SqlTransactionRepeatableRead as i32;
    b.append(SqlInfo::SqlSupportedTransactionsIsolationLevels, levels);
    b.append(SqlInfo::SqlDataDefinitionCausesTransactionCommit, false);
    b.append(SqlInfo::SqlDataDefinitionsInTransactionsIgnored, false);
    // Forward only, to be read only.
    b.append(SqlInfo::SqlSupportedResultSetTypes, 0b11_i32);
    b.append(SqlInfo::SqlSupportedConcurrenciesForResultSetUnspecified, 0b10_i32);
    b.append(SqlInfo::SqlSupportedConcurrenciesForResultSetForwardOnly, 0b10_i32);
    b.append(SqlInfo::SqlSupportedConcurrenciesForResultSetScrollSensitive, 0_i32);
    b.append(SqlInfo::SqlSupportedConcurrenciesForResultSetScrollInsensitive, 0_i32);
    b.append(SqlInfo::SqlBatchUpdatesSupported, true);
    b.append(SqlInfo::SqlSavepointsSupported, true);
    b.append(SqlInfo::SqlNamedParametersSupported, false);
    b.append(SqlInfo::SqlLocatorsUpdateCopy, false);
    b.append(SqlInfo::SqlStoredFunctionsUsingCallSyntaxSupported, false);
}

/// Limits: 0 says that there is none, or none that is known.
fn limits(b: &mut SqlInfoDataBuilder) {
    for info in [
        SqlInfo::SqlMaxBinaryLiteralLength,
        SqlInfo::SqlMaxCharLiteralLength,
        SqlInfo::SqlMaxColumnNameLength,
        SqlInfo::SqlMaxColumnsInGroupBy,
        SqlInfo::SqlMaxColumnsInIndex,
        SqlInfo::SqlMaxColumnsInOrderBy,
        SqlInfo::SqlMaxColumnsInSelect,
        SqlInfo::SqlMaxColumnsInTable,
        SqlInfo::SqlMaxConnections,
        SqlInfo::SqlMaxCursorNameLength,
        SqlInfo::SqlMaxIndexLength,
        SqlInfo::SqlDbSchemaNameLength,
        SqlInfo::SqlMaxProcedureNameLength,
        SqlInfo::SqlMaxCatalogNameLength,
        SqlInfo::SqlMaxRowSize,
        SqlInfo::SqlMaxStatementLength,
        SqlInfo::SqlMaxStatements,
        SqlInfo::SqlMaxTableNameLength,
        SqlInfo::SqlMaxTablesInSelect,
        SqlInfo::SqlMaxUsernameLength,
    ] {
        b.append(info, 0_i64);
    }
    b.append(SqlInfo::SqlMaxRowSizeIncludesBlobs, true);
}

/// What can be cast to what.
fn conversions() -> BTreeMap<i32, Vec<i32>> {
    use SqlSupportsConvert as C;
    let numbers = [
        C::SqlConvertTinyint,
        C::SqlConvertSmallint,
        C::SqlConvertInteger,
        C::SqlConvertBigint,
        C::SqlConvertReal,
        C::SqlConvertFloat,
        C::SqlConvertDecimal,
        C::SqlConvertNumeric,
    ];
    let text = [C::SqlConvertChar, C::SqlConvertVarchar, C::SqlConvertLongvarchar];
    let binary = [C::SqlConvertBinary, C::SqlConvertVarbinary, C::SqlConvertLongvarbinary];
    let times = [C::SqlConvertDate, C::SqlConvertTime, C::SqlConvertTimestamp];
    let mut map = BTreeMap::new();
    let mut put = |from: &[C], to: &[&[C]]| {
        let to: Vec<i32> = to.iter().flat_map(|group| group.iter().map(|c| *c as i32)).collect();
        for from in from {
            map.insert(*from as i32, to.clone());
        }
    };
    put(&numbers, &[&numbers, &text, &[C::SqlConvertBit]]);
    put(&text, &[&numbers, &text, &binary, &times, &[C::SqlConvertBit]]);
    put(&binary, &[&binary, &text]);
    put(&[C::SqlConvertBit], &[&[C::SqlConvertBit], &numbers, &text]);
    put(&[C::SqlConvertDate], &[&[C::SqlConvertDate, C::SqlConvertTimestamp], &text]);
    put(&[C::SqlConvertTime], &[&[C::SqlConvertTime], &text]);
    put(&[C::SqlConvertTimestamp], &[&times, &text]);
    map
}

/// Words of the grammar beyond those of SQL:2003.
const KEYWORDS: &[&str] = &[
    "ANALYZE",
    "CLUSTER",
    "CONFLICT",
    "DESCRIBE",
    "EXCLUDED",
    "EXPLAIN",
    "ILIKE",
    "LIMIT",
    "NOTHING",
    "OFFSET",
    "QUALIFY",
    "REPLACE",
    "RETURNING",
    "SHOW",
    "TABLES",
    "TRUNCATE",
];
const NUMERIC: &[&str] = &[
    "abs", "acos", "asin", "atan", "atan2", "ceil", "cos", "cot", "degrees", "exp", "floor", "ln",
    "log", "log10", "log2", "pi", "power", "radians", "random", "round", "signum", "sin", "sqrt",
    "tan", "trunc",
];
const STRING: &[&str] = &[
    "ascii",
    "bit_length",
    "btrim",
    "char_length",
    "chr",
    "concat",
    "concat_ws",
    "ends_with",
    "initcap",
    "left",
    "length",
    "lower",
    "lpad",
    "ltrim",
    "octet_length",
    "overlay",
    "position",
    "repeat",
    "replace",
    "reverse",
    "right",
    "rpad",
    "rtrim",
    "split_part",
    "starts_with",
    "strpos",
    "substr",
    "substring",
    "translate",
    "trim",
    "upper",
];
const SYSTEM: &[&str] = &["coalesce", "nullif", "version"];
const DATETIME: &[&str] = &[
    "current_date",
    "current_time",
    "current_timestamp",
    "date_bin",
    "date_part",
    "date_trunc",
    "now",
    "to_date",
    "to_timestamp",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_the_type_that_the_protocol_says() {
        let batch = rows(&[]).unwrap();
        let codes = batch.column(0).as_primitive::<UInt32Type>();
        let values = batch.column(1).as_union();
        for (row, code) in codes.values().iter().enumerate() {
            let info = SqlInfo::try_from(*code as i32).unwrap();
            let expected = match code {
                0..=2 | 504 | 513 | 514 | 529..=531 => 0,
                8
                | 100
                | 101
                | 503
                | 505
                | 507
                | 522
                | 525
                | 526
                | 528
                | 533..=535
                | 538
                | 540
                | 564
                | 567..=571 => 3,
                508..=512 => 4,
                517 => 5,
                541..=555 | 557..=562 => 2,
                _ => 1,
            };
            assert_eq!(values.type_id(row), expected, "{info:?}");
        }
        assert_eq!(codes.len(), 12 + 77 - 2 + 2, "all but the versions of Substrait");
    }

    #[test]
    fn transactions_are_an_int32_that_clients_know() {
        let batch = rows(&[8]).unwrap();
        assert_eq!(batch.num_rows(), 1);
        let value = batch.column(1).as_union().value(0);
        assert_eq!(value.as_primitive::<arrow::datatypes::Int32Type>().value(0), 2);
    }

    #[test]
    fn unknown_codes_are_left_out() {
        assert_eq!(rows(&[70_000]).unwrap().num_rows(), 0);
    }
}
