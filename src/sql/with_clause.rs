//! WITH before INSERT, UPDATE and DELETE. The parser makes a query of it whose body is the change; nothing but queries can
//! carry a WITH, so that it is moved into those of the change.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    self, SetExpr, TableFactor, Visit, VisitMut, Visitor, VisitorMut,
};

use super::context::fold;
use super::error::{Error, Result};

/// The change that a WITH stands before, with the WITH in each of its queries; any other statement as it is.
pub(crate) fn carried_out(statement: ast::Statement) -> Result<ast::Statement> {
    if statement.visit(&mut ChangeInside).is_break() {
        return Err(Error::unsupported(
            "a change inside of WITH (INSERT, UPDATE or DELETE ... RETURNING) is not supported; run it as a statement of its \
             own in the same transaction",
        ));
    }
    let ast::Statement::Query(query) = statement else { return Ok(statement) };
    if !is_change(&query.body) {
        return Ok(ast::Statement::Query(query));
    }
    let ast::Query { with, body, .. } = *query;
    let (SetExpr::Insert(mut change) | SetExpr::Update(mut change) | SetExpr::Delete(mut change)) =
        *body
    else {
        return Err(Error::internal("a change is none"));
    };
    if let Some(with) = with {
        let _ = VisitMut::visit(&mut change, &mut Carrier { with, depth: 0 });
    }
    Ok(change)
}

fn is_change(body: &SetExpr) -> bool {
    matches!(body, SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_))
}

/// Finds a change in a WITH.
struct ChangeInside;

impl Visitor for ChangeInside {
    type Break = ();

    fn pre_visit_query(&mut self, query: &ast::Query) -> ControlFlow<()> {
        let mut tables = query.with.iter().flat_map(|with| &with.cte_tables);
        match tables.any(|cte| is_change(&cte.query.body)) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }
}

/// Puts a WITH before the outermost queries, and makes queries of tables that it defines.
struct Carrier {
    with: ast::With,
    /// How many queries are around what is visited.
    depth: usize,
}

impl VisitorMut for Carrier {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut ast::Query) -> ControlFlow<()> {
        self.depth += 1;
        if self.depth > 1 {
            return ControlFlow::Continue(());
        }
        let mut with = self.with.clone();
        if let Some(own) = query.with.take() {
            // What the query defines itself hides what is outside.
            let hidden = |cte: &ast::Cte| {
                own.cte_tables.iter().any(|o| fold(&o.alias.name) == fold(&cte.alias.name))
            };
            with.cte_tables.retain(|cte| !hidden(cte));
            with.recursive |= own.recursive;
            with.cte_tables.extend(own.cte_tables);
        }
        query.with = Some(with);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &mut ast::Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    /// After the visit, so that the query that is made here is not visited.
    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if self.depth > 0 {
            return ControlFlow::Continue(());
        }
        let TableFactor::Table { name, alias, args: None, .. } = factor else {
            return ControlFlow::Continue(());
        };
        let [ast::ObjectNamePart::Identifier(ident)] = name.0.as_slice() else {
            return ControlFlow::Continue(());
        };
        let is_defined = |cte: &ast::Cte| fold(&cte.alias.name) == fold(ident);
        if !self.with.cte_tables.iter().any(is_defined) {
            return ControlFlow::Continue(());
        }
        let alias = alias.clone().unwrap_or_else(|| ast::TableAlias {
            explicit: true,
            name: ident.clone(),
            columns: Vec::new(),
            at: None,
        });
        if let Some(mut query) = all_of(ident) {
            query.with = Some(self.with.clone());
            *factor = TableFactor::Derived {
                lateral: false,
                subquery: Box::new(query),
                alias: Some(alias),
                sample: None,
            };
        }
        ControlFlow::Continue(())
    }
}

/// `SELECT * FROM name`.
fn all_of(name: &ast::Ident) -> Option<ast::Query> {
    use datafusion::sql::sqlparser::parser::Parser;
    let text = format!("SELECT * FROM {name}");
    let mut parser = Parser::new(&super::dialect::OmenDialect).try_with_sql(&text).ok()?;
    parser.parse_query().ok().map(|query| *query)
}
