//! Keys that are bytes: blocks of sorted keys, and a fence before each block.
//!
//! ```text
//! key ─► fences: the shortest bytes that divide a block from the one before it   which block
//!     ─► block: common prefix once, the rest of each key, offsets                which key, exactly
//! ```
//!
//! A fence is above the last key before its block and not above the first one in it (or equals both, where
//! a run of equal keys goes on from block to block). So every bound of a key lies in one block or at its end,
//! and one block is read to find it. Fences are in memory, their first eight bytes after what all of them
//! have in common as numbers; blocks are chunks, read as they are needed.
//!
//! # Format
//!
//! All numbers are little endian. The fences:
//!
//! | bytes | what |
//! |---|---|
//! | 0..4 | `OSPR` |
//! | 4..6 | format version, 1 |
//! | 6..8 | 0 |
//! | 8..12 | number of keys, *n* |
//! | 12..16 | number of blocks, *m*; 0 only if *n* is |
//! | then *m* times 8 | position of the block's first key, where its fence ends among the fences |
//! | then | the fences, back to back, to the end. The first is empty |
//!
//! A block, which is a chunk:
//!
//! | bytes | what |
//! |---|---|
//! | 0..4 | number of its keys, *k*, at least 1 |
//! | 4..8 | bytes of their common prefix, *p* |
//! | 8..12 | bytes of the rests of all keys, *r* |
//! | then (*k* + 1) × 2 | where each rest begins among the rests, and *r* |
//! | then *p* | the prefix |
//! | then *r* | the rests, to the end |
//!
//! Rests and offsets of a block take 16 KiB at most. (A single key is all prefix, whatever its length.)

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;

use super::bits::PADDING;
use super::chunks::{Chunk, Chunks, Missing};
use super::filter::{BuiltFilters, FilterBuilder};
use super::format::{Input, corrupt};
use crate::engine::error::Result;

const MAGIC: [u8; 4] = *b"OSPR";
const VERSION: u16 = 1;
/// Bytes of the rests of a block's keys and their offsets, at most.
const BLOCK_BYTES: usize = 16 << 10;
/// Bytes of a block before its offsets.
const BLOCK_HEADER: usize = 12;

/// The keys of one segment, exact and immutable, with the fences that find them. Clones share the fences.
#[derive(Debug, Clone)]
pub struct SparseKeys {
    fences: Arc<Fences>,
    /// The blocks.
    chunks: Chunks,
}

/// What is known without the blocks.
#[derive(Debug)]
struct Fences {
    /// Position of the first key of every block, and the number of keys.
    starts: Vec<u32>,
    chunk_lengths: Vec<u32>,
    /// Fences back to back, and where each ends.
    bytes: Vec<u8>,
    ends: Vec<u32>,
    /// Length of what all fences but the first begin with.
    stem: usize,
    /// [`head`] of what follows the stem in every fence but the first.
    heads: Vec<u64>,
}

/// The first eight bytes, as a number that compares as they do; zeroes for those that are not there.
#[inline(always)]
fn head(bytes: &[u8]) -> u64 {
    match bytes.first_chunk() {
        Some(eight) => u64::from_be_bytes(*eight),
        None => {
            let mut eight = [0; 8];
            eight[..bytes.len()].copy_from_slice(bytes);
            u64::from_be_bytes(eight)
        }
    }
}

/// How many bytes two keys begin with alike.
fn common(a: &[u8], b: &[u8]) -> usize {
    let alike = |(a, b): (&[u8], &[u8])| a == b;
    // Eight at a time, then one by one.
    let words =
        a.chunks_exact(8).zip(b.chunks_exact(8)).take_while(|pair| alike(*pair)).count() * 8;
    words + a[words..].iter().zip(&b[words..]).take_while(|(a, b)| a == b).count()
}

