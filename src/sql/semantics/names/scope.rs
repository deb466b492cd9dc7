//! The columns that names may mean, and the walk through expressions that finds them.

use std::collections::HashMap;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{self, Expr, VisitMut, VisitorMut};

use super::query::Binder;
use crate::sql::context::fold;
use crate::sql::{Code, Error, Result};

/// A column of a relation or join.
#[derive(Debug, Clone)]
pub(super) struct Column {
    pub(super) name: String,
    /// How it is written so that DataFusion finds it.
    pub(super) reference: Expr,
    /// Whether its bare name must be written so.
    pub(super) rewritten: bool,
    /// Its type, where it is known.
    pub(super) data_type: Option<arrow::datatypes::DataType>,
}

/// A table, view, CTE or subquery in FROM.
#[derive(Debug, Clone)]
pub(super) struct Relation {
    /// Its alias, or the parts of its name.
    pub(super) name: Vec<ast::Ident>,
    pub(super) columns: Vec<Column>,
}

impl Relation {
    /// Whether a qualifier means it.
    pub(super) fn is_named(&self, parts: &[ast::Ident]) -> bool {
        let own: Vec<String> = self.name.iter().map(fold).collect();
        let given: Vec<String> = parts.iter().map(fold).collect();
        !given.is_empty() && (own.ends_with(&given) || given.ends_with(&own))
    }
}

/// What a FROM clause, or a part of one, gives.
#[derive(Debug, Clone, Default)]
pub(super) struct Source {
    /// The columns of `*`, those that are merged once.
    pub(super) columns: Vec<Column>,
    pub(super) relations: Vec<Relation>,
    /// Whether there are columns that are not listed.
    pub(super) unknown: bool,
    /// Whether `*` is not what DataFusion makes of it.
    pub(super) merged: bool,
}

/// The columns of CTEs, by name; `None` where they are not known.
pub(super) type Ctes = HashMap<String, Option<Vec<super::query::Output>>>;

/// The names in sight: those of the query itself last.
#[derive(Debug, Clone, Default)]
pub(super) struct Scopes {
    pub(super) sources: Vec<Source>,
    pub(super) ctes: Ctes,
}

impl Scopes {
    /// These and `source`.
    pub(super) fn with(&self, source: Source) -> Self {
        let mut scopes = self.clone();
        scopes.sources.push(source);
        scopes
    }

    /// What a bare name must be replaced by, if anything.
    fn replacement(&self, name: &str) -> Result<Option<Expr>> {
        for (depth, source) in self.sources.iter().rev().enumerate() {
            let mut found = source.columns.iter().filter(|column| column.name == name);
            let first = found.next();
            if first.is_some() && found.next().is_some() {
                return Err(ambiguous(name));
            }
            if source.unknown {
                return Ok(None);
            }
            let Some(column) = first else { continue };
            if !column.rewritten {
                return Ok(None);
            }
            let between = self.sources.iter().rev().take(depth);
            if between.flat_map(|s| &s.relations).any(|r| hides(r, &column.reference)) {
                return Err(Error::unsupported(format!(
                    "column \"{name}\" of a query around a subquery that uses the same table name is not supported; give one of them an alias"
                )));
            }
            return Ok(Some(column.reference.clone()));
        }
        Ok(None)
    }
}

/// Whether a relation has the name of one that an expression refers to.
fn hides(relation: &Relation, reference: &Expr) -> bool {
    let visited = ast::visit_expressions(reference, |e| match e {
        Expr::CompoundIdentifier(parts) if relation.is_named(&parts[..parts.len() - 1]) => {
            ControlFlow::Break(())
        }
        _ => ControlFlow::Continue(()),
    });
    visited.is_break()
}

pub(super) fn ambiguous(name: &str) -> Error {
    let message = format!("column \"{name}\" is ambiguous; put its table's name before it");
    Error::new(Code::AmbiguousColumn, message)
}

/// Resolves the names of anything that holds expressions, and the queries in them.
pub(super) fn visit<T: VisitMut>(binder: &Binder<'_>, scopes: &Scopes, node: &mut T) -> Result<()> {
    let mut visitor = Names { binder, scopes, depth: 0 };
    match VisitMut::visit(node, &mut visitor) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

struct Names<'a> {
    binder: &'a Binder<'a>,
    scopes: &'a Scopes,
    /// How many queries are around what is visited: they have seen to it themselves.
    depth: usize,
}

impl VisitorMut for Names<'_> {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut ast::Query) -> ControlFlow<Error> {
        if self.depth == 0
            && let Err(error) = self.binder.query(query, self.scopes)
        {
            return ControlFlow::Break(error);
        }
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &mut ast::Query) -> ControlFlow<Error> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expression: &mut Expr) -> ControlFlow<Error> {
        if self.depth > 0 {
            return ControlFlow::Continue(());
        }
        if let Expr::Identifier(ident) = expression {
            match self.scopes.replacement(&fold(ident)) {
                Ok(Some(replacement)) => *expression = replacement,
                Ok(None) => {}
                Err(error) => return ControlFlow::Break(error),
            }
        }
        ControlFlow::Continue(())
    }
}
