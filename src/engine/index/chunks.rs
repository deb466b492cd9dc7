//! The key data of an index, in chunks that are in memory or not: the index asks, its owner reads.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

use super::bits::PADDING;

/// Bytes of a chunk of residuals at most; those of a leaf lie in one chunk.
pub(super) const CHUNK_BYTES: usize = 32 << 10;
/// Uses of a chunk are counted up to this.
const MAX_USES: u8 = 3;

/// An answer needs a chunk that is not in memory: read it, `Chunks::put` it, and ask again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missing {
    /// Which chunk.
    pub chunk: usize,
}

/// Bytes of a chunk as they lie in memory: with room after them, so that a read of some bytes at any
/// byte of them stays inside.
pub fn padded(mut bytes: Vec<u8>) -> Arc<[u8]> {
    bytes.resize(bytes.len() + PADDING, 0);
    bytes.into()
}

/// Zeroes to read a chunk of `len` bytes into, which [`padded`] need not move.
pub fn unpadded(len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len + PADDING);
    bytes.resize(len, 0);
    bytes
}

/// Which chunks are in memory. They come one by one and stay; `Chunks::without` makes a table that has
/// one less, so that who reads the old one is not disturbed.
#[derive(Debug, Clone)]
pub struct Chunks {
    slots: Box<[OnceLock<Arc<[u8]>>]>,
    /// How often each was used, up to [`MAX_USES`]: shared by all tables of one index.
    uses: Arc<[AtomicU8]>,
}

impl Chunks {
    /// Chunks of these lengths, of which none is in memory but those without bytes.
    pub(super) fn new(lengths: &[u32]) -> Self {
        let empty = |length: &u32| match length {
            0 => OnceLock::from(padded(Vec::new())),
            _ => OnceLock::new(),
        };
        Self {
            slots: lengths.iter().map(empty).collect(),
            uses: lengths.iter().map(|_| AtomicU8::new(0)).collect(),
        }
    }

    /// Number of chunks, in memory or not.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Gives chunk `i`, made by [`padded`] and of the right length, to those who ask.
    pub(super) fn put(&self, i: usize, bytes: &Arc<[u8]>) {
        // Where two threads bring a chunk, either is as good.
        let _ = self.slots[i].set(Arc::clone(bytes));
    }

    /// The bytes of chunk `i` and their padding.
    #[inline(always)]
    pub(super) fn get(&self, i: usize) -> Result<&[u8], Missing> {
        let Some(bytes) = self.slots[i].get() else { return Err(Missing { chunk: i }) };
        // Two threads may count one use; the count only guides what is kept.
        let uses = self.uses[i].load(Ordering::Relaxed);
        if uses < MAX_USES {
            self.uses[i].store(uses + 1, Ordering::Relaxed);
        }
        Ok(bytes)
    }

    /// Chunk `i` and its padding, if it is in memory; not counted as a use.
    pub fn slot(&self, i: usize) -> Option<&Arc<[u8]>> {
        self.slots[i].get()
    }

    /// How often chunk `i` was used since this was last asked, up to a few.
    pub fn take_uses(&self, i: usize) -> u8 {
        self.uses[i].swap(0, Ordering::Relaxed)
    }

    /// Whether a chunk that is in memory was used and [`Self::take_uses`] not asked since. Uses of chunks
    /// without bytes, of which nobody else asks, are taken.
    pub fn any_used(&self) -> bool {
        let mut any = false;
        for (slot, uses) in self.slots.iter().zip(&*self.uses) {
            any |= match slot.get() {
                None => false,
                Some(bytes) if bytes.len() == PADDING => uses.swap(0, Ordering::Relaxed) > 0,
                Some(_) => uses.load(Ordering::Relaxed) > 0,
            };
        }
        any
    }

    /// The same chunks but for chunk `i`, which is not in memory.
    #[must_use]
    pub(super) fn without(&self, i: usize) -> Self {
        let copy = |(j, slot): (usize, &OnceLock<Arc<[u8]>>)| match slot.get() {
            Some(bytes) if j != i => OnceLock::from(Arc::clone(bytes)),
            _ => OnceLock::new(),
        };
        Self {
            slots: self.slots.iter().enumerate().map(copy).collect(),
            uses: Arc::clone(&self.uses),
        }
    }

    /// The same chunks, of which none is in memory but those without bytes.
    #[must_use]
    pub(super) fn emptied(&self) -> Self {
        let copy = |slot: &OnceLock<Arc<[u8]>>| match slot.get() {
            Some(bytes) if bytes.len() == PADDING => OnceLock::from(Arc::clone(bytes)),
            _ => OnceLock::new(),
        };
        Self { slots: self.slots.iter().map(copy).collect(), uses: Arc::clone(&self.uses) }
    }

    /// Bytes of the table, without the chunks.
    pub(super) fn table_bytes(&self) -> usize {
        self.slots.len() * (size_of::<OnceLock<Arc<[u8]>>>() + 1)
    }

    /// Bytes of the chunks that are in memory.
    pub(super) fn resident_bytes(&self) -> usize {
        self.slots.iter().filter_map(OnceLock::get).map(|bytes| bytes.len()).sum()
    }
}
