//! Sorted rows to segments. Long runs are encoded by a thread of their own, so that a load goes on reading and sorting meanwhile,
//! and a segment is synced while the next one is written.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use arrow::array::RecordBatch;

use crate::engine::Shared;
use crate::engine::error::{Error, Result};
use crate::engine::id::SegmentId;
use crate::engine::key::KeyColumn;
use crate::engine::segment::{Segment, SegmentMeta, SegmentWriter, WriteOptions};
use crate::engine::table::{Fate, SegmentFile, Source, SourceState, TableShape};

/// Runs of fewer rows are not worth a thread.
const INLINE_ROWS: usize = 64 * 1024;
/// Batches that may wait for the encoder.
const QUEUED_BATCHES: usize = 2;
/// Batches of more than this part of the memory for loads may not.
const LARGE_SHARE: usize = 16;

/// Segments of a run, and how long the training of their indexes took.
type Written = (Vec<SourceState>, Duration);

/// Writes rows in key order as segments of the size that the options say. Dropped unfinished, it leaves nothing.
#[derive(Debug)]
pub(crate) struct RunWriter {
    state: State,
    row_count: usize,
    large_bytes: usize,
}

#[derive(Debug)]
enum State {
    Inline(Box<Encoder>),
    Threaded {
        sender: SyncSender<Job>,
        thread: JoinHandle<Result<Written>>,
    },
    /// After an error.
    Failed,
}

enum Job {
    /// Rows, and who waits until they are held no more.
    Write(RecordBatch, KeyColumn, Option<SyncSender<()>>),
    Finish,
}

impl RunWriter {
    pub(crate) fn new(shared: &Arc<Shared>, shape: &Arc<TableShape>, compact: bool) -> Self {
        let encoder = Encoder {
            shared: Arc::clone(shared),
            shape: Arc::clone(shape),
            compact,
            writer: None,
            finishing: None,
            done: Vec::new(),
            train_time: Duration::ZERO,
        };
        let large_bytes = shared.options.load_buffer_bytes / LARGE_SHARE;
        Self { state: State::Inline(Box::new(encoder)), row_count: 0, large_bytes }
    }

    /// Appends rows, none before those that are there.
    pub(crate) fn write(&mut self, batch: &RecordBatch, keys: &KeyColumn) -> Result<()> {
        self.row_count += batch.num_rows();
        self.state = match std::mem::replace(&mut self.state, State::Failed) {
            State::Inline(mut encoder) => {
                if self.row_count <= INLINE_ROWS {
                    encoder.write(batch, keys)?;
                    State::Inline(encoder)
                } else {
                    encoder.into_thread()?
                }
            }
            other => other,
        };
        match &self.state {
            State::Inline(_) => Ok(()),
            State::Threaded { sender, .. } => {
                // Large batches do not queue: what they take is their sender's to account for, who waits.
                let (done, wait) = match batch.get_array_memory_size() > self.large_bytes {
                    true => Some(sync_channel(1)).unzip(),
                    false => (None, None),
                };
                let sent = sender.send(Job::Write(batch.clone(), keys.clone(), done)).is_ok();
                if sent && wait.is_none_or(|wait| wait.recv().is_ok()) {
                    return Ok(());
                }
                // It ended early, and says why.
                self.take().map(drop).and(Err(Error::internal("the encoder of a run ended early")))
            }
            State::Failed => Err(Error::internal("a run is written on after an error")),
        }
    }

    /// Says that there are no more rows: the last segment is completed meanwhile.
    pub(crate) fn close(&mut self) {
        if let State::Threaded { sender, .. } = &self.state {
            // Where it has ended already, `finish` says why.
            let _ = sender.send(Job::Finish);
        }
    }

    /// Completes the last segment. The segments are durable once their directory is synced.
    pub(crate) fn finish(mut self) -> Result<Written> {
        self.close();
        self.take()
    }

    fn take(&mut self) -> Result<Written> {
        match std::mem::replace(&mut self.state, State::Failed) {
            State::Inline(encoder) => encoder.finish(),
            State::Threaded { sender, thread } => {
                drop(sender);
                join(thread)
            }
            State::Failed => Err(Error::internal("a run is finished after an error")),
        }
    }
}

impl Drop for RunWriter {
    fn drop(&mut self) {
        let state = std::mem::replace(&mut self.state, State::Failed);
        if let State::Threaded { sender, thread } = state {
            // Waits until its files are gone. That it was given up is no news.
            drop(sender);
            drop(thread.join());
        }
    }
}

