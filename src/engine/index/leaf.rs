//! One leaf: a line through a run of keys, and how far each key lies off it.

use std::ops::Range;

use super::bits::{NARROW, Packed};
use super::breaks::{Breaks, Part};
use super::chunks::CHUNK_BYTES;
use super::key::ModelKey;
#[cfg(target_arch = "x86_64")]
use super::simd::{self, Group};

/// Longest leaf, in keys.
pub(super) const MAX_LEAF: usize = 1 << 16;
/// Bits of a line's mantissa. A line's value at any row of a leaf has 64 bits at most before it is shifted.
const MANTISSA: u32 = 32;
/// Added to the exponent of lines that are shifted to the left.
const LEFT: u32 = 128;
/// Bits that name a word of a chunk.
const WORD_BITS: u32 = (CHUNK_BYTES / 8).ilog2();
/// Rows from one sample of a leaf to the next.
pub(super) const SAMPLE_ROWS: usize = 16;
/// Keys of a leaf with samples at most: they are compared all at once.
pub(super) const MAX_SAMPLED: usize = SAMPLE_ROWS * LANES;
/// Samples of a leaf, and one more that none has.
pub(super) const LANES: usize = 32;
/// Bits of a sample.
pub(super) const SAMPLE_BITS: u32 = 12;
/// A sample that a leaf does not have. All others are below it.
const NO_SAMPLE: u16 = (1 << SAMPLE_BITS) - 1;
/// Bytes of a leaf's hints.
pub(super) const HINTS: usize = LANES * SAMPLE_BITS as usize / 8;
/// Bits of residuals at most that are compared at once from any row on: eight bytes hold one, which
/// begins at the sum of two bits below eight.
pub(super) const MAX_AIMED: u32 = 64 - 2 * 7;
/// Bits that the keys of a leaf span at most that is searched in 64 bits though keys have 128.
pub(super) const SLIM_BITS: u32 = 62;

/// Where the number of keys of a leaf without samples is, among its hints.
const LEN_AT: usize = 40;

/// What a search of a leaf begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The line: 8 rows hold any window of the leaf, one row before and one after it. The argument is 1
    /// if the line has breaks.
    Rows8 = 0,
    /// The line, likewise: 16 rows do.
    Rows16 = 1,
    /// Samples. The bits of a relative key that they leave out are the argument.
    Sampled = 2,
    /// Keys or residuals do not fit 64 bits. Samples where the argument is not 0: they leave out twice
    /// as many bits.
    Wide = 3,
}

/// A line in integers: its value at `i` is `mantissa * i * 2^-exponent`, rounded down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line {
    /// At most 32 bits.
    pub mantissa: u64,
    /// 0..64 shifts right by that much, 128 and more shifts left by `exponent - 128`.
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
        let exponent = if right >= 0 { right } else { LEFT as i32 - right };
        Self { mantissa, exponent: exponent as u8 }
    }

    /// Shifts to the right and to the left; one of them is 0.
    #[inline(always)]
    pub(super) fn shifts(self) -> (u32, u32) {
        // All bits, where it is shifted to the left.
        let left = (self.exponent as i8 >> 7) as u8;
        (u32::from(self.exponent & !left), u32::from(self.exponent & left & !(LEFT as u8)))
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

/// Keys `start..start + len`. Key `start + i` is `first + line(i) + residual(i) - bias`, with the residuals in
/// `width` bits each from word `data` on; the first keys of all leaves lie together elsewhere. A cache line:
/// with its first key, it is all that a search needs to know which residuals to read.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Leaf {
    /// Position of its first key.
    pub start: u32,
    /// Where its residuals begin: chunk, and word of 8 bytes in it (12 bits). All lie in that chunk.
    pub data: u32,
    /// Of its [`Line`], as the exponent.
    pub mantissa: u32,
    pub exponent: u8,
    /// Bits of a residual.
    pub width: u8,
    /// In 256ths of `2^width`.
    pub bias: u8,
    /// Its [`Kind`], in the lowest two bits, and the kind's argument.
    pub kind: u8,
    /// With samples: high bits of the relative keys of every [`SAMPLE_ROWS`]th row but the first, of 12
    /// bits each; those behind the last one have all bits set; in place of one more, the number of keys
    /// less one. If the line has breaks: these. Else the number of keys less one, where the last of the
    /// breaks would have it, and what is derived of the other fields and not stored ([`Self::derive`]).
    pub hints: [u8; HINTS],
}

