//! One leaf: a line through a run of keys, and how far each key lies off it.

use super::bits::{NARROW, Packed};
use super::chunks::CHUNK_BYTES;
use super::key::ModelKey;
#[cfg(target_arch = "x86_64")]
use super::simd::{self, Group};

/// Longest leaf, in keys. Lines are exact integers because `mantissa * MAX_LEAF < 2^64`.
pub(super) const MAX_LEAF: usize = 1 << 16;
/// Bits of a line's mantissa.
const MANTISSA: u32 = 36;
/// Bits that name a word of a chunk.
const WORD_BITS: u32 = (CHUNK_BYTES / 8).ilog2();
/// Rows from one sample of a leaf to the next.
pub(super) const SAMPLE_ROWS: usize = 16;
/// Keys of a leaf with samples at most: they are compared all at once.
pub(super) const MAX_SAMPLED: usize = SAMPLE_ROWS * LANES;
/// Samples of a leaf, and one more that none has.
const LANES: usize = 32;
/// Reach of leaves with a wider window than 16 rows, which have samples.
const SAMPLED: u32 = 2;
/// Added to the reach of leaves of 128-bit keys that span less than 2^62 and have narrow residuals:
/// they are searched as leaves of 64-bit keys are.
const SLIM: u32 = 8;
/// Bits that the keys of such a leaf span at most.
pub(super) const SLIM_BITS: u32 = 62;

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

    /// Its value at `i`.
    #[inline(always)]
    pub(super) fn at<K: ModelKey>(self, i: usize) -> K {
        let (right, left) = self.shifts();
        K::from_u64(self.mantissa.wrapping_mul(i as u64) >> right).shl(left)
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
#[repr(C, align(32))]
pub(super) struct Leaf<K> {
    /// Its first key. Leaves are found by it.
    pub first: K,
    /// From the low end: exponent (8 bits), width (8), bias in 256ths of `2^width` (8), reach (4),
    /// mantissa (36). A reach of `r` below 2 says that `8 << r` rows hold any window of the leaf, one
    /// row before and one after it; 2 that the leaf has samples.
    /// 8 is added for keys of 128 bits that span less than 62 and have residuals of 56 at most.
    pub meta: u64,
    /// Position of its first key.
    pub start: u32,
    /// Where its residuals begin: chunk, and word of 8 bytes in it (12 bits). All lie in that chunk.
    pub data: u32,
    /// Not stored. With samples, the bits of a key that they leave out (8 bits), and above that the bias, if keys and residuals fit 64 bits;
    /// without, two floats: rows per key of its line, and above that the row to begin at for its first key. Of 32 bits each.
    pub derived: u64,
}

/// The samples of one leaf: high bits of the relative keys of every [`SAMPLE_ROWS`]th row but the first; a cache line. Behind the last
/// one, all bits are set.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Samples(pub [u16; LANES]);

impl Samples {
    pub(super) const NONE: Self = Self([u16::MAX; LANES]);
}

/// Where a search of a leaf ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    /// The row.
    pub at: usize,
    /// Whether the rows around it say that it is the right one; otherwise the search goes on from there ([`LeafView::settle`]).
    pub certain: bool,
    /// If it is certain, whether the key there is the one looked for.
    pub there: bool,
}

impl<K: ModelKey> Leaf<K> {
    /// Bytes of a leaf on disk; in memory it is what is derived longer, and aligned.
    pub(super) const BYTES: usize = K::BYTES + 16;

    /// `span` is the bits that its keys span.
    pub(super) fn meta(line: Line, width: u32, bias: u8, span: u32) -> u64 {
        let reach = reach(line, width);
        let slim = K::BITS > 64 && span <= SLIM_BITS && width <= NARROW;
        let reach = if slim { reach | SLIM } else { reach };
        line.mantissa << 28
            | u64::from(reach) << 24
            | u64::from(bias) << 16
            | u64::from(width) << 8
            | u64::from(line.exponent)
    }

    /// Whether it has samples.
    #[inline(always)]
    pub(super) fn is_sampled(&self) -> bool {
        self.reach() >= SAMPLED
    }

