//! What a statement is planned with: the session's settings, and one snapshot as DataFusion's catalog.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::catalog::{TableFunctionArgs, TableProvider};
use datafusion::common::config::ConfigOptions;
use datafusion::common::{DFSchema, TableReference};
use datafusion::datasource::{ViewTable, provider_as_source};
use datafusion::execution::{SendableRecordBatchStream, SessionState};
use datafusion::logical_expr::planner::{
    ContextProvider, ExprPlanner, RelationPlanner, TypePlanner,
};
use datafusion::logical_expr::{
    AggregateUDF, EmptyRelation, Expr, HigherOrderUDF, LogicalPlan, Projection, ScalarUDF,
    TableSource, WindowUDF,
};
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::sql::planner::{NullOrdering, ParserOptions, PlannerContext, SqlToRel};
use datafusion::sql::sqlparser::ast;
use futures::StreamExt;
use parking_lot::Mutex;

use super::code::Code;
use super::database::Database;
use super::definitions::Definitions;
use super::error::{Error, Result, nearest, quote};
use super::limits::too_complex;
use super::parse::{self, Statement};
use super::planning;
use super::provider::EngineTable;
use super::queries::Query;
use super::runtimes::Lease;
use super::scan_exec;
use super::semantics::{self, time_zone::TimeZone};
use super::settings::Settings;
use super::system;
use super::types::SqlTypes;
use crate::engine::{Snapshot, TableName, TableSnapshot};

/// Name of the one catalog.
pub(crate) const CATALOG: &str = "omendb";

/// A table named in this catalog is the one of the same schema and name, with its row address as an
/// additional last column: the table that an UPDATE or DELETE changes.
pub(crate) const TARGET_CATALOG: &str = "__omendb_target";

/// Views may refer to views this deep.
const MAX_VIEW_DEPTH: usize = 16;

/// Tables and views of a statement at most, those that views read included.
const MAX_RELATIONS: usize = 5_000;

/// Rows of a batch within a plan: fewer where many results are open, since each holds a few batches in each of its operators, read
/// or not.
const MAX_BATCH_ROWS: usize = 8 * 1024;
const MIN_BATCH_ROWS: usize = 256;
/// What a row is reckoned with for that.
const ROW_BYTES: usize = 512;

type DfResult<T> = datafusion::error::Result<T>;

/// The rows that a statement returns, and the parameters that it takes.
#[derive(Debug, Clone)]
pub(crate) struct Description {
    /// Empty where it returns none.
    pub(crate) schema: SchemaRef,
    /// Named "$1", "$2", ...
    pub(crate) parameters: SchemaRef,
}

impl Default for Description {
    fn default() -> Self {
        Self { schema: Arc::new(Schema::empty()), parameters: Arc::new(Schema::empty()) }
    }
}

/// The database and a session's settings as they are when a statement begins. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct StatementContext {
    /// The database.
    pub(crate) database: Database,
    /// The session's settings.
    pub(crate) settings: Settings,
    /// What runs, where something does.
    pub(crate) query: Option<Arc<Query>>,
}

impl StatementContext {
    /// The same for what runs.
    pub(crate) fn running(mut self, query: &Arc<Query>) -> Self {
        self.query = Some(Arc::clone(query));
        self
    }

    /// Plans on `snapshot`.
    pub(crate) fn plan_context(&self, snapshot: &Snapshot) -> PlanContext {
        PlanContext {
            state: OnceLock::new(),
            snapshot: snapshot.clone(),
            statement: self.clone(),
            definitions: Arc::default(),
            relations: Arc::default(),
            sources: Arc::default(),
            view_depth: 0,
        }
    }

    /// The table or view that a name in a statement means.
    pub(crate) fn table_name(&self, name: &ast::ObjectName) -> Result<TableName> {
        let mut parts = Vec::with_capacity(3);
        for part in &name.0 {
            let ident = part.as_ident().ok_or_else(|| {
                Error::unsupported(format!("the name {name} holds a function call"))
            })?;
            parts.push(fold(ident));
        }
        match parts.as_slice() {
            [table] => {
                Ok(TableName::new(Arc::clone(&self.settings.current_schema), table.as_str()))
            }
            [schema, table] => Ok(TableName::new(schema.as_str(), table.as_str())),
            [catalog, schema, table] if catalog == CATALOG => {
                Ok(TableName::new(schema.as_str(), table.as_str()))
            }
            _ => Err(Error::new(
                Code::InvalidCatalogName,
                format!("\"{name}\" does not exist: the only catalog is \"{CATALOG}\""),
            )),
        }
    }
}

/// An identifier as it is looked up: lower case unless quoted.
pub(crate) fn fold(ident: &ast::Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    }
}

