//! One open transaction, and the turns in which calls work in it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;
use uuid::Uuid;

use super::Modes;
use crate::engine::{self, Engine, ErrorKind as EngineKind, Savepoint, Snapshot};
use crate::sql::admission::Gate;
use crate::sql::code::Code;
use crate::sql::error::{Error, Result};
use crate::sql::queries::Query;
use crate::sql::workers::Workers;

/// How long a call waits for another one that works in the same transaction.
const TURN_WAIT: Duration = Duration::from_secs(10);

/// Savepoints of one transaction at most.
const MAX_SAVEPOINTS: usize = 1_000;

/// A transaction that a client has begun. It pins nothing before its first statement.
///
/// Calls that change something take turns. Those that read never wait: they see the state after the last
/// statement that ended.
#[derive(Debug)]
pub(crate) struct Open {
    /// What the client names it by; `None` where SQL began it.
    id: Option<Uuid>,
    turn: Arc<tokio::sync::Mutex<()>>,
    /// Held for moments, never over I/O.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    read_only: bool,
    /// None before the first statement, and while a call has its turn.
    transaction: Option<engine::Transaction>,
    /// What statements see; none before the first.
    snapshot: Option<Snapshot>,
    savepoints: Vec<Marked>,
    /// Number of the next savepoint.
    next_mark: u64,
    /// Streams that still read what it saw.
    readers: usize,
    last_used: Instant,
}

#[derive(Debug)]
struct Marked {
    number: u64,
    name: String,
    savepoint: Savepoint,
}

/// How far a transaction is, with the reason where one is of use.
#[derive(Debug, Clone)]
enum Phase {
    Active,
    /// A statement failed: it waits for ROLLBACK, or ROLLBACK TO a savepoint.
    Failed(String),
    /// It has ended without the client's wish, with the message that says how: it waits for the client to notice.
    Lost(String),
    Committing,
    Committed,
    RolledBack,
}

/// A savepoint, as statements name it or as an action does.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Mark<'a> {
    Name(&'a str),
    Number(u64),
}

/// The error for what a transaction's state does not allow.
fn state_error(message: impl Into<String>) -> Error {
    Error::new(Code::InvalidTransactionState, message)
}

/// The error that tells a client to begin anew.
pub(super) fn aborted(message: impl Into<String>) -> Error {
    Error::new(Code::SerializationFailure, message)
}

fn rolled_back(why: &str) -> String {
    format!("the transaction was rolled back: {why}")
}

impl State {
    /// An error unless statements may run.
    fn check(&self) -> Result<()> {
        match &self.phase {
            Phase::Active => Ok(()),
            Phase::Failed(why) => Err(Error::new(
                Code::InFailedSqlTransaction,
                format!(
                    "the transaction has failed and takes no more statements until ROLLBACK, or ROLLBACK TO a savepoint; \
                 what failed was: {why}"
                ),
            )),
            Phase::Lost(how) => {
                Err(aborted(format!("{how}; roll back, then retry it from its beginning")))
            }
            Phase::Committing => Err(state_error("the transaction is being committed")),
            Phase::Committed => Err(state_error("the transaction was committed already")),
            Phase::RolledBack => Err(state_error("the transaction was rolled back already")),
        }
    }

    fn ended(&self) -> bool {
        matches!(self.phase, Phase::Committing | Phase::Committed | Phase::RolledBack)
    }

    /// Begins on the latest state, if that has not happened yet.
    fn pin(&mut self, engine: &Engine) -> Result<Snapshot> {
        self.last_used = Instant::now();
        if let Some(snapshot) = &self.snapshot {
            return Ok(snapshot.clone());
        }
        let transaction = engine.begin()?;
        let snapshot = transaction.snapshot();
        self.snapshot = Some(snapshot.clone());
        self.transaction = Some(transaction);
        Ok(snapshot)
    }

