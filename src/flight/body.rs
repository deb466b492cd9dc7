//! The HTTP body of DoGet: gRPC frames of FlightData whose large buffers are the arrays' own. The generated service would
//! copy every batch twice on its way out, once into a message and once into the frame.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use futures::StreamExt;
use http::HeaderMap;
use http_body::{Body, Frame};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};
use tonic::Status;

use super::encode::FlightStream;
use super::message::{Message, shared};
use super::status;
use crate::sql::Code;

/// Buffers below this size are copied together: a frame of their own would cost more.
const COPY_BYTES: usize = 8 << 10;

/// Field numbers of FlightData.
const DATA_HEADER: u32 = 2;
const DATA_BODY: u32 = 1000;

/// A stream of messages as the body of a response.
pub(super) struct RowsBody {
    messages: FlightStream,
    /// Pieces to be sent before `small`.
    queue: VecDeque<Bytes>,
    /// Small pieces gathered so far.
    small: BytesMut,
    /// The call's status, once the stream has ended.
    trailers: Option<HeaderMap>,
    ended: bool,
}

impl RowsBody {
    pub(super) fn new(messages: FlightStream) -> Self {
        Self {
            messages,
            queue: VecDeque::new(),
            small: BytesMut::new(),
            trailers: None,
            ended: false,
        }
    }

    fn flush_small(&mut self) {
        if !self.small.is_empty() {
            self.queue.push_back(self.small.split().freeze());
        }
    }

    /// Frames a message: `FlightData { data_header, data_body }` behind gRPC's five bytes.
    fn add(&mut self, message: Message) -> Result<(), Status> {
        let body_bytes = message.body_bytes();
        let mut prefix = BytesMut::with_capacity(message.header.len() + 32);
        put_field(&mut prefix, DATA_HEADER, message.header.len());
        prefix.put_slice(&message.header);
        if body_bytes > 0 {
            put_field(&mut prefix, DATA_BODY, body_bytes);
        }
        let length = u32::try_from(prefix.len() + body_bytes).map_err(|_| {
            status::new(
                Code::ProgramLimitExceeded,
                format!("a row of {body_bytes} bytes is larger than a message can be (4 GiB)"),
            )
        })?;
        self.small.reserve(5 + prefix.len());
        self.small.put_u8(0);
        self.small.put_u32(length);
        self.small.put_slice(&prefix);
        for piece in message.body {
            if piece.len() < COPY_BYTES {
                self.small.put_slice(&piece);
            } else {
                self.flush_small();
                self.queue.push_back(shared(piece));
            }
        }
        Ok(())
    }

    fn end(&mut self, status: Status) {
        self.flush_small();
        self.ended = true;
        let mut trailers = HeaderMap::new();
        if let Err(unfit) = status.add_header(&mut trailers) {
            // Its message is not one that a header can hold.
            trailers = HeaderMap::new();
            tracing::warn!("a status cannot be sent: {unfit}");
            trailers.insert(Status::GRPC_STATUS, (status.code() as i32).into());
        }
        self.trailers = Some(trailers);
    }
}

/// The key and length of a field of bytes.
fn put_field(out: &mut BytesMut, field: u32, length: usize) {
    out.reserve(2 * encoded_len_varint(u64::MAX));
    encode_key(field, WireType::LengthDelimited, out);
    encode_varint(length as u64, out);
}

impl Body for RowsBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        loop {
            if let Some(piece) = self.queue.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            if self.ended {
                return Poll::Ready(self.trailers.take().map(|t| Ok(Frame::trailers(t))));
            }
            match self.messages.poll_next_unpin(cx) {
                Poll::Ready(Some(Ok(message))) => {
                    if let Err(status) = self.add(message) {
                        self.end(status);
                    } else if self.small.len() >= COPY_BYTES {
                        self.flush_small();
                    }
                }
                Poll::Ready(Some(Err(status))) => self.end(status),
                Poll::Ready(None) => self.end(Status::new(tonic::Code::Ok, "")),
                Poll::Pending if self.small.is_empty() => return Poll::Pending,
                Poll::Pending => self.flush_small(),
            }
        }
    }
}
