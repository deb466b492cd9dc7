//! Statements. What changes something runs exactly once, when its FlightInfo is asked for or as an update; a query
//! runs when its ticket is redeemed, on the snapshot of that moment. In a transaction it reads what the transaction saw
//! when its FlightInfo was asked for: that is kept for a while, whether or not the transaction lasts as long.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow_flight::{FlightDescriptor, FlightEndpoint, FlightInfo, Ticket};
use futures::StreamExt;
use tokio::time::Instant;
use tonic::Status;
use tonic::metadata::MetadataMap;

use super::encode::{self, FlightStream};
use super::kept::Batches;
use super::parameters::Parameters;
use super::proto::{self, ticket::Source};
use super::service::{State, endpoint, flight_info, wire_schema};
use super::session::Call;
use super::ticket::Id;
use super::{status, ticket};
use crate::engine::{KeyRange, TableName};
use crate::sql::{
    Code, Held, Meaning, Outcome, Pinned, Prepared, Room, RunningQuery, StatementKind, Within,
};

/// A statement and the parameters to run it with.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) sql: String,
    pub(super) parameters: Option<Parameters>,
    /// The transaction that it runs in.
    pub(super) within: Within,
    /// It was prepared in a transaction of another session, and here is none.
    pub(super) stray: bool,
}

impl Bound {
    /// Without parameters.
    pub(super) fn new(sql: impl Into<String>, within: Within) -> Self {
        Self { sql: sql.into(), parameters: None, within, stray: false }
    }

    /// Refuses a change that would commit by itself though its client believes it in a transaction: one that was open
    /// when the connection was lost or the server started again.
    pub(super) fn check_change(&self) -> Result<(), Status> {
        match self.stray {
            false => Ok(()),
            true => Err(status::new(
                Code::SerializationFailure,
                "the transaction in which the statement was prepared is gone with its session: begin it anew and retry",
            )),
        }
    }

    /// The parameters to run it with.
    pub(super) fn batch(&self) -> Result<Option<RecordBatch>, Status> {
        self.parameters.as_ref().map_or(Ok(None), Parameters::decode)
    }

    /// The source of a ticket for the query.
    fn source(self) -> Result<Source, Status> {
        let carried = self.parameters.map_or(Ok(Ok(Vec::new())), Parameters::into_carried)?;
        match carried {
            Ok(parameters) => Ok(Source::Statement(proto::Statement { sql: self.sql, parameters })),
            Err(Some(id)) => Ok(Source::KeptStatement(proto::KeptStatement {
                sql: self.sql,
                parameters_id: id.to_vec(),
            })),
            Err(None) => Err(status::new(
                Code::InternalError,
                "parameters are neither in the ticket nor kept",
            )),
        }
    }
}

/// The count that Flight SQL reports: -1 where there is none.
pub(super) fn count_of(outcome: &Outcome) -> i64 {
    outcome.affected_count.map_or(-1, |n| i64::try_from(n).unwrap_or(i64::MAX))
}

/// When a call must be over, by its `grpc-timeout` header.
pub(super) fn deadline(metadata: &MetadataMap) -> Option<Instant> {
    let value = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    let n: u64 = digits.parse().ok()?;
    let timeout = match unit {
        "H" => Duration::from_secs(n.checked_mul(3600)?),
        "M" => Duration::from_secs(n.checked_mul(60)?),
        "S" => Duration::from_secs(n),
        "m" => Duration::from_millis(n),
        "u" => Duration::from_micros(n),
        "n" => Duration::from_nanos(n),
        _ => return None,
    };
    Instant::now().checked_add(timeout)
}

/// Ends a stream with an error at its deadline: tonic's own timeout stops at the response's headers.
pub(super) fn until(stream: FlightStream, deadline: Option<Instant>) -> FlightStream {
    let Some(deadline) = deadline else { return stream };
    futures::stream::unfold(Some(stream), move |stream| async move {
        let mut stream = stream?;
        match tokio::time::timeout_at(deadline, stream.next()).await {
            Ok(Some(item)) => Some((item, Some(stream))),
            Ok(None) => None,
            Err(_) => {
                let status = status::new(
                    Code::StatementTimeout,
                    "the query ran out of the time that the client gave",
                );
                Some((Err(status), None))
            }
        }
    })
    .boxed()
}

/// What a FlightInfo has settled of the query that its ticket is redeemed for; nothing where a handle is redeemed directly.
#[derive(Default)]
pub(super) struct Announced {
    /// The schema's fingerprint; 0 where none was announced.
    schema_hash: u64,
    meaning: Option<Meaning>,
    part: Option<KeyRange>,
    pinned: Option<Arc<Pinned>>,
}

