//! Changes of rows: INSERT, UPDATE, DELETE, TRUNCATE, compiled to the engine's transactions.
//!
//! UPDATE and DELETE become a SELECT of row addresses and new values, whose batches feed the engine's
//! [`Write`](crate::engine::Write) as they come; DataFusion's own plans for changes are not used.
//! Every statement reads the state that it began on.

mod by_key;
pub(crate) mod evaluate;
mod insert;
mod on_conflict;
mod returning;
mod row_source;
mod update;
mod values;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::TableReference;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::ast;

use super::context::{Description, PlanContext, StatementContext, fold};
use super::{Error, Outcome, Result};
use crate::engine::{TableName, TableSnapshot, Transaction};

/// The rows that a statement returns and the parameters it takes. Blocks; executes nothing.
pub(crate) fn describe(context: &PlanContext, statement: &ast::Statement) -> Result<Description> {
    match statement {
        ast::Statement::Insert(insert) => insert::describe(context, insert),
        ast::Statement::Update(update) => update::describe_update(context, update),
        ast::Statement::Delete(delete) => update::describe_delete(context, delete),
        ast::Statement::Truncate(truncate) => {
            for name in truncated(context.statement(), truncate)? {
                table(context, &name)?;
            }
            Ok(Description::default())
        }
        other => Err(unknown(other)),
    }
}

/// Runs one statement in `transaction`, for every row of `parameters`. Blocks; runs on a worker thread
/// inside the runtime.
pub(crate) fn execute(
    context: &StatementContext,
    transaction: &mut Transaction,
    statement: &ast::Statement,
    parameters: Option<&RecordBatch>,
) -> Result<Outcome> {
    check_parameter_count(statement, parameters)?;
    match statement {
        ast::Statement::Insert(insert) => insert::execute(context, transaction, insert, parameters),
        ast::Statement::Update(update) => {
            update::execute_update(context, transaction, update, parameters)
        }
        ast::Statement::Delete(delete) => {
            update::execute_delete(context, transaction, delete, parameters)
        }
        ast::Statement::Truncate(truncate) => {
            let plan = context.plan_context(&transaction.snapshot());
            let mut count = 0;
            for name in truncated(context, truncate)? {
                count += transaction.truncate(table(&plan, &name)?.id())?;
            }
            Ok(Outcome::affected(count))
        }
        other => Err(unknown(other)),
    }
}

/// Checks that there is a value for each parameter, and none too many.
fn check_parameter_count(
    statement: &ast::Statement,
    parameters: Option<&RecordBatch>,
) -> Result<()> {
    let mut expected = 0;
    let _ = ast::visit_expressions(statement, |expression| {
        if let ast::Expr::Value(value) = expression
            && let ast::Value::Placeholder(name) = &value.value
            && let Some(number) = name.strip_prefix('$').and_then(|n| n.parse().ok())
        {
            expected = std::cmp::max(expected, number);
        }
        ControlFlow::<()>::Continue(())
    });
    let given = parameters.map_or(0, RecordBatch::num_columns);
    if expected == given {
        return Ok(());
    }
    let plural = if expected == 1 { "" } else { "s" };
    Err(Error::data(format!(
        "the statement takes {expected} parameter{plural}, and {given} were given"
    )))
}

fn unknown(statement: &ast::Statement) -> Error {
    Error::internal(format!("not a change of rows: {statement}"))
}

fn truncated(context: &StatementContext, truncate: &ast::Truncate) -> Result<Vec<TableName>> {
    refuse(&[
        ("TRUNCATE ... PARTITION", truncate.partitions.is_some()),
        ("TRUNCATE IF EXISTS", truncate.if_exists),
        ("TRUNCATE ... RESTART IDENTITY", truncate.identity.is_some()),
        ("TRUNCATE ... CASCADE", matches!(truncate.cascade, Some(ast::CascadeOption::Cascade))),
        ("TRUNCATE ... ON CLUSTER", truncate.on_cluster.is_some()),
    ])?;
    truncate.table_names.iter().map(|target| context.table_name(&target.name)).collect()
}

/// Refuses, by name, the first clause that is there.
pub(crate) fn refuse(clauses: &[(&str, bool)]) -> Result<()> {
    match clauses.iter().find(|(_, there)| *there) {
        None => Ok(()),
        Some((name, _)) => Err(Error::unsupported(format!("{name} is not supported"))),
    }
}

/// The table to change. A view, or a system table, cannot be.
pub(super) fn table(context: &PlanContext, name: &TableName) -> Result<TableSnapshot> {
    match context.table(name) {
        Some(table) => Ok(table),
        None if context.snapshot().view(name).is_some() => {
            Err(Error::unsupported(format!("{name} is a view, and views cannot be changed")))
        }
        None => Err(context.unknown_table(name)),
    }
}

