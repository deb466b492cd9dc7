//! Statements that are parsed and described once and run many times.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;

use super::StatementKind;
use super::context::Description;
use super::definitions::Definitions;
use super::key_range::KeyStatement;
use super::parse::Statement;
use super::planning::Deep;
use super::query::PlannedQuery;

/// A parsed and checked statement. It holds no snapshot: each execution has its own. Its logical plan is used as long as the
/// definitions stay on which it was made; names and times in its text mean till then what they meant when it was prepared.
#[derive(Debug, Clone)]
pub struct Prepared {
    pub(super) sql: String,
    pub(super) statement: Statement,
    pub(super) description: Description,
    /// What it was planned on.
    pub(super) definitions: Definitions,
    /// Where the fast path answers it.
    pub(super) key_range: Option<Arc<KeyStatement>>,
    /// The plan of a query.
    pub(super) planned: Option<Arc<Deep<PlannedQuery>>>,
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

    /// Whether its answer is known already.
    pub(super) fn is_constant(&self) -> bool {
        self.planned.as_ref().is_some_and(|planned| planned.is_constant())
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
