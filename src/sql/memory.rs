//! The account of memory. `memory` is shared out once ([`Shares`]); what clients make the server hold is asked of a [`Budget`]
//! first, which has a limit, a queue and a clear error.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::code::Code;
use super::error::{Error, Result};

/// What `memory` is for, in bytes. The parts and what is under way between them stay below it and a few hundred MiB of code,
/// stacks and buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shares {
    /// Decoded columns and index blocks.
    pub cache: usize,
    /// Sorts, joins and aggregates of all queries together.
    pub queries: usize,
    /// Rows that all bulk loads together gather to sort.
    pub loads: usize,
    /// A table's recent writes.
    pub memtable: usize,
    /// Write sets kept to find conflicts.
    pub write_sets: usize,
    /// Messages of clients that are being received or wait for their turn.
    pub incoming: usize,
    /// Messages of loads as they are decoded and cast.
    pub decoding: usize,
    /// What clients may send before anybody asks for it: windows of flow control.
    pub windows: usize,
    /// Rows of RETURNING that wait for their client, and as much again for bound parameters.
    pub kept: usize,
    /// Messages of results that wait for their clients to read.
    pub results: usize,
    /// A row group that is being written, of each load and of what flushes and compacts.
    pub row_group: u64,
}

impl Shares {
    /// The shares of `memory`.
    pub fn of(memory: usize) -> Self {
        const MIB: usize = 1 << 20;
        Self {
            cache: memory / 2,
            queries: memory / 4,
            loads: (memory / 32 * 3).max(MIB),
            memtable: (memory / 32).max(MIB),
            write_sets: (memory / 32).clamp(MIB, 256 * MIB),
            incoming: (memory / 16).max(8 * MIB),
            decoding: (memory / 32).max(8 * MIB),
            windows: (memory / 32).max(4 * MIB),
            kept: (memory / 32).max(MIB),
            results: (memory / 16).max(8 * MIB),
            row_group: (memory / 32).clamp(4 * MIB, 256 * MIB) as u64,
        }
    }

    /// Bytes of one message at most, where `wanted` is what is set.
    pub fn message(memory: usize, wanted: usize) -> usize {
        wanted.min((memory / 4).max(1 << 20))
    }
}

/// Room is counted in units of so many bytes.
const UNIT: usize = 1 << 10;

/// A share of the memory, which is asked for room. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    what: &'static str,
    units: u32,
    room: Arc<Semaphore>,
    waiting: AtomicUsize,
    patience: Duration,
}

/// Room that was taken; dropped, it is free again.
#[derive(Debug)]
pub struct Reservation {
    _permit: OwnedSemaphorePermit,
}

/// Counts one who waits, for as long as it lives.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Budget {
    /// Room of `bytes` for `what`. Who asks waits for `patience` at most.
    pub fn new(what: &'static str, bytes: usize, patience: Duration) -> Self {
        let units = u32::try_from(bytes / UNIT).unwrap_or(u32::MAX).max(1);
        let room = Arc::new(Semaphore::new(units as usize));
        Self(Arc::new(Inner { what, units, room, waiting: AtomicUsize::new(0), patience }))
    }

    /// What is larger than the whole takes all of it, alone.
    fn units(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).clamp(1, self.0.units)
    }

    /// Takes room if there is some now.
    pub fn try_reserve(&self, bytes: usize) -> Option<Reservation> {
        let permit = Arc::clone(&self.0.room).try_acquire_many_owned(self.units(bytes)).ok()?;
        Some(Reservation { _permit: permit })
    }

    /// Waits for room. Those who came first get theirs first.
    pub async fn reserve(&self, bytes: usize) -> Result<Reservation> {
        if let Some(reservation) = self.try_reserve(bytes) {
            return Ok(reservation);
        }
        let inner = &*self.0;
        let _counted = Waiting::new(&inner.waiting);
        let permit = Arc::clone(&inner.room).acquire_many_owned(self.units(bytes));
        match tokio::time::timeout(inner.patience, permit).await {
            Ok(Ok(permit)) => Ok(Reservation { _permit: permit }),
            _ => Err(self.short(bytes)),
        }
    }

    /// Whether somebody waits for room.
    pub fn is_wanted(&self) -> bool {
        self.0.waiting.load(Ordering::Relaxed) > 0
    }

    /// Bytes that are free.
    pub fn free_bytes(&self) -> usize {
        self.0.room.available_permits() * UNIT
    }

    fn short(&self, bytes: usize) -> Error {
        let Inner { what, units, patience, .. } = &*self.0;
        let message = format!(
            "no room for {bytes} bytes of {what} within {patience:?}: they share {} MiB of --memory; try again later, send less at \
             once, or give the server more",
            (*units as usize * UNIT).div_ceil(1 << 20),
        );
        Error::new(Code::OutOfMemory, message)
    }
}

