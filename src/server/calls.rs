//! How many calls are open, over all connections and on each. Every one of them costs memory until it ends, however little its
//! client sends or reads.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;

use crate::flight::Connection;
use crate::sql::Code;

/// Calls of one connection that are let in whatever others do: to see how the server is, to stop what runs, to end a
/// transaction.
const FREE_CALLS: usize = 4;

/// Counts the calls that are open. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Calls {
    max_count: usize,
    open: Arc<AtomicUsize>,
}

impl Calls {
    pub(super) fn new(max_count: usize) -> Self {
        Self { max_count, open: Arc::default() }
    }

    /// Counts a call of `connection`; none where there are too many.
    fn begin(&self, connection: Option<&Connection>) -> Option<OpenCall> {
        let own = connection.map(|c| Arc::clone(&c.calls));
        let of_connection =
            own.as_ref().map_or(usize::MAX, |own| own.fetch_add(1, Ordering::Relaxed));
        let all = self.open.fetch_add(1, Ordering::Relaxed);
        // Dropped, it counts down what was counted up.
        let call = OpenCall { open: Arc::clone(&self.open), own };
        (all < self.max_count || of_connection < FREE_CALLS).then_some(call)
    }
}

/// A call that is open until this is dropped.
#[derive(Debug)]
struct OpenCall {
    open: Arc<AtomicUsize>,
    own: Option<Arc<AtomicUsize>>,
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        if let Some(own) = &self.own {
            own.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// A service whose calls are counted.
#[derive(Debug, Clone)]
pub(super) struct Counted<S> {
    inner: S,
    calls: Calls,
}

impl<S> Counted<S> {
    pub(super) fn new(inner: S, calls: Calls) -> Self {
        Self { inner, calls }
    }
}

type Answer = Result<Response<Body>, Infallible>;

impl<S> tower::Service<Request<Body>> for Counted<S>
where
    S: tower::Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let connection = request.extensions().get::<Connection>();
        let Some(call) = self.calls.begin(connection) else {
            let message = format!(
                "too many calls are open: {} (max_calls), results that are not read to their end included; try again later",
                self.calls.max_count
            );
            return Box::pin(std::future::ready(Ok(crate::flight::refusal(
                Code::TooManyConnections,
                message,
            )
            .into_http())));
        };
        let answer = self.inner.call(request);
        Box::pin(async move {
            Ok(answer.await?.map(|body| Body::new(CountedBody { body, _call: call })))
        })
    }
}

/// The body of a response, which the call lasts as long as.
struct CountedBody {
    body: Body,
    _call: OpenCall,
}

impl http_body::Body for CountedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        http_body::Body::poll_frame(Pin::new(&mut self.body), cx)
    }

    fn is_end_stream(&self) -> bool {
        http_body::Body::is_end_stream(&self.body)
    }

    fn size_hint(&self) -> SizeHint {
        http_body::Body::size_hint(&self.body)
    }
}
