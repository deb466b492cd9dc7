//! Databases and sessions: what statements run with.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::prelude::SessionConfig;
use datafusion::sql::sqlparser::ast;
use parking_lot::Mutex;
use tokio::runtime::{Handle, Runtime};

use super::StatementKind;
use super::context::{CATALOG, Description, StatementContext};
use super::error::{Error, ErrorKind, Result};
use super::key_range::KeyStatement;
use super::parse::{self, Statement};
use super::prepared::Prepared;
use super::rules::{KeyPositions, YieldingJoins};
use super::settings::Settings;
use super::types::UTC;
use super::workers::Workers;
use super::{Ingest, IngestRequest, Outcome, Rows, SqlOptions, ddl, dml, query};
use crate::engine::{DEFAULT_SCHEMA, Engine, ErrorKind as EngineKind, Snapshot, Transaction};

/// Stack of a thread that runs queries, in bytes: expressions are evaluated as deep as they nest.
const QUERY_STACK_BYTES: usize = 16 << 20;

/// Statements of the fast path that are kept, and bytes of each at most.
const MAX_CACHED: usize = 1024;
const MAX_CACHED_BYTES: usize = 2048;

/// A database that understands SQL. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Database {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    engine: Engine,
    options: SqlOptions,
    /// Functions, rules and limits that every statement's state begins as a copy of.
    state: SessionState,
    workers: Workers,
    /// Runs what queries compute, away from the threads that serve connections.
    runtime: Option<Runtime>,
    /// Statements of the fast path by current schema and text. They hold no snapshot.
    recognised: Mutex<HashMap<StatementKey, Arc<Prepared>>>,
}

/// The current schema and the text of a statement.
type StatementKey = (Arc<str>, String);

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // The last handle may be dropped on an async thread, which must not wait.
            runtime.shutdown_background();
        }
    }
}

impl Database {
    /// SQL over `engine`.
    pub fn new(engine: Engine, options: SqlOptions) -> Result<Self> {
        let state = base_state(runtime_env(&options)?);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .thread_name("omendb-query")
            .thread_stack_size(QUERY_STACK_BYTES)
            .enable_time()
            .build()
            .map_err(crate::engine::Error::from)?;
        let workers = Workers::new(runtime.handle().clone());
        let shared = Shared {
            engine,
            options,
            state,
            workers,
            runtime: Some(runtime),
            recognised: Mutex::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The engine below.
    pub fn engine(&self) -> &Engine {
        &self.shared.engine
    }

    /// A new session with default settings.
    pub fn session(&self) -> Session {
        Session { database: self.clone(), settings: Mutex::new(Settings::default()) }
    }

    /// A statement of the fast path that was prepared before, while its table is the same.
    fn recognised(&self, settings: &Settings, sql: &str) -> Option<Arc<Prepared>> {
        if sql.len() > MAX_CACHED_BYTES {
            return None;
        }
        let key = (Arc::clone(&settings.current_schema), sql.to_owned());
        let prepared = Arc::clone(self.shared.recognised.lock().get(&key)?);
        let current = prepared.key_range.as_ref()?.is_current(&self.shared.engine.snapshot());
        current.then_some(prepared)
    }

    fn remember(&self, settings: &Settings, prepared: &Arc<Prepared>) {
        if prepared.sql.len() > MAX_CACHED_BYTES {
            return;
        }
        let mut recognised = self.shared.recognised.lock();
        // Starting afresh is cheap: a statement is recognised anew in microseconds.
        if recognised.len() >= MAX_CACHED {
            recognised.clear();
        }
        let key = (Arc::clone(&settings.current_schema), prepared.sql.clone());
        recognised.insert(key, Arc::clone(prepared));
    }

    /// The limits of SQL execution.
    pub fn options(&self) -> &SqlOptions {
        &self.shared.options
    }

    /// The runtime that queries compute in.
    pub(crate) fn runtime(&self) -> Handle {
        self.shared.workers.runtime().clone()
    }

    /// Threads for what blocks or recurses.
    pub(crate) fn workers(&self) -> &Workers {
        &self.shared.workers
    }

    /// DataFusion's state for one statement of a session with `settings`.
    pub(crate) fn planning_state(&self, settings: &Settings) -> SessionState {
        let mut state = self.shared.state.clone();
        let options = state.config_mut().options_mut();
        options.execution.time_zone = Some(settings.time_zone.to_string());
        options.catalog.default_schema = settings.current_schema.to_string();
        state.mark_start_execution();
        state
    }
}

fn runtime_env(options: &SqlOptions) -> Result<Arc<RuntimeEnv>> {
    let disk = match &options.spill_dir {
        Some(dir) => DiskManagerMode::Directories(vec![dir.clone()]),
        None => DiskManagerMode::Disabled,
    };
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(FairSpillPool::new(options.query_memory_bytes)))
        .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(disk))
        .build_arc()?;
    Ok(runtime)
}

