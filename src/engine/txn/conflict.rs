//! Which keys commits wrote, kept as long as an older transaction may have to be compared with them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::engine::error::{Error, Result};
use crate::engine::id::{SeqNo, TableId};
use crate::engine::key::{EncodedKey, KeyColumn};
use crate::engine::segment::FilterUse;
use crate::engine::table::{Source, SourceState};

/// Keys looked up at once.
const PROBE_ROWS: u64 = 64 * 1024;

/// Sorted keys that a commit inserted or deleted in a table with a unique key.
#[derive(Debug, Clone)]
pub(super) enum KeySet {
    Keys(Arc<KeyColumn>),
    /// A load's key set is its index.
    Segment(SourceState),
}

impl KeySet {
    fn len(&self) -> u64 {
        match self {
            Self::Keys(k) => k.len() as u64,
            Self::Segment(s) => s.source.len(),
        }
    }

    fn bounds(&self) -> (EncodedKey, EncodedKey) {
        match self {
            Self::Keys(k) => (k.get(0), k.get(k.len() - 1)),
            Self::Segment(s) => (s.source.min_key(), s.source.max_key()),
        }
    }

    fn keys(&self, start: u64, end: u64) -> Result<KeyColumn> {
        match self {
            Self::Keys(k) => Ok(k.slice(start as usize, (end - start) as usize)),
            Self::Segment(s) => s.source.keys(start..end),
        }
    }

    /// Whether one of sorted `keys` is in the set.
    fn has_any(&self, keys: &KeyColumn) -> Result<bool> {
        match self {
            Self::Segment(s) => Ok(s.source.find(keys, FilterUse::Read)?.1.contains(&true)),
            Self::Keys(mine) => Ok((0..keys.len()).any(|i| {
                let key = keys.get(i);
                let at = mine.lower_bound(&key);
                at < mine.len() && mine.get(at) == key
            })),
        }
    }

    pub(super) fn intersects(&self, other: &Self) -> Result<bool> {
        let (min, max) = self.bounds();
        let (other_min, other_max) = other.bounds();
        if min > other_max || max < other_min {
            return Ok(false);
        }
        // The smaller set is looked up in the larger.
        let (small, large) = if self.len() <= other.len() { (self, other) } else { (other, self) };
        let (mut start, len) = (0, small.len());
        while start < len {
            let end = (start + PROBE_ROWS).min(len);
            if large.has_any(&small.keys(start, end)?)? {
                return Ok(true);
            }
            start = end;
        }
        Ok(false)
    }

    fn memory_bytes(&self) -> usize {
        match self {
            Self::Keys(k) => k.memory_bytes(),
            Self::Segment(s) => match &s.source {
                Source::Segment(_) => 128,
                Source::Run(r) => r.memory_bytes(),
            },
        }
    }
}

/// An error if two write sets have a key in common.
pub(super) fn check_apart(mine: &[KeySet], theirs: &[KeySet]) -> Result<()> {
    for theirs in theirs {
        for mine in mine {
            if mine.intersects(theirs)? {
                return Err(Error::conflict(
                    "another transaction changed the same rows first: retry",
                ));
            }
        }
    }
    Ok(())
}

/// What one commit wrote in a table.
#[derive(Debug)]
struct Entry {
    seq: SeqNo,
    keys: Vec<KeySet>,
    bytes: usize,
}

/// What commits wrote in one table, the oldest first.
#[derive(Debug, Default)]
struct TableSets {
    entries: VecDeque<Entry>,
    bytes: usize,
}

impl TableSets {
    fn pop_front(&mut self) -> Option<Entry> {
        let entry = self.entries.pop_front()?;
        self.bytes -= entry.bytes;
        Some(entry)
    }
}

/// Write sets of commits, by table: what one table takes is no other's loss, as long as it takes the most.
#[derive(Debug, Default)]
pub(super) struct WriteSets {
    tables: HashMap<TableId, TableSets>,
    bytes: usize,
    /// Write sets of a table up to this commit are gone for lack of room: older transactions that write keys of it cannot commit.
    forgotten: HashMap<TableId, SeqNo>,
    /// Counts how often commits were taken back: their numbers are given out again.
    era: u64,
}

impl WriteSets {
    /// Changes when numbers of commits get another meaning.
    pub(super) fn era(&self) -> u64 {
        self.era
    }

