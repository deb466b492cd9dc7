//! Writes the row groups of a Parquet file. Columns whose values can be written as they lie in memory are; the others go through
//! the general encoder.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::datatypes::SchemaRef;
use parquet::arrow::ArrowSchemaConverter;
use parquet::arrow::arrow_writer::{ArrowRowGroupWriterFactory, compute_leaves};
use parquet::basic::{Compression, Encoding};
use parquet::errors::Result;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::ColumnDescPtr;

use super::blocks::BlockWriter;
use super::plain::{self, PlainChunk};

/// A Parquet file in the making.
pub(super) struct RowGroups {
    file: SerializedFileWriter<BlockWriter>,
    factory: ArrowRowGroupWriterFactory,
    schema: SchemaRef,
    columns: Vec<Column>,
    group_rows: usize,
    /// Rows of the next group.
    pending: Vec<RecordBatch>,
    pending_rows: usize,
}

/// The rows alone, not slices of larger buffers.
fn copied(batch: &RecordBatch) -> Result<RecordBatch> {
    let all = UInt32Array::from_iter_values(0..batch.num_rows() as u32);
    Ok(arrow::compute::take_record_batch(batch, &all)?)
}

/// How a column is written.
enum Column {
    Plain {
        descriptor: ColumnDescPtr,
        width: usize,
        /// Its values ascend.
        ascending: bool,
    },
    /// By the general encoder, in so many leaves.
    General { leaves: usize },
}

impl RowGroups {
    /// A file of rows of `schema`, which come in the order of the columns `key`.
    pub(super) fn new(
        file: BlockWriter,
        schema: &SchemaRef,
        properties: WriterProperties,
        key: &[usize],
    ) -> Result<Self> {
        let descriptor = ArrowSchemaConverter::new().convert(schema)?;
        let group_rows = properties.max_row_group_row_count().unwrap_or(usize::MAX);
        let columns = (0..schema.fields().len())
            .map(|i| {
                let leaves: Vec<&ColumnDescPtr> = descriptor
                    .columns()
                    .iter()
                    .enumerate()
                    .filter(|(leaf, _)| descriptor.get_column_root_idx(*leaf) == i)
                    .map(|(_, column)| column)
                    .collect();
                let ascending = key.first() == Some(&i);
                if let [leaf] = leaves.as_slice()
                    && let Some(width) = plain::width(schema.field(i).data_type(), leaf)
                    && is_plain(&properties, leaf, ascending)
                {
                    return Column::Plain { descriptor: Arc::clone(leaf), width, ascending };
                }
                Column::General { leaves: leaves.len() }
            })
            .collect();
        let root = descriptor.root_schema_ptr();
        // Readers of other makers find the Arrow types there.
        let mut properties = properties;
        parquet::arrow::add_encoded_arrow_schema_to_metadata(schema, &mut properties);
        let file = SerializedFileWriter::new(file, root, Arc::new(properties))?;
        Ok(Self {
            factory: ArrowRowGroupWriterFactory::new(&file, Arc::clone(schema)),
            file,
            schema: Arc::clone(schema),
            columns,
            group_rows,
            pending: Vec::new(),
            pending_rows: 0,
        })
    }

    /// Says how many rows a group has: at least those of the one in progress, and once one is complete, as many as that has.
    pub(super) fn set_group_rows(&mut self, rows: usize) {
        self.group_rows = rows;
    }

    /// Appends rows.
    pub(super) fn write(&mut self, mut batch: RecordBatch) -> Result<()> {
        loop {
            let room = self.group_rows - self.pending_rows;
            let taken = room.min(batch.num_rows());
            // None where the rows before are a whole group, as is known only now that their bytes are counted.
            if taken > 0 {
                self.pending.push(batch.slice(0, taken));
                self.pending_rows += taken;
            }
            if taken < room {
                return Ok(());
            }
            self.write_group()?;
            if taken == batch.num_rows() {
                return Ok(());
            }
            batch = batch.slice(taken, batch.num_rows() - taken);
            if batch.num_rows() < self.group_rows - self.pending_rows {
                // What waits must not hold all that it came with.
                batch = copied(&batch)?;
            }
        }
    }

    fn write_group(&mut self) -> Result<()> {
        let batches = std::mem::take(&mut self.pending);
        self.pending_rows = 0;
        let mut writers =
            self.factory.create_column_writers(self.file.flushed_row_groups().len())?;
        let mut group = self.file.next_row_group()?;
        for (i, column) in self.columns.iter().enumerate() {
            let arrays: Vec<ArrayRef> = batches.iter().map(|b| Arc::clone(b.column(i))).collect();
            match column {
                Column::Plain { descriptor, width, ascending } => {
                    let (chunk, close) =
                        PlainChunk::encode(descriptor, *width, &arrays, *ascending)?;
                    group.append_column(&chunk, close)?;
                    // Its general writer has nothing to write.
                    drop(writers.remove(0));
                }
                Column::General { leaves } => {
                    let mut own: Vec<_> = writers.drain(..*leaves).collect();
                    for array in &arrays {
                        let parts = compute_leaves(self.schema.field(i), array)?;
                        own.iter_mut().zip(&parts).try_for_each(|(w, part)| w.write(part))?;
                    }
                    for writer in own {
                        writer.close()?.append_to_row_group(&mut group)?;
                    }
                }
            }
        }
        group.close()?;
        Ok(())
    }

    /// Writes what is left and the footer.
    pub(super) fn finish(mut self) -> Result<BlockWriter> {
        if self.pending_rows > 0 {
            self.write_group()?;
        }
        self.file.into_inner()
    }
}

/// Whether a column has no encoding, no compression, and no statistics but those that its order gives.
fn is_plain(properties: &WriterProperties, column: &ColumnDescPtr, ascending: bool) -> bool {
    let path = column.path();
    properties.compression(path) == Compression::UNCOMPRESSED
        && !properties.dictionary_enabled(path)
        && properties.encoding(path).is_none_or(|encoding| encoding == Encoding::PLAIN)
        && (ascending || properties.statistics_enabled(path) == EnabledStatistics::None)
}
