//! The write-ahead log: the only commit point, for small writes, loads, flushes and compactions alike.

use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use roaring::RoaringBitmap;

use super::error::Result;
use super::fs::Vfs;
use super::id::{Generation, SegmentId, SeqNo, TableId};
use super::key::KeyColumn;
use super::schema::{TableMeta, TableName};
use super::segment::SegmentMeta;

/// One commit: applied whole or not at all.
#[derive(Debug, Clone)]
pub struct WalRecord {
    /// Its place in the order of commits.
    pub seq: SeqNo,
    /// What it changes, in order.
    pub ops: Vec<WalOp>,
}

/// A segment that an edit adds, with the rows of it that are deleted at that moment.
#[derive(Debug, Clone)]
pub struct AddedSegment {
    /// The segment.
    pub meta: SegmentMeta,
    /// Positions of its deleted rows.
    pub deleted: RoaringBitmap,
}

/// One resolved change. Replaying applies it as it stands: no SQL, no search for duplicates.
#[derive(Debug, Clone)]
pub enum WalOp {
    /// Creates a table, or replaces its definition.
    PutTable(Arc<TableMeta>),
    /// Drops a table and all its rows.
    DropTable(TableId),
    /// Creates a schema.
    PutSchema(String),
    /// Drops an empty schema.
    DropSchema(String),
    /// Creates or replaces a view: its name and its SQL text.
    PutView(TableName, String),
    /// Drops a view.
    DropView(TableName),
    /// Removes all rows of a table.
    Truncate(TableId),
    /// Adds rows, sorted by key and of the table's stored schema, to the memtable of a generation.
    Rows {
        /// The table.
        table: TableId,
        /// The memtable they go to.
        generation: Generation,
        /// The rows.
        batch: RecordBatch,
    },
    /// Deletes rows of memtables, by key, and by row id where the table has one.
    DeleteKeys {
        /// The table.
        table: TableId,
        /// Keys of the rows.
        keys: KeyColumn,
        /// Their row ids; empty for tables with a primary key.
        row_ids: Vec<u64>,
    },
    /// Deletes rows of a segment, by position.
    DeletePositions {
        /// The table.
        table: TableId,
        /// The segment, live at this point of the log.
        segment: SegmentId,
        /// The positions.
        positions: RoaringBitmap,
    },
    /// Changes the set of a table's segments: a load, a flush or a compaction.
    EditSegments {
        /// The table.
        table: TableId,
        /// Memtables of generations below this one are dropped: their rows are in segments now.
        flushed_below: Option<Generation>,
        /// Segments that are no longer live.
        remove: Vec<SegmentId>,
        /// Segments that are live from now on.
        add: Vec<AddedSegment>,
    },
    /// Numbers that are taken: below these no segment, table or (of a table) row id is given out again.
    Reserve {
        /// The next segment id.
        next_segment: SegmentId,
        /// The next table id.
        next_table: TableId,
        /// The next row id of tables that took some.
        next_row_ids: Vec<(TableId, u64)>,
    },
}

impl WalRecord {
    /// Appends the record's bytes.
    pub fn encode(&self, _out: &mut Vec<u8>) -> Result<()> {
        todo!()
    }

    /// The record of these bytes.
    pub fn decode(_bytes: &[u8]) -> Result<Self> {
        todo!()
    }
}

/// The log of a database: files in one directory, the newest open for appending.
#[derive(Debug)]
pub struct Wal {}

/// What [`Wal::open`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WalRecovery {
    /// Records handed to the visitor.
    pub record_count: u64,
    /// Bytes of the torn tail that were cut off: a write that was never acknowledged.
    pub torn_bytes: u64,
}

impl Wal {
    /// Opens the log in `dir` (made if missing), hands every record with a number of at least `from` to
    /// `visit` in order, cuts a torn tail off, durably, and is then ready to append. Damage below what is known durable is an error that names file and offset.
    pub fn open(
        _vfs: Arc<dyn Vfs>,
        _dir: &Path,
        _from: SeqNo,
        _visit: &mut dyn FnMut(WalRecord) -> Result<()>,
    ) -> Result<(Self, WalRecovery)> {
        todo!()
    }

    /// Appends a group of encoded records, numbered `first..=last` without gaps, and syncs. After an
    /// error the log takes nothing more.
    pub fn append(&mut self, _first: SeqNo, _last: SeqNo, _records: &[Vec<u8>]) -> Result<()> {
        todo!()
    }

    /// Begins a new file if the present one holds records.
    pub fn rotate(&mut self) -> Result<()> {
        todo!()
    }

    /// Removes files all of whose records are below `seq`.
    pub fn remove_below(&mut self, _seq: SeqNo) -> Result<()> {
        todo!()
    }

    /// Bytes of all its files.
    pub fn len_bytes(&self) -> u64 {
        todo!()
    }
}
