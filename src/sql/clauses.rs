//! Clauses that the parser reads and nothing carries out: refused by name.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{self, Visit, Visitor};

use super::error::{Error, Result};

/// Checks every query in a statement.
pub(crate) fn check(statement: &ast::Statement) -> Result<()> {
    let target = match statement {
        ast::Statement::Update(update) => Some(&update.table),
        ast::Statement::Delete(delete) => match &delete.from {
            ast::FromTable::WithFromKeyword(tables) | ast::FromTable::WithoutKeyword(tables) => {
                tables.first()
            }
        },
        _ => None,
    };
    if let Some(ast::TableWithJoins {
        relation: ast::TableFactor::Table { sample: Some(_), .. },
        ..
    }) = target
    {
        return Err(Error::unsupported("TABLESAMPLE of the table that changes is not supported"));
    }
    match statement.visit(&mut Clauses) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(clause) => Err(Error::unsupported(format!("{clause} is not supported"))),
    }
}

struct Clauses;

fn refuse(found: bool, clause: &'static str) -> ControlFlow<&'static str> {
    if found { ControlFlow::Break(clause) } else { ControlFlow::Continue(()) }
}

impl Visitor for Clauses {
    type Break = &'static str;

    fn pre_visit_query(&mut self, query: &ast::Query) -> ControlFlow<Self::Break> {
        refuse(!query.locks.is_empty(), "FOR UPDATE or FOR SHARE")?;
        refuse(query.for_clause.is_some(), "FOR XML or FOR JSON")?;
        refuse(query.settings.is_some(), "SETTINGS")?;
        refuse(query.format_clause.is_some(), "FORMAT")?;
        refuse(!query.pipe_operators.is_empty(), "a pipe operator")?;
        if let Some(ast::LimitClause::LimitOffset { limit_by, .. }) = &query.limit_clause {
            refuse(!limit_by.is_empty(), "LIMIT BY")?;
        }
        if let Some(order_by) = &query.order_by {
            refuse(order_by.interpolate.is_some(), "INTERPOLATE")?;
        }
        body(&query.body)
    }

    fn pre_visit_table_factor(&mut self, table: &ast::TableFactor) -> ControlFlow<Self::Break> {
        if let ast::TableFactor::Table {
            with_hints,
            version,
            with_ordinality,
            partitions,
            json_path,
            index_hints,
            ..
        } = table
        {
            refuse(version.is_some(), "reading a table as of a time")?;
            refuse(*with_ordinality, "WITH ORDINALITY")?;
            refuse(!with_hints.is_empty() || !index_hints.is_empty(), "a table hint")?;
            refuse(!partitions.is_empty(), "PARTITION")?;
            refuse(json_path.is_some(), "a JSON path of a table")?;
        }
        ControlFlow::Continue(())
    }
}

/// Checks the SELECTs of a query; queries inside them are visited for themselves.
fn body(set: &ast::SetExpr) -> ControlFlow<&'static str> {
    match set {
        ast::SetExpr::Select(select) => {
            refuse(select.top.is_some(), "TOP (use LIMIT)")?;
            refuse(select.into.is_some(), "SELECT INTO")?;
            refuse(!select.lateral_views.is_empty(), "LATERAL VIEW")?;
            refuse(select.prewhere.is_some(), "PREWHERE")?;
            refuse(!select.connect_by.is_empty(), "CONNECT BY")?;
            refuse(!select.cluster_by.is_empty(), "CLUSTER BY in a query")?;
            refuse(!select.distribute_by.is_empty(), "DISTRIBUTE BY")?;
            refuse(!select.sort_by.is_empty(), "SORT BY")?;
            refuse(select.value_table_mode.is_some(), "SELECT AS VALUE or AS STRUCT")
        }
        ast::SetExpr::SetOperation { left, right, .. } => {
            body(left)?;
            body(right)
        }
        _ => ControlFlow::Continue(()),
    }
}
