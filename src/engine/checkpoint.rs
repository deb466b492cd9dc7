//! Checkpoints: one state of the database in files, so that the log before it can go.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Shared;
use super::error::{ErrorKind, Result};
use super::id::{SegmentId, SeqNo, TableId};
use super::maintenance;
use super::manifest::{Checkpoint, ManifestStore, TableCheckpoint};
use super::table::TableState;
use super::txn::{DbRoot, Object, added_segment};

/// The manifest, and what of it need not be written again.
#[derive(Debug)]
pub(super) struct Checkpointer {
    store: ManifestStore,
    written: HashMap<TableId, (Arc<TableState>, Arc<TableCheckpoint>)>,
    /// Number of the last commit in the last checkpoint.
    seq: SeqNo,
    /// Bytes of log that a checkpoint could not spare: rows that cannot be flushed are in it. The next one is taken when the log
    /// has grown beyond that.
    kept_bytes: u64,
}

impl Checkpointer {
    pub(super) fn new(store: ManifestStore, seq: SeqNo) -> Self {
        Self { store, written: HashMap::new(), seq, kept_bytes: 0 }
    }

    fn table(&mut self, state: &Arc<TableState>) -> Arc<TableCheckpoint> {
        let id = state.shape.meta.id;
        if let Some((old, part)) = self.written.get(&id)
            && Arc::ptr_eq(&old.segments, &state.segments)
            && Arc::ptr_eq(&old.shape, &state.shape)
            && old.flushed_below == state.flushed_below
            && part.next_row_id == state.next_row_id.load(Ordering::Relaxed)
        {
            return Arc::clone(part);
        }
        let part = Arc::new(TableCheckpoint {
            meta: Arc::clone(&state.shape.meta),
            next_row_id: state.next_row_id.load(Ordering::Relaxed),
            flushed_below: state.flushed_below,
            segments: state.segments.iter().filter_map(added_segment).collect(),
        });
        self.written.insert(id, (Arc::clone(state), Arc::clone(&part)));
        part
    }
}

/// Takes a checkpoint if the log is long.
pub(super) fn checkpoint_if_long(shared: &Arc<Shared>) -> Result<()> {
    let kept = shared.checkpointer.lock().kept_bytes;
    if shared.wal.lock().len_bytes() <= kept + shared.options.wal_bytes {
        return Ok(());
    }
    checkpoint(shared)
}

/// Flushes what is in memtables, writes a checkpoint and drops the log before it. A table that cannot be flushed keeps the log
/// that its rows are in, and the others nothing: its error is returned once the checkpoint is there.
pub(super) fn checkpoint(shared: &Arc<Shared>) -> Result<()> {
    shared.or_fail("a checkpoint", || checkpoint_now(shared))
}

fn checkpoint_now(shared: &Arc<Shared>) -> Result<()> {
    let mut checkpointer = shared.checkpointer.lock();
    shared.wal.lock().rotate()?;
    let mut flushed = Ok(());
    for id in unflushed(&shared.root.load()) {
        if let Err(e) = maintenance::flush(shared, id, true) {
            if shared.committer.failed().is_some() || e.kind() == ErrorKind::Closed {
                return Err(e);
            }
            flushed = Err(e);
        }
    }
    // The counters are read first: an id given out after is above what the root holds.
    let next_segment = SegmentId(shared.next_segment.load(Ordering::Acquire));
    let next_table = TableId(shared.next_table.load(Ordering::Acquire));
    let root = shared.root.load_full();
    if root.seq == checkpointer.seq {
        checkpointer.kept_bytes = shared.wal.lock().len_bytes();
        return flushed;
    }
    let replay_from = root
        .tables
        .values()
        .flat_map(|t| t.memtables.iter().filter_map(|m| m.first_seq))
        .min()
        .unwrap_or_else(|| root.seq.next());
    let tables: Vec<_> = root.tables.values().map(|t| checkpointer.table(t)).collect();
    checkpointer.written.retain(|id, _| root.tables.get(id).is_some());
    let checkpoint = Checkpoint {
        seq: root.seq,
        replay_from,
        next_segment,
        next_table,
        schemas: root.schemas.iter().map(ToString::to_string).collect(),
        views: root
            .names
            .iter()
            .filter_map(|(name, object)| match object {
                Object::View(sql) => Some((name.clone(), sql.to_string())),
                Object::Table(_) => None,
            })
            .collect(),
        tables,
    };
    checkpointer.store.write(&checkpoint)?;
    checkpointer.seq = root.seq;
    let mut wal = shared.wal.lock();
    wal.remove_below(replay_from)?;
    checkpointer.kept_bytes = if flushed.is_err() { wal.len_bytes() } else { 0 };
    flushed
}

/// Tables with rows in memtables.
fn unflushed(root: &DbRoot) -> Vec<TableId> {
    root.tables
        .iter()
        .filter(|(_, t)| t.memtables.iter().any(|m| !m.runs.is_empty()))
        .map(|(id, _)| *id)
        .collect()
}
