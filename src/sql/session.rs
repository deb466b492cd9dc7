//! Sessions: what one client has set, its transactions, and the statements that it runs.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use parking_lot::Mutex;

use super::context::{Description, StatementContext};
use super::database::Database;
use super::error::{Error, ErrorKind, Result};
use super::key_range::KeyStatement;
use super::parse::{self, Statement};
use super::prepared::Prepared;
use super::settings::Settings;
use super::transaction::{
    Control, Open, Reading, SavepointId, TransactionId, Transactions, Within,
};
use super::workers::{Caller, caught};
use super::{Ingest, IngestRequest, Outcome, Rows, StatementKind, ddl, dml, query};
use crate::engine::{ErrorKind as EngineKind, Snapshot, Transaction};

/// What one client has set, and its open transactions. Calls may come from several tasks at once.
#[derive(Debug)]
pub struct Session {
    database: Database,
    settings: Mutex<Settings>,
    transactions: Transactions,
}

/// What a query in a transaction reads: its snapshot and its own writes, as they were when it was pinned. It outlives
/// the transaction.
#[derive(Debug, Clone)]
pub struct Pinned {
    snapshot: Snapshot,
    open: Arc<Open>,
}

impl Pinned {
    /// What the query reads.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Keeps the transaction from being idle while the answer lives.
    pub fn reading(&self) -> Reading {
        self.open.reading()
    }
}

impl Session {
    pub(super) fn new(database: Database) -> Self {
        Self { database, settings: Mutex::default(), transactions: Transactions::default() }
    }

    /// The database.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// The settings of this moment, for one statement.
    pub(crate) fn context(&self) -> StatementContext {
        StatementContext { database: self.database.clone(), settings: self.settings.lock().clone() }
    }

    /// What statements of the session see at this moment, own writes of its transaction included. Pins nothing.
    pub fn view(&self, within: Within) -> Snapshot {
        match self.transactions.resolve(within) {
            Ok(Some(open)) => open.view(self.database.engine()),
            _ => self.database.engine().snapshot(),
        }
    }

    /// Parses and checks one statement. More than one is an error that says so.
    pub async fn prepare(&self, sql: &str) -> Result<Arc<Prepared>> {
        self.prepare_within(Within::Session, sql).await
    }

    /// [`Session::prepare`] against what a transaction sees. Pins nothing.
    pub async fn prepare_within(&self, within: Within, sql: &str) -> Result<Arc<Prepared>> {
        let open = self.transactions.resolve(within)?;
        let snapshot = match &open {
            Some(open) => open.view(self.database.engine()),
            None => self.database.engine().snapshot(),
        };
        self.prepare_on(snapshot, open, sql).await
    }

    /// [`Session::prepare`] against another snapshot.
    pub async fn prepare_at(&self, snapshot: &Snapshot, sql: &str) -> Result<Arc<Prepared>> {
        self.prepare_on(snapshot.clone(), None, sql).await
    }

    async fn prepare_on(
        &self,
        snapshot: Snapshot,
        open: Option<Arc<Open>>,
        sql: &str,
    ) -> Result<Arc<Prepared>> {
        let context = self.context();
        if let Some(prepared) = self.database.recognised(&context.settings, &snapshot, sql) {
            // A transaction that has failed says so before anything is run in it.
            return open.map_or(Ok(()), |open| open.check()).map(|()| prepared);
        }
        // Nothing in a short flat text recurses: that is parsed here, as point reads with their key in the text are. What
        // is wrong with it, or planned, is left to the other threads.
        let flat = || {
            let statement = parse::parse_one(sql, self.database.options())?;
            Ok(recognise(&context, &snapshot, sql, &statement))
        };
        if parse::is_flat(sql)
            && let Ok(Some(prepared)) = caught(flat)
        {
            return open.map_or(Ok(()), |open| open.check()).map(|()| prepared);
        }
        let sql = sql.to_owned();
        let work = move || {
            let statement = parse::parse_one(&sql, context.database.options())?;
            if let (Some(open), false) = (&open, matches!(statement, Statement::Control(_))) {
                open.check()?;
            }
            if let Some(prepared) = recognise(&context, &snapshot, &sql, &statement) {
                return Ok(prepared);
            }
            let description = describe(&context, &snapshot, &statement)?;
            Ok(Arc::new(Prepared { sql, statement, description, key_range: None }))
        };
        let limit = self.database.options().planning_timeout;
        query::within(limit, "planning", self.database.workers().run(work)).await
    }

