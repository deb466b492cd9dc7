//! The statements that begin, mark and end transactions.

use datafusion::sql::sqlparser::ast::{
    Set, Statement as S, TransactionAccessMode, TransactionIsolationLevel, TransactionMode,
};

use crate::sql::context::fold;
use crate::sql::error::{Error, Result};

/// What a BEGIN or SET TRANSACTION asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Modes {
    /// READ ONLY or READ WRITE, where it says so.
    pub(crate) read_only: Option<bool>,
}

/// A statement about the session's transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Control {
    Begin(Modes),
    /// SET TRANSACTION.
    Modes(Modes),
    Commit {
        chain: bool,
    },
    Rollback {
        chain: bool,
    },
    Savepoint(String),
    RollbackTo(String),
    Release(String),
}

impl Control {
    /// The statement as one of these; `None` where it is another.
    pub(crate) fn of(statement: &S) -> Result<Option<Self>> {
        Ok(Some(match statement {
            S::StartTransaction { modes, modifier, statements, exception, .. } => {
                if modifier.is_some() || !statements.is_empty() || exception.is_some() {
                    return Err(Error::unsupported(
                        "BEGIN with a modifier or a block is not supported; write BEGIN [TRANSACTION]",
                    ));
                }
                Self::Begin(modes_of(modes)?)
            }
            S::Set(Set::SetTransaction { modes, snapshot, session }) => {
                if *session {
                    return Err(Error::unsupported(
                        "SET SESSION CHARACTERISTICS is not supported; say it in BEGIN",
                    ));
                }
                if snapshot.is_some() {
                    return Err(Error::unsupported("SET TRANSACTION SNAPSHOT is not supported"));
                }
                Self::Modes(modes_of(modes)?)
            }
            S::Commit { chain, modifier: None, .. } => Self::Commit { chain: *chain },
            S::Rollback { chain: false, savepoint: Some(name) } => Self::RollbackTo(fold(name)),
            S::Rollback { chain, savepoint: None } => Self::Rollback { chain: *chain },
            S::Savepoint { name } => Self::Savepoint(fold(name)),
            S::ReleaseSavepoint { name } => Self::Release(fold(name)),
            _ => return Ok(None),
        }))
    }
}

fn modes_of(modes: &[TransactionMode]) -> Result<Modes> {
    let mut found = Modes::default();
    for mode in modes {
        match mode {
            TransactionMode::IsolationLevel(TransactionIsolationLevel::Serializable) => {
                return Err(Error::unsupported(
                    "ISOLATION LEVEL SERIALIZABLE is not supported: transactions read one snapshot (REPEATABLE READ), under which \
                     two may each change what the other has read",
                ));
            }
            // What is asked for is given, and more.
            TransactionMode::IsolationLevel(
                TransactionIsolationLevel::ReadUncommitted
                | TransactionIsolationLevel::ReadCommitted
                | TransactionIsolationLevel::RepeatableRead
                | TransactionIsolationLevel::Snapshot,
            ) => {}
            TransactionMode::AccessMode(mode) => {
                found.read_only = Some(*mode == TransactionAccessMode::ReadOnly);
            }
        }
    }
    Ok(found)
}
