//! Random keys in segments that overlap: what a key costs that is in none of them, or in one.
//!
//! `cargo bench --no-default-features --bench engine -- filters [ROWS [KEY_BITS]]`; with 0 bits the keys are text.

use std::collections::HashSet;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use omendb::engine::{
    EncodedKey, Engine, KeyColumn, KeySpec, OnConflict, Options, Result, Table, TableSnapshot,
};

use super::{BATCH_ROWS, Int64Array, Random, per};

const SEGMENTS: usize = 5;
/// Keys that are looked up together.
const TOGETHER: usize = 1_000;
const ROUNDS: usize = 7;

fn options(cache_bytes: usize) -> Options {
    // Compaction would end the overlap.
    Options { cache_bytes, background: false, ..Options::default() }
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_unstable_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Whether keys are text.
static TEXT: AtomicBool = AtomicBool::new(false);

/// The keys, or their 32 digits in the manner of an UUID.
fn array(keys: &[i64]) -> ArrayRef {
    if TEXT.load(Relaxed) {
        let digits = keys.iter().map(|k| format!("{k:016x}{:016x}", k.wrapping_mul(0x9e37_79b9)));
        return Arc::new(StringArray::from_iter_values(digits));
    }
    Arc::new(Int64Array::from(keys.to_vec()))
}

fn encode(snapshot: &TableSnapshot, keys: &[i64]) -> Result<KeyColumn> {
    snapshot.codec().encode(&[array(keys)])
}

fn schema() -> SchemaRef {
    let key = if TEXT.load(Relaxed) { DataType::Utf8 } else { DataType::Int64 };
    let number = |name| Field::new(name, DataType::Int64, true);
    let fields = vec![Field::new("key", key, false), number("a"), number("b"), number("c")];
    Arc::new(Schema::new(fields))
}

fn batch(keys: &[i64]) -> RecordBatch {
    let column = |by: i64| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(keys.iter().map(|k| k.wrapping_mul(by))))
    };
    RecordBatch::try_new(schema(), vec![array(keys), column(3), column(5), column(7)])
        .unwrap_or_else(|e| panic!("{e}"))
}

/// Loads of as many rows each, in commits of their own.
fn load(dir: &Path, cache_bytes: usize, keys: &[i64]) -> Result<()> {
    let engine = Engine::open(dir, options(cache_bytes))?;
    let table = engine.create_table("random", &schema(), &KeySpec::primary(["key"]))?;
    let mut times = Vec::new();
    let mut train = 0.0;
    for part in keys.chunks(keys.len() / SEGMENTS) {
        let batches: Vec<_> = part.chunks(BATCH_ROWS).map(batch).collect();
        let start = Instant::now();
        let mut txn = engine.begin()?;
        let mut write = txn.write(table.id(), OnConflict::Error)?;
        for batch in &batches {
            write.insert(batch)?;
        }
        train = per(txn.apply(write)?.train_time, part.len());
        txn.commit()?;
        times.push(per(start.elapsed(), part.len()));
    }
    print!("load of {} rows a commit, ns/row:", keys.len() / SEGMENTS);
    times.iter().for_each(|time| print!(" {time:.0}"));
    println!("; training {train:.1}");
    let snapshot = table.snapshot()?;
    let segments = snapshot.segments();
    let bytes: u64 = segments.iter().map(|s| s.meta.index_bytes).sum();
    println!(
        "{} segments, index {:.2} bytes a key on disk",
        segments.len(),
        bytes as f64 / keys.len() as f64
    );
    engine.close()
}

/// Lookups of keys, of which as many are in the table as `present` says.
fn lookups(engine: &Engine, table: &Table, what: &str, keys: &[i64], present: bool) -> Result<()> {
    let snapshot = table.snapshot()?;
    let (mut batched, mut single) = (Vec::new(), Vec::new());
    let misses = || engine.cache_stats().miss_count;
    let before = misses();
    for part in keys.chunks(TOGETHER) {
        let encoded = encode(&snapshot, part)?;
        let start = Instant::now();
        let found = snapshot.locate(&encoded)?;
        batched.push(per(start.elapsed(), part.len()));
        assert!(found.iter().all(|row| row.is_some() == present));
    }
    let batch_reads = (misses() - before) as f64 / batched.len() as f64;
    let before = misses();
    for part in keys.chunks(TOGETHER) {
        let encoded = encode(&snapshot, part)?;
        let wanted: Vec<EncodedKey> = (0..encoded.len()).map(|i| encoded.get(i)).collect();
        let start = Instant::now();
        for key in &wanted {
            assert_eq!(black_box(snapshot.locate_one(key)?).is_some(), present);
        }
        single.push(per(start.elapsed(), part.len()));
    }
    let single_reads = (misses() - before) as f64 / single.len() as f64;
    let kind = if present { "present" } else { "absent" };
    println!(
        "{what:28} {kind:8} {TOGETHER} at once {:8.0} ns/key, {batch_reads:7.1} reads; one by one {:8.0} ns/key, {single_reads:7.1} reads a {TOGETHER}",
        median(batched),
        median(single),
    );
    Ok(())
}