    fn position(&self, mark: Mark<'_>) -> Result<usize> {
        let found = match mark {
            // A later one hides an earlier one of the same name.
            Mark::Name(name) => self.savepoints.iter().rposition(|m| m.name == name),
            Mark::Number(number) => self.savepoints.iter().position(|m| m.number == number),
        };
        found.ok_or_else(|| {
            let name = match mark {
                Mark::Name(name) => format!("savepoint \"{name}\""),
                Mark::Number(_) => "the savepoint".to_owned(),
            };
            let message = format!("{name} does not exist in the transaction (any more)");
            Error::new(Code::InvalidSavepointSpecification, message)
        })
    }

    /// Ends in `phase`; what it held is to be dropped outside the lock.
    #[must_use]
    fn end(&mut self, phase: Phase) -> impl Sized + use<> {
        self.phase = phase;
        let savepoints = std::mem::take(&mut self.savepoints);
        (self.transaction.take(), self.snapshot.take(), savepoints)
    }
}

impl Open {
    pub(super) fn new(id: Option<Uuid>, modes: Modes) -> Self {
        let state = State {
            phase: Phase::Active,
            read_only: modes.read_only.unwrap_or(false),
            transaction: None,
            snapshot: None,
            savepoints: Vec::new(),
            next_mark: 1,
            readers: 0,
            last_used: Instant::now(),
        };
        Self { id, turn: Arc::default(), state: Mutex::new(state) }
    }

    /// What the client names it by; `None` where SQL began it.
    pub(super) fn id(&self) -> Option<Uuid> {
        self.id
    }

    /// The modes to begin the next one with (AND CHAIN).
    pub(super) fn modes(&self) -> Modes {
        Modes { read_only: Some(self.state.lock().read_only) }
    }

