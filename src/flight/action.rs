//! Actions: prepared statements, sessions, cancellation, and OmenDB's own for administrators.

use std::time::{Duration, Instant};

use arrow_flight::sql::{
    ActionBeginSavepointRequest, ActionBeginSavepointResult, ActionBeginTransactionRequest,
    ActionBeginTransactionResult, ActionCancelQueryRequest, ActionClosePreparedStatementRequest,
    ActionCreatePreparedStatementRequest, ActionEndSavepointRequest, ActionEndTransactionRequest,
    Any, EndTransaction, ProstMessageExt,
};
use arrow_flight::{
    Action, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, FlightInfo,
    RenewFlightEndpointRequest,
};
use prost::Message;
use tonic::Status;

use super::service::State;
use super::service::timestamp_after;
use super::session::Call;
use super::statement::ticket_id;
use super::{options, poll, proto, status};
use crate::engine::{DEFAULT_SCHEMA, Engine, TableName, TableSnapshot};
use crate::sql::upkeep::{self, Upkeep};
use crate::sql::{self, Code, SavepointId, TransactionId};

/// The actions that there are.
pub(super) fn types() -> impl Iterator<Item = (&'static str, &'static str)> {
    [
        ("CreatePreparedStatement", "prepares a statement (ActionCreatePreparedStatementRequest)"),
        (
            "ClosePreparedStatement",
            "closes a prepared statement (ActionClosePreparedStatementRequest)",
        ),
        ("BeginTransaction", "begins a transaction (ActionBeginTransactionRequest)"),
        (
            "EndTransaction",
            "commits a transaction or rolls it back (ActionEndTransactionRequest)",
        ),
        ("BeginSavepoint", "sets a savepoint in a transaction (ActionBeginSavepointRequest)"),
        ("EndSavepoint", "releases a savepoint or goes back to it (ActionEndSavepointRequest)"),
        ("CancelQuery", "stops a query (ActionCancelQueryRequest)"),
        ("CancelFlightInfo", "stops a query (CancelFlightInfoRequest)"),
        (
            "RenewFlightEndpoint",
            "keeps the rows of an endpoint for longer (RenewFlightEndpointRequest)",
        ),
        (
            "SetSessionOptions",
            "sets options of the session, as SET does, and how rows are sent (SetSessionOptionsRequest)",
        ),
        ("GetSessionOptions", "says the options of the session"),
        ("CloseSession", "closes the session"),
        ("omendb.Flush", "writes memtables to segments (omendb.flight.FlushRequest)"),
        ("omendb.Compact", "merges the segments of a table (omendb.flight.CompactRequest)"),
        ("omendb.Retrain", "trains the indexes of a table anew (omendb.flight.RetrainRequest)"),
        (
            "omendb.CancelQuery",
            "stops what omendb.queries lists (omendb.flight.CancelQueryRequest)",
        ),
        (
            "omendb.TableStats",
            "what a table and its indexes are like (omendb.flight.TableStatsRequest)",
        ),
    ]
    .into_iter()
}

/// Carries out an action.
pub(super) async fn run(
    state: &State,
    call: &Call,
    action: Action,
) -> Result<std::option::IntoIter<arrow_flight::Result>, Status> {
    let body = &action.body[..];
    let answer = match action.r#type.as_str() {
        "CreatePreparedStatement" => {
            let request = unpack::<ActionCreatePreparedStatementRequest>(body)?;
            let result = state.prepare(call, request).await?;
            Some(pack("ActionCreatePreparedStatementResult", &result))
        }
        "ClosePreparedStatement" => {
            let request = unpack::<ActionClosePreparedStatementRequest>(body)?;
            state.close_prepared(&request.prepared_statement_handle)?;
            None
        }
        "CancelQuery" => {
            let request = unpack::<ActionCancelQueryRequest>(body)?;
            let info = decode::<FlightInfo>(&request.info)?;
            // ActionCancelQueryResult counts its results as CancelStatus does.
            let result = CancelFlightInfoResult { status: cancel(state, &info)?.into() };
            Some(pack("ActionCancelQueryResult", &result))
        }
        "CancelFlightInfo" => {
            let info = decode::<CancelFlightInfoRequest>(body)?.info.unwrap_or_default();
            let result = CancelFlightInfoResult { status: cancel(state, &info)?.into() };
            Some(result.encode_to_vec())
        }
        "RenewFlightEndpoint" => Some(renew(state, &decode(body)?)?),
        "SetSessionOptions" => Some(options::set(&call.session, decode(body)?).encode_to_vec()),
        "GetSessionOptions" => Some(options::get(&call.session).encode_to_vec()),
        "CloseSession" => {
            state.sessions.close(&call.session);
            let status = proto::close_session_result::Status::Closed.into();
            Some(proto::CloseSessionResult { status }.encode_to_vec())
        }
        "omendb.CancelQuery" => {
            let query = decode::<proto::CancelQueryRequest>(body)?.query_id;
            state.sessions.database().cancel_query(query).map_err(status::from_sql)?;
            None
        }
        "omendb.Flush" | "omendb.Compact" | "omendb.Retrain" | "omendb.TableStats" => {
            Some(administer(state, call, &action).await?)
        }
        "BeginTransaction" | "EndTransaction" | "BeginSavepoint" | "EndSavepoint" => {
            transaction(&call.session.sql, &action).await?
        }
        name => {
            return Err(status::new(
                Code::FeatureNotSupported,
                format!("there is no action \"{name}\""),
            ));
        }
    };
    Ok(answer.map(|body| arrow_flight::Result { body: body.into() }).into_iter())
}

