//! The different values that a subquery is computed for.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, ScalarValue};
use datafusion::error::Result;
use datafusion::functions::core::expr_fn::coalesce;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{
    Distinct, Expr, JoinType, Limit, LogicalPlan, Projection, Sort, lit,
};

use super::attach::join;
use super::{Rewriter, columns};
use crate::sql::error::Error;
use crate::sql::planning;

/// The name of the column that says whether there is a row.
pub(super) const SOME_ROW: &str = "__some_row";

/// The different values of the outer columns that a subquery uses.
#[derive(Debug)]
pub(super) struct Domain {
    /// The outer columns, and the names they have in `plan`.
    pub(super) columns: Vec<(Column, FieldRef, String)>,
    /// One row for each combination of values.
    pub(super) plan: LogicalPlan,
}

impl Domain {
    /// Of the columns of `wanted` that `outer` has. The rows are those of `outer`, or more.
    pub(super) fn new(
        rewriter: &Rewriter,
        wanted: Vec<Column>,
        outer: &LogicalPlan,
    ) -> Result<Self> {
        let schema = outer.schema();
        let columns: Vec<(Column, FieldRef, String)> = wanted
            .into_iter()
            .filter_map(|column| {
                let field = Arc::clone(schema.field(schema.maybe_index_of_column(&column)?));
                Some((column, field, rewriter.name("outer")))
            })
            .collect();
        let expressions: Vec<Expr> =
            columns.iter().map(|(c, _, name)| Expr::Column(c.clone()).alias(name)).collect();
        if columns.is_empty() {
            return Ok(Self { columns, plan: one_row() });
        }
        // Each level of nesting reads its outer rows a second time: the plan must not grow without end.
        planning::check_plan(outer)?;
        let rows = widened(outer.clone())?;
        check_repeatable(&rows)?;
        let rows = LogicalPlan::Projection(Projection::try_new(expressions, Arc::new(rows))?);
        Ok(Self { columns, plan: LogicalPlan::Distinct(Distinct::All(Arc::new(rows))) })
    }

    /// The columns as expressions over anything that carries them.
    pub(super) fn expressions(&self) -> Vec<Expr> {
        self.columns.iter().map(|(_, _, name)| column(name)).collect()
    }

    /// An expression of the subquery over rows that carry the columns.
    pub(super) fn bind(&self, expression: Expr) -> Result<Expr> {
        let bound = expression.transform_up(|e| {
            Ok(match &e {
                Expr::OuterReferenceColumn(_, column_outside) => match self.place(column_outside) {
                    Some(i) => Transformed::yes(column(&self.columns[i].2)),
                    None => Transformed::no(e),
                },
                _ => Transformed::no(e),
            })
        })?;
        Ok(bound.data)
    }

    fn place(&self, column: &Column) -> Option<usize> {
        self.columns.iter().position(|(c, _, _)| c == column)
    }

    /// Whether a plan uses any of the columns.
    pub(super) fn is_used_by(&self, plan: &LogicalPlan) -> Result<bool> {
        Ok(super::outer_columns(plan)?.iter().any(|column| self.place(column).is_some()))
    }

    /// Whether an expression uses any of the columns.
    pub(super) fn is_used_in(&self, expression: &Expr) -> Result<bool> {
        expression.exists(|e| match e {
            Expr::OuterReferenceColumn(_, column) => Ok(self.place(column).is_some()),
            _ => Ok(false),
        })
    }

    /// Joins rows of the query outside with rows of the subquery that belong to them. The result may have more columns at
    /// the end of the left side.
    pub(super) fn join_outer(
        &self,
        rewriter: &Rewriter,
        outer: LogicalPlan,
        rows: LogicalPlan,
        join_type: JoinType,
        condition: Option<Expr>,
    ) -> Result<LogicalPlan> {
        let outside = self.columns.iter().map(|(c, field, _)| (Expr::Column(c.clone()), field));
        let (outer, left_keys) = keyed(rewriter, outer, outside)?;
        let inside = self.columns.iter().map(|(_, field, name)| (column(name), field));
        let (rows, right_keys) = keyed(rewriter, rows, inside)?;
        let pairs = left_keys.into_iter().zip(right_keys).map(|(l, r)| l.eq(r)).chain(condition);
        join(outer, rows, join_type, conjunction(pairs).unwrap_or_else(|| lit(true)))
    }