impl Fences {
    fn assemble(starts: Vec<u32>, chunk_lengths: Vec<u32>, bytes: Vec<u8>, ends: Vec<u32>) -> Self {
        let mut fences = Self { starts, chunk_lengths, bytes, ends, stem: 0, heads: Vec::new() };
        let count = fences.ends.len();
        if count > 1 {
            // They are sorted, so what the outer ones have in common, all have.
            fences.stem = common(fences.fence(1), fences.fence(count - 1));
            let after_stem = |i| head(&fences.fence(i)[fences.stem..]);
            fences.heads = (1..count).map(after_stem).collect();
        }
        fences
    }

    fn fence(&self, i: usize) -> &[u8] {
        let start = if i == 0 { 0 } else { self.ends[i - 1] as usize };
        &self.bytes[start..self.ends[i] as usize]
    }

    /// The last block whose fence is below `q`, or not above it, with `or_equal`; the first if there is none.
    fn block_of(&self, q: &[u8], or_equal: bool) -> usize {
        let before = |order: Ordering| order.is_lt() || or_equal && order.is_eq();
        let stem = match self.heads.len() {
            0 => return 0,
            _ => &self.fence(1)[..self.stem],
        };
        let shared = q.len().min(self.stem);
        match q[..shared].cmp(&stem[..shared]) {
            Ordering::Less => return 0,
            Ordering::Greater => return self.heads.len(),
            Ordering::Equal if q.len() < self.stem => return 0,
            Ordering::Equal => {}
        }
        let rest = &q[self.stem..];
        let wanted = head(rest);
        let low = self.heads.partition_point(|h| *h < wanted);
        let equal = self.heads[low..].partition_point(|h| *h == wanted);
        // Fence `i + 1` has head `i`: what is found is the number of fences before `q`, the first left out.
        let (mut low, mut high) = (low, low + equal);
        while low < high {
            let middle = low.midpoint(high);
            if before(self.fence(middle + 1)[self.stem..].cmp(rest)) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// The block that holds position `i`.
    fn block_at(&self, i: usize) -> usize {
        self.starts.partition_point(|start| *start as usize <= i) - 1
    }

    fn len(&self) -> usize {
        self.starts.last().map_or(0, |len| *len as usize)
    }

    fn memory_bytes(&self) -> usize {
        size_of::<Self>()
            + (self.starts.capacity() + self.chunk_lengths.capacity() + self.ends.capacity()) * 4
            + self.bytes.capacity()
            + self.heads.capacity() * 8
    }
}

/// A block, taken apart.
#[derive(Clone, Copy)]
struct Block<'a> {
    count: usize,
    prefix: &'a [u8],
    /// Two bytes each.
    offsets: &'a [u8],
    /// The rests, and what follows them: eight bytes at least.
    rests: &'a [u8],
}

impl<'a> Block<'a> {
    /// Of the bytes of a chunk with their padding. `None` where they are no block.
    #[inline(always)]
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let number =
            |at: usize| bytes[at..].first_chunk().map(|four| u32::from_le_bytes(*four) as usize);
        let (count, prefix, rests) = (number(0)?, number(4)?, number(8)?);
        let offset_bytes = (count + 1) * 2;
        let body = bytes.get(BLOCK_HEADER..)?;
        if offset_bytes + prefix + rests + PADDING != body.len() {
            return None;
        }
        let (offsets, body) = body.split_at(offset_bytes);
        let (prefix, rests) = body.split_at(prefix);
        Some(Self { count, prefix, offsets, rests })
    }

    #[inline(always)]
    fn offset(&self, i: usize) -> usize {
        let two = &self.offsets[2 * i..2 * i + 2];
        usize::from(u16::from_le_bytes([two[0], two[1]]))
    }

    /// Whether the offsets ascend within the rests: what reads of them rely on.
    fn is_sound(&self) -> bool {
        let mut last = 0;
        let ascending = (0..=self.count).all(|i| {
            let offset = self.offset(i);
            std::mem::replace(&mut last, offset) <= offset
        });
        self.count > 0 && ascending && last + PADDING == self.rests.len() && self.offset(0) == 0
    }

