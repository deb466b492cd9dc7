//! Transactions: snapshot isolation over any number of tables, DDL included; first committer wins.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;

use super::error::Result;
use super::id::{SeqNo, TableId};
use super::schema::{KeySpec, TableMeta, TableName};
use super::table::{RowAddress, TableSnapshot};

/// What to do with a row whose primary key exists. In tables without one nothing conflicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnConflict {
    /// The statement fails and leaves nothing.
    #[default]
    Error,
    /// The row that exists stays; of several new ones the first is kept.
    Ignore,
    /// The new row replaces it; of several new ones the last is kept.
    Replace,
}

/// The whole database at one moment. Cheap to clone; never changes.
#[derive(Debug, Clone)]
pub struct Snapshot {}

impl Snapshot {
    /// The last commit that it sees.
    pub fn seq(&self) -> SeqNo {
        todo!()
    }

    /// Names of schemas, sorted.
    pub fn schemas(&self) -> Vec<Arc<str>> {
        todo!()
    }

    /// All tables, sorted by name.
    pub fn tables(&self) -> Vec<TableSnapshot> {
        todo!()
    }

    /// The table called `name`.
    pub fn table(&self, _name: &TableName) -> Option<TableSnapshot> {
        todo!()
    }

    /// The table with this id.
    pub fn table_by_id(&self, _id: TableId) -> Option<TableSnapshot> {
        todo!()
    }

    /// All views with their SQL text, sorted by name.
    pub fn views(&self) -> Vec<(TableName, Arc<str>)> {
        todo!()
    }

    /// The SQL text of the view called `name`.
    pub fn view(&self, _name: &TableName) -> Option<Arc<str>> {
        todo!()
    }
}

/// A transaction: a private fork of the state that it began on. Dropped, it leaves nothing.
#[derive(Debug)]
pub struct Transaction {}

/// The state of a transaction to come back to. Savepoints are cheap.
#[derive(Debug, Clone)]
pub struct Savepoint {}

/// What a statement changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WriteResult {
    /// Rows that are there now and were given to the statement.
    pub inserted_count: u64,
    /// Rows removed by [`Write::delete`].
    pub deleted_count: u64,
    /// Rows that gave way to new ones with the same key ([`OnConflict::Replace`]), among given rows too.
    pub replaced_count: u64,
    /// New rows left out because their key existed ([`OnConflict::Ignore`]).
    pub ignored_count: u64,
    /// Segments written for it; 0 where it went to the memtable.
    pub segment_count: usize,
    /// Time that training their indexes took.
    pub train_time: Duration,
}

impl Transaction {
    /// What the transaction sees now: the state it began on and its own writes.
    pub fn snapshot(&self) -> Snapshot {
        todo!()
    }

    /// Whether it has changed anything.
    pub fn is_empty(&self) -> bool {
        todo!()
    }

    /// Creates a schema.
    pub fn create_schema(&mut self, _name: &str) -> Result<()> {
        todo!()
    }

    /// Drops an empty schema.
    pub fn drop_schema(&mut self, _name: &str) -> Result<()> {
        todo!()
    }

    /// Creates a table.
    pub fn create_table(
        &mut self,
        _name: &TableName,
        _schema: &Schema,
        _key: &KeySpec,
    ) -> Result<TableId> {
        todo!()
    }

    /// Changes a table's definition: its name, columns added (take `next_field_id`, set `initial`) or dropped,
    /// their names, defaults and nullability. The key stays as it is, and key columns cannot be dropped.
    pub fn alter_table(
        &mut self,
        _table: TableId,
        _change: impl FnOnce(&mut TableMeta) -> Result<()>,
    ) -> Result<()> {
        todo!()
    }

    /// Drops a table.
    pub fn drop_table(&mut self, _table: TableId) -> Result<()> {
        todo!()
    }

    /// Removes all rows of a table; says how many there were.
    pub fn truncate(&mut self, _table: TableId) -> Result<u64> {
        todo!()
    }

    /// Creates a view, or replaces it.
    pub fn put_view(&mut self, _name: &TableName, _sql: &str) -> Result<()> {
        todo!()
    }

    /// Drops a view.
    pub fn drop_view(&mut self, _name: &TableName) -> Result<()> {
        todo!()
    }

    /// Begins the writes of one statement on one table: gather them in the [`Write`], then
    /// [`Transaction::apply`] it. Nothing else may be applied to the table between the two.
    pub fn write(&self, _table: TableId, _on_conflict: OnConflict) -> Result<Write> {
        todo!()
    }

    /// Carries a statement's writes out, deletes first, wholly or (on an error) not at all.
    pub fn apply(&mut self, _write: Write) -> Result<WriteResult> {
        todo!()
    }

    /// Inserts the rows of one batch: a statement of its own.
    pub fn insert(
        &mut self,
        table: TableId,
        batch: &RecordBatch,
        on_conflict: OnConflict,
    ) -> Result<WriteResult> {
        let mut write = self.write(table, on_conflict)?;
        write.insert(batch)?;
        self.apply(write)
    }

    /// Marks the present state to come back to.
    pub fn savepoint(&self) -> Savepoint {
        todo!()
    }

    /// Goes back to a marked state of this transaction.
    pub fn rollback_to(&mut self, _savepoint: &Savepoint) {
        todo!()
    }

    /// Makes the changes durable and visible. An error of kind
    /// [`Conflict`](super::ErrorKind::Conflict) says that another transaction changed the same rows first: retry from the start.
    pub fn commit(self) -> Result<SeqNo> {
        todo!()
    }
}

/// The writes of one statement on one table. Holds a bounded amount of memory: many rows go to segment files as they come. Dropped, it leaves nothing.
#[derive(Debug)]
pub struct Write {}

impl Write {
    /// The table as the statement sees it; [`Write::delete`] takes addresses of this snapshot.
    pub fn table(&self) -> &TableSnapshot {
        todo!()
    }

    /// Deletes rows. Naming one twice deletes it once.
    pub fn delete(&mut self, _rows: &[RowAddress]) -> Result<()> {
        todo!()
    }

    /// Adds rows: columns of the table's schema, in its order and of its types.
    pub fn insert(&mut self, _batch: &RecordBatch) -> Result<()> {
        todo!()
    }

    /// Rows given to [`Write::insert`] so far.
    pub fn row_count(&self) -> u64 {
        todo!()
    }
}
