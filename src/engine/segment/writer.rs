//! [`SegmentWriter`]: rows, keys, index and checksums of one segment in one pass.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef, UInt64Type};

use super::blocks::{BlockWriter, at_path, temporary};
use super::groups::GroupPlan;
use super::index_file::{IndexWriter, Owner};
use super::keys::KeysBuilder;
use super::properties::{SAMPLE_ROWS, writer_properties};
use super::row_groups::RowGroups;
use super::{SegmentMeta, SegmentStore, types};
use crate::engine::error::{Error, ErrorKind, Result};
use crate::engine::id::{FieldId, SegmentId, TableId};
use crate::engine::key::{EncodedKey, KeyCodec, KeyColumn};
use crate::engine::schema::FIELD_ID_KEY;

/// How a segment is written.
#[derive(Debug, Clone)]
pub struct WriteOptions {
    /// Rows of a row group, if they do not take too much.
    pub row_group_rows: usize,
    /// What the first row group may take; those after it may take a few times as much.
    pub row_group_bytes: u64,
    /// Ids of the key columns, in key order, as in [`TableMeta::key`](crate::engine::schema::TableMeta::key); none
    /// where the hidden row id is the key. The index is rebuilt from these columns if its file is lost.
    pub key: Vec<FieldId>,
    /// Cheap encoding for loads, or the smaller one that compaction affords.
    pub compact: bool,
    /// Microseconds since 1970, for [`SegmentMeta::trained_at_micros`].
    pub now_micros: i64,
}

/// Writes one segment from batches in key order, in one pass: rows, keys, index and checksums.
/// Dropped unfinished, it removes its files.
#[derive(Debug)]
pub struct SegmentWriter {
    files: Files,
    table: TableId,
    id: SegmentId,
    codec: KeyCodec,
    options: WriteOptions,
    /// The table's stored schema, as declared.
    declared: SchemaRef,
    /// The schema of the Parquet file.
    stored: SchemaRef,
    fields: Vec<FieldId>,
    /// Position of the hidden row id.
    row_id: Option<usize>,
    row_ids: Option<(u64, u64)>,
    /// Trains on the keys as they come.
    keys: KeysBuilder,
    index: IndexWriter,
    train_time: Duration,
    first_key: Option<EncodedKey>,
    last_key: Option<EncodedKey>,
    row_count: u64,
    output: Output,
    groups: GroupPlan,
}

/// Rows are held until there are enough to choose encodings by.
enum Output {
    Pending {
        file: BlockWriter,
        batches: Vec<RecordBatch>,
        row_count: usize,
        byte_count: u64,
    },
    Open(Box<RowGroups>),
    /// After an error.
    Failed,
}

impl std::fmt::Debug for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Pending { .. } => "Pending",
            Self::Open(_) => "Open",
            Self::Failed => "Failed",
        })
    }
}

/// The files of a segment in the making; dropped before they are complete, they are removed.
#[derive(Debug)]
struct Files {
    store: SegmentStore,
    data: PathBuf,
    index: PathBuf,
    complete: bool,
}

impl Drop for Files {
    fn drop(&mut self) {
        if self.complete {
            return;
        }
        for path in [&self.data, &self.index] {
            for path in [&temporary(path), path] {
                if let Err(e) = self.store.vfs.remove(path)
                    && e.kind() != std::io::ErrorKind::NotFound
                {
                    // Left to the collection of files that nothing refers to.
                    tracing::warn!("cannot remove {}: {e}", path.display());
                }
            }
        }
    }
}

impl SegmentWriter {
    /// Begins segment `id` of `table`. `schema` is the table's stored schema (field ids in the metadata).
    pub fn create(
        store: &SegmentStore,
        table: TableId,
        id: SegmentId,
        schema: SchemaRef,
        codec: &KeyCodec,
        options: &WriteOptions,
    ) -> Result<Self> {
        if options.row_group_rows == 0 || u32::try_from(options.row_group_rows).is_err() {
            return Err(Error::invalid("rows of a row group must be between 1 and 2^32 - 1"));
        }
        let fields = field_ids(&schema)?;
        let row_id = fields.iter().position(|id| id.0 == 0);
        let mut options = options.clone();
        if options.key.is_empty() {
            options.key.push(FieldId(0));
        }
        check_key(&schema, &fields, &options.key, codec)?;
        let stored = types::stored_schema(&schema)?;
        let files = Files {
            store: store.clone(),
            data: store.data_path(table, id),
            index: store.index_path(table, id),
            complete: false,
        };
        let file = BlockWriter::create(store.vfs.as_ref(), &temporary(&files.data))?;
        let index = IndexWriter::create(store.vfs.as_ref(), &files.index, codec.form())?;
        Ok(Self {
            files,
            table,
            id,
            codec: codec.clone(),
            groups: GroupPlan::new(options.row_group_rows, options.row_group_bytes),
            options,
            declared: schema,
            stored,
            fields,
            row_id,
            row_ids: None,
            keys: KeysBuilder::new(codec.form()),
            index,
            train_time: Duration::ZERO,
            first_key: None,
            last_key: None,
            row_count: 0,
            output: Output::Pending { file, batches: Vec::new(), row_count: 0, byte_count: 0 },
        })
    }

