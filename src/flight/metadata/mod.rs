//! What Flight SQL tells of the catalog. Clients compare the schemas of these results exactly.

mod sql_info;
mod type_info;

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, Int32Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow_flight::sql::metadata::XdbcTypeInfoDataBuilder;
use arrow_flight::sql::{Command, CommandGetDbSchemas, CommandGetPrimaryKeys, CommandGetTables};
use tonic::Status;

use super::session::Session;
use super::{status, wire_type};
use crate::engine::{KeyKind, Snapshot, TableName};
use crate::sql::Code;
use crate::sql::Within;

/// The one catalog.
pub(crate) const CATALOG: &str = "omendb";

const TABLE: &str = "TABLE";
const VIEW: &str = "VIEW";

fn fields<const N: usize>(fields: [(&str, DataType, bool); N]) -> SchemaRef {
    Arc::new(Schema::new(fields.map(|(name, t, nullable)| Field::new(name, t, nullable)).to_vec()))
}

static CATALOGS: LazyLock<SchemaRef> =
    LazyLock::new(|| fields([("catalog_name", DataType::Utf8, false)]));
static SCHEMAS: LazyLock<SchemaRef> = LazyLock::new(|| {
    fields([("catalog_name", DataType::Utf8, true), ("db_schema_name", DataType::Utf8, false)])
});
static TABLE_TYPES: LazyLock<SchemaRef> =
    LazyLock::new(|| fields([("table_type", DataType::Utf8, false)]));
static PRIMARY_KEYS: LazyLock<SchemaRef> = LazyLock::new(|| {
    fields([
        ("catalog_name", DataType::Utf8, true),
        ("db_schema_name", DataType::Utf8, true),
        ("table_name", DataType::Utf8, false),
        ("column_name", DataType::Utf8, false),
        ("key_sequence", DataType::Int32, false),
        ("key_name", DataType::Utf8, true),
    ])
});
static FOREIGN_KEYS: LazyLock<SchemaRef> = LazyLock::new(|| {
    fields([
        ("pk_catalog_name", DataType::Utf8, true),
        ("pk_db_schema_name", DataType::Utf8, true),
        ("pk_table_name", DataType::Utf8, false),
        ("pk_column_name", DataType::Utf8, false),
        ("fk_catalog_name", DataType::Utf8, true),
        ("fk_db_schema_name", DataType::Utf8, true),
        ("fk_table_name", DataType::Utf8, false),
        ("fk_column_name", DataType::Utf8, false),
        ("key_sequence", DataType::Int32, false),
        ("fk_key_name", DataType::Utf8, true),
        ("pk_key_name", DataType::Utf8, true),
        ("update_rule", DataType::UInt8, false),
        ("delete_rule", DataType::UInt8, false),
    ])
});

/// The schema of a catalog command's rows; `None` where the command is another.
pub(super) fn schema(command: &Command) -> Option<SchemaRef> {
    Some(match command {
        Command::CommandGetCatalogs(_) => Arc::clone(&CATALOGS),
        Command::CommandGetDbSchemas(_) => Arc::clone(&SCHEMAS),
        Command::CommandGetTables(request) => tables_schema(request),
        Command::CommandGetTableTypes(_) => Arc::clone(&TABLE_TYPES),
        Command::CommandGetPrimaryKeys(_) => Arc::clone(&PRIMARY_KEYS),
        Command::CommandGetExportedKeys(_)
        | Command::CommandGetImportedKeys(_)
        | Command::CommandGetCrossReference(_) => Arc::clone(&FOREIGN_KEYS),
        Command::CommandGetSqlInfo(_) => Arc::clone(&sql_info::SCHEMA),
        Command::CommandGetXdbcTypeInfo(_) => XdbcTypeInfoDataBuilder::new().schema(),
        _ => return None,
    })
}

/// The rows of a catalog command; `None` where the command is another.
pub(super) async fn rows(
    command: &Command,
    session: &Session,
) -> Option<Result<RecordBatch, Status>> {
    // Such calls cannot name the transaction whose tables they are to see.
    let snapshot = || session.sql.view(Within::Any);
    Some(match command {
        Command::CommandGetCatalogs(_) => batch(&CATALOGS, vec![text([CATALOG])]),
        Command::CommandGetDbSchemas(request) => schemas(request, &snapshot()),
        Command::CommandGetTables(request) => tables(request, &snapshot(), session).await,
        Command::CommandGetTableTypes(_) => batch(&TABLE_TYPES, vec![text([TABLE, VIEW])]),
        Command::CommandGetPrimaryKeys(request) => primary_keys(request, &snapshot()),
        // There are no foreign keys.
        Command::CommandGetExportedKeys(_)
        | Command::CommandGetImportedKeys(_)
        | Command::CommandGetCrossReference(_) => {
            Ok(RecordBatch::new_empty(Arc::clone(&FOREIGN_KEYS)))
        }
        Command::CommandGetSqlInfo(request) => sql_info::rows(&request.info),
        Command::CommandGetXdbcTypeInfo(request) => type_info::rows(request.data_type),
        _ => return None,
    })
}

