//! Decodes and compares eight keys at a time with AVX-512 (VBMI).
//!
//! Eight residuals of `w` bits are `w` bytes, so one permutation of 64 bytes brings each into a lane of
//! its own, and the same permutation and shifts serve the next eight, `w` bytes further.

use std::arch::x86_64::*;

use super::chunks::LINE;
use super::leaf::{LANES, Leaf, SAMPLE_BITS};

/// Whether the processor has what this module needs.
pub(super) fn is_supported() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vbmi")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("lzcnt")
        && is_x86_feature_detected!("popcnt")
}

/// Consecutive keys of a leaf to compare: see `LeafView` for the terms.
pub(super) struct Group {
    /// Where the leaf's residuals begin.
    pub residuals: *const u8,
    pub width: u32,
    /// Shifted to the left already, where the line is.
    pub mantissa: u64,
    pub right: u32,
    /// The first row to compare.
    pub row: usize,
}

/// How eight residuals come into lanes that begin with a byte: the bytes that hold each, and the bits above it there. The bits below are
/// those that are left of 64 when its own are taken away, too.
#[repr(C, align(64))]
struct Spread {
    bytes: [u8; 64],
    above: [u64; 8],
}

/// By width.
static SPREADS: [Spread; 65] = spreads();

const fn spreads() -> [Spread; 65] {
    let mut all = [const { Spread { bytes: [0; 64], above: [0; 8] } }; 65];
    let mut width = 0;
    while width <= 64 {
        let mut lane = 0;
        while lane < 8 {
            let bit = lane * width;
            let mut byte = 0;
            while byte < 8 {
                all[width].bytes[lane * 8 + byte] = (bit / 8 + byte) as u8;
                byte += 1;
            }
            // Widths of more than 56 bits other than 64 are not in use.
            all[width].above[lane] = 64usize.saturating_sub(width + bit % 8) as u64;
            lane += 1;
        }
        width += 1;
    }
    all
}

/// Where to read 64 bytes for the residuals from address `from` on, which are in the first `length` bytes, and for those in the last 64 of
/// these, without touching a cache line that has none of them.
#[inline(always)]
fn addresses(from: usize, length: usize) -> (usize, usize) {
    let last = (from - from % LINE).max((from + length).wrapping_sub(LINE));
    (from.min(last), last)
}

/// Of the 16 rows from `group.row` on, a multiple of eight, which are below `u` and which are equal to it, the first one in the
/// lowest bit.
///
/// # Safety
/// The processor must support this ([`is_supported`]), and 128 bytes from the first residual on must be readable, as must the cache lines
/// that hold residuals of these.
#[inline(always)]
pub(super) unsafe fn compare_whole(group: &Group, u: u64) -> (u32, u32) {
    // SAFETY: the caller sees to the features and to the memory.
    unsafe {
        let width = group.width as usize;
        let spread = &SPREADS[width];
        let from = group.residuals.addr() + group.row * width / 8;
        let (first, second) = addresses(from, 2 * width);
        let bytes = _mm512_load_si512(spread.bytes.as_ptr().cast());
        let above = _mm512_load_si512(spread.above.as_ptr().cast());
        let below = _mm_cvtsi32_si128(64 - group.width as i32);
        let right = _mm_cvtsi32_si128(group.right as i32);
        let lanes = _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7);
        let line = _mm512_add_epi64(
            _mm512_mullo_epi64(lanes, _mm512_set1_epi64(group.mantissa as i64)),
            _mm512_set1_epi64(group.mantissa.wrapping_mul(group.row as u64) as i64),
        );
        let next = _mm512_add_epi64(line, _mm512_set1_epi64((group.mantissa << 3) as i64));
        let keys = |base: usize, from: usize, line| {
            let words = _mm512_loadu_si512(group.residuals.with_addr(base).cast());
            let bytes = _mm512_add_epi8(bytes, _mm512_set1_epi8(from.wrapping_sub(base) as i8));
            let residuals = _mm512_permutexvar_epi8(bytes, words);
            let residuals = _mm512_srl_epi64(_mm512_sllv_epi64(residuals, above), below);
            _mm512_add_epi64(_mm512_srl_epi64(line, right), residuals)
        };
        let (low, high) = (keys(first, from, line), keys(second, from + width, next));
        let limit = _mm512_set1_epi64(u as i64);
        let both = |low: __mmask8, high: __mmask8| u32::from(_mm512_kunpackb(high.into(), low.into()));
        (
            both(_mm512_cmplt_epu64_mask(low, limit), _mm512_cmplt_epu64_mask(high, limit)),
            both(_mm512_cmpeq_epu64_mask(low, limit), _mm512_cmpeq_epu64_mask(high, limit)),
        )
    }
}

