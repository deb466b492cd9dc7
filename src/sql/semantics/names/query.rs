//! Queries: their output names, and what ORDER BY and GROUP BY mean by a name.

use datafusion::sql::sqlparser::ast::{self, Expr, SelectItem, SetExpr};

use super::from::give_names;
use super::scope::{Scopes, Source, ambiguous, visit};
use super::{folded, marked, name_of};
use crate::sql::code::Code;
use crate::sql::context::{PlanContext, fold};
use crate::sql::error::{Error, Result};

/// A column that a query puts out.
#[derive(Debug, Clone)]
pub(super) struct Output {
    /// The name that is seen.
    pub(super) name: String,
    /// The name that DataFusion knows.
    pub(super) inner: String,
}

/// Resolves names with the definitions of a context.
pub(super) struct Binder<'a> {
    pub(super) context: &'a PlanContext,
}

/// A column of a select list.
struct Item {
    expr: Expr,
    name: String,
    /// The name that the text or a rule gives; a plain column needs none.
    alias: Option<String>,
    /// The name that DataFusion is given in the place of `alias`.
    mark: Option<String>,
}

impl Item {
    /// Whether it stands in the list as a column under its own name.
    fn is_plain(&self) -> bool {
        self.alias.is_none() && self.mark.is_none()
    }

    fn inner(&self) -> &str {
        self.mark.as_deref().unwrap_or(&self.name)
    }

    fn into_item(self) -> SelectItem {
        match self.mark.or(self.alias) {
            Some(alias) => SelectItem::ExprWithAlias { expr: self.expr, alias: folded(&alias) },
            None => SelectItem::UnnamedExpr(self.expr),
        }
    }
}

/// Where a query stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// It is the statement: its columns may have any names.
    Top,
    /// Others refer to its columns.
    Inner,
}

