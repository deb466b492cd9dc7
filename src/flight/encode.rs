//! Rows to Flight messages. By default columns leave in the types that every client understands; messages
//! have about 2 MiB, and a row that is larger still goes out alone.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use arrow::array::{Array, RecordBatch, RecordBatchOptions};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::SchemaRef;
use arrow::ipc::CompressionType;
use arrow::ipc::writer::{IpcWriteOptions, StreamEncoder};
use arrow_flight::{IpcMessage, SchemaAsIpc};
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use tokio::sync::mpsc;
use tonic::Status;

use super::message::Message;
use super::{status, wire_type};
use crate::sql::{self, Code};

/// Bytes of rows in one message, about.
const MESSAGE_BYTES: usize = 2 << 20;

/// The same where memory is short.
const MIN_MESSAGE_BYTES: usize = 64 << 10;

/// The messages of one stream.
pub(crate) type FlightStream = BoxStream<'static, Result<Message, Status>>;

/// A schema as a self-contained IPC message, as FlightInfo and prepared statements carry it.
pub(crate) fn schema_message(schema: &arrow::datatypes::Schema) -> Result<Bytes, Status> {
    let IpcMessage(bytes) = SchemaAsIpc::new(schema, &IpcWriteOptions::default())
        .try_into()
        .map_err(status::from_arrow)?;
    Ok(bytes)
}

/// Streams rows in the types of `wire` (made from their schema by [`wire_type::schema`], or that schema itself).
pub(crate) fn rows(
    rows: sql::Rows,
    wire: SchemaRef,
    compression: Option<CompressionType>,
    database: &sql::Database,
) -> FlightStream {
    let mut encoder = Encoder::new(rows.stream, wire);
    encoder.sharer = Some(database.memory().results.join());
    let Some(compression) = compression else { return encoder.boxed() };
    encoder.compression = Some(compression);
    // It takes milliseconds a message: that is done where queries compute. `None` says that all has been sent.
    let (sender, receiver) = mpsc::channel(1);
    database.runtime().spawn(async move {
        while let Some(message) = encoder.next().await {
            if sender.send(Some(message)).await.is_err() {
                return;
            }
        }
        let _ = sender.send(None).await;
    });
    futures::stream::unfold(Some(receiver), |receiver| async move {
        let mut receiver = receiver?;
        match receiver.recv().await {
            Some(Some(message)) => Some((message, Some(receiver))),
            Some(None) => None,
            None => {
                Some((Err(status::new(Code::InternalError, "a defect stopped the query")), None))
            }
        }
    })
    .boxed()
}

/// Streams rows that are in memory.
pub(crate) fn batches(wire: SchemaRef, batches: Vec<RecordBatch>) -> FlightStream {
    rows_of(wire, batches).boxed()
}

fn rows_of(wire: SchemaRef, batches: Vec<RecordBatch>) -> Encoder {
    Encoder::new(futures::stream::iter(batches.into_iter().map(Ok)).boxed(), wire)
}

/// All messages of one batch, dictionaries decoded.
pub(crate) fn encode_once(batch: &RecordBatch) -> Result<Vec<Message>, Status> {
    let wire = wire_type::schema(batch.schema_ref());
    let mut encoder = rows_of(wire, Vec::new());
    let batch = encoder.convert(batch)?;
    encoder.encode_message(&batch)?;
    Ok(encoder.queue.into())
}

/// Turns batches into messages as they are asked for.
struct Encoder {
    rows: BoxStream<'static, sql::Result<RecordBatch>>,
    wire: SchemaRef,
    compression: Option<CompressionType>,
    /// Its part of the memory for results.
    sharer: Option<sql::Sharer>,
    /// Made with the first batch.
    encoder: Option<StreamEncoder>,
    queue: VecDeque<Message>,
    /// The schema goes out before the first rows, or with them.
    schema_sent: bool,
    /// Rows of the present batch that are not encoded yet.
    pending: Option<RecordBatch>,
    done: bool,
}

