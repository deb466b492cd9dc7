//! A table of one snapshot as DataFusion sees it.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;

use crate::engine::{ROW_ADDRESS_COLUMN, TableSnapshot};

/// A table of one snapshot.
#[derive(Debug)]
pub(crate) struct EngineTable {
    table: TableSnapshot,
    schema: SchemaRef,
    row_address: bool,
}

impl EngineTable {
    /// With the users' columns.
    pub(crate) fn new(table: TableSnapshot) -> Self {
        Self { schema: table.schema(), table, row_address: false }
    }

    /// With the users' columns, and the row address (UInt64) as the last one.
    pub(crate) fn with_row_address(table: TableSnapshot) -> Self {
        let mut fields = table.schema().fields().to_vec();
        fields.push(Arc::new(Field::new(ROW_ADDRESS_COLUMN, DataType::UInt64, false)));
        Self { schema: Arc::new(Schema::new(fields)), table, row_address: true }
    }

    /// The table.
    pub(crate) fn snapshot(&self) -> &TableSnapshot {
        &self.table
    }
}

#[async_trait]
impl TableProvider for EngineTable {
    fn schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        _projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> datafusion::error::Result<Arc<dyn ExecutionPlan>> {
        let _ = self.row_address;
        todo!()
    }
}
