//! Column chunks of plain pages: fixed-width values as they lie in memory. Writing one copies no value, and reading one copies
//! each once, where the general encoder and decoder go value by value.
//!
//! The bytes are those of the Parquet format (data pages of version 1, PLAIN, not compressed), and any Parquet reader reads
//! them; a page that is anything else is left to the general decoder.

use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayData, ArrayRef, BooleanBufferBuilder, make_array};
use arrow::buffer::{BooleanBuffer, Buffer, MutableBuffer, NullBuffer};
use arrow::datatypes::DataType;
use parquet::basic::{BoundaryOrder, Compression, Encoding, Type};
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::{ColumnChunkMetaData, ColumnIndexBuilder, OffsetIndexBuilder};
use parquet::file::page_index::offset_index::PageLocation;
use parquet::file::reader::{ChunkReader, Length};
use parquet::file::statistics::Statistics;
use parquet::schema::types::{ColumnDescPtr, ColumnDescriptor};
use prost::bytes::Bytes;

use super::properties::PAGE_ROWS;

/// The width of a column's values, if plain pages can hold them as they lie in memory.
pub(super) fn width(data_type: &DataType, column: &ColumnDescriptor) -> Option<usize> {
    let width = match column.physical_type() {
        Type::INT32 | Type::FLOAT => 4,
        Type::INT64 | Type::DOUBLE => 8,
        _ => return None,
    };
    let flat = column.max_rep_level() == 0 && column.path().parts().len() == 1;
    (flat && data_type.primitive_width() == Some(width)).then_some(width)
}

/// A column chunk, its values still in the arrays that they came from.
#[derive(Debug, Default)]
pub(super) struct PlainChunk {
    pieces: Vec<Buffer>,
    len: u64,
}

impl PlainChunk {
    fn push(&mut self, piece: Buffer) {
        self.len += piece.len() as u64;
        self.pieces.push(piece);
    }

    /// Encodes a column of a row group. `ascending` says that its values ascend and none is NULL: then their bounds are known.
    pub(super) fn encode(
        column: &ColumnDescPtr,
        width: usize,
        arrays: &[ArrayRef],
        ascending: bool,
    ) -> ParquetResult<(Self, ColumnCloseResult)> {
        let mut chunk = Self::default();
        let mut offsets = OffsetIndexBuilder::new();
        let mut index = ColumnIndexBuilder::new(column.physical_type());
        let mut rows = 0;
        for array in arrays.iter().filter(|array| !array.is_empty()) {
            for start in (0..array.len()).step_by(PAGE_ROWS) {
                let page = array.slice(start, PAGE_ROWS.min(array.len() - start));
                let offset = chunk.len;
                chunk.add_page(&page, width, column.max_def_level() > 0);
                offsets.append_offset_and_size(offset as i64, (chunk.len - offset) as i32);
                offsets.append_row_count(page.len() as i64);
                rows += page.len() as u64;
                if ascending {
                    index.append(
                        false,
                        value(&page, width, 0),
                        value(&page, width, page.len() - 1),
                        0,
                    );
                }
            }
        }
        let mut metadata = ColumnChunkMetaData::builder(Arc::clone(column))
            .set_encodings(vec![Encoding::PLAIN, Encoding::RLE])
            .set_compression(Compression::UNCOMPRESSED)
            .set_num_values(rows as i64)
            .set_total_compressed_size(chunk.len as i64)
            .set_total_uncompressed_size(chunk.len as i64)
            .set_data_page_offset(0);
        let mut column_index = None;
        if ascending && let (Some(first), Some(last)) = (arrays.first(), arrays.last()) {
            let bounds = (value(first, width, 0), value(last, width, last.len() - 1));
            metadata =
                metadata.set_statistics(statistics(column.physical_type(), &bounds.0, &bounds.1)?);
            index.set_boundary_order(BoundaryOrder::ASCENDING);
            column_index = Some(index.build()?);
        } else if column.max_def_level() > 0 {
            // Where none is NULL, a reader of one row knows where its value lies.
            let nulls = arrays.iter().map(|array| array.null_count() as u64).sum();
            metadata = metadata.set_statistics(unbounded(column.physical_type(), nulls)?);
        }
        let close = ColumnCloseResult {
            bytes_written: chunk.len,
            rows_written: rows,
            metadata: metadata.build()?,
            bloom_filter: None,
            column_index,
            offset_index: Some(offsets.build()),
        };
        Ok((chunk, close))
    }

