//! The accept loop. It accepts a bounded number of connections, waits when descriptors run out instead of spinning, and
//! drops those that say nothing.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
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

/// A connection must say something within this time.
const SILENCE: Duration = Duration::from_secs(10);
/// When there is no room for a new connection, one that was silent for longer is closed.
const PATIENCE: Duration = Duration::from_millis(250);
/// Waits between failed accepts: doubled each time.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

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

/// Connections that have said nothing yet, oldest first.
#[derive(Debug, Clone, Default)]
struct Silent(Arc<Mutex<BTreeMap<u64, Waiting>>>);

impl Silent {
    fn add(&self, id: u64) -> oneshot::Receiver<()> {
        let (close, closed) = oneshot::channel();
        self.0.lock().insert(id, (Instant::now(), close));
        closed
    }

    fn remove(&self, id: u64) {
        self.0.lock().remove(&id);
    }

    /// Closes the oldest one, unless it is so young that it may be about to speak.
    fn close_oldest(&self) {
        let mut silent = self.0.lock();
        if let Some(oldest) = silent.first_entry()
            && oldest.get().0.elapsed() > PATIENCE
        {
            // Its task may be gone already, and then there is room.
            let _ = oldest.remove().1.send(());
        }
    }
}

/// Waits for room for a connection, at the cost of those that say nothing.
async fn room(limit: &ConnectionLimit, silent: &Silent) -> Option<OwnedSemaphorePermit> {
    let mut permit = pin!(Arc::clone(limit).acquire_owned());
    loop {
        silent.close_oldest();
        // The semaphore is never closed.
        if let Ok(permit) = timeout(PATIENCE / 10, &mut permit).await {
            return permit.ok();
        }
    }
}

/// Connections as they come.
pub(super) fn accept(
    listener: TcpListener,
    limit: ConnectionLimit,
    service: Service,
) -> impl Stream<Item = io::Result<Conn>> {
    let silent = Silent::default();
    let state = (listener, limit, service, silent, 1_u64);
    futures::stream::unfold(state, |(listener, limit, service, silent, id)| async move {
        let permit = match Arc::clone(&limit).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => room(&limit, &silent).await?,
        };
        let stream = accept_one(&listener).await;
        if let Err(e) = stream.set_nodelay(true) {
            tracing::debug!("TCP_NODELAY: {e}");
        }
        let conn = Conn {
            stream,
            silence: Some((Box::pin(sleep(SILENCE)), silent.add(id))),
            silent: silent.clone(),
            id,
            service: service.clone(),
            _permit: permit,
        };
        Some((Ok(conn), (listener, limit, service, silent, id + 1)))
    })
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
    /// Until the first bytes arrive: when it is closed for its silence, or to make room.
    silence: Option<(Pin<Box<Sleep>>, oneshot::Receiver<()>)>,
    silent: Silent,
    id: u64,
    service: Service,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Conn {
    fn drop(&mut self) {
        self.silent.remove(self.id);
        self.service.disconnected(self.id);
    }
}

impl Connected for Conn {
    type ConnectInfo = Connection;

    fn connect_info(&self) -> Connection {
        Connection { id: self.id }
    }
}

impl AsyncRead for Conn {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        match Pin::new(&mut this.stream).poll_read(cx, buf) {
            Poll::Pending => {
                let closed = this.silence.as_mut().is_some_and(|(sleep, close)| {
                    sleep.as_mut().poll(cx).is_ready() || Pin::new(close).poll(cx).is_ready()
                });
                if closed {
                    let e = io::Error::new(io::ErrorKind::TimedOut, "the client said nothing");
                    return Poll::Ready(Err(e));
                }
                Poll::Pending
            }
            ready => {
                if this.silence.take().is_some() {
                    this.silent.remove(this.id);
                }
                ready
            }
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
