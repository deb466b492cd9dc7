//! IN, ANY and ALL as EXISTS, with three values.
//!
//! `x op ANY (q)` is true where a row of `q` compares as true, else unknown where one compares as unknown, else false; ALL is
//! the same with true and false the other way round. A comparison is unknown where `x` or the row's value is NULL.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{InSubquery, SetComparison, SetQuantifier};
use datafusion::logical_expr::{
    Expr, ExprSchemable, Filter, LogicalPlan, Operator, binary_expr, lit, when,
};

use super::attach::Attached;
use super::{Rewriter, columns};

/// A comparison with the rows of a subquery, whose plan is rewritten already.
#[derive(Debug)]
pub(super) struct Quantified {
    /// What stands left, over the columns outside.
    value: Expr,
    op: Operator,
    quantifier: SetQuantifier,
    rows: LogicalPlan,
}

impl Quantified {
    /// `value IN (rows)`, or NOT IN.
    pub(super) fn in_subquery(rewriter: &Rewriter, expression: InSubquery) -> Result<Self> {
        let InSubquery { expr, subquery, negated } = expression;
        let (op, quantifier) = match negated {
            false => (Operator::Eq, SetQuantifier::Any),
            true => (Operator::NotEq, SetQuantifier::All),
        };
        Ok(Self { value: *expr, op, quantifier, rows: rewriter.inner(subquery)? })
    }

    /// `value op ANY (rows)`, or ALL.
    pub(super) fn comparison(rewriter: &Rewriter, expression: SetComparison) -> Result<Self> {
        let SetComparison { expr, subquery, op, quantifier } = expression;
        Ok(Self { value: *expr, op, quantifier, rows: rewriter.inner(subquery)? })
    }

    /// The rows that decide: those that compare as true for ANY, as false for ALL.
    fn deciding(&self, outside: &LogicalPlan) -> Result<LogicalPlan> {
        let value = outward(&self.value, outside)?;
        let given = columns(&self.rows).swap_remove(0);
        let condition = match (self.quantifier, self.op) {
            (SetQuantifier::Any, op) => binary_expr(value, op, given),
            (SetQuantifier::All, Operator::NotEq) => value.eq(given),
            (SetQuantifier::All, op) => !binary_expr(value, op, given),
        };
        filtered(self.rows.clone(), condition)
    }

    /// The rows whose own value is NULL, where there may be any.
    fn unknown_rows(&self) -> Result<Option<LogicalPlan>> {
        if !self.rows.schema().field(0).is_nullable() {
            return Ok(None);
        }
        let given = columns(&self.rows).swap_remove(0);
        filtered(self.rows.clone(), given.is_null()).map(Some)
    }

    /// Whether the value outside may be NULL.
    fn value_may_be_null(&self, outside: &LogicalPlan) -> bool {
        self.value.nullable(outside.schema()).unwrap_or(true)
    }

    /// The conditions of a filter that together pass the same rows, each `[NOT] EXISTS (rows)`. The filter passes what is
    /// true, so that unknown need not be told from false.
    pub(super) fn as_filters(&self, outside: &LogicalPlan) -> Result<Vec<(LogicalPlan, bool)>> {
        let deciding = self.deciding(outside)?;
        if self.quantifier == SetQuantifier::Any {
            return Ok(vec![(deciding, false)]);
        }
        let mut all = vec![(deciding, true)];
        all.extend(self.unknown_rows()?.map(|rows| (rows, true)));
        if self.value_may_be_null(outside) {
            let null = outward(&self.value, outside)?.is_null();
            all.push((filtered(self.rows.clone(), null)?, true));
        }
        Ok(all)
    }

    /// The comparison as an expression of three values over the rows of `attached`.
    pub(super) fn into_expression(
        self,
        rewriter: &Rewriter,
        attached: &mut Attached,
    ) -> Result<Expr> {
        let value_may_be_null = self.value_may_be_null(&attached.plan);
        let decided = rewriter.exists(self.deciding(&attached.plan)?, attached)?;
        let mut unknown = Vec::new();
        if let Some(rows) = self.unknown_rows()? {
            unknown.push(rewriter.exists(rows, attached)?);
        }
        if value_may_be_null {
            let any = rewriter.exists(self.rows, attached)?;
            unknown.push(self.value.is_null().and(any));
        }
        let found = self.quantifier == SetQuantifier::Any;
        let Some(unknown) = datafusion::logical_expr::utils::disjunction(unknown) else {
            return Ok(if found { decided } else { !decided });
        };
        when(decided, lit(found))
            .when(unknown, Expr::Literal(ScalarValue::Boolean(None), None))
            .otherwise(lit(!found))
    }
}

fn filtered(rows: LogicalPlan, condition: Expr) -> Result<LogicalPlan> {
    Ok(LogicalPlan::Filter(Filter::try_new(condition, Arc::new(rows))?))
}

/// An expression over the rows outside as it stands inside of a subquery.
fn outward(expression: &Expr, outside: &LogicalPlan) -> Result<Expr> {
    let schema = outside.schema();
    let moved = expression.clone().transform_up(|e| {
        Ok(match &e {
            Expr::Column(column) => match schema.maybe_index_of_column(column) {
                Some(i) => {
                    let (qualifier, field) = schema.qualified_field(i);
                    let column = Column::from((qualifier, field));
                    Transformed::yes(Expr::OuterReferenceColumn(Arc::clone(field), column))
                }
                None => Transformed::no(e),
            },
            _ => Transformed::no(e),
        })
    })?;
    Ok(moved.data)
}
