//! Tables as the catalog knows them: columns with field ids, and the key they are ordered by.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};

use super::error::{Error, ObjectKind, Result};
use super::id::{FieldId, TableId};

/// Name of the hidden column that holds the row id of tables without a primary key. It is the last
/// column of a stored batch, never of a user's.
pub const ROW_ID_COLUMN: &str = "__omendb_row_id";

/// Bytes that a NULL of a column may take: types of a fixed size take as much for it as for a value, in every batch of every scan.
pub const MAX_FIXED_BYTES: u64 = 64 << 10;

/// Field metadata key under which Parquet readers and writers keep a column's field id.
pub const FIELD_ID_KEY: &str = "PARQUET:field_id";

/// The name of a table or view inside the database.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableName {
    /// The schema it lives in.
    pub schema: Arc<str>,
    /// Its name inside the schema.
    pub name: Arc<str>,
}

/// The schema that exists from the start and that bare names mean.
pub const DEFAULT_SCHEMA: &str = "public";

impl TableName {
    /// `schema.name`.
    pub fn new(schema: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { schema: schema.into(), name: name.into() }
    }
}

impl From<&str> for TableName {
    /// A table of the default schema.
    fn from(name: &str) -> Self {
        Self::new(DEFAULT_SCHEMA, name)
    }
}

impl std::fmt::Display for TableName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

/// How a table is ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// By the key columns, which are unique.
    Primary,
    /// By the key columns, which may repeat; rows with equal keys keep the order of their arrival.
    Cluster,
    /// By a hidden row id, in the order of arrival. There are no key columns.
    RowId,
}

/// The key of a table to be made: columns by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySpec {
    /// How the table is ordered.
    pub kind: KeyKind,
    /// The key columns in order; none for [`KeyKind::RowId`].
    pub columns: Vec<String>,
}

impl KeySpec {
    /// A unique key.
    pub fn primary<S: Into<String>>(columns: impl IntoIterator<Item = S>) -> Self {
        Self { kind: KeyKind::Primary, columns: columns.into_iter().map(Into::into).collect() }
    }

    /// A key that may repeat.
    pub fn cluster<S: Into<String>>(columns: impl IntoIterator<Item = S>) -> Self {
        Self { kind: KeyKind::Cluster, columns: columns.into_iter().map(Into::into).collect() }
    }

    /// No key: rows in the order of arrival.
    pub fn row_id() -> Self {
        Self { kind: KeyKind::RowId, columns: Vec::new() }
    }
}

/// A column of a table.
#[derive(Debug, Clone)]
pub struct Column {
    /// Its id, never used again in this table.
    pub id: FieldId,
    /// Name, type, nullability and metadata as users see them.
    pub field: FieldRef,
    /// The DEFAULT expression as SQL text, for rows to come.
    pub default_sql: Option<String>,
    /// The value that rows older than the column have (an array of one row); none means NULL.
    pub initial: Option<ArrayRef>,
}

/// A table as the catalog knows it. Immutable: a change makes a new one with a higher `version`.
#[derive(Debug, Clone)]
pub struct TableMeta {
    /// The table's id.
    pub id: TableId,
    /// Its present name.
    pub name: TableName,
    /// Its columns, in order.
    pub columns: Vec<Column>,
    /// How it is ordered.
    pub key_kind: KeyKind,
    /// Ids of the key columns, in key order.
    pub key: Vec<FieldId>,
    /// The id that the next column gets.
    pub next_field_id: FieldId,
    /// Counts the changes to this table's definition.
    pub version: u64,
}

impl TableMeta {
    /// Makes a table's definition, and checks it: key columns exist, are named once, have a type that
    /// can be ordered, and become NOT NULL; column names are unique.
    pub fn new(id: TableId, name: TableName, schema: &Schema, key: &KeySpec) -> Result<Self> {
        let mut columns: Vec<Column> = Vec::with_capacity(schema.fields().len());
        for field in schema.fields() {
            if columns.iter().any(|c| c.field.name() == field.name()) {
                return Err(Error::invalid(format!(
                    "table {name}: column \"{}\" is named twice",
                    field.name()
                )));
            }
            if field.name() == ROW_ID_COLUMN {
                return Err(Error::invalid(format!(
                    "table {name}: the column name \"{ROW_ID_COLUMN}\" is reserved"
                )));
            }
            super::segment::check_column_type(field.data_type()).map_err(|e| {
                e.context(format_args!("table {name}: column \"{}\"", field.name()))
            })?;
            let null_bytes = super::size::null_bytes(field.data_type());
            if null_bytes > MAX_FIXED_BYTES {
                return Err(Error::unsupported(format!(
                    "table {name}: column \"{}\": a value of type {} takes {null_bytes} bytes even where it is NULL, and \
                     {MAX_FIXED_BYTES} is the most; use a type without a fixed size",
                    field.name(),
                    field.data_type()
                )));
            }
            let id = FieldId(columns.len() as u32 + 1);
            columns.push(Column { id, field: Arc::clone(field), default_sql: None, initial: None });
        }
        if columns.is_empty() {
            return Err(Error::invalid(format!("table {name}: needs at least one column")));
        }
        let mut meta = Self {
            id,
            name,
            next_field_id: FieldId(columns.len() as u32 + 1),
            columns,
            key_kind: KeyKind::RowId,
            key: Vec::new(),
            version: 1,
        };
        meta.set_key(key)?;
        Ok(meta)
    }