    /// Adds a page: its header, which rows are not NULL, and the values of those.
    fn add_page(&mut self, rows: &ArrayRef, width: usize, nullable: bool) {
        let levels = if nullable { definition_levels(rows) } else { Vec::new() };
        let data = rows.to_data();
        let values = data.buffers()[0].slice_with_length(data.offset() * width, rows.len() * width);
        let values = match rows.nulls() {
            Some(nulls) if nulls.null_count() > 0 => present(&values, nulls, width),
            _ => values,
        };
        let mut head = page_header(rows.len(), levels.len() + values.len());
        head.extend_from_slice(&levels);
        self.push(head.into());
        self.push(values);
    }
}

/// The bytes of a value.
fn value(array: &ArrayRef, width: usize, row: usize) -> Vec<u8> {
    let data = array.to_data();
    data.buffers()[0][(data.offset() + row) * width..][..width].to_vec()
}

fn statistics(physical: Type, min: &[u8], max: &[u8]) -> ParquetResult<Statistics> {
    macro_rules! of {
        ($make:ident, $type:ty) => {{
            let read = |bytes: &[u8]| bytes.try_into().ok().map(<$type>::from_le_bytes);
            Ok(Statistics::$make(read(min), read(max), None, Some(0), false))
        }};
    }
    match physical {
        Type::INT32 => of!(int32, i32),
        Type::INT64 => of!(int64, i64),
        Type::FLOAT => of!(float, f32),
        Type::DOUBLE => of!(double, f64),
        other => Err(ParquetError::General(format!("{other} is not of a fixed width"))),
    }
}

/// Statistics of how many values are NULL alone.
fn unbounded(physical: Type, nulls: u64) -> ParquetResult<Statistics> {
    let nulls = Some(nulls);
    match physical {
        Type::INT32 => Ok(Statistics::int32(None, None, None, nulls, false)),
        Type::INT64 => Ok(Statistics::int64(None, None, None, nulls, false)),
        Type::FLOAT => Ok(Statistics::float(None, None, None, nulls, false)),
        Type::DOUBLE => Ok(Statistics::double(None, None, None, nulls, false)),
        other => Err(ParquetError::General(format!("{other} is not of a fixed width"))),
    }
}

/// The values that are not NULL, together.
fn present(values: &[u8], nulls: &NullBuffer, width: usize) -> Buffer {
    let mut kept = MutableBuffer::with_capacity((nulls.len() - nulls.null_count()) * width);
    for (start, end) in nulls.valid_slices() {
        kept.extend_from_slice(&values[start * width..end * width]);
    }
    kept.into()
}

/// Definition levels as version 1 pages have them: a length, then one run. A page without NULLs is a run of ones; else the run
/// is bit-packed, and that is how Arrow lays out validity.
fn definition_levels(rows: &ArrayRef) -> Vec<u8> {
    let mut run = Vec::new();
    match rows.nulls().filter(|nulls| nulls.null_count() > 0) {
        None => {
            put_varint(&mut run, (rows.len() as u64) << 1);
            run.push(1);
        }
        Some(nulls) => {
            let groups = nulls.len().div_ceil(8);
            put_varint(&mut run, (groups as u64) << 1 | 1);
            run.extend_from_slice(&nulls.inner().sliced()[..groups]);
        }
    }
    let mut levels = (run.len() as u32).to_le_bytes().to_vec();
    levels.append(&mut run);
    levels
}

/// The header of a data page in Thrift's compact protocol: `PageHeader` of the Parquet format.
fn page_header(rows: usize, bytes: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(32);
    // Field headers: how far the id is from the one before, and the type (5: i32, 12: struct).
    put_i32(&mut out, 0x15, 0); // 1, type: DATA_PAGE
    put_i32(&mut out, 0x15, bytes); // 2, uncompressed_page_size
    put_i32(&mut out, 0x15, bytes); // 3, compressed_page_size
    out.push(0x2c); // 5, data_page_header
    put_i32(&mut out, 0x15, rows); // 1, num_values
    put_i32(&mut out, 0x15, 0); // 2, encoding: PLAIN
    put_i32(&mut out, 0x15, 3); // 3, definition_level_encoding: RLE
    put_i32(&mut out, 0x15, 3); // 4, repetition_level_encoding: RLE
    out.extend_from_slice(&[0, 0]);
    out
}

