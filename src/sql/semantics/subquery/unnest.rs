//! A subquery for all values of its outer columns at once: each node of its plan carries them along.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, TableReference};
use datafusion::error::Result;
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::expr::{AggregateFunctionParams, WindowFunction};
use datafusion::logical_expr::logical_plan::{Aggregate, DistinctOn, Join, Unnest, Window};
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    Distinct, Expr, ExprFunctionExt, Filter, JoinType, Limit, LogicalPlan, Projection, Sort, Union,
    Values, WindowFrame, lit,
};

use super::attach::join;
use super::domain::{Domain, column};
use super::{Rewriter, columns, outer_columns, renamed};
use crate::sql::error::Error;
use crate::sql::planning;

impl Rewriter {
    /// The rows of `plan` for each row of the domain: the plan's columns, then the domain's.
    pub(super) fn unnest(&self, plan: &LogicalPlan, domain: &Domain) -> Result<LogicalPlan> {
        planning::check_stopped()?;
        if !domain.is_used_by(plan)? {
            return match plan {
                LogicalPlan::EmptyRelation(empty)
                    if empty.produce_one_row && empty.schema.fields().is_empty() =>
                {
                    Ok(domain.plan.clone())
                }
                _ if domain.columns.is_empty() => Ok(plan.clone()),
                _ => join(plan.clone(), domain.plan.clone(), JoinType::Inner, lit(true)),
            };
        }
        match plan {
            LogicalPlan::Projection(Projection { expr, input, .. }) => {
                let input = self.unnest(input, domain)?;
                let mut expr = bind_named(domain, expr)?;
                expr.extend(domain.expressions());
                Ok(LogicalPlan::Projection(Projection::try_new(expr, Arc::new(input))?))
            }
            LogicalPlan::Filter(Filter { predicate, input, .. }) => {
                let input = self.unnest(input, domain)?;
                let predicate = domain.bind(predicate.clone())?;
                Ok(LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(input))?))
            }
            LogicalPlan::SubqueryAlias(alias) => {
                let input = self.unnest(&alias.input, domain)?;
                with_alias(input, &alias.alias, domain.columns.len())
            }
            LogicalPlan::Sort(Sort { expr, input, fetch: None }) => {
                let input = Arc::new(self.unnest(input, domain)?);
                let expr = bind_sorts(domain, expr)?;
                Ok(LogicalPlan::Sort(Sort { expr, input, fetch: None }))
            }
            LogicalPlan::Distinct(Distinct::All(input)) => {
                let input = Arc::new(self.unnest(input, domain)?);
                Ok(LogicalPlan::Distinct(Distinct::All(input)))
            }
            LogicalPlan::Distinct(Distinct::On(on)) => self.unnest_distinct_on(on, domain),
            LogicalPlan::Aggregate(aggregate) => self.unnest_aggregate(aggregate, domain),
            LogicalPlan::Window(window) => self.unnest_window(window, domain),
            LogicalPlan::Limit(limit) => self.unnest_limit(limit, domain),
            LogicalPlan::Join(node) => self.unnest_join(node, domain),
            LogicalPlan::Union(union) => self.unnest_union(union, domain),
            LogicalPlan::Values(values) => self.unnest_values(values, domain),
            LogicalPlan::Unnest(Unnest { input, exec_columns, options, .. }) => {
                let input = Arc::new(self.unnest(input, domain)?);
                let unnest = Unnest::try_new(input, exec_columns.clone(), options.clone())?;
                Ok(LogicalPlan::Unnest(unnest))
            }
            other => {
                let name = other.display().to_string();
                let name = name.split([':', ' ']).next().unwrap_or_default().to_owned();
                Err(Error::unsupported(format!(
                    "{name} in a subquery that depends on the row outside is not supported"
                ))
                .into())
            }
        }
    }

    fn unnest_distinct_on(&self, on: &DistinctOn, domain: &Domain) -> Result<LogicalPlan> {
        let input = Arc::new(self.unnest(&on.input, domain)?);
        let keys = domain.expressions();
        let mut on_expr = keys.clone();
        on_expr.extend(bind_all(domain, &on.on_expr)?);
        let mut select_expr = bind_named(domain, &on.select_expr)?;
        select_expr.extend(keys.clone());
        let sort_expr = on.sort_expr.as_ref().map(|sorts| {
            let mut all: Vec<_> = keys.into_iter().map(|key| key.sort(true, false)).collect();
            all.extend(bind_sorts(domain, sorts)?);
            Ok::<_, datafusion::error::DataFusionError>(all)
        });
        let on = DistinctOn::try_new(on_expr, select_expr, sort_expr.transpose()?, input)?;
        Ok(LogicalPlan::Distinct(Distinct::On(on)))
    }

    fn unnest_aggregate(&self, aggregate: &Aggregate, domain: &Domain) -> Result<LogicalPlan> {
        let Aggregate { input, group_expr, aggr_expr, .. } = aggregate;
        if group_expr.iter().any(|e| matches!(e, Expr::GroupingSet(_))) {
            return Err(Error::unsupported(
                "GROUPING SETS, ROLLUP or CUBE in a subquery that depends on the row outside is not supported",
            )
            .into());
        }
        let mut input = self.unnest(input, domain)?;
        let mut aggr_expr = bind_named(domain, aggr_expr)?;
        if group_expr.is_empty() && !domain.columns.is_empty() {
            // There is a row for every value of the domain, also where there is nothing to aggregate.
            let there = self.name("there");
            let mut all = columns(&input);
            all.push(lit(true).alias(&there));
            let rows = LogicalPlan::Projection(Projection::try_new(all, Arc::new(input))?);
            let own: Vec<Expr> =
                columns(&rows).into_iter().filter(|c| !domain.expressions().contains(c)).collect();
            let mut moved = own;
            moved.extend(domain.expressions());
            let rows = LogicalPlan::Projection(Projection::try_new(moved, Arc::new(rows))?);
            let (left, right, same, _) = domain.both(self, domain.plan.clone(), rows)?;
            let same = conjunction(same).unwrap_or_else(|| lit(true));
            input = join(left, right, JoinType::Left, same)?;
            let there = column(&there).is_not_null();
            aggr_expr = aggr_expr
                .into_iter()
                .map(|e| filtered_aggregate(e, &there))
                .collect::<Result<Vec<_>>>()?;
        }
        let mut groups = domain.expressions();
        groups.extend(bind_named(domain, group_expr)?);
        let count = domain.columns.len();
        let plan = LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(input), groups, aggr_expr)?);
        // The domain's columns come last.
        let mut all = columns(&plan);
        all.rotate_left(count);
        Ok(LogicalPlan::Projection(Projection::try_new(all, Arc::new(plan))?))
    }

    fn unnest_window(&self, window: &Window, domain: &Domain) -> Result<LogicalPlan> {
        let input = self.unnest(&window.input, domain)?;
        let keys = domain.expressions();
        let expressions = window.window_expr.iter().map(|old| {
            let bound = domain.bind(old.clone())?;
            let parted = bound.transform_up(|e| {
                Ok(match e {
                    Expr::WindowFunction(mut function) => {
                        let WindowFunction { params, .. } = function.as_mut();
                        params.partition_by.extend(keys.iter().cloned());
                        Transformed::yes(Expr::WindowFunction(function))
                    }
                    other => Transformed::no(other),
                })
            })?;
            Ok(renamed(old, parted.data))
        });
        let expressions = expressions.collect::<Result<Vec<_>>>()?;
        let own = input.schema().fields().len() - keys.len();
        let plan = LogicalPlan::Window(Window::try_new(expressions, Arc::new(input))?);
        let mut all = columns(&plan);
        all[own..].rotate_left(keys.len());
        Ok(LogicalPlan::Projection(Projection::try_new(all, Arc::new(plan))?))
    }

    /// LIMIT and OFFSET count rows for each value of the domain.
    fn unnest_limit(&self, limit: &Limit, domain: &Domain) -> Result<LogicalPlan> {
        let Limit { skip, fetch, input } = limit;
        for expression in skip.iter().chain(fetch) {
            if domain.is_used_in(expression)? {
                return Err(Error::syntax("the argument of LIMIT must not contain columns").into());
            }
        }
        // Below what keeps rows as they are, the order is at hand.
        match input.as_ref() {
            LogicalPlan::Projection(projection) => {
                let inner = Arc::clone(&projection.input);
                let limit = Limit { skip: skip.clone(), fetch: fetch.clone(), input: inner };
                let input = self.limited(&limit, domain)?;
                let mut expr = bind_named(domain, &projection.expr)?;
                expr.extend(domain.expressions());
                return Ok(LogicalPlan::Projection(Projection::try_new(expr, Arc::new(input))?));
            }
            LogicalPlan::SubqueryAlias(alias) => {
                let inner = Arc::clone(&alias.input);
                let limit = Limit { skip: skip.clone(), fetch: fetch.clone(), input: inner };
                let input = self.limited(&limit, domain)?;
                return with_alias(input, &alias.alias, domain.columns.len());
            }
            _ => {}
        }
        self.limited(limit, domain)
    }

    /// [`Self::unnest_limit`] of a LIMIT whose input may depend on nothing.
    fn limited(&self, limit: &Limit, domain: &Domain) -> Result<LogicalPlan> {
        let Limit { skip, fetch, input } = limit;
        if domain.columns.is_empty() || !domain.is_used_by(input)? {
            let limit = LogicalPlan::Limit(limit.clone());
            return match domain.is_used_by(&limit)? {
                true => Err(Error::internal("a LIMIT depends on columns").into()),
                false => self.unnest(&limit, domain),
            };
        }
        if matches!(input.as_ref(), LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_)) {
            return self.unnest_limit(limit, domain);
        }
        let (input, sorts) = match input.as_ref() {
            LogicalPlan::Sort(Sort { expr, input, .. }) => (input, bind_sorts(domain, expr)?),
            _ => (input, Vec::new()),
        };
        let input = self.unnest(input, domain)?;
        let kept = columns(&input);
        let name = self.name("rank");
        let rank = row_number().partition_by(domain.expressions());
        // Without an order any rows will do: a frame of rows needs none.
        let rank = match sorts.is_empty() {
            true => rank.window_frame(WindowFrame::new(None)).build()?,
            false => rank.order_by(sorts).build()?,
        };
        let window = Window::try_new(vec![rank.alias(&name)], Arc::new(input))?;
        // A skip of NULL is none, a fetch of NULL is without end.
        let skip = skip.as_ref().map(|skip| or_zero(skip.as_ref().clone()));
        let mut conditions = Vec::new();
        conditions.extend(skip.clone().map(|skip| column(&name).gt(skip)));
        if let Some(fetch) = fetch {
            let end = match skip {
                Some(skip) => skip + fetch.as_ref().clone(),
                None => fetch.as_ref().clone(),
            };
            let within = column(&name).lt_eq(end);
            conditions.push(match fetch.as_ref() {
                Expr::Literal(value, _) if !value.is_null() => within,
                fetch => fetch.clone().is_null().or(within),
            });
        }
        let mut plan = LogicalPlan::Window(window);
        if let Some(condition) = conjunction(conditions) {
            plan = LogicalPlan::Filter(Filter::try_new(condition, Arc::new(plan))?);
        }
        Ok(LogicalPlan::Projection(Projection::try_new(kept, Arc::new(plan))?))
    }

    fn unnest_join(&self, node: &Join, domain: &Domain) -> Result<LogicalPlan> {
        let Join { left, right, join_type, join_constraint, null_equality, .. } = node;
        let (left_uses, right_uses) = (domain.is_used_by(left)?, domain.is_used_by(right)?);
        use JoinType as J;
        // Which sides carry the domain: one is enough where no row of the other stays alone.
        let (carries_left, carries_right) = match join_type {
            J::Inner => (left_uses || !right_uses, right_uses),
            J::Left | J::LeftSemi | J::LeftAnti | J::LeftMark => (true, right_uses),
            J::Right => (left_uses, true),
            J::Full => (true, true),
            other => {
                return Err(Error::unsupported(format!(
                    "a {other} JOIN in a subquery that depends on the row outside is not supported"
                ))
                .into());
            }
        };
        let side = |plan: &Arc<LogicalPlan>, carries| match carries {
            true => self.unnest(plan, domain),
            false => Ok(plan.as_ref().clone()),
        };
        let mut new_left = side(left, carries_left)?;
        let mut new_right = side(right, carries_right)?;
        let mut conditions: Vec<Expr> = node.filter.iter().cloned().collect();
        conditions = bind_all(domain, &conditions)?;
        let mut right_names = None;
        if carries_left && carries_right {
            let (with_keys, renamed, same, names) = domain.both(self, new_left, new_right)?;
            (new_left, new_right) = (with_keys, renamed);
            conditions.extend(same);
            right_names = Some(names);
        }
        let on =
            node.on.iter().map(|(l, r)| Ok((domain.bind(l.clone())?, domain.bind(r.clone())?)));
        let on = on.collect::<Result<Vec<_>>>()?;
        let joined = Join::try_new(
            Arc::new(new_left),
            Arc::new(new_right),
            on,
            conjunction(conditions),
            *join_type,
            *join_constraint,
            *null_equality,
            node.null_aware,
        )?;
        // The columns in their order, then the domain's: of the side that always has them.
        let own = node.schema.iter().map(|(q, f)| Expr::Column(Column::from((q, f))));
        let mut all: Vec<Expr> = own.collect();
        for (i, (_, _, name)) in domain.columns.iter().enumerate() {
            all.push(match (&right_names, join_type) {
                (Some(names), J::Right) => column(&names[i]).alias(name),
                (Some(names), J::Full) => {
                    use datafusion::functions::core::expr_fn::coalesce;
                    coalesce(vec![column(name), column(&names[i])]).alias(name)
                }
                _ => column(name),
            });
        }
        let joined = Arc::new(LogicalPlan::Join(joined));
        Ok(LogicalPlan::Projection(Projection::try_new(all, joined)?))
    }

    fn unnest_union(&self, union: &Union, domain: &Domain) -> Result<LogicalPlan> {
        let inputs = union.inputs.iter().map(|input| {
            let input = self.unnest(input, domain)?;
            // All under the names of the union.
            let given = columns(&input);
            let own = union
                .schema
                .iter()
                .zip(&given)
                .map(|((q, f), given)| given.clone().alias_qualified(q.cloned(), f.name()));
            let all = own.chain(domain.expressions()).collect();
            Ok(Arc::new(LogicalPlan::Projection(Projection::try_new(all, Arc::new(input))?)))
        });
        let inputs = inputs.collect::<Result<Vec<_>>>()?;
        Ok(LogicalPlan::Union(Union::try_new_with_loose_types(inputs)?))
    }

    fn unnest_values(&self, values: &Values, domain: &Domain) -> Result<LogicalPlan> {
        let rows = values.values.iter().map(|row| {
            let named = row.iter().zip(values.schema.fields());
            let mut all = named
                .map(|(value, field)| Ok(domain.bind(value.clone())?.alias(field.name())))
                .collect::<Result<Vec<_>>>()?;
            all.extend(domain.expressions());
            let rows = Arc::new(domain.plan.clone());
            Ok(Arc::new(LogicalPlan::Projection(Projection::try_new(all, rows)?)))
        });
        let mut rows = rows.collect::<Result<Vec<_>>>()?;
        if rows.len() == 1 {
            return Ok(Arc::unwrap_or_clone(rows.swap_remove(0)));
        }
        Ok(LogicalPlan::Union(Union::try_new_with_loose_types(rows)?))
    }

    /// A subquery of which only the existence of rows is asked, as a plan that depends on nothing outside and a condition
    /// over it and the columns outside; `None` where it is not so simple.
    pub(super) fn pulled_up(&self, rows: &LogicalPlan) -> Result<Option<(LogicalPlan, Expr)>> {
        let mut rows = rows.clone();
        let mut conditions: Vec<Expr> = Vec::new();
        loop {
            rows = match rows {
                LogicalPlan::Filter(filter) => {
                    conditions.extend(split_conjunction_owned(filter.predicate));
                    Arc::unwrap_or_clone(filter.input)
                }
                LogicalPlan::Projection(Projection { expr, input, schema, .. }) => {
                    let plain = |e: &Expr| {
                        Ok::<_, datafusion::error::DataFusionError>(
                            !e.is_volatile() && !super::holds_subquery(e)?,
                        )
                    };
                    for e in &expr {
                        if !plain(e)? {
                            return Ok(None);
                        }
                    }
                    conditions = substituted(conditions, &schema, |i| expr[i].clone().unalias())?;
                    Arc::unwrap_or_clone(input)
                }
                LogicalPlan::SubqueryAlias(alias) => {
                    let below = columns(&alias.input);
                    conditions = substituted(conditions, &alias.schema, |i| below[i].clone())?;
                    Arc::unwrap_or_clone(alias.input)
                }
                LogicalPlan::Sort(Sort { input, fetch: None, .. })
                | LogicalPlan::Distinct(Distinct::All(input)) => Arc::unwrap_or_clone(input),
                other => {
                    rows = other;
                    break;
                }
            };
        }
        if !outer_columns(&rows)?.is_empty() {
            return Ok(None);
        }
        let (mut inner, mut outer) = (Vec::new(), Vec::new());
        for condition in conditions {
            if super::holds_subquery(&condition)? || condition.is_volatile() {
                return Ok(None);
            }
            let depends = condition.exists(|e| Ok(matches!(e, Expr::OuterReferenceColumn(..))))?;
            if depends { outer.push(condition) } else { inner.push(condition) }
        }
        if let Some(condition) = conjunction(inner) {
            rows = LogicalPlan::Filter(Filter::try_new(condition, Arc::new(rows))?);
        }
        let condition = conjunction(outer).unwrap_or_else(|| lit(true));
        self.under_own_names(rows, condition).map(Some)
    }

    /// The columns of `rows` that a condition uses, under names that no other plan has; and the condition with these, and
    /// with the columns outside.
    fn under_own_names(&self, rows: LogicalPlan, condition: Expr) -> Result<(LogicalPlan, Expr)> {
        let schema = Arc::clone(rows.schema());
        let mut used: Vec<(usize, String)> = Vec::new();
        let condition = condition.transform_up(|e| {
            Ok(match e {
                Expr::OuterReferenceColumn(_, outer) => Transformed::yes(Expr::Column(outer)),
                Expr::Column(inner) => {
                    let i = schema.index_of_column(&inner)?;
                    if !used.iter().any(|(place, _)| *place == i) {
                        used.push((i, self.name("inner")));
                    }
                    let name = used.iter().find(|(place, _)| *place == i).map(|(_, name)| name);
                    Transformed::yes(column(name.map_or("", String::as_str)))
                }
                other => Transformed::no(other),
            })
        })?;
        let all = columns(&rows);
        let mut kept: Vec<Expr> =
            used.iter().map(|(i, name)| all[*i].clone().alias(name)).collect();
        if kept.is_empty() {
            kept.push(lit(1_i64).alias(self.name("one")));
        }
        let rows = LogicalPlan::Projection(Projection::try_new(kept, Arc::new(rows))?);
        Ok((rows, condition.data))
    }
}

