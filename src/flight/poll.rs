//! PollFlightInfo. What a query returns can be fetched as soon as it is asked for, so the first poll of one is the last. A
//! change begins with the first poll and runs to its end whether or not anybody polls on; later polls say how far it is.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::Schema;
use arrow_flight::flight_descriptor::DescriptorType;
use arrow_flight::sql::{Any, Command};
use arrow_flight::{FlightDescriptor, FlightInfo, PollInfo};
use prost::Message;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Status;

use super::kept::Keep;
use super::proto;
use super::service::{Asked, Service, State, asked, flight_info, timestamp_after, within};
use super::session::Call;
use super::statement::Bound;
use super::status;
use super::ticket::{self, Id};
use crate::sql::{Code, Query, StatementKind, Within};

const HANDLE_TYPE: &str = "type.googleapis.com/omendb.flight.PollHandle";

/// How long the first poll waits for a change to end, and later ones for news of it.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const WAIT: Duration = Duration::from_secs(1);

/// A change that was begun by a poll.
#[derive(Debug)]
pub(super) struct Polled {
    query: Arc<Query>,
    /// What the client asked for first.
    descriptor: FlightDescriptor,
    /// There when it has ended.
    done: watch::Receiver<Option<Result<FlightInfo, Status>>>,
}

impl Keep for Polled {
    const NAME: &'static str = "polled statements";

    fn bytes(&self) -> usize {
        1024 + self.descriptor.cmd.len()
    }
}

/// The name that a descriptor, or a FlightInfo that is not complete, has for a change.
pub(super) fn handle(bytes: &[u8]) -> Result<Option<Id>, Status> {
    let Ok(any) = Any::decode(bytes) else { return Ok(None) };
    if any.type_url != HANDLE_TYPE {
        return Ok(None);
    }
    let handle = proto::PollHandle::decode(&*any.value).map_err(|e| {
        status::new(Code::ProtocolViolation, format!("the descriptor to poll is damaged: {e}"))
    })?;
    ticket::parse_id(&handle.id).map(Some)
}

fn encode_handle(id: &Id) -> Vec<u8> {
    let value = proto::PollHandle { id: id.to_vec() }.encode_to_vec().into();
    Any { type_url: HANDLE_TYPE.to_owned(), value }.encode_to_vec()
}

impl Service {
    /// Begins what a descriptor asks for, or says how far it is.
    pub(super) async fn poll(
        &self,
        call: Call,
        descriptor: FlightDescriptor,
        deadline: Option<Instant>,
    ) -> Result<PollInfo, Status> {
        // The client must have the answer before its own limit is over.
        let left = deadline.map_or(WAIT, |d| d.saturating_duration_since(Instant::now()) / 2);
        if descriptor.r#type() == DescriptorType::Cmd
            && let Some(id) = handle(&descriptor.cmd)?
        {
            return self.0.poll_again(&id, left.min(WAIT)).await;
        }
        let bound = match asked(&descriptor)? {
            Asked::Command(Command::CommandStatementQuery(query)) => {
                let within = within(query.transaction_id.as_deref(), Within::Session);
                Bound::new(query.query, within)
            }
            Asked::Command(Command::CommandPreparedStatementQuery(query)) => {
                self.0.resolve(&call, &query.prepared_statement_handle)?
            }
            _ => return self.0.info(&call, descriptor).await.map(complete),
        };
        let session = &call.session.sql;
        let prepared = session.prepare_within(bound.within, &bound.sql).await;
        let prepared = prepared.map_err(status::from_sql)?;
        if prepared.kind() == StatementKind::Query {
            return self.0.query_info(&call, &prepared, bound, descriptor).await.map(complete);
        }
        let running = session.begin_query(&bound.sql);
        let (sender, done) = watch::channel(None);
        let polled =
            Polled { query: Arc::clone(running.query()), descriptor: descriptor.clone(), done };
        let id = ticket::new_id();
        self.0.polled.put(id, polled, self.0.options.session_idle)?;
        let state = Arc::clone(&self.0);
        tokio::spawn(async move {
            let info = state.change_info(&call, &running, &prepared, bound, descriptor).await;
            // Nobody may poll any more.
            let _ = sender.send(Some(info));
        });
        self.0.poll_again(&id, left.min(FIRST_WAIT)).await
    }
}

impl State {
    async fn poll_again(&self, id: &Id, wait: Duration) -> Result<PollInfo, Status> {
        let polled = self.polled.get(id).ok_or_else(|| {
            status::new(Code::InvalidCursorName,
                "there is no such statement to poll: the server started again, or it ended long ago",
            )
        })?;
        let mut done = polled.done.clone();
        let ended = tokio::time::timeout(wait, done.wait_for(Option::is_some)).await;
        match ended {
            Ok(Ok(info)) => match &*info {
                Some(info) => {
                    self.polled.taken(id);
                    info.clone().map(complete)
                }
                None => {
                    Err(status::new(Code::InternalError, "a statement ended without an outcome"))
                }
            },
            Ok(Err(_)) => Err(status::new(Code::InternalError, "a defect stopped the statement")),
            Err(_) => self.unfinished(id, &polled),
        }
    }

    /// A FlightInfo without endpoints, to be cancelled by, and the descriptor to poll next.
    fn unfinished(&self, id: &Id, polled: &Polled) -> Result<PollInfo, Status> {
        self.polled.renew(id, self.options.session_idle);
        let handle = encode_handle(id);
        let mut info = flight_info(&Schema::empty(), polled.descriptor.clone(), Vec::new(), -1)?;
        info.app_metadata = handle.clone().into();
        Ok(PollInfo {
            info: Some(info),
            flight_descriptor: Some(FlightDescriptor::new_cmd(handle)),
            // What is read must yet be committed.
            progress: polled.query.progress().map(|share| share.min(0.99)),
            expiration_time: Some(timestamp_after(self.options.session_idle)),
        })
    }

    /// Stops a change that was begun by a poll; says whether that was not too late.
    pub(super) fn cancel_polled(&self, id: &Id) -> bool {
        self.polled.get(id).is_some_and(|polled| polled.query.cancel())
    }
}

fn complete(info: FlightInfo) -> PollInfo {
    PollInfo { info: Some(info), progress: Some(1.0), ..Default::default() }
}
