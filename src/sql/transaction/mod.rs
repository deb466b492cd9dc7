//! The transactions of a session: one that SQL began, and those that a client began by an action and names.

mod control;
mod open;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use uuid::Uuid;

pub(crate) use control::{Control, Modes};
pub use open::Reading;
pub(crate) use open::{Mark, Open, Turn};

use super::admission::Gate;
use super::code::Code;
use super::error::{Error, Result};
use super::workers::Workers;
use crate::engine::Engine;
use open::aborted;

/// Transactions of one session at most: each is cheap, but a client that only ever begins must meet an end.
const MAX_OPEN: usize = 100;

/// Ended transactions that are remembered, to tell a client what became of them.
const MAX_ENDED: usize = 8;

/// Names a transaction that was begun by an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransactionId(Uuid);

impl TransactionId {
    /// The id in a message; one that cannot be of this server is as unknown as any.
    pub fn parse(bytes: &[u8]) -> Self {
        Self(Uuid::from_slice(bytes).unwrap_or_default())
    }

    /// The id for a message.
    pub fn to_bytes(self) -> Vec<u8> {
        self.0.as_bytes().to_vec()
    }
}

/// Names a savepoint that was set by an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SavepointId {
    transaction: TransactionId,
    number: u64,
}

impl SavepointId {
    /// The id in a message.
    pub fn parse(bytes: &[u8]) -> Self {
        let (transaction, number) = bytes.split_at_checked(16).unwrap_or_default();
        let number = number.try_into().map_or(0, u64::from_be_bytes);
        Self { transaction: TransactionId::parse(transaction), number }
    }

    /// The id for a message.
    pub fn to_bytes(self) -> Vec<u8> {
        [&self.transaction.to_bytes()[..], &self.number.to_be_bytes()].concat()
    }
}

/// The transaction that a call runs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Within {
    /// The call names none: that which SQL began, else one of its own.
    Session,
    /// The call cannot name one: that which SQL began, else the one that an action began, else one of its own.
    Any,
    /// The call names it.
    Named(TransactionId),
}

/// The transactions of one session.
#[derive(Debug, Default)]
pub(super) struct Transactions {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// The one that SQL began.
    sql: Option<Arc<Open>>,
    /// Those that actions began, oldest first, the last ended ones among them.
    named: Vec<Arc<Open>>,
    closed: bool,
}

impl Inner {
    fn check(&self) -> Result<()> {
        match self.closed {
            false => Ok(()),
            true => Err(aborted("the session was closed; connect again and retry")),
        }
    }

    fn sql(&self) -> Option<&Arc<Open>> {
        self.sql.as_ref().filter(|open| !open.ended())
    }

    fn named(&self, id: TransactionId) -> Result<&Arc<Open>> {
        self.named.iter().find(|open| open.id() == Some(id.0)).ok_or_else(|| {
            aborted(
                "the transaction is not open in this session: it has ended, or was rolled back because the connection was lost or \
                 the server started again; roll back and retry it from its beginning",
            )
        })
    }

    /// Forgets ended transactions but the last ones.
    fn prune(&mut self) {
        let ended = self.named.iter().filter(|open| open.ended()).count();
        let mut surplus = ended.saturating_sub(MAX_ENDED);
        self.named.retain(|open| {
            let goes = surplus > 0 && open.ended();
            surplus -= usize::from(goes);
            !goes
        });
    }

    /// Puts a fresh transaction in the place of one that ended.
    fn renew(&mut self, open: &Arc<Open>, modes: Modes) {
        let next = Arc::new(Open::new(open.id(), modes));
        match open.id() {
            None => self.sql = Some(next),
            Some(_) => {
                if let Some(place) = self.named.iter_mut().find(|o| Arc::ptr_eq(o, open)) {
                    *place = next;
                }
            }
        }
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Open>> {
        self.sql.iter().chain(&self.named)
    }
}

impl Transactions {
    /// The open transaction that a call runs in; `None` for one of its own.
    pub(super) fn resolve(&self, within: Within) -> Result<Option<Arc<Open>>> {
        let inner = self.inner.lock();
        inner.check()?;
        if let Within::Named(id) = within {
            return inner.named(id).cloned().map(Some);
        }
        if let Some(open) = inner.sql() {
            return Ok(Some(Arc::clone(open)));
        }
        let mut named = inner.named.iter().filter(|open| within == Within::Any && !open.ended());
        match (named.next(), named.next()) {
            (open, None) => Ok(open.cloned()),
            _ => Err(Error::new(
                Code::InvalidTransactionState,
                "several transactions are open in this session, and the call names none of them",
            )),
        }
    }

    /// Begins one that the client names.
    pub(super) fn begin(&self) -> Result<TransactionId> {
        let id = Uuid::new_v4();
        let mut inner = self.inner.lock();
        inner.check()?;
        inner.prune();
        if inner.named.iter().filter(|open| !open.ended()).count() >= MAX_OPEN {
            let message = format!(
                "the session has {MAX_OPEN} open transactions, the most there may be; end some"
            );
            return Err(Error::new(Code::ConfigurationLimitExceeded, message));
        }
        inner.named.push(Arc::new(Open::new(Some(id), Modes::default())));
        Ok(TransactionId(id))
    }

    fn find(&self, id: TransactionId) -> Result<Arc<Open>> {
        let inner = self.inner.lock();
        inner.check()?;
        inner.named(id).cloned()
    }

