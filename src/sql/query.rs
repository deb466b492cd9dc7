//! Runs queries: from a statement and its parameters to a stream of batches.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{ParamValues, ScalarValue};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{CastExpr, Column, Literal};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::buffer::BufferExec;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::placeholder_row::PlaceholderRowExec;
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::stream::RecordBatchReceiverStreamBuilder;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};

use super::code::Code;
use super::context::{Description, PlanContext, StatementContext};
use super::error::{Error, Result};
use super::parse::Statement;
use super::planning::Deep;
use super::prepared::Prepared;
use super::scan_exec::ScanExec;
use super::semantics::names::shown;
use super::workers::panic_error;
use super::{Rows, definitions, parameters, show};
use crate::engine::{KeyRange, Snapshot};

/// Batches that a query produces ahead of the one who asks.
const READ_AHEAD: usize = 2;

/// A query planned up to its parameters.
#[derive(Debug, Clone)]
pub(crate) struct PlannedQuery {
    /// With its parameters in it.
    pub(crate) plan: LogicalPlan,
    /// It has no parameters, and needs a physical plan only.
    optimized: bool,
    /// What it returns and takes.
    pub(crate) description: Description,
}

impl PlannedQuery {
    /// The plan to be kept for later, without the rows of its tables; `None` where it is of no use then.
    pub(crate) fn kept(self, context: &PlanContext) -> Result<Option<Self>> {
        let Self { mut plan, mut optimized, description } = self;
        if !context.definitions().last()
            || matches!(plan, LogicalPlan::Explain(_) | LogicalPlan::Analyze(_))
        {
            return Ok(None);
        }
        // What fails to be optimized, such as a division by zero, says so when it is run.
        if description.parameters.fields().is_empty()
            && definitions::is_timeless(&plan)?
            && let Ok(better) = context.optimize(&plan)
        {
            (plan, optimized) = (better, true);
        }
        let plan = definitions::without_rows(plan)?;
        Ok(plan.map(|plan| Self { plan, optimized, description }))
    }

    /// A plan that was kept, on the tables of a snapshot in which their definitions are current.
    pub(crate) fn on(&self, snapshot: &Snapshot) -> Result<Self> {
        let plan = definitions::with_rows(self.plan.clone(), snapshot)?;
        Ok(Self { plan, optimized: self.optimized, description: self.description.clone() })
    }

    /// Whether planning has left nothing to compute.
    pub(crate) fn is_constant(&self) -> bool {
        fn is_constant(plan: &LogicalPlan) -> bool {
            match plan {
                LogicalPlan::Projection(projection) => {
                    let values =
                        projection.expr.iter().all(|e| matches!(unaliased(e), Expr::Literal(..)));
                    values && is_constant(&projection.input)
                }
                LogicalPlan::EmptyRelation(_) => true,
                _ => false,
            }
        }
        self.optimized && is_constant(&self.plan)
    }

    /// The physical plan for values of the parameters. Blocks.
    fn physical(
        &self,
        context: &PlanContext,
        values: &[ScalarValue],
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match self.optimized {
            true => context.physical_plan_of_optimized(&self.plan),
            false => context.physical_plan(&bind(self.plan.clone(), values)?),
        }
    }

    /// What it returns for values of such types.
    fn schema_for(
        &self,
        context: &PlanContext,
        parameters: Option<&RecordBatch>,
    ) -> Result<SchemaRef> {
        let Description { schema, parameters: described } = &self.description;
        match parameters::bound_types(described, parameters, &context.zone())? {
            Some(nulls) => answer_schema(context, &self.plan, &nulls),
            None => Ok(Arc::clone(schema)),
        }
    }
}

