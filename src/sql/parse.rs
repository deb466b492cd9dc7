//! From text to statements: tokens, parameters, limits, and what is supported at all.

use std::sync::Arc;

use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

use super::clauses;
use super::code::Code;
use super::context::TARGET_CATALOG;
use super::dialect::OmenDialect;
use super::error::{Error, Result};
use super::planning::Deep;
use super::semantics::syntax;
use super::semantics::{any_array, patterns, values};
use super::transaction::Control;
use super::upkeep::Upkeep;
use super::{SqlOptions, StatementKind, balance, limits, with_clause};

/// A syntax tree. It may be deep: it is shared, and dropped where there is room for that.
pub(crate) type Tree = Arc<Deep<ast::Statement>>;

/// A parsed statement, by what runs it.
#[derive(Debug, Clone)]
pub(crate) enum Statement {
    /// SELECT, VALUES, EXPLAIN: planned by DataFusion.
    Query(Tree),
    /// SHOW, DESCRIBE: a query over the system tables.
    Show(Tree),
    /// SET, RESET and the like: changes the session.
    Set(Tree),
    /// Changes rows.
    Dml(Tree),
    /// Changes definitions.
    Ddl(Tree),
    /// BEGIN, COMMIT, SAVEPOINT and the like.
    Control(Control),
    /// KILL: stops the query of that number.
    Cancel(u64),
    /// ANALYZE, VACUUM, CHECKPOINT.
    Upkeep(Upkeep),
}

impl Statement {
    /// What a client must know of it.
    pub(crate) fn kind(&self) -> StatementKind {
        match self {
            Self::Query(_) | Self::Show(_) => StatementKind::Query,
            Self::Dml(_) => StatementKind::Update,
            Self::Set(_) | Self::Ddl(_) | Self::Control(_) | Self::Cancel(_) | Self::Upkeep(_) => {
                StatementKind::Definition
            }
        }
    }
}

/// Parses a script. Each statement comes with its own text.
pub(crate) fn parse_script(sql: &str, options: &SqlOptions) -> Result<Vec<Statement>> {
    if sql.len() > options.max_sql_bytes {
        return Err(Error::new(
            Code::ProgramLimitExceeded,
            format!(
                "the statement has {} bytes, more than the limit of {}",
                sql.len(),
                options.max_sql_bytes
            ),
        ));
    }
    let mut tokens = Tokenizer::new(&OmenDialect, sql)
        .tokenize_with_location()
        .map_err(|e| Error::new(Code::SyntaxError, format!("{e}")))?;
    limits::check_tokens(&tokens)?;
    check_names(&tokens)?;
    number_parameters(&mut tokens)?;
    if begins_with(&tokens, &["CREATE", "EXTERNAL"]) {
        return Err(Error::unsupported("CREATE EXTERNAL TABLE is not supported"));
    }
    if let Some(upkeep) = Upkeep::parse(&tokens)? {
        return Ok(vec![Statement::Upkeep(upkeep)]);
    }
    let mut statements = Parser::new(&OmenDialect)
        .with_recursion_limit(limits::MAX_NESTING)
        .with_tokens_with_locations(tokens)
        .parse_statements()
        .map_err(syntax_error)?;
    for statement in &mut statements {
        balance::balance(statement);
        limits::check_tree(statement)?;
        syntax::rewrite(statement)?;
        clauses::check(statement)?;
        patterns::rewrite(statement);
        any_array::rewrite(statement);
        values::rewrite(statement)?;
    }
    statements
        .into_iter()
        .map(|statement| classify(sql, with_clause::carried_out(statement)?))
        .collect()
}

/// Whether a text is so short and plain that no part of it nests: a parser then needs next to no stack.
pub(crate) fn is_flat(sql: &str) -> bool {
    sql.len() <= 512
        && !sql.contains(['(', '[', '{'])
        && sql.split_ascii_whitespace().count() <= 24
        // Without brackets and words only signs nest.
        && sql.bytes().filter(|c| c.is_ascii_punctuation() && !b"_.,'\"".contains(c)).count() <= 24
}

