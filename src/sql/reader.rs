//! Rows of key ranges as they are asked for. Between two batches a reading holds no thread: each batch is read on one that may
//! block, and the next while the last is used.

use std::borrow::Cow;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array, UInt64Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::error::{DataFusionError, Result};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet};
use futures::Stream;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::memory::Sharer;
use super::queries::Query;
use super::semantics::floats::canonical_array;
use super::workers::panic_error;
use crate::engine::{
    EncodedKey, KeyColumn, KeyRange, ROW_ADDRESS_COLUMN, RowAddress, Scan, ScanRequest,
    TableSnapshot,
};

/// Rows of a batch at most.
const BATCH_ROWS: usize = 32 * 1024;
/// Rows of a batch at least, however small its share of the memory.
const MIN_BATCH_ROWS: usize = 512;
/// A share from which on batches are as large as they can be.
const AMPLE_BYTES: usize = 1 << 20;

/// Rows gathered from short ranges before they are passed on.
const GATHER_ROWS: usize = 8 * 1024;

/// What is read, and how. Blocks.
pub(crate) struct Reader {
    table: TableSnapshot,
    schema: SchemaRef,
    projection: Vec<usize>,
    /// The position that means the row address.
    address: usize,
    reverse: bool,
    pub(crate) metrics: BaselineMetrics,
    /// What the rows are for: it counts them, and may be stopped.
    pub(crate) query: Option<Arc<Query>>,
    /// Its part of the memory for results, where its rows go straight to a client.
    pub(crate) sharer: Option<Sharer>,
}

impl Reader {
    /// Reads the columns `projection` (the position after the last means the row address), as batches of
    /// `schema`.
    pub(crate) fn new(
        table: TableSnapshot,
        schema: SchemaRef,
        projection: Vec<usize>,
        reverse: bool,
    ) -> Self {
        let metrics = BaselineMetrics::new(&ExecutionPlanMetricsSet::new(), 0);
        let address = table.meta().columns.len();
        Self { table, schema, projection, address, reverse, metrics, query: None, sharer: None }
    }

    /// The rows of `ranges` after the first `offset`, at most `limit`.
    pub(crate) fn read<'a>(
        self,
        ranges: impl Into<Cow<'a, [KeyRange]>>,
        offset: u64,
        limit: Option<u64>,
    ) -> Result<Reading<'a>> {
        let ranges = ranges.into();
        let kind = if ranges.len() < 2 {
            Kind::Each
        } else if self.table.points(&ranges[..2])?.is_some()
            && ranges.iter().all(|r| r.as_point().is_some())
        {
            Kind::Points
        } else {
            Kind::Gathered
        };
        Ok(Reading { reader: self, ranges, at: 0, offset, limit, kind, scan: None, row_bytes: 0 })
    }

    /// The columns to read: all of the projection but row addresses.
    fn stored(&self) -> Vec<usize> {
        self.projection.iter().copied().filter(|p| *p != self.address).collect()
    }

    /// Counts rows. An error where what they are for was stopped.
    fn has_read(&self, rows: usize) -> Result<()> {
        self.metrics.record_output(rows);
        let Some(query) = &self.query else { return Ok(()) };
        query.read(rows);
        query.check().map_err(|e| DataFusionError::External(Box::new(e)))
    }

    /// The engine's batch with the plan's schema, the row address in its place. Floats may have been stored in any form.
    fn shape(&self, batch: RecordBatch) -> Result<RecordBatch> {
        let rows = batch.num_rows();
        let mut columns: Vec<ArrayRef> = batch.columns().iter().map(canonical_array).collect();
        if let Some(place) = self.projection.iter().position(|p| *p == self.address)
            && let Some(address) = columns.pop()
        {
            columns.insert(place, address);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?)
    }
}

/// How ranges are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// One after the other.
    Each,
    /// Points, looked up many at a time.
    Points,
    /// One after the other, and gathered: many ranges, such as those of an IN list, bring few rows each.
    Gathered,
}

/// A range that is being read.
struct Open {
    scan: Scan,
    /// Rows of the range before the next one: passed over, or read.
    passed: u64,
}

/// Batches that come as they are asked for. Each step blocks.
pub(crate) trait Steps: Send + 'static {
    /// The next batch; none after the last.
    fn next(&mut self) -> Result<Option<RecordBatch>>;
}