/// Tables and views as a statement names them, with the number of relations that each reads.
#[derive(Default)]
struct Sources(HashMap<TableReference, (Arc<dyn TableSource>, usize)>);

impl std::fmt::Debug for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

fn too_many_relations() -> Error {
    too_complex(format!(
        "the statement reads more than {MAX_RELATIONS} tables, those of views included"
    ))
}

/// Plans and runs queries on one snapshot.
#[derive(Debug, Clone)]
pub(crate) struct PlanContext {
    /// Made when it is first asked for: a statement that needs no planner does without the copy.
    state: OnceLock<SessionState>,
    snapshot: Snapshot,
    statement: StatementContext,
    /// What was looked up so far.
    definitions: Arc<Mutex<Definitions>>,
    /// Tables and views that were looked up so far, those in views each time.
    relations: Arc<AtomicUsize>,
    /// Tables and views that were named so far: a view is planned once.
    sources: Arc<Mutex<Sources>>,
    view_depth: usize,
}

impl PlanContext {
    /// DataFusion's state: configuration, functions, optimizer rules.
    pub(crate) fn state(&self) -> &SessionState {
        self.state.get_or_init(|| {
            let statement = &self.statement;
            let query = statement.query.clone();
            let mut state = statement.database.planning_state(&statement.settings, query);
            let results = statement.database.results();
            let rows = (results.part_bytes() / ROW_BYTES).clamp(MIN_BATCH_ROWS, MAX_BATCH_ROWS);
            *state.config_mut() = std::mem::take(state.config_mut()).with_batch_size(rows);
            state.config_mut().set_extension(results);
            if let Some(query) = &statement.query {
                state.config_mut().set_extension(Arc::clone(query));
            }
            state
        })
    }

    /// The snapshot.
    pub(crate) fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The definitions that it has planned on so far.
    pub(crate) fn definitions(&self) -> Definitions {
        self.definitions.lock().clone()
    }

    /// The table called `name`.
    pub(crate) fn table(&self, name: &TableName) -> Option<TableSnapshot> {
        let table = self.snapshot.table(name)?;
        self.definitions.lock().add_table(table.meta());
        Some(table)
    }

    /// The session's time zone.
    pub(crate) fn zone(&self) -> TimeZone {
        self.statement.settings.zone()
    }

    /// What the statement began with.
    pub(crate) fn statement(&self) -> &StatementContext {
        &self.statement
    }

    /// The logical plan of a query (a SELECT, VALUES or EXPLAIN), not optimized yet.
    pub(crate) fn plan(&self, statement: &ast::Statement) -> Result<LogicalPlan> {
        self.within_limit(|| {
            let statement = semantics::rewrite(self, statement.clone())?;
            let plan = self.planner().sql_statement_to_plan(statement)?;
            planning::check_plan(&plan)?;
            Ok(plan)
        })
    }

    /// Plans in the time that planning may take.
    fn within_limit<T>(&self, plan: impl FnOnce() -> T) -> T {
        planning::within(self.statement.database.options().planning_timeout, plan)
    }

    /// The logical plan of a query, not optimized yet.
    pub(crate) fn plan_query(&self, query: &ast::Query) -> Result<LogicalPlan> {
        self.plan(&ast::Statement::Query(Box::new(query.clone())))
    }

    /// An expression over the columns of `schema`.
    pub(crate) fn expression(&self, expr: &ast::Expr, schema: &DFSchema) -> Result<Expr> {
        let expr = semantics::rewrite_expression(expr.clone())?;
        Ok(self.planner().sql_to_expr(expr, schema, &mut PlannerContext::new())?)
    }

    /// The plan with its types coerced.
    pub(crate) fn analyze(&self, plan: LogicalPlan) -> Result<LogicalPlan> {
        let options = self.state().config_options();
        let analyzer = self.state().analyzer();
        Ok(self.within_limit(|| analyzer.execute_and_check(plan, options, |_, _| {}))?)
    }

    /// An expression over the columns of `schema` as the analyzer leaves it in a plan.
    pub(crate) fn analyze_expression(&self, expression: Expr, schema: &DFSchema) -> Result<Expr> {
        let input = LogicalPlan::EmptyRelation(EmptyRelation {
            produce_one_row: true,
            schema: Arc::new(schema.clone()),
        });
        let plan = LogicalPlan::Projection(Projection::try_new(vec![expression], Arc::new(input))?);
        match self.analyze(plan)? {
            LogicalPlan::Projection(Projection { expr, .. }) if expr.len() == 1 => {
                Ok(expr.into_iter().next().map(Expr::unalias).unwrap_or_default())
            }
            other => Err(Error::internal(format!("an expression became {}", other.display()))),
        }
    }