/// Plans a query as far as its parameters allow. Blocks.
pub(crate) fn plan(context: &PlanContext, statement: &Statement) -> Result<PlannedQuery> {
    let plan = match statement {
        Statement::Query(statement) => context.plan(statement)?,
        Statement::Show(statement) => {
            let query = show::as_query(context, statement)?;
            context.plan(&query)?
        }
        _ => return Err(Error::internal("a statement that is no query was planned as one")),
    };
    super::allow::check(&plan)?;
    let parameters = parameters::of_plan(&plan)?;
    let mut choices = parameters::nulls(&parameters)?.into_iter();
    let mut schema = answer_schema(context, &plan, &choices.next().unwrap_or_default());
    for nulls in choices {
        let Err(first) = schema else { break };
        schema = answer_schema(context, &plan, &nulls).map_err(|_| first);
    }
    let description = Description { schema: schema?, parameters };
    Ok(PlannedQuery { plan, optimized: false, description })
}

/// What a plan returns where its parameters have the types of these NULLs: the types that coercion gives.
fn answer_schema(
    context: &PlanContext,
    plan: &LogicalPlan,
    nulls: &[ScalarValue],
) -> Result<SchemaRef> {
    let typed = bind(plan.clone(), nulls)?;
    let schema = match &typed {
        LogicalPlan::Explain(_) | LogicalPlan::Analyze(_) => typed.schema().inner().clone(),
        _ => context.analyze(typed)?.schema().inner().clone(),
    };
    // Names only: what tables carry as metadata of columns is no part of an answer.
    let fields: Vec<Field> = schema
        .fields()
        .iter()
        .map(|f| Field::new(shown(f.name()), f.data_type().clone(), f.is_nullable()))
        .collect();
    Ok(Arc::new(Schema::new(fields)))
}

/// What a statement returns for values of such types. Blocks.
pub(crate) fn schema_for(
    context: &StatementContext,
    snapshot: &Snapshot,
    statement: &Prepared,
    parameters: Option<&RecordBatch>,
) -> Result<SchemaRef> {
    let plan_context = context.plan_context(snapshot);
    let planned = planned(&plan_context, statement)?;
    planned.schema_for(&plan_context, parameters)
}

/// A statement's plan on the snapshot of `context`: the one that it was prepared with, where definitions have stayed.
fn planned(context: &PlanContext, statement: &Prepared) -> Result<PlannedQuery> {
    match &statement.planned {
        Some(kept) if statement.definitions.are_current(context.snapshot()) => {
            kept.on(context.snapshot())
        }
        _ => plan(context, &statement.statement),
    }
}

fn bind(plan: LogicalPlan, values: &[ScalarValue]) -> Result<LogicalPlan> {
    if values.is_empty() {
        return Ok(plan);
    }
    let values = values.iter().cloned().map(Into::into).collect();
    Ok(plan.replace_params_with_values(&ParamValues::List(values))?)
}

/// Runs a query on `snapshot`, once for each row of `parameters`, or a part of it ([`split`]). Blocks while the first is
/// planned.
pub(crate) fn run(
    context: &StatementContext,
    snapshot: &Snapshot,
    statement: &Prepared,
    parameters: Option<&RecordBatch>,
    part: Option<&KeyRange>,
) -> Result<Rows> {
    let plan_context = context.plan_context(snapshot);
    let planned = planned(&plan_context, statement)?;
    let bindings =
        parameters::bindings(&planned.description.parameters, parameters, &plan_context.zone())?;
    let schema = planned.schema_for(&plan_context, parameters)?;
    let mut bindings = bindings.into_iter();
    let Some(first) = bindings.next() else {
        return Ok(Rows { schema, stream: stream::empty().boxed() });
    };
    let first = start(&plan_context, &planned, &first, &schema, part)?;
    if bindings.len() == 0 {
        return Ok(rows(schema, first.map_err(Error::from).boxed()));
    }
    // Each further binding is planned when the one before has ended.
    let workers = context.database.workers().clone();
    let planned = Arc::new(Deep::new(planned));
    let announced = Arc::clone(&schema);
    let rest = stream::iter(bindings)
        .then(move |values| {
            let (plan_context, planned) = (plan_context.clone(), Arc::clone(&planned));
            let (workers, schema) = (workers.clone(), Arc::clone(&announced));
            let start = move || start(&plan_context, &planned, &values, &schema, None);
            async move { workers.run(start).await }
        })
        .map_ok(|stream| stream.map_err(Error::from))
        .try_flatten();
    Ok(rows(schema, first.map_err(Error::from).chain(rest).boxed()))
}

