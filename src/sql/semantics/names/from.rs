//! FROM: the columns of its relations, and what USING and NATURAL make of them.

use datafusion::common::TableReference;
use datafusion::sql::planner::ContextProvider;
use datafusion::sql::sqlparser::ast::{self, Expr, JoinConstraint, JoinOperator, TableFactor};

use super::query::{Binder, Output};
use super::scope::{Column, Relation, Scopes, Source, ambiguous, visit};
use super::{folded, marked, shown};
use crate::sql::context::{TARGET_CATALOG, fold};
use crate::sql::{Code, Error, Result};

impl Binder<'_> {
    /// The columns of a FROM clause, which is resolved itself.
    pub(super) fn from(
        &self,
        tables: &mut [ast::TableWithJoins],
        outer: &Scopes,
    ) -> Result<Source> {
        let mut all = Source::default();
        for table in tables {
            let next = self.table_with_joins(table, outer, &all)?;
            all = beside(all, next);
        }
        Ok(all)
    }

    /// A table and what is joined to it. A LATERAL subquery sees `left`, too.
    fn table_with_joins(
        &self,
        table: &mut ast::TableWithJoins,
        outer: &Scopes,
        left: &Source,
    ) -> Result<Source> {
        let mut source = self.factor(&mut table.relation, outer, left)?;
        for join in &mut table.joins {
            let in_sight = beside(left.clone(), source.clone());
            let right = self.factor(&mut join.relation, outer, &in_sight)?;
            source = self.join(source, right, &mut join.join_operator, outer)?;
        }
        Ok(source)
    }

    fn factor(&self, factor: &mut TableFactor, outer: &Scopes, left: &Source) -> Result<Source> {
        match factor {
            TableFactor::Table { name, alias, args: None, .. } => {
                let columns = self.table_columns(name, outer);
                let parts = name.0.iter().filter_map(|part| part.as_ident().cloned()).collect();
                Ok(relation(columns, parts, alias.as_ref()))
            }
            TableFactor::Derived { lateral, subquery, alias, .. } => {
                let columns = match lateral {
                    true => self.query(subquery, &outer.with(left.clone()))?,
                    false => self.query(subquery, outer)?,
                };
                Ok(derived(columns, alias.as_mut()))
            }
            TableFactor::NestedJoin { table_with_joins, alias: None } => {
                self.table_with_joins(table_with_joins, outer, left)
            }
            other => {
                visit(self, &outer.with(left.clone()), other)?;
                Ok(Source { unknown: true, ..Source::default() })
            }
        }
    }

    /// The columns of a table, view or CTE.
    fn table_columns(&self, name: &ast::ObjectName, outer: &Scopes) -> Option<Vec<Typed>> {
        let parts: Vec<String> =
            name.0.iter().map(|part| part.as_ident().map(fold)).collect::<Option<_>>()?;
        if let [single] = parts.as_slice()
            && let Some(columns) = outer.ctes.get(single)
        {
            let columns = columns.as_ref()?;
            return Some(columns.iter().map(|c| (c.name.clone(), c.inner.clone(), None)).collect());
        }
        let reference = match parts.as_slice() {
            [table] => TableReference::bare(table.as_str()),
            [schema, table] => TableReference::partial(schema.as_str(), table.as_str()),
            [catalog, schema, table] => {
                TableReference::full(catalog.as_str(), schema.as_str(), table.as_str())
            }
            _ => return None,
        };
        let source = match reference.catalog() {
            Some(TARGET_CATALOG) => self.context.get_table_source(reference).ok()?,
            _ => self.context.source(reference, false).ok()?,
        };
        let fields = source.schema().fields().clone();
        let column = |f: &arrow::datatypes::FieldRef| {
            (f.name().clone(), f.name().clone(), Some(f.data_type().clone()))
        };
        Some(fields.iter().map(column).collect())
    }

    fn join(
        &self,
        left: Source,
        right: Source,
        operator: &mut JoinOperator,
        outer: &Scopes,
    ) -> Result<Source> {
        let kind = match operator {
            JoinOperator::Join(_) | JoinOperator::Inner(_) => Kind::Inner,
            JoinOperator::Left(_) | JoinOperator::LeftOuter(_) => Kind::Left,
            JoinOperator::Right(_) | JoinOperator::RightOuter(_) => Kind::Right,
            JoinOperator::FullOuter(_) => Kind::Full,
            JoinOperator::CrossJoin(_) => return Ok(beside(left, right)),
            _ => return Ok(Source { unknown: true, ..beside(left, right) }),
        };
        let natural_cross = {
            let Some(constraint) = constraint(operator) else { return Ok(beside(left, right)) };
            let names = match constraint {
                JoinConstraint::On(condition) => {
                    let both = beside(left, right);
                    visit(self, &outer.with(both.clone()), condition)?;
                    return Ok(both);
                }
                JoinConstraint::None => return Ok(beside(left, right)),
                JoinConstraint::Using(_) | JoinConstraint::Natural
                    if left.unknown || right.unknown =>
                {
                    return Ok(Source { unknown: true, ..beside(left, right) });
                }
                JoinConstraint::Using(names) => names
                    .iter()
                    .map(|name| match name.0.as_slice() {
                        [part] => part.as_ident().map(fold).ok_or_else(|| bad_using(name)),
                        _ => Err(bad_using(name)),
                    })
                    .collect::<Result<Vec<_>>>()?,
                JoinConstraint::Natural => {
                    let has = |c: &Column| right.columns.iter().any(|r| r.name == c.name);
                    left.columns.iter().filter(|c| has(c)).map(|c| c.name.clone()).collect()
                }
            };
            if !names.is_empty() {
                let (condition, merged) = merge(left, right, &names, kind)?;
                *constraint = JoinConstraint::On(condition);
                return Ok(merged);
            }
            *constraint = JoinConstraint::On(Expr::value(ast::Value::Boolean(true)));
            kind == Kind::Inner
        };
        if natural_cross {
            *operator = JoinOperator::CrossJoin(JoinConstraint::None);
        }
        Ok(beside(left, right))
    }
}

