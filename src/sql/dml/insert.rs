//! INSERT.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Schema};
use datafusion::common::{DFSchema, ParamValues, TableReference};
use datafusion::scalar::ScalarValue;
use datafusion::sql::sqlparser::ast;

use super::evaluate::bind_plan;
use super::on_conflict::{Conflict, Inserter, distinct_prefix, encode_keys, update_schema};
use super::returning::Returning;
use super::update::{add, for_each_binding};
use super::values::{Cell, ColumnCells, plain_cell, plain_cells};
use super::{Parameters, assignments, column_index, is_default, qualifier, refuse, table};
use crate::engine::{TableSnapshot, Transaction};
use crate::sql::cast::{BatchCaster, CastPolicy, ColumnDefault};
use crate::sql::context::{Description, PlanContext, StatementContext};
use crate::sql::parse::parse_type;
use crate::sql::semantics::values::united;
use crate::sql::types::sql_name;
use crate::sql::{Error, Outcome, Result, allow, defaults};

/// An INSERT on one snapshot.
struct Plan<'a> {
    insert: &'a ast::Insert,
    table: TableSnapshot,
    qualifier: TableReference,
    /// Positions of the columns that are given values, in the order of the values.
    columns: Vec<usize>,
    source: Source,
}

/// Where the rows come from.
enum Source {
    /// DEFAULT VALUES: one row.
    Defaults,
    /// Literals and parameters, row by row.
    Cells(Vec<Vec<Cell>>),
    /// Anything else.
    Query(Box<ast::Query>),
}

fn refuse_clauses(insert: &ast::Insert) -> Result<()> {
    refuse(&[
        ("INSERT OR", insert.or.is_some()),
        ("INSERT IGNORE", insert.ignore),
        ("INSERT OVERWRITE", insert.overwrite),
        ("INSERT ... SET", !insert.assignments.is_empty()),
        ("INSERT ... PARTITION", insert.partitioned.is_some() || !insert.after_columns.is_empty()),
        ("OUTPUT", insert.output.is_some()),
        ("REPLACE INTO", insert.replace_into),
        ("INSERT with a priority", insert.priority.is_some()),
        ("INSERT with an alias of the new row", insert.insert_alias.is_some()),
        ("INSERT ... SETTINGS", insert.settings.is_some()),
        ("INSERT ... FORMAT", insert.format_clause.is_some()),
        (
            "INSERT into several tables",
            insert.multi_table_insert_type.is_some()
                || !insert.multi_table_into_clauses.is_empty()
                || !insert.multi_table_when_clauses.is_empty()
                || insert.multi_table_else_clause.is_some(),
        ),
    ])
}

impl<'a> Plan<'a> {
    fn new(context: &PlanContext, insert: &'a ast::Insert) -> Result<Self> {
        refuse_clauses(insert)?;
        let ast::TableObject::TableName(name) = &insert.table else {
            return Err(Error::unsupported(format!(
                "INSERT INTO {} is not supported",
                insert.table
            )));
        };
        let name = context.statement().table_name(name)?;
        let table = table(context, &name)?;
        let alias = insert.table_alias.as_ref().map(|a| &a.alias);
        let qualifier = qualifier(&name, alias);
        let columns: Vec<usize> = if insert.columns.is_empty() {
            (0..table.meta().columns.len()).collect()
        } else {
            insert.columns.iter().map(|c| column_index(&table, c)).collect::<Result<_>>()?
        };
        let source = match &insert.source {
            None => Source::Defaults,
            Some(query) => source(&table, &columns, query)?,
        };
        let mut plan = Self { insert, table, qualifier, columns, source };
        plan.check_width(context)?;
        Ok(plan)
    }

    /// Fewer values than columns are the first columns, where no columns are named.
    fn check_width(&mut self, context: &PlanContext) -> Result<()> {
        let width = match &self.source {
            Source::Defaults => {
                self.columns.clear();
                return Ok(());
            }
            Source::Cells(rows) => {
                let width = rows.first().map_or(0, Vec::len);
                if rows.iter().any(|row| row.len() != width) {
                    return Err(Error::syntax("the rows of VALUES differ in length"));
                }
                width
            }
            Source::Query(query) => {
                let plan = context.plan_query(query)?;
                allow::check(&plan)?;
                plan.schema().fields().len()
            }
        };
        let named = !self.insert.columns.is_empty();
        if width > self.columns.len() || (named && width < self.columns.len()) {
            return Err(Error::syntax(format!(
                "INSERT INTO {}: {width} values for {} columns",
                self.table.meta().name,
                self.columns.len()
            )));
        }
        self.columns.truncate(width);
        Ok(())
    }

