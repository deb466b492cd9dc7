//! Finds the live rows of keys: one batched search of the index for each source whose keys may hold them.

use std::ops::Bound;

use super::source::SourceState;
use super::state::TableState;
use crate::engine::error::Result;
use crate::engine::key::{EncodedKey, KeyColumn, KeyRange};

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
        let (positions, found) = state.source.find(part)?;
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

impl TableState {
    /// [`find_live`] in all sources of the table.
    pub(crate) fn find_live(&self, keys: &KeyColumn) -> Result<Vec<Found>> {
        let (Some(first), Some(last)) = (keys.first(), keys.last()) else { return Ok(Vec::new()) };
        let range = KeyRange { lower: Bound::Included(first), upper: Bound::Included(last) };
        find_live(self.sources_within(&range), keys, self.shape.repeats())
    }

    /// The live row of a key of which there is one at most: the ordinal of its source and its position there.
    pub(crate) fn find_unique(&self, key: &EncodedKey) -> Result<Option<(u32, u32)>> {
        let near = self.segments.at(key);
        let segments = (near.start as u32..).zip(&self.segments[near]);
        let runs = self.memtables.iter().flat_map(|m| m.runs.iter());
        for (ordinal, state) in segments.chain((self.segments.len() as u32..).zip(runs)) {
            let (position, found) = state.source.find_key(key)?;
            // At most one source has a live row of the key; others may have deleted ones.
            if found && !state.deleted.contains(position as u32) {
                return Ok(Some((ordinal, position as u32)));
            }
        }
        Ok(None)
    }
}