fn put_i32(out: &mut Vec<u8>, field: u8, value: usize) {
    out.push(field);
    // Zigzag: none is negative.
    put_varint(out, (value as u64) << 1);
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

impl Length for PlainChunk {
    fn len(&self) -> u64 {
        self.len
    }
}

impl ChunkReader for PlainChunk {
    type T = ChunkBytes;

    fn get_read(&self, start: u64) -> ParquetResult<ChunkBytes> {
        if start > 0 {
            return Err(ParquetError::General("a chunk is read from its start".to_owned()));
        }
        Ok(ChunkBytes { pieces: self.pieces.clone(), piece: 0, at: 0 })
    }

    fn get_bytes(&self, _start: u64, _length: usize) -> ParquetResult<Bytes> {
        Err(ParquetError::General("a chunk is read as a whole".to_owned()))
    }
}

/// Reads a chunk from its start.
#[derive(Debug)]
pub(super) struct ChunkBytes {
    pieces: Vec<Buffer>,
    piece: usize,
    at: usize,
}

impl Read for ChunkBytes {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while let Some(piece) = self.pieces.get(self.piece) {
            let rest = &piece[self.at..];
            if rest.is_empty() {
                (self.piece, self.at) = (self.piece + 1, 0);
                continue;
            }
            let taken = rest.len().min(out.len());
            out[..taken].copy_from_slice(&rest[..taken]);
            self.at += taken;
            return Ok(taken);
        }
        Ok(0)
    }
}

/// Decodes the pages of a column chunk into one array; `None` where one is not a plain page. `bytes` gives a part of the file.
pub(super) fn decode(
    data_type: &DataType,
    column: &ColumnDescriptor,
    rows: usize,
    pages: &[PageLocation],
    bytes: impl Fn(Range<u64>) -> Option<Bytes>,
) -> Option<ArrayRef> {
    let width = width(data_type, column)?;
    let nullable = column.max_def_level() > 0;
    let mut values = MutableBuffer::with_capacity(rows * width);
    let mut valid: Option<BooleanBufferBuilder> = None;
    let mut done = 0;
    for (i, location) in pages.iter().enumerate() {
        let end = pages.get(i + 1).map_or(rows, |next| next.first_row_index as usize);
        let count = end.checked_sub(location.first_row_index as usize)?;
        let start = u64::try_from(location.offset).ok()?;
        let page = bytes(start..start + u64::try_from(location.compressed_page_size).ok()?)?;
        let body = body(&page, count)?;
        let (mask, body) = if nullable { split_levels(body, count)? } else { (None, body) };
        match mask {
            None => {
                values.extend_from_slice((body.len() == count * width).then_some(body)?);
                if let Some(valid) = &mut valid {
                    valid.append_n(count, true);
                }
            }
            Some(mask) => {
                spread(&mut values, body, &mask, width)?;
                let valid = valid.get_or_insert_with(|| {
                    let mut valid = BooleanBufferBuilder::new(rows);
                    valid.append_n(done, true);
                    valid
                });
                valid.append_buffer(&mask);
            }
        }
        done = end;
    }
    if done != rows {
        return None;
    }
    let nulls = valid.map(|mut valid| NullBuffer::new(valid.finish()));
    let data = ArrayData::builder(data_type.clone())
        .len(rows)
        .nulls(nulls)
        .add_buffer(values.into())
        .build()
        .ok()?;
    Some(make_array(data))
}

/// The value of row `row` of a plain page of nullable values and `rows` rows: `None` in `Some` where it is NULL.
pub(super) fn value_in_page(
    page: &[u8],
    rows: usize,
    width: usize,
    row: usize,
) -> Option<Option<&[u8]>> {
    let (mask, values) = split_levels(body(page, rows)?, rows)?;
    let before = match mask {
        None => row,
        Some(mask) if !mask.value(row) => return Some(None),
        Some(mask) => mask.slice(0, row).count_set_bits(),
    };
    values.get(before * width..(before + 1) * width).map(Some)
}

