//! A database in memory for tests, called without async.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::util::pretty::pretty_format_batches;
use futures::TryStreamExt;

use super::{
    Database, Ingest, IngestRequest, Outcome, Prepared, Result, Session, SqlOptions, Within,
};
use crate::engine::fs::fault::FaultFs;
use crate::engine::{Engine, Options, SystemClock};

/// A database in memory, and one session.
pub(crate) struct TestDatabase {
    pub(crate) runtime: tokio::runtime::Runtime,
    pub(crate) database: Database,
    pub(crate) session: Session,
    fs: Arc<FaultFs>,
}

impl TestDatabase {
    /// Options without background work, so that runs are alike.
    pub(crate) fn options() -> Options {
        Options { background: false, ..Options::default() }
    }

    pub(crate) fn new(options: Options) -> Self {
        Self::open(Arc::new(FaultFs::new()), options)
    }

    fn open(fs: Arc<FaultFs>, options: Options) -> Self {
        let vfs = Arc::clone(&fs) as _;
        let engine = Engine::open_with("/db", options, vfs, Arc::new(SystemClock)).unwrap();
        let database = Database::new(engine, SqlOptions::default()).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        Self { runtime, session: database.session(), database, fs }
    }

    /// Closes the database and opens what is on its disk.
    pub(crate) fn reopen(self) -> Self {
        self.database.engine().close().unwrap();
        let fs = Arc::clone(&self.fs);
        drop(self);
        Self::open(fs, Self::options())
    }

    pub(crate) fn prepare(&self, sql: &str) -> Result<Arc<Prepared>> {
        self.runtime.block_on(self.session.prepare(sql))
    }

    pub(crate) fn execute(&self, sql: &str) -> Result<Outcome> {
        self.run(sql, None)
    }

    pub(crate) fn execute_with(&self, sql: &str, parameters: &RecordBatch) -> Result<Outcome> {
        self.run(sql, Some(parameters))
    }

    /// Runs a statement, with the check that it returns what it said.
    fn run(&self, sql: &str, parameters: Option<&RecordBatch>) -> Result<Outcome> {
        let prepared = self.prepare(sql)?;
        let outcome = self.runtime.block_on(self.session.execute(&prepared, parameters))?;
        if let Some((schema, batches)) = &outcome.returned {
            assert_eq!(*schema, prepared.schema());
            for batch in batches {
                assert_eq!(*schema, batch.schema());
            }
        }
        Ok(outcome)
    }

    pub(crate) fn query(&self, sql: &str) -> Result<Vec<RecordBatch>> {
        let prepared = self.prepare(sql)?;
        self.runtime.block_on(async {
            self.session.query(&prepared, None).await?.stream.try_collect().await
        })
    }

    /// The rows of a query, one a line, columns separated by a space.
    pub(crate) fn rows(&self, sql: &str) -> Vec<String> {
        lines(&self.query(sql).unwrap())
    }

    pub(crate) fn ingest(&self, request: IngestRequest) -> Result<Ingest> {
        self.runtime.block_on(self.session.ingest(Within::Session, request))
    }
}

/// Rows as text: columns separated by a space.
pub(crate) fn lines(batches: &[RecordBatch]) -> Vec<String> {
    let table = pretty_format_batches(batches).unwrap().to_string();
    table
        .lines()
        .filter(|line| line.starts_with('|'))
        .skip(1)
        .map(|line| {
            let cells = line.trim_matches('|').split('|').map(str::trim);
            cells.collect::<Vec<_>>().join(" ").trim_end().to_owned()
        })
        .collect()
}
