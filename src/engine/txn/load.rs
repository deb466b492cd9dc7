//! Bulk loads: rows go to segment files as they come.
//!
//! Batches that continue above every key so far are streamed straight into segments. The others are
//! gathered within a memory budget, sorted, and written as runs of segments. A row that is gathered and
//! has the key of a streamed one came after it, so the streamed run counts as the earliest.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arrow::array::{Array, ArrayRef, RecordBatch};

use super::OnConflict;
use super::write::{Sorted, WriteResult, distinct, duplicate};
use crate::engine::Shared;
use crate::engine::error::Result;
use crate::engine::id::SegmentId;
use crate::engine::key::{EncodedKey, KeyColumn};
use crate::engine::schema::KeyKind;
use crate::engine::segment::{Segment, SegmentMeta, SegmentWriter, WriteOptions};
use crate::engine::table::{Fate, SegmentFile, Source, SourceState, TableShape, find_live};

/// Rows gathered from a sort at once.
const GATHER_ROWS: usize = 64 * 1024;
/// Keys looked up at once.
const PROBE_ROWS: u64 = 64 * 1024;

/// Writes rows in key order as segments of the size that the options say.
#[derive(Debug)]
pub(crate) struct RunWriter {
    shared: Arc<Shared>,
    shape: Arc<TableShape>,
    compact: bool,
    writer: Option<SegmentWriter>,
    done: Vec<SourceState>,
    train_time: Duration,
}

impl RunWriter {
    pub(crate) fn new(shared: &Arc<Shared>, shape: &Arc<TableShape>, compact: bool) -> Self {
        Self {
            shared: Arc::clone(shared),
            shape: Arc::clone(shape),
            compact,
            writer: None,
            done: Vec::new(),
            train_time: Duration::ZERO,
        }
    }

    /// Appends rows, none before those that are there.
    pub(crate) fn write(&mut self, batch: &RecordBatch, keys: &KeyColumn) -> Result<()> {
        let mut start = 0;
        while start < batch.num_rows() {
            let writer = match &mut self.writer {
                Some(writer) => writer,
                None => self.writer.insert(self.create()?),
            };
            let room = self.shared.options.segment_rows as u64 - writer.row_count();
            let take = room.min((batch.num_rows() - start) as u64) as usize;
            if take == batch.num_rows() {
                writer.write(batch, keys)?;
            } else {
                writer.write(&batch.slice(start, take), &keys.slice(start, take))?;
            }
            start += take;
            if writer.row_count() >= self.shared.options.segment_rows as u64 {
                self.finish_segment()?;
            }
        }
        Ok(())
    }

    fn create(&self) -> Result<SegmentWriter> {
        let shared = &self.shared;
        let options = WriteOptions {
            row_group_rows: shared.options.row_group_rows,
            key: self.shape.meta.key.clone(),
            compact: self.compact,
            now_micros: shared.clock.now_micros(),
        };
        let id = SegmentId(shared.next_segment.fetch_add(1, Ordering::Relaxed));
        let schema = Arc::clone(&self.shape.stored_schema);
        let (table, codec) = (self.shape.meta.id, &self.shape.codec);
        SegmentWriter::create(&shared.store, table, id, schema, codec, &options)
    }

    fn finish_segment(&mut self) -> Result<()> {
        if let Some(writer) = self.writer.take() {
            let meta = writer.finish()?;
            self.train_time += Duration::from_nanos(meta.train_nanos);
            self.done.push(pending_segment(&self.shared, meta, &self.shape));
        }
        Ok(())
    }

    /// Completes the last segment. The segments are durable once their directory is synced.
    pub(crate) fn finish(mut self) -> Result<(Vec<SourceState>, Duration)> {
        self.finish_segment()?;
        Ok((std::mem::take(&mut self.done), self.train_time))
    }
}

/// A segment that is written and not committed.
fn pending_segment(shared: &Shared, meta: SegmentMeta, shape: &TableShape) -> SourceState {
    let segment = Segment::open(&shared.store, meta, &shape.codec);
    let file = SegmentFile::new(segment, Fate::Pending, &shared.garbage);
    SourceState::new(Source::Segment(Arc::new(file)))
}

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
        let mut segments = streamed;
        let unique = self.shape.meta.key_kind == KeyKind::Primary;
        let mut settled = self.settled;
        for mut run in self.runs {
            if unique {
                for segment in &mut run {
                    settle(&self.shape, self.on_conflict, &mut segments, segment, &mut settled)?;
                }
            }
            segments.append(&mut run);
        }
        self.shared.sync_table_dir(self.shape.meta.id)?;
        result.ignored_count += settled.ignored_count;
        result.replaced_count += settled.replaced_count;
        Ok((segments, train_time))
    }
}

/// Settles the keys of a segment that earlier segments of the same load have too.
fn settle(
    shape: &TableShape,
    on_conflict: OnConflict,
    earlier: &mut [SourceState],
    segment: &mut SourceState,
    settled: &mut WriteResult,
) -> Result<()> {
    let (min, max) = (segment.source.min_key(), segment.source.max_key());
    let near: Vec<usize> = (0..earlier.len())
        .filter(|i| earlier[*i].source.min_key() <= max && earlier[*i].source.max_key() >= min)
        .collect();
    if near.is_empty() {
        return Ok(());
    }
    let len = segment.source.len();
    let mut start = 0;
    while start < len {
        let end = (start + PROBE_ROWS).min(len);
        let keys = segment.source.keys(start..end)?;
        let found = find_live(near.iter().map(|i| (*i as u32, &earlier[*i])), &keys, false)?;
        match (on_conflict, found.first()) {
            (_, None) => {}
            (OnConflict::Error, Some(row)) => {
                let key = keys.slice(row.key as usize, 1);
                return Err(duplicate(shape, &key, "occurs twice in the rows to insert"));
            }
            (OnConflict::Ignore, Some(_)) => {
                let again = found.iter().map(|f| start as u32 + f.key);
                settled.ignored_count += segment.deleted.delete(again);
            }
            (OnConflict::Replace, Some(_)) => {
                for row in &found {
                    let source = &mut earlier[row.ordinal as usize];
                    settled.replaced_count += source.deleted.delete([row.position]);
                }
            }
        }
        start = end;
    }
    Ok(())
}
