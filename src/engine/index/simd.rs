//! Decodes and compares eight keys at a time with AVX-512 (VBMI).
//!
//! Eight residuals of `w` bits are `w` bytes, so one permutation of 64 bytes brings each into a lane of
//! its own, and the same permutation and shifts serve the next eight, `w` bytes further.

use std::arch::x86_64::*;

use super::chunks::LINE;
use super::leaf::{LANES, Leaf, MAX_AIMED, SAMPLE_BITS};

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
    pub right: u64,
    /// 64 less the width.
    pub free: u64,
    /// The first row to compare.
    pub row: usize,
}

/// How eight residuals come into lanes that begin with a byte.
#[repr(C, align(64))]
struct Spread {
    /// The bytes that hold each.
    bytes: [u8; 64],
    /// The bits above it there.
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

/// Of the `8 * GROUPS` rows from `group.row` on, which are below `u` and which are equal to it, the
/// first one in the lowest bit. With `WHOLE`, `group.row` is a multiple of eight; otherwise residuals
/// have [`MAX_AIMED`] bits at most.
///
/// # Safety
/// The processor must support this ([`is_supported`]), residuals have 64 bits at most, 128 bytes from
/// the first one on must be readable, as must the cache lines that hold residuals of these.
#[inline(always)]
pub(super) unsafe fn compare<const GROUPS: usize, const WHOLE: bool>(
    group: &Group,
    u: u64,
) -> (u32, u32) {
    // SAFETY: the caller sees to the features and to the memory.
    unsafe {
        debug_assert!(WHOLE || group.width <= MAX_AIMED);
        let width = group.width as usize;
        let spread = &SPREADS[width];
        let bit = group.row * width;
        let from = group.residuals.addr() + bit / 8;
        let mut above = _mm512_load_si512(spread.above.as_ptr().cast());
        if !WHOLE {
            above = _mm512_sub_epi64(above, _mm512_set1_epi64((bit % 8) as i64));
        }
        let free = _mm_cvtsi64_si128(group.free as i64);
        // No cache line is touched that has no residual of these: 64 bytes are read from the begin of
        // the line that holds all, or for the first group from its own begin on and for the second up
        // to its end. Those of a group begin so far from there:
        let length = GROUPS * width + usize::from(!WHOLE);
        let into = from % LINE;
        let begins =
            if into + length <= LINE { [into, into + width] } else { [0, width + LINE - length] };
        let right = _mm_cvtsi64_si128(group.right as i64);
        let lanes = _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7);
        let mut line = _mm512_add_epi64(
            _mm512_mullo_epi64(lanes, _mm512_set1_epi64(group.mantissa as i64)),
            _mm512_set1_epi64(group.mantissa.wrapping_mul(group.row as u64) as i64),
        );
        let limit = _mm512_set1_epi64(u as i64);
        let (mut are_below, mut are_equal) = (0, 0);
        for (g, begin) in begins.into_iter().take(GROUPS).enumerate() {
            let words = group.residuals.with_addr(from + g * width - begin);
            let words = _mm512_loadu_si512(words.cast());
            let bytes = _mm512_add_epi8(
                _mm512_load_si512(spread.bytes.as_ptr().cast()),
                _mm512_set1_epi8(begin as i8),
            );
            let residuals = _mm512_permutexvar_epi8(bytes, words);
            let residuals = _mm512_srl_epi64(_mm512_sllv_epi64(residuals, above), free);
            let keys = _mm512_add_epi64(_mm512_srl_epi64(line, right), residuals);
            are_below |= u32::from(_mm512_cmplt_epu64_mask(keys, limit)) << (8 * g);
            are_equal |= u32::from(_mm512_cmpeq_epu64_mask(keys, limit)) << (8 * g);
            line = _mm512_add_epi64(line, _mm512_set1_epi64((group.mantissa << 3) as i64));
        }
        (are_below, are_equal)
    }
}

/// How many of the first `rows` bits are set.
///
/// # Safety
/// The processor must support this ([`is_supported`]).
#[inline(always)]
pub(super) unsafe fn count_of_first(bits: u32, rows: usize) -> usize {
    // SAFETY: the caller sees to the features.
    unsafe { _bzhi_u32(bits, rows as u32).count_ones() as usize }
}

/// `distance * rows + before` as a row: 0 where it is not above 0, and at least `2^63` where it is a
/// large number.
///
/// # Safety
/// The processor must support this ([`is_supported`]).
#[inline(always)]
pub(super) unsafe fn row(distance: u64, rows: f32, before: f32) -> usize {
    // SAFETY: the caller sees to the features.
    unsafe {
        let at = _mm_set_ss(distance as f32 * rows + before);
        _mm_cvttss_i64(_mm_max_ss(at, _mm_setzero_ps())) as usize
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

/// How many of the eight keys after key `at` of `keys` are below `q`; and the last key that is, or key `at`.
///
/// # Safety
/// The processor must support this ([`is_supported`]); there must be these keys.
#[inline(always)]
pub(super) unsafe fn count_below(keys: *const u64, at: usize, q: u64) -> (usize, u64) {
    // SAFETY: the caller sees to the features and to the keys.
    unsafe {
        let keys = keys.add(at);
        let next = _mm512_loadu_si512(keys.add(1).cast());
        let below = _mm512_cmplt_epu64_mask(next, _mm512_set1_epi64(q as i64));
        let count = below.count_ones() as usize;
        (count, keys.add(count).read())
    }
}

/// How many marks of a leaf whose line has breaks are below `limit`.
///
/// # Safety
/// The processor must support this ([`is_supported`]).
#[inline(always)]
pub(super) unsafe fn count_marks(leaf: &Leaf, limit: u64) -> usize {
    const FIRST: usize = Leaf::HINTS_AT / 8;
    // SAFETY: the caller sees to the features; a leaf is 64 bytes, aligned.
    unsafe {
        let line = _mm512_load_si512(std::ptr::from_ref(leaf).cast());
        let below = _mm512_cmplt_epu64_mask(line, _mm512_set1_epi64(limit as i64));
        (below >> FIRST).count_ones() as usize
    }
}
