//! Which keys commits wrote, kept as long as an older transaction may have to be compared with them.

use std::collections::VecDeque;
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

    fn intersects(&self, other: &Self) -> Result<bool> {
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

/// What one commit wrote.
#[derive(Debug)]
struct Entry {
    seq: SeqNo,
    table: TableId,
    keys: Vec<KeySet>,
    bytes: usize,
}

/// Write sets of commits, the oldest first.
#[derive(Debug, Default)]
pub(super) struct WriteSets {
    entries: VecDeque<Entry>,
    bytes: usize,
    /// Write sets up to this commit are gone for lack of room: older transactions cannot commit.
    forgotten: SeqNo,
}

impl WriteSets {
    /// An error if a commit after `base` wrote one of `keys`.
    pub(super) fn check(&self, base: SeqNo, table: TableId, keys: &[KeySet]) -> Result<()> {
        if base < self.forgotten {
            return Err(Error::conflict(
                "the transaction is too old to be checked against what was committed since it began: retry it",
            ));
        }
        for entry in self.entries.iter().rev().take_while(|e| e.seq > base) {
            if entry.table != table {
                continue;
            }
            for theirs in &entry.keys {
                for mine in keys {
                    if mine.intersects(theirs)? {
                        return Err(Error::conflict(
                            "another transaction changed the same rows first: retry",
                        ));
                    }
                }
            }
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
        self.entries.push_back(Entry { seq, table, keys, bytes });
        while self.bytes > most {
            let Some(entry) = self.entries.pop_front() else { break };
            self.bytes -= entry.bytes;
            self.forgotten = self.forgotten.max(entry.seq);
        }
    }

    /// Forgets commits after `last`: they never reached the log.
    pub(super) fn forget_after(&mut self, last: SeqNo) {
        while self.entries.back().is_some_and(|e| e.seq > last) {
            if let Some(entry) = self.entries.pop_back() {
                self.bytes -= entry.bytes;
            }
        }
    }

    /// Forgets commits that every running transaction has seen.
    pub(super) fn prune(&mut self, seen: SeqNo) {
        while self.entries.front().is_some_and(|e| e.seq <= seen) {
            if let Some(entry) = self.entries.pop_front() {
                self.bytes -= entry.bytes;
            }
        }
    }
}