/// How expressions of a statement name the table it changes.
fn qualifier(name: &TableName, alias: Option<&ast::Ident>) -> TableReference {
    match alias {
        Some(alias) => TableReference::bare(fold(alias)),
        None => TableReference::partial(Arc::clone(&name.schema), Arc::clone(&name.name)),
    }
}

/// The column that `SET` or a column list names.
fn column_index(table: &TableSnapshot, name: &ast::ObjectName) -> Result<usize> {
    match name.0.last().and_then(ast::ObjectNamePart::as_ident) {
        Some(ident) => Ok(table.meta().column_index(&fold(ident))?),
        None => Err(Error::unsupported(format!("{name} is not a column"))),
    }
}

/// `SET` as pairs of column and expression.
fn assignments<'a>(
    table: &TableSnapshot,
    set: &'a [ast::Assignment],
) -> Result<Vec<(usize, &'a ast::Expr)>> {
    let mut pairs: Vec<(usize, &ast::Expr)> = Vec::with_capacity(set.len());
    for assignment in set {
        match (&assignment.target, &assignment.value) {
            (ast::AssignmentTarget::ColumnName(name), value) => {
                pairs.push((column_index(table, name)?, value));
            }
            (ast::AssignmentTarget::Tuple(names), ast::Expr::Tuple(values))
                if names.len() == values.len() =>
            {
                for (name, value) in names.iter().zip(values) {
                    pairs.push((column_index(table, name)?, value));
                }
            }
            (ast::AssignmentTarget::Tuple(_), _) => {
                return Err(Error::unsupported(format!(
                    "SET {assignment} is not supported; assign the columns one by one"
                )));
            }
        }
    }
    for (i, (column, _)) in pairs.iter().enumerate() {
        if pairs[..i].iter().any(|(c, _)| c == column) {
            return Err(Error::syntax(format!(
                "column \"{}\" is assigned twice",
                table.meta().columns[*column].field.name()
            )));
        }
    }
    Ok(pairs)
}

/// The value that SET gives a column, ready to be planned: DEFAULT becomes the column's, and a number its digits where the
/// column's type reads them best: a cast of a decimal may miss the nearest double.
fn set_value(table: &TableSnapshot, column: usize, value: &ast::Expr) -> Result<ast::Expr> {
    let column = &table.meta().columns[column];
    if is_default(value) {
        return super::defaults::expression(column);
    }
    let by_digits = column.field.data_type().is_decimal() || column.field.data_type().is_floating();
    Ok(match values::number(value) {
        Some(digits) if by_digits => ast::Expr::value(ast::Value::SingleQuotedString(digits)),
        _ => value.clone(),
    })
}

/// Whether an expression is the word DEFAULT.
fn is_default(expression: &ast::Expr) -> bool {
    matches!(expression, ast::Expr::Identifier(name) if values::is_default(name))
}

/// The parameters of a statement, as they are found.
#[derive(Debug, Default)]
struct Parameters {
    /// By number, counted from 1.
    types: BTreeMap<usize, Option<DataType>>,
}

impl Parameters {
    /// A parameter called `$n`; the first type that is known for it stays.
    fn add(&mut self, name: &str, data_type: Option<DataType>) {
        if let Some(number) = name.strip_prefix('$').and_then(|n| n.parse().ok()) {
            let known = self.types.entry(number).or_default();
            *known = known.take().or(data_type);
        }
    }

    /// The parameter that an expression is, if it is nothing else.
    fn add_bare(&mut self, expression: &ast::Expr, data_type: &DataType) {
        if let ast::Expr::Value(value) = expression
            && let ast::Value::Placeholder(name) = &value.value
        {
            self.add(name, Some(data_type.clone()));
        }
    }

    /// The parameters in a plan.
    fn add_plan(&mut self, plan: &LogicalPlan) -> Result<()> {
        for name in plan.get_parameter_names()? {
            self.add(&name, None);
        }
        // Types that contradict each other are left open.
        for (name, data_type) in plan.get_parameter_types().unwrap_or_default() {
            self.add(&name, data_type);
        }
        Ok(())
    }

    /// The parameters in an expression that is not part of a plan.
    fn add_expression(
        &mut self,
        expression: datafusion::logical_expr::Expr,
        input: &datafusion::common::DFSchema,
    ) -> Result<()> {
        use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
        use datafusion::logical_expr::Expr;
        let (expression, _) = expression.infer_placeholder_types(input)?;
        expression.apply(|e| {
            if let Expr::Placeholder(placeholder) = e {
                self.add(
                    &placeholder.id,
                    placeholder.field.as_ref().map(|f| f.data_type().clone()),
                );
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(())
    }

    fn schema(self) -> Schema {
        let last = self.types.keys().next_back().copied().unwrap_or(0);
        let field = |n: usize| {
            let data_type = self.types.get(&n).cloned().flatten();
            Field::new(format!("${n}"), data_type.unwrap_or(DataType::Utf8), true)
        };
        Schema::new((1..=last).map(field).collect::<Vec<_>>())
    }
}