    /// Appends rows: `keys` are their encoded keys, not below those before. Says how many it took: where these are not all, the
    /// segment takes no more, and the others go to the next.
    pub fn write(&mut self, batch: &RecordBatch, keys: &KeyColumn) -> Result<usize> {
        if batch.num_rows() == 0 {
            return Ok(0);
        }
        self.check_keys(batch, keys)?;
        let taken = self.groups.take(batch);
        if taken == batch.num_rows() {
            self.append(batch, keys)?;
        } else if taken > 0 {
            self.append(&batch.slice(0, taken), &keys.slice(0, taken))?;
        }
        Ok(taken)
    }

    fn append(&mut self, batch: &RecordBatch, keys: &KeyColumn) -> Result<()> {
        let stored = self.to_stored(batch)?;
        self.take_row_ids(batch)?;
        if self.first_key.is_none() {
            self.first_key = keys.first();
        }
        self.last_key = keys.last();
        if let Err(e) = self.add_keys(keys) {
            self.output = Output::Failed;
            return Err(e);
        }
        self.row_count += batch.num_rows() as u64;
        match &mut self.output {
            Output::Pending { batches, row_count, byte_count, .. } => {
                *row_count += stored.num_rows();
                *byte_count += stored.get_array_memory_size() as u64;
                batches.push(stored);
                // Large rows are not waited for.
                if *row_count >= SAMPLE_ROWS || *byte_count >= self.options.row_group_bytes {
                    self.open_output()
                } else {
                    Ok(())
                }
            }
            Output::Open(groups) => {
                groups.set_group_rows(self.groups.group_rows());
                let written = groups.write(stored);
                self.check_written(written)
            }
            Output::Failed => Err(Error::internal("a segment is written on after an error")),
        }
    }

    /// Trains on keys, and writes what is complete.
    fn add_keys(&mut self, keys: &KeyColumn) -> Result<()> {
        let started = Instant::now();
        self.keys.push(keys)?;
        self.train_time += started.elapsed();
        self.keys.take_chunks().iter().try_for_each(|chunk| self.index.chunk(chunk))
    }

    /// Rows so far.
    pub fn row_count(&self) -> u64 {
        self.row_count
    }

    /// Completes and syncs both files under their final names. The caller syncs the directory
    /// ([`SegmentStore::sync_table_dir`]) before it commits.
    pub fn finish(mut self) -> Result<SegmentMeta> {
        if matches!(self.output, Output::Pending { .. }) {
            self.open_output()?;
        }
        let Output::Open(groups) = std::mem::replace(&mut self.output, Output::Failed) else {
            return Err(Error::internal("a segment is finished after an error"));
        };
        let (Some(min_key), Some(max_key)) = (self.first_key.take(), self.last_key.take()) else {
            return Err(Error::internal("a segment needs at least one row"));
        };
        let temporary_data = temporary(&self.files.data);
        let file = groups.finish().map_err(|e| self.parquet_error(e))?;
        let data = file.finish().map_err(|e| at_path(e, &temporary_data))?;
        let started = Instant::now();
        let (keys, chunks, filters) = self.keys.finish();
        let train_time = self.train_time + started.elapsed();
        for chunk in chunks {
            self.index.chunk(&chunk)?;
        }
        let owner = Owner { segment: self.id, row_count: self.row_count };
        let index = self.index.finish(&owner, &keys, filters.as_ref(), &data)?;
        let vfs = &self.files.store.vfs;
        for path in [&self.files.data, &self.files.index] {
            vfs.rename(&temporary(path), path).map_err(|e| at_path(e, path))?;
        }
        self.files.complete = true;
        let stats = keys.stats();
        Ok(SegmentMeta {
            id: self.id,
            table: self.table,
            row_count: self.row_count,
            min_key,
            max_key,
            row_ids: self.row_ids,
            row_group_rows: self.groups.group_rows() as u32,
            data_bytes: data.len,
            data_crc: data.whole,
            index_bytes: index.len,
            index_crc: index.whole,
            fields: self.fields.clone(),
            leaf_count: stats.leaf_count as u64,
            max_error: stats.max_error as u64,
            mean_error: stats.mean_error,
            train_nanos: train_time.as_nanos() as u64,
            trained_at_micros: self.options.now_micros,
        })
    }

