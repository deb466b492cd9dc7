//! Rules that look at one expression at a time, over whole plans.

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, GroupingSet, LogicalPlan};

/// Columns that the expressions of a node refer to.
pub(super) fn input_schema(node: &LogicalPlan) -> Result<DFSchema> {
    let mut schema = merge_schema(&node.inputs());
    if let LogicalPlan::TableScan(scan) = node {
        let name = scan.table_name.clone();
        schema.merge(&DFSchema::try_from_qualified_schema(name, &scan.source.schema())?);
    }
    Ok(schema)
}

/// Rewrites the expressions of a node from their leaves up. Columns keep their names.
pub(super) fn rewrite_expressions(
    node: LogicalPlan,
    schema: &DFSchema,
    mut rewrite: impl FnMut(Expr, &DFSchema) -> Result<Transformed<Expr>>,
) -> Result<Transformed<LogicalPlan>> {
    let names = NamePreserver::new(&node);
    node.map_expressions(|expr| {
        keeping_name(expr, &names, &mut |e| e.transform_up(|e| rewrite(e, schema)))
    })
}

/// Rewrites an expression, whose column keeps its name. Grouping sets have no name of their own: each of their expressions keeps its.
pub(super) fn keeping_name(
    expr: Expr,
    names: &NamePreserver,
    rewrite: &mut dyn FnMut(Expr) -> Result<Transformed<Expr>>,
) -> Result<Transformed<Expr>> {
    let Expr::GroupingSet(set) = expr else {
        let name = names.save(&expr);
        return Ok(rewrite(expr)?.update_data(|e| name.restore(e)));
    };
    let mut changed = false;
    let mut each = |exprs: Vec<Expr>| {
        let exprs = exprs.into_iter().map(|e| {
            let kept = keeping_name(e, names, rewrite)?;
            changed |= kept.transformed;
            Ok(kept.data)
        });
        exprs.collect::<Result<Vec<_>>>()
    };
    let set = match set {
        GroupingSet::Rollup(exprs) => GroupingSet::Rollup(each(exprs)?),
        GroupingSet::Cube(exprs) => GroupingSet::Cube(each(exprs)?),
        GroupingSet::GroupingSets(sets) => {
            GroupingSet::GroupingSets(sets.into_iter().map(each).collect::<Result<_>>()?)
        }
    };
    let expr = Expr::GroupingSet(set);
    Ok(if changed { Transformed::yes(expr) } else { Transformed::no(expr) })
}