    /// Two plans that carry the columns, the second with them under the names that are given last; and the condition that
    /// they are the same.
    pub(super) fn both(
        &self,
        rewriter: &Rewriter,
        left: LogicalPlan,
        right: LogicalPlan,
    ) -> Result<(LogicalPlan, LogicalPlan, Vec<Expr>, Vec<String>)> {
        let names: Vec<String> = self.columns.iter().map(|_| rewriter.name("outer")).collect();
        let own = right.schema().fields().len() - self.columns.len();
        let mut expressions: Vec<Expr> = columns(&right).into_iter().take(own).collect();
        for ((_, _, name), new) in self.columns.iter().zip(&names) {
            expressions.push(column(name).alias(new));
        }
        let right = LogicalPlan::Projection(Projection::try_new(expressions, Arc::new(right))?);
        let inside = self.columns.iter().map(|(_, field, name)| (column(name), field));
        let (left, left_keys) = keyed(rewriter, left, inside)?;
        let inside = self.columns.iter().zip(&names).map(|((_, f, _), name)| (column(name), f));
        let (right, right_keys) = keyed(rewriter, right, inside)?;
        let pairs = left_keys.into_iter().zip(right_keys).map(|(l, r)| l.eq(r)).collect();
        Ok((left, right, pairs, names))
    }
}

/// A column without qualifier.
pub(super) fn column(name: &str) -> Expr {
    Expr::Column(Column::new_unqualified(name))
}

/// A relation of one row without columns.
pub(super) fn one_row() -> LogicalPlan {
    LogicalPlan::EmptyRelation(datafusion::logical_expr::EmptyRelation {
        produce_one_row: true,
        schema: Arc::new(datafusion::common::DFSchema::empty()),
    })
}

/// A plan with columns added that are equal where values are the same, NULL as good as any; and these columns. A join that
/// DataFusion makes of IS NOT DISTINCT FROM also lets NULLs match of conditions that are pushed into it later, and one on
/// expressions fails where columns of two tables have the same name.
fn keyed<'a>(
    rewriter: &Rewriter,
    plan: LogicalPlan,
    values: impl Iterator<Item = (Expr, &'a FieldRef)>,
) -> Result<(LogicalPlan, Vec<Expr>)> {
    let mut all = columns(&plan);
    let own = all.len();
    let mut keys = Vec::new();
    for (value, field) in values {
        if !field.is_nullable() {
            keys.push(value);
            continue;
        }
        let mut add = |e: Expr| {
            let name = rewriter.name("key");
            keys.push(column(&name));
            all.push(e.alias(name));
        };
        add(value.clone().is_null());
        if *field.data_type() != DataType::Null {
            let zero = Expr::Literal(ScalarValue::new_default(field.data_type())?, None);
            add(coalesce(vec![value, zero]));
        }
    }
    if all.len() == own {
        return Ok((plan, keys));
    }
    Ok((LogicalPlan::Projection(Projection::try_new(all, Arc::new(plan))?), keys))
}

