//! Tests of the embedded engine through its public interface.

mod crash;
mod loads;
mod model;
mod ranks;
mod transactions;

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use omendb::engine::{Engine, Options};

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