    #[inline(always)]
    fn rest(&self, i: usize) -> &'a [u8] {
        &self.rests[self.offset(i)..self.offset(i + 1)]
    }

    /// [`head`] of a rest, read at once.
    #[inline(always)]
    fn head(&self, i: usize) -> u64 {
        let (from, to) = (self.offset(i), self.offset(i + 1));
        // The padding makes eight bytes readable behind any rest.
        let eight: [u8; 8] = self.rests[from..].first_chunk().copied().unwrap_or_default();
        let keep = u64::MAX.checked_shr(8 * (to - from) as u32).unwrap_or(0);
        u64::from_be_bytes(eight) & !keep
    }

    /// The first of its keys that is not before `q`: not below it, or above it, with `or_equal`.
    fn search(&self, q: &[u8], or_equal: bool) -> usize {
        let shared = q.len().min(self.prefix.len());
        match q[..shared].cmp(&self.prefix[..shared]) {
            Ordering::Less => return 0,
            Ordering::Greater => return self.count,
            // All its keys are longer.
            Ordering::Equal if q.len() < self.prefix.len() => return 0,
            Ordering::Equal => {}
        }
        let rest = &q[shared..];
        let wanted = head(rest);
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low.midpoint(high);
            let order = match self.head(middle).cmp(&wanted) {
                Ordering::Equal => self.rest(middle).cmp(rest),
                order => order,
            };
            if order.is_lt() || or_equal && order.is_eq() {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// Whether key `i` is `q`.
    fn is_at(&self, i: usize, q: &[u8]) -> bool {
        q.strip_prefix(self.prefix).is_some_and(|rest| rest == self.rest(i))
    }
}

impl SparseKeys {
    /// Number of keys.
    pub fn len(&self) -> usize {
        self.fences.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The blocks, and which are in memory.
    pub fn chunks(&self) -> &Chunks {
        &self.chunks
    }

    /// Brings block `i` into memory.
    ///
    /// # Errors
    /// [`ErrorKind::Corruption`](crate::engine::ErrorKind::Corruption) where they cannot be it.
    pub fn put(&self, i: usize, chunk: &Chunk) -> Result<()> {
        let starts = &self.fences.starts[i..i + 2];
        let own = chunk.len() == self.fences.chunk_lengths[i] as usize;
        match Block::parse(chunk.bytes()) {
            Some(block)
                if own && block.is_sound() && block.count as u32 == starts[1] - starts[0] =>
            {
                self.chunks.put(i, chunk);
                Ok(())
            }
            _ => Err(corrupt(format!("block {i} is not as it should be"))),
        }
    }

    /// The same keys, block `chunk` of which is not in memory.
    #[must_use]
    pub fn without_chunk(&self, chunk: usize) -> Self {
        Self { fences: Arc::clone(&self.fences), chunks: self.chunks.without(chunk) }
    }

    /// The same keys, none of which is in memory.
    #[must_use]
    pub fn emptied(&self) -> Self {
        Self { fences: Arc::clone(&self.fences), chunks: self.chunks.emptied() }
    }

    /// Whether both have the same fences.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.fences, &other.fences)
    }

    #[inline(always)]
    fn block(&self, i: usize) -> Result<Block<'_>, Missing> {
        // What `put` has checked can be taken apart.
        Block::parse(self.chunks.get(i)?).ok_or(Missing { chunk: i })
    }

    /// Position of the first key that is `>= q`, or [`Self::len`].
    pub fn lower_bound(&self, q: &[u8]) -> Result<usize, Missing> {
        self.bound(q, false)
    }

    /// Position of the first key that is `> q`, or [`Self::len`].
    pub fn upper_bound(&self, q: &[u8]) -> Result<usize, Missing> {
        self.bound(q, true)
    }

    fn bound(&self, q: &[u8], or_equal: bool) -> Result<usize, Missing> {
        if self.is_empty() {
            return Ok(0);
        }
        let block = self.fences.block_of(q, or_equal);
        Ok(self.fences.starts[block] as usize + self.block(block)?.search(q, or_equal))
    }

    /// [`Self::lower_bound`], and whether the key there is `q`.
    pub fn find(&self, q: &[u8]) -> Result<(usize, bool), Missing> {
        if self.is_empty() {
            return Ok((0, false));
        }
        let i = self.fences.block_of(q, false);
        let block = self.block(i)?;
        let at = block.search(q, false);
        let found = if at < block.count {
            block.is_at(at, q)
        } else {
            // The next block begins with `q` only if its fence is `q`: a fence is not above the first key.
            i + 1 < self.fences.ends.len()
                && self.fences.fence(i + 1) == q
                && self.block(i + 1)?.is_at(0, q)
        };
        Ok((self.fences.starts[i] as usize + at, found))
    }

    /// The block that has `q`, if any has. `None` where two may.
    pub fn chunk_of(&self, q: &[u8]) -> Option<usize> {
        if self.is_empty() {
            return None;
        }
        let i = self.fences.block_of(q, false);
        (i + 1 == self.fences.ends.len() || self.fences.fence(i + 1) != q).then_some(i)
    }

    /// Appends the key at position `i` to `out`.
    ///
    /// # Panics
    /// If `i` is not below [`Self::len`].
    pub fn get(&self, i: usize, out: &mut Vec<u8>) -> Result<(), Missing> {
        self.decode(i..i + 1, out, &mut Vec::new())
    }

    /// Appends the keys at `range` to `out`, back to back, and where each ends in it to `ends`. Where a block
    /// is missing, the keys before it are appended.
    ///
    /// # Panics
    /// If `range` does not lie within the keys.
    pub fn decode(
        &self,
        range: Range<usize>,
        out: &mut Vec<u8>,
        ends: &mut Vec<usize>,
    ) -> Result<(), Missing> {
        assert!(range.start <= range.end && range.end <= self.len(), "{range:?} of {}", self.len());
        if range.is_empty() {
            return Ok(());
        }
        ends.reserve(range.len());
        let mut at = range.start;
        let mut i = self.fences.block_at(at);
        while at < range.end {
            let block = self.block(i)?;
            let start = self.fences.starts[i] as usize;
            let end = range.end.min(start + block.count);
            for row in at - start..end - start {
                out.extend_from_slice(block.prefix);
                out.extend_from_slice(block.rest(row));
                ends.push(out.len());
            }
            at = end;
            i += 1;
        }
        Ok(())
    }

    /// Memory held without the blocks, in bytes.
    pub fn model_bytes(&self) -> usize {
        self.fences.memory_bytes() + self.chunks.table_bytes()
    }

    /// Memory held, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.model_bytes() + self.chunks.resident_bytes()
    }

    /// Appends the fences, in the format that [`Self::decode_from`] reads. Blocks are stored beside them.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let fences = &*self.fences;
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&(self.len() as u32).to_le_bytes());
        out.extend_from_slice(&(fences.ends.len() as u32).to_le_bytes());
        for (start, end) in fences.starts.iter().zip(&fences.ends) {
            out.extend_from_slice(&start.to_le_bytes());
            out.extend_from_slice(&end.to_le_bytes());
        }
        out.extend_from_slice(&fences.bytes);
    }

    /// Reads what [`Self::encode`] wrote, the whole of `bytes`, for blocks of these lengths, none of which is
    /// in memory then.
    ///
    /// # Errors
    /// [`ErrorKind::Corruption`](crate::engine::ErrorKind::Corruption) where `bytes` cannot be fences. Damage
    /// that leaves sizes consistent shows only as other answers: a checksum around the bytes is the caller's.
    pub fn decode_from(bytes: &[u8], chunk_lengths: &[u32]) -> Result<Self> {
        let mut input = Input(bytes);
        if input.take(4)? != MAGIC {
            return Err(corrupt("fences do not begin with the magic bytes"));
        }
        let version = input.u16()?;
        if version != VERSION {
            return Err(corrupt(format!("version {version} is not {VERSION}, the one known")));
        }
        input.u16()?;
        let len = input.u32()?;
        let count = input.u32()? as usize;
        if count != chunk_lengths.len() || (count == 0) != (len == 0) || count > input.0.len() / 8 {
            return Err(corrupt(format!("{count} blocks for {len} keys")));
        }
        let (mut starts, mut ends) = (Vec::with_capacity(count + 1), Vec::with_capacity(count));
        for _ in 0..count {
            starts.push(input.u32()?);
            ends.push(input.u32()?);
        }
        starts.push(len);
        let divided = count == 0 || starts[0] == 0 && starts.is_sorted_by(|a, b| a < b);
        let fences = input.0.len();
        if !divided || !ends.is_sorted() || ends.last().is_some_and(|e| *e as usize != fences) {
            return Err(corrupt("its blocks do not follow one another"));
        }
        let fence = |i: usize| &input.0[ends[i - 1] as usize..ends[i] as usize];
        if !(2..count).all(|i| fence(i - 1) <= fence(i)) {
            return Err(corrupt("its fences do not ascend"));
        }
        let fences = Fences::assemble(starts, chunk_lengths.to_vec(), input.0.to_vec(), ends);
        Ok(Self { chunks: Chunks::new(chunk_lengths), fences: Arc::new(fences) })
    }
}

