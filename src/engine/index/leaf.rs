//! One leaf: a line through a run of keys, and how far each key lies off it.

use super::bits::{NARROW, Packed};
use super::chunks::CHUNK_BYTES;
use super::key::ModelKey;
#[cfg(target_arch = "x86_64")]
use super::simd::{Group, count_below};

/// Longest leaf, in keys. Lines are exact integers because `mantissa * MAX_LEAF < 2^64`.
pub(super) const MAX_LEAF: usize = 1 << 16;
/// Bits of a line's mantissa.
const MANTISSA: u32 = 36;
/// Bits that name a word of a chunk.
const WORD_BITS: u32 = (CHUNK_BYTES / 8).ilog2();
/// Rows that are compared at once at most.
const ROWS: usize = 32;
/// Reach of leaves with a wider window than that, whose keys lie near the middle of it mostly.
const MIDDLE: u32 = 3;
/// Reach of leaves whose keys lie anywhere in a wide window.
const FAR: u32 = 4;
/// Added to the reach of leaves of 128-bit keys that span less than 2^62 and have narrow residuals:
/// they are searched as leaves of 64-bit keys are.
const SLIM: u32 = 8;
/// Bits that the keys of such a leaf span at most.
pub(super) const SLIM_BITS: u32 = 62;
/// Rows from the middle of the window that keys of [`MIDDLE`] leaves have on average at most.
const NEAR: f64 = 16.0;

/// A line in integers: its value at `i` is `mantissa * i * 2^-exponent`, rounded down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line {
    /// At most 36 bits.
    pub mantissa: u64,
    /// 0..64 shifts right by that much, 64 and more shifts left by `exponent - 64`.
    pub exponent: u8,
}

impl Line {
    pub(super) const FLAT: Self = Self { mantissa: 0, exponent: 0 };

    /// The line of slope `slope`, a finite number that is not negative, cut to the mantissa's bits.
    pub(super) fn new(slope: f64) -> Self {
        let bits = slope.to_bits();
        let exponent = (bits >> 52) as i32 - 1023;
        let right = MANTISSA as i32 - 1 - exponent;
        if slope <= 0.0 || right > 63 {
            return Self::FLAT;
        }
        let mantissa = ((bits & ((1 << 52) - 1)) | 1 << 52) >> (53 - MANTISSA);
        let exponent = if right >= 0 { right } else { 64 - right };
        Self { mantissa, exponent: exponent as u8 }
    }

    /// Shifts to the right and to the left; one of them is 0.
    #[inline(always)]
    pub(super) fn shifts(self) -> (u32, u32) {
        let e = u32::from(self.exponent);
        if e < 64 { (e, 0) } else { (0, e - 64) }
    }

    /// Its slope: keys per row.
    #[inline(always)]
    pub(super) fn slope(self) -> f64 {
        let (right, left) = self.shifts();
        let scale = 1023 + u64::from(left) - u64::from(right);
        self.mantissa as f64 * f64::from_bits(scale << 52)
    }
}

/// Keys `start..` up to the start of the next leaf. Key `start + i` is
/// `first + line(i) + residual(i) - bias`, with the residuals in `width` bits each from word `data` on.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct Leaf<K> {
    /// Its first key. Leaves are found by it.
    pub first: K,
    /// From the low end: exponent (8 bits), width (8), bias in 256ths of `2^width` (8), reach (4),
    /// mantissa (36). A reach of `r` below 3 says that `8 << r` rows hold any window of the leaf, one
    /// row before and one after it; 3 that most keys are near the middle of it, 4 that they are not.
    /// 8 is added for keys of 128 bits that span less than 62 and have residuals of 56 at most.
    pub meta: u64,
    /// Position of its first key.
    pub start: u32,
    /// Where its residuals begin: chunk, and word of 8 bytes in it (12 bits). All lie in that chunk.
    pub data: u32,
}

impl<K: ModelKey> Leaf<K> {
    /// Bytes of a leaf, in memory and on disk.
    pub(super) const BYTES: usize = K::BYTES + 16;

    /// `span` is the bits that its keys span, `mean_error` that of its keys, in rows.
    pub(super) fn meta(line: Line, width: u32, bias: u8, span: u32, mean_error: f64) -> u64 {
        // Floor of the lower end, floor plus one of the upper, a row before and one after.
        let rows = 2f64.powi(width as i32) / line.slope() + 4.0;
        let reach = match rows {
            _ if line.mantissa == 0 => FAR,
            ..=8.0 => 0,
            ..=16.0 => 1,
            ..=32.0 => 2,
            _ if mean_error <= NEAR => MIDDLE,
            _ => FAR,
        };
        let slim = K::BITS > 64 && span <= SLIM_BITS && width <= NARROW;
        let reach = if slim { reach | SLIM } else { reach };
        line.mantissa << 28
            | u64::from(reach) << 24
            | u64::from(bias) << 16
            | u64::from(width) << 8
            | u64::from(line.exponent)
    }

