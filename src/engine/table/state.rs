//! The state of a table: what a snapshot holds of it. Changes make a changed clone; what did not change
//! is shared.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;

use super::deletes::DeleteMap;
use super::merge::{Input, Layout, Output, Reader};
use super::segments::Segments;
use super::source::{ROW_ID_FIELD, Run, Source, SourceId, SourceState};
use crate::engine::error::{Error, Result};
use crate::engine::id::{FieldId, Generation, SeqNo};
use crate::engine::key::{KeyCodec, KeyColumn, KeyRange};
use crate::engine::schema::{FIELD_ID_KEY, KeyKind, TableMeta};

/// Runs above this size are not merged in memory any more: merging happens under the commit lock.
const MERGE_ROWS: u64 = 64 * 1024;

/// Ids of runs: unique in the process.
static NEXT_RUN: AtomicU64 = AtomicU64::new(1);

/// Rows that are in the log and not in a segment yet.
#[derive(Debug, Clone)]
pub(crate) struct Memtable {
    pub(crate) generation: Generation,
    /// The first commit that put rows here.
    pub(crate) first_seq: Option<SeqNo>,
    /// Sorted runs, the older first. Sizes fall geometrically, but for the largest.
    pub(crate) runs: Vec<SourceState>,
    pub(crate) bytes: usize,
}

impl Memtable {
    pub(crate) fn new(generation: Generation) -> Self {
        Self { generation, first_seq: None, runs: Vec::new(), bytes: 0 }
    }
}

/// What depends on a table's definition alone.
#[derive(Debug)]
pub(crate) struct TableShape {
    pub(crate) meta: Arc<TableMeta>,
    pub(crate) codec: KeyCodec,
    pub(crate) schema: SchemaRef,
    pub(crate) stored_schema: SchemaRef,
    pub(crate) stored_fields: Vec<FieldId>,
    pub(crate) key_indices: Vec<usize>,
    /// What to read for `schema`.
    pub(crate) outputs: Vec<Output>,
}

impl TableShape {
    pub(crate) fn new(meta: Arc<TableMeta>) -> Result<Self> {
        let mut stored_fields: Vec<FieldId> = meta.columns.iter().map(|c| c.id).collect();
        if meta.has_row_id() {
            stored_fields.push(ROW_ID_FIELD);
        }
        let outputs = meta.columns.iter().map(|column| Output::Field {
            id: column.id,
            data_type: column.field.data_type().clone(),
            initial: column.initial.clone(),
        });
        Ok(Self {
            outputs: outputs.collect(),
            codec: KeyCodec::new(&meta.key_types())?,
            schema: meta.arrow_schema(),
            stored_schema: meta.stored_schema(),
            stored_fields,
            key_indices: meta.key_indices(),
            meta,
        })
    }

    /// Whether several rows can have one key.
    pub(crate) fn repeats(&self) -> bool {
        self.meta.key_kind == KeyKind::Cluster
    }

    /// The keys of a stored batch.
    pub(crate) fn keys(&self, batch: &RecordBatch) -> Result<KeyColumn> {
        let columns: Vec<ArrayRef> = match self.meta.key_kind {
            KeyKind::RowId => vec![Arc::clone(batch.column(batch.num_columns() - 1))],
            _ => self.key_indices.iter().map(|i| Arc::clone(batch.column(*i))).collect(),
        };
        self.codec.encode(&columns).map_err(|e| {
            let names: Vec<&str> =
                self.key_indices.iter().map(|i| self.schema.field(*i).name().as_str()).collect();
            e.context(format_args!("key ({})", names.join(", ")))
        })
    }

    /// What to read of each source to get stored batches back.
    pub(crate) fn stored_layout(&self, with_keys: bool) -> Layout {
        let fields = self.stored_fields.iter().zip(self.stored_schema.fields());
        let initial = |id: FieldId| {
            self.meta.columns.iter().find(|c| c.id == id).and_then(|c| c.initial.clone())
        };
        Layout {
            outputs: fields
                .map(|(id, field)| Output::Field {
                    id: *id,
                    data_type: field.data_type().clone(),
                    initial: initial(*id),
                })
                .collect(),
            repeats: self.repeats(),
            with_keys,
        }
    }
}

/// A table as one snapshot holds it.
#[derive(Debug, Clone)]
pub(crate) struct TableState {
    pub(crate) shape: Arc<TableShape>,
    /// By first key.
    pub(crate) segments: Arc<Segments>,
    /// The oldest first; the last is active and takes rows.
    pub(crate) memtables: Vec<Memtable>,
    /// Rows of memtables below this generation are in segments, or gone.
    pub(crate) flushed_below: Generation,
    /// Counts truncations.
    pub(crate) epoch: u64,
    /// The last commit of a user that changed rows.
    pub(crate) last_write: SeqNo,
    /// The next hidden row id: shared by all states of the table.
    pub(crate) next_row_id: Arc<AtomicU64>,
    pub(crate) live_count: u64,
}