impl Binder<'_> {
    /// Resolves the query of a statement.
    pub(super) fn top(&self, query: &mut ast::Query) -> Result<()> {
        self.in_place(query, &Scopes::default(), Place::Top).map(|_| ())
    }

    /// Resolves a query inside of another; returns its columns, where they are known.
    pub(super) fn query(
        &self,
        query: &mut ast::Query,
        scopes: &Scopes,
    ) -> Result<Option<Vec<Output>>> {
        self.in_place(query, scopes, Place::Inner)
    }

    fn in_place(
        &self,
        query: &mut ast::Query,
        scopes: &Scopes,
        place: Place,
    ) -> Result<Option<Vec<Output>>> {
        let mut scopes = scopes.clone();
        if let Some(with) = &mut query.with {
            self.ctes(with, &mut scopes)?;
        }
        let ast::Query { body, order_by, limit_clause, .. } = query;
        if let Some(limit) = limit_clause {
            visit(self, &Scopes { sources: Vec::new(), ctes: scopes.ctes.clone() }, limit)?;
        }
        if let SetExpr::Select(select) = body.as_mut() {
            return self.select(select, order_by.as_mut(), &scopes, place);
        }
        let outputs = self.body(body, &scopes)?;
        if let (Some(outputs), Some(order_by)) = (&outputs, order_by)
            && let ast::OrderByKind::Expressions(keys) = &mut order_by.kind
        {
            for key in keys {
                let Expr::Identifier(ident) = &key.expr else { continue };
                let name = fold(ident);
                let mut places = outputs.iter().enumerate().filter(|(_, o)| o.name == name);
                match (places.next(), places.next()) {
                    (Some(_), Some(_)) => return Err(ambiguous(&name)),
                    (Some((_, output)), None) if output.inner != name => {
                        key.expr = Expr::Identifier(folded(&output.inner));
                    }
                    _ => {}
                }
            }
        }
        Ok(outputs)
    }

    fn ctes(&self, with: &mut ast::With, scopes: &mut Scopes) -> Result<()> {
        for cte in &mut with.cte_tables {
            let name = fold(&cte.alias.name);
            if with.recursive {
                // It may refer to itself, under the names of its list.
                let listed = &cte.alias.columns;
                let known = (!listed.is_empty()).then(|| listed.iter().map(listed_name).collect());
                scopes.ctes.insert(name.clone(), known);
            }
            let mut outputs = self.query(&mut cte.query, scopes)?;
            if let Some(outputs) = &mut outputs {
                give_names(outputs, &mut cte.alias);
                for (output, given) in outputs.iter_mut().zip(&cte.alias.columns) {
                    *output = listed_name(given);
                }
            }
            scopes.ctes.insert(name, outputs);
        }
        Ok(())
    }

    /// What stands around ORDER BY and LIMIT.
    fn body(&self, body: &mut SetExpr, scopes: &Scopes) -> Result<Option<Vec<Output>>> {
        match body {
            SetExpr::Select(select) => self.select(select, None, scopes, Place::Inner),
            SetExpr::Query(query) => self.query(query, scopes),
            SetExpr::SetOperation { left, right, .. } => {
                let outputs = self.body(left, scopes)?;
                self.body(right, scopes)?;
                Ok(outputs)
            }
            SetExpr::Values(values) => {
                visit(self, scopes, values)?;
                let width = values.rows.first().map_or(0, |row| row.content.len());
                let name = |i: usize| format!("column{}", i + 1);
                let output = |i| Output { name: name(i), inner: name(i) };
                Ok(Some((0..width).map(output).collect()))
            }
            _ => Ok(None),
        }
    }

    fn select(
        &self,
        select: &mut ast::Select,
        order_by: Option<&mut ast::OrderBy>,
        outer: &Scopes,
        place: Place,
    ) -> Result<Option<Vec<Output>>> {
        let source = self.from(&mut select.from, outer)?;
        let scopes = outer.with(source.clone());
        let resolve = |e: &mut Option<Expr>| match e {
            Some(e) => visit(self, &scopes, e),
            None => Ok(()),
        };
        resolve(&mut select.selection)?;
        resolve(&mut select.having)?;
        resolve(&mut select.qualify)?;
        visit(self, &scopes, &mut select.named_window)?;
        let by_name = order_by.is_some()
            || select.having.is_some()
            || select.qualify.is_some()
            || matches!(select.distinct, Some(ast::Distinct::On(_)))
            || !matches!(&select.group_by, ast::GroupByExpr::Expressions(e, _) if e.is_empty());
        let items = self.items(&mut select.projection, &source, &scopes)?;
        let mut items = match items {
            Some(mut items) => {
                mark(&mut items, &source, by_name, place);
                items
            }
            None => {
                // Names that are not known here are DataFusion's matter.
                self.keys(select, order_by, &[], &source, &scopes)?;
                return Ok(None);
            }
        };
        self.keys(select, order_by, &items, &source, &scopes)?;
        let outputs = items
            .iter()
            .map(|item| Output { name: item.name.clone(), inner: item.inner().to_owned() })
            .collect();
        let wildcards = select.projection.iter().any(is_wildcard);
        let is_changed = source.merged || items.iter().any(|item| item.mark.is_some());
        if !wildcards || is_changed {
            select.projection = items.drain(..).map(Item::into_item).collect();
        } else {
            name_explicit(&mut select.projection);
        }
        Ok(Some(outputs))
    }

    /// The columns of a select list; `None` where a wildcard stands for columns that are not known.
    fn items(
        &self,
        projection: &mut [SelectItem],
        source: &Source,
        scopes: &Scopes,
    ) -> Result<Option<Vec<Item>>> {
        let mut items = Vec::with_capacity(projection.len());
        let mut known = true;
        for item in projection.iter_mut() {
            match item {
                SelectItem::UnnamedExpr(expr) => {
                    let name = name_of(expr);
                    let column = matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_));
                    let before = expr.clone();
                    visit(self, scopes, expr)?;
                    let own = column
                        && (*expr == before || matches!(expr, Expr::CompoundIdentifier(_)))
                        && is_of(source, expr);
                    let alias = (!own).then(|| name.clone());
                    items.push(Item { expr: expr.clone(), name, alias, mark: None });
                }
                SelectItem::ExprWithAlias { expr, alias } => {
                    visit(self, scopes, expr)?;
                    let name = fold(alias);
                    let alias = Some(name.clone());
                    items.push(Item { expr: expr.clone(), name, alias, mark: None });
                }
                SelectItem::Wildcard(options) | SelectItem::QualifiedWildcard(_, options)
                    if !is_plain(options) =>
                {
                    known = false;
                }
                SelectItem::Wildcard(_) => {
                    known &= !source.unknown;
                    items.extend(source.columns.iter().map(of_column));
                }
                SelectItem::QualifiedWildcard(
                    ast::SelectItemQualifiedWildcardKind::ObjectName(name),
                    _,
                ) => {
                    let parts: Vec<ast::Ident> =
                        name.0.iter().filter_map(|part| part.as_ident().cloned()).collect();
                    let mut named = source.relations.iter().filter(|r| r.is_named(&parts));
                    match named.next() {
                        Some(relation) => items.extend(relation.columns.iter().map(of_column)),
                        None => known = false,
                    }
                }
                _ => known = false,
            }
        }
        if !known {
            name_explicit(projection);
        }
        Ok(known.then_some(items))
    }

    /// GROUP BY, DISTINCT ON and ORDER BY, which may mean an output by its name.
    fn keys(
        &self,
        select: &mut ast::Select,
        order_by: Option<&mut ast::OrderBy>,
        items: &[Item],
        source: &Source,
        scopes: &Scopes,
    ) -> Result<()> {
        if let ast::GroupByExpr::Expressions(groups, _) = &mut select.group_by {
            for group in groups {
                match group {
                    // A column of the rows comes first.
                    Expr::Identifier(ident)
                        if !source.unknown
                            && !source.columns.iter().any(|c| c.name == fold(ident)) =>
                    {
                        match named(items, &fold(ident))? {
                            Some(item) if item.mark.is_some() => *group = item.expr.clone(),
                            Some(_) => {}
                            None => visit(self, scopes, group)?,
                        }
                    }
                    group => visit(self, scopes, group)?,
                }
            }
        }
        let distinct = matches!(select.distinct, Some(ast::Distinct::Distinct));
        let mut keys: Vec<&mut Expr> = Vec::new();
        if let Some(ast::Distinct::On(on)) = &mut select.distinct {
            keys.extend(on.iter_mut());
        }
        if let Some(ast::OrderBy { kind: ast::OrderByKind::Expressions(by), .. }) = order_by {
            keys.extend(by.iter_mut().map(|key| &mut key.expr));
        }
        for key in keys {
            let item = match &*key {
                Expr::Identifier(ident) => named(items, &fold(ident))?,
                _ => None,
            };
            match item {
                Some(Item { mark: Some(mark), .. }) => *key = Expr::Identifier(folded(mark)),
                Some(item) if item.is_plain() => *key = item.expr.clone(),
                Some(_) => {}
                None => {
                    visit(self, scopes, key)?;
                    if distinct && !items.is_empty() {
                        output_of_distinct(items, key)?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// What rows of SELECT DISTINCT are sorted by is one of the outputs, and named by its position: DataFusion knows a column that is
/// computed in both places for one by its name only.
fn output_of_distinct(items: &[Item], key: &mut Expr) -> Result<()> {
    if matches!(key, Expr::Value(_)) {
        return Ok(());
    }
    let Some(position) = items.iter().position(|item| item.expr == *key) else {
        let message = format!(
            "for SELECT DISTINCT, ORDER BY takes what the select list has: {key} is not in it"
        );
        return Err(Error::new(Code::InvalidColumnReference, message));
    };
    *key = Expr::value(ast::Value::Number((position + 1).to_string(), false));
    Ok(())
}

fn listed_name(column: &ast::TableAliasColumnDef) -> Output {
    let inner = fold(&column.name);
    Output { name: super::shown(&inner).to_owned(), inner }
}

/// The output of a name; several are one where they are the same.
fn named<'a>(items: &'a [Item], name: &str) -> Result<Option<&'a Item>> {
    let mut found = items.iter().filter(|item| item.name == name);
    let Some(first) = found.next() else { return Ok(None) };
    match found.all(|item| item.expr == first.expr) {
        true => Ok(Some(first)),
        false => Err(ambiguous(name)),
    }
}

fn is_plain(options: &ast::WildcardAdditionalOptions) -> bool {
    options.to_string().is_empty()
}

fn is_wildcard(item: &SelectItem) -> bool {
    matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..))
}

/// Whether a column is one of the query's own rows, not of a query around it.
fn is_of(source: &Source, column: &Expr) -> bool {
    if source.unknown {
        return true;
    }
    match column {
        Expr::Identifier(ident) => source.columns.iter().any(|c| c.name == fold(ident)),
        Expr::CompoundIdentifier(parts) => {
            let (_, qualifier) = parts.split_last().unwrap_or((&parts[0], &[]));
            source.relations.iter().any(|relation| relation.is_named(qualifier))
        }
        _ => false,
    }
}

fn of_column(column: &super::scope::Column) -> Item {
    let plain = matches!(column.reference, Expr::Identifier(_) | Expr::CompoundIdentifier(_));
    let alias = (!plain || column.rewritten).then(|| column.name.clone());
    Item { expr: column.reference.clone(), name: column.name.clone(), alias, mark: None }
}

/// Gives marks to names that DataFusion would refuse, or take for others.
fn mark(items: &mut [Item], source: &Source, by_name: bool, place: Place) {
    for i in 0..items.len() {
        let (before, rest) = items.split_at_mut(i);
        let item = &mut rest[0];
        let same = |other: &&Item| other.name == item.name;
        let repeats = match place {
            Place::Inner => before.iter().any(|other| same(&other)),
            // Columns of two tables may have the same name.
            Place::Top => before.iter().filter(same).any(|other| {
                !(other.is_plain() && item.is_plain() && differ(&other.expr, &item.expr))
            }),
        };
        let hidden = by_name
            && item.alias.is_some()
            && source.columns.iter().any(|c| c.name == item.name && !c.rewritten);
        if repeats || hidden {
            item.mark = Some(marked(&item.name, i));
        }
    }
}

/// Whether two plain columns are of different tables, as their text says.
fn differ(left: &Expr, right: &Expr) -> bool {
    match (left, right) {
        (Expr::CompoundIdentifier(l), Expr::CompoundIdentifier(r)) => {
            let qualifier =
                |parts: &[ast::Ident]| parts.iter().rev().nth(1).map(fold).unwrap_or_default();
            qualifier(l) != qualifier(r)
        }
        _ => false,
    }
}

/// Gives the names that the text does not give to the expressions of a list.
fn name_explicit(projection: &mut [SelectItem]) {
    for item in projection {
        if let SelectItem::UnnamedExpr(expr) = item
            && !matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_))
        {
            let alias = folded(&name_of(expr));
            *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
        }
    }
}