/// Where a search of a leaf ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    /// The row.
    pub at: usize,
    /// Whether the rows around it say that it is the right one; otherwise the search goes on from there
    /// ([`LeafView::settle`]).
    pub certain: bool,
    /// If it is certain, whether the key there is the one looked for.
    pub there: bool,
}

impl Found {
    /// Of `rows` rows from `lo` on that were compared at once, the first `below` were below; in
    /// `equal`, bits say which are what was looked for.
    #[inline(always)]
    fn new(lo: usize, rows: usize, below: usize, equal: u32) -> Self {
        // Where the answer lies among them, it is verified, and there was no branch on a key.
        let certain = below < rows && (below > 0 || lo == 0);
        Self { at: lo + below, certain, there: equal >> below & 1 != 0 }
    }
}

impl Leaf {
    /// Where its hints are, in bytes.
    pub(super) const HINTS_AT: usize = std::mem::offset_of!(Self, hints);

    /// The leaf of `keys`, the first of which is at `start`; `line` and `width` hold all of them.
    pub(super) fn new<K: ModelKey>(
        keys: &[K],
        line: Line,
        breaks: Option<&Breaks>,
        width: u32,
        bias: u8,
        start: u32,
        data: u32,
    ) -> Self {
        let len = keys.len();
        // No key lies further from the line than that.
        let top = line.at::<K>(len - 1).saturating_add(K::mask(width));
        let mut cut = top.bit_len().saturating_sub(SAMPLE_BITS);
        cut += u32::from(top.shr(cut).low() >= u64::from(NO_SAMPLE));
        let is_sampled = is_sampled(line, width);
        let span = keys[len - 1].sub(keys[0]).bit_len();
        let is_slim = K::BITS == 64 || span <= SLIM_BITS && width <= NARROW;
        let (kind, argument) = match (is_slim, is_sampled) {
            (true, true) => (Kind::Sampled, cut),
            (true, false) if reach(line, width) <= 8.0 => (Kind::Rows8, 0),
            (true, false) => (Kind::Rows16, 0),
            (false, true) => (Kind::Wide, cut.div_ceil(2).max(1)),
            (false, false) => (Kind::Wide, 0),
        };
        let argument = if breaks.is_some() { 1 } else { argument };
        let kind = kind as u8 | (argument as u8) << 2;
        let (mantissa, exponent) = (line.mantissa as u32, line.exponent);
        let (width, hints) = (width as u8, [0; HINTS]);
        let mut leaf = Self { start, data, mantissa, exponent, width, bias, kind, hints };
        if is_sampled {
            let mut samples = [NO_SAMPLE; LANES];
            for (sample, row) in
                samples.iter_mut().zip((1..=(len - 1) / SAMPLE_ROWS).map(|i| i * SAMPLE_ROWS))
            {
                *sample = leaf.sample(leaf.relative(keys[row].sub(keys[0])));
            }
            samples[LANES - 1] = len as u16 - 1;
            leaf.set_samples(&samples);
        } else if let Some(breaks) = breaks {
            for (hint, mark) in leaf.hints.as_chunks_mut().0.iter_mut().zip(breaks.0) {
                *hint = mark.to_le_bytes();
            }
        } else {
            leaf.hints[LEN_AT..LEN_AT + 2].copy_from_slice(&((len - 1) as u16).to_le_bytes());
            leaf.derive();
        }
        leaf
    }