/// What follows a page's header, if that is one of a plain page of `rows` rows.
fn body(page: &[u8], rows: usize) -> Option<&[u8]> {
    // A header that has more in it, or in another order, is not ours to understand.
    let mut at = page;
    let mut field = |header: u8| {
        at = at.strip_prefix(&[header])?;
        let (value, rest) = take_varint(at)?;
        at = rest;
        (value & 1 == 0).then_some(value >> 1)
    };
    (field(0x15)? == 0).then_some(())?;
    let (uncompressed, compressed) = (field(0x15)?, field(0x15)?);
    at = at.strip_prefix(&[0x2c])?;
    let mut field = |header: u8| {
        at = at.strip_prefix(&[header])?;
        let (value, rest) = take_varint(at)?;
        at = rest;
        (value & 1 == 0).then_some(value >> 1)
    };
    let plain = field(0x15)? == rows as u64 && field(0x15)? == 0 && field(0x15)? == 3;
    (plain && field(0x15)? == 3).then_some(())?;
    let body = at.strip_prefix(&[0, 0])?;
    (uncompressed == compressed && body.len() as u64 == compressed).then_some(body)
}

/// Which of a page's rows are not NULL, if some are, and the values.
fn split_levels(body: &[u8], rows: usize) -> Option<(Option<BooleanBuffer>, &[u8])> {
    let (length, rest) = body.split_first_chunk::<4>()?;
    let (levels, values) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    let (header, run) = take_varint(levels)?;
    if header & 1 == 0 {
        return (header >> 1 == rows as u64 && run == [1]).then_some((None, values));
    }
    let groups = rows.div_ceil(8);
    (header >> 1 == groups as u64 && run.len() == groups).then_some(())?;
    Some((Some(BooleanBuffer::new(Buffer::from(run), 0, rows)), values))
}

/// Puts values in their rows, zeros between.
fn spread(
    out: &mut MutableBuffer,
    values: &[u8],
    mask: &BooleanBuffer,
    width: usize,
) -> Option<()> {
    let base = out.len();
    out.resize(base + mask.len() * width, 0);
    let mut rest = values;
    for (start, end) in mask.set_slices() {
        let (run, after) = rest.split_at_checked((end - start) * width)?;
        out[base + start * width..base + end * width].copy_from_slice(run);
        rest = after;
    }
    rest.is_empty().then_some(())
}