/// Parses just one statement.
pub(crate) fn parse_one(sql: &str, options: &SqlOptions) -> Result<Statement> {
    let mut statements = parse_script(sql, options)?;
    match statements.len() {
        1 => Ok(statements.remove(0)),
        0 => Err(Error::new(Code::SyntaxError, "the text holds no statement")),
        n => Err(Error::new(
            Code::SyntaxError,
            format!(
                "expected one statement and found {n}; send a script as an update, or one by one"
            ),
        )),
    }
}

/// Refuses the name of the catalog through which changes see the addresses of rows.
fn check_names(tokens: &[TokenWithSpan]) -> Result<()> {
    let reserved = |word: &str| word.eq_ignore_ascii_case(TARGET_CATALOG);
    if tokens.iter().any(|t| matches!(&t.token, Token::Word(word) if reserved(&word.value))) {
        let message = format!("the name \"{TARGET_CATALOG}\" is reserved");
        return Err(Error::new(Code::ReservedName, message));
    }
    Ok(())
}

/// Whether the first words of a script are these.
fn begins_with(tokens: &[TokenWithSpan], words: &[&str]) -> bool {
    let mut found = tokens.iter().filter_map(|t| match &t.token {
        Token::Whitespace(_) => None,
        Token::Word(word) => Some(word.value.as_str()),
        _ => Some(""),
    });
    words.iter().all(|word| found.next().is_some_and(|f| f.eq_ignore_ascii_case(word)))
}

/// The type of a name; `None` where it is none.
pub(crate) fn parse_type(name: &str) -> Option<ast::DataType> {
    let mut parser = Parser::new(&OmenDialect).try_with_sql(name).ok()?;
    let data_type = parser.parse_data_type().ok()?;
    (parser.peek_token().token == Token::EOF).then_some(data_type)
}

pub(crate) fn syntax_error(error: datafusion::sql::sqlparser::parser::ParserError) -> Error {
    use datafusion::sql::sqlparser::parser::ParserError;
    match error {
        ParserError::RecursionLimitExceeded => limits::nests_too_deep(),
        ParserError::TokenizerError(m) | ParserError::ParserError(m) => {
            Error::new(Code::SyntaxError, format!("syntax error: {m}"))
        }
    }
}

/// Rewrites `?` to `$1`, `$2`, ... in order. Works on tokens, so text and comments stay as they are.
fn number_parameters(tokens: &mut [TokenWithSpan]) -> Result<()> {
    let mut count = 0usize;
    let mut numbered = false;
    for token in tokens {
        match &mut token.token {
            Token::Placeholder(name) if name == "?" => {
                count += 1;
                *name = format!("${count}");
            }
            Token::Placeholder(name) => {
                let number = name.strip_prefix('$').and_then(|n| n.parse::<u16>().ok());
                if number.is_none_or(|n| n == 0) {
                    return Err(Error::new(
                        Code::SyntaxError,
                        format!("the parameter \"{name}\" is neither ? nor $1, $2, ..."),
                    ));
                }
                numbered = true;
            }
            Token::SemiColon => count = 0,
            _ => {}
        }
        if numbered && count > 0 {
            return Err(Error::new(
                Code::SyntaxError,
                "a statement has parameters of the forms ? and $n; use one of them",
            ));
        }
    }
    Ok(())
}

