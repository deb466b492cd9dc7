//! The index as bytes.

use super::bits::usable_width;
use super::key::ModelKey;
use super::leaf::{HINTS, LANES, Leaf, SAMPLE_ROWS};
use super::root::{MAX_LEAVES, SENTINELS};
use super::{LearnedKeys, Model};
use crate::engine::error::{Error, Result};

const MAGIC: [u8; 4] = *b"OLRN";
const VERSION: u16 = 5;
/// Bytes before the first keys.
const HEADER: usize = 32;
/// Bytes of a leaf.
const LEAF: usize = size_of::<Leaf>();

impl<K: ModelKey> LearnedKeys<K> {
    /// Appends the model, in the format that [`Self::decode_from`] reads. Chunks are stored beside it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let model = &*self.model;
        out.reserve(HEADER + model.leaves.len() * (K::BYTES + LEAF));
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&(K::BYTES as u16).to_le_bytes());
        out.extend_from_slice(&(model.len as u32).to_le_bytes());
        out.extend_from_slice(&(model.leaves.len() as u32).to_le_bytes());
        out.extend_from_slice(&(model.max_error as u64).to_le_bytes());
        out.extend_from_slice(&model.mean_error.to_bits().to_le_bytes());
        for first in &model.firsts[..model.leaves.len()] {
            out.extend_from_slice(&first.to_u128().to_le_bytes()[..K::BYTES]);
        }
        for leaf in &model.leaves {
            out.extend_from_slice(&leaf.start.to_le_bytes());
            out.extend_from_slice(&leaf.data.to_le_bytes());
            out.extend_from_slice(&leaf.mantissa.to_le_bytes());
            out.extend_from_slice(&[leaf.exponent, leaf.width, leaf.bias, leaf.kind]);
            out.extend_from_slice(&leaf.stored_hints());
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
        if leaf_count as u64 * (K::BYTES + LEAF) as u64 != input.0.len() as u64 {
            return Err(corrupt("its length is not that of its leaves"));
        }
        if leaf_count > MAX_LEAVES || (leaf_count == 0) != (len == 0) {
            return Err(corrupt(format!("{leaf_count} leaves for {len} keys")));
        }
        let mut firsts = Vec::with_capacity(leaf_count + SENTINELS);
        for _ in 0..leaf_count {
            let mut first = [0; 16];
            first[..K::BYTES].copy_from_slice(input.take(K::BYTES)?);
            firsts.push(K::from_u128(u128::from_le_bytes(first)));
        }
        if let Some(i) = firsts.windows(2).position(|pair| pair[1] < pair[0]) {
            return Err(corrupt(format!("leaf {} has a first key below the one before it", i + 1)));
        }
        let mut leaves = Vec::with_capacity(leaf_count);
        for _ in 0..leaf_count {
            let (start, data, mantissa) = (input.u32()?, input.u32()?, input.u32()?);
            let [exponent, width, bias, kind] = input.array()?;
            let hints = input.array::<HINTS>()?;
            leaves.push(Leaf { start, data, mantissa, exponent, width, bias, kind, hints });
        }
        check_leaves::<K>(&leaves, len, chunk_lengths)?;
        leaves.iter_mut().for_each(Leaf::derive);
        let lengths = chunk_lengths.to_vec();
        let model = Model::assemble(len, firsts, leaves, lengths, max_error, mean_error);
        Ok(Self::new(model))
    }
}

/// Checks that the leaves divide positions `0..len` in order, and that the residuals of each lie within
/// their chunk: what the reads of residuals rely on.
fn check_leaves<K: ModelKey>(leaves: &[Leaf], len: usize, chunk_lengths: &[u32]) -> Result<()> {
    let bad = |i: usize, what: &str| Err(corrupt(format!("leaf {i} {what}")));
    // Where every lookup may read without asking.
    if chunk_lengths.first() != Some(&0) {
        return Err(corrupt("its first chunk is not the empty one"));
    }
    let mut start = 0;
    for (i, leaf) in leaves.iter().enumerate() {
        if leaf.start as usize != start {
            return bad(i, "does not begin where the one before it ends");
        }
        start += leaf.len::<K>();
        let is_last = i + 1 == leaves.len();
        if leaf.is_sampled::<K>() && !is_last && !leaf.len::<K>().is_multiple_of(SAMPLE_ROWS) {
            return bad(i, "ends within a group of rows");
        }
        // Searches of samples rely on their order, and so on that those which are not there come last.
        if leaf.is_sampled::<K>() && !leaf.samples()[..LANES - 1].is_sorted() {
            return bad(i, "has samples that are not in order");
        }
        if leaf.is_sampled::<K>() && leaf.sample_count() > (leaf.len::<K>() - 1) / SAMPLE_ROWS {
            return bad(i, "has more samples than groups of rows");
        }
        let width = leaf.width();
        if width > K::BITS || usable_width(width, K::BITS) != width {
            return bad(i, "has residuals of a width that is not in use");
        }
        if !leaf.is_of::<K>() {
            return bad(i, "is of a kind that such keys do not have");
        }
        if leaf.has_breaks() && !leaf.breaks().is_valid() {
            return bad(i, "has breaks that are not in order");
        }
        let (right, left) = leaf.line().shifts();
        if right >= u64::BITS || left >= if leaf.is_slim::<K>() { u64::BITS } else { K::BITS } {
            return bad(i, "has a line too steep for its keys, or too flat");
        }
        let own = (leaf.stored_rows::<K>() as u64 * u64::from(width)).div_ceil(64);
        let room = chunk_lengths.get(leaf.chunk()).map(|bytes| u64::from(bytes / 8));
        if room.is_none_or(|words| leaf.word() as u64 + own > words) {
            return bad(i, "has residuals outside its chunk");
        }
    }
    if start != len {
        return Err(corrupt(format!("its leaves have {start} keys instead of {len}")));
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
