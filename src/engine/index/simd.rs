//! Decodes and compares eight keys at a time with AVX-512 (VBMI).
//!
//! Eight residuals of `w` bits are `w` bytes, so one permutation of 64 bytes brings each into a lane of
//! its own, and the same permutation and shifts serve the next eight, `w` bytes further.

use std::arch::x86_64::*;

use super::chunks::LINE;
use super::leaf::Samples;

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
    pub mantissa: u64,
    pub right: u32,
    pub left: u32,
    /// The first row to compare.
    pub row: usize,
}

/// Which of the `8 * GROUPS` rows from `group.row` on are below `u`, and which are equal to it, the first one in the lowest bit.
///
/// # Safety
/// The processor must support this ([`is_supported`]), and 64 bytes from the first residual of each
/// of the groups on must be readable, as must the cache lines that hold residuals of these. With `WHOLE`, the row must be a multiple
/// of eight, or what this gives means nothing.
#[inline(always)]
pub(super) unsafe fn compare<const GROUPS: usize, const WHOLE: bool>(
    group: &Group,
    u: u64,
) -> (u32, u32) {
    // SAFETY: the caller sees to the features and to the memory.
    unsafe {
        let width = group.width as usize;
        let bit = group.row * width;
        let from = group.residuals.addr() + bit / 8;
        let lanes = _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7);
        let mut bits = _mm512_mul_epu32(lanes, _mm512_set1_epi64(i64::from(group.width)));
        let mut length = GROUPS * width;
        if !WHOLE {
            bits = _mm512_add_epi64(bits, _mm512_set1_epi64((bit % 8) as i64));
            length += usize::from(!bit.is_multiple_of(8));
        }
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
        let (right, left) =
            (_mm_cvtsi32_si128(group.right as i32), _mm_cvtsi32_si128(group.left as i32));
        let mut line = _mm512_add_epi64(
            _mm512_mullo_epi64(lanes, _mm512_set1_epi64(group.mantissa as i64)),
            _mm512_set1_epi64(group.mantissa.wrapping_mul(group.row as u64) as i64),
        );
        let step = _mm512_set1_epi64((group.mantissa << 3) as i64);
        // No cache line is touched in which there is no residual of these: 64 bytes are read from the begin of the line that holds all, or from
        // the first on; for the second group, those up to the last, unless the first 64 have them.
        let end = from + length;
        let first = if from % LINE + length <= LINE { from - from % LINE } else { from };
        let (mut below, mut equal) = (0, 0);
        for g in 0..GROUPS {
            let base = if g == 0 { first } else { first.max(end - LINE) };
            let words = _mm512_loadu_si512(group.residuals.with_addr(base).cast());
            let own = (from + g * width).wrapping_sub(base);
            let bytes = _mm512_add_epi8(bytes, _mm512_set1_epi8(own as i8));
            let residuals = _mm512_and_si512(
                _mm512_srlv_epi64(_mm512_permutexvar_epi8(bytes, words), shifts),
                mask,
            );
            let keys =
                _mm512_add_epi64(_mm512_sll_epi64(_mm512_srl_epi64(line, right), left), residuals);
            below |= u32::from(_mm512_cmplt_epu64_mask(keys, limit)) << (8 * g);
            equal |= u32::from(_mm512_cmpeq_epu64_mask(keys, limit)) << (8 * g);
            line = _mm512_add_epi64(line, step);
        }
        (below, equal)
    }
}

/// How many of `samples` are below `sample`, and how many are not above it.
///
/// # Safety
/// The processor must support this ([`is_supported`]).
#[inline(always)]
pub(super) unsafe fn count_samples(samples: &Samples, sample: u16) -> (usize, usize) {
    // SAFETY: the caller sees to the features; samples are 64 bytes, aligned.
    unsafe {
        let all = _mm512_load_si512(samples.0.as_ptr().cast());
        let sample = _mm512_set1_epi16(sample as i16);
        let below = _mm512_cmplt_epu16_mask(all, sample);
        let not_above = _mm512_cmple_epu16_mask(all, sample);
        (below.count_ones() as usize, not_above.count_ones() as usize)
    }
}
