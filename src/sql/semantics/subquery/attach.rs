//! Joins what subqueries give to the rows around them.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, NullEquality, Spans};
use datafusion::error::Result;
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::functions_aggregate::first_last::first_value;
use datafusion::logical_expr::expr::Exists;
use datafusion::logical_expr::logical_plan::{Aggregate, DistinctOn, Join, JoinConstraint, Window};
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    Distinct, EmptyRelation, Expr, Filter, JoinType, Limit, LogicalPlan, Projection, Sort,
    Subquery, Union, Values, lit,
};

use super::domain::{Domain, SOME_ROW, column, one_row};
use super::only_row::{only_row, or_null};
use super::quantified::Quantified;
use super::{Rewriter, columns, has_subquery, holds_subquery, is_subquery, outer_columns, renamed};
use crate::sql::error::Error;

/// The input of a node, with the results of subqueries of its expressions beside its own columns.
#[derive(Debug)]
pub(super) struct Attached {
    /// The input as it was.
    base: LogicalPlan,
    /// With what is joined to it.
    pub(super) plan: LogicalPlan,
}

impl Attached {
    fn new(input: Arc<LogicalPlan>) -> Self {
        let base = Arc::unwrap_or_clone(input);
        Self { plan: base.clone(), base }
    }

    /// What the different values of columns are computed from: the fewer joins the better.
    fn domain(&self, rewriter: &Rewriter, wanted: Vec<Column>) -> Result<Domain> {
        let in_base = |column: &Column| {
            self.base.schema().is_column_from_schema(column)
                || !self.plan.schema().is_column_from_schema(column)
        };
        let outer = if wanted.iter().all(in_base) { &self.base } else { &self.plan };
        Domain::new(rewriter, wanted, outer)
    }

    /// Joins the rows that `joined` has for each row, at most one; NULLs where there is none.
    fn join(&mut self, rewriter: &Rewriter, joined: LogicalPlan, domain: &Domain) -> Result<()> {
        let plan = std::mem::replace(&mut self.plan, one_row());
        self.plan = domain.join_outer(rewriter, plan, joined, JoinType::Left, None)?;
        Ok(())
    }

    /// The plan of a node over this, without the columns that were joined for it.
    fn stripped(&self, node: LogicalPlan, more: usize) -> Result<LogicalPlan> {
        let own = self.base.schema().fields().len();
        let joined = self.plan.schema().fields().len();
        let all = columns(&node);
        let kept = all[..own].iter().chain(&all[joined..joined + more]).cloned().collect();
        Ok(LogicalPlan::Projection(Projection::try_new(kept, Arc::new(node))?))
    }
}

/// A join on a condition.
pub(super) fn join(
    left: LogicalPlan,
    right: LogicalPlan,
    join_type: JoinType,
    condition: Expr,
) -> Result<LogicalPlan> {
    let condition = (condition != lit(true) || join_type != JoinType::Inner).then_some(condition);
    Ok(LogicalPlan::Join(Join::try_new(
        Arc::new(left),
        Arc::new(right),
        Vec::new(),
        condition,
        join_type,
        JoinConstraint::On,
        NullEquality::NullEqualsNothing,
        false,
    )?))
}

