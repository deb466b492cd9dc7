//! The learned index: sorted keys in, exact positions out. No I/O.

mod key;
#[cfg(test)]
mod tests;

use std::ops::Range;

pub use self::key::ModelKey;
use super::error::{Error, Result};

const MAGIC: [u8; 4] = *b"OLK0";
const HEADER: usize = 16;

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
    /// Largest error, in rows.
    pub max_error: usize,
    /// Mean absolute error over all keys, in rows.
    pub mean_error: f64,
    /// Bytes of the model.
    pub model_bytes: usize,
    /// Bytes of the keys.
    pub key_bytes: usize,
}

/// The keys of one segment, exact and immutable, with the model that finds them.
#[derive(Debug, Clone)]
pub struct LearnedKeys<K> {
    keys: Vec<K>,
}

impl<K: ModelKey> LearnedKeys<K> {
    /// Trains on `keys`: ascending, repeats allowed, at most `u32::MAX` of them.
    ///
    /// # Panics
    /// If there are more keys than that.
    pub fn build(keys: &[K]) -> Self {
        assert!(u32::try_from(keys.len()).is_ok(), "a segment holds at most u32::MAX keys");
        debug_assert!(keys.is_sorted());
        Self { keys: keys.to_vec() }
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The key at position `i`.
    ///
    /// # Panics
    /// If `i` is not below [`Self::len`].
    pub fn get(&self, i: usize) -> K {
        self.keys[i]
    }

    /// Position of the first key that is `>= q`, or [`Self::len`].
    pub fn lower_bound(&self, q: K) -> usize {
        self.keys.partition_point(|&k| k < q)
    }

    /// Position of the first key that is `> q`, or [`Self::len`].
    pub fn upper_bound(&self, q: K) -> usize {
        q.successor().map_or(self.len(), |next| self.lower_bound(next))
    }

    /// [`Self::lower_bound`] of every key of `q`, in any order, into `out`.
    ///
    /// # Panics
    /// If `q` and `out` differ in length.
    pub fn lower_bound_batch(&self, q: &[K], out: &mut [u32]) {
        assert_eq!(q.len(), out.len(), "one position per key");
        for (q, out) in q.iter().zip(out) {
            *out = self.lower_bound(*q) as u32;
        }
    }

    /// Appends the keys at `range` to `out`.
    ///
    /// # Panics
    /// If `range` does not lie within the keys.
    pub fn decode(&self, range: Range<usize>, out: &mut Vec<K>) {
        out.extend_from_slice(&self.keys[range]);
    }

    /// Where the model expects `q`, without looking at keys.
    pub fn predict(&self, q: K) -> Prediction {
        Prediction { pos: self.lower_bound(q), lo: 0, hi: self.len() }
    }

    /// Size and precision of the model.
    pub fn stats(&self) -> ModelStats {
        ModelStats { leaf_count: 1, key_bytes: self.keys.len() * K::BYTES, ..ModelStats::default() }
    }

    /// Memory held, in bytes.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.keys.capacity() * size_of::<K>()
    }

    /// Appends the format that [`Self::decode_from`] reads.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&(K::BYTES as u32).to_le_bytes());
        out.extend_from_slice(&(self.keys.len() as u64).to_le_bytes());
        for k in &self.keys {
            out.extend_from_slice(&k.to_u128().to_le_bytes()[..K::BYTES]);
        }
    }

    /// Reads what [`Self::encode`] wrote. Bytes that cannot be such are an error.
    pub fn decode_from(bytes: &[u8]) -> Result<Self> {
        let corrupt = |what: &str| Err(Error::corruption(format!("learned index: {what}")));
        let Some((header, body)) = bytes.split_at_checked(HEADER) else {
            return corrupt("shorter than its header");
        };
        let mut count = [0; 8];
        count.copy_from_slice(&header[8..]);
        let count = u64::from_le_bytes(count);
        if header[..4] != MAGIC || header[4..8] != (K::BYTES as u32).to_le_bytes() {
            return corrupt("no learned index of this kind of key");
        }
        if count > u64::from(u32::MAX) || count * K::BYTES as u64 != body.len() as u64 {
            return corrupt("its length is not that of its keys");
        }
        let keys: Vec<K> = body
            .chunks_exact(K::BYTES)
            .map(|c| {
                let mut k = [0; 16];
                k[..K::BYTES].copy_from_slice(c);
                K::from_u128(u128::from_le_bytes(k))
            })
            .collect();
        if !keys.is_sorted() {
            return corrupt("its keys are not in order");
        }
        Ok(Self { keys })
    }
}
