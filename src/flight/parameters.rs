//! Parameters of a statement on their way from binding to running: handles and tickets carry them as they came, and they are
//! decoded where they are used.

use arrow::array::RecordBatch;
use bytes::Bytes;
use tonic::Status;

use super::encode::encode_once;
use super::ipc::{Decoded, Decoder};
use super::proto;
use super::ticket::Id;

/// Parameters up to this many bytes travel inside handles and tickets.
const INLINE_BYTES: usize = 256 << 10;

/// What is bound to a statement.
#[derive(Debug, Clone)]
pub(super) enum Parameters {
    /// As a handle or ticket carries them. They come from a client and are trusted no more than any other message.
    Encoded(Vec<proto::IpcMessage>),
    /// Decoded. Under the id, if there is one, the server keeps them.
    Batch(RecordBatch, Option<Id>),
}

impl Parameters {
    /// What a handle or ticket carries; none where that is nothing.
    pub(super) fn carried(messages: Vec<proto::IpcMessage>) -> Option<Self> {
        (!messages.is_empty()).then_some(Self::Encoded(messages))
    }

    /// The parameters themselves; none where the messages hold none.
    pub(super) fn decode(&self) -> Result<Option<RecordBatch>, Status> {
        let messages = match self {
            Self::Batch(batch, _) => return Ok(Some(batch.clone())),
            Self::Encoded(messages) => messages,
        };
        let mut decoder = Decoder::new(4 * INLINE_BYTES as u64);
        let mut parameters = None;
        for message in messages {
            let body = Bytes::from(message.body.clone());
            if let Decoded::Batch(batch) = decoder.decode(&message.header, body)? {
                parameters = Some(batch);
            }
        }
        Ok(parameters)
    }

    /// As a handle or ticket carries them; else the id under which the server keeps them, where they are too large for that.
    pub(super) fn into_carried(self) -> Result<Result<Vec<proto::IpcMessage>, Option<Id>>, Status> {
        match self {
            Self::Encoded(messages) => Ok(Ok(messages)),
            Self::Batch(batch, id) => Ok(encode(&batch)?.ok_or(id)),
        }
    }
}

/// Parameters as they were received.
pub(super) struct Received {
    pub(super) batch: RecordBatch,
    /// Their messages, where these are small and hold no more than the one batch.
    messages: Vec<proto::IpcMessage>,
}

impl Received {
    /// As a handle carries them; `None` where they are too large for one.
    pub(super) fn carried(&self) -> Result<Option<Vec<proto::IpcMessage>>, Status> {
        if self.messages.is_empty() { encode(&self.batch) } else { Ok(Some(self.messages.clone())) }
    }
}

/// Gathers the messages of parameters as they come.
#[derive(Default)]
pub(super) struct Messages {
    messages: Vec<proto::IpcMessage>,
    bytes: usize,
}

impl Messages {
    pub(super) fn add(&mut self, header: &Bytes, body: &Bytes) {
        self.bytes += header.len() + body.len();
        if self.bytes <= INLINE_BYTES {
            let (header, body) = (header.to_vec(), body.to_vec());
            self.messages.push(proto::IpcMessage { header, body });
        }
    }

    /// With what they were decoded to, out of so many batches.
    pub(super) fn decoded(self, batch: RecordBatch, batch_count: usize) -> Received {
        // Compressed messages may be small and hold more than `decode` takes.
        let small = self.bytes.max(batch.get_array_memory_size()) <= INLINE_BYTES;
        let whole = batch_count == 1 && small;
        Received { batch, messages: if whole { self.messages } else { Vec::new() } }
    }
}

/// Parameters as messages for a handle or ticket; `None` where they are too large for one.
fn encode(batch: &RecordBatch) -> Result<Option<Vec<proto::IpcMessage>>, Status> {
    if batch.get_array_memory_size() > 4 * INLINE_BYTES {
        return Ok(None);
    }
    let messages: Vec<proto::IpcMessage> = encode_once(batch)?
        .into_iter()
        .map(|m| proto::IpcMessage { header: m.header.to_vec(), body: m.contiguous_body().into() })
        .collect();
    let bytes: usize = messages.iter().map(|m| m.header.len() + m.body.len()).sum();
    Ok((bytes <= INLINE_BYTES).then_some(messages))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array};

    use super::*;

    fn received(rows: usize) -> Received {
        let column: ArrayRef = Arc::new(Int64Array::from(vec![7; rows]));
        let batch = RecordBatch::try_from_iter([("0", column)]).unwrap();
        let mut messages = Messages::default();
        for message in encode_once(&batch.slice(0, 1)).unwrap() {
            messages.add(&message.header, &message.contiguous_body());
        }
        messages.decoded(batch, 1)
    }

    #[test]
    fn small_parameters_are_carried_as_they_came() {
        let carried = received(1).carried().unwrap().unwrap();
        let decoded = Parameters::carried(carried).unwrap().decode().unwrap().unwrap();
        assert_eq!(decoded.num_rows(), 1);
    }

    #[test]
    fn what_is_large_once_decompressed_is_kept_and_not_carried() {
        // As of messages whose bodies are compressed: few bytes, many rows.
        assert!(received(1_000_000).carried().unwrap().is_none());
    }
}