impl Rewriter {
    /// A node whose expressions hold subqueries, over rewritten inputs.
    pub(super) fn node(&self, node: LogicalPlan) -> Result<LogicalPlan> {
        match node {
            LogicalPlan::Filter(filter) => self.filter(filter),
            LogicalPlan::Values(values) => self.values(values),
            LogicalPlan::Projection(Projection { expr, input, .. }) => {
                let mut attached = Attached::new(input);
                let expr = self.named_expressions(expr, &mut attached)?;
                let input = Arc::new(attached.plan);
                Ok(LogicalPlan::Projection(Projection::try_new(expr, input)?))
            }
            LogicalPlan::Aggregate(Aggregate { input, group_expr, aggr_expr, .. }) => {
                let mut attached = Attached::new(input);
                let group_expr = self.named_expressions(group_expr, &mut attached)?;
                let aggr_expr = self.named_expressions(aggr_expr, &mut attached)?;
                let input = Arc::new(attached.plan);
                Ok(LogicalPlan::Aggregate(Aggregate::try_new(input, group_expr, aggr_expr)?))
            }
            LogicalPlan::Window(Window { input, window_expr, .. }) => {
                let mut attached = Attached::new(input);
                let count = window_expr.len();
                let window_expr = self.named_expressions(window_expr, &mut attached)?;
                let input = Arc::new(attached.plan.clone());
                let window = LogicalPlan::Window(Window::try_new(window_expr, input)?);
                attached.stripped(window, count)
            }
            LogicalPlan::Sort(Sort { expr, input, fetch }) => {
                let mut attached = Attached::new(input);
                let expr = self.sort_expressions(expr, &mut attached)?;
                let input = Arc::new(attached.plan.clone());
                attached.stripped(LogicalPlan::Sort(Sort { expr, input, fetch }), 0)
            }
            LogicalPlan::Distinct(Distinct::On(on)) => {
                let DistinctOn { on_expr, select_expr, sort_expr, input, .. } = on;
                let mut attached = Attached::new(input);
                let on_expr = self.named_expressions(on_expr, &mut attached)?;
                let select_expr = self.named_expressions(select_expr, &mut attached)?;
                let sort_expr = sort_expr
                    .map(|sorts| self.sort_expressions(sorts, &mut attached))
                    .transpose()?;
                let input = Arc::new(attached.plan);
                let on = DistinctOn::try_new(on_expr, select_expr, sort_expr, input)?;
                Ok(LogicalPlan::Distinct(Distinct::On(on)))
            }
            LogicalPlan::Limit(Limit { skip, fetch, input }) => {
                let mut none = Attached::new(Arc::new(one_row()));
                let mut alone = |e: Option<Box<Expr>>| {
                    let e = e.map(|e| self.expression(*e, &mut none)).transpose()?;
                    Ok::<_, datafusion::error::DataFusionError>(e.map(Box::new))
                };
                let (skip, fetch) = (alone(skip)?, alone(fetch)?);
                if !none.plan.schema().fields().is_empty() {
                    let message = "a subquery of several rows in LIMIT or OFFSET is not supported";
                    return Err(Error::unsupported(message).into());
                }
                Ok(LogicalPlan::Limit(Limit { skip, fetch, input }))
            }
            other => {
                let name = other.display().to_string();
                let name = name.split([':', ' ']).next().unwrap_or_default().to_owned();
                Err(Error::unsupported(format!("a subquery in {name} is not supported")).into())
            }
        }
    }

    fn sort_expressions(
        &self,
        sorts: Vec<datafusion::logical_expr::SortExpr>,
        attached: &mut Attached,
    ) -> Result<Vec<datafusion::logical_expr::SortExpr>> {
        sorts
            .into_iter()
            .map(|mut sort| {
                sort.expr = self.expression(sort.expr, attached)?;
                Ok(sort)
            })
            .collect()
    }

    fn named_expressions(
        &self,
        expressions: Vec<Expr>,
        attached: &mut Attached,
    ) -> Result<Vec<Expr>> {
        expressions
            .into_iter()
            .map(|old| {
                if !holds_subquery(&old)? {
                    return Ok(old);
                }
                let new = self.expression(old.clone(), attached)?;
                Ok(renamed(&old, new))
            })
            .collect()
    }

    /// An expression without subqueries that depend on rows, whose results are joined to `attached`.
    fn expression(&self, expression: Expr, attached: &mut Attached) -> Result<Expr> {
        let rewritten = expression.transform_up(|e| {
            Ok(Transformed::yes(match e {
                Expr::ScalarSubquery(subquery) => self.scalar(self.inner(subquery)?, attached)?,
                Expr::Exists(Exists { subquery, negated }) => {
                    let exists = self.exists(self.inner(subquery)?, attached)?;
                    if negated { !exists } else { exists }
                }
                Expr::InSubquery(mut expression) => {
                    *expression.expr = self.once(*expression.expr, attached)?;
                    Quantified::in_subquery(self, expression)?.into_expression(self, attached)?
                }
                Expr::SetComparison(mut expression) => {
                    *expression.expr = self.once(*expression.expr, attached)?;
                    Quantified::comparison(self, expression)?.into_expression(self, attached)?
                }
                other => return Ok(Transformed::no(other)),
            }))
        })?;
        Ok(rewritten.data)
    }

