//! Which rows of a source are deleted: a bitmap in chunks of 64 Ki rows that are copied on write, with
//! counts, so that a snapshot is a clone of pointers, a delete copies kilobytes, and the number of
//! deleted rows below a position is found in constant time.

use std::ops::Range;
use std::sync::Arc;

use roaring::RoaringBitmap;

/// Rows of a chunk.
const CHUNK_ROWS: usize = 1 << 16;
/// Words of a chunk.
const CHUNK_WORDS: usize = CHUNK_ROWS / 64;
/// Words between two stored ranks.
const RANK_WORDS: usize = 8;

/// The bits of 64 Ki rows.
#[derive(Debug, Clone)]
struct Chunk {
    words: Box<[u64; CHUNK_WORDS]>,
    /// Set bits before every eighth word.
    ranks: Box<[u16; CHUNK_WORDS / RANK_WORDS]>,
    count: u32,
}

impl Chunk {
    fn empty() -> Self {
        Self {
            words: Box::new([0; CHUNK_WORDS]),
            ranks: Box::new([0; CHUNK_WORDS / RANK_WORDS]),
            count: 0,
        }
    }

    /// Brings ranks and count up to date with the words.
    fn recount(&mut self) {
        let mut sum = 0_u32;
        for (rank, words) in self.ranks.iter_mut().zip(self.words.chunks_exact(RANK_WORDS)) {
            // The last rank is below 65,536 less one block, so it fits.
            *rank = sum as u16;
            sum += words.iter().map(|w| w.count_ones()).sum::<u32>();
        }
        self.count = sum;
    }

    /// Set bits below `bit`, which is below [`CHUNK_ROWS`].
    fn rank(&self, bit: usize) -> u64 {
        let (word, block) = (bit / 64, bit / 64 / RANK_WORDS);
        let whole: u32 = self.words[block * RANK_WORDS..word].iter().map(|w| w.count_ones()).sum();
        let part = self.words[word] & ((1_u64 << (bit % 64)) - 1);
        u64::from(self.ranks[block]) + u64::from(whole + part.count_ones())
    }
}

/// The deleted rows of one source. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct DeleteMap {
    chunks: Vec<Option<Arc<Chunk>>>,
    /// Deleted rows before each chunk.
    before: Vec<u64>,
    count: u64,
}

impl DeleteMap {
    /// How many rows are deleted.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Whether the row at `position` is deleted.
    pub(crate) fn contains(&self, position: u32) -> bool {
        let position = position as usize;
        match self.chunks.get(position / CHUNK_ROWS) {
            Some(Some(chunk)) => {
                let bit = position % CHUNK_ROWS;
                chunk.words[bit / 64] >> (bit % 64) & 1 == 1
            }
            _ => false,
        }
    }

    /// Deleted rows below `position`.
    pub(crate) fn rank(&self, position: u64) -> u64 {
        let index = position as usize / CHUNK_ROWS;
        if index >= self.chunks.len() {
            return self.count;
        }
        let inside =
            self.chunks[index].as_ref().map_or(0, |c| c.rank(position as usize % CHUNK_ROWS));
        self.before[index] + inside
    }

    /// Deleted rows in `positions`.
    pub(crate) fn count_in(&self, positions: Range<u64>) -> u64 {
        if self.count == 0 { 0 } else { self.rank(positions.end) - self.rank(positions.start) }
    }

