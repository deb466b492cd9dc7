//! Scans: batches of a table in key order, either way.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::merge::{Layout, Output, Reader, Rows};
use super::plan::Plan;
use super::state::{TableShape, TableState};
use super::{ROW_ADDRESS_COLUMN, ScanRequest};
use crate::engine::error::{Error, Result};

/// Batches of a table in key order. An iterator: nothing is read before it is asked for.
#[derive(Debug)]
pub struct Scan {
    schema: SchemaRef,
    layout: Layout,
    batch_rows: usize,
    reverse: bool,
    /// What is left to read, the next piece last.
    plan: Plan,
    row_count: u64,
    reader: Option<Reader>,
    failed: bool,
}

impl Scan {
    pub(crate) fn new(table: &TableState, request: &ScanRequest) -> Result<Self> {
        let shape = &table.shape;
        let (schema, outputs) = outputs(shape, request.projection.as_deref(), request.row_address)?;
        let layout = Layout { outputs, repeats: shape.repeats(), with_keys: false };
        let mut plan = Plan::new(table, &request.range)?;
        let total = plan.live_count;
        let offset = request.offset.min(total);
        let limit = request.limit.unwrap_or(u64::MAX).min(total - offset);
        if limit < total {
            let first = if request.reverse { total - offset - limit } else { offset };
            plan.window(first, limit, layout.repeats)?;
        }
        if !request.reverse {
            plan.pieces.reverse();
        }
        Ok(Self {
            schema,
            layout,
            batch_rows: request.batch_rows.max(1),
            reverse: request.reverse,
            row_count: plan.live_count,
            plan,
            reader: None,
            failed: false,
        })
    }

    /// The schema of the batches.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// Live rows that the whole scan returns, exactly.
    pub fn row_count(&self) -> u64 {
        self.row_count
    }

    fn batch(&self, rows: Rows) -> Result<RecordBatch> {
        let options = RecordBatchOptions::new().with_row_count(Some(rows.row_count));
        Ok(RecordBatch::try_new_with_options(self.schema(), rows.columns, &options)?)
    }

    fn next_forward(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(reader) = &mut self.reader {
                if let Some(rows) = reader.next()? {
                    return self.batch(rows).map(Some);
                }
                self.reader = None;
            }
            let Some(piece) = self.plan.pieces.pop() else { return Ok(None) };
            self.reader = Some(Reader::new(piece.inputs, self.layout.clone(), self.batch_rows)?);
        }
    }

    /// The last batch of what is left, its rows turned around.
    fn next_reverse(&mut self) -> Result<Option<RecordBatch>> {
        let Some(piece) = self.plan.pieces.pop() else { return Ok(None) };
        let take = piece.live_count.min(self.batch_rows as u64);
        let rest = piece.live_count - take;
        let mut last = Plan { live_count: piece.live_count, pieces: vec![piece] };
        if rest > 0 {
            let mut first = last.clone();
            first.window(0, rest, self.layout.repeats)?;
            self.plan.pieces.append(&mut first.pieces);
            last.window(rest, take, self.layout.repeats)?;
        }
        let mut batches = Vec::new();
        for piece in last.pieces {
            let mut reader = Reader::new(piece.inputs, self.layout.clone(), self.batch_rows)?;
            while let Some(rows) = reader.next()? {
                batches.push(self.batch(rows)?);
            }
        }
        let batch = arrow::compute::concat_batches(&self.schema, &batches)?;
        if batch.num_columns() == 0 {
            return Ok(Some(batch));
        }
        let backwards = UInt64Array::from_iter_values((0..batch.num_rows() as u64).rev());
        Ok(Some(arrow::compute::take_record_batch(&batch, &backwards)?))
    }
}

impl Iterator for Scan {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let next = if self.reverse { self.next_reverse() } else { self.next_forward() };
        self.failed = next.is_err();
        next.transpose()
    }
}

/// The schema and the columns of a projection.
pub(crate) fn outputs(
    shape: &TableShape,
    projection: Option<&[usize]>,
    row_address: bool,
) -> Result<(SchemaRef, Vec<Output>)> {
    let columns = &shape.meta.columns;
    let all: Vec<usize>;
    let wanted = match projection {
        Some(wanted) => wanted,
        None => {
            all = (0..columns.len()).collect();
            &all
        }
    };
    let mut fields = Vec::with_capacity(wanted.len() + 1);
    let mut outputs = Vec::with_capacity(wanted.len() + 1);
    for index in wanted {
        let column = columns.get(*index).ok_or_else(|| {
            Error::invalid(format!(
                "table {} has {} columns: there is none at {index}",
                shape.meta.name,
                columns.len()
            ))
        })?;
        fields.push(Arc::clone(&column.field));
        outputs.push(shape.outputs[*index].clone());
    }
    if row_address {
        fields.push(Arc::new(Field::new(ROW_ADDRESS_COLUMN, DataType::UInt64, false)));
        outputs.push(Output::RowAddress);
    }
    Ok((Arc::new(Schema::new(fields)), outputs))
}
