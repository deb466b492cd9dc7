//! What the server keeps for clients between two calls, for a while and within a budget: rows of RETURNING, bound parameters,
//! and what queries in transactions read.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use parking_lot::Mutex;
use tonic::Status;

use super::status;
use super::ticket::Id;
use crate::sql::{self, Code};

/// What may be kept.
pub(crate) trait Keep {
    /// Its name in messages.
    const NAME: &'static str;

    /// Its share of the budget.
    fn bytes(&self) -> usize;
}

/// Batches of one schema.
#[derive(Debug)]
pub(crate) struct Batches {
    pub(crate) schema: SchemaRef,
    pub(crate) batches: Vec<RecordBatch>,
}

impl Keep for Batches {
    const NAME: &'static str = "rows";

    fn bytes(&self) -> usize {
        self.batches.iter().map(RecordBatch::get_array_memory_size).sum::<usize>() + 1024
    }
}

impl Keep for sql::Pinned {
    const NAME: &'static str = "snapshots";

    /// It shares nearly all that it holds.
    fn bytes(&self) -> usize {
        1024
    }
}

#[derive(Debug)]
struct Entry<T> {
    value: Arc<T>,
    bytes: usize,
    expires: Instant,
}

/// Values by name, each until its lease ends. When the budget is short, those that would expire first go first.
#[derive(Debug)]
pub(crate) struct Kept<T> {
    budget_bytes: usize,
    inner: Mutex<Inner<T>>,
}

#[derive(Debug)]
struct Inner<T> {
    entries: HashMap<Id, Entry<T>>,
    by_expiry: BTreeSet<(Instant, Id)>,
    used_bytes: usize,
}

impl<T> Inner<T> {
    fn remove(&mut self, id: &Id) -> Option<Arc<T>> {
        let entry = self.entries.remove(id)?;
        self.by_expiry.remove(&(entry.expires, *id));
        self.used_bytes -= entry.bytes;
        Some(entry.value)
    }

    /// Takes out what expires first, if that is before `limit`.
    fn remove_first(&mut self, limit: Option<Instant>) -> Option<Arc<T>> {
        let (expires, id) = *self.by_expiry.first()?;
        if limit.is_some_and(|limit| expires > limit) {
            return None;
        }
        self.remove(&id)
    }
}

impl<T: Keep> Kept<T> {
    pub(crate) fn new(budget_bytes: usize) -> Self {
        let inner = Inner { entries: HashMap::new(), by_expiry: BTreeSet::new(), used_bytes: 0 };
        Self { budget_bytes, inner: Mutex::new(inner) }
    }

    /// Keeps a value under `id` for `lease`.
    pub(crate) fn put(&self, id: Id, value: T, lease: Duration) -> Result<(), Status> {
        let bytes = value.bytes();
        if bytes > self.budget_bytes {
            return Err(status::new(
                Code::ConfigurationLimitExceeded,
                format!(
                    "{bytes} bytes of {} are too many to keep for the client; {} are allowed",
                    T::NAME,
                    self.budget_bytes
                ),
            ));
        }
        let expires = Instant::now() + lease;
        // What goes is dropped after the lock.
        let mut gone = Vec::new();
        let mut inner = self.inner.lock();
        gone.extend(inner.remove(&id));
        while inner.used_bytes + bytes > self.budget_bytes {
            let Some(first) = inner.remove_first(None) else { break };
            gone.push(first);
        }
        inner.used_bytes += bytes;
        inner.by_expiry.insert((expires, id));
        inner.entries.insert(id, Entry { value: Arc::new(value), bytes, expires });
        drop(inner);
        drop(gone);
        Ok(())
    }

    /// What is kept under `id`.
    pub(crate) fn get(&self, id: &Id) -> Option<Arc<T>> {
        let inner = self.inner.lock();
        let entry = inner.entries.get(id).filter(|e| e.expires > Instant::now())?;
        Some(Arc::clone(&entry.value))
    }

    /// Lets the lease of `id` begin anew; says whether there was something.
    pub(crate) fn renew(&self, id: &Id, lease: Duration) -> bool {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        let now = Instant::now();
        match inner.entries.get_mut(id).filter(|e| e.expires > now) {
            Some(entry) => {
                inner.by_expiry.remove(&(entry.expires, *id));
                entry.expires = now + lease;
                inner.by_expiry.insert((entry.expires, *id));
                true
            }
            None => false,
        }
    }

    /// Forgets what is kept under `id`; says whether there was something.
    pub(crate) fn remove(&self, id: &Id) -> bool {
        let gone = self.inner.lock().remove(id);
        gone.is_some()
    }

    /// Forgets what has expired.
    pub(crate) fn sweep(&self) {
        let now = Instant::now();
        let mut gone = Vec::new();
        let mut inner = self.inner.lock();
        while let Some(expired) = inner.remove_first(Some(now)) {
            gone.push(expired);
        }
        drop(inner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array};

    fn rows(count: i64) -> Batches {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..count));
        let batch = RecordBatch::try_from_iter([("k", column)]).unwrap();
        Batches { schema: batch.schema(), batches: vec![batch] }
    }

    #[test]
    fn what_expires_first_gives_way_and_too_much_is_refused() {
        let kept = Kept::new(100_000);
        let minute = Duration::from_secs(60);
        kept.put([1; 16], rows(7000), minute).unwrap();
        kept.put([2; 16], rows(7000), 2 * minute).unwrap();
        assert!(kept.get(&[1; 16]).is_none());
        assert!(kept.get(&[2; 16]).is_some());
        assert!(kept.put([3; 16], rows(60_000), minute).is_err());
        assert!(kept.renew(&[2; 16], Duration::ZERO));
        assert!(kept.get(&[2; 16]).is_none(), "its lease has ended");
    }
}
