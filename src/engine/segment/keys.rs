//! The keys of a segment: what finds them, and those of them that are in memory.
//!
//! The cache decides what stays in memory; readers do not ask it. They go through [`KeysInMemory`], a
//! pointer to an index whose chunks come one by one. What the cache evicts is taken out of that index by
//! replacing it with one that lacks it, so that nobody who reads is disturbed.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Weak};

use arc_swap::{ArcSwapOption, Guard};
use arrow::array::Array;
use parking_lot::Mutex;

use super::index_file::KEYS_OFFSET;
use crate::engine::cache::Cached;
use crate::engine::error::{Error, Result};
use crate::engine::index::{
    Builder, BuiltFilters, Chunk, Chunks, Filters, LearnedKeys, Missing, ModelStats, Probe,
    SparseBuilder, SparseKeys, hash_bytes, hash_number,
};
use crate::engine::key::{EncodedKey, KeyColumn, KeyForm};

/// Where a chunk lies in the index file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) offset: u64,
    pub(super) len: u32,
    pub(super) crc: u32,
}

/// The index over the keys of a segment.
#[derive(Debug, Clone)]
pub(super) enum KeyIndex {
    U64(LearnedKeys<u64>),
    U128(LearnedKeys<u128>),
    Bytes(SparseKeys),
}

macro_rules! each {
    ($self:expr, $keys:pat => $do:expr) => {
        match $self {
            KeyIndex::U64($keys) => $do,
            KeyIndex::U128($keys) => $do,
            KeyIndex::Bytes($keys) => $do,
        }
    };
}

impl KeyIndex {
    /// Of what [`KeyIndex::encode`] wrote, for chunks of these lengths.
    pub(super) fn decode(form: KeyForm, bytes: &[u8], lengths: &[u32]) -> Result<Self> {
        Ok(match form {
            KeyForm::U64 => Self::U64(LearnedKeys::decode_from(bytes, lengths)?),
            KeyForm::U128 => Self::U128(LearnedKeys::decode_from(bytes, lengths)?),
            KeyForm::Bytes => Self::Bytes(SparseKeys::decode_from(bytes, lengths)?),
        })
    }

    /// Appends model or fences, without the chunks.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        each!(self, keys => keys.encode(out));
    }

    pub(super) fn len(&self) -> usize {
        each!(self, keys => keys.len())
    }

    /// Size and precision of the model; zeros where there is none.
    pub(super) fn stats(&self) -> ModelStats {
        match self {
            Self::U64(keys) => keys.stats(),
            Self::U128(keys) => keys.stats(),
            Self::Bytes(_) => ModelStats::default(),
        }
    }

    fn chunks(&self) -> &Chunks {
        each!(self, keys => keys.chunks())
    }

    fn put(&self, i: usize, chunk: &Chunk) -> Result<()> {
        each!(self, keys => keys.put(i, chunk))
    }

    fn without_chunk(&self, chunk: usize) -> Self {
        match self {
            Self::U64(keys) => Self::U64(keys.without_chunk(chunk)),
            Self::U128(keys) => Self::U128(keys.without_chunk(chunk)),
            Self::Bytes(keys) => Self::Bytes(keys.without_chunk(chunk)),
        }
    }

    fn emptied(&self) -> Self {
        match self {
            Self::U64(keys) => Self::U64(keys.emptied()),
            Self::U128(keys) => Self::U128(keys.emptied()),
            Self::Bytes(keys) => Self::Bytes(keys.emptied()),
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::U64(a), Self::U64(b)) => a.is_same(b),
            (Self::U128(a), Self::U128(b)) => a.is_same(b),
            (Self::Bytes(a), Self::Bytes(b)) => a.is_same(b),
            _ => false,
        }
    }
}

/// Which chunks have filters, and where these lie in the index file.
#[derive(Debug)]
pub(super) struct SegmentFilters {
    pub(super) filters: Filters,
    pub(super) places: Box<[Place]>,
    /// Since the cache last asked.
    used: AtomicBool,
}

impl SegmentFilters {
    pub(super) fn new(filters: Filters, places: Vec<Place>) -> Self {
        Self { filters, places: places.into(), used: AtomicBool::new(false) }
    }

    /// Notes a use: who finds all he asks for in filters never touches a chunk, and needs the model all the same.
    pub(super) fn note_use(&self) {
        self.used.store(true, Ordering::Relaxed);
    }

    fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.filters.memory_bytes() + size_of_val(&*self.places)
    }
}

/// The index of a segment and where its chunks are.
#[derive(Debug, Clone)]
pub(super) struct SegmentKeys {
    pub(super) index: KeyIndex,
    pub(super) places: Arc<[Place]>,
    pub(super) filters: Option<Arc<SegmentFilters>>,
}

