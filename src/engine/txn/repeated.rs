//! Finds keys that several sorted runs share, by a merge of their keys alone: probing every run's index for every key would
//! cost a search for each pair of runs.

use std::ops::Range;

use crate::engine::error::Result;
use crate::engine::key::{EncodedKey, KeyColumn};
use crate::engine::table::SourceState;

/// Keys taken from a run at once, at most.
const MERGE_KEYS: u64 = 32 * 1024;

/// Positions of a segment of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) run: usize,
    pub(super) segment: usize,
    pub(super) positions: Range<u64>,
}

/// The parts of the key domain in which a key occurs in more than one of the runs (whose own keys are distinct): for each part
/// where it lies in the runs, in the order of these.
pub(super) fn parts(runs: &[Vec<SourceState>]) -> Result<Vec<Vec<Piece>>> {
    let mut cursors: Vec<Cursor> =
        (0..runs.len()).map(|run| Cursor::new(run, &runs[run])).collect();
    let mut found = Vec::new();
    loop {
        // All keys up to the least of the runs' farthest ones: at most so many of each run.
        let mut bound: Option<EncodedKey> = None;
        for cursor in &cursors {
            if let Some(key) = cursor.farthest()?
                && bound.as_ref().is_none_or(|b| key < *b)
            {
                bound = Some(key);
            }
        }
        let Some(bound) = bound else { return Ok(found) };
        let mut part = Vec::new();
        for cursor in &mut cursors {
            cursor.take_through(&bound, &mut part)?;
        }
        if part.iter().any(|piece: &Piece| piece.run != part[0].run) && repeats(runs, &part)? {
            found.push(part);
        }
    }
}

/// Whether a key occurs twice in a part.
fn repeats(runs: &[Vec<SourceState>], part: &[Piece]) -> Result<bool> {
    let keys = part
        .iter()
        .map(|p| runs[p.run][p.segment].source.keys(p.positions.clone()))
        .collect::<Result<Vec<_>>>()?;
    let all = KeyColumn::concat(&keys.iter().collect::<Vec<_>>())?;
    // A stable sort takes the pieces, which are sorted, as they are and merges them.
    Ok(match all {
        KeyColumn::U64(mut keys) => {
            keys.sort();
            keys.windows(2).any(|w| w[0] == w[1])
        }
        KeyColumn::U128(mut keys) => {
            keys.sort();
            keys.windows(2).any(|w| w[0] == w[1])
        }
        KeyColumn::Bytes(keys) => {
            let mut keys: Vec<&[u8]> = keys.iter().flatten().collect();
            keys.sort();
            keys.windows(2).any(|w| w[0] == w[1])
        }
    })
}

/// How far a run was merged.
struct Cursor<'a> {
    run: usize,
    segments: &'a [SourceState],
    segment: usize,
    position: u64,
}

impl<'a> Cursor<'a> {
    fn new(run: usize, segments: &'a [SourceState]) -> Self {
        Self { run, segments, segment: 0, position: 0 }
    }

    /// The last of the keys that may be taken at once.
    fn farthest(&self) -> Result<Option<EncodedKey>> {
        let Some(segment) = self.segments.get(self.segment) else { return Ok(None) };
        let last = (self.position + MERGE_KEYS).min(segment.source.len()) - 1;
        Ok(Some(segment.source.keys(last..last + 1)?.get(0)))
    }

    /// Moves on past all keys up to `bound`.
    fn take_through(&mut self, bound: &EncodedKey, part: &mut Vec<Piece>) -> Result<()> {
        while let Some(segment) = self.segments.get(self.segment) {
            let len = segment.source.len();
            let end = if segment.source.max_key() <= *bound {
                len
            } else {
                segment.source.upper_bound(bound)?
            };
            if end > self.position {
                let positions = self.position..end;
                part.push(Piece { run: self.run, segment: self.segment, positions });
            }
            if end < len {
                self.position = end.max(self.position);
                return Ok(());
            }
            (self.segment, self.position) = (self.segment + 1, 0);
        }
        Ok(())
    }
}
