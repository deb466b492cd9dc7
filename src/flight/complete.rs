//! Tells a request stream that ended from one that broke. tonic reports both in the same way when a client resets its call,
//! and a load that took the one for the other would commit what it has of a broken stream.

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
        // Trailers are the end of a body too.
        if frame.as_ref().is_none_or(|f| f.as_ref().is_ok_and(Frame::is_trailers)) {
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
