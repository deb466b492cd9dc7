//! Arrow schemas, batches and single values as IPC streams inside messages.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::buffer::Buffer;
use arrow::datatypes::{ByteViewType, DataType, Field, Schema, SchemaRef};
use arrow::ipc::reader::StreamDecoder;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use arrow::ipc::{MetadataVersion, root_as_message};

use crate::engine::error::{Error, Result};

/// Buffers are padded to multiples of this: what the widest values need to be read in place. Arrow's 64
/// would make a record of one row several times as long.
const ALIGNMENT: usize = 16;

fn write(schema: &Schema, batch: Option<&RecordBatch>) -> Result<Vec<u8>> {
    let options = IpcWriteOptions::try_new(ALIGNMENT, false, MetadataVersion::V5)?;
    let mut writer = StreamWriter::try_new_with_options(Vec::new(), schema, options)?;
    if let Some(batch) = batch {
        writer.write(batch)?;
    }
    Ok(writer.into_inner()?)
}

/// A stream of one batch.
pub(in crate::engine) fn encode_batch(batch: &RecordBatch) -> Result<Vec<u8>> {
    write(batch.schema_ref(), Some(&without_unused_bytes(batch)?))
}

/// Views keep whole buffers alive for the few values that a slice of them shows; those would all be
/// written.
fn without_unused_bytes(batch: &RecordBatch) -> Result<RecordBatch> {
    let compact = |column: &ArrayRef| -> ArrayRef {
        match column.data_type() {
            DataType::Utf8View => compact_view(column, column.as_string_view()),
            DataType::BinaryView => compact_view(column, column.as_binary_view()),
            _ => Arc::clone(column),
        }
    };
    let columns = batch.columns().iter().map(compact).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(batch.schema(), columns, &options)?)
}

fn compact_view<T: ByteViewType + ?Sized>(
    column: &ArrayRef,
    view: &arrow::array::GenericByteViewArray<T>,
) -> ArrayRef {
    let held: usize = view.data_buffers().iter().map(Buffer::len).sum();
    if held > 0 && held / 2 > view.total_buffer_bytes_used() {
        return Arc::new(view.gc());
    }
    Arc::clone(column)
}

/// A stream without a batch.
pub(super) fn encode_schema(schema: &Schema) -> Result<Vec<u8>> {
    write(schema, None)
}

/// An array of one row.
pub(super) fn encode_value(value: &ArrayRef) -> Result<Vec<u8>> {
    let field = Field::new("", value.data_type().clone(), true);
    encode_batch(&RecordBatch::try_new(Arc::new(Schema::new(vec![field])), vec![value.clone()])?)
}

/// Checks the frame of every message before anything is decoded: that it lies inside the bytes, and
/// that nothing is compressed, since a forged length would make Arrow allocate what it claims.
fn check_messages(bytes: &[u8]) -> Result<()> {
    let damaged = |what: &str| Error::corruption(format!("arrow stream: {what}"));
    let word = |at: usize| -> Result<u32> {
        let bytes = bytes.get(at..).and_then(|b| b.first_chunk::<4>());
        bytes.map(|b| u32::from_le_bytes(*b)).ok_or_else(|| damaged("ends inside a message"))
    };
    let mut at = 0;
    loop {
        if word(at)? != u32::MAX {
            return Err(damaged("a message does not begin where it should"));
        }
        let len = word(at + 4)? as usize;
        at += 8;
        if len == 0 {
            return if at == bytes.len() {
                Ok(())
            } else {
                Err(damaged("has bytes after its end"))
            };
        }
        let message = bytes
            .get(at..)
            .and_then(|b| b.get(..len))
            .ok_or_else(|| damaged("a message is cut"))?;
        let message = root_as_message(message).map_err(|e| damaged(&e.to_string()))?;
        let batch = message
            .header_as_record_batch()
            .or_else(|| message.header_as_dictionary_batch()?.data());
        if batch.is_some_and(|b| b.compression().is_some()) {
            return Err(damaged("is compressed"));
        }
        let body = usize::try_from(message.bodyLength()).ok();
        let end = body.and_then(|body| (at + len).checked_add(body));
        at = end.filter(|end| *end <= bytes.len()).ok_or_else(|| damaged("a body is cut"))?;
    }
}

/// Schema and batches of a stream.
fn read(bytes: Vec<u8>) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    check_messages(&bytes)?;
    let decode = move || {
        let mut buffer = Buffer::from_vec(bytes);
        let mut decoder = StreamDecoder::new();
        let mut batches = Vec::new();
        while !buffer.is_empty() {
            batches.extend(decoder.decode(&mut buffer)?);
        }
        decoder.finish()?;
        let schema = decoder.schema().ok_or_else(|| Error::corruption("has no schema"))?;
        Ok((schema, batches))
    };
    // Arrow's reader panics on some inconsistent messages. Its state is dropped with the panic.
    catch_unwind(AssertUnwindSafe(decode))
        .unwrap_or_else(|_| Err(Error::corruption("is inconsistent")))
        .map_err(|e: Error| Error::corruption(format!("arrow stream: {e}")))
}

/// The batch of a stream of one.
pub(in crate::engine) fn decode_batch(bytes: Vec<u8>) -> Result<RecordBatch> {
    let (_, mut batches) = read(bytes)?;
    match (batches.pop(), batches.is_empty()) {
        (Some(batch), true) => Ok(batch),
        _ => Err(Error::corruption("arrow stream: does not hold one batch")),
    }
}

pub(super) fn decode_schema(bytes: &[u8]) -> Result<SchemaRef> {
    let (schema, batches) = read(bytes.to_vec())?;
    if !batches.is_empty() {
        return Err(Error::corruption("arrow stream: a schema has rows"));
    }
    Ok(schema)
}

pub(super) fn decode_value(bytes: Vec<u8>, field: &Field) -> Result<ArrayRef> {
    let batch = decode_batch(bytes)?;
    match batch.columns() {
        [value] if value.len() == 1 && value.data_type() == field.data_type() => Ok(value.clone()),
        _ => Err(Error::corruption(format!(
            "the initial value of column \"{}\" is not one {}",
            field.name(),
            field.data_type()
        ))),
    }
}