fn text<S: AsRef<str>>(values: impl IntoIterator<Item = S>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

fn batch(schema: &SchemaRef, columns: Vec<ArrayRef>) -> Result<RecordBatch, Status> {
    RecordBatch::try_new(Arc::clone(schema), columns).map_err(status::from_arrow)
}

/// Whether an (absent) name of a catalog means this one. The empty name means objects without a catalog: there are none.
fn in_catalog(name: Option<&str>) -> bool {
    name.is_none_or(|name| name == CATALOG)
}

fn matches(name: &str, pattern: Option<&str>) -> bool {
    pattern.is_none_or(|pattern| like(name, pattern))
}

fn schemas(request: &CommandGetDbSchemas, snapshot: &Snapshot) -> Result<RecordBatch, Status> {
    let names: Vec<Arc<str>> = snapshot
        .schemas()
        .into_iter()
        .filter(|_| in_catalog(request.catalog.as_deref()))
        .filter(|name| matches(name, request.db_schema_filter_pattern.as_deref()))
        .collect();
    batch(&SCHEMAS, vec![text(names.iter().map(|_| CATALOG)), text(&names)])
}

/// The request without its filters, which are applied here: the crate's would compile patterns of any length to
/// regular expressions.
fn unfiltered(request: &CommandGetTables) -> CommandGetTables {
    CommandGetTables { include_schema: request.include_schema, ..CommandGetTables::default() }
}

fn tables_schema(request: &CommandGetTables) -> SchemaRef {
    unfiltered(request).into_builder().schema()
}

async fn tables(
    request: &CommandGetTables,
    snapshot: &Snapshot,
    session: &Session,
) -> Result<RecordBatch, Status> {
    let of_type = |t: &str| {
        request.table_types.is_empty()
            || request.table_types.iter().any(|r| r.eq_ignore_ascii_case(t))
    };
    let wanted = |name: &TableName| {
        in_catalog(request.catalog.as_deref())
            && matches(&name.schema, request.db_schema_filter_pattern.as_deref())
            && matches(&name.name, request.table_name_filter_pattern.as_deref())
    };
    let mut builder = unfiltered(request).into_builder();
    let mut append = |name: &TableName, table_type: &str, schema: &Schema| {
        builder
            .append(CATALOG, &name.schema, &name.name, table_type, &with_origin(name, schema))
            .map_err(|e| {
                status::new(
                    Code::InternalError,
                    format!("table {name}: its schema cannot be sent: {e}"),
                )
            })
    };
    if of_type(TABLE) {
        for table in snapshot.tables() {
            let name = &table.meta().name;
            if wanted(name) {
                append(name, TABLE, &wire_type::schema(&table.schema()))?;
            }
        }
    }
    if of_type(VIEW) {
        for (name, sql) in snapshot.views() {
            if !wanted(&name) {
                continue;
            }
            let schema = match request.include_schema {
                true => view_schema(&name, &sql, session).await,
                false => Schema::empty().into(),
            };
            append(&name, VIEW, &wire_type::schema(&schema))?;
        }
    }
    builder.build().map_err(|e| {
        status::new(Code::InternalError, format!("the list of tables cannot be sent: {e}"))
    })
}

/// The columns of a view. One that is broken (a table of it was dropped) must not break the listing of all others.
async fn view_schema(name: &TableName, sql: &str, session: &Session) -> SchemaRef {
    match session.sql.prepare_within(Within::Any, sql).await {
        Ok(prepared) => prepared.schema(),
        Err(e) => {
            tracing::warn!(view = %name, "the view cannot be planned: {e}");
            Schema::empty().into()
        }
    }
}

/// The columns of a table, each with the name of the table that it belongs to and what JDBC tells of columns.
fn with_origin(name: &TableName, schema: &Schema) -> Schema {
    let fields: Vec<Field> = schema
        .fields()
        .iter()
        .map(|f| {
            let mut metadata = f.metadata().clone();
            let mut put = |key: &str, value: &str| {
                metadata.insert(format!("{}{key}", wire_type::METADATA_PREFIX), value.to_owned());
            };
            put("CATALOG_NAME", CATALOG);
            put("SCHEMA_NAME", &name.schema);
            put("TABLE_NAME", &name.name);
            put("IS_AUTO_INCREMENT", "0");
            if let Some(size) = column_size(f.data_type()) {
                put("PRECISION", &size.to_string());
            }
            f.as_ref().clone().with_metadata(metadata)
        })
        .collect();
    Schema::new(fields)
}

/// The size of a column where clients would make one up or have none: bytes of text and binary (not limited), decimal digits
/// that a float keeps.
fn column_size(data_type: &DataType) -> Option<i32> {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Binary | DataType::LargeBinary => {
            Some(i32::MAX)
        }
        DataType::Float32 => Some(f32::DIGITS as i32),
        DataType::Float64 => Some(f64::DIGITS as i32),
        _ => None,
    }
}