    fn df_schema(&self) -> Result<DFSchema> {
        Ok(DFSchema::try_from_qualified_schema(self.qualifier.clone(), &self.table.schema())?)
    }

    fn returning(
        &self,
        context: &PlanContext,
        parameters: Option<&ParamValues>,
    ) -> Result<Option<Returning>> {
        let Some(items) = &self.insert.returning else { return Ok(None) };
        Returning::compile(context, items, &self.df_schema()?, parameters).map(Some)
    }

    fn conflict(
        &self,
        context: &PlanContext,
        parameters: Option<&ParamValues>,
    ) -> Result<Conflict> {
        let returns = self.insert.returning.is_some();
        let on = self.insert.on.as_ref();
        Conflict::compile(context, &self.table, &self.qualifier, on, parameters, returns)
    }

    fn inserter(
        &self,
        context: &PlanContext,
        transaction: &Transaction,
        parameters: Option<&ParamValues>,
    ) -> Result<Inserter> {
        let returning = self.returning(context, parameters)?;
        let conflict = self.conflict(context, parameters)?;
        Inserter::new(transaction, &self.table, conflict, returning, context.zone())
    }

    fn caster(&self, context: &PlanContext) -> Result<BatchCaster> {
        let caster = BatchCaster::by_position(
            self.table.meta(),
            &self.columns,
            CastPolicy::Assign,
            |column| defaults::column_default(context, self.table.meta(), column),
        )?;
        Ok(caster.in_zone(context.zone()))
    }

