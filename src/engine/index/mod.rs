//! The learned index: sorted keys in, exact positions out. No I/O.
//!
//! ```text
//! key ─► root: tables over the key range      (root.rs)   which leaf
//!     ─► leaf: a line, first + slope × i      (leaf.rs)   which few rows
//!     ─► residuals: key(i) − line(i), packed  (bits.rs)   which row, exactly
//! ```
//!
//! The model is the compression as well: a key is its leaf's line plus a residual of as few bits as the
//! leaf needs, readable at any row. So the width of the residuals bounds the rows that a key can be at,
//! and no error bound is stored. Line and samples are hints all the same: a lookup compares the keys around
//! its answer, and searches on where they refute it. `docs/learned-index.md` has the reasons and figures.
//!
//! Keys of other forms, which are bytes, have a [`SparseKeys`] instead: blocks of keys and a fence before
//! each (`sparse.rs`).
//!
//! Model and fences are always in memory; the keys come in [`Chunks`], which may be in memory or not. A
//! search that needs one that is not says so ([`Missing`]); its owner reads it and asks again.
//!
//! ```
//! use omendb::engine::index::LearnedKeys;
//!
//! let keys = LearnedKeys::<u64>::build(&[10, 20, 20, 30]);
//! assert_eq!(keys.lower_bound(20), Ok(1));
//! assert_eq!(keys.upper_bound(20), Ok(3));
//! assert_eq!(keys.find(31), Ok((4, false)));
//! assert_eq!(keys.get(3), Ok(30));
//! ```
//!
//! # Format
//!
//! All numbers are little endian. `K` is 8 (`u64` keys) or 16 (`u128`). The model:
//!
//! | bytes | what |
//! |---|---|
//! | 0..4 | `OLRN` |
//! | 4..6 | format version, 5 |
//! | 6..8 | `K` |
//! | 8..12 | number of keys, *n* |
//! | 12..16 | number of leaves, *m*; 0 only if *n* is |
//! | 16..24 | largest error of the model, in rows |
//! | 24..32 | its mean error over all keys, in rows, a float of 64 bits |
//! | then *m* times `K` | first keys of the leaves, ascending |
//! | then *m* times 64 | the leaves |
//!
//! A leaf:
//!
//! | bytes | what |
//! |---|---|
//! | 0..4 | position of its first key |
//! | 4..8 | where its residuals are: chunk (20 bits), and the word of it where they begin (12) |
//! | 8..12 | mantissa *s* of its line |
//! | 12 | exponent *e* |
//! | 13 | residual width *b* |
//! | 14 | bias *c* |
//! | 15 | kind (low 2 bits) and its argument *a* |
//! | 16..64 | samples or breaks, and the number of keys |
//!
//! Key *i* of a leaf is first + line(*i*) + residual(*i*) − (*c* × 2^*b* >> 8), modulo the range of
//! keys. line(*i*) is *s* × *i* >> *e* where *e* is below 64, and *s* × *i* << (*e* − 128) where it is
//! 128 or more. residual(*i*) is the *b* bits from bit *b* × *i* on from the leaf's first word; *b* is
//! at most 56, or 120 for `u128`, or all bits of a key. The root is not stored, it is rebuilt from the
//! first keys.
//!
//! Kind 0 and 1: 8 or 16 rows hold any window of the leaf, a row before it and one after it. Kind 2: the leaf
//! has samples. Kind 3, of `u128` only: keys span more than 62 bits or residuals have more than 56, and there
//! are samples unless *a* is 0. Without samples, a leaf has 65,536 keys at most, residuals of 50 bits at most
//! but for kind 3, and the number of keys less one in bytes 56..58.
//!
//! Where *a* is 1, in kinds 0 and 1, the line has breaks. Bytes 16..64 are six numbers of 8 bytes then, each
//! the last row before a break (16 bits) below the distance of the next row's key from the first key (48 bits).
//! Rows and distances ascend. In place of breaks that there are not, of the last one at least, is the leaf's last
//! row, below bits that are all set. After a break at row *j* of distance *d*, until the next, *d* − line(*j* + 1)
//! is added to a key.
//!
//! With samples, a leaf has 512 keys at most. Bytes 16..64 are 32 numbers of 12 bits, the last of which
//! is the number of keys less one. Those before are line(*i*) + residual(*i*) of key 16, 32 and so on,
//! counted from 0, without the lowest *a* bits (kind 2) or 2*a* (kind 3); those that the leaf is too
//! short for have all bits set, which no other has. Such a leaf stores residuals of whole groups of 16
//! keys. Only the last leaf may have fewer keys; its residuals after the last have all bits set.
//!
//! A chunk is whole words of residuals, of leaf after leaf, 32 KiB at most. Chunk 0 has none: it is where the
//! leaves lie that need none. Where chunks are and how long is told by the file around them, which has the
//! checksums, too.

