//! The engine inside a Rust program, without SQL and without a server:
//!
//! ```text
//! cargo run --example embedded --no-default-features
//! ```

use std::ops::Bound;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use omendb::engine::{
    Engine, Error, ErrorKind, KeyRange, KeySpec, OnConflict, Options, ScanRequest, TableName,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let engine = Engine::open(dir.path(), Options::default())?;

    // A table is an Arrow schema and a key.
    let schema = Arc::new(Schema::new(vec![
        Field::new("ts", DataType::Int64, false),
        Field::new("value", DataType::Float64, true),
    ]));
    let name = TableName::from("readings");
    let table = engine.write(|tx| tx.create_table(&name, &schema, &KeySpec::primary(["ts"])))?;

    // A batch goes in as one transaction: durable, visible and indexed when this returns.
    let ts: Vec<i64> = (0..1_000_000).map(|i| i * 10).collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(ts.clone())),
        Arc::new(Float64Array::from_iter_values(ts.iter().map(|t| *t as f64 / 2.0))),
    ];
    let batch = RecordBatch::try_new(schema, columns)?;
    let loaded = engine.write(|tx| tx.insert(table, &batch, OnConflict::Error))?;
    println!("loaded {} rows, trained in {:?}", loaded.inserted_count, loaded.train_time);

    // A snapshot never changes, whatever is written after it.
    let snapshot = engine.snapshot();
    let readings = snapshot.table(&name).ok_or("the table is gone")?;

    // A count over a range comes from the index: no row is read.
    let range = keys_between(&readings, 1_000, 2_000)?;
    println!("{} keys in 1000..2000", readings.count(&range)?);

    // A scan is an iterator of batches in key order.
    let mut sum = 0.0;
    for batch in readings.scan(&ScanRequest::new(range))? {
        let batch = batch?;
        let values =
            batch.column(1).as_any().downcast_ref::<Float64Array>().ok_or("not a float")?;
        sum += values.iter().flatten().sum::<f64>();
    }
    println!("their values sum to {sum}");

    // The same keys again are refused as a whole; `Replace` and `Ignore` are the other policies.
    let again: Result<_, Error> = engine.write(|tx| tx.insert(table, &batch, OnConflict::Error));
    match again {
        Err(e) if e.kind() == ErrorKind::DuplicateKey => println!("refused: {e}"),
        other => return Err(format!("expected a duplicate key, got {other:?}").into()),
    }
    engine.close()?;
    Ok(())
}

/// The keys from `from` up to, but not including, `to`.
fn keys_between(
    table: &omendb::engine::TableSnapshot,
    from: i64,
    to: i64,
) -> omendb::engine::Result<KeyRange> {
    let bound = |key: i64| Arc::new(Int64Array::from(vec![key])) as ArrayRef;
    table.codec().range(&[], Bound::Included(bound(from)), Bound::Excluded(bound(to)))
}