impl TableState {
    pub(crate) fn new(meta: Arc<TableMeta>) -> Result<Self> {
        Ok(Self {
            shape: Arc::new(TableShape::new(meta)?),
            segments: Arc::default(),
            memtables: vec![Memtable::new(Generation(1))],
            flushed_below: Generation(1),
            epoch: 0,
            last_write: SeqNo(0),
            next_row_id: Arc::new(AtomicU64::new(1)),
            live_count: 0,
        })
    }

    /// Gives the table another definition with the same key.
    pub(crate) fn set_meta(&mut self, meta: Arc<TableMeta>) -> Result<()> {
        self.shape = Arc::new(TableShape::new(meta)?);
        Ok(())
    }

    /// All sources; their ordinals are the high halves of row addresses.
    pub(crate) fn sources(&self) -> impl Iterator<Item = &SourceState> {
        self.segments.iter().chain(self.memtables.iter().flat_map(|m| m.runs.iter()))
    }

    /// The sources that can hold keys of a range, and others where segments overlap, with their ordinals.
    pub(crate) fn sources_within(
        &self,
        range: &KeyRange,
    ) -> impl Iterator<Item = (u32, &SourceState)> {
        let near = self.segments.within(range);
        let segments = (near.start as u32..).zip(&self.segments[near]);
        let runs = self.memtables.iter().flat_map(|m| m.runs.iter());
        segments.chain((self.segments.len() as u32..).zip(runs))
    }

    /// Every source with its place in row addresses.
    pub(crate) fn source_at(&self, ordinal: u32) -> Option<&SourceState> {
        self.sources().nth(ordinal as usize)
    }

    pub(crate) fn find_source(&self, id: SourceId) -> Option<&SourceState> {
        self.sources().find(|s| s.source.id() == id)
    }

    fn deleted_mut(&mut self, id: SourceId) -> Option<&mut DeleteMap> {
        match id {
            SourceId::Segment(_) => {
                self.segments.iter().position(|s| s.source.id() == id)?;
                Arc::make_mut(&mut self.segments).deleted_mut(id)
            }
            SourceId::Run(_) => self
                .memtables
                .iter_mut()
                .flat_map(|m| m.runs.iter_mut())
                .find(|s| s.source.id() == id)
                .map(|s| &mut s.deleted),
        }
    }

    /// Deletes rows of a source; says how many were live. `None` where the source is not here.
    pub(crate) fn delete(
        &mut self,
        id: SourceId,
        positions: impl IntoIterator<Item = u32>,
    ) -> Option<u64> {
        let deleted = self.deleted_mut(id)?.delete(positions);
        self.live_count -= deleted;
        Some(deleted)
    }

    /// The memtable that takes rows.
    pub(crate) fn active(&self) -> &Memtable {
        // There is always one: `new`, `truncate` and `flushed` see to it.
        &self.memtables[self.memtables.len() - 1]
    }

    /// Adds sorted rows of the stored schema to the active memtable, and merges runs that have become
    /// of one size.
    pub(crate) fn add_run(&mut self, run: Arc<Run>, seq: SeqNo) -> Result<()> {
        self.push_run(SourceState::new(Source::Run(run)), seq);
        self.merge_runs(0)
    }

    pub(crate) fn push_run(&mut self, run: SourceState, seq: SeqNo) {
        self.live_count += run.live_count();
        if let Some(active) = self.memtables.last_mut() {
            active.first_seq.get_or_insert(seq);
            if let Source::Run(r) = &run.source {
                active.bytes += r.memory_bytes();
            }
            active.runs.push(run);
        }
    }

    /// Merges the newest runs of the active memtable while one is not much smaller than the next, but
    /// never the first `keep`.
    pub(crate) fn merge_runs(&mut self, keep: usize) -> Result<()> {
        let Some(active) = self.memtables.last() else { return Ok(()) };
        let runs = &active.runs;
        let mut from = runs.len();
        let mut rows = 0;
        while from > keep {
            let next = runs[from - 1].live_count();
            if from < runs.len() && (next > 2 * rows || rows + next > MERGE_ROWS) {
                break;
            }
            rows += next;
            from -= 1;
        }
        if runs.len() - from < 2 {
            return Ok(());
        }
        let merged = merge(&self.shape, &runs[from..])?;
        if let Some(active) = self.memtables.last_mut() {
            active.runs.truncate(from);
            active.runs.extend(merged.map(|r| SourceState::new(Source::Run(r))));
            active.bytes = active.runs.iter().map(run_bytes).sum();
        }
        Ok(())
    }

    /// Puts segments beside those that are there.
    pub(crate) fn add_segments(&mut self, added: impl IntoIterator<Item = SourceState>) {
        let added: Vec<SourceState> = added.into_iter().collect();
        self.live_count += added.iter().map(SourceState::live_count).sum::<u64>();
        Arc::make_mut(&mut self.segments).add(added);
    }

    /// Takes segments away; returns them.
    pub(crate) fn remove_segments(&mut self, ids: &[SourceId]) -> Vec<SourceState> {
        let gone = Arc::make_mut(&mut self.segments).remove(ids);
        self.live_count -= gone.iter().map(SourceState::live_count).sum::<u64>();
        gone
    }

