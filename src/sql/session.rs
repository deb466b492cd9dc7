//! Sessions: what one client has set, its transactions, and the statements that it runs.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use parking_lot::Mutex;

use super::context::{Description, StatementContext};
use super::database::Database;
use super::error::{Error, ErrorKind, Result};
use super::key_range::KeyStatement;
use super::parse::{self, Statement};
use super::planning::Deep;
use super::prepared::Prepared;
use super::queries::{Query, RunningQuery};
use super::settings::Settings;
use super::transaction::{
    Control, Open, Reading, SavepointId, TransactionId, Transactions, Within,
};
use super::upkeep::{Done, Upkeep};
use super::workers::caught;
use super::{Ingest, IngestRequest, Outcome, Rows, StatementKind, ddl, dml, parameters, query};
use crate::engine::{ErrorKind as EngineKind, KeyRange, Snapshot, Transaction};

/// What one client has set, and its open transactions. Calls may come from several tasks at once.
#[derive(Debug)]
pub struct Session {
    database: Database,
    /// Differs from that of every other session of the database.
    id: u64,
    settings: Mutex<Settings>,
    transactions: Transactions,
}

/// What a query reads, as it was when it was pinned; in a transaction its own writes too. It outlives the transaction.
#[derive(Debug, Clone)]
pub struct Pinned {
    snapshot: Snapshot,
    open: Option<Arc<Open>>,
}

/// What the text of a statement depends on beside the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meaning {
    /// The schema that names without one mean.
    pub search_path: Arc<str>,
    /// The zone of times in text.
    pub time_zone: Arc<str>,
}

impl Default for Meaning {
    fn default() -> Self {
        let Settings { current_schema, time_zone, .. } = Settings::default();
        Self { search_path: current_schema, time_zone }
    }
}

impl Pinned {
    /// What the query reads.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Whether the query is of a transaction.
    pub fn in_transaction(&self) -> bool {
        self.open.is_some()
    }

    /// Keeps the transaction, if there is one, from being idle while the answer lives.
    pub fn reading(&self) -> Option<Reading> {
        self.open.as_ref().map(Open::reading)
    }
}

impl Session {
    pub(super) fn new(database: Database) -> Self {
        let id = database.next_session();
        Self { database, id, settings: Mutex::default(), transactions: Transactions::default() }
    }

    /// The database.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// What texts mean in the session; `None` where that is what they mean in any new one.
    pub fn meaning(&self) -> Option<Meaning> {
        let settings = self.settings.lock();
        let (search_path, time_zone) =
            (Arc::clone(&settings.current_schema), Arc::clone(&settings.time_zone));
        let meaning = Meaning { search_path, time_zone };
        (meaning != Meaning::default()).then_some(meaning)
    }

    /// The settings for one statement, whose text may mean what it does in another session. It comes from a client, so it is
    /// checked as SET checks it: statements are kept by it.
    fn context_of(
        &self,
        meaning: Option<&Meaning>,
        snapshot: &Snapshot,
    ) -> Result<StatementContext> {
        let mut context = self.context();
        if let Some(Meaning { search_path, time_zone }) = meaning {
            let settings = &mut context.settings;
            if settings.current_schema != *search_path {
                settings.set("search_path", search_path, snapshot)?;
            }
            if settings.time_zone != *time_zone {
                settings.set("timezone", time_zone, snapshot)?;
            }
        }
        Ok(context)
    }

    /// The settings of this moment, for one statement.
    pub(crate) fn context(&self) -> StatementContext {
        let settings = self.settings.lock().clone();
        StatementContext { database: self.database.clone(), settings, query: None }
    }

    /// Lists a statement as running, from now until the answer is dropped.
    pub fn begin_query(&self, sql: &str) -> RunningQuery {
        let settings = self.settings.lock();
        let (name, limit) = (Arc::clone(&settings.application_name), settings.statement_timeout);
        drop(settings);
        self.database.queries().begin(self.id, &name, sql, limit)
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
        self.prepare_on(self.context(), snapshot, open, sql).await
    }

