//! Databases and sessions: what statements run with.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::prelude::SessionConfig;
use datafusion::sql::sqlparser::ast;
use parking_lot::Mutex;

use super::context::{CATALOG, Description, StatementContext};
use super::error::{Error, ErrorKind, Result};
use super::parse::{self, Statement};
use super::prepared::Prepared;
use super::types::UTC;
use super::workers::Workers;
use super::{Ingest, IngestRequest, Outcome, Rows, SqlOptions, ddl, dml};
use crate::engine::{DEFAULT_SCHEMA, Engine, ErrorKind as EngineKind, Transaction};

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
}

impl Database {
    /// SQL over `engine`.
    pub fn new(engine: Engine, options: SqlOptions) -> Result<Self> {
        let state = base_state(runtime_env(&options)?);
        let shared = Shared { engine, options, state, workers: Workers::default() };
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

    /// The limits of SQL execution.
    pub fn options(&self) -> &SqlOptions {
        &self.shared.options
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

fn base_state(runtime: Arc<RuntimeEnv>) -> SessionState {
    let mut config = SessionConfig::new()
        .with_default_catalog_and_schema(CATALOG, DEFAULT_SCHEMA)
        .with_create_default_catalog_and_schema(false)
        .with_information_schema(false)
        .with_batch_size(8 * 1024);
    let options = config.options_mut();
    options.sql_parser.map_string_types_to_utf8view = false;
    options.sql_parser.default_null_ordering = "nulls_max".to_owned();
    options.execution.time_zone = Some(UTC.to_owned());
    SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(runtime)
        .with_default_features()
        .build()
}

/// What a client has set for its session.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Settings {
    /// The schema that bare names mean.
    pub(crate) current_schema: Arc<str>,
    /// The time zone of text that is cast to TIMESTAMPTZ.
    pub(crate) time_zone: Arc<str>,
    /// Time that one statement may take.
    pub(crate) statement_timeout: Option<Duration>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            current_schema: Arc::from(DEFAULT_SCHEMA),
            time_zone: Arc::from(UTC),
            statement_timeout: None,
        }
    }
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
        let sql = sql.to_owned();
        let work = move || {
            let statement = parse::parse_one(&sql, context.database.options())?;
            let description = describe(&context, &statement)?;
            Ok(Arc::new(Prepared { sql, statement, description }))
        };
        self.database.workers().run(work).await
    }

    /// Runs a [`StatementKind::Query`](super::StatementKind::Query) on the snapshot of this moment. `parameters` has one column for each
    /// parameter, by position; with several rows, the answer has the rows of every binding. Planning and row production run off the
    /// async threads.
    pub async fn query(
        &self,
        _statement: &Prepared,
        _parameters: Option<&RecordBatch>,
    ) -> Result<Rows> {
        todo!()
    }

    /// Runs a statement that changes something, once: for every row of `parameters`, all in one transaction.
    /// Conflicts with other transactions are retried.
    pub async fn execute(
        &self,
        statement: &Prepared,
        parameters: Option<&RecordBatch>,
    ) -> Result<Outcome> {
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

    /// Begins a bulk load.
    pub async fn ingest(&self, request: IngestRequest) -> Result<Ingest> {
        let context = self.context();
        self.database.workers().run(move || Ingest::begin(&context, request)).await
    }
}

/// What a statement returns and takes.
fn describe(context: &StatementContext, statement: &Statement) -> Result<Description> {
    let plan_context = context.plan_context(&context.database.engine().snapshot());
    match statement {
        Statement::Dml(statement) => dml::describe(&plan_context, statement),
        Statement::Ddl(_) | Statement::Set(_) => Ok(Description::default()),
        Statement::Query(_) | Statement::Show(_) => todo!(),
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
        Statement::Query(statement) => drop_rows(context, transaction, statement),
        Statement::Show(_) => Ok(Outcome { affected_count: None, returned: None }),
        Statement::Set(_) => Err(Error::unsupported("SET is not supported yet")),
    }
}

/// Runs a query of a script for its errors.
fn drop_rows(
    context: &StatementContext,
    transaction: &Transaction,
    statement: &ast::Statement,
) -> Result<Outcome> {
    let plan_context = context.plan_context(&transaction.snapshot());
    let plan = plan_context.plan(statement)?;
    for batch in plan_context.run(&plan)? {
        batch?;
    }
    Ok(Outcome { affected_count: None, returned: None })
}