/// Makes [`SparseKeys`] of keys as they come. Memory: a block of keys, the fences, and the blocks until they
/// are taken.
#[derive(Debug, Default)]
pub struct SparseBuilder {
    len: usize,
    starts: Vec<u32>,
    chunk_lengths: Vec<u32>,
    fences: Vec<u8>,
    fence_ends: Vec<u32>,
    complete: Vec<Vec<u8>>,
    filters: Option<FilterBuilder>,
    /// The last key.
    last: Vec<u8>,
    /// The first key of the block in the making.
    first: Vec<u8>,
    /// Of each of its keys, how many bytes it has in common with the first, and where the others end in `rests`.
    keys: Vec<(u32, u32)>,
    rests: Vec<u8>,
    /// Bytes of whole keys in the block.
    key_bytes: usize,
}

impl SparseBuilder {
    /// One that makes filters as well.
    pub fn with_filters() -> Self {
        Self { filters: Some(FilterBuilder::sparse()), ..Self::default() }
    }

    /// Takes in the next key, which is not below those before.
    ///
    /// # Errors
    /// [`ErrorKind::ResourceExhausted`](crate::engine::ErrorKind::ResourceExhausted) where fences would exceed
    /// 4 GiB, which takes keys of megabytes.
    ///
    /// # Panics
    /// If there are more than `u32::MAX` keys, or one of 4 GiB.
    pub fn push(&mut self, key: &[u8]) -> Result<()> {
        debug_assert!(*self.last <= *key);
        let mut shared = common(&self.first, key);
        if !self.keys.is_empty() {
            // The keys ascend, so that each shares no more with the first than the one before it.
            let (count, bytes) = (self.keys.len() + 1, self.key_bytes + key.len());
            if bytes - count * shared + 2 * count > BLOCK_BYTES {
                self.end_block();
            }
        }
        if self.keys.is_empty() {
            self.begin_block(key)?;
            shared = key.len();
        }
        if let Some(filters) = &mut self.filters {
            filters.add_bytes(key);
        }
        self.rests.extend_from_slice(&key[shared..]);
        self.keys.push((shared as u32, self.rests.len() as u32));
        self.key_bytes += key.len();
        let alike = common(&self.last, key);
        self.last.truncate(alike);
        self.last.extend_from_slice(&key[alike..]);
        self.len += 1;
        assert!(
            u32::try_from(self.len.max(key.len())).is_ok(),
            "at most u32::MAX keys and bytes of one"
        );
        Ok(())
    }

