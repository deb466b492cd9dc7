//! The Flight service: finds out what each call asks for and hands it on. It implements Flight's own trait, since the crate's
//! Flight SQL trait leaves out paths, schemas, listings and polling.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use arrow_flight::flight_descriptor::DescriptorType;
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::{Any, Command};
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightEndpoint, FlightInfo,
    HandshakeRequest, HandshakeResponse, PollInfo, PutResult, SchemaResult, Ticket,
};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt};
use parking_lot::Mutex;
use prost::Message;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::encode::{FlightStream, schema_message};
use super::kept::{Batches, Kept};
use super::poll::Polled;
use super::route::FlightServer;
use super::session::{Call, Sessions};
use super::statement::Announced;
use super::status;
use super::ticket::Id;
use super::{metadata, statement, wire_type};
use crate::engine::{DEFAULT_SCHEMA, TableName};
use crate::sql::{self, Code, Database, TransactionId, Within};

/// Limits of the service.
#[derive(Debug, Clone)]
pub struct Options {
    /// Bytes of one incoming message at most.
    pub max_message_bytes: usize,
    /// Bytes of one incoming message at most when it is uncompressed.
    pub max_decoded_bytes: usize,
    /// Sessions at most.
    pub max_sessions: usize,
    /// A session that is idle for longer is closed.
    pub session_idle: Duration,
    /// A transaction that is idle for longer is rolled back.
    pub transaction_idle: Duration,
    /// How long the rows of RETURNING, and what a query in a transaction reads, wait for the client to fetch them.
    pub result_lease: Duration,
    /// Memory for rows and parameters kept between two calls, in bytes.
    pub kept_bytes: usize,
    /// Bytes that one load's stream may be ahead of the table.
    pub load_ahead_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_message_bytes: 64 << 20,
            max_decoded_bytes: 256 << 20,
            max_sessions: 10_000,
            session_idle: Duration::from_secs(3600),
            transaction_idle: Duration::from_secs(1800),
            result_lease: Duration::from_secs(60),
            kept_bytes: 64 << 20,
            load_ahead_bytes: 32 << 20,
        }
    }
}

/// Arrow Flight SQL over a database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Service(pub(super) Arc<State>);

/// What all calls share.
#[derive(Debug)]
pub(super) struct State {
    pub(super) options: Options,
    pub(super) sessions: Sessions,
    /// Rows of RETURNING, by ticket.
    pub(super) results: Arc<Kept<Batches>>,
    /// Bound parameters, by prepared statement.
    pub(super) parameters: Kept<Batches>,
    /// What queries in transactions read, by ticket. It outlives the transaction: clients fetch in the background.
    pub(super) pinned: Kept<sql::Pinned>,
    /// What can be cancelled, by ticket.
    pub(super) running: Running,
    /// Changes that polls have begun, by the name that they are polled by.
    pub(super) polled: Kept<Polled>,
    draining: AtomicBool,
}

/// What runs for each ticket, with the number of its streams.
#[derive(Debug, Clone, Default)]
pub(super) struct Running(Arc<Mutex<HashMap<Id, (CancellationToken, usize)>>>);

impl Running {
    /// Cancels what runs for a ticket; says whether anything did.
    pub(super) fn cancel(&self, id: &Id) -> bool {
        self.0.lock().get(id).inspect(|(token, _)| token.cancel()).is_some()
    }

    /// Lets what is done for a ticket be cancelled, until the answer is dropped.
    pub(super) fn begin(&self, id: Id) -> Registered {
        let mut running = self.0.lock();
        let (token, count) = running.entry(id).or_default();
        *count += 1;
        Registered { running: self.clone(), id, token: token.clone() }
    }
}

/// A ticket that is being redeemed.
pub(super) struct Registered {
    running: Running,
    id: Id,
    token: CancellationToken,
}

impl Registered {
    /// Waits for what makes the rows.
    pub(super) async fn wait<T>(
        &self,
        work: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        self.token.run_until_cancelled(work).await.unwrap_or_else(|| Err(Self::cancelled()))
    }

    /// The rows: cancelled they end with an error, never as if they were complete.
    pub(super) fn stream(self, rows: FlightStream) -> FlightStream {
        let token = self.token.clone();
        rows.take_until(self.token.clone().cancelled_owned())
            .chain(futures::stream::iter([()]).filter_map(move |()| {
                let _held = &self;
                let cancelled = token.is_cancelled();
                async move { cancelled.then(|| Err(Self::cancelled())) }
            }))
            .boxed()
    }

