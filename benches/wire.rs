//! The wire bench: OmenDB beside bare servers that do nothing but move bytes.
//!
//! `cargo bench --bench wire -- [PARTS]` builds both, then hands over to `benches/wire.py`, which drives them from the same
//! client and prints medians of interleaved runs. With `peer` as its first argument this program is the bare server itself:
//!
//! - the query `hot` streams batches that lie in memory through the stock encoder;
//! - an ingest into the table `sink` counts rows and drops them; into `parquet` it writes one file and syncs it;
//! - every other query answers with one canned row, prepared or not.

use std::fs::File;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::Command;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_server::{FlightService, FlightServiceServer};
use arrow_flight::sql::metadata::{SqlInfoData, SqlInfoDataBuilder};
use arrow_flight::sql::server::{FlightSqlService, PeekableFlightDataStream};
use arrow_flight::sql::{
    ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest,
    ActionCreatePreparedStatementResult, CommandGetSqlInfo, CommandPreparedStatementQuery,
    CommandStatementIngest, CommandStatementQuery, DoPutPreparedStatementResult, ProstMessageExt,
    SqlInfo, TicketStatementQuery,
};
use arrow_flight::{
    Action, FlightData, FlightDescriptor, FlightEndpoint, FlightInfo, IpcMessage, SchemaAsIpc,
    Ticket,
};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use parquet::arrow::ArrowWriter;
use prost::Message;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

/// Rows of the hot stream, and of each of its batches.
const HOT_ROWS: usize = 10_000_000;
const BATCH_ROWS: usize = 64 * 1024;
/// The largest message that either server takes.
const MAX_MESSAGE_BYTES: usize = 64 << 20;

type DataStream = Pin<Box<dyn Stream<Item = Result<FlightData, Status>> + Send>>;
type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

fn main() -> Result<()> {
    // Cargo adds `--bench`; the rest is ours.
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    match args.split_first() {
        Some((first, rest)) if first == "peer" => serve(rest.first().map(PathBuf::from)),
        _ => drive(&args),
    }
}

/// Runs the Python driver with both programs named in its environment.
fn drive(parts: &[String]) -> Result<()> {
    let python = std::env::var("OMENDB_BENCH_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let status = Command::new(python)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/wire.py"))
        .args(parts)
        .env("OMENDB_BIN", env!("CARGO_BIN_EXE_omendb"))
        .env("OMENDB_BENCH_PEER", std::env::current_exe()?)
        .status()?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("benches/wire.py ended with {status}").into())
    }
}

/// Serves on a free port, which it prints, until it is killed. `parquet` is the file that ingests write.
#[tokio::main]
async fn serve(parquet: Option<PathBuf>) -> Result<()> {
    let peer = Peer::new(parquet)?;
    let incoming = TcpIncoming::bind(([127, 0, 0, 1], 0).into())?.with_nodelay(Some(true));
    println!("listening on {}", incoming.local_addr()?);
    let service = FlightServiceServer::new(peer)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming).await?;
    Ok(())
}

/// The schema of every stream: four columns of eight bytes.
fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("k", DataType::Int64, false),
        Field::new("a", DataType::Int64, true),
        Field::new("b", DataType::Float64, true),
        Field::new("c", DataType::Int64, true),
    ]))
}

fn batch(first: usize, rows: usize) -> Result<RecordBatch, arrow::error::ArrowError> {
    let keys = first as i64..(first + rows) as i64;
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(keys.clone().map(|k| 2 * k))),
        Arc::new(Int64Array::from_iter_values(keys.clone().map(|k| k % 1000))),
        Arc::new(Float64Array::from_iter_values(keys.clone().map(|k| k as f64 * 0.5))),
        Arc::new(Int64Array::from_iter_values(keys)),
    ];
    RecordBatch::try_new(schema(), columns)
}

/// The bare server.
#[derive(Clone)]
struct Peer {
    hot: Arc<Vec<RecordBatch>>,
    canned: RecordBatch,
    infos: Arc<SqlInfoData>,
    parquet: Option<PathBuf>,
}

impl Peer {
    fn new(parquet: Option<PathBuf>) -> Result<Self> {
        let hot = (0..HOT_ROWS)
            .step_by(BATCH_ROWS)
            .map(|first| batch(first, BATCH_ROWS.min(HOT_ROWS - first)))
            .collect::<Result<_, _>>()?;
        let mut infos = SqlInfoDataBuilder::new();
        infos.append(SqlInfo::FlightSqlServerName, "bare");
        Ok(Self {
            hot: Arc::new(hot),
            canned: batch(0, 1)?,
            infos: Arc::new(infos.build()?),
            parquet,
        })
    }

    fn info(
        &self,
        ticket: Vec<u8>,
        descriptor: FlightDescriptor,
    ) -> Result<Response<FlightInfo>, Status> {
        let endpoint = FlightEndpoint::new().with_ticket(Ticket { ticket: ticket.into() });
        let info = FlightInfo::new()
            .try_with_schema(&schema())
            .map_err(|e| Status::internal(e.to_string()))?
            .with_endpoint(endpoint)
            .with_descriptor(descriptor);
        Ok(Response::new(info))
    }

    fn canned(&self) -> Response<DataStream> {
        encoded(schema(), vec![self.canned.clone()])
    }

