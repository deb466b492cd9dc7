//! UPDATE and DELETE.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::Schema;
use datafusion::common::ParamValues;
use datafusion::sql::sqlparser::ast;

use super::by_key::KeyBindings;
use super::evaluate::{bind_plan, param_values};
use super::returning::Returning;
use super::row_source::{FirstOnly, RowSource, Target};
use super::{Parameters, assignments, refuse, set_value};
use crate::engine::{self, OnConflict, Transaction};
use crate::sql::cast::{BatchCaster, CastPolicy};
use crate::sql::context::{Description, PlanContext, StatementContext};
use crate::sql::{Error, Outcome, Result};

/// What a statement changes about the rows it finds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Update,
    Delete,
}

/// An UPDATE or DELETE on one snapshot.
struct Plan {
    change: Change,
    target: Target,
    source: RowSource,
    /// Whether a row may be found more than once.
    joins: bool,
}

/// The table that an UPDATE changes and the tables it joins, after the check that nothing else is there.
fn update_target<'a>(
    context: &PlanContext,
    update: &'a ast::Update,
) -> Result<(Target, &'a [ast::TableWithJoins])> {
    refuse(&[
        ("UPDATE OR", update.or.is_some()),
        ("UPDATE ... ORDER BY", !update.order_by.is_empty()),
        ("UPDATE ... LIMIT", update.limit.is_some()),
        ("OUTPUT", update.output.is_some()),
    ])?;
    let from = match &update.from {
        None => &[][..],
        Some(ast::UpdateTableFromKind::AfterSet(from)) => from,
        Some(ast::UpdateTableFromKind::BeforeSet(_)) => {
            return Err(Error::unsupported("FROM before SET is not supported; put it after"));
        }
    };
    let target = Target::new(context, "UPDATE", std::slice::from_ref(&update.table))?;
    Ok((target, from))
}

fn plan_update(context: &PlanContext, update: &ast::Update) -> Result<Plan> {
    let (target, from) = update_target(context, update)?;
    let meta = target.table.meta();
    let mut items: Vec<ast::Expr> =
        meta.columns.iter().map(|c| target.column(c.field.name())).collect();
    for (column, value) in assignments(&target.table, &update.assignments)? {
        items[column] = set_value(&target.table, column, value)?;
    }
    let with_others = update.returning.is_some();
    let source =
        RowSource::plan(context, &target, items, from, update.selection.as_ref(), with_others)?;
    Ok(Plan { change: Change::Update, target, source, joins: !from.is_empty() })
}

/// The table that a DELETE changes, after the check that nothing unknown is there.
fn delete_target(context: &PlanContext, delete: &ast::Delete) -> Result<Target> {
    refuse(&[
        ("DELETE of several tables", !delete.tables.is_empty()),
        ("DELETE ... ORDER BY", !delete.order_by.is_empty()),
        ("DELETE ... LIMIT", delete.limit.is_some()),
        ("OUTPUT", delete.output.is_some()),
    ])?;
    let (ast::FromTable::WithFromKeyword(tables) | ast::FromTable::WithoutKeyword(tables)) =
        &delete.from;
    Target::new(context, "DELETE", tables)
}

fn plan_delete(context: &PlanContext, delete: &ast::Delete) -> Result<Plan> {
    let target = delete_target(context, delete)?;
    let using = delete.using.as_deref().unwrap_or_default();
    let returns = delete.returning.is_some();
    let items = match returns {
        true => target.table.meta().columns.iter().map(|c| target.column(c.field.name())).collect(),
        false => Vec::new(),
    };
    let source =
        RowSource::plan(context, &target, items, using, delete.selection.as_ref(), returns)?;
    Ok(Plan { change: Change::Delete, target, source, joins: !using.is_empty() })
}

/// What an UPDATE returns and takes.
pub(super) fn describe_update(context: &PlanContext, update: &ast::Update) -> Result<Description> {
    let plan = plan_update(context, update)?;
    let mut parameters = Parameters::default();
    for (column, value) in assignments(&plan.target.table, &update.assignments)? {
        let field = &plan.target.table.meta().columns[column].field;
        parameters.add_bare(value, field.data_type());
    }
    describe(context, &plan, update.returning.as_deref(), parameters)
}

/// What a DELETE returns and takes.
pub(super) fn describe_delete(context: &PlanContext, delete: &ast::Delete) -> Result<Description> {
    let plan = plan_delete(context, delete)?;
    describe(context, &plan, delete.returning.as_deref(), Parameters::default())
}

fn describe(
    context: &PlanContext,
    plan: &Plan,
    returning: Option<&[ast::SelectItem]>,
    mut parameters: Parameters,
) -> Result<Description> {
    parameters.add_plan(plan.source.logical_plan())?;
    let schema = match returning {
        None => Arc::new(Schema::empty()),
        Some(items) => {
            let input = plan.source.returning_schema(&plan.target)?;
            Arc::clone(Returning::compile(context, items, &input, None)?.schema())
        }
    };
    Ok(Description { schema, parameters: Arc::new(parameters.schema()) })
}

