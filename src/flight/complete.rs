//! Tells a request stream that ended from one that broke. tonic reports both in the same way when a client resets its call,
//! and hyper takes a reset with the code NO_ERROR for an end; a load that took the one for the other would commit what it has
//! of a broken stream. A stream has ended where the client has said so, by END_STREAM, and in no other way.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use super::status;
use crate::sql::Code;
use http_body::{Body, Frame, SizeHint};
use tonic::{Extensions, Status};

/// Whether the body of a request was received to its end: an extension of the request.
#[derive(Debug, Clone, Default)]
pub(super) struct Complete(Arc<AtomicBool>);

impl Complete {
    /// An error where the stream of this request broke.
    pub(super) fn check(&self) -> Result<(), Status> {
        if self.0.load(Ordering::Acquire) {
            Ok(())
        } else {
            Err(status::new(
                Code::QueryCanceled,
                "the client broke the stream off; nothing of it was kept",
            ))
        }
    }
}

/// The mark of a request.
pub(super) fn of(extensions: &Extensions) -> Result<Complete, Status> {
    extensions.get::<Complete>().cloned().ok_or_else(|| {
        status::new(Code::InternalError, "the service runs without the layer that watches streams")
    })
}

/// A request whose body is watched, and which carries the mark.
pub(super) fn watch<B>(request: http::Request<B>) -> http::Request<Watched<B>> {
    let complete = Complete::default();
    let (mut parts, body) = request.into_parts();
    parts.extensions.insert(complete.clone());
    http::Request::from_parts(parts, Watched { body: Box::pin(body), complete })
}

/// A body that notes its end.
#[derive(Debug)]
pub struct Watched<B> {
    body: Pin<Box<B>>,
    complete: Complete,
}

impl<B: Body> Body for Watched<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let frame = ready!(self.body.as_mut().poll_frame(cx));
        let ended = match &frame {
            // Trailers carry END_STREAM.
            Some(frame) => frame.as_ref().is_ok_and(Frame::is_trailers),
            // No more frames come after a reset either: what was received by then tells.
            None => self.body.is_end_stream(),
        };
        if ended {
            self.complete.0.store(true, Ordering::Release);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        // The end must be seen by `poll_frame`.
        false
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use std::convert::Infallible;

    /// A body of one frame of data, after which there are no more for one reason or another.
    struct Once {
        data: Option<Bytes>,
        ended: bool,
    }

    impl Body for Once {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.data.take().map(|data| Ok(Frame::data(data))))
        }

        fn is_end_stream(&self) -> bool {
            self.ended && self.data.is_none()
        }
    }

    #[test]
    fn only_the_end_of_the_stream_completes_it() {
        for ended in [false, true] {
            let data = Some(Bytes::from_static(b"rows"));
            let mut request = watch(http::Request::new(Once { data, ended }));
            let complete = request.extensions().get::<Complete>().unwrap().clone();
            let mut cx = Context::from_waker(std::task::Waker::noop());
            assert!(Pin::new(request.body_mut()).poll_frame(&mut cx).is_ready());
            assert!(complete.check().is_err(), "the body goes on");
            let last = Pin::new(request.body_mut()).poll_frame(&mut cx);
            assert!(matches!(last, Poll::Ready(None)));
            assert_eq!(complete.check().is_ok(), ended);
        }
    }
}