impl SegmentKeys {
    /// Memory without the chunks.
    pub(super) fn model_bytes(&self) -> usize {
        size_of::<Self>()
            + size_of_val(&*self.places)
            + each!(&self.index, keys => keys.model_bytes())
            + self.filters.as_ref().map_or(0, |filters| filters.memory_bytes())
    }

    /// Brings chunk `i` into memory.
    pub(super) fn put(&self, i: usize, chunk: &Chunk) -> Result<()> {
        self.index.put(i, chunk)
    }

    /// The chunks that are in memory.
    pub(super) fn resident(&self) -> impl Iterator<Item = (usize, Chunk)> {
        let chunks = self.index.chunks();
        (0..chunks.len()).filter_map(|i| chunks.slot(i).map(|chunk| (i, chunk)))
    }

    /// The same index with no chunk in memory.
    pub(super) fn emptied(&self) -> Self {
        self.with_index(self.index.emptied())
    }

    fn with_index(&self, index: KeyIndex) -> Self {
        let (places, filters) = (Arc::clone(&self.places), self.filters.clone());
        Self { index, places, filters }
    }

    fn is_same(&self, other: &Self) -> bool {
        self.index.is_same(&other.index)
    }

    /// The chunk that has a key, if any has; `None` where that is not known without chunks.
    pub(super) fn chunk_of(&self, key: KeyRef<'_>) -> Option<KeyChunk> {
        let (chunk, bits) = match (&self.index, key) {
            (KeyIndex::U64(keys), KeyRef::U64(key)) => keys.chunk_of(key)?,
            (KeyIndex::U128(keys), KeyRef::U128(key)) => keys.chunk_of(key)?,
            (KeyIndex::Bytes(keys), KeyRef::Bytes(key)) => (keys.chunk_of(key)?, 0),
            _ => return None,
        };
        Some(KeyChunk { chunk, bits })
    }

    /// Whether a chunk is in memory.
    pub(super) fn has(&self, at: KeyChunk) -> bool {
        self.index.chunks().has(at.chunk)
    }

    /// What tells whether a key may be in its chunk.
    pub(super) fn probe(&self, at: KeyChunk, key: KeyRef<'_>) -> Option<Probe> {
        self.filters.as_ref()?.filters.probe(at.chunk, at.bits, || match key {
            KeyRef::U64(key) => hash_number(key),
            KeyRef::U128(key) => hash_number(key),
            KeyRef::Bytes(key) => hash_bytes(key),
        })
    }
}

/// A chunk that has a key, if any has.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeyChunk {
    pub(super) chunk: usize,
    /// Bits that a key takes there.
    bits: u32,
}

/// A key, not owned.
#[derive(Debug, Clone, Copy)]
pub(super) enum KeyRef<'a> {
    U64(u64),
    U128(u128),
    Bytes(&'a [u8]),
}

impl<'a> KeyRef<'a> {
    pub(super) fn new(key: &'a EncodedKey) -> Self {
        match key {
            EncodedKey::U64(key) => Self::U64(*key),
            EncodedKey::U128(key) => Self::U128(*key),
            EncodedKey::Bytes(key) => Self::Bytes(key),
        }
    }

    pub(super) fn at(keys: &'a KeyColumn, i: usize) -> Self {
        match keys {
            KeyColumn::U64(keys) => Self::U64(keys[i]),
            KeyColumn::U128(keys) => Self::U128(keys[i]),
            KeyColumn::Bytes(keys) => Self::Bytes(keys.value(i)),
        }
    }
}

/// Makes the index of keys as they come.
#[derive(Debug)]
pub(super) enum KeysBuilder {
    U64(Builder<u64>),
    U128(Builder<u128>),
    Bytes(SparseBuilder),
}

impl KeysBuilder {
    pub(super) fn new(form: KeyForm) -> Self {
        match form {
            KeyForm::U64 => Self::U64(Builder::with_filters()),
            KeyForm::U128 => Self::U128(Builder::with_filters()),
            KeyForm::Bytes => Self::Bytes(SparseBuilder::with_filters()),
        }
    }

    /// Takes in the next keys: ascending, none below those before.
    pub(super) fn push(&mut self, keys: &KeyColumn) -> Result<()> {
        match (self, keys) {
            (Self::U64(builder), KeyColumn::U64(keys)) => builder.push(keys),
            (Self::U128(builder), KeyColumn::U128(keys)) => builder.push(keys),
            (Self::Bytes(builder), KeyColumn::Bytes(keys)) => {
                for i in 0..keys.len() {
                    builder.push(keys.value(i))?;
                }
            }
            _ => return Err(Error::internal("keys of another form than their segment's")),
        }
        Ok(())
    }