impl State {
    /// FlightInfo of a statement. Runs it if it changes something.
    pub(super) async fn statement_info(
        &self,
        call: &Call,
        bound: Bound,
        descriptor: FlightDescriptor,
    ) -> Result<FlightInfo, Status> {
        let session = &call.session.sql;
        let prepared =
            session.prepare_within(bound.within, &bound.sql).await.map_err(status::from_sql)?;
        if prepared.kind() == StatementKind::Query {
            return self.query_info(call, &prepared, bound, descriptor).await;
        }
        let running = session.begin_query(&bound.sql);
        self.change_info(call, &running, &prepared, bound, descriptor).await
    }

    /// FlightInfo of a query, which runs when its tickets are redeemed.
    pub(super) async fn query_info(
        &self,
        call: &Call,
        prepared: &Prepared,
        bound: Bound,
        descriptor: FlightDescriptor,
    ) -> Result<FlightInfo, Status> {
        let session = &call.session.sql;
        let batch = bound.batch()?;
        let schema = session
            .query_schema(bound.within, prepared, batch.as_ref())
            .await
            .map_err(status::from_sql)?;
        let schema = wire_schema(call, &schema);
        let count = call.session.endpoint_count();
        let mut pinned = session.pin(bound.within).map_err(status::from_sql)?;
        let mut parts = Vec::new();
        if count > 1 {
            // All endpoints read the same snapshot.
            let snapshot = pinned.get_or_insert_with(|| session.pin_latest());
            parts = session
                .split(snapshot.snapshot(), prepared, batch.as_ref(), count)
                .await
                .map_err(status::from_sql)?;
        }
        let source = bound.source()?;
        let meaning = session.meaning();
        let meaning = meaning.as_ref();
        if parts.len() < 2 {
            // One endpoint needs no more than it would have had.
            let pinned = pinned.filter(Pinned::in_transaction);
            let endpoint = self.query_endpoint(&schema, source, meaning, pinned.as_ref(), None)?;
            return flight_info(&schema, descriptor, vec![endpoint], -1);
        }
        let endpoints = parts.iter().map(|part| {
            self.query_endpoint(&schema, source.clone(), meaning, pinned.as_ref(), Some(part))
        });
        flight_info(&schema, descriptor, endpoints.collect::<Result<_, _>>()?, -1)
    }

    /// Runs what changes something; its FlightInfo.
    pub(super) async fn change_info(
        &self,
        call: &Call,
        running: &RunningQuery,
        prepared: &Prepared,
        bound: Bound,
        descriptor: FlightDescriptor,
    ) -> Result<FlightInfo, Status> {
        bound.check_change()?;
        let session = &call.session.sql;
        // The rows of RETURNING are kept until they are fetched: whether there is room for them must be known before the commit.
        let room: Arc<dyn Room> = self.results.clone();
        running.query().set_room(room);
        let outcome = session
            .execute_running(running, bound.within, prepared, bound.batch()?.as_ref())
            .await
            .map_err(status::from_sql)?;
        let count = count_of(&outcome);
        let Some((schema, batches)) = outcome.returned else {
            let nothing = new_ticket(&Schema::empty(), Source::Nothing(proto::Nothing {}));
            let endpoint = endpoint(ticket::encode(&nothing), None);
            return flight_info(&Schema::empty(), descriptor, vec![endpoint], count);
        };
        let wire = wire_schema(call, &schema);
        let ticket = new_ticket(&wire, Source::KeptRows(proto::KeptRows {}));
        let id = ticket::parse_id(&ticket.id)?;
        let lease = self.options.result_lease;
        let bytes = outcome.held.map_or(0, Held::keep);
        self.results.put_held(id, Batches { schema: wire.clone(), batches }, lease, bytes);
        let endpoint = endpoint(ticket::encode(&ticket), Some(lease));
        flight_info(&wire, descriptor, vec![endpoint], count)
    }

