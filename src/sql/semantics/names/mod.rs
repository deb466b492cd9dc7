//! Names of columns, as PostgreSQL gives and finds them: on the syntax tree, before DataFusion resolves any.
//!
//! - Columns of an answer have PostgreSQL's names (`count`, `?column?`), also several of the same ([`figure`]). DataFusion
//!   wants names to be unique (apache/datafusion#6543): inside, a name that is there already, or would be taken for a
//!   column's in ORDER BY, GROUP BY or HAVING, carries a mark ([`marked`]) that no one sees ([`shown`]).
//! - The bare name of a column that USING or NATURAL merges is the value of whichever side has one, in every clause
//!   (apache/datafusion#22881): [`from`].
//! - A bare name of several columns is ambiguous, where DataFusion may take it for one of a query around: [`scope`].
//!
//! Where the columns of a relation are not known here (a table function), its SELECT is left to DataFusion.

mod figure;
mod from;
mod query;
mod scope;

use datafusion::logical_expr::{Expr, LogicalPlan, Projection};
use datafusion::sql::sqlparser::ast;

pub(crate) use figure::{folded, name_of};

use super::super::context::PlanContext;
use super::super::{Code, Error, Result};

/// What stands between a name and the number that makes it unique.
const MARK: char = '\u{1}';

/// Resolves the names of a query.
pub(crate) fn resolve(context: &PlanContext, statement: &mut ast::Statement) -> Result<()> {
    match statement {
        ast::Statement::Query(query) => {
            query::Binder { context }.top(query)?;
            Ok(())
        }
        ast::Statement::Explain { statement, .. } => resolve(context, statement),
        _ => Ok(()),
    }
}

/// A name that is unique in its list.
fn marked(name: &str, number: usize) -> String {
    format!("{name}{MARK}{number}")
}

/// A name as the client sees it.
pub(crate) fn shown(name: &str) -> &str {
    name.split(MARK).next().unwrap_or(name)
}

/// The plan of a view or table, whose columns bear the names that are seen.
pub(crate) fn with_shown_names(plan: LogicalPlan) -> Result<LogicalPlan> {
    check_unique(plan.schema().fields().iter().map(|field| shown(field.name())))?;
    if plan.schema().fields().iter().all(|field| shown(field.name()) == field.name()) {
        return Ok(plan);
    }
    let columns = plan
        .schema()
        .iter()
        .map(|(qualifier, field)| Expr::from((qualifier, field)).alias(shown(field.name())));
    let columns = columns.collect();
    Ok(LogicalPlan::Projection(Projection::try_new(columns, std::sync::Arc::new(plan))?))
}

/// Refuses two columns of one name, where others are to refer to them.
pub(crate) fn check_unique<'a>(names: impl Iterator<Item = &'a str>) -> Result<()> {
    let mut seen = std::collections::HashSet::new();
    for name in names {
        if !seen.insert(name) {
            let message = format!("column \"{name}\" specified more than once");
            return Err(Error::new(Code::DuplicateColumn, message));
        }
    }
    Ok(())
}