    fn begin_block(&mut self, key: &[u8]) -> Result<()> {
        if !self.starts.is_empty() {
            let end = (common(&self.last, key) + 1).min(key.len());
            self.fences.extend_from_slice(&key[..end]);
        }
        let end = u32::try_from(self.fences.len()).map_err(|_| {
            crate::engine::error::Error::exhausted(
                "the fences of a segment's keys exceed 4 GiB: use shorter keys or smaller segments",
            )
        })?;
        self.fence_ends.push(end);
        self.starts.push(self.len as u32);
        self.first.clear();
        self.first.extend_from_slice(key);
        Ok(())
    }

    fn end_block(&mut self) {
        let Some((prefix, _)) = self.keys.last().copied() else { return };
        let prefix = prefix as usize;
        let rests = self.key_bytes - self.keys.len() * prefix;
        let mut out =
            Vec::with_capacity(BLOCK_HEADER + (self.keys.len() + 1) * 2 + prefix + rests + PADDING);
        for number in [self.keys.len(), prefix, rests] {
            out.extend_from_slice(&(number as u32).to_le_bytes());
        }
        // Below 2^16: `push` sees to it.
        let mut put = |offset: usize| out.extend_from_slice(&(offset as u16).to_le_bytes());
        let (mut offset, mut start) = (0, 0);
        put(0);
        for (shared, end) in &self.keys {
            offset += *shared as usize - prefix + (end - start) as usize;
            start = *end;
            put(offset);
        }
        out.extend_from_slice(&self.first[..prefix]);
        let mut start = 0;
        for (shared, end) in &self.keys {
            out.extend_from_slice(&self.first[prefix..*shared as usize]);
            out.extend_from_slice(&self.rests[start..*end as usize]);
            start = *end as usize;
        }
        if let Some(filters) = &mut self.filters {
            filters.end_chunk(out.len());
        }
        self.chunk_lengths.push(out.len() as u32);
        self.complete.push(out);
        self.keys.clear();
        self.rests.clear();
        self.key_bytes = 0;
    }