/// Plans a query with its parameters bound, and starts it.
fn start(
    context: &PlanContext,
    planned: &PlannedQuery,
    values: &[ScalarValue],
    schema: &SchemaRef,
    part: Option<&KeyRange>,
) -> Result<SendableRecordBatchStream> {
    let mut physical = planned.physical(context, values)?;
    if !values.is_empty() {
        physical = of_types(physical, schema)?;
    }
    if let Some(part) = part {
        physical = restrict(physical, part)?;
    }
    if computes_nothing(&physical) {
        // A scan reads on a blocking thread.
        return context.start(physical);
    }
    let lease = context.statement().database.lease()?;
    let runtime = lease.handle().clone();
    let entered = runtime.enter();
    let stream = context.start(physical)?;
    drop(entered);
    let mut builder = RecordBatchReceiverStreamBuilder::new(stream.schema(), READ_AHEAD);
    let sender = builder.tx();
    builder.spawn_on(
        async move {
            // Given back after the stream.
            let _lease = lease;
            let mut stream = AssertUnwindSafe(stream).catch_unwind();
            while let Some(batch) = stream.next().await {
                let batch = match batch {
                    Ok(batch) => batch,
                    Err(panic) => Err(panic_error(panic.as_ref()).into()),
                };
                let failed = batch.is_err();
                if sender.send(batch).await.is_err() || failed {
                    break;
                }
            }
            Ok(())
        },
        &runtime,
    );
    Ok(builder.build())
}

/// The plan with the types that were announced. A bound value may decide on one, such as how many digits `round` keeps, and was not
/// known then.
fn of_types(plan: Arc<dyn ExecutionPlan>, schema: &Schema) -> Result<Arc<dyn ExecutionPlan>> {
    let given = plan.schema();
    let pairs = given.fields().iter().zip(schema.fields());
    if pairs.clone().all(|(given, field)| given.data_type() == field.data_type()) {
        return Ok(plan);
    }
    let columns = pairs.enumerate().map(|(i, (given, field))| {
        let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new(given.name(), i));
        let expr = match given.data_type() == field.data_type() {
            true => column,
            false => Arc::new(CastExpr::new(column, field.data_type().clone(), None)) as _,
        };
        ProjectionExpr { expr, alias: field.name().clone() }
    });
    Ok(Arc::new(ProjectionExec::try_new(columns.collect::<Vec<_>>(), plan)?))
}

/// Cuts the keys of the table that a query reads into parts of about as many rows: the query of each part returns its share
/// of the rows. Just one part where that does not hold. Blocks.
pub(crate) fn split(
    context: &StatementContext,
    snapshot: &Snapshot,
    statement: &Prepared,
    parameters: Option<&RecordBatch>,
    count: usize,
) -> Result<Vec<KeyRange>> {
    let plan_context = context.plan_context(snapshot);
    let planned = planned(&plan_context, statement)?;
    let bindings =
        parameters::bindings(&planned.description.parameters, parameters, &plan_context.zone())?;
    let [binding] = bindings.as_slice() else { return Ok(vec![KeyRange::all()]) };
    let physical = planned.physical(&plan_context, binding)?;
    let parts = match scan_of_rows(&physical) {
        Some(scan) => scan.parts(count)?,
        None => None,
    };
    Ok(parts.unwrap_or_else(|| vec![KeyRange::all()]))
}

