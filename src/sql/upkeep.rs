//! Statements about how rows are stored, none of which changes what they are: ANALYZE, VACUUM, CHECKPOINT, and FLUSH, COMPACT and
//! RETRAIN TABLE. The actions of Flight call them too.

use std::time::Duration;

use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::code::Code;
use super::context::StatementContext;
use super::dialect::OmenDialect;
use super::dml::{self, refuse};
use super::error::{Error, Result};
use crate::engine::{TableId, TableSnapshot};

/// One of them.
#[derive(Debug, Clone)]
pub(crate) enum Upkeep {
    /// Checks that the table exists: statistics are exact at any time, and need no gathering.
    Analyze(Option<ast::ObjectName>),
    /// Merges the segments of a table, or of all, and drops deleted rows.
    Vacuum(Option<ast::ObjectName>),
    /// Writes memtables to segments and a checkpoint, so that a restart reads no log.
    Checkpoint,
    /// Writes the memtable of a table, or of all, to segments.
    Flush(Option<ast::ObjectName>),
    /// Merges the segments of a table.
    Compact(ast::ObjectName),
    /// Trains the indexes of a table anew.
    Retrain(ast::ObjectName),
}

/// What was done.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Done {
    /// Segments that the tables were merged into, or whose indexes were trained.
    pub(crate) segment_count: usize,
    /// Time that training took.
    pub(crate) train_time: Duration,
}

impl Upkeep {
    /// A text that is one of those that the parser does not know: CHECKPOINT, FLUSH [TABLE name], COMPACT TABLE name,
    /// RETRAIN TABLE name.
    pub(crate) fn parse(tokens: &[TokenWithSpan]) -> Result<Option<Self>> {
        let mut first = tokens.iter().filter(|t| !matches!(t.token, Token::Whitespace(_)));
        let Some(TokenWithSpan { token: Token::Word(word), .. }) = first.next() else {
            return Ok(None);
        };
        let verb = word.value.to_ascii_uppercase();
        if !matches!(verb.as_str(), "CHECKPOINT" | "FLUSH" | "COMPACT" | "RETRAIN") {
            return Ok(None);
        }
        let mut parser = Parser::new(&OmenDialect).with_tokens_with_locations(tokens.to_vec());
        parser.next_token();
        let table = match parser.parse_keyword(Keyword::TABLE) {
            true => Some(parser.parse_object_name(false).map_err(|e| {
                Error::new(
                    Code::SyntaxError,
                    format!("{verb} TABLE takes the name of a table: {e}"),
                )
            })?),
            false => None,
        };
        while parser.consume_token(&Token::SemiColon) {}
        let rest = parser.peek_token();
        if rest.token != Token::EOF {
            let message = format!("{verb} is a statement by itself: unexpected {}", rest.token);
            return Err(Error::new(Code::SyntaxError, message));
        }
        match (verb.as_str(), table) {
            ("CHECKPOINT", None) => Ok(Some(Self::Checkpoint)),
            ("FLUSH", table) => Ok(Some(Self::Flush(table))),
            ("COMPACT", Some(table)) => Ok(Some(Self::Compact(table))),
            ("RETRAIN", Some(table)) => Ok(Some(Self::Retrain(table))),
            ("CHECKPOINT", Some(_)) => {
                Err(Error::new(Code::SyntaxError, "CHECKPOINT is of the whole database"))
            }
            _ => Err(Error::new(Code::SyntaxError, format!("the statement is {verb} TABLE name"))),
        }
    }

    /// ANALYZE, without clauses that do nothing here.
    pub(crate) fn analyze(analyze: &ast::Analyze) -> Result<Self> {
        refuse(&[
            ("ANALYZE ... PARTITION", analyze.partitions.is_some()),
            ("ANALYZE ... FOR COLUMNS", analyze.for_columns),
            ("ANALYZE ... CACHE METADATA", analyze.cache_metadata),
            ("ANALYZE ... NOSCAN", analyze.noscan),
        ])?;
        Ok(Self::Analyze(analyze.table_name.clone()))
    }

    /// VACUUM, without clauses that do nothing here. FULL is what it does anyway.
    pub(crate) fn vacuum(vacuum: &ast::VacuumStatement) -> Result<Self> {
        refuse(&[
            ("VACUUM SORT ONLY", vacuum.sort_only),
            ("VACUUM DELETE ONLY", vacuum.delete_only),
            ("VACUUM REINDEX", vacuum.reindex),
            ("VACUUM RECLUSTER", vacuum.recluster),
            ("VACUUM ... TO a percentage", vacuum.threshold.is_some()),
            ("VACUUM BOOST", vacuum.boost),
        ])?;
        Ok(Self::Vacuum(vacuum.table_name.clone()))
    }

    /// Runs it. Blocks.
    pub(crate) fn run(&self, context: &StatementContext) -> Result<Done> {
        let engine = context.database.engine();
        let mut done = Done::default();
        match self {
            Self::Analyze(name) => drop(tables(context, name.as_ref())?),
            Self::Vacuum(name) => {
                for id in tables(context, name.as_ref())? {
                    done.segment_count += engine.compact(id)?;
                }
            }
            Self::Checkpoint => {
                engine.flush(None)?;
                engine.checkpoint()?;
            }
            Self::Flush(None) => engine.flush(None)?,
            Self::Flush(Some(name)) => engine.flush(Some(table(context, name)?))?,
            Self::Compact(name) => done.segment_count = engine.compact(table(context, name)?)?,
            Self::Retrain(name) => {
                let (count, time) = engine.retrain(table(context, name)?)?;
                done = Done { segment_count: count, train_time: time };
            }
        }
        Ok(done)
    }
}

/// The name of a table as a statement has it.
pub(crate) fn object_name(table: &TableSnapshot) -> ast::ObjectName {
    let name = &table.meta().name;
    let part = |name: &str| ast::Ident::with_quote('"', name);
    vec![part(&name.schema), part(&name.name)].into()
}

/// The table of a name; all without one.
fn tables(context: &StatementContext, name: Option<&ast::ObjectName>) -> Result<Vec<TableId>> {
    match name {
        Some(name) => Ok(vec![table(context, name)?]),
        None => {
            let snapshot = context.database.engine().snapshot();
            Ok(snapshot.tables().iter().map(|table| table.id()).collect())
        }
    }
}

fn table(context: &StatementContext, name: &ast::ObjectName) -> Result<TableId> {
    let snapshot = context.database.engine().snapshot();
    let name = context.table_name(name)?;
    Ok(dml::table(&context.plan_context(&snapshot), &name)?.id())
}