/// Begins, marks or ends a transaction.
async fn transaction(session: &sql::Session, action: &Action) -> Result<Option<Vec<u8>>, Status> {
    let body = &action.body[..];
    match action.r#type.as_str() {
        "BeginTransaction" => {
            unpack::<ActionBeginTransactionRequest>(body)?;
            let id = session.begin().map_err(status::from_sql)?;
            let result = ActionBeginTransactionResult { transaction_id: id.to_bytes().into() };
            Ok(Some(result.as_any().encode_to_vec()))
        }
        "EndTransaction" => {
            let request = unpack::<ActionEndTransactionRequest>(body)?;
            let id = TransactionId::parse(&request.transaction_id);
            match request.action() {
                EndTransaction::Commit => session.commit(id).await,
                EndTransaction::Rollback => session.rollback(id),
                EndTransaction::Unspecified => return Err(unspecified()),
            }
            .map_err(status::from_sql)?;
            Ok(None)
        }
        "BeginSavepoint" => {
            let request = unpack::<ActionBeginSavepointRequest>(body)?;
            let id = TransactionId::parse(&request.transaction_id);
            let id = session.savepoint(id, &request.name).await.map_err(status::from_sql)?;
            let result = ActionBeginSavepointResult { savepoint_id: id.to_bytes().into() };
            Ok(Some(result.as_any().encode_to_vec()))
        }
        _ => {
            let request = unpack::<ActionEndSavepointRequest>(body)?;
            let id = SavepointId::parse(&request.savepoint_id);
            // EndSavepoint, which the crate keeps to itself.
            match request.action {
                1 => session.release(id).await,
                2 => session.rollback_to(id).await,
                _ => return Err(unspecified()),
            }
            .map_err(status::from_sql)?;
            Ok(None)
        }
    }
}

fn unspecified() -> Status {
    status::new(Code::ProtocolViolation, "the action does not say how to end it")
}

fn decode<M: Message + Default>(bytes: &[u8]) -> Result<M, Status> {
    M::decode(bytes).map_err(|e| {
        status::new(Code::ProtocolViolation, format!("the action's body is malformed: {e}"))
    })
}

fn unpack<M: ProstMessageExt>(bytes: &[u8]) -> Result<M, Status> {
    let any: Any = decode(bytes)?;
    any.unpack().ok().flatten().ok_or_else(|| {
        let name = M::type_url().rsplit('.').next().unwrap_or_default();
        status::new(Code::ProtocolViolation, format!("the action's body is not a {name}"))
    })
}

/// A message of the Flight SQL protocol as an Any.
fn pack(name: &str, message: &impl Message) -> Vec<u8> {
    let type_url = format!("type.googleapis.com/arrow.flight.protocol.sql.{name}");
    Any { type_url, value: message.encode_to_vec().into() }.encode_to_vec()
}

/// Stops what is done for a FlightInfo, or a poll that began it, and forgets the rows kept for it.
fn cancel(state: &State, info: &FlightInfo) -> Result<CancelStatus, Status> {
    let mut cancelled = match poll::handle(&info.app_metadata)? {
        Some(id) => state.cancel_polled(&id),
        None => false,
    };
    for ticket in info.endpoint.iter().filter_map(|e| e.ticket.as_ref()) {
        if let Some(id) = ticket_id(ticket)? {
            cancelled |=
                state.running.cancel(&id) | state.results.remove(&id) | state.pinned.remove(&id);
        }
    }
    Ok(if cancelled { CancelStatus::Cancelled } else { CancelStatus::NotCancellable })
}

