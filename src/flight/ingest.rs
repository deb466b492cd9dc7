//! Loads: rows of a DoPut stream into a table. A thread of their own decodes and pushes batches; the stream feeds it
//! through a channel that is bounded in bytes. A stream that breaks leaves nothing; once the commit has begun it
//! completes, whoever is still listening.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use arrow_flight::sql::{CommandStatementIngest, TableExistsOption, TableNotExistOption};
use arrow_flight::{FlightData, PutResult};
use bytes::Bytes;
use prost::Message;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tonic::Status;
use tonic::metadata::MetadataMap;

use super::ipc::{Decoded, Decoder};
use super::receive::Incoming;
use super::service::{State, within};
use super::session::Call;
use super::{metadata, proto, status, wire_type};
use crate::engine::{OnConflict, TableName, WriteResult};
use crate::sql::{Code, Ingest, IngestMode, IngestRequest, Memory, Reservation, Within};

/// Call header, and key of schema metadata, that say what to do with rows whose key exists.
const ON_CONFLICT_HEADER: &str = "x-omendb-on-conflict";
const ON_CONFLICT: &str = "on_conflict";
/// The same for what to do with the table, where the descriptor is a path.
const MODE_HEADER: &str = "x-omendb-mode";
const MODE: &str = "mode";

/// A load that has sent nothing for so long gives way to those that wait for a place.
const STALLED: Duration = Duration::from_secs(30);

/// Where a load goes.
#[derive(Debug)]
pub(super) struct Target {
    table: TableName,
    /// `None` where headers and metadata may say it.
    mode: Option<IngestMode>,
    within: Within,
}

impl Target {
    /// A plain Flight path: the table is made if it does not exist, unless the client says otherwise.
    pub(super) fn of_path(table: TableName) -> Self {
        Self { table, mode: None, within: Within::Any }
    }

    /// Clients load without a transaction's id even inside one, so a load joins the session's.
    pub(super) fn of_command(
        command: CommandStatementIngest,
        current_schema: &str,
    ) -> Result<Self, Status> {
        let within = within(command.transaction_id.as_deref(), Within::Any);
        if command.temporary {
            return Err(status::new(
                Code::FeatureNotSupported,
                "temporary tables are not supported",
            ));
        }
        if let Some(catalog) = command.catalog.as_deref().filter(|c| !c.is_empty())
            && catalog != metadata::CATALOG
        {
            return Err(status::new(
                Code::InvalidCatalogName,
                format!("there is no catalog \"{catalog}\"; this one is \"{}\"", metadata::CATALOG),
            ));
        }
        let schema = command.schema.as_deref().filter(|s| !s.is_empty()).unwrap_or(current_schema);
        let table = TableName::new(schema, command.table.as_str());
        let options = command.table_definition_options.unwrap_or_default();
        let mode = match (options.if_not_exist(), options.if_exists()) {
            (TableNotExistOption::Fail, TableExistsOption::Append)
            | (
                TableNotExistOption::Unspecified,
                TableExistsOption::Append | TableExistsOption::Unspecified,
            ) => IngestMode::Append,
            (TableNotExistOption::Create, TableExistsOption::Append) => IngestMode::CreateAppend,
            (
                TableNotExistOption::Create | TableNotExistOption::Unspecified,
                TableExistsOption::Replace,
            ) => IngestMode::Replace,
            (
                TableNotExistOption::Create,
                TableExistsOption::Fail | TableExistsOption::Unspecified,
            ) => IngestMode::Create,
            (not_exist, exists) => {
                return Err(status::new(
                    Code::FeatureNotSupported,
                    format!(
                        "a load that does {} where the table is missing and {} where it exists is not supported",
                        not_exist.as_str_name(),
                        exists.as_str_name()
                    ),
                ));
            }
        };
        Ok(Self { table, mode: Some(mode), within })
    }
}

/// What the stream tells the thread.
enum Feed {
    /// A message, its share of the bytes that may be under way, and the room that it was received in.
    Message(Bytes, Bytes, OwnedSemaphorePermit, Vec<Reservation>),
    /// The stream ended as it should: commit.
    End,
}

/// Loads a stream.
pub(super) async fn load(
    state: &State,
    call: &Call,
    headers: &MetadataMap,
    target: Target,
    mut incoming: Incoming,
) -> Result<PutResult, Status> {
    let mut decoder = Decoder::new(state.options.max_decoded_bytes as u64);
    let schema = read_schema(&mut decoder, &mut incoming).await?;
    let within = target.within;
    let request = request(target, headers, schema)?;
    let table = request.table.clone();
    let ingest = call.session.sql.ingest(within, request).await.map_err(status::from_sql)?;

    let query = Arc::clone(ingest.query());
    let (sender, receiver) = mpsc::channel(64);
    let memory = call.session.sql.database().memory().clone();
    let loader = tokio::task::spawn_blocking(move || run(ingest, decoder, receiver, memory));
    let fed = tokio::select! {
        fed = feed(&mut incoming, &sender, state) => fed,
        () = query.stopped() => Err(status::new(Code::QueryCanceled, "the load was cancelled; nothing was loaded")),
    };
    if fed.is_ok() {
        // A send fails only if the thread has given up, and then it says why.
        let _ = sender.send(Feed::End).await;
    }
    drop(sender);
    let result = loader.await.map_err(|_| {
        status::new(
            Code::InternalError,
            format!("the load of table {table} failed; nothing was loaded"),
        )
    })?;
    // What the thread says comes first: it ends the load, which stops the query and so the feeding.
    let Some(result) = result? else {
        fed?;
        return Err(status::new(
            Code::InternalError,
            format!("the load of table {table} ended early"),
        ));
    };
    Ok(PutResult { app_metadata: load_result(&result).encode_to_vec().into() })
}