    /// Whether it is a line without breaks that is searched in 64 bits without samples: it has what
    /// [`Self::derive`] derives.
    #[inline(always)]
    pub(super) fn is_plain(&self) -> bool {
        self.kind <= Kind::Rows16 as u8
    }

    /// Derives what a search needs, of a leaf with neither samples nor breaks, if it is searched in 64
    /// bits: rows per key of the line and the row to begin at for the first key (floats of 32 bits);
    /// mantissa, shifted to the left where the line is; bias; the line's shift to the right; the bits of
    /// 64 that a residual does not take; rows to compare.
    pub(super) fn derive(&mut self) {
        if !self.is_plain() {
            return;
        }
        let (line, width) = (self.line(), self.width());
        let bias = self.bias::<u64>();
        let (rows, before) = match line.slope() {
            // All keys are equal, and what is looked for is greater.
            0.0 => (0.0, MAX_LEAF as f32),
            slope => {
                let below = bias as f64 - u64::mask(width) as f64;
                (slope.recip() as f32, (below / slope - 1.0) as f32)
            }
        };
        let (right, left) = line.shifts();
        self.hints[..4].copy_from_slice(&f32::to_le_bytes(rows));
        self.hints[4..8].copy_from_slice(&f32::to_le_bytes(before));
        let numbers = [line.mantissa << left, bias, right.into(), u64::from(u64::BITS - width)];
        for (hint, number) in self.hints[8..LEN_AT].as_chunks_mut().0.iter_mut().zip(numbers) {
            *hint = number.to_le_bytes();
        }
        self.hints[LEN_AT + 2] = self.rows_to_compare() as u8;
    }

    /// Rows to compare for a lookup, of a leaf without samples.
    #[inline(always)]
    fn rows_to_compare(&self) -> usize {
        8 << (self.kind & 1)
    }

    /// The hints as they are stored: without what is derived.
    pub(super) fn stored_hints(&self) -> [u8; HINTS] {
        let mut hints = self.hints;
        if self.is_plain() {
            hints = [0; HINTS];
            hints[LEN_AT..LEN_AT + 2].copy_from_slice(&self.hints[LEN_AT..LEN_AT + 2]);
        }
        hints
    }

    #[inline(always)]
    fn hint<const N: usize>(&self, at: usize) -> [u8; N] {
        std::array::from_fn(|i| self.hints[at + i])
    }

    #[inline(always)]
    fn derived(&self, i: usize) -> u64 {
        u64::from_le_bytes(self.hint(8 + 8 * i))
    }

    /// What was found in it, with the position in place of the row.
    #[inline(always)]
    pub(super) fn place(&self, found: Found) -> Found {
        Found { at: self.start as usize + found.at, ..found }
    }

    /// Number of its keys.
    #[inline(always)]
    pub(super) fn len<K: ModelKey>(&self) -> usize {
        let last = if self.is_sampled::<K>() {
            u16::from_le_bytes(self.hint(HINTS - 2)) >> (16 - SAMPLE_BITS)
        } else {
            u16::from_le_bytes(self.hint(LEN_AT))
        };
        usize::from(last) + 1
    }

    /// Rows that residuals are stored of: with samples, whole groups of [`SAMPLE_ROWS`]. Those after
    /// the last key have all bits set.
    pub(super) fn stored_rows<K: ModelKey>(&self) -> usize {
        stored_rows(self.len::<K>(), self.is_sampled::<K>())
    }

    #[inline(always)]
    fn is(&self, kind: Kind) -> bool {
        self.kind & 3 == kind as u8
    }

    #[inline(always)]
    fn argument(&self) -> u32 {
        u32::from(self.kind >> 2)
    }

    /// Whether it has samples.
    #[inline(always)]
    pub(super) fn is_sampled<K: ModelKey>(&self) -> bool {
        // Of 64-bit keys there is no other kind with this bit.
        self.kind & Kind::Sampled as u8 != 0 && (K::BITS == 64 || self.kind != Kind::Wide as u8)
    }