/// Rows that come as they are asked for. Each step blocks.
pub(crate) struct Reading<'a> {
    reader: Reader,
    ranges: Cow<'a, [KeyRange]>,
    /// The range that comes next, or is being read.
    at: usize,
    offset: u64,
    limit: Option<u64>,
    kind: Kind,
    scan: Option<Open>,
    /// Bytes of a row, as the last batch had them.
    row_bytes: usize,
}

impl Reading<'_> {
    /// The next rows; none after the last.
    pub(crate) fn next(&mut self) -> Result<Option<RecordBatch>> {
        match self.kind {
            Kind::Each => self.next_of_each(),
            Kind::Points => self.next_points(),
            Kind::Gathered => self.next_gathered(),
        }
    }

    fn next_gathered(&mut self) -> Result<Option<RecordBatch>> {
        let mut batches = Vec::new();
        let mut rows = 0;
        while rows < GATHER_ROWS
            && let Some(batch) = self.next_of_each()?
        {
            rows += batch.num_rows();
            batches.push(batch);
        }
        match batches.as_slice() {
            [] => Ok(None),
            batches => Ok(Some(concat_batches(&self.reader.schema, batches)?)),
        }
    }

    fn next_points(&mut self) -> Result<Option<RecordBatch>> {
        let reader = &self.reader;
        let columns = reader.stored();
        while self.at < self.ranges.len() && self.limit != Some(0) {
            let timer = reader.metrics.elapsed_compute().timer();
            let end = self.ranges.len().min(self.at + GATHER_ROWS);
            let ranges = &self.ranges[self.at..end];
            self.at = end;
            let keys: Vec<&EncodedKey> = ranges.iter().filter_map(KeyRange::as_point).collect();
            let keys = KeyColumn::from_keys(reader.table.codec().form(), keys)?;
            let mut rows: Vec<RowAddress> =
                reader.table.locate(&keys)?.into_iter().flatten().collect();
            let skipped = self.offset.min(rows.len() as u64);
            rows.drain(..skipped as usize);
            self.offset -= skipped;
            if let Some(limit) = &mut self.limit {
                rows.truncate(usize::try_from(*limit).unwrap_or(usize::MAX));
                *limit -= rows.len() as u64;
            }
            if rows.is_empty() {
                continue;
            }
            let mut batch = reader.table.take(&rows, Some(&columns))?;
            if reader.projection.contains(&reader.address) {
                batch = with_addresses(&batch, &rows)?;
            }
            let batch = reader.shape(batch)?;
            drop(timer);
            reader.has_read(batch.num_rows())?;
            return Ok(Some(batch));
        }
        Ok(None)
    }

    fn next_of_each(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if self.limit == Some(0) {
                return Ok(None);
            }
            if self.scan.is_none() && !self.open()? {
                return Ok(None);
            }
            let reader = &self.reader;
            let Some(open) = &mut self.scan else { continue };
            let batch = {
                let _timer = reader.metrics.elapsed_compute().timer();
                open.scan.next().transpose()?.map(|batch| reader.shape(batch)).transpose()?
            };
            let Some(batch) = batch else {
                self.scan = None;
                self.at += 1;
                continue;
            };
            let rows = batch.num_rows();
            open.passed += rows as u64;
            reader.has_read(rows)?;
            self.limit = self.limit.map(|l| l.saturating_sub(rows as u64));
            return self.economical(batch).map(Some);
        }
    }

    /// Opens the next range that has rows to read; says whether there is one.
    fn open(&mut self) -> Result<bool> {
        while self.at < self.ranges.len() {
            let range = &self.ranges[self.at];
            if self.offset > 0 {
                let rows = self.reader.table.count(range)?;
                if rows <= self.offset {
                    self.offset -= rows;
                    self.at += 1;
                    continue;
                }
            }
            let reader = &self.reader;
            let passed = std::mem::take(&mut self.offset);
            let request = ScanRequest {
                range: range.clone(),
                projection: Some(reader.stored()),
                row_address: reader.projection.contains(&reader.address),
                reverse: reader.reverse,
                offset: passed,
                limit: self.limit,
                batch_rows: self.batch_rows(),
            };
            self.scan = Some(Open { scan: reader.table.scan(&request)?, passed });
            return Ok(true);
        }
        Ok(false)
    }

    /// The memory it may use, where that is short.
    fn short_of_memory(&self) -> Option<usize> {
        let bytes = self.reader.sharer.as_ref()?.bytes();
        (bytes < AMPLE_BYTES).then_some(bytes)
    }

    fn batch_rows(&self) -> usize {
        match (self.short_of_memory(), self.row_bytes) {
            (None, _) => BATCH_ROWS,
            (Some(_), 0) => MIN_BATCH_ROWS,
            (Some(bytes), row) => (bytes / row).clamp(MIN_BATCH_ROWS, BATCH_ROWS),
        }
    }

    /// Where many results are open, a slow client must not hold more than its rows: neither the blocks that they are slices of,
    /// nor those that come next. The range is opened anew for each batch, which the index makes cheap.
    fn economical(&mut self, batch: RecordBatch) -> Result<RecordBatch> {
        if self.short_of_memory().is_none() || batch.num_rows() == 0 {
            return Ok(batch);
        }
        if let Some(open) = self.scan.take() {
            self.offset = open.passed;
        }
        let all = UInt32Array::from_iter_values(0..batch.num_rows() as u32);
        let batch = match batch.num_columns() {
            0 => batch,
            _ => take_record_batch(&batch, &all)?,
        };
        self.row_bytes = batch.get_array_memory_size().div_ceil(batch.num_rows()).max(1);
        Ok(batch)
    }
}

