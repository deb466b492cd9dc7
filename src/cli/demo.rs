//! `omendb demo`: a server of its own, a load and queries over the wire, and what they took.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, SchemaRef};
use arrow::error::ArrowError;
use arrow_flight::Action;
use indicatif::ProgressBar;
use prost::Message;

use super::client::{self, Client};
use super::{Failure, load};
use crate::config::{Given, Settings};
use crate::flight::proto::{TableStatsRequest, TableStatsResult};
use crate::server::Running;

const BATCH_ROWS: i64 = 64 * 1024;
/// Point and range queries of each kind; their median is shown.
const REPEATS: usize = 50;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Rows to load
    #[arg(long, default_value_t = 3_000_000, value_parser = clap::value_parser!(i64).range(100_000..))]
    rows: i64,
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let dir = tempfile::tempdir()?;
    let given = Given {
        data_dir: Some(dir.path().join("data")),
        listen: Some("127.0.0.1:0".to_owned()),
        ..Given::default()
    };
    let server = Running::start(Settings::resolve(&[given])).await?;
    let url = format!("grpc://{}", server.address());
    println!("A server of its own on {url}, data in a temporary directory.\n");
    let result = show(&url, args.rows).await;
    server.stop().await?;
    result
}

async fn show(url: &str, rows: i64) -> Result<(), Failure> {
    let mut client = Client::connect(url).await?;
    let begun = Instant::now();
    let bar = ProgressBar::hidden();
    let loaded =
        load::send(&mut client, load::create_command("metrics"), schema(), batches(rows), bar)
            .await?;
    let elapsed = begun.elapsed();
    println!(
        "Loaded {} rows in {:.2} s over Flight: {:.1} million rows a second, durable and indexed.\n",
        loaded.record_count,
        elapsed.as_secs_f64(),
        loaded.record_count as f64 / elapsed.as_secs_f64() / 1e6
    );
    let keys = Keys { rows };
    println!("{:<58} {:>9} {:>12}", "query, over the wire", "rows", "median");
    queries(&mut client, &keys).await?;
    println!();
    index(&mut client, &keys).await
}

/// The keys of the demo: timestamps a second apart, give or take 400 milliseconds, and so in order.
struct Keys {
    rows: i64,
}

impl Keys {
    fn at(&self, row: i64) -> i64 {
        timestamp(row)
    }

    /// A row that depends on `i` and is anywhere in the first part of the table.
    fn some_row(&self, i: usize, room: i64) -> i64 {
        let hash = (i as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 1;
        (hash % (self.rows - room).max(1) as u64) as i64
    }
}

fn timestamp(row: i64) -> i64 {
    let jitter = (row as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
    1_700_000_000_000 + row * 1000 + (jitter % 800) as i64 - 400
}

fn schema() -> SchemaRef {
    let fields = vec![
        Field::new("timestamp", DataType::Int64, false),
        Field::new("value", DataType::Float64, false),
        Field::new("series_id", DataType::Int64, false),
    ];
    load::keyed(fields, "timestamp")
}

fn batches(rows: i64) -> impl Iterator<Item = Result<RecordBatch, ArrowError>> + Send + 'static {
    (0..rows).step_by(BATCH_ROWS as usize).map(move |start| {
        let range = start..(start + BATCH_ROWS).min(rows);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(range.clone().map(timestamp))),
            Arc::new(Float64Array::from_iter_values(
                range.clone().map(|r| (r as f64 / 1e4).sin() * 50.0),
            )),
            Arc::new(Int64Array::from_iter_values(range.map(|r| r % 1000))),
        ];
        RecordBatch::try_new(schema(), columns)
    })
}

