//! The index as bytes.

use super::bits::usable_width;
use super::key::ModelKey;
use super::leaf::{Leaf, MAX_LEAF, MAX_SAMPLED, Samples, samples};
use super::root::MAX_LEAVES;
use super::{LearnedKeys, Model, SENTINELS};
use crate::engine::error::{Error, Result};

const MAGIC: [u8; 4] = *b"OLRN";
const VERSION: u16 = 3;
/// Bytes before the first leaf.
const HEADER: usize = 32;

impl<K: ModelKey> LearnedKeys<K> {
    /// Appends the model, in the format that [`Self::decode_from`] reads. Chunks are stored beside it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let model = &*self.model;
        out.reserve(HEADER + model.leaf_count * Leaf::<K>::BYTES);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&(K::BYTES as u16).to_le_bytes());
        out.extend_from_slice(&(model.len as u32).to_le_bytes());
        out.extend_from_slice(&(model.leaf_count as u32).to_le_bytes());
        out.extend_from_slice(&(model.max_error as u64).to_le_bytes());
        out.extend_from_slice(&model.mean_error.to_bits().to_le_bytes());
        for leaf in &model.leaves[..model.leaf_count] {
            out.extend_from_slice(&leaf.first.to_u128().to_le_bytes()[..K::BYTES]);
            out.extend_from_slice(&leaf.meta.to_le_bytes());
            out.extend_from_slice(&leaf.start.to_le_bytes());
            out.extend_from_slice(&leaf.data.to_le_bytes());
        }
        for (i, own) in model.samples.iter().enumerate() {
            let (leaf, len) = model.leaf(i);
            if leaf.is_sampled() {
                out.extend(own.0[..samples(len)].iter().flat_map(|sample| sample.to_le_bytes()));
            }
        }
    }

    /// Reads what [`Self::encode`] wrote, the whole of `bytes`, for chunks of these lengths, none of which is
    /// in memory then.
    ///
    /// # Errors
    /// [`ErrorKind::Corruption`](crate::engine::ErrorKind::Corruption) where `bytes` cannot be an index
    /// of such keys. Damage that leaves sizes and offsets consistent shows only as other keys: a
    /// checksum around the bytes is the caller's.
    pub fn decode_from(bytes: &[u8], chunk_lengths: &[u32]) -> Result<Self> {
        let mut input = Input(bytes);
        if input.take(4)? != MAGIC {
            return Err(corrupt("it does not begin with the magic bytes"));
        }
        let version = input.u16()?;
        if version != VERSION {
            return Err(corrupt(format!("version {version} is not {VERSION}, the one known")));
        }
        let key_bytes = input.u16()?;
        if usize::from(key_bytes) != K::BYTES {
            return Err(corrupt(format!("keys of {key_bytes} bytes instead of {}", K::BYTES)));
        }
        let len = input.u32()? as usize;
        let leaf_count = input.u32()? as usize;
        let max_error = input.u64()? as usize;
        let mean_error = f64::from_bits(input.u64()?);
        // Sizes are compared with what is there before anything is allocated.
        if leaf_count as u64 * Leaf::<K>::BYTES as u64 > input.0.len() as u64 {
            return Err(corrupt("it is shorter than its leaves"));
        }
        if leaf_count > MAX_LEAVES || (leaf_count == 0) != (len == 0) {
            return Err(corrupt(format!("{leaf_count} leaves for {len} keys")));
        }
        let mut leaves = Vec::with_capacity(leaf_count + SENTINELS);
        for _ in 0..leaf_count {
            let mut first = [0; 16];
            first[..K::BYTES].copy_from_slice(input.take(K::BYTES)?);
            leaves.push(Leaf {
                first: K::from_u128(u128::from_le_bytes(first)),
                meta: input.u64()?,
                start: input.u32()?,
                data: input.u32()?,
                derived: 0,
            });
        }
        check_leaves(&leaves, len, chunk_lengths)?;
        let mut all = Vec::new();
        for i in 0..leaf_count {
            let end = leaves.get(i + 1).map_or(len, |next| next.start as usize);
            let own = end - leaves[i].start as usize;
            leaves[i] = leaves[i].derive(own);
            if leaves[i].is_sampled() {
                let mut samples = Samples::NONE;
                for sample in &mut samples.0[..self::samples(own)] {
                    *sample = input.u16()?;
                }
                all.resize(i, Samples::NONE);
                all.push(samples);
            }
        }
        if !input.0.is_empty() {
            return Err(corrupt("its length is not that of its leaves and their samples"));
        }
        let lengths = chunk_lengths.to_vec();
        let model = Model::assemble(len, leaves, all, lengths, max_error, mean_error);
        Ok(Self::new(model))
    }
}

/// Checks that the leaves divide positions `0..len` in order, and that the residuals of each lie within
/// their chunk: what the reads of residuals rely on.
fn check_leaves<K: ModelKey>(leaves: &[Leaf<K>], len: usize, chunk_lengths: &[u32]) -> Result<()> {
    let bad = |i: usize, what: &str| Err(corrupt(format!("leaf {i} {what}")));
    // Where every lookup may read without asking.
    if chunk_lengths.first() != Some(&0) {
        return Err(corrupt("its first chunk is not the empty one"));
    }
    for (i, leaf) in leaves.iter().enumerate() {
        let next = leaves.get(i + 1);
        let start = leaf.start as usize;
        let end = next.map_or(len, |n| n.start as usize);
        if (i == 0 && start != 0) || end <= start || end - start > MAX_LEAF {
            return bad(i, "does not begin where the one before it ends");
        }
        if next.is_some_and(|n| n.first < leaf.first) {
            return bad(i + 1, "has a first key below the one before it");
        }
        if leaf.is_sampled() && end - start > MAX_SAMPLED {
            return bad(i, "has more samples than a leaf can");
        }
        let width = leaf.width();
        if width > K::BITS || usable_width(width, K::BITS) != width {
            return bad(i, "has residuals of a width that is not in use");
        }
        if leaf.line().shifts().1 >= K::BITS {
            return bad(i, "has a line too steep for its keys");
        }
        let own = ((end - start) as u64 * u64::from(width)).div_ceil(64);
        let room = chunk_lengths.get(leaf.chunk()).map(|bytes| u64::from(bytes / 8));
        if room.is_none_or(|words| leaf.word() as u64 + own > words) {
            return bad(i, "has residuals outside its chunk");
        }
    }
    Ok(())
}

pub(super) fn corrupt(what: impl std::fmt::Display) -> Error {
    Error::corruption(format!("index of keys: {what}"))
}

/// Bytes not read yet.
pub(super) struct Input<'a>(pub(super) &'a [u8]);

impl<'a> Input<'a> {
    pub(super) fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        let (head, rest) =
            self.0.split_at_checked(n).ok_or_else(|| corrupt("it ends before its time"))?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    pub(super) fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }
}
