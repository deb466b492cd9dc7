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
    /// Its client has had it.
    taken: bool,
}

/// Values by name, each until its lease ends. Where the budget is short, those that were fetched already go first; what waits to
/// be fetched never goes before its lease ends, and what there is no room for is refused.
#[derive(Debug)]
pub(crate) struct Kept<T> {
    budget_bytes: usize,
    inner: Mutex<Inner<T>>,
}

#[derive(Debug)]
struct Inner<T> {
    entries: HashMap<Id, Entry<T>>,
    by_expiry: BTreeSet<(Instant, Id)>,
    /// Those of them that were fetched.
    taken: BTreeSet<(Instant, Id)>,
    /// Bytes of the entries, and room that is taken for entries to come.
    used_bytes: usize,
}

impl<T> Inner<T> {
    fn remove(&mut self, id: &Id) -> Option<Arc<T>> {
        let entry = self.entries.remove(id)?;
        self.by_expiry.remove(&(entry.expires, *id));
        self.taken.remove(&(entry.expires, *id));
        self.used_bytes -= entry.bytes;
        Some(entry.value)
    }

    /// Makes room for `bytes`, as far as there is something that may go. What goes is dropped after the lock.
    fn make_room(&mut self, bytes: usize, budget_bytes: usize, gone: &mut Vec<Arc<T>>) -> bool {
        let now = Instant::now();
        while self.used_bytes.saturating_add(bytes) > budget_bytes {
            let next = match self.remove_first(Some(now)) {
                Some(expired) => Some(expired),
                None => self.taken.first().map(|(_, id)| *id).and_then(|id| self.remove(&id)),
            };
            match next {
                Some(value) => gone.push(value),
                None => return false,
            }
        }
        true
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

impl<T> Inner<T> {
    fn insert(&mut self, id: Id, value: T, bytes: usize, lease: Duration) {
        let expires = Instant::now() + lease;
        self.by_expiry.insert((expires, id));
        self.entries.insert(id, Entry { value: Arc::new(value), bytes, expires, taken: false });
    }
}

impl<T: Keep + std::fmt::Debug + Send + Sync> sql::Room for Kept<T> {
    fn take(&self, bytes: usize) -> sql::Result<()> {
        let mut gone = Vec::new();
        let mut inner = self.inner.lock();
        let has_room = inner.make_room(bytes, self.budget_bytes, &mut gone);
        if has_room {
            inner.used_bytes += bytes;
        }
        drop(inner);
        drop(gone);
        if has_room {
            Ok(())
        } else {
            Err(sql::Error::new(Code::InsufficientResources, self.full(bytes)))
        }
    }

    fn give_back(&self, bytes: usize) {
        let mut inner = self.inner.lock();
        inner.used_bytes = inner.used_bytes.saturating_sub(bytes);
    }
}

impl<T: Keep> Kept<T> {
    pub(crate) fn new(budget_bytes: usize) -> Self {
        let inner = Inner {
            entries: HashMap::new(),
            by_expiry: BTreeSet::new(),
            taken: BTreeSet::new(),
            used_bytes: 0,
        };
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
        let mut gone = Vec::new();
        let mut inner = self.inner.lock();
        gone.extend(inner.remove(&id));
        let has_room = inner.make_room(bytes, self.budget_bytes, &mut gone);
        if has_room {
            inner.used_bytes += bytes;
            inner.insert(id, value, bytes, lease);
        }
        drop(inner);
        drop(gone);
        if has_room {
            Ok(())
        } else {
            Err(status::new(Code::InsufficientResources, self.full(bytes)))
        }
    }

    /// Keeps a value for which room was taken before: [`sql::Room::take`].
    pub(crate) fn put_held(&self, id: Id, value: T, lease: Duration, bytes: usize) {
        self.inner.lock().insert(id, value, bytes, lease);
    }

    fn full(&self, bytes: usize) -> String {
        format!(
            "there is no room to keep {bytes} bytes of {} for the client: {} of {} bytes wait to be fetched; retry",
            T::NAME,
            self.inner.lock().used_bytes,
            self.budget_bytes
        )
    }

    /// Notes that the client has had what is kept under `id`: it goes first where room is short.
    pub(crate) fn taken(&self, id: &Id) {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        if let Some(entry) = inner.entries.get_mut(id) {
            entry.taken = true;
            inner.taken.insert((entry.expires, *id));
        }
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
                inner.taken.remove(&(entry.expires, *id));
                entry.expires = now + lease;
                inner.by_expiry.insert((entry.expires, *id));
                if entry.taken {
                    inner.taken.insert((entry.expires, *id));
                }
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

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn what_waits_to_be_fetched_stays_and_what_was_fetched_gives_way() {
        let kept = Kept::new(100_000);
        kept.put([1; 16], rows(5000), MINUTE).unwrap();
        kept.put([2; 16], rows(5000), 2 * MINUTE).unwrap();
        let refused = kept.put([3; 16], rows(5000), MINUTE).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        assert!(kept.get(&[1; 16]).is_some() && kept.get(&[2; 16]).is_some());
        kept.taken(&[2; 16]);
        kept.put([3; 16], rows(5000), MINUTE).unwrap();
        assert!(kept.get(&[1; 16]).is_some() && kept.get(&[2; 16]).is_none());
        assert!(kept.put([4; 16], rows(60_000), MINUTE).is_err(), "more than all");
        assert!(kept.renew(&[1; 16], Duration::ZERO));
        assert!(kept.get(&[1; 16]).is_none(), "its lease has ended");
        kept.put([4; 16], rows(5000), MINUTE).unwrap();
    }

    #[test]
    fn room_is_taken_before_there_is_something_to_keep() {
        use crate::sql::Room;
        let kept = Kept::new(100_000);
        kept.take(60_000).unwrap();
        assert!(kept.put([1; 16], rows(7000), MINUTE).is_err());
        assert!(kept.take(50_000).is_err());
        kept.put_held([2; 16], rows(7000), MINUTE, 60_000);
        assert!(kept.take(50_000).is_err());
        kept.taken(&[2; 16]);
        kept.take(50_000).unwrap();
        assert!(kept.get(&[2; 16]).is_none());
        kept.give_back(50_000);
        kept.put([1; 16], rows(7000), MINUTE).unwrap();
    }
}