/// The budgets of a database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Memory {
    /// Messages that are being received.
    pub incoming: Budget,
    /// Messages of loads as they are decoded and cast. Who holds room here waits for no client.
    pub decoding: Budget,
    /// Windows of flow control.
    pub windows: Budget,
    /// Messages of results: a share each for those that are open.
    pub results: Shared,
}

impl Memory {
    /// The budgets within `shares`.
    pub fn new(shares: &Shares, patience: Duration) -> Self {
        Self {
            incoming: Budget::new("incoming messages", shares.incoming, patience),
            decoding: Budget::new("decoded messages", shares.decoding, 6 * patience),
            windows: Budget::new("windows of connections", shares.windows, patience),
            results: Shared::new(shares.results),
        }
    }
}

/// Memory that all who are there share evenly: nobody waits, and each makes do with its part. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Shared {
    bytes: usize,
    count: Arc<AtomicUsize>,
}

/// One of those who share.
#[derive(Debug)]
pub struct Sharer(Shared);

impl Shared {
    fn new(bytes: usize) -> Self {
        Self { bytes, count: Arc::default() }
    }

    /// What one more would have, in bytes.
    pub fn part_bytes(&self) -> usize {
        self.bytes / (self.count.load(Ordering::Relaxed) + 1)
    }

    /// One more.
    pub fn join(&self) -> Sharer {
        self.count.fetch_add(1, Ordering::Relaxed);
        Sharer(self.clone())
    }
}

impl Sharer {
    /// Its part at this moment, in bytes.
    pub fn bytes(&self) -> usize {
        self.0.bytes / self.0.count.load(Ordering::Relaxed).max(1)
    }
}

impl Drop for Sharer {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn room_is_taken_given_back_and_waited_for() {
        let budget = Budget::new("things", 10 << 10, Duration::from_millis(50));
        let first = budget.reserve(6 << 10).await.unwrap();
        assert!(budget.try_reserve(5 << 10).is_none());
        let error = budget.reserve(5 << 10).await.unwrap_err();
        assert!(error.message().contains("--memory"), "{error}");
        let waits = tokio::spawn({
            let budget = budget.clone();
            async move { budget.reserve(100 << 10).await.map(drop) }
        });
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(budget.is_wanted());
        drop(first);
        waits.await.unwrap().unwrap();
        assert_eq!(budget.free_bytes(), 10 << 10);
        assert!(!budget.is_wanted());
    }

    #[test]
    fn shares_stay_within_the_memory() {
        for memory in [64 << 20, 256 << 20, 1 << 30, 64 << 30] {
            let s = Shares::of(memory);
            let sum = s.cache
                + s.queries
                + s.loads
                + s.memtable
                + s.incoming
                + s.decoding
                + s.windows
                + 2 * s.kept
                + s.results;
            assert!(sum <= memory + memory / 8 + (24 << 20), "{memory}: {sum}");
        }
    }
}
