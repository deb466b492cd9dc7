//! Flush (memtables to segments), compaction (segments to segments), retraining, and what decides when.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;

use super::Shared;
use super::error::{Error, Result};
use super::id::{Generation, SegmentId, TableId};
use super::segment::FilterUse;
use super::table::{
    Input, Reader, Source, SourceId, SourceState, TableShape, TableState, find_live,
};
use super::txn::{
    Change, RunWriter, added_segment, install, keys_at, row_ids_at, segment_file, segment_id,
};
use super::wal::WalOp;

/// Rows read at once while segments are rewritten. Where they do not fit one array, it is tried again with fewer.
const REWRITE_ROWS: [usize; 3] = [64 * 1024, 1024, 16];

/// Live rows of sources as new segments, durable and not committed; `None` where the sources are gone before it is done, or the
/// database is closed.
fn rewrite(
    shared: &Arc<Shared>,
    shape: &Arc<TableShape>,
    sources: &[SourceState],
    compact: bool,
) -> Result<Option<(Vec<SourceState>, Duration)>> {
    shared.create_table_dir(shape.meta.id)?;
    let [rows, fewer, fewest] = REWRITE_ROWS;
    for rows in [rows, fewer] {
        match rewrite_by(shared, shape, sources, compact, rows) {
            Err(e) if is_overflow(&e) => {}
            done => return done,
        }
    }
    rewrite_by(shared, shape, sources, compact, fewest)
}

/// Whether an array would have got too long for its offsets.
fn is_overflow(e: &Error) -> bool {
    let source = std::error::Error::source(e).and_then(|s| s.downcast_ref::<ArrowError>());
    matches!(source, Some(ArrowError::OffsetOverflowError(_)))
}

fn rewrite_by(
    shared: &Arc<Shared>,
    shape: &Arc<TableShape>,
    sources: &[SourceState],
    compact: bool,
    rows_at_once: usize,
) -> Result<Option<(Vec<SourceState>, Duration)>> {
    let inputs = sources
        .iter()
        .map(|s| Input { state: s.clone(), ordinal: 0, positions: 0..s.source.len() })
        .collect();
    let mut reader = Reader::new(inputs, shape.stored_layout(true), rows_at_once)?;
    let mut writer = RunWriter::new(shared, shape, compact);
    while let Some(rows) = reader.next()? {
        if !is_wanted(shared, shape.meta.id, sources) {
            return Ok(None);
        }
        let batch = RecordBatch::try_new(Arc::clone(&shape.stored_schema), rows.columns)?;
        let keys = rows.keys.ok_or_else(|| Error::internal("a rewrite reads keys"))?;
        writer.write(&batch, &keys)?;
    }
    let done = writer.finish()?;
    shared.sync_table_dir(shape.meta.id)?;
    Ok(Some(done))
}

/// Whether the sources are still those of the table.
fn is_wanted(shared: &Shared, table: TableId, sources: &[SourceState]) -> bool {
    let root = shared.root.load();
    let state = root.tables.get(&table);
    !shared.closed.load(Ordering::Acquire)
        && state.is_some_and(|now| sources.iter().all(|s| now.find_source(s.source.id()).is_some()))
}

/// What a rewrite puts in the place of what.
struct Replacement<'a> {
    table: TableId,
    /// What was rewritten, with the deletes that it saw.
    inputs: &'a [SourceState],
    outputs: Vec<SourceState>,
    flushed_below: Option<Generation>,
}

impl Replacement<'_> {
    /// Commits it: rows that were deleted meanwhile are deleted of the new segments, found by their keys.
    fn install(self, shared: &Shared) -> Result<bool> {
        let mut done = false;
        let table = self.table;
        install(shared, |spec, _| {
            let Some(now) = spec.tables.get(&table) else { return Ok(None) };
            let mut outputs = self.outputs;
            for input in self.inputs {
                // Gone by TRUNCATE: then all of them are.
                let Some(current) = now.find_source(input.source.id()) else { return Ok(None) };
                let positions = current.deleted.since(&input.deleted);
                if !positions.is_empty() {
                    carry_deletes(now, &input.source, &positions, &mut outputs)?;
                }
            }
            let mut state = (**now).clone();
            let remove: Vec<SegmentId> = self.inputs.iter().filter_map(segment_id).collect();
            let ids: Vec<SourceId> = remove.iter().copied().map(SourceId::Segment).collect();
            if let Some(generation) = self.flushed_below {
                state.drop_memtables_below(generation);
            }
            let removed = state.remove_segments(&ids).iter().filter_map(segment_file).collect();
            outputs.retain(|s| s.live_count() > 0);
            let op = WalOp::EditSegments {
                table,
                flushed_below: self.flushed_below,
                remove,
                add: outputs.iter().filter_map(added_segment).collect(),
            };
            let added = outputs.iter().filter_map(segment_file).collect();
            state.add_segments(outputs);
            let mut root = spec.clone();
            root.put_table(Arc::new(state));
            done = true;
            Ok(Some(Change { root, ops: vec![op], added, removed }))
        })?;
        Ok(done)
    }
}

