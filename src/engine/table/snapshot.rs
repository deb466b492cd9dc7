//! What can be asked of a table at one moment.

use std::ops::Bound;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, UInt64Array};
use arrow::datatypes::SchemaRef;

use super::merge::Output;
use super::scan::{Scan, outputs};
use super::source::{Source, SourceState};
use super::state::TableState;
use super::{RangeExplanation, RowAddress, ScanRequest, SegmentInfo, SegmentRange};
use crate::engine::error::{Error, Result};
use crate::engine::id::{FieldId, TableId};
use crate::engine::key::{EncodedKey, KeyCodec, KeyColumn, KeyRange};
use crate::engine::schema::TableMeta;
use crate::engine::segment::FilterUse;

/// A table at one moment. Cheap to clone; never changes.
#[derive(Debug, Clone)]
pub struct TableSnapshot {
    pub(crate) state: Arc<TableState>,
}

impl TableSnapshot {
    /// The table's definition.
    pub fn meta(&self) -> &Arc<TableMeta> {
        &self.state.shape.meta
    }

    /// The table's id.
    pub fn id(&self) -> TableId {
        self.meta().id
    }

    /// The schema that users see.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.state.shape.schema)
    }

    /// Encodes and decodes its keys (of the row id where it has no key columns).
    pub fn codec(&self) -> &KeyCodec {
        &self.state.shape.codec
    }

    /// Live rows. Reads nothing.
    pub fn row_count(&self) -> u64 {
        self.state.live_count
    }

    /// Its segments, by their first key.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        self.state
            .segments
            .iter()
            .filter_map(|s| match &s.source {
                Source::Segment(file) => Some(SegmentInfo {
                    meta: file.segment.meta().clone(),
                    deleted_count: s.deleted.count(),
                }),
                Source::Run(_) => None,
            })
            .collect()
    }

    /// Live rows in memtables, and the bytes these take.
    pub fn memtable_size(&self) -> (u64, usize) {
        let runs = self.state.memtables.iter().flat_map(|m| &m.runs);
        (runs.map(SourceState::live_count).sum(), self.state.memtable_bytes())
    }

    /// Live rows of a key range, from the index: reads no rows.
    pub fn count(&self, range: &KeyRange) -> Result<u64> {
        if range.lower == Bound::Unbounded && range.upper == Bound::Unbounded {
            return Ok(self.state.live_count);
        }
        let unique = !self.state.shape.repeats();
        if unique && let Some(key) = range.as_point() {
            return Ok(u64::from(self.state.find_unique(key)?.is_some()));
        }
        let mut count = 0;
        for (_, state) in self.state.sources_within(range) {
            count += state.live_in(&state.source.positions(range, unique, FilterUse::InMemory)?);
        }
        Ok(count)
    }

    /// Live rows of several ranges, those of ranges that meet counted twice. Many points are looked up together.
    pub fn count_all(&self, ranges: &[KeyRange]) -> Result<u64> {
        if let Some(keys) = self.points(ranges)? {
            return Ok(self.locate(&keys)?.iter().flatten().count() as u64);
        }
        ranges.iter().map(|range| self.count(range)).sum()
    }

    /// The keys of ranges, if these are several points and no two rows have one key.
    pub fn points(&self, ranges: &[KeyRange]) -> Result<Option<KeyColumn>> {
        if self.state.shape.repeats() || ranges.len() < 2 {
            return Ok(None);
        }
        let keys: Option<Vec<&EncodedKey>> = ranges.iter().map(KeyRange::as_point).collect();
        keys.map(|keys| KeyColumn::from_keys(self.codec().form(), keys)).transpose()
    }

    /// Reads rows in key order.
    pub fn scan(&self, request: &ScanRequest) -> Result<Scan> {
        Scan::new(&self.state, request)
    }

    /// Finds the live row of each key; for keys that may repeat, the first.
    pub fn locate(&self, keys: &KeyColumn) -> Result<Vec<Option<RowAddress>>> {
        if !self.state.shape.repeats() {
            return match keys.len() {
                1 => Ok(vec![self.locate_one(&keys.get(0))?]),
                _ => self.state.find_each(keys),
            };
        }
        let mut addresses = vec![None; keys.len()];
        let filters = self.state.segments.filter_use();
        let order = if keys.is_sorted() { None } else { Some(keys.sort_indices()) };
        let sorted = order.as_ref().map(|o| keys.take(o)).transpose()?;
        for found in self.state.find_live(sorted.as_ref().unwrap_or(keys), filters)? {
            let at = order.as_ref().map_or(found.key, |o| o[found.key as usize]);
            let address = RowAddress::new(found.ordinal, found.position);
            let slot: &mut Option<RowAddress> = &mut addresses[at as usize];
            *slot = match *slot {
                // Where keys repeat, several sources can have one; the first to arrive counts.
                Some(other) if self.row_id(other)? <= self.row_id(address)? => Some(other),
                _ => Some(address),
            };
        }
        Ok(addresses)
    }

    /// Finds all live rows that have one of some keys, each once, in no order.
    pub fn locate_all(&self, keys: &KeyColumn) -> Result<Vec<RowAddress>> {
        if !self.state.shape.repeats() {
            let mut rows: Vec<RowAddress> = self.locate(keys)?.into_iter().flatten().collect();
            rows.sort_unstable();
            rows.dedup();
            return Ok(rows);
        }
        if keys.is_sorted() {
            return self.state.find_rows(keys);
        }
        self.state.find_rows(&keys.take(&keys.sort_indices())?)
    }

    /// [`TableSnapshot::locate`] of one key.
    pub fn locate_one(&self, key: &EncodedKey) -> Result<Option<RowAddress>> {
        if self.state.shape.repeats() {
            return Ok(self.locate(&KeyColumn::from(key))?.pop().flatten());
        }
        let found = self.state.find_unique(key)?;
        Ok(found.map(|(ordinal, position)| RowAddress::new(ordinal, position)))
    }

    /// The live row with a key, all columns of it; where keys repeat, the first. Where there is none no row is read.
    pub fn get(&self, key: &EncodedKey) -> Result<Option<RecordBatch>> {
        let Some(address) = self.locate_one(key)? else { return Ok(None) };
        let source = self.state.source_at(address.ordinal());
        let source = source.ok_or_else(|| Error::internal("a row was found in no source"))?;
        let outputs = &self.state.shape.outputs;
        let mut columns = Vec::with_capacity(outputs.len());
        source.source.row(
            outputs.iter().filter_map(Output::field),
            address.position(),
            &mut columns,
        )?;
        let columns =
            outputs.iter().zip(columns).map(|(output, column)| output.or_initial(column, 1));
        let columns = columns.collect::<Result<_>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(1));
        Ok(Some(RecordBatch::try_new_with_options(self.schema(), columns, &options)?))
    }

    /// The hidden row id of a row.
    fn row_id(&self, address: RowAddress) -> Result<u64> {
        let source = self.state.source_at(address.ordinal());
        let source = source.ok_or_else(|| Error::internal("a row was found in no source"))?;
        let position = u64::from(address.position());
        Ok(source.source.row_ids(position..position + 1)?.value(0))
    }

    /// The rows at these addresses, in this order, of the columns `projection` (all for `None`).
    pub fn take(
        &self,
        addresses: &[RowAddress],
        projection: Option<&[usize]>,
    ) -> Result<RecordBatch> {
        let (schema, outputs) = outputs(&self.state.shape, projection, false)?;
        let options = RecordBatchOptions::new().with_row_count(Some(addresses.len()));
        let mut order: Vec<u32> = (0..addresses.len() as u32).collect();
        order.sort_unstable_by_key(|i| addresses[*i as usize]);
        // Rows come by source and position; `place` says where each of them goes.
        let mut parts: Vec<Vec<ArrayRef>> = vec![Vec::new(); outputs.len()];
        let mut start = 0;
        while start < order.len() {
            let ordinal = addresses[order[start] as usize].ordinal();
            let mut end = start;
            let mut positions = Vec::new();
            while end < order.len() && addresses[order[end] as usize].ordinal() == ordinal {
                positions.push(addresses[order[end] as usize].position());
                end += 1;
            }
            let source = self.state.source_at(ordinal).ok_or_else(|| {
                Error::invalid(format!(
                    "table {}: row address {:?} is not of this snapshot",
                    self.meta().name,
                    addresses[order[start] as usize]
                ))
            })?;
            for (column, part) in
                take_rows(source, &outputs, &positions)?.into_iter().zip(&mut parts)
            {
                part.push(column);
            }
            start = end;
        }
        let sorted = order.iter().enumerate().all(|(i, o)| i as u32 == *o);
        let mut place = vec![0_u64; order.len()];
        for (row, original) in order.iter().enumerate() {
            place[*original as usize] = row as u64;
        }
        let place = UInt64Array::from(place);
        let mut columns = Vec::with_capacity(parts.len());
        for (part, field) in parts.iter().zip(schema.fields()) {
            let column = match part.as_slice() {
                [] => arrow::array::new_empty_array(field.data_type()),
                [one] => Arc::clone(one),
                many => arrow::compute::concat(
                    &many.iter().map(|a| a.as_ref() as &dyn Array).collect::<Vec<_>>(),
                )?,
            };
            columns.push(if sorted {
                column
            } else {
                arrow::compute::take(&column, &place, None)?
            });
        }
        Ok(RecordBatch::try_new_with_options(schema, columns, &options)?)
    }

    /// How a key range would be read.
    pub fn explain(&self, range: &KeyRange) -> Result<RangeExplanation> {
        let mut explanation = RangeExplanation {
            segment_count: self.state.segments.len(),
            segments: Vec::new(),
            memtable_rows: 0,
            row_count: 0,
        };
        let unique = !self.state.shape.repeats();
        for (_, state) in self.state.sources_within(range) {
            let positions = state.source.positions(range, unique, FilterUse::InMemory)?;
            let live_count = state.live_in(&positions);
            if live_count == 0 {
                continue;
            }
            explanation.row_count += live_count;
            match &state.source {
                Source::Segment(file) => {
                    let predicted = match &range.lower {
                        Bound::Included(key) | Bound::Excluded(key) => file.segment.predict(key)?,
                        Bound::Unbounded => None,
                    };
                    explanation.segments.push(SegmentRange {
                        segment: file.segment.meta().id,
                        predicted,
                        positions,
                        live_count,
                    });
                }
                Source::Run(_) => explanation.memtable_rows += live_count,
            }
        }
        Ok(explanation)
    }
}

fn take_rows(source: &SourceState, outputs: &[Output], positions: &[u32]) -> Result<Vec<ArrayRef>> {
    let fields: Vec<FieldId> = outputs.iter().filter_map(Output::field).collect();
    let columns = source.source.take(&fields, positions)?;
    outputs
        .iter()
        .zip(columns)
        .map(|(output, column)| output.or_initial(column, positions.len()))
        .collect()
}

impl RowAddress {
    pub(crate) fn new(ordinal: u32, position: u32) -> Self {
        Self(u64::from(ordinal) << 32 | u64::from(position))
    }

    /// The ordinal of its source in the snapshot.
    pub(crate) fn ordinal(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Its position in the source.
    pub(crate) fn position(self) -> u32 {
        self.0 as u32
    }
}
