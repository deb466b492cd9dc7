//! What the client commands share: a connection, statements and their rows.

use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow_flight::FlightInfo;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::{Any, CommandStatementQuery, ProstMessageExt};
use arrow_flight::{FlightDescriptor, Ticket};
use futures::{StreamExt, TryStreamExt};
use prost::Message;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use super::Failure;

/// Connects to `grpc://host:port` (or `grpc+tcp://`, `http://`, or just `host:port`).
pub(super) async fn channel(url: &str) -> Result<Channel, Failure> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("grpc", url));
    if !matches!(scheme, "grpc" | "grpc+tcp" | "http" | "flightsql") {
        return Err(format!("the URL {url} has the scheme {scheme}; use grpc://HOST:PORT").into());
    }
    let endpoint = Endpoint::from_shared(format!("http://{rest}"))
        .map_err(|e| format!("the URL {url} is malformed: {e}"))?
        .connect_timeout(Duration::from_secs(10))
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(16 << 20)
        .tcp_nodelay(true);
    let connected = endpoint.connect().await;
    connected.map_err(|_| {
        format!("cannot connect to {url}: is a server running there? Start one with `omendb serve`")
            .into()
    })
}

/// The message of a server's error, without gRPC's wrapping.
pub(super) fn failure(status: Status) -> Failure {
    status.message().to_owned().into()
}

fn flight_failure(e: FlightError) -> Failure {
    match e {
        FlightError::Tonic(status) => failure(*status),
        other => other.to_string().into(),
    }
}

/// A connection to a server.
#[derive(Debug, Clone)]
pub(super) struct Client {
    flight: FlightServiceClient<Channel>,
}

/// What a statement gave.
pub(super) struct Answer {
    pub(super) schema: SchemaRef,
    pub(super) batches: Vec<RecordBatch>,
    /// Rows that the statement changed, where it says so.
    pub(super) affected: Option<u64>,
}

impl Client {
    pub(super) async fn connect(url: &str) -> Result<Self, Failure> {
        Ok(Self::new(channel(url).await?))
    }

    pub(super) fn new(channel: Channel) -> Self {
        let flight = FlightServiceClient::new(channel)
            .max_decoding_message_size(usize::MAX)
            .max_encoding_message_size(usize::MAX);
        Self { flight }
    }

    /// The protocol's client, for what this one does not wrap.
    pub(super) fn flight(&mut self) -> &mut FlightServiceClient<Channel> {
        &mut self.flight
    }

    async fn info(&mut self, sql: &str) -> Result<FlightInfo, Failure> {
        let command = CommandStatementQuery { query: sql.to_owned(), transaction_id: None };
        let any: Any = command.as_any();
        let descriptor = FlightDescriptor::new_cmd(any.encode_to_vec());
        Ok(self.flight.get_flight_info(descriptor).await.map_err(failure)?.into_inner())
    }

    /// The rows of a ticket as they come.
    async fn get(&mut self, ticket: Ticket) -> Result<FlightRecordBatchStream, Failure> {
        let stream = self.flight.do_get(ticket).await.map_err(failure)?.into_inner();
        let stream = stream.map_err(|status| FlightError::Tonic(Box::new(status)));
        Ok(FlightRecordBatchStream::new_from_flight_data(stream.boxed()))
    }

    /// Runs a statement and fetches its rows.
    pub(super) async fn run(&mut self, sql: &str) -> Result<Answer, Failure> {
        let info = self.info(sql).await?;
        let affected = u64::try_from(info.total_records).ok();
        let schema = SchemaRef::new(info.clone().try_decode_schema()?);
        let mut batches = Vec::new();
        if !schema.fields().is_empty() {
            for ticket in info.endpoint.into_iter().filter_map(|e| e.ticket) {
                let mut stream = self.get(ticket).await?;
                while let Some(batch) = stream.next().await {
                    batches.push(batch.map_err(flight_failure)?);
                }
            }
        }
        Ok(Answer { schema, batches, affected })
    }
}
