//! The key data of an index, in chunks that are in memory or not: the index asks, its owner reads.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

use super::bits::PADDING;

/// Bytes of a chunk of residuals at most; those of a leaf lie in one chunk.
pub(super) const CHUNK_BYTES: usize = 32 << 10;
/// Uses of a chunk are counted up to this.
const MAX_USES: u8 = 3;
/// Bytes of a cache line, or of half a one.
pub(super) const LINE: usize = 64;

/// An answer needs a chunk that is not in memory: read it, `put` it, and ask again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missing {
    /// Which chunk.
    pub chunk: usize,
}

/// A cache line.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; LINE]);

/// The bytes of a chunk as they lie in memory: from the begin of a cache line on, and with padding after
/// them, so that a read of some bytes at any byte of them stays inside.
#[derive(Debug, Clone)]
pub struct Chunk {
    lines: Arc<[Line]>,
    /// Without the padding.
    len: usize,
}

impl Chunk {
    /// A copy of `bytes`.
    pub fn new(bytes: &[u8]) -> Self {
        let lines = (bytes.len() + PADDING).div_ceil(LINE);
        let line = |i: usize| {
            let mut line = [0; LINE];
            let rest = bytes.get(i * LINE..).unwrap_or_default();
            let rest = &rest[..rest.len().min(LINE)];
            line[..rest.len()].copy_from_slice(rest);
            Line(line)
        };
        Self { lines: (0..lines).map(line).collect(), len: bytes.len() }
    }

    /// Number of bytes, without the padding.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no byte but the padding.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether both are the same piece of memory.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.lines, &other.lines)
    }

    /// The bytes, and [`PADDING`] more.
    pub(super) fn bytes(&self) -> &[u8] {
        bytes(&self.lines, self.len)
    }

    /// Memory held, in bytes.
    pub fn memory_bytes(&self) -> usize {
        size_of_val(&*self.lines)
    }
}

/// The `len` bytes that [`Chunk::new`] put into `lines`, and their padding.
#[inline(always)]
fn bytes(lines: &[Line], len: usize) -> &[u8] {
    debug_assert!(len + PADDING <= size_of_val(lines));
    // SAFETY: a line is `LINE` bytes, of which any value is one, and `Chunk::new` made enough of them.
    unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), len + PADDING) }
}

/// A chunk that is in memory, and how often it was used, up to [`MAX_USES`]. Its parts stand here one
/// by one so that a slot of the table takes half a cache line.
#[derive(Debug)]
struct Held {
    lines: Arc<[Line]>,
    len: u32,
    uses: AtomicU8,
}

impl Held {
    fn new(chunk: &Chunk) -> Self {
        let lines = Arc::clone(&chunk.lines);
        Self { lines, len: chunk.len as u32, uses: AtomicU8::new(0) }
    }

    fn chunk(&self) -> Chunk {
        Chunk { lines: Arc::clone(&self.lines), len: self.len as usize }
    }

    #[inline(always)]
    fn uses(&self) -> u8 {
        self.uses.load(Ordering::Relaxed)
    }
}

impl Clone for Held {
    fn clone(&self) -> Self {
        Self { lines: Arc::clone(&self.lines), len: self.len, uses: AtomicU8::new(self.uses()) }
    }
}

/// Which chunks are in memory. They come one by one and stay; `Chunks::without` makes a table that has
/// one less, so that who reads the old one is not disturbed.
#[derive(Debug, Clone)]
pub struct Chunks {
    slots: Box<[OnceLock<Held>]>,
}

impl Chunks {
    /// Chunks of these lengths, of which none is in memory but those without bytes.
    pub(super) fn new(lengths: &[u32]) -> Self {
        let empty = |length: &u32| match length {
            0 => OnceLock::from(Held::new(&Chunk::new(&[]))),
            _ => OnceLock::new(),
        };
        Self { slots: lengths.iter().map(empty).collect() }
    }

    /// Number of chunks, in memory or not.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Gives chunk `i`, of the right length, to those who ask.
    pub(super) fn put(&self, i: usize, chunk: &Chunk) {
        // Where two threads bring a chunk, either is as good.
        let _ = self.slots[i].set(Held::new(chunk));
    }

    /// The bytes of chunk `i` and their padding.
    #[inline(always)]
    pub(super) fn get(&self, i: usize) -> Result<&[u8], Missing> {
        let Some(held) = self.slots[i].get() else { return Err(Missing { chunk: i }) };
        // Two threads may count one use; the count only guides what is kept.
        let uses = held.uses();
        if uses < MAX_USES {
            held.uses.store(uses + 1, Ordering::Relaxed);
        }
        Ok(bytes(&held.lines, held.len as usize))
    }

    /// Whether chunk `i` is in memory; not counted as a use.
    pub fn has(&self, i: usize) -> bool {
        self.slots[i].get().is_some()
    }

    /// Chunk `i`, if it is in memory; not counted as a use.
    pub fn slot(&self, i: usize) -> Option<Chunk> {
        self.slots[i].get().map(Held::chunk)
    }

    /// How often chunk `i` was used since this was last asked, up to a few.
    pub fn take_uses(&self, i: usize) -> u8 {
        self.slots[i].get().map_or(0, |held| held.uses.swap(0, Ordering::Relaxed))
    }

    /// Whether a chunk that is in memory was used and [`Self::take_uses`] not asked since. Uses of chunks
    /// without bytes, of which nobody else asks, are taken.
    pub fn any_used(&self) -> bool {
        let mut any = false;
        for held in self.slots.iter().filter_map(OnceLock::get) {
            any |= match held.len {
                0 => held.uses.swap(0, Ordering::Relaxed) > 0,
                _ => held.uses() > 0,
            };
        }
        any
    }

    /// The same chunks but for chunk `i`, which is not in memory.
    #[must_use]
    pub(super) fn without(&self, i: usize) -> Self {
        let mut slots = self.slots.clone();
        slots[i] = OnceLock::new();
        Self { slots }
    }

    /// The same chunks, of which none is in memory but those without bytes.
    #[must_use]
    pub(super) fn emptied(&self) -> Self {
        let copy = |slot: &OnceLock<Held>| match slot.get() {
            Some(held) if held.len == 0 => OnceLock::from(held.clone()),
            _ => OnceLock::new(),
        };
        Self { slots: self.slots.iter().map(copy).collect() }
    }

    /// Bytes of the table, without the chunks.
    pub(super) fn table_bytes(&self) -> usize {
        size_of_val(&*self.slots)
    }

    /// Bytes of the chunks that are in memory.
    pub(super) fn resident_bytes(&self) -> usize {
        self.slots.iter().filter_map(OnceLock::get).map(|held| size_of_val(&*held.lines)).sum()
    }
}
