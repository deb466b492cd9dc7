//! Single rows of column chunks of plain pages. Where a value lies follows from the row, so that only the blocks that hold
//! values are read, and nothing is decoded.

use std::ops::Range;

use arrow::array::{ArrayData, ArrayRef, BooleanBufferBuilder, make_array};
use arrow::buffer::{MutableBuffer, NullBuffer};
use parquet::basic::Encoding;
use parquet::file::page_index::offset_index::PageLocation;

use super::decode::FileRanges;
use super::footer::Footer;
use super::plain;

/// What precedes the values of a page without NULLs is shorter than this: the header, and a run of levels.
const HEAD_BYTES: u64 = 4 << 10;

/// A column chunk of plain pages.
#[derive(Debug)]
pub(super) struct PlainRows<'a> {
    footer: &'a Footer,
    index: usize,
    group: usize,
    width: usize,
    /// Whether values may be NULL: then where one lies depends on those before it in its page.
    nulls: bool,
    pages: &'a [PageLocation],
}

impl<'a> PlainRows<'a> {
    /// The column at `index` of a row group, if all its pages are plain.
    pub(super) fn of(footer: &'a Footer, index: usize, group: usize) -> Option<Self> {
        let (chunk, pages) = footer.plain_chunk(index, group)?;
        let data_type = footer.parquet.schema().field(index).data_type();
        let width = plain::width(data_type, chunk.column_descr())?;
        // Nothing is decoded that would notice another encoding.
        let plain = chunk.encodings().all(|e| matches!(e, Encoding::PLAIN | Encoding::RLE));
        let counted = chunk.statistics().and_then(|statistics| statistics.null_count_opt());
        let nulls = chunk.column_descr().max_def_level() > 0 && counted != Some(0);
        plain.then_some(Self { footer, index, group, width, nulls, pages })
    }

    /// Where the page of `row` lies, its rows, and which of them `row` is.
    fn page(&self, row: u32) -> Option<(Range<u64>, usize, usize)> {
        let row = i64::from(row);
        let at = self.pages.partition_point(|page| page.first_row_index <= row).checked_sub(1)?;
        let page = &self.pages[at];
        let rows = self.footer.parquet.metadata().row_group(self.group).num_rows();
        let end = self.pages.get(at + 1).map_or(rows, |next| next.first_row_index);
        let count = usize::try_from(end - page.first_row_index).ok()?;
        let in_page = usize::try_from(row - page.first_row_index).ok()?;
        let start = u64::try_from(page.offset).ok()?;
        let bytes = start..start + u64::try_from(page.compressed_page_size).ok()?;
        (in_page < count).then_some((bytes, count, in_page))
    }

    /// What to read for `row`: its value, or its page.
    fn place(&self, row: u32) -> Option<Range<u64>> {
        let (page, count, row) = self.page(row)?;
        if self.nulls {
            return Some(page);
        }
        // Values end where the page does.
        let values = page.end.checked_sub((count * self.width) as u64)?;
        (values > page.start && values - page.start < HEAD_BYTES).then_some(())?;
        let start = values + (row * self.width) as u64;
        Some(start..start + self.width as u64)
    }

    /// What to read for `rows`, which ascend; `None` where a page is not as expected.
    pub(super) fn ranges(&self, rows: &[u32]) -> Option<Vec<Range<u64>>> {
        rows.iter().map(|row| self.place(*row)).collect()
    }

    /// The values of `rows`, as stored; `None` where a page is not plain after all.
    pub(super) fn read(&self, rows: &[u32], bytes: &FileRanges) -> Option<ArrayRef> {
        let mut values = MutableBuffer::with_capacity(rows.len() * self.width);
        let mut valid = self.nulls.then(|| BooleanBufferBuilder::new(rows.len()));
        for row in rows {
            let range = self.place(*row)?;
            let found = bytes.part(&range)?;
            let Some(valid) = &mut valid else {
                values.extend_from_slice(&found);
                continue;
            };
            let (_, count, row) = self.page(*row)?;
            let value = plain::value_in_page(&found, count, self.width, row)?;
            valid.append(value.is_some());
            match value {
                Some(value) => values.extend_from_slice(value),
                None => values.extend_zeros(self.width),
            }
        }
        let nulls = valid.map(|mut valid| NullBuffer::new(valid.finish()));
        let data_type = self.footer.parquet.schema().field(self.index).data_type();
        let data = ArrayData::builder(data_type.clone())
            .len(rows.len())
            .nulls(nulls.filter(|nulls| nulls.null_count() > 0))
            .add_buffer(values.into())
            .build()
            .ok()?;
        Some(make_array(data))
    }
}