    /// A value that is used several times: a random one is a column.
    fn once(&self, value: Expr, attached: &mut Attached) -> Result<Expr> {
        if !value.is_volatile() {
            return Ok(value);
        }
        let name = self.name("value");
        let mut all = columns(&attached.plan);
        all.push(value.alias(&name));
        let plan = Arc::new(std::mem::replace(&mut attached.plan, one_row()));
        attached.plan = LogicalPlan::Projection(Projection::try_new(all, plan)?);
        Ok(column(&name))
    }

    /// Whether a subquery has rows, as an expression over `attached`: true or false.
    pub(super) fn exists(&self, rows: LogicalPlan, attached: &mut Attached) -> Result<Expr> {
        let wanted = outer_columns(&rows)?;
        if wanted.is_empty() {
            return some_row(rows);
        }
        let domain = attached.domain(self, wanted)?;
        let rows = self.unnest(&rows, &domain)?;
        let name = self.name("found");
        if domain.columns.is_empty() {
            let found = counted(rows, &name)?;
            attached.join(self, found, &domain)?;
            return Ok(column(&name).gt(lit(0_i64)));
        }
        let keys = Projection::try_new(domain.expressions(), Arc::new(rows))?;
        let keys = Distinct::All(Arc::new(LogicalPlan::Projection(keys)));
        let mut found = domain.expressions();
        found.push(lit(true).alias(&name));
        let found = Projection::try_new(found, Arc::new(LogicalPlan::Distinct(keys)))?;
        attached.join(self, LogicalPlan::Projection(found), &domain)?;
        Ok(column(&name).is_not_null())
    }

    /// The value of a scalar subquery as an expression over `attached`.
    fn scalar(&self, rows: LogicalPlan, attached: &mut Attached) -> Result<Expr> {
        let wanted = outer_columns(&rows)?;
        let single = is_single(&rows);
        if wanted.is_empty() && single {
            let sure = !may_be_without_rows(&rows);
            let value = Expr::ScalarSubquery(subquery(rows));
            return Ok(if sure { value } else { or_null(value) });
        }
        let domain = attached.domain(self, wanted)?;
        let rows = self.unnest(&rows, &domain)?;
        let given = columns(&rows).swap_remove(0);
        let (count_name, name) = (self.name("count"), self.name("value"));
        if single {
            let mut all = domain.expressions();
            all.push(given.alias(&name));
            let rows = LogicalPlan::Projection(Projection::try_new(all, Arc::new(rows))?);
            attached.join(self, rows, &domain)?;
            return Ok(column(&name));
        }
        let aggregates =
            vec![count(lit(1_i64)).alias(&count_name), first_value(given, Vec::new()).alias(&name)];
        let rows = Aggregate::try_new(Arc::new(rows), domain.expressions(), aggregates)?;
        attached.join(self, LogicalPlan::Aggregate(rows), &domain)?;
        Ok(only_row(column(&count_name), column(&name)))
    }