/// Rows with new keys, checked and not committed.
fn checks(engine: &Engine, table: &Table, what: &str, keys: &[i64]) -> Result<()> {
    let before = engine.cache_stats().miss_count;
    let mut times = Vec::new();
    for part in keys.chunks(TOGETHER) {
        let rows = batch(part);
        let start = Instant::now();
        let mut txn = engine.begin()?;
        let mut write = txn.write(table.id(), OnConflict::Error)?;
        write.insert(&rows)?;
        txn.apply(write)?;
        times.push(per(start.elapsed(), part.len()));
    }
    let reads = (engine.cache_stats().miss_count - before) as f64 / times.len() as f64;
    let time = median(times);
    println!("{what:28} insert   {TOGETHER} rows checked {time:5.0} ns/row, {reads:7.1} reads");
    Ok(())
}

/// The first lookups after a restart, each of one key.
fn first_lookups(dir: &Path, keys: &[i64], present: bool) -> Result<()> {
    let engine = Engine::open(dir, options(1 << 30))?;
    let snapshot = engine.table("random")?.snapshot()?;
    let encoded = encode(&snapshot, keys)?;
    let mut times = Vec::new();
    for i in 0..300 {
        let key = encoded.get(i);
        let start = Instant::now();
        assert_eq!(snapshot.locate_one(&key)?.is_some(), present);
        times.push(per(start.elapsed(), 1000));
    }
    let mean = times.iter().sum::<f64>() / 300.0;
    let stats = engine.cache_stats();
    println!(
        "first 300 of an empty cache, present {present}: median {:.1} us, mean {mean:.1} us, {} reads, {:.1} MiB in memory after",
        median(times),
        stats.miss_count,
        stats.used_bytes as f64 / f64::from(1 << 20),
    );
    engine.close()
}

pub(super) fn run(mut args: impl Iterator<Item = usize>) -> Result<()> {
    let rows = args.next().unwrap_or(5_000_000);
    let bits = args.next().unwrap_or(63) as u32;
    TEXT.store(bits == 0, Relaxed);
    let bits = if bits == 0 { 63 } else { bits };
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut seen = HashSet::with_capacity(rows);
    let mut next = || loop {
        let key = (random.next() >> (64 - bits)) as i64;
        if seen.insert(key) {
            return key;
        }
    };
    let keys: Vec<i64> = (0..rows).map(|_| next()).collect();
    let absent: Vec<i64> = (0..ROUNDS * 4 * TOGETHER).map(|_| next()).collect();
    let present: Vec<i64> = keys.iter().step_by(rows / absent.len()).copied().collect();
    let present = &present[..absent.len()];
    let small = rows * 5 / 2;
    let kind = if TEXT.load(Relaxed) { "text keys" } else { "keys" };
    println!("{rows} random {kind} of {bits} bits; the small cache has {small} bytes");
    for (what, cache_bytes) in [("hot", 1 << 30), ("small cache", small)] {
        let dir = tempfile::tempdir()?;
        print!("{what}: ");
        load(dir.path(), cache_bytes, &keys)?;
        if what == "hot" {
            first_lookups(dir.path(), &absent, false)?;
            first_lookups(dir.path(), present, true)?;
        }
        let engine = Engine::open(dir.path(), options(cache_bytes))?;
        let table = engine.table("random")?;
        // What can be in memory is.
        for part in keys.chunks(rows / SEGMENTS).map(|p| &p[..p.len() / 8]) {
            let snapshot = table.snapshot()?;
            black_box(snapshot.locate(&encode(&snapshot, part)?)?);
        }
        lookups(&engine, &table, what, &absent, false)?;
        lookups(&engine, &table, what, present, true)?;
        checks(&engine, &table, what, &absent)?;
        println!("{what}: {:.2} MiB in memory", engine.cache_stats().used_bytes as f64 / 1048576.0);
        engine.close()?;
    }
    Ok(())
}
