//! Filters: which keys are certainly not in a chunk, told without the chunk.
//!
//! Each chunk whose keys take much room has a split block Bloom filter of its keys, as the Parquet format
//! specifies it (`BloomFilter.md`, hash included): a key sets eight bits of one block of 32 bytes. It is asked for
//! equality alone; order is none of its business. The filters of neighbouring chunks lie back to back in
//! *parts*, which are read as chunks are. Sources: Bloom 1970; Putze, Sanders, Singler 2007 for blocks as
//! large as what the processor reads at once.
//!
//! # Format
//!
//! All numbers are little endian. The table of the filters, of an index of *c* chunks:
//!
//! | bytes | what |
//! |---|---|
//! | 0..4 | residual width in bits from which on a leaf's keys are in the filter; 0 where keys are bytes |
//! | then *c* times 4 | blocks of each chunk's filter; 0 where it has none |
//!
//! A part is the filters of some chunks, back to back, each whole. Lengths of the parts, and checksums, are told by
//! the file around them.

use super::bits::prefetch;
use super::format::{Input, corrupt};
use super::key::ModelKey;
use crate::engine::error::Result;

/// Bytes of a block.
const BLOCK_BYTES: usize = 32;
/// Keys for each block: 10.7 bits a key, of which fewer than 1 in 100 absent ones pass.
const KEYS_PER_BLOCK: usize = 24;
/// Bytes of a part at most, unless one filter is larger.
const PART_BYTES: usize = 32 << 10;
/// Bits that a key must take in its chunk to be worth a filter: more than twice what it takes there.
/// `docs/benchmarks.md` has the figures.
const MIN_KEY_BITS: u32 = 24;

/// Of the specification: what makes eight numbers of one.
const SALT: [u32; 8] = [
    0x47b6_137b,
    0x4497_4d91,
    0x8824_ad5b,
    0xa2b7_289d,
    0x7054_95c7,
    0x2df1_424b,
    0x9efc_4947,
    0x5c6b_fb31,
];

/// What filters know of a key that is bytes.
#[inline]
pub fn hash_bytes(key: &[u8]) -> u64 {
    twox_hash::XxHash64::oneshot(0, key)
}

/// What filters know of a key that is a number: the hash of its bytes, the lowest first. The same XXH64 without
/// seed, written out for inputs of one or two words.
#[inline(always)]
pub fn hash_number<K: ModelKey>(key: K) -> u64 {
    const PRIMES: [u64; 5] = [
        0x9e37_79b1_85eb_ca87,
        0xc2b2_ae3d_27d4_eb4f,
        0x1656_67b1_9e37_79f9,
        0x85eb_ca77_c2b2_ae63,
        0x27d4_eb2f_1656_67c5,
    ];
    let [p1, p2, p3, p4, p5] = PRIMES;
    let take = |hash: u64, word: u64| {
        let word = word.wrapping_mul(p2).rotate_left(31).wrapping_mul(p1);
        (hash ^ word).rotate_left(27).wrapping_mul(p1).wrapping_add(p4)
    };
    let mut hash = take(p5.wrapping_add(K::BYTES as u64), key.low());
    if K::BYTES > 8 {
        hash = take(hash, (key.to_u128() >> 64) as u64);
    }
    hash = (hash ^ hash >> 33).wrapping_mul(p2);
    hash = (hash ^ hash >> 29).wrapping_mul(p3);
    hash ^ hash >> 32
}

/// Which of `count` blocks a hash belongs to.
#[inline(always)]
fn block_of(hash: u64, count: u32) -> usize {
    (((hash >> 32) * u64::from(count)) >> 32) as usize
}

/// The bit of a hash in each word of its block.
#[inline(always)]
fn mask(hash: u64) -> [u32; 8] {
    SALT.map(|salt| 1 << ((hash as u32).wrapping_mul(salt) >> 27))
}

