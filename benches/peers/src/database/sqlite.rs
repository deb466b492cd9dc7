//! SQLite: a table by integer primary key, which is its B-tree's own key, prepared statements, a write-ahead
//! log that is synced at each commit.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, Result, params};

use super::{CACHE_BYTES, Row, Store, row, sum};

pub struct Sqlite {
    file: PathBuf,
    connection: Connection,
}

fn ok<T>(result: Result<T>) -> T {
    result.unwrap_or_else(|e| panic!("SQLite: {e}"))
}

const POINT: &str = "SELECT a, b, c FROM t WHERE key = ?1";

impl Sqlite {
    fn open(file: &Path) -> Connection {
        let connection = ok(Connection::open(file));
        ok(connection.execute_batch(&format!(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = -{}; \
             PRAGMA temp_store = MEMORY;",
            CACHE_BYTES >> 10
        )));
        connection
    }

    pub fn create(dir: &Path) -> Self {
        let file = dir.join("t.sqlite");
        let connection = Self::open(&file);
        ok(connection.execute_batch(
            "CREATE TABLE t (key INTEGER PRIMARY KEY, a INTEGER NOT NULL, b REAL NOT NULL, c REAL NOT NULL)",
        ));
        Self { file, connection }
    }

    fn insert(&mut self, keys: &[i64]) {
        let transaction = ok(self.connection.transaction());
        {
            let mut insert =
                ok(transaction.prepare_cached("INSERT INTO t VALUES (?1, ?2, ?3, ?4)"));
            for key in keys {
                let (a, b, c) = row(*key);
                ok(insert.execute(params![key, a, b, c]));
            }
        }
        ok(transaction.commit());
    }

    fn read(&self, keys: &[i64], rows: &mut [Option<Row>]) {
        let mut point = ok(self.connection.prepare_cached(POINT));
        for (key, out) in keys.iter().zip(rows) {
            let read = point.query_row([key], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)));
            *out = ok(read.optional());
        }
    }
}

impl Store for Sqlite {
    fn name(&self) -> &'static str {
        "SQLite"
    }

    fn load(&mut self, keys: &[i64]) {
        self.insert(keys);
    }

    fn commit(&mut self, keys: &[i64]) {
        self.insert(keys);
    }

    fn points(&self, keys: &[i64], rows: &mut [Option<Row>]) {
        self.read(keys, rows);
    }

    fn many(&self, keys: &[i64], rows: &mut [Option<Row>]) {
        let transaction = ok(self.connection.unchecked_transaction());
        self.read(keys, rows);
        ok(transaction.commit());
    }

    fn scan(&self, from: i64, rows: usize) -> (usize, f64) {
        let sql = "SELECT a, b, c FROM t WHERE key >= ?1 ORDER BY key LIMIT ?2";
        let mut scan = ok(self.connection.prepare_cached(sql));
        let (mut count, mut total) = (0, 0.0);
        let mut found = ok(scan.query([from, rows as i64]));
        while let Some(r) = ok(found.next()) {
            total += sum((ok(r.get(0)), ok(r.get(1)), ok(r.get(2))));
            count += 1;
        }
        (count, total)
    }

    fn count(&self, from: i64, to: i64) -> u64 {
        let sql = "SELECT COUNT(*) FROM t WHERE key >= ?1 AND key < ?2";
        let mut count = ok(self.connection.prepare_cached(sql));
        ok(count.query_row([from, to], |r| r.get::<_, i64>(0))) as u64
    }

    fn reopen(&mut self) {
        ok(self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())));
        // The last connection that closes takes what it cached with it.
        self.connection = Self::open(&self.file);
    }
}