/// The rows of a plan and more: without LIMITs and random conditions, which may pick other rows when they are computed twice.
fn widened(plan: LogicalPlan) -> Result<LogicalPlan> {
    let widen = |plan: Arc<LogicalPlan>| widened(Arc::unwrap_or_clone(plan));
    Ok(match plan {
        LogicalPlan::Limit(Limit { input, .. }) => widen(input)?,
        LogicalPlan::Sort(Sort { input, fetch: None, .. }) => widen(input)?,
        LogicalPlan::Filter(filter) if filter.predicate.is_volatile() => widen(filter.input)?,
        LogicalPlan::Filter(_)
        | LogicalPlan::Projection(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Distinct(Distinct::All(_)) => {
            plan.map_children(|child| Ok(Transformed::yes(widened(child)?)))?.data
        }
        LogicalPlan::Join(mut join) => {
            if matches!(join.join_type, JoinType::Inner | JoinType::Left | JoinType::LeftSemi) {
                join.left = Arc::new(widen(join.left)?);
            }
            if matches!(join.join_type, JoinType::Inner | JoinType::Right) {
                join.right = Arc::new(widen(join.right)?);
            }
            LogicalPlan::Join(join)
        }
        other => other,
    })
}

/// Refuses what may give other rows when it is computed again.
fn check_repeatable(plan: &LogicalPlan) -> Result<()> {
    let Some(fault) = fault_of(plan)? else { return Ok(()) };
    Err(Error::unsupported(format!(
        "a subquery that depends on {fault} is not supported; put these rows into a table first"
    ))
    .into())
}

/// Why a plan may give other rows when it is computed again.
fn fault_of(plan: &LogicalPlan) -> Result<Option<&'static str>> {
    let mut fault = None;
    plan.apply(|node| {
        if let LogicalPlan::Limit(limit) = node
            && !picks_the_same(limit)
        {
            fault = Some("rows that LIMIT picks in no certain order");
        }
        node.apply_expressions(|e| {
            if e.is_volatile() && !only_rows(e)? {
                fault = Some("values of a random function");
            }
            e.apply(|e| {
                if let Expr::ScalarSubquery(subquery) = e {
                    fault = fault.or(fault_of(rows_asked_for(&subquery.subquery))?);
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })?;
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(fault)
}

/// The plan of a scalar subquery; where it asks for any row at all, the rows: which of them LIMIT picks does not matter.
fn rows_asked_for(plan: &LogicalPlan) -> &LogicalPlan {
    if let LogicalPlan::Projection(projection) = plan
        && plan.schema().field(0).name() == SOME_ROW
        && let LogicalPlan::Aggregate(counted) = projection.input.as_ref()
        && let LogicalPlan::Limit(limit) = counted.input.as_ref()
    {
        return &limit.input;
    }
    plan
}

/// Whether all that an expression holds of volatile functions is the check of [`super::only_row`], which is none.
fn only_rows(expression: &Expr) -> Result<bool> {
    let other = expression.exists(|e| {
        Ok(match e {
            Expr::ScalarFunction(function) => {
                function.func.signature().volatility
                    == datafusion::logical_expr::Volatility::Volatile
                    && function.name() != "__only_row"
            }
            _ => false,
        })
    })?;
    Ok(!other)
}

/// Whether LIMIT picks rows in an order that leaves no choice: by all columns there are, or that they are computed of.
fn picks_the_same(limit: &Limit) -> bool {
    let mut input = limit.input.as_ref();
    while let LogicalPlan::Projection(projection) = input {
        input = projection.input.as_ref();
    }
    let LogicalPlan::Sort(sort) = input else { return false };
    let sorted: Vec<&Expr> = sort.expr.iter().map(|s| &s.expr).collect();
    if columns(&sort.input).iter().all(|column| sorted.contains(&column)) {
        return true;
    }
    let LogicalPlan::Projection(projection) = sort.input.as_ref() else { return false };
    let schema = &projection.schema;
    let below: Vec<&Column> = sorted
        .iter()
        .filter_map(|e| {
            let place = schema.maybe_index_of_column(e.try_as_col()?)?;
            match &projection.expr[place] {
                Expr::Alias(alias) => alias.expr.try_as_col(),
                e => e.try_as_col(),
            }
        })
        .collect();
    projection.expr.iter().flat_map(|e| e.column_refs()).all(|used| below.contains(&used))
}
