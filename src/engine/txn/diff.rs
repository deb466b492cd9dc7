//! What a transaction did to one table, told from its fork and the state that it began on: whether it can follow what others
//! committed since, and how it becomes part of the next root.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use roaring::RoaringBitmap;

use super::commit::Change;
use super::conflict::{KeySet, WriteSets};
use super::places::{added_segment, keys_at, relocate, row_ids_at, segment_file, segment_files};
use super::root::DbRoot;
use crate::engine::error::{Error, Result};
use crate::engine::id::{SeqNo, TableId};
use crate::engine::key::KeyColumn;
use crate::engine::schema::KeyKind;
use crate::engine::table::{
    Input, Memtable, Reader, Source, SourceId, SourceState, TableShape, TableState, new_run,
};
use crate::engine::wal::WalOp;

/// Up to which commit a transaction was compared with others already.
#[derive(Debug, Clone, Copy)]
pub(super) struct Compared {
    pub(super) seq: SeqNo,
    pub(super) era: u64,
}

/// What a transaction did to one table.
pub(super) struct TableDiff {
    pub(super) id: TableId,
    pub(super) base: Option<Arc<TableState>>,
    pub(super) fork: Option<Arc<TableState>>,
    redefined: bool,
    pub(super) truncated: bool,
    /// Rows of the base that it deleted.
    pub(super) deleted: Vec<(SourceState, Vec<u32>)>,
    /// Runs and segments that it added, with what it deleted of them again.
    runs: Vec<SourceState>,
    pub(super) segments: Vec<SourceState>,
    /// Keys that it wrote, where they are unique.
    pub(super) written: Vec<KeySet>,
}

impl TableDiff {
    pub(super) fn new(
        id: TableId,
        base: Option<&Arc<TableState>>,
        fork: Option<&Arc<TableState>>,
    ) -> Result<Self> {
        let mut diff = Self {
            id,
            base: base.cloned(),
            fork: fork.cloned(),
            redefined: false,
            truncated: false,
            deleted: Vec::new(),
            runs: Vec::new(),
            segments: Vec::new(),
            written: Vec::new(),
        };
        let Some(fork) = fork else { return Ok(diff) };
        let mut old: BTreeMap<SourceId, &SourceState> = BTreeMap::new();
        if let Some(base) = base {
            diff.redefined = !Arc::ptr_eq(&base.shape, &fork.shape);
            diff.truncated = base.epoch != fork.epoch;
            if !diff.truncated {
                old = base.sources().map(|s| (s.source.id(), s)).collect();
            }
        }
        for state in fork.sources() {
            match old.get(&state.source.id()) {
                Some(before) => {
                    let positions = state.deleted.since(&before.deleted);
                    if !positions.is_empty() {
                        diff.deleted.push(((*before).clone(), positions));
                    }
                }
                None => match &state.source {
                    Source::Run(_) => diff.runs.extend(compact_run(&fork.shape, state)?),
                    Source::Segment(_) => diff.segments.push(state.clone()),
                },
            }
        }
        if fork.shape.meta.key_kind == KeyKind::Primary {
            diff.collect_written()?;
        }
        Ok(diff)
    }

    fn collect_written(&mut self) -> Result<()> {
        for (source, positions) in &self.deleted {
            let keys = keys_at(&source.source, positions)?;
            self.written.push(KeySet::Keys(Arc::new(keys)));
        }
        for run in &self.runs {
            if let Source::Run(r) = &run.source {
                self.written.push(KeySet::Keys(Arc::new(r.keys.clone())));
            }
        }
        self.written.extend(self.segments.iter().cloned().map(KeySet::Segment));
        Ok(())
    }

    /// Whether it concerns all rows of the table.
    pub(super) fn is_whole(&self) -> bool {
        self.fork.is_none() || self.truncated || self.redefined
    }

    /// Whether the diff can follow what was committed since the transaction began.
    pub(super) fn check(
        &self,
        base_root: &DbRoot,
        spec: &DbRoot,
        write_sets: &WriteSets,
        compared: Compared,
    ) -> Result<()> {
        let Some(base) = &self.base else { return Ok(()) };
        let name = &base.shape.meta.name;
        let Some(now) = spec.tables.get(&self.id) else {
            return Err(Error::conflict(format!(
                "table {name}: another transaction dropped it first: retry"
            )));
        };
        if !Arc::ptr_eq(&now.shape, &base.shape) {
            return Err(Error::conflict(format!(
                "table {name}: another transaction changed its definition first: retry"
            )));
        }
        if now.epoch != base.epoch || (self.is_whole() && now.last_write > base_root.seq) {
            return Err(Error::conflict(format!(
                "table {name}: another transaction changed its rows first: retry"
            )));
        }
        let since = if compared.era == write_sets.era() { compared.seq } else { base_root.seq };
        write_sets.check(since, self.id, &self.written).map_err(|e| self.named(e))
    }