    /// The optimized physical plan. Blocks.
    pub(crate) fn physical_plan(&self, plan: &LogicalPlan) -> Result<Arc<dyn ExecutionPlan>> {
        let planning = self.state().create_physical_plan(plan);
        Ok(self.within_limit(|| futures::executor::block_on(planning))?)
    }

    /// The physical plan of a logical one that is optimized already. Blocks.
    pub(crate) fn physical_plan_of_optimized(
        &self,
        plan: &LogicalPlan,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let planner = self.state().query_planner();
        let planning = planner.create_physical_plan(plan, self.state());
        Ok(self.within_limit(|| futures::executor::block_on(planning))?)
    }

    /// The logical plan, optimized.
    pub(crate) fn optimize(&self, plan: &LogicalPlan) -> Result<LogicalPlan> {
        Ok(self.within_limit(|| self.state().optimize(plan))?)
    }

    /// Starts a physical plan.
    pub(crate) fn start(&self, plan: Arc<dyn ExecutionPlan>) -> Result<SendableRecordBatchStream> {
        if let Some(query) = &self.statement.query {
            query.check()?;
            query.will_read(scan_exec::rows_to_read(&plan)?);
        }
        Ok(execute_stream(plan, self.state().task_ctx())?)
    }

    /// Plans and runs a query; its batches come as they are asked for. Blocks; must not be called on an async thread.
    pub(crate) fn run(&self, plan: &LogicalPlan) -> Result<BlockingRows> {
        let plan = self.physical_plan(plan)?;
        let lease = self.statement.database.lease()?;
        let entered = lease.handle().enter();
        let stream = self.start(plan)?;
        drop(entered);
        Ok(BlockingRows { stream, query: self.statement.query.clone(), lease })
    }

    fn planner(&self) -> SqlToRel<'_, Self> {
        let options = &self.state().config_options().sql_parser;
        SqlToRel::new_with_options(
            self,
            ParserOptions {
                parse_float_as_decimal: true,
                enable_ident_normalization: true,
                support_varchar_with_length: false,
                enable_options_value_normalization: false,
                map_string_types_to_utf8view: false,
                collect_spans: options.collect_spans,
                default_null_ordering: NullOrdering::NullsMax,
            },
        )
    }

    fn resolve(&self, reference: &TableReference) -> Result<TableName> {
        match reference {
            TableReference::Bare { table } => Ok(TableName::new(
                Arc::clone(&self.statement.settings.current_schema),
                Arc::clone(table),
            )),
            TableReference::Partial { schema, table } => {
                Ok(TableName::new(Arc::clone(schema), Arc::clone(table)))
            }
            TableReference::Full { catalog, schema, table } if **catalog == *CATALOG => {
                Ok(TableName::new(Arc::clone(schema), Arc::clone(table)))
            }
            TableReference::Full { catalog, .. } => Err(Error::new(
                Code::InvalidCatalogName,
                format!("catalog \"{catalog}\" does not exist; the only one is \"{CATALOG}\""),
            )),
        }
    }

    /// What a name means. Where it is asked for to be read (`reads`), what it reads counts.
    pub(crate) fn source(
        &self,
        name: TableReference,
        reads: bool,
    ) -> DfResult<Arc<dyn TableSource>> {
        let known = self.sources.lock().0.get(&name).cloned();
        if let Some((source, size)) = known {
            if reads && self.relations.fetch_add(size, Ordering::Relaxed) + size > MAX_RELATIONS {
                return Err(too_many_relations().into());
            }
            return Ok(source);
        }
        let before = self.relations.load(Ordering::Relaxed);
        let source = provider_as_source(self.provider(&self.resolve(&name)?)?);
        let size = self.relations.load(Ordering::Relaxed) - before;
        if !reads {
            self.relations.fetch_sub(size, Ordering::Relaxed);
        }
        self.sources.lock().0.insert(name, (Arc::clone(&source), size));
        Ok(source)
    }

    /// The table, view or system table called `name`.
    pub(crate) fn provider(&self, name: &TableName) -> Result<Arc<dyn TableProvider>> {
        planning::check_stopped()?;
        if self.relations.fetch_add(1, Ordering::Relaxed) >= MAX_RELATIONS {
            return Err(too_many_relations());
        }
        if let Some(table) = self.table(name) {
            return Ok(Arc::new(EngineTable::new(table)));
        }
        if let Some(sql) = self.snapshot.view(name) {
            self.definitions.lock().add_view(name, &sql);
            return self.view(name, &sql);
        }
        if let Some(table) = system::table(self, name)? {
            self.definitions.lock().add_passing();
            return Ok(table);
        }
        Err(self.unknown_table(name))
    }

    fn view(&self, name: &TableName, sql: &str) -> Result<Arc<dyn TableProvider>> {
        if self.view_depth >= MAX_VIEW_DEPTH {
            return Err(Error::new(
                Code::StatementTooComplex,
                format!("view {name} refers to views more than {MAX_VIEW_DEPTH} deep"),
            ));
        }
        let Statement::Query(query) = parse::parse_one(sql, self.statement.database.options())?
        else {
            return Err(Error::internal(format!("view {name} is not a query")));
        };
        let mut inner = self.clone();
        inner.view_depth += 1;
        let plan = semantics::names::with_shown_names(inner.plan(&query)?)?;
        Ok(Arc::new(ViewTable::new(plan, Some(sql.to_owned()))))
    }

    /// The error for a table that does not exist, with the nearest that does.
    pub(crate) fn unknown_table(&self, name: &TableName) -> Error {
        let mut message =
            format!("table {}.{} does not exist", quote(&name.schema), quote(&name.name));
        let tables = self.snapshot.tables();
        let views = self.snapshot.views();
        let names = tables
            .iter()
            .map(|t| &t.meta().name)
            .chain(views.iter().map(|(n, _)| n))
            .filter(|n| n.schema == name.schema)
            .map(|n| n.name.as_ref());
        if let Some(near) = nearest(&name.name, names) {
            message.push_str(&format!("; did you mean {}?", quote(near)));
        }
        Error::new(Code::UndefinedTable, message)
    }
}