/// A column's name, its name inside, and its type.
type Typed = (String, String, Option<arrow::datatypes::DataType>);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Inner,
    Left,
    Right,
    Full,
}

fn constraint(operator: &mut JoinOperator) -> Option<&mut JoinConstraint> {
    match operator {
        JoinOperator::Join(constraint)
        | JoinOperator::Inner(constraint)
        | JoinOperator::Left(constraint)
        | JoinOperator::LeftOuter(constraint)
        | JoinOperator::Right(constraint)
        | JoinOperator::RightOuter(constraint)
        | JoinOperator::FullOuter(constraint) => Some(constraint),
        _ => None,
    }
}

fn bad_using(name: &ast::ObjectName) -> Error {
    Error::syntax(format!("USING ({name}): a column's bare name is expected"))
}

/// Two sources side by side.
fn beside(mut left: Source, right: Source) -> Source {
    left.columns.extend(right.columns);
    left.relations.extend(right.relations);
    left.unknown |= right.unknown;
    left.merged |= right.merged;
    left
}

/// The one column of a name.
fn the_column(source: &Source, name: &str, side: &str) -> Result<Column> {
    let mut found = source.columns.iter().filter(|column| column.name == name);
    match (found.next(), found.next()) {
        (Some(column), None) => Ok(column.clone()),
        (Some(_), Some(_)) => Err(ambiguous(name)),
        (None, _) => Err(Error::new(
            Code::UndefinedColumn,
            format!("column \"{name}\" specified in USING clause does not exist in {side} table"),
        )),
    }
}