    /// The endpoint of a query, or of a part of its keys, and the lease of what it reads.
    fn query_endpoint(
        &self,
        schema: &Schema,
        source: Source,
        meaning: Option<&Meaning>,
        pinned: Option<&Pinned>,
        part: Option<&KeyRange>,
    ) -> Result<FlightEndpoint, Status> {
        let mut ticket = new_ticket(schema, source);
        ticket.part = part.map(ticket::encode_part);
        ticket.meaning = meaning.map(|meaning| proto::Meaning {
            search_path: meaning.search_path.to_string(),
            timezone: meaning.time_zone.to_string(),
        });
        let Some(pinned) = pinned else { return Ok(endpoint(ticket::encode(&ticket), None)) };
        let lease = self.options.result_lease;
        self.pinned.put(ticket::parse_id(&ticket.id)?, pinned.clone(), lease)?;
        ticket.pinned = true;
        Ok(endpoint(ticket::encode(&ticket), Some(lease)))
    }

    /// The schema of a statement's rows. Runs nothing.
    pub(super) async fn statement_schema(
        &self,
        call: &Call,
        within: Within,
        sql: &str,
    ) -> Result<SchemaRef, Status> {
        let prepared =
            call.session.sql.prepare_within(within, sql).await.map_err(status::from_sql)?;
        Ok(wire_schema(call, &prepared.schema()))
    }

    /// The rows of a ticket. Never runs what changes something.
    pub(super) async fn redeem(&self, call: &Call, handle: &[u8]) -> Result<FlightStream, Status> {
        let ticket = ticket::decode(handle)?;
        let id = ticket::parse_id(&ticket.id)?;
        let part = ticket.part.as_ref().map(ticket::decode_part).transpose()?;
        let pinned = match ticket.pinned {
            false => None,
            true => Some(self.pinned.get(&id).ok_or_else(|| {
                status::new(Code::SerializationFailure,
                    "what this query was to read is not kept any more; it waits only for a while: run the query again",
                )
            })?),
        };
        if pinned.is_some() {
            self.pinned.taken(&id);
        }
        let bound = match ticket.source {
            Some(Source::Nothing(_)) => {
                return Ok(encode::batches(Schema::empty().into(), Vec::new()));
            }
            Some(Source::KeptRows(_)) => {
                let kept = self.results.get(&id).ok_or_else(|| {
                    status::new(Code::InvalidCursorName, "the rows of this statement are not kept any more; they wait only for a while")
                })?;
                let results = Arc::clone(&self.results);
                let rows = encode::batches(kept.schema.clone(), kept.batches.clone());
                // Once all are fetched they may give way to others.
                let all_taken = futures::stream::once(async move {
                    results.taken(&id);
                    None
                });
                return Ok(rows.map(Some).chain(all_taken).filter_map(std::future::ready).boxed());
            }
            Some(Source::Statement(statement)) => Bound {
                parameters: Parameters::carried(statement.parameters),
                ..Bound::new(statement.sql, Within::Session)
            },
            Some(Source::KeptStatement(statement)) => {
                let id = ticket::parse_id(&statement.parameters_id)?;
                let kept = self.parameters.get(&id).ok_or_else(|| {
                    status::new(
                        Code::InvalidCursorName,
                        "the parameters of this query are not kept any more; bind them again",
                    )
                })?;
                self.parameters.taken(&id);
                Bound {
                    parameters: kept
                        .batches
                        .first()
                        .map(|batch| Parameters::Batch(batch.clone(), Some(id))),
                    ..Bound::new(statement.sql, Within::Session)
                }
            }
            None => return Err(status::new(Code::ProtocolViolation, "the ticket is empty")),
        };
        let running = self.running.begin(id);
        // What it meant where it was made, and not what it would in this session.
        let meaning = ticket.meaning.map_or_else(Meaning::default, |meaning| Meaning {
            search_path: meaning.search_path.into(),
            time_zone: meaning.timezone.into(),
        });
        let announced =
            Announced { schema_hash: ticket.schema_hash, meaning: Some(meaning), part, pinned };
        let rows = self.query_stream(call, bound, announced);
        let rows = running.wait(rows).await?;
        Ok(running.stream(rows))
    }

