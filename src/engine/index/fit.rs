//! Training: cuts sorted keys into leaves that cost the fewest bits, in one pass over the keys.
//!
//! Blocks of 4,096 keys are cut in powers of two down to [`MIN_LEAF`] keys wherever the halves' lines
//! and residuals take less room than the whole's; blocks that one line fits well are joined up to
//! [`MAX_LEAF`]. Room is what is minimised, and it bounds time as well: a residual of `w` bits is a
//! search window of `2^w` over the slope rows.

use super::bits::{NARROW, Packer, usable_width};
use super::breaks::Breaks;
use super::chunks::CHUNK_BYTES;
use super::filter::{BuiltFilters, FilterBuilder};
use super::key::ModelKey;
use super::leaf::{
    Leaf, Line, MAX_LEAF, MAX_SAMPLED, SLIM_BITS, bias, is_sampled, power_of_2, stored_rows,
};
#[cfg(target_arch = "x86_64")]
use super::simd;
use super::{LearnedKeys, Model};

/// Keys of the blocks that are cut or joined.
const BLOCK: usize = 4096;
/// What a leaf costs, in bits: twice what it and its share of the root take, because leaves are worth
/// more than keys where they fit a cache that keys do not fit.
const LEAF_COST: usize = 1280;
/// Leaves are not cut below this.
const MIN_LEAF: usize = 128;
/// Keys whose residuals are computed together; a multiple of eight.
const PIECE: usize = 256;

/// The line through a run of keys and the width of its residuals.
#[derive(Debug, Clone, Copy)]
struct Fit {
    line: Line,
    width: u32,
    bias: u8,
    breaks: Option<Breaks>,
    start: usize,
    len: usize,
}

impl Fit {
    /// Bits of leaf, its share of the root, and residuals.
    fn cost(&self) -> usize {
        LEAF_COST + self.len * self.width as usize
    }

    fn is_sampled(&self) -> bool {
        is_sampled(self.line, self.width)
    }

    /// Bytes of its residuals: whole words.
    fn bytes(&self) -> usize {
        (stored_rows(self.len, self.is_sampled()) * self.width as usize).div_ceil(64) * 8
    }

    /// Whether a leaf may be so.
    fn is_allowed(&self) -> bool {
        (self.len <= MAX_SAMPLED || !self.is_sampled()) && self.bytes() <= CHUNK_BYTES
    }

    /// Rows that its residuals spread over.
    fn window(&self) -> f64 {
        let rows = power_of_2(self.width) / self.line.slope();
        if self.width == 0 { 0.0 } else { rows.min(self.len as f64) }
    }
}

/// Trains on keys as they come. Memory: some 64 Ki keys, the leaves, and the chunks until they are taken.
#[derive(Debug)]
pub struct Builder<K> {
    /// Keys that are not trained on yet, below [`MAX_LEAF`] of them.
    pending: Vec<K>,
    len: usize,
    /// First keys of the leaves.
    firsts: Vec<K>,
    leaves: Vec<Leaf>,
    packer: Packer,
    /// Lengths of the chunks that are complete. The first is for leaves without residuals: it is empty.
    lengths: Vec<u32>,
    complete: Vec<Vec<u8>>,
    filters: Option<FilterBuilder>,
    max_error: f64,
    /// Sum of the absolute errors, in rows.
    error_sum: f64,
}

impl<K: ModelKey> Default for Builder<K> {
    fn default() -> Self {
        Self {
            pending: Vec::new(),
            len: 0,
            firsts: Vec::new(),
            leaves: Vec::new(),
            packer: Packer::default(),
            lengths: vec![0],
            complete: vec![Vec::new()],
            filters: None,
            max_error: 0.0,
            error_sum: 0.0,
        }
    }
}

impl<K: ModelKey> Builder<K> {
    /// One that makes filters as well, of the keys that are worth them.
    pub fn with_filters() -> Self {
        let mut filters = FilterBuilder::learned();
        // The empty chunk has none.
        filters.end_chunk(0);
        Self { filters: Some(filters), ..Self::default() }
    }

