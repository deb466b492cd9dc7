//! Carries a statement's writes out on a table's state: deletes, then new rows against unique keys.

use std::collections::BTreeMap;

use super::OnConflict;
use super::write::{Gathered, Sorted, Write, WriteResult, duplicate};
use crate::engine::error::{Error, Result};
use crate::engine::id::SeqNo;
use crate::engine::key::KeyColumn;
use crate::engine::schema::KeyKind;
use crate::engine::segment::FilterUse;
use crate::engine::table::{Found, Source, SourceId, SourceState, TableState, find_live, new_run};

/// Keys of a load that are looked up at once.
const PROBE_ROWS: u64 = 64 * 1024;

/// The state of the table after the statement. `base` is the state that the transaction began on.
pub(super) fn apply(
    mut write: Write,
    base: Option<&TableState>,
) -> Result<(TableState, WriteResult)> {
    let mut result = WriteResult::default();
    let before = std::sync::Arc::clone(&write.table.state);
    let gathered = write.gather(&mut result)?;
    let mut state = (*before).clone();
    for (ordinal, rows) in &write.deletes {
        let source = before.source_at(*ordinal).ok_or_else(|| {
            Error::invalid(format!(
                "table {}: a row to delete is not of the statement's snapshot",
                before.shape.meta.name
            ))
        })?;
        if rows.max().is_some_and(|last| u64::from(last) >= source.source.len()) {
            return Err(Error::invalid(format!(
                "table {}: a row to delete lies past the end of its source",
                before.shape.meta.name
            )));
        }
        result.deleted_count += state.delete(source.source.id(), rows.iter()).unwrap_or_default();
    }
    match gathered {
        Gathered::Small(None) => {}
        Gathered::Small(Some(rows)) => add_run(&mut state, rows, &write, base, &mut result)?,
        Gathered::Segments(mut segments, train_time) => {
            result.train_time = train_time;
            for segment in &mut segments {
                settle_segment(&mut state, segment, write.on_conflict, &mut result)?;
            }
            segments.retain(|s| s.live_count() > 0);
            result.segment_count = segments.len();
            result.inserted_count += segments.iter().map(SourceState::live_count).sum::<u64>();
            state.add_segments(segments);
        }
    }
    Ok((state, result))
}

/// Puts few rows into the memtable.
fn add_run(
    state: &mut TableState,
    mut rows: Sorted,
    write: &Write,
    base: Option<&TableState>,
    result: &mut WriteResult,
) -> Result<()> {
    let shape = std::sync::Arc::clone(&state.shape);
    if shape.meta.key_kind == KeyKind::Primary {
        let found = state.find_live(&rows.keys, FilterUse::First)?;
        if !found.is_empty() {
            match write.on_conflict {
                OnConflict::Error => return Err(exists(state, &rows.keys, &found)),
                OnConflict::Ignore => {
                    result.ignored_count += found.len() as u64;
                    rows = without(&rows, &found)?;
                }
                OnConflict::Replace => result.replaced_count += replace(state, &found),
            }
        }
    }
    if rows.keys.is_empty() {
        return Ok(());
    }
    result.inserted_count += rows.keys.len() as u64;
    // The number of the commit is set when it is known.
    let run = new_run(&shape, rows.batch, rows.keys);
    state.push_run(SourceState::new(Source::Run(run)), SeqNo(0));
    // Runs of the base keep their identity until the commit: what was deleted of them is told by it.
    let kept = state
        .active()
        .runs
        .iter()
        .take_while(|r| base.is_some_and(|b| b.find_source(r.source.id()).is_some()))
        .count();
    state.merge_runs(kept)
}

/// Settles the keys of a segment against the rows that are there already.
fn settle_segment(
    state: &mut TableState,
    segment: &mut SourceState,
    on_conflict: OnConflict,
    result: &mut WriteResult,
) -> Result<()> {
    if state.shape.meta.key_kind != KeyKind::Primary {
        return Ok(());
    }
    let (min, max) = (segment.source.min_key(), segment.source.max_key());
    // Sources whose keys cannot be among the segment's are left alone.
    let near: Vec<(u32, SourceState)> = (0_u32..)
        .zip(state.sources())
        .filter(|(_, s)| {
            s.live_count() > 0 && s.source.min_key() <= max && s.source.max_key() >= min
        })
        .map(|(i, s)| (i, s.clone()))
        .collect();
    if near.is_empty() {
        return Ok(());
    }
    let len = segment.source.len();
    let mut start = 0;
    while start < len {
        let end = (start + PROBE_ROWS).min(len);
        let keys = segment.source.keys(start..end)?;
        let mut found =
            find_live(near.iter().map(|(i, s)| (*i, s)), &keys, false, FilterUse::First)?;
        found.retain(|f| !segment.deleted.contains(start as u32 + f.key));
        if !found.is_empty() {
            match on_conflict {
                OnConflict::Error => return Err(exists(state, &keys, &found)),
                OnConflict::Ignore => {
                    result.ignored_count +=
                        segment.deleted.delete(found.iter().map(|f| start as u32 + f.key));
                }
                OnConflict::Replace => result.replaced_count += replace(state, &found),
            }
        }
        start = end;
    }
    Ok(())
}

fn exists(state: &TableState, keys: &KeyColumn, found: &[Found]) -> Error {
    let least = found.iter().map(|f| f.key).min().unwrap_or_default();
    duplicate(&state.shape, &keys.slice(least as usize, 1), "already exists")
}

/// Deletes the rows that were found.
fn replace(state: &mut TableState, found: &[Found]) -> u64 {
    let ids: Vec<SourceId> = state.sources().map(|s| s.source.id()).collect();
    let mut by_source: BTreeMap<SourceId, Vec<u32>> = BTreeMap::new();
    for row in found {
        by_source.entry(ids[row.ordinal as usize]).or_default().push(row.position);
    }
    by_source.into_iter().filter_map(|(id, positions)| state.delete(id, positions)).sum()
}

/// The rows whose keys were not found.
fn without(rows: &Sorted, found: &[Found]) -> Result<Sorted> {
    let mut keep = vec![true; rows.keys.len()];
    for row in found {
        keep[row.key as usize] = false;
    }
    let kept: Vec<u32> = (0_u32..).zip(&keep).filter(|(_, k)| **k).map(|(i, _)| i).collect();
    let indices = arrow::array::UInt32Array::from(kept.clone());
    let batch = arrow::compute::take_record_batch(&rows.batch, &indices)?;
    Ok(Sorted { batch, keys: rows.keys.take(&kept)? })
}