    /// The blocks that were completed since they were last taken, in order.
    pub fn take_chunks(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.complete)
    }

    /// The index, no block of which is in memory, and the last blocks.
    pub fn finish(self) -> (SparseKeys, Vec<Vec<u8>>) {
        let (keys, blocks, _) = self.finish_with_filters();
        (keys, blocks)
    }

    /// [`Self::finish`], and the filters, where there are any.
    pub fn finish_with_filters(mut self) -> (SparseKeys, Vec<Vec<u8>>, Option<BuiltFilters>) {
        self.end_block();
        if !self.starts.is_empty() {
            self.starts.push(self.len as u32);
        }
        let chunks = Chunks::new(&self.chunk_lengths);
        let fences =
            Fences::assemble(self.starts, self.chunk_lengths, self.fences, self.fence_ends);
        let filters = self.filters.and_then(FilterBuilder::finish);
        (SparseKeys { fences: Arc::new(fences), chunks }, self.complete, filters)
    }
}

impl SparseKeys {
    /// Of all keys at once, which are in memory then.
    ///
    /// # Errors
    /// As [`SparseBuilder::push`].
    pub fn build<'a>(keys: impl IntoIterator<Item = &'a [u8]>) -> Result<Self> {
        let mut builder = SparseBuilder::default();
        for key in keys {
            builder.push(key)?;
        }
        let (index, chunks) = builder.finish();
        for (i, chunk) in chunks.into_iter().enumerate() {
            index.put(i, &Chunk::new(&chunk))?;
        }
        Ok(index)
    }
}

#[cfg(test)]
mod tests;
