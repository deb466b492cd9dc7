//! The writes of one statement, gathered before they are carried out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, ArrayRef, RecordBatch, UInt64Array};
use arrow::util::display::array_value_to_string;
use roaring::RoaringBitmap;

use super::OnConflict;
use super::load::Load;
use crate::engine::Shared;
use crate::engine::error::{Error, Result};
use crate::engine::key::KeyColumn;
use crate::engine::segment::check_values;
use crate::engine::table::{RowAddress, SourceState, TableShape, TableSnapshot};

/// What a statement changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WriteResult {
    /// Rows that are there now and were given to the statement.
    pub inserted_count: u64,
    /// Rows removed by [`Write::delete`].
    pub deleted_count: u64,
    /// Rows that gave way to new ones with the same key ([`OnConflict::Replace`]), among given rows too.
    pub replaced_count: u64,
    /// New rows left out because their key existed ([`OnConflict::Ignore`]).
    pub ignored_count: u64,
    /// Segments written for it; 0 where it went to the memtable.
    pub segment_count: usize,
    /// Time that training their indexes took.
    pub train_time: Duration,
}

/// The writes of one statement on one table. Holds a bounded amount of memory: many rows go to segment
/// files as they come. Dropped, it leaves nothing.
#[derive(Debug)]
pub struct Write {
    pub(super) shared: Arc<Shared>,
    pub(super) table: TableSnapshot,
    pub(super) on_conflict: OnConflict,
    /// Deleted rows, by the ordinal of their source.
    pub(super) deletes: BTreeMap<u32, RoaringBitmap>,
    pending: Vec<Sorted>,
    pending_rows: usize,
    pending_bytes: usize,
    load: Option<Load>,
    row_count: u64,
}

/// Rows of the stored schema with their keys.
#[derive(Debug)]
pub(super) struct Sorted {
    pub(super) batch: RecordBatch,
    pub(super) keys: KeyColumn,
}

/// The rows that a statement gathered.
#[derive(Debug)]
pub(super) enum Gathered {
    /// Few: sorted, for the memtable; none where there were no rows.
    Small(Option<Sorted>),
    /// Many: segments that are written and not committed, and how long training them took.
    Segments(Vec<SourceState>, Duration),
}

impl Write {
    pub(super) fn new(shared: &Arc<Shared>, table: TableSnapshot, on_conflict: OnConflict) -> Self {
        Self {
            shared: Arc::clone(shared),
            table,
            on_conflict,
            deletes: BTreeMap::new(),
            pending: Vec::new(),
            pending_rows: 0,
            pending_bytes: 0,
            load: None,
            row_count: 0,
        }
    }

    /// The table as the statement sees it; [`Write::delete`] takes addresses of this snapshot.
    pub fn table(&self) -> &TableSnapshot {
        &self.table
    }

    /// Deletes rows. Naming one twice deletes it once.
    pub fn delete(&mut self, rows: &[RowAddress]) -> Result<()> {
        for row in rows {
            self.deletes.entry(row.ordinal()).or_default().insert(row.position());
        }
        Ok(())
    }

    /// Adds rows: columns of the table's schema, in its order and of its types.
    pub fn insert(&mut self, batch: &RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return check_columns(&self.table.state.shape, batch);
        }
        let sorted = self.store(batch)?;
        self.row_count += batch.num_rows() as u64;
        if let Some(load) = &mut self.load {
            return load.push(sorted);
        }
        self.pending_rows += sorted.batch.num_rows();
        self.pending_bytes += sorted.batch.get_array_memory_size();
        self.pending.push(sorted);
        let options = &self.shared.options;
        if self.pending_rows >= options.bulk_rows || self.pending_bytes >= options.memtable_bytes {
            let mut load = Load::new(&self.shared, &self.table.state.shape, self.on_conflict)?;
            for sorted in self.pending.drain(..) {
                load.push(sorted)?;
            }
            self.load = Some(load);
        }
        Ok(())
    }

    /// Rows given to [`Write::insert`] so far.
    pub fn row_count(&self) -> u64 {
        self.row_count
    }

    /// Checks a batch and makes it one of the stored schema, with keys.
    fn store(&self, batch: &RecordBatch) -> Result<Sorted> {
        let shape = &self.table.state.shape;
        check_columns(shape, batch)?;
        let mut columns: Vec<ArrayRef> = batch.columns().to_vec();
        if shape.meta.has_row_id() {
            let count = batch.num_rows() as u64;
            let first = self.table.state.take_row_ids(count);
            columns.push(Arc::new(UInt64Array::from_iter_values(first..first + count)));
        }
        let batch = RecordBatch::try_new(Arc::clone(&shape.stored_schema), columns)
            .map_err(|e| Error::invalid(format!("table {}: {e}", shape.meta.name)))?;
        let keys =
            shape.keys(&batch).map_err(|e| e.context(format_args!("table {}", shape.meta.name)))?;
        Ok(Sorted { batch, keys })
    }

    /// Ends the gathering: what there is, in key order, duplicates of a unique key settled among
    /// themselves.
    pub(super) fn gather(&mut self, result: &mut WriteResult) -> Result<Gathered> {
        if let Some(load) = self.load.take() {
            let (segments, train_time) = load.finish(result)?;
            return Ok(Gathered::Segments(segments, train_time));
        }
        let pending = std::mem::take(&mut self.pending);
        let shape = &self.table.state.shape;
        let all = match <[Sorted; 1]>::try_from(pending) {
            Ok([one]) => one,
            Err(pending) if pending.is_empty() => return Ok(Gathered::Small(None)),
            Err(pending) => concat(shape, &pending)?,
        };
        let sorted = sort(shape, all, self.on_conflict, result)?;
        Ok(Gathered::Small(Some(sorted)))
    }
}

