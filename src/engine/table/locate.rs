//! Finds the live rows of keys: one batched search of the index for each source whose keys may hold them.

use std::ops::Bound;

use super::RowAddress;
use super::segments::Number;
use super::source::SourceState;
use super::state::TableState;
use crate::engine::error::Result;
use crate::engine::key::{EncodedKey, KeyColumn, KeyRange};
use crate::engine::segment::FilterUse;

/// Keys that are looked up together: few enough that what belongs to them stays in the nearest caches.
const CHUNK_KEYS: usize = 4096;

/// A live row that has one of the keys looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    /// Which of the keys.
    pub(crate) key: u32,
    /// The ordinal of its source.
    pub(crate) ordinal: u32,
    /// Its position there.
    pub(crate) position: u32,
}

/// Finds the live rows of `keys`, which are sorted and lie in `sources`: at most one for each key and source (the first,
/// where keys repeat), in no order. Where keys are unique at most one source has a live row of a key.
pub(crate) fn find_live<'a>(
    sources: impl Iterator<Item = (u32, &'a SourceState)>,
    keys: &KeyColumn,
    repeats: bool,
    filters: FilterUse,
) -> Result<Vec<Found>> {
    let mut all = Vec::new();
    if keys.is_empty() {
        return Ok(all);
    }
    for (ordinal, state) in sources {
        if state.live_count() == 0 {
            continue;
        }
        // Keys beyond the source's first and last are none of its: a load above all that is there
        // touches nothing.
        let from = keys.lower_bound(&state.source.min_key());
        let to = keys.upper_bound(&state.source.max_key());
        if from >= to {
            continue;
        }
        let inside;
        let part = if from == 0 && to == keys.len() {
            keys
        } else {
            inside = keys.slice(from, to - from);
            &inside
        };
        let (positions, found) = state.source.find(part, filters)?;
        for (i, (position, found)) in positions.into_iter().zip(found).enumerate() {
            if !found {
                continue;
            }
            let key = (from + i) as u32;
            if !state.deleted.contains(position) {
                all.push(Found { key, ordinal, position });
            } else if repeats {
                // The first of several equal keys is deleted; another may live.
                let end = state.source.upper_bound(&part.get(i))?;
                let live = state.deleted.live_ranges(position..end as u32);
                if let Some(first) = live.first() {
                    all.push(Found { key, ordinal, position: first.start });
                }
            }
        }
    }
    Ok(all)
}

/// Looks in one segment for some of the keys.
fn find_group<K: Number>(
    state: &SourceState,
    ordinal: u32,
    keys: &[K],
    group: &[u32],
    filters: FilterUse,
    rows: &mut [Option<RowAddress>],
) -> Result<()> {
    if group.is_empty() {
        return Ok(());
    }
    let wanted = K::column(group.iter().map(|i| keys[*i as usize]).collect());
    let (positions, found) = state.source.find(&wanted, filters)?;
    for ((i, position), found) in group.iter().zip(positions).zip(found) {
        if found && !state.deleted.contains(position) {
            rows[*i as usize] = Some(RowAddress::new(ordinal, position));
        }
    }
    Ok(())
}

impl TableState {
    /// The live row of each key, where no two rows have one: keys in any order. They are shared out to the segments
    /// that can hold them, which search for many at once; those that no segment has are looked up in the memtables.
    pub(crate) fn find_each(&self, keys: &KeyColumn) -> Result<Vec<Option<RowAddress>>> {
        let mut rows = vec![None; keys.len()];
        let filters = self.segments.filter_use();
        match keys {
            KeyColumn::U64(keys) => self.find_numbers(keys, filters, &mut rows)?,
            KeyColumn::U128(keys) => self.find_numbers(keys, filters, &mut rows)?,
            KeyColumn::Bytes(_) => {
                for start in (0..keys.len()).step_by(CHUNK_KEYS) {
                    let chunk = keys.slice(start, CHUNK_KEYS.min(keys.len() - start));
                    let order = chunk.sort_indices();
                    for found in self.find_live(&chunk.take(&order)?, filters)? {
                        let at = start + order[found.key as usize] as usize;
                        rows[at] = Some(RowAddress::new(found.ordinal, found.position));
                    }
                }
            }
        }
        Ok(rows)
    }