mod batch;
mod bits;
mod breaks;
mod chunks;
mod filter;
mod fit;
mod format;
mod key;
mod leaf;
mod root;
#[cfg(target_arch = "x86_64")]
mod simd;
mod sparse;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;

use self::bits::{Packed, prefetch};
pub use self::chunks::{Chunk, Chunks, Missing};
pub use self::filter::{BuiltFilters, Filters, Probe, hash_bytes, hash_number};
pub use self::fit::Builder;
pub use self::key::ModelKey;
use self::leaf::{Found, Leaf, LeafView};
use self::root::{Root, SENTINELS};
pub use self::sparse::{SparseBuilder, SparseKeys};

/// Positions from which the leaf of a position is looked up.
const STRIDE: usize = 4096;

/// Where the model expects a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prediction {
    /// The expected position.
    pub pos: usize,
    /// The position lies at or after this one.
    pub lo: usize,
    /// The position lies at or before this one.
    pub hi: usize,
}

/// Size and precision of a model.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ModelStats {
    /// Number of leaves.
    pub leaf_count: usize,
    /// Largest distance of a key from where its leaf's line expects it, in rows.
    pub max_error: usize,
    /// Mean of that distance over all keys.
    pub mean_error: f64,
    /// Bytes of root and leaves, first keys included.
    pub model_bytes: usize,
    /// Bytes of the packed residuals, which with the leaves are the keys.
    pub key_bytes: usize,
}

/// The keys of one segment, exact and immutable, with the model that finds them. Clones share the model.
#[derive(Debug, Clone)]
pub struct LearnedKeys<K> {
    model: Arc<Model<K>>,
    /// The residuals.
    chunks: Chunks,
}

/// Root and leaves.
#[derive(Debug, Clone)]
struct Model<K> {
    len: usize,
    /// First key; the largest of all where there is none, so that every lookup ends at once.
    min: K,
    /// First keys of the leaves, and the largest key [`SENTINELS`] times.
    firsts: Vec<K>,
    leaves: Vec<Leaf>,
    root: Root<K>,
    /// Leaf of every [`STRIDE`]th position.
    by_position: Vec<u32>,
    /// Bytes of each chunk.
    chunk_lengths: Vec<u32>,
    max_error: usize,
    mean_error: f64,
    /// Whether the processor supports the SIMD search.
    #[cfg(target_arch = "x86_64")]
    simd: bool,
}

impl<K: ModelKey> Model<K> {
    /// Completes what is stored with what is derived from it.
    fn assemble(
        len: usize,
        mut firsts: Vec<K>,
        leaves: Vec<Leaf>,
        chunk_lengths: Vec<u32>,
        max_error: usize,
        mean_error: f64,
    ) -> Self {
        let root = Root::new(&firsts);
        let mut by_position = Vec::with_capacity(len.div_ceil(STRIDE));
        let mut leaf = 0;
        for position in (0..len).step_by(STRIDE) {
            while leaf + 1 < leaves.len() && leaves[leaf + 1].start as usize <= position {
                leaf += 1;
            }
            by_position.push(leaf as u32);
        }
        let min = firsts.first().copied().unwrap_or(K::MAX);
        firsts.resize(leaves.len() + SENTINELS, K::MAX);
        Self {
            len,
            min,
            firsts,
            leaves,
            root,
            by_position,
            chunk_lengths,
            max_error,
            mean_error,
            #[cfg(target_arch = "x86_64")]
            simd: simd::is_supported(),
        }
    }

