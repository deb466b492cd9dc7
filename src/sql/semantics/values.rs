//! VALUES with parameters beside other values in a column. DataFusion's planner gives a column the type that it sees, and casts
//! parameters to it: `VALUES (1), (?)` bound to 0.25 had the row 0. As a UNION ALL of rows each value keeps its type, and
//! the column has the one that holds all. So it is with a length or precision in one of the rows.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    self, Expr, SelectItem, SetExpr, Statement, Value, VisitMut, VisitorMut, visit_expressions,
};
use datafusion::sql::sqlparser::parser::Parser;

use crate::sql::dialect::OmenDialect;
use crate::sql::parse::syntax_error;
use crate::sql::{Error, Result};

/// Rewrites the queries of a statement. INSERT looks at its own VALUES first: they may stand for defaults.
pub(crate) fn rewrite(statement: &mut Statement) -> Result<()> {
    if let Statement::Insert(insert) = statement
        && let Some(source) = &insert.source
        && matches!(source.body.as_ref(), SetExpr::Values(_))
    {
        return Ok(());
    }
    match statement.visit(&mut Lists) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(*error),
    }
}

struct Lists;

impl VisitorMut for Lists {
    type Break = Box<Error>;

    fn pre_visit_query(&mut self, query: &mut ast::Query) -> ControlFlow<Box<Error>> {
        match united(query.body.as_mut()) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(Box::new(error)),
        }
    }
}

/// A list of values with parameters beside other values as a UNION ALL of its rows.
pub(crate) fn united(body: &mut SetExpr) -> Result<()> {
    if let SetExpr::SetOperation { left, right, .. } = body {
        united(left)?;
        return united(right);
    }
    let SetExpr::Values(values) = body else { return Ok(()) };
    let width = values.rows.iter().map(|row| row.len()).min().unwrap_or(0);
    let mixed = (0..width).any(|i| {
        let count = |is: fn(&Expr) -> bool| values.rows.iter().filter(|row| is(&row[i])).count();
        let (rows, precisions) = (values.rows.len(), count(has_precision));
        rows > 1
            && ((count(holds_parameter) > 0 && count(is_parameter) < rows)
                || (precisions > 0 && precisions < rows))
    });
    if !mixed || values.rows.iter().any(|row| row.len() != width) {
        return Ok(());
    }
    let rows = std::mem::take(&mut values.rows);
    let mut selects =
        rows.into_iter().map(|row| select(row.content)).collect::<Result<Vec<_>>>()?;
    // A balanced tree: there may be many rows.
    while selects.len() > 1 {
        let mut joined = Vec::with_capacity(selects.len().div_ceil(2));
        let mut left = selects.into_iter();
        while let Some(first) = left.next() {
            joined.push(match left.next() {
                Some(second) => union_all(first, second),
                None => first,
            });
        }
        selects = joined;
    }
    if let Some(all) = selects.pop() {
        *body = all;
    }
    Ok(())
}

fn is_parameter(expr: &Expr) -> bool {
    match expr {
        Expr::Nested(inner) => is_parameter(inner),
        Expr::Value(value) => matches!(value.value, Value::Placeholder(_)),
        _ => false,
    }
}

/// Whether a parameter is part of an expression.
fn holds_parameter(expr: &Expr) -> bool {
    let found = visit_expressions(expr, |e| match e {
        Expr::Value(value) if matches!(value.value, Value::Placeholder(_)) => {
            ControlFlow::Break(())
        }
        _ => ControlFlow::Continue(()),
    });
    found.is_break()
}

/// Whether a cast gives a length or a precision, which the planner wants of all rows.
fn has_precision(expr: &Expr) -> bool {
    match expr {
        Expr::Nested(inner) => has_precision(inner),
        Expr::Cast { data_type, .. } => {
            let numeric = matches!(
                data_type,
                ast::DataType::Numeric(_) | ast::DataType::Decimal(_) | ast::DataType::Dec(_)
            );
            !numeric && data_type.to_string().contains('(')
        }
        _ => false,
    }
}

fn union_all(left: SetExpr, right: SetExpr) -> SetExpr {
    SetExpr::SetOperation {
        op: ast::SetOperator::Union,
        set_quantifier: ast::SetQuantifier::All,
        left: Box::new(left),
        right: Box::new(right),
    }
}

/// A row under the names that VALUES has.
fn select(row: impl IntoIterator<Item = Expr>) -> Result<SetExpr> {
    let mut parser = Parser::new(&OmenDialect).try_with_sql("SELECT 1").map_err(syntax_error)?;
    let mut body = *parser.parse_query().map_err(syntax_error)?.body;
    if let SetExpr::Select(select) = &mut body {
        let items = row.into_iter().enumerate().map(|(i, expr)| SelectItem::ExprWithAlias {
            expr,
            alias: ast::Ident::new(format!("column{}", i + 1)),
        });
        select.projection = items.collect();
    }
    Ok(body)
}
