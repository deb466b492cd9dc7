//! Decodes Arrow IPC messages from clients. Nothing in a message is believed before it is checked: arrow-ipc
//! allocates what a compressed buffer claims to hold and panics on buffers out of range, so offsets, lengths and
//! claims are checked against the body first, arrow validates the arrays, and a panic that is left is caught.

mod check;

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::status;
use crate::sql::Code;
use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::buffer::Buffer;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc;
use arrow::ipc::reader::{RecordBatchDecoder, read_dictionary};
use bytes::Bytes;
use tonic::Status;

/// Fields of a schema at most, nested ones counted: sharing inside a flatbuffer lets a small message describe very many.
const MAX_FIELDS: usize = 16 * 1024;
/// Depth of nested fields at most.
const MAX_DEPTH: usize = 32;

/// What a message held.
#[derive(Debug)]
pub(crate) enum Decoded {
    /// The schema, which comes first.
    Schema,
    /// Rows.
    Batch(RecordBatch),
    /// A dictionary, or no payload.
    Nothing,
}

/// Decodes the messages of one stream.
#[derive(Debug)]
pub(crate) struct Decoder {
    schema: Option<SchemaRef>,
    dictionaries: HashMap<i64, ArrayRef>,
    limit_bytes: u64,
}

impl Decoder {
    /// A decoder that refuses messages (and dictionaries together) of more than `limit_bytes` when uncompressed.
    pub(crate) fn new(limit_bytes: u64) -> Self {
        Self { schema: None, dictionaries: HashMap::new(), limit_bytes }
    }

    /// The stream's schema, once it was seen.
    pub(crate) fn schema(&self) -> Option<&SchemaRef> {
        self.schema.as_ref()
    }

    /// Decodes one message.
    pub(crate) fn decode(&mut self, header: &[u8], body: Bytes) -> Result<Decoded, Status> {
        if header.is_empty() {
            return Ok(Decoded::Nothing);
        }
        // A panic leaves the decoder in an unknown state, so its stream must end: every caller gives up on an error.
        catch_unwind(AssertUnwindSafe(|| self.decode_message(header, body)))
            .unwrap_or_else(|_| Err(bad("the Arrow message is malformed")))
    }

    /// Bytes of the buffers of a message when they are uncompressed; an error where it is malformed.
    pub(crate) fn check(&self, header: &[u8], body: &[u8]) -> Result<u64, Status> {
        if header.is_empty() {
            return Ok(0);
        }
        let walk = || {
            let message = ipc::root_as_message(header)
                .map_err(|e| bad(format!("the header is not an Arrow message: {e}")))?;
            let (version, limit) = (message.version(), self.limit_bytes);
            if let Some(batch) = message.header_as_record_batch() {
                return check::batch(batch, &*self.expect_schema()?, version, body, limit);
            }
            match message.header_as_dictionary_batch() {
                Some(batch) => {
                    check::dictionary(batch, &*self.expect_schema()?, version, body, limit)
                }
                None => Ok(0),
            }
        };
        catch_unwind(AssertUnwindSafe(walk))
            .unwrap_or_else(|_| Err(bad("the Arrow message is malformed")))
    }

    fn decode_message(&mut self, header: &[u8], body: Bytes) -> Result<Decoded, Status> {
        let message = ipc::root_as_message(header)
            .map_err(|e| bad(format!("the header is not an Arrow message: {e}")))?;
        match message.header_type() {
            ipc::MessageHeader::NONE => Ok(Decoded::Nothing),
            ipc::MessageHeader::Schema => {
                if self.schema.is_some() {
                    return Err(bad("a second schema came in the same stream"));
                }
                let schema =
                    message.header_as_schema().ok_or_else(|| bad("the schema is missing"))?;
                check::schema(schema)?;
                let schema =
                    ipc::convert::try_schema_from_flatbuffer_bytes(header).map_err(arrow)?;
                self.schema = Some(Arc::new(schema));
                Ok(Decoded::Schema)
            }
            ipc::MessageHeader::RecordBatch => {
                let schema = self.expect_schema()?;
                let batch = message
                    .header_as_record_batch()
                    .ok_or_else(|| bad("the record batch is missing"))?;
                let version = message.version();
                check::batch(batch, &schema, version, &body, self.limit_bytes)?;
                let body = aligned(body);
                RecordBatchDecoder::try_new(&body, batch, schema, &self.dictionaries, &version)
                    .and_then(RecordBatchDecoder::read_record_batch)
                    .map(Decoded::Batch)
                    .map_err(arrow)
            }
            ipc::MessageHeader::DictionaryBatch => {
                let schema = self.expect_schema()?;
                let dictionary = message
                    .header_as_dictionary_batch()
                    .ok_or_else(|| bad("the dictionary batch is missing"))?;
                let version = message.version();
                check::dictionary(dictionary, &schema, version, &body, self.limit_bytes)?;
                read_dictionary(
                    &aligned(body),
                    dictionary,
                    &schema,
                    &mut self.dictionaries,
                    &version,
                )
                .map_err(arrow)?;
                let held: usize =
                    self.dictionaries.values().map(|d| d.get_array_memory_size()).sum();
                if held as u64 > self.limit_bytes {
                    return Err(too_large(held as u64, self.limit_bytes));
                }
                Ok(Decoded::Nothing)
            }
            other => Err(bad(format!("messages of type {other:?} are not understood"))),
        }
    }

    fn expect_schema(&self) -> Result<SchemaRef, Status> {
        self.schema.clone().ok_or_else(|| bad("the stream must begin with its schema"))
    }
}

/// The body as a buffer whose start is aligned for any Arrow type but the 16-byte ones (which arrow copies
/// where it must).
fn aligned(body: Bytes) -> Buffer {
    if (body.as_ptr() as usize).is_multiple_of(8) {
        Buffer::from(body)
    } else {
        Buffer::from(body.as_ref())
    }
}

fn bad(message: impl Into<String>) -> Status {
    status::new(Code::ProtocolViolation, message)
}

fn arrow(e: ArrowError) -> Status {
    bad(format!("the Arrow message is malformed: {e}"))
}

fn too_large(bytes: u64, limit: u64) -> Status {
    status::new(
        Code::ConfigurationLimitExceeded,
        format!(
            "the Arrow message takes {bytes} bytes when uncompressed and {limit} are allowed; send smaller batches"
        ),
    )
}

#[cfg(test)]
mod tests;