    /// What a query reads that runs later: `None` where it is in no transaction, and reads the latest state.
    pub fn pin(&self, within: Within) -> Result<Option<Pinned>> {
        let Some(open) = self.transactions.resolve(within)? else { return Ok(None) };
        let snapshot = open.snapshot(self.database.engine())?;
        Ok(Some(Pinned { snapshot, open }))
    }

    /// Runs a [`StatementKind::Query`](super::StatementKind::Query) on the snapshot of this moment, or on that of the session's
    /// transaction. `parameters` has one column for each parameter, by position; with several rows, the answer has
    /// the rows of every binding. Planning and row production run off the async threads.
    pub async fn query(
        &self,
        statement: &Prepared,
        parameters: Option<&RecordBatch>,
    ) -> Result<Rows> {
        let snapshot = match self.pin(Within::Session)? {
            Some(pinned) => pinned.snapshot,
            None => self.database.engine().snapshot(),
        };
        self.query_at(&snapshot, statement, parameters).await
    }

    /// [`Session::query`] on another snapshot.
    pub async fn query_at(
        &self,
        snapshot: &Snapshot,
        statement: &Prepared,
        parameters: Option<&RecordBatch>,
    ) -> Result<Rows> {
        if statement.kind() != StatementKind::Query {
            return Err(Error::syntax("the statement returns no rows; execute it as an update"));
        }
        let context = self.context();
        if let Some(fast) = &statement.key_range
            && let Some(rows) = fast.run(&context, snapshot, parameters).await?
        {
            return Ok(query::with_deadline(rows, &context));
        }
        let (snapshot, parameters) = (snapshot.clone(), parameters.cloned());
        let statement = statement.statement.clone();
        let limit = self.database.options().planning_timeout;
        let work = move || query::run(&context, &snapshot, &statement, parameters.as_ref());
        query::within(limit, "planning", self.database.workers().run(work)).await
    }

    /// Runs a statement that changes something, once: for every row of `parameters`, wholly or not at all, in the
    /// session's transaction or one of its own. There, conflicts with other transactions are retried.
    pub async fn execute(
        &self,
        statement: &Prepared,
        parameters: Option<&RecordBatch>,
    ) -> Result<Outcome> {
        self.execute_within(Within::Session, statement, parameters).await
    }

    /// [`Session::execute`] in another transaction.
    pub async fn execute_within(
        &self,
        within: Within,
        statement: &Prepared,
        parameters: Option<&RecordBatch>,
    ) -> Result<Outcome> {
        match &statement.statement {
            Statement::Set(statement) => {
                let snapshot = self.view(within);
                self.settings.lock().apply(statement, &snapshot)?;
                return Ok(Outcome::definition());
            }
            Statement::Control(control) => {
                self.control(within, control).await?;
                return Ok(Outcome::definition());
            }
            _ => {}
        }
        let context = self.context();
        let statement = statement.statement.clone();
        let parameters = parameters.cloned();
        self.change(within, move |transaction| {
            execute_in(&context, transaction, &statement, parameters.as_ref())
        })
        .await
    }