fn take_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (i, byte) in bytes.iter().take(9).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[i + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        Date32Array, Float64Array, Int64Array, RecordBatch, TimestampMicrosecondArray, UInt32Array,
    };
    use arrow::compute::concat;
    use arrow::datatypes::{Field, Schema, SchemaRef};
    use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
    use parquet::arrow::{ArrowSchemaConverter, ArrowWriter};
    use parquet::file::metadata::PageIndexPolicy;
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use proptest::prelude::*;

    use super::*;

    fn schema(array: &ArrayRef, nullable: bool) -> SchemaRef {
        Arc::new(Schema::new(vec![Field::new("v", array.data_type().clone(), nullable)]))
    }

    /// A file of one row group whose only column is written as plain pages.
    fn file(schema: &SchemaRef, arrays: &[ArrayRef], ascending: bool) -> Bytes {
        let descriptor = ArrowSchemaConverter::new().convert(schema).unwrap();
        let column = descriptor.column(0);
        let width = width(schema.field(0).data_type(), &column).unwrap();
        let mut properties = WriterProperties::builder().build();
        parquet::arrow::add_encoded_arrow_schema_to_metadata(schema, &mut properties);
        let root = descriptor.root_schema_ptr();
        let mut file = SerializedFileWriter::new(Vec::new(), root, Arc::new(properties)).unwrap();
        let mut group = file.next_row_group().unwrap();
        let (chunk, close) = PlainChunk::encode(&column, width, arrays, ascending).unwrap();
        group.append_column(&chunk, close).unwrap();
        group.close().unwrap();
        file.into_inner().unwrap().into()
    }

    fn general(file: &Bytes) -> ArrayRef {
        let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Required);
        let builder =
            ParquetRecordBatchReaderBuilder::try_new_with_options(file.clone(), options).unwrap();
        let batches: Vec<RecordBatch> = builder.build().unwrap().map(Result::unwrap).collect();
        let parts: Vec<&dyn Array> = batches.iter().map(|b| b.column(0).as_ref()).collect();
        concat(&parts).unwrap()
    }

    fn ours(file: &Bytes) -> Option<ArrayRef> {
        let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Required);
        let builder =
            ParquetRecordBatchReaderBuilder::try_new_with_options(file.clone(), options).unwrap();
        let metadata = builder.metadata();
        let pages = metadata.offset_index().unwrap()[0][0].page_locations();
        let chunk = metadata.row_group(0).column(0);
        let rows = metadata.row_group(0).num_rows() as usize;
        let data_type = builder.schema().field(0).data_type().clone();
        decode(&data_type, chunk.column_descr(), rows, pages, |range| {
            Some(file.slice(range.start as usize..range.end as usize))
        })
    }

    /// Values of every width and class, some of them slices, with no, some or only NULLs.
    fn any_arrays() -> impl Strategy<Value = (Vec<ArrayRef>, bool)> {
        let part = (prop::collection::vec(any::<Option<i64>>(), 0..40), 0..20_usize, 0..3_u8);
        (prop::collection::vec(part, 1..4), 0..5_u8, any::<bool>()).prop_map(
            |(parts, kind, nullable)| {
                let arrays: Vec<ArrayRef> = parts
                    .into_iter()
                    .map(|(values, skipped, nulls)| {
                        // Long enough for several pages.
                        let values: Vec<Option<i64>> = values
                            .iter()
                            .cycle()
                            .take(values.len() * 600)
                            .map(|v| match (nullable, nulls) {
                                (true, 1) => *v,
                                (true, 2) => None,
                                _ => Some(v.unwrap_or(7)),
                            })
                            .collect();
                        let array: ArrayRef = match kind {
                            0 => Arc::new(Int64Array::from(values)),
                            1 => Arc::new(
                                values
                                    .iter()
                                    .map(|v| v.map(|v| v as f64))
                                    .collect::<Float64Array>(),
                            ),
                            2 => Arc::new(
                                values.iter().map(|v| v.map(|v| v as u32)).collect::<UInt32Array>(),
                            ),
                            3 => Arc::new(
                                values.iter().map(|v| v.map(|v| v as i32)).collect::<Date32Array>(),
                            ),
                            _ => Arc::new(
                                TimestampMicrosecondArray::from(values).with_timezone("UTC"),
                            ),
                        };
                        let skipped = skipped.min(array.len());
                        array.slice(skipped, array.len() - skipped)
                    })
                    .collect();
                (arrays, nullable)
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn pages_come_back_and_other_readers_read_them((arrays, nullable) in any_arrays()) {
            let rows: usize = arrays.iter().map(|a| a.len()).sum();
            prop_assume!(rows > 0);
            let file = file(&schema(&arrays[0], nullable), &arrays, false);
            let parts: Vec<&dyn Array> = arrays.iter().map(AsRef::as_ref).collect();
            let expected = concat(&parts).unwrap();
            prop_assert_eq!(&general(&file), &expected);
            prop_assert_eq!(&ours(&file).expect("its own pages are plain"), &expected);
        }

        #[test]
        fn pages_of_the_general_encoder_are_read_right_or_left_alone((arrays, nullable) in any_arrays()) {
            let rows: usize = arrays.iter().map(|a| a.len()).sum();
            prop_assume!(rows > 0);
            let schema = schema(&arrays[0], nullable);
            let properties = WriterProperties::builder().set_dictionary_enabled(false).build();
            let mut bytes = Vec::new();
            let mut writer = ArrowWriter::try_new(&mut bytes, schema.clone(), Some(properties)).unwrap();
            for array in &arrays {
                writer.write(&RecordBatch::try_new(schema.clone(), vec![array.clone()]).unwrap()).unwrap();
            }
            writer.close().unwrap();
            let file = Bytes::from(bytes);
            if let Some(column) = ours(&file) {
                prop_assert_eq!(&column, &general(&file));
            }
        }
    }

    #[test]
    fn bounds_of_ascending_columns_are_known() {
        let array: ArrayRef = Arc::new(Int64Array::from_iter_values(-20_000..20_000));
        let file = file(&schema(&array, false), &[array], true);
        let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Required);
        let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(file, options).unwrap();
        let chunk = builder.metadata().row_group(0).column(0);
        assert_eq!(
            chunk.statistics(),
            Some(&Statistics::int64(Some(-20_000), Some(19_999), None, Some(0), false))
        );
        let index = format!("{:?}", builder.metadata().column_index().unwrap()[0][0]);
        assert!(index.contains("-20000") && index.contains("19999"), "{index}");
    }

    #[test]
    fn a_damaged_page_is_not_plain() {
        let array: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(3)]));
        let bytes = file(&schema(&array, true), std::slice::from_ref(&array), false);
        assert!(ours(&bytes).is_some());
        // Behind the magic number lies the page: none of its bytes but values may change unnoticed.
        for at in 4..25 {
            let mut damaged = bytes.to_vec();
            damaged[at] ^= 0x10;
            if let Some(column) = ours(&damaged.into()) {
                assert_eq!(column.len(), 3);
            }
        }
    }
}