    /// Whether a leaf of such keys may be of this kind.
    pub(super) fn is_of<K: ModelKey>(&self) -> bool {
        match (self.is(Kind::Wide), self.is_sampled::<K>()) {
            (true, _) => K::BITS > 64,
            (false, true) => K::BITS == 64 || self.width() <= NARROW,
            (false, false) => self.width() <= MAX_AIMED && self.argument() <= 1,
        }
    }

    /// Whether its line has breaks.
    #[inline(always)]
    pub(super) fn has_breaks(&self) -> bool {
        self.kind & !(Kind::Rows16 as u8) == 1 << 2
    }

    /// Where its line breaks, if it does.
    #[inline(always)]
    pub(super) fn breaks(&self) -> Breaks {
        let (marks, _) = self.hints.as_chunks();
        Breaks(std::array::from_fn(|i| u64::from_le_bytes(marks[i])))
    }

    /// The part of its line that row `at` lies in.
    pub(super) fn part_of_row<K: ModelKey>(&self, at: usize) -> Part<K> {
        if self.has_breaks() {
            return self.breaks().part_of_row(at, self.line());
        }
        self.whole()
    }

    /// The part of its line that the last key below what lies `distance` above the first one lies in.
    pub(super) fn part_of<K: ModelKey>(&self, distance: K) -> Part<K> {
        if self.has_breaks() {
            // SAFETY: no SIMD.
            let i = unsafe { self.breaks_below::<K, false>(distance) };
            return self.breaks().part(i, self.line());
        }
        self.whole()
    }

    fn whole<K: ModelKey>(&self) -> Part<K> {
        Part { rows: 0..self.len::<K>(), jump: K::default(), next: 0 }
    }

    /// How many breaks of its line have keys below what lies `distance` above the first one.
    ///
    /// # Safety
    /// With `SIMD`, the processor must support [`super::simd`].
    #[inline(always)]
    unsafe fn breaks_below<K: ModelKey, const SIMD: bool>(&self, distance: K) -> usize {
        let limit = Breaks::limit(distance.clamp64());
        #[cfg(target_arch = "x86_64")]
        if SIMD {
            // SAFETY: the caller sees to it.
            return unsafe { simd::count_marks(self, limit) };
        }
        self.breaks().0.partition_point(|mark| *mark < limit)
    }

    /// Whether relative keys and residuals fit 64 bits.
    #[inline(always)]
    pub(super) fn is_slim<K: ModelKey>(&self) -> bool {
        K::BITS == 64 || !self.is(Kind::Wide)
    }

    /// The sample of a relative key or of what is looked for.
    #[inline(always)]
    fn sample<K: ModelKey>(&self, u: K) -> u16 {
        let cut = if self.is_slim::<K>() { self.argument() } else { self.argument() * 2 };
        u.shr(cut).clamp64().min(u64::from(NO_SAMPLE - 1)) as u16
    }

    /// The samples, and the number of keys less one.
    pub(super) fn samples(&self) -> [u16; LANES] {
        let word = |byte: usize| u16::from_le_bytes([self.hints[byte], self.hints[byte + 1]]);
        std::array::from_fn(|i| match i % 2 {
            0 => word(i / 2 * 3) & NO_SAMPLE,
            _ => word(i / 2 * 3 + 1) >> (16 - SAMPLE_BITS),
        })
    }

    /// How many samples there are.
    pub(super) fn sample_count(&self) -> usize {
        self.samples()[..LANES - 1].iter().filter(|sample| **sample != NO_SAMPLE).count()
    }

