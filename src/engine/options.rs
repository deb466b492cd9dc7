//! Options of an engine. Settings are data; the file system is injected beside them.

use std::time::Duration;

use super::error::{Error, Result};

/// How an [`Engine`](super::Engine) uses memory, disk and threads.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Memory for decoded columns and index blocks, in bytes. Larger keeps more of the data hot.
    pub cache_bytes: usize,
    /// A table's memtable is flushed to a segment once it holds this many bytes.
    pub memtable_bytes: usize,
    /// Memory for sorting one unsorted bulk load, in bytes. Larger makes fewer, longer sorted runs.
    pub load_buffer_bytes: usize,
    /// A write of at least this many rows goes straight to segment files instead of log and memtable.
    pub bulk_rows: usize,
    /// Rows of a full segment.
    pub segment_rows: usize,
    /// Rows of a Parquet row group: the unit that is decoded and cached.
    pub row_group_rows: usize,
    /// What the first row group of a segment may take, in bytes of its values; where it takes more, the segment's groups have fewer
    /// rows. Those after it may take up to four times as much, which must stay below 2 GiB.
    pub row_group_bytes: u64,
    /// Rows of the batches that scans return, at most.
    pub batch_rows: usize,
    /// A log file is closed and a checkpoint taken once the log since the last one has this many bytes.
    /// Larger means fewer checkpoints and a longer restart.
    pub wal_bytes: u64,
    /// How many segments may overlap at one key before they are compacted.
    pub compaction_overlap: usize,
    /// Share of deleted rows above which a segment is rewritten, between 0 and 1.
    pub compaction_deleted_share: f64,
    /// Flush, compaction and checkpoints run by themselves on a thread of the engine. Without it they
    /// run only when asked for.
    pub background: bool,
    /// Bytes of write sets kept to find conflicts, past which the oldest transaction is aborted.
    pub write_set_bytes: usize,
    /// How often the background thread looks for work when nobody wakes it.
    pub background_interval: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cache_bytes: 512 << 20,
            memtable_bytes: 32 << 20,
            load_buffer_bytes: 128 << 20,
            bulk_rows: 64 * 1024,
            segment_rows: 1 << 20,
            row_group_rows: 128 * 1024,
            row_group_bytes: 256 << 20,
            batch_rows: 64 * 1024,
            wal_bytes: 64 << 20,
            compaction_overlap: 4,
            compaction_deleted_share: 0.25,
            background: true,
            write_set_bytes: 256 << 20,
            background_interval: Duration::from_millis(500),
        }
    }
}

impl Options {
    /// Checks that the options make sense together.
    pub fn check(&self) -> Result<()> {
        let positive = [
            ("memtable_bytes", self.memtable_bytes),
            ("load_buffer_bytes", self.load_buffer_bytes),
            ("bulk_rows", self.bulk_rows),
            ("segment_rows", self.segment_rows),
            ("row_group_rows", self.row_group_rows),
            ("batch_rows", self.batch_rows),
            ("compaction_overlap", self.compaction_overlap),
        ];
        for (name, value) in positive {
            if value == 0 {
                return Err(Error::invalid(format!("option {name} must be above 0")));
            }
        }
        if !(1..=256 << 20).contains(&self.row_group_bytes) {
            return Err(Error::invalid("option row_group_bytes must be between 1 and 268435456"));
        }
        // Positions in a segment are 32 bits wide.
        if self.segment_rows > 1 << 30 {
            return Err(Error::invalid("option segment_rows must be at most 1073741824"));
        }
        if !(0.0..=1.0).contains(&self.compaction_deleted_share) {
            return Err(Error::invalid("option compaction_deleted_share must be between 0 and 1"));
        }
        Ok(())
    }
}
