//! How columns are encoded in the Parquet file, chosen by a sample of the first rows.

use std::collections::HashMap;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use parquet::arrow::{ArrowSchemaConverter, ArrowWriter};
use parquet::basic::{Compression, Encoding, Type, ZstdLevel};
use parquet::file::metadata::{KeyValue, SortingColumn};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::{ColumnPath, SchemaDescriptor};

use super::plain;
use super::writer::WriteOptions;
use crate::engine::error::{Error, Result};

/// Encodings are chosen by this many rows.
pub(super) const SAMPLE_ROWS: usize = 8192;
/// Rows and bytes of a page: what a cold point read decodes of a column. Pages of 8-byte values come
/// out at the same in both.
pub(super) const PAGE_ROWS: usize = 8192;
const PAGE_BYTES: usize = 64 << 10;

/// Key-value metadata of the Parquet file: ids of the key columns, separated by commas.
pub(super) const KEY_METADATA: &str = "omendb.key";
/// Key-value metadata of the Parquet file: the schema as declared, as an Arrow IPC stream in
/// hexadecimal, where a type is stored as another.
pub(super) const SCHEMA_METADATA: &str = "omendb.schema";

/// Properties for rows of `stored` that begin as `sample` does; `key` are positions of the key columns.
pub(super) fn writer_properties(
    declared: &Schema,
    stored: &SchemaRef,
    key: &[usize],
    options: &WriteOptions,
    sample: &[RecordBatch],
) -> Result<WriterProperties> {
    let unwritable = |e| Error::internal(format!("the schema has no Parquet form: {e}"));
    let descriptor = ArrowSchemaConverter::new().convert(stored).map_err(unwritable)?;
    let mut builder = base(options)
        .set_sorting_columns(Some(sorting_columns(&descriptor, key)))
        .set_key_value_metadata(Some(metadata(declared, stored, options)?));
    // Statistics only where they prune: rows are in key order.
    let others = if options.compact { EnabledStatistics::Chunk } else { EnabledStatistics::None };
    builder = builder.set_statistics_enabled(others);
    let choices = choose(stored, options, sample)?;
    for (leaf, column) in descriptor.columns().iter().enumerate() {
        let path = column.path();
        let root = descriptor.get_column_root_idx(leaf);
        let key_position = key.iter().position(|k| *k == root);
        let fixed = plain::width(stored.field(root).data_type(), column).is_some();
        let mut choice = choices.get(path).copied().unwrap_or_default();
        // A load writes numbers as they lie in memory at several times the speed of LZ4: that pays only where next to
        // nothing is left of them. Compaction compresses them.
        choice.compress &= options.compact || !fixed || choice.saves_most;
        if key_position == Some(0) || (options.compact && key_position.is_some()) {
            builder = builder.set_column_statistics_enabled(path.clone(), EnabledStatistics::Page);
        }
        let ordered = options.compact
            && key_position == Some(0)
            && matches!(column.physical_type(), Type::INT32 | Type::INT64);
        if ordered {
            builder = builder.set_column_encoding(path.clone(), Encoding::DELTA_BINARY_PACKED);
        } else if choice.dictionary {
            builder = builder.set_column_dictionary_enabled(path.clone(), true);
        }
        // A load must be fast, and sorted keys read at the speed of memory: their repeated high bytes would
        // pass for worth compressing.
        if choice.compress && !ordered && (options.compact || key_position.is_none()) {
            builder = builder.set_column_compression(path.clone(), codec(options));
        }
    }
    Ok(builder.build())
}

fn base(options: &WriteOptions) -> WriterPropertiesBuilder {
    WriterProperties::builder()
        .set_created_by("omendb".to_owned())
        .set_max_row_group_row_count(Some(options.row_group_rows))
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_data_page_size_limit(PAGE_BYTES)
        .set_write_batch_size(PAGE_ROWS)
        .set_dictionary_enabled(false)
        .set_encoding(Encoding::PLAIN)
        .set_compression(Compression::UNCOMPRESSED)
}

fn codec(options: &WriteOptions) -> Compression {
    if options.compact {
        // Level 1: what more saves little and costs much.
        Compression::ZSTD(ZstdLevel::default())
    } else {
        Compression::LZ4_RAW
    }
}

