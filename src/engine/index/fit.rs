//! Training: cuts sorted keys into leaves that cost the fewest bits, in one pass over the keys.
//!
//! Blocks of 4,096 keys are cut in powers of two down to [`MIN_LEAF`] keys wherever the halves' lines
//! and residuals take less room than the whole's; blocks that one line fits well are joined up to
//! [`MAX_LEAF`]. Room is what is minimised, and it bounds time as well: a residual of `w` bits is a
//! search window of `2^w` over the slope rows.

use super::bits::{Packed, Packer, usable_width};
use super::key::ModelKey;
use super::leaf::{Leaf, Line, MAX_LEAF, bias};

/// Keys of the blocks that are cut or joined.
const BLOCK: usize = 4096;
/// Leaves are not cut below this.
const MIN_LEAF: usize = 128;
/// No leaf of more keys has a wider window than this, in rows.
const MAX_WINDOW: f64 = 1024.0;

/// What training gives.
#[derive(Debug)]
pub(super) struct Trained<K> {
    pub leaves: Vec<Leaf<K>>,
    pub packed: Packed,
    pub max_error: usize,
    /// Sum of the absolute errors, in rows.
    pub error_sum: f64,
}

/// The line through a run of keys and the width of its residuals.
#[derive(Debug, Clone, Copy)]
struct Fit {
    line: Line,
    width: u32,
    bias: u8,
    start: usize,
    len: usize,
}

impl Fit {
    /// Bits of leaf, its share of the root, and residuals.
    fn cost<K: ModelKey>(&self) -> usize {
        (Leaf::<K>::BYTES + 8) * 8 + self.len * self.width as usize
    }

    /// Rows that its residuals spread over.
    fn window(&self) -> f64 {
        let rows = 2f64.powi(self.width as i32) / self.line.slope();
        if self.width == 0 { 0.0 } else { rows.min(self.len as f64) }
    }
}

pub(super) fn train<K: ModelKey>(keys: &[K]) -> Trained<K> {
    let mut trainer = Trainer { keys, fits: Vec::new() };
    for start in (0..keys.len()).step_by(MAX_LEAF) {
        trainer.join(start, MAX_LEAF.min(keys.len() - start));
    }
    trainer.pack()
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
            if whole.cost::<K>() <= cost && whole.window() <= MAX_WINDOW {
                self.fits.truncate(before);
                self.fits.push(whole);
                cost = whole.cost::<K>();
            }
        }
        cost
    }

    /// Fits from above: the parts replace the whole if they cost less.
    fn cut(&mut self, start: usize, len: usize) -> usize {
        let whole = fit(self.keys, start, len);
        let cost = whole.cost::<K>();
        if whole.width == 0 || len <= MIN_LEAF || (len <= 256 && !self.uneven(start, len)) {
            self.fits.push(whole);
            return cost;
        }
        let part = len.next_power_of_two() / if len <= 256 { 2 } else { 4 };
        let before = self.fits.len();
        let mut parts = 0;
        for at in (start..start + len).step_by(part) {
            parts += self.cut(at, part.min(start + len - at));
        }
        if cost <= parts && whole.window() <= MAX_WINDOW {
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

    fn pack(self) -> Trained<K> {
        let mut packer = Packer::default();
        let mut leaves = Vec::with_capacity(self.fits.len() + 3);
        let (mut max_error, mut error_sum) = (0f64, 0f64);
        for fit in &self.fits {
            let keys = &self.keys[fit.start..fit.start + fit.len];
            leaves.push(Leaf {
                first: keys[0],
                meta: Leaf::<K>::meta(fit.line, fit.width, fit.bias),
                start: fit.start as u32,
                data: u32::try_from(packer.words()).expect("residuals of 32 GiB at most"),
            });
            let origin = keys[0].sub(bias(u64::from(fit.bias), fit.width));
            let (right, left) = fit.line.shifts();
            let residual = |i: usize| {
                let line = K::from_u64((fit.line.mantissa * i as u64) >> right).shl(left);
                keys[i].sub(origin).sub(line)
            };
            packer.append(fit.width, fit.len, residual);
            max_error = max_error.max(fit.window() / 2.0);
            error_sum += mean_error(fit, residual) * fit.len as f64;
        }
        Trained { leaves, packed: packer.finish(), max_error: max_error.ceil() as usize, error_sum }
    }
}

/// Mean distance of the keys from the middle of the band of residuals, in rows.
fn mean_error<K: ModelKey>(fit: &Fit, residual: impl Fn(usize) -> K) -> f64 {
    if fit.width == 0 {
        return 0.0;
    }
    // Dropping low bits of wide residuals keeps 2^16 of them within 64 bits.
    let drop = fit.width.saturating_sub(40);
    let middle = 1i64 << (fit.width - drop - 1);
    let sum: u64 =
        (0..fit.len).map(|i| (residual(i).shr(drop).low() as i64 - middle).unsigned_abs()).sum();
    let mean = sum as f64 / fit.len as f64 * 2f64.powi(drop as i32);
    (mean / fit.line.slope()).min(fit.len as f64)
}

/// The line through the first and the last key of a run.
fn fit<K: ModelKey>(all: &[K], start: usize, len: usize) -> Fit {
    let keys = &all[start..start + len];
    let range = keys[len - 1].sub(keys[0]);
    let flat = |width| Fit { line: Line::FLAT, width, bias: 0, start, len };
    if range == K::default() {
        return flat(0);
    }
    // Two bits of room keep distances from the line within the signed type.
    if range.bit_len() + 2 > K::BITS {
        return flat(usable_width(range.bit_len(), K::BITS));
    }
    let line = Line::new(range.to_f64() / (len - 1) as f64);
    let (below, above) = distances(keys, line);
    let mut width = usable_width(below.add(above).bit_len(), K::BITS);
    while width < K::BITS {
        // Round the bias up to a 256th of the band; that may push the highest key out of it.
        let unit = bias::<K>(1, width);
        let steps = if width >= 8 {
            below.add(unit.sub(K::from_u64(1))).shr(width - 8).low()
        } else {
            below.low() << (8 - width)
        };
        if steps < 256 && above <= K::mask(width).saturating_sub(bias(steps, width)) {
            return Fit { line, width, bias: steps as u8, start, len };
        }
        width = usable_width(width + 1, K::BITS);
    }
    flat(usable_width(range.bit_len(), K::BITS))
}

/// Largest distances of keys below and above the line through the first.
fn distances<K: ModelKey>(keys: &[K], line: Line) -> (K, K) {
    let (right, left) = line.shifts();
    let (mut below, mut above) = (K::default(), K::default());
    for (i, k) in keys.iter().enumerate() {
        let line = K::from_u64((line.mantissa * i as u64) >> right).shl(left);
        let key = k.sub(keys[0]);
        below = below.max(line.saturating_sub(key));
        above = above.max(key.saturating_sub(line));
    }
    (below, above)
}
