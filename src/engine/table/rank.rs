//! Ranks: which live row is the n-th of key ranges, and where ranges are cut into equal parts. All of it is told
//! from positions, with a few searches of the index of each source; no row is read.

use std::ops::Bound;

use arrow::array::ArrayRef;

use super::RowAddress;
use super::plan::{Place, Plan};
use super::snapshot::TableSnapshot;
use super::walk::KeyWalk;
use crate::engine::error::{Error, Result};
use crate::engine::key::{EncodedKey, KeyColumn, KeyRange};

/// One of the parts that [`TableSnapshot::split`] makes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Part {
    /// Its keys: disjoint ranges, ascending, none without live rows.
    pub ranges: Vec<KeyRange>,
    /// Live rows in them.
    pub row_count: u64,
}

/// A place between two keys of a range.
struct Cut {
    /// Which range.
    range: usize,
    /// Live rows of all ranges before it.
    rank: u64,
    key: EncodedKey,
    /// Right after the key instead of before it.
    after: bool,
}

impl Cut {
    fn upper(&self) -> Bound<EncodedKey> {
        let key = self.key.clone();
        if self.after { Bound::Included(key) } else { Bound::Excluded(key) }
    }

    fn lower(&self) -> Bound<EncodedKey> {
        let key = self.key.clone();
        if self.after { Bound::Excluded(key) } else { Bound::Included(key) }
    }
}

impl TableSnapshot {
    /// The smallest live key of a range: an array of one row for each key column.
    pub fn first_key(&self, range: &KeyRange) -> Result<Option<Vec<ArrayRef>>> {
        let key = self.nth_key(range, 0)?;
        key.map(|k| self.decode(&k)).transpose()
    }

    /// The largest live key of a range: an array of one row for each key column.
    pub fn last_key(&self, range: &KeyRange) -> Result<Option<Vec<ArrayRef>>> {
        let plan = Plan::new(&self.state, range)?;
        let Some(last) = plan.live_count.checked_sub(1) else { return Ok(None) };
        let keys = self.keys_of(plan.select(&[last], self.repeats())?)?;
        keys.first().map(|k| self.decode(k)).transpose()
    }

    /// The key of the `n`-th live row of a range, counted from 0.
    pub fn nth_key(&self, range: &KeyRange, n: u64) -> Result<Option<EncodedKey>> {
        let plan = Plan::new(&self.state, range)?;
        Ok(self.keys_of(plan.select(&[n], self.repeats())?)?.pop())
    }

    /// The keys of the live rows of these ranks, counted from 0 in `ranges` (disjoint, ascending) as a whole. Ranks must ascend
    /// without repeats; those past the last row have no key. Costs O(log n) searches for each rank, or fewer.
    pub fn nth_keys(&self, ranges: &[KeyRange], ranks: &[u64]) -> Result<Vec<EncodedKey>> {
        let mut keys = Vec::with_capacity(ranks.len());
        self.each_selected(ranges, &self.starts(ranges)?, ranks, |_, places| {
            keys.extend(self.keys_of(places)?);
            Ok(())
        })?;
        Ok(keys)
    }

    /// The live rows of these ranks, as [`TableSnapshot::nth_keys`] counts them.
    pub fn nth_rows(&self, ranges: &[KeyRange], ranks: &[u64]) -> Result<Vec<RowAddress>> {
        let mut rows = Vec::with_capacity(ranks.len());
        self.each_selected(ranges, &self.starts(ranges)?, ranks, |_, places| {
            let address = |p: Place<'_>| RowAddress::new(p.input.ordinal, p.position as u32);
            rows.extend(places.into_iter().map(address));
            Ok(())
        })?;
        Ok(rows)
    }

    /// A walk over the keys of a range.
    pub fn walk(&self, range: &KeyRange) -> Result<KeyWalk> {
        KeyWalk::new(&self.state, range)
    }