    /// What makes the cells of the `i`-th given column.
    fn with_column<T>(
        &self,
        context: &PlanContext,
        i: usize,
        uses_default: bool,
        parameters: Option<&RecordBatch>,
        make: impl FnOnce(&ColumnCells<'_>) -> Result<T>,
    ) -> Result<T> {
        let meta = self.table.meta();
        let default = if uses_default {
            defaults::column_default(context, meta, self.columns[i])?
        } else {
            ColumnDefault::Constant(ScalarValue::Null)
        };
        make(&ColumnCells {
            table: &meta.name.to_string(),
            field: &meta.columns[self.columns[i]].field,
            default: &default,
            parameters,
            zone: context.zone(),
        })
    }

    /// The given columns of a VALUES list, for one binding.
    fn cell_columns(
        &self,
        context: &PlanContext,
        rows: &[Vec<Cell>],
        parameters: Option<&RecordBatch>,
        binding: usize,
    ) -> Result<Vec<ArrayRef>> {
        (0..self.columns.len())
            .map(|i| {
                let cells: Vec<&Cell> = rows.iter().map(|row| &row[i]).collect();
                let uses_default = cells.contains(&&Cell::Default);
                self.with_column(context, i, uses_default, parameters, |column| {
                    column.of_rows(&cells, binding)
                })
            })
            .collect()
    }

    /// The rows of a VALUES list of one row, for all bindings.
    fn binding_rows(
        &self,
        context: &PlanContext,
        row: &[Cell],
        bindings: &RecordBatch,
    ) -> Result<RecordBatch> {
        let columns = row
            .iter()
            .enumerate()
            .map(|(i, cell)| {
                let uses_default = *cell == Cell::Default;
                self.with_column(context, i, uses_default, Some(bindings), |column| {
                    column.of_bindings(cell, bindings.num_rows())
                })
            })
            .collect::<Result<Vec<_>>>()?;
        self.caster(context)?.cast_columns(&columns, bindings.num_rows())
    }

    /// Runs it for one binding.
    fn run(
        &self,
        context: &PlanContext,
        transaction: &mut Transaction,
        binding: Binding<'_>,
    ) -> Result<Outcome> {
        let mut inserter = self.inserter(context, transaction, binding.values)?;
        let mut caster = self.caster(context)?;
        match &self.source {
            Source::Defaults => inserter.push(&caster.cast_columns(&[], 1)?)?,
            Source::Cells(rows) => {
                let columns = self.cell_columns(context, rows, binding.parameters, binding.row)?;
                inserter.push(&caster.cast_columns(&columns, rows.len())?)?;
            }
            Source::Query(query) => {
                let logical =
                    bind_plan(context.plan_query(query)?, binding.values, &context.zone())?;
                for batch in context.run(&logical)? {
                    caster.cast_each(&batch?, |piece| inserter.push(&piece))?;
                }
            }
        }
        inserter.finish(transaction)
    }

    /// Whether ON CONFLICT or RETURNING use parameters, so that they differ from binding to binding.
    fn clauses_take_parameters(&self) -> bool {
        let placeholder = |text: String| text.contains('$');
        self.insert.on.as_ref().is_some_and(|on| placeholder(on.to_string()))
            || self.insert.returning.iter().flatten().any(|item| placeholder(item.to_string()))
    }
}

/// VALUES without anything around it can do without planning.
fn source(table: &TableSnapshot, columns: &[usize], query: &ast::Query) -> Result<Source> {
    let bare = query.with.is_none()
        && query.order_by.is_none()
        && query.limit_clause.is_none()
        && query.fetch.is_none();
    let ast::SetExpr::Values(values) = query.body.as_ref() else {
        return Ok(Source::Query(Box::new(query.clone())));
    };
    let meta = table.meta();
    let types: Vec<DataType> =
        columns.iter().map(|c| meta.columns[*c].field.data_type().clone()).collect();
    if bare && let Some(cells) = plain_cells(&values.rows, &types) {
        return Ok(Source::Cells(cells));
    }
    // The planner knows no DEFAULT.
    let mut query = query.clone();
    if let ast::SetExpr::Values(values) = query.body.as_mut() {
        let many = values.rows.len() > 1;
        for (i, (column, data_type)) in columns.iter().zip(&types).enumerate() {
            // A text is a value of the column, whatever stands in the rows above and below.
            let read_as = (many && *data_type != DataType::Utf8)
                .then(|| parse_type(&sql_name(data_type)))
                .flatten();
            for cell in values.rows.iter_mut().filter_map(|row| row.content.get_mut(i)) {
                if is_default(cell) {
                    *cell = defaults::expression(&meta.columns[*column])?;
                }
                if let Some(data_type) = &read_as
                    && let Some(Cell::Text(_)) = plain_cell(cell, None)
                {
                    *cell = ast::Expr::Cast {
                        kind: ast::CastKind::Cast,
                        expr: Box::new(cell.clone()),
                        data_type: data_type.clone(),
                        array: false,
                        format: None,
                    };
                }
            }
        }
    }
    // Parameters beside other values would get the types of these.
    united(query.body.as_mut())?;
    Ok(Source::Query(Box::new(query)))
}

/// What an INSERT returns and takes.
pub(super) fn describe(context: &PlanContext, insert: &ast::Insert) -> Result<Description> {
    let plan = Plan::new(context, insert)?;
    let meta = plan.table.meta();
    let mut parameters = Parameters::default();
    let column_type = |i: usize| plan.columns.get(i).map(|c| meta.columns[*c].field.data_type());
    match &plan.source {
        Source::Defaults => {}
        Source::Cells(rows) => {
            for (i, cell) in rows.iter().flat_map(|row| row.iter().enumerate()) {
                if let Cell::Parameter(n) = cell {
                    parameters.add(&format!("${}", n + 1), column_type(i).cloned());
                }
            }
        }
        Source::Query(query) => {
            for (i, expression) in outputs(query) {
                if let Some(data_type) = column_type(i) {
                    parameters.add_bare(expression, data_type);
                }
            }
            parameters.add_plan(&context.plan_query(query)?)?;
        }
    }
    plan.conflict(context, None)?;
    describe_conflict(context, &plan, &mut parameters)?;
    let schema = match plan.returning(context, None)? {
        None => Arc::new(Schema::empty()),
        Some(returning) => Arc::clone(returning.schema()),
    };
    if let Some(items) = &insert.returning {
        let input = plan.df_schema()?;
        for item in items {
            if let ast::SelectItem::UnnamedExpr(expr)
            | ast::SelectItem::ExprWithAlias { expr, .. } = item
            {
                parameters.add_expression(context.expression(expr, &input)?, &input)?;
            }
        }
    }
    Ok(Description { schema, parameters: Arc::new(parameters.schema()) })
}

fn describe_conflict(
    context: &PlanContext,
    plan: &Plan<'_>,
    parameters: &mut Parameters,
) -> Result<()> {
    let Some(ast::OnInsert::OnConflict(clause)) = &plan.insert.on else { return Ok(()) };
    let ast::OnConflictAction::DoUpdate(update) = &clause.action else { return Ok(()) };
    let input = update_schema(&plan.table, &plan.qualifier)?;
    for (column, value) in assignments(&plan.table, &update.assignments)? {
        parameters.add_bare(value, plan.table.meta().columns[column].field.data_type());
        if !is_default(value) {
            parameters.add_expression(context.expression(value, &input)?, &input)?;
        }
    }
    if let Some(condition) = &update.selection {
        parameters.add_expression(context.expression(condition, &input)?, &input)?;
    }
    Ok(())
}

/// The expressions that a query puts out, by column.
fn outputs(query: &ast::Query) -> Vec<(usize, &ast::Expr)> {
    match query.body.as_ref() {
        ast::SetExpr::Values(values) => {
            values.rows.iter().flat_map(|row| row.content.iter().enumerate()).collect()
        }
        ast::SetExpr::Select(select) => select
            .projection
            .iter()
            .enumerate()
            .filter_map(|(i, item)| match item {
                ast::SelectItem::UnnamedExpr(expr)
                | ast::SelectItem::ExprWithAlias { expr, .. } => Some((i, expr)),
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    }
}

/// Runs an INSERT.
pub(super) fn execute(
    context: &StatementContext,
    transaction: &mut Transaction,
    insert: &ast::Insert,
    parameters: Option<&RecordBatch>,
) -> Result<Outcome> {
    let plan_context = context.plan_context(&transaction.snapshot());
    let plan = Plan::new(&plan_context, insert)?;
    if let (Source::Cells(rows), Some(bindings)) = (&plan.source, parameters)
        && rows.len() == 1
        && bindings.num_rows() != 1
        && !plan.clauses_take_parameters()
    {
        let rows = plan.binding_rows(&plan_context, &rows[0], bindings)?;
        return insert_bindings(context, transaction, insert, &rows);
    }
    if parameters.is_none() {
        return plan.run(&plan_context, transaction, Binding::default());
    }
    for_each_binding(parameters, |values, row| {
        let plan_context = context.plan_context(&transaction.snapshot());
        let plan = Plan::new(&plan_context, insert)?;
        plan.run(&plan_context, transaction, Binding { values, parameters, row })
    })
}

/// One row of the parameters.
#[derive(Clone, Copy, Default)]
struct Binding<'a> {
    values: Option<&'a ParamValues>,
    parameters: Option<&'a RecordBatch>,
    row: usize,
}

/// Inserts the rows of many bindings. Each binding is a statement of its own: DO UPDATE sees what the ones before it did,
/// so rows with a key that has come up wait until those before them are written.
fn insert_bindings(
    context: &StatementContext,
    transaction: &mut Transaction,
    insert: &ast::Insert,
    rows: &RecordBatch,
) -> Result<Outcome> {
    let mut total = Outcome::affected(0);
    let mut start = 0;
    loop {
        let plan_context = context.plan_context(&transaction.snapshot());
        let plan = Plan::new(&plan_context, insert)?;
        let mut inserter = plan.inserter(&plan_context, transaction, None)?;
        inserter.many = true;
        let length = if inserter.updates() {
            distinct_prefix(&encode_keys(&plan.table, rows)?, start)
        } else {
            rows.num_rows() - start
        };
        inserter.push(&rows.slice(start, length))?;
        add(&mut total, inserter.finish(transaction)?);
        start += length;
        if start >= rows.num_rows() {
            return Ok(total);
        }
    }
}
