//! A table as one snapshot has it: its definition, its segments, its memtables, and how to read them.

mod deletes;
mod locate;
mod merge;
mod plan;
mod rank;
mod scan;
mod segments;
mod snapshot;
mod source;
mod state;
mod walk;

pub use rank::Part;
pub use scan::Scan;
pub use snapshot::TableSnapshot;
pub use walk::{Ahead, KeyWalk};

pub(crate) use deletes::DeleteMap;
pub(crate) use locate::{Found, find_live};
pub(crate) use merge::{Input, KeyBuilder, Reader};
pub(crate) use source::{Fate, Garbage, SegmentFile, Source, SourceId, SourceState};
pub(crate) use state::{Memtable, TableShape, TableState, new_run, replayed_run};

use super::id::SegmentId;
use super::key::KeyRange;
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