/// Sorts a statement by what runs it; what nothing runs is refused by name.
fn classify(sql: &str, statement: ast::Statement) -> Result<Statement> {
    use ast::Statement as S;
    if let Some(control) = Control::of(&statement)? {
        return Ok(Statement::Control(control));
    }
    let statement = Arc::new(Deep::of_text(sql, statement));
    Ok(match &**statement {
        S::Query(_) | S::Explain { .. } => Statement::Query(statement),
        S::ExplainTable { .. }
        | S::ShowTables { .. }
        | S::ShowSchemas { .. }
        | S::ShowColumns { .. }
        | S::ShowViews { .. }
        | S::ShowVariable { .. } => Statement::Show(statement),
        S::Set(_) | S::Reset(_) => Statement::Set(statement),
        S::Kill { modifier: None | Some(ast::KillType::Query), id } => Statement::Cancel(*id),
        S::Insert(_) | S::Update(_) | S::Delete(_) | S::Truncate(_) => Statement::Dml(statement),
        S::Analyze(analyze) => Statement::Upkeep(Upkeep::analyze(analyze)?),
        S::Vacuum(vacuum) => Statement::Upkeep(Upkeep::vacuum(vacuum)?),
        S::CreateTable(_)
        | S::CreateView(_)
        | S::CreateSchema { .. }
        | S::AlterTable(_)
        | S::Drop { .. }
        | S::CreateIndex(_) => Statement::Ddl(statement),
        other => return Err(refuse(other)),
    })
}

/// The error for a statement that is not supported.
fn refuse(statement: &ast::Statement) -> Error {
    let text = statement.to_string();
    let mut words: Vec<&str> = text.split_whitespace().take(3).collect();
    let first = words.first().copied().unwrap_or_default().to_ascii_uppercase();
    words.truncate(if matches!(first.as_str(), "CREATE" | "ALTER" | "DROP") { 2 } else { 1 });
    Error::unsupported(format!("{} is not supported", words.join(" ").to_ascii_uppercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(sql: &str) -> Result<Vec<Statement>> {
        parse_script(sql, &SqlOptions::default())
    }

    #[test]
    fn flat_texts_are_short_and_nest_nothing() {
        assert!(is_flat(
            "SELECT k, a, b, c FROM t WHERE k >= -12345678 AND k < 5 ORDER BY k LIMIT 10"
        ));
        for deep in [
            "SELECT (1)".to_owned(),
            "1=".repeat(30),
            "NOT ".repeat(30),
            "-".repeat(30),
            "a ".repeat(300),
        ] {
            assert!(!is_flat(&deep), "{deep}");
        }
    }

    #[test]
    fn limits_refuse_what_would_overflow_a_stack() {
        let sum = |n: usize| format!("SELECT {}", vec!["1"; n].join(" + "));
        assert!(script(&sum(500)).is_ok());
        for bomb in [
            sum(50_000),
            format!("SELECT {}1{}", "(".repeat(50_000), ")".repeat(50_000)),
            format!("SELECT {} 1", "NOT ".repeat(50_000)),
            format!("SELECT 1 WHERE {}", vec!["a = 1"; 20_000].join(" OR ")),
            format!("SELECT {}1", "- ".repeat(50_000)),
            format!("SELECT 1 {}", "UNION SELECT 1 ".repeat(20_000)),
            format!("SELECT {}", "x".repeat(2 << 20)),
        ] {
            let error = script(&bomb).unwrap_err();
            assert_eq!(error.code().sqlstate().get(..2), Some("54"), "{error}");
        }
        // Long lists are no deep trees.
        assert!(script(&format!("VALUES {}", vec!["(1, -2)"; 20_000].join(", "))).is_ok());
    }

    #[test]
    fn question_marks_become_numbers_outside_of_text() {
        let Ok(statements) = script("SELECT '?', \"?\" /* ? */ FROM t WHERE a = ? AND b > ?")
        else {
            panic!("does not parse");
        };
        let Some(Statement::Query(query)) = statements.first() else { panic!("is a query") };
        let text = query.to_string();
        assert!(text.contains("'?'") && text.contains("a = $1 AND b > $2"), "{text}");
        assert!(script("SELECT ? + $1").is_err());
        assert!(script("SELECT $0").is_err());
        assert!(script("SELECT $name").is_err());
    }
}