    /// A filter: what it wants as a whole of subqueries become semi and anti joins.
    fn filter(&self, filter: Filter) -> Result<LogicalPlan> {
        let mut plain = Vec::new();
        let mut with_subqueries = Vec::new();
        for condition in split_conjunction_owned(filter.predicate) {
            match holds_subquery(&condition)? {
                true => with_subqueries.push(condition),
                false => plain.push(condition),
            }
        }
        let mut plan = Arc::unwrap_or_clone(filter.input);
        if let Some(condition) = conjunction(plain) {
            plan = LogicalPlan::Filter(Filter::try_new(condition, Arc::new(plan))?);
        }
        let mut rest = Vec::new();
        for condition in with_subqueries {
            match as_whole(condition)? {
                Whole::Exists(exists) => {
                    let rows = self.inner(exists.subquery)?;
                    plan = self.semi_join(plan, rows, exists.negated, &mut rest)?;
                }
                Whole::In(expression) => {
                    let quantified = Quantified::in_subquery(self, expression)?;
                    for (rows, negated) in quantified.as_filters(&plan)? {
                        plan = self.semi_join(plan, rows, negated, &mut rest)?;
                    }
                }
                Whole::Comparison(expression) => {
                    let quantified = Quantified::comparison(self, expression)?;
                    for (rows, negated) in quantified.as_filters(&plan)? {
                        plan = self.semi_join(plan, rows, negated, &mut rest)?;
                    }
                }
                Whole::Other(condition) => rest.push(condition),
            }
        }
        let mut attached = Attached::new(Arc::new(plan));
        let rest = rest
            .into_iter()
            .map(|condition| self.expression(condition, &mut attached))
            .collect::<Result<Vec<_>>>()?;
        let Some(condition) = conjunction(rest) else { return Ok(attached.plan) };
        let input = Arc::new(attached.plan.clone());
        let filter = LogicalPlan::Filter(Filter::try_new(condition, input)?);
        if attached.plan.schema().fields().len() == attached.base.schema().fields().len() {
            return Ok(filter);
        }
        attached.stripped(filter, 0)
    }

    /// The rows of `plan` for which a subquery has rows, or none. Where it depends on nothing, that is a condition of `rest`.
    fn semi_join(
        &self,
        plan: LogicalPlan,
        rows: LogicalPlan,
        negated: bool,
        rest: &mut Vec<Expr>,
    ) -> Result<LogicalPlan> {
        let wanted = outer_columns(&rows)?;
        let kind = if negated { JoinType::LeftAnti } else { JoinType::LeftSemi };
        if wanted.is_empty() {
            let some = some_row(rows)?;
            rest.push(if negated { !some } else { some });
            return Ok(plan);
        }
        if wanted.iter().all(|column| plan.schema().is_column_from_schema(column))
            && let Some((rows, condition)) = self.pulled_up(&rows)?
        {
            return join(plan, rows, kind, condition);
        }
        let domain = Domain::new(self, wanted, &plan)?;
        let rows = self.unnest(&rows, &domain)?;
        let mut keys = domain.expressions();
        if keys.is_empty() {
            keys.push(lit(1_i64).alias(self.name("one")));
        }
        let rows = LogicalPlan::Projection(Projection::try_new(keys, Arc::new(rows))?);
        let own = columns(&plan);
        let joined = domain.join_outer(self, plan, rows, kind, None)?;
        if joined.schema().fields().len() == own.len() {
            return Ok(joined);
        }
        Ok(LogicalPlan::Projection(Projection::try_new(own, Arc::new(joined))?))
    }

    /// A join: a LATERAL side, or a condition with subqueries.
    pub(super) fn join(&self, join_node: Join) -> Result<LogicalPlan> {
        if let Some((lateral, alias)) = lateral(&join_node.right) {
            return self.lateral(join_node, lateral, alias);
        }
        if join_node.join_type == JoinType::Inner
            && let LogicalPlan::Join(right) = join_node.right.as_ref()
            && begins_with_lateral(right)
        {
            return self.reassociated(join_node);
        }
        let node = LogicalPlan::Join(join_node);
        if !has_subquery(&node)? {
            return Ok(node);
        }
        let LogicalPlan::Join(mut join_node) = node else {
            return Err(Error::internal("a join is none").into());
        };
        let (mut conditions, mut with_subqueries) = (Vec::new(), Vec::new());
        for condition in join_node.filter.take().map(split_conjunction_owned).unwrap_or_default() {
            match holds_subquery(&condition)? {
                true => with_subqueries.push(condition),
                false => conditions.push(condition),
            }
        }
        if join_node.join_type == JoinType::Inner {
            join_node.filter = conjunction(conditions);
            let condition = conjunction(with_subqueries).unwrap_or_else(|| lit(true));
            let filter = Filter::try_new(condition, Arc::new(LogicalPlan::Join(join_node)))?;
            return self.filter(filter);
        }
        self.outer_join(join_node, conditions, with_subqueries)
    }