    /// Runs a query. Its schema must be the announced one, if any was.
    pub(super) async fn query_stream(
        &self,
        call: &Call,
        bound: Bound,
        announced: Announced,
    ) -> Result<FlightStream, Status> {
        let session = &call.session.sql;
        let Announced { schema_hash, meaning, part, pinned } = announced;
        let meaning = meaning.as_ref();
        let pinned = match pinned {
            Some(pinned) => Some(pinned),
            // A handle that is redeemed directly; a ticket that is not pinned reads the latest state.
            None if schema_hash == 0 => {
                session.pin(bound.within).map_err(status::from_sql)?.map(Arc::new)
            }
            None => None,
        };
        let snapshot = match &pinned {
            Some(pinned) => pinned.snapshot().clone(),
            None => session.database().engine().snapshot(),
        };
        let prepared =
            session.prepare_at(&snapshot, meaning, &bound.sql).await.map_err(status::from_sql)?;
        if prepared.kind() != StatementKind::Query {
            return Err(status::new(
                Code::ProtocolViolation,
                "DoGet runs queries only; ask for the statement's FlightInfo, or send it as an update",
            ));
        }
        let rows = session
            .query_part(&snapshot, meaning, &prepared, bound.batch()?.as_ref(), part.as_ref())
            .await
            .map_err(status::from_sql)?;
        let wire = wire_schema(call, &rows.schema);
        if schema_hash != 0 && schema_hash != ticket::schema_hash(&wire) {
            return Err(status::new(
                Code::SerializationFailure,
                "a table of the query was redefined after its FlightInfo; run the query again",
            ));
        }
        let stream = encode::rows(rows, wire, call.session.compression(), session.database());
        // A transaction is not idle while one of its queries is read.
        let Some(reading) = pinned.and_then(|pinned| pinned.reading()) else { return Ok(stream) };
        Ok(stream
            .inspect(move |_| {
                let _held = &reading;
            })
            .boxed())
    }

    /// FlightInfo of a table by its path.
    pub(super) async fn table_info(
        &self,
        call: &Call,
        table: &TableName,
        descriptor: FlightDescriptor,
    ) -> Result<FlightInfo, Status> {
        // Says so by its name where there is none.
        self.table_schema(call, table).await?;
        let count = call
            .session
            .sql
            .view(Within::Session)
            .table(table)
            .map_or(-1, |t| t.row_count() as i64);
        let bound = Bound::new(select_all(table), Within::Session);
        let mut info = self.statement_info(call, bound, descriptor).await?;
        info.total_records = count;
        Ok(info)
    }

    /// The columns of a table by its path, as the client gets them.
    pub(super) async fn table_schema(
        &self,
        call: &Call,
        table: &TableName,
    ) -> Result<SchemaRef, Status> {
        let snapshot = call.session.sql.view(Within::Session);
        match snapshot.table(table) {
            Some(table) => Ok(wire_schema(call, &table.schema())),
            None if snapshot.view(table).is_some() => {
                self.statement_schema(call, Within::Session, &select_all(table)).await
            }
            None => Err(status::new(Code::UndefinedTable, format!("there is no table {table}"))),
        }
    }

    /// All tables, or those whose name matches a LIKE pattern.
    pub(super) fn list(&self, call: &Call, pattern: &[u8]) -> Result<Vec<FlightInfo>, Status> {
        let pattern = std::str::from_utf8(pattern).map_err(|_| {
            status::new(Code::ProtocolViolation, "the criteria must be a LIKE pattern in UTF-8")
        })?;
        let pattern = if pattern.is_empty() { "%" } else { pattern };
        let mut infos = Vec::new();
        for table in self.sessions.database().engine().snapshot().tables() {
            let name = &table.meta().name;
            if !super::metadata::like(&name.name, pattern) {
                continue;
            }
            let schema = wire_schema(call, &table.schema());
            let descriptor =
                FlightDescriptor::new_path(vec![name.schema.to_string(), name.name.to_string()]);
            let bound = Bound::new(select_all(name), Within::Session);
            let ticket = new_ticket(&schema, bound.source()?);
            infos.push(flight_info(
                &schema,
                descriptor,
                vec![endpoint(ticket::encode(&ticket), None)],
                table.row_count() as i64,
            )?);
        }
        Ok(infos)
    }
}

fn new_ticket(schema: &Schema, source: Source) -> proto::Ticket {
    proto::Ticket {
        id: ticket::new_id().to_vec(),
        schema_hash: ticket::schema_hash(schema),
        source: Some(source),
        pinned: false,
        part: None,
        meaning: None,
    }
}

/// The rows of a table, whatever characters its name has.
fn select_all(table: &TableName) -> String {
    let quote = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    format!("SELECT * FROM {}.{}", quote(&table.schema), quote(&table.name))
}

/// The ticket of an endpoint that this server made, and its id.
pub(super) fn ticket_id(ticket: &Ticket) -> Result<Option<Id>, Status> {
    match super::service::command(&ticket.ticket)? {
        arrow_flight::sql::Command::TicketStatementQuery(t) => {
            ticket::parse_id(&ticket::decode(&t.statement_handle)?.id).map(Some)
        }
        _ => Ok(None),
    }
}