fn primary_keys(
    request: &CommandGetPrimaryKeys,
    snapshot: &Snapshot,
) -> Result<RecordBatch, Status> {
    let mut rows: Vec<(TableName, String, i32)> = Vec::new();
    for table in snapshot.tables() {
        let meta = table.meta();
        let asked = *meta.name.name == *request.table
            && request.db_schema.as_deref().is_none_or(|s| *meta.name.schema == *s)
            && in_catalog(request.catalog.as_deref());
        if asked && meta.key_kind == KeyKind::Primary {
            for (position, column) in meta.key_indices().into_iter().enumerate() {
                let column = meta.columns[column].field.name().clone();
                rows.push((meta.name.clone(), column, position as i32 + 1));
            }
        }
    }
    batch(
        &PRIMARY_KEYS,
        vec![
            text(rows.iter().map(|_| CATALOG)),
            text(rows.iter().map(|(t, ..)| &t.schema)),
            text(rows.iter().map(|(t, ..)| &t.name)),
            text(rows.iter().map(|(_, column, _)| column)),
            Arc::new(Int32Array::from_iter_values(rows.iter().map(|(_, _, position)| *position))),
            text(rows.iter().map(|(t, ..)| format!("{}_pkey", t.name))),
        ],
    )
}

/// Whether `name` matches a LIKE pattern: `%` is any text, `_` any character, `\` takes the next literally. Patterns are any
/// text (clients send whole statements), so the time is bounded by the product of the lengths.
pub(super) fn like(name: &str, pattern: &str) -> bool {
    #[derive(Clone, Copy, PartialEq)]
    enum Part {
        Any,
        One,
        Char(char),
    }
    let mut parts = Vec::with_capacity(pattern.len());
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        parts.push(match c {
            '%' => Part::Any,
            '_' => Part::One,
            '\\' => Part::Char(chars.next().unwrap_or('\\')),
            c => Part::Char(c),
        });
    }
    let name: Vec<char> = name.chars().collect();
    let (mut n, mut p) = (0, 0);
    // Where to go on when the text after the last `%` turns out not to match.
    let mut retry: Option<(usize, usize)> = None;
    while n < name.len() {
        match parts.get(p) {
            Some(Part::Any) => {
                retry = Some((n, p + 1));
                p += 1;
            }
            Some(&part) if part == Part::One || part == Part::Char(name[n]) => {
                n += 1;
                p += 1;
            }
            _ => match retry {
                Some((from, after)) => {
                    retry = Some((from + 1, after));
                    n = from + 1;
                    p = after;
                }
                None => return false,
            },
        }
    }
    parts[p..].iter().all(|part| *part == Part::Any)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn like_knows_its_wildcards() {
        for (name, pattern, expected) in [
            ("metrics", "metrics", true),
            ("metrics", "m%s", true),
            ("metrics", "%t%i%", true),
            ("metrics", "_etric_", true),
            ("metrics", "_etric", false),
            ("metrics", "", false),
            ("", "%", true),
            ("a_b", "a\\_b", true),
            ("axb", "a\\_b", false),
            ("a%", "a\\%", true),
            ("aab", "%ab", true),
            ("metrics", "SELECT * FROM metrics WHERE a LIKE '%x%'", false),
        ] {
            assert_eq!(like(name, pattern), expected, "{name} LIKE {pattern}");
        }
    }

    #[test]
    fn like_does_not_take_exponential_time() {
        assert!(!like(&"a".repeat(5000), &format!("{}b", "%a".repeat(500))));
    }
}