    /// The last leaf whose first key is below `q`, and how far `q` is above it; `None` where no key is below.
    ///
    /// # Safety
    /// With `SIMD`, the processor must support [`simd`].
    #[inline(always)]
    unsafe fn leaf_of<const SIMD: bool>(&self, q: K) -> Option<(usize, K)> {
        if q <= self.min {
            return None;
        }
        let (leaf, more) = self.root.follow(&self.firsts, q, self.root.begin(q));
        // It is one of them, mostly the first or the last, and comes while their first keys are compared.
        let leaves = self.leaves.as_ptr().wrapping_add(leaf);
        prefetch(leaves);
        prefetch(leaves.wrapping_add(more));
        // SAFETY: the caller sees to it.
        let (leaf, first) = unsafe { Root::choose::<SIMD>(&self.firsts, q, leaf) };
        Some((leaf, q.sub(first)))
    }

    /// The leaf that holds position `i`.
    fn leaf_of_position(&self, i: usize) -> usize {
        let from = self.by_position[i / STRIDE] as usize;
        let to = match self.by_position.get(i / STRIDE + 1) {
            Some(&next) => next as usize + 1,
            None => self.leaves.len(),
        };
        from + self.leaves[from..to].partition_point(|l| l.start as usize <= i) - 1
    }

    /// Bytes of all chunks.
    fn key_bytes(&self) -> usize {
        self.chunk_lengths.iter().map(|length| *length as usize).sum()
    }

    /// Memory held, in bytes.
    fn memory_bytes(&self) -> usize {
        size_of::<Self>()
            + self.firsts.capacity() * K::BYTES
            + self.leaves.capacity() * size_of::<Leaf>()
            + self.root.memory_bytes()
            + self.by_position.capacity() * 4
            + self.chunk_lengths.capacity() * 4
    }
}

impl<K: ModelKey> LearnedKeys<K> {
    fn new(model: Model<K>) -> Self {
        Self { chunks: Chunks::new(&model.chunk_lengths), model: Arc::new(model) }
    }

    /// Trains on `keys`, ascending, repeats allowed; all of them are in memory then. See [`Builder`] for
    /// keys that come in parts.
    ///
    /// # Panics
    /// If there are more than `u32::MAX` keys.
    pub fn build(keys: &[K]) -> Self {
        let mut builder = Builder::default();
        builder.push(keys);
        let mut chunks = builder.take_chunks();
        let (index, rest) = builder.finish();
        chunks.extend(rest);
        for (i, chunk) in chunks.into_iter().enumerate() {
            index.chunks.put(i, &Chunk::new(&chunk));
        }
        index
    }

    /// The chunks, and which are in memory.
    pub fn chunks(&self) -> &Chunks {
        &self.chunks
    }

    /// Brings chunk `i` into memory.
    ///
    /// # Errors
    /// [`ErrorKind::Corruption`](crate::engine::ErrorKind::Corruption) where they cannot be it.
    pub fn put(&self, i: usize, chunk: &Chunk) -> super::error::Result<()> {
        // Reads of residuals rely on it.
        if chunk.len() != self.model.chunk_lengths[i] as usize {
            return Err(format::corrupt("a chunk has not the length it should"));
        }
        self.chunks.put(i, chunk);
        Ok(())
    }

    /// The same keys, chunk `chunk` of which is not in memory.
    #[must_use]
    pub fn without_chunk(&self, chunk: usize) -> Self {
        Self { model: Arc::clone(&self.model), chunks: self.chunks.without(chunk) }
    }

    /// The same keys, none of which is in memory.
    #[must_use]
    pub fn emptied(&self) -> Self {
        Self { model: Arc::clone(&self.model), chunks: self.chunks.emptied() }
    }

