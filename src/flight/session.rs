//! Which session a call belongs to: that of its handshake's token, else of its cookie, else of its TCP connection.
//! Never one session for all.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arrow::ipc::CompressionType;
use parking_lot::Mutex;
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Status};
use uuid::Uuid;

use super::service::Options;
use super::status;
use crate::sql::{self, Code, Database};

/// Name of the cookie that carries a session's id.
const COOKIE: &str = "arrow_flight_session_id";
/// Name of the cookie that says that BEGIN has begun a transaction.
const TRANSACTION_COOKIE: &str = "arrow_flight_session_transaction";
/// Prefix of the tokens that a handshake gives out; other tokens identify users, not sessions.
const TOKEN_PREFIX: &str = "omendb-session-";

/// What the server knows of the connection that a call came over: an extension of its request.
#[derive(Debug, Clone)]
pub struct Connection {
    /// Differs from that of every other connection of this server.
    pub id: u64,
    /// Calls of it that are open.
    pub calls: Arc<AtomicUsize>,
}

/// A client's session.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: Uuid,
    pub(crate) sql: sql::Session,
    /// Columns leave in the types that they have, views and dictionaries included.
    pub(crate) native_types: AtomicBool,
    /// How the buffers of rows are compressed.
    pub(crate) compression: Mutex<Option<CompressionType>>,
    /// Endpoints that the rows of a query are shared out to, at most.
    pub(crate) endpoint_count: AtomicUsize,
}

impl Session {
    pub(crate) fn native_types(&self) -> bool {
        self.native_types.load(Ordering::Relaxed)
    }

    pub(crate) fn compression(&self) -> Option<CompressionType> {
        *self.compression.lock()
    }

    pub(crate) fn endpoint_count(&self) -> usize {
        self.endpoint_count.load(Ordering::Relaxed)
    }
}

/// A call's session, and what its response must carry.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) session: Arc<Session>,
    /// The client is one of Arrow's in Java, such as the JDBC driver.
    pub(crate) from_java: bool,
    cookie: Option<String>,
    /// The client's cookies say that BEGIN has begun a transaction.
    flagged: bool,
}

impl Call {
    /// Puts the session's cookie on the response where the client does not have it yet, and another one for as long as a
    /// transaction is open that BEGIN began: so a client that comes back to a server which knows nothing of it, because it
    /// started again, is told, and does not go on without a transaction.
    pub(crate) fn respond<T>(&self, body: T) -> tonic::Response<T> {
        let mut response = tonic::Response::new(body);
        let flag = match (self.flagged, self.session.sql.in_sql_transaction()) {
            (false, true) => Some(format!("{TRANSACTION_COOKIE}=1; Path=/; HttpOnly")),
            (true, false) => Some(format!("{TRANSACTION_COOKIE}=0; Path=/; HttpOnly; Max-Age=0")),
            _ => None,
        };
        for cookie in [&self.cookie, &flag].into_iter().flatten() {
            if let Ok(value) = cookie.parse() {
                response.metadata_mut().append("set-cookie", value);
            }
        }
        response
    }
}

/// The sessions of a server: a bounded number, each for a bounded time of idleness.
#[derive(Debug)]
pub(crate) struct Sessions {
    database: Database,
    idle: Duration,
    transaction_idle: Duration,
    max_count: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    by_id: HashMap<Uuid, Entry>,
    connections: HashMap<u64, Uses>,
}

/// The sessions that a connection is used by.
#[derive(Debug, Default)]
struct Uses {
    /// The one that is named by the connection alone, or was before its client named it.
    own: Option<Uuid>,
    all: HashSet<Uuid>,
}

#[derive(Debug)]
struct Entry {
    session: Arc<Session>,
    last_used: Instant,
    /// The client has named it by token or cookie, so it outlives its connections.
    named: bool,
    connections: HashSet<u64>,
}

impl Sessions {
    pub(crate) fn new(database: Database, options: &Options) -> Self {
        Self {
            database,
            idle: options.session_idle,
            transaction_idle: options.transaction_idle,
            max_count: options.max_sessions,
            inner: Mutex::default(),
        }
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
        let token = token(metadata)?;
        let named = token.or_else(|| cookie(metadata, COOKIE)?.parse().ok());
        let flagged = cookie(metadata, TRANSACTION_COOKIE) == Some("1");
        let from_java = is_java(metadata);
        let connection = extensions.get::<Connection>().map(|c| c.id);
        let mut inner = self.inner.lock();
        let own = connection.and_then(|id| inner.connections.get(&id)?.own);
        // A cookie that is not known any more does not hide the connection's own session.
        let found = named
            .filter(|id| token.is_some() || inner.by_id.contains_key(id))
            .or(own)
            .and_then(|id| inner.by_id.get_mut(&id));
        let known = match found {
            Some(entry) => {
                entry.last_used = Instant::now();
                entry.named |= named == Some(entry.session.id);
                Some(Arc::clone(&entry.session))
            }
            None if token.is_some() => {
                return Err(status::new(
                    Code::InvalidAuthorization,
                    "the session of this token has ended, by idleness or because the server started again: connect again",
                ));
            }
            None => None,
        };
        let new = known.is_none();
        let session = match known {
            Some(session) => session,
            None => self.insert(&mut inner, false)?,
        };
        if new && flagged {
            session.sql.lose_sql_transaction(
                "its session has ended, by idleness or because the server started again",
            );
        }
        if let Some(connection) = connection {
            inner.connect(connection, session.id, new);
        }
        let cookie = (named != Some(session.id))
            .then(|| format!("{COOKIE}={}; Path=/; HttpOnly", session.id));
        Ok(Call { session, from_java, cookie, flagged })
    }

