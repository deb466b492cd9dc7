//! Bounds of statements. Parsers, planners and the drop of a tree recurse: a text is bounded twice, so that none of them comes
//! to the end of a stack. Its tokens bound what the parser can make of it ([`check_tokens`]); then long chains of operators are
//! made balanced trees ([`balance`](super::balance)), and the tree that comes out is measured ([`check_tree`]).

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{self, Visit, Visitor};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::code::Code;
use super::error::{Error, Result};

/// Parentheses, subqueries and the like may nest this deep in the parser.
pub(crate) const MAX_NESTING: usize = 100;

/// Levels of the tree that a parser may make of a text, before its chains are balanced: what a large stack can drop.
const MAX_PARSED_LEVELS: usize = 6_000;

/// Levels of an expression. The planner's time grows with the square of them.
const MAX_EXPRESSION_LEVELS: usize = 2_500;

/// EXCEPT and INTERSECT in a row, which each work on what the one before left.
const MAX_SET_LEVELS: usize = 100;

/// Types in types, and subscripts in a row.
const MAX_TYPE_LEVELS: usize = 64;

/// Constructs with a grammar of their own (CAST, EXTRACT, EXISTS and the like) in one another. Where the parser cannot read one, it
/// tries it once more as a plain function, so that a mistake within costs twice as much for each level around it.
const MAX_SPECIAL_LEVELS: usize = 20;

/// Tables that one FROM joins: each join has the columns of all before it.
const MAX_JOINED: usize = 400;

/// Tables of a statement, each counted as often as its common table expressions are used.
const MAX_RELATIONS: u64 = 10_000;

/// Queries and joins that build on one another.
const MAX_QUERY_LEVELS: u64 = 5_000;

/// Centroids that an approximate percentile may keep; a hundred is usual.
const MAX_PERCENTILE_SIZE: u64 = 100_000;

/// Grouping sets of one SELECT, as in PostgreSQL.
const MAX_GROUPING_SETS: usize = 4_096;

/// The error for a statement that is beyond a limit.
pub(crate) fn too_complex(message: impl Into<String>) -> Error {
    Error::new(Code::StatementTooComplex, message)
}

/// What is between two brackets.
#[derive(Default)]
struct Group {
    set_operations: usize,
    /// Operators and keywords since the last comma, and the deepest group among them.
    chain: usize,
    inner: usize,
    /// The deepest of the members before.
    deepest: usize,
    types: usize,
    subscripts: usize,
    /// Groups around it that belong to a construct with a grammar of its own.
    special: usize,
}

impl Group {
    fn levels(&self) -> usize {
        self.set_operations + self.deepest.max(self.chain + self.inner)
    }

    fn next_member(&mut self) {
        self.deepest = self.deepest.max(self.chain + self.inner);
        (self.chain, self.inner, self.types, self.subscripts) = (0, 0, 0, 0);
    }
}