    /// Runs `work` in the session's transaction or one of its own, on a thread that may block.
    pub(super) async fn change<T: Send + 'static>(
        &self,
        within: Within,
        mut work: impl FnMut(&mut Transaction) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let workers = self.database.workers();
        match self.transactions.resolve(within)? {
            Some(open) => {
                let turn = open.turn(self.database.engine()).await?;
                workers.run_for(move |caller| turn.run(caller, work)).await
            }
            None => {
                let database = self.database.clone();
                workers.run_for(move |caller| write(&database, caller, &mut work)).await
            }
        }
    }

    /// Carries out a statement about transactions.
    pub(super) async fn control(&self, within: Within, control: &Control) -> Result<()> {
        let (engine, workers) = (self.database.engine(), self.database.workers());
        self.transactions.control(within, control, engine, workers).await
    }

    /// Puts the settings that a script has made.
    pub(super) fn set_settings(&self, settings: Settings) {
        *self.settings.lock() = settings;
    }

    /// Changes one setting, as SET does.
    pub fn set_option(&self, name: &str, value: &str) -> Result<()> {
        let snapshot = self.view(Within::Any);
        self.settings.lock().set(name, value, &snapshot)
    }

    /// Gives one setting its default, as RESET does.
    pub fn reset_option(&self, name: &str) -> Result<()> {
        self.settings.lock().reset(name)
    }

    /// The settings by name, with their values.
    pub fn options(&self) -> Vec<(&'static str, String)> {
        let settings = self.settings.lock();
        settings.list().into_iter().map(|(name, value, _)| (name, value)).collect()
    }

    /// The schema that names without one mean.
    pub fn current_schema(&self) -> Arc<str> {
        Arc::clone(&self.settings.lock().current_schema)
    }

    /// Begins a bulk load. In a transaction it joins that.
    pub async fn ingest(&self, within: Within, request: IngestRequest) -> Result<Ingest> {
        let context = self.context();
        let workers = self.database.workers();
        match self.transactions.resolve(within)? {
            Some(open) => {
                let turn = open.turn(self.database.engine()).await?;
                workers.run(move || Ingest::join(&context, turn, request)).await
            }
            None => workers.run(move || Ingest::begin(&context, request)).await,
        }
    }

    /// Begins a transaction that the client names. It pins nothing before its first statement.
    pub fn begin(&self) -> Result<TransactionId> {
        self.transactions.begin()
    }

    /// Commits a transaction. Once begun it completes, though the caller be dropped.
    pub async fn commit(&self, id: TransactionId) -> Result<()> {
        self.transactions.commit(id, self.database.workers()).await
    }

    /// Rolls a transaction back; one that is not there any more needs nothing.
    pub fn rollback(&self, id: TransactionId) -> Result<()> {
        self.transactions.rollback(id)
    }

    /// Sets a savepoint in a transaction.
    pub async fn savepoint(&self, id: TransactionId, name: &str) -> Result<SavepointId> {
        self.transactions.savepoint(id, self.database.engine(), name).await
    }

    /// Undoes what came after a savepoint; it stays.
    pub async fn rollback_to(&self, id: SavepointId) -> Result<()> {
        self.transactions.rollback_to(id).await
    }

    /// Forgets a savepoint.
    pub async fn release(&self, id: SavepointId) -> Result<()> {
        self.transactions.release(id).await
    }

    /// Whether a transaction is one of this session that the client has not ended yet.
    pub fn is_open(&self, id: TransactionId) -> bool {
        self.transactions.is_open(id)
    }

    /// Whether the session has an open transaction, whoever began it.
    pub fn in_transaction(&self) -> bool {
        !matches!(self.transactions.resolve(Within::Any), Ok(None))
    }

    /// Whether BEGIN has begun a transaction that is not ended.
    pub fn in_sql_transaction(&self) -> bool {
        self.transactions.in_sql()
    }

    /// Says to the next statements that a transaction which BEGIN had begun is gone, until the client ends it.
    pub fn lose_sql_transaction(&self, why: &str) {
        self.transactions.lose_sql(why);
    }

    /// Rolls back the transaction that BEGIN has begun.
    pub(super) fn abandon_sql_transaction(&self) {
        self.transactions.abandon_sql();
    }

    /// Rolls back the transactions that have begun; the client learns `why` when it goes on with them.
    pub fn lose_transactions(&self, why: &str) {
        self.transactions.lose(why);
    }

    /// Rolls back transactions that were idle for longer than `idle`; says how many.
    pub fn reap(&self, idle: Duration) -> usize {
        self.transactions.reap(idle)
    }

    /// Rolls everything back and refuses what may still come.
    pub fn close(&self) {
        self.transactions.close();
    }
}