    /// A new session for a handshake, and the token that names it.
    pub(crate) fn handshake(&self) -> Result<String, Status> {
        let session = self.insert(&mut self.inner.lock(), true)?;
        Ok(format!("{TOKEN_PREFIX}{}", session.id))
    }

    fn insert(&self, inner: &mut Inner, named: bool) -> Result<Arc<Session>, Status> {
        if inner.by_id.len() >= self.max_count {
            let oldest = inner
                .by_id
                .iter()
                .filter(|(_, e)| Arc::strong_count(&e.session) == 1)
                .min_by_key(|(_, e)| e.last_used)
                .map(|(id, _)| *id);
            let Some(oldest) = oldest else {
                return Err(status::new(
                    Code::ConfigurationLimitExceeded,
                    format!("all {} sessions are in use; close some", self.max_count),
                ));
            };
            if let Some(entry) = inner.remove(oldest) {
                entry.session.sql.close();
            }
        }
        let id = Uuid::new_v4();
        let session = Arc::new(Session {
            id,
            sql: self.database.session(),
            native_types: AtomicBool::new(false),
            compression: Mutex::new(None),
            endpoint_count: AtomicUsize::new(1),
        });
        let entry = Entry {
            session: Arc::clone(&session),
            last_used: Instant::now(),
            named,
            connections: HashSet::new(),
        };
        inner.by_id.insert(id, entry);
        Ok(session)
    }

    /// Ends a session; what it left open is rolled back.
    pub(crate) fn close(&self, session: &Session) {
        let removed = self.inner.lock().remove(session.id);
        session.sql.close();
        drop(removed);
    }

    /// Ends the session of a connection that is gone, unless a token or cookie names it too. Transactions of sessions
    /// without any connection are rolled back.
    pub(crate) fn disconnected(&self, connection: u64) {
        let mut ended = Vec::new();
        let mut left = Vec::new();
        let mut inner = self.inner.lock();
        let Some(uses) = inner.connections.remove(&connection) else { return };
        for id in uses.all {
            let Some(entry) = inner.by_id.get_mut(&id) else { continue };
            entry.connections.remove(&connection);
            if !entry.connections.is_empty() {
                continue;
            }
            match entry.named {
                true => left.push(Arc::clone(&entry.session)),
                false => ended.extend(inner.remove(id)),
            }
        }
        drop(inner);
        ended.iter().for_each(|entry| entry.session.sql.close());
        left.iter().for_each(|s| s.sql.lose_transactions("its connection was lost"));
    }

    /// Ends the sessions that were idle for too long, and rolls back transactions that were.
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
        let ended: Vec<Entry> = idle.into_iter().filter_map(|id| inner.remove(id)).collect();
        let open: Vec<_> = inner
            .by_id
            .values()
            .filter(|e| e.session.sql.in_transaction())
            .map(|e| Arc::clone(&e.session))
            .collect();
        drop(inner);
        ended.iter().for_each(|entry| entry.session.sql.close());
        let reaped: usize = open.iter().map(|s| s.sql.reap(self.transaction_idle)).sum();
        if reaped > 0 {
            tracing::info!(reaped, "transactions were idle for too long and are rolled back");
        }
    }
}

impl Inner {
    fn remove(&mut self, id: Uuid) -> Option<Entry> {
        let entry = self.by_id.remove(&id)?;
        for connection in &entry.connections {
            if let Some(uses) = self.connections.get_mut(connection) {
                uses.all.remove(&id);
                if uses.own == Some(id) {
                    uses.own = None;
                }
            }
        }
        Some(entry)
    }

    /// Notes that a connection is used by a session, which is its own where it was made for it.
    fn connect(&mut self, connection: u64, id: Uuid, own: bool) {
        let uses = self.connections.entry(connection).or_default();
        if own {
            uses.own = Some(id);
        }
        if uses.all.insert(id)
            && let Some(entry) = self.by_id.get_mut(&id)
        {
            entry.connections.insert(connection);
        }
    }
}

/// Whether grpc-java speaks: the user agent ends in its name and version, whatever a client puts before it.
fn is_java(metadata: &MetadataMap) -> bool {
    let agent = metadata.get("user-agent").and_then(|v| v.to_str().ok());
    agent.is_some_and(|agent| agent.contains("grpc-java"))
}

/// The session's id in a handshake's token. Other tokens identify users, not sessions.
fn token(metadata: &MetadataMap) -> Result<Option<Uuid>, Status> {
    let token = metadata.get("authorization").and_then(|value| {
        value.to_str().ok()?.strip_prefix("Bearer ")?.trim().strip_prefix(TOKEN_PREFIX)
    });
    let parsed = token.map(|id| {
        id.parse().map_err(|_| {
            status::new(Code::InvalidAuthorization, "the token is not one of this server")
        })
    });
    parsed.transpose()
}

fn cookie<'a>(metadata: &'a MetadataMap, wanted: &str) -> Option<&'a str> {
    metadata
        .get_all("cookie")
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == wanted)
        .map(|(_, value)| value.trim_matches('"'))
}