    /// Derives what is not stored, of a leaf of `len` keys.
    pub(super) fn derive(mut self, len: usize) -> Self {
        self.derived = if self.is_sampled() {
            // No key lies further from the line than that.
            let top = self.line().at::<K>(len - 1).saturating_add(K::mask(self.width()));
            let bias = if self.is_slim() { self.bias().low() } else { 0 };
            bias << 8 | u64::from(top.bit_len().saturating_sub(u16::BITS))
        } else {
            let (rows, before) = match self.line().slope() {
                // All keys are equal, and what is looked for is greater.
                0.0 => (0.0, MAX_LEAF as f32),
                slope => {
                    let below = self.bias().to_f64() - K::mask(self.width()).to_f64();
                    (slope.recip() as f32, (below / slope - 1.0) as f32)
                }
            };
            u64::from(before.to_bits()) << 32 | u64::from(rows.to_bits())
        };
        self
    }

    /// The samples of `keys`, its keys, if it has any.
    pub(super) fn samples(&self, keys: &[K]) -> Samples {
        let mut samples = Samples::NONE;
        for (sample, row) in samples.0.iter_mut().zip(sampled_rows(keys.len())) {
            *sample = self.sample(self.relative(keys[row]));
        }
        samples
    }

    /// The sample of a key or of what is looked for, in the terms of [`LeafView::relative`].
    #[inline(always)]
    fn sample(&self, u: K) -> u16 {
        u.shr(self.derived as u8 as u32).clamp64().min(u64::from(u16::MAX)) as u16
    }

    /// The rows of a leaf with samples that [`LeafView::find`] is to look at for `u`: those between two samples; where one is equal to that of
    /// `u`, the rows around it; where several are, all from the sample before to the one after them. The first row whose relative key is `>= u`
    /// is one of them or the one after them, and the first of them is below `u`, unless it is the leaf's first or there was but one equal.
    ///
    /// # Safety
    /// With `SIMD`, the processor must support [`super::simd`].
    #[inline(always)]
    pub(super) unsafe fn narrow<const SIMD: bool>(
        &self,
        samples: &Samples,
        u: K,
        len: usize,
    ) -> (usize, usize) {
        let sample = self.sample(u);
        #[cfg(target_arch = "x86_64")]
        let counts = if SIMD {
            // SAFETY: the caller sees to it.
            unsafe { simd::count_samples(samples, sample) }
        } else {
            count(&samples.0, sample)
        };
        #[cfg(not(target_arch = "x86_64"))]
        let counts = count(&samples.0, sample);
        let (below, not_above) = counts;
        if not_above > below + 1 {
            return ((below * SAMPLE_ROWS).min(len), ((not_above + 1) * SAMPLE_ROWS).min(len));
        }
        let lo = ((below + not_above) * (SAMPLE_ROWS / 2)).min(len);
        (lo, (lo + SAMPLE_ROWS).min(len))
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
    pub(super) fn is_slim(&self) -> bool {
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
        let bias = if self.is_sampled() && self.is_slim() {
            K::from_u64(self.derived >> 8)
        } else {
            self.bias()
        };
        q.sub(self.first).saturating_add(bias)
    }

    /// Asks the processor for the cache lines of rows `lo..hi`, a few at most.
    #[inline(always)]
    pub(super) fn prefetch(&self, packed: Packed<'_>, lo: usize, hi: usize) {
        let (byte, width) = (self.word() * 8, self.width() as usize);
        packed.prefetch(byte + lo * width / 8, byte + (hi * width).div_ceil(8));
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
        let lo = row(u.saturating_sub(K::mask(self.width())), line.slope(), len);
        (lo, (row(u, line.slope(), len) + 1).min(len))
    }

    /// The rows of a leaf without samples that [`LeafView::find`] is to look at for `q`, which is not below the first key and whose relative value is `u`: the window,
    /// or with `SIMD` the rows to compare at once, which takes one product. It is off by a row now and then, when the search goes on.
    #[inline(always)]
    pub(super) fn aim<const SIMD: bool>(&self, q: K, u: K, len: usize) -> (usize, usize) {
        if !SIMD || !self.is_slim() {
            return self.window(u, len);
        }
        let rows = f32::from_bits(self.derived as u32);
        let before = f32::from_bits((self.derived >> 32) as u32);
        let at = q.sub(self.first).clamp64() as f32 * rows + before;
        let at = if at > 0.0 { at.min(MAX_LEAF as f32) } else { 0.0 };
        // SAFETY: it is a number of 0 to `MAX_LEAF`.
        let at = (unsafe { at.to_int_unchecked::<i32>() } as usize).min(len);
        (at, (at + (8 << (self.reach() & 1))).min(len))
    }
}

/// See [`Leaf::meta`].
pub(super) fn reach(line: Line, width: u32) -> u32 {
    // Floor of the lower end, floor plus one of the upper, a row before and one after.
    let rows = if width == 0 && line.mantissa == 0 {
        0.0
    } else {
        2f64.powi(width as i32) / line.slope() + 4.0
    };
    match rows {
        ..=8.0 => 0,
        ..=16.0 => 1,
        _ => SAMPLED,
    }
}

/// Whether leaves of such a line have samples.
pub(super) fn is_sampled(line: Line, width: u32) -> bool {
    reach(line, width) >= SAMPLED
}

/// Samples of a leaf of `len` keys that has some.
pub(super) fn samples(len: usize) -> usize {
    (len - 1) / SAMPLE_ROWS
}

/// The rows of these samples.
fn sampled_rows(len: usize) -> impl Iterator<Item = usize> {
    (1..=samples(len)).map(|i| i * SAMPLE_ROWS)
}

/// How many of `samples` are below `sample`, and how many are not above it.
fn count(samples: &[u16; LANES], sample: u16) -> (usize, usize) {
    (samples.partition_point(|s| *s < sample), samples.partition_point(|s| *s <= sample))
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
    right: u32,
    left: u32,
    width: u32,
    mask: K,
    len: usize,
}

impl<'a, K: ModelKey> LeafView<'a, K> {
    #[inline(always)]
    pub(super) fn packed(&self) -> Packed<'a> {
        self.packed
    }

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