/// The statement for the fast path, where that answers it; it is remembered.
fn recognise(
    context: &StatementContext,
    snapshot: &Snapshot,
    sql: &str,
    statement: &Statement,
) -> Option<Arc<Prepared>> {
    let Statement::Query(query) = statement else { return None };
    let fast = KeyStatement::recognise(context, snapshot, query)?;
    let prepared = Arc::new(Prepared {
        sql: sql.to_owned(),
        statement: statement.clone(),
        description: fast.description().clone(),
        key_range: Some(Arc::new(fast)),
    });
    context.database.remember(&context.settings, &prepared);
    Some(prepared)
}

/// What a statement returns and takes.
fn describe(
    context: &StatementContext,
    snapshot: &Snapshot,
    statement: &Statement,
) -> Result<Description> {
    let plan_context = context.plan_context(snapshot);
    match statement {
        Statement::Dml(statement) => dml::describe(&plan_context, statement),
        Statement::Ddl(_) | Statement::Set(_) | Statement::Control(_) => Ok(Description::default()),
        Statement::Query(_) | Statement::Show(_) => {
            Ok(query::plan(&plan_context, statement)?.description)
        }
    }
}

/// Runs `statement` in a transaction and commits; again where another transaction was first. Where the caller is gone
/// before the commit, nothing is kept.
fn write<T>(
    database: &Database,
    caller: &Caller<'_>,
    mut statement: impl FnMut(&mut Transaction) -> Result<T>,
) -> Result<T> {
    let mut failure = None;
    let result = database.engine().write(|transaction| {
        let done = statement(transaction).and_then(|value| caller.check().map(|()| value));
        done.map_err(|e| {
            // The engine looks at the kind only: a conflict is tried again, all else ends the transaction.
            let kind = match e.kind() {
                ErrorKind::Engine(kind) => kind,
                _ => EngineKind::InvalidArgument,
            };
            let stand_in = crate::engine::Error::new(kind, e.message());
            failure = Some(e);
            stand_in
        })
    });
    match (result, failure) {
        (Ok(value), _) => Ok(value),
        (Err(e), Some(own)) if e.message() == own.message() => Err(own),
        (Err(e), _) => Err(e.into()),
    }
}

/// Runs one statement in a transaction.
pub(super) fn execute_in(
    context: &StatementContext,
    transaction: &mut Transaction,
    statement: &Statement,
    parameters: Option<&RecordBatch>,
) -> Result<Outcome> {
    match statement {
        Statement::Dml(statement) => dml::execute(context, transaction, statement, parameters),
        Statement::Ddl(statement) => ddl::execute(context, transaction, statement, parameters),
        Statement::Query(_) | Statement::Show(_) => drop_rows(context, transaction, statement),
        Statement::Set(_) | Statement::Control(_) => {
            Err(Error::internal("a statement about the session was run as a change"))
        }
    }
}

/// Runs a query of a script for its errors.
fn drop_rows(
    context: &StatementContext,
    transaction: &Transaction,
    statement: &Statement,
) -> Result<Outcome> {
    let plan_context = context.plan_context(&transaction.snapshot());
    let planned = query::plan(&plan_context, statement)?;
    for batch in plan_context.run(&planned.plan)? {
        batch?;
    }
    Ok(Outcome { affected_count: None, returned: None })
}