fn load_result(result: &WriteResult) -> proto::LoadResult {
    proto::LoadResult {
        record_count: i64::try_from(result.inserted_count).unwrap_or(i64::MAX),
        replaced_count: result.replaced_count,
        ignored_count: result.ignored_count,
        segment_count: result.segment_count as u64,
        train_micros: u64::try_from(result.train_time.as_micros()).unwrap_or(u64::MAX),
    }
}

/// Reads up to the schema. Messages without one may come before it.
async fn read_schema(decoder: &mut Decoder, incoming: &mut Incoming) -> Result<SchemaRef, Status> {
    while let Some(message) = incoming.next().await? {
        decoder.decode(&message.data_header, message.data_body)?;
        if let Some(schema) = decoder.schema() {
            return Ok(wire_type::strip(schema));
        }
    }
    Err(status::new(Code::ProtocolViolation, "the stream of the load has no schema"))
}

fn request(
    target: Target,
    headers: &MetadataMap,
    schema: SchemaRef,
) -> Result<IngestRequest, Status> {
    let said = |header: &str, key: &str| {
        let header = headers.get(header).and_then(|v| v.to_str().ok()).map(str::to_owned);
        header.or_else(|| schema.metadata().get(key).cloned()).map(|v| v.to_ascii_lowercase())
    };
    let on_conflict = match said(ON_CONFLICT_HEADER, ON_CONFLICT).as_deref() {
        None | Some("error") => OnConflict::Error,
        Some("ignore") => OnConflict::Ignore,
        Some("replace") => OnConflict::Replace,
        Some(other) => {
            return Err(status::new(
                Code::InvalidParameterValue,
                format!("on_conflict is \"{other}\"; it can be error, ignore or replace"),
            ));
        }
    };
    let mode = match target.mode {
        Some(mode) => mode,
        None => match said(MODE_HEADER, MODE).as_deref() {
            None | Some("create_append") => IngestMode::CreateAppend,
            Some("create") => IngestMode::Create,
            Some("append") => IngestMode::Append,
            Some("replace") => IngestMode::Replace,
            Some(other) => {
                return Err(status::new(
                    Code::InvalidParameterValue,
                    format!(
                        "the mode is \"{other}\"; it can be create, append, replace or create_append"
                    ),
                ));
            }
        },
    };
    Ok(IngestRequest { table: target.table, mode, on_conflict, schema })
}

/// Ends when the client has sent nothing for long and other loads wait for its place.
async fn stalled(state: &State) -> Status {
    tokio::time::sleep(STALLED).await;
    while !state.sessions.database().loads_wait() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let message = format!(
        "too many loads: this one sent nothing for {STALLED:?}, and others wait for its place (max_loads); nothing was loaded"
    );
    status::new(Code::TooManyConnections, message)
}

/// Hands messages on as there is room for them, until the stream ends or the thread gives up.
async fn feed(
    incoming: &mut Incoming,
    sender: &mpsc::Sender<Feed>,
    state: &State,
) -> Result<(), Status> {
    let ahead_bytes = state.options.load_ahead_bytes;
    // In KiB, so that the count fits; a message larger than the whole room takes all of it.
    let room = u32::try_from(ahead_bytes >> 10).unwrap_or(u32::MAX >> 4).max(1);
    let semaphore = Arc::new(Semaphore::new(room as usize));
    loop {
        // Both are safe to give up: a message that was not taken stays in the stream.
        let message = tokio::select! {
            message = incoming.next() => message?,
            () = sender.closed() => return Ok(()),
            e = stalled(state) => return Err(e),
        };
        let Some(FlightData { data_header, data_body, .. }) = message else { return Ok(()) };
        let share = u32::try_from(data_body.len() >> 10).unwrap_or(room).clamp(1, room);
        let permit = tokio::select! {
            permit = Arc::clone(&semaphore).acquire_many_owned(share) => permit,
            () = sender.closed() => return Ok(()),
        };
        let permit =
            permit.map_err(|_| status::new(Code::InternalError, "the load's room is closed"))?;
        let room = incoming.received.take();
        if sender.send(Feed::Message(data_header, data_body, permit, room)).await.is_err() {
            return Ok(());
        }
    }
}

/// Room for what a message becomes: as much again as its buffers when they are cast, and what they hold when they were
/// compressed. Whoever has it waits for no client, so it is free again soon. Blocks.
fn decoding(
    memory: &Memory,
    decoder: &Decoder,
    header: &[u8],
    body: &[u8],
) -> Result<Reservation, Status> {
    let bytes = usize::try_from(decoder.check(header, body)?).unwrap_or(usize::MAX);
    if let Some(room) = memory.decoding.try_reserve(bytes) {
        return Ok(room);
    }
    Handle::current().block_on(memory.decoding.reserve(bytes)).map_err(status::from_sql)
}

/// The thread of a load. `None` says that the stream broke: the ingest is dropped, which leaves nothing.
fn run(
    mut ingest: Ingest,
    mut decoder: Decoder,
    mut receiver: mpsc::Receiver<Feed>,
    memory: Memory,
) -> Result<Option<WriteResult>, Status> {
    while let Some(fed) = receiver.blocking_recv() {
        match fed {
            Feed::Message(header, body, permit, room) => {
                let _decoding = decoding(&memory, &decoder, &header, &body)?;
                let decoded = decoder.decode(&header, body)?;
                if let Decoded::Batch(batch) = decoded {
                    ingest.push(&batch).map_err(status::from_sql)?;
                }
                drop((permit, room));
            }
            Feed::End => return ingest.finish().map(Some).map_err(status::from_sql),
        }
    }
    Ok(None)
}