    /// [`Session::prepare`] against another snapshot, and with what the text means elsewhere.
    pub async fn prepare_at(
        &self,
        snapshot: &Snapshot,
        meaning: Option<&Meaning>,
        sql: &str,
    ) -> Result<Arc<Prepared>> {
        let context = self.context_of(meaning, snapshot)?;
        self.prepare_on(context, snapshot.clone(), None, sql).await
    }

    async fn prepare_on(
        &self,
        context: StatementContext,
        snapshot: Snapshot,
        open: Option<Arc<Open>>,
        sql: &str,
    ) -> Result<Arc<Prepared>> {
        if let Some(prepared) = self.database.remembered(&context.settings, &snapshot, sql) {
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
        // What stops or ends something needs neither a plan nor a place: it must get through whatever else is going on.
        if parse::is_flat(sql)
            && let Ok(statement) = caught(|| parse::parse_one(sql, self.database.options()))
            && matches!(statement, Statement::Cancel(_) | Statement::Control(_) | Statement::Set(_))
        {
            if let (Some(open), false) = (&open, matches!(statement, Statement::Control(_))) {
                open.check()?;
            }
            return describe(&context, &snapshot, sql.to_owned(), statement);
        }
        let sql = sql.to_owned();
        let place = self.database.admission().short.enter().await?;
        let work = move || {
            let _place = place;
            let statement = parse::parse_one(&sql, context.database.options())?;
            if let (Some(open), false) = (&open, matches!(statement, Statement::Control(_))) {
                open.check()?;
            }
            if let Some(prepared) = recognise(&context, &snapshot, &sql, &statement) {
                return Ok(prepared);
            }
            describe(&context, &snapshot, sql, statement)
        };
        let limit = self.database.options().planning_timeout;
        query::within(limit, "planning", self.database.workers().run(work)).await
    }

    /// What a query reads that runs later: `None` where it is in no transaction, and reads the latest state.
    pub fn pin(&self, within: Within) -> Result<Option<Pinned>> {
        let Some(open) = self.transactions.resolve(within)? else { return Ok(None) };
        let snapshot = open.snapshot(self.database.engine())?;
        Ok(Some(Pinned { snapshot, open: Some(open) }))
    }

    /// What a query reads that is in no transaction, and has several parts that must read the same.
    pub fn pin_latest(&self) -> Pinned {
        Pinned { snapshot: self.database.engine().snapshot(), open: None }
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

    /// Cuts what a query returns into at most `count` parts of about as many rows, by the keys of the one table that it reads;
    /// just one where it is not of the kind that can be cut: rows of a table, with conditions and computed columns at most.
    pub async fn split(
        &self,
        snapshot: &Snapshot,
        statement: &Prepared,
        parameters: Option<&RecordBatch>,
        count: usize,
    ) -> Result<Vec<KeyRange>> {
        let context = self.context();
        let (snapshot, parameters) = (snapshot.clone(), parameters.cloned());
        let (statement, fast) = (statement.clone(), statement.key_range.clone());
        let limit = self.database.options().planning_timeout;
        let place = self.database.admission().short.enter().await?;
        let work = move || {
            let _place = place;
            if let Some(fast) = fast
                && let Some(parts) = fast.split(&context, &snapshot, parameters.as_ref(), count)?
            {
                return Ok(parts);
            }
            query::split(&context, &snapshot, &statement, parameters.as_ref(), count)
        };
        query::within(limit, "planning", self.database.workers().run(work)).await
    }

    /// The schema of a query's rows for values of such types: it may be another than that without any.
    pub async fn query_schema(
        &self,
        within: Within,
        statement: &Prepared,
        parameters: Option<&RecordBatch>,
    ) -> Result<SchemaRef> {
        let context = self.context();
        let zone = context.settings.zone();
        let described = &statement.description.parameters;
        if statement.key_range.is_some()
            || parameters::bound_types(described, parameters, &zone)?.is_none()
        {
            return Ok(statement.schema());
        }
        let (snapshot, parameters) = (self.view(within), parameters.cloned());
        let statement = statement.clone();
        let limit = self.database.options().planning_timeout;
        let work = move || query::schema_for(&context, &snapshot, &statement, parameters.as_ref());
        query::within(limit, "planning", self.database.workers().run(work)).await
    }

    /// [`Session::query`] on another snapshot.
    pub async fn query_at(
        &self,
        snapshot: &Snapshot,
        statement: &Prepared,
        parameters: Option<&RecordBatch>,
    ) -> Result<Rows> {
        self.query_part(snapshot, None, statement, parameters, None).await
    }

    /// [`Session::query_at`] of one part, as [`Session::split`] made them, and of a text that means what it does elsewhere.
    pub async fn query_part(
        &self,
        snapshot: &Snapshot,
        meaning: Option<&Meaning>,
        statement: &Prepared,
        parameters: Option<&RecordBatch>,
        part: Option<&KeyRange>,
    ) -> Result<Rows> {
        if statement.kind() != StatementKind::Query {
            return Err(Error::syntax("the statement returns no rows; execute it as an update"));
        }
        let context = self.context_of(meaning, snapshot)?;
        if let Some(fast) = &statement.key_range {
            let begin = || self.begin_query(&statement.sql);
            if let Some(rows) = fast.run(&context, snapshot, parameters, part, begin).await? {
                return Ok(rows);
            }
        }
        let running = self.begin_query(&statement.sql);
        let context = context.running(running.query());
        let (snapshot, parameters) = (snapshot.clone(), parameters.cloned());
        let statement = statement.clone();
        let limit = self.database.options().planning_timeout;
        let part = part.cloned();
        let planning = async {
            let admission = self.database.admission();
            let place = match (statement.definitions.last(), statement.is_constant()) {
                (true, false) => running.admit().await?,
                // Computes nothing: it must not wait for those that do.
                (true, true) => running.admit_by(&admission.constants).await?,
                (false, _) => running.admit_by(&admission.system).await?,
            };
            let work = move || {
                let _place = place;
                query::run(&context, &snapshot, &statement, parameters.as_ref(), part.as_ref())
            };
            query::within(limit, "planning", self.database.workers().run(work)).await
        };
        let rows = running.wait(planning).await?;
        Ok(Rows { schema: rows.schema, stream: running.rows(rows.stream) })
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
        let running = self.begin_query(&statement.sql);
        self.execute_running(&running, within, statement, parameters).await
    }

    /// [`Session::execute_within`] of what is listed already.
    pub async fn execute_running(
        &self,
        running: &RunningQuery,
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
            Statement::Cancel(query) => {
                self.database.queries().cancel(*query)?;
                return Ok(Outcome::definition());
            }
            Statement::Upkeep(upkeep) if !self.in_transaction() => {
                running.wait(self.keep_up(upkeep.clone())).await?;
                return Ok(Outcome::definition());
            }
            _ => {}
        }
        let context = self.context().running(running.query());
        let statement = statement.statement.clone();
        let parameters = parameters.cloned();
        self.change(running, within, move |transaction| {
            execute_in(&context, transaction, &statement, parameters.as_ref())
        })
        .await
    }

    /// Runs a statement about how rows are stored.
    pub(crate) async fn keep_up(&self, upkeep: Upkeep) -> Result<Done> {
        let context = self.context();
        self.database.workers().run(move || upkeep.run(&context)).await
    }

    /// Runs `work` in the session's transaction or one of its own, on a thread that may block.
    pub(super) async fn change<T: Send + 'static>(
        &self,
        running: &RunningQuery,
        within: Within,
        mut work: impl FnMut(&mut Transaction) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let workers = self.database.workers();
        let query = Arc::clone(running.query());
        let done = async {
            match self.transactions.resolve(within)? {
                Some(open) => {
                    // Its turn comes first: who waits for that must not take a place.
                    let turn = open.turn(self.database.engine()).await?;
                    let place = running.admit().await?;
                    let work = move || {
                        let _place = place;
                        turn.run(&query, work)
                    };
                    workers.run(work).await
                }
                None => {
                    let database = self.database.clone();
                    let place = running.admit().await?;
                    let work = move || {
                        let _place = place;
                        write(&database, &query, &mut work)
                    };
                    workers.run(work).await
                }
            }
        };
        running.wait(done).await
    }

