//! The accept loop. It accepts a bounded number of connections, waits when descriptors run out instead of spinning, and drops
//! those that do not begin to speak.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::Stream;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Sleep, sleep, timeout};
use tonic::transport::server::Connected;

use super::ConnectionLimit;
use crate::flight::{Connection, Service};
use crate::sql::{Budget, Reservation};

/// A connection must have begun to speak HTTP/2 within this time.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// When there is no room for a new connection, one whose handshake took longer than this is closed, and after that one that is
/// older than the second and has made no call yet.
const PATIENCE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));
/// Waits between failed accepts: doubled each time.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// What a connection's client may send before anybody asks for it: at most, and at least. HTTP/2 begins with the latter.
const WINDOW: (usize, usize) = (16 << 20, 64 << 10);

/// A limit of connections that leaves half of the process's descriptors to files.
pub(super) fn limit(max_connections: usize) -> ConnectionLimit {
    let descriptors = descriptor_limit().unwrap_or(usize::MAX);
    let limit = max_connections.min(descriptors / 2).max(1);
    if limit < max_connections {
        tracing::warn!(
            limit,
            descriptors,
            "fewer connections than set: the process may open too few files"
        );
    }
    Arc::new(Semaphore::new(limit.min(Semaphore::MAX_PERMITS)))
}

/// How many descriptors the process may have, where the system says it.
fn descriptor_limit() -> Option<usize> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find(|l| l.starts_with("Max open files"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

/// When a connection came, and what closes it.
type Waiting = (Instant, oneshot::Sender<()>);

/// Connections that have not been used yet, oldest first.
#[derive(Debug, Clone, Default)]
struct Unused(Arc<Mutex<UnusedInner>>);

#[derive(Debug, Default)]
struct UnusedInner {
    /// In their handshake.
    silent: BTreeMap<u64, Waiting>,
    /// After it, without a call.
    idle: BTreeMap<u64, Waiting>,
}

impl Unused {
    fn add(&self, id: u64) -> oneshot::Receiver<()> {
        let (close, closed) = oneshot::channel();
        self.0.lock().silent.insert(id, (Instant::now(), close));
        closed
    }

    /// Its handshake is done.
    fn spoken(&self, id: u64) {
        let mut inner = self.0.lock();
        if let Some(waiting) = inner.silent.remove(&id) {
            inner.idle.insert(id, waiting);
        }
    }

    fn remove(&self, id: u64) {
        let mut inner = self.0.lock();
        inner.silent.remove(&id);
        inner.idle.remove(&id);
    }

    /// Closes the oldest one, unless it is so young that it may be about to be used.
    fn close_oldest(&self) {
        fn pop(waiting: &mut BTreeMap<u64, Waiting>, patience: Duration) -> Option<Waiting> {
            let oldest = waiting.first_entry()?;
            (oldest.get().0.elapsed() > patience).then(|| oldest.remove())
        }
        let mut inner = self.0.lock();
        let oldest =
            pop(&mut inner.silent, PATIENCE.0).or_else(|| pop(&mut inner.idle, PATIENCE.1));
        if let Some((_, close)) = oldest {
            // Its task may be gone already, and then there is room.
            let _ = close.send(());
        }
    }
}

/// Waits for room for a connection, at the cost of those that are not used.
async fn room(limit: &ConnectionLimit, unused: &Unused) -> Option<OwnedSemaphorePermit> {
    let mut permit = pin!(Arc::clone(limit).acquire_owned());
    loop {
        unused.close_oldest();
        // The semaphore is never closed.
        if let Ok(permit) = timeout(PATIENCE.0 / 10, &mut permit).await {
            return permit.ok();
        }
    }
}

/// Connections as they come.
pub(super) fn accept(
    listener: TcpListener,
    limit: ConnectionLimit,
    service: Service,
    windows: Budget,
) -> impl Stream<Item = Conn> {
    let unused = Unused::default();
    let state = (listener, limit, service, windows, unused, 1_u64);
    futures::stream::unfold(state, |(listener, limit, service, windows, unused, id)| async move {
        let permit = match Arc::clone(&limit).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => room(&limit, &unused).await?,
        };
        let stream = accept_one(&listener).await;
        if let Err(e) = stream.set_nodelay(true) {
            tracing::debug!("TCP_NODELAY: {e}");
        }
        let (window, reservation) = window(&windows);
        let conn = Conn {
            stream,
            handshake: Some((Handshake::default(), Box::pin(sleep(HANDSHAKE)))),
            close: Some(unused.add(id)),
            unused: unused.clone(),
            id,
            calls: Arc::default(),
            service: service.clone(),
            window,
            ended: None,
            _reservation: reservation,
            _permit: permit,
        };
        Some((conn, (listener, limit, service, windows, unused, id + 1)))
    })
}

/// The window of a new connection: a quarter of what is left for windows, so that few have large ones and many small ones.
fn window(windows: &Budget) -> (usize, Option<Reservation>) {
    let wanted = (windows.free_bytes() / 4).min(WINDOW.0);
    if wanted <= WINDOW.1 {
        return (WINDOW.1, None);
    }
    match windows.try_reserve(wanted) {
        Some(reservation) => (wanted, Some(reservation)),
        None => (WINDOW.1, None),
    }
}

/// How far a client is with what HTTP/2 begins with: 24 bytes of preface, and a SETTINGS frame.
#[derive(Debug, Default)]
struct Handshake {
    /// Bytes that came.
    count: usize,
    /// Length of the frame's content, as far as its three bytes are known.
    length: usize,
}

impl Handshake {
    const PREFACE: usize = 24;
    const HEAD: usize = 9;

    /// Looks at bytes that came; says whether all is there.
    fn pass(&mut self, bytes: &[u8]) -> bool {
        let length = Self::PREFACE..Self::PREFACE + 3;
        for (place, byte) in (self.count..length.end).zip(bytes) {
            if length.contains(&place) {
                self.length = self.length << 8 | usize::from(*byte);
            }
        }
        self.count += bytes.len();
        self.count >= Self::PREFACE + Self::HEAD + self.length
    }
}

async fn accept_one(listener: &TcpListener) -> TcpStream {
    let mut wait = BACK_OFF.0;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                tracing::debug!(%peer, "connection");
                return stream;
            }
            // Of this one connection only.
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::ConnectionAborted
                        | io::ErrorKind::ConnectionReset
                        | io::ErrorKind::Interrupted
                ) => {}
            // Out of descriptors or memory: it stays so until something is closed.
            Err(e) => {
                tracing::warn!("cannot accept connections: {e}");
                sleep(wait).await;
                wait = (wait * 2).min(BACK_OFF.1);
            }
        }
    }
}