/// Expressions with each column of `schema` as `below` gives it.
fn substituted(
    expressions: Vec<Expr>,
    schema: &datafusion::common::DFSchema,
    below: impl Fn(usize) -> Expr,
) -> Result<Vec<Expr>> {
    expressions
        .into_iter()
        .map(|e| {
            let e = e.transform_up(|e| {
                Ok(match &e {
                    Expr::Column(column) => {
                        Transformed::yes(below(schema.index_of_column(column)?))
                    }
                    _ => Transformed::no(e),
                })
            })?;
            Ok(e.data)
        })
        .collect()
}

/// The columns of a plan under an alias, but for the last `count`, which stay as they are.
pub(super) fn with_alias(
    plan: LogicalPlan,
    alias: &TableReference,
    count: usize,
) -> Result<LogicalPlan> {
    let own = plan.schema().fields().len() - count;
    let all = plan.schema().iter().zip(columns(&plan)).enumerate().map(
        |(i, ((_, field), column))| match i < own {
            true => column.alias_qualified(Some(alias.clone()), field.name()),
            false => column,
        },
    );
    let all = all.collect();
    Ok(LogicalPlan::Projection(Projection::try_new(all, Arc::new(plan))?))
}

fn bind_all(domain: &Domain, expressions: &[Expr]) -> Result<Vec<Expr>> {
    expressions.iter().map(|e| domain.bind(e.clone())).collect()
}