/// Deletes in `outputs` the rows that lay at `positions` of a rewritten source.
fn carry_deletes(
    table: &TableState,
    source: &Source,
    positions: &[u32],
    outputs: &mut [SourceState],
) -> Result<()> {
    let keys = keys_at(source, positions)?;
    let mut places: Vec<(usize, u32)> = Vec::with_capacity(positions.len());
    if table.shape.repeats() {
        let row_ids = row_ids_at(&table.shape, source, positions)?;
        for (i, row_id) in row_ids.iter().enumerate() {
            let key = keys.get(i);
            for (o, output) in outputs.iter().enumerate() {
                if output.source.min_key() <= key
                    && output.source.max_key() >= key
                    && let Some(at) = output.source.find_row(&key, *row_id)?
                {
                    places.push((o, at as u32));
                }
            }
        }
    } else {
        let found = find_live((0_u32..).zip(outputs.iter()), &keys, false, FilterUse::InMemory)?;
        places.extend(found.iter().map(|f| (f.ordinal as usize, f.position)));
    }
    if places.len() != positions.len() {
        return Err(Error::internal(format!(
            "table {}: {} of {} rows deleted during a rewrite are not in what was written",
            table.shape.meta.name,
            positions.len() - places.len(),
            positions.len()
        )));
    }
    for (output, position) in places {
        outputs[output].deleted.delete([position]);
    }
    Ok(())
}

/// Writes the sealed memtables of a table to segments; with `all`, the active one too.
pub(super) fn flush(shared: &Arc<Shared>, table: TableId, all: bool) -> Result<()> {
    shared.or_fail("a flush", || flush_now(shared, table, all))
}

fn flush_now(shared: &Arc<Shared>, table: TableId, all: bool) -> Result<()> {
    let _one = shared.flushing.lock();
    if all {
        seal(shared, table)?;
    }
    let root = shared.root.load_full();
    let Some(state) = root.tables.get(&table) else { return Ok(()) };
    let active = state.active().generation;
    let inputs: Vec<SourceState> = state
        .memtables
        .iter()
        .filter(|m| m.generation < active)
        .flat_map(|m| m.runs.iter().cloned())
        .collect();
    if state.memtables.len() < 2 {
        return Ok(());
    }
    let Some((outputs, _)) = rewrite(shared, &state.shape, &inputs, false)? else {
        return shared.check_open();
    };
    Replacement { table, inputs: &inputs, outputs, flushed_below: Some(active) }.install(shared)?;
    shared.flushed.notify_all();
    Ok(())
}

/// Seals the active memtable of a table.
fn seal(shared: &Shared, table: TableId) -> Result<()> {
    install(shared, |spec, _| {
        let Some(now) = spec.tables.get(&table) else { return Ok(None) };
        if now.active().runs.is_empty() {
            return Ok(None);
        }
        let mut state = (**now).clone();
        state.seal();
        let mut root = spec.clone();
        root.put_table(Arc::new(state));
        // Nothing to log: rows carry the generation that they go to.
        Ok(Some(Change { root, ops: Vec::new(), added: Vec::new(), removed: Vec::new() }))
    })?;
    Ok(())
}

/// Rewrites the segments `ids` of a table as segments that do not overlap.
fn compact(
    shared: &Arc<Shared>,
    state: &TableState,
    ids: &[SegmentId],
) -> Result<(usize, Duration)> {
    let inputs: Vec<SourceState> = state
        .segments
        .iter()
        .filter(|s| segment_id(s).is_some_and(|id| ids.contains(&id)))
        .cloned()
        .collect();
    if inputs.is_empty() {
        return Ok((0, Duration::ZERO));
    }
    shared.or_fail("a compaction", || {
        let Some((outputs, time)) = rewrite(shared, &state.shape, &inputs, true)? else {
            return shared.check_open().map(|()| (0, Duration::ZERO));
        };
        let table = state.shape.meta.id;
        // What was rewritten into as many segments as before, because its rows take much room, is not worth it again.
        let rows: u64 = outputs.iter().map(|s| s.source.len()).sum();
        let full = shared.options.segment_rows as u64;
        let is_cut = outputs.len() as u64 > rows.div_ceil(full) && outputs.len() >= inputs.len();
        let settled: Vec<SegmentId> =
            if is_cut { outputs.iter().filter_map(segment_id).collect() } else { Vec::new() };
        let done =
            Replacement { table, inputs: &inputs, outputs, flushed_below: None }.install(shared)?;
        let mut all_settled = shared.settled.lock();
        all_settled.retain(|id| !ids.contains(id));
        all_settled.extend(settled);
        Ok((if done { inputs.len() } else { 0 }, time))
    })
}

