//! The root: from a key to its leaf.
//!
//! A table over the leaves' key range in even steps: of the distance from the least key or, where keys
//! crowd near it, of that distance's logarithm. Both are monotone whatever the keys are. Where one step
//! holds more than a few leaves, a table of its own, over just their range, hangs below; where three
//! tables deep that is still so, the leaves are searched. An entry says which leaf is the last to begin
//! before the step, and how many begin in it. It is exact for leaves whose first keys are in order, as
//! those of every model are.

use super::bits::prefetch;
use super::key::ModelKey;
#[cfg(target_arch = "x86_64")]
use super::simd;

/// Leaves that may begin in a step without a table of its own.
const MAX_IN_STEP: usize = 7;
/// First keys that are compared at once, one of them only so that they are a cache line.
const COMPARED: usize = 8;
/// Keys after the last leaf's first one, so that looking ahead needs no check.
pub(super) const SENTINELS: usize = COMPARED + 1;
/// Tables above each other.
const MAX_DEPTH: u32 = 3;
/// Entry: another table, or a range of leaves, follows.
const NESTED: u32 = 1 << 31;
/// Entry: bits of the leaf; three bits above are the count.
const LEAF_BITS: u32 = 28;
/// Leaves a root can tell apart.
pub(super) const MAX_LEAVES: usize = 1 << LEAF_BITS;

/// How keys are divided into steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scale {
    /// By their distance from the least one.
    Linear,
    /// By that distance as a float: exponent and mantissa are nearly its logarithm.
    Log,
}

