//! fjall: a log-structured merge tree after the model of RocksDB.

use std::path::{Path, PathBuf};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable};

use super::{CACHE_BYTES, Row, Store, row, sum};

pub struct Fjall {
    dir: PathBuf,
    /// `None` while it is opened anew.
    open: Option<(Database, Keyspace)>,
}

fn ok<T>(result: fjall::Result<T>) -> T {
    result.unwrap_or_else(|e| panic!("fjall: {e}"))
}

/// Bytes that sort as the numbers do.
fn encode(key: i64) -> [u8; 8] {
    (key as u64 ^ 1 << 63).to_be_bytes()
}

fn encode_row((a, b, c): Row) -> [u8; 24] {
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(&a.to_le_bytes());
    bytes[8..16].copy_from_slice(&b.to_le_bytes());
    bytes[16..].copy_from_slice(&c.to_le_bytes());
    bytes
}

fn decode_row(bytes: &[u8]) -> Row {
    let eight = |at: usize| {
        bytes[at..].first_chunk::<8>().copied().unwrap_or_else(|| panic!("fjall: a short row"))
    };
    (i64::from_le_bytes(eight(0)), f64::from_le_bytes(eight(8)), f64::from_le_bytes(eight(16)))
}

impl Fjall {
    pub fn create(dir: &Path) -> Self {
        let mut store = Self { dir: dir.to_owned(), open: None };
        store.reopen();
        store
    }

    fn parts(&self) -> (&Database, &Keyspace) {
        match &self.open {
            Some((database, keyspace)) => (database, keyspace),
            None => unreachable!("it is open"),
        }
    }
}

impl Store for Fjall {
    fn name(&self) -> &'static str {
        "fjall"
    }

    fn load(&mut self, keys: &[i64]) {
        let (database, keyspace) = self.parts();
        let mut ingestion = ok(keyspace.start_ingestion());
        for key in keys {
            ok(ingestion.write(encode(*key), encode_row(row(*key))));
        }
        ok(ingestion.finish());
        ok(database.persist(PersistMode::SyncAll));
    }

    fn commit(&mut self, keys: &[i64]) {
        let (database, keyspace) = self.parts();
        let mut batch = database.batch().durability(Some(PersistMode::SyncAll));
        for key in keys {
            batch.insert(keyspace, encode(*key), encode_row(row(*key)));
        }
        ok(batch.commit());
    }

    fn points(&self, keys: &[i64], rows: &mut [Option<Row>]) {
        let (_, keyspace) = self.parts();
        for (key, out) in keys.iter().zip(rows) {
            *out = ok(keyspace.get(encode(*key))).map(|bytes| decode_row(&bytes));
        }
    }

    fn many(&self, keys: &[i64], rows: &mut [Option<Row>]) {
        let (database, keyspace) = self.parts();
        let snapshot = database.snapshot();
        for (key, out) in keys.iter().zip(rows) {
            *out = ok(snapshot.get(keyspace, encode(*key))).map(|bytes| decode_row(&bytes));
        }
    }

    fn scan(&self, from: i64, rows: usize) -> (usize, f64) {
        let (_, keyspace) = self.parts();
        let (mut count, mut total) = (0, 0.0);
        for found in keyspace.range(encode(from)..).take(rows) {
            total += sum(decode_row(&ok(found.value())));
            count += 1;
        }
        (count, total)
    }

    fn count(&self, from: i64, to: i64) -> u64 {
        let (_, keyspace) = self.parts();
        keyspace.range(encode(from)..encode(to)).count() as u64
    }

    fn reopen(&mut self) {
        self.open = None;
        let database = ok(Database::builder(&self.dir).cache_size(CACHE_BYTES as u64).open());
        let keyspace = ok(database.keyspace("t", KeyspaceCreateOptions::default));
        self.open = Some((database, keyspace));
    }
}
