//! GROUP BY of a key and more, which DataFusion takes for a key alone.
//!
//! It tells from keys which columns determine others, and leaves out a DISTINCT or a GROUP BY that it takes for needless. Of
//! `GROUP BY d, b` over rows that `d` determined before a join gave each several partners, it says that `d` determines
//! all columns, and `SELECT DISTINCT d` above gives rows twice. Here such groups get names of their own: then nothing is said
//! but that all of them together determine the rest.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, DFSchema, Dependency};
use datafusion::error::Result;
use datafusion::logical_expr::logical_plan::Aggregate;
use datafusion::logical_expr::{Distinct, Expr, LogicalPlan, Projection};
use datafusion::optimizer::AnalyzerRule;

/// The rule.
#[derive(Debug)]
pub(super) struct TrueDependencies;

impl AnalyzerRule for TrueDependencies {
    fn name(&self) -> &str {
        "TrueDependencies"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let mut changed = false;
        let plan = plan.transform_up_with_subqueries(|node| match node {
            LogicalPlan::Distinct(Distinct::All(input)) if !is_unique(&input) => {
                changed = true;
                Ok(Transformed::yes(grouped_by_all(input)?))
            }
            LogicalPlan::Aggregate(aggregate) if is_misled(&aggregate) => {
                changed = true;
                Ok(Transformed::yes(under_own_names(aggregate)?))
            }
            // What stands above was told the same.
            node if changed => Ok(Transformed::yes(node.recompute_schema()?)),
            node => Ok(Transformed::no(node)),
        })?;
        Ok(plan.data)
    }
}

/// Whether a DISTINCT has nothing to do: DataFusion leaves it out.
fn is_unique(input: &LogicalPlan) -> bool {
    let count = input.schema().fields().len();
    let mut dependencies = input.schema().functional_dependencies().iter();
    dependencies.any(|dependence| {
        dependence.mode == Dependency::Single && dependence.source_indices.len() >= count
    })
}

/// DISTINCT as the GROUP BY that DataFusion makes of it later, so that what stands above knows its key now.
fn grouped_by_all(input: Arc<LogicalPlan>) -> Result<LogicalPlan> {
    let groups: Vec<Expr> =
        input.schema().iter().map(|(q, f)| Expr::Column(Column::from((q, f)))).collect();
    if groups.is_empty() {
        return Ok(LogicalPlan::Distinct(Distinct::All(input)));
    }
    let aggregate = Aggregate::try_new(input, groups, Vec::new())?;
    if is_misled(&aggregate) {
        return under_own_names(aggregate);
    }
    Ok(LogicalPlan::Aggregate(aggregate))
}

/// Whether a part of the groups determines others before grouping, and not all.
fn is_misled(aggregate: &Aggregate) -> bool {
    let groups = &aggregate.group_expr;
    if groups.len() < 2 || groups.iter().any(|e| matches!(e, Expr::GroupingSet(_))) {
        return false;
    }
    let schema: &DFSchema = aggregate.input.schema();
    let places: Vec<Option<usize>> =
        groups.iter().map(|group| schema.maybe_index_of_column(group.try_as_col()?)).collect();
    schema.functional_dependencies().iter().any(|dependence| {
        let is_grouped = |source: &usize| places.contains(&Some(*source));
        let is_determined = |place: &Option<usize>| {
            place.is_some_and(|place| {
                dependence.target_indices.contains(&place)
                    || dependence.source_indices.contains(&place)
            })
        };
        dependence.source_indices.iter().all(is_grouped) && !places.iter().all(is_determined)
    })
}

fn under_own_names(aggregate: Aggregate) -> Result<LogicalPlan> {
    let Aggregate { input, group_expr, aggr_expr, schema, .. } = aggregate;
    let groups = group_expr
        .into_iter()
        .enumerate()
        .map(|(i, group)| group.unalias().alias(format!("__group_{i}")))
        .collect();
    let grouped = LogicalPlan::Aggregate(Aggregate::try_new(input, groups, aggr_expr)?);
    let named = grouped.schema().iter().zip(schema.iter()).map(|((q, f), (qualifier, field))| {
        let column = Expr::Column(Column::from((q, f)));
        if (q, f.name()) == (qualifier, field.name()) {
            return column;
        }
        column.alias_qualified(qualifier.cloned(), field.name())
    });
    let named = named.collect();
    Ok(LogicalPlan::Projection(Projection::try_new(named, Arc::new(grouped))?))
}
