//! Bulk loads: rows go to segment files as they come.
//!
//! Batches that continue above every key so far are streamed straight into segments. The others are
//! gathered within a memory budget, sorted, and written as runs of segments. A row that is gathered and
//! has the key of a streamed one came after it, so the streamed run counts as the earliest.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array};

use super::OnConflict;
use super::repeated::{self, Piece};
use super::run::RunWriter;
use super::write::{Sorted, WriteResult, distinct, duplicate};
use crate::engine::Shared;
use crate::engine::error::Result;
use crate::engine::key::{EncodedKey, KeyColumn};
use crate::engine::schema::KeyKind;
use crate::engine::segment::FilterUse;
use crate::engine::table::{SourceState, TableShape, find_live};

/// Rows gathered from a sort at once.
const GATHER_ROWS: usize = 64 * 1024;

/// The least that a load gathers before it sorts: shorter runs would cost more than they save.
const MIN_GATHERED_BYTES: usize = 1 << 20;

/// One of the loads that share the memory for loads.
#[derive(Debug)]
struct Sharer(Arc<Shared>);

impl Sharer {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.load_count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(shared))
    }

    /// Bytes to gather before they are sorted, which takes about as much again. Loads that come take from those that are there.
    fn gathered_bytes(&self) -> usize {
        let whole = self.0.options.load_buffer_bytes / 2;
        let part = whole / self.0.load_count.load(Ordering::Relaxed).max(1);
        part.max(MIN_GATHERED_BYTES.min(whole))
    }
}

impl Drop for Sharer {
    fn drop(&mut self) {
        self.0.load_count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A bulk load in progress.
#[derive(Debug)]
pub(super) struct Load {
    shared: Arc<Shared>,
    sharer: Sharer,
    shape: Arc<TableShape>,
    on_conflict: OnConflict,
    stream: RunWriter,
    /// The largest key so far, streamed or gathered.
    max: Option<EncodedKey>,
    gathered: Vec<Sorted>,
    gathered_bytes: usize,
    /// Sorted runs of gathered rows, in the order of arrival, and the one after them.
    runs: Vec<Vec<SourceState>>,
    encoding: Option<RunWriter>,
    train_time: Duration,
    /// Counts of what was settled within runs.
    settled: WriteResult,
}

impl Load {
    pub(super) fn new(
        shared: &Arc<Shared>,
        shape: &Arc<TableShape>,
        on_conflict: OnConflict,
    ) -> Result<Self> {
        shared.create_table_dir(shape.meta.id)?;
        Ok(Self {
            shared: Arc::clone(shared),
            sharer: Sharer::new(shared),
            shape: Arc::clone(shape),
            on_conflict,
            stream: RunWriter::new(shared, shape, false),
            max: None,
            gathered: Vec::new(),
            gathered_bytes: 0,
            runs: Vec::new(),
            encoding: None,
            train_time: Duration::ZERO,
            settled: WriteResult::default(),
        })
    }

    fn unique(&self) -> bool {
        self.shape.meta.key_kind == KeyKind::Primary
    }

    pub(super) fn push(&mut self, rows: Sorted) -> Result<()> {
        let sorted = rows.keys.is_sorted();
        let continues = sorted
            && match &self.max {
                None => true,
                Some(max) if self.unique() => rows.keys.get(0) > *max,
                Some(max) => rows.keys.get(0) >= *max,
            }
            && !(self.unique() && rows.keys.first_repeat().is_some());
        let largest = if sorted { rows.keys.last() } else { rows.keys.max() };
        if largest > self.max {
            self.max = largest;
        }
        if continues {
            return self.stream.write(&rows.batch, &rows.keys);
        }
        self.gathered_bytes += rows.batch.get_array_memory_size() + rows.keys.memory_bytes();
        self.gathered.push(rows);
        if self.gathered_bytes >= self.sharer.gathered_bytes() {
            self.write_run()?;
        }
        Ok(())
    }

    /// Sorts what was gathered and writes it as a run of segments, whose last rows are encoded while the load goes on.
    fn write_run(&mut self) -> Result<()> {
        let parts = std::mem::take(&mut self.gathered);
        self.gathered_bytes = 0;
        if parts.is_empty() {
            return Ok(());
        }
        let keys = KeyColumn::concat(&parts.iter().map(|p| &p.keys).collect::<Vec<_>>())?;
        let mut order = keys.sort_indices();
        let mut keys = keys.take(&order)?;
        if self.unique()
            && let Some(keep) = distinct(&self.shape, &keys, self.on_conflict, &mut self.settled)?
        {
            order = keep.iter().map(|i| order[*i as usize]).collect();
            keys = keys.take(&keep)?;
        }
        let batches: Vec<&RecordBatch> = parts.iter().map(|p| &p.batch).collect();
        let shape = Arc::clone(&self.shape);
        let rows = Sorting::new(&shape, &batches, UInt32Array::from(order))?;
        // One run is encoded at a time.
        self.finish_run()?;
        let mut run = RunWriter::new(&self.shared, &self.shape, false);
        for start in (0..keys.len()).step_by(GATHER_ROWS) {
            let count = GATHER_ROWS.min(keys.len() - start);
            run.write(&rows.batch(start, count)?, &keys.slice(start, count))?;
        }
        run.close();
        self.encoding = Some(run);
        Ok(())
    }

    /// Waits for the run that is being encoded.
    fn finish_run(&mut self) -> Result<()> {
        if let Some(run) = self.encoding.take() {
            let (segments, time) = run.finish()?;
            self.train_time += time;
            self.runs.push(segments);
        }
        Ok(())
    }

    /// Completes the load: its segments, durable, each key once where keys are unique.
    pub(super) fn finish(
        mut self,
        result: &mut WriteResult,
    ) -> Result<(Vec<SourceState>, Duration)> {
        self.write_run()?;
        self.finish_run()?;
        let (streamed, time) = self.stream.finish()?;
        let train_time = self.train_time + time;
        let mut runs = vec![streamed];
        runs.append(&mut self.runs);
        let mut settled = self.settled;
        if self.shape.meta.key_kind == KeyKind::Primary {
            for part in repeated::parts(&runs)? {
                settle(&self.shape, self.on_conflict, &mut runs, &part, &mut settled)?;
            }
        }
        self.shared.sync_table_dir(self.shape.meta.id)?;
        result.ignored_count += settled.ignored_count;
        result.replaced_count += settled.replaced_count;
        Ok((runs.into_iter().flatten().collect(), train_time))
    }
}

/// Gathered rows in the order of their keys.
struct Sorting<'a> {
    shape: &'a TableShape,
    parts: &'a [&'a RecordBatch],
    order: UInt32Array,
    /// Columns of fixed width, each in one piece and sorted as a whole: that is several times as fast as to pick every value
    /// out of its part. Others might not fit into one piece.
    sorted: Vec<Option<ArrayRef>>,
}

