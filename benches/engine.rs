//! The engine alone: loads, scans, counts and point reads of 10 M rows of 32 bytes, beside `BTreeMap`.
//!
//! `cargo bench --no-default-features --bench engine [-- ROWS]`, or `-- filters` for `filters.rs` alone.

mod filters;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use omendb::engine::{
    EncodedKey, Engine, KeyRange, KeySpec, OnConflict, Options, Result, ScanRequest, Table,
};

const BATCH_ROWS: usize = 64 * 1024;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("key", DataType::Int64, false),
        Field::new("a", DataType::Int64, true),
        Field::new("b", DataType::Float64, true),
        Field::new("c", DataType::Float64, true),
    ]))
}

fn batch(keys: &[i64]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(keys.to_vec())),
        Arc::new(Int64Array::from_iter_values(keys.iter().map(|k| k.wrapping_mul(7)))),
        Arc::new(Float64Array::from_iter_values(keys.iter().map(|k| *k as f64 * 0.5))),
        Arc::new(Float64Array::from_iter_values(keys.iter().map(|k| (*k as f64).sqrt()))),
    ];
    RecordBatch::try_new(schema(), columns).unwrap_or_else(|e| panic!("{e}"))
}

/// A cheap generator: the bench needs no more.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

fn per(time: Duration, count: usize) -> f64 {
    time.as_nanos() as f64 / count as f64
}

fn load(engine: &Engine, name: &str, keys: &[i64]) -> Result<Table> {
    let table = engine.create_table(name, &schema(), &KeySpec::primary(["key"]))?;
    let batches: Vec<RecordBatch> = keys.chunks(BATCH_ROWS).map(batch).collect();
    let start = Instant::now();
    let mut txn = engine.begin()?;
    let mut write = txn.write(table.id(), OnConflict::Error)?;
    for batch in &batches {
        write.insert(batch)?;
    }
    let done = txn.apply(write)?;
    txn.commit()?;
    let time = start.elapsed();
    println!(
        "load {name:9} {:6.1} ns/row  {:6.1} M rows/s  {} segments, training {:.1} ns/row",
        per(time, keys.len()),
        1e3 / per(time, keys.len()),
        done.segment_count,
        per(done.train_time, keys.len()),
    );
    Ok(table)
}

fn scan(label: &str, table: &Table, rows: usize) -> Result<()> {
    let start = Instant::now();
    let mut seen = 0;
    for batch in table.scan()? {
        seen += black_box(batch?).num_rows();
    }
    assert_eq!(seen, rows);
    let time = start.elapsed();
    let bytes = rows as f64 * 32.0;
    println!(
        "scan {label:12} {:6.2} ns/row  {:5.2} GB/s",
        per(time, rows),
        bytes / time.as_secs_f64() / 1e9
    );
    Ok(())
}

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1).filter(|a| a != "--bench").peekable();
    if args.next_if(|a| a == "filters").is_some() {
        return filters::run(args.filter_map(|a| a.parse().ok()));
    }
    let rows: usize = args.next().and_then(|a| a.parse().ok()).unwrap_or(10_000_000);
    let dir = tempfile::tempdir()?;
    let options = Options { cache_bytes: 1 << 30, ..Options::default() };
    let engine = Engine::open(dir.path(), options.clone())?;
    let keys: Vec<i64> = (0..rows as i64).map(|k| k * 10).collect();
    load(&engine, "sorted", &keys)?;
    engine.close()?;
    drop(engine);
    let engine = Engine::open(dir.path(), options.clone())?;
    let sorted = engine.table("sorted")?;
    cold_points("cold", &sorted, &keys)?;
    drop(sorted);
    engine.close()?;
    drop(engine);
    let label = if forget_files(dir.path())? { "on disk" } else { "cold again" };
    let engine = Engine::open(dir.path(), options.clone())?;
    let sorted = engine.table("sorted")?;
    cold_points(label, &sorted, &keys)?;
    drop(sorted);
    engine.close()?;
    drop(engine);
    // Nothing is in the engine's cache, all of it in the system's.
    read_files(dir.path())?;
    let engine = Engine::open(dir.path(), options)?;
    let sorted = engine.table("sorted")?;
    scan("cold", &sorted, rows)?;
    scan("hot", &sorted, rows)?;
    scan("hot again", &sorted, rows)?;
    points(&engine, &sorted, &keys)?;
    counts(&sorted, rows)?;

    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let gone: Vec<i64> = (0..rows / 100).map(|_| keys[random.next() as usize % rows]).collect();
    let array: ArrayRef = Arc::new(Int64Array::from(gone));
    let start = Instant::now();
    let deleted = sorted.delete(&[array])? as usize;
    println!("delete 1 %       {:6.0} ns/row", per(start.elapsed(), deleted));
    scan("1 % deleted", &sorted, rows - deleted)?;
    counts(&sorted, rows)?;

    let mut shuffled = keys;
    for i in (1..rows).rev() {
        shuffled.swap(i, random.next() as usize % (i + 1));
    }
    engine.drop_table("sorted")?;
    let unsorted = load(&engine, "unsorted", &shuffled)?;
    scan("overlapping", &unsorted, rows)?;
    let start = Instant::now();
    let segments = engine.compact(unsorted.id())?;
    println!("compact {segments} segments: {:.1} ns/row", per(start.elapsed(), rows));
    scan("compacted", &unsorted, rows)?;
    Ok(())
}

