//! A walk over the keys of a range, from bound to bound: counts what lies between and reads no row.

use std::ops::{Bound, Range};

use super::plan::{Plan, first, positions};
use super::state::TableState;
use crate::engine::error::Result;
use crate::engine::key::{EncodedKey, KeyRange};
use crate::engine::segment::FilterUse;

/// Passes over the live rows of a key range in key order, many at a time. A step costs one search of each source that holds keys near.
#[derive(Debug)]
pub struct KeyWalk {
    /// What was not passed yet, the next piece last.
    rest: Plan,
    repeats: bool,
}

/// Rows ahead in a [`KeyWalk`].
#[derive(Debug)]
pub struct Ahead {
    /// How many there are.
    pub row_count: u64,
    /// The largest of their keys; `None` where there are no rows.
    pub last: Option<EncodedKey>,
    /// Pieces that lie among them wholly, and where the one after these is cut.
    whole: usize,
    cuts: Vec<u64>,
}

impl KeyWalk {
    pub(crate) fn new(table: &TableState, range: &KeyRange) -> Result<Self> {
        let mut rest = Plan::new(table, range)?;
        rest.pieces.reverse();
        Ok(Self { rest, repeats: table.shape.repeats() })
    }

    /// Live rows that were not passed yet.
    pub fn row_count(&self) -> u64 {
        self.rest.live_count
    }

    /// The first key that was not passed.
    pub fn first(&self) -> Result<Option<EncodedKey>> {
        self.nth(0)
    }

    /// The key of the `n`-th row that was not passed, counted from 0.
    pub fn nth(&self, n: u64) -> Result<Option<EncodedKey>> {
        let mut base = 0;
        for piece in self.rest.pieces.iter().rev() {
            if n - base >= piece.live_count {
                base += piece.live_count;
                continue;
            }
            let place = if n == base {
                // Keys alone decide which is the first: row ids need not be read.
                first(&piece.inputs, &positions(&piece.inputs), false)?
            } else {
                piece.select(n - base, self.repeats)?
            };
            return place.map(|p| p.key()).transpose();
        }
        Ok(None)
    }

    /// The rows before a bound: before a key that it includes, up to one that it excludes, all for `Unbounded`.
    pub fn until(&self, end: &Bound<EncodedKey>) -> Result<Ahead> {
        let mut ahead = Ahead { row_count: 0, last: None, whole: 0, cuts: Vec::new() };
        let from = KeyRange { lower: end.clone(), upper: Bound::Unbounded };
        for piece in self.rest.pieces.iter().rev() {
            let mut cuts = Vec::with_capacity(piece.inputs.len());
            let mut passed = 0;
            for input in &piece.inputs {
                let Range { start, end: limit } = input.positions;
                let cut = match end {
                    Bound::Unbounded => limit,
                    _ => input
                        .state
                        .source
                        .positions(&from, false, FilterUse::InMemory)?
                        .start
                        .clamp(start, limit),
                };
                let live = input.state.live_in(&(start..cut));
                if live > 0 {
                    let last = input.state.deleted.skip_live(start, cut, live) - 1;
                    let last = input.state.source.keys(last..last + 1)?.get(0);
                    ahead.last = ahead.last.max(Some(last));
                }
                passed += live;
                cuts.push(cut);
            }
            ahead.row_count += passed;
            if passed < piece.live_count {
                ahead.cuts = cuts;
                break;
            }
            ahead.whole += 1;
        }
        Ok(ahead)
    }

    /// Passes over rows ahead.
    pub fn pass(&mut self, ahead: &Ahead) {
        self.rest.pieces.truncate(self.rest.pieces.len() - ahead.whole);
        if let Some(piece) = self.rest.pieces.last_mut() {
            for (input, cut) in piece.inputs.iter_mut().zip(&ahead.cuts) {
                input.positions.start = *cut;
            }
            piece.live_count = piece.inputs.iter().map(|i| i.live_count()).sum();
        }
        self.rest.live_count -= ahead.row_count;
    }
}
