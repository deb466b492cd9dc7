//! One message of a stream of rows. Its body is still the buffers of the arrays: nothing is copied until the socket takes it.

use std::collections::VecDeque;

use arrow::buffer::Buffer;
use arrow::datatypes::Schema;
use arrow::error::ArrowError;
use arrow::ipc;
use arrow::ipc::writer::IpcWriteOptions;
use arrow_flight::{FlightData, SchemaAsIpc};
use bytes::Bytes;

/// An IPC message as Flight carries it.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    /// The flatbuffer that describes it.
    pub(super) header: Bytes,
    /// Its body, in pieces to be sent one after the other.
    pub(super) body: Vec<Buffer>,
}

impl Message {
    /// The message that begins a stream.
    pub(super) fn schema(schema: &Schema, options: &IpcWriteOptions) -> Self {
        let data: FlightData = SchemaAsIpc::new(schema, options).into();
        Self { header: data.data_header, body: Vec::new() }
    }

    /// Takes the messages of an IPC stream apart, its schema if wanted.
    pub(super) fn of_stream(
        stream: Vec<Buffer>,
        with_schema: bool,
    ) -> Result<Vec<Self>, ArrowError> {
        let mut pieces = Pieces(stream.into());
        let mut messages = Vec::with_capacity(1);
        while let Some((header, body_bytes, kind)) = pieces.header()? {
            let body = pieces.take(body_bytes)?;
            if with_schema || kind != ipc::MessageHeader::Schema {
                messages.push(Self { header, body });
            }
        }
        Ok(messages)
    }

    pub(super) fn body_bytes(&self) -> usize {
        self.body.iter().map(Buffer::len).sum()
    }

    /// The body in one piece.
    pub(super) fn contiguous_body(&self) -> Bytes {
        match self.body.as_slice() {
            [] => Bytes::new(),
            [one] => shared(one.clone()),
            pieces => {
                let mut body = Vec::with_capacity(self.body_bytes());
                pieces.iter().for_each(|piece| body.extend_from_slice(piece));
                body.into()
            }
        }
    }
}

impl From<Message> for FlightData {
    fn from(message: Message) -> Self {
        let body = message.contiguous_body();
        Self::new().with_data_header(message.header).with_data_body(body)
    }
}

/// A buffer's bytes, which keep it alive.
pub(super) fn shared(buffer: Buffer) -> Bytes {
    struct Owner(Buffer);
    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    Bytes::from_owner(Owner(buffer))
}

/// The rest of an encoded IPC stream.
struct Pieces(VecDeque<Buffer>);

impl Pieces {
    /// The next message's flatbuffer, the length of its body, and what it is.
    fn header(&mut self) -> Result<Option<(Bytes, usize, ipc::MessageHeader)>, ArrowError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        // A continuation marker and the length of the flatbuffer.
        let prefix = self.bytes(8)?;
        let length = prefix[4..8].iter().rev().fold(0, |n, byte| n << 8 | usize::from(*byte));
        let header = self.bytes(length)?;
        let message = ipc::root_as_message(&header)
            .map_err(|e| ArrowError::IpcError(format!("the encoded message is no message: {e}")))?;
        let body_bytes = usize::try_from(message.bodyLength())
            .map_err(|_| ArrowError::IpcError("a body of negative length".to_owned()))?;
        let kind = message.header_type();
        Ok(Some((header.into(), body_bytes, kind)))
    }

    /// The next `count` bytes, copied.
    fn bytes(&mut self, count: usize) -> Result<Vec<u8>, ArrowError> {
        let mut bytes = Vec::with_capacity(count);
        self.take(count)?.iter().for_each(|piece| bytes.extend_from_slice(piece));
        Ok(bytes)
    }

    /// The next `count` bytes as they lie.
    fn take(&mut self, mut count: usize) -> Result<Vec<Buffer>, ArrowError> {
        let mut taken = Vec::new();
        while count > 0 {
            let Some(front) = self.0.front_mut() else {
                return Err(ArrowError::IpcError("the encoded stream ends too early".to_owned()));
            };
            let part = front.len().min(count);
            if part > 0 {
                taken.push(front.slice_with_length(0, part));
            }
            count -= part;
            if part == front.len() {
                self.0.pop_front();
            } else {
                *front = front.slice(part);
            }
        }
        while self.0.front().is_some_and(Buffer::is_empty) {
            self.0.pop_front();
        }
        Ok(taken)
    }
}
