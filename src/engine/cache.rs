//! One cache under one byte budget for decoded columns, keys and footers.
//!
//! Eviction is S3-FIFO (Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023): new
//! entries enter a small queue of a tenth of the budget and reach the main queue only if they are used
//! again, or come back soon after they left. One scan therefore passes through the small queue and
//! leaves what is used often alone. A hit takes a shared lock of one shard and counts, no more.
//!
//! Values are shared by [`Arc`]: one in use outlives its eviction, and counts as used until then.

use std::any::Any;
use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};

use arrow::array::ArrayRef;
use parking_lot::{Condvar, Mutex, RwLock};

use super::error::{Error, Result};
use super::id::{FieldId, SegmentId};
use super::in_memory::check_may_read;

/// What of a segment an entry holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CachePart {
    /// Footer of the Parquet file and checksums of its blocks.
    Footer,
    /// What finds keys: model or fences.
    Keys,
    /// A chunk of the keys themselves.
    KeyChunk(u32),
    /// Filters of some chunks.
    KeyFilters(u32),
    /// A decoded column of one row group.
    Column {
        /// The row group.
        group: u32,
        /// The column.
        field: FieldId,
    },
}

/// Name of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CacheKey {
    /// The segment that the value was read from. Segments never change, so entries never go stale.
    pub segment: SegmentId,
    /// What of it.
    pub part: CachePart,
}

/// A value that the cache can hold.
pub trait Cached: Any + Send + Sync {
    /// Uses that did not pass through the cache, since this was last asked: of who keeps a way of its own to
    /// the value. Dropping the value is how the cache says that this way must end.
    fn take_uses(&self) -> u8 {
        0
    }
}

impl Cached for ArrayRef {}

type Value = Arc<dyn Cached>;
type Shard = RwLock<HashMap<CacheKey, Slot, BuildHasherDefault<KeyHasher>>>;

/// Hashes a few small numbers that no client chooses: every look-up of a key passes here.
#[derive(Debug, Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, n: u64) {
        let product = u128::from(self.0 ^ n ^ 0x9e37_79b9_7f4a_7c15) * 0xd6e8_feb8_6659_fd93;
        self.0 = (product >> 64) as u64 ^ product as u64;
    }

    fn write_u32(&mut self, n: u32) {
        self.write_u64(u64::from(n));
    }

    fn write_isize(&mut self, n: isize) {
        self.write_u64(n as u64);
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }
}

/// Uses are counted up to this.
const MAX_USES: u8 = 3;
/// An entry that leaves the small queue with at least this many uses moves to the main queue.
const PROMOTED_USES: u8 = 2;
const SHARD_COUNT: usize = 16;

struct Entry {
    value: Value,
    bytes: usize,
    uses: AtomicU8,
}

enum Slot {
    Ready(Entry),
    Loading(Arc<Flight>),
}

/// A load under way: whoever misses the same entry waits here instead of reading it again.
#[derive(Default)]
struct Flight {
    state: Mutex<FlightState>,
    done: Condvar,
}

#[derive(Default)]
enum FlightState {
    #[default]
    Pending,
    Loaded(Value),
    /// The loader has its error; those who waited try for themselves.
    Failed,
}

impl Flight {
    fn wait(&self) -> Option<Value> {
        let mut state = self.state.lock();
        loop {
            match &*state {
                FlightState::Pending => self.done.wait(&mut state),
                FlightState::Loaded(value) => return Some(Arc::clone(value)),
                FlightState::Failed => return None,
            }
        }
    }

    fn finish(&self, state: FlightState) {
        *self.state.lock() = state;
        self.done.notify_all();
    }
}

/// Keys in the order of their arrival; the values are in the shards. A key whose entry is gone is
/// passed over.
#[derive(Debug, Default)]
struct Queues {
    small: VecDeque<(CacheKey, usize)>,
    small_bytes: usize,
    main: VecDeque<(CacheKey, usize)>,
    /// What left the small queue unused, names only, of at most the budget's bytes together.
    ghost: VecDeque<(CacheKey, usize)>,
    ghost_set: HashSet<CacheKey>,
    ghost_bytes: usize,
}

/// How a cache has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CacheStats {
    /// Bytes held.
    pub used_bytes: usize,
    /// Bytes it may hold.
    pub budget_bytes: usize,
    /// Look-ups that found their entry. Keys in memory are found without one.
    pub hit_count: u64,
    /// Look-ups that had to load it.
    pub miss_count: u64,
}

/// A cache of immutable values, evicted by use; one scan does not push out what is used often.
pub struct Cache {
    budget_bytes: usize,
    used_bytes: AtomicUsize,
    hit_count: AtomicU64,
    miss_count: AtomicU64,
    shards: [Shard; SHARD_COUNT],
    /// Locked before a shard, never after.
    queues: Mutex<Queues>,
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Cache").field(&self.stats()).finish()
    }
}

