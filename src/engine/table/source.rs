//! Where rows lie: a sorted run in a memtable, or a segment. Both are immutable and sorted by key; what
//! is deleted of them is kept beside them.

use std::cmp::Ordering;
use std::ops::{Bound, Range};
use std::sync::Arc;
use std::sync::atomic::{self, AtomicU8};

use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array, UInt64Array};
use parking_lot::Mutex;

use super::deletes::DeleteMap;
use crate::engine::error::{Error, Result};
use crate::engine::id::{FieldId, SegmentId, TableId};
use crate::engine::key::{EncodedKey, KeyColumn, KeyRange};
use crate::engine::segment::{FilterUse, Segment};

/// Field id of the hidden row id.
pub(crate) const ROW_ID_FIELD: FieldId = FieldId(0);

/// Sorted rows in memory. Their durable copy is in the log.
#[derive(Debug)]
pub(crate) struct Run {
    /// Unique in the life of the process.
    pub(crate) id: u64,
    /// The rows, of the stored schema that the table had.
    pub(crate) batch: RecordBatch,
    /// Field ids of the batch's columns.
    pub(crate) fields: Vec<FieldId>,
    /// The encoded key of every row.
    pub(crate) keys: KeyColumn,
}

impl Run {
    /// The hidden row ids, where the table has them.
    pub(crate) fn row_ids(&self) -> Option<&UInt64Array> {
        let at = self.fields.iter().position(|f| *f == ROW_ID_FIELD)?;
        self.batch.column(at).as_any().downcast_ref()
    }

    /// Bytes of memory, about.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.batch.get_array_memory_size() + self.keys.memory_bytes()
    }
}

/// What becomes of a segment's files when nobody uses the segment any more.
#[repr(u8)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Not committed yet: a write in flight owns it. The files go.
    Pending = 0,
    /// Live: the files stay.
    Live = 1,
    /// Replaced or dropped: the files go once the last snapshot has gone.
    Obsolete = 2,
}

/// Segments whose files nobody needs any more.
#[derive(Debug, Default)]
pub(crate) struct Garbage(Mutex<Vec<(TableId, SegmentId)>>);

impl Garbage {
    /// Takes what has gathered.
    pub(crate) fn take(&self) -> Vec<(TableId, SegmentId)> {
        std::mem::take(&mut self.0.lock())
    }

    /// Whether there is nothing to remove.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }

    /// Gives back what could not be removed, for a later try.
    pub(crate) fn put(&self, segment: (TableId, SegmentId)) {
        self.0.lock().push(segment);
    }
}

/// A segment in use. When the last user lets go of one that is not live, its files become garbage.
#[derive(Debug)]
pub(crate) struct SegmentFile {
    pub(crate) segment: Segment,
    fate: AtomicU8,
    garbage: Arc<Garbage>,
}

impl SegmentFile {
    pub(crate) fn new(segment: Segment, fate: Fate, garbage: &Arc<Garbage>) -> Self {
        Self { segment, fate: AtomicU8::new(fate as u8), garbage: Arc::clone(garbage) }
    }

    pub(crate) fn set_fate(&self, fate: Fate) {
        self.fate.store(fate as u8, atomic::Ordering::Release);
    }
}

impl Drop for SegmentFile {
    fn drop(&mut self) {
        if *self.fate.get_mut() != Fate::Live as u8 {
            let meta = self.segment.meta();
            self.garbage.put((meta.table, meta.id));
        }
    }
}

/// Names a source through all snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum SourceId {
    Segment(SegmentId),
    Run(u64),
}

/// A sorted source of rows.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    Segment(Arc<SegmentFile>),
    Run(Arc<Run>),
}

impl Source {
    pub(crate) fn id(&self) -> SourceId {
        match self {
            Self::Segment(s) => SourceId::Segment(s.segment.meta().id),
            Self::Run(r) => SourceId::Run(r.id),
        }
    }