    /// Stores what [`Self::samples`] gives.
    pub(super) fn set_samples(&mut self, samples: &[u16; LANES]) {
        for (bytes, [even, odd]) in
            self.hints.as_chunks_mut::<3>().0.iter_mut().zip(samples.as_chunks().0)
        {
            *bytes = [*even as u8, (even >> 8 | odd << 4) as u8, (odd >> 4) as u8];
        }
    }

    /// The first of [`SAMPLE_ROWS`] rows of a leaf with samples that [`LeafView::find_sampled`] is to
    /// look at for `u`: those between two samples or, where one is equal to that of `u`, around it.
    /// Where several are equal, the answer is in none or in one of the rows from the sample before to
    /// the one after them, which are the error. The first row whose relative key is `>= u` is among
    /// these rows or the one after them, and the first of them is below `u`, unless it is the leaf's
    /// first or there was but one equal. They may go beyond the last key as far as there are stored
    /// rows.
    ///
    /// # Safety
    /// With `SIMD`, the processor must support [`super::simd`].
    #[inline(always)]
    pub(super) unsafe fn narrow<K: ModelKey, const SIMD: bool>(
        &self,
        u: K,
    ) -> Result<usize, Range<usize>> {
        let sample = self.sample(u);
        #[cfg(target_arch = "x86_64")]
        let counts = if SIMD {
            // SAFETY: the caller sees to it.
            unsafe { simd::count_samples(self, sample) }
        } else {
            self.count(sample)
        };
        #[cfg(not(target_arch = "x86_64"))]
        let counts = self.count(sample);
        let (below, not_above) = counts;
        if not_above > below + 1 {
            return Err(below * SAMPLE_ROWS..(not_above + 1) * SAMPLE_ROWS);
        }
        Ok((below + not_above) * (SAMPLE_ROWS / 2))
    }

    /// How many samples are below `sample`, and how many are not above it.
    fn count(&self, sample: u16) -> (usize, usize) {
        let samples = &self.samples()[..LANES - 1];
        (samples.partition_point(|s| *s < sample), samples.partition_point(|s| *s <= sample))
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
        Line { mantissa: u64::from(self.mantissa), exponent: self.exponent }
    }

    #[inline(always)]
    pub(super) fn width(&self) -> u32 {
        u32::from(self.width)
    }

    #[inline(always)]
    pub(super) fn bias<K: ModelKey>(&self) -> K {
        bias::<K>(self.bias, self.width())
    }

