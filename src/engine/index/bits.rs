//! Bit-packed residuals, read at any place. The only unsafe reads of the index are here.

use super::key::ModelKey;

/// Bytes after the last word, so that a read of 16 bytes at any byte of data stays inside, and so does
/// one of four groups of eight residuals of any width, each of 64 bytes.
const PADDING: usize = 4 * 64;
/// Widths above the first and below the second are not used: such a residual may span more bytes than
/// one read takes. For `u128`, whose reads take 16 bytes, the same of the next two.
const GAPS: [(u32, u32); 2] = [(57, 64), (121, 128)];
/// Cache lines that one prefetch asks for at most.
const PREFETCH_LINES: usize = 8;

/// The smallest width in use that holds `bits` bits of a key of `key_bits`.
pub(super) fn usable_width(bits: u32, key_bits: u32) -> u32 {
    let (below, full) = if key_bits == 64 { GAPS[0] } else { GAPS[1] };
    if bits > below { full } else { bits }
}

/// Words of residuals. Little endian, whatever the machine.
#[derive(Debug, Clone)]
pub(super) struct Packed {
    /// The words and [`PADDING`] bytes.
    bytes: Box<[u8]>,
}

impl Packed {
    /// A buffer for `len` bytes of words that [`Self::new`] need not move.
    pub(super) fn buffer(len: usize) -> Vec<u8> {
        Vec::with_capacity(len + PADDING)
    }

    /// Of whole words.
    pub(super) fn new(mut words: Vec<u8>) -> Self {
        debug_assert!(words.len().is_multiple_of(8));
        words.resize(words.len() + PADDING, 0);
        Self { bytes: words.into_boxed_slice() }
    }

    /// The words, without the padding.
    pub(super) fn words(&self) -> &[u8] {
        &self.bytes[..self.bytes.len() - PADDING]
    }

    /// Bytes held.
    pub(super) fn memory_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Residual `i` of those of `width` bits (a usable one, with its mask) that begin at `byte`.
    ///
    /// # Safety
    /// The last bit of that residual must lie within [`Self::words`].
    #[inline(always)]
    pub(super) unsafe fn read<K: ModelKey>(&self, byte: usize, i: usize, width: u32, mask: K) -> K {
        let bit = i * width as usize;
        let at = byte + bit / 8;
        let shift = (bit % 8) as u32;
        debug_assert!(at + PADDING <= self.bytes.len());
        // SAFETY: `at` is at most the end of the words, and the padding after them is longer than the read.
        unsafe {
            let from = self.bytes.as_ptr().add(at);
            if K::BITS == 64 || width <= GAPS[0].0 {
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
        debug_assert!(byte + PADDING <= self.bytes.len());
        self.bytes.as_ptr().wrapping_add(byte)
    }

    /// Asks for the cache lines that hold `from..to`, the first few if there are many.
    #[inline(always)]
    pub(super) fn prefetch(&self, from: usize, to: usize) {
        let to = to.min(from + PREFETCH_LINES * 64);
        let base = self.bytes.as_ptr();
        let mut at = from;
        while at < to {
            prefetch(base.wrapping_add(at));
            at += 64;
        }
        prefetch(base.wrapping_add(to));
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

/// Appends residuals of `width` bits and then zeros up to a whole word.
#[derive(Debug, Default)]
pub(super) struct Packer {
    bytes: Vec<u8>,
}

impl Packer {
    /// Words so far.
    pub(super) fn words(&self) -> usize {
        self.bytes.len() / 8
    }

    /// The words, to read.
    pub(super) fn finish(self) -> Packed {
        Packed::new(self.bytes)
    }

    /// Appends `count` residuals; each is below `2^width`.
    pub(super) fn append<K: ModelKey>(
        &mut self,
        width: u32,
        count: usize,
        residual: impl Fn(usize) -> K,
    ) {
        if width == 0 {
            return;
        }
        let words = (count * width as usize).div_ceil(64);
        let from = self.bytes.len();
        // Whole words are written, beyond the end by up to one residual and one word.
        self.bytes.resize(from + words * 8 + 24, 0);
        let out = &mut self.bytes[from..];
        let mut at = 0;
        let mut fill = 0;
        if width <= GAPS[0].0 {
            let mut word = 0u64;
            for i in 0..count {
                word |= residual(i).low() << fill;
                out[at..at + 8].copy_from_slice(&word.to_le_bytes());
                fill += width;
                let whole = fill / 8;
                at += whole as usize;
                // Below 64: `fill` is at most 7 + 57.
                word = word.checked_shr(whole * 8).unwrap_or(0);
                fill %= 8;
            }
        } else {
            let mut word = 0u128;
            for i in 0..count {
                word |= residual(i).to_u128() << fill;
                out[at..at + 16].copy_from_slice(&word.to_le_bytes());
                fill += width;
                let whole = fill / 8;
                at += whole as usize;
                word = word.checked_shr(whole * 8).unwrap_or(0);
                fill %= 8;
            }
        }
        self.bytes.truncate(from + words * 8);
    }
}