    /// Carries out a statement about transactions.
    pub(super) async fn control(&self, within: Within, control: &Control) -> Result<()> {
        let (engine, workers) = (self.database.engine(), self.database.workers());
        let endings = &self.database.admission().endings;
        self.transactions.control(within, control, engine, workers, endings).await
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
        let name = Arc::clone(&self.settings.lock().application_name);
        let sql = format!("load into table {}", request.table);
        // How long a load takes is up to the client that sends it.
        let running = self.database.queries().begin(self.id, &name, &sql, None);
        let context = self.context().running(running.query());
        let workers = self.database.workers();
        let loads = self.database.admission().loads.clone();
        match self.transactions.resolve(within)? {
            Some(open) => {
                let turn = open.turn(self.database.engine()).await?;
                let place = running.wait(loads.enter()).await?;
                workers.run(move || Ingest::join(&context, running, place, turn, request)).await
            }
            None => {
                let place = running.wait(loads.enter()).await?;
                workers.run(move || Ingest::begin(&context, running, place, request)).await
            }
        }
    }

    /// Begins a transaction that the client names. It pins nothing before its first statement.
    pub fn begin(&self) -> Result<TransactionId> {
        self.transactions.begin()
    }

    /// Commits a transaction. Once begun it completes, though the caller be dropped.
    pub async fn commit(&self, id: TransactionId) -> Result<()> {
        let endings = &self.database.admission().endings;
        self.transactions.commit(id, self.database.workers(), endings).await
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
        definitions: fast.definitions(),
        key_range: Some(Arc::new(fast)),
        planned: None,
    });
    context.database.remember(&context.settings, &prepared);
    Some(prepared)
}