/// Sets the bits of hashes in a filter.
fn insert(filter: &mut [[u8; BLOCK_BYTES]], hashes: &[u64]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the feature was detected.
        return unsafe { insert_simd(filter, hashes) };
    }
    insert_in(filter, hashes);
}

/// The same loop, compiled for wider registers.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn insert_simd(filter: &mut [[u8; BLOCK_BYTES]], hashes: &[u64]) {
    insert_in(filter, hashes);
}

#[inline(always)]
fn insert_in(filter: &mut [[u8; BLOCK_BYTES]], hashes: &[u64]) {
    for hash in hashes {
        let block = &mut filter[block_of(*hash, filter.len() as u32)];
        for (word, bit) in block.as_chunks_mut::<4>().0.iter_mut().zip(mask(*hash)) {
            *word = (u32::from_le_bytes(*word) | bit).to_le_bytes();
        }
    }
}

/// Whether the bits of a hash are set in its block.
#[inline(always)]
fn is_in(block: &[u8; BLOCK_BYTES], hash: u64) -> bool {
    let words = block.as_chunks::<4>().0.iter().zip(mask(hash));
    // Without an early end, so that all eight are compared at once.
    words.fold(0, |lacking, (word, bit)| lacking | (!u32::from_le_bytes(*word) & bit)) == 0
}

/// The place of a chunk's filter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct FilterPlace {
    part: u32,
    /// The first of its blocks in the part.
    start: u32,
    /// 0 where the chunk has no filter.
    count: u32,
}

/// Which chunks have a filter, and where it lies. The filters themselves are parts that may be in memory or not.
#[derive(Debug, PartialEq, Eq)]
pub struct Filters {
    min_bits: u32,
    places: Vec<FilterPlace>,
}

/// The block that tells of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// The part to look into.
    pub part: usize,
    offset: usize,
    hash: u64,
}

impl Probe {
    /// Whether the key may be in its chunk, by the bytes of the part; `true` where these are none.
    #[inline]
    pub fn may_be_in(&self, part: &[u8]) -> bool {
        let block = part.get(self.offset..).and_then(|bytes| bytes.first_chunk());
        block.is_none_or(|block| is_in(block, self.hash))
    }

    /// Asks for the memory that [`Self::may_be_in`] reads.
    #[inline]
    pub fn prefetch(&self, part: &[u8]) {
        prefetch(part.as_ptr().wrapping_add(self.offset));
    }
}

impl Filters {
    /// The probe for a key of a chunk; `None` where the chunk has no filter of such keys. `bits` are those that
    /// the key takes, where its index tells; `hash` is of the key.
    #[inline]
    pub fn probe(&self, chunk: usize, bits: u32, hash: impl FnOnce() -> u64) -> Option<Probe> {
        let place = self.places.get(chunk).filter(|p| p.count > 0 && bits >= self.min_bits)?;
        let hash = hash();
        let offset = (place.start as usize + block_of(hash, place.count)) * BLOCK_BYTES;
        Some(Probe { part: place.part as usize, offset, hash })
    }

    /// Appends the table, in the format that [`Self::decode`] reads.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.min_bits.to_le_bytes());
        for place in &self.places {
            out.extend_from_slice(&place.count.to_le_bytes());
        }
    }

    /// Takes what [`Self::encode`] wrote off the front of `bytes`, for so many chunks, and parts of these lengths.
    ///
    /// # Errors
    /// [`ErrorKind::Corruption`](crate::engine::ErrorKind::Corruption) where it is not the table of such parts.
    pub fn decode(bytes: &mut &[u8], chunk_count: usize, part_lengths: &[u32]) -> Result<Self> {
        let mut input = Input(bytes);
        let min_bits = input.u32()?;
        if chunk_count > input.0.len() / 4 {
            return Err(corrupt("the table of its filters ends before its time"));
        }
        let mut parts = (0_u32..).zip(part_lengths);
        // The part in the making: its number, its blocks, and how many of these were given away.
        let (mut part, mut blocks, mut start) = (0, 0, 0);
        let mut places = Vec::with_capacity(chunk_count);
        for _ in 0..chunk_count {
            let count = input.u32()?;
            if count == 0 {
                places.push(FilterPlace::default());
                continue;
            }
            if start == blocks {
                let Some((number, length)) = parts.next() else {
                    return Err(corrupt("it has more filters than room for them"));
                };
                (part, blocks, start) = (number, *length as usize / BLOCK_BYTES, 0);
            }
            if start + count as usize > blocks {
                return Err(corrupt("a filter goes on beyond its part"));
            }
            places.push(FilterPlace { part, start: start as u32, count });
            start += count as usize;
        }
        if start != blocks || parts.next().is_some() {
            return Err(corrupt("its filters are not as long as they should be"));
        }
        *bytes = input.0;
        Ok(Self { min_bits, places })
    }

    /// Memory held, in bytes.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.places.capacity() * size_of::<FilterPlace>()
    }
}

