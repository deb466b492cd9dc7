//! A server on a free port and a temporary directory, and clients of it.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::{Action, FlightInfo};
use futures::TryStreamExt;
use omendb::config::{Given, Settings};
use omendb::server::Running;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

pub struct Server {
    running: Option<Running>,
    pub dir: Arc<tempfile::TempDir>,
}

impl Server {
    pub async fn start() -> Self {
        Self::start_in(Arc::new(tempfile::tempdir().unwrap())).await
    }

    pub async fn start_in(dir: Arc<tempfile::TempDir>) -> Self {
        Self::start_in_with(dir, Given::default()).await
    }

    /// A server with some settings.
    pub async fn start_with(given: Given) -> Self {
        Self::start_in_with(Arc::new(tempfile::tempdir().unwrap()), given).await
    }

    async fn start_in_with(dir: Arc<tempfile::TempDir>, settings: Given) -> Self {
        let given = Given {
            data_dir: Some(dir.path().join("data")),
            listen: Some("127.0.0.1:0".to_owned()),
            ..settings
        };
        let running = Running::start(Settings::resolve(&[given])).await.unwrap();
        Self { running: Some(running), dir }
    }

    pub fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    pub async fn channel(&self) -> Channel {
        let uri = format!("http://{}", self.running().address());
        Endpoint::from_shared(uri).unwrap().connect().await.unwrap()
    }

    /// A client over a connection of its own.
    pub async fn client(&self) -> Client {
        Client::new(self.channel().await)
    }

    /// A client over a connection that has room for so many results that are not read. As clients are made, a few of those
    /// use up what the connection may be sent, and the others get nothing (HTTP/2's flow control).
    pub async fn client_for_streams(&self, count: u32) -> Client {
        const STREAM: u32 = 64 << 10;
        let uri = format!("http://{}", self.running().address());
        let endpoint = Endpoint::from_shared(uri)
            .unwrap()
            .initial_stream_window_size(STREAM)
            .initial_connection_window_size(count * STREAM);
        Client::new(endpoint.connect().await.unwrap())
    }

    /// Closes the server and starts another on the same directory.
    pub async fn restart(mut self) -> Self {
        let dir = Arc::clone(&self.dir);
        self.running.take().unwrap().stop().await.unwrap();
        Self::start_in(dir).await
    }

    pub async fn stop(mut self) {
        self.running.take().unwrap().stop().await.unwrap();
    }
}

pub struct Client {
    pub sql: FlightSqlServiceClient<Channel>,
    pub flight: FlightServiceClient<Channel>,
}

impl Client {
    pub fn new(channel: Channel) -> Self {
        let flight = FlightServiceClient::new(channel)
            .max_decoding_message_size(usize::MAX)
            .max_encoding_message_size(usize::MAX);
        Self { sql: FlightSqlServiceClient::new_from_inner(flight.clone()), flight }
    }

    pub async fn info(&mut self, sql: &str) -> FlightInfo {
        self.sql.execute(sql.to_owned(), None).await.unwrap_or_else(|e| panic!("{sql}: {e}"))
    }

    /// The rows of a FlightInfo as one batch, and a check that they have the schema it announced.
    pub async fn fetch(&mut self, info: &FlightInfo) -> RecordBatch {
        let announced: SchemaRef = Arc::new(info.clone().try_decode_schema().unwrap());
        let ticket = info.endpoint[0].ticket.clone().unwrap();
        let mut stream = self.sql.do_get(ticket).await.unwrap();
        let mut batches = Vec::new();
        while let Some(batch) = stream.try_next().await.unwrap() {
            assert_eq!(batch.schema(), announced);
            batches.push(batch);
        }
        assert_eq!(stream.schema(), Some(&announced), "a stream has its schema, rows or not");
        concat_batches(&announced, &batches).unwrap()
    }

    pub async fn query(&mut self, sql: &str) -> RecordBatch {
        let info = self.info(sql).await;
        self.fetch(&info).await
    }

    /// The one BIGINT of a query.
    pub async fn number(&mut self, sql: &str) -> i64 {
        let batch = self.query(sql).await;
        assert_eq!((batch.num_rows(), batch.num_columns()), (1, 1), "{sql}");
        batch.column(0).as_primitive::<Int64Type>().value(0)
    }

    /// Runs a statement as an update; the count that it reports.
    pub async fn update(&mut self, sql: &str) -> i64 {
        self.sql.execute_update(sql.to_owned(), None).await.unwrap_or_else(|e| panic!("{sql}: {e}"))
    }

    pub async fn action(&mut self, name: &str, body: Vec<u8>) -> Result<Vec<Vec<u8>>, Status> {
        let action = Action { r#type: name.to_owned(), body: body.into() };
        let results = self.flight.do_action(action).await?.into_inner();
        results.map_ok(|r| r.body.to_vec()).try_collect().await
    }
}

/// Columns k (BIGINT, NOT NULL) and v (DOUBLE) of the keys `keys`.
pub fn numbers(keys: std::ops::Range<i64>) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(keys.clone())),
        Arc::new(Float64Array::from_iter_values(keys.map(|k| k as f64 / 2.0))),
    ];
    RecordBatch::try_new(numbers_schema(&[]), columns).unwrap()
}

pub fn numbers_schema(metadata: &[(&str, &str)]) -> SchemaRef {
    let fields =
        vec![Field::new("k", DataType::Int64, false), Field::new("v", DataType::Float64, true)];
    let metadata = metadata.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Arc::new(Schema::new_with_metadata(fields, metadata))
}
