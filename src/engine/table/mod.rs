//! A table as one snapshot has it: its definition, its segments, its memtables, and how to read them.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;

use super::error::Result;
use super::id::{SegmentId, TableId};
use super::key::{EncodedKey, KeyCodec, KeyColumn, KeyRange};
use super::schema::TableMeta;
use super::segment::SegmentMeta;

/// Name of the column of row addresses that a scan adds when asked.
pub const ROW_ADDRESS_COLUMN: &str = "__omendb_row_address";

/// Where a row lies in one [`TableSnapshot`]; means nothing in another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowAddress(pub u64);

/// What to read of a table.
#[derive(Debug, Clone)]
pub struct ScanRequest {
    /// The keys to read.
    pub range: KeyRange,
    /// The columns to read, by position, in the order wanted; `None` means all.
    pub projection: Option<Vec<usize>>,
    /// Adds the column [`ROW_ADDRESS_COLUMN`] (UInt64) as the last one.
    pub row_address: bool,
    /// Descending instead of ascending key order.
    pub reverse: bool,
    /// Live rows of the range to pass over first (from its end when `reverse`): costs no reading.
    pub offset: u64,
    /// Rows to return at most.
    pub limit: Option<u64>,
    /// Rows of a batch at most.
    pub batch_rows: usize,
}

impl ScanRequest {
    /// All columns of the rows of `range`, in key order.
    pub fn new(range: KeyRange) -> Self {
        Self {
            range,
            projection: None,
            row_address: false,
            reverse: false,
            offset: 0,
            limit: None,
            batch_rows: 64 * 1024,
        }
    }
}

/// A segment and what a snapshot sees of it.
#[derive(Debug, Clone)]
pub struct SegmentInfo {
    /// The segment.
    pub meta: SegmentMeta,
    /// How many of its rows are deleted.
    pub deleted_count: u64,
}

/// Where the index finds a key range in one segment.
#[derive(Debug, Clone)]
pub struct SegmentRange {
    /// The segment.
    pub segment: SegmentId,
    /// The position that the model predicts for the lower end, where the key is learned and the end not open.
    pub predicted: Option<u64>,
    /// The exact positions.
    pub positions: std::ops::Range<u64>,
    /// Rows in them that are not deleted.
    pub live_count: u64,
}

/// How a key range would be read.
#[derive(Debug, Clone)]
pub struct RangeExplanation {
    /// Segments of the table.
    pub segment_count: usize,
    /// Those that hold keys of the range.
    pub segments: Vec<SegmentRange>,
    /// Live rows of the range in memtables.
    pub memtable_rows: u64,
    /// Live rows of the range.
    pub row_count: u64,
}

/// A table at one moment. Cheap to clone; never changes.
#[derive(Debug, Clone)]
pub struct TableSnapshot {}

impl TableSnapshot {
    /// The table's definition.
    pub fn meta(&self) -> &Arc<TableMeta> {
        todo!()
    }

    /// The table's id.
    pub fn id(&self) -> TableId {
        self.meta().id
    }

    /// The schema that users see.
    pub fn schema(&self) -> SchemaRef {
        todo!()
    }

    /// Encodes and decodes its keys (of the row id where it has no key columns).
    pub fn codec(&self) -> &KeyCodec {
        todo!()
    }

    /// Live rows. Reads nothing.
    pub fn row_count(&self) -> u64 {
        todo!()
    }

    /// Its segments, by their first key.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        todo!()
    }

    /// Live rows in memtables, and the bytes these take.
    pub fn memtable_size(&self) -> (u64, usize) {
        todo!()
    }

    /// Live rows of a key range, from the index: reads no rows.
    pub fn count(&self, _range: &KeyRange) -> Result<u64> {
        todo!()
    }

    /// The smallest live key of a range: an array of one row for each key column.
    pub fn first_key(&self, _range: &KeyRange) -> Result<Option<Vec<ArrayRef>>> {
        todo!()
    }

    /// The largest live key of a range: an array of one row for each key column.
    pub fn last_key(&self, _range: &KeyRange) -> Result<Option<Vec<ArrayRef>>> {
        todo!()
    }

    /// The key of the `n`-th live row of a range, counted from 0.
    pub fn nth_key(&self, _range: &KeyRange, _n: u64) -> Result<Option<EncodedKey>> {
        todo!()
    }

    /// Cuts a range into at most `parts` ranges in key order with about equal numbers of live rows.
    pub fn split(&self, _range: &KeyRange, _parts: usize) -> Result<Vec<KeyRange>> {
        todo!()
    }

    /// Reads rows in key order.
    pub fn scan(&self, _request: &ScanRequest) -> Result<Scan> {
        todo!()
    }

    /// Finds the live row of each key; for keys that may repeat, the first.
    pub fn locate(&self, _keys: &KeyColumn) -> Result<Vec<Option<RowAddress>>> {
        todo!()
    }

    /// The rows at these addresses, in this order, of the columns `projection` (all for `None`).
    pub fn take(
        &self,
        _addresses: &[RowAddress],
        _projection: Option<&[usize]>,
    ) -> Result<RecordBatch> {
        todo!()
    }

    /// How a key range would be read.
    pub fn explain(&self, _range: &KeyRange) -> Result<RangeExplanation> {
        todo!()
    }
}

/// Batches of a table in key order. An iterator: nothing is read before it is asked for.
#[derive(Debug)]
pub struct Scan {}

impl Scan {
    /// The schema of the batches.
    pub fn schema(&self) -> SchemaRef {
        todo!()
    }

    /// Live rows it will return, exactly.
    pub fn row_count(&self) -> u64 {
        todo!()
    }
}

impl Iterator for Scan {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        todo!()
    }
}
