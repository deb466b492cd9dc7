//! System tables: information_schema, and the schema `omendb` with tables, segments, indexes, queries and settings.

use std::sync::Arc;
use std::time::SystemTime;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray, UInt64Array,
};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;

use super::context::{CATALOG, PlanContext};
use super::error::{Result, nearest, quote};
use super::queries::Query;
use super::types;
use crate::engine::{
    Column, EncodedKey, FailingTask, KeyColumn, KeyKind, Snapshot, TableMeta, TableName,
    TableSnapshot,
};

/// The standard's schema.
pub(crate) const INFORMATION_SCHEMA: &str = "information_schema";

/// Our own.
pub(crate) const SYSTEM_SCHEMA: &str = "omendb";

const INFORMATION_TABLES: [&str; 6] =
    ["tables", "columns", "schemata", "views", "table_constraints", "key_column_usage"];

const SYSTEM_TABLES: [&str; 5] = ["tables", "segments", "indexes", "queries", "settings"];

/// All schemas, those of the system too, sorted.
pub(crate) fn schemas(snapshot: &Snapshot) -> Vec<Arc<str>> {
    let mut schemas = snapshot.schemas();
    schemas.push(Arc::from(INFORMATION_SCHEMA));
    schemas.push(Arc::from(SYSTEM_SCHEMA));
    schemas.sort_unstable();
    schemas.dedup();
    schemas
}

/// The system table called `name`, as it is at this moment; `None` where the schema is not of the system.
pub(crate) fn table(
    context: &PlanContext,
    name: &TableName,
) -> Result<Option<Arc<dyn TableProvider>>> {
    let snapshot = context.snapshot();
    let batch = match (name.schema.as_ref(), name.name.as_ref()) {
        (INFORMATION_SCHEMA, "tables") => information_tables(snapshot)?,
        (INFORMATION_SCHEMA, "columns") => information_columns(context)?,
        (INFORMATION_SCHEMA, "schemata") => schemata(snapshot)?,
        (INFORMATION_SCHEMA, "views") => information_views(snapshot)?,
        (INFORMATION_SCHEMA, "table_constraints") => table_constraints(snapshot)?,
        (INFORMATION_SCHEMA, "key_column_usage") => key_column_usage(snapshot)?,
        (SYSTEM_SCHEMA, "tables") => {
            tables(snapshot, &context.statement().database.engine().failing_tasks())?
        }
        (SYSTEM_SCHEMA, "segments") => segments(snapshot)?,
        (SYSTEM_SCHEMA, "indexes") => indexes(snapshot)?,
        (SYSTEM_SCHEMA, "queries") => queries(context)?,
        (SYSTEM_SCHEMA, "settings") => settings(context)?,
        (INFORMATION_SCHEMA, other) => return Err(unknown(name, other, &INFORMATION_TABLES)),
        (SYSTEM_SCHEMA, other) => return Err(unknown(name, other, &SYSTEM_TABLES)),
        _ => return Ok(None),
    };
    Ok(Some(Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]])?)))
}

fn unknown(name: &TableName, table: &str, known: &[&str]) -> super::Error {
    let mut message = format!("table {name} does not exist");
    match nearest(table, known.iter().copied()) {
        Some(near) => message.push_str(&format!("; did you mean {}?", quote(near))),
        None => message.push_str(&format!("; the schema has {}", known.join(", "))),
    }
    super::Error::new(super::Code::UndefinedTable, message)
}