impl Steps for Reading<'static> {
    fn next(&mut self) -> Result<Option<RecordBatch>> {
        Reading::next(self)
    }
}

impl Steps for Box<dyn Steps> {
    fn next(&mut self) -> Result<Option<RecordBatch>> {
        self.as_mut().next()
    }
}

/// A batch with the addresses of its rows as the last column.
fn with_addresses(batch: &RecordBatch, rows: &[RowAddress]) -> Result<RecordBatch> {
    let mut fields = batch.schema().fields().to_vec();
    fields.push(Arc::new(Field::new(ROW_ADDRESS_COLUMN, DataType::UInt64, false)));
    let mut columns = batch.columns().to_vec();
    columns.push(Arc::new(UInt64Array::from_iter_values(rows.iter().map(|row| row.0))));
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// A step of readings, and those that are left.
type Step<S> = (Vec<S>, Result<Option<RecordBatch>>);

/// Readings one after the other, as a stream. Dropped, it reads no more than the batch that is under way.
pub(crate) struct ReadStream<S> {
    runtime: Handle,
    /// The last is the next to be read; none while a step is under way.
    readings: Vec<S>,
    step: Option<JoinHandle<Step<S>>>,
}

impl<S: Steps> ReadStream<S> {
    /// Reads on threads of `runtime` that may block.
    pub(crate) fn new(runtime: Handle, mut readings: Vec<S>) -> Self {
        readings.reverse();
        Self { runtime, readings, step: None }
    }

    fn begin_step(&mut self) -> &mut JoinHandle<Step<S>> {
        let mut readings = std::mem::take(&mut self.readings);
        self.step.insert(self.runtime.spawn_blocking(move || {
            while let Some(reading) = readings.last_mut() {
                match reading.next() {
                    Ok(None) => drop(readings.pop()),
                    batch => return (readings, batch),
                }
            }
            (readings, Ok(None))
        }))
    }
}

impl<S: Steps + Unpin> Stream for ReadStream<S> {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let step = match &mut this.step {
            Some(step) => step,
            None if this.readings.is_empty() => return Poll::Ready(None),
            None => this.begin_step(),
        };
        let done = ready!(Pin::new(step).poll(cx));
        this.step = None;
        let (readings, batch) = match done {
            Ok(done) => done,
            Err(e) => {
                let e = match e.try_into_panic() {
                    Ok(panic) => panic_error(panic.as_ref()).into(),
                    Err(e) => DataFusionError::Execution(format!("the reading was ended: {e}")),
                };
                return Poll::Ready(Some(Err(e)));
            }
        };
        if let Ok(Some(_)) = &batch {
            this.readings = readings;
            // What comes next is read while this is used.
            this.begin_step();
        }
        Poll::Ready(batch.transpose())
    }
}
