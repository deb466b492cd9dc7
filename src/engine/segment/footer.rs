//! What is known of a Parquet file without its pages.

use std::ops::Range;
use std::path::Path;

use arrow::datatypes::SchemaRef;
use parking_lot::Mutex;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, RowSelection};
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, PageIndexPolicy, ParquetMetaData};
use parquet::file::page_index::offset_index::PageLocation;
use parquet::file::reader::{ChunkReader, Length};
use prost::bytes::{Buf, Bytes, buf::Reader};

use super::SegmentMeta;
use super::blocks::BlockReader;
use super::properties::{KEY_METADATA, SCHEMA_METADATA};
use crate::engine::cache::Cached;
use crate::engine::error::{Error, Result};
use crate::engine::fs::Vfs;
use crate::engine::id::FieldId;

/// Footer and page index of a Parquet file, and checksums of its blocks.
#[derive(Debug)]
pub(super) struct Footer {
    pub(super) parquet: ArrowReaderMetadata,
    /// The schema as declared, where the file stores some types as others.
    pub(super) declared: SchemaRef,
    pub(super) blocks: Vec<u32>,
}

impl Cached for Footer {}

impl Footer {
    /// Reads the footer of the segment's Parquet file, whose blocks have these checksums.
    pub(super) fn read(
        vfs: &dyn Vfs,
        path: &Path,
        meta: &SegmentMeta,
        blocks: Vec<u32>,
    ) -> Result<Self> {
        let file = BlockReader::open(vfs, path, meta.data_bytes, &blocks)?;
        let source = Source { file, error: Mutex::new(None) };
        let options = ArrowReaderOptions::new()
            .with_offset_index_policy(PageIndexPolicy::Required)
            .with_column_index_policy(PageIndexPolicy::Skip);
        let parquet = ArrowReaderMetadata::load(&source, options).map_err(|e| {
            // What went wrong below tells more than what the Parquet reader made of it.
            source.error.lock().take().unwrap_or_else(|| Error::from(e).context(path.display()))
        })?;
        drop(source);
        let declared = match key_value(parquet.metadata(), SCHEMA_METADATA) {
            None => parquet.schema().clone(),
            Some(hex) => decode_schema(hex).ok_or_else(|| {
                Error::corruption(format!("{}: its declared schema is damaged", path.display()))
            })?,
        };
        let found = parquet.metadata();
        if declared.fields().len() != meta.fields.len()
            || parquet.schema().fields().len() != meta.fields.len()
            || found.file_metadata().num_rows() != meta.row_count as i64
            || found.num_row_groups() as u64
                != meta.row_count.div_ceil(u64::from(meta.row_group_rows))
            || found.offset_index().is_none()
        {
            return Err(Error::corruption(format!(
                "{}: is not the file of segment {}: restore it from a backup",
                path.display(),
                meta.id
            )));
        }
        Ok(Self { parquet, declared, blocks })
    }

    pub(super) fn memory_bytes(&self) -> usize {
        // Schemas are counted at a guess; they are small beside the page index.
        self.parquet.metadata().memory_size()
            + self.blocks.len() * size_of::<u32>()
            + self.declared.fields().len() * 512
    }

    /// Ids of the key columns, in key order.
    pub(super) fn key_fields(&self) -> Result<Vec<FieldId>> {
        let text = key_value(self.parquet.metadata(), KEY_METADATA).unwrap_or_default();
        let ids: Option<Vec<FieldId>> =
            text.split(',').map(|id| id.parse().ok().map(FieldId)).collect();
        ids.ok_or_else(|| Error::corruption(format!("\"{text}\" does not name its key columns")))
    }

    /// Leaves of the columns at `indices`.
    fn leaves(&self, indices: &[usize]) -> impl Iterator<Item = usize> {
        let descriptor = self.parquet.parquet_schema();
        (0..descriptor.num_columns())
            .filter(|leaf| indices.contains(&descriptor.get_column_root_idx(*leaf)))
    }

    /// The chunk of the column at `index`, and its pages, where these may be plain: they are neither compressed nor have a
    /// dictionary.
    pub(super) fn plain_chunk(
        &self,
        index: usize,
        group: usize,
    ) -> Option<(&ColumnChunkMetaData, &[PageLocation])> {
        let leaf = self.leaves(&[index]).next()?;
        let metadata = self.parquet.metadata();
        let chunk = metadata.row_group(group).column(leaf);
        let pages = metadata.offset_index()?.get(group)?.get(leaf)?.page_locations();
        let may_be = chunk.compression() == Compression::UNCOMPRESSED
            && chunk.dictionary_page_offset().is_none();
        may_be.then_some((chunk, pages))
    }

    /// Where the columns at `indices` of row group `group` lie.
    pub(super) fn column_ranges(&self, indices: &[usize], group: usize) -> Vec<Range<u64>> {
        let group = self.parquet.metadata().row_group(group);
        self.leaves(indices)
            .map(|leaf| {
                let (start, len) = group.column(leaf).byte_range();
                start..start + len
            })
            .collect()
    }

    /// Where the pages of these columns lie that hold rows of `selection`, dictionaries included.
    pub(super) fn page_ranges(
        &self,
        indices: &[usize],
        group: usize,
        selection: &RowSelection,
    ) -> Vec<Range<u64>> {
        let metadata = self.parquet.metadata();
        let mut ranges = Vec::new();
        for leaf in self.leaves(indices) {
            let (start, len) = metadata.row_group(group).column(leaf).byte_range();
            let Some(pages) =
                metadata.offset_index().map(|index| index[group][leaf].page_locations())
            else {
                ranges.push(start..start + len);
                continue;
            };
            // A dictionary lies before the first page of data.
            let first = pages.first().map_or(start, |page| page.offset as u64);
            if first > start {
                ranges.push(start..first);
            }
            ranges.extend(selection.scan_ranges(pages));
        }
        ranges
    }
}

fn key_value<'a>(metadata: &'a ParquetMetaData, key: &str) -> Option<&'a str> {
    let pairs = metadata.file_metadata().key_value_metadata()?;
    pairs.iter().find(|pair| pair.key == key)?.value.as_deref()
}

fn decode_schema(hex: &str) -> Option<SchemaRef> {
    let ipc = (0..hex.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(hex.get(i..i + 2)?, 16).ok())
        .collect::<Option<Vec<u8>>>()?;
    let reader = arrow::ipc::reader::StreamReader::try_new(ipc.as_slice(), None).ok()?;
    Some(reader.schema())
}

/// A checked file as the Parquet reader wants it. Keeps the first error, which that reader would flatten.
struct Source<'a> {
    file: BlockReader<'a>,
    error: Mutex<Option<Error>>,
}

impl Length for Source<'_> {
    fn len(&self) -> u64 {
        self.file.len()
    }
}

impl ChunkReader for Source<'_> {
    type T = Reader<Bytes>;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        let len = Length::len(self).saturating_sub(start);
        Ok(self.get_bytes(start, len as usize)?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        self.file.read(start..start.saturating_add(length as u64)).map_err(|e| {
            let flat = ParquetError::General(e.message().to_owned());
            self.error.lock().get_or_insert(e);
            flat
        })
    }
}