/// Asks the system to forget what it has in memory of the files in a folder; says whether it can be asked.
#[cfg(target_os = "linux")]
fn forget_files(dir: &std::path::Path) -> Result<bool> {
    use std::os::fd::AsRawFd;

    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            forget_files(&path)?;
            continue;
        }
        let file = std::fs::File::open(&path)?;
        file.sync_all()?;
        // SAFETY: it takes no pointer, and the descriptor is open as long as `file` is.
        let failed =
            unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        assert_eq!(failed, 0, "posix_fadvise");
    }
    Ok(true)
}

#[cfg(not(target_os = "linux"))]
fn forget_files(_dir: &std::path::Path) -> Result<bool> {
    Ok(false)
}

fn read_files(dir: &std::path::Path) -> Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            read_files(&path)?;
        } else {
            black_box(std::fs::read(&path)?);
        }
    }
    Ok(())
}

/// Point reads of whole rows by a table that has nothing in its cache.
fn cold_points(label: &str, table: &Table, keys: &[i64]) -> Result<()> {
    let mut random = Random(7);
    let mut times = Vec::new();
    for _ in 0..300 {
        let key = keys[random.next() as usize % keys.len()];
        let key: ArrayRef = Arc::new(Int64Array::from(vec![key]));
        let start = Instant::now();
        let row = table.get(&[key])?;
        times.push(start.elapsed());
        assert_eq!(row.map(|b| b.num_rows()), Some(1));
    }
    times.sort_unstable();
    println!(
        "get one row, {label}: median {:.0} us, mean {:.0} us, first 300",
        per(times[150], 1) / 1e3,
        per(times.iter().sum(), 300) / 1e3
    );
    Ok(())
}

fn points(engine: &Engine, table: &Table, keys: &[i64]) -> Result<()> {
    let start = Instant::now();
    let tree: BTreeMap<i64, u32> = keys.iter().copied().zip(0..).collect();
    println!("BTreeMap build   {:6.1} ns/row", per(start.elapsed(), keys.len()));
    let mut random = Random(42);
    let wanted: Vec<i64> =
        (0..200_000).map(|_| keys[random.next() as usize % keys.len()]).collect();
    let start = Instant::now();
    let mut sum = 0;
    for key in &wanted {
        sum += u64::from(tree[key]);
    }
    let btree = per(start.elapsed(), wanted.len());
    black_box(sum);
    let snapshot = table.snapshot()?;
    let encoded =
        snapshot.codec().encode(&[Arc::new(Int64Array::from(wanted.clone())) as ArrayRef])?;
    let singles: Vec<EncodedKey> = (0..encoded.len()).map(|i| encoded.get(i)).collect();
    let start = Instant::now();
    let mut found = 0;
    for key in &singles {
        found += usize::from(snapshot.locate_one(key)?.is_some());
    }
    let single = per(start.elapsed(), wanted.len());
    assert_eq!(found, wanted.len());
    let ranges: Vec<KeyRange> = singles.into_iter().map(KeyRange::point).collect();
    let start = Instant::now();
    let mut found = 0;
    for range in &ranges {
        found += snapshot.count(range)?;
    }
    let counted = per(start.elapsed(), wanted.len());
    assert_eq!(found as usize, wanted.len());
    let start = Instant::now();
    let located = snapshot.locate(&encoded)?;
    let batched = per(start.elapsed(), wanted.len());
    assert!(located.iter().all(Option::is_some));
    println!(
        "lookup           BTreeMap {btree:.0} ns, one by one {single:.0} ns ({:.1}x), as counts {counted:.0} ns, batch {batched:.0} ns ({:.1}x)",
        btree / single,
        btree / batched
    );
    let start = Instant::now();
    let few = 20_000;
    for key in &wanted[..few] {
        let key: ArrayRef = Arc::new(Int64Array::from(vec![*key]));
        black_box(table.get(&[key])?);
    }
    println!("get one row      {:6.0} ns", per(start.elapsed(), few));
    let start = Instant::now();
    for key in &wanted {
        let key: ArrayRef = Arc::new(Int64Array::from(vec![*key + 3]));
        assert!(table.get(&[key])?.is_none());
    }
    println!("get of no row    {:6.0} ns", per(start.elapsed(), wanted.len()));
    let _ = engine;
    Ok(())
}

fn counts(table: &Table, rows: usize) -> Result<()> {
    let snapshot = table.snapshot()?;
    for span in [1_000_i64, rows as i64 * 10] {
        let bound = |k: i64| -> ArrayRef { Arc::new(Int64Array::from(vec![k])) };
        let range = snapshot.codec().range(
            &[],
            std::ops::Bound::Included(bound(5)),
            std::ops::Bound::Excluded(bound(span - 5)),
        )?;
        let start = Instant::now();
        for _ in 0..10_000 {
            black_box(snapshot.count(black_box(&range))?);
        }
        println!("count {:>9} keys {:6.0} ns", span / 10, per(start.elapsed(), 10_000));
    }
    let start = Instant::now();
    let mut request = ScanRequest::new(KeyRange::all());
    request.offset = rows as u64 / 2;
    request.limit = Some(10);
    for _ in 0..1_000 {
        black_box(snapshot.scan(&request)?.next().transpose()?);
    }
    println!("offset {} limit 10: {:.0} ns", rows / 2, per(start.elapsed(), 1_000));
    Ok(())
}