    /// The chunks that were completed since they were last taken, in order.
    pub(super) fn take_chunks(&mut self) -> Vec<Vec<u8>> {
        match self {
            Self::U64(builder) => builder.take_chunks(),
            Self::U128(builder) => builder.take_chunks(),
            Self::Bytes(builder) => builder.take_chunks(),
        }
    }

    /// The index, no chunk of which is in memory, the last chunks, and the filters.
    pub(super) fn finish(self) -> (KeyIndex, Vec<Vec<u8>>, Option<BuiltFilters>) {
        match self {
            Self::U64(builder) => {
                let (keys, chunks, filters) = builder.finish_with_filters();
                (KeyIndex::U64(keys), chunks, filters)
            }
            Self::U128(builder) => {
                let (keys, chunks, filters) = builder.finish_with_filters();
                (KeyIndex::U128(keys), chunks, filters)
            }
            Self::Bytes(builder) => {
                let (keys, chunks, filters) = builder.finish_with_filters();
                (KeyIndex::Bytes(keys), chunks, filters)
            }
        }
    }
}

/// Why a search of an index has no answer.
#[derive(Debug)]
pub(super) enum Stop {
    /// It needs this chunk.
    Missing(usize),
    /// The key is of another form than the index.
    WrongForm,
}

impl From<Missing> for Stop {
    fn from(missing: Missing) -> Self {
        Self::Missing(missing.chunk)
    }
}

/// The way of readers to the keys of one segment.
#[derive(Debug, Default)]
pub(super) struct KeysInMemory {
    current: ArcSwapOption<SegmentKeys>,
    /// Held while `current` or its chunks change. Nothing else is locked, or waited for, under it.
    change: Mutex<()>,
}

impl KeysInMemory {
    /// The index, if it is in memory.
    #[inline]
    pub(super) fn load(&self) -> Guard<Option<Arc<SegmentKeys>>> {
        self.current.load()
    }

    /// Makes `keys` the index that readers find, unless they have one of the same model.
    fn install(&self, keys: Arc<SegmentKeys>) -> Arc<SegmentKeys> {
        let _changing = self.change.lock();
        match self.current.load_full() {
            Some(current) if current.is_same(&keys) => current,
            _ => {
                self.current.store(Some(Arc::clone(&keys)));
                keys
            }
        }
    }

    fn put(&self, keys: &SegmentKeys, i: usize, chunk: &Chunk) -> Result<()> {
        let _changing = self.change.lock();
        match &*self.current.load() {
            Some(current) if current.is_same(keys) => current.put(i, chunk),
            _ => Ok(()),
        }
    }

    fn forget_chunk(&self, i: usize, chunk: &Chunk) {
        let _changing = self.change.lock();
        let Some(current) = self.current.load_full() else { return };
        let chunks = current.index.chunks();
        if i < chunks.len() && chunks.slot(i).is_some_and(|own| own.is_same(chunk)) {
            let keys = current.with_index(current.index.without_chunk(i));
            self.current.store(Some(Arc::new(keys)));
        }
    }

    fn forget(&self, keys: &SegmentKeys) {
        let _changing = self.change.lock();
        if self.current.load().as_ref().is_some_and(|current| current.is_same(keys)) {
            self.current.store(None);
        }
    }
}

/// Who reads a cached value without asking the cache.
#[derive(Debug, Default)]
struct Holders(Mutex<Vec<Weak<KeysInMemory>>>);

impl Holders {
    fn add(&self, holder: &Arc<KeysInMemory>) {
        let mut holders = self.0.lock();
        if !holders.iter().any(|h| std::ptr::eq(h.as_ptr(), Arc::as_ptr(holder))) {
            holders.retain(|h| h.strong_count() > 0);
            holders.push(Arc::downgrade(holder));
        }
    }

    fn all(&self) -> Vec<Arc<KeysInMemory>> {
        self.0.lock().iter().filter_map(Weak::upgrade).collect()
    }
}

/// Model or fences, as the cache holds them: dropped, readers must load them again.
#[derive(Debug)]
pub(super) struct CachedModel {
    /// Without chunks.
    keys: SegmentKeys,
    holders: Holders,
}

impl CachedModel {
    pub(super) fn new(keys: SegmentKeys) -> Self {
        Self { keys, holders: Holders::default() }
    }

    /// Shows the index to the readers of `memory`.
    pub(super) fn install(&self, memory: &Arc<KeysInMemory>) -> Arc<SegmentKeys> {
        self.holders.add(memory);
        memory.install(Arc::new(self.keys.emptied()))
    }
}