/// Several batches as one.
pub(super) fn concat(shape: &TableShape, parts: &[Sorted]) -> Result<Sorted> {
    let batch =
        arrow::compute::concat_batches(&shape.stored_schema, parts.iter().map(|p| &p.batch))?;
    let keys = KeyColumn::concat(&parts.iter().map(|p| &p.keys).collect::<Vec<_>>())?;
    Ok(Sorted { batch, keys })
}

/// Sorts rows by key (equal keys stay in the order of arrival), and settles duplicates where keys are
/// unique.
fn sort(
    shape: &TableShape,
    rows: Sorted,
    on_conflict: OnConflict,
    result: &mut WriteResult,
) -> Result<Sorted> {
    let order = if rows.keys.is_sorted() { None } else { Some(rows.keys.sort_indices()) };
    let unique = shape.meta.key_kind == crate::engine::KeyKind::Primary;
    let sorted_keys = order.as_ref().map(|o| rows.keys.take(o)).transpose()?;
    let keys = sorted_keys.as_ref().unwrap_or(&rows.keys);
    let keep = if unique { distinct(shape, keys, on_conflict, result)? } else { None };
    let order = match (order, &keep) {
        (None, None) => return Ok(rows),
        (Some(order), None) => order,
        (None, Some(keep)) => keep.clone(),
        (Some(order), Some(keep)) => keep.iter().map(|i| order[*i as usize]).collect(),
    };
    let indices = arrow::array::UInt32Array::from(order);
    let batch = arrow::compute::take_record_batch(&rows.batch, &indices)?;
    let keys = match (keep, sorted_keys) {
        (Some(keep), Some(sorted)) => sorted.take(&keep)?,
        (Some(keep), None) => rows.keys.take(&keep)?,
        (None, Some(sorted)) => sorted,
        (None, None) => rows.keys,
    };
    Ok(Sorted { batch, keys })
}

/// Which of sorted rows to keep so that every key occurs once; `None` means all.
pub(super) fn distinct(
    shape: &TableShape,
    keys: &KeyColumn,
    on_conflict: OnConflict,
    result: &mut WriteResult,
) -> Result<Option<Vec<u32>>> {
    let Some(first) = keys.first_repeat() else { return Ok(None) };
    if on_conflict == OnConflict::Error {
        return Err(duplicate(shape, &keys.slice(first, 1), "occurs twice in the rows to insert"));
    }
    let len = keys.len();
    let equal = |a: usize, b: usize| crate::engine::key::compare(keys, a, keys, b).is_eq();
    let mut keep = Vec::with_capacity(len);
    for i in 0..len {
        let (kept, count) = match on_conflict {
            OnConflict::Replace => (i + 1 == len || !equal(i, i + 1), &mut result.replaced_count),
            _ => (i == 0 || !equal(i - 1, i), &mut result.ignored_count),
        };
        if kept {
            keep.push(i as u32);
        } else {
            *count += 1;
        }
    }
    Ok(Some(keep))
}

/// The error for a key that exists; `keys` holds it alone.
pub(super) fn duplicate(shape: &TableShape, keys: &KeyColumn, why: &str) -> Error {
    let names: Vec<String> = shape
        .key_indices
        .iter()
        .map(|i| format!("\"{}\"", shape.meta.columns[*i].field.name()))
        .collect();
    let values: Vec<String> = match shape.codec.decode(keys) {
        Ok(columns) => columns
            .iter()
            .map(|c| array_value_to_string(c, 0).unwrap_or_else(|_| "?".to_owned()))
            .collect(),
        Err(e) => return e,
    };
    Error::duplicate_key(format!(
        "table {}: the primary key ({}) = ({}) {why}",
        shape.meta.name,
        names.join(", "),
        values.join(", ")
    ))
}

/// Checks number and types of a batch's columns, and NOT NULL by its values.
fn check_columns(shape: &TableShape, batch: &RecordBatch) -> Result<()> {
    let meta = &shape.meta;
    if batch.num_columns() != meta.columns.len() {
        return Err(Error::invalid(format!(
            "table {} has {} columns, the rows have {}",
            meta.name,
            meta.columns.len(),
            batch.num_columns()
        )));
    }
    for (column, array) in meta.columns.iter().zip(batch.columns()) {
        let field = &column.field;
        if array.data_type() != field.data_type() {
            return Err(Error::invalid(format!(
                "table {}: column \"{}\" has the type {}, the rows have {}",
                meta.name,
                field.name(),
                field.data_type(),
                array.data_type()
            )));
        }
        if !field.is_nullable() && array.logical_null_count() > 0 {
            let row = array
                .logical_nulls()
                .and_then(|n| (0..n.len()).find(|i| n.is_null(*i)))
                .unwrap_or_default();
            return Err(Error::constraint(format!(
                "table {}: column \"{}\" is NOT NULL, and row {} of the rows to insert has no value for it",
                meta.name,
                field.name(),
                row + 1
            )));
        }
        if let Err(row) = check_values(array) {
            return Err(Error::constraint(format!(
                "table {}: column \"{}\", row {} of the rows to insert: the value is out of the range that {} can be kept in",
                meta.name,
                field.name(),
                row + 1,
                field.data_type()
            )));
        }
    }
    Ok(())
}