    /// What commits after `base` wrote in a table, to be compared without the lock.
    pub(super) fn since(&self, base: SeqNo, table: TableId) -> Result<Vec<KeySet>> {
        self.check_remembered(base, table)?;
        let Some(sets) = self.tables.get(&table) else { return Ok(Vec::new()) };
        let newer = sets.entries.iter().rev().take_while(|e| e.seq > base);
        Ok(newer.flat_map(|e| e.keys.iter().cloned()).collect())
    }

    fn check_remembered(&self, base: SeqNo, table: TableId) -> Result<()> {
        if self.forgotten.get(&table).is_some_and(|forgotten| base < *forgotten) {
            return Err(Error::conflict(
                "the transaction is too old to be checked against what was committed since it began: retry it",
            ));
        }
        Ok(())
    }

    /// An error if a commit after `base` wrote one of `keys`.
    pub(super) fn check(&self, base: SeqNo, table: TableId, keys: &[KeySet]) -> Result<()> {
        if keys.is_empty() {
            return Ok(());
        }
        self.check_remembered(base, table)?;
        let Some(sets) = self.tables.get(&table) else { return Ok(()) };
        for entry in sets.entries.iter().rev().take_while(|e| e.seq > base) {
            check_apart(keys, &entry.keys)?;
        }
        Ok(())
    }

    /// Keeps what a commit wrote.
    pub(super) fn push(&mut self, seq: SeqNo, table: TableId, keys: Vec<KeySet>, most: usize) {
        if keys.is_empty() {
            return;
        }
        let bytes = keys.iter().map(KeySet::memory_bytes).sum();
        self.bytes += bytes;
        let sets = self.tables.entry(table).or_default();
        sets.bytes += bytes;
        sets.entries.push_back(Entry { seq, keys, bytes });
        while self.bytes > most {
            let largest = self.tables.iter_mut().max_by_key(|(_, sets)| sets.bytes);
            let Some((table, sets)) = largest else { break };
            let Some(entry) = sets.pop_front() else { break };
            self.bytes -= entry.bytes;
            let forgotten = self.forgotten.entry(*table).or_default();
            *forgotten = entry.seq.max(*forgotten);
        }
    }

    /// Forgets commits after `last`: they never reached the log.
    pub(super) fn forget_after(&mut self, last: SeqNo) {
        self.era += 1;
        for sets in self.tables.values_mut() {
            while let Some(entry) = sets.entries.pop_back_if(|e| e.seq > last) {
                sets.bytes -= entry.bytes;
                self.bytes -= entry.bytes;
            }
        }
    }

    /// Forgets commits that every running transaction has seen.
    pub(super) fn prune(&mut self, seen: SeqNo) {
        let bytes = &mut self.bytes;
        self.tables.retain(|_, sets| {
            while sets.entries.front().is_some_and(|e| e.seq <= seen) {
                *bytes -= sets.pop_front().map_or(0, |e| e.bytes);
            }
            !sets.entries.is_empty()
        });
        self.forgotten.retain(|_, forgotten| *forgotten > seen);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: TableId = TableId(1);
    const LARGE: TableId = TableId(2);

    fn keys(keys: std::ops::Range<u64>) -> Vec<KeySet> {
        vec![KeySet::Keys(Arc::new(KeyColumn::U64(keys.collect())))]
    }

    #[test]
    fn a_table_that_takes_much_forgets_its_own() {
        let mut sets = WriteSets::default();
        sets.push(SeqNo(1), SMALL, keys(0..10), 10_000);
        for seq in 2..20 {
            sets.push(SeqNo(seq), LARGE, keys(0..500), 10_000);
        }
        assert!(sets.check(SeqNo(0), SMALL, &keys(20..30)).is_ok());
        assert!(sets.check(SeqNo(0), SMALL, &keys(9..30)).is_err());
        assert!(sets.check(SeqNo(0), LARGE, &keys(900..901)).is_err(), "too old to tell");
        assert!(sets.check(SeqNo(18), LARGE, &keys(900..901)).is_ok());
        assert!(sets.check(SeqNo(0), LARGE, &[]).is_ok(), "it wrote no key");
        sets.forget_after(SeqNo(18));
        assert!(sets.check(SeqNo(18), LARGE, &keys(0..1)).is_ok());
        sets.prune(SeqNo(30));
        assert!(sets.check(SeqNo(0), LARGE, &keys(0..1)).is_ok());
        assert_eq!(sets.bytes, 0);
    }
}