impl Cached for CachedModel {
    /// A model is in use as long as one of its chunks is, or its filters are.
    fn take_uses(&self) -> u8 {
        let filters = self.keys.filters.as_ref();
        if filters.is_some_and(|filters| filters.used.swap(false, Ordering::Relaxed)) {
            return u8::MAX;
        }
        let used = |holder: &Arc<KeysInMemory>| {
            let current = holder.load();
            current
                .as_ref()
                .is_some_and(|keys| keys.is_same(&self.keys) && keys.index.chunks().any_used())
        };
        if self.holders.all().iter().any(used) { u8::MAX } else { 0 }
    }
}

impl Drop for CachedModel {
    fn drop(&mut self) {
        for holder in self.holders.all() {
            holder.forget(&self.keys);
        }
    }
}

/// A chunk of keys as the cache holds it: dropped, readers must load it again.
#[derive(Debug)]
pub(super) struct CachedChunk {
    number: usize,
    chunk: Chunk,
    holders: Holders,
}

impl CachedChunk {
    pub(super) fn new(number: usize, chunk: Chunk) -> Self {
        Self { number, chunk, holders: Holders::default() }
    }

    /// Shows it to the readers of `memory`, and to whoever has `keys`.
    pub(super) fn install(&self, memory: &Arc<KeysInMemory>, keys: &SegmentKeys) -> Result<()> {
        self.holders.add(memory);
        keys.put(self.number, &self.chunk)?;
        memory.put(keys, self.number, &self.chunk)
    }
}

impl Cached for CachedChunk {
    fn take_uses(&self) -> u8 {
        let uses = |holder: &Arc<KeysInMemory>| match &*holder.load() {
            Some(keys) => keys.index.chunks().take_uses(self.number),
            None => 0,
        };
        self.holders.all().iter().map(uses).max().unwrap_or_default()
    }
}

impl Drop for CachedChunk {
    fn drop(&mut self) {
        for holder in self.holders.all() {
            holder.forget_chunk(self.number, &self.chunk);
        }
    }
}

/// Filters of some chunks as the cache holds them.
#[derive(Debug)]
pub(super) struct CachedFilters {
    pub(super) bytes: Vec<u8>,
    /// Since the cache last asked: the cache itself is asked once for many keys.
    used: AtomicU8,
}

impl CachedFilters {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, used: AtomicU8::new(0) }
    }

    /// Notes that a key is looked for here.
    pub(super) fn note_use(&self) {
        // Two threads may count one use; the count only guides eviction.
        let used = self.used.load(Ordering::Relaxed);
        self.used.store(used.saturating_add(1), Ordering::Relaxed);
    }
}

impl Cached for CachedFilters {
    fn take_uses(&self) -> u8 {
        self.used.swap(0, Ordering::Relaxed)
    }
}

/// The index of all keys of a segment, its chunks and its filters, made in memory.
pub(super) struct Built {
    index: KeyIndex,
    chunks: Vec<Vec<u8>>,
    filters: Option<BuiltFilters>,
}

impl Built {
    /// Of keys that come in order.
    pub(super) fn of(
        form: KeyForm,
        parts: impl IntoIterator<Item = Result<KeyColumn>>,
    ) -> Result<Self> {
        let mut builder = KeysBuilder::new(form);
        for part in parts {
            builder.push(&part?)?;
        }
        let mut chunks = builder.take_chunks();
        let (index, last, filters) = builder.finish();
        chunks.extend(last);
        Ok(Self { index, chunks, filters })
    }

    pub(super) fn index(&self) -> &KeyIndex {
        &self.index
    }

    pub(super) fn chunks(&self) -> impl Iterator<Item = &[u8]> {
        self.chunks.iter().map(Vec::as_slice)
    }

    pub(super) fn filters(&self) -> Option<&BuiltFilters> {
        self.filters.as_ref()
    }

    /// The index with all its chunks.
    pub(super) fn into_keys(self) -> Result<SegmentKeys> {
        let mut offset = KEYS_OFFSET;
        let mut place = |bytes: &[u8]| {
            let place = Place { offset, len: bytes.len() as u32, crc: crc32c::crc32c(bytes) };
            offset += bytes.len() as u64;
            place
        };
        let places = self.chunks.iter().map(|chunk| place(chunk)).collect();
        let filters = self.filters.map(|built| {
            let places = built.parts.iter().map(|part| place(part)).collect();
            Arc::new(SegmentFilters::new(built.filters, places))
        });
        for (i, chunk) in self.chunks.into_iter().enumerate() {
            self.index.put(i, &Chunk::new(&chunk))?;
        }
        Ok(SegmentKeys { index: self.index, places, filters })
    }
}