    /// Changes the key of the definition, with the checks of [`TableMeta::new`].
    pub fn set_key(&mut self, key: &KeySpec) -> Result<()> {
        let mut ids = Vec::with_capacity(key.columns.len());
        for column in &key.columns {
            let position = self.column_index(column)?;
            let id = self.columns[position].id;
            if ids.contains(&id) {
                return Err(Error::invalid(format!(
                    "table {}: key column \"{column}\" is named twice",
                    self.name
                )));
            }
            ids.push(id);
            let field = &self.columns[position].field;
            super::key::check_key_type(field.data_type()).map_err(|e| {
                e.context(format_args!("table {}: key column \"{column}\"", self.name))
            })?;
            if field.is_nullable() {
                self.columns[position].field =
                    Arc::new(field.as_ref().clone().with_nullable(false));
            }
        }
        if ids.is_empty() != (key.kind == KeyKind::RowId) {
            return Err(Error::invalid(format!(
                "table {}: a PRIMARY KEY or CLUSTER BY needs at least one column",
                self.name
            )));
        }
        self.key = ids;
        self.key_kind = key.kind;
        Ok(())
    }

    /// Checks that this definition can follow `old`: the key is the same, its columns are still there, names
    /// are unique, and a column that stays keeps its type.
    pub fn check_change_from(&self, old: &Self) -> Result<()> {
        if self.key != old.key || self.key_kind != old.key_kind || self.id != old.id {
            return Err(Error::invalid(format!(
                "table {}: its key cannot be changed in place",
                self.name
            )));
        }
        if self.columns.is_empty() {
            return Err(Error::invalid(format!("table {}: its last column must stay", self.name)));
        }
        for id in &self.key {
            if !self.columns.iter().any(|c| c.id == *id && !c.field.is_nullable()) {
                return Err(Error::invalid(format!(
                    "table {}: a key column can neither be dropped nor made nullable",
                    self.name
                )));
            }
        }
        for (i, column) in self.columns.iter().enumerate() {
            let name = column.field.name();
            if name == ROW_ID_COLUMN {
                return Err(Error::invalid(format!("the column name \"{name}\" is reserved")));
            }
            if self.columns[..i].iter().any(|c| c.field.name() == name || c.id == column.id) {
                return Err(Error::already_exists(format!(
                    "table {}: column \"{name}\" already exists",
                    self.name
                ))
                .of(ObjectKind::Column));
            }
            super::segment::check_column_type(column.field.data_type())
                .map_err(|e| e.context(format_args!("table {}: column \"{name}\"", self.name)))?;
            match old.columns.iter().find(|c| c.id == column.id) {
                Some(before) if before.field.data_type() != column.field.data_type() => {
                    return Err(Error::unsupported(format!(
                        "table {}: the type of column \"{name}\" cannot be changed",
                        self.name
                    )));
                }
                None if column.id < old.next_field_id || column.id >= self.next_field_id => {
                    return Err(Error::internal(format!(
                        "table {}: column \"{name}\" has no new field id",
                        self.name
                    )));
                }
                None if column.initial.is_none() && !column.field.is_nullable() => {
                    return Err(Error::constraint(format!(
                        "table {}: the new column \"{name}\" is NOT NULL and needs a DEFAULT",
                        self.name
                    )));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The schema that users see.
    pub fn arrow_schema(&self) -> SchemaRef {
        Arc::new(Schema::new(self.columns.iter().map(|c| Arc::clone(&c.field)).collect::<Vec<_>>()))
    }

    /// The schema of stored batches: the user's columns with their field ids in the metadata, then the
    /// hidden row id where the table has one.
    pub fn stored_schema(&self) -> SchemaRef {
        let with_id = |field: &Field, id: FieldId| {
            let mut metadata = field.metadata().clone();
            metadata.insert(FIELD_ID_KEY.to_owned(), id.to_string());
            Arc::new(field.clone().with_metadata(metadata))
        };
        let mut fields: Vec<FieldRef> =
            self.columns.iter().map(|c| with_id(&c.field, c.id)).collect();
        if self.has_row_id() {
            fields.push(with_id(&Field::new(ROW_ID_COLUMN, DataType::UInt64, false), FieldId(0)));
        }
        Arc::new(Schema::new(fields))
    }

    /// Whether stored batches carry the hidden row id.
    pub fn has_row_id(&self) -> bool {
        self.key_kind != KeyKind::Primary
    }

    /// Position of the column called `name`.
    pub fn column_index(&self, name: &str) -> Result<usize> {
        self.columns.iter().position(|c| c.field.name() == name).ok_or_else(|| {
            Error::not_found(format!(
                "table {} has no column \"{name}\"; its columns are {}",
                self.name,
                self.columns
                    .iter()
                    .map(|c| format!("\"{}\"", c.field.name()))
                    .collect::<Vec<_>>()
                    .join(", ")
            ))
            .of(ObjectKind::Column)
        })
    }

    /// Positions of the key columns, in key order.
    pub fn key_indices(&self) -> Vec<usize> {
        self.key.iter().filter_map(|id| self.columns.iter().position(|c| c.id == *id)).collect()
    }

    /// Types of what the table is ordered by: its key columns, or the row id.
    pub fn key_types(&self) -> Vec<DataType> {
        match self.key_kind {
            KeyKind::RowId => vec![DataType::UInt64],
            _ => self
                .key_indices()
                .into_iter()
                .map(|i| self.columns[i].field.data_type().clone())
                .collect(),
        }
    }
}