    /// Rows, deleted ones included.
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Segment(s) => s.segment.meta().row_count,
            Self::Run(r) => r.keys.len() as u64,
        }
    }

    pub(crate) fn min_key(&self) -> EncodedKey {
        match self {
            Self::Segment(s) => s.segment.meta().min_key.clone(),
            Self::Run(r) => r.keys.get(0),
        }
    }

    pub(crate) fn max_key(&self) -> EncodedKey {
        match self {
            Self::Segment(s) => s.segment.meta().max_key.clone(),
            Self::Run(r) => r.keys.get(r.keys.len() - 1),
        }
    }

    /// Position of the first row whose key is `>= key`.
    pub(crate) fn lower_bound(&self, key: &EncodedKey) -> Result<u64> {
        match self {
            Self::Segment(s) => s.segment.lower_bound(key),
            Self::Run(r) => Ok(r.keys.lower_bound(key) as u64),
        }
    }

    /// Position of the first row whose key is `> key`.
    pub(crate) fn upper_bound(&self, key: &EncodedKey) -> Result<u64> {
        match self {
            Self::Segment(s) => s.segment.upper_bound(key),
            Self::Run(r) => Ok(r.keys.upper_bound(key) as u64),
        }
    }

    /// How the first key compares with `key`.
    fn compare_min(&self, key: &EncodedKey) -> Ordering {
        match self {
            Self::Segment(s) => s.segment.meta().min_key.cmp(key),
            Self::Run(r) => r.keys.compare_at(0, key),
        }
    }

    /// How the last key compares with `key`.
    fn compare_max(&self, key: &EncodedKey) -> Ordering {
        match self {
            Self::Segment(s) => s.segment.meta().max_key.cmp(key),
            Self::Run(r) => r.keys.compare_at(r.keys.len() - 1, key),
        }
    }

    /// Positions of the keys of `range`. An end of the range that lies beyond the source's own keys is
    /// settled by comparing with its first or last, without the index. Where keys are `unique` one search
    /// finds a range of one key; that of a key that is not there is empty and anywhere.
    pub(crate) fn positions(
        &self,
        range: &KeyRange,
        unique: bool,
        filters: FilterUse,
    ) -> Result<Range<u64>> {
        if unique && let Some(key) = range.as_point() {
            return Ok(self.find_key(key, filters)?.map_or(0..0, |at| at..at + 1));
        }
        let len = self.len();
        let start = match &range.lower {
            Bound::Unbounded => 0,
            Bound::Included(k) if self.compare_min(k).is_ge() => 0,
            Bound::Excluded(k) if self.compare_min(k).is_gt() => 0,
            Bound::Included(k) if self.compare_max(k).is_lt() => len,
            Bound::Excluded(k) if self.compare_max(k).is_le() => len,
            Bound::Included(k) => self.lower_bound(k)?,
            Bound::Excluded(k) => self.upper_bound(k)?,
        };
        let end = match &range.upper {
            Bound::Unbounded => len,
            Bound::Included(k) if self.compare_max(k).is_le() => len,
            Bound::Excluded(k) if self.compare_max(k).is_lt() => len,
            Bound::Included(k) if self.compare_min(k).is_gt() => 0,
            Bound::Excluded(k) if self.compare_min(k).is_ge() => 0,
            Bound::Included(k) => self.upper_bound(k)?,
            Bound::Excluded(k) => self.lower_bound(k)?,
        };
        Ok(start..end.max(start))
    }

    /// Position of the first row with just this key. A key beyond the source's own is settled without the
    /// index.
    #[inline]
    pub(crate) fn find_key(&self, key: &EncodedKey, filters: FilterUse) -> Result<Option<u64>> {
        match self {
            Self::Segment(s) => {
                let meta = s.segment.meta();
                if meta.max_key < *key || meta.min_key > *key {
                    Ok(None)
                } else {
                    s.segment.locate(key, filters)
                }
            }
            Self::Run(r) => {
                let at = r.keys.lower_bound(key);
                let found = at < r.keys.len() && r.keys.compare_at(at, key).is_eq();
                Ok(found.then_some(at as u64))
            }
        }
    }

    /// For each of `keys` (sorted) the position of the first row with just that key, and whether there is one.
    pub(crate) fn find(
        &self,
        keys: &KeyColumn,
        filters: FilterUse,
    ) -> Result<(Vec<u32>, Vec<bool>)> {
        match self {
            Self::Segment(s) => s.segment.locate_batch(keys, filters),
            Self::Run(r) => Ok(find_in_run(&r.keys, keys)),
        }
    }

    /// The keys of some rows.
    pub(crate) fn keys(&self, rows: Range<u64>) -> Result<KeyColumn> {
        match self {
            Self::Segment(s) => s.segment.keys(rows),
            Self::Run(r) => Ok(r.keys.slice(rows.start as usize, (rows.end - rows.start) as usize)),
        }
    }

    /// Whether its rows may have to be read.
    pub(crate) fn is_file(&self) -> bool {
        matches!(self, Self::Segment(_))
    }

    /// The stretch of rows around `position` whose columns lie in one array each.
    pub(crate) fn block(&self, position: u64) -> Range<u64> {
        match self {
            Self::Segment(s) => {
                let meta = s.segment.meta();
                let rows = u64::from(meta.row_group_rows);
                let start = position / rows * rows;
                start..(start + rows).min(meta.row_count)
            }
            Self::Run(_) => 0..self.len(),
        }
    }

    /// A column of rows that lie in one block; `None` where the source is older than the column.
    pub(crate) fn column(&self, field: FieldId, rows: Range<u64>) -> Result<Option<ArrayRef>> {
        let len = (rows.end - rows.start) as usize;
        match self {
            Self::Segment(s) => {
                let group_rows = u64::from(s.segment.meta().row_group_rows);
                let group = (rows.start / group_rows) as usize;
                let column = s.segment.column(field, group)?;
                let offset = (rows.start - group as u64 * group_rows) as usize;
                Ok(column.map(|c| c.slice(offset, len)))
            }
            Self::Run(r) => Ok(r
                .fields
                .iter()
                .position(|f| *f == field)
                .map(|i| r.batch.column(i).slice(rows.start as usize, len))),
        }
    }

    /// Columns of single rows, at ascending positions.
    pub(crate) fn take(
        &self,
        fields: &[FieldId],
        positions: &[u32],
    ) -> Result<Vec<Option<ArrayRef>>> {
        match self {
            Self::Segment(s) => s.segment.take(fields, positions),
            Self::Run(r) => {
                let indices = UInt32Array::from(positions.to_vec());
                fields
                    .iter()
                    .map(|field| {
                        let Some(i) = r.fields.iter().position(|f| f == field) else {
                            return Ok(None);
                        };
                        Ok(Some(arrow::compute::take(r.batch.column(i), &indices, None)?))
                    })
                    .collect()
            }
        }
    }

    /// Appends columns of one row to `columns`: slices, where the rows are in memory.
    pub(crate) fn row(
        &self,
        fields: impl Iterator<Item = FieldId> + Clone,
        position: u32,
        columns: &mut Vec<Option<ArrayRef>>,
    ) -> Result<()> {
        match self {
            Self::Segment(s) => s.segment.row(fields, position, columns),
            Self::Run(r) => {
                columns.extend(fields.map(|field| {
                    let i = r.fields.iter().position(|f| *f == field)?;
                    Some(r.batch.column(i).slice(position as usize, 1))
                }));
                Ok(())
            }
        }
    }

    /// The hidden row ids of rows in one block.
    pub(crate) fn row_ids(&self, rows: Range<u64>) -> Result<UInt64Array> {
        let column = self.column(ROW_ID_FIELD, rows)?;
        column
            .as_ref()
            .and_then(|c| c.as_any().downcast_ref::<UInt64Array>())
            .cloned()
            .ok_or_else(|| Error::internal(format!("{:?} has no row ids", self.id())))
    }

    /// Position of the row with this key and row id, where keys repeat.
    pub(crate) fn find_row(&self, key: &EncodedKey, row_id: u64) -> Result<Option<u64>> {
        let at = self.lower_bound_row(key, row_id)?;
        if at == self.len() || self.keys(at..at + 1)?.get(0) != *key {
            return Ok(None);
        }
        Ok((self.row_ids(at..at + 1)?.value(0) == row_id).then_some(at))
    }

    /// Position of the first row that is not before (key, row id).
    pub(crate) fn lower_bound_row(&self, key: &EncodedKey, row_id: u64) -> Result<u64> {
        let (mut low, mut high) = (self.lower_bound(key)?, self.upper_bound(key)?);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.row_ids(middle..middle + 1)?.value(0) < row_id {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }
}

