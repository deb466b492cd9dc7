//! From a key range to positions: which stretches of which sources hold it, in key order.

use std::ops::Range;

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
        let filters = table.segments.filter_use();
        for (ordinal, state) in table.sources_within(range) {
            if state.live_count() == 0 {
                continue;
            }
            let positions = state.source.positions(range, unique, filters)?;
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

    /// The live rows of these ranks, which ascend without repeats: where they lie. Those past the last row have none.
    pub(crate) fn select(&self, ranks: &[u64], repeats: bool) -> Result<Vec<Place<'_>>> {
        let mut places = Vec::with_capacity(ranks.len());
        let (mut rest, mut base) = (ranks, 0);
        for piece in &self.pieces {
            let end = base + piece.live_count;
            let (inside, after) = rest.split_at(rest.partition_point(|rank| *rank < end));
            if !inside.is_empty() {
                select(
                    &piece.inputs,
                    &positions(&piece.inputs),
                    base,
                    inside,
                    repeats,
                    &mut places,
                )?;
            }
            (rest, base) = (after, end);
        }
        Ok(places)
    }
}

/// Where a row lies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) input: &'a Input,
    pub(crate) position: u64,
}

impl Place<'_> {
    /// The key of the row.
    pub(crate) fn key(&self) -> Result<EncodedKey> {
        Ok(self.input.key_at(self.position, false)?.0)
    }
}

pub(super) fn positions(inputs: &[Input]) -> Vec<Range<u64>> {
    inputs.iter().map(|i| i.positions.clone()).collect()
}

/// The rows of `ranks`, counted from `base`, among the live rows of overlapping inputs. The middle rank divides the inputs for
/// the ranks on either side of it, so that many ranks cost little more than a few searches each.
fn select<'a>(
    inputs: &'a [Input],
    within: &[Range<u64>],
    base: u64,
    ranks: &[u64],
    repeats: bool,
    places: &mut Vec<Place<'a>>,
) -> Result<()> {
    if let ([input], [range]) = (inputs, within) {
        let (mut start, mut passed) = (range.start, base);
        for rank in ranks {
            start = input.state.deleted.skip_live(start, range.end, rank - passed + 1);
            passed = rank + 1;
            places.push(Place { input, position: start - 1 });
        }
        return Ok(());
    }
    let (before, after) = ranks.split_at(ranks.len() / 2);
    let Some((rank, after)) = after.split_first() else { return Ok(()) };
    let cuts = split_at_rank(inputs, within, rank - base, repeats)?;
    let cut = |side: fn(&Range<u64>, u64) -> Range<u64>| -> Vec<Range<u64>> {
        within.iter().zip(&cuts).map(|(w, c)| side(w, *c)).collect()
    };
    select(inputs, &cut(|w, c| w.start..c), base, before, repeats, places)?;
    let rest = cut(|w, c| c..w.end);
    places.extend(first(inputs, &rest, repeats)?);
    select(inputs, &rest, *rank, after, repeats, places)
}

/// The first live row of overlapping inputs; of equal keys any, unless they are told apart where keys repeat.
pub(super) fn first<'a>(
    inputs: &'a [Input],
    within: &[Range<u64>],
    repeats: bool,
) -> Result<Option<Place<'a>>> {
    let mut least = None;
    for (input, rest) in inputs.iter().zip(within) {
        if input.state.live_in(rest) == 0 {
            continue;
        }
        let position = input.state.deleted.skip_live(rest.start, rest.end, 1) - 1;
        let key = input.key_at(position, repeats)?;
        if least.as_ref().is_none_or(|(l, _)| key < *l) {
            least = Some((key, Place { input, position }));
        }
    }
    Ok(least.map(|(_, place)| place))
}

impl Piece {
    /// Where the live row of a rank lies.
    pub(super) fn select(&self, rank: u64, repeats: bool) -> Result<Option<Place<'_>>> {
        let mut places = Vec::with_capacity(1);
        select(&self.inputs, &positions(&self.inputs), 0, &[rank], repeats, &mut places)?;
        Ok(places.pop())
    }

    /// Keeps only the live rows with ranks `from..to`.
    fn window(&mut self, from: u64, to: u64, repeats: bool) -> Result<()> {
        let within = positions(&self.inputs);
        let starts = split_at_rank(&self.inputs, &within, from, repeats)?;
        let ends = split_at_rank(&self.inputs, &within, to, repeats)?;
        for (input, (start, end)) in self.inputs.iter_mut().zip(starts.into_iter().zip(ends)) {
            input.positions = start..end.max(start);
        }
        self.live_count = to - from;
        Ok(())
    }
}
