//! Arrow schemas, batches and single values as IPC streams inside messages.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::buffer::Buffer;
use arrow::datatypes::{ByteViewType, DataType, Field, Schema, SchemaRef};
use arrow::ipc::convert::fb_to_schema;
use arrow::ipc::reader::{read_dictionary, read_record_batch};
use arrow::ipc::writer::{
    DictionaryTracker, IpcDataGenerator, IpcWriteOptions, StreamWriter, write_message,
};
use arrow::ipc::{Message, MetadataVersion, root_as_message};

use crate::engine::error::{Error, Result};

/// Buffers are padded to multiples of this: what the widest values need to be read in place. Arrow's 64
/// would make a record of one row several times as long.
const ALIGNMENT: usize = 16;

/// What ends a stream.
const END_OF_STREAM: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];

/// Batches of up to this many rows are written with a schema message that was made before. Larger ones
/// gain more from being copied once less.
const FEW_ROWS: usize = 256;

fn options() -> Result<IpcWriteOptions> {
    Ok(IpcWriteOptions::try_new(ALIGNMENT, false, MetadataVersion::V5)?)
}

/// A stream of one batch.
pub(in crate::engine) fn encode_batch(batch: &RecordBatch) -> Result<Vec<u8>> {
    let batch = without_unused_bytes(batch)?;
    match schema_message(batch.schema_ref())? {
        Some(out) if batch.num_rows() <= FEW_ROWS => encode_after(out, &batch),
        _ => {
            let schema = batch.schema_ref();
            let mut writer = StreamWriter::try_new_with_options(Vec::new(), schema, options()?)?;
            writer.write(&batch)?;
            Ok(writer.into_inner()?)
        }
    }
}

/// Writes the batch and the end of the stream after the schema's message `out`.
fn encode_after(mut out: Vec<u8>, batch: &RecordBatch) -> Result<Vec<u8>> {
    let options = options()?;
    let (_, message) = IpcDataGenerator::default().encode(
        batch,
        &mut DictionaryTracker::new(false),
        &options,
        &mut Default::default(),
    )?;
    write_message(&mut out, message, &options)?;
    out.extend_from_slice(&END_OF_STREAM);
    Ok(out)
}

/// The first message of a stream; none where the schema has dictionaries, which need a writer's state.
fn schema_message(schema: &SchemaRef) -> Result<Option<Vec<u8>>> {
    let known = |cache: &Written| {
        let cache = cache.borrow();
        cache.iter().find(|(known, _)| Arc::ptr_eq(known, schema)).map(|(_, out)| out.to_vec())
    };
    if let Some(out) = WRITTEN.with(known) {
        return Ok(Some(out));
    }
    if schema.flattened_fields().iter().any(|f| matches!(f.data_type(), DataType::Dictionary(..))) {
        return Ok(None);
    }
    let mut out = encode_schema(schema)?;
    out.truncate(out.len() - END_OF_STREAM.len());
    WRITTEN.with(|cache| remember(cache, Arc::clone(schema), out.clone().into_boxed_slice()));
    Ok(Some(out))
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
    Ok(StreamWriter::try_new_with_options(Vec::new(), schema, options()?)?.into_inner()?)
}

/// An array of one row.
pub(super) fn encode_value(value: &ArrayRef) -> Result<Vec<u8>> {
    let field = Field::new("", value.data_type().clone(), true);
    encode_batch(&RecordBatch::try_new(Arc::new(Schema::new(vec![field])), vec![value.clone()])?)
}

/// A message of a stream.
struct Frame<'a> {
    /// The flatbuffer; empty at the end of the stream.
    metadata: &'a [u8],
    /// Where its body would begin.
    body_start: usize,
}

fn damaged(what: impl std::fmt::Display) -> Error {
    Error::corruption(format!("arrow stream: {what}"))
}

fn frame(bytes: &[u8], at: usize) -> Result<Frame<'_>> {
    let cut = || damaged("a message is cut");
    let rest = bytes.get(at..).ok_or_else(cut)?;
    let (prefix, rest) = rest.split_first_chunk::<8>().ok_or_else(cut)?;
    if prefix[..4] != [0xff; 4] {
        return Err(damaged("a message does not begin where it should"));
    }
    let len = u32::from_le_bytes([prefix[4], prefix[5], prefix[6], prefix[7]]) as usize;
    let metadata = rest.get(..len).ok_or_else(cut)?;
    Ok(Frame { metadata, body_start: at + 8 + len })
}