/// The batches of a query, for a thread that may block.
pub(crate) struct BlockingRows {
    stream: SendableRecordBatchStream,
    query: Option<Arc<Query>>,
    /// Given back after the stream.
    lease: Lease,
}

impl Iterator for BlockingRows {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let Self { stream, query, lease } = self;
        lease.handle().block_on(async {
            let stopped = async {
                match query {
                    Some(query) => query.stopped().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = stopped => query.as_ref().and_then(|query| query.check().err()).map(Err),
                next = stream.next() => next.map(|batch| batch.map_err(Error::from)),
            }
        })
    }
}

impl ContextProvider for PlanContext {
    fn get_table_source(&self, name: TableReference) -> DfResult<Arc<dyn TableSource>> {
        if let TableReference::Full { catalog, schema, table } = &name
            && **catalog == *TARGET_CATALOG
        {
            let name = TableName::new(Arc::clone(schema), Arc::clone(table));
            let table = self.table(&name).ok_or_else(|| self.unknown_table(&name))?;
            return Ok(provider_as_source(Arc::new(EngineTable::with_row_address(table))));
        }
        self.source(name, true)
    }

    fn get_table_function_source(
        &self,
        name: &str,
        args: Vec<Expr>,
    ) -> DfResult<Arc<dyn TableSource>> {
        let function = self.state().table_functions().get(name).ok_or_else(|| {
            let message = format!("table function \"{name}\" does not exist");
            Error::new(Code::UndefinedFunction, message)
        })?;
        let arguments = TableFunctionArgs::new(&args, self.state());
        Ok(provider_as_source(function.create_table_provider_with_args(arguments)?))
    }

    fn create_cte_work_table(
        &self,
        name: &str,
        schema: SchemaRef,
    ) -> DfResult<Arc<dyn TableSource>> {
        use datafusion::datasource::cte_worktable::CteWorkTable;
        Ok(provider_as_source(Arc::new(CteWorkTable::new(name, schema))))
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        self.state().expr_planners()
    }

    fn get_relation_planners(&self) -> &[Arc<dyn RelationPlanner>] {
        self.state().relation_planners()
    }

    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        Some(Arc::new(SqlTypes { zone: self.zone() }))
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        self.state().scalar_functions().get(name).cloned()
    }

    fn get_higher_order_meta(&self, name: &str) -> Option<Arc<HigherOrderUDF>> {
        self.state().higher_order_functions().get(name).cloned()
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        self.state().aggregate_functions().get(name).cloned()
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        self.state().window_functions().get(name).cloned()
    }

    fn get_variable_type(&self, _variable_names: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        self.state().config_options()
    }

    fn udf_names(&self) -> Vec<String> {
        names(self.state().scalar_functions())
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        names(self.state().higher_order_functions())
    }

    fn udaf_names(&self) -> Vec<String> {
        names(self.state().aggregate_functions())
    }

    fn udwf_names(&self) -> Vec<String> {
        names(self.state().window_functions())
    }
}

fn names<T>(functions: &HashMap<String, T>) -> Vec<String> {
    functions.keys().cloned().collect()
}