/// The condition of a join on columns of the same names, and its columns: the merged ones first.
fn merge(left: Source, right: Source, names: &[String], kind: Kind) -> Result<(Expr, Source)> {
    let mut condition: Option<Expr> = None;
    let mut merged = Vec::new();
    for name in names {
        let (l, r) = (the_column(&left, name, "left")?, the_column(&right, name, "right")?);
        let equal = Expr::BinaryOp {
            left: Box::new(l.reference.clone()),
            op: ast::BinaryOperator::Eq,
            right: Box::new(r.reference.clone()),
        };
        condition = Some(match condition {
            None => equal,
            Some(before) => Expr::BinaryOp {
                left: Box::new(before),
                op: ast::BinaryOperator::And,
                right: Box::new(equal),
            },
        });
        // The type is the common one, also where only one side may be without a row.
        let same_type = l.data_type.is_some() && l.data_type == r.data_type;
        let differ = l.data_type.is_some() && r.data_type.is_some() && !same_type;
        let reference = match kind {
            Kind::Inner | Kind::Left if !differ => l.reference,
            Kind::Right if !differ => r.reference,
            Kind::Right => coalesce(r.reference, l.reference),
            _ => coalesce(l.reference, r.reference),
        };
        let data_type = if same_type { l.data_type } else { None };
        merged.push(Column { name: name.clone(), reference, rewritten: true, data_type });
    }
    let rest = |source: &Source| {
        let columns = source.columns.iter().filter(|c| !names.contains(&c.name)).cloned();
        columns.collect::<Vec<_>>()
    };
    merged.extend(rest(&left));
    merged.extend(rest(&right));
    let mut source = beside(left, right);
    source.columns = merged;
    source.merged = true;
    Ok((condition.unwrap_or_else(|| Expr::value(ast::Value::Boolean(true))), source))
}

fn coalesce(left: Expr, right: Expr) -> Expr {
    let argument = |e| ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(e));
    Expr::Function(ast::Function {
        name: ast::ObjectName::from(vec![ast::Ident::new("coalesce")]),
        uses_odbc_syntax: false,
        parameters: ast::FunctionArguments::None,
        args: ast::FunctionArguments::List(ast::FunctionArgumentList {
            duplicate_treatment: None,
            args: vec![argument(left), argument(right)],
            clauses: Vec::new(),
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

/// A relation of known columns under its name or alias.
fn relation(
    columns: Option<Vec<Typed>>,
    name: Vec<ast::Ident>,
    alias: Option<&ast::TableAlias>,
) -> Source {
    let Some(mut columns) = columns else {
        return Source { unknown: true, ..Source::default() };
    };
    let name = match alias {
        Some(alias) => {
            for (column, given) in columns.iter_mut().zip(&alias.columns) {
                let given = fold(&given.name);
                *column = (shown(&given).to_owned(), given, column.2.clone());
            }
            vec![alias.name.clone()]
        }
        None => name,
    };
    let columns: Vec<Column> = columns
        .into_iter()
        .map(|(shown, inner, data_type)| {
            let rewritten = shown != inner;
            let mut parts = name.clone();
            parts.push(folded(&inner));
            let reference = match parts.len() {
                1 => Expr::Identifier(folded(&inner)),
                _ => Expr::CompoundIdentifier(parts),
            };
            Column { name: shown, reference, rewritten, data_type }
        })
        .collect();
    Source {
        relations: vec![Relation { name, columns: columns.clone() }],
        columns,
        unknown: false,
        merged: false,
    }
}

/// A subquery in FROM. Where its columns carry other names inside, a list of columns gives them theirs.
fn derived(columns: Option<Vec<Output>>, alias: Option<&mut ast::TableAlias>) -> Source {
    let Some(mut outputs) = columns else {
        return Source { unknown: true, ..Source::default() };
    };
    let mut alias = alias;
    if let Some(alias) = alias.as_deref_mut() {
        give_names(&mut outputs, alias);
    }
    let columns = outputs.into_iter().map(|o| (o.name, o.inner, None)).collect();
    relation(Some(columns), Vec::new(), alias.as_deref())
}

/// Makes the names that are seen the names of the columns as far as they are unique, by a list of columns in the alias.
pub(super) fn give_names(outputs: &mut [Output], alias: &mut ast::TableAlias) {
    if !alias.columns.is_empty() || outputs.iter().all(|o| o.name == o.inner) {
        return;
    }
    for i in 0..outputs.len() {
        let name = outputs[i].name.clone();
        let before = outputs[..i].iter().any(|o| o.name == name);
        outputs[i].inner = if before { marked(&name, i) } else { name };
    }
    let column = |o: &Output| ast::TableAliasColumnDef { name: folded(&o.inner), data_type: None };
    alias.columns = outputs.iter().map(column).collect();
}