/// The value as what its key says it is.
fn downcast<T: Cached>(value: Value) -> Result<Arc<T>> {
    let value: Arc<dyn Any + Send + Sync> = value;
    value
        .downcast()
        .map_err(|_| Error::internal("a cache entry has another type than its key says"))
}

impl Cache {
    /// A cache of at most `budget_bytes`.
    pub fn new(budget_bytes: usize) -> Self {
        Self {
            budget_bytes,
            used_bytes: AtomicUsize::new(0),
            hit_count: AtomicU64::new(0),
            miss_count: AtomicU64::new(0),
            shards: std::array::from_fn(|_| RwLock::default()),
            queues: Mutex::default(),
        }
    }

    /// Bytes held now.
    pub fn used_bytes(&self) -> usize {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// How it has done so far.
    pub fn stats(&self) -> CacheStats {
        CacheStats {
            used_bytes: self.used_bytes(),
            budget_bytes: self.budget_bytes,
            hit_count: self.hit_count.load(Ordering::Relaxed),
            miss_count: self.miss_count.load(Ordering::Relaxed),
        }
    }

    /// Whether the entry is there; not counted as a use.
    #[cfg(test)]
    pub(crate) fn contains(&self, key: &CacheKey) -> bool {
        matches!(self.shard(key).read().get(key), Some(Slot::Ready(_)))
    }

    /// The entry, if it is there.
    pub fn get<T: Cached>(&self, key: &CacheKey) -> Option<Arc<T>> {
        let value = match self.shard(key).read().get(key) {
            Some(Slot::Ready(entry)) => entry.used(),
            _ => return None,
        };
        self.hit_count.fetch_add(1, Ordering::Relaxed);
        downcast(value).ok()
    }

    /// The entry, loaded if it is not there. `load` gives the value and its bytes; it runs without any
    /// lock, and once for all threads that miss the entry meanwhile. What exceeds the budget by itself
    /// is returned and not kept.
    pub fn get_or_load<T: Cached>(
        &self,
        key: CacheKey,
        load: impl FnOnce() -> Result<(T, usize)>,
    ) -> Result<Arc<T>> {
        loop {
            if let Some(value) = self.get(&key) {
                return Ok(value);
            }
            check_may_read()?;
            match self.join(key) {
                Joined::Ready(value) => return downcast(value),
                Joined::Wait(flight) => {
                    if let Some(value) = flight.wait() {
                        return downcast(value);
                    }
                }
                Joined::Load(flight) => {
                    self.miss_count.fetch_add(1, Ordering::Relaxed);
                    let guard = Landing { cache: self, key, flight };
                    let (value, bytes) = load()?;
                    let value = Arc::new(value);
                    guard.land(Arc::<T>::clone(&value), bytes);
                    return Ok(value);
                }
            }
        }
    }

    /// Forgets all that belongs to a segment. A load under way is not kept when it ends.
    pub fn remove_segment(&self, segment: SegmentId) {
        let mut queues = self.queues.lock();
        let queues = &mut *queues;
        for shard in &self.shards {
            // Values are dropped when the shard is not locked any more.
            let gone: Vec<_> = shard.write().extract_if(|key, _| key.segment == segment).collect();
            for (_, slot) in gone {
                if let Slot::Ready(entry) = slot {
                    self.used_bytes.fetch_sub(entry.bytes, Ordering::Relaxed);
                }
            }
        }
        queues.main.retain(|(key, _)| key.segment != segment);
        queues.small.retain(|(key, bytes)| {
            let keep = key.segment != segment;
            queues.small_bytes -= if keep { 0 } else { *bytes };
            keep
        });
    }

    fn shard(&self, key: &CacheKey) -> &Shard {
        // Bits from the middle: the map itself goes by the lowest and the highest.
        let hash = BuildHasherDefault::<KeyHasher>::default().hash_one(key);
        &self.shards[(hash >> 32) as usize % SHARD_COUNT]
    }

    fn join(&self, key: CacheKey) -> Joined {
        let mut shard = self.shard(&key).write();
        match shard.get(&key) {
            Some(Slot::Ready(entry)) => Joined::Ready(entry.used()),
            Some(Slot::Loading(flight)) => Joined::Wait(Arc::clone(flight)),
            None => {
                let flight = Arc::<Flight>::default();
                shard.insert(key, Slot::Loading(Arc::clone(&flight)));
                Joined::Load(flight)
            }
        }
    }

    /// Puts the key of a new entry into its queue and evicts what no longer fits.
    fn enqueue(&self, key: CacheKey, bytes: usize) {
        let mut queues = self.queues.lock();
        if queues.ghost_set.remove(&key) {
            queues.main.push_back((key, bytes));
        } else {
            queues.small.push_back((key, bytes));
            queues.small_bytes += bytes;
        }
        // Uses fall by one a round; where they rise as fast, the oldest go all the same.
        let mut patience = usize::from(MAX_USES + 1) * (queues.small.len() + queues.main.len());
        while self.used_bytes() > self.budget_bytes && self.evict(&mut queues, patience == 0) {
            patience = patience.saturating_sub(1);
        }
    }

    /// One step of eviction, of an entry in use too if `hard`; `false` once both queues are empty.
    fn evict(&self, queues: &mut Queues, hard: bool) -> bool {
        let most = if hard { MAX_USES + 1 } else { 0 };
        if queues.small_bytes > self.budget_bytes / 10 || queues.main.is_empty() {
            let Some((key, bytes)) = queues.small.pop_front() else {
                return !queues.main.is_empty();
            };
            queues.small_bytes -= bytes;
            if self.remove_below(&key, most.max(PROMOTED_USES), |_| 0) {
                queues.remember(key, bytes, self.budget_bytes);
            } else {
                queues.main.push_back((key, bytes));
            }
        } else if let Some((key, bytes)) = queues.main.pop_front()
            && !self.remove_below(&key, most.max(1), |uses| uses - 1)
        {
            queues.main.push_back((key, bytes));
        }
        true
    }

    /// Removes an entry with fewer uses than `uses`; else its uses become `decay` of what they are and
    /// the result is `false`.
    fn remove_below(&self, key: &CacheKey, uses: u8, decay: impl Fn(u8) -> u8) -> bool {
        let mut shard = self.shard(key).write();
        let Some(Slot::Ready(entry)) = shard.get(key) else { return true };
        let elsewhere = entry.value.take_uses();
        let used = entry.uses.load(Ordering::Relaxed).saturating_add(elsewhere).min(MAX_USES);
        if used >= uses {
            entry.uses.store(decay(used), Ordering::Relaxed);
            return false;
        }
        self.used_bytes.fetch_sub(entry.bytes, Ordering::Relaxed);
        let removed = shard.remove(key);
        drop(shard);
        // Freeing a large value takes time: not under the lock.
        drop(removed);
        true
    }
}

impl Entry {
    fn used(&self) -> Value {
        // Two threads may count one use; the count only guides eviction.
        let uses = self.uses.load(Ordering::Relaxed);
        if uses < MAX_USES {
            self.uses.store(uses + 1, Ordering::Relaxed);
        }
        Arc::clone(&self.value)
    }
}

impl Queues {
    fn remember(&mut self, key: CacheKey, bytes: usize, limit_bytes: usize) {
        if self.ghost_set.insert(key) {
            self.ghost.push_back((key, bytes));
            self.ghost_bytes += bytes;
        }
        while self.ghost_bytes > limit_bytes {
            let Some((key, bytes)) = self.ghost.pop_front() else { break };
            self.ghost_bytes -= bytes;
            self.ghost_set.remove(&key);
        }
    }
}

enum Joined {
    Ready(Value),
    Wait(Arc<Flight>),
    Load(Arc<Flight>),
}

/// The duty of a loader: to tell those who wait, also when it fails or panics.
struct Landing<'a> {
    cache: &'a Cache,
    key: CacheKey,
    flight: Arc<Flight>,
}

