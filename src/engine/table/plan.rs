//! From a key range to positions: which stretches of which sources hold it, in key order.

use super::merge::{Input, split_at_rank};
use super::state::TableState;
use crate::engine::error::Result;
use crate::engine::key::{EncodedKey, KeyRange};

/// Inputs whose keys overlap; pieces of a plan do not.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    pub(crate) inputs: Vec<Input>,
    pub(crate) live_count: u64,
}

/// What a key range is made of: pieces in key order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Plan {
    pub(crate) pieces: Vec<Piece>,
    pub(crate) live_count: u64,
}

impl Plan {
    /// The plan for a key range: a few searches of the index, no row is read.
    pub(crate) fn new(table: &TableState, range: &KeyRange) -> Result<Self> {
        let mut found: Vec<(EncodedKey, EncodedKey, Input)> = Vec::new();
        let unique = !table.shape.repeats();
        for (ordinal, state) in table.sources_within(range) {
            if state.live_count() == 0 {
                continue;
            }
            let positions = state.source.positions(range, unique)?;
            if state.live_in(&positions) > 0 {
                let input = Input { state: state.clone(), ordinal, positions };
                found.push((state.source.min_key(), state.source.max_key(), input));
            }
        }
        found.sort_by(|a, b| a.0.cmp(&b.0));
        let mut plan = Self::default();
        let mut reach: Option<EncodedKey> = None;
        for (min, max, input) in found {
            let live = input.live_count();
            plan.live_count += live;
            match (plan.pieces.last_mut(), &mut reach) {
                (Some(piece), Some(reach)) if min <= *reach => {
                    piece.inputs.push(input);
                    piece.live_count += live;
                    if max > *reach {
                        *reach = max;
                    }
                }
                _ => {
                    plan.pieces.push(Piece { inputs: vec![input], live_count: live });
                    reach = Some(max);
                }
            }
        }
        Ok(plan)
    }

    /// Keeps only the live rows with ranks `offset..offset + limit`.
    pub(crate) fn window(&mut self, offset: u64, limit: u64, repeats: bool) -> Result<()> {
        let end = offset.saturating_add(limit).min(self.live_count);
        let mut rank = 0;
        let mut kept = Vec::new();
        for mut piece in std::mem::take(&mut self.pieces) {
            let (first, last) = (rank, rank + piece.live_count);
            rank = last;
            if last <= offset || first >= end || offset >= end {
                continue;
            }
            if first < offset || last > end {
                piece.window(offset.saturating_sub(first), end.min(last) - first, repeats)?;
            }
            kept.push(piece);
        }
        self.live_count = kept.iter().map(|p| p.live_count).sum();
        self.pieces = kept;
        Ok(())
    }

    /// The piece that holds the live row of a rank, and its rank there.
    pub(crate) fn piece_of(&self, mut rank: u64) -> Option<(&Piece, u64)> {
        for piece in &self.pieces {
            if rank < piece.live_count {
                return Some((piece, rank));
            }
            rank -= piece.live_count;
        }
        None
    }
}

impl Piece {
    /// Keeps only the live rows with ranks `from..to`.
    fn window(&mut self, from: u64, to: u64, repeats: bool) -> Result<()> {
        let starts = split_at_rank(&self.inputs, from, repeats)?;
        let ends = split_at_rank(&self.inputs, to, repeats)?;
        for (input, (start, end)) in self.inputs.iter_mut().zip(starts.into_iter().zip(ends)) {
            input.positions = start..end.max(start);
        }
        self.live_count = to - from;
        Ok(())
    }

    /// The key of the live row of a rank.
    pub(crate) fn key_at(&self, rank: u64, repeats: bool) -> Result<Option<EncodedKey>> {
        let starts = split_at_rank(&self.inputs, rank, repeats)?;
        let mut least: Option<EncodedKey> = None;
        for (input, start) in self.inputs.iter().zip(starts) {
            // The first live row at or after the cut.
            let rest = start..input.positions.end;
            if input.state.live_in(&rest) == 0 {
                continue;
            }
            let at = input.state.deleted.skip_live(rest.start, rest.end, 1) - 1;
            let key = input.state.source.keys(at..at + 1)?.get(0);
            if least.as_ref().is_none_or(|l| key < *l) {
                least = Some(key);
            }
        }
        Ok(least)
    }
}