    /// `a, (LATERAL b JOIN c)` as `(a, LATERAL b) JOIN c`: the LATERAL side depends on `a`.
    fn reassociated(&self, outer: Join) -> Result<LogicalPlan> {
        let Join { left, right, on, filter, join_constraint, null_equality, .. } = outer;
        let LogicalPlan::Join(inner) = Arc::unwrap_or_clone(right) else {
            return Err(Error::internal("a join is none").into());
        };
        let first = Join::try_new(
            left,
            inner.left,
            Vec::new(),
            None,
            JoinType::Inner,
            join_constraint,
            null_equality,
            false,
        )?;
        let first = Arc::new(self.join(first)?);
        let joined = LogicalPlan::Join(Join::try_new(
            first,
            inner.right,
            inner.on,
            inner.filter,
            inner.join_type,
            inner.join_constraint,
            inner.null_equality,
            inner.null_aware,
        )?);
        let equal = on.into_iter().map(|(l, r)| l.eq(r));
        let Some(condition) = conjunction(equal.chain(filter)) else { return Ok(joined) };
        self.filter(Filter::try_new(condition, Arc::new(joined))?)
    }

    /// A join whose rows stay without a match too: results of subqueries are joined to the side that they depend on.
    fn outer_join(
        &self,
        join_node: Join,
        mut conditions: Vec<Expr>,
        with_subqueries: Vec<Expr>,
    ) -> Result<LogicalPlan> {
        let Join { left, right, on, join_type, join_constraint, null_equality, .. } = join_node;
        let schema = Arc::clone(&join_node.schema);
        let mut sides = [Attached::new(left), Attached::new(right)];
        for condition in with_subqueries {
            let used = used_columns(&condition)?;
            let on_side = |side: &Attached| {
                used.iter().all(|c| {
                    side.base.schema().is_column_from_schema(c) || !schema.is_column_from_schema(c)
                })
            };
            let side = match (on_side(&sides[0]), on_side(&sides[1])) {
                (true, _) => 0,
                (false, true) => 1,
                (false, false) => {
                    return Err(Error::unsupported(
                        "a subquery in the condition of an outer join that depends on both sides is not supported",
                    )
                    .into());
                }
            };
            conditions.push(self.expression(condition, &mut sides[side])?);
        }
        let [left, right] = sides;
        let (left, right) = (Arc::new(left.plan), Arc::new(right.plan));
        let filter = conjunction(conditions);
        let node = Join::try_new(
            left,
            right,
            on,
            filter,
            join_type,
            join_constraint,
            null_equality,
            false,
        )?;
        let kept = schema.iter().map(|(q, f)| Expr::Column(Column::from((q, f)))).collect();
        let node = Arc::new(LogicalPlan::Join(node));
        Ok(LogicalPlan::Projection(Projection::try_new(kept, node)?))
    }

    /// A join with a subquery that depends on the left side's row.
    fn lateral(
        &self,
        join_node: Join,
        rows: LogicalPlan,
        alias: Option<datafusion::common::TableReference>,
    ) -> Result<LogicalPlan> {
        let Join { left, filter, join_type, schema, .. } = join_node;
        if !matches!(join_type, JoinType::Inner | JoinType::Left) {
            return Err(Error::unsupported(format!(
                "LATERAL in a {join_type} JOIN is not supported"
            ))
            .into());
        }
        let wanted = outer_columns(&rows)?;
        let left = Arc::unwrap_or_clone(left);
        let domain = Domain::new(self, wanted, &left)?;
        let mut rows = self.unnest(&rows, &domain)?;
        if let Some(alias) = alias {
            rows = super::unnest::with_alias(rows, &alias, domain.columns.len())?;
        }
        let together = |left, rows, filter| domain.join_outer(self, left, rows, join_type, filter);
        let holds = filter.as_ref().map(holds_subquery).transpose()?.unwrap_or(false);
        let joined = match (join_type, filter) {
            (JoinType::Left, Some(_)) if holds => {
                return Err(Error::unsupported(
                    "a subquery in the condition of LEFT JOIN LATERAL is not supported",
                )
                .into());
            }
            (JoinType::Left, Some(filter)) => together(left, rows, Some(filter))?,
            (_, Some(filter)) => {
                let joined = together(left, rows, None)?;
                let filter = Filter::try_new(filter, Arc::new(joined))?;
                match holds {
                    true => self.filter(filter)?,
                    false => LogicalPlan::Filter(filter),
                }
            }
            (_, None) => together(left, rows, None)?,
        };
        let kept = schema.iter().map(|(q, f)| Expr::Column(Column::from((q, f)))).collect();
        Ok(LogicalPlan::Projection(Projection::try_new(kept, Arc::new(joined))?))
    }