    /// Takes in the next keys: ascending, repeats allowed, none below those before.
    ///
    /// # Panics
    /// If there are more than `u32::MAX` keys in all.
    pub fn push(&mut self, mut keys: &[K]) {
        debug_assert!(keys.is_sorted());
        assert!(
            u32::try_from(self.len + self.pending.len() + keys.len()).is_ok(),
            "a segment holds at most u32::MAX keys"
        );
        while !keys.is_empty() {
            if self.pending.is_empty() && keys.len() >= MAX_LEAF {
                let (piece, rest) = keys.split_at(MAX_LEAF);
                self.train(piece);
                keys = rest;
                continue;
            }
            let (piece, rest) = keys.split_at(keys.len().min(MAX_LEAF - self.pending.len()));
            self.pending.extend_from_slice(piece);
            keys = rest;
            if self.pending.len() == MAX_LEAF {
                self.train_pending();
            }
        }
    }

    /// The chunks that were completed since they were last taken, in order.
    pub fn take_chunks(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.complete)
    }

    /// The index, no chunk of which is in memory, and the last chunks.
    pub fn finish(self) -> (LearnedKeys<K>, Vec<Vec<u8>>) {
        let (keys, chunks, _) = self.finish_with_filters();
        (keys, chunks)
    }

    /// [`Self::finish`], and the filters, where there are any.
    pub fn finish_with_filters(mut self) -> (LearnedKeys<K>, Vec<Vec<u8>>, Option<BuiltFilters>) {
        self.train_pending();
        self.end_chunk();
        let mean_error = self.error_sum / self.len.max(1) as f64;
        let max_error = self.max_error.ceil() as usize;
        let model = Model::assemble(
            self.len,
            self.firsts,
            self.leaves,
            self.lengths,
            max_error,
            mean_error,
        );
        let filters = self.filters.and_then(FilterBuilder::finish);
        (LearnedKeys::new(model), self.complete, filters)
    }

    fn train_pending(&mut self) {
        let mut keys = std::mem::take(&mut self.pending);
        self.train(&keys);
        keys.clear();
        self.pending = keys;
    }

    /// Trains on [`MAX_LEAF`] keys, or fewer at the end.
    fn train(&mut self, keys: &[K]) {
        let mut trainer = Trainer { keys, fits: Vec::new() };
        if !keys.is_empty() {
            trainer.join(0, keys.len());
        }
        for fit in &trainer.fits {
            self.pack(fit, &keys[fit.start..fit.start + fit.len]);
        }
        self.len += keys.len();
    }

    fn pack(&mut self, fit: &Fit, keys: &[K]) {
        if self.packer.words() * 8 + fit.bytes() > CHUNK_BYTES {
            self.end_chunk();
        }
        let data = match fit.width {
            0 => 0,
            _ => Leaf::data(self.lengths.len(), self.packer.words()),
        };
        if let Some(filters) = &mut self.filters {
            filters.add_numbers(keys, fit.width);
        }
        let errors = fit.pack(keys, &mut self.packer);
        let start = (self.len + fit.start) as u32;
        self.firsts.push(keys[0]);
        let leaf = Leaf::new(keys, fit.line, fit.breaks.as_ref(), fit.width, fit.bias, start, data);
        self.leaves.push(leaf);
        self.max_error = self.max_error.max(fit.window() / 2.0);
        self.error_sum += errors;
    }

    fn end_chunk(&mut self) {
        let chunk = self.packer.take();
        if !chunk.is_empty() {
            if let Some(filters) = &mut self.filters {
                filters.end_chunk(chunk.len());
            }
            self.lengths.push(chunk.len() as u32);
            self.complete.push(chunk);
        }
    }
}

struct Trainer<'a, K> {
    keys: &'a [K],
    fits: Vec<Fit>,
}