    /// The error with the table's name before it.
    pub(super) fn named(&self, e: Error) -> Error {
        match self.fork.as_ref().or(self.base.as_ref()) {
            Some(state) => e.context(format_args!("table {}", state.shape.meta.name)),
            None => e,
        }
    }

    /// Puts the diff into the new root and the log record.
    pub(super) fn install(
        &self,
        change: &mut Change,
        seq: SeqNo,
        memtable_bytes: usize,
    ) -> Result<()> {
        let Some(fork) = &self.fork else {
            if let Some(state) = change.root.remove_table(self.id) {
                change.ops.push(WalOp::DropTable(self.id));
                change.removed.extend(segment_files(&state));
            }
            return Ok(());
        };
        let mut state = match (&self.base, change.root.tables.get(&self.id)) {
            (Some(_), Some(now)) => (**now).clone(),
            _ => TableState {
                segments: Arc::default(),
                memtables: vec![Memtable::new(fork.flushed_below)],
                live_count: 0,
                ..(**fork).clone()
            },
        };
        if self.truncated {
            change.removed.extend(segment_files(&state));
            state.truncate();
            change.ops.push(WalOp::Truncate(self.id));
        }
        if self.redefined || self.base.is_none() {
            state.shape = Arc::clone(&fork.shape);
            change.ops.push(WalOp::PutTable(Arc::clone(&fork.shape.meta)));
        }
        self.install_deletes(&mut state, change)?;
        self.install_rows(&mut state, change, seq)?;
        if state.active().bytes >= memtable_bytes {
            state.seal();
        }
        state.last_write = seq;
        change.root.put_table(Arc::new(state));
        Ok(())
    }

    fn install_deletes(&self, state: &mut TableState, change: &mut Change) -> Result<()> {
        // Where the rows lie now: compaction and flushes may have moved them since.
        let mut places: BTreeMap<SourceId, Vec<u32>> = BTreeMap::new();
        for (source, positions) in &self.deleted {
            let id = source.source.id();
            if state.find_source(id).is_some() {
                places.entry(id).or_default().extend(positions);
            } else {
                for (id, position) in relocate(state, &source.source, positions)? {
                    places.entry(id).or_default().push(position);
                }
            }
        }
        for (id, mut positions) in places {
            positions.sort_unstable();
            let Some(source) = state.find_source(id).map(|s| s.source.clone()) else { continue };
            let live = state.delete(id, positions.iter().copied());
            if live != Some(positions.len() as u64) {
                return Err(Error::conflict(format!(
                    "table {}: another transaction deleted the same rows first: retry",
                    state.shape.meta.name
                )));
            }
            change.ops.push(match &source {
                Source::Segment(file) => WalOp::DeletePositions {
                    table: self.id,
                    segment: file.segment.meta().id,
                    positions: RoaringBitmap::from_sorted_iter(positions).unwrap_or_default(),
                },
                Source::Run(_) => WalOp::DeleteKeys {
                    table: self.id,
                    keys: keys_at(&source, &positions)?,
                    row_ids: row_ids_at(&state.shape, &source, &positions)?,
                },
            });
        }
        Ok(())
    }

    fn install_rows(&self, state: &mut TableState, change: &mut Change, seq: SeqNo) -> Result<()> {
        for run in &self.runs {
            if let Source::Run(r) = &run.source {
                change.ops.push(WalOp::Rows {
                    table: self.id,
                    generation: state.active().generation,
                    batch: r.batch.clone(),
                });
                state.add_run(Arc::clone(r), seq)?;
            }
        }
        if !self.segments.is_empty() {
            let add = self.segments.iter().filter_map(added_segment).collect();
            change.ops.push(WalOp::EditSegments {
                table: self.id,
                flushed_below: None,
                remove: Vec::new(),
                add,
            });
            change.added.extend(self.segments.iter().filter_map(segment_file));
            state.add_segments(self.segments.iter().cloned());
        }
        Ok(())
    }
}

/// A run without the rows that are deleted of it; `None` where none is left.
fn compact_run(shape: &Arc<TableShape>, state: &SourceState) -> Result<Option<SourceState>> {
    if state.deleted.count() == 0
        && let Source::Run(run) = &state.source
        && run.fields == shape.stored_fields
    {
        return Ok(Some(state.clone()));
    }
    let rows = state.live_count() as usize;
    let input = Input { state: state.clone(), ordinal: 0, positions: 0..state.source.len() };
    let mut reader = Reader::new(vec![input], shape.stored_layout(true), rows.max(1))?;
    let mut batches = Vec::new();
    let mut keys = Vec::new();
    while let Some(rows) = reader.next()? {
        batches.push(RecordBatch::try_new(Arc::clone(&shape.stored_schema), rows.columns)?);
        keys.extend(rows.keys);
    }
    if batches.is_empty() {
        return Ok(None);
    }
    let batch = arrow::compute::concat_batches(&shape.stored_schema, &batches)?;
    let keys = KeyColumn::concat(&keys.iter().collect::<Vec<_>>())?;
    Ok(Some(SourceState::new(Source::Run(new_run(shape, batch, keys)))))
}
