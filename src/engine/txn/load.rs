//! Bulk loads: rows go to segment files as they come.
//!
//! Batches that continue above every key so far are streamed straight into segments. The others are
//! gathered within a memory budget, sorted, and written as runs of segments. A row that is gathered and
//! has the key of a streamed one came after it, so the streamed run counts as the earliest.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, ArrayRef, RecordBatch};

use super::OnConflict;
use super::repeated::{self, Piece};
use super::run::RunWriter;
use super::write::{Sorted, WriteResult, distinct, duplicate};
use crate::engine::Shared;
use crate::engine::error::Result;
use crate::engine::key::{EncodedKey, KeyColumn};
use crate::engine::schema::KeyKind;
use crate::engine::table::{SourceState, TableShape, find_live};

/// Rows gathered from a sort at once.
const GATHER_ROWS: usize = 64 * 1024;

/// A bulk load in progress.
#[derive(Debug)]
pub(super) struct Load {
    shared: Arc<Shared>,
    shape: Arc<TableShape>,
    on_conflict: OnConflict,
    stream: RunWriter,
    /// The largest key so far, streamed or gathered.
    max: Option<EncodedKey>,
    gathered: Vec<Sorted>,
    gathered_bytes: usize,
    /// Sorted runs of gathered rows, in the order of arrival.
    runs: Vec<Vec<SourceState>>,
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
            shape: Arc::clone(shape),
            on_conflict,
            stream: RunWriter::new(shared, shape, false),
            max: None,
            gathered: Vec::new(),
            gathered_bytes: 0,
            runs: Vec::new(),
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
        // Sorting takes about as much again.
        if self.gathered_bytes >= self.shared.options.load_buffer_bytes / 2 {
            self.write_run()?;
        }
        Ok(())
    }

    /// Sorts what was gathered and writes it as a run of segments.
    fn write_run(&mut self) -> Result<()> {
        let parts = std::mem::take(&mut self.gathered);
        self.gathered_bytes = 0;
        if parts.is_empty() {
            return Ok(());
        }
        let keys = KeyColumn::concat(&parts.iter().map(|p| &p.keys).collect::<Vec<_>>())?;
        let mut order = keys.sort_indices();
        if self.unique() {
            let sorted = keys.take(&order)?;
            if let Some(keep) = distinct(&self.shape, &sorted, self.on_conflict, &mut self.settled)?
            {
                order = keep.iter().map(|i| order[*i as usize]).collect();
            }
        }
        // Where each gathered batch begins.
        let mut starts = Vec::with_capacity(parts.len());
        let mut total = 0_u32;
        for part in &parts {
            starts.push(total);
            total += part.batch.num_rows() as u32;
        }
        let mut run = RunWriter::new(&self.shared, &self.shape, false);
        let mut places = Vec::with_capacity(GATHER_ROWS);
        for chunk in order.chunks(GATHER_ROWS) {
            places.clear();
            places.extend(chunk.iter().map(|row| {
                let part = starts.partition_point(|s| s <= row) - 1;
                (part, (row - starts[part]) as usize)
            }));
            let columns = (0..self.shape.stored_schema.fields().len())
                .map(|c| {
                    let arrays: Vec<&dyn Array> =
                        parts.iter().map(|p| p.batch.column(c).as_ref()).collect();
                    Ok(arrow::compute::interleave(&arrays, &places)?)
                })
                .collect::<Result<Vec<ArrayRef>>>()?;
            let batch = RecordBatch::try_new(Arc::clone(&self.shape.stored_schema), columns)?;
            run.write(&batch, &keys.take(chunk)?)?;
        }
        let (segments, time) = run.finish()?;
        self.train_time += time;
        self.runs.push(segments);
        Ok(())
    }

    /// Completes the load: its segments, durable, each key once where keys are unique.
    pub(super) fn finish(
        mut self,
        result: &mut WriteResult,
    ) -> Result<(Vec<SourceState>, Duration)> {
        self.write_run()?;
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
        let found = find_live(sources, &keys, false)?;
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