    /// The place of residuals that begin at word `word` of chunk `chunk`.
    ///
    /// # Panics
    /// If the chunks have 32 GiB or more together.
    pub(super) fn data(chunk: usize, word: usize) -> u32 {
        assert!(chunk >> (32 - WORD_BITS) == 0, "residuals of 32 GiB at most");
        (chunk << WORD_BITS | word) as u32
    }

    /// The chunk that its residuals lie in.
    #[inline(always)]
    pub(super) fn chunk(&self) -> usize {
        (self.data >> WORD_BITS) as usize
    }

    /// The word in the chunk where they begin.
    #[inline(always)]
    pub(super) fn word(&self) -> usize {
        self.data as usize & ((1 << WORD_BITS) - 1)
    }

    #[inline(always)]
    pub(super) fn line(&self) -> Line {
        Line { mantissa: self.meta >> 28, exponent: self.meta as u8 }
    }

    #[inline(always)]
    fn reach(&self) -> u32 {
        (self.meta >> 24) as u32 & 7
    }

    /// Whether relative keys and residuals fit 64 bits.
    #[inline(always)]
    fn is_slim(&self) -> bool {
        K::BITS == 64 || (self.meta >> 24) as u32 & SLIM != 0 && self.width() <= NARROW
    }

    #[inline(always)]
    pub(super) fn width(&self) -> u32 {
        u32::from((self.meta >> 8) as u8)
    }

    #[inline(always)]
    pub(super) fn bias(&self) -> K {
        bias::<K>(self.meta >> 16, self.width())
    }

    /// What the line needs to decode keys, taken apart once.
    #[inline(always)]
    pub(super) fn view<'a>(&self, packed: Packed<'a>, len: usize) -> LeafView<'a, K> {
        let (right, left) = self.line().shifts();
        let width = self.width();
        LeafView {
            packed,
            byte: self.word() * 8,
            mantissa: self.meta >> 28,
            reach: self.reach(),
            slim: self.is_slim(),
            right,
            left,
            width,
            mask: K::mask(width),
            len,
        }
    }

    /// Key `i` of the leaf, whose view this is.
    #[inline(always)]
    pub(super) fn key(&self, view: &LeafView<'_, K>, i: usize) -> K {
        self.first.sub(self.bias()).add(view.relative(i))
    }

    /// `q` in the terms of [`LeafView::relative`].
    #[inline(always)]
    pub(super) fn relative(&self, q: K) -> K {
        q.sub(self.first).saturating_add(self.bias())
    }

    /// Rows within which the first key whose relative value is `>= u` lies, ends included.
    ///
    /// A residual is at least 0, so that row is not above the first where the line alone reaches `u`,
    /// and at most the mask, so it is not below the first where line and mask do. The floor of the
    /// lower and the floor plus one of the upper quotient hold the rounding of the division, whose
    /// error is far below one row.
    #[inline(always)]
    pub(super) fn window(&self, u: K, len: usize) -> (usize, usize) {
        let line = self.line();
        if line.mantissa == 0 {
            return (0, len);
        }
        let slope = line.slope();
        let lo = row(u.saturating_sub(K::mask(self.width())), slope, len);
        (lo, (row(u, slope, len) + 1).min(len))
    }

    /// The rows that [`LeafView::find`] is to look at: the window, or with `SIMD` the rows to compare at
    /// once, which takes one quotient instead of two.
    #[inline(always)]
    pub(super) fn aim<const SIMD: bool>(&self, u: K, len: usize) -> (usize, usize) {
        let reach = self.reach();
        if !SIMD || !self.is_slim() || reach >= FAR {
            return self.window(u, len);
        }
        let u = u.clamp64();
        let mask = u64::mask(self.width());
        let (mask, before) = if reach == MIDDLE { (mask >> 1, ROWS / 2) } else { (mask, 1) };
        let at = row(u.saturating_sub(mask), self.line().slope(), len).saturating_sub(before);
        (at, (at + (8 << reach.min(2))).min(len))
    }
}

/// The row where a line of slope `slope` reaches `x`, rounded down, or `len`.
#[inline(always)]
fn row<K: ModelKey>(x: K, slope: f64, len: usize) -> usize {
    let at = x.to_f64() / slope;
    if at < len as f64 {
        debug_assert!(at >= 0.0);
        // SAFETY: it is a number of 0 to `MAX_LEAF`: neither `x` nor `slope` is below 0, and what their
        // quotient is if both are 0 is not below anything.
        unsafe { at.to_int_unchecked::<i32>() as usize }
    } else {
        len
    }
}

/// `bias` 256ths of `2^width`.
#[inline(always)]
pub(super) fn bias<K: ModelKey>(bias: u64, width: u32) -> K {
    // Residuals as wide as keys have no bias, so that nothing is lost above.
    K::from_u64(bias & 255).shl(width).shr(8)
}

/// A leaf's residuals and line, ready to decode.
#[derive(Clone, Copy)]
pub(super) struct LeafView<'a, K> {
    packed: Packed<'a>,
    byte: usize,
    mantissa: u64,
    reach: u32,
    slim: bool,
    right: u32,
    left: u32,
    width: u32,
    mask: K,
    len: usize,
}