/// Columns of text by name.
#[derive(Default)]
struct Text(Vec<(&'static str, Vec<Option<String>>)>);

impl Text {
    fn new(names: &[&'static str]) -> Self {
        Self(names.iter().map(|n| (*n, Vec::new())).collect())
    }

    fn row<const N: usize>(&mut self, values: [Option<String>; N]) {
        for ((_, column), value) in self.0.iter_mut().zip(values) {
            column.push(value);
        }
    }

    fn columns(self) -> Vec<(&'static str, ArrayRef)> {
        self.0
            .into_iter()
            .map(|(name, values)| (name, Arc::new(StringArray::from(values)) as ArrayRef))
            .collect()
    }
}

fn batch(columns: Vec<(&'static str, ArrayRef)>) -> Result<RecordBatch> {
    let columns = columns.into_iter().map(|(name, array)| (name, array, true));
    Ok(RecordBatch::try_from_iter_with_nullable(columns)?)
}

fn some(text: impl Into<String>) -> Option<String> {
    Some(text.into())
}

fn information_tables(snapshot: &Snapshot) -> Result<RecordBatch> {
    let mut rows = Text::new(&["table_catalog", "table_schema", "table_name", "table_type"]);
    let mut push = |schema: &str, name: &str, kind: &str| {
        rows.row([some(CATALOG), some(schema), some(name), some(kind)]);
    };
    for table in snapshot.tables() {
        let name = &table.meta().name;
        push(&name.schema, &name.name, "BASE TABLE");
    }
    for (name, _) in snapshot.views() {
        push(&name.schema, &name.name, "VIEW");
    }
    for name in INFORMATION_TABLES {
        push(INFORMATION_SCHEMA, name, "VIEW");
    }
    for name in SYSTEM_TABLES {
        push(SYSTEM_SCHEMA, name, "VIEW");
    }
    batch(rows.columns())
}

fn information_columns(context: &PlanContext) -> Result<RecordBatch> {
    let snapshot = context.snapshot();
    let mut text = Text::new(&[
        "table_catalog",
        "table_schema",
        "table_name",
        "column_name",
        "column_default",
        "is_nullable",
        "data_type",
    ]);
    let mut ordinals: Vec<i32> = Vec::new();
    let mut push = |name: &TableName, fields: Vec<(arrow::datatypes::FieldRef, Option<String>)>| {
        for (i, (field, default)) in fields.into_iter().enumerate() {
            text.row([
                some(CATALOG),
                some(name.schema.as_ref()),
                some(name.name.as_ref()),
                some(field.name()),
                default,
                some(if field.is_nullable() { "YES" } else { "NO" }),
                some(types::sql_name_of_field(&field)),
            ]);
            ordinals.push(i as i32 + 1);
        }
    };
    for table in snapshot.tables() {
        let meta = table.meta();
        let columns = meta.columns.iter();
        let fields = columns.map(|c: &Column| (Arc::clone(&c.field), c.default_sql.clone()));
        push(&meta.name, fields.collect());
    }
    for (name, _) in snapshot.views() {
        // A view whose tables are gone has no columns to tell of; using it says why.
        if let Ok(view) = context.provider(&name) {
            let fields = view.schema().fields().iter().map(|f| (Arc::clone(f), None)).collect();
            push(&name, fields);
        }
    }
    let mut columns = text.columns();
    columns.insert(4, ("ordinal_position", Arc::new(Int32Array::from(ordinals))));
    batch(columns)
}

fn schemata(snapshot: &Snapshot) -> Result<RecordBatch> {
    let mut rows = Text::new(&["catalog_name", "schema_name"]);
    for schema in schemas(snapshot) {
        rows.row([some(CATALOG), some(schema.as_ref())]);
    }
    batch(rows.columns())
}

fn information_views(snapshot: &Snapshot) -> Result<RecordBatch> {
    let mut rows = Text::new(&["table_catalog", "table_schema", "table_name", "view_definition"]);
    for (name, sql) in snapshot.views() {
        rows.row([
            some(CATALOG),
            some(name.schema.as_ref()),
            some(name.name.as_ref()),
            some(sql.as_ref()),
        ]);
    }
    batch(rows.columns())
}

/// What a table's key is called among the constraints, and its kind.
fn constraint(meta: &TableMeta) -> Option<(String, &'static str)> {
    match meta.key_kind {
        KeyKind::Primary => Some((format!("{}_pkey", meta.name.name), "PRIMARY KEY")),
        KeyKind::Cluster => Some((format!("{}_cluster", meta.name.name), "CLUSTER BY")),
        KeyKind::RowId => None,
    }
}

fn table_constraints(snapshot: &Snapshot) -> Result<RecordBatch> {
    let mut rows = Text::new(&[
        "constraint_catalog",
        "constraint_schema",
        "constraint_name",
        "table_catalog",
        "table_schema",
        "table_name",
        "constraint_type",
    ]);
    for table in snapshot.tables() {
        let meta = table.meta();
        let Some((name, kind)) = constraint(meta) else { continue };
        let schema = meta.name.schema.as_ref();
        rows.row([
            some(CATALOG),
            some(schema),
            some(name),
            some(CATALOG),
            some(schema),
            some(meta.name.name.as_ref()),
            some(kind),
        ]);
    }
    batch(rows.columns())
}

fn key_column_usage(snapshot: &Snapshot) -> Result<RecordBatch> {
    let mut text = Text::new(&[
        "constraint_catalog",
        "constraint_schema",
        "constraint_name",
        "table_catalog",
        "table_schema",
        "table_name",
        "column_name",
    ]);
    let mut ordinals: Vec<i32> = Vec::new();
    for table in snapshot.tables() {
        let meta = table.meta();
        let Some((name, _)) = constraint(meta) else { continue };
        for (i, column) in meta.key_indices().into_iter().enumerate() {
            text.row([
                some(CATALOG),
                some(meta.name.schema.as_ref()),
                some(name.clone()),
                some(CATALOG),
                some(meta.name.schema.as_ref()),
                some(meta.name.name.as_ref()),
                some(meta.columns[column].field.name()),
            ]);
            ordinals.push(i as i32 + 1);
        }
    }
    let mut columns = text.columns();
    columns.push(("ordinal_position", Arc::new(Int32Array::from(ordinals))));
    batch(columns)
}

fn names(tables: &[TableSnapshot]) -> Vec<(&'static str, ArrayRef)> {
    let mut rows = Text::new(&["table_schema", "table_name"]);
    for table in tables {
        let name = &table.meta().name;
        rows.row([some(name.schema.as_ref()), some(name.name.as_ref())]);
    }
    rows.columns()
}

fn unsigned(values: impl Iterator<Item = u64>) -> ArrayRef {
    Arc::new(UInt64Array::from_iter_values(values))
}

/// Why maintenance of a table fails, or of all tables.
fn maintenance_error(failing: &[FailingTask], table: &TableSnapshot) -> Option<String> {
    let concerns = |f: &&FailingTask| f.table.is_none_or(|id| id == table.id());
    let told: Vec<String> = failing
        .iter()
        .filter(concerns)
        .map(|f| format!("{} failed {} times: {}", f.task.name(), f.attempts, f.error))
        .collect();
    (!told.is_empty()).then(|| told.join("; "))
}

fn tables(snapshot: &Snapshot, failing: &[FailingTask]) -> Result<RecordBatch> {
    let tables = snapshot.tables();
    let mut columns = names(&tables);
    let keys = tables.iter().map(|t| {
        let meta = t.meta();
        let keys = meta.key_indices();
        let names: Vec<&str> =
            keys.iter().map(|i| meta.columns[*i].field.name().as_str()).collect();
        names.join(", ")
    });
    let kinds = tables.iter().map(|t| match t.meta().key_kind {
        KeyKind::Primary => "PRIMARY KEY",
        KeyKind::Cluster => "CLUSTER BY",
        KeyKind::RowId => "ROW ID",
    });
    columns.push(("key_kind", Arc::new(StringArray::from_iter_values(kinds))));
    columns.push(("key_columns", Arc::new(StringArray::from_iter_values(keys))));
    columns.push(("row_count", unsigned(tables.iter().map(TableSnapshot::row_count))));
    let segments: Vec<_> = tables.iter().map(TableSnapshot::segments).collect();
    let sum = |of: &dyn Fn(&crate::engine::SegmentInfo) -> u64| {
        unsigned(segments.iter().map(|s| s.iter().map(of).sum()))
    };
    columns.push(("segment_count", unsigned(segments.iter().map(|s| s.len() as u64))));
    columns.push(("deleted_count", sum(&|s| s.deleted_count)));
    columns.push(("data_bytes", sum(&|s| s.meta.data_bytes)));
    columns.push(("index_bytes", sum(&|s| s.meta.index_bytes)));
    let memtables: Vec<(u64, usize)> = tables.iter().map(TableSnapshot::memtable_size).collect();
    columns.push(("memtable_rows", unsigned(memtables.iter().map(|m| m.0))));
    columns.push(("memtable_bytes", unsigned(memtables.iter().map(|m| m.1 as u64))));
    let errors = tables.iter().map(|t| maintenance_error(failing, t));
    columns.push(("maintenance_error", Arc::new(StringArray::from_iter(errors))));
    batch(columns)
}

/// Each segment of each table.
fn each_segment(snapshot: &Snapshot) -> (Vec<TableSnapshot>, Vec<crate::engine::SegmentInfo>) {
    let mut tables = Vec::new();
    let mut segments = Vec::new();
    for table in snapshot.tables() {
        for segment in table.segments() {
            tables.push(table.clone());
            segments.push(segment);
        }
    }
    (tables, segments)
}

fn segments(snapshot: &Snapshot) -> Result<RecordBatch> {
    let (tables, segments) = each_segment(snapshot);
    let mut columns = names(&tables);
    columns.push(("segment_id", unsigned(segments.iter().map(|s| s.meta.id.0))));
    columns.push(("row_count", unsigned(segments.iter().map(|s| s.meta.row_count))));
    columns.push(("deleted_count", unsigned(segments.iter().map(|s| s.deleted_count))));
    let keys = |of: &dyn Fn(&crate::engine::SegmentInfo) -> EncodedKey| -> Result<ArrayRef> {
        let text: Result<Vec<String>> =
            tables.iter().zip(&segments).map(|(t, s)| key_text(t, of(s))).collect();
        Ok(Arc::new(StringArray::from(text?)))
    };
    columns.push(("min_key", keys(&|s| s.meta.min_key.clone())?));
    columns.push(("max_key", keys(&|s| s.meta.max_key.clone())?));
    columns.push(("data_bytes", unsigned(segments.iter().map(|s| s.meta.data_bytes))));
    columns.push(("index_bytes", unsigned(segments.iter().map(|s| s.meta.index_bytes))));
    batch(columns)
}

/// A key as text: its columns, separated by commas.
fn key_text(table: &TableSnapshot, key: EncodedKey) -> Result<String> {
    let column = match key {
        EncodedKey::U64(k) => KeyColumn::U64(vec![k]),
        EncodedKey::U128(k) => KeyColumn::U128(vec![k]),
        EncodedKey::Bytes(k) => {
            KeyColumn::Bytes(arrow::array::BinaryArray::from_iter_values([k.as_ref()]))
        }
    };
    let mut parts = Vec::new();
    for array in table.codec().decode(&column)? {
        let formatter = ArrayFormatter::try_new(array.as_ref(), &FormatOptions::default())?;
        parts.push(formatter.value(0).to_string());
    }
    Ok(parts.join(", "))
}

fn indexes(snapshot: &Snapshot) -> Result<RecordBatch> {
    let (tables, segments) = each_segment(snapshot);
    let mut columns = names(&tables);
    columns.push(("segment_id", unsigned(segments.iter().map(|s| s.meta.id.0))));
    let learned: BooleanArray = segments.iter().map(|s| Some(s.meta.leaf_count > 0)).collect();
    columns.push(("learned", Arc::new(learned)));
    columns.push(("key_count", unsigned(segments.iter().map(|s| s.meta.row_count))));
    columns.push(("leaf_count", unsigned(segments.iter().map(|s| s.meta.leaf_count))));
    columns.push(("max_error", unsigned(segments.iter().map(|s| s.meta.max_error))));
    let mean = Float64Array::from_iter_values(segments.iter().map(|s| s.meta.mean_error));
    columns.push(("mean_error", Arc::new(mean)));
    columns.push(("bytes", unsigned(segments.iter().map(|s| s.meta.index_bytes))));
    let train = Int64Array::from_iter_values(
        segments.iter().map(|s| (s.meta.train_nanos / 1_000).min(i64::MAX as u64) as i64),
    );
    columns.push(("train_micros", Arc::new(train)));
    let trained = TimestampMicrosecondArray::from_iter_values(
        segments.iter().map(|s| s.meta.trained_at_micros),
    );
    columns.push(("trained_at", Arc::new(trained.with_timezone(types::UTC))));
    batch(columns)
}

fn queries(context: &PlanContext) -> Result<RecordBatch> {
    let queries = context.statement().database.queries().list();
    let text = |of: fn(&Query) -> &str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(queries.iter().map(|q| of(q))))
    };
    let number = |of: fn(&Query) -> u64| unsigned(queries.iter().map(|q| of(q)));
    let begun = queries.iter().map(|q| {
        let since = q.begun_at().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
    });
    let begun = TimestampMicrosecondArray::from_iter_values(begun).with_timezone(types::UTC);
    let elapsed =
        Int64Array::from_iter_values(queries.iter().map(|q| q.elapsed().as_millis() as i64));
    let progress: Float64Array = queries.iter().map(|q| q.progress()).collect();
    batch(vec![
        ("query_id", number(Query::id)),
        ("session_id", number(Query::session)),
        ("application_name", text(Query::application_name)),
        ("state", text(|q| q.state())),
        ("sql", text(Query::sql)),
        ("started_at", Arc::new(begun)),
        ("elapsed_millis", Arc::new(elapsed)),
        ("rows_to_read", number(Query::rows_to_read)),
        ("rows_read", number(Query::rows_read)),
        ("rows_returned", number(Query::rows_returned)),
        ("progress", Arc::new(progress)),
    ])
}

fn settings(context: &PlanContext) -> Result<RecordBatch> {
    let mut rows = Text::new(&["name", "value", "description"]);
    for (name, value, description) in context.statement().settings.list() {
        rows.row([some(name), some(value), some(description)]);
    }
    batch(rows.columns())
}