/// Filters as they were made, and their parts.
#[derive(Debug, PartialEq, Eq)]
pub struct BuiltFilters {
    /// Where the filters lie in the parts.
    pub filters: Filters,
    /// Not one of them is empty.
    pub parts: Vec<Vec<u8>>,
}

/// Makes the filters of chunks as they come. Memory: the filters, and the hashes of one chunk's keys.
#[derive(Debug)]
pub(super) struct FilterBuilder {
    min_bits: u32,
    /// Of the chunk in the making, without repeats.
    hashes: Vec<u64>,
    places: Vec<FilterPlace>,
    parts: Vec<Vec<u8>>,
}

impl FilterBuilder {
    /// For chunks of residuals.
    pub(super) fn learned() -> Self {
        Self::new(MIN_KEY_BITS)
    }

    /// For blocks of keys that are bytes.
    pub(super) fn sparse() -> Self {
        Self::new(0)
    }

    fn new(min_bits: u32) -> Self {
        Self { min_bits, hashes: Vec::new(), places: Vec::new(), parts: Vec::new() }
    }

    /// Takes in keys of the chunk in the making, that take so many bits each, in their order.
    pub(super) fn add_numbers<K: ModelKey>(&mut self, keys: &[K], bits: u32) {
        if bits >= self.min_bits {
            keys.iter().for_each(|key| self.add(hash_number(*key)));
        }
    }

    /// Takes in the next key of the chunk in the making.
    pub(super) fn add_bytes(&mut self, key: &[u8]) {
        self.add(hash_bytes(key));
    }

    fn add(&mut self, hash: u64) {
        if self.hashes.last() != Some(&hash) {
            self.hashes.push(hash);
        }
    }

    /// The chunk is complete, with so many bytes: those that its keys take, where they did not say so themselves.
    pub(super) fn end_chunk(&mut self, bytes: usize) {
        let count = self.hashes.len().div_ceil(KEYS_PER_BLOCK);
        if count == 0 || bytes * 8 < self.hashes.len() * MIN_KEY_BITS as usize {
            self.hashes.clear();
            self.places.push(FilterPlace::default());
            return;
        }
        let size = count * BLOCK_BYTES;
        if self.parts.last().is_none_or(|part| part.len() + size > PART_BYTES) {
            self.parts.push(Vec::new());
        }
        let number = self.parts.len() as u32 - 1;
        let Some(part) = self.parts.last_mut() else { return };
        let start = part.len();
        part.resize(start + size, 0);
        let (filter, _) = part[start..].as_chunks_mut();
        insert(filter, &self.hashes);
        self.hashes.clear();
        let start = (start / BLOCK_BYTES) as u32;
        self.places.push(FilterPlace { part: number, start, count: count as u32 });
    }

    /// The filters, if there are any.
    pub(super) fn finish(self) -> Option<BuiltFilters> {
        let Self { min_bits, places, parts, .. } = self;
        (!parts.is_empty()).then_some(BuiltFilters { filters: Filters { min_bits, places }, parts })
    }
}

#[cfg(test)]
mod tests;