    /// Writes what arrives to the Parquet file, on a thread of its own, and syncs it.
    async fn write_parquet(&self, mut batches: FlightRecordBatchStream) -> Result<i64, Status> {
        let path =
            self.parquet.clone().ok_or_else(|| Status::failed_precondition("no file was named"))?;
        let (sender, mut receiver) = tokio::sync::mpsc::channel::<RecordBatch>(4);
        let writer =
            tokio::task::spawn_blocking(move || -> Result<i64, parquet::errors::ParquetError> {
                let mut writer = ArrowWriter::try_new(File::create(path)?, schema(), None)?;
                let mut rows = 0;
                while let Some(batch) = receiver.blocking_recv() {
                    rows += batch.num_rows() as i64;
                    writer.write(&batch)?;
                }
                writer.into_inner()?.sync_all()?;
                Ok(rows)
            });
        while let Some(batch) = batches.try_next().await? {
            if sender.send(batch).await.is_err() {
                break;
            }
        }
        drop(sender);
        let written = writer.await.map_err(|e| Status::internal(e.to_string()))?;
        written.map_err(|e| Status::internal(e.to_string()))
    }
}

fn encoded(schema: SchemaRef, batches: Vec<RecordBatch>) -> Response<DataStream> {
    let batches = stream::iter(batches.into_iter().map(Ok::<_, FlightError>));
    let data = FlightDataEncoderBuilder::new().with_schema(schema).build(batches);
    Response::new(data.map_err(Status::from).boxed())
}

fn ipc(schema: &Schema) -> Result<IpcMessage, Status> {
    SchemaAsIpc::new(schema, &Default::default())
        .try_into()
        .map_err(|e: arrow::error::ArrowError| Status::internal(e.to_string()))
}

#[tonic::async_trait]
impl FlightSqlService for Peer {
    type FlightService = Self;

    async fn get_flight_info_sql_info(
        &self,
        query: CommandGetSqlInfo,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let ticket = query.as_any().encode_to_vec();
        let schema = query.into_builder(&self.infos).schema();
        let endpoint = FlightEndpoint::new().with_ticket(Ticket { ticket: ticket.into() });
        let info = FlightInfo::new()
            .try_with_schema(&schema)
            .map_err(|e| Status::internal(e.to_string()))?
            .with_endpoint(endpoint)
            .with_descriptor(request.into_inner());
        Ok(Response::new(info))
    }

    async fn do_get_sql_info(
        &self,
        query: CommandGetSqlInfo,
        _request: Request<Ticket>,
    ) -> Result<Response<<Self as FlightService>::DoGetStream>, Status> {
        let builder = query.into_builder(&self.infos);
        let schema = builder.schema();
        let batch = builder.build().map_err(Status::from)?;
        Ok(encoded(schema, vec![batch]))
    }

    async fn get_flight_info_statement(
        &self,
        query: CommandStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let ticket = TicketStatementQuery { statement_handle: query.query.into_bytes().into() };
        self.info(ticket.as_any().encode_to_vec(), request.into_inner())
    }

    async fn do_get_statement(
        &self,
        ticket: TicketStatementQuery,
        _request: Request<Ticket>,
    ) -> Result<Response<<Self as FlightService>::DoGetStream>, Status> {
        if ticket.statement_handle.as_ref() == b"hot" {
            return Ok(encoded(schema(), self.hot.to_vec()));
        }
        Ok(self.canned())
    }

    async fn do_action_create_prepared_statement(
        &self,
        query: ActionCreatePreparedStatementRequest,
        _request: Request<Action>,
    ) -> Result<ActionCreatePreparedStatementResult, Status> {
        let parameters = if query.query.contains('?') {
            Schema::new(vec![Field::new("$1", DataType::Int64, true)])
        } else {
            Schema::empty()
        };
        Ok(ActionCreatePreparedStatementResult {
            prepared_statement_handle: query.query.into_bytes().into(),
            dataset_schema: ipc(&schema())?.0,
            parameter_schema: ipc(&parameters)?.0,
        })
    }

    async fn do_action_close_prepared_statement(
        &self,
        _query: ActionClosePreparedStatementRequest,
        _request: Request<Action>,
    ) -> Result<(), Status> {
        Ok(())
    }

    async fn do_put_prepared_statement_query(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<DoPutPreparedStatementResult, Status> {
        let mut parameters = FlightRecordBatchStream::new_from_flight_data(
            request.into_inner().map_err(FlightError::from),
        );
        while parameters.try_next().await?.is_some() {}
        Ok(DoPutPreparedStatementResult {
            prepared_statement_handle: Some(query.prepared_statement_handle),
        })
    }

    async fn get_flight_info_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.info(query.as_any().encode_to_vec(), request.into_inner())
    }

    async fn do_get_prepared_statement(
        &self,
        _query: CommandPreparedStatementQuery,
        _request: Request<Ticket>,
    ) -> Result<Response<<Self as FlightService>::DoGetStream>, Status> {
        Ok(self.canned())
    }

    async fn do_put_statement_ingest(
        &self,
        ingest: CommandStatementIngest,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        let mut batches = FlightRecordBatchStream::new_from_flight_data(
            request.into_inner().map_err(FlightError::from),
        );
        if ingest.table == "parquet" {
            return self.write_parquet(batches).await;
        }
        let mut rows = 0;
        while let Some(batch) = batches.try_next().await? {
            rows += batch.num_rows() as i64;
        }
        Ok(rows)
    }

    async fn register_sql_info(&self, _id: i32, _result: &SqlInfo) {}
}
