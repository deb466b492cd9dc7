//! What is compared: structures over the same ascending keys that answer positions.

use std::collections::BTreeMap;
use std::ops::Bound;

use brie_tree::{BTree, nonmax::NonMaxU64};
use learned_index_lab::MultilevelPgmIndex;
use omendb::engine::index::LearnedKeys;
use radix_spline::RadixSpline;

use crate::static_tree::StaticTree;

/// A structure over ascending keys, repeats allowed.
pub trait Contender {
    /// Whether it has a way to look up many keys at once.
    const BATCHES: bool = false;

    /// Position of the first key that is `>= q`, or the number of keys.
    fn lower_bound(&self, q: u64) -> u32;

    /// [`Self::lower_bound`] of a key that is there, where the structure has a faster way.
    #[inline(always)]
    fn position(&self, q: u64) -> u32 {
        self.lower_bound(q)
    }

    /// [`Self::lower_bound`] of each key: one after the other, where the structure has no way for many.
    #[inline(always)]
    fn lower_bound_batch(&self, q: &[u64], out: &mut [u32]) {
        for (q, out) in q.iter().zip(out) {
            *out = self.lower_bound(*q);
        }
    }
}

impl Contender for LearnedKeys<u64> {
    const BATCHES: bool = true;

    #[inline(always)]
    fn lower_bound(&self, q: u64) -> u32 {
        // All keys are in memory here.
        LearnedKeys::lower_bound(self, q).unwrap_or(usize::MAX) as u32
    }

    fn lower_bound_batch(&self, q: &[u64], out: &mut [u32]) {
        assert!(self.find_batch(q, out, &mut []).is_ok(), "all keys are in memory");
    }
}

/// Each distinct key, with the position of its first occurrence.
pub struct Map {
    map: BTreeMap<u64, u32>,
    len: usize,
}

impl Map {
    pub fn new(keys: &[u64]) -> Self {
        // Of equal keys the last one stays: the first position.
        let last = keys.len().saturating_sub(1);
        let map = keys.iter().rev().enumerate().map(|(i, k)| (*k, (last - i) as u32)).collect();
        Self { map, len: keys.len() }
    }
}

impl Contender for Map {
    #[inline(always)]
    fn lower_bound(&self, q: u64) -> u32 {
        self.map.range(q..).next().map_or(self.len as u32, |(_, at)| *at)
    }

    #[inline(always)]
    fn position(&self, q: u64) -> u32 {
        self.map[&q]
    }
}

/// Binary search of a sorted array.
pub struct Sorted<'a>(pub &'a [u64]);

impl Contender for Sorted<'_> {
    #[inline(always)]
    fn lower_bound(&self, q: u64) -> u32 {
        self.0.partition_point(|k| *k < q) as u32
    }
}

/// The crate keeps the largest integer for itself: a key of that value is not put in, and found where the
/// others end.
pub struct Brie {
    tree: BTree<NonMaxU64, u32>,
    below_max: u32,
}

impl Brie {
    /// It has room for 4 GiB of nodes, and ascending keys leave them half full.
    pub const MAX_KEYS: usize = 50_000_000;

    pub fn new(keys: &[u64]) -> Self {
        let mut tree = BTree::new();
        let mut last = None;
        let mut below_max = 0;
        for (i, key) in keys.iter().enumerate() {
            let Some(key) = NonMaxU64::new(*key) else { break };
            if last != Some(key) {
                tree.insert(key, i as u32);
            }
            last = Some(key);
            below_max = i as u32 + 1;
        }
        Self { tree, below_max }
    }
}

impl Contender for Brie {
    #[inline(always)]
    fn lower_bound(&self, q: u64) -> u32 {
        let Some(q) = NonMaxU64::new(q) else { return self.below_max };
        self.tree.cursor_at(Bound::Included(q)).value().map_or(self.below_max, |at| *at)
    }
}

/// A PGM-index with levels.
pub struct Pgm(MultilevelPgmIndex);

impl Pgm {
    /// The better pair of error bounds, of keys and of segments, of those tried (8 to 64 and 4 to 16).
    const EPSILON: (usize, usize) = (16, 8);

    pub fn new(keys: &[u64]) -> Self {
        Self(MultilevelPgmIndex::build_with_epsilons(
            keys.to_vec(),
            Self::EPSILON.0,
            Self::EPSILON.1,
        ))
    }
}

impl Contender for Pgm {
    #[inline(always)]
    fn lower_bound(&self, q: u64) -> u32 {
        self.0.lower_bound(q) as u32
    }
}

/// A RadixSpline over a sorted array.
pub struct Spline<'a> {
    spline: RadixSpline<u64>,
    keys: &'a [u64],
}

impl<'a> Spline<'a> {
    const MAX_ERROR: u64 = 16;
    const RADIX_BITS: u64 = 18;

    /// `None` where all keys are equal: it takes two.
    pub fn new(keys: &'a [u64]) -> Option<Self> {
        let (min, max) = (*keys.first()?, *keys.last()?);
        if min == max {
            return None;
        }
        let mut builder = RadixSpline::builder(min, max);
        builder.max_error(Self::MAX_ERROR).radix_bits(Self::RADIX_BITS);
        builder.add_keys(keys.iter().copied());
        Some(Self { spline: builder.build(), keys })
    }

    /// The answer of the crate's range alone.
    #[inline(always)]
    pub fn within_range(&self, q: u64) -> usize {
        let range = self.spline.find(q);
        range.start + self.keys[range].partition_point(|k| *k < q)
    }
}

impl Contender for Spline<'_> {
    /// The crate promises a range for present keys alone, and long runs of equal keys put the answer for an
    /// absent one outside. So the keys around it are compared, which lie where it was searched.
    #[inline(always)]
    fn lower_bound(&self, q: u64) -> u32 {
        let at = self.within_range(q);
        let right = (at == 0 || self.keys[at - 1] < q) && self.keys.get(at).is_none_or(|k| *k >= q);
        if right { at as u32 } else { self.keys.partition_point(|k| *k < q) as u32 }
    }
}

impl Contender for StaticTree {
    const BATCHES: bool = true;

    #[inline(always)]
    fn lower_bound(&self, q: u64) -> u32 {
        StaticTree::lower_bound(self, q)
    }

    fn lower_bound_batch(&self, q: &[u64], out: &mut [u32]) {
        StaticTree::lower_bound_batch(self, q, out);
    }
}
