//! Where a leaf's line breaks: keys in a few even stretches, with gaps between them.
//!
//! Each stretch goes on with the slope of the one before it, further up. So a leaf of ids that were
//! given out in blocks, or of timestamps with pauses, needs no residuals for its gaps.

use std::ops::Range;

use super::key::ModelKey;
use super::leaf::Line;

/// Breaks of a line at most, and its end.
pub(super) const MARKS: usize = 6;
/// Bits of a row in a mark.
const ROW_BITS: u32 = 16;
/// A distance that no key after a break has.
const END: u64 = u64::MAX >> ROW_BITS;
/// Stretches of rows that are asked first whether there are a few gaps, and what is between is even.
const PROBES: usize = 16;
/// Rows of such a stretch at least.
const MIN_STEP: usize = 16;
/// Rows that such a stretch may be off from the others.
const SLACK: usize = 24;

/// The breaks of a line, in order, each as a number: the last row before it (16 bits), below the distance of
/// the key after it from the leaf's first key (48 bits). In place of those that a line does not have is its
/// end: the last row, below bits that are all set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Breaks(pub [u64; MARKS]);

/// The rows between two breaks of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part<K> {
    pub rows: Range<usize>,
    /// What the line is higher by there.
    pub jump: K,
    /// Distance of the first key after it from the leaf's first key; not of the last part.
    pub next: u64,
}

impl Breaks {
    /// Breaks of `keys` at their widest gaps, if it looks as if they were even but for these.
    pub(super) fn new<K: ModelKey>(keys: &[K]) -> Option<Self> {
        let last = keys.len() - 1;
        let step = keys.len() / PROBES;
        let range = keys[last].sub(keys[0]);
        if step < MIN_STEP || range >= K::from_u64(END) {
            return None;
        }
        // Most keys are asked for nothing but what a few of them span.
        let begin = |i: usize| if i < PROBES { i * step } else { last };
        let spans: [u64; PROBES] =
            std::array::from_fn(|i| keys[begin(i + 1)].sub(keys[begin(i)]).low());
        let limit = range.low() / (4 * PROBES as u64);
        let (mut wide, mut even, mut most) = (0, 0, 0);
        for span in spans {
            if span > limit {
                wide += 1;
            } else {
                even += span;
                most = most.max(span);
            }
        }
        if wide == 0 || wide >= MARKS {
            return None;
        }
        let mean = even as f64 / (PROBES - wide) as f64;
        if most as f64 > mean * (1.0 + SLACK as f64 / step as f64) + 1.0 {
            return None;
        }
        let mut marks = [mark(END, last); MARKS];
        let gapped = (0..PROBES).filter(|i| spans[*i] > limit);
        for (own, i) in marks.iter_mut().zip(gapped) {
            let (from, to) = (begin(i), begin(i + 1));
            let (mut widest, mut row) = (K::default(), from);
            for (i, pair) in keys[from..=to].windows(2).enumerate() {
                let gap = pair[1].sub(pair[0]);
                if gap > widest {
                    (widest, row) = (gap, from + i);
                }
            }
            *own = mark(keys[row + 1].sub(keys[0]).low(), row);
        }
        Some(Self(marks))
    }

    /// The part after `i` breaks.
    #[inline(always)]
    pub(super) fn part<K: ModelKey>(&self, i: usize, line: Line) -> Part<K> {
        let (begin, end) = (self.0[i.saturating_sub(1)], self.0[i]);
        // Products instead of a branch: which part it is cannot be foreseen.
        let is_after = usize::from(i > 0);
        let start = row(begin) * is_after;
        let distance = (begin >> ROW_BITS) * is_after as u64;
        let jump = K::from_u64(distance).sub(line.at(start));
        Part { rows: start..row(end), jump, next: end >> ROW_BITS }
    }

    /// All parts.
    pub(super) fn parts<K: ModelKey>(&self, line: Line) -> impl Iterator<Item = Part<K>> {
        let count = 1 + self.0.iter().filter(|mark| **mark >> ROW_BITS != END).count();
        (0..count).map(move |i| self.part(i, line))
    }

    /// The part that holds row `at`.
    pub(super) fn part_of_row<K: ModelKey>(&self, at: usize, line: Line) -> Part<K> {
        let before = self.0[..MARKS - 1].iter().filter(|mark| row(**mark) <= at);
        self.part(before.count(), line)
    }

    /// What marks of breaks whose keys are below `distance` are below.
    #[inline(always)]
    pub(super) fn limit(distance: u64) -> u64 {
        mark_bits(distance.min(END))
    }

    /// Whether rows and distances are in order, and only the last are its end.
    pub(super) fn is_valid(&self) -> bool {
        let in_order = self.0.windows(2).all(|pair| {
            let is_end = pair[0] >> ROW_BITS == END;
            if is_end {
                pair[0] == pair[1]
            } else {
                pair[0] < pair[1] && row(pair[0]) < row(pair[1])
            }
        });
        in_order && self.0[MARKS - 1] >> ROW_BITS == END
    }
}

/// Of which row and distance.
fn mark(distance: u64, row: usize) -> u64 {
    mark_bits(distance) | row as u64
}

fn mark_bits(distance: u64) -> u64 {
    distance << ROW_BITS
}

/// The first row after a break.
#[inline(always)]
fn row(mark: u64) -> usize {
    (mark as u16) as usize + 1
}