    /// VALUES with subqueries: a union of rows.
    fn values(&self, values: Values) -> Result<LogicalPlan> {
        let names: Vec<String> =
            values.schema.fields().iter().map(|field| field.name().clone()).collect();
        let rows = values.values.into_iter().map(|row| {
            let mut attached = Attached::new(Arc::new(one_row()));
            let row = row
                .into_iter()
                .zip(&names)
                .map(|(value, name)| Ok(self.expression(value, &mut attached)?.alias(name)));
            let row = row.collect::<Result<Vec<_>>>()?;
            let row = Projection::try_new(row, Arc::new(attached.plan))?;
            Ok(Arc::new(LogicalPlan::Projection(row)))
        });
        let mut rows = rows.collect::<Result<Vec<_>>>()?;
        if rows.len() == 1 {
            return Ok(Arc::unwrap_or_clone(rows.swap_remove(0)));
        }
        Ok(LogicalPlan::Union(Union::try_new_with_loose_types(rows)?))
    }
}

/// A condition that is one subquery as a whole.
enum Whole {
    Exists(Exists),
    In(datafusion::logical_expr::expr::InSubquery),
    Comparison(datafusion::logical_expr::expr::SetComparison),
    Other(Expr),
}

/// Tells what a condition of a filter is; what stands left of IN and the like must hold no subquery itself.
fn as_whole(condition: Expr) -> Result<Whole> {
    let plain = |value: &Expr| {
        Ok::<_, datafusion::error::DataFusionError>(!holds_subquery(value)? && !value.is_volatile())
    };
    Ok(match condition {
        Expr::Not(inner) => match *inner {
            Expr::Exists(exists) => Whole::Exists(Exists { negated: !exists.negated, ..exists }),
            Expr::InSubquery(mut e) if plain(&e.expr)? => {
                e.negated = !e.negated;
                Whole::In(e)
            }
            Expr::Not(inner) => as_whole(*inner)?,
            other => Whole::Other(!other),
        },
        Expr::Exists(exists) => Whole::Exists(exists),
        Expr::InSubquery(e) if plain(&e.expr)? => Whole::In(e),
        Expr::SetComparison(e) if plain(&e.expr)? => Whole::Comparison(e),
        other => Whole::Other(other),
    })
}

/// The LATERAL subquery that a side of a join is.
fn lateral(
    side: &Arc<LogicalPlan>,
) -> Option<(LogicalPlan, Option<datafusion::common::TableReference>)> {
    match side.as_ref() {
        LogicalPlan::Subquery(subquery) => Some((subquery.subquery.as_ref().clone(), None)),
        LogicalPlan::SubqueryAlias(alias) => match alias.input.as_ref() {
            LogicalPlan::Subquery(subquery) => {
                Some((subquery.subquery.as_ref().clone(), Some(alias.alias.clone())))
            }
            _ => None,
        },
        _ => None,
    }
}

/// Whether the first of the relations that are joined is LATERAL, and all its rows are there whatever it is joined with.
fn begins_with_lateral(join: &Join) -> bool {
    matches!(join.join_type, JoinType::Inner | JoinType::Left)
        && (lateral(&join.left).is_some()
            || matches!(join.left.as_ref(), LogicalPlan::Join(left) if begins_with_lateral(left)))
}