/// The scan of a plan that makes of each row of a table one row or none, in the table's order.
fn scan_of_rows(plan: &Arc<dyn ExecutionPlan>) -> Option<&ScanExec> {
    if let Some(scan) = plan.downcast_ref::<ScanExec>() {
        return Some(scan);
    }
    let of_rows = plan.downcast_ref::<ProjectionExec>().is_some()
        || plan.downcast_ref::<BufferExec>().is_some()
        || plan.downcast_ref::<FilterExec>().is_some()
        || plan.downcast_ref::<CoalescePartitionsExec>().is_some()
        || plan.downcast_ref::<SortPreservingMergeExec>().is_some()
        || plan.downcast_ref::<CooperativeExec>().is_some()
        || plan.downcast_ref::<RepartitionExec>().is_some();
    match plan.children().as_slice() {
        [child] if of_rows && plan.fetch().is_none() => scan_of_rows(child),
        _ => None,
    }
}

/// The plan for a part of the keys.
fn restrict(plan: Arc<dyn ExecutionPlan>, part: &KeyRange) -> Result<Arc<dyn ExecutionPlan>> {
    if scan_of_rows(&plan).is_none() {
        return Err(Error::data("the ticket is of a part of a query that has none"));
    }
    let restricted = plan.transform_up(|node| match node.downcast_ref::<ScanExec>() {
        Some(scan) => Ok(Transformed::yes(Arc::new(scan.within(part)?) as _)),
        None => Ok(Transformed::no(node)),
    })?;
    Ok(restricted.data)
}

/// Whether a plan does no more than read a table, or show constants.
fn computes_nothing(plan: &Arc<dyn ExecutionPlan>) -> bool {
    if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
        let plain = projection.expr().iter().all(|e| {
            e.expr.downcast_ref::<Column>().is_some() || e.expr.downcast_ref::<Literal>().is_some()
        });
        return plain && computes_nothing(projection.input());
    }
    plan.downcast_ref::<ScanExec>().is_some() || plan.downcast_ref::<PlaceholderRowExec>().is_some()
}

fn unaliased(mut expr: &Expr) -> &Expr {
    while let Expr::Alias(alias) = expr {
        expr = &alias.expr;
    }
    expr
}

/// Gives every batch the schema that was announced.
fn rows(schema: SchemaRef, stream: BoxStream<'static, Result<RecordBatch>>) -> Rows {
    let announced = Arc::clone(&schema);
    let stream = guarded(stream).map(move |batch| with_schema(&announced, batch?)).boxed();
    Rows { schema, stream }
}

/// The stream with a panic of what produces it as an error.
pub(crate) fn guarded(
    stream: BoxStream<'static, Result<RecordBatch>>,
) -> impl futures::Stream<Item = Result<RecordBatch>> + Send + 'static {
    AssertUnwindSafe(stream)
        .catch_unwind()
        .map(|batch| batch.unwrap_or_else(|panic| Err(panic_error(panic.as_ref()))))
}

/// Waits for `work` at most so long.
pub(crate) async fn within<T>(
    limit: Duration,
    what: &str,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => Err(Error::new(
            Code::StatementTimeout,
            format!("{what} took longer than the limit of {limit:?}"),
        )),
    }
}

fn with_schema(schema: &SchemaRef, batch: RecordBatch) -> Result<RecordBatch> {
    if Arc::ptr_eq(schema, batch.schema_ref()) || schema == batch.schema_ref() {
        return Ok(batch);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    for (field, column) in schema.fields().iter().zip(batch.columns()) {
        if field.data_type() != column.data_type() {
            return Err(type_changed(field, column.data_type()));
        }
    }
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), batch.columns().to_vec(), &options)?)
}

fn type_changed(field: &Field, found: &DataType) -> Error {
    Error::internal(format!(
        "column \"{}\" was planned as {} and came as {found}",
        field.name(),
        field.data_type()
    ))
}
