//! Where rows lie: keys at positions, positions of keys, and rows that were moved meanwhile.

use std::ops::Range;
use std::sync::Arc;

use crate::engine::error::{Error, Result};
use crate::engine::id::SegmentId;
use crate::engine::key::{KeyColumn, compare};
use crate::engine::table::{
    KeyBuilder, SegmentFile, Source, SourceId, SourceState, TableShape, TableState,
};
use crate::engine::wal::AddedSegment;

/// The segment of a source.
pub(crate) fn segment_file(state: &SourceState) -> Option<Arc<SegmentFile>> {
    match &state.source {
        Source::Segment(file) => Some(Arc::clone(file)),
        Source::Run(_) => None,
    }
}

/// All segments of a table.
pub(crate) fn segment_files(state: &TableState) -> Vec<Arc<SegmentFile>> {
    state.segments.iter().filter_map(segment_file).collect()
}

/// A segment as log and manifest hold it.
pub(crate) fn added_segment(state: &SourceState) -> Option<AddedSegment> {
    let file = segment_file(state)?;
    Some(AddedSegment { meta: file.segment.meta().clone(), deleted: state.deleted.to_bitmap() })
}

/// The id of a segment source.
pub(crate) fn segment_id(state: &SourceState) -> Option<SegmentId> {
    match state.source.id() {
        SourceId::Segment(id) => Some(id),
        SourceId::Run(_) => None,
    }
}

/// Cuts ascending positions of a source into stretches that lie near each other, each within one block of it.
fn stretches<'a>(
    source: &'a Source,
    positions: &'a [u32],
) -> impl Iterator<Item = (Range<u64>, &'a [u32])> {
    const WINDOW: u64 = 16 * 1024;
    let mut rest = positions;
    std::iter::from_fn(move || {
        let first = u64::from(*rest.first()?);
        let end = (first + WINDOW).min(source.block(first).end);
        let (stretch, after) = rest.split_at(rest.partition_point(|p| u64::from(*p) < end));
        rest = after;
        Some((first..u64::from(*stretch.last()?) + 1, stretch))
    })
}

/// The keys at ascending positions of a source.
pub(crate) fn keys_at(source: &Source, positions: &[u32]) -> Result<KeyColumn> {
    if let Source::Run(run) = source {
        return run.keys.take(positions);
    }
    let mut keys: Option<KeyBuilder> = None;
    for (rows, stretch) in stretches(source, positions) {
        let window = source.keys(rows.clone())?;
        let keys = keys.get_or_insert_with(|| KeyBuilder::like(&window));
        for position in stretch {
            let at = (u64::from(*position) - rows.start) as usize;
            keys.extend(&window, at..at + 1);
        }
    }
    Ok(keys.map_or(KeyColumn::U64(Vec::new()), KeyBuilder::finish))
}

/// The hidden row ids at ascending positions of a source; none where keys are unique.
pub(crate) fn row_ids_at(
    shape: &TableShape,
    source: &Source,
    positions: &[u32],
) -> Result<Vec<u64>> {
    let mut row_ids = Vec::new();
    if !shape.meta.has_row_id() {
        return Ok(row_ids);
    }
    row_ids.reserve(positions.len());
    for (rows, stretch) in stretches(source, positions) {
        let window = source.row_ids(rows.clone())?;
        row_ids.extend(stretch.iter().map(|p| window.value((u64::from(*p) - rows.start) as usize)));
    }
    Ok(row_ids)
}

/// Where rows lie now whose source is gone, because compaction or a flush moved them. A row that is not
/// found was deleted by another transaction.
pub(crate) fn relocate(
    state: &TableState,
    source: &Source,
    positions: &[u32],
) -> Result<Vec<(SourceId, u32)>> {
    let keys = keys_at(source, positions)?;
    let mut places = Vec::with_capacity(positions.len());
    if state.shape.repeats() {
        let row_ids = row_ids_at(&state.shape, source, positions)?;
        for (i, row_id) in row_ids.iter().enumerate() {
            places.extend(find_row(state.sources(), &keys, i, *row_id)?);
        }
    } else {
        debug_assert!((1..keys.len()).all(|i| compare(&keys, i - 1, &keys, i).is_le()));
        for found in state.find_live(&keys, state.segments.filter_use())? {
            if let Some(s) = state.source_at(found.ordinal) {
                places.push((s.source.id(), found.position));
            }
        }
    }
    if places.len() != positions.len() {
        return Err(Error::conflict(format!(
            "table {}: another transaction deleted the same rows first: retry",
            state.shape.meta.name
        )));
    }
    Ok(places)
}

/// The live row with key `i` of `keys` and a row id.
pub(crate) fn find_row<'a>(
    sources: impl IntoIterator<Item = &'a SourceState>,
    keys: &KeyColumn,
    i: usize,
    row_id: u64,
) -> Result<Option<(SourceId, u32)>> {
    let key = keys.get(i);
    for s in sources {
        if s.live_count() == 0 || s.source.min_key() > key || s.source.max_key() < key {
            continue;
        }
        if let Some(position) = s.source.find_row(&key, row_id)?
            && !s.deleted.contains(position as u32)
        {
            return Ok(Some((s.source.id(), position as u32)));
        }
    }
    Ok(None)
}