    /// The least position `p >= start` with `live` rows that are not deleted in `start..p`, where
    /// `start..end` has at least so many. The row before `p` is one of them (unless `live` is 0).
    pub(crate) fn skip_live(&self, start: u64, end: u64, live: u64) -> u64 {
        if self.count == 0 || live == 0 {
            return start + live;
        }
        let (mut low, mut high) = (start + live, end);
        while low < high {
            let middle = low + (high - low) / 2;
            if middle - start - self.count_in(start..middle) >= live {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        low
    }

    /// Deletes rows (ascending or not, some maybe already deleted); says how many were live.
    pub(crate) fn delete(&mut self, positions: impl IntoIterator<Item = u32>) -> u64 {
        let mut touched: Vec<usize> = Vec::new();
        for position in positions {
            let (index, bit) = (position as usize / CHUNK_ROWS, position as usize % CHUNK_ROWS);
            if index >= self.chunks.len() {
                self.chunks.resize(index + 1, None);
            }
            let chunk = self.chunks[index].get_or_insert_with(|| Arc::new(Chunk::empty()));
            Arc::make_mut(chunk).words[bit / 64] |= 1 << (bit % 64);
            if touched.last() != Some(&index) {
                touched.push(index);
            }
        }
        touched.sort_unstable();
        touched.dedup();
        for index in touched {
            if let Some(chunk) = &mut self.chunks[index] {
                Arc::make_mut(chunk).recount();
            }
        }
        let old = self.count;
        self.count = 0;
        self.before.clear();
        for chunk in &self.chunks {
            self.before.push(self.count);
            self.count += chunk.as_ref().map_or(0, |c| u64::from(c.count));
        }
        self.count - old
    }

    /// The stretches of rows in `positions` that are not deleted, in order.
    pub(crate) fn live_ranges(&self, positions: Range<u32>) -> Vec<Range<u32>> {
        if self.count_in(u64::from(positions.start)..u64::from(positions.end)) == 0 {
            return if positions.is_empty() { Vec::new() } else { vec![positions] };
        }
        let mut ranges = Vec::new();
        let mut at = positions.start;
        while at < positions.end {
            let from = self.next(at, positions.end, false);
            let to = self.next(from, positions.end, true);
            if from < to {
                ranges.push(from..to);
            }
            at = to;
        }
        ranges
    }

    /// The first position in `from..end` that is deleted (or is not); `end` where there is none.
    fn next(&self, from: u32, end: u32, deleted: bool) -> u32 {
        let mut at = from as usize;
        let end = end as usize;
        while at < end {
            let (index, bit) = (at / CHUNK_ROWS, at % CHUNK_ROWS);
            let Some(Some(chunk)) = self.chunks.get(index) else {
                if !deleted {
                    return at as u32;
                }
                at = (index + 1) * CHUNK_ROWS;
                continue;
            };
            let word = chunk.words[bit / 64];
            let wanted = (if deleted { word } else { !word }) >> (bit % 64);
            if wanted != 0 {
                return (at + wanted.trailing_zeros() as usize).min(end) as u32;
            }
            at += 64 - bit % 64;
        }
        end as u32
    }

    /// Positions deleted here and not in `older`, an earlier state of the same map.
    pub(crate) fn since(&self, older: &Self) -> Vec<u32> {
        let mut positions = Vec::new();
        for (index, chunk) in self.chunks.iter().enumerate() {
            let Some(chunk) = chunk else { continue };
            let before = older.chunks.get(index).and_then(Option::as_ref);
            if before.is_some_and(|b| Arc::ptr_eq(b, chunk)) {
                continue;
            }
            for (w, word) in chunk.words.iter().enumerate() {
                let mut new = word & !before.map_or(0, |b| b.words[w]);
                while new != 0 {
                    let bit = new.trailing_zeros() as usize;
                    positions.push((index * CHUNK_ROWS + w * 64 + bit) as u32);
                    new &= new - 1;
                }
            }
        }
        positions
    }

    /// The deleted positions as a Roaring bitmap, the form that files hold.
    pub(crate) fn to_bitmap(&self) -> RoaringBitmap {
        RoaringBitmap::from_sorted_iter(self.since(&Self::default())).unwrap_or_default()
    }

    /// The map of these positions.
    pub(crate) fn from_bitmap(bitmap: &RoaringBitmap) -> Self {
        let mut map = Self::default();
        map.delete(bitmap.iter());
        map
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_like_a_set(
            steps in prop::collection::vec(prop::collection::vec(0_u32..200_000, 0..50), 0..6),
            dense in 60_000_u32..140_000,
            at in 0_u64..200_000,
        ) {
            let mut model: BTreeSet<u32> = BTreeSet::new();
            let mut map = DeleteMap::default();
            for step in steps.iter().cloned().chain([(dense..dense + 300).collect()]) {
                let older = (map.clone(), model.clone());
                let new: BTreeSet<u32> = step.iter().copied().collect();
                let expected = new.difference(&model).count() as u64;
                prop_assert_eq!(map.delete(step), expected);
                model.extend(new);
                let added: Vec<u32> = model.difference(&older.1).copied().collect();
                prop_assert_eq!(map.since(&older.0), added);
            }
            prop_assert_eq!(map.count(), model.len() as u64);
            prop_assert_eq!(map.rank(at), model.range(..at as u32).count() as u64);
            let live: Vec<u32> = (0..200_000).filter(|p| !model.contains(p)).collect();
            let flat: Vec<u32> = map.live_ranges(0..200_000).into_iter().flatten().collect();
            prop_assert_eq!(&flat, &live);
            let start = at.min(199_000);
            let wanted = 500.min(live.iter().filter(|p| u64::from(**p) >= start).count());
            let from = live.partition_point(|p| u64::from(*p) < start);
            let expected = if wanted == 0 { start } else { u64::from(live[from + wanted - 1]) + 1 };
            prop_assert_eq!(map.skip_live(start, 200_000, wanted as u64), expected);
            let copy = DeleteMap::from_bitmap(&map.to_bitmap());
            prop_assert_eq!(copy.since(&DeleteMap::default()), map.since(&DeleteMap::default()));
        }
    }
}