/// As [`compare_whole`], of `8 * GROUPS` rows, whatever the first one is.
///
/// # Safety
/// As there.
#[inline(always)]
pub(super) unsafe fn compare<const GROUPS: usize>(group: &Group, u: u64) -> (u32, u32) {
    // SAFETY: the caller sees to the features and to the memory.
    unsafe {
        let width = group.width as usize;
        let bit = group.row * width;
        let from = group.residuals.addr() + bit / 8;
        let length = GROUPS * width + usize::from(!bit.is_multiple_of(8));
        let (first, second) = addresses(from, length);
        let lanes = _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7);
        let bits = _mm512_add_epi64(
            _mm512_mul_epu32(lanes, _mm512_set1_epi64(i64::from(group.width))),
            _mm512_set1_epi64((bit % 8) as i64),
        );
        let shifts = _mm512_and_si512(bits, _mm512_set1_epi64(7));
        // Each lane takes the eight bytes from its first one on.
        let bytes = _mm512_add_epi8(
            _mm512_shuffle_epi8(
                _mm512_srli_epi64::<3>(bits),
                _mm512_set4_epi32(0x0808_0808, 0x0808_0808, 0, 0),
            ),
            _mm512_set1_epi64(0x0706_0504_0302_0100),
        );
        let mask = _mm512_set1_epi64(_bzhi_u64(u64::MAX, group.width) as i64);
        let limit = _mm512_set1_epi64(u as i64);
        let right = _mm_cvtsi32_si128(group.right as i32);
        let mut line = _mm512_add_epi64(
            _mm512_mullo_epi64(lanes, _mm512_set1_epi64(group.mantissa as i64)),
            _mm512_set1_epi64(group.mantissa.wrapping_mul(group.row as u64) as i64),
        );
        let step = _mm512_set1_epi64((group.mantissa << 3) as i64);
        let (mut below, mut equal) = (0, 0);
        for g in 0..GROUPS {
            let base = if g == 0 { first } else { second };
            let words = _mm512_loadu_si512(group.residuals.with_addr(base).cast());
            let own = (from + g * width).wrapping_sub(base);
            let bytes = _mm512_add_epi8(bytes, _mm512_set1_epi8(own as i8));
            let residuals = _mm512_and_si512(
                _mm512_srlv_epi64(_mm512_permutexvar_epi8(bytes, words), shifts),
                mask,
            );
            let keys = _mm512_add_epi64(_mm512_srl_epi64(line, right), residuals);
            below |= u32::from(_mm512_cmplt_epu64_mask(keys, limit)) << (8 * g);
            equal |= u32::from(_mm512_cmpeq_epu64_mask(keys, limit)) << (8 * g);
            line = _mm512_add_epi64(line, step);
        }
        (below, equal)
    }
}

/// How many of a leaf's samples are below `sample`, and how many are not above it.
///
/// # Safety
/// The processor must support this ([`is_supported`]).
#[inline(always)]
pub(super) unsafe fn count_samples(leaf: &Leaf, sample: u16) -> (usize, usize) {
    /// Of each lane the two bytes of the leaf that have its sample.
    const BYTES: [u8; 64] = {
        let mut bytes = [0; 64];
        let mut lane = 0;
        while lane < LANES {
            let from = Leaf::HINTS_AT + lane / 2 * 3 + lane % 2;
            (bytes[2 * lane], bytes[2 * lane + 1]) = (from as u8, from as u8 + 1);
            lane += 1;
        }
        bytes
    };
    const FREE: u32 = 16 - SAMPLE_BITS;
    // SAFETY: the caller sees to the features; a leaf is 64 bytes, aligned.
    unsafe {
        let line = _mm512_load_si512(std::ptr::from_ref(leaf).cast());
        let words = _mm512_permutexvar_epi8(_mm512_loadu_si512(BYTES.as_ptr().cast()), line);
        // All samples come to the highest bits of their lanes. There is none in the last one.
        let words = _mm512_sllv_epi16(words, _mm512_set1_epi32(FREE as i32));
        let samples = _mm512_ternarylogic_epi64::<0xea>(
            words,
            _mm512_set1_epi16(-1 << FREE),
            _mm512_inserti64x4::<1>(
                _mm512_setzero_si512(),
                _mm256_insert_epi16::<15>(_mm256_setzero_si256(), -1),
            ),
        );
        let sample = _mm512_set1_epi16((sample << FREE) as i16);
        let below = _mm512_cmplt_epu16_mask(samples, sample);
        let not_above = _mm512_cmple_epu16_mask(samples, sample);
        (below.count_ones() as usize, not_above.count_ones() as usize)
    }
}

/// How many of `keys` are below `q`.
///
/// # Safety
/// The processor must support this ([`is_supported`]).
#[inline(always)]
pub(super) unsafe fn count_below(keys: &[u64; 8], q: u64) -> usize {
    // SAFETY: the caller sees to the features; it is 64 bytes.
    unsafe {
        let keys = _mm512_loadu_si512(keys.as_ptr().cast());
        _mm512_cmplt_epu64_mask(keys, _mm512_set1_epi64(q as i64)).count_ones() as usize
    }
}
