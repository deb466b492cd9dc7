//! Bit-packed residuals, read at any place. The only unsafe reads of the index are here.

use super::chunks::LINE;
use super::key::ModelKey;

/// Bytes after the last word, so that a read of 16 bytes at any byte of data stays inside, and so does
/// one of two groups of eight residuals of any width, each of 64 bytes.
pub(super) const PADDING: usize = 2 * 64;
/// Widest residual that is read, wherever it begins in a byte, by one read of 8 bytes.
pub(super) const NARROW: u32 = 56;
/// Widest one that is read so by one of 16 bytes; beyond, residuals have the width of the key.
const WIDE: u32 = 120;
/// Cache lines that one prefetch asks for at most, without the last.
const PREFETCH_LINES: usize = 8;

/// The smallest width in use that holds `bits` bits of a key of `key_bits`.
pub(super) fn usable_width(bits: u32, key_bits: u32) -> u32 {
    let limit = if key_bits == 64 { NARROW } else { WIDE };
    if bits > limit { key_bits } else { bits }
}

/// Words of residuals of one chunk, and [`PADDING`] bytes. Little endian, whatever the machine.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packed<'a>(pub(super) &'a [u8]);

impl Packed<'_> {
    /// Residual `i` of those of `width` bits (a usable one, with its mask) that begin at `byte`.
    ///
    /// # Safety
    /// The last bit of that residual must lie within the words.
    #[inline(always)]
    pub(super) unsafe fn read<K: ModelKey>(&self, byte: usize, i: usize, width: u32, mask: K) -> K {
        let bit = i * width as usize;
        let at = byte + bit / 8;
        let shift = (bit % 8) as u32;
        debug_assert!(at + PADDING <= self.0.len());
        // SAFETY: `at` is at most the end of the words, and the padding after them is longer than the read.
        unsafe {
            let from = self.0.as_ptr().add(at);
            if K::BITS == 64 || width <= NARROW {
                let v = u64::from_le(from.cast::<u64>().read_unaligned());
                K::from_u64((v >> shift) & mask.low())
            } else {
                let v = u128::from_le(from.cast::<u128>().read_unaligned());
                K::from_u128((v >> shift) & mask.to_u128())
            }
        }
    }

    /// Where byte `byte` of the words is; [`PADDING`] bytes from there are readable.
    #[inline(always)]
    pub(super) fn at(&self, byte: usize) -> *const u8 {
        debug_assert!(byte + PADDING <= self.0.len());
        self.0.as_ptr().wrapping_add(byte)
    }

    /// Asks for the cache lines that hold bytes `from..to`, a few of them if they are many.
    #[inline(always)]
    pub(super) fn prefetch(&self, from: usize, to: usize) {
        // The first and the last even where they are one: how many there are cannot be foreseen, and to
        // ask twice costs less.
        let base = self.0.as_ptr();
        let last = to.saturating_sub(1);
        prefetch(base.wrapping_add(from));
        prefetch(base.wrapping_add(last));
        if last > from + LINE {
            prefetch(base.wrapping_add(from + LINE));
            if last > from + 2 * LINE {
                let mut at = from + 2 * LINE;
                while at < last.min(from + PREFETCH_LINES * LINE) {
                    prefetch(base.wrapping_add(at));
                    at += LINE;
                }
            }
        }
    }
}

/// Asks the processor for the cache line at `p`, which need not be valid.
#[inline(always)]
pub(super) fn prefetch<T>(p: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch never faults.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(p.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = p;
}

/// Collects the residuals of leaf after leaf, for one chunk.
#[derive(Debug, Default)]
pub(super) struct Packer {
    bytes: Vec<u8>,
}

impl Packer {
    /// Words so far; whole ones after [`Self::end_leaf`].
    pub(super) fn words(&self) -> usize {
        self.bytes.len() / 8
    }

    /// Takes the words so far: a chunk.
    pub(super) fn take(&mut self) -> Vec<u8> {
        // The next one will be as long.
        let next = Vec::with_capacity(self.bytes.capacity());
        std::mem::replace(&mut self.bytes, next)
    }

    /// Fills the last word of a leaf.
    pub(super) fn end_leaf(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
    }

    /// Appends residuals below `2^width`, of [`NARROW`] bits at most. All calls for one leaf but the
    /// last have a multiple of eight, and so end with a whole byte.
    pub(super) fn append(&mut self, width: u32, residuals: &[u64]) {
        if width == 0 {
            return;
        }
        let width = width as usize;
        let from = self.bytes.len();
        let end = from + (residuals.len() * width).div_ceil(8);
        // A group of eight is written in words that begin at its bytes: up to 8 bytes beyond it.
        self.bytes.resize(from + residuals.len().div_ceil(8) * width + 8, 0);
        let shifts: [u32; 8] = std::array::from_fn(|j| (j * width % 8) as u32);
        let steps: [usize; 8] = std::array::from_fn(|j| (j + 1) * width / 8 - j * width / 8);
        let mut out = &mut self.bytes[from..];
        let (groups, rest) = residuals.as_chunks::<8>();
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        let last: &[[u64; 8]] = if rest.is_empty() { &[] } else { &[last] };
        for group in groups.iter().chain(last) {
            let (mut word, mut at) = (0, 0);
            for j in 0..8 {
                word |= group[j] << shifts[j];
                out[at..at + 8].copy_from_slice(&word.to_le_bytes());
                at += steps[j];
                word >>= steps[j] * 8;
            }
            out = &mut out[width..];
        }
        self.bytes.truncate(end);
    }

    /// Appends residuals of more than [`NARROW`] bits, all of one leaf.
    pub(super) fn append_wide(&mut self, width: u32, residuals: impl Iterator<Item = u128>) {
        let (mut word, mut fill) = (0u128, 0);
        for residual in residuals {
            word |= residual << fill;
            fill += width;
            let whole = (fill / 8) as usize;
            self.bytes.extend_from_slice(&word.to_le_bytes()[..whole]);
            // All 128 bits may have gone.
            word = word.checked_shr(fill / 8 * 8).unwrap_or(0);
            fill %= 8;
        }
        if fill > 0 {
            self.bytes.push(word as u8);
        }
    }
}
