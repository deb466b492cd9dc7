//! What a statement costs beside its rows: the fast path against DataFusion's planner, counts over few and many keys, and
//! what positions answer against the plans that read rows.
//!
//! `cargo bench --bench sql`: times are CPU time of the whole process (so that threads count), median of interleaved rounds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arrow::array::{Float64Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use futures::TryStreamExt;
use omendb::engine::{Engine, KeySpec, OnConflict, Options, TableName};
use omendb::sql::{Database, Session, SqlOptions};

const ROUNDS: usize = 15;
const STATEMENTS: u32 = 200;

const SUM: &str =
    "SELECT sum(v), max(k % 7) FROM t WHERE k >= 1000000 AND k < 1000200 AND v > 0 GROUP BY k % 3";

/// CPU time of this process so far, all threads.
#[cfg(target_os = "linux")]
fn cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is that of a local, which outlives the call.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) } != 0;
    assert!(!failed, "the process has no clock");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Elsewhere the wall clock has to do.
#[cfg(not(target_os = "linux"))]
fn cpu() -> Duration {
    static BEGAN: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    BEGAN.elapsed()
}

async fn run(session: &Session, sql: &str) -> usize {
    let statement = session.prepare(sql).await.expect("the statement is right");
    let rows = session.query(&statement, None).await.expect("the query runs");
    let batches: Vec<RecordBatch> = rows.stream.try_collect().await.expect("rows come");
    batches.iter().map(RecordBatch::num_rows).sum()
}

/// CPU and wall time of one statement; of one with another text each time where it is to be `new`.
async fn measure(session: &Session, sql: &str, new: bool) -> (Duration, Duration) {
    static TEXTS: AtomicU64 = AtomicU64::new(0);
    let (cpu_before, before) = (cpu(), Instant::now());
    for _ in 0..STATEMENTS {
        match new {
            true => {
                let text = TEXTS.fetch_add(1, Ordering::Relaxed);
                run(session, &format!("{sql} -- {text}")).await
            }
            false => run(session, sql).await,
        };
    }
    ((cpu() - cpu_before) / STATEMENTS, before.elapsed() / STATEMENTS)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn load(engine: &Engine, rows: i64) {
    let schema = Arc::new(Schema::new(vec![
        Field::new("k", DataType::Int64, false),
        Field::new("v", DataType::Float64, true),
    ]));
    let step = 1_000_000;
    engine
        .write(|txn| {
            let table =
                txn.create_table(&TableName::from("t"), &schema, &KeySpec::primary(["k"]))?;
            let mut write = txn.write(table, OnConflict::Error)?;
            for from in (0..rows).step_by(step) {
                let keys = from..(from + step as i64).min(rows);
                let values = Float64Array::from_iter_values(keys.clone().map(|k| k as f64));
                let keys = Int64Array::from_iter_values(keys.map(|k| k * 2));
                write.insert(&RecordBatch::try_new(
                    Arc::clone(&schema),
                    vec![Arc::new(keys), Arc::new(values)],
                )?)?;
            }
            txn.apply(write)
        })
        .expect("the load commits");
}

/// Rows a tenth of a second apart.
fn load_times(engine: &Engine, rows: i64) {
    let schema = Arc::new(Schema::new(vec![
        Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, None), false),
        Field::new("v", DataType::Float64, true),
    ]));
    let times = TimestampMicrosecondArray::from_iter_values((0..rows).map(|i| i * 100_000));
    let values = Float64Array::from_iter_values((0..rows).map(|i| i as f64));
    let batch = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(times), Arc::new(values)]);
    let batch = batch.expect("the columns fit");
    engine
        .write(|txn| {
            let table =
                txn.create_table(&TableName::from("e"), &schema, &KeySpec::primary(["at"]))?;
            txn.insert(table, &batch, OnConflict::Error)
        })
        .expect("the load commits");
}

