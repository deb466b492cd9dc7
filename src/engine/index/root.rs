//! The root: from a key to its leaf.
//!
//! A table over the leaves' key range in steps of a power of two. It is monotone whatever the keys are.
//! Where one step holds more than a few leaves, a table of its own, over just their range, hangs below;
//! where three tables deep that is still so, the leaves are searched. An entry says which leaf is the
//! last to begin before the step, and how many begin in it. It is exact for leaves whose first keys are in order, as
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

#[derive(Debug, Clone, Copy)]
struct Table<K> {
    /// Least key of its first step.
    min: K,
    /// Highest step.
    last: K,
    /// Bits of a key below a step.
    shift: u32,
    /// Where its entries begin; without any, its first leaf.
    offset: u32,
    /// Without entries: leaves after the first one.
    leaves: u32,
}

#[derive(Debug, Clone)]
pub(super) struct Root<K> {
    /// The first of the tables, over all leaves; its entries are the first.
    top: Table<K>,
    tables: Vec<Table<K>>,
    entries: Vec<u32>,
}

impl<K: ModelKey> Root<K> {
    /// Over the first keys of leaves. Without any, nothing may be looked up.
    pub(super) fn new(firsts: &[K]) -> Self {
        let top = Table { min: K::MAX, last: K::default(), shift: 0, offset: 0, leaves: 0 };
        let mut root = Self { top, tables: Vec::new(), entries: Vec::new() };
        if !firsts.is_empty() {
            root.add(firsts, 0, firsts.len(), 1);
            root.top = root.tables[0];
        }
        root
    }

    /// Adds the table over leaves `from..to`.
    fn add(&mut self, firsts: &[K], from: usize, to: usize, depth: u32) -> usize {
        let at = self.tables.len();
        let min = firsts[from];
        let range = firsts[to - 1].sub(min);
        // A step for each two leaves at least, two a leaf at most.
        let log = ((to - from) * 2).ilog2();
        let shift = range.bit_len().saturating_sub(log);
        let last = range.shr(shift);
        let offset = self.entries.len();
        self.tables.push(Table { min, last, shift, offset: offset as u32, leaves: 0 });
        let steps = last.low() as usize + 1;
        self.entries.resize(offset + steps, 0);
        let mut begin = from;
        for step in 0..steps {
            let mut end = begin;
            while end < to && firsts[end].sub(min).shr(shift).low() as usize == step {
                end += 1;
            }
            self.entries[offset + step] = self.entry(firsts, begin, end, depth);
            begin = end;
        }
        at
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
            self.add(firsts, begin, end, depth + 1)
        } else {
            let (offset, leaves) = (leaf as u32, count as u32);
            self.tables.push(Table { min: K::MAX, last: K::MAX, shift: 0, offset, leaves });
            self.tables.len() - 1
        };
        table as u32 | NESTED
    }

    #[inline(always)]
    fn step(table: &Table<K>, distance: K) -> usize {
        distance.shr(table.shift).min(table.last).low() as usize
    }

    /// The entry where the search for `q` begins, which is not below all keys.
    #[inline(always)]
    pub(super) fn begin(&self, q: K) -> usize {
        Self::step(&self.top, q.sub(self.top.min))
    }

    /// Asks for an entry.
    #[inline(always)]
    pub(super) fn prefetch(&self, entry: usize) {
        prefetch(self.entries.as_ptr().wrapping_add(entry));
    }

    /// Follows what [`Self::begin`] gave to the first leaf that may hold `q`, and how many more may.
    #[inline(always)]
    pub(super) fn follow(&self, q: K, entry: usize) -> (usize, usize) {
        let mut entry = self.entries[entry];
        while entry & NESTED != 0 {
            let table = &self.tables[(entry & !NESTED) as usize];
            if table.leaves > 0 {
                return (table.offset as usize, table.leaves as usize);
            }
            entry = self.entries[table.offset as usize + Self::step(table, q.saturating_sub(table.min))];
        }
        ((entry & ((1 << LEAF_BITS) - 1)) as usize, (entry >> LEAF_BITS) as usize)
    }

    /// The last of leaves `leaf..=leaf + more` whose first key is below `q`, or `leaf`; and its first key. `firsts` are those of all leaves, and
    /// [`SENTINELS`].
    ///
    /// # Safety
    /// With `SIMD`, the processor must support [`super::simd`].
    #[inline(always)]
    pub(super) unsafe fn choose<const SIMD: bool>(
        firsts: &[K],
        q: K,
        leaf: usize,
        more: usize,
    ) -> (usize, K) {
        if more > MAX_IN_STEP {
            let leaf = leaf + firsts[leaf + 1..=leaf + more].partition_point(|first| *first < q);
            return (leaf, firsts[leaf]);
        }
        let near = &firsts[leaf..leaf + SENTINELS];
        let next = &near[1..];
        // Leaves that begin in later steps are above: there is no branch on how many there are.
        #[cfg(target_arch = "x86_64")]
        let count = if SIMD && K::BITS == 64 {
            // SAFETY: the caller sees to the features; these are keys of 64 bits.
            unsafe { simd::count_below(&*next.as_ptr().cast(), q.low()) }
        } else {
            next.iter().map(|first| usize::from(*first < q)).sum()
        };
        #[cfg(not(target_arch = "x86_64"))]
        let count = next.iter().map(|first| usize::from(*first < q)).sum::<usize>();
        (leaf + count, near[count])
    }

    /// Bytes held.
    pub(super) fn memory_bytes(&self) -> usize {
        self.tables.capacity() * size_of::<Table<K>>() + self.entries.capacity() * 4
    }
}