impl Scale {
    /// Where a key lies.
    #[inline(always)]
    fn place<K: ModelKey>(self, distance: K) -> K {
        match self {
            Self::Linear => distance,
            Self::Log => K::from_u64(distance.to_f64().to_bits().saturating_sub(1f64.to_bits())),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Table<K> {
    scale: Scale,
    /// Least key of its first step.
    min: K,
    /// Highest step.
    last: K,
    /// Low bits of a place that do not matter to the step.
    shift: u32,
    /// Where its entries begin; without any, its first leaf.
    offset: u32,
    /// Without entries: leaves after the first one.
    leaves: u32,
}

impl<K: ModelKey> Table<K> {
    /// Over leaves of which these are the first keys.
    fn new(firsts: &[K], scale: Scale) -> Self {
        let min = firsts[0];
        let range = scale.place(firsts[firsts.len() - 1].sub(min));
        // At least a step for each two leaves and at most two a leaf; four times as many if few of the
        // magnitudes have keys.
        let steps = firsts.len() * if scale == Scale::Log { 8 } else { 2 };
        let shift = range.bit_len().saturating_sub(steps.ilog2());
        Self { scale, min, last: range.shr(shift), shift, offset: 0, leaves: 0 }
    }

    /// No table: `leaves` leaves after leaf `offset` are searched.
    fn search(offset: u32, leaves: u32) -> Self {
        let (min, last) = (K::MAX, K::default());
        Self { scale: Scale::Linear, min, last, shift: 0, offset, leaves }
    }

    /// Of the leaves that it searches, the last whose first key is below `q`, or the one before them.
    #[cold]
    #[inline(never)]
    fn find(&self, firsts: &[K], q: K) -> usize {
        let before = self.offset as usize;
        let own = &firsts[before + 1..=before + self.leaves as usize];
        before + own.partition_point(|first| *first < q)
    }

    /// The step of a key that is so far above the least one; beyond the last one, where there is none.
    #[inline(always)]
    fn step(&self, distance: K) -> usize {
        self.scale.place(distance).shr(self.shift).clamp64() as usize
    }

    /// How many of `firsts` from the first on lie in step `step`.
    fn leading(&self, firsts: &[K], step: usize) -> usize {
        firsts.iter().take_while(|first| self.step(first.sub(self.min)) == step).count()
    }

    /// How many of `firsts` are in steps with too many of them.
    fn crowded(&self, mut firsts: &[K]) -> usize {
        let mut crowded = 0;
        while let Some(first) = firsts.first() {
            let count = self.leading(firsts, self.step(first.sub(self.min)));
            crowded += if count > MAX_IN_STEP { count } else { 0 };
            firsts = &firsts[count..];
        }
        crowded
    }
}

#[derive(Debug, Clone)]
pub(super) struct Root<K> {
    /// The table over all leaves, which all searches begin with, and its entries.
    top: Table<K>,
    steps: Vec<u32>,
    /// The other tables, and the entries of these.
    tables: Vec<Table<K>>,
    entries: Vec<u32>,
}

impl<K: ModelKey> Root<K> {
    /// Over the first keys of leaves. Without any, nothing may be looked up.
    pub(super) fn new(firsts: &[K]) -> Self {
        let top = Table::search(0, 0);
        let (steps, tables, entries) = (Vec::new(), Vec::new(), Vec::new());
        let mut root = Self { top, steps, tables, entries };
        if !firsts.is_empty() {
            (root.top, root.steps) = root.table(firsts, 0, firsts.len(), 1);
        }
        root
    }

    /// The table over leaves `from..to`, and its entries.
    fn table(&mut self, firsts: &[K], from: usize, to: usize, depth: u32) -> (Table<K>, Vec<u32>) {
        let own = &firsts[from..to];
        let mut table = Table::new(own, Scale::Linear);
        let crowded = table.crowded(own);
        if crowded > own.len() / 4 {
            let log = Table::new(own, Scale::Log);
            if log.crowded(own) < crowded / 2 {
                table = log;
            }
        }
        let mut begin = from;
        let steps = (0..=table.last.low() as usize).map(|step| {
            let end = begin + table.leading(&firsts[begin..to], step);
            let entry = self.entry(firsts, begin, end, depth);
            begin = end;
            entry
        });
        (table, steps.collect())
    }

    /// The entry of a step in which leaves `begin..end` begin.
    fn entry(&mut self, firsts: &[K], begin: usize, end: usize, depth: u32) -> u32 {
        let leaf = begin.saturating_sub(1);
        let count = end.saturating_sub(leaf + 1);
        if count <= MAX_IN_STEP {
            return leaf as u32 | (count as u32) << LEAF_BITS;
        }
        let same = firsts[begin] == firsts[end - 1];
        let table = if depth < MAX_DEPTH && !same {
            let (mut table, entries) = self.table(firsts, begin, end, depth + 1);
            table.offset = self.entries.len() as u32;
            self.entries.extend(entries);
            table
        } else {
            Table::search(leaf as u32, count as u32)
        };
        self.tables.push(table);
        (self.tables.len() - 1) as u32 | NESTED
    }

    /// Where the search for `q` begins, which is not below all keys.
    #[inline(always)]
    pub(super) fn begin(&self, q: K) -> usize {
        self.top.step(q.sub(self.top.min))
    }

    /// Asks for its entry.
    #[inline(always)]
    pub(super) fn prefetch(&self, step: usize) {
        prefetch(self.steps.as_ptr().wrapping_add(step));
    }

    /// Follows what [`Self::begin`] gave to the first leaf that may hold `q`, and how many more may,
    /// [`MAX_IN_STEP`] at most. `firsts` are the first keys of all leaves.
    #[inline(always)]
    pub(super) fn follow(&self, firsts: &[K], q: K, step: usize) -> (usize, usize) {
        let entry = if step < self.steps.len() { self.steps[step] } else { self.last() };
        if entry & NESTED != 0 {
            return self.follow_tables(firsts, q, entry);
        }
        Self::leaves(entry)
    }

    /// The entry of the last step, for all that is above. Apart, because it is seldom asked for.
    #[cold]
    #[inline(never)]
    fn last(&self) -> u32 {
        self.steps[self.steps.len() - 1]
    }

    #[inline(always)]
    fn leaves(entry: u32) -> (usize, usize) {
        ((entry & ((1 << LEAF_BITS) - 1)) as usize, (entry >> LEAF_BITS) as usize)
    }

    /// [`Self::follow`] through tables below the top.
    #[inline(always)]
    fn follow_tables(&self, firsts: &[K], q: K, mut entry: u32) -> (usize, usize) {
        while entry & NESTED != 0 {
            let table = &self.tables[(entry & !NESTED) as usize];
            if table.leaves > 0 {
                return (table.find(firsts, q), 0);
            }
            let step = table.step(q.saturating_sub(table.min)).min(table.last.low() as usize);
            entry = self.entries[table.offset as usize + step];
        }
        Self::leaves(entry)
    }

    /// The last of the leaves that [`Self::follow`] gives, of which `leaf` is the first, whose first key is below
    /// `q`, or `leaf`; and its first key. `firsts` are those of all leaves, and [`SENTINELS`].
    ///
    /// # Safety
    /// With `SIMD`, the processor must support [`super::simd`]. `leaf` must be a leaf.
    #[inline(always)]
    pub(super) unsafe fn choose<const SIMD: bool>(firsts: &[K], q: K, leaf: usize) -> (usize, K) {
        // Leaves that begin in later steps are above: there is no branch on how many there are.
        #[cfg(target_arch = "x86_64")]
        if SIMD && K::BITS == 64 {
            debug_assert!(leaf + SENTINELS <= firsts.len());
            // SAFETY: the caller sees to the features; these are keys of 64 bits, and `SENTINELS` more
            // than there are leaves.
            let (count, first) =
                unsafe { simd::count_below(firsts.as_ptr().cast(), leaf, q.low()) };
            return (leaf + count, K::from_u64(first));
        }
        let near = &firsts[leaf..leaf + SENTINELS];
        let count = near[1..].iter().map(|first| usize::from(*first < q)).sum::<usize>();
        (leaf + count, near[count])
    }

    /// Bytes held.
    pub(super) fn memory_bytes(&self) -> usize {
        self.tables.capacity() * size_of::<Table<K>>()
            + (self.steps.capacity() + self.entries.capacity()) * 4
    }
}