async fn queries(client: &mut Client, keys: &Keys) -> Result<(), Failure> {
    let (small, large) = (10_000, keys.rows / 3);
    let between = |from: i64, rows: i64| {
        format!("timestamp BETWEEN {} AND {}", keys.at(from), keys.at(from + rows - 1))
    };
    measure(client, "point: WHERE timestamp = ?", REPEATS, |i| {
        format!(
            "SELECT value, series_id FROM metrics WHERE timestamp = {}",
            keys.at(keys.some_row(i, 1))
        )
    })
    .await?;
    measure(client, &format!("range: {small} rows in key order"), REPEATS, |i| {
        let range = between(keys.some_row(i, small), small);
        format!("SELECT * FROM metrics WHERE {range} ORDER BY timestamp")
    })
    .await?;
    measure(client, &format!("range: {large} rows in key order"), 3, |i| {
        let range = between(keys.some_row(i, large), large);
        format!("SELECT * FROM metrics WHERE {range} ORDER BY timestamp")
    })
    .await?;
    measure(client, &format!("count over {large} keys"), REPEATS, |i| {
        format!("SELECT COUNT(*) FROM metrics WHERE {}", between(keys.some_row(i, large), large))
    })
    .await?;
    measure(client, "deep page: ORDER BY timestamp LIMIT 10 OFFSET ?", REPEATS, |i| {
        let offset = keys.some_row(i, 10);
        format!("SELECT * FROM metrics ORDER BY timestamp LIMIT 10 OFFSET {offset}")
    })
    .await?;
    measure(client, &format!("aggregate: AVG(value) by series over {large} rows"), 5, |i| {
        let range = between(keys.some_row(i, large), large);
        format!("SELECT series_id, AVG(value) FROM metrics WHERE {range} GROUP BY series_id")
    })
    .await
}

async fn measure(
    client: &mut Client,
    name: &str,
    repeats: usize,
    sql: impl Fn(usize) -> String,
) -> Result<(), Failure> {
    let mut times = Vec::with_capacity(repeats);
    let mut rows = 0;
    for i in 0..repeats {
        let begun = Instant::now();
        let answer = client.run(&sql(i)).await?;
        times.push(begun.elapsed());
        rows = answer.batches.iter().map(RecordBatch::num_rows).sum();
    }
    times.sort();
    println!("{name:<58} {rows:>9} {:>12}", duration(times[times.len() / 2]));
    Ok(())
}

fn duration(time: Duration) -> String {
    match time.as_secs_f64() {
        s if s >= 1.0 => format!("{s:.2} s"),
        s if s >= 1e-3 => format!("{:.2} ms", s * 1e3),
        s if s >= 1e-6 => format!("{:.1} us", s * 1e6),
        s => format!("{:.0} ns", s * 1e9),
    }
}

/// The figures of the learned index, beside a B-tree of the same keys in this process.
async fn index(client: &mut Client, keys: &Keys) -> Result<(), Failure> {
    let request = TableStatsRequest { table: "metrics".to_owned() };
    let action =
        Action { r#type: "omendb.TableStats".to_owned(), body: request.encode_to_vec().into() };
    let mut results =
        client.flight().do_action(action).await.map_err(client::failure)?.into_inner();
    let result = results.message().await.map_err(client::failure)?;
    let stats = TableStatsResult::decode(result.ok_or("the server gave no statistics")?.body)?;
    let rows: u64 = stats.segments.iter().map(|s| s.row_count).sum();
    let index_bytes: u64 = stats.segments.iter().map(|s| s.index_bytes).sum();
    let leaves: u64 = stats.segments.iter().map(|s| s.leaf_count).sum();
    let max_error = stats.segments.iter().map(|s| s.max_error).max().unwrap_or(0);
    let trained: u64 = stats.segments.iter().map(|s| s.train_micros).sum();

    let begun = Instant::now();
    let tree: BTreeMap<i64, u64> = (0..keys.rows).map(|r| (keys.at(r), r as u64)).collect();
    let built = begun.elapsed();
    // Nodes of the standard library's tree hold up to 11 entries, and full ones when built in order: 192 bytes a
    // leaf, and 288 an inner node for each 12 nodes below it.
    let leaf_nodes = keys.rows as f64 / 12.0;
    let tree_bytes = leaf_nodes * 192.0 + leaf_nodes / 11.0 * 288.0;

    println!("{:<28} {:>16} {:>16}", "", "learned index", "B-tree (std)");
    println!("{:<28} {:>16} {:>16}", "keys", rows, tree.len());
    println!("{:<28} {:>16} {:>16}", "segments", stats.segments.len(), "-");
    println!("{:<28} {:>16} {:>16}", "leaves", leaves, leaf_nodes as u64);
    println!("{:<28} {:>16} {:>16}", "largest error, in rows", max_error, "-");
    println!(
        "{:<28} {:>16} {:>16}",
        "to train, to build",
        duration(Duration::from_micros(trained)),
        duration(built)
    );
    println!(
        "{:<28} {:>16.2} {:>16.2}",
        "bytes a key, keys included",
        index_bytes as f64 / rows.max(1) as f64,
        tree_bytes / keys.rows as f64
    );
    Ok(())
}
