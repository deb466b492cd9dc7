//! Decoding columns from parts of a Parquet file that are in memory.

use std::ops::Range;

use arrow::array::{Array, ArrayRef};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ParquetRecordBatchReaderBuilder, RowSelection, RowSelectionPolicy,
};
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};
use prost::bytes::{Buf, Bytes, buf::Reader};

use super::blocks::BlockReader;
use super::footer::Footer;
use super::{plain, types};
use crate::engine::error::{Error, Result};

/// Ranges closer than this are read as one: a read costs more than the bytes between.
const GAP_BYTES: u64 = 32 << 10;

/// Parts of a file, verified.
#[derive(Debug)]
pub(super) struct FileRanges {
    /// Offset and contents, ascending.
    parts: Vec<(u64, Bytes)>,
    len: u64,
}

impl FileRanges {
    /// Reads `ranges`.
    pub(super) fn read(file: &BlockReader<'_>, mut ranges: Vec<Range<u64>>) -> Result<Self> {
        ranges.sort_unstable_by_key(|range| range.start);
        let mut merged: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match merged.last_mut() {
                Some(last) if range.start <= last.end + GAP_BYTES => {
                    last.end = last.end.max(range.end);
                }
                _ => merged.push(range),
            }
        }
        if merged.len() > 1 {
            // The system fetches all of them while the first is waited for.
            merged.iter().for_each(|range| file.will_read(range));
        }
        let parts = merged
            .into_iter()
            .map(|range| Ok((range.start, file.read(range)?)))
            .collect::<Result<_>>()?;
        Ok(Self { parts, len: file.len() })
    }

    /// The bytes of `range`, if they were read.
    pub(super) fn part(&self, range: &Range<u64>) -> Option<Bytes> {
        self.get_bytes(range.start, (range.end - range.start) as usize).ok()
    }

    fn from(&self, start: u64) -> parquet::errors::Result<Bytes> {
        let part = self.parts.partition_point(|(offset, _)| *offset <= start).checked_sub(1);
        part.and_then(|part| {
            let (offset, bytes) = &self.parts[part];
            let skipped = (start - offset) as usize;
            (skipped <= bytes.len()).then(|| bytes.slice(skipped..))
        })
        .ok_or_else(|| ParquetError::General(format!("offset {start} was not read")))
    }
}

impl Length for FileRanges {
    fn len(&self) -> u64 {
        self.len
    }
}

impl ChunkReader for FileRanges {
    type T = Reader<Bytes>;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        Ok(self.from(start)?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        let bytes = self.from(start)?;
        if bytes.len() < length {
            return Err(ParquetError::General(format!(
                "bytes {start}..{} were not read",
                start + length as u64
            )));
        }
        Ok(bytes.slice(..length))
    }
}

/// The selection of `rows` (ascending, distinct) of a row group.
pub(super) fn selection(rows: &[u32]) -> RowSelection {
    let total = rows.last().map_or(0, |last| *last as usize + 1);
    let runs =
        rows.chunk_by(|a, b| a + 1 == *b).map(|run| run[0] as usize..run[0] as usize + run.len());
    RowSelection::from_consecutive_ranges(runs, total)
}

/// Decodes the whole column at `index` of a row group.
pub(super) fn column(
    footer: &Footer,
    bytes: FileRanges,
    index: usize,
    group: usize,
) -> Result<ArrayRef> {
    match plain_column(footer, &bytes, index, group) {
        Some(column) => types::from_stored(column, footer.declared.field(index).data_type()),
        None => Ok(columns(footer, bytes, &[index], group, None)?.swap_remove(0)),
    }
}

/// The column, if all its pages are plain.
fn plain_column(
    footer: &Footer,
    bytes: &FileRanges,
    index: usize,
    group: usize,
) -> Option<ArrayRef> {
    let (chunk, pages) = footer.plain_chunk(index, group)?;
    let data_type = footer.parquet.schema().field(index).data_type();
    let rows = usize::try_from(footer.parquet.metadata().row_group(group).num_rows()).ok()?;
    plain::decode(data_type, chunk.column_descr(), rows, pages, |range| {
        bytes.get_bytes(range.start, (range.end - range.start) as usize).ok()
    })
}

/// Decodes the columns at `indices` of a row group: all rows, or the selected ones and how many they are.
pub(super) fn columns(
    footer: &Footer,
    bytes: FileRanges,
    indices: &[usize],
    group: usize,
    selected: Option<(RowSelection, usize)>,
) -> Result<Vec<ArrayRef>> {
    let mask = ProjectionMask::roots(footer.parquet.parquet_schema(), indices.iter().copied());
    let all_rows = footer.parquet.metadata().row_group(group).num_rows() as usize;
    let mut builder =
        ParquetRecordBatchReaderBuilder::new_with_metadata(bytes, footer.parquet.clone())
            .with_projection(mask)
            .with_row_groups(vec![group])
            // A mask would decode pages between the selected ones, which were not read.
            .with_row_selection_policy(RowSelectionPolicy::Selectors);
    builder = match selected {
        Some((selection, rows)) => builder.with_row_selection(selection).with_batch_size(rows),
        None => builder.with_batch_size(all_rows),
    };
    let batches = builder.build()?.collect::<Result<Vec<_>, _>>().map_err(damaged)?;
    let mut roots = indices.to_vec();
    roots.sort_unstable();
    roots.dedup();
    indices
        .iter()
        .map(|index| {
            let place = roots.binary_search(index).unwrap_or_default();
            let parts: Vec<&dyn Array> = batches.iter().map(|b| b.column(place).as_ref()).collect();
            let column = match batches.as_slice() {
                [] => return Err(Error::corruption("a row group has no rows")),
                [one] => ArrayRef::clone(one.column(place)),
                _ => arrow::compute::concat(&parts)?,
            };
            types::from_stored(column, footer.declared.field(*index).data_type())
        })
        .collect()
}

/// The column, if it has `rows` rows.
pub(super) fn check_length(column: ArrayRef, rows: usize) -> Result<ArrayRef> {
    if column.len() == rows {
        return Ok(column);
    }
    Err(Error::corruption(format!("a column has {} rows where {rows} were written", column.len())))
}

fn damaged(error: arrow::error::ArrowError) -> Error {
    Error::corruption(format!("cannot decode: {error}")).with_source(error)
}