/// Refuses a text of which the parser could make a tree too deep to be dropped: every level of a tree needs an operator, a
/// keyword or a bracket of its own.
pub(crate) fn check_tokens(tokens: &[TokenWithSpan]) -> Result<()> {
    let mut outer: Vec<Group> = Vec::new();
    let mut group = Group::default();
    let mut before = &Token::EOF;
    for TokenWithSpan { token, .. } in tokens {
        match token {
            Token::Whitespace(_) => continue,
            Token::LParen | Token::LBracket | Token::LBrace => {
                group.chain += 1;
                match (before, token) {
                    (Token::RBracket, Token::LBracket) => group.subscripts += 1,
                    _ => group.subscripts = 0,
                }
                let special = group.special + usize::from(is_special(before));
                outer.push(std::mem::replace(&mut group, Group { special, ..Group::default() }));
            }
            Token::RParen | Token::RBracket | Token::RBrace => {
                let levels = group.levels();
                group = outer.pop().unwrap_or_default();
                group.inner = group.inner.max(levels);
            }
            Token::Comma => group.next_member(),
            Token::SemiColon if outer.is_empty() => group = Group::default(),
            Token::Word(word) => match word.keyword {
                Keyword::NoKeyword => {}
                Keyword::UNION | Keyword::EXCEPT | Keyword::INTERSECT | Keyword::MINUS => {
                    group.next_member();
                    group.set_operations += 1;
                }
                _ => group.chain += 1,
            },
            Token::Lt if matches!(before, Token::Word(w) if w.keyword != Keyword::NoKeyword) => {
                group.chain += 1;
                group.types += 1;
            }
            Token::Number(..)
            | Token::SingleQuotedString(_)
            | Token::Period
            | Token::Placeholder(_) => {}
            _ => group.chain += 1,
        }
        before = token;
        if group.special > MAX_SPECIAL_LEVELS {
            return Err(too_complex(format!(
                "CAST, EXTRACT, EXISTS and the like nest deeper than the limit of {MAX_SPECIAL_LEVELS} levels"
            )));
        }
        if outer.len() > 2 * MAX_NESTING {
            return Err(nests_too_deep());
        }
        if group.types > MAX_TYPE_LEVELS || group.subscripts > MAX_TYPE_LEVELS {
            return Err(too_complex(format!(
                "types or subscripts nest deeper than the limit of {MAX_TYPE_LEVELS} levels"
            )));
        }
        if group.levels() > MAX_PARSED_LEVELS {
            return Err(too_complex(format!(
                "an expression or a set operation has more than {MAX_PARSED_LEVELS} operators; use IN, VALUES or a join instead"
            )));
        }
    }
    // What is open still counts: a text that ends too early is dropped like any other.
    let open: usize = outer.iter().map(Group::levels).sum();
    if open + group.levels() > 2 * MAX_PARSED_LEVELS {
        return Err(nests_too_deep());
    }
    Ok(())
}

/// Whether a bracket after `token` opens a construct with a grammar of its own.
fn is_special(token: &Token) -> bool {
    let Token::Word(word) = token else { return false };
    matches!(
        word.keyword,
        Keyword::CAST
            | Keyword::TRY_CAST
            | Keyword::SAFE_CAST
            | Keyword::CONVERT
            | Keyword::TRY_CONVERT
            | Keyword::EXTRACT
            | Keyword::CEIL
            | Keyword::FLOOR
            | Keyword::POSITION
            | Keyword::SUBSTR
            | Keyword::SUBSTRING
            | Keyword::OVERLAY
            | Keyword::TRIM
            | Keyword::EXISTS
            | Keyword::ARRAY
            | Keyword::STRUCT
            | Keyword::INTERVAL
            | Keyword::NOT
    )
}

/// The error for brackets in brackets beyond the limit.
pub(crate) fn nests_too_deep() -> Error {
    too_complex(format!("the statement nests deeper than the limit of {MAX_NESTING} levels"))
}