/// Finds sorted `keys` in a sorted run. Few keys are searched one by one, many by walking both.
fn find_in_run(run: &KeyColumn, keys: &KeyColumn) -> (Vec<u32>, Vec<bool>) {
    fn walk<T: Ord>(
        run_len: usize,
        keys_len: usize,
        run: impl Fn(usize) -> T,
        key: impl Fn(usize) -> T,
    ) -> (Vec<u32>, Vec<bool>) {
        let mut positions = Vec::with_capacity(keys_len);
        let mut found = Vec::with_capacity(keys_len);
        let mut low = 0;
        for i in 0..keys_len {
            let wanted = key(i);
            // Gallop from the last answer: keys come in order.
            let mut step = 1;
            let mut high = low;
            while high < run_len && run(high) < wanted {
                low = high + 1;
                high += step;
                step *= 2;
            }
            high = high.min(run_len);
            while low < high {
                let middle = low + (high - low) / 2;
                if run(middle) < wanted {
                    low = middle + 1;
                } else {
                    high = middle;
                }
            }
            positions.push(low as u32);
            found.push(low < run_len && run(low) == wanted);
        }
        (positions, found)
    }
    match (run, keys) {
        (KeyColumn::U64(r), KeyColumn::U64(k)) => walk(r.len(), k.len(), |i| r[i], |i| k[i]),
        (KeyColumn::U128(r), KeyColumn::U128(k)) => walk(r.len(), k.len(), |i| r[i], |i| k[i]),
        (KeyColumn::Bytes(r), KeyColumn::Bytes(k)) => {
            walk(r.len(), k.len(), |i| r.value(i), |i| k.value(i))
        }
        // Keys of one table have one form; nothing equals a key of another.
        _ => (vec![run.len() as u32; keys.len()], vec![false; keys.len()]),
    }
}

/// A source and which of its rows are deleted. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct SourceState {
    pub(crate) source: Source,
    pub(crate) deleted: DeleteMap,
}

impl SourceState {
    pub(crate) fn new(source: Source) -> Self {
        Self { source, deleted: DeleteMap::default() }
    }

    pub(crate) fn live_count(&self) -> u64 {
        self.source.len() - self.deleted.count()
    }

    /// Live rows in a stretch of positions.
    pub(crate) fn live_in(&self, positions: &Range<u64>) -> u64 {
        positions.end - positions.start - self.deleted.count_in(positions.clone())
    }
}
