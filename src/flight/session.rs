//! Which session a call belongs to: that of its handshake's token, else of its cookie, else of its TCP connection.
//! Never one session for all.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Status};
use uuid::Uuid;

use crate::sql::{self, Database};

/// Name of the cookie that carries a session's id.
const COOKIE: &str = "arrow_flight_session_id";
/// Prefix of the tokens that a handshake gives out; other tokens identify users, not sessions.
const TOKEN_PREFIX: &str = "omendb-session-";

/// What the server knows of the connection that a call came over: an extension of its request.
#[derive(Debug, Clone)]
pub struct Connection {
    /// Differs from that of every other connection of this server.
    pub id: u64,
}

/// A client's session.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: Uuid,
    pub(crate) sql: sql::Session,
    /// Columns leave in the types that they have, views and dictionaries included.
    pub(crate) native_types: AtomicBool,
}

impl Session {
    pub(crate) fn native_types(&self) -> bool {
        self.native_types.load(Ordering::Relaxed)
    }
}

/// A call's session, and what its response must carry.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) session: Arc<Session>,
    /// The client is one of Arrow's in Java, such as the JDBC driver.
    pub(crate) from_java: bool,
    cookie: Option<String>,
}

impl Call {
    /// Puts the session's cookie on the response where the client does not have it yet.
    pub(crate) fn respond<T>(&self, body: T) -> tonic::Response<T> {
        let mut response = tonic::Response::new(body);
        if let Some(value) = self.cookie.as_ref().and_then(|c| c.parse().ok()) {
            response.metadata_mut().insert("set-cookie", value);
        }
        response
    }
}

/// The sessions of a server: a bounded number, each for a bounded time of idleness.
#[derive(Debug)]
pub(crate) struct Sessions {
    database: Database,
    idle: Duration,
    max_count: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    by_id: HashMap<Uuid, Entry>,
    by_connection: HashMap<u64, Uuid>,
}

#[derive(Debug)]
struct Entry {
    session: Arc<Session>,
    last_used: Instant,
    /// The client has named it by token or cookie, so it outlives its connection.
    named: bool,
}

impl Sessions {
    pub(crate) fn new(database: Database, idle: Duration, max_count: usize) -> Self {
        Self { database, idle, max_count, inner: Mutex::default() }
    }

    pub(crate) fn database(&self) -> &Database {
        &self.database
    }

    /// The session of a call.
    pub(crate) fn of(
        &self,
        metadata: &MetadataMap,
        extensions: &Extensions,
    ) -> Result<Call, Status> {
        let named = token(metadata).or_else(|| cookie(metadata));
        let from_java = is_java(metadata);
        let connection = extensions.get::<Connection>().map(|c| c.id);
        let now = Instant::now();
        let mut inner = self.inner.lock();
        let known = named.or_else(|| inner.by_connection.get(&connection?).copied());
        if let Some(entry) = known.and_then(|id| inner.by_id.get_mut(&id)) {
            entry.last_used = now;
            entry.named |= named.is_some();
            return Ok(Call { session: Arc::clone(&entry.session), from_java, cookie: None });
        }
        // An id that is not known any more (a restart, idleness) names a new session from here on.
        let id = known.unwrap_or_else(Uuid::new_v4);
        let session = self.insert(&mut inner, id, named.is_some(), now)?;
        if let (None, Some(connection)) = (named, connection) {
            inner.by_connection.insert(connection, id);
        }
        let cookie = named.is_none().then(|| format!("{COOKIE}={id}; Path=/; HttpOnly"));
        Ok(Call { session, from_java, cookie })
    }

    /// A new session for a handshake, and the token that names it.
    pub(crate) fn handshake(&self) -> Result<String, Status> {
        let id = Uuid::new_v4();
        self.insert(&mut self.inner.lock(), id, true, Instant::now())?;
        Ok(format!("{TOKEN_PREFIX}{id}"))
    }

    fn insert(
        &self,
        inner: &mut Inner,
        id: Uuid,
        named: bool,
        now: Instant,
    ) -> Result<Arc<Session>, Status> {
        if inner.by_id.len() >= self.max_count {
            let oldest = inner
                .by_id
                .iter()
                .filter(|(_, e)| Arc::strong_count(&e.session) == 1)
                .min_by_key(|(_, e)| e.last_used)
                .map(|(id, _)| *id);
            let Some(oldest) = oldest else {
                return Err(Status::resource_exhausted(format!(
                    "all {} sessions are in use; close some",
                    self.max_count
                )));
            };
            inner.remove(oldest);
        }
        let session = Arc::new(Session {
            id,
            sql: self.database.session(),
            native_types: AtomicBool::new(false),
        });
        inner.by_id.insert(id, Entry { session: Arc::clone(&session), last_used: now, named });
        Ok(session)
    }

    /// Ends a session.
    pub(crate) fn close(&self, id: Uuid) {
        self.inner.lock().remove(id);
    }

    /// Ends the session of a connection that is gone, unless a token or cookie names it too.
    pub(crate) fn disconnected(&self, connection: u64) {
        let mut inner = self.inner.lock();
        if let Some(id) = inner.by_connection.remove(&connection)
            && inner.by_id.get(&id).is_some_and(|e| !e.named)
        {
            inner.by_id.remove(&id);
        }
    }

    /// Ends the sessions that were idle for too long.
    pub(crate) fn sweep(&self) {
        let mut inner = self.inner.lock();
        let idle: Vec<Uuid> = inner
            .by_id
            .iter()
            .filter(|(_, e)| {
                Arc::strong_count(&e.session) == 1 && e.last_used.elapsed() > self.idle
            })
            .map(|(id, _)| *id)
            .collect();
        for id in idle {
            inner.remove(id);
        }
    }
}

impl Inner {
    fn remove(&mut self, id: Uuid) {
        self.by_id.remove(&id);
        self.by_connection.retain(|_, of| *of != id);
    }
}

/// Whether grpc-java speaks: the user agent ends in its name and version, whatever a client puts before it.
fn is_java(metadata: &MetadataMap) -> bool {
    let agent = metadata.get("user-agent").and_then(|v| v.to_str().ok());
    agent.is_some_and(|agent| agent.contains("grpc-java"))
}

fn token(metadata: &MetadataMap) -> Option<Uuid> {
    let value = metadata.get("authorization")?.to_str().ok()?;
    let token = value.strip_prefix("Bearer ")?.trim();
    token.strip_prefix(TOKEN_PREFIX)?.parse().ok()
}

fn cookie(metadata: &MetadataMap) -> Option<Uuid> {
    metadata
        .get_all("cookie")
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == COOKIE)
        .and_then(|(_, value)| value.trim_matches('"').parse().ok())
}