fn renew(state: &State, request: &RenewFlightEndpointRequest) -> Result<Vec<u8>, Status> {
    let mut endpoint = request.endpoint.clone().unwrap_or_default();
    let ticket = endpoint.ticket.clone().unwrap_or_default();
    if let Some(id) = ticket_id(&ticket)? {
        // A query's ticket does not expire; rows that are kept do, and what a query of a transaction reads.
        let lease = state.options.result_lease;
        if state.results.renew(&id, lease) | state.pinned.renew(&id, lease) {
            endpoint.expiration_time = Some(timestamp_after(lease));
        } else if endpoint.expiration_time.is_some() {
            return Err(status::new(
                Code::InvalidCursorName,
                "what the endpoint was to return is not kept any more: run the query again",
            ));
        }
    }
    Ok(endpoint.encode_to_vec())
}

/// Carries out an admin action: a statement, whose figures it answers.
async fn administer(state: &State, call: &Call, action: &Action) -> Result<Vec<u8>, Status> {
    let engine = state.sessions.database().engine();
    let begun = Instant::now();
    tracing::info!(action = %action.r#type, "admin action");
    let body = &action.body[..];
    let run = async |upkeep| call.session.sql.keep_up(upkeep).await.map_err(status::from_sql);
    Ok(match action.r#type.as_str() {
        "omendb.Flush" => {
            let request: proto::FlushRequest = decode(body)?;
            let table = match request.table.as_str() {
                "" => None,
                name => Some(upkeep::object_name(&find(engine, name)?)),
            };
            run(Upkeep::Flush(table)).await?;
            proto::FlushResult { micros: micros(begun.elapsed()) }.encode_to_vec()
        }
        "omendb.Compact" => {
            let request: proto::CompactRequest = decode(body)?;
            let table = upkeep::object_name(&find(engine, &request.table)?);
            let done = run(Upkeep::Compact(table)).await?;
            let segment_count = done.segment_count as u64;
            proto::CompactResult { segment_count, micros: micros(begun.elapsed()) }.encode_to_vec()
        }
        "omendb.Retrain" => {
            let request: proto::RetrainRequest = decode(body)?;
            let table = upkeep::object_name(&find(engine, &request.table)?);
            let done = run(Upkeep::Retrain(table)).await?;
            let result = proto::RetrainResult {
                segment_count: done.segment_count as u64,
                train_micros: micros(done.train_time),
            };
            result.encode_to_vec()
        }
        _ => {
            let request: proto::TableStatsRequest = decode(body)?;
            table_stats(&find(engine, &request.table)?).encode_to_vec()
        }
    })
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// The table called "table" or "schema.table".
fn find(engine: &Engine, name: &str) -> Result<TableSnapshot, Status> {
    if name.is_empty() {
        return Err(status::new(Code::ProtocolViolation, "the action needs the name of a table"));
    }
    let snapshot = engine.snapshot();
    let named = |schema: &str, table: &str| snapshot.table(&TableName::new(schema, table));
    named(DEFAULT_SCHEMA, name)
        .or_else(|| name.split_once('.').and_then(|(schema, table)| named(schema, table)))
        .ok_or_else(|| status::new(Code::UndefinedTable, format!("there is no table \"{name}\"")))
}

fn table_stats(table: &TableSnapshot) -> proto::TableStatsResult {
    let segments = table.segments();
    let (memtable_rows, memtable_bytes) = table.memtable_size();
    proto::TableStatsResult {
        table: table.meta().name.to_string(),
        row_count: table.row_count(),
        deleted_count: segments.iter().map(|s| s.deleted_count).sum(),
        memtable_rows,
        memtable_bytes: memtable_bytes as u64,
        segments: segments
            .iter()
            .map(|s| proto::SegmentStats {
                id: s.meta.id.0,
                row_count: s.meta.row_count,
                deleted_count: s.deleted_count,
                data_bytes: s.meta.data_bytes,
                index_bytes: s.meta.index_bytes,
                leaf_count: s.meta.leaf_count,
                max_error: s.meta.max_error,
                mean_error: s.meta.mean_error,
                train_micros: s.meta.train_nanos / 1000,
                trained_at: s.meta.trained_at_micros,
            })
            .collect(),
    }
}
