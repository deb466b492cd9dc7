//! What the server keeps for clients between two calls, for a while and within a budget: rows of RETURNING, and bound parameters.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use parking_lot::Mutex;
use tonic::Status;

use super::ticket::Id;

/// Batches of one schema.
#[derive(Debug)]
pub(crate) struct Batches {
    pub(crate) schema: SchemaRef,
    pub(crate) batches: Vec<RecordBatch>,
}

#[derive(Debug)]
struct Entry {
    batches: Arc<Batches>,
    bytes: usize,
    expires: Instant,
}

/// Batches by name, each until its lease ends. When the budget is short, those that would expire first go first.
#[derive(Debug)]
pub(crate) struct Kept {
    budget_bytes: usize,
    entries: Mutex<HashMap<Id, Entry>>,
}

impl Kept {
    pub(crate) fn new(budget_bytes: usize) -> Self {
        Self { budget_bytes, entries: Mutex::default() }
    }

    /// Keeps batches under `id` for `lease`.
    pub(crate) fn put(&self, id: Id, batches: Batches, lease: Duration) -> Result<(), Status> {
        let bytes =
            batches.batches.iter().map(RecordBatch::get_array_memory_size).sum::<usize>() + 1024;
        if bytes > self.budget_bytes {
            return Err(Status::resource_exhausted(format!(
                "{bytes} bytes of rows are too many to keep for the client; {} are allowed",
                self.budget_bytes
            )));
        }
        let mut entries = self.entries.lock();
        entries.remove(&id);
        let mut used: usize = entries.values().map(|e| e.bytes).sum();
        while used + bytes > self.budget_bytes {
            let first = entries.iter().min_by_key(|(_, e)| e.expires).map(|(id, _)| *id);
            let Some(entry) = first.and_then(|id| entries.remove(&id)) else { break };
            used -= entry.bytes;
        }
        let expires = Instant::now() + lease;
        entries.insert(id, Entry { batches: Arc::new(batches), bytes, expires });
        Ok(())
    }

    /// What is kept under `id`.
    pub(crate) fn get(&self, id: &Id) -> Option<Arc<Batches>> {
        let entries = self.entries.lock();
        let entry = entries.get(id).filter(|e| e.expires > Instant::now())?;
        Some(Arc::clone(&entry.batches))
    }

    /// Lets the lease of `id` begin anew; says whether there was something.
    pub(crate) fn renew(&self, id: &Id, lease: Duration) -> bool {
        let mut entries = self.entries.lock();
        let now = Instant::now();
        match entries.get_mut(id).filter(|e| e.expires > now) {
            Some(entry) => {
                entry.expires = now + lease;
                true
            }
            None => false,
        }
    }

    /// Forgets what is kept under `id`; says whether there was something.
    pub(crate) fn remove(&self, id: &Id) -> bool {
        self.entries.lock().remove(id).is_some()
    }

    /// Forgets what has expired.
    pub(crate) fn sweep(&self) {
        let now = Instant::now();
        self.entries.lock().retain(|_, e| e.expires > now);
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