    /// What decoding keys needs, taken apart once.
    #[inline(always)]
    pub(super) fn view<'a, K: ModelKey>(&self, packed: Packed<'a>) -> LeafView<'a, K> {
        let (mantissa, (right, left)) = (u64::from(self.mantissa), self.line().shifts());
        let (byte, width) = (self.word() * 8, self.width());
        LeafView { packed, byte, mantissa, right, left, width, mask: K::mask(width) }
    }

    /// Key `i` of the leaf, whose first key is `first` and whose view this is.
    #[inline(always)]
    pub(super) fn key<K: ModelKey>(&self, first: K, view: &LeafView<'_, K>, i: usize) -> K {
        let key = first.sub(self.bias()).add(view.relative(i));
        if self.has_breaks() { key.add(self.part_of_row(i).jump) } else { key }
    }

    /// What lies `distance` above the first key, in the terms of [`LeafView::relative`].
    #[inline(always)]
    pub(super) fn relative<K: ModelKey>(&self, distance: K) -> K {
        if self.is_slim::<K>() {
            let bias = if self.is_plain() { self.derived(1) } else { self.bias() };
            return distance.saturating_add(K::from_u64(bias));
        }
        distance.saturating_add(self.bias())
    }

    /// Asks the processor for the cache lines of rows `lo..hi`, a few at most.
    #[inline(always)]
    pub(super) fn prefetch(&self, packed: Packed<'_>, lo: usize, hi: usize) {
        let (byte, width) = (self.word() * 8, self.width() as usize);
        packed.prefetch(byte + lo * width / 8, byte + (hi * width).div_ceil(8));
    }

    /// Rows within which the first key that is at least `distance` above the first one lies, ends included.
    pub(super) fn window_of<K: ModelKey>(&self, distance: K) -> (usize, usize) {
        if self.has_breaks() {
            // SAFETY: no SIMD.
            let (i, lo) = unsafe { self.aim_broken::<K, false>(distance) };
            let part = self.breaks().part(i, self.line());
            let u = self.relative_in(&part, distance);
            let hi = row(u, self.line().slope(), part.rows.end) + 1;
            return (lo, hi.clamp(lo, part.rows.end));
        }
        self.window(self.relative(distance))
    }

    /// Rows within which the first key whose relative value is `>= u` lies, ends included.
    ///
    /// A residual is at least 0, so that row is not above the first where the line alone reaches `u`,
    /// and at most the mask, so it is not below the first where line and mask do. The floor of the
    /// lower and the floor plus one of the upper quotient hold the rounding of the division, whose
    /// error is far below one row.
    #[inline(always)]
    fn window<K: ModelKey>(&self, u: K) -> (usize, usize) {
        let (line, len) = (self.line(), self.len::<K>());
        if line.mantissa == 0 {
            return (0, len);
        }
        let lo = row(u.saturating_sub(K::mask(self.width())), line.slope(), len);
        (lo, (row(u, line.slope(), len) + 1).min(len))
    }

    /// The rows of a leaf with neither samples nor breaks that [`LeafView::find_aimed`] is to look at for
    /// what lies `distance` above the first key and has the relative value `u`: the window, or with
    /// `SIMD` the rows to compare at once, which takes one product. It is off by a row now and then,
    /// when the search goes on.
    ///
    /// # Safety
    /// With `SIMD`, the processor must support [`super::simd`].
    #[inline(always)]
    pub(super) unsafe fn aim<K: ModelKey, const SIMD: bool>(
        &self,
        distance: K,
        u: K,
    ) -> (usize, usize) {
        #[cfg(target_arch = "x86_64")]
        if SIMD && self.is_slim::<K>() {
            let (rows, before) =
                (f32::from_le_bytes(self.hint(0)), f32::from_le_bytes(self.hint(4)));
            let len = self.len::<K>();
            // SAFETY: the caller sees to it.
            let at = unsafe { simd::row(distance.clamp64(), rows, before) }.min(len);
            return (at, (at + usize::from(self.hints[LEN_AT + 2])).min(len));
        }
        self.window(u)
    }

    /// The part of a line with breaks, by its number, and the first of its rows that
    /// [`LeafView::find_broken`] is to look at for what lies `distance` above the first key.
    ///
    /// # Safety
    /// With `SIMD`, the processor must support [`super::simd`].
    #[inline(always)]
    pub(super) unsafe fn aim_broken<K: ModelKey, const SIMD: bool>(
        &self,
        distance: K,
    ) -> (usize, usize) {
        // SAFETY: the caller sees to it.
        let i = unsafe { self.breaks_below::<K, SIMD>(distance) };
        let part = self.breaks().part::<K>(i, self.line());
        let u = self.relative_in(&part, distance);
        let at = row(u.saturating_sub(K::mask(self.width())), self.line().slope(), part.rows.end);
        // One row before it, and the last rows of the part if it is above them, prove the answer.
        let last = part.rows.end.saturating_sub(self.rows_to_compare());
        (i, at.saturating_sub(1).min(last).max(part.rows.start))
    }

    /// [`Self::relative`] in a part of a line with breaks.
    #[inline(always)]
    pub(super) fn relative_in<K: ModelKey>(&self, part: &Part<K>, distance: K) -> K {
        distance.saturating_add(self.bias()).sub(part.jump)
    }
}

/// `2^n`, for `n` below 1024.
pub(super) fn power_of_2(n: u32) -> f64 {
    f64::from_bits(u64::from(1023 + n) << 52)
}