/// Runs an UPDATE.
pub(super) fn execute_update(
    context: &StatementContext,
    transaction: &mut Transaction,
    update: &ast::Update,
    parameters: Option<&RecordBatch>,
) -> Result<Outcome> {
    let returning = update.returning.as_deref();
    if returning.is_none() {
        let plan_context = context.plan_context(&transaction.snapshot());
        let (target, from) = update_target(&plan_context, update)?;
        if from.is_empty()
            && let Some(rows) = KeyBindings::new(
                &target,
                update.selection.as_ref(),
                parameters,
                &context.settings.zone(),
            )
            && let Some(count) = rows.update(context, transaction, &target, &update.assignments)?
        {
            return Ok(Outcome::affected(count));
        }
    }
    for_each_binding(parameters, |bound, _| {
        let plan_context = context.plan_context(&transaction.snapshot());
        let plan = plan_update(&plan_context, update)?;
        plan.run(&plan_context, transaction, returning, bound)
    })
}

/// Runs a DELETE.
pub(super) fn execute_delete(
    context: &StatementContext,
    transaction: &mut Transaction,
    delete: &ast::Delete,
    parameters: Option<&RecordBatch>,
) -> Result<Outcome> {
    let returning = delete.returning.as_deref();
    if returning.is_none() && delete.using.is_none() {
        let plan_context = context.plan_context(&transaction.snapshot());
        let target = delete_target(&plan_context, delete)?;
        if let Some(rows) = KeyBindings::new(
            &target,
            delete.selection.as_ref(),
            parameters,
            &context.settings.zone(),
        ) {
            return Ok(Outcome::affected(rows.delete(&target, transaction)?));
        }
    }
    for_each_binding(parameters, |bound, _| {
        let plan_context = context.plan_context(&transaction.snapshot());
        let plan = plan_delete(&plan_context, delete)?;
        if delete.selection.is_none() && !plan.joins && returning.is_none() {
            return Ok(Outcome::affected(transaction.truncate(plan.target.table.id())?));
        }
        plan.run(&plan_context, transaction, returning, bound)
    })
}

/// Runs a statement for every row of `parameters`, each on what the one before has left, and adds up.
pub(super) fn for_each_binding(
    parameters: Option<&RecordBatch>,
    mut run: impl FnMut(Option<&ParamValues>, usize) -> Result<Outcome>,
) -> Result<Outcome> {
    let Some(batch) = parameters else {
        return run(None, 0);
    };
    let mut total = Outcome::affected(0);
    for row in 0..batch.num_rows() {
        let outcome = run(Some(&param_values(batch, row)?), row)?;
        add(&mut total, outcome);
    }
    Ok(total)
}

/// Adds what one run of a statement did to what the runs before did.
pub(super) fn add(total: &mut Outcome, outcome: Outcome) {
    if let Some(count) = outcome.affected_count {
        *total.affected_count.get_or_insert(0) += count;
    }
    match (&mut total.returned, outcome.returned) {
        (Some((_, rows)), Some((_, more))) => rows.extend(more),
        (none @ None, returned) => *none = returned,
        (Some(_), None) => {}
    }
    match (&mut total.held, outcome.held) {
        (Some(held), Some(more)) => held.join(more),
        (none @ None, held) => *none = held,
        (Some(_), None) => {}
    }
}

impl Plan {
    fn run(
        &self,
        context: &PlanContext,
        transaction: &mut Transaction,
        returning: Option<&[ast::SelectItem]>,
        parameters: Option<&ParamValues>,
    ) -> Result<Outcome> {
        let input = self.source.returning_schema(&self.target)?;
        let mut returning = returning
            .map(|items| Returning::compile(context, items, &input, parameters))
            .transpose()?;
        let meta = self.target.table.meta();
        let all: Vec<usize> = (0..meta.columns.len()).collect();
        let mut caster = BatchCaster::by_position(meta, &all, CastPolicy::Assign, |_| {
            Err(Error::internal("every column of an updated row is given"))
        })?
        .in_zone(context.zone());
        let plan = bind_plan(self.source.logical_plan().clone(), parameters, &context.zone())?;
        let mut write = transaction.write(self.target.table.id(), OnConflict::Error)?;
        let mut first_only = FirstOnly::default();
        let mut count = 0u64;
        for batch in context.run(&plan)? {
            let mut batch = batch?;
            if self.joins {
                batch = first_only.filter(batch)?;
            }
            count += batch.num_rows() as u64;
            let rows = self.source.split(&batch);
            write.delete(&rows.addresses())?;
            let changed = match self.change {
                Change::Update => {
                    let new = caster.cast_columns(rows.items, batch.num_rows())?;
                    write.insert(&new)?;
                    Some(new)
                }
                Change::Delete if returning.is_some() => {
                    Some(caster.cast_columns(rows.items, batch.num_rows())?)
                }
                Change::Delete => None,
            };
            if let (Some(returning), Some(changed)) = (&mut returning, changed) {
                let mut columns: Vec<ArrayRef> = changed.columns().to_vec();
                columns.extend(rows.others);
                let all = RecordBatch::try_new(Arc::clone(input.inner()), columns);
                returning.push(&all.map_err(engine::Error::from)?)?;
            }
        }
        transaction.apply(write)?;
        Ok(Returning::finish(returning, count))
    }
}
