//! redb: a copy-on-write B-tree.

use std::path::{Path, PathBuf};

use redb::{Database, ReadableDatabase, TableDefinition};

use super::{CACHE_BYTES, Row, Store, row, sum};

const TABLE: TableDefinition<i64, Row> = TableDefinition::new("t");

pub struct Redb {
    file: PathBuf,
    /// `None` while it is opened anew.
    open: Option<Database>,
}

fn ok<T, E: std::fmt::Display>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|e| panic!("redb: {e}"))
}

impl Redb {
    pub fn create(dir: &Path) -> Self {
        let mut store = Self { file: dir.join("t.redb"), open: None };
        store.reopen();
        store
    }

    fn database(&self) -> &Database {
        self.open.as_ref().unwrap_or_else(|| unreachable!("it is open"))
    }

    fn insert(&self, keys: &[i64]) {
        // Its commits are synced unless asked otherwise.
        let transaction = ok(self.database().begin_write());
        {
            let mut table = ok(transaction.open_table(TABLE));
            for key in keys {
                ok(table.insert(*key, row(*key)));
            }
        }
        ok(transaction.commit());
    }

    fn table(&self) -> redb::ReadOnlyTable<i64, Row> {
        ok(ok(self.database().begin_read()).open_table(TABLE))
    }
}

impl Store for Redb {
    fn name(&self) -> &'static str {
        "redb"
    }

    fn load(&mut self, keys: &[i64]) {
        self.insert(keys);
    }

    fn commit(&mut self, keys: &[i64]) {
        self.insert(keys);
    }

    fn points(&self, keys: &[i64], rows: &mut [Option<Row>]) {
        for (key, out) in keys.iter().zip(rows) {
            *out = ok(self.table().get(*key)).map(|row| row.value());
        }
    }

    fn many(&self, keys: &[i64], rows: &mut [Option<Row>]) {
        let table = self.table();
        for (key, out) in keys.iter().zip(rows) {
            *out = ok(table.get(*key)).map(|row| row.value());
        }
    }

    fn scan(&self, from: i64, rows: usize) -> (usize, f64) {
        let (mut count, mut total) = (0, 0.0);
        for found in ok(self.table().range(from..)).take(rows) {
            total += sum(ok(found).1.value());
            count += 1;
        }
        (count, total)
    }

    fn count(&self, from: i64, to: i64) -> u64 {
        ok(self.table().range(from..to)).count() as u64
    }

    fn reopen(&mut self) {
        self.open = None;
        self.open = Some(ok(Database::builder().set_cache_size(CACHE_BYTES).create(&self.file)));
    }
}