    /// Seals the active memtable, if it holds rows: a new one takes what comes.
    pub(crate) fn seal(&mut self) {
        let active = self.active();
        if !active.runs.is_empty() {
            let next = active.generation.next();
            self.memtables.push(Memtable::new(next));
        }
    }

    /// Drops memtables whose rows are in segments now.
    pub(crate) fn drop_memtables_below(&mut self, generation: Generation) {
        let (gone, kept) = std::mem::take(&mut self.memtables)
            .into_iter()
            .partition::<Vec<_>, _>(|m| m.generation < generation);
        self.memtables = kept;
        self.flushed_below = self.flushed_below.max(generation);
        if self.memtables.is_empty() {
            self.memtables.push(Memtable::new(generation));
        }
        self.live_count -=
            gone.iter().flat_map(|m| &m.runs).map(SourceState::live_count).sum::<u64>();
    }

    /// Removes all rows.
    pub(crate) fn truncate(&mut self) {
        let next = self.active().generation.next();
        self.segments = Arc::default();
        self.memtables = vec![Memtable::new(next)];
        self.flushed_below = next;
        self.epoch += 1;
        self.live_count = 0;
    }

    /// Makes the memtable of a generation the active one: replaying rows that went there.
    pub(crate) fn activate(&mut self, generation: Generation) -> Result<()> {
        let active = self.active().generation;
        if generation > active {
            self.memtables.push(Memtable::new(generation));
        } else if generation < active {
            return Err(Error::corruption(format!(
                "table {}: the log puts rows into memtable {generation} after {active}",
                self.shape.meta.name
            )));
        }
        Ok(())
    }

    /// Bytes of all memtables.
    pub(crate) fn memtable_bytes(&self) -> usize {
        self.memtables.iter().map(|m| m.bytes).sum()
    }

    /// Takes `count` row ids; returns the first.
    pub(crate) fn take_row_ids(&self, count: u64) -> u64 {
        self.next_row_id.fetch_add(count, Ordering::Relaxed)
    }

    /// Marks row ids up to `last` as taken.
    pub(crate) fn note_row_id(&self, last: u64) {
        self.next_row_id.fetch_max(last + 1, Ordering::Relaxed);
    }
}

fn run_bytes(state: &SourceState) -> usize {
    match &state.source {
        Source::Run(r) => r.memory_bytes(),
        Source::Segment(_) => 0,
    }
}

/// A run of rows of the stored schema of `shape`, sorted by `keys`.
pub(crate) fn new_run(shape: &TableShape, batch: RecordBatch, keys: KeyColumn) -> Arc<Run> {
    let id = NEXT_RUN.fetch_add(1, Ordering::Relaxed);
    Arc::new(Run { id, batch, fields: shape.stored_fields.clone(), keys })
}

/// The run of a batch that comes from the log: its columns are told by the field ids in its schema, since
/// the table may have been redefined after it was logged.
pub(crate) fn replayed_run(shape: &TableShape, batch: RecordBatch) -> Result<Run> {
    let mut fields = Vec::with_capacity(batch.num_columns());
    for field in batch.schema().fields() {
        let id = field.metadata().get(FIELD_ID_KEY).and_then(|id| id.parse().ok());
        fields.push(FieldId(id.ok_or_else(|| {
            Error::corruption(format!("column \"{}\" has no field id", field.name()))
        })?));
    }
    let key_fields = match shape.meta.key_kind {
        KeyKind::RowId => &[ROW_ID_FIELD][..],
        _ => &shape.meta.key,
    };
    let columns = key_fields
        .iter()
        .map(|id| {
            let at = fields.iter().position(|f| f == id);
            at.map(|i| Arc::clone(batch.column(i)))
                .ok_or_else(|| Error::corruption(format!("key column {id} is missing")))
        })
        .collect::<Result<Vec<ArrayRef>>>()?;
    let keys = shape.codec.encode(&columns)?;
    Ok(Run { id: NEXT_RUN.fetch_add(1, Ordering::Relaxed), batch, fields, keys })
}

/// One run of the live rows of several; `None` where none is live.
fn merge(shape: &TableShape, runs: &[SourceState]) -> Result<Option<Arc<Run>>> {
    let inputs: Vec<Input> = runs
        .iter()
        .map(|r| Input { state: r.clone(), ordinal: 0, positions: 0..r.source.len() })
        .collect();
    let rows: u64 = inputs.iter().map(Input::live_count).sum();
    if rows == 0 {
        return Ok(None);
    }
    let mut reader = Reader::new(inputs, shape.stored_layout(true), rows as usize)?;
    let mut batches = Vec::new();
    let mut keys = Vec::new();
    while let Some(rows) = reader.next()? {
        batches.push(RecordBatch::try_new(shape.stored_schema.clone(), rows.columns)?);
        keys.extend(rows.keys);
    }
    // A slice would keep the whole run that it comes from.
    let batch = arrow::compute::concat_batches(&shape.stored_schema, &batches)?;
    let keys = KeyColumn::concat(&keys.iter().collect::<Vec<_>>())?;
    Ok(Some(new_run(shape, batch, keys)))
}