    fn check_keys(&self, batch: &RecordBatch, keys: &KeyColumn) -> Result<()> {
        let wrong = |what: &str| Err(Error::internal(format!("segment {}: {what}", self.id)));
        if keys.len() != batch.num_rows() || keys.form() != self.codec.form() {
            return wrong("keys and rows do not belong together");
        }
        if self.last_key.as_ref().is_some_and(|last| keys.get(0) < *last) || !keys.is_sorted() {
            return wrong("rows are not in the order of their keys");
        }
        if self.row_count + batch.num_rows() as u64 > u64::from(u32::MAX) {
            return wrong("has more than 2^32 - 1 rows");
        }
        Ok(())
    }

    fn to_stored(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        if batch.num_columns() != self.stored.fields().len() {
            return Err(Error::internal(format!(
                "segment {}: a batch has {} columns, not {}",
                self.id,
                batch.num_columns(),
                self.stored.fields().len()
            )));
        }
        let columns = batch.columns().iter().zip(self.stored.fields());
        let columns = columns
            .map(|(column, field)| {
                types::to_stored(column, field.data_type())
                    .map_err(|e| e.context(format_args!("column \"{}\"", field.name())))
            })
            .collect::<Result<Vec<ArrayRef>>>()?;
        RecordBatch::try_new(Arc::clone(&self.stored), columns).map_err(|e| {
            Error::new(ErrorKind::Constraint, format!("the rows do not fit their table: {e}"))
                .with_source(e)
        })
    }

    fn take_row_ids(&mut self, batch: &RecordBatch) -> Result<()> {
        let Some(position) = self.row_id else { return Ok(()) };
        let Some(ids) = batch.column(position).as_primitive_opt::<UInt64Type>() else {
            return Err(Error::internal("the hidden row id is not UInt64"));
        };
        let (low, high) = self.row_ids.unwrap_or((u64::MAX, 0));
        let low = arrow::compute::min(ids).map_or(low, |id| id.min(low));
        let high = arrow::compute::max(ids).map_or(high, |id| id.max(high));
        self.row_ids = Some((low, high));
        Ok(())
    }

    /// Chooses encodings by the rows so far, and writes them.
    fn open_output(&mut self) -> Result<()> {
        let Output::Pending { file, batches, .. } =
            std::mem::replace(&mut self.output, Output::Failed)
        else {
            return Err(Error::internal("a segment is opened twice"));
        };
        let key: Vec<usize> = self
            .options
            .key
            .iter()
            .filter_map(|id| self.fields.iter().position(|field| field == id))
            .collect();
        let properties =
            writer_properties(&self.declared, &self.stored, &key, &self.options, &batches)?;
        let mut groups = RowGroups::new(file, &self.stored, properties, &key)
            .map_err(|e| self.parquet_error(e))?;
        groups.set_group_rows(self.groups.group_rows());
        for batch in batches {
            groups.write(batch).map_err(|e| self.parquet_error(e))?;
        }
        self.output = Output::Open(Box::new(groups));
        Ok(())
    }

    fn check_written(&mut self, written: parquet::errors::Result<()>) -> Result<()> {
        written.map_err(|e| {
            self.output = Output::Failed;
            self.parquet_error(e)
        })
    }

    /// Most errors of the Parquet writer are those of the file below: they keep their kind.
    fn parquet_error(&self, error: parquet::errors::ParquetError) -> Error {
        let path = temporary(&self.files.data);
        if let parquet::errors::ParquetError::External(inner) = error {
            return match inner.downcast::<std::io::Error>() {
                Ok(io) => at_path(*io, &path),
                Err(other) => Error::internal(format!("{}: {other}", path.display())),
            };
        }
        Error::internal(format!("cannot write {}: {error}", path.display())).with_source(error)
    }
}

/// Field ids of a stored schema, from its metadata.
fn field_ids(schema: &SchemaRef) -> Result<Vec<FieldId>> {
    let id = |field: &arrow::datatypes::FieldRef| {
        field.metadata().get(FIELD_ID_KEY).and_then(|id| id.parse().ok()).map(FieldId)
    };
    schema
        .fields()
        .iter()
        .map(|field| {
            id(field).ok_or_else(|| {
                Error::internal(format!("column \"{}\" has no field id", field.name()))
            })
        })
        .collect()
}

/// The key columns are there and have the codec's types.
fn check_key(
    schema: &SchemaRef,
    fields: &[FieldId],
    key: &[FieldId],
    codec: &KeyCodec,
) -> Result<()> {
    let types: Vec<&DataType> = key
        .iter()
        .filter_map(|id| fields.iter().position(|field| field == id))
        .map(|i| schema.field(i).data_type())
        .collect();
    if !types.iter().copied().eq(codec.types()) {
        return Err(Error::internal("the key columns of a segment do not fit its key codec"));
    }
    Ok(())
}
