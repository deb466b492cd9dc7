//! The server: opens the database, listens, serves, and shuts down in order.

mod calls;
mod incoming;
mod panics;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt, stream};

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use self::calls::{Calls, Counted};
use self::incoming::Conn;
use crate::config::Settings;
use crate::engine::{self, Engine};
use crate::flight::Service;
use crate::sql::{self, Database};

pub use panics::log_panics;

/// Name of the Flight service, for health checks of it alone.
const FLIGHT: &str = "arrow.flight.protocol.FlightService";

/// Name under which health checks learn whether maintenance (flushes, compactions, checkpoints) succeeds. Where it does not, the
/// server goes on: `omendb.tables` and the log say what fails.
const MAINTENANCE: &str = "omendb.maintenance";

/// A stream's window of HTTP/2 flow control, at most: room for two messages.
const STREAM_WINDOW: u32 = 4 << 20;
/// Streams of one connection at most: its client waits with more. All connections together are bound by `max_calls`.
const MAX_STREAMS: u32 = 1024;
/// Larger frames than HTTP/2's 16 KiB make loads cheaper.
const MAX_FRAME: u32 = 1 << 20;

/// Why a server did not start or did not end well.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The database cannot be opened or closed.
    #[error("{0}")]
    Engine(#[from] engine::Error),
    /// SQL cannot be set up.
    #[error("{0}")]
    Sql(#[from] sql::Error),
    /// The address is taken.
    #[error("the address {0} is in use by another program; choose another with --listen")]
    Busy(String),
    /// The address means nothing here.
    #[error("cannot listen on {0}: {1}")]
    Listen(String, #[source] io::Error),
    /// The address can be reached from other machines.
    #[error(
        "{0} is not a loopback address, and this version has no users and passwords yet: whoever reaches the port could \
         read, change and drop everything. Use 127.0.0.1, or say --insecure to do it all the same"
    )]
    Exposed(SocketAddr),
}

/// A server that listens and does not accept yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    database: Database,
    settings: Settings,
}

impl Server {
    /// Opens the database, then listens: the port accepts only when the database is ready.
    pub async fn open(settings: Settings) -> Result<Self, Error> {
        let addresses = resolve(&settings.listen).await?;
        if !settings.insecure
            && let Some(exposed) = addresses.iter().find(|a| !a.ip().is_loopback())
        {
            return Err(Error::Exposed(*exposed));
        }
        let (dir, options) = (settings.data_dir.clone(), settings.engine_options());
        let engine = blocking(move || Engine::open(dir, options)).await?;
        let listener = match TcpListener::bind(&addresses[..]).await {
            Ok(listener) => listener,
            Err(e) => {
                close(engine).await?;
                return Err(match e.kind() {
                    io::ErrorKind::AddrInUse => Error::Busy(settings.listen),
                    _ => Error::Listen(settings.listen, e),
                });
            }
        };
        let address =
            listener.local_addr().map_err(|e| Error::Listen(settings.listen.clone(), e))?;
        let database = Database::new(engine, settings.sql_options())?;
        Ok(Self { listener, address, database, settings })
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The database that it serves.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// Serves until `shutdown`, lets running calls finish within the grace period, and closes the database.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
        let Self { listener, database, settings, .. } = self;
        let engine = database.engine().clone();
        let service = Service::new(database, settings.flight_options());
        let (reporter, health) = tonic_health::server::health_reporter();
        set_health(&reporter, ServingStatus::Serving).await;
        let upkeep = tokio::spawn(upkeep(service.clone(), engine.clone(), reporter.clone()));

        let limit = incoming::limit(settings.max_connections);
        let windows = service.memory().windows.clone();
        let connections = incoming::accept(listener, limit, service.clone(), windows);
        let (stop, stopped) = oneshot::channel::<()>();
        let routes = Routes::new(health).add_service(service.clone().into_server()).prepare();
        let routes = Counted::new(routes, Calls::new(settings.max_calls));
        let serving = serve(connections, routes, stopped);
        tokio::pin!(serving);
        let result = tokio::select! {
            () = &mut serving => Ok(()),
            () = shutdown => {
                tracing::info!("shutting down: running calls may finish");
                service.drain();
                set_health(&reporter, ServingStatus::NotServing).await;
                let _ = stop.send(());
                match tokio::time::timeout(settings.shutdown_grace.0, &mut serving).await {
                    Ok(()) => Ok(()),
                    Err(_) => {
                        tracing::warn!("calls still run after the grace period; they are cut off");
                        Ok(())
                    }
                }
            }
        };
        upkeep.abort();
        // It holds the engine, and so the data directory, until it is gone.
        let _ = upkeep.await;
        close(engine).await?;
        tracing::info!("closed");
        result
    }
}

/// Serves connections until the stop; then waits for the calls that run.
async fn serve(
    connections: impl Stream<Item = Conn>,
    routes: Counted<Routes>,
    stopped: oneshot::Receiver<()>,
) {
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    {
        let mut connections = pin!(connections.take_until(stopped));
        while let Some(connection) = connections.next().await {
            tasks.spawn(serve_one(connection, routes.clone(), stop.clone()));
            // What has ended is forgotten.
            while tasks.try_join_next().is_some() {}
        }
        // The listener closes here.
    }
    stop.cancel();
    while tasks.join_next().await.is_some() {}
}