impl Encoder {
    fn new(rows: BoxStream<'static, sql::Result<RecordBatch>>, wire: SchemaRef) -> Self {
        Self {
            rows,
            wire,
            compression: None,
            sharer: None,
            encoder: None,
            queue: VecDeque::new(),
            schema_sent: false,
            pending: None,
            done: false,
        }
    }

    /// The schema by itself.
    fn schema(&mut self) -> Message {
        self.schema_sent = true;
        Message::schema(&self.wire, &IpcWriteOptions::default())
    }

    /// The batch in the types of the wire. Columns that have them already are not copied.
    fn convert(&self, batch: &RecordBatch) -> Result<RecordBatch, Status> {
        let options = CastOptions { safe: false, ..CastOptions::default() };
        let columns = batch
            .columns()
            .iter()
            .zip(self.wire.fields())
            .map(|(column, field)| {
                if column.data_type() == field.data_type() {
                    return Ok(column.clone());
                }
                cast_with_options(column, field.data_type(), &options).map_err(|e| {
                    status::new(
                        Code::InternalError,
                        format!(
                            "column \"{}\" of type {} cannot be sent as {}: {e}",
                            field.name(),
                            column.data_type(),
                            field.data_type()
                        ),
                    )
                })
            })
            .collect::<Result<Vec<_>, Status>>()?;
        let count = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(self.wire.clone(), columns, &count)
            .map_err(status::from_arrow)
    }

    fn encode_message(&mut self, batch: &RecordBatch) -> Result<(), Status> {
        let encoder = match &mut self.encoder {
            Some(encoder) => encoder,
            None => {
                let options = IpcWriteOptions::default()
                    .try_with_compression(self.compression)
                    .map_err(status::from_arrow)?;
                let encoder = StreamEncoder::try_new_with_options(&self.wire, options)
                    .map_err(status::from_arrow)?;
                self.encoder.insert(encoder)
            }
        };
        let with_schema = !std::mem::replace(&mut self.schema_sent, true);
        let messages =
            encoder.encode(batch).and_then(|stream| Message::of_stream(stream, with_schema));
        self.queue.extend(messages.map_err(status::from_arrow)?);
        Ok(())
    }

    /// Bytes of the next message, about: smaller ones where many results are open, of which each may have to keep one.
    fn message_bytes(&self) -> usize {
        let share = self.sharer.as_ref().map_or(MESSAGE_BYTES, sql::Sharer::bytes);
        share.clamp(MIN_MESSAGE_BYTES, MESSAGE_BYTES)
    }

    /// Encodes the next message's worth of the present batch.
    fn encode_pending(&mut self, batch: RecordBatch) -> Result<(), Status> {
        let rows = batch.num_rows();
        let bytes = slice_bytes(&batch);
        let message_bytes = self.message_bytes();
        if bytes <= message_bytes || rows == 1 {
            return self.encode_message(&batch);
        }
        // As many rows as fit on average; fewer where these turn out to be the large ones.
        let messages = bytes.div_ceil(message_bytes);
        let mut count = rows.div_ceil(messages);
        while count > 1 && slice_bytes(&batch.slice(0, count)) > 2 * message_bytes {
            count /= 2;
        }
        if count < rows {
            self.pending = Some(batch.slice(count, rows - count));
        }
        self.encode_message(&batch.slice(0, count))
    }
}

/// Bytes of the rows themselves, not of the buffers that they are slices of.
fn slice_bytes(batch: &RecordBatch) -> usize {
    batch
        .columns()
        .iter()
        .map(|c| c.to_data().get_slice_memory_size().unwrap_or_else(|_| c.get_array_memory_size()))
        .sum()
}

