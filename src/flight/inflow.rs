//! Memory of what clients send. A message is made whole before anybody sees it, so a client that sends all of it but a byte
//! makes the server hold that: room is taken before a message of any size is received, and while there is none, flow control
//! stops its sender.

use std::error::Error as StdError;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::{Sleep, sleep};
use tonic::Extensions;

use super::status;
use crate::sql::{self, Budget, Code, Reservation};

/// Bytes before the content of a gRPC message: a flag and its length.
const PREFIX: usize = 5;
/// A message that takes longer to arrive gives way to those that wait for room.
const SLOW: Duration = Duration::from_secs(30);

/// Room of the messages that were received and not taken yet: an extension of the request.
#[derive(Debug, Clone, Default)]
pub(super) struct Inflow(Arc<Mutex<Vec<Reservation>>>);

impl Inflow {
    /// The room of what was received so far, for whoever keeps the messages. Left here, it is free when the call ends.
    pub(super) fn take(&self) -> Vec<Reservation> {
        std::mem::take(&mut *self.0.lock())
    }
}

/// The room of a request's messages.
pub(super) fn of(extensions: &Extensions) -> Inflow {
    extensions.get::<Inflow>().cloned().unwrap_or_default()
}

/// A request whose body takes room for what it receives, from `budget`. Messages above `max_bytes` are refused by those who
/// decode them.
pub(super) fn measure<B>(
    request: http::Request<B>,
    budget: &Budget,
    max_bytes: usize,
) -> http::Request<Measured<B>> {
    let received = Inflow::default();
    let (mut parts, body) = request.into_parts();
    parts.extensions.insert(received.clone());
    let measured = Measured {
        body: Box::pin(body),
        budget: budget.clone(),
        max_bytes,
        slow: SLOW,
        messages: Messages::default(),
        room: None,
        waiting: None,
        received,
    };
    http::Request::from_parts(parts, measured)
}

/// Where in a stream of gRPC messages the next byte lies.
#[derive(Debug, Default)]
struct Messages {
    prefix: [u8; PREFIX],
    /// Bytes of the prefix that are there.
    known: usize,
    /// Bytes of the present message that are to come.
    left: usize,
}

impl Messages {
    /// Passes over bytes; says whether a message ended in them.
    fn pass(&mut self, mut bytes: &[u8]) -> bool {
        let mut ended = false;
        while !bytes.is_empty() {
            if self.left > 0 {
                let part = self.left.min(bytes.len());
                self.left -= part;
                bytes = &bytes[part..];
                ended |= self.left == 0;
                continue;
            }
            let part = (PREFIX - self.known).min(bytes.len());
            self.prefix[self.known..self.known + part].copy_from_slice(&bytes[..part]);
            self.known += part;
            bytes = &bytes[part..];
            if self.known == PREFIX {
                self.known = 0;
                let [_, a, b, c, d] = self.prefix;
                self.left = u32::from_be_bytes([a, b, c, d]) as usize;
                ended |= self.left == 0;
            }
        }
        ended
    }
}

type BoxError = Box<dyn StdError + Send + Sync>;

/// A body that takes room for the messages it receives.
pub struct Measured<B> {
    body: Pin<Box<B>>,
    budget: Budget,
    max_bytes: usize,
    slow: Duration,
    messages: Messages,
    /// Of the message that is being received, and when that has taken too long.
    room: Option<(Reservation, Pin<Box<Sleep>>)>,
    waiting: Option<BoxFuture<'static, sql::Result<Reservation>>>,
    received: Inflow,
}

impl<B> Measured<B> {
    /// Accounts for bytes that were received.
    fn pass(&mut self, bytes: &[u8]) {
        if self.messages.pass(bytes)
            && let Some((room, _)) = self.room.take()
        {
            self.received.0.lock().push(room);
        }
        let left = self.messages.left.min(self.max_bytes);
        if left > 0 && self.room.is_none() {
            match self.budget.try_reserve(left) {
                Some(room) => self.room = Some((room, Box::pin(sleep(self.slow)))),
                None => {
                    let budget = self.budget.clone();
                    self.waiting = Some(Box::pin(async move { budget.reserve(left).await }));
                }
            }
        }
    }

    /// Whether the message gives way to those that wait: it has taken too long to arrive.
    fn gives_way(&mut self, cx: &mut Context<'_>) -> bool {
        let Some((_, slow)) = &mut self.room else { return false };
        while slow.as_mut().poll(cx).is_ready() {
            if self.budget.is_wanted() {
                return true;
            }
            slow.set(sleep(Duration::from_secs(1)));
        }
        false
    }
}

impl<B> Body for Measured<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if let Some(waiting) = &mut this.waiting {
            let room = ready!(waiting.as_mut().poll(cx));
            this.waiting = None;
            match room {
                Ok(room) => this.room = Some((room, Box::pin(sleep(this.slow)))),
                Err(e) => return Poll::Ready(Some(Err(status::from_sql(e).into()))),
            }
        }
        match this.body.as_mut().poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    this.pass(data);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(e))) => Poll::Ready(Some(Err(e.into()))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending if this.gives_way(cx) => {
                let message = format!(
                    "a message took longer than {:?} to arrive, and others wait for its room; send smaller ones",
                    this.slow
                );
                Poll::Ready(Some(Err(status::new(Code::OutOfMemory, message).into())))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.waiting.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_followed_through_any_pieces() {
        let mut stream = Vec::new();
        for length in [0_u32, 7, 300] {
            stream.push(0);
            stream.extend(length.to_be_bytes());
            stream.extend(vec![1; length as usize]);
        }
        for size in [1, 3, 5, 6, 400] {
            let mut messages = Messages::default();
            let ended = stream.chunks(size).filter(|piece| messages.pass(piece)).count();
            assert!((1..=3).contains(&ended), "pieces of {size}");
            assert_eq!((messages.left, messages.known), (0, 0));
        }
        let mut messages = Messages::default();
        assert!(messages.pass(&stream[..stream.len() - 1]));
        assert_eq!(messages.left, 1);
    }

    struct Forever(Option<Bytes>);

    impl Body for Forever {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            match self.0.take() {
                Some(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
                None => Poll::Pending,
            }
        }
    }

    async fn frame(body: &mut Measured<Forever>) -> Option<Result<Frame<Bytes>, BoxError>> {
        std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await
    }

    #[tokio::test]
    async fn a_slow_message_gives_way_to_those_that_wait() {
        let budget = Budget::new("messages", 1 << 20, Duration::from_secs(60));
        let head = || Forever(Some(Bytes::from_static(&[0, 0, 15, 0, 0, 9])));
        let make = || {
            let mut body = measure(http::Request::new(head()), &budget, 1 << 20).into_body();
            body.slow = Duration::from_millis(20);
            body
        };
        let (mut slow, mut next) = (make(), make());
        assert!(frame(&mut slow).await.unwrap().is_ok());
        assert!(budget.free_bytes() < 100_000);
        assert!(frame(&mut next).await.unwrap().is_ok());
        let waits = tokio::spawn(async move { frame(&mut next).await });
        let error = frame(&mut slow).await.unwrap().unwrap_err();
        assert!(error.to_string().contains("took longer"), "{error}");
        drop(slow);
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(budget.free_bytes() < 100_000, "the next has the room");
        waits.abort();
    }
}