    /// Whether both are of one model.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.model, &other.model)
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.model.len
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.model.len == 0
    }

    /// The key at position `i`.
    ///
    /// # Panics
    /// If `i` is not below [`Self::len`].
    pub fn get(&self, i: usize) -> Result<K, Missing> {
        assert!(i < self.len(), "position {i} of {} keys", self.len());
        let leaf = self.model.leaf_of_position(i);
        let l = &self.model.leaves[leaf];
        Ok(l.key(self.model.firsts[leaf], &self.view(l)?, i - l.start as usize))
    }

    /// Appends the keys at `range` to `out`. Where a chunk is missing, those before it are appended.
    ///
    /// # Panics
    /// If `range` does not lie within the keys.
    pub fn decode(&self, range: Range<usize>, out: &mut Vec<K>) -> Result<(), Missing> {
        assert!(range.start <= range.end && range.end <= self.len(), "{range:?} of {}", self.len());
        if range.is_empty() {
            return Ok(());
        }
        out.reserve(range.len());
        let mut leaf = self.model.leaf_of_position(range.start);
        let mut at = range.start;
        while at < range.end {
            let l = &self.model.leaves[leaf];
            let start = l.start as usize;
            let view = self.view(l)?;
            let part = l.part_of_row::<K>(at - start);
            let end = range.end.min(start + part.rows.end);
            let origin = self.model.firsts[leaf].sub(l.bias()).add(part.jump);
            out.extend((at - start..end - start).map(|i| origin.add(view.relative(i))));
            at = end;
            leaf += usize::from(part.rows.end == l.len::<K>());
        }
        Ok(())
    }

    /// The same index, searched without what is special to this processor. For tests of damage.
    #[must_use]
    pub fn portable(&self) -> Self {
        #[cfg(target_arch = "x86_64")]
        let model = Arc::new(Model { simd: false, ..(*self.model).clone() });
        #[cfg(not(target_arch = "x86_64"))]
        let model = Arc::clone(&self.model);
        Self { model, chunks: self.chunks.clone() }
    }

    /// Position of the first key that is `>= q`, or [`Self::len`].
    #[inline]
    pub fn lower_bound(&self, q: K) -> Result<usize, Missing> {
        #[cfg(target_arch = "x86_64")]
        if self.model.simd {
            // SAFETY: `simd` says that the processor has these features.
            return unsafe { self.lower_bound_simd(q) };
        }
        self.find_portable(q).map(|(at, _)| at)
    }

    /// [`Self::lower_bound`], and whether the key there is `q`.
    #[inline]
    pub fn find(&self, q: K) -> Result<(usize, bool), Missing> {
        #[cfg(target_arch = "x86_64")]
        if self.model.simd {
            // SAFETY: `simd` says that the processor has these features.
            return unsafe { self.find_simd(q) };
        }
        self.find_portable(q)
    }

    /// [`Self::find`] without SIMD. Apart, so that callers do not make room for it.
    #[inline(never)]
    fn find_portable(&self, q: K) -> Result<(usize, bool), Missing> {
        // SAFETY: no SIMD.
        unsafe { self.find_in::<false, true>(q) }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(
        enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,bmi1,bmi2,lzcnt,popcnt"
    )]
    fn lower_bound_simd(&self, q: K) -> Result<usize, Missing> {
        // SAFETY: these are the features it needs.
        unsafe { self.find_in::<true, false>(q) }.map(|(at, _)| at)
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(
        enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,bmi1,bmi2,lzcnt,popcnt"
    )]
    fn find_simd(&self, q: K) -> Result<(usize, bool), Missing> {
        // SAFETY: these are the features it needs.
        unsafe { self.find_in::<true, true>(q) }
    }

    /// [`Self::find`]. Without `EXACT`, it does not say whether the key is there.
    ///
    /// # Safety
    /// See [`LeafView::find_sampled`](leaf::LeafView::find_sampled).
    #[inline(always)]
    unsafe fn find_in<const SIMD: bool, const EXACT: bool>(
        &self,
        q: K,
    ) -> Result<(usize, bool), Missing> {
        // SAFETY: the caller sees to it.
        let Some((leaf, distance)) = (unsafe { self.model.leaf_of::<SIMD>(q) }) else {
            return Ok((0, EXACT && q == self.model.min && !self.is_empty()));
        };
        let l = &self.model.leaves[leaf];
        // SAFETY: the caller sees to all of it.
        let Found { at, certain, there } = unsafe {
            if l.is_plain() {
                let u = l.relative(distance);
                let (lo, hi) = l.aim::<K, SIMD>(distance, u);
                l.place(self.view(l)?.find_aimed::<SIMD>(l, u, lo, hi))
            } else if l.is_sampled::<K>() {
                let u = l.relative(distance);
                let lo = match l.narrow::<K, SIMD>(u) {
                    Ok(lo) => lo,
                    Err(rows) => self.halve(leaf, u, rows)?,
                };
                self.sampled(l, self.view(l)?.find_sampled::<SIMD>(l, u, lo))
            } else if l.has_breaks() {
                return self.find_broken::<SIMD>(leaf, q, distance);
            } else {
                // Keys or residuals do not fit 64 bits.
                let u = l.relative(distance);
                let (lo, hi) = l.aim::<K, SIMD>(distance, u);
                l.place(self.view(l)?.find_aimed::<SIMD>(l, u, lo, hi))
            }
        };
        if certain {
            return Ok((at, there));
        }
        let position = self.settle(leaf, q, at)?;
        Ok((position, EXACT && self.is_at(leaf, q, position)?))
    }

    /// The rest of [`Self::find`] in a leaf whose line has breaks. Apart, so that the search of others has the
    /// registers for itself.
    ///
    /// # Safety
    /// As [`Self::find_in`].
    #[inline(always)]
    unsafe fn find_broken<const SIMD: bool>(
        &self,
        leaf: usize,
        q: K,
        distance: K,
    ) -> Result<(usize, bool), Missing> {
        #[cfg(target_arch = "x86_64")]
        if SIMD {
            // SAFETY: the caller sees to it.
            return unsafe { self.find_broken_simd(leaf, q, distance) };
        }
        // SAFETY: no SIMD.
        unsafe { self.find_broken_in::<false>(leaf, q, distance) }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(
        enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,bmi1,bmi2,lzcnt,popcnt"
    )]
    #[cold]
    #[inline(never)]
    fn find_broken_simd(&self, leaf: usize, q: K, distance: K) -> Result<(usize, bool), Missing> {
        // SAFETY: these are the features it needs.
        unsafe { self.find_broken_in::<true>(leaf, q, distance) }
    }

    /// # Safety
    /// As [`Self::find_in`].
    #[inline(always)]
    unsafe fn find_broken_in<const SIMD: bool>(
        &self,
        leaf: usize,
        q: K,
        distance: K,
    ) -> Result<(usize, bool), Missing> {
        let l = &self.model.leaves[leaf];
        // SAFETY: the caller sees to it.
        let Found { at, certain, there } = unsafe {
            let (part, lo) = l.aim_broken::<K, SIMD>(distance);
            l.place(self.view(l)?.find_broken::<SIMD>(l, distance, part, lo))
        };
        if certain {
            return Ok((at, there));
        }
        let position = self.settle(leaf, q, at)?;
        Ok((position, self.is_at(leaf, q, position)?))
    }

    /// What was found in leaf `l`, which has samples, with the position in place of the row.
    #[inline(always)]
    fn sampled(&self, l: &Leaf, found: Found) -> Found {
        let found = l.place(found);
        let at = found.at;
        // The last leaf may store residuals of more rows than it has keys.
        Found { at: at.min(self.model.len), there: found.there && at < self.model.len, ..found }
    }

    /// Of rows `rows` of leaf `leaf`, which has samples, the first of those around `u` that
    /// [`LeafView::find_sampled`](leaf::LeafView::find_sampled) can look at. Apart, as is
    /// [`Self::settle`], so that the search has the registers for itself.
    #[cold]
    #[inline(never)]
    fn halve(&self, leaf: usize, u: K, rows: Range<usize>) -> Result<usize, Missing> {
        let l = &self.model.leaves[leaf];
        let view = self.view(l)?;
        let hi = rows.end.min(l.len::<K>());
        l.prefetch(view.packed(), rows.start, hi);
        Ok(view.halve(u, rows.start, hi))
    }

    /// Goes on from position `at`, in leaf `leaf` or after its end, with a search for `q` that may not be
    /// over there. This is rare.
    #[cold]
    #[inline(never)]
    fn settle(&self, leaf: usize, q: K, at: usize) -> Result<usize, Missing> {
        let l = &self.model.leaves[leaf];
        let distance = q.saturating_sub(self.model.firsts[leaf]);
        let part = l.part_of::<K>(distance);
        let u = l.relative_in(&part, distance);
        let start = l.start as usize;
        Ok(start + self.view(l)?.settle(u, at - start, part.rows))
    }

    /// Whether the key at a position of leaf `leaf`, or the first one of the next, is `q`.
    #[cold]
    #[inline(never)]
    fn is_at(&self, leaf: usize, q: K, position: usize) -> Result<bool, Missing> {
        let l = &self.model.leaves[leaf];
        let row = position - l.start as usize;
        if row < l.len::<K>() {
            return Ok(l.key(self.model.firsts[leaf], &self.view(l)?, row) == q);
        }
        Ok(leaf + 1 < self.model.leaves.len() && self.model.firsts[leaf + 1] == q)
    }

    /// The residuals of leaf `l`.
    #[inline(always)]
    fn view(&self, l: &Leaf) -> Result<LeafView<'_, K>, Missing> {
        Ok(l.view(Packed(self.chunks.get(l.chunk())?)))
    }

    /// Position of the first key that is `> q`, or [`Self::len`].
    #[inline]
    pub fn upper_bound(&self, q: K) -> Result<usize, Missing> {
        q.successor().map_or(Ok(self.len()), |next| self.lower_bound(next))
    }

    /// The chunk that has `q`, if any has, and the bits that a key takes there. `None` where the model knows by
    /// itself whether there is such a key.
    pub fn chunk_of(&self, q: K) -> Option<(usize, u32)> {
        // SAFETY: no SIMD.
        let (leaf, _) = unsafe { self.model.leaf_of::<false>(q) }?;
        let l = &self.model.leaves[leaf];
        (self.model.firsts[leaf + 1] != q).then(|| (l.chunk(), l.width()))
    }

    /// Where the model expects `q`, without looking at keys.
    pub fn predict(&self, q: K) -> Prediction {
        // SAFETY: no SIMD.
        let Some((leaf, distance)) = (unsafe { self.model.leaf_of::<false>(q) }) else {
            return Prediction { pos: 0, lo: 0, hi: 0 };
        };
        let l = &self.model.leaves[leaf];
        let (lo, hi) = l.window_of(distance);
        let start = l.start as usize;
        Prediction { pos: start + lo.midpoint(hi), lo: start + lo, hi: start + hi }
    }

    /// Size and precision of the model.
    pub fn stats(&self) -> ModelStats {
        let model = &*self.model;
        ModelStats {
            leaf_count: model.leaves.len(),
            max_error: model.max_error,
            mean_error: model.mean_error,
            model_bytes: model.leaves.len() * (K::BYTES + size_of::<Leaf>())
                + model.root.memory_bytes()
                + model.by_position.capacity() * 4,
            key_bytes: model.key_bytes(),
        }
    }

    /// Memory held without the chunks, in bytes.
    pub fn model_bytes(&self) -> usize {
        self.model.memory_bytes() + self.chunks.table_bytes()
    }

    /// Memory held, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.model_bytes() + self.chunks.resident_bytes()
    }
}