fn sorting_columns(descriptor: &SchemaDescriptor, key: &[usize]) -> Vec<SortingColumn> {
    let leaf_of = |root: &usize| {
        (0..descriptor.num_columns()).find(|leaf| descriptor.get_column_root_idx(*leaf) == *root)
    };
    key.iter()
        .filter_map(leaf_of)
        .map(|leaf| SortingColumn {
            column_idx: leaf as i32,
            descending: false,
            nulls_first: false,
        })
        .collect()
}

fn metadata(declared: &Schema, stored: &Schema, options: &WriteOptions) -> Result<Vec<KeyValue>> {
    let key: Vec<String> = options.key.iter().map(ToString::to_string).collect();
    let mut out = vec![KeyValue::new(KEY_METADATA.to_owned(), key.join(","))];
    let differs =
        declared.fields().iter().zip(stored.fields()).any(|(d, s)| d.data_type() != s.data_type());
    if differs {
        let mut ipc = Vec::new();
        arrow::ipc::writer::StreamWriter::try_new(&mut ipc, declared)?.finish()?;
        let hex: String = ipc.iter().map(|byte| format!("{byte:02x}")).collect();
        out.push(KeyValue::new(SCHEMA_METADATA.to_owned(), hex));
    }
    Ok(out)
}

/// What is worth its time for one column.
#[derive(Debug, Clone, Copy, Default)]
struct Choice {
    compress: bool,
    /// Compressed, it has an eighth of its size.
    saves_most: bool,
    dictionary: bool,
}

/// Writes the sample for its sizes: a column is compressed if that saves 30 % of it, and (in compaction)
/// gets a dictionary if that saves 20 % of what is left.
fn choose(
    stored: &SchemaRef,
    options: &WriteOptions,
    sample: &[RecordBatch],
) -> Result<HashMap<ColumnPath, Choice>> {
    let plain = sample_sizes(stored, options, sample, false)?;
    let mut choices: HashMap<ColumnPath, Choice> = plain
        .iter()
        .map(|(path, size)| {
            let compress = size.compressed * 10 <= size.uncompressed * 7;
            let saves_most = size.compressed * 8 <= size.uncompressed;
            (path.clone(), Choice { compress, saves_most, dictionary: false })
        })
        .collect();
    if options.compact {
        for (path, size) in sample_sizes(stored, options, sample, true)? {
            let (Some(plain), Some(choice)) = (plain.get(&path), choices.get_mut(&path)) else {
                continue;
            };
            let kept = if choice.compress { plain.compressed } else { plain.uncompressed };
            if size.compressed * 10 <= kept * 8 {
                choice.dictionary = true;
                choice.compress = size.compressed * 10 <= size.uncompressed * 7;
            }
        }
    }
    Ok(choices)
}

#[derive(Debug, Clone, Copy)]
struct Size {
    compressed: i64,
    uncompressed: i64,
}

fn sample_sizes(
    stored: &SchemaRef,
    options: &WriteOptions,
    sample: &[RecordBatch],
    dictionary: bool,
) -> Result<HashMap<ColumnPath, Size>> {
    let failed = |e| Error::internal(format!("cannot encode a sample: {e}"));
    let properties = base(options)
        .set_max_row_group_row_count(None)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_dictionary_enabled(dictionary)
        .set_compression(codec(options))
        .build();
    let mut writer =
        ArrowWriter::try_new(std::io::sink(), stored.clone(), Some(properties)).map_err(failed)?;
    let mut rows = SAMPLE_ROWS;
    for batch in sample {
        let part = batch.slice(0, batch.num_rows().min(rows));
        rows -= part.num_rows();
        writer.write(&part).map_err(failed)?;
    }
    let written = writer.close().map_err(failed)?;
    let columns = written.row_groups().iter().flat_map(|group| group.columns());
    Ok(columns
        .map(|column| {
            let size = Size {
                compressed: column.compressed_size(),
                uncompressed: column.uncompressed_size(),
            };
            (column.column_path().clone(), size)
        })
        .collect())
}
