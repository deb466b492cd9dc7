//! The storage engine: tables in key order with learned indexes, durable through a write-ahead log.
//!
//! Synchronous, and usable alone: nothing here names SQL, gRPC or a command line.

mod cache;
mod clock;
mod error;
pub mod fs;
mod id;
pub mod index;
mod key;
mod manifest;
mod options;
mod proto;
mod schema;
mod segment;
mod table;
mod txn;
mod wal;

pub use clock::{Clock, SystemClock};
pub use error::{Error, ErrorKind, Result};
pub use id::{FieldId, Generation, SegmentId, SeqNo, TableId};
pub use key::{EncodedKey, KeyCodec, KeyColumn, KeyForm, KeyRange};
pub use options::Options;
pub use schema::{Column, DEFAULT_SCHEMA, KeyKind, KeySpec, ROW_ID_COLUMN, TableMeta, TableName};
pub use segment::SegmentMeta;
pub use table::{
    ROW_ADDRESS_COLUMN, RangeExplanation, RowAddress, Scan, ScanRequest, SegmentInfo, SegmentRange,
    TableSnapshot,
};
pub use txn::{OnConflict, Savepoint, Snapshot, Transaction, Write, WriteResult};

use std::path::Path;
use std::sync::Arc;

/// An open database. Cheap to clone; the data directory is released when the last clone is dropped or
/// [`Engine::close`] is called.
#[derive(Debug, Clone)]
pub struct Engine {}

impl Engine {
    /// Opens the database in `dir`, and makes it if there is none.
    pub fn open(_dir: impl AsRef<Path>, _options: Options) -> Result<Self> {
        todo!()
    }

    /// [`Engine::open`] on another file system and clock.
    pub fn open_with(
        _dir: impl AsRef<Path>,
        _options: Options,
        _vfs: Arc<dyn fs::Vfs>,
        _clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        todo!()
    }

    /// The options it was opened with.
    pub fn options(&self) -> &Options {
        todo!()
    }

    /// The latest committed state.
    pub fn snapshot(&self) -> Snapshot {
        todo!()
    }

    /// Begins a transaction on the latest committed state.
    pub fn begin(&self) -> Result<Transaction> {
        todo!()
    }

    /// Runs `statement` in a transaction and commits, again from the start where another transaction
    /// was first.
    pub fn write<T>(&self, _statement: impl FnMut(&mut Transaction) -> Result<T>) -> Result<T> {
        todo!()
    }

    /// Why the database takes no writes any more, if so.
    pub fn read_only(&self) -> Option<String> {
        todo!()
    }

    /// Writes the memtables of a table (of all for `None`) to segments.
    pub fn flush(&self, _table: Option<TableId>) -> Result<()> {
        todo!()
    }

    /// Merges overlapping segments of a table and drops its deleted rows, whatever the triggers say. Says how many
    /// segments were rewritten.
    pub fn compact(&self, _table: TableId) -> Result<usize> {
        todo!()
    }

    /// Trains the index of every segment of a table anew. Says how many there are and how long training took.
    pub fn retrain(&self, _table: TableId) -> Result<(usize, std::time::Duration)> {
        todo!()
    }

    /// Writes a checkpoint and drops the log before it.
    pub fn checkpoint(&self) -> Result<()> {
        todo!()
    }

    /// Finishes what runs in the background and closes the files.
    pub fn close(&self) -> Result<()> {
        todo!()
    }
}