/// A connection that counts against the limit until it is dropped.
pub(super) struct Conn {
    stream: TcpStream,
    /// Until it is done, and when it takes too long.
    handshake: Option<(Handshake, Pin<Box<Sleep>>)>,
    /// Until its first call: what closes it to make room.
    close: Option<oneshot::Receiver<()>>,
    unused: Unused,
    id: u64,
    calls: Arc<AtomicUsize>,
    service: Service,
    /// Bytes that its client may send before anybody asks for them.
    pub(super) window: usize,
    /// Told when it is gone.
    pub(super) ended: Option<oneshot::Sender<()>>,
    _reservation: Option<Reservation>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Conn {
    fn drop(&mut self) {
        self.unused.remove(self.id);
        self.service.disconnected(self.id);
    }
}

impl Connected for Conn {
    type ConnectInfo = Connection;

    fn connect_info(&self) -> Connection {
        Connection { id: self.id, calls: Arc::clone(&self.calls) }
    }
}

impl Conn {
    /// Why it must be closed, if it must.
    fn is_over(&mut self, cx: &mut Context<'_>) -> Option<&'static str> {
        if let Some((_, limit)) = &mut self.handshake
            && limit.as_mut().poll(cx).is_ready()
        {
            return Some("the client did not begin to speak HTTP/2");
        }
        if self.close.is_some() && self.calls.load(Ordering::Relaxed) > 0 {
            self.close = None;
            self.unused.remove(self.id);
        }
        let close = self.close.as_mut()?;
        Pin::new(close)
            .poll(cx)
            .is_ready()
            .then_some("others need the place of a connection that was not used")
    }
}

impl AsyncRead for Conn {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buf);
        if read.is_ready()
            && let Some((handshake, _)) = &mut this.handshake
            && handshake.pass(&buf.filled()[before..])
        {
            this.handshake = None;
            this.unused.spoken(this.id);
        }
        if this.handshake.is_none() && this.close.is_none() {
            return read;
        }
        match this.is_over(cx) {
            Some(why) => Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, why))),
            None => read,
        }
    }
}

impl AsyncWrite for Conn {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handshake_is_done_with_its_last_byte() {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend([0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 9]);
        for size in [1, 2, 24, 25, 40] {
            let mut handshake = Handshake::default();
            let pieces: Vec<bool> = bytes.chunks(size).map(|p| handshake.pass(p)).collect();
            let (last, rest) = pieces.split_last().unwrap();
            assert!(*last && !rest.contains(&true), "pieces of {size}");
        }
        assert!(!Handshake::default().pass(b"P"));
    }

    #[test]
    fn windows_shrink_as_connections_come() {
        let windows = Budget::new("windows", 8 << 20, Duration::ZERO);
        let taken: Vec<_> = (0..100).map(|_| window(&windows)).collect();
        assert_eq!(taken[0].0, 2 << 20);
        assert!(taken.windows(2).all(|w| w[1].0 <= w[0].0));
        assert_eq!(taken[99].0, WINDOW.1);
        drop(taken);
        assert_eq!(window(&windows).0, 2 << 20);
    }
}
