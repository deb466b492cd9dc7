//! `omendb load`: a file into a table, as a stream of Arrow batches through Flight SQL's bulk ingest.

use std::fs::File;
use std::io::{BufReader, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::csv;
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::reader::{FileReader, StreamReader};
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::sql::{
    CommandStatementIngest, ProstMessageExt, TableDefinitionOptions, TableExistsOption,
    TableNotExistOption,
};
use arrow_flight::{FlightData, FlightDescriptor};
use futures::{Stream, StreamExt};
use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::Mutex;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use prost::Message;
use tokio_stream::wrappers::ReceiverStream;

use super::client::{self, Client};
use super::{Failure, Target};
use crate::flight::proto::LoadResult;

/// Rows of a batch that is read and sent.
const BATCH_ROWS: usize = 64 * 1024;
/// Rows from which the types of a CSV file are guessed.
const GUESS_ROWS: usize = 10_000;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// File to load: .parquet, .csv, .arrow (or .feather, .ipc)
    file: PathBuf,
    /// Table to load into: NAME or SCHEMA.NAME
    #[arg(long)]
    table: String,
    /// Columns of the primary key, if the table is made
    #[arg(long, value_name = "C,..", value_delimiter = ',', conflicts_with = "cluster_by")]
    primary_key: Vec<String>,
    /// Columns to order by, which may repeat, if the table is made
    #[arg(long, value_name = "C,..", value_delimiter = ',')]
    cluster_by: Vec<String>,
    /// What to do where the table exists or does not
    #[arg(long, value_enum, default_value_t = Mode::CreateAppend)]
    mode: Mode,
    /// What to do with rows whose primary key exists
    #[arg(long, value_enum, default_value_t = Conflict::Error)]
    on_conflict: Conflict,
    /// Separator of a CSV file
    #[arg(long, default_value_t = ',')]
    delimiter: char,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Mode {
    /// The table must not exist
    Create,
    /// The table must exist
    Append,
    /// The table is dropped if it exists, and made anew
    Replace,
    /// The table is made if it does not exist
    CreateAppend,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Conflict {
    /// The load fails and leaves nothing
    Error,
    /// The row that exists stays
    Ignore,
    /// The new row replaces it
    Replace,
}

/// The rows of a file.
struct Source {
    schema: SchemaRef,
    batches: Box<dyn Iterator<Item = Result<RecordBatch, ArrowError>> + Send>,
    /// Rows, where the file says how many it has.
    rows: Option<u64>,
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let mut client = Client::connect(&args.target.url).await?;
    let source = open(&args.file, args.delimiter)
        .map_err(|e| format!("cannot read {}: {e}", args.file.display()))?;
    let mut metadata = source.schema.metadata().clone();
    for (key, columns) in [("primary_key", &args.primary_key), ("cluster_by", &args.cluster_by)] {
        if !columns.is_empty() {
            metadata.insert(key.to_owned(), columns.join(","));
        }
    }
    let conflict = match args.on_conflict {
        Conflict::Error => "error",
        Conflict::Ignore => "ignore",
        Conflict::Replace => "replace",
    };
    metadata.insert("on_conflict".to_owned(), conflict.to_owned());
    let schema = Arc::new(Schema::new_with_metadata(source.schema.fields().clone(), metadata));
    let bar = progress_bar(source.rows)?;
    let begun = Instant::now();
    let result =
        send(&mut client, command(&args.table, args.mode), schema, source.batches, bar.clone())
            .await;
    bar.finish_and_clear();
    let result = result?;
    println!("{}", summary(&args.table, &result, begun.elapsed()));
    Ok(())
}

fn summary(table: &str, result: &LoadResult, elapsed: Duration) -> String {
    let rate = result.record_count as f64 / elapsed.as_secs_f64();
    let mut text = format!(
        "{} rows into {table} in {:.2} s ({:.2} million rows a second); {} segments, their indexes trained in {:.1} ms",
        result.record_count,
        elapsed.as_secs_f64(),
        rate / 1e6,
        result.segment_count,
        result.train_micros as f64 / 1e3,
    );
    if result.ignored_count > 0 {
        text.push_str(&format!("; {} rows left out: their keys existed", result.ignored_count));
    }
    if result.replaced_count > 0 {
        text.push_str(&format!("; {} rows replaced", result.replaced_count));
    }
    text
}

fn progress_bar(rows: Option<u64>) -> Result<ProgressBar, Failure> {
    let bar = match rows {
        Some(rows) => ProgressBar::new(rows).with_style(ProgressStyle::with_template(
            "{bar:40} {human_pos}/{human_len} rows  {per_sec}  {eta} left",
        )?),
        None => ProgressBar::new_spinner()
            .with_style(ProgressStyle::with_template("{spinner} {human_pos} rows  {per_sec}")?),
    };
    Ok(bar)
}

fn command(table: &str, mode: Mode) -> CommandStatementIngest {
    let (schema, table) = match table.split_once('.') {
        Some((schema, table)) => (Some(schema.to_owned()), table.to_owned()),
        None => (None, table.to_owned()),
    };
    let (missing, existing) = match mode {
        Mode::Create => (TableNotExistOption::Create, TableExistsOption::Fail),
        Mode::Append => (TableNotExistOption::Fail, TableExistsOption::Append),
        Mode::Replace => (TableNotExistOption::Create, TableExistsOption::Replace),
        Mode::CreateAppend => (TableNotExistOption::Create, TableExistsOption::Append),
    };
    CommandStatementIngest {
        table_definition_options: Some(TableDefinitionOptions {
            if_not_exist: missing.into(),
            if_exists: existing.into(),
        }),
        table,
        schema,
        ..CommandStatementIngest::default()
    }
}

/// Sends batches as they are read, and returns what the server says of the load.
pub(super) async fn send(
    client: &mut Client,
    command: CommandStatementIngest,
    schema: SchemaRef,
    batches: impl Iterator<Item = Result<RecordBatch, ArrowError>> + Send + 'static,
    bar: ProgressBar,
) -> Result<LoadResult, Failure> {
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    let wire = Arc::clone(&schema);
    tokio::task::spawn_blocking(move || {
        for batch in batches {
            let batch = batch.and_then(|b| {
                bar.inc(b.num_rows() as u64);
                b.with_schema(Arc::clone(&wire))
            });
            let failed = batch.is_err();
            if sender.blocking_send(batch.map_err(FlightError::from)).is_err() || failed {
                break;
            }
        }
    });
    let descriptor = FlightDescriptor::new_cmd(command.as_any().encode_to_vec());
    let encoded = FlightDataEncoderBuilder::new()
        .with_schema(schema)
        .with_flight_descriptor(Some(descriptor))
        .build(ReceiverStream::new(receiver));
    let error = Arc::new(Mutex::new(None));
    let stream = fallible(encoded, Arc::clone(&error));
    let answer = client.flight().do_put(stream).await;
    // A file that cannot be read is the cause, whatever the server makes of the broken stream.
    if let Some(e) = error.lock().take() {
        return Err(e);
    }
    let mut results = answer.map_err(client::failure)?.into_inner();
    let result = results.message().await.map_err(client::failure)?;
    let result = result.ok_or("the server did not say what it loaded")?;
    Ok(LoadResult::decode(result.app_metadata)?)
}

/// A stream of messages that breaks the call where reading fails, so that nothing is loaded, and keeps the error.
fn fallible(
    encoded: impl Stream<Item = Result<FlightData, FlightError>> + Send + 'static,
    error: Arc<Mutex<Option<Failure>>>,
) -> impl Stream<Item = FlightData> + Send + 'static {
    encoded.filter_map(move |message| {
        let message = match message {
            Ok(message) => message,
            Err(e) => {
                *error.lock() = Some(e.to_string().into());
                // A message that no server takes: an end of the stream would commit what was sent.
                FlightData { data_header: vec![0xFF; 8].into(), ..FlightData::default() }
            }
        };
        std::future::ready(Some(message))
    })
}

fn open(path: &Path, delimiter: char) -> Result<Source, Failure> {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    let file = File::open(path)?;
    match extension.to_ascii_lowercase().as_str() {
        "parquet" | "pq" => open_parquet(file),
        "csv" | "tsv" | "txt" => {
            let delimiter = if extension == "tsv" && delimiter == ',' { '\t' } else { delimiter };
            open_csv(file, delimiter)
        }
        "arrow" | "feather" | "ipc" | "arrows" => open_arrow(file),
        _ => Err("its name must end in .parquet, .csv or .arrow".into()),
    }
}

fn open_parquet(file: File) -> Result<Source, Failure> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(file)?.with_batch_size(BATCH_ROWS);
    let schema = Arc::clone(builder.schema());
    let rows = u64::try_from(builder.metadata().file_metadata().num_rows()).ok();
    Ok(Source { schema, batches: Box::new(builder.build()?), rows })
}