fn parse(metadata: &[u8]) -> Result<Message<'_>> {
    root_as_message(metadata).map_err(damaged)
}

/// Nothing is compressed: a forged length would make Arrow allocate what it claims.
fn check_not_compressed(batch: Option<arrow::ipc::RecordBatch<'_>>) -> Result<()> {
    if batch.is_some_and(|batch| batch.compression().is_some()) {
        return Err(damaged("is compressed"));
    }
    Ok(())
}

/// Schema and batches of a stream.
fn read(bytes: Vec<u8>) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    // Arrow's reader panics on some inconsistent messages. What it worked on is dropped with the panic.
    catch_unwind(AssertUnwindSafe(|| read_messages(&Buffer::from_vec(bytes))))
        .unwrap_or_else(|_| Err(damaged("is inconsistent")))
}

fn read_messages(bytes: &Buffer) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    let first = frame(bytes, 0)?;
    let schema = read_schema(first.metadata)?;
    let mut dictionaries = HashMap::new();
    let mut batches = Vec::new();
    let mut at = first.body_start;
    loop {
        let Frame { metadata, body_start } = frame(bytes, at)?;
        if metadata.is_empty() {
            let is_all = body_start == bytes.len();
            return if is_all {
                Ok((schema, batches))
            } else {
                Err(damaged("goes on after its end"))
            };
        }
        let message = parse(metadata)?;
        let body_len = usize::try_from(message.bodyLength()).ok();
        at = body_len
            .and_then(|len| body_start.checked_add(len))
            .filter(|end| *end <= bytes.len())
            .ok_or_else(|| damaged("a body is cut"))?;
        let body = bytes.slice_with_length(body_start, at - body_start);
        let version = message.version();
        if let Some(batch) = message.header_as_record_batch() {
            check_not_compressed(Some(batch))?;
            let schema = Arc::clone(&schema);
            let batch = read_record_batch(&body, batch, schema, &dictionaries, None, &version);
            batches.push(batch.map_err(damaged)?);
        } else if let Some(dictionary) = message.header_as_dictionary_batch() {
            check_not_compressed(dictionary.data())?;
            read_dictionary(&body, dictionary, &schema, &mut dictionaries, &version)
                .map_err(damaged)?;
        } else {
            return Err(damaged("has a message of no kind that belongs here"));
        }
    }
}

/// How many schemas a thread remembers.
const REMEMBERED: usize = 8;

type Remembered<K, V> = RefCell<VecDeque<(K, V)>>;
type Read = Remembered<Box<[u8]>, SchemaRef>;
type Written = Remembered<SchemaRef, Box<[u8]>>;

thread_local! {
    /// Schemas that this thread read last, by their bytes. Log records repeat the schema of their table;
    /// so the batches of a replay share one, and it is parsed once.
    static READ: Read = const { RefCell::new(VecDeque::new()) };
    /// Schemas without dictionaries that this thread wrote last, and their messages.
    static WRITTEN: Written = const { RefCell::new(VecDeque::new()) };
}

fn remember<K, V>(cache: &Remembered<K, V>, key: K, value: V) {
    let mut cache = cache.borrow_mut();
    cache.truncate(REMEMBERED - 1);
    cache.push_front((key, value));
}

fn read_schema(metadata: &[u8]) -> Result<SchemaRef> {
    let known = |cache: &Read| {
        let cache = cache.borrow();
        cache.iter().find(|(bytes, _)| **bytes == *metadata).map(|(_, schema)| Arc::clone(schema))
    };
    if let Some(schema) = READ.with(known) {
        return Ok(schema);
    }
    let message = parse(metadata)?;
    let schema = message.header_as_schema().ok_or_else(|| damaged("has no schema"))?;
    let schema = Arc::new(fb_to_schema(schema));
    READ.with(|cache| remember(cache, metadata.into(), Arc::clone(&schema)));
    Ok(schema)
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