fn spawn<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>> {
    std::thread::Builder::new()
        .name("omendb-encode".into())
        .spawn(work)
        .map_err(|e| Error::exhausted(format!("cannot start a thread: {e}")))
}

/// What a thread has made. A panic in it goes on in this one, as if the work had been done here.
fn join<T>(thread: JoinHandle<T>) -> T {
    thread.join().unwrap_or_else(|panic| resume_unwind(panic))
}

/// Cuts a run into segments and writes them.
#[derive(Debug)]
struct Encoder {
    shared: Arc<Shared>,
    shape: Arc<TableShape>,
    compact: bool,
    writer: Option<SegmentWriter>,
    /// A segment that is being completed.
    finishing: Option<JoinHandle<Result<SegmentMeta>>>,
    done: Vec<SourceState>,
    train_time: Duration,
}

impl Encoder {
    fn into_thread(mut self) -> Result<State> {
        let (sender, receiver) = sync_channel(QUEUED_BATCHES);
        let thread = spawn(move || self.run(&receiver).and_then(|()| self.finish()))?;
        Ok(State::Threaded { sender, thread })
    }

    fn run(&mut self, jobs: &Receiver<Job>) -> Result<()> {
        loop {
            match jobs.recv() {
                Ok(Job::Write(batch, keys, done)) => {
                    self.write(&batch, &keys)?;
                    drop((batch, keys));
                    // Who does not wait any more has given up.
                    if let Some(done) = done {
                        let _ = done.send(());
                    }
                }
                Ok(Job::Finish) => return Ok(()),
                Err(_) => return Err(Error::internal("the run was given up")),
            }
        }
    }

    fn write(&mut self, batch: &RecordBatch, keys: &KeyColumn) -> Result<()> {
        let segment_rows = self.shared.options.segment_rows as u64;
        let mut start = 0;
        while start < batch.num_rows() {
            let writer = match &mut self.writer {
                Some(writer) => writer,
                None => self.writer.insert(create(&self.shared, &self.shape, self.compact)?),
            };
            let room = segment_rows - writer.row_count();
            let take = room.min((batch.num_rows() - start) as u64) as usize;
            let taken = if take == batch.num_rows() {
                writer.write(batch, keys)?
            } else {
                writer.write(&batch.slice(start, take), &keys.slice(start, take))?
            };
            start += taken;
            // Rows that take much room may end it early.
            if (writer.row_count() >= segment_rows || taken < take)
                && let Some(writer) = self.writer.take()
            {
                self.finish_last()?;
                self.finishing = Some(spawn(move || writer.finish())?);
            }
        }
        Ok(())
    }

    /// Waits for the segment that is being completed.
    fn finish_last(&mut self) -> Result<()> {
        if let Some(thread) = self.finishing.take() {
            let meta = join(thread)?;
            self.add(meta);
        }
        Ok(())
    }

    fn add(&mut self, meta: SegmentMeta) {
        self.train_time += Duration::from_nanos(meta.train_nanos);
        self.done.push(pending_segment(&self.shared, meta, &self.shape));
    }

    fn finish(mut self) -> Result<Written> {
        self.finish_last()?;
        if let Some(writer) = self.writer.take() {
            let meta = writer.finish()?;
            self.add(meta);
        }
        Ok((std::mem::take(&mut self.done), self.train_time))
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        if let Some(thread) = self.finishing.take()
            && let Ok(Ok(meta)) = thread.join()
        {
            // Its files go when the segment is dropped.
            self.add(meta);
        }
    }
}

fn create(shared: &Shared, shape: &TableShape, compact: bool) -> Result<SegmentWriter> {
    let options = WriteOptions {
        row_group_rows: shared.options.row_group_rows,
        row_group_bytes: shared.options.row_group_bytes,
        key: shape.meta.key.clone(),
        compact,
        now_micros: shared.clock.now_micros(),
    };
    let id = SegmentId(shared.next_segment.fetch_add(1, Ordering::Relaxed));
    let schema = Arc::clone(&shape.stored_schema);
    let (table, codec) = (shape.meta.id, &shape.codec);
    SegmentWriter::create(&shared.store, table, id, schema, codec, &options)
}

/// A segment that is written and not committed.
fn pending_segment(shared: &Shared, meta: SegmentMeta, shape: &TableShape) -> SourceState {
    let segment = Segment::open(&shared.store, meta, &shape.codec);
    let file = SegmentFile::new(segment, Fate::Pending, &shared.garbage);
    SourceState::new(Source::Segment(Arc::new(file)))
}