    fn find_numbers<K: Number>(
        &self,
        keys: &[K],
        filters: FilterUse,
        rows: &mut [Option<RowAddress>],
    ) -> Result<()> {
        let mut groups: Vec<Vec<u32>> = Vec::new();
        let disjoint = K::ends(&self.segments).filter(|ends| ends.are_disjoint());
        for (keys, rows) in keys.chunks(CHUNK_KEYS).zip(rows.chunks_mut(CHUNK_KEYS)) {
            if let Some(ends) = disjoint {
                groups.resize_with(self.segments.len(), Vec::new);
                for (i, key) in (0_u32..).zip(keys) {
                    if let Some(at) = ends.only(key) {
                        groups[at].push(i);
                    }
                }
                for (ordinal, group) in (0_u32..).zip(&mut groups) {
                    if !group.is_empty() {
                        let state = &self.segments[ordinal as usize];
                        find_group(state, ordinal, keys, group, filters, rows)?;
                        group.clear();
                    }
                }
            } else {
                for (ordinal, state) in (0_u32..).zip(self.segments.iter()) {
                    let source = &state.source;
                    let ends = (K::of(source.min_key()), K::of(source.max_key()));
                    let ((Some(min), Some(max)), true) = (ends, state.live_count() > 0) else {
                        continue;
                    };
                    let near = (0_u32..).zip(keys.iter().zip(&*rows));
                    let group: Vec<u32> = near
                        .filter(|(_, (key, row))| row.is_none() && min <= **key && **key <= max)
                        .map(|(i, _)| i)
                        .collect();
                    find_group(state, ordinal, keys, &group, filters, rows)?;
                }
            }
            self.find_in_runs(keys, rows)?;
        }
        Ok(())
    }

    /// Looks in the memtables for the keys that have no row yet.
    fn find_in_runs<K: Number>(&self, keys: &[K], rows: &mut [Option<RowAddress>]) -> Result<()> {
        let runs = || self.memtables.iter().flat_map(|m| m.runs.iter());
        if runs().next().is_none() {
            return Ok(());
        }
        let missing = (0_u32..).zip(&*rows).filter(|(_, row)| row.is_none());
        let mut missing: Vec<(K, u32)> = missing.map(|(i, _)| (keys[i as usize], i)).collect();
        missing.sort_unstable();
        let sorted = K::column(missing.iter().map(|(key, _)| *key).collect());
        let first = self.segments.len() as u32;
        for found in find_live((first..).zip(runs()), &sorted, false, FilterUse::InMemory)? {
            let at = missing[found.key as usize].1 as usize;
            rows[at] = Some(RowAddress::new(found.ordinal, found.position));
        }
        Ok(())
    }

    /// All live rows that have one of `keys`, which are sorted: each once.
    pub(crate) fn find_rows(&self, keys: &KeyColumn) -> Result<Vec<RowAddress>> {
        let (Some(first), Some(last)) = (keys.first(), keys.last()) else { return Ok(Vec::new()) };
        let keys = keys.take(&keys.last_of_runs())?;
        let range = KeyRange { lower: Bound::Included(first), upper: Bound::Included(last) };
        let filters = self.segments.filter_use();
        let mut rows = Vec::new();
        for (ordinal, state) in self.sources_within(&range) {
            let from = keys.lower_bound(&state.source.min_key());
            let to = keys.upper_bound(&state.source.max_key());
            if from >= to || state.live_count() == 0 {
                continue;
            }
            let keys = keys.slice(from, to - from);
            let (positions, found) = state.source.find(&keys, filters)?;
            for (i, position) in positions.into_iter().enumerate().filter(|(i, _)| found[*i]) {
                let end = state.source.upper_bound(&keys.get(i))?;
                for live in state.deleted.live_ranges(position..end as u32) {
                    rows.extend(live.map(|position| RowAddress::new(ordinal, position)));
                }
            }
        }
        Ok(rows)
    }

    /// [`find_live`] in all sources of the table.
    pub(crate) fn find_live(&self, keys: &KeyColumn, filters: FilterUse) -> Result<Vec<Found>> {
        let (Some(first), Some(last)) = (keys.first(), keys.last()) else { return Ok(Vec::new()) };
        let range = KeyRange { lower: Bound::Included(first), upper: Bound::Included(last) };
        find_live(self.sources_within(&range), keys, self.shape.repeats(), filters)
    }

    /// The live row of a key of which there is one at most: the ordinal of its source and its position there.
    pub(crate) fn find_unique(&self, key: &EncodedKey) -> Result<Option<(u32, u32)>> {
        let near = self.segments.at(key);
        let filters = if near.len() > 1 { FilterUse::Read } else { FilterUse::InMemory };
        let segments = (near.start as u32..).zip(&self.segments[near]);
        let runs = self.memtables.iter().flat_map(|m| m.runs.iter());
        for (ordinal, state) in segments.chain((self.segments.len() as u32..).zip(runs)) {
            // At most one source has a live row of the key; others may have deleted ones.
            if let Some(position) = state.source.find_key(key, filters)?
                && !state.deleted.contains(position as u32)
            {
                return Ok(Some((ordinal, position as u32)));
            }
        }
        Ok(None)
    }
}