/// What positions answer, and the same with a condition that makes DataFusion read the rows: one statement a round.
async fn ranks(session: &Session, rows: i64) {
    let few = rows / 4;
    let keys: Vec<String> = (0..1000).map(|i| (i * 7919 % rows * 2).to_string()).collect();
    let keys = keys.join(", ");
    let cases = [
        ("median of the key", format!("SELECT median(k) FROM t WHERE k < {rows} / 2{{}}")),
        (
            "percentile_cont, min, max",
            format!("SELECT quantile_cont(k, 0.99), min(k), max(k) FROM t WHERE k < {rows} / 2{{}}"),
        ),
        ("counts by hour", "SELECT date_trunc('hour', at), count(*) FROM e WHERE at > '1970-01-01'{} GROUP BY 1 ORDER BY 1".to_owned()),
        ("counts by month", "SELECT date_trunc('month', at), count(*) FROM e WHERE at > '1970-01-01'{} GROUP BY 1".to_owned()),
        ("1,000 rows of an IN list", format!("SELECT v FROM t WHERE k IN ({keys}){{}}")),
    ];
    println!("{:<28} {:>12} {:>12}", format!("{few} rows"), "positions", "rows read");
    for (name, sql) in cases {
        let mut times = (Vec::new(), Vec::new());
        for _ in 0..7 {
            for (times, condition) in [(&mut times.0, ""), (&mut times.1, " AND v >= 0")] {
                let before = cpu();
                run(session, &sql.replace("{}", condition)).await;
                times.push(cpu() - before);
            }
        }
        let (fast, slow) = (micros(median(times.0)), micros(median(times.1)));
        println!("{name:<28} {fast:>9.1} us {slow:>9.1} us, {:.0} times", slow / fast);
    }
    for (name, sql) in [
        ("avg of a sample of 1 %", "SELECT avg(v) FROM t TABLESAMPLE SYSTEM (1)"),
        ("the same, BERNOULLI", "SELECT avg(v) FROM t TABLESAMPLE BERNOULLI (1)"),
        ("avg of all", "SELECT avg(v) FROM t"),
        ("avg of 1 % by random()", "SELECT avg(v) FROM t WHERE random() < 0.01"),
    ] {
        let mut times = Vec::new();
        for _ in 0..5 {
            let before = cpu();
            run(session, sql).await;
            times.push(cpu() - before);
        }
        println!("{name:<28} {:>9.1} us", micros(median(times)));
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let rows = arguments
        .iter()
        .position(|a| a == "--rows")
        .and_then(|i| arguments.get(i + 1)?.parse().ok())
        .unwrap_or(20_000_000i64);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let engine = Engine::open(dir.path(), Options::default()).expect("the engine opens");
    load(&engine, rows);
    load_times(&engine, rows / 4);
    let database = Database::new(engine, SqlOptions::default()).expect("SQL starts");
    let session = database.session();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    // What differs is one condition that the fast path does not take and DataFusion folds away.
    let cases = [
        ("point, fast path", "SELECT * FROM t WHERE k = 1000000".to_owned()),
        ("point, new text", "SELECT * FROM t WHERE k = 1000000".to_owned()),
        ("point, DataFusion", "SELECT * FROM t WHERE k = 1000000 AND 1 = 1".to_owned()),
        ("point, DataFusion, new text", "SELECT * FROM t WHERE k = 1000000 AND 1 = 1".to_owned()),
        ("100 rows, fast path", "SELECT * FROM t WHERE k >= 1000000 AND k < 1000200".to_owned()),
        (
            "100 rows, DataFusion",
            "SELECT * FROM t WHERE k >= 1000000 AND k < 1000200 AND 1 = 1".to_owned(),
        ),
        ("sum of 100 rows", SUM.to_owned()),
        ("sum of 100 rows, new text", SUM.to_owned()),
        ("COUNT(*) of 10^3 keys", "SELECT count(*) FROM t WHERE k >= 1001 AND k < 3001".to_owned()),
        (
            "COUNT(*) of half the table",
            format!("SELECT count(*) FROM t WHERE k >= 1001 AND k < {}", 1001 + rows),
        ),
        (
            "OFFSET of half the table",
            format!("SELECT k FROM t ORDER BY k LIMIT 1 OFFSET {}", rows / 2),
        ),
    ];
    runtime.block_on(async {
        let mut times = vec![Vec::new(); cases.len()];
        for _ in 0..ROUNDS {
            for (case, (name, sql)) in cases.iter().enumerate() {
                times[case].push(measure(&session, sql, name.ends_with("new text")).await);
            }
        }
        println!("{rows} rows; median of {ROUNDS} interleaved rounds of {STATEMENTS} statements");
        println!("{:<28} {:>12} {:>12}", "statement", "CPU", "wall");
        let mut cpus = Vec::new();
        for ((name, _), times) in cases.iter().zip(times) {
            let cpu = median(times.iter().map(|t| t.0).collect());
            let wall = median(times.iter().map(|t| t.1).collect());
            println!("{name:<28} {:>9.1} us {:>9.1} us", micros(cpu), micros(wall));
            cpus.push(micros(cpu));
        }
        println!(
            "fast path / DataFusion: point {:.3}, 100 rows {:.3}",
            cpus[0] / cpus[2],
            cpus[4] / cpus[5]
        );
        println!(
            "kept plan / new text: point {:.2}, sum {:.2}",
            cpus[2] / cpus[3],
            cpus[6] / cpus[7]
        );
        println!("COUNT(*) many / few: {:.2}", cpus[9] / cpus[8]);
        ranks(&session, rows).await;
    });
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