/// Compacts every group of overlapping segments of a table and those with deleted rows.
pub(super) fn compact_all(shared: &Arc<Shared>, table: TableId) -> Result<usize> {
    let _one = shared.compacting.lock();
    let root = shared.root.load_full();
    let state = root.table(table)?;
    let mut count = 0;
    for group in groups(state) {
        let members = &state.segments[group];
        if members.len() > 1 || members.iter().any(|s| s.deleted.count() > 0) {
            let ids: Vec<SegmentId> = members.iter().filter_map(segment_id).collect();
            count += compact(shared, state, &ids)?.0;
        }
    }
    Ok(count)
}

/// Writes every segment of a table anew, and with it its index.
pub(super) fn retrain(shared: &Arc<Shared>, table: TableId) -> Result<(usize, Duration)> {
    let _one = shared.compacting.lock();
    let root = shared.root.load_full();
    let state = root.table(table)?;
    let (mut count, mut total) = (0, Duration::ZERO);
    for group in groups(state) {
        let ids: Vec<SegmentId> = state.segments[group].iter().filter_map(segment_id).collect();
        let (segments, time) = compact(shared, state, &ids)?;
        count += segments;
        total += time;
    }
    Ok((count, total))
}

/// Groups of segments, in key order, that overlap one another and nothing else.
fn groups(state: &TableState) -> Vec<std::ops::Range<usize>> {
    let mut groups: Vec<std::ops::Range<usize>> = Vec::new();
    let mut reach = None;
    for (i, segment) in state.segments.iter().enumerate() {
        let max = segment.source.max_key();
        match (groups.last_mut(), &mut reach) {
            (Some(group), Some(reach)) if segment.source.min_key() <= *reach => {
                group.end = i + 1;
                if max > *reach {
                    *reach = max;
                }
            }
            _ => {
                groups.push(i..i + 1);
                reach = Some(max);
            }
        }
    }
    groups
}

/// Segments that a table's triggers want rewritten, if any: an overlap above the limit, many deleted
/// rows, or small neighbours.
fn choose(shared: &Shared, state: &TableState) -> Option<Vec<SegmentId>> {
    let options = &shared.options;
    let full = options.segment_rows as u64;
    let mut small: Vec<SegmentId> = Vec::new();
    let mut small_rows = 0;
    for group in groups(state) {
        let members = &state.segments[group];
        let ids = || members.iter().filter_map(segment_id).collect::<Vec<_>>();
        if deepest_overlap(members) > options.compaction_overlap {
            return Some(choose_overlapping(members, full));
        }
        for member in members {
            let share = member.deleted.count() as f64 / member.source.len().max(1) as f64;
            if share > options.compaction_deleted_share {
                return Some(segment_id(member).into_iter().collect());
            }
        }
        // Small neighbours in key order are merged once together they make something larger.
        let rows: u64 = members.iter().map(SourceState::live_count).sum();
        let settled = shared.settled.lock();
        let is_settled = ids().iter().all(|id| settled.contains(id));
        if rows < full / 4 && !is_settled {
            small.extend(ids());
            small_rows += rows;
        } else {
            small.clear();
            small_rows = 0;
        }
        if small.len() >= 8 || (small.len() >= 4 && small_rows >= full) {
            return Some(small);
        }
    }
    None
}

/// How many of these segments hold keys around one point, at most.
fn deepest_overlap(segments: &[SourceState]) -> usize {
    let mut ends: Vec<_> = Vec::new();
    let mut deepest = 0;
    for segment in segments {
        let min = segment.source.min_key();
        ends.retain(|end| *end >= min);
        ends.push(segment.source.max_key());
        deepest = deepest.max(ends.len());
    }
    deepest
}

/// Of a group that overlaps too much, the segments of one size class: merging like with like bounds how
/// often a row is rewritten by the logarithm of the table's size (a tiered merge).
fn choose_overlapping(members: &[SourceState], full: u64) -> Vec<SegmentId> {
    let mut classes: BTreeMap<u32, Vec<&SourceState>> = BTreeMap::new();
    for member in members {
        let class = (member.live_count().min(full).max(1)).ilog(4);
        classes.entry(class).or_default().push(member);
    }
    // The smallest class with enough members; all, if none has.
    let chosen = classes.values().find(|c| c.len() >= 4 && deepest_refs(c) >= 3);
    match chosen {
        Some(class) => class.iter().filter_map(|s| segment_id(s)).collect(),
        None => members.iter().filter_map(segment_id).collect(),
    }
}

fn deepest_refs(segments: &[&SourceState]) -> usize {
    let owned: Vec<SourceState> = segments.iter().map(|s| (*s).clone()).collect();
    deepest_overlap(&owned)
}

/// Compacts a table once where a trigger asks for it. Says whether it did.
pub(super) fn compact_step(shared: &Arc<Shared>, table: TableId) -> Result<bool> {
    let _one = shared.compacting.lock();
    let root = shared.root.load_full();
    let Some(state) = root.tables.get(&table) else { return Ok(false) };
    match choose(shared, state) {
        Some(ids) => Ok(compact(shared, state, &ids)?.0 > 0),
        None => Ok(false),
    }
}
