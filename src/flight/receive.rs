//! DoPut: statements, parameters and rows to load.

use arrow::compute::concat_batches;
use arrow_flight::sql::{Command, DoPutUpdateResult};
use arrow_flight::{FlightData, FlightDescriptor, PutResult};
use prost::Message;
use tonic::{Request, Status, Streaming};

use super::complete::{self, Complete};
use super::inflow::{self, Inflow};
use super::ipc::{Decoded, Decoder};
use super::parameters::{Messages, Parameters, Received};
use super::service::{Asked, State, asked, unsupported, within};
use super::session::Call;
use super::statement::{Bound, count_of};
use super::{ingest, status};
use crate::sql::{Code, Outcome, StatementKind, Within};

/// What parameters of one statement may take when uncompressed, in bytes.
const MAX_PARAMETER_BYTES: u64 = 256 << 20;

/// What clients get that send nothing: ADBC does for a table without rows.
const EMPTY: &str = "the DoPut stream has no descriptor, and so names no table. A load needs at least one batch, even an empty \
    one; some clients send none for a table without rows: make it with CREATE TABLE instead";

/// An incoming stream whose first message was looked at.
pub(super) struct Incoming {
    pub(super) first: Option<FlightData>,
    pub(super) rest: Streaming<FlightData>,
    complete: Complete,
    /// The room of its messages.
    pub(super) received: Inflow,
}

impl Incoming {
    /// The next message; `None` at the end, and an error where the client broke the stream off.
    pub(super) async fn next(&mut self) -> Result<Option<FlightData>, Status> {
        match self.first.take() {
            Some(first) => Ok(Some(first)),
            None => match self.rest.message().await.map_err(status::of_message)? {
                Some(message) => Ok(Some(message)),
                None => self.complete.check().map(|()| None),
            },
        }
    }
}

/// Carries out a DoPut.
pub(super) async fn put(
    state: &State,
    call: &Call,
    request: Request<Streaming<FlightData>>,
) -> Result<std::option::IntoIter<PutResult>, Status> {
    let (headers, extensions, mut rest) = request.into_parts();
    let complete = complete::of(&extensions)?;
    let received = inflow::of(&extensions);
    let Some(mut first) = rest.message().await.map_err(status::of_message)? else {
        return Err(status::new(Code::ProtocolViolation, EMPTY));
    };
    let descriptor: FlightDescriptor = first
        .flight_descriptor
        .take()
        .ok_or_else(|| status::new(Code::ProtocolViolation, EMPTY))?;
    let mut incoming = Incoming { first: Some(first), rest, complete, received };
    let result = match asked(&descriptor)? {
        Asked::Table(table) => {
            let target = ingest::Target::of_path(table);
            ingest::load(state, call, &headers, target, incoming).await?
        }
        Asked::Command(Command::CommandStatementIngest(command)) => {
            let target = ingest::Target::of_command(command, &call.session.sql.current_schema())?;
            ingest::load(state, call, &headers, target, incoming).await?
        }
        Asked::Command(Command::CommandStatementUpdate(command)) => {
            let within = within(command.transaction_id.as_deref(), Within::Session);
            let outcome = call
                .session
                .sql
                .execute_script(within, &command.query)
                .await
                .map_err(status::from_sql)?;
            update_result(affected(call, &outcome))
        }
        Asked::Command(Command::CommandPreparedStatementUpdate(command)) => {
            let parameters = parameters(&mut incoming).await?;
            let mut bound = state.resolve(call, &command.prepared_statement_handle)?;
            bound.parameters =
                parameters.map(|p| Parameters::Batch(p.batch, None)).or(bound.parameters);
            update_result(update(call, &bound).await?)
        }
        Asked::Command(Command::CommandPreparedStatementQuery(command)) => {
            let parameters = parameters(&mut incoming).await?;
            let bound = state.bind(&command.prepared_statement_handle, parameters)?;
            PutResult { app_metadata: bound.encode_to_vec().into() }
        }
        Asked::Command(command) => return Err(unsupported(&command)),
    };
    Ok(Some(result).into_iter())
}

fn update_result(record_count: i64) -> PutResult {
    PutResult { app_metadata: DoPutUpdateResult { record_count }.encode_to_vec().into() }
}

/// The count that an update answers. The JDBC driver takes -1 for "there are rows to fetch", and fetching would run the
/// statement a second time: it gets 0 where there is none to tell.
fn affected(call: &Call, outcome: &Outcome) -> i64 {
    let count = count_of(outcome);
    if call.from_java { count.max(0) } else { count }
}

/// Runs a prepared statement as an update.
async fn update(call: &Call, bound: &Bound) -> Result<i64, Status> {
    let session = &call.session.sql;
    let prepared =
        session.prepare_within(bound.within, &bound.sql).await.map_err(status::from_sql)?;
    if prepared.kind() == StatementKind::Query {
        return Err(status::new(
            Code::ProtocolViolation,
            "the statement is a query: run it with CommandPreparedStatementQuery",
        ));
    }
    bound.check_change()?;
    let outcome = session
        .execute_within(bound.within, &prepared, bound.batch()?.as_ref())
        .await
        .map_err(status::from_sql)?;
    Ok(affected(call, &outcome))
}

/// The parameters of a stream as one batch; none where it has no schema.
async fn parameters(incoming: &mut Incoming) -> Result<Option<Received>, Status> {
    let mut decoder = Decoder::new(MAX_PARAMETER_BYTES);
    let mut batches = Vec::new();
    let mut bytes = 0;
    let mut messages = Messages::default();
    while let Some(message) = incoming.next().await? {
        messages.add(&message.data_header, &message.data_body);
        if let Decoded::Batch(batch) = decoder.decode(&message.data_header, message.data_body)? {
            bytes += batch.get_array_memory_size() as u64;
            if bytes > MAX_PARAMETER_BYTES {
                return Err(status::new(
                    Code::ConfigurationLimitExceeded,
                    format!(
                        "the parameters take more than {MAX_PARAMETER_BYTES} bytes; load the rows instead (ingest)"
                    ),
                ));
            }
            batches.push(batch);
        }
    }
    // A schema without columns binds nothing: some clients send one for every update.
    let Some(schema) = decoder.schema().filter(|s| !s.fields().is_empty()) else { return Ok(None) };
    let batch = concat_batches(schema, &batches).map_err(|e| {
        status::new(Code::ProtocolViolation, format!("the batches of parameters do not agree: {e}"))
    })?;
    Ok(Some(messages.decoded(batch, batches.len())))
}