    fn cancelled() -> Status {
        status::new(Code::QueryCanceled, "the query was cancelled")
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        if let Entry::Occupied(mut entry) = self.running.0.lock().entry(self.id) {
            entry.get_mut().1 -= 1;
            if entry.get().1 == 0 {
                entry.remove();
            }
        }
    }
}

impl Service {
    /// The service of `database`.
    pub fn new(database: Database, options: Options) -> Self {
        Self(Arc::new(State {
            sessions: Sessions::new(database, &options),
            results: Arc::new(Kept::new(options.kept_bytes)),
            parameters: Kept::new(options.kept_bytes),
            pinned: Kept::new(options.kept_bytes),
            running: Running::default(),
            polled: Kept::new(options.kept_bytes),
            draining: AtomicBool::new(false),
            options,
        }))
    }

    /// The gRPC service to add to a server.
    pub fn into_server(self) -> FlightServer {
        FlightServer::new(self)
    }

    /// Bytes of one incoming message at most.
    pub(super) fn max_message_bytes(&self) -> usize {
        self.0.options.max_message_bytes
    }

    /// The budgets of the database.
    pub(crate) fn memory(&self) -> &sql::Memory {
        self.0.sessions.database().memory()
    }

    /// The rows of a ticket.
    pub(super) async fn rows(
        &self,
        request: Request<Ticket>,
    ) -> Result<Response<FlightStream>, Status> {
        let call = self.call(&request)?;
        let deadline = statement::deadline(request.metadata());
        let stream = self.0.get(&call, request.get_ref()).await?;
        // The stream holds its session, which must not count as idle.
        let session = Arc::clone(&call.session);
        let stream = statement::until(stream, deadline).inspect(move |_| {
            let _held = &session;
        });
        Ok(call.respond(stream.boxed()))
    }

    /// Refuses new work from now on; what runs goes on.
    pub fn drain(&self) {
        self.0.draining.store(true, Ordering::Relaxed);
    }

    /// Says that a connection is gone.
    pub fn disconnected(&self, connection: u64) {
        self.0.sessions.disconnected(connection);
    }

    /// Forgets what has expired. To be called now and then.
    pub fn sweep(&self) {
        self.0.sessions.sweep();
        self.0.results.sweep();
        self.0.parameters.sweep();
        self.0.pinned.sweep();
        self.0.polled.sweep();
    }

    /// The session of a call.
    fn call<T>(&self, request: &Request<T>) -> Result<Call, Status> {
        if self.0.draining.load(Ordering::Relaxed) {
            return Err(status::new(
                Code::AdminShutdown,
                "the server is shutting down; try again later",
            ));
        }
        self.0.sessions.of(request.metadata(), request.extensions())
    }
}

/// What a descriptor asks for.
pub(super) enum Asked {
    /// A Flight SQL command.
    Command(Command),
    /// A table by its path.
    Table(TableName),
}

/// What a descriptor asks for.
pub(super) fn asked(descriptor: &FlightDescriptor) -> Result<Asked, Status> {
    match descriptor.r#type() {
        DescriptorType::Path => table_of_path(&descriptor.path).map(Asked::Table),
        DescriptorType::Cmd => command(&descriptor.cmd).map(Asked::Command),
        DescriptorType::Unknown => Err(status::new(
            Code::ProtocolViolation,
            "the descriptor is neither a command nor a path",
        )),
    }
}

/// A packed Flight SQL command.
pub(super) fn command(bytes: &[u8]) -> Result<Command, Status> {
    Any::decode(bytes)
        .map_err(|e| e.to_string())
        .and_then(|any| Command::try_from(any).map_err(|e| e.to_string()))
        .map_err(|e| status::new(Code::ProtocolViolation, format!("not a Flight SQL command: {e}")))
}

fn table_of_path(path: &[String]) -> Result<TableName, Status> {
    match path {
        [table] => Ok(TableName::new(DEFAULT_SCHEMA, table.as_str())),
        [schema, table] => Ok(TableName::new(schema.as_str(), table.as_str())),
        [catalog, schema, table] if catalog == metadata::CATALOG => {
            Ok(TableName::new(schema.as_str(), table.as_str()))
        }
        _ => Err(status::new(
            Code::ProtocolViolation,
            format!("the path {path:?} names no table; use [table] or [schema, table]"),
        )),
    }
}