    /// Whether one is of this session, and not ended by the client.
    pub(super) fn is_open(&self, id: TransactionId) -> bool {
        self.inner.lock().named(id).is_ok_and(|open| !open.ended())
    }

    /// Commits one that the client names.
    pub(super) async fn commit(
        &self,
        id: TransactionId,
        workers: &Workers,
        endings: &Gate,
    ) -> Result<()> {
        self.find(id)?.commit(workers, endings).await
    }

    /// Rolls back one that the client names. Where there is none of that name, nothing of it is left either: clients
    /// roll back to get on after any error.
    pub(super) fn rollback(&self, id: TransactionId) -> Result<()> {
        match self.find(id) {
            Ok(open) => open.rollback(),
            Err(_) => Ok(()),
        }
    }

    /// Sets a savepoint in one that the client names.
    pub(super) async fn savepoint(
        &self,
        id: TransactionId,
        engine: &Engine,
        name: &str,
    ) -> Result<SavepointId> {
        let number = self.find(id)?.savepoint(engine, name).await?;
        Ok(SavepointId { transaction: id, number })
    }

    /// Goes back to a savepoint.
    pub(super) async fn rollback_to(&self, id: SavepointId) -> Result<()> {
        self.find(id.transaction)?.rollback_to(Mark::Number(id.number)).await
    }

    /// Forgets a savepoint.
    pub(super) async fn release(&self, id: SavepointId) -> Result<()> {
        self.find(id.transaction)?.release(Mark::Number(id.number)).await
    }

    /// Whether statements that name no transaction run in one.
    pub(super) fn in_sql(&self) -> bool {
        self.inner.lock().sql().is_some()
    }

    /// Marks that a transaction which SQL began is gone with the state of the session.
    pub(super) fn lose_sql(&self, why: &str) {
        let open = Open::new(None, Modes::default());
        open.lose(why);
        self.inner.lock().sql = Some(Arc::new(open));
    }

    /// Rolls back the one that SQL began.
    pub(super) fn abandon_sql(&self) {
        let open = self.inner.lock().sql.take();
        if let Some(open) = open {
            // One that is being committed completes.
            let _ = open.rollback();
        }
    }

    /// Rolls back all that are open and keeps the reason for the client.
    pub(super) fn lose(&self, why: &str) {
        let open: Vec<_> = self.inner.lock().all().cloned().collect();
        // Those that pin nothing lose nothing, and may go on.
        open.iter().filter(|open| open.pinned()).for_each(|open| open.lose(why));
    }

    /// Rolls back all that are open, for good.
    pub(super) fn close(&self) {
        let mut inner = self.inner.lock();
        inner.closed = true;
        let open: Vec<_> = inner.sql.take().into_iter().chain(inner.named.drain(..)).collect();
        drop(inner);
        for open in open {
            // One that is being committed completes.
            let _ = open.rollback();
        }
    }

    /// Rolls back those that were idle for longer than `idle`; says how many.
    pub(super) fn reap(&self, idle: Duration) -> usize {
        let open: Vec<_> = self.inner.lock().all().cloned().collect();
        open.iter().filter(|open| open.reap(idle)).count()
    }

    /// Carries out a statement about transactions.
    pub(super) async fn control(
        &self,
        within: Within,
        control: &Control,
        engine: &Engine,
        workers: &Workers,
        endings: &Gate,
    ) -> Result<()> {
        let open = self.resolve(within)?;
        let Some(open) = open else {
            return self.control_outside(control);
        };
        match control {
            Control::Begin(modes) if open.id().is_none() && open.lost() => {
                self.inner.lock().renew(&open, *modes);
                Ok(())
            }
            // One that is open already goes on.
            Control::Begin(modes) | Control::Modes(modes) => open.set_modes(*modes),
            Control::Commit { chain } => {
                let modes = open.modes();
                let committed = open.commit(workers, endings).await;
                self.after(&open, *chain && committed.is_ok(), modes);
                committed
            }
            Control::Rollback { chain } => {
                let modes = open.modes();
                open.rollback()?;
                self.after(&open, *chain, modes);
                Ok(())
            }
            Control::Savepoint(name) => open.savepoint(engine, name).await.map(|_| ()),
            Control::RollbackTo(name) => open.rollback_to(Mark::Name(name)).await,
            Control::Release(name) => open.release(Mark::Name(name)).await,
        }
    }

    /// Where no transaction is open, ending one does nothing, as in PostgreSQL.
    fn control_outside(&self, control: &Control) -> Result<()> {
        match control {
            Control::Begin(modes) => {
                let mut inner = self.inner.lock();
                inner.check()?;
                inner.sql = Some(Arc::new(Open::new(None, *modes)));
                Ok(())
            }
            Control::Commit { chain: false } | Control::Rollback { chain: false } => Ok(()),
            _ => Err(Error::new(
                Code::NoActiveSqlTransaction,
                "no transaction is open; savepoints and modes are for the statements between BEGIN and COMMIT",
            )),
        }
    }

    /// What follows the end of a transaction by SQL. One that an action began is ended by an action only: the next one goes by
    /// the same name.
    fn after(&self, open: &Arc<Open>, chain: bool, modes: Modes) {
        let mut inner = self.inner.lock();
        if inner.closed {
            return;
        }
        match open.id() {
            Some(_) => inner.renew(open, modes),
            None if chain => inner.renew(open, modes),
            None => inner.sql = None,
        }
    }
}

#[cfg(test)]
mod tests;
