//! Brings a database back: the newest checkpoint, then the log after it.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::error::{Error, Result};
use super::id::{Generation, SegmentId, SeqNo, TableId};
use super::key::KeyColumn;
use super::manifest::{Checkpoint, TableCheckpoint};
use super::schema::TableMeta;
use super::segment::{FilterUse, Segment, SegmentStore};
use super::table::{
    DeleteMap, Fate, Garbage, SegmentFile, Source, SourceId, SourceState, TableShape, TableState,
    replayed_run,
};
use super::txn::{DbRoot, Object, find_row, segment_file};
use super::wal::{AddedSegment, WalOp, WalRecord};

/// The state that a recovery builds up.
#[derive(Debug)]
pub(super) struct Recovery {
    store: SegmentStore,
    garbage: Arc<Garbage>,
    pub(super) root: DbRoot,
    /// The commit that the checkpoint holds.
    checkpoint: SeqNo,
    pub(super) next_segment: SegmentId,
    pub(super) next_table: TableId,
}

impl Recovery {
    /// Begins with a checkpoint, or an empty database.
    pub(super) fn new(
        store: &SegmentStore,
        garbage: &Arc<Garbage>,
        checkpoint: Option<&Checkpoint>,
    ) -> Result<Self> {
        let mut recovery = Self {
            store: store.clone(),
            garbage: Arc::clone(garbage),
            root: DbRoot::default(),
            checkpoint: SeqNo(0),
            next_segment: SegmentId(1),
            next_table: TableId(1),
        };
        let Some(checkpoint) = checkpoint else { return Ok(recovery) };
        recovery.root.seq = checkpoint.seq;
        recovery.checkpoint = checkpoint.seq;
        recovery.next_segment = checkpoint.next_segment;
        recovery.next_table = checkpoint.next_table;
        for schema in &checkpoint.schemas {
            recovery.root.schemas.insert_mut(Arc::from(schema.as_str()));
        }
        for (name, sql) in &checkpoint.views {
            let view = Object::View(Arc::from(sql.as_str()));
            recovery.root.names.insert_mut(name.clone(), view);
        }
        for table in &checkpoint.tables {
            let state = recovery.open_table(table)?;
            recovery.root.put_table(Arc::new(state));
        }
        Ok(recovery)
    }

    fn open_table(&mut self, table: &TableCheckpoint) -> Result<TableState> {
        let mut state = TableState::new(Arc::clone(&table.meta))?;
        state.next_row_id = Arc::new(AtomicU64::new(table.next_row_id.max(1)));
        state.drop_memtables_below(table.flushed_below);
        let segments =
            table.segments.iter().map(|s| self.open_segment(&state.shape, s)).collect::<Vec<_>>();
        state.add_segments(segments);
        Ok(state)
    }

    fn open_segment(&mut self, shape: &TableShape, added: &AddedSegment) -> SourceState {
        self.next_segment = self.next_segment.max(added.meta.id.next());
        let segment = Segment::open(&self.store, added.meta.clone(), &shape.codec);
        let file = SegmentFile::new(segment, Fate::Live, &self.garbage);
        SourceState {
            source: Source::Segment(Arc::new(file)),
            deleted: DeleteMap::from_bitmap(&added.deleted),
        }
    }

    /// Applies a record of the log. Of those that the checkpoint holds, only what concerns memtables
    /// that were not in segments then counts.
    pub(super) fn apply(&mut self, record: WalRecord) -> Result<()> {
        let seq = record.seq;
        let known = seq <= self.checkpoint;
        for op in record.ops {
            let applied = if known { self.apply_known(seq, op) } else { self.apply_op(seq, op) };
            applied.map_err(|e| e.context(format_args!("commit {seq} of the log")))?;
        }
        if !known {
            self.root.seq = seq;
        }
        Ok(())
    }