fn open_csv(mut file: File, delimiter: char) -> Result<Source, Failure> {
    let delimiter =
        u8::try_from(delimiter).map_err(|_| "the separator must be an ASCII character")?;
    let format = csv::reader::Format::default().with_header(true).with_delimiter(delimiter);
    let (schema, _) = format.infer_schema(BufReader::new(&mut file), Some(GUESS_ROWS))?;
    file.rewind()?;
    let schema = Arc::new(schema);
    let reader = csv::ReaderBuilder::new(Arc::clone(&schema))
        .with_format(format)
        .with_batch_size(BATCH_ROWS)
        .build(file)?;
    Ok(Source { schema, batches: Box::new(reader), rows: None })
}

fn open_arrow(mut file: File) -> Result<Source, Failure> {
    // A file with a footer, or a stream: both are called .arrow.
    if let Ok(reader) = FileReader::try_new_buffered(file.try_clone()?, None) {
        return Ok(Source { schema: reader.schema(), batches: Box::new(reader), rows: None });
    }
    file.rewind()?;
    let reader = StreamReader::try_new_buffered(file, None)?;
    Ok(Source { schema: reader.schema(), batches: Box::new(reader), rows: None })
}

/// A schema with a primary key, for the demo.
pub(super) fn keyed(fields: Vec<Field>, key: &str) -> SchemaRef {
    let metadata = [("primary_key".to_owned(), key.to_owned())].into();
    Arc::new(Schema::new_with_metadata(fields, metadata))
}

/// The command that creates a table by loading it.
pub(super) fn create_command(table: &str) -> CommandStatementIngest {
    command(table, Mode::Create)
}