/// DataFusion's rules, and our own after the last that moves limits and sorts.
fn physical_rules() -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    let mut rules = PhysicalOptimizer::new().rules;
    let place = rules.iter().position(|r| r.name() == "EnsureCooperative").unwrap_or(rules.len());
    rules.insert(place, Arc::new(KeyPositions));
    // Last: what DataFusion finds in need of yielding, it finds without this one.
    rules.push(Arc::new(YieldingJoins));
    rules
}

fn base_state(runtime: Arc<RuntimeEnv>) -> SessionState {
    let mut config = SessionConfig::new()
        .with_default_catalog_and_schema(CATALOG, DEFAULT_SCHEMA)
        .with_create_default_catalog_and_schema(false)
        .with_information_schema(false)
        .with_batch_size(8 * 1024);
    let options = config.options_mut();
    options.sql_parser.map_string_types_to_utf8view = false;
    options.sql_parser.default_null_ordering = "nulls_max".to_owned();
    options.optimizer.expand_views_at_output = true;
    options.execution.time_zone = Some(UTC.to_owned());
    SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(runtime)
        .with_default_features()
        .with_physical_optimizer_rules(physical_rules())
        .with_table_factories(HashMap::new())
        .build()
}

/// What one client has set, and (later) its open transaction. Calls may come from several tasks at once.
#[derive(Debug)]
pub struct Session {
    database: Database,
    settings: Mutex<Settings>,
}

impl Session {
    /// The database.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// The settings of this moment, for one statement.
    pub(crate) fn context(&self) -> StatementContext {
        StatementContext { database: self.database.clone(), settings: self.settings.lock().clone() }
    }

    /// Parses and checks one statement. More than one is an error that says so.
    pub async fn prepare(&self, sql: &str) -> Result<Arc<Prepared>> {
        let context = self.context();
        if let Some(prepared) = self.database.recognised(&context.settings, sql) {
            return Ok(prepared);
        }
        let sql = sql.to_owned();
        let work = move || {
            let statement = parse::parse_one(&sql, context.database.options())?;
            let snapshot = context.database.engine().snapshot();
            if let Some(prepared) = recognise(&context, &snapshot, &sql, &statement) {
                let prepared = Arc::new(prepared);
                context.database.remember(&context.settings, &prepared);
                return Ok(prepared);
            }
            let description = describe(&context, &statement)?;
            Ok(Arc::new(Prepared { sql, statement, description, key_range: None }))
        };
        let limit = self.database.options().planning_timeout;
        query::within(limit, "planning", self.database.workers().run(work)).await
    }