    fn apply_known(&mut self, seq: SeqNo, op: WalOp) -> Result<()> {
        match op {
            WalOp::Rows { table, generation, .. }
                if self
                    .root
                    .tables
                    .get(&table)
                    .is_none_or(|state| generation < state.flushed_below) =>
            {
                Ok(())
            }
            WalOp::Rows { .. } => self.apply_op(seq, op),
            WalOp::DeleteKeys { table, keys, row_ids } => {
                if self.root.tables.get(&table).is_some() {
                    self.delete_keys(table, &keys, &row_ids)?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn table_mut(
        &mut self,
        id: TableId,
        change: impl FnOnce(&mut TableState) -> Result<()>,
    ) -> Result<()> {
        let mut state = (**self.root.table(id).map_err(damaged)?).clone();
        change(&mut state)?;
        self.root.put_table(Arc::new(state));
        Ok(())
    }

    fn apply_op(&mut self, seq: SeqNo, op: WalOp) -> Result<()> {
        match op {
            WalOp::PutTable(meta) => self.put_table(meta)?,
            WalOp::DropTable(id) => {
                if let Some(state) = self.root.remove_table(id) {
                    obsolete(&state);
                }
            }
            WalOp::PutSchema(name) => self.root.schemas.insert_mut(Arc::from(name)),
            WalOp::DropSchema(name) => {
                self.root.schemas.remove_mut(name.as_str());
            }
            WalOp::PutView(name, sql) => {
                self.root.names.insert_mut(name, Object::View(Arc::from(sql)));
            }
            WalOp::DropView(name) => {
                self.root.names.remove_mut(&name);
            }
            WalOp::Truncate(id) => self.table_mut(id, |state| {
                obsolete(state);
                state.truncate();
                Ok(())
            })?,
            WalOp::Rows { table, generation, batch } => self.table_mut(table, |state| {
                state.activate(generation)?;
                let shape = Arc::clone(&state.shape);
                let run = replayed_run(&shape, batch)?;
                if let Some(last) = run.row_ids().and_then(|ids| ids.values().iter().max()) {
                    state.note_row_id(*last);
                }
                state.add_run(Arc::new(run), seq)
            })?,
            WalOp::DeleteKeys { table, keys, row_ids } => {
                let found = self.delete_keys(table, &keys, &row_ids)?;
                if found != keys.len() {
                    return Err(Error::corruption(format!(
                        "table {table}: {} of {} rows to delete are not there",
                        keys.len() - found,
                        keys.len()
                    )));
                }
            }
            WalOp::DeletePositions { table, segment, positions } => {
                self.table_mut(table, |state| {
                    state
                        .delete(SourceId::Segment(segment), positions.iter())
                        .map(|_| ())
                        .ok_or_else(|| Error::corruption(format!("segment {segment} is not live")))
                })?;
            }
            WalOp::EditSegments { table, flushed_below, remove, add } => {
                self.edit_segments(table, flushed_below, &remove, &add)?;
            }
        }
        Ok(())
    }

    fn put_table(&mut self, meta: Arc<TableMeta>) -> Result<()> {
        self.next_table = self.next_table.max(meta.id.next());
        let state = match self.root.tables.get(&meta.id) {
            Some(old) => {
                let mut state = (**old).clone();
                state.set_meta(meta)?;
                state
            }
            None => TableState::new(meta)?,
        };
        self.root.put_table(Arc::new(state));
        Ok(())
    }

    fn edit_segments(
        &mut self,
        table: TableId,
        flushed_below: Option<Generation>,
        remove: &[SegmentId],
        add: &[AddedSegment],
    ) -> Result<()> {
        let shape = Arc::clone(&self.root.table(table).map_err(damaged)?.shape);
        let added: Vec<SourceState> = add.iter().map(|s| self.open_segment(&shape, s)).collect();
        self.table_mut(table, |state| {
            if let Some(generation) = flushed_below {
                state.drop_memtables_below(generation);
            }
            let ids: Vec<SourceId> = remove.iter().copied().map(SourceId::Segment).collect();
            for gone in state.remove_segments(&ids).iter().filter_map(segment_file) {
                gone.set_fate(Fate::Obsolete);
            }
            if let Some(last) = add.iter().filter_map(|s| s.meta.row_ids).map(|r| r.1).max() {
                state.note_row_id(last);
            }
            state.add_segments(added);
            Ok(())
        })
    }

    /// Deletes rows of memtables; says how many it found.
    fn delete_keys(&mut self, table: TableId, keys: &KeyColumn, row_ids: &[u64]) -> Result<usize> {
        let mut count = 0;
        self.table_mut(table, |state| {
            let mut places: Vec<(SourceId, u32)> = Vec::new();
            if state.shape.repeats() {
                if row_ids.len() != keys.len() {
                    return Err(Error::corruption("deleted rows lack their row ids"));
                }
                for (i, row_id) in row_ids.iter().enumerate() {
                    // In memtables only: the files of segments may be gone, by a record to come.
                    let runs = state.memtables.iter().flat_map(|m| &m.runs);
                    places.extend(find_row(runs, keys, i, *row_id)?);
                }
            } else {
                let runs = (0_u32..).zip(state.memtables.iter().flat_map(|m| &m.runs));
                let found = super::table::find_live(runs, keys, false, FilterUse::InMemory)?;
                let ids: Vec<SourceId> =
                    state.memtables.iter().flat_map(|m| &m.runs).map(|r| r.source.id()).collect();
                places.extend(found.iter().map(|f| (ids[f.ordinal as usize], f.position)));
            }
            for (id, position) in places {
                if matches!(id, SourceId::Run(_)) {
                    state.delete(id, [position]);
                    count += 1;
                }
            }
            Ok(())
        })?;
        Ok(count)
    }

    /// The next segment id and the next table id.
    pub(super) fn counters(&self) -> (AtomicU64, AtomicU64) {
        (AtomicU64::new(self.next_segment.0), AtomicU64::new(self.next_table.0))
    }

    /// Removes files of segments that the recovered state does not have: those of writes that were not
    /// committed, and those whose removal was cut short.
    pub(super) fn remove_orphans(&self) -> Result<()> {
        for table in self.store.list_tables()? {
            let live: HashSet<SegmentId> = self
                .root
                .tables
                .get(&table)
                .map(|t| {
                    t.segments
                        .iter()
                        .filter_map(segment_file)
                        .map(|f| f.segment.meta().id)
                        .collect()
                })
                .unwrap_or_default();
            for segment in self.store.list(table)? {
                if !live.contains(&segment) {
                    self.store.remove(table, segment)?;
                }
            }
            if self.root.tables.get(&table).is_none() {
                self.store.remove_table_dir(table)?;
            }
        }
        // What the replay let go of is gone now.
        self.garbage.take();
        Ok(())
    }
}

fn obsolete(state: &TableState) {
    for file in state.segments.iter().filter_map(segment_file) {
        file.set_fate(Fate::Obsolete);
    }
}

fn damaged(e: Error) -> Error {
    Error::corruption(e.message().to_owned())
}