impl Stream for Encoder {
    type Item = Result<Message, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(message) = self.queue.pop_front() {
                return Poll::Ready(Some(Ok(message)));
            }
            if self.done {
                return Poll::Ready(None);
            }
            let result = match self.pending.take() {
                Some(batch) => self.encode_pending(batch),
                None => match self.rows.poll_next_unpin(cx) {
                    Poll::Pending if self.schema_sent => return Poll::Pending,
                    // Who waits for rows has their schema meanwhile.
                    Poll::Pending => return Poll::Ready(Some(Ok(self.schema()))),
                    Poll::Ready(None) => {
                        self.done = true;
                        if !self.schema_sent {
                            return Poll::Ready(Some(Ok(self.schema())));
                        }
                        continue;
                    }
                    Poll::Ready(Some(Err(e))) => Err(status::from_sql(e)),
                    Poll::Ready(Some(Ok(batch))) if batch.num_rows() == 0 => continue,
                    Poll::Ready(Some(Ok(batch))) => {
                        self.convert(&batch).and_then(|batch| self.encode_pending(batch))
                    }
                },
            };
            if let Err(status) = result {
                self.done = true;
                return Poll::Ready(Some(Err(status)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, DictionaryArray, Int64Array, StringArray, StringViewArray};
    use arrow::compute::concat_batches;
    use arrow::datatypes::Int32Type;
    use futures::TryStreamExt;

    use super::*;
    use crate::flight::ipc::{Decoded, Decoder};

    fn encode(batch: RecordBatch) -> Vec<Message> {
        let wire = wire_type::schema(batch.schema_ref());
        futures::executor::block_on(batches(wire, vec![batch]).try_collect()).unwrap()
    }

    fn decode(messages: Vec<Message>) -> RecordBatch {
        let mut decoder = Decoder::new(1 << 30);
        let mut batches = Vec::new();
        for m in messages {
            if let Decoded::Batch(batch) = decoder.decode(&m.header, m.contiguous_body()).unwrap() {
                batches.push(batch);
            }
        }
        concat_batches(decoder.schema().unwrap(), &batches).unwrap()
    }

    #[test]
    fn slices_of_a_large_batch_are_measured_as_slices() {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..4_000_000));
        let batch = RecordBatch::try_from_iter([("k", column)]).unwrap();
        assert_eq!(encode(batch.slice(1000, 10)).len(), 2, "the schema and one message");
        let messages = encode(batch.clone());
        assert!(messages.iter().all(|m| m.body_bytes() < 2 * MESSAGE_BYTES));
        assert_eq!(decode(messages).column(0), batch.column(0));
    }

    #[test]
    fn an_oversized_row_goes_alone_and_its_neighbours_together() {
        let large = "x".repeat(3 * MESSAGE_BYTES);
        let mut values = vec!["a"; 1000];
        values[500] = &large;
        let column: ArrayRef = Arc::new(StringArray::from(values));
        let batch = RecordBatch::try_from_iter([("v", column)]).unwrap();
        let messages = encode(batch.clone());
        assert!(messages.len() < 60, "{} messages", messages.len());
        assert_eq!(decode(messages).column(0), batch.column(0));
    }

    #[test]
    fn views_and_dictionaries_leave_as_plain_text() {
        let view: ArrayRef =
            Arc::new(StringViewArray::from(vec![Some("a"), None, Some("a longer text")]));
        let dictionary: ArrayRef = Arc::new(
            vec![Some("x"), Some("y"), None].into_iter().collect::<DictionaryArray<Int32Type>>(),
        );
        let batch = RecordBatch::try_from_iter([("v", view), ("d", dictionary)]).unwrap();
        let decoded = decode(encode(batch));
        let text = |v: Vec<Option<&str>>| Arc::new(StringArray::from(v)) as ArrayRef;
        assert_eq!(decoded.column(0), &text(vec![Some("a"), None, Some("a longer text")]));
        assert_eq!(decoded.column(1), &text(vec![Some("x"), Some("y"), None]));
    }
}
