//! The manifest: a checkpoint of one state of the database. The live state is the newest manifest and
//! the log after it.
//!
//! ```text
//! manifest/<seq>/root            what the checkpoint is made of; its name is what commits it
//! manifest/<seq>/<table>.part    a table; roots of later checkpoints refer to it while it does not change
//! bitmaps/<seq>.del              deleted rows of segments; parts of later checkpoints refer to it too
//! ```
//!
//! `docs/file-format.md` has the bytes and the argument why a crash at any point leaves the checkpoint
//! before or the new one.

mod frame;
mod garbage;
mod load;
mod store;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use self::store::Store;
use super::error::Result;
use super::fs::Vfs;
use super::id::{Generation, SegmentId, SeqNo, TableId};
use super::schema::{TableMeta, TableName};
use super::wal::AddedSegment;

/// One state of the database, memtables left out.
#[derive(Debug, Clone, Default)]
pub struct Checkpoint {
    /// The last commit that it holds.
    pub seq: SeqNo,
    /// The log is replayed from this record on: the first that holds rows of a live memtable, or the one after `seq`.
    pub replay_from: SeqNo,
    /// The next segment id.
    pub next_segment: SegmentId,
    /// The next table id.
    pub next_table: TableId,
    /// Schemas.
    pub schemas: Vec<String>,
    /// Views and their SQL text.
    pub views: Vec<(TableName, String)>,
    /// Tables.
    pub tables: Vec<Arc<TableCheckpoint>>,
}

/// One table of a [`Checkpoint`].
#[derive(Debug, Clone)]
pub struct TableCheckpoint {
    /// Its definition.
    pub meta: Arc<TableMeta>,
    /// The next hidden row id.
    pub next_row_id: u64,
    /// Memtables of generations below this one are in segments.
    pub flushed_below: Generation,
    /// Its segments and their deleted rows.
    pub segments: Vec<AddedSegment>,
}

/// The manifests in a directory.
#[derive(Debug)]
pub struct ManifestStore {
    store: Store,
}

impl ManifestStore {
    /// Opens `<dir>/manifest` and `<dir>/bitmaps` (made if missing) and reads the newest checkpoint, if
    /// there is one. Damage is an error that names the file; an older manifest is never taken instead.
    pub fn open(vfs: Arc<dyn Vfs>, dir: &Path) -> Result<(Self, Option<Checkpoint>)> {
        let (store, checkpoint) = Store::open(vfs, dir)?;
        Ok((Self { store }, checkpoint))
    }

    /// Writes a checkpoint, durably. A table whose `Arc` is the one that the last checkpoint had is not
    /// written again; its file is referred to. Then removes manifests, parts and bitmap packs that the
    /// new one does not refer to.
    ///
    /// After an error the checkpoint before is still there, and another can be tried; only where a sync
    /// failed is every later call an error of kind [`ReadOnly`](super::ErrorKind::ReadOnly). A checkpoint
    /// of the commit that the last one was taken at is not written again.
    pub fn write(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        self.store.write(checkpoint)
    }
}