/// The columns that an expression uses, those of its subqueries among them.
fn used_columns(expression: &Expr) -> Result<Vec<Column>> {
    let mut used: Vec<Column> = expression.column_refs().into_iter().cloned().collect();
    expression.apply(|e| {
        let subquery = match e {
            Expr::ScalarSubquery(subquery) => Some(subquery),
            Expr::InSubquery(e) => Some(&e.subquery),
            Expr::Exists(e) => Some(&e.subquery),
            Expr::SetComparison(e) => Some(&e.subquery),
            _ => None,
        };
        debug_assert_eq!(subquery.is_some(), is_subquery(e));
        if let Some(subquery) = subquery {
            used.extend(outer_columns(&subquery.subquery)?);
        }
        Ok(datafusion::common::tree_node::TreeNodeRecursion::Continue)
    })?;
    Ok(used)
}

fn subquery(rows: LogicalPlan) -> Subquery {
    Subquery { subquery: Arc::new(rows), outer_ref_columns: Vec::new(), spans: Spans::new() }
}

/// The number of rows, as the one row of a plan.
fn counted(rows: LogicalPlan, name: &str) -> Result<LogicalPlan> {
    let count = vec![count(lit(1_i64)).alias(name)];
    Ok(LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(rows), Vec::new(), count)?))
}

/// Whether a plan that depends on nothing has rows.
fn some_row(rows: LogicalPlan) -> Result<Expr> {
    let one = LogicalPlan::Limit(Limit {
        skip: None,
        fetch: Some(Box::new(lit(1_i64))),
        input: Arc::new(rows),
    });
    let counted = counted(one, "count")?;
    let some = vec![column("count").gt(lit(0_i64)).alias(SOME_ROW)];
    let some = LogicalPlan::Projection(Projection::try_new(some, Arc::new(counted))?);
    Ok(Expr::ScalarSubquery(subquery(some)))
}

/// Whether DataFusion does not answer a scalar subquery rightly that depends on nothing.
pub(super) fn is_wrong_alone(plan: &LogicalPlan) -> bool {
    !is_single(plan) || may_be_without_rows(plan)
}

/// Whether a plan may have no row, and its column claims never to be NULL, or may do so when its expressions are constants.
fn may_be_without_rows(plan: &LogicalPlan) -> bool {
    let nullable = plan.schema().fields().iter().all(|field| field.is_nullable());
    let computed = |node: &LogicalPlan| match node {
        LogicalPlan::Projection(Projection { expr, .. }) => {
            expr.iter().any(|e| !matches!(e.clone().unalias(), Expr::Column(_)))
        }
        _ => false,
    };
    if nullable && !plan.exists(|node| Ok(computed(node))).unwrap_or(true) {
        return false;
    }
    let mut plan = plan;
    while let LogicalPlan::Projection(Projection { input, .. }) = plan {
        plan = input.as_ref();
    }
    match plan {
        LogicalPlan::Aggregate(aggregate) => !aggregate.group_expr.is_empty(),
        LogicalPlan::EmptyRelation(empty) => !empty.produce_one_row,
        _ => true,
    }
}

/// Whether a plan has at most one row, whatever it reads.
fn is_single(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty(),
        LogicalPlan::Limit(limit) => {
            let one = |fetch: &Expr| {
                matches!(fetch, Expr::Literal(value, _) if {
                    matches!(value, datafusion::common::ScalarValue::Int64(Some(0 | 1)))
                })
            };
            limit.fetch.as_deref().is_some_and(one) || is_single(&limit.input)
        }
        LogicalPlan::EmptyRelation(EmptyRelation { .. }) => true,
        LogicalPlan::Values(values) => values.values.len() <= 1,
        LogicalPlan::Projection(Projection { input, .. })
        | LogicalPlan::Filter(Filter { input, .. })
        | LogicalPlan::Sort(Sort { input, .. }) => is_single(input),
        LogicalPlan::Distinct(Distinct::All(input)) => is_single(input),
        LogicalPlan::SubqueryAlias(alias) => is_single(&alias.input),
        _ => false,
    }
}