    /// First row whose relative key is `>= u`, given what [`Leaf::aim`] or [`Leaf::narrow`] says. With `SIMD`, in leaves of which
    /// keys and residuals fit 64 bits, these are [`SAMPLE_ROWS`] rows at most.
    ///
    /// # Safety
    /// With `SIMD`, the processor must support [`super::simd`].
    #[inline(always)]
    pub(super) unsafe fn find<const SIMD: bool>(
        &self,
        leaf: &Leaf<K>,
        u: K,
        lo: usize,
        hi: usize,
    ) -> Found {
        #[cfg(target_arch = "x86_64")]
        if SIMD && leaf.is_slim() {
            // SAFETY: as above.
            return unsafe { self.find_simd(leaf, u, lo, hi) };
        }
        let at = self.lower_bound(u, lo, hi);
        // Inside the window, the search has compared the keys around the answer.
        let certain = at < self.len
            && (at > lo || at == 0 || self.relative(at - 1) < u)
            && (at < hi || self.relative(at) >= u);
        Found { at, certain, there: certain && self.relative(at) == u }
    }

    /// Compares all rows at once: where the answer lies among them, it is verified, and there was no branch on a key.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn find_simd(&self, leaf: &Leaf<K>, u: K, lo: usize, hi: usize) -> Found {
        debug_assert!(lo <= self.len && hi - lo <= SAMPLE_ROWS);
        debug_assert!(
            self.byte + lo * self.width as usize / 8 + super::bits::PADDING <= self.packed.0.len()
        );
        let group = Group {
            residuals: self.packed.at(self.byte),
            width: self.width,
            mantissa: self.mantissa,
            right: self.right,
            left: self.left,
            row: lo,
        };
        // SAFETY: residuals are of 64 bits at most. The first group begins at a row of the leaf or at its end, so within the words or at
        // their end; two groups of at most 64 bytes on are within the padding. Of leaves with samples, `narrow` gives multiples of eight, but
        // for their ends, where nothing is compared.
        let (below, equal) = unsafe {
            let u = u.clamp64();
            if leaf.is_sampled() {
                simd::compare::<2, true>(&group, u)
            } else if leaf.reach() == 1 {
                simd::compare::<2, false>(&group, u)
            } else {
                simd::compare::<1, false>(&group, u)
            }
        };
        let rows = hi - lo;
        let count = (below & !(u32::MAX << rows)).count_ones() as usize;
        let certain = count < rows && (count > 0 || lo == 0);
        Found { at: lo + count, certain, there: equal >> count & 1 != 0 }
    }

    /// Of the sampled rows from `lo` to `hi`, the last one whose relative key is below `u`, or `lo`.
    pub(super) fn halve(&self, u: K, lo: usize, hi: usize) -> usize {
        let mut base = lo;
        let mut n = (hi - lo).div_ceil(SAMPLE_ROWS);
        while n > 1 {
            let half = n / 2;
            base +=
                if self.relative(base + half * SAMPLE_ROWS) < u { half * SAMPLE_ROWS } else { 0 };
            n -= half;
        }
        base
    }

    /// First row whose relative key is `>= u`, searched from row `at` in steps that double.
    pub(super) fn settle(&self, u: K, at: usize) -> usize {
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
}
