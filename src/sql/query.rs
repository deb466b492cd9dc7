//! Runs queries: from a statement and its parameters to a stream of batches.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::{ParamValues, ScalarValue};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::stream::RecordBatchReceiverStreamBuilder;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use tokio::time::Instant;

use super::context::{Description, PlanContext, StatementContext};
use super::error::{Error, ErrorKind, Result};
use super::parse::Statement;
use super::scan_exec::ScanExec;
use super::workers::panic_error;
use super::{Rows, parameters, show};
use crate::engine::Snapshot;

/// Batches that a query produces ahead of the one who asks.
const READ_AHEAD: usize = 2;

/// A query planned up to its parameters.
#[derive(Debug, Clone)]
pub(crate) struct PlannedQuery {
    /// Not optimized, parameters in it.
    pub(crate) plan: LogicalPlan,
    /// What it returns and takes.
    pub(crate) description: Description,
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
    // The answer's types are those that coercion gives; a bound parameter is as if it were NULL.
    let typed = bind(plan.clone(), &parameters::nulls(&parameters)?)?;
    let schema = match &typed {
        LogicalPlan::Explain(_) | LogicalPlan::Analyze(_) => typed.schema().inner().clone(),
        _ => context.analyze(typed)?.schema().inner().clone(),
    };
    // Names only: what tables carry as metadata of columns is no part of an answer.
    let fields: Vec<Field> = schema
        .fields()
        .iter()
        .map(|f| Field::new(f.name(), f.data_type().clone(), f.is_nullable()))
        .collect();
    let schema = Arc::new(Schema::new(fields));
    Ok(PlannedQuery { plan, description: Description { schema, parameters } })
}

fn bind(plan: LogicalPlan, values: &[ScalarValue]) -> Result<LogicalPlan> {
    if values.is_empty() {
        return Ok(plan);
    }
    let values = values.iter().cloned().map(Into::into).collect();
    Ok(plan.replace_params_with_values(&ParamValues::List(values))?)
}

/// Runs a query on `snapshot`, once for each row of `parameters`. Blocks while the first is planned.
pub(crate) fn run(
    context: &StatementContext,
    snapshot: &Snapshot,
    statement: &Statement,
    parameters: Option<&RecordBatch>,
) -> Result<Rows> {
    let plan_context = context.plan_context(snapshot);
    let planned = plan(&plan_context, statement)?;
    let schema = Arc::clone(&planned.description.schema);
    let bindings = parameters::bindings(&planned.description.parameters, parameters)?;
    let deadline = context.settings.statement_timeout.map(|t| Instant::now() + t);
    let mut bindings = bindings.into_iter();
    let Some(first) = bindings.next() else {
        return Ok(Rows { schema, stream: stream::empty().boxed() });
    };
    let first = start(&plan_context, planned.plan.clone(), &first)?;
    if bindings.len() == 0 {
        return Ok(rows(schema, first.map_err(Error::from).boxed(), deadline));
    }
    // Each further binding is planned when the one before has ended.
    let workers = context.database.workers().clone();
    let logical = planned.plan;
    let rest = stream::iter(bindings)
        .then(move |values| {
            let (plan_context, plan) = (plan_context.clone(), logical.clone());
            let workers = workers.clone();
            async move { workers.run(move || start(&plan_context, plan, &values)).await }
        })
        .map_ok(|stream| stream.map_err(Error::from))
        .try_flatten();
    Ok(rows(schema, first.map_err(Error::from).chain(rest).boxed(), deadline))
}

/// Plans a query with its parameters bound, and starts it.
fn start(
    context: &PlanContext,
    plan: LogicalPlan,
    values: &[ScalarValue],
) -> Result<SendableRecordBatchStream> {
    let plan = bind(plan, values)?;
    let physical = context.physical_plan(&plan)?;
    let direct = reads_only(&physical);
    let stream = context.start(physical)?;
    if direct {
        // The scan reads on a blocking thread; nothing is computed where it is polled.
        return Ok(stream);
    }
    let runtime = context.statement().database.runtime();
    let mut builder = RecordBatchReceiverStreamBuilder::new(stream.schema(), READ_AHEAD);
    let sender = builder.tx();
    builder.spawn_on(
        async move {
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

/// Whether a plan does no more than read a table.
fn reads_only(plan: &Arc<dyn ExecutionPlan>) -> bool {
    if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
        let plain = projection.expr().iter().all(|e| {
            e.expr.downcast_ref::<datafusion::physical_expr::expressions::Column>().is_some()
        });
        return plain && reads_only(projection.input());
    }
    plan.downcast_ref::<ScanExec>().is_some()
}

/// Gives every batch the schema that was announced, and ends at the deadline.
fn rows(
    schema: SchemaRef,
    stream: BoxStream<'static, Result<RecordBatch>>,
    deadline: Option<Instant>,
) -> Rows {
    let announced = Arc::clone(&schema);
    let stream = guarded(stream).map(move |batch| with_schema(&announced, batch?));
    let stream = match deadline {
        None => stream.boxed(),
        Some(deadline) => until(stream.boxed(), deadline),
    };
    Rows { schema, stream }
}

/// The stream with a panic of what produces it as an error.
fn guarded(
    stream: BoxStream<'static, Result<RecordBatch>>,
) -> impl futures::Stream<Item = Result<RecordBatch>> + Send + 'static {
    AssertUnwindSafe(stream)
        .catch_unwind()
        .map(|batch| batch.unwrap_or_else(|panic| Err(panic_error(panic.as_ref()))))
}

/// Ends rows at the deadline that the session sets.
pub(crate) fn with_deadline(rows: Rows, context: &StatementContext) -> Rows {
    let rows = Rows { schema: rows.schema, stream: guarded(rows.stream).boxed() };
    match context.settings.statement_timeout {
        None => rows,
        Some(limit) => {
            Rows { schema: rows.schema, stream: until(rows.stream, Instant::now() + limit) }
        }
    }
}

fn until(
    stream: BoxStream<'static, Result<RecordBatch>>,
    deadline: Instant,
) -> BoxStream<'static, Result<RecordBatch>> {
    stream::unfold(Some(stream), move |stream| async move {
        let mut stream = stream?;
        match tokio::time::timeout_at(deadline, stream.next()).await {
            Ok(Some(batch)) => Some((batch, Some(stream))),
            Ok(None) => None,
            Err(_) => Some((Err(timed_out()), None)),
        }
    })
    .boxed()
}

/// The error for a statement that ran out of time.
pub(crate) fn timed_out() -> Error {
    Error::new(ErrorKind::Cancelled, "the statement ran out of time (statement_timeout)")
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
            ErrorKind::Cancelled,
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
