//! Who may work. Statements, planning and loads each have a number of places; who finds none waits in line, and gets a clear
//! error when that takes too long or the line is too long.
//!
//! What holds a place never waits for one of the same kind, nor for another statement's transaction, so places come free by
//! themselves. What waits for its client gives its place up where others need it ([`super::queries`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::code::Code;
use super::error::{Error, Result};

/// In line for one kind of place at most.
const MAX_WAITING: usize = 16 * 1024;

/// Places for one kind of work. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Gate(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    what: &'static str,
    option: &'static str,
    count: usize,
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
    patience: Duration,
}

/// A place; it is free again when the last clone is dropped: whoever asked for the work may be gone before it ends.
#[derive(Debug, Clone)]
pub struct Place {
    _permit: Arc<OwnedSemaphorePermit>,
}

impl Gate {
    /// Places for `count` of `what`, as the setting `option` says. Who finds none waits for `patience` at most.
    pub fn new(what: &'static str, option: &'static str, count: usize, patience: Duration) -> Self {
        let count = count.clamp(1, Semaphore::MAX_PERMITS);
        let places = Arc::new(Semaphore::new(count));
        let waiting = AtomicUsize::new(0);
        Self(Arc::new(Inner { what, option, count, places, waiting, patience }))
    }

    /// A place if one is free and nobody waits for it.
    pub fn try_enter(&self) -> Option<Place> {
        let permit = Arc::clone(&self.0.places).try_acquire_owned().ok()?;
        Some(Place { _permit: Arc::new(permit) })
    }

    /// Waits for a place, first come, first served.
    pub async fn enter(&self) -> Result<Place> {
        if let Some(place) = self.try_enter() {
            return Ok(place);
        }
        let inner = &*self.0;
        let _counted = Counted::new(&inner.waiting);
        if inner.waiting.load(Ordering::Relaxed) > MAX_WAITING {
            return Err(self.full("and too many wait for a place"));
        }
        let permit = Arc::clone(&inner.places).acquire_owned();
        match tokio::time::timeout(inner.patience, permit).await {
            Ok(Ok(permit)) => Ok(Place { _permit: Arc::new(permit) }),
            _ => Err(self.full(&format!("and none ended within {:?}", inner.patience))),
        }
    }

    /// Whether somebody waits for a place.
    pub(crate) fn is_wanted(&self) -> bool {
        self.0.waiting.load(Ordering::Relaxed) > 0
    }

    fn full(&self, why: &str) -> Error {
        let Inner { what, option, count, .. } = &*self.0;
        let message = format!("too many {what}: {count} run ({option}), {why}; try again later");
        Error::new(Code::TooManyConnections, message)
    }
}

/// Counts one for as long as it lives.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The gates of a database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Admission {
    /// Statements that run, but for short reads by the key.
    pub(crate) statements: Gate,
    /// Queries of the system's own tables: what runs must be seen when nothing else can run.
    pub(crate) system: Gate,
    /// What is short: planning, and reads of a few rows by the key.
    pub(crate) short: Gate,
    /// Constants, which must not wait for planning either.
    pub(crate) constants: Gate,
    /// Ends of transactions. They are never refused: who is kept from ending one would hold on to what it holds.
    pub(crate) endings: Gate,
    /// Bulk loads.
    pub(crate) loads: Gate,
}

/// Queries of the system's own tables at once.
const SYSTEM: usize = 8;
/// Threads that plan or read a few rows at once.
const SHORT: usize = 64;
/// Transactions that end at once: their commits are gathered into groups.
const ENDINGS: usize = 256;

impl Admission {
    /// Places for so many statements and loads at once.
    pub(crate) fn new(max_statements: usize, max_loads: usize, patience: Duration) -> Self {
        let day = Duration::from_secs(24 * 3600);
        Self {
            statements: Gate::new("statements", "max_statements", max_statements, patience),
            system: Gate::new("queries of system tables", "fixed", SYSTEM, patience),
            constants: Gate::new("constants", "fixed", SHORT, patience),
            short: Gate::new("statements being planned", "fixed", SHORT, patience),
            endings: Gate::new("transactions being ended", "fixed", ENDINGS, day),
            loads: Gate::new("loads", "max_loads", max_loads, patience),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_finds_no_place_waits_and_is_told() {
        let gate = Gate::new("things", "max_things", 2, Duration::from_millis(50));
        let first = gate.enter().await.unwrap();
        let _second = gate.enter().await.unwrap();
        assert!(gate.try_enter().is_none());
        let error = gate.enter().await.unwrap_err();
        assert!(error.message().starts_with("too many things: 2 run (max_things)"), "{error}");
        let waits = tokio::spawn({
            let gate = gate.clone();
            async move { gate.enter().await.map(drop) }
        });
        tokio::task::yield_now().await;
        drop(first);
        waits.await.unwrap().unwrap();
    }
}
