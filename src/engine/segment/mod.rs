//! Segments: immutable files of rows in key order. `<id>.parquet` holds the rows, `<id>.idx` the
//! learned index, the exact keys and the checksums of the Parquet file's blocks.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;

use super::cache::Cache;
use super::error::Result;
use super::fs::Vfs;
use super::id::{FieldId, SegmentId, TableId};
use super::key::{EncodedKey, KeyCodec, KeyColumn};

/// What manifest and log say of a segment: enough to plan without opening it.
#[derive(Debug, Clone, PartialEq)]
pub struct SegmentMeta {
    /// Its id.
    pub id: SegmentId,
    /// The table it belongs to.
    pub table: TableId,
    /// Its rows, deleted ones included.
    pub row_count: u64,
    /// Its first key.
    pub min_key: EncodedKey,
    /// Its last key.
    pub max_key: EncodedKey,
    /// Smallest and largest hidden row id, where the table has one.
    pub row_ids: Option<(u64, u64)>,
    /// Rows of every row group but the last.
    pub row_group_rows: u32,
    /// Length of the Parquet file.
    pub data_bytes: u64,
    /// CRC32C of the whole Parquet file.
    pub data_crc: u32,
    /// Length of the index file.
    pub index_bytes: u64,
    /// CRC32C of the whole index file.
    pub index_crc: u32,
    /// Ids of the stored columns, in order.
    pub fields: Vec<FieldId>,
    /// Leaves of the model; 0 where the key is not learned.
    pub leaf_count: u64,
    /// Largest error of the model, in rows.
    pub max_error: u64,
    /// Mean absolute error of the model, in rows.
    pub mean_error: f64,
    /// Time to train, in nanoseconds.
    pub train_nanos: u64,
    /// When it was trained, in microseconds since 1970 (from the injected clock).
    pub trained_at_micros: i64,
}

/// What all segments of an engine share.
#[derive(Debug, Clone)]
pub struct SegmentStore {
    /// The file system.
    pub vfs: Arc<dyn Vfs>,
    /// `<data directory>/tables`.
    pub dir: PathBuf,
    /// The cache of decoded columns and keys.
    pub cache: Arc<Cache>,
}

/// A segment that can be read. Opening does no I/O: footer, index and columns are read at first use,
/// through the cache.
#[derive(Debug)]
pub struct Segment {
    meta: SegmentMeta,
}

impl Segment {
    /// A reader of the segment that `meta` describes, with keys of `codec`.
    pub fn open(_store: &SegmentStore, _meta: SegmentMeta, _codec: &KeyCodec) -> Self {
        todo!()
    }

    /// What manifest and log say of it.
    pub fn meta(&self) -> &SegmentMeta {
        &self.meta
    }

    /// Position of the first row whose key is `>= key` (`row_count` where there is none).
    pub fn lower_bound(&self, _key: &EncodedKey) -> Result<u64> {
        todo!()
    }

    /// Position of the first row whose key is `> key`.
    pub fn upper_bound(&self, _key: &EncodedKey) -> Result<u64> {
        todo!()
    }

    /// [`Segment::lower_bound`] of many keys (in any order) at once, and for each whether the row there
    /// has just that key.
    pub fn lower_bound_batch(&self, _keys: &KeyColumn) -> Result<(Vec<u32>, Vec<bool>)> {
        todo!()
    }

    /// The keys of rows `rows`.
    pub fn keys(&self, _rows: Range<u64>) -> Result<KeyColumn> {
        todo!()
    }

    /// The whole column `field` of row group `group`, decoded, from the cache or into it. `None` where
    /// the segment is older than the column.
    pub fn column(&self, _field: FieldId, _group: usize) -> Result<Option<ArrayRef>> {
        todo!()
    }

    /// Rows at `positions` (ascending) of the columns `fields` (`None` as in [`Segment::column`]).
    /// Reads only the pages it needs where a row group is not cached.
    pub fn take(&self, _fields: &[FieldId], _positions: &[u32]) -> Result<Vec<Option<ArrayRef>>> {
        todo!()
    }
}

/// Writes one segment from batches in key order, in one pass: rows, keys, index and checksums.
/// Dropped unfinished, it removes its files.
#[derive(Debug)]
pub struct SegmentWriter {}

/// How a segment is written.
#[derive(Debug, Clone)]
pub struct WriteOptions {
    /// Rows of a row group.
    pub row_group_rows: usize,
    /// Ids of the key columns, in key order, as in [`TableMeta::key`](super::schema::TableMeta::key); none
    /// where the hidden row id is the key. The index is rebuilt from these columns if its file is lost.
    pub key: Vec<FieldId>,
    /// Cheap encoding for loads, or the smaller one that compaction affords.
    pub compact: bool,
    /// Microseconds since 1970, for [`SegmentMeta::trained_at_micros`].
    pub now_micros: i64,
}

impl SegmentWriter {
    /// Begins segment `id` of `table`. `schema` is the table's stored schema (field ids in the metadata).
    pub fn create(
        _store: &SegmentStore,
        _table: TableId,
        _id: SegmentId,
        _schema: SchemaRef,
        _codec: &KeyCodec,
        _options: &WriteOptions,
    ) -> Result<Self> {
        todo!()
    }

    /// Appends rows: `keys` are their encoded keys, not below those before.
    pub fn write(&mut self, _batch: &RecordBatch, _keys: &KeyColumn) -> Result<()> {
        todo!()
    }

    /// Rows so far.
    pub fn row_count(&self) -> u64 {
        todo!()
    }

    /// Completes and syncs both files under their final names. The caller syncs the directory
    /// ([`SegmentStore::sync_table_dir`]) before it commits.
    pub fn finish(self) -> Result<SegmentMeta> {
        todo!()
    }
}

impl SegmentStore {
    /// Makes the directory of a table, durably, if it does not exist.
    pub fn create_table_dir(&self, _table: TableId) -> Result<()> {
        todo!()
    }

    /// Makes the names of finished segments durable.
    pub fn sync_table_dir(&self, _table: TableId) -> Result<()> {
        todo!()
    }

    /// Removes the files of a segment, and what the cache holds of it.
    pub fn remove(&self, _table: TableId, _segment: SegmentId) -> Result<()> {
        todo!()
    }

    /// Ids of the segments whose files are in the directory of `table`, temporary files included.
    pub fn list(&self, _table: TableId) -> Result<Vec<SegmentId>> {
        todo!()
    }
}
