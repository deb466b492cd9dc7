//! The database that all sessions share: engine, limits, DataFusion's functions and rules, threads.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::prelude::SessionConfig;
use parking_lot::Mutex;
use tokio::runtime::{Handle, Runtime};

use super::SqlOptions;
use super::context::CATALOG;
use super::error::Result;
use super::prepared::Prepared;
use super::rank::{KeyRanks, SamplePlanner, percentile_disc};
use super::rules::{KeyPositions, YieldingJoins};
use super::session::Session;
use super::settings::Settings;
use super::types::UTC;
use super::workers::Workers;
use crate::engine::{DEFAULT_SCHEMA, Engine, Snapshot};

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
        Session::new(self.clone())
    }

    /// A statement of the fast path that was prepared before, where its table is the same in `snapshot`.
    pub(super) fn recognised(
        &self,
        settings: &Settings,
        snapshot: &Snapshot,
        sql: &str,
    ) -> Option<Arc<Prepared>> {
        if sql.len() > MAX_CACHED_BYTES {
            return None;
        }
        let key = (Arc::clone(&settings.current_schema), sql.to_owned());
        let prepared = Arc::clone(self.shared.recognised.lock().get(&key)?);
        let current = prepared.key_range.as_ref()?.is_current(snapshot);
        current.then_some(prepared)
    }

    /// Keeps a statement of the fast path.
    pub(super) fn remember(&self, settings: &Settings, prepared: &Arc<Prepared>) {
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
    // What plain statistics answer needs no ranks; after that, before anything is shared out.
    let place = rules.iter().position(|r| r.name() == "aggregate_statistics").unwrap_or(0);
    rules.insert(place + 1, Arc::new(KeyRanks));
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
    let mut builder = SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(runtime)
        .with_default_features()
        .with_physical_optimizer_rules(physical_rules())
        .with_relation_planners(vec![Arc::new(SamplePlanner)])
        .with_table_factories(HashMap::new());
    let functions = builder.aggregate_functions().get_or_insert_default();
    functions.push(percentile_disc::function());
    builder.build()
}
