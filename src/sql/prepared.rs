//! Statements that are parsed and described once and run many times.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;

use super::StatementKind;
use super::context::Description;
use super::key_range::KeyStatement;
use super::parse::Statement;

/// A parsed and checked statement. Holds no snapshot: it is planned anew on each execution's snapshot
/// (the logical plan may be cached while the tables' versions stay).
#[derive(Debug, Clone)]
pub struct Prepared {
    pub(super) sql: String,
    pub(super) statement: Statement,
    pub(super) description: Description,
    /// Where the fast path answers it.
    pub(super) key_range: Option<Arc<KeyStatement>>,
}

impl Prepared {
    /// The SQL text.
    pub fn sql(&self) -> &str {
        &self.sql
    }

    /// What it does.
    pub fn kind(&self) -> StatementKind {
        self.statement.kind()
    }

    /// The schema of the rows it returns; empty where it returns none. Equal to the stream's schema, nullability included.
    pub fn schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.description.schema)
    }

    /// A field for each parameter, named "$1", "$2", ... (`?` counts up). A type that cannot be inferred is Utf8.
    pub fn parameters(&self) -> SchemaRef {
        SchemaRef::clone(&self.description.parameters)
    }
}
