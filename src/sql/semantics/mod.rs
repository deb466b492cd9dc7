//! What SQL means here where DataFusion answers otherwise than PostgreSQL: rules, functions and planners of our own, in the
//! order in which they run. `docs/sql-semantics.md` says of each what PostgreSQL does, what DataFusion does, and what is done
//! about it.
//!
//! A statement passes through four places:
//! 1. its syntax tree, before names are resolved ([`rewrite`]);
//! 2. the planner, which asks [`expression_planners`] for operators whose types DataFusion cannot combine;
//! 3. the analyzer: [`before_coercion`] sees expressions as they were written, [`after_coercion`] with the types that
//!    DataFusion has given them;
//! 4. functions that replace DataFusion's of the same name ([`register`]).
//!
//! Expressions outside of plans (defaults, RETURNING, DO UPDATE) pass through the same rules: see
//! [`PlanContext::analyze_expression`](super::context::PlanContext::analyze_expression).

pub(crate) mod any_array;
mod arguments;
mod arithmetic;
pub(crate) mod bounded;
mod dependencies;
pub(crate) mod elementary;
pub(crate) mod floats;
pub(crate) mod grouped_filters;
mod guards;
pub(crate) mod join_keys;
mod lead_lag;
pub(crate) mod literals;
mod mode;
mod modulo;
mod multisets;
pub(crate) mod names;
mod negation;
mod numbers;
pub(crate) mod patterns;
pub(crate) mod percentile;
mod plans;
mod rounding;
mod row_values;
mod shifts;
mod signs;
mod sliding;
mod sort_keys;
mod subquery;
mod sum;
pub(crate) mod syntax;
mod text_functions;
pub(crate) mod time;
pub(crate) mod time_zone;
pub(crate) mod values;
mod whole;

use std::sync::Arc;

use datafusion::execution::SessionStateBuilder;
use datafusion::logical_expr::planner::ExprPlanner;
use datafusion::optimizer::{Analyzer, AnalyzerRule};
use datafusion::sql::sqlparser::ast;

use super::context::PlanContext;
use super::error::Result;

type Rule = Arc<dyn AnalyzerRule + Send + Sync>;

/// Changes a syntax tree before names in it are resolved.
pub(crate) fn rewrite(
    context: &PlanContext,
    mut statement: ast::Statement,
) -> Result<ast::Statement> {
    names::resolve(context, &mut statement)?;
    literals::exponents(&mut statement);
    signs::without_plus(&mut statement);
    row_values::compare_values(&mut statement)?;
    negation::rewrite(&mut statement);
    Ok(statement)
}

/// Changes an expression outside of a query before names in it are resolved.
pub(crate) fn rewrite_expression(mut expr: ast::Expr) -> Result<ast::Expr> {
    literals::exponents(&mut expr);
    signs::without_plus(&mut expr);
    row_values::compare_values(&mut expr)?;
    negation::rewrite(&mut expr);
    Ok(expr)
}

/// Planners of operators and literals, asked before DataFusion's.
pub(crate) fn expression_planners() -> Vec<Arc<dyn ExprPlanner>> {
    vec![
        Arc::new(time::differences::Differences),
        Arc::new(time::quotients::ExtractQuotients),
        Arc::new(time::interval::TimeOperators),
        Arc::new(shifts::Shifts),
    ]
}

/// Rules that see expressions before DataFusion gives their operands common types.
fn before_coercion() -> Vec<Rule> {
    vec![
        // Before subqueries become joins, which are told from those of set operations by nothing.
        Arc::new(multisets::Multisets),
        Arc::new(sort_keys::SortKeys),
        // Early: what it makes of subqueries is for all others to see.
        Arc::new(subquery::Unnesting),
        Arc::new(time::interval_choice::IntervalChoice),
        Arc::new(time::rules::TimeTypes),
        Arc::new(time::interval_rules::IntervalOrder),
        Arc::new(numbers::CommonNumbers),
        Arc::new(arguments::ConstantArguments),
    ]
}

/// Rules that see expressions whose operands have common types.
fn after_coercion() -> Vec<Rule> {
    vec![
        Arc::new(multisets::UnionNames),
        Arc::new(rounding::RoundingCasts),
        Arc::new(guards::Guards),
        Arc::new(arithmetic::CheckedArithmetic),
        Arc::new(floats::CanonicalFloats),
        Arc::new(dependencies::TrueDependencies),
        Arc::new(time::rules::TimeCasts),
    ]
}

/// All analyzer rules, DataFusion's among them.
pub(crate) fn analyzer_rules() -> Vec<Rule> {
    let mut rules = before_coercion();
    rules.extend(Analyzer::new().rules);
    rules.extend(after_coercion());
    rules
}

/// Puts our functions in the place of DataFusion's.
pub(crate) fn register(mut builder: SessionStateBuilder) -> SessionStateBuilder {
    let aggregates = builder.aggregate_functions().get_or_insert_default();
    aggregates.extend(sum::functions());
    aggregates.push(patterns::every());
    aggregates.extend(percentile::functions());
    aggregates.push(mode::function());
    *aggregates = sliding::wrap(floats::wrap_aggregates(std::mem::take(aggregates)));
    let functions = builder.scalar_functions().get_or_insert_default();
    functions.extend(modulo::functions());
    functions.extend(elementary::functions());
    functions.push(patterns::similar_to_escape());
    functions.push(negation::function());
    functions.extend(whole::functions());
    let ours = time::functions().into_iter().chain(text_functions::functions());
    functions.extend(ours.map(Arc::new));
    builder.window_functions().get_or_insert_default().extend(lead_lag::functions());
    // Last: what stands in the place of DataFusion's functions is bounded too.
    bounded::register(builder)
}
