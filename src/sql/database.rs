//! The database that all sessions share: engine, limits, DataFusion's functions and rules, threads.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::optimizer::{AnalyzerRule, Optimizer, OptimizerRule};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::prelude::SessionConfig;
use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::SqlOptions;
use super::admission::Admission;
use super::context::CATALOG;
use super::error::Result;
use super::memory::{self, Memory};
use super::planning::Stoppable;
use super::prepared::Prepared;
use super::queries::{Queries, Query};
use super::rank::{KeyRanks, SamplePlanner, percentile_disc};
use super::rules::{KeyPositions, WholeSorts, YieldingJoins};
use super::runtimes::{Lease, Runtimes};
use super::semantics::grouped_filters::GroupedFilters;
use super::semantics::join_keys::JoinKeyNames;
use super::semantics::{self, bounded::Running};
use super::session::Session;
use super::settings::Settings;
use super::types::UTC;
use super::workers::Workers;
use crate::engine::{DEFAULT_SCHEMA, Engine, Snapshot};

/// Statements of the fast path that are kept, and those with plans, which are larger.
const MAX_RECOGNISED: usize = 1024;
const MAX_PLANNED: usize = 256;
/// Bytes of a kept statement's text at most.
const MAX_KEPT_BYTES: usize = 4096;

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
    /// Run what queries compute, away from the threads that serve connections.
    runtimes: Runtimes,
    /// Statements of the fast path. None of those that are kept holds a snapshot.
    recognised: Mutex<HashMap<StatementKey, Arc<Prepared>>>,
    /// Other statements.
    planned: Mutex<HashMap<StatementKey, Arc<Prepared>>>,
    queries: Queries,
    admission: Admission,
    memory: Memory,
    /// The memory of results, for plans to find.
    results: Arc<memory::Shared>,
    /// Number of the newest session.
    last_session: AtomicU64,
}

/// What a statement's meaning depends on: the current schema, the time zone, and the text.
type StatementKey = (Arc<str>, Arc<str>, String);

fn statement_key(settings: &Settings, sql: &str) -> StatementKey {
    (Arc::clone(&settings.current_schema), Arc::clone(&settings.time_zone), sql.to_owned())
}