impl<K: ModelKey> LeafView<'_, K> {
    /// Key `i` of the leaf less `first - bias`.
    #[inline(always)]
    pub(super) fn relative(&self, i: usize) -> K {
        debug_assert!(i < self.len);
        let line = K::from_u64(self.mantissa.wrapping_mul(i as u64) >> self.right).shl(self.left);
        // SAFETY: `i` is below the leaf's length, and building and reading check that the residuals
        // of a leaf's whole length lie within the packed words.
        let residual = unsafe { self.packed.read::<K>(self.byte, i, self.width, self.mask) };
        line.add(residual)
    }

    /// First row in `lo..=hi` whose relative key is `>= u`, taking for granted that those before `lo`
    /// are below `u` and those from `hi` on are not.
    #[inline(always)]
    pub(super) fn lower_bound(&self, u: K, lo: usize, hi: usize) -> usize {
        let mut base = lo;
        let mut n = hi - lo;
        while n > 1 {
            let half = n / 2;
            base += if self.relative(base + half - 1) < u { half } else { 0 };
            n -= half;
        }
        base + usize::from(n == 1 && self.relative(base) < u)
    }

    /// First row whose relative key is `>= u`, given what [`Leaf::aim`] says, and whether that is
    /// certain; otherwise the search goes on from there with [`Self::gallop`].
    ///
    /// # Safety
    /// With `SIMD`, the processor must support [`super::simd`].
    #[inline(always)]
    pub(super) unsafe fn find<const SIMD: bool>(
        &self,
        u: K,
        lo: usize,
        hi: usize,
    ) -> (usize, bool) {
        #[cfg(target_arch = "x86_64")]
        if SIMD && self.slim {
            // SAFETY: as above.
            return unsafe { self.find_simd(u, lo, hi) };
        }
        let at = self.lower_bound(u, lo, hi);
        // Inside the window, the search has compared the keys around the answer.
        let certain = (at > lo || at == 0 || self.relative(at - 1) < u)
            && (at < hi || at == self.len || self.relative(at) >= u);
        (at, certain)
    }

    /// Compares up to 32 rows at once, the row before the window and the one after it included: where
    /// the answer lies inside, it is verified, and there was no branch on a key.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn find_simd(&self, u: K, mut lo: usize, mut hi: usize) -> (usize, bool) {
        let (mut row, mut end) = (lo, hi);
        if self.reach >= FAR {
            while hi - lo > 2 * ROWS {
                let mid = lo.midpoint(hi);
                let below = self.relative(mid) < u;
                lo = if below { mid + 1 } else { lo };
                hi = if below { hi } else { mid };
            }
            row = lo.midpoint(hi).saturating_sub(ROWS / 2);
            end = (row + ROWS).min(self.len);
        }
        let groups = 1 << self.reach.min(2);
        debug_assert!(row <= self.len);
        debug_assert!(
            self.byte + row * self.width as usize / 8 + super::bits::PADDING <= self.packed.0.len()
        );
        let group = Group {
            residuals: self.packed.at(self.byte),
            width: self.width,
            mask: self.mask.low(),
            mantissa: self.mantissa,
            right: self.right,
            left: self.left,
            row,
        };
        // SAFETY: residuals are of 64 bits at most. The first group begins at a row of the leaf or at its end, so within the words or at
        // their end; 4 groups of at most 64 bytes on are within the padding.
        let count = unsafe { count_below(&group, groups, end - row, u.clamp64()) };
        let at = row + count;
        (at, (count > 0 || row == 0) && (at < end || end == self.len))
    }

    /// First row whose relative key is `>= u`, searched from row `at` in steps that double.
    pub(super) fn gallop(&self, u: K, at: usize) -> usize {
        if at > 0 && self.relative(at - 1) >= u {
            self.gallop_down(u, at)
        } else {
            self.gallop_up(u, at)
        }
    }

    fn gallop_down(&self, u: K, mut hi: usize) -> usize {
        let mut step = 1;
        let mut lo = hi - 1;
        while lo > 0 && self.relative(lo) >= u {
            hi = lo;
            step *= 2;
            lo = lo.saturating_sub(step);
        }
        self.lower_bound(u, lo, hi)
    }

    fn gallop_up(&self, u: K, mut lo: usize) -> usize {
        let mut step = 1;
        let mut hi = lo;
        while hi < self.len && self.relative(hi) < u {
            lo = hi + 1;
            hi = (hi + step).min(self.len);
            step *= 2;
        }
        self.lower_bound(u, lo.min(hi), hi)
    }

    /// Asks the processor for the cache lines of rows `lo..hi`, a few at most.
    #[inline(always)]
    pub(super) fn prefetch(&self, lo: usize, hi: usize) {
        let from = self.byte + lo * self.width as usize / 8;
        let to = self.byte + (hi * self.width as usize).div_ceil(8);
        self.packed.prefetch(from, to);
    }
}
