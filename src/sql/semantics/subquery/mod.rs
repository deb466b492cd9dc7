//! Subqueries wherever an expression may stand, and LATERAL ones: rewritten into joins before DataFusion sees them.
//!
//! DataFusion turns subqueries into joins in filters only, and not always rightly (apache/datafusion#25340, #25347, #25473,
//! #23022, #21363). Here every form is brought back to two, before types are coerced:
//! - `x IN (q)`, `x op ANY (q)`, `x op ALL (q)` become EXISTS with the comparison as a condition, beside EXISTS for what is
//!   unknown ([`quantified`]);
//! - EXISTS and scalar subqueries that depend on the row outside are unnested: the subquery is computed for all different
//!   outer values at once ([`domain`], [`unnest`]; Neumann and Kemper, "Unnesting Arbitrary Queries") and joined to the rows outside
//!   ([`attach`]). Where a filter wants a plain EXISTS, that is a semi or anti join.
//!
//! A scalar subquery that depends on nothing stays: DataFusion runs it once, beforehand.

mod attach;
mod domain;
mod only_row;
mod quantified;
mod unnest;

use std::cell::Cell;

use datafusion::common::Column;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlan, Subquery};
use datafusion::optimizer::AnalyzerRule;

use crate::sql::{Code, Error, planning};

/// The rule.
#[derive(Debug)]
pub(crate) struct Unnesting;

impl AnalyzerRule for Unnesting {
    fn name(&self) -> &str {
        "Unnesting"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        if !is_needed(&plan)? {
            return Ok(plan);
        }
        let plan = Rewriter::default().plan(plan)?;
        planning::check_plan(&plan)?;
        match outer_columns(&plan)?.first() {
            None => Ok(plan),
            Some(_) if plan.exists(|node| Ok(matches!(node, LogicalPlan::Subquery(_))))? => {
                let message = "LATERAL is not supported in this place of a join: what it depends on must be joined before it";
                Err(Error::unsupported(message).into())
            }
            Some(column) => {
                let message = format!(
                    "a subquery uses column \"{column}\" of the query around it, which must appear in GROUP BY or be used in \
                     an aggregate function there"
                );
                Err(Error::new(Code::GroupingError, message).into())
            }
        }
    }
}

/// Rewrites one plan.
#[derive(Debug, Default)]
struct Rewriter {
    /// How many names were made.
    names: Cell<usize>,
}

impl Rewriter {
    /// A name that no column of the plan has.
    fn name(&self, what: &str) -> String {
        self.names.set(self.names.get() + 1);
        format!("__{what}_{}", self.names.get())
    }

    /// The plan without subqueries that depend on rows around them, but for columns of queries around itself.
    fn plan(&self, plan: LogicalPlan) -> Result<LogicalPlan> {
        let plan = plan.map_children(|child| Ok(Transformed::yes(self.plan(child)?)))?.data;
        match plan {
            LogicalPlan::Join(join) => self.join(join),
            LogicalPlan::Aggregate(aggregate) if has_outer_aggregate(&aggregate.aggr_expr)? => {
                Err(Error::unsupported(
                    "an aggregate function of nothing but columns of a query around the subquery is not supported",
                )
                .into())
            }
            node if has_subquery(&node)? => self.node(node),
            node => Ok(node),
        }
    }

    /// The plan of a subquery, rewritten itself.
    fn inner(&self, subquery: Subquery) -> Result<LogicalPlan> {
        self.plan(std::sync::Arc::unwrap_or_clone(subquery.subquery))
    }
}

/// Whether an expression is a subquery.
fn is_subquery(expression: &Expr) -> bool {
    matches!(
        expression,
        Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::SetComparison(_)
    )
}

/// Whether an expression holds a subquery.
fn holds_subquery(expression: &Expr) -> Result<bool> {
    expression.exists(|e| Ok(is_subquery(e)))
}

/// Whether a node's own expressions hold a subquery.
fn has_subquery(node: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    node.apply_expressions(|e| {
        found |= holds_subquery(e)?;
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

/// Whether a plan holds anything that DataFusion is not left alone with.
fn is_needed(plan: &LogicalPlan) -> Result<bool> {
    let mut needed = false;
    plan.apply_with_subqueries(|node| {
        needed |= matches!(node, LogicalPlan::Subquery(_));
        node.apply_expressions(|e| {
            needed |= e.exists(|e| {
                Ok(match e {
                    Expr::ScalarSubquery(s) => attach::is_wrong_alone(&s.subquery),
                    Expr::OuterReferenceColumn(..) => true,
                    e => is_subquery(e),
                })
            })?;
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(if needed { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(needed)
}

/// The columns of queries around a plan that it uses, each once.
fn outer_columns(plan: &LogicalPlan) -> Result<Vec<Column>> {
    let mut columns: Vec<Column> = Vec::new();
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|e| {
            e.apply(|e| {
                if let Expr::OuterReferenceColumn(_, column) = e
                    && !columns.contains(column)
                {
                    columns.push(column.clone());
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })?;
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(columns)
}

/// Whether an aggregate is one of the query outside: its arguments name columns of that query only.
fn has_outer_aggregate(aggregates: &[Expr]) -> Result<bool> {
    let mut found = false;
    for aggregate in aggregates {
        let outer = aggregate.exists(|e| Ok(matches!(e, Expr::OuterReferenceColumn(..))))?;
        found |= outer && aggregate.column_refs().is_empty() && !holds_subquery(aggregate)?;
    }
    Ok(found)
}

/// All columns of a plan, as expressions.
fn columns(plan: &LogicalPlan) -> Vec<Expr> {
    plan.schema().iter().map(|(q, f)| Expr::Column(Column::from((q, f)))).collect()
}

/// `new` under the name that `old` has in a schema.
fn renamed(old: &Expr, new: Expr) -> Expr {
    let name = old.qualified_name();
    if new.qualified_name() == name {
        return new;
    }
    new.alias_qualified(name.0, name.1)
}
