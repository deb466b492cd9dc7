//! OmenDB, embedded.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, Schema, SchemaRef};
use omendb::engine::{self, KeyRange, KeySpec, OnConflict, Options, ScanRequest, Table};

use super::{CACHE_BYTES, Row, Store, row, sum};

const BATCH_ROWS: usize = 64 * 1024;

pub struct Engine {
    dir: PathBuf,
    /// `None` while it is opened anew.
    open: Option<(engine::Engine, Table)>,
}

fn ok<T>(result: engine::Result<T>) -> T {
    result.unwrap_or_else(|e| panic!("OmenDB: {e}"))
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("key", DataType::Int64, false),
        Field::new("a", DataType::Int64, false),
        Field::new("b", DataType::Float64, false),
        Field::new("c", DataType::Float64, false),
    ]))
}

fn batch(keys: &[i64]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(keys.to_vec())),
        Arc::new(Int64Array::from_iter_values(keys.iter().map(|k| row(*k).0))),
        Arc::new(Float64Array::from_iter_values(keys.iter().map(|k| row(*k).1))),
        Arc::new(Float64Array::from_iter_values(keys.iter().map(|k| row(*k).2))),
    ];
    RecordBatch::try_new(schema(), columns).unwrap_or_else(|e| panic!("{e}"))
}

fn key(key: i64) -> ArrayRef {
    Arc::new(Int64Array::from(vec![key]))
}

/// Row `i` of a batch.
fn row_of(batch: &RecordBatch, i: usize) -> Row {
    (
        batch.column(1).as_primitive::<Int64Type>().value(i),
        batch.column(2).as_primitive::<Float64Type>().value(i),
        batch.column(3).as_primitive::<Float64Type>().value(i),
    )
}

impl Engine {
    fn open(dir: &Path) -> engine::Engine {
        ok(engine::Engine::open(dir, Options { cache_bytes: CACHE_BYTES, ..Options::default() }))
    }

    pub fn create(dir: &Path) -> Self {
        let engine = Self::open(dir);
        let table = ok(engine.create_table("t", &schema(), &KeySpec::primary(["key"])));
        Self { dir: dir.to_owned(), open: Some((engine, table)) }
    }

    fn table(&self) -> &Table {
        match &self.open {
            Some((_, table)) => table,
            None => unreachable!("it is open"),
        }
    }

    fn range(&self, from: i64, to: Option<i64>) -> KeyRange {
        use std::ops::Bound;
        let upper = to.map_or(Bound::Unbounded, |to| Bound::Excluded(key(to)));
        ok(ok(self.table().snapshot()).codec().range(&[], Bound::Included(key(from)), upper))
    }
}

impl Store for Engine {
    fn name(&self) -> &'static str {
        "OmenDB"
    }

    fn load(&mut self, keys: &[i64]) {
        let Some((engine, table)) = &self.open else { unreachable!("it is open") };
        let mut txn = ok(engine.begin());
        let mut write = ok(txn.write(table.id(), OnConflict::Error));
        for keys in keys.chunks(BATCH_ROWS) {
            ok(write.insert(&batch(keys)));
        }
        ok(txn.apply(write));
        ok(txn.commit());
    }

    fn commit(&mut self, keys: &[i64]) {
        ok(self.table().insert(&batch(keys)));
    }

    fn points(&self, keys: &[i64], rows: &mut [Option<Row>]) {
        for (k, out) in keys.iter().zip(rows) {
            *out = ok(self.table().get(&[key(*k)])).map(|batch| row_of(&batch, 0));
        }
    }

    fn many(&self, keys: &[i64], rows: &mut [Option<Row>]) {
        let wanted: ArrayRef = Arc::new(Int64Array::from(keys.to_vec()));
        let (batch, found) = ok(self.table().get_many(&[wanted]));
        let mut next = 0;
        for (out, found) in rows.iter_mut().zip(found) {
            *out = found.then(|| row_of(&batch, next));
            next += usize::from(found);
        }
    }

    fn scan(&self, from: i64, rows: usize) -> (usize, f64) {
        let mut request = ScanRequest::new(self.range(from, None));
        request.limit = Some(rows as u64);
        let (mut count, mut total) = (0, 0.0);
        for batch in ok(ok(self.table().snapshot()).scan(&request)) {
            let batch = ok(batch);
            let a = batch.column(1).as_primitive::<Int64Type>();
            let b = batch.column(2).as_primitive::<Float64Type>();
            let c = batch.column(3).as_primitive::<Float64Type>();
            let rows = a.values().iter().zip(b.values()).zip(c.values());
            total += rows.map(|((a, b), c)| sum((*a, *b, *c))).sum::<f64>();
            count += a.len();
        }
        (count, total)
    }

    fn count(&self, from: i64, to: i64) -> u64 {
        ok(self.table().count(&self.range(from, Some(to))))
    }

    fn reopen(&mut self) {
        if let Some((engine, _)) = self.open.take() {
            ok(engine.close());
        }
        let engine = Self::open(&self.dir);
        let table = ok(engine.table("t"));
        self.open = Some((engine, table));
    }
}
