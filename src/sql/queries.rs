//! What runs: statements and loads, each with how far it is. They can be listed (`omendb.queries`) and are stopped by
//! request, by their time limit, or because their client is gone.
//!
//! A statement that changes something can be stopped until its commit begins; which of the two comes first is decided by one
//! exchange of an atomic, so a statement that was reported as stopped has left nothing.
//!
//! Who runs holds a place ([`super::admission`]). A result whose client does not read it gives up its place when others need it.

use std::collections::BTreeMap;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use arrow::array::RecordBatch;
use futures::stream::BoxStream;
use futures::{FutureExt, Stream, StreamExt};
use parking_lot::Mutex;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::admission::{Gate, Place};
use super::code::Code;
use super::error::{Error, Result};
use super::room::Room;

/// Bytes of a text that are listed.
const MAX_LISTED_BYTES: usize = 4096;

/// A result that was not read for so long gives its place to those that wait for one.
const UNREAD: Duration = Duration::from_secs(1);
/// How often those that wait look for one.
const LOOK: Duration = Duration::from_millis(250);

/// States of a query; those of [`Stop`] follow.
const RUNNING: u8 = 0;
const COMMITTING: u8 = 1;

/// Why something was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Stop {
    /// Somebody asked for it.
    Requested = 2,
    /// Its time limit is over.
    TimedOut,
    /// Whoever waited for it is gone.
    Abandoned,
}

impl Stop {
    fn of(state: u8) -> Option<Self> {
        [Self::Requested, Self::TimedOut, Self::Abandoned].into_iter().find(|s| *s as u8 == state)
    }

    fn error(self) -> Error {
        match self {
            Self::Requested => {
                Error::new(Code::QueryCanceled, "the statement was cancelled by request")
            }
            Self::TimedOut => Error::new(
                Code::StatementTimeout,
                "the statement ran out of time (statement_timeout)",
            ),
            Self::Abandoned => Error::new(
                Code::QueryCanceled,
                "the client gave the call up; nothing of it was kept",
            ),
        }
    }
}

/// A statement or load that runs.
#[derive(Debug)]
pub struct Query {
    id: u64,
    session: u64,
    application_name: Arc<str>,
    sql: String,
    begun: Instant,
    begun_at: SystemTime,
    state: AtomicU8,
    wake: CancellationToken,
    rows_to_read: AtomicU64,
    rows_read: AtomicU64,
    rows_returned: AtomicU64,
    /// What its rows come from, until their end.
    held: Mutex<Option<Held>>,
    /// Milliseconds after `begun` at which it gave rows that its client has not come back from; 0 while it is read.
    unread_since: AtomicU64,
    /// Where the rows of RETURNING are to be kept.
    room: OnceLock<Arc<dyn Room>>,
}

/// Rows to come, and the place that making them takes.
struct Held {
    rows: BoxStream<'static, Result<RecordBatch>>,
    /// None once others had more need of it.
    place: Option<Place>,
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Held")
    }
}

impl Query {
    /// Says where the rows of RETURNING are to be kept: it is asked for room before the statement commits.
    pub fn set_room(&self, room: Arc<dyn Room>) {
        let _ = self.room.set(room);
    }

    /// Where the rows of RETURNING are to be kept, if anybody cares.
    pub(crate) fn room(&self) -> Option<Arc<dyn Room>> {
        self.room.get().cloned()
    }

    /// Its number, which no other of this run of the server has.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The number of its session.
    pub(crate) fn session(&self) -> u64 {
        self.session
    }

    /// The name that its client gives itself.
    pub(crate) fn application_name(&self) -> &str {
        &self.application_name
    }

    /// Its text, cut off where it is very long.
    pub(crate) fn sql(&self) -> &str {
        &self.sql
    }

    pub(crate) fn begun_at(&self) -> SystemTime {
        self.begun_at
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    pub(crate) fn state(&self) -> &'static str {
        match self.state.load(Ordering::Acquire) {
            RUNNING => "running",
            COMMITTING => "committing",
            _ => "stopping",
        }
    }

    pub(crate) fn rows_to_read(&self) -> u64 {
        self.rows_to_read.load(Ordering::Relaxed)
    }

    pub(crate) fn rows_read(&self) -> u64 {
        self.rows_read.load(Ordering::Relaxed)
    }

    pub(crate) fn rows_returned(&self) -> u64 {
        self.rows_returned.load(Ordering::Relaxed)
    }

    /// The share of the rows to be read that has been, from 0 to 1: the index tells their number exactly before the first is
    /// read. `None` where no table is read.
    pub fn progress(&self) -> Option<f64> {
        let total = self.rows_to_read();
        (total > 0).then(|| (self.rows_read() as f64 / total as f64).min(1.0))
    }

    /// Counts rows that it is about to read.
    pub(crate) fn will_read(&self, rows: u64) {
        self.rows_to_read.fetch_add(rows, Ordering::Relaxed);
    }