impl Database {
    /// SQL over `engine`.
    pub fn new(engine: Engine, options: SqlOptions) -> Result<Self> {
        let state = base_state(runtime_env(&options)?);
        let runtimes = Runtimes::new()?;
        let workers = Workers::new(runtimes.common().clone());
        let patience = options.queue_timeout;
        let admission = Admission::new(options.max_statements, options.max_loads, patience);
        let memory = Memory::new(&options.memory, patience);
        let shared = Shared {
            engine,
            options,
            state,
            workers,
            runtimes,
            recognised: Mutex::default(),
            planned: Mutex::default(),
            queries: Queries::new(admission.statements.clone()),
            admission,
            results: Arc::new(memory.results.clone()),
            memory,
            last_session: AtomicU64::new(0),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The engine below.
    pub fn engine(&self) -> &Engine {
        &self.shared.engine
    }

    /// A new session with default settings.
    pub fn session(&self) -> Session {
        Session::new(self.clone())
    }

    /// The number of a new session.
    pub(super) fn next_session(&self) -> u64 {
        self.shared.last_session.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// What runs.
    pub(super) fn queries(&self) -> &Queries {
        &self.shared.queries
    }

    /// Who may work.
    pub(crate) fn admission(&self) -> &Admission {
        &self.shared.admission
    }

    /// The memory of results, for plans to find.
    pub(crate) fn results(&self) -> Arc<memory::Shared> {
        Arc::clone(&self.shared.results)
    }

    /// Whether loads wait for one that runs to end.
    pub fn loads_wait(&self) -> bool {
        self.shared.admission.loads.is_wanted()
    }

    /// The budgets of memory.
    pub fn memory(&self) -> &Memory {
        &self.shared.memory
    }

    /// Stops the query of that number, as `omendb.queries` lists it.
    pub fn cancel_query(&self, id: u64) -> Result<()> {
        self.shared.queries.cancel(id)
    }

    /// A statement that was prepared before, where what it was prepared on is the same in `snapshot`.
    pub(super) fn remembered(
        &self,
        settings: &Settings,
        snapshot: &Snapshot,
        sql: &str,
    ) -> Option<Arc<Prepared>> {
        if sql.len() > MAX_KEPT_BYTES {
            return None;
        }
        let key = statement_key(settings, sql);
        let find = |kept: &Mutex<HashMap<_, Arc<Prepared>>>| kept.lock().get(&key).cloned();
        let found = find(&self.shared.recognised).or_else(|| find(&self.shared.planned))?;
        found.definitions.are_current(snapshot).then_some(found)
    }

    /// Keeps a statement.
    pub(super) fn remember(&self, settings: &Settings, prepared: &Arc<Prepared>) {
        if prepared.sql.len() > MAX_KEPT_BYTES {
            return;
        }
        let (kept, count) = match prepared.key_range {
            Some(_) => (&self.shared.recognised, MAX_RECOGNISED),
            None => (&self.shared.planned, MAX_PLANNED),
        };
        let mut kept = kept.lock();
        // Starting afresh is cheap: a statement is recognised anew in microseconds, and planned in less than one millisecond.
        let old = if kept.len() >= count { std::mem::take(&mut *kept) } else { HashMap::new() };
        kept.insert(statement_key(settings, &prepared.sql), Arc::clone(prepared));
        drop(kept);
        drop(old);
    }

    /// The limits of SQL execution.
    pub fn options(&self) -> &SqlOptions {
        &self.shared.options
    }

    /// A runtime for what one statement computes.
    pub(crate) fn lease(&self) -> Result<Lease> {
        self.shared.runtimes.lease()
    }

    /// The runtime of what is short, or blocks on threads made for that.
    pub(crate) fn runtime(&self) -> Handle {
        self.shared.workers.runtime().clone()
    }

    /// Threads for what blocks or recurses.
    pub(crate) fn workers(&self) -> &Workers {
        &self.shared.workers
    }

    /// DataFusion's state for one statement of a session with `settings`.
    pub(crate) fn planning_state(
        &self,
        settings: &Settings,
        query: Option<Arc<Query>>,
    ) -> SessionState {
        let mut state = self.shared.state.clone();
        let options = state.config_mut().options_mut();
        options.execution.time_zone = Some(settings.time_zone.to_string());
        options.catalog.default_schema = settings.current_schema.to_string();
        let max_value_bytes = Some(self.shared.options.max_value_bytes);
        options.extensions.insert(Running { max_value_bytes, query });
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
        .with_memory_pool(Arc::new(FairSpillPool::new(options.memory.queries)))
        .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(disk))
        .build_arc()?;
    Ok(runtime)
}

/// DataFusion's rules, and our own after the last that moves limits and sorts.
fn physical_rules() -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    let mut rules = PhysicalOptimizer::new().rules;
    // What plain statistics answer needs no ranks; after that, before anything is shared out.
    let place = rules.iter().position(|r| r.name() == "aggregate_statistics").unwrap_or(0);
    rules.insert(place + 1, Arc::new(KeyRanks));
    let place = rules.iter().position(|r| r.name() == "EnsureCooperative").unwrap_or(rules.len());
    rules.insert(place, Arc::new(KeyPositions));
    rules.insert(place, Arc::new(WholeSorts));
    // Last: what DataFusion finds in need of yielding, it finds without this one.
    rules.push(Arc::new(YieldingJoins));
    rules.into_iter().map(|rule| Arc::new(Stoppable::new(rule)) as _).collect()
}

fn analyzer_rules() -> Vec<Arc<dyn AnalyzerRule + Send + Sync>> {
    let rules = semantics::analyzer_rules();
    rules.into_iter().map(|rule| Arc::new(Stoppable::new(rule)) as _).collect()
}

fn optimizer_rules() -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    let mut rules = GroupedFilters::around(Optimizer::new().rules);
    rules.push(Arc::new(JoinKeyNames));
    rules.into_iter().map(|rule| Arc::new(Stoppable::new(rule)) as _).collect()
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
    // It compares which columns may be NULL in two plans of one query, and they disagree about IS FALSE and the like: no answer depends
    // on that, and a statement that could be answered was refused.
    options.execution.skip_physical_aggregate_schema_check = true;
    // Scans read ahead by themselves: an ordered one needs no buffer of a gigabyte above it, which a slow client would fill.
    options.execution.sort_pushdown_buffer_capacity = 4 << 20;
    let builder = SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(runtime)
        .with_default_features()
        .with_analyzer_rules(analyzer_rules())
        .with_optimizer_rules(optimizer_rules())
        .with_physical_optimizer_rules(physical_rules())
        .with_relation_planners(vec![Arc::new(SamplePlanner)])
        .with_table_factories(HashMap::new());
    let mut builder = semantics::register(builder);
    for planner in semantics::expression_planners().into_iter().rev() {
        builder.expr_planners().get_or_insert_default().insert(0, planner);
    }
    let functions = builder.aggregate_functions().get_or_insert_default();
    functions.push(percentile_disc::function());
    builder.build()
}