/// Finds out what a statement returns and takes; it is remembered where that stays as long as definitions do.
fn describe(
    context: &StatementContext,
    snapshot: &Snapshot,
    sql: String,
    statement: Statement,
) -> Result<Arc<Prepared>> {
    let plan_context = context.plan_context(snapshot);
    let mut planned = None;
    let description = match &statement {
        Statement::Dml(statement) => dml::describe(&plan_context, statement)?,
        Statement::Ddl(_)
        | Statement::Set(_)
        | Statement::Control(_)
        | Statement::Cancel(_)
        | Statement::Upkeep(_) => Description::default(),
        Statement::Show(_) => query::plan(&plan_context, &statement)?.description,
        Statement::Query(_) => {
            let query = query::plan(&plan_context, &statement)?;
            let description = query.description.clone();
            planned = query.kept(&plan_context)?.map(|plan| {
                let views = plan_context.definitions().has_views();
                Arc::new(if views { Deep::new(plan) } else { Deep::of_text(&sql, plan) })
            });
            description
        }
    };
    let lasting = planned.is_some() || matches!(statement, Statement::Dml(_));
    let definitions = plan_context.definitions();
    let prepared =
        Arc::new(Prepared { sql, statement, description, definitions, key_range: None, planned });
    if lasting && prepared.definitions.last() {
        context.database.remember(&context.settings, &prepared);
    }
    Ok(prepared)
}

/// Runs `statement` in a transaction and commits; again where another transaction was first. Where it is stopped before the
/// commit, nothing is kept.
fn write<T>(
    database: &Database,
    query: &Query,
    mut statement: impl FnMut(&mut Transaction) -> Result<T>,
) -> Result<T> {
    let mut failure = None;
    // While it waits for others it can be stopped.
    let wanted = || {
        query.begin_again();
        let stopped = |e: Error| crate::engine::Error::new(EngineKind::Conflict, e.message());
        query.check().map_err(stopped)
    };
    let result = database.engine().write_while(&wanted, |transaction| {
        query.begin_again();
        let done = statement(transaction).and_then(|value| query.begin_commit().map(|()| value));
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
        // Stopped while it waited, perhaps.
        (Err(e), _) => query.check().and(Err(e.into())),
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
        Statement::Cancel(query) => {
            context.database.queries().cancel(*query)?;
            Ok(Outcome::definition())
        }
        Statement::Upkeep(_) => Err(Error::new(
            super::Code::ActiveSqlTransaction,
            "ANALYZE, VACUUM, CHECKPOINT, FLUSH, COMPACT and RETRAIN cannot run in a transaction or with other statements",
        )),
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
    Ok(Outcome { affected_count: None, returned: None, held: None })
}