/// The refusal of a command that this server does not have.
pub(super) fn unsupported(command: &Command) -> Status {
    let name = command.type_url().rsplit(['.', '/']).next().unwrap_or_default();
    status::new(Code::FeatureNotSupported, format!("{name} is not supported here"))
}

/// The transaction that a message names; `otherwise` where it names none.
pub(super) fn within(id: Option<&[u8]>, otherwise: Within) -> Within {
    match id {
        Some(id) if !id.is_empty() => Within::Named(TransactionId::parse(id)),
        _ => otherwise,
    }
}

/// A FlightInfo; its endpoints are in order.
pub(super) fn flight_info(
    schema: &arrow::datatypes::Schema,
    descriptor: FlightDescriptor,
    endpoint: Vec<FlightEndpoint>,
    total_records: i64,
) -> Result<FlightInfo, Status> {
    Ok(FlightInfo {
        schema: schema_message(schema)?,
        flight_descriptor: Some(descriptor),
        endpoint,
        total_records,
        total_bytes: -1,
        ordered: true,
        app_metadata: Default::default(),
    })
}

/// An endpoint without a location: the server that was asked. What it needs is kept for `lease`, if that is given.
pub(super) fn endpoint(ticket: Ticket, lease: Option<Duration>) -> FlightEndpoint {
    let expiration_time = lease.map(timestamp_after);
    FlightEndpoint { ticket: Some(ticket), expiration_time, ..Default::default() }
}

/// The moment that comes so long after this one.
pub(super) fn timestamp_after(time: Duration) -> prost_types::Timestamp {
    SystemTime::now().checked_add(time).unwrap_or_else(SystemTime::now).into()
}

impl State {
    pub(super) async fn info(
        &self,
        call: &Call,
        descriptor: FlightDescriptor,
    ) -> Result<FlightInfo, Status> {
        match asked(&descriptor)? {
            Asked::Table(table) => self.table_info(call, &table, descriptor).await,
            Asked::Command(Command::CommandStatementQuery(query)) => {
                let within = within(query.transaction_id.as_deref(), Within::Session);
                let bound = statement::Bound::new(query.query, within);
                self.statement_info(call, bound, descriptor).await
            }
            Asked::Command(Command::CommandPreparedStatementQuery(query)) => {
                let bound = self.resolve(call, &query.prepared_statement_handle)?;
                self.statement_info(call, bound, descriptor).await
            }
            Asked::Command(command) => {
                let schema = metadata::schema(&command).ok_or_else(|| unsupported(&command))?;
                let ticket = Ticket { ticket: command.into_any().encode_to_vec().into() };
                flight_info(&schema, descriptor, vec![endpoint(ticket, None)], -1)
            }
        }
    }

    async fn get(&self, call: &Call, ticket: &Ticket) -> Result<FlightStream, Status> {
        match command(&ticket.ticket)? {
            Command::TicketStatementQuery(t) => self.redeem(call, &t.statement_handle).await,
            Command::CommandPreparedStatementQuery(query) => {
                let bound = self.resolve(call, &query.prepared_statement_handle)?;
                self.query_stream(call, bound, Announced::default()).await
            }
            command => match metadata::rows(&command, &call.session).await {
                Some(batch) => batch.map(|b| super::encode::batches(b.schema(), vec![b])),
                None => Err(unsupported(&command)),
            },
        }
    }

    async fn schema_of(
        &self,
        call: &Call,
        descriptor: &FlightDescriptor,
    ) -> Result<arrow::datatypes::SchemaRef, Status> {
        match asked(descriptor)? {
            Asked::Table(table) => self.table_schema(call, &table).await,
            Asked::Command(Command::CommandStatementQuery(query)) => {
                let within = within(query.transaction_id.as_deref(), Within::Session);
                self.statement_schema(call, within, &query.query).await
            }
            Asked::Command(Command::CommandPreparedStatementQuery(query)) => {
                let bound = self.resolve(call, &query.prepared_statement_handle)?;
                self.statement_schema(call, bound.within, &bound.sql).await
            }
            Asked::Command(command) => {
                metadata::schema(&command).ok_or_else(|| unsupported(&command))
            }
        }
    }
}

