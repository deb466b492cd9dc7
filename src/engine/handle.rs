//! [`Table`]: the embedded program's handle of one table, each call a transaction of its own.

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;

use super::Engine;
use super::error::{Error, ObjectKind, Result};
use super::id::TableId;
use super::key::KeyRange;
use super::table::{RowAddress, Scan, ScanRequest, TableSnapshot};
use super::txn::{OnConflict, WriteResult};

/// A table of an open database. Every call sees the latest committed state, and every write is a
/// transaction of its own.
#[derive(Debug, Clone)]
pub struct Table {
    engine: Engine,
    id: TableId,
}

impl Table {
    pub(super) fn new(engine: Engine, id: TableId) -> Self {
        Self { engine, id }
    }

    /// The table's id.
    pub fn id(&self) -> TableId {
        self.id
    }

    /// The table as it is now, for several reads of one state.
    pub fn snapshot(&self) -> Result<TableSnapshot> {
        self.engine.snapshot().table_by_id(self.id).ok_or_else(|| {
            Error::not_found(format!("table with id {} was dropped", self.id)).of(ObjectKind::Table)
        })
    }

    /// The schema that users see.
    pub fn schema(&self) -> Result<SchemaRef> {
        Ok(self.snapshot()?.schema())
    }

    /// Inserts rows; an existing primary key is an error.
    pub fn insert(&self, rows: &RecordBatch) -> Result<WriteResult> {
        self.engine.write(|txn| txn.insert(self.id, rows, OnConflict::Error))
    }

    /// Inserts rows; those with an existing primary key replace what is there.
    pub fn upsert(&self, rows: &RecordBatch) -> Result<WriteResult> {
        self.engine.write(|txn| txn.insert(self.id, rows, OnConflict::Replace))
    }

    /// Deletes the rows with these keys (an array for each key column); says how many there were. Where
    /// keys repeat, all rows with a key go.
    pub fn delete(&self, keys: &[ArrayRef]) -> Result<u64> {
        self.engine.write(|txn| {
            let mut write = txn.write(self.id, OnConflict::Error)?;
            let table = write.table().clone();
            let keys = table.codec().encode(keys)?;
            write.delete(&table.locate_all(&keys)?)?;
            Ok(txn.apply(write)?.deleted_count)
        })
    }

    /// The row with a key (an array of one row for each key column); where keys repeat, the first.
    /// Where there is none, that is known from the index, and no row is read.
    pub fn get(&self, key: &[ArrayRef]) -> Result<Option<RecordBatch>> {
        let table = self.snapshot()?;
        table.get(&table.codec().encode_one(key)?)
    }

    /// The rows with these keys, in their order, and for each key whether there is one.
    pub fn get_many(&self, keys: &[ArrayRef]) -> Result<(RecordBatch, Vec<bool>)> {
        let table = self.snapshot()?;
        let keys = table.codec().encode(keys)?;
        let addresses = table.locate(&keys)?;
        let found = addresses.iter().map(Option::is_some).collect();
        let addresses: Vec<RowAddress> = addresses.into_iter().flatten().collect();
        Ok((table.take(&addresses, None)?, found))
    }

    /// Batches of the rows of a key range, in key order, of the columns at `projection` (all for `None`).
    pub fn range(&self, range: KeyRange, projection: Option<&[usize]>) -> Result<Scan> {
        let mut request = ScanRequest::new(range);
        request.projection = projection.map(<[usize]>::to_vec);
        request.batch_rows = self.engine.options().batch_rows;
        self.snapshot()?.scan(&request)
    }

    /// Batches of all rows, in key order.
    pub fn scan(&self) -> Result<Scan> {
        self.range(KeyRange::all(), None)
    }

    /// Rows of a key range; reads none of them.
    pub fn count(&self, range: &KeyRange) -> Result<u64> {
        self.snapshot()?.count(range)
    }
}