    /// Counts rows that it has read.
    pub(crate) fn read(&self, rows: usize) {
        self.rows_read.fetch_add(rows as u64, Ordering::Relaxed);
    }

    /// Stops it; says whether that was not too late.
    pub(crate) fn stop(&self, why: Stop) -> bool {
        let first = self.exchange(RUNNING, why as u8).is_ok();
        if first {
            self.wake.cancel();
            // A client that does not read does not notice either: what its rows come from goes now. Whoever holds the lock is
            // reading, and will.
            let gone = match self.unread_since.load(Ordering::Relaxed) {
                0 => None,
                _ => self.held.try_lock().and_then(|mut held| held.take()),
            };
            drop(gone);
        }
        first
    }

    /// Stops it by request; says whether that was not too late.
    pub fn cancel(&self) -> bool {
        self.stop(Stop::Requested)
    }

    /// An error where it was stopped.
    pub(crate) fn check(&self) -> Result<()> {
        self.check_state(self.state.load(Ordering::Acquire))
    }

    /// From here on it cannot be stopped. An error where it was already.
    pub(crate) fn begin_commit(&self) -> Result<()> {
        self.exchange(RUNNING, COMMITTING).or_else(|state| self.check_state(state))
    }

    /// Lets it be stopped again: its commit met a conflict, and it runs anew.
    pub(crate) fn begin_again(&self) {
        if self.exchange(COMMITTING, RUNNING).is_ok() {
            self.rows_to_read.store(0, Ordering::Relaxed);
            self.rows_read.store(0, Ordering::Relaxed);
        }
    }

    fn exchange(&self, from: u8, to: u8) -> Result<(), u8> {
        let (success, failure) = (Ordering::AcqRel, Ordering::Acquire);
        self.state.compare_exchange(from, to, success, failure).map(|_| ())
    }

    fn check_state(&self, state: u8) -> Result<()> {
        Stop::of(state).map_or(Ok(()), |stop| Err(stop.error()))
    }

    fn error(&self) -> Error {
        let stop = Stop::of(self.state.load(Ordering::Acquire));
        stop.unwrap_or(Stop::Requested).error()
    }

    /// For how long its client has not come back from the last rows.
    fn unread(&self) -> Duration {
        match self.unread_since.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since => self.elapsed().saturating_sub(Duration::from_millis(since)),
        }
    }

    /// Ends when it is stopped.
    pub async fn stopped(&self) {
        self.wake.cancelled().await;
    }
}

/// All that runs in a database. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Queries(Arc<Registry>);

#[derive(Debug)]
struct Registry {
    gate: Gate,
    last: AtomicU64,
    running: Mutex<BTreeMap<u64, Arc<Query>>>,
}

impl Queries {
    /// Nothing runs yet; what does needs a place behind `gate`.
    pub(crate) fn new(gate: Gate) -> Self {
        Self(Arc::new(Registry { gate, last: AtomicU64::new(0), running: Mutex::default() }))
    }

    /// Waits for a place: results that nobody reads give theirs up.
    async fn enter(&self) -> Result<Place> {
        if let Some(place) = self.0.gate.try_enter() {
            return Ok(place);
        }
        let mut entered = pin!(self.0.gate.enter());
        loop {
            match tokio::time::timeout(LOOK, &mut entered).await {
                Ok(place) => return place,
                Err(_) => self.give_up_places(),
            }
        }
    }

    /// Frees the places of results that have not been read for a while. They compute nothing till they are read again, and then go
    /// on without a place: what they hold is bound by the memory for results, and their number by that of calls.
    fn give_up_places(&self) {
        for query in self.list() {
            if query.unread() > UNREAD
                // Where somebody has it, it is being read.
                && let Some(mut held) = query.held.try_lock()
                && let Some(held) = held.as_mut()
            {
                held.place = None;
            }
        }
    }

    /// Lists a statement or load until the answer is dropped.
    pub(crate) fn begin(
        &self,
        session: u64,
        application_name: &Arc<str>,
        sql: &str,
        limit: Option<Duration>,
    ) -> RunningQuery {
        let begun = Instant::now();
        let mut listed = sql.len().min(MAX_LISTED_BYTES);
        while !sql.is_char_boundary(listed) {
            listed -= 1;
        }
        let query = Arc::new(Query {
            id: self.0.last.fetch_add(1, Ordering::Relaxed) + 1,
            session,
            application_name: Arc::clone(application_name),
            sql: sql[..listed].to_owned(),
            begun,
            begun_at: SystemTime::now(),
            state: AtomicU8::new(RUNNING),
            wake: CancellationToken::new(),
            rows_to_read: AtomicU64::new(0),
            rows_read: AtomicU64::new(0),
            rows_returned: AtomicU64::new(0),
            room: OnceLock::new(),
            held: Mutex::default(),
            unread_since: AtomicU64::new(0),
        });
        self.0.running.lock().insert(query.id, Arc::clone(&query));
        let deadline = limit.and_then(|limit| begun.checked_add(limit));
        RunningQuery { queries: self.clone(), query, deadline, place: Mutex::default() }
    }

