//! Tests of the embedded engine through its public interface.

mod contention;
mod crash;
mod filters;
mod loads;
mod model;
mod ranks;
mod transactions;
mod upkeep;

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use omendb::engine::{Engine, KeyRange, KeySpec, Options, ScanRequest};

/// `key BIGINT, value BIGINT, text TEXT`.
pub fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("key", DataType::Int64, false),
        Field::new("value", DataType::Int64, true),
        Field::new("text", DataType::Utf8, true),
    ]))
}

/// Rows of [`schema`]: the text follows from the value.
pub fn rows(rows: &[(i64, i64)]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.0))),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.1))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|r| format!("t{}", r.1)))),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

/// What [`rows`] was made of; checks that the texts fit.
pub fn pairs(batch: &RecordBatch) -> Vec<(i64, i64)> {
    let keys = batch.column(0).as_any().downcast_ref::<Int64Array>().unwrap();
    let values = batch.column(1).as_any().downcast_ref::<Int64Array>().unwrap();
    let texts = batch.column(2).as_any().downcast_ref::<StringArray>().unwrap();
    (0..batch.num_rows())
        .map(|i| {
            assert_eq!(texts.value(i), format!("t{}", values.value(i)));
            (keys.value(i), values.value(i))
        })
        .collect()
}

/// An array of keys.
pub fn keys(keys: &[i64]) -> Vec<ArrayRef> {
    vec![Arc::new(Int64Array::from(keys.to_vec()))]
}

/// Options that make small data go through everything.
pub fn small() -> Options {
    Options {
        memtable_bytes: 4 << 10,
        load_buffer_bytes: 8 << 10,
        bulk_rows: 64,
        segment_rows: 100,
        row_group_rows: 32,
        batch_rows: 17,
        wal_bytes: 1 << 20,
        background: false,
        ..Options::default()
    }
}

/// An engine on a directory that lives as long as the guard.
pub fn open(options: Options) -> (tempfile::TempDir, Engine) {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(dir.path(), options).unwrap();
    (dir, engine)
}

/// A few rows that are not in memory cost their blocks or pages; what is asked for time and again is kept.
#[test]
fn a_row_of_a_cold_table_brings_no_row_group_into_memory() {
    const ROWS: i64 = 200_000;
    let options = Options { background: false, ..Options::default() };
    let (dir, engine) = open(options.clone());
    let table = engine.create_table("t", &schema(), &KeySpec::primary(["key"])).unwrap();
    let all: Vec<(i64, i64)> = (0..ROWS).map(|k| (k, k * 3)).collect();
    table.insert(&rows(&all)).unwrap();
    engine.flush(None).unwrap();
    engine.close().unwrap();
    drop((table, engine));
    let engine = Engine::open(dir.path(), options).unwrap();
    let snapshot = engine.table("t").unwrap().snapshot().unwrap();
    let read = |key: i64| {
        let key = snapshot.codec().encode(&keys(&[key])).unwrap().get(0);
        let scan = snapshot.scan(&ScanRequest::new(KeyRange::point(key))).unwrap();
        scan.flat_map(|batch| pairs(&batch.unwrap())).collect::<Vec<_>>()
    };
    for key in [150_000, 17, 150_001] {
        assert_eq!(read(key), [(key, key * 3)]);
        let used = engine.cache_stats().used_bytes;
        assert!(used < 200_000, "{used} bytes are in memory after the row with key {key}");
    }
    for key in 150_002..150_020 {
        assert_eq!(read(key), [(key, key * 3)]);
    }
    assert!(engine.cache_stats().used_bytes > 500_000, "a row group that is read often is kept");
}
