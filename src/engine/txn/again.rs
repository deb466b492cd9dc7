//! Changes that are transactions of their own, and are tried again where others were first.

use std::sync::Arc;

use super::commit::{self, By, Refused};
use super::transaction::Transaction;
use super::turns::{Claims, Turn};
use crate::engine::Shared;
use crate::engine::error::{ErrorKind, Result};

/// How often a change is tried without waiting for its turn.
const AT_ONCE: usize = 2;
/// How often it is tried in all. In its turn a change meets only commits that had begun before.
const MOST: usize = 1000;

/// Runs `statement` in a transaction and commits; from the start where another transaction was first, and after the first tries
/// in its turn (see [`super::turns`]). `wanted` is asked while it waits, and before it is tried again: its error ends all.
pub(crate) fn write<T>(
    shared: &Arc<Shared>,
    mut statement: impl FnMut(&mut Transaction) -> Result<T>,
    wanted: &dyn Fn() -> Result<()>,
) -> Result<T> {
    let mut turn: Option<Turn<'_>> = None;
    let wanted = || shared.check_open().and_then(|()| wanted());
    let mut attempt = 1;
    loop {
        let refused = match once(shared, &mut statement, turn.as_ref()) {
            Ok(value) => return Ok(value),
            Err(refused) if refused.error.kind() != ErrorKind::Conflict || attempt == MOST => {
                return Err(refused.error);
            }
            Err(refused) => refused,
        };
        wanted()?;
        match &turn {
            None if attempt < AT_ONCE && shared.committer.turns().is_empty() => {}
            None => turn = Some(shared.committer.turns().enter(refused.claims)?),
            // It writes other keys than it did: those, and after that all.
            Some(turn) if attempt < 2 * AT_ONCE => turn.widen(refused.claims)?,
            Some(turn) => turn.widen(refused.claims.widened())?,
        }
        if let Some(turn) = &turn {
            turn.wait(&wanted)?;
        }
        attempt += 1;
    }
}

fn once<T>(
    shared: &Arc<Shared>,
    statement: &mut impl FnMut(&mut Transaction) -> Result<T>,
    turn: Option<&Turn<'_>>,
) -> std::result::Result<T, Refused> {
    let mut transaction = Transaction::begin(shared)?;
    let value = match statement(&mut transaction) {
        Ok(value) => value,
        Err(error) => {
            let mut claims = Claims::default();
            transaction.fork.tables.iter().for_each(|table| claims.add_table(*table));
            return Err(Refused { error, claims });
        }
    };
    commit::commit(transaction, By::Itself(turn))?;
    Ok(value)
}