impl<'a> Sorting<'a> {
    fn new(
        shape: &'a TableShape,
        parts: &'a [&'a RecordBatch],
        order: UInt32Array,
    ) -> Result<Self> {
        let sorted = shape
            .stored_schema
            .fields()
            .iter()
            .enumerate()
            .map(|(c, field)| {
                if !field.data_type().is_primitive() {
                    return Ok(None);
                }
                let arrays: Vec<&dyn Array> = parts.iter().map(|p| p.column(c).as_ref()).collect();
                let whole = arrow::compute::concat(&arrays)?;
                Ok(Some(arrow::compute::take(&whole, &order, None)?))
            })
            .collect::<Result<_>>()?;
        Ok(Self { shape, parts, order, sorted })
    }

    /// The rows from `start` on.
    fn batch(&self, start: usize, count: usize) -> Result<RecordBatch> {
        let places = if self.sorted.iter().all(Option::is_some) {
            Vec::new()
        } else {
            self.places(&self.order.values()[start..start + count])
        };
        let columns = self
            .sorted
            .iter()
            .enumerate()
            .map(|(c, sorted)| match sorted {
                Some(column) => Ok(column.slice(start, count)),
                None => {
                    let arrays: Vec<&dyn Array> =
                        self.parts.iter().map(|p| p.column(c).as_ref()).collect();
                    Ok(arrow::compute::interleave(&arrays, &places)?)
                }
            })
            .collect::<Result<Vec<ArrayRef>>>()?;
        Ok(RecordBatch::try_new(Arc::clone(&self.shape.stored_schema), columns)?)
    }

    /// In which part rows lie, and where there.
    fn places(&self, rows: &[u32]) -> Vec<(usize, usize)> {
        let mut starts = Vec::with_capacity(self.parts.len());
        let mut total = 0;
        for part in self.parts {
            starts.push(total);
            total += part.num_rows() as u32;
        }
        let place = |row: &u32| {
            let part = starts.partition_point(|start| start <= row) - 1;
            (part, (row - starts[part]) as usize)
        };
        rows.iter().map(place).collect()
    }
}

/// Settles the keys of a part that occur in several runs: the first or the last of each stays.
fn settle(
    shape: &TableShape,
    on_conflict: OnConflict,
    runs: &mut [Vec<SourceState>],
    part: &[Piece],
    settled: &mut WriteResult,
) -> Result<()> {
    for piece in part {
        let (earlier, rest) = runs.split_at_mut(piece.run);
        let mut earlier: Vec<&mut SourceState> = earlier.iter_mut().flatten().collect();
        let segment = &mut rest[0][piece.segment];
        let keys = segment.source.keys(piece.positions.clone())?;
        let sources = earlier.iter().enumerate().map(|(i, source)| (i as u32, &**source));
        let found = find_live(sources, &keys, false, FilterUse::InMemory)?;
        match (on_conflict, found.first()) {
            (_, None) => {}
            (OnConflict::Error, Some(row)) => {
                let key = keys.slice(row.key as usize, 1);
                return Err(duplicate(shape, &key, "occurs twice in the rows to insert"));
            }
            (OnConflict::Ignore, Some(_)) => {
                let again = found.iter().map(|f| piece.positions.start as u32 + f.key);
                settled.ignored_count += segment.deleted.delete(again);
            }
            (OnConflict::Replace, Some(_)) => {
                for row in &found {
                    let source = &mut earlier[row.ordinal as usize];
                    settled.replaced_count += source.deleted.delete([row.position]);
                }
            }
        }
    }
    Ok(())
}
