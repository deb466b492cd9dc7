//! Segments: immutable files of rows in key order. `<id>.parquet` holds the rows, `<id>.idx` the
//! exact keys, what finds them and the checksums of the Parquet file's blocks.

mod blocks;
mod decode;
mod dirs;
mod footer;
mod groups;
mod index_file;
mod keys;
mod plain;
mod plain_rows;
mod properties;
mod reader;
mod row_groups;
#[cfg(test)]
mod tests;
mod types;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;

use super::cache::Cache;
use super::error::Result;
use super::fs::Vfs;
use super::id::{FieldId, SegmentId, TableId};
use super::key::EncodedKey;

pub use reader::Segment;
pub use types::{check_column_type, check_values};
pub use writer::{SegmentWriter, WriteOptions};

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

/// Whether filters are read to look for keys, before chunks that are not in memory are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilterUse {
    /// Filters that are in memory are asked. For keys that are likely here: they will be read in the end.
    InMemory,
    /// Filters are read once a chunk would be. For keys that are likely not here.
    Read,
    /// Filters are read, and many keys together are looked up in them even if all chunks are in memory. For keys
    /// that are likely nowhere.
    First,
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

impl SegmentStore {
    /// Makes the directory of a table, durably, if it does not exist.
    pub fn create_table_dir(&self, table: TableId) -> Result<()> {
        let dir = self.table_dir(table);
        self.vfs.create_dir_all(&dir).map_err(|e| blocks::at_path(e, &dir))
    }

    /// Makes the names of finished segments durable.
    pub fn sync_table_dir(&self, table: TableId) -> Result<()> {
        let dir = self.table_dir(table);
        self.vfs.sync_dir(&dir).map_err(|e| blocks::at_path(e, &dir))
    }

    /// Removes the files of a segment, and what the cache holds of it. Files are opened at each read, so
    /// no snapshot may refer to the segment any more.
    pub fn remove(&self, table: TableId, segment: SegmentId) -> Result<()> {
        self.cache.remove_segment(segment);
        for path in [self.data_path(table, segment), self.index_path(table, segment)] {
            for path in [blocks::temporary(&path), path] {
                match self.vfs.remove(&path) {
                    Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                        return Err(blocks::at_path(e, &path));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Ids of the segments whose files are in the directory of `table`, temporary files included.
    pub fn list(&self, table: TableId) -> Result<Vec<SegmentId>> {
        let dir = self.table_dir(table);
        let mut ids = Vec::new();
        for path in self.vfs.list(&dir).map_err(|e| blocks::at_path(e, &dir))? {
            let id = path.file_name().and_then(|name| name.to_str()).and_then(segment_of);
            ids.extend(id);
        }
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }

    fn table_dir(&self, table: TableId) -> PathBuf {
        self.dir.join(table.to_string())
    }

    fn data_path(&self, table: TableId, segment: SegmentId) -> PathBuf {
        self.table_dir(table).join(format!("{segment}.parquet"))
    }

    fn index_path(&self, table: TableId, segment: SegmentId) -> PathBuf {
        self.table_dir(table).join(format!("{segment}.idx"))
    }
}

/// The segment that a file of this name belongs to.
fn segment_of(name: &str) -> Option<SegmentId> {
    let (id, rest) = name.split_once('.')?;
    let known = matches!(rest, "parquet" | "idx" | "parquet.tmp" | "idx.tmp");
    if known { id.parse().ok().map(SegmentId) } else { None }
}