impl Landing<'_> {
    fn land(self, value: Value, bytes: usize) {
        if bytes <= self.cache.budget_bytes {
            let mut shard = self.cache.shard(&self.key).write();
            // Gone if the segment was removed meanwhile.
            let ours = matches!(shard.get(&self.key),
                Some(Slot::Loading(flight)) if Arc::ptr_eq(flight, &self.flight));
            if ours {
                let entry = Entry { value: Arc::clone(&value), bytes, uses: AtomicU8::new(0) };
                shard.insert(self.key, Slot::Ready(entry));
                self.cache.used_bytes.fetch_add(bytes, Ordering::Relaxed);
                drop(shard);
                self.cache.enqueue(self.key, bytes);
            }
        }
        self.flight.finish(FlightState::Loaded(value));
    }
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        let mut shard = self.cache.shard(&self.key).write();
        if let Some(Slot::Loading(flight)) = shard.get(&self.key)
            && Arc::ptr_eq(flight, &self.flight)
        {
            shard.remove(&self.key);
        }
        drop(shard);
        let mut state = self.flight.state.lock();
        if matches!(*state, FlightState::Pending) {
            *state = FlightState::Failed;
            self.flight.done.notify_all();
        }
    }
}

#[cfg(test)]
#[path = "cache/tests.rs"]
mod tests;