    /// What runs, oldest first.
    pub(crate) fn list(&self) -> Vec<Arc<Query>> {
        self.0.running.lock().values().cloned().collect()
    }

    /// Stops what has the number `id`.
    pub(crate) fn cancel(&self, id: u64) -> Result<()> {
        let query = self.0.running.lock().get(&id).cloned();
        let query = query.ok_or_else(|| {
            let message =
                format!("there is no query {id}, or it has ended; omendb.queries lists what runs");
            Error::new(Code::InvalidSqlStatementName, message)
        })?;
        if query.cancel() || query.state() == "stopping" {
            return Ok(());
        }
        let message = format!("query {id} is being committed and can not be cancelled any more");
        Err(Error::new(Code::InvalidTransactionState, message))
    }
}

/// A statement or load that is listed. Dropped, it is stopped and listed no more.
#[derive(Debug)]
pub struct RunningQuery {
    queries: Queries,
    query: Arc<Query>,
    deadline: Option<Instant>,
    place: Mutex<Option<Place>>,
}

impl Drop for RunningQuery {
    fn drop(&mut self) {
        self.query.stop(Stop::Abandoned);
        self.queries.0.running.lock().remove(&self.query.id);
    }
}

impl RunningQuery {
    /// What runs.
    pub fn query(&self) -> &Arc<Query> {
        &self.query
    }

    /// Waits for a place behind another gate than that of statements.
    pub(crate) async fn admit_by(&self, gate: &Gate) -> Result<Place> {
        let place = gate.enter().await?;
        *self.place.lock() = Some(place.clone());
        Ok(place)
    }

    /// Gives its place back: what comes next asks for its own.
    pub(crate) fn leave(&self) {
        self.place.lock().take();
    }

    /// Waits for its place among the statements that run, unless it has it. What it does on another thread holds the answer.
    pub(crate) async fn admit(&self) -> Result<Place> {
        let known = self.place.lock().clone();
        match known {
            Some(place) => Ok(place),
            None => {
                let place = self.queries.enter().await?;
                *self.place.lock() = Some(place.clone());
                Ok(place)
            }
        }
    }

    /// Waits for work that makes or changes something, until it is stopped. Work whose commit has begun is waited for.
    pub(crate) async fn wait<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let mut work = pin!(work);
        let stopped = async {
            match self.deadline {
                None => self.query.stopped().await,
                Some(deadline) => {
                    if tokio::time::timeout_at(deadline, self.query.stopped()).await.is_err()
                        && !self.query.stop(Stop::TimedOut)
                    {
                        self.query.stopped().await;
                    }
                }
            }
        };
        tokio::select! {
            biased;
            result = &mut work => result,
            () = stopped => {
                // What was done at the same moment has been done.
                work.now_or_never().unwrap_or_else(|| Err(self.query.error()))
            }
        }
    }

    /// The rows that it returns: they end with an error when it is stopped.
    pub(crate) fn rows(
        self,
        rows: BoxStream<'static, Result<RecordBatch>>,
    ) -> BoxStream<'static, Result<RecordBatch>> {
        let stopped = Box::pin(self.query.wake.clone().cancelled_owned());
        let limit = self.deadline.map(|deadline| Box::pin(tokio::time::sleep_until(deadline)));
        let place = self.place.lock().take();
        *self.query.held.lock() = Some(Held { rows, place });
        RunningRows { ended: false, stopped, limit, running: self }.boxed()
    }
}

/// The rows of a query that is listed.
struct RunningRows {
    ended: bool,
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
    limit: Option<Pin<Box<Sleep>>>,
    running: RunningQuery,
}

impl Stream for RunningRows {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.ended {
            return Poll::Ready(None);
        }
        let query = Arc::clone(&this.running.query);
        query.unread_since.store(0, Ordering::Relaxed);
        if this.limit.as_mut().is_some_and(|limit| limit.poll_unpin(cx).is_ready()) {
            query.stop(Stop::TimedOut);
        }
        let mut held = query.held.lock();
        let item = match held.as_mut().filter(|_| this.stopped.poll_unpin(cx).is_pending()) {
            Some(held) => futures::ready!(held.rows.poll_next_unpin(cx)),
            None => Some(Err(query.error())),
        };
        match &item {
            Some(Ok(batch)) => {
                query.rows_returned.fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
                let now = u64::try_from(query.elapsed().as_millis()).unwrap_or(u64::MAX);
                query.unread_since.store(now.max(1), Ordering::Relaxed);
            }
            Some(Err(_)) | None => {
                this.ended = true;
                let gone = held.take();
                drop(held);
                drop(gone);
            }
        }
        Poll::Ready(item)
    }
}

impl Drop for RunningRows {
    fn drop(&mut self) {
        let gone = self.running.query.held.lock().take();
        drop(gone);
    }
}

#[cfg(test)]
mod tests;
