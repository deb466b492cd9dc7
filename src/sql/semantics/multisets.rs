//! Set operations. In INTERSECT ALL and EXCEPT ALL a row counts as often as it comes. DataFusion makes semi and anti joins of them, which pass every
//! row that the other side has once. Here the rows of each side are numbered among their equals, and the numbers are compared too.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, NullEquality};
use datafusion::error::Result;
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::logical_plan::{Join, Window};
use datafusion::logical_expr::{
    Distinct, Expr, ExprFunctionExt, JoinType, LogicalPlan, Projection,
};
use datafusion::optimizer::AnalyzerRule;

/// The names of the numbers on both sides.
const NUMBERS: [&str; 2] = ["__left_number", "__right_number"];

/// The rule. It runs before names and types of rows are changed: the joins that the planner makes of set operations are told by their
/// NULLs, which equal one another.
#[derive(Debug)]
pub(crate) struct Multisets;

impl AnalyzerRule for Multisets {
    fn name(&self) -> &str {
        "Multisets"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let plan = plan.transform_up_with_subqueries(|node| match node {
            LogicalPlan::Join(join) if keeps_repetitions(&join) => {
                Ok(Transformed::yes(numbered(join)?))
            }
            node => Ok(Transformed::no(node)),
        })?;
        Ok(plan.data)
    }
}

/// Whether a join is INTERSECT ALL or EXCEPT ALL of rows that may come several times.
fn keeps_repetitions(join: &Join) -> bool {
    matches!(join.join_type, JoinType::LeftSemi | JoinType::LeftAnti)
        && join.null_equality == NullEquality::NullEqualsNull
        && join.filter.is_none()
        && join.on.len() == join.left.schema().fields().len()
        && !matches!(join.left.as_ref(), LogicalPlan::Distinct(Distinct::All(_)))
}

fn numbered(join: Join) -> Result<LogicalPlan> {
    let Join { left, right, mut on, join_type, join_constraint, null_equality, null_aware, .. } =
        join;
    let kept: Vec<Expr> =
        left.schema().iter().map(|(q, f)| Expr::Column(Column::from((q, f)))).collect();
    let (left, right) = (with_number(left, NUMBERS[0])?, with_number(right, NUMBERS[1])?);
    let [l, r] = NUMBERS.map(|name| Expr::Column(Column::new_unqualified(name)));
    on.push((l, r));
    let join = Join::try_new(
        left,
        right,
        on,
        None,
        join_type,
        join_constraint,
        null_equality,
        null_aware,
    )?;
    let join = Arc::new(LogicalPlan::Join(join));
    Ok(LogicalPlan::Projection(Projection::try_new(kept, join)?))
}

/// Rows with the number that each has among its equals.
fn with_number(rows: Arc<LogicalPlan>, name: &str) -> Result<Arc<LogicalPlan>> {
    let columns = rows.schema().iter().map(|(q, f)| Expr::Column(Column::from((q, f))));
    let number = row_number().partition_by(columns.collect()).build()?.alias(name);
    Ok(Arc::new(LogicalPlan::Window(Window::try_new(vec![number], rows)?)))
}

/// Gives the columns of all parts of a UNION the names of its first. DataFusion leaves a UNION out of which one part may have rows, and
/// asks that part for columns of these names.
#[derive(Debug)]
pub(crate) struct UnionNames;

impl AnalyzerRule for UnionNames {
    fn name(&self) -> &str {
        "UnionNames"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let plan = plan.transform_up_with_subqueries(|node| {
            let LogicalPlan::Union(mut union) = node else { return Ok(Transformed::no(node)) };
            let mut changed = false;
            for input in &mut union.inputs {
                let pairs = || input.schema().iter().zip(union.schema.iter());
                if pairs().all(|((q, f), (as_q, as_f))| (q, f.name()) == (as_q, as_f.name())) {
                    continue;
                }
                let named = pairs().map(|((q, f), (qualifier, field))| {
                    let column = Expr::Column(Column::from((q, f)));
                    column.alias_qualified(qualifier.cloned(), field.name())
                });
                let named = named.collect();
                let named = Projection::try_new(named, Arc::clone(input))?;
                *input = Arc::new(LogicalPlan::Projection(named));
                changed = true;
            }
            let union = LogicalPlan::Union(union);
            Ok(if changed { Transformed::yes(union) } else { Transformed::no(union) })
        })?;
        Ok(plan.data)
    }
}