    /// Runs a [`StatementKind::Query`](super::StatementKind::Query) on the snapshot of this moment. `parameters` has one column for each
    /// parameter, by position; with several rows, the answer has the rows of every binding. Planning and row production run off the
    /// async threads.
    pub async fn query(
        &self,
        statement: &Prepared,
        parameters: Option<&RecordBatch>,
    ) -> Result<Rows> {
        let snapshot = self.database.engine().snapshot();
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

    /// Runs a statement that changes something, once: for every row of `parameters`, all in one transaction.
    /// Conflicts with other transactions are retried.
    pub async fn execute(
        &self,
        statement: &Prepared,
        parameters: Option<&RecordBatch>,
    ) -> Result<Outcome> {
        if let Statement::Set(statement) = &statement.statement {
            self.set(statement)?;
            return Ok(Outcome::definition());
        }
        let context = self.context();
        let statement = statement.statement.clone();
        let parameters = parameters.cloned();
        let work = move || {
            write(&context.database, |transaction| {
                execute_in(&context, transaction, &statement, parameters.as_ref())
            })
        };
        self.database.workers().run(work).await
    }

    /// Runs the statements of a script, in one transaction; the affected rows are their sum. A
    /// query among them runs and its rows are dropped.
    pub async fn execute_script(&self, sql: &str) -> Result<Outcome> {
        let context = self.context();
        let sql = sql.to_owned();
        let work = move || {
            let statements = parse::parse_script(&sql, context.database.options())?;
            write(&context.database, |transaction| {
                let mut affected: Option<u64> = None;
                for statement in &statements {
                    let outcome = execute_in(&context, transaction, statement, None)?;
                    if let Some(count) = outcome.affected_count {
                        affected = Some(affected.unwrap_or(0) + count);
                    }
                }
                Ok(Outcome { affected_count: affected, returned: None })
            })
        };
        self.database.workers().run(work).await
    }

    fn set(&self, statement: &ast::Statement) -> Result<()> {
        let snapshot = self.database.engine().snapshot();
        self.settings.lock().apply(statement, &snapshot)
    }

    /// Changes one setting, as SET does.
    pub fn set_option(&self, name: &str, value: &str) -> Result<()> {
        let snapshot = self.database.engine().snapshot();
        self.settings.lock().set(name, value, &snapshot)
    }

    /// The settings by name, with their values.
    pub fn options(&self) -> Vec<(&'static str, String)> {
        let settings = self.settings.lock();
        settings.list().into_iter().map(|(name, value, _)| (name, value)).collect()
    }

    /// Begins a bulk load.
    pub async fn ingest(&self, request: IngestRequest) -> Result<Ingest> {
        let context = self.context();
        self.database.workers().run(move || Ingest::begin(&context, request)).await
    }
}

/// The statement for the fast path, where that answers it.
fn recognise(
    context: &StatementContext,
    snapshot: &Snapshot,
    sql: &str,
    statement: &Statement,
) -> Option<Prepared> {
    let Statement::Query(query) = statement else { return None };
    let fast = KeyStatement::recognise(context, snapshot, query)?;
    Some(Prepared {
        sql: sql.to_owned(),
        statement: statement.clone(),
        description: fast.description().clone(),
        key_range: Some(Arc::new(fast)),
    })
}

/// What a statement returns and takes.
fn describe(context: &StatementContext, statement: &Statement) -> Result<Description> {
    let plan_context = context.plan_context(&context.database.engine().snapshot());
    match statement {
        Statement::Dml(statement) => dml::describe(&plan_context, statement),
        Statement::Ddl(_) | Statement::Set(_) => Ok(Description::default()),
        Statement::Query(_) | Statement::Show(_) => {
            Ok(query::plan(&plan_context, statement)?.description)
        }
    }
}

/// Runs `statement` in a transaction and commits; again where another transaction was first.
pub(crate) fn write<T>(
    database: &Database,
    mut statement: impl FnMut(&mut Transaction) -> Result<T>,
) -> Result<T> {
    let mut failure = None;
    let result = database.engine().write(|transaction| {
        statement(transaction).map_err(|e| {
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
fn execute_in(
    context: &StatementContext,
    transaction: &mut Transaction,
    statement: &Statement,
    parameters: Option<&RecordBatch>,
) -> Result<Outcome> {
    match statement {
        Statement::Dml(statement) => dml::execute(context, transaction, statement, parameters),
        Statement::Ddl(statement) => ddl::execute(context, transaction, statement, parameters),
        Statement::Query(_) | Statement::Show(_) => drop_rows(context, transaction, statement),
        Statement::Set(_) => Err(Error::unsupported(
            "SET is not supported in a script with other statements; send it alone",
        )),
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