/// Rows that a window of such a leaf takes at most, one row before and one after it included.
pub(super) fn reach(line: Line, width: u32) -> f64 {
    if width == 0 && line.mantissa == 0 {
        return 0.0;
    }
    // Floor of the lower end, floor plus one of the upper, a row before and one after.
    power_of_2(width) / line.slope() + 4.0
}

/// Whether leaves of such a line have samples.
pub(super) fn is_sampled(line: Line, width: u32) -> bool {
    reach(line, width) > 16.0 || (MAX_AIMED + 1..=NARROW).contains(&width)
}

/// Rows that residuals are stored of in a leaf of `len` keys.
pub(super) fn stored_rows(len: usize, is_sampled: bool) -> usize {
    if is_sampled { len.next_multiple_of(SAMPLE_ROWS) } else { len }
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
pub(super) fn bias<K: ModelKey>(bias: u8, width: u32) -> K {
    // Residuals as wide as keys have no bias, so that nothing is lost above.
    K::from_u64(u64::from(bias)).shl(width).shr(8)
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
}

impl<'a, K: ModelKey> LeafView<'a, K> {
    #[inline(always)]
    pub(super) fn packed(&self) -> Packed<'a> {
        self.packed
    }

    /// Key `i` of the leaf less `first - bias`.
    #[inline(always)]
    pub(super) fn relative(&self, i: usize) -> K {
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

    /// First row whose relative key is `>= u` of a leaf with samples, given what [`Leaf::narrow`] says.
    ///
    /// # Safety
    /// With `SIMD`, the processor must support [`super::simd`].
    #[inline(always)]
    pub(super) unsafe fn find_sampled<const SIMD: bool>(
        &self,
        leaf: &Leaf,
        u: K,
        lo: usize,
    ) -> Found {
        #[cfg(target_arch = "x86_64")]
        if SIMD && leaf.is_slim::<K>() {
            let group = self.group(lo);
            // SAFETY: see `residuals`; `narrow` gives multiples of eight. Rows after the last key count
            // as keys above it.
            let (below, equal) = unsafe { simd::compare::<2, true>(&group, u.clamp64()) };
            return Found::new(lo, SAMPLE_ROWS, below.count_ones() as usize, equal);
        }
        self.search(0..leaf.len::<K>(), u, lo, lo + SAMPLE_ROWS)
    }

    /// First row whose relative key is `>= u` of a leaf with neither samples nor breaks, given what
    /// [`Leaf::aim`] says.
    ///
    /// # Safety
    /// As [`Self::find_sampled`].
    #[inline(always)]
    pub(super) unsafe fn find_aimed<const SIMD: bool>(
        &self,
        leaf: &Leaf,
        u: K,
        lo: usize,
        hi: usize,
    ) -> Found {
        #[cfg(target_arch = "x86_64")]
        if SIMD && leaf.is_slim::<K>() {
            let group = Group {
                residuals: self.residuals(lo),
                width: self.width,
                mantissa: leaf.derived(0),
                right: leaf.derived(2),
                free: leaf.derived(3),
                row: lo,
            };
            // SAFETY: see `residuals`; those of such leaves are narrow enough.
            return unsafe {
                let (below, equal) = if leaf.hints[LEN_AT + 2] > 8 {
                    simd::compare::<2, false>(&group, u.clamp64())
                } else {
                    simd::compare::<1, false>(&group, u.clamp64())
                };
                Found::new(lo, hi - lo, simd::count_of_first(below, hi - lo), equal)
            };
        }
        self.search(0..leaf.len::<K>(), u, lo, hi)
    }

    /// First row whose key is at least `distance` above the first one, of a leaf whose line has breaks,
    /// given what [`Leaf::aim_broken`] says.
    ///
    /// # Safety
    /// As [`Self::find_sampled`].
    #[inline(always)]
    pub(super) unsafe fn find_broken<const SIMD: bool>(
        &self,
        leaf: &Leaf,
        distance: K,
        part: usize,
        lo: usize,
    ) -> Found {
        let part = leaf.breaks().part(part, leaf.line());
        let u = leaf.relative_in(&part, distance);
        let count = leaf.rows_to_compare();
        let hi = (lo + count).min(part.rows.end);
        #[cfg(target_arch = "x86_64")]
        let found = if SIMD {
            let group = self.group(lo);
            // SAFETY: see `residuals`; those of such leaves are narrow enough.
            unsafe {
                let (below, equal) = if count > 8 {
                    simd::compare::<2, false>(&group, u.clamp64())
                } else {
                    simd::compare::<1, false>(&group, u.clamp64())
                };
                Found::new(lo, hi - lo, simd::count_of_first(below, hi - lo), equal)
            }
        } else {
            self.search(part.rows.clone(), u, lo, hi)
        };
        #[cfg(not(target_arch = "x86_64"))]
        let found = self.search(part.rows.clone(), u, lo, hi);
        // All rows compared are below, up to the end of the part: the next part's first is not.
        if found.at == part.rows.end && found.at > lo && found.at < leaf.len::<K>() {
            return Found { certain: true, there: distance.clamp64() == part.next, ..found };
        }
        found
    }

    /// The rows from `row` on, to compare at once.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn group(&self, row: usize) -> Group {
        Group {
            residuals: self.residuals(row),
            width: self.width,
            // A product modulo 2^64 is the same, and rows need one shift less.
            mantissa: self.mantissa << self.left,
            right: self.right.into(),
            free: u64::from(u64::BITS - self.width),
            row,
        }
    }

    /// Where the leaf's residuals begin. Those from row `row` on may be compared at once if keys and
    /// residuals fit 64 bits: the first group begins at a row of the leaf or at its end, so within the
    /// words or at their end; two groups of at most 64 bytes on are within the padding.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn residuals(&self, row: usize) -> *const u8 {
        debug_assert!(
            self.byte + row * self.width as usize / 8 + super::bits::PADDING <= self.packed.0.len()
        );
        self.packed.at(self.byte)
    }

    /// First of rows `lo..=hi` whose relative key is `>= u`, of a leaf or a part that has rows `rows`.
    #[inline(always)]
    fn search(&self, rows: Range<usize>, u: K, lo: usize, hi: usize) -> Found {
        let (lo, hi) = (lo.min(rows.end), hi.min(rows.end));
        let at = self.lower_bound(u, lo, hi);
        // Inside the window, the search has compared the keys around the answer.
        let certain = at < rows.end
            && (at > lo || at == rows.start || self.relative(at - 1) < u)
            && (at < hi || self.relative(at) >= u);
        Found { at, certain, there: certain && self.relative(at) == u }
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

    /// First row of `rows` whose relative key is `>= u`, or their end, searched from row `at` in steps
    /// that double.
    pub(super) fn settle(&self, u: K, at: usize, rows: Range<usize>) -> usize {
        let at = at.clamp(rows.start, rows.end);
        if at > rows.start && self.relative(at - 1) >= u {
            self.gallop_down(u, at, rows.start)
        } else {
            self.gallop_up(u, at, rows.end)
        }
    }

    fn gallop_down(&self, u: K, mut hi: usize, start: usize) -> usize {
        let mut step = 1;
        let mut lo = hi - 1;
        while lo > start && self.relative(lo) >= u {
            hi = lo;
            step *= 2;
            lo = lo.saturating_sub(step).max(start);
        }
        self.lower_bound(u, lo, hi)
    }

    fn gallop_up(&self, u: K, mut lo: usize, end: usize) -> usize {
        let mut step = 1;
        let mut hi = lo;
        while hi < end && self.relative(hi) < u {
            lo = hi + 1;
            hi = (hi + step).min(end);
            step *= 2;
        }
        self.lower_bound(u, lo.min(hi), hi)
    }
}