/// Serves one connection, with windows of its own size.
async fn serve_one(mut connection: Conn, routes: Counted<Routes>, stop: CancellationToken) {
    let window = u32::try_from(connection.window).unwrap_or(u32::MAX >> 1);
    let (ended, end) = oneshot::channel();
    connection.ended = Some(ended);
    let served = tonic::transport::Server::builder()
        .initial_stream_window_size(window.min(STREAM_WINDOW))
        .initial_connection_window_size(window)
        .max_concurrent_streams(MAX_STREAMS)
        .max_frame_size(MAX_FRAME)
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .http2_keepalive_timeout(Some(Duration::from_secs(20)))
        .serve_with_incoming_shutdown(
            routes,
            stream::once(async { Ok::<_, Infallible>(connection) }).chain(stream::pending()),
            async {
                // The end of the connection drops the sender.
                tokio::select! {
                    () = stop.cancelled() => {}
                    _ = end => {}
                }
            },
        )
        .await;
    if let Err(e) = served {
        tracing::debug!("a connection failed: {e}");
    }
}

async fn resolve(listen: &str) -> Result<Vec<SocketAddr>, Error> {
    let failed = |e| Error::Listen(listen.to_owned(), e);
    let addresses: Vec<SocketAddr> =
        tokio::net::lookup_host(listen).await.map_err(failed)?.collect();
    if addresses.is_empty() {
        return Err(failed(io::Error::new(io::ErrorKind::NotFound, "the name has no address")));
    }
    Ok(addresses)
}

async fn set_health(reporter: &HealthReporter, status: ServingStatus) {
    reporter.set_service_status("", status).await;
    reporter.set_service_status(FLIGHT, status).await;
}

/// What is done now and then: forgets what has expired, and tells when writes are refused.
async fn upkeep(service: Service, engine: Engine, reporter: HealthReporter) {
    let mut interval = tokio::time::interval(Duration::from_secs(1));
    let mut ready = true;
    let mut maintained = None;
    loop {
        interval.tick().await;
        service.sweep();
        let now_ready = engine.read_only().is_none();
        if ready != now_ready {
            ready = now_ready;
            set_health(&reporter, serving(ready)).await;
        }
        let now_maintained = ready && engine.failing_tasks().is_empty();
        if maintained != Some(now_maintained) {
            maintained = Some(now_maintained);
            reporter.set_service_status(MAINTENANCE, serving(now_maintained)).await;
        }
    }
}

fn serving(well: bool) -> ServingStatus {
    if well { ServingStatus::Serving } else { ServingStatus::NotServing }
}

async fn close(engine: Engine) -> Result<(), Error> {
    blocking(move || engine.close()).await.map_err(Error::from)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> engine::Result<T> + Send + 'static,
) -> engine::Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => Err(engine::Error::internal(format!("a task of the engine failed: {e}"))),
    }
}

/// Resolves at the first SIGTERM or SIGINT; the second one ends the process at once.
pub async fn signalled() {
    let (first, wait) = oneshot::channel();
    let mut first = Some(first);
    let signals = signals();
    tokio::spawn(async move {
        let Ok(mut signals) = signals else {
            // Without handlers the signals end the process as they do by default.
            std::future::pending::<()>().await;
            return;
        };
        loop {
            signals.next().await;
            match first.take() {
                Some(first) => {
                    let _ = first.send(());
                }
                None => {
                    tracing::warn!("second signal: ending at once");
                    std::process::exit(130);
                }
            }
        }
    });
    if wait.await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(unix)]
struct Signals(tokio::signal::unix::Signal, tokio::signal::unix::Signal);

#[cfg(unix)]
fn signals() -> io::Result<Signals> {
    use tokio::signal::unix::{SignalKind, signal};
    Ok(Signals(signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?))
}

#[cfg(unix)]
impl Signals {
    async fn next(&mut self) {
        tokio::select! {
            _ = self.0.recv() => {}
            _ = self.1.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
fn signals() -> io::Result<Signals> {
    Ok(Signals)
}

#[cfg(not(unix))]
impl Signals {
    async fn next(&mut self) {
        let _ = tokio::signal::ctrl_c().await;
    }
}

/// Serves on a thread pool of the caller until the handle is stopped. For tests and the demo.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    database: Database,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<Result<(), Error>>,
}

impl Running {
    /// Opens a server and serves in the background.
    pub async fn start(settings: Settings) -> Result<Self, Error> {
        let server = Server::open(settings).await?;
        let (address, database) = (server.address(), server.database().clone());
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(server.run(async {
            let _ = stopped.await;
        }));
        Ok(Self { address, database, stop, task })
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The database that it serves.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// Shuts it down as SIGTERM would.
    pub async fn stop(self) -> Result<(), Error> {
        let _ = self.stop.send(());
        match self.task.await {
            Ok(result) => result,
            Err(e) => Err(engine::Error::internal(format!("the server's task failed: {e}")).into()),
        }
    }
}

/// A count that is shared by reference; names what the accept loop holds for each connection.
type ConnectionLimit = Arc<tokio::sync::Semaphore>;