    /// Changes modes; those that concern what was read must come before the first statement.
    pub(super) fn set_modes(&self, modes: Modes) -> Result<()> {
        let mut state = self.state.lock();
        state.check()?;
        match modes.read_only {
            Some(false) if state.read_only && state.snapshot.is_some() => {
                Err(state_error("READ WRITE must be set before the first statement"))
            }
            Some(read_only) => {
                state.read_only = read_only;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Whether it was committed or rolled back at the client's wish.
    pub(super) fn ended(&self) -> bool {
        self.state.lock().ended()
    }

    /// Whether the server ended it.
    pub(super) fn lost(&self) -> bool {
        matches!(self.state.lock().phase, Phase::Lost(_))
    }

    /// Whether a statement has begun it.
    pub(super) fn pinned(&self) -> bool {
        self.state.lock().snapshot.is_some()
    }

    /// An error unless statements may run.
    pub(crate) fn check(&self) -> Result<()> {
        self.state.lock().check()
    }

    /// What a statement sees; the first one pins it.
    pub(crate) fn snapshot(&self, engine: &Engine) -> Result<Snapshot> {
        let mut state = self.state.lock();
        state.check()?;
        state.pin(engine)
    }

    /// What a statement would see, without pinning it.
    pub(crate) fn view(&self, engine: &Engine) -> Snapshot {
        self.state.lock().snapshot.clone().unwrap_or_else(|| engine.snapshot())
    }

    /// Keeps the transaction from being idle while the answer lives.
    pub(crate) fn reading(self: &Arc<Self>) -> Reading {
        self.state.lock().readers += 1;
        Reading { open: Arc::clone(self) }
    }

    async fn wait(&self) -> Result<OwnedMutexGuard<()>> {
        let turn = Arc::clone(&self.turn).lock_owned();
        tokio::time::timeout(TURN_WAIT, turn).await.map_err(|_| {
            state_error(format!(
                "another call still works in the transaction after {TURN_WAIT:?}; wait for its end, or cancel it"
            ))
        })
    }

    /// The right to change something, when those before have ended.
    pub(crate) async fn turn(self: &Arc<Self>, engine: &Engine) -> Result<Turn> {
        self.check()?;
        let guard = self.wait().await?;
        let transaction = self.take(engine)?;
        Ok(Turn {
            before: transaction.savepoint(),
            transaction: Some(transaction),
            outcome: Err("a statement of it ended early".to_owned()),
            open: Arc::clone(self),
            _guard: guard,
        })
    }

    /// Takes out the transaction to change something in.
    fn take(&self, engine: &Engine) -> Result<engine::Transaction> {
        let mut state = self.state.lock();
        state.check()?;
        if state.read_only {
            return Err(Error::new(Code::ReadOnlySqlTransaction, "the transaction is READ ONLY"));
        }
        state.pin(engine)?;
        state.transaction.take().ok_or_else(|| Error::internal("a transaction is missing"))
    }

    /// Sets a savepoint; its number.
    pub(super) async fn savepoint(&self, engine: &Engine, name: &str) -> Result<u64> {
        self.check()?;
        let _guard = self.wait().await?;
        let mut state = self.state.lock();
        state.check()?;
        if state.savepoints.len() >= MAX_SAVEPOINTS {
            let message = format!(
                "the transaction has {MAX_SAVEPOINTS} savepoints, the most there may be; release some"
            );
            return Err(Error::new(Code::ConfigurationLimitExceeded, message));
        }
        state.pin(engine)?;
        let savepoint = state.transaction.as_ref().map(engine::Transaction::savepoint);
        let savepoint = savepoint.ok_or_else(|| Error::internal("a transaction is missing"))?;
        let number = state.next_mark;
        state.next_mark += 1;
        state.savepoints.push(Marked { number, name: name.to_owned(), savepoint });
        Ok(number)
    }

    /// Undoes what came after a savepoint, failure included. The savepoint stays, later ones go.
    pub(super) async fn rollback_to(&self, mark: Mark<'_>) -> Result<()> {
        let _guard = self.wait().await?;
        let mut state = self.state.lock();
        if !matches!(state.phase, Phase::Failed(_)) {
            state.check()?;
        }
        let position = state.position(mark)?;
        state.savepoints.truncate(position + 1);
        let savepoint = state.savepoints[position].savepoint.clone();
        let transaction = state.transaction.as_mut();
        let transaction = transaction.ok_or_else(|| Error::internal("a transaction is missing"))?;
        transaction.rollback_to(&savepoint);
        state.snapshot = Some(transaction.snapshot());
        state.phase = Phase::Active;
        state.last_used = Instant::now();
        Ok(())
    }

    /// Forgets a savepoint and those after it; their changes stay.
    pub(super) async fn release(&self, mark: Mark<'_>) -> Result<()> {
        let _guard = self.wait().await?;
        let mut state = self.state.lock();
        state.check()?;
        let position = state.position(mark)?;
        state.savepoints.truncate(position);
        state.last_used = Instant::now();
        Ok(())
    }

    /// Commits. Once begun it completes, whether or not the caller still waits.
    pub(super) async fn commit(self: &Arc<Self>, workers: &Workers, endings: &Gate) -> Result<()> {
        // Its turn comes first: who waits for that, of a load say, must not keep others from ending theirs.
        let guard = self.wait().await?;
        let place = endings.enter().await?;
        let Some(transaction) = self.begin_commit()? else { return Ok(()) };
        let open = Arc::clone(self);
        let work = move || {
            let result = transaction.commit();
            open.state.lock().phase = match &result {
                Ok(_) => Phase::Committed,
                Err(e) if e.kind() == EngineKind::OutcomeUnknown => {
                    Phase::Lost(format!("the transaction ended: {}", e.message()))
                }
                Err(e) => Phase::Lost(rolled_back(e.message())),
            };
            drop((guard, place));
            Ok(result.map(|_| ())?)
        };
        workers.run(work).await
    }

    /// Takes out what is to be committed; `None` where that is nothing, and done.
    fn begin_commit(&self) -> Result<Option<engine::Transaction>> {
        let mut state = self.state.lock();
        if let Phase::Failed(why) = &state.phase {
            let how = rolled_back(&format!("a statement of it had failed: {why}"));
            let held = state.end(Phase::Lost(how.clone()));
            drop(state);
            drop(held);
            return Err(aborted(how));
        }
        state.check()?;
        let changed = state.transaction.as_ref().is_some_and(|t| !t.is_empty());
        if !changed {
            let held = state.end(Phase::Committed);
            drop(state);
            drop(held);
            return Ok(None);
        }
        let transaction = state.transaction.take();
        let held = state.end(Phase::Committing);
        drop(state);
        drop(held);
        Ok(transaction)
    }

    /// Ends it without its changes, whatever runs in it. Once a commit has begun it is too late.
    pub(super) fn rollback(&self) -> Result<()> {
        let mut state = self.state.lock();
        if matches!(state.phase, Phase::Committing | Phase::Committed) {
            return state.check();
        }
        let held = state.end(Phase::RolledBack);
        drop(state);
        drop(held);
        Ok(())
    }

    /// Rolls it back and keeps the reason for the client.
    pub(super) fn lose(&self, why: &str) {
        let mut state = self.state.lock();
        if !state.ended() {
            let held = state.end(Phase::Lost(rolled_back(why)));
            drop(state);
            drop(held);
        }
    }

    /// Rolls it back where it has held something for longer than `idle` without use; says whether it did.
    pub(super) fn reap(&self, idle: Duration) -> bool {
        // A call that has its turn is using it.
        let Ok(_guard) = self.turn.try_lock() else { return false };
        let mut state = self.state.lock();
        let waits = matches!(state.phase, Phase::Active | Phase::Failed(_));
        if !waits
            || state.snapshot.is_none()
            || state.readers > 0
            || state.last_used.elapsed() <= idle
        {
            return false;
        }
        let why = format!("it was idle for more than {idle:?}");
        let held = state.end(Phase::Lost(rolled_back(&why)));
        drop(state);
        drop(held);
        true
    }
}

/// A stream that reads what a transaction saw.
#[derive(Debug)]
pub struct Reading {
    open: Arc<Open>,
}

impl Drop for Reading {
    fn drop(&mut self) {
        let mut state = self.open.state.lock();
        state.readers -= 1;
        state.last_used = Instant::now();
    }
}

/// The right to change something in a transaction. Dropped without [`Turn::keep`], it undoes what was done, and the
/// transaction has failed.
#[derive(Debug)]
pub(crate) struct Turn {
    open: Arc<Open>,
    /// There until it is given back.
    transaction: Option<engine::Transaction>,
    before: Savepoint,
    /// Why the transaction has failed.
    outcome: Result<(), String>,
    _guard: OwnedMutexGuard<()>,
}

impl Turn {
    /// Runs a statement: there whole, or not at all where it fails or is stopped.
    pub(crate) fn run<T>(
        mut self,
        query: &Query,
        statement: impl FnOnce(&mut engine::Transaction) -> Result<T>,
    ) -> Result<T> {
        let result = self
            .transaction()
            .and_then(statement)
            .and_then(|value| query.begin_commit().map(|()| value));
        match &result {
            Ok(_) => self.keep(),
            Err(e) => self.fail(e),
        }
        result
    }

    /// The transaction to work in.
    pub(crate) fn transaction(&mut self) -> Result<&mut engine::Transaction> {
        self.transaction.as_mut().ok_or_else(|| Error::internal("a transaction is missing"))
    }

    /// Ends the turn with what was done.
    pub(crate) fn keep(mut self) {
        self.outcome = Ok(());
    }

    /// Says why the turn fails, should it not be kept.
    pub(crate) fn fail(&mut self, why: &Error) {
        self.outcome = Err(why.message().to_owned());
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(mut transaction) = self.transaction.take() else { return };
        if self.outcome.is_err() {
            transaction.rollback_to(&self.before);
        }
        let mut state = self.open.state.lock();
        // Where it was rolled back meanwhile, the transaction goes.
        if matches!(state.phase, Phase::Active) {
            if let Err(why) = &self.outcome {
                state.phase = Phase::Failed(why.clone());
            }
            state.snapshot = Some(transaction.snapshot());
            state.transaction = Some(transaction);
            state.last_used = Instant::now();
        }
    }
}