impl<K: ModelKey> Trainer<'_, K> {
    /// Fits blocks from below: four neighbours that are one leaf each are joined if that costs less.
    fn join(&mut self, start: usize, len: usize) -> usize {
        let part = len.next_power_of_two() / 4;
        if part < BLOCK {
            return self.cut(start, len);
        }
        let before = self.fits.len();
        let mut cost = 0;
        for at in (start..start + len).step_by(part) {
            cost += self.join(at, part.min(start + len - at));
        }
        if self.fits.len() - before <= 4 && self.fits.len() - before > 1 {
            let whole = fit(self.keys, start, len);
            if whole.cost() <= cost && whole.is_allowed() {
                self.fits.truncate(before);
                self.fits.push(whole);
                cost = whole.cost();
            }
        }
        cost
    }

    /// Fits from above: the parts replace the whole if they cost less.
    fn cut(&mut self, start: usize, len: usize) -> usize {
        let whole = fit(self.keys, start, len);
        let cost = whole.cost();
        if whole.width == 0 || len <= MIN_LEAF || (len <= 256 && !self.uneven(start, len)) {
            self.fits.push(whole);
            return cost;
        }
        let part = len.next_power_of_two() / if len <= 2 * MAX_SAMPLED { 2 } else { 4 };
        let before = self.fits.len();
        let mut parts = 0;
        for at in (start..start + len).step_by(part) {
            parts += self.cut(at, part.min(start + len - at));
        }
        if cost <= parts && whole.is_allowed() {
            self.fits.truncate(before);
            self.fits.push(whole);
            return cost;
        }
        parts
    }

    /// Whether the halves of a run have so different slopes that cutting it may pay.
    fn uneven(&self, start: usize, len: usize) -> bool {
        let at = |i: usize| self.keys[start + i];
        let left = at(len / 2).sub(at(0)).to_f64();
        let right = at(len - 1).sub(at(len / 2)).to_f64();
        left > 2.0 * right || right > 2.0 * left
    }
}

impl Fit {
    /// Packs the residuals of `keys`. Gives the sum of the keys' distances from the middle of the band
    /// of residuals, in rows.
    fn pack<K: ModelKey>(&self, keys: &[K], packer: &mut Packer) -> f64 {
        if self.width == 0 {
            return 0.0;
        }
        let origin = keys[0].sub(bias(self.bias, self.width));
        let stored = stored_rows(self.len, self.is_sampled());
        // Dropping low bits of wide residuals keeps the sum of 2^16 distances within 64 bits.
        let drop = self.width.saturating_sub(40);
        let mut sum = 0;
        if self.width <= NARROW {
            let mut buffer = [0; PIECE];
            for (i, piece) in keys.chunks(PIECE).enumerate() {
                let rows = i * PIECE..i * PIECE + piece.len();
                let out = &mut buffer[..piece.len()];
                if let Some(breaks) = &self.breaks {
                    for part in breaks.parts(self.line) {
                        let own = part.rows.start.max(rows.start)..part.rows.end.min(rows.end);
                        if own.is_empty() {
                            continue;
                        }
                        let out = &mut out[own.start - rows.start..own.end - rows.start];
                        let (start, origin) = (own.start, origin.add(part.jump));
                        sum += residuals(&keys[own], origin, self.line, start, self.width, out);
                    }
                } else {
                    sum += residuals(piece, origin, self.line, rows.start, self.width, out);
                }
                let end = PIECE.min(stored - i * PIECE);
                buffer[piece.len()..end].fill(u64::mask(self.width));
                packer.append(self.width, &buffer[..end]);
            }
        } else {
            let middle = 1i64 << (self.width - drop - 1);
            let (right, left) = self.line.shifts();
            let residuals = keys.iter().enumerate().map(|(i, k)| {
                let line = K::from_u64((self.line.mantissa * i as u64) >> right).shl(left);
                let residual = k.sub(origin).sub(line);
                sum += (residual.shr(drop).low() as i64 - middle).unsigned_abs();
                residual.to_u128()
            });
            let rest = std::iter::repeat_n(K::mask(self.width).to_u128(), stored - self.len);
            packer.append_wide(self.width, residuals.chain(rest));
        }
        packer.end_leaf();
        let rows = sum as f64 * power_of_2(drop) / self.line.slope();
        rows.min((keys.len() * keys.len()) as f64)
    }
}