fn bind_named(domain: &Domain, expressions: &[Expr]) -> Result<Vec<Expr>> {
    expressions.iter().map(|e| Ok(renamed(e, domain.bind(e.clone())?))).collect()
}

fn bind_sorts(
    domain: &Domain,
    sorts: &[datafusion::logical_expr::SortExpr],
) -> Result<Vec<datafusion::logical_expr::SortExpr>> {
    sorts.iter().map(|sort| Ok(sort.with_expr(domain.bind(sort.expr.clone())?))).collect()
}

/// An aggregate of those rows only that are there.
fn filtered_aggregate(expression: Expr, there: &Expr) -> Result<Expr> {
    let name = expression.qualified_name().1;
    let filtered = expression.transform_up(|e| {
        Ok(match e {
            Expr::AggregateFunction(mut function) => {
                let AggregateFunctionParams { filter, .. } = &mut function.params;
                *filter = Some(Box::new(match filter.take() {
                    Some(condition) => condition.and(there.clone()),
                    None => there.clone(),
                }));
                Transformed::yes(Expr::AggregateFunction(function))
            }
            other => Transformed::no(other),
        })
    })?;
    Ok(filtered.data.unalias().alias(name))
}

fn or_zero(expression: Expr) -> Expr {
    match &expression {
        Expr::Literal(value, _) if !value.is_null() => expression,
        _ => datafusion::functions::core::expr_fn::coalesce(vec![expression, lit(0_i64)]),
    }
}