/// Measures a tree; refuses one that is deeper or larger than a planner can take.
pub(crate) fn check_tree(statement: &ast::Statement) -> Result<()> {
    match statement.visit(&mut Tree::default()) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

/// How much common table expressions are, by what they use in turn.
#[derive(Clone, Copy, Default)]
struct Size {
    relations: u64,
    levels: u64,
    /// Whether there is something random in them: each use would have values of its own.
    random: bool,
}

#[derive(Default)]
struct QueryFrame {
    /// The common table expressions by the address of their query.
    ctes: HashMap<usize, String>,
    defined: HashMap<String, Size>,
    size: Size,
    /// Tables of its largest FROM.
    joined: u64,
    set_levels: usize,
    /// Those with random values that were used.
    random_used: HashSet<String>,
}

#[derive(Default)]
struct Tree {
    levels: usize,
    queries: Vec<QueryFrame>,
}

impl Tree {
    fn enter(&mut self, levels: usize) -> ControlFlow<Error> {
        self.levels += levels;
        if self.levels > MAX_EXPRESSION_LEVELS {
            return ControlFlow::Break(too_complex(format!(
                "an expression has more than {MAX_EXPRESSION_LEVELS} levels of operators; use IN, VALUES or a join instead"
            )));
        }
        ControlFlow::Continue(())
    }

    /// Notes that a common table expression is used; says whether it was not before.
    fn first_use(&mut self, name: &str) -> bool {
        let mut frames = self.queries.iter_mut().rev();
        let frame = frames.find(|frame| frame.defined.contains_key(name));
        frame.is_none_or(|frame| frame.random_used.insert(name.to_owned()))
    }

    fn find(&self, name: &str) -> Option<Size> {
        self.queries.iter().rev().find_map(|q| q.defined.get(name).copied())
    }
}

fn address(query: &ast::Query) -> usize {
    std::ptr::from_ref(query).addr()
}

impl Visitor for Tree {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &ast::Query) -> ControlFlow<Error> {
        let set_levels = set_levels(&query.body);
        if set_levels > MAX_SET_LEVELS {
            return ControlFlow::Break(too_complex(format!(
                "more than {MAX_SET_LEVELS} set operations that build on one another"
            )));
        }
        let ctes = query.with.iter().flat_map(|with| &with.cte_tables);
        let ctes = ctes.map(|c| (address(&c.query), c.alias.name.value.to_lowercase())).collect();
        self.queries.push(QueryFrame { ctes, set_levels, ..QueryFrame::default() });
        self.enter(set_levels + 1)
    }

    fn post_visit_query(&mut self, query: &ast::Query) -> ControlFlow<Error> {
        let Some(frame) = self.queries.pop() else { return ControlFlow::Continue(()) };
        self.levels -= frame.set_levels + 1;
        let size = Size {
            relations: frame.size.relations.saturating_add(1),
            levels: frame.size.levels + frame.joined + frame.set_levels as u64 + 1,
            random: frame.size.random,
        };
        if size.relations > MAX_RELATIONS {
            return ControlFlow::Break(too_complex(format!(
                "the statement reads more than {MAX_RELATIONS} tables, common table expressions counted as often as they are used"
            )));
        }
        if size.levels > MAX_QUERY_LEVELS {
            return ControlFlow::Break(too_complex(format!(
                "more than {MAX_QUERY_LEVELS} queries and joins build on one another"
            )));
        }
        if let Some(outer) = self.queries.last_mut() {
            match outer.ctes.remove(&address(query)) {
                Some(name) => {
                    outer.defined.insert(name, size);
                }
                None => {
                    outer.size.relations = outer.size.relations.saturating_add(size.relations);
                    outer.size.levels += size.levels;
                    outer.size.random |= size.random;
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &ast::Select) -> ControlFlow<Error> {
        let joined: usize = select.from.iter().map(|table| 1 + table.joins.len()).sum();
        if joined > MAX_JOINED {
            return ControlFlow::Break(too_complex(format!(
                "a FROM joins more than {MAX_JOINED} tables"
            )));
        }
        if let Some(frame) = self.queries.last_mut() {
            frame.joined = frame.joined.max(joined as u64);
        }
        grouping_sets(&select.group_by)
    }

    fn pre_visit_table_factor(&mut self, table: &ast::TableFactor) -> ControlFlow<Error> {
        let ast::TableFactor::Table { name, .. } = table else {
            return ControlFlow::Continue(());
        };
        let size = match name.0.as_slice() {
            [ast::ObjectNamePart::Identifier(name)] => self.find(&name.value.to_lowercase()),
            _ => None,
        };
        let size = size.unwrap_or(Size { relations: 1, levels: 0, random: false });
        if size.random && !self.first_use(&name.to_string().to_lowercase()) {
            return ControlFlow::Break(Error::unsupported(format!(
                "the common table expression {name} has random values and is used twice, where its rows would differ; \
                 store them in a table first"
            )));
        }
        if let Some(frame) = self.queries.last_mut() {
            frame.size.relations = frame.size.relations.saturating_add(size.relations);
            frame.size.random |= size.random;
            // Of tables that are joined, the deepest counts.
            frame.size.levels = frame.size.levels.max(size.levels);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &ast::Expr) -> ControlFlow<Error> {
        if let ast::Expr::Function(function) = expr {
            type_text(function)?;
            percentile_size(function)?;
            let name = function.name.to_string().to_lowercase();
            if matches!(name.as_str(), "random" | "uuid" | "gen_random_uuid")
                && let Some(frame) = self.queries.last_mut()
            {
                frame.size.random = true;
            }
        }
        self.enter(1)
    }

    fn post_visit_expr(&mut self, _expr: &ast::Expr) -> ControlFlow<Error> {
        self.levels -= 1;
        ControlFlow::Continue(())
    }
}

/// Set operations from the body of a query to its deepest SELECT.
fn set_levels(body: &ast::SetExpr) -> usize {
    let mut deepest = 0;
    let mut todo = vec![(body, 0)];
    while let Some((body, levels)) = todo.pop() {
        deepest = deepest.max(levels);
        if let ast::SetExpr::SetOperation { left, right, .. } = body {
            todo.push((left, levels + 1));
            todo.push((right, levels + 1));
        }
    }
    deepest
}

/// Refuses CUBE and the like that stand for very many groupings.
fn grouping_sets(group_by: &ast::GroupByExpr) -> ControlFlow<Error> {
    let ast::GroupByExpr::Expressions(expressions, _) = group_by else {
        return ControlFlow::Continue(());
    };
    let mut sets = 1usize;
    for expression in expressions {
        let factor = match expression {
            ast::Expr::Cube(of) => 1usize.checked_shl(of.len() as u32).unwrap_or(usize::MAX),
            ast::Expr::Rollup(of) => of.len() + 1,
            ast::Expr::GroupingSets(of) => of.len().max(1),
            _ => 1,
        };
        sets = sets.saturating_mul(factor);
    }
    if sets > MAX_GROUPING_SETS {
        return ControlFlow::Break(too_complex(format!(
            "too many grouping sets (at most {MAX_GROUPING_SETS})"
        )));
    }
    ControlFlow::Continue(())
}

/// Refuses the text of a type that nests too deep: it has a parser of its own.
fn type_text(function: &ast::Function) -> ControlFlow<Error> {
    let name = function.name.to_string().to_lowercase();
    if !matches!(name.as_str(), "arrow_cast" | "arrow_try_cast") {
        return ControlFlow::Continue(());
    }
    let ast::FunctionArguments::List(list) = &function.args else {
        return ControlFlow::Continue(());
    };
    for argument in &list.args {
        if let ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(ast::Expr::Value(value))) =
            argument
            && let Some(text) = value.value.clone().into_string()
            && text.bytes().filter(|c| matches!(c, b'(' | b'<' | b'[')).count() > MAX_TYPE_LEVELS
        {
            return ControlFlow::Break(too_complex(format!(
                "a type nests deeper than the limit of {MAX_TYPE_LEVELS} levels"
            )));
        }
    }
    ControlFlow::Continue(())
}

/// Refuses an approximate percentile of which so much would be kept that it is set aside at once.
fn percentile_size(function: &ast::Function) -> ControlFlow<Error> {
    let name = function.name.to_string().to_lowercase();
    let within = usize::from(!function.within_group.is_empty());
    let required = match name.as_str() {
        "approx_percentile_cont" => 2 - within,
        "approx_percentile_cont_with_weight" => 3 - within,
        _ => return ControlFlow::Continue(()),
    };
    let ast::FunctionArguments::List(list) = &function.args else {
        return ControlFlow::Continue(());
    };
    for argument in list.args.iter().skip(required) {
        let size = argument.to_string().parse::<u64>();
        if !size.is_ok_and(|size| size <= MAX_PERCENTILE_SIZE) {
            return ControlFlow::Break(Error::new(
                Code::ProgramLimitExceeded,
                format!("the size in {name} must be a number up to {MAX_PERCENTILE_SIZE}"),
            ));
        }
    }
    ControlFlow::Continue(())
}

#[cfg(test)]
mod tests;
