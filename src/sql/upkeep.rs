//! ANALYZE, VACUUM and CHECKPOINT: statements about how rows are stored, none of which changes what they are.

use datafusion::sql::sqlparser::ast;

use super::context::StatementContext;
use super::dml::{self, refuse};
use super::error::Result;
use crate::engine::TableId;

/// One of them.
#[derive(Debug, Clone)]
pub(crate) enum Upkeep {
    /// Checks that the table exists: statistics are exact at any time, and need no gathering.
    Analyze(Option<ast::ObjectName>),
    /// Merges the segments of a table, or of all, and drops deleted rows.
    Vacuum(Option<ast::ObjectName>),
    /// Writes memtables to segments and a checkpoint, so that a restart reads no log.
    Checkpoint,
}

impl Upkeep {
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
    pub(crate) fn run(&self, context: &StatementContext) -> Result<()> {
        let engine = context.database.engine();
        match self {
            Self::Analyze(name) => tables(context, name.as_ref()).map(|_| ()),
            Self::Vacuum(name) => {
                for id in tables(context, name.as_ref())? {
                    engine.compact(id)?;
                }
                Ok(())
            }
            Self::Checkpoint => {
                engine.flush(None)?;
                Ok(engine.checkpoint()?)
            }
        }
    }
}

/// The table of a name; all without one.
fn tables(context: &StatementContext, name: Option<&ast::ObjectName>) -> Result<Vec<TableId>> {
    let snapshot = context.database.engine().snapshot();
    let Some(name) = name else {
        return Ok(snapshot.tables().iter().map(|table| table.id()).collect());
    };
    let name = context.table_name(name)?;
    Ok(vec![dml::table(&context.plan_context(&snapshot), &name)?.id()])
}