/// The columns of a result as a session's client gets them.
pub(super) fn wire_schema(
    call: &Call,
    schema: &arrow::datatypes::Schema,
) -> arrow::datatypes::SchemaRef {
    if call.session.native_types() {
        wire_type::native_schema(schema)
    } else if call.from_java {
        wire_type::java_schema(schema)
    } else {
        wire_type::schema(schema)
    }
}

/// The parameters of a statement as its client is told of them.
pub(super) fn parameter_schema(
    call: &Call,
    parameters: &arrow::datatypes::SchemaRef,
) -> arrow::datatypes::SchemaRef {
    if call.from_java { wire_type::java_parameters(parameters) } else { Arc::clone(parameters) }
}

type ResponseStream<T> = BoxStream<'static, Result<T, Status>>;

#[tonic::async_trait]
impl FlightService for Service {
    type HandshakeStream = ResponseStream<HandshakeResponse>;
    type ListFlightsStream = ResponseStream<FlightInfo>;
    type DoGetStream = ResponseStream<FlightData>;
    type DoPutStream = Pin<Box<dyn Stream<Item = Result<PutResult, Status>> + Send>>;
    type DoActionStream = ResponseStream<arrow_flight::Result>;
    type ListActionsStream = ResponseStream<ActionType>;
    type DoExchangeStream = ResponseStream<FlightData>;

    async fn handshake(
        &self,
        _request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Self::HandshakeStream>, Status> {
        let token = self.0.sessions.handshake()?;
        let answer = HandshakeResponse { protocol_version: 0, payload: token.clone().into() };
        let mut response = Response::new(futures::stream::iter([Ok(answer)]).boxed());
        if let Ok(value) = format!("Bearer {token}").parse() {
            response.metadata_mut().insert("authorization", value);
        }
        Ok(response)
    }

    async fn list_flights(
        &self,
        request: Request<Criteria>,
    ) -> Result<Response<Self::ListFlightsStream>, Status> {
        let call = self.call(&request)?;
        let infos = self.0.list(&call, &request.get_ref().expression)?;
        Ok(call.respond(futures::stream::iter(infos.into_iter().map(Ok)).boxed()))
    }

    async fn get_flight_info(
        &self,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let call = self.call(&request)?;
        let info = self.0.info(&call, request.into_inner()).await?;
        Ok(call.respond(info))
    }

    async fn poll_flight_info(
        &self,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<PollInfo>, Status> {
        let call = self.call(&request)?;
        let deadline = statement::deadline(request.metadata());
        let response = call.respond(());
        let poll = self.poll(call, request.into_inner(), deadline).await?;
        Ok(response.map(|()| poll))
    }

    async fn get_schema(
        &self,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<SchemaResult>, Status> {
        let call = self.call(&request)?;
        let schema = self.0.schema_of(&call, request.get_ref()).await?;
        Ok(call.respond(SchemaResult { schema: schema_message(&schema)? }))
    }

    /// [`FlightServer`] answers DoGet itself; this is for those who call the service by its trait.
    async fn do_get(
        &self,
        request: Request<Ticket>,
    ) -> Result<Response<Self::DoGetStream>, Status> {
        let rows = self.rows(request).await?;
        Ok(rows.map(|stream| stream.map_ok(FlightData::from).boxed()))
    }

    async fn do_put(
        &self,
        request: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoPutStream>, Status> {
        let call = self.call(&request)?;
        let result = super::receive::put(&self.0, &call, request).await?;
        Ok(call.respond(Box::pin(futures::stream::iter(result.map(Ok)))))
    }

    async fn do_exchange(
        &self,
        _request: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoExchangeStream>, Status> {
        Err(status::new(
            Code::FeatureNotSupported,
            "DoExchange is not supported; use DoPut and DoGet",
        ))
    }

    async fn do_action(
        &self,
        request: Request<Action>,
    ) -> Result<Response<Self::DoActionStream>, Status> {
        let call = self.call(&request)?;
        let results = super::action::run(&self.0, &call, request.into_inner()).await?;
        Ok(call.respond(futures::stream::iter(results.map(Ok)).boxed()))
    }

    async fn list_actions(
        &self,
        request: Request<Empty>,
    ) -> Result<Response<Self::ListActionsStream>, Status> {
        let call = self.call(&request)?;
        let types = super::action::types().map(|(name, description)| {
            Ok(ActionType { r#type: name.to_owned(), description: description.to_owned() })
        });
        Ok(call.respond(futures::stream::iter(types).boxed()))
    }
}