/// Residuals of `keys`, the first of which is key `start` of its leaf, into `out`. Gives the sum of their
/// distances from the middle of the band, without the low bits that [`Fit::pack`] drops.
fn residuals<K: ModelKey>(
    keys: &[K],
    origin: K,
    line: Line,
    start: usize,
    width: u32,
    out: &mut [u64],
) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if K::BITS == 64 && simd::is_supported() {
        // SAFETY: the features were detected.
        return unsafe { residuals_simd(keys, origin, line, start, width, out) };
    }
    if K::BITS > 64 && keys[keys.len() - 1].sub(origin).bit_len() <= SLIM_BITS + 1 {
        let slim = slim(keys, origin);
        return residuals::<u64>(&slim[..keys.len()], 0, line, start, width, out);
    }
    residuals_in(keys, origin, line, start, width, out)
}

/// Keys less `origin`, of which each fits 64 bits; [`PIECE`] keys at most.
fn slim<K: ModelKey>(keys: &[K], origin: K) -> [u64; PIECE] {
    let mut slim = [0; PIECE];
    for (slim, key) in slim.iter_mut().zip(keys) {
        *slim = key.sub(origin).low();
    }
    slim
}

/// The same loop, compiled for wider registers.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw")]
fn residuals_simd<K: ModelKey>(
    keys: &[K],
    origin: K,
    line: Line,
    start: usize,
    width: u32,
    out: &mut [u64],
) -> u64 {
    residuals_in(keys, origin, line, start, width, out)
}

#[inline(always)]
fn residuals_in<K: ModelKey>(
    keys: &[K],
    origin: K,
    line: Line,
    start: usize,
    width: u32,
    out: &mut [u64],
) -> u64 {
    let (right, left) = line.shifts();
    let drop = width.saturating_sub(40);
    let middle = 1i64 << (width - drop - 1);
    let mut product = line.mantissa * start as u64;
    let mut sum = 0;
    for (key, out) in keys.iter().zip(out) {
        let residual = key.sub(origin).sub(K::from_u64(product >> right).shl(left)).low();
        *out = residual;
        sum += ((residual >> drop) as i64 - middle).unsigned_abs();
        product = product.wrapping_add(line.mantissa);
    }
    sum
}

/// What fits a run of keys in the fewest bits.
fn fit<K: ModelKey>(all: &[K], start: usize, len: usize) -> Fit {
    let whole = fit_whole(all, start, len);
    // Where samples would have to tell the rows apart, gaps may be why.
    if whole.is_sampled()
        && let Some(broken) = fit_broken(all, start, len)
        && broken.width < whole.width
    {
        return broken;
    }
    whole
}

/// The line through the first and the last key of a run.
fn fit_whole<K: ModelKey>(all: &[K], start: usize, len: usize) -> Fit {
    let keys = &all[start..start + len];
    let range = keys[len - 1].sub(keys[0]);
    let flat = |width| Fit { line: Line::FLAT, width, bias: 0, breaks: None, start, len };
    if range == K::default() {
        return flat(0);
    }
    // Two bits of room keep distances from the line within the signed type.
    if range.bit_len() + 2 > K::BITS {
        return flat(usable_width(range.bit_len(), K::BITS));
    }
    let line = Line::new(range.to_f64() / (len - 1) as f64);
    let (below, above) = distances(keys, keys[0], line, 0);
    match band(below, above) {
        Some((width, bias)) => Fit { line, width, bias, breaks: None, start, len },
        None => flat(usable_width(range.bit_len(), K::BITS)),
    }
}