    /// Cuts ranges (disjoint, ascending) into at most `parts` parts in key order, each with at least one live row; none where there
    /// is no row.
    ///
    /// Rows with one key stay together. Where keys are unique the parts' numbers of rows differ by one at most; elsewhere each cut
    /// is the boundary between two keys that is nearest to the equal share, and cuts that fall together are one. Costs O(log n) searches of
    /// each source for each part.
    pub fn split(&self, ranges: &[KeyRange], parts: usize) -> Result<Vec<Part>> {
        let starts = self.starts(ranges)?;
        let total = starts[ranges.len()];
        if total == 0 {
            return Ok(Vec::new());
        }
        let count = (parts.max(1) as u64).min(total);
        let share = |i| (u128::from(total) * u128::from(i) / u128::from(count)) as u64;
        let ranks: Vec<u64> = (1..count).map(share).collect();
        let mut wanted = ranks.iter();
        let mut cuts: Vec<Cut> = Vec::with_capacity(ranks.len());
        self.each_selected(ranges, &starts, &ranks, |range, places| {
            for (key, rank) in self.keys_of(places)?.into_iter().zip(&mut wanted) {
                let cut = self.nearest_cut(ranges, &starts, range, *rank, key)?;
                let last = cuts.last().map_or(0, |c| c.rank);
                if last < cut.rank && cut.rank < total {
                    cuts.push(cut);
                }
            }
            Ok(())
        })?;
        Ok(parts_between(ranges, &starts, cuts))
    }

    fn repeats(&self) -> bool {
        self.state.shape.repeats()
    }

    fn decode(&self, key: &EncodedKey) -> Result<Vec<ArrayRef>> {
        self.codec().decode(&KeyColumn::from(key))
    }

    fn keys_of(&self, places: Vec<Place<'_>>) -> Result<Vec<EncodedKey>> {
        places.iter().map(Place::key).collect()
    }

    /// Live rows of all ranges before each, and of all at the end.
    fn starts(&self, ranges: &[KeyRange]) -> Result<Vec<u64>> {
        let mut starts = Vec::with_capacity(ranges.len() + 1);
        let mut total = 0;
        for range in ranges {
            starts.push(total);
            total += self.count(range)?;
        }
        starts.push(total);
        Ok(starts)
    }

    /// Gives `take` the rows of ranks, range by range.
    fn each_selected(
        &self,
        ranges: &[KeyRange],
        starts: &[u64],
        ranks: &[u64],
        mut take: impl FnMut(usize, Vec<Place<'_>>) -> Result<()>,
    ) -> Result<()> {
        if !ranks.is_sorted_by(|a, b| a < b) {
            return Err(Error::invalid("ranks must ascend without repeats"));
        }
        let mut rest = ranks;
        while let Some(rank) = rest.first() {
            // The last range that begins at this rank or before; empty ones begin where the next does.
            let range = starts.partition_point(|start| start <= rank) - 1;
            if range == ranges.len() {
                break;
            }
            let (inside, after) =
                rest.split_at(rest.partition_point(|rank| *rank < starts[range + 1]));
            let within: Vec<u64> = inside.iter().map(|rank| rank - starts[range]).collect();
            let plan = Plan::new(&self.state, &ranges[range])?;
            take(range, plan.select(&within, self.repeats())?)?;
            rest = after;
        }
        Ok(())
    }

    /// The boundary between keys that is nearest to the row of a rank, which has `key`.
    fn nearest_cut(
        &self,
        ranges: &[KeyRange],
        starts: &[u64],
        range: usize,
        rank: u64,
        key: EncodedKey,
    ) -> Result<Cut> {
        if !self.repeats() {
            return Ok(Cut { range, rank, key, after: false });
        }
        let lower = ranges[range].lower.clone();
        let before = KeyRange { lower, upper: Bound::Excluded(key.clone()) };
        let first = starts[range] + self.count(&before)?;
        let end = first + self.count(&KeyRange::point(key.clone()))?;
        let after = end - rank < rank - first;
        Ok(Cut { range, rank: if after { end } else { first }, key, after })
    }
}

/// What lies between cuts, which ascend.
fn parts_between(ranges: &[KeyRange], starts: &[u64], cuts: Vec<Cut>) -> Vec<Part> {
    let mut parts = Vec::with_capacity(cuts.len() + 1);
    let mut part = Part::default();
    let mut at = 0;
    let mut cuts = cuts.into_iter().peekable();
    for (i, range) in ranges.iter().enumerate() {
        let mut add = |part: &mut Part, lower: &Bound<EncodedKey>, upper, rank: u64| {
            if rank > at {
                part.ranges.push(KeyRange { lower: lower.clone(), upper });
                part.row_count += rank - at;
                at = rank;
            }
        };
        let mut lower = range.lower.clone();
        while let Some(cut) = cuts.next_if(|cut| cut.range == i) {
            add(&mut part, &lower, cut.upper(), cut.rank);
            parts.push(std::mem::take(&mut part));
            lower = cut.lower();
        }
        add(&mut part, &lower, range.upper.clone(), starts[i + 1]);
    }
    parts.push(part);
    parts
}