/// A line that breaks at the widest gaps of a run, if it has such gaps and a search needs no samples then.
fn fit_broken<K: ModelKey>(all: &[K], start: usize, len: usize) -> Option<Fit> {
    let keys = &all[start..start + len];
    let breaks = Breaks::new(keys)?;
    // The slope that the parts have together.
    let (mut range, mut steps) = (K::default(), 0);
    for part in breaks.parts::<K>(Line::FLAT) {
        range = range.add(keys[part.rows.end - 1].sub(keys[part.rows.start]));
        steps += part.rows.len() - 1;
    }
    let line = Line::new(range.to_f64() / steps.max(1) as f64);
    let (mut below, mut above) = (K::default(), K::default());
    for part in breaks.parts::<K>(line) {
        let first = keys[0].add(part.jump);
        let own = distances(&keys[part.rows.clone()], first, line, part.rows.start);
        (below, above) = (below.max(own.0), above.max(own.1));
    }
    let (width, bias) = band(below, above)?;
    (!is_sampled(line, width)).then_some(Fit {
        line,
        width,
        bias,
        breaks: Some(breaks),
        start,
        len,
    })
}

/// Width and bias of residuals that reach so far below and above a line, unless all bits of a key are needed.
fn band<K: ModelKey>(below: K, above: K) -> Option<(u32, u8)> {
    let mut width = usable_width(below.add(above).bit_len(), K::BITS);
    while width < K::BITS {
        // Round the bias up to a 256th of the band; that may push the highest key out of it.
        let unit = bias::<K>(1, width);
        let steps = if width >= 8 {
            below.add(unit.sub(K::from_u64(1))).shr(width - 8).low()
        } else {
            below.low() << (8 - width)
        };
        if steps < 256 && above <= K::mask(width).saturating_sub(bias(steps as u8, width)) {
            return Some((width, steps as u8));
        }
        width = usable_width(width + 1, K::BITS);
    }
    None
}

/// Largest distances of keys below and above the line through `first`, the first key of the leaf, of which
/// `keys` are those from `start` on.
fn distances<K: ModelKey>(keys: &[K], first: K, line: Line, start: usize) -> (K, K) {
    #[cfg(target_arch = "x86_64")]
    if K::BITS == 64 && simd::is_supported() {
        // SAFETY: the features were detected.
        return unsafe { distances_simd(keys, first, line, start) };
    }
    if K::BITS > 64 && keys[keys.len() - 1].sub(first).bit_len() <= SLIM_BITS {
        let pieces = keys.chunks(PIECE).enumerate().map(|(i, piece)| {
            let slim = slim(piece, first);
            distances::<u64>(&slim[..piece.len()], 0, line, start + i * PIECE)
        });
        let (below, above) = pieces.fold((0, 0), |a, b| (a.0.max(b.0), a.1.max(b.1)));
        return (K::from_u64(below), K::from_u64(above));
    }
    distances_in(keys, first, line, start)
}

/// The same loop, compiled for wider registers.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw")]
fn distances_simd<K: ModelKey>(keys: &[K], first: K, line: Line, start: usize) -> (K, K) {
    distances_in(keys, first, line, start)
}

#[inline(always)]
fn distances_in<K: ModelKey>(keys: &[K], first: K, line: Line, start: usize) -> (K, K) {
    const LANES: usize = 16;
    let (right, left) = line.shifts();
    let (mut below, mut above) = ([K::default(); LANES], [K::default(); LANES]);
    let mut products: [u64; LANES] =
        std::array::from_fn(|j| line.mantissa.wrapping_mul((start + j) as u64));
    let (groups, rest) = keys.as_chunks::<LANES>();
    for group in groups {
        for j in 0..LANES {
            let at = K::from_u64(products[j] >> right).shl(left);
            let key = group[j].sub(first);
            below[j] = below[j].max(at.saturating_sub(key));
            above[j] = above[j].max(key.saturating_sub(at));
            products[j] = products[j].wrapping_add(line.mantissa * LANES as u64);
        }
    }
    for (j, key) in rest.iter().enumerate() {
        let at = K::from_u64(products[j] >> right).shl(left);
        let key = key.sub(first);
        below[j] = below[j].max(at.saturating_sub(key));
        above[j] = above[j].max(key.saturating_sub(at));
    }
    let max = |v: [K; LANES]| v.into_iter().max().unwrap_or_default();
    (max(below), max(above))
}
