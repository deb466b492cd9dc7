//! Commits: validated in order against an unpublished root, appended to the log and synced as a group,
//! published in order, acknowledged.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::conflict::{WriteSets, check_apart};
use super::diff::{Compared, TableDiff};
use super::places::relocate;
use super::root::{DbRoot, Object};
use super::transaction::{Fork, Transaction};
use super::turns::{Claims, Turn, Turns};
use crate::engine::Shared;
use crate::engine::defect::caught;
use crate::engine::error::{Error, ErrorKind, Result};
use crate::engine::id::SeqNo;
use crate::engine::table::{Fate, SegmentFile};
use crate::engine::wal::{WalOp, WalRecord};

/// The order of commits: one lock, held for memory work only, and the group that waits for its sync.
#[derive(Debug)]
pub(crate) struct Committer {
    state: Mutex<State>,
    /// Signalled when a group is durable or has failed.
    done: Condvar,
    active: Mutex<BTreeMap<SeqNo, usize>>,
    /// Why nothing is committed any more. Set under the commit lock; read by whoever wants to know, without it.
    failed: Mutex<Option<String>>,
    /// The queue of changes that lost to others and are tried again.
    turns: Turns,
}

#[derive(Debug)]
struct State {
    /// The root after the last commit that was validated: not yet published.
    spec: Arc<DbRoot>,
    /// Encoded records that wait to be written, and what becomes of them.
    queue: Vec<Vec<u8>>,
    outcome: Arc<Outcome>,
    /// Number of the last commit that is durable and published: the log's next record follows it.
    durable: SeqNo,
    /// A leader is writing a group.
    writing: bool,
    write_sets: WriteSets,
}

/// What became of a group of commits, once that is known. Those who wait look here, not at sequence numbers: the numbers of a
/// group that never reached the log are given out again.
type Outcome = OnceLock<std::result::Result<(), Lost>>;

/// Why a commit was not acknowledged. Of the kind [`ErrorKind::OutcomeUnknown`], its record may or may not be in the log;
/// of any other, neither it is there nor any that was validated after it.
#[derive(Debug, Clone)]
struct Lost {
    kind: ErrorKind,
    why: String,
}

impl Committer {
    pub(crate) fn new(root: Arc<DbRoot>) -> Self {
        let state = State {
            durable: root.seq,
            spec: root,
            queue: Vec::new(),
            outcome: Arc::default(),
            writing: false,
            write_sets: WriteSets::default(),
        };
        Self {
            state: Mutex::new(state),
            done: Condvar::new(),
            active: Mutex::default(),
            failed: Mutex::default(),
            turns: Turns::default(),
        }
    }

    /// Why nothing is committed any more, if so. Waits for nobody.
    pub(crate) fn failed(&self) -> Option<String> {
        self.failed.lock().clone()
    }

    /// Refuses all commits from now on.
    pub(crate) fn fail(&self, why: &str) {
        self.failed.lock().get_or_insert_with(|| why.to_owned());
    }

    fn check_failed(&self) -> Result<()> {
        match &*self.failed.lock() {
            None => Ok(()),
            Some(why) => Err(Error::new(
                ErrorKind::ReadOnly,
                format!("the database takes no writes any more: {why}; restart it to recover"),
            )),
        }
    }

    /// The queue of changes that are tried again.
    pub(super) fn turns(&self) -> &Turns {
        &self.turns
    }

    /// Waits until what was validated by now is published, or lost: a transaction that lost to it would lose again if it
    /// began before.
    fn wait_published(&self) {
        let mut state = self.state.lock();
        let newest = state.spec.seq;
        while state.durable < newest && state.spec.seq >= newest && self.failed().is_none() {
            self.done.wait_for(&mut state, PUBLISH_LOOK);
        }
    }
}

/// How often a wait for a group looks again by itself.
const PUBLISH_LOOK: Duration = Duration::from_millis(50);

/// Keeps the write sets that a running transaction may be compared with.
#[derive(Debug)]
pub(super) struct ActiveGuard {
    shared: Arc<Shared>,
    base: SeqNo,
}

impl Drop for ActiveGuard {
    fn drop(&mut self) {
        let mut active = self.shared.committer.active.lock();
        if let Some(count) = active.get_mut(&self.base) {
            *count -= 1;
            if *count == 0 {
                active.remove(&self.base);
            }
        }
    }
}

/// The published root, and a guard for a transaction that begins on it.
pub(super) fn register(shared: &Arc<Shared>) -> Result<(Arc<DbRoot>, ActiveGuard)> {
    shared.check_open()?;
    // Under the lock: write sets after this root must not be pruned before it is registered.
    let mut active = shared.committer.active.lock();
    let root = shared.root.load_full();
    *active.entry(root.seq).or_default() += 1;
    drop(active);
    let guard = ActiveGuard { shared: Arc::clone(shared), base: root.seq };
    Ok((root, guard))
}

/// What a commit does to the root: the new root, its log record, and what else becomes of it.
pub(crate) struct Change {
    pub(crate) root: DbRoot,
    pub(crate) ops: Vec<WalOp>,
    /// Segments that are live once the record is written.
    pub(crate) added: Vec<Arc<SegmentFile>>,
    /// Segments that nobody needs once the record is durable.
    pub(crate) removed: Vec<Arc<SegmentFile>>,
}

/// Commits a change made to the newest root under the commit lock: `change` must not do I/O that it can avoid. Returns
/// when the commit is durable and published.
pub(crate) fn install(
    shared: &Shared,
    change: impl FnOnce(&DbRoot, SeqNo) -> Result<Option<Change>>,
) -> Result<SeqNo> {
    install_with(shared, |spec, seq, _| change(spec, seq))
}

fn install_with(
    shared: &Shared,
    change: impl FnOnce(&DbRoot, SeqNo, &mut WriteSets) -> Result<Option<Change>>,
) -> Result<SeqNo> {
    let committer = &shared.committer;
    let mut state = committer.state.lock();
    committer.check_failed()?;
    let seq = state.spec.seq.next();
    let spec = Arc::clone(&state.spec);
    let made = caught("a commit", || {
        let Some(mut made) = change(&spec, seq, &mut state.write_sets)? else { return Ok(None) };
        made.root.seq = seq;
        let record = WalRecord { seq, ops: std::mem::take(&mut made.ops) };
        let mut bytes = Vec::new();
        record.encode(&mut bytes)?;
        Ok(Some((made, bytes)))
    });
    let (change, bytes) = match made {
        Ok(Ok(Some(made))) => made,
        Ok(Ok(None)) => return Ok(spec.seq),
        Ok(Err(e)) => {
            state.write_sets.forget_after(spec.seq);
            return Err(e);
        }
        Err(defect) => {
            state.write_sets.forget_after(spec.seq);
            committer.fail(defect.message());
            return Err(defect);
        }
    };
    // From here on the record may become durable, whatever else fails: the files must stay.
    for segment in &change.added {
        segment.set_fate(Fate::Live);
    }
    state.queue.push(bytes);
    state.spec = Arc::new(change.root);
    let published = shared.root.load().seq;
    let oldest = committer.active.lock().keys().next().copied().unwrap_or(published);
    state.write_sets.prune(oldest.min(published));
    let outcome = wait_durable(shared, &mut state);
    drop(state);
    if let Err(lost) = outcome {
        if lost.kind != ErrorKind::OutcomeUnknown {
            change.added.iter().for_each(|segment| segment.set_fate(Fate::Pending));
        }
        return Err(Error::new(lost.kind, lost.why));
    }
    for segment in &change.removed {
        segment.set_fate(Fate::Obsolete);
    }
    Ok(seq)
}

/// Waits until the group in the making is durable or lost; writes it if nobody else is writing.
fn wait_durable(
    shared: &Shared,
    state: &mut parking_lot::MutexGuard<'_, State>,
) -> std::result::Result<(), Lost> {
    let committer = &shared.committer;
    let mine = Arc::clone(&state.outcome);
    loop {
        if let Some(outcome) = mine.get() {
            return outcome.clone();
        }
        if state.writing {
            committer.done.wait(state);
            continue;
        }
        state.writing = true;
        let group = std::mem::take(&mut state.queue);
        let outcome = std::mem::take(&mut state.outcome);
        let root = Arc::clone(&state.spec);
        let first = SeqNo(state.durable.0 + 1);
        let written = parking_lot::MutexGuard::unlocked(state, || {
            caught("the writing of the log", || shared.wal.lock().append(first, root.seq, &group))
                .unwrap_or_else(Err)
        });
        state.writing = false;
        // Set once: by the one who took it out of the state.
        let _ = outcome.set(match written {
            Ok(()) => {
                state.durable = root.seq;
                shared.root.store(root);
                Ok(())
            }
            Err(e) => Err(state.lose(e, shared.root.load_full(), committer)),
        });
        committer.done.notify_all();
    }
}

impl State {
    /// Forgets all that was validated since `published`: a group did not reach the log.
    fn lose(&mut self, error: Error, published: Arc<DbRoot>, committer: &Committer) -> Lost {
        let kind = error.kind();
        let lost = match kind {
            // The log is as it was before: commits can go on, once there is space for example.
            ErrorKind::Io | ErrorKind::ResourceExhausted => {
                tracing::error!(%error, "the log took no commit");
                Lost { kind, why: format!("nothing was committed: {error}") }
            }
            // It was not touched: an earlier failure, of a checkpoint say, has closed it.
            ErrorKind::ReadOnly => {
                let why = error.to_string();
                committer.fail(&why);
                Lost { kind, why: format!("nothing was committed: {why}") }
            }
            // Never retried: what the failed sync left on disk is unknown.
            _ => {
                tracing::error!(%error, "writing the log failed: the database is read-only now");
                committer.fail(&format!("writing the log failed: {error}"));
                let why = format!("the commit may or may not be durable: {error}");
                Lost { kind: ErrorKind::OutcomeUnknown, why }
            }
        };
        self.write_sets.forget_after(published.seq);
        self.spec = published;
        self.queue.clear();
        // Those that were validated on top of the lost group go with it.
        let _ = std::mem::take(&mut self.outcome).set(Err(lost.clone()));
        lost
    }
}

/// Why a transaction was not committed.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) error: Error,
    /// What it wrote.
    pub(super) claims: Claims,
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self { error, claims: Claims::default() }
    }
}

/// Who commits.
#[derive(Debug, Clone, Copy)]
pub(super) enum By<'a> {
    /// One who is told to retry where others were first.
    Client,
    /// One who tries again by himself, perhaps in his turn.
    Itself(Option<&'a Turn<'a>>),
}

/// Commits a transaction.
pub(super) fn commit(transaction: Transaction, by: By<'_>) -> std::result::Result<SeqNo, Refused> {
    let Transaction { shared, base, fork, active } = transaction;
    if Arc::ptr_eq(&base, &fork.root) {
        return Ok(base.seq);
    }
    shared.wait_for_room(&fork.tables)?;
    let mut diffs = Vec::new();
    for id in &fork.tables {
        let (before, after) = (base.tables.get(id), fork.root.tables.get(id));
        let same = match (before, after) {
            (Some(before), Some(after)) => Arc::ptr_eq(before, after),
            (before, after) => before.is_none() && after.is_none(),
        };
        if !same {
            diffs.push(TableDiff::new(*id, before, after)?);
        }
    }
    // Dropped tables first: another may take their name.
    diffs.sort_by_key(|d| (d.fork.is_some(), d.id));
    if !shared.committer.turns.is_empty() {
        give_way(&shared.committer.turns, &fork, &diffs, by)?;
    }
    let most = shared.options.write_set_bytes;
    let compared = match compare(&shared, &base, &diffs) {
        Ok(compared) => compared,
        Err(error) => return Err(refused(&shared, error, &fork, &diffs)),
    };
    let seq = install_with(&shared, |spec, seq, write_sets| {
        check_names(&base, &fork, spec)?;
        for diff in &diffs {
            diff.check(&base, spec, write_sets, compared)?;
        }
        let mut change =
            Change { root: spec.clone(), ops: Vec::new(), added: Vec::new(), removed: Vec::new() };
        apply_catalog(&fork, &mut change);
        for diff in &diffs {
            diff.install(&mut change, seq, shared.options.memtable_bytes)?;
        }
        for diff in &diffs {
            write_sets.push(seq, diff.id, diff.written.clone(), most);
        }
        Ok(Some(change))
    });
    drop(active);
    match seq {
        Ok(seq) => {
            wake_for(&shared, &diffs);
            Ok(seq)
        }
        Err(error) => Err(refused(&shared, error, &fork, &diffs)),
    }
}

/// Why a transaction was not committed. Where it lost to another, that is published by now.
fn refused(shared: &Shared, error: Error, fork: &Fork, diffs: &[TableDiff]) -> Refused {
    if error.kind() == ErrorKind::Conflict {
        shared.committer.wait_published();
    }
    Refused { error, claims: claims(fork, diffs) }
}

/// Compares a transaction with what was validated since it began, as far as that may read files: under the commit lock, where
/// the last commits are compared, nobody else can commit. Rows that have moved are looked up for the same reason, so that where
/// they lie is in memory then.
fn compare(shared: &Shared, base: &DbRoot, diffs: &[TableDiff]) -> Result<Compared> {
    let state = shared.committer.state.lock();
    let (spec, era) = (Arc::clone(&state.spec), state.write_sets.era());
    let mut theirs = Vec::new();
    if spec.seq > base.seq {
        for diff in diffs.iter().filter(|d| !d.written.is_empty()) {
            theirs.push((diff, state.write_sets.since(base.seq, diff.id)));
        }
    }
    drop(state);
    for (diff, theirs) in theirs {
        let apart = theirs.and_then(|theirs| check_apart(&diff.written, &theirs));
        apart.map_err(|e| diff.named(e))?;
    }
    for diff in diffs {
        let Some(now) = spec.tables.get(&diff.id) else { continue };
        for (source, positions) in &diff.deleted {
            if now.find_source(source.source.id()).is_none() {
                relocate(now, &source.source, positions)?;
            }
        }
    }
    Ok(Compared { seq: spec.seq, era })
}

/// Lets those go first who have their turn at the same rows.
fn give_way(
    turns: &Turns,
    fork: &Fork,
    diffs: &[TableDiff],
    by: By<'_>,
) -> std::result::Result<(), Refused> {
    let claims = claims(fork, diffs);
    let own = match by {
        By::Client => None,
        By::Itself(turn) => turn,
    };
    let Some(ticket) = turns.in_the_way(&claims, own)? else { return Ok(()) };
    match by {
        By::Client => turns.wait_for_end(ticket),
        By::Itself(_) => {
            let error = Error::conflict("another change has its turn at the same rows: retry");
            return Err(Refused { error, claims });
        }
    }
    Ok(())
}

/// What a transaction wrote, as claims.
fn claims(fork: &Fork, diffs: &[TableDiff]) -> Claims {
    let mut claims = Claims::default();
    if !fork.names.is_empty() || !fork.schemas.is_empty() {
        claims.add_names();
    }
    for diff in diffs.iter().filter(|d| d.base.is_some()) {
        if diff.is_whole() {
            claims.add_table(diff.id);
        } else if !diff.written.is_empty() {
            claims.add_keys(diff.id, &diff.written);
        } else if !diff.deleted.is_empty() {
            // Rows without a key.
            claims.add_table(diff.id);
        }
    }
    claims
}

/// Wakes the threads in the background where a commit may have given them work.
fn wake_for(shared: &Shared, diffs: &[TableDiff]) {
    let root = shared.root.load();
    let grown = |id| root.tables.get(id).is_some_and(|t| t.memtables.len() > 1);
    if diffs.iter().any(|d| !d.segments.is_empty() || d.truncated || grown(&d.id)) {
        shared.wake_background();
    }
}

/// Names and schemas that the transaction changed must mean what they meant when it began.
fn check_names(base: &DbRoot, fork: &Fork, spec: &DbRoot) -> Result<()> {
    for name in &fork.names {
        if spec.names.get(name) != base.names.get(name) {
            return Err(Error::conflict(format!(
                "another transaction created, dropped or renamed {name} first: retry"
            )));
        }
        if fork.root.names.get(name).is_some()
            && !spec.schemas.contains(&name.schema)
            && !fork.schemas.contains(&name.schema)
        {
            return Err(Error::conflict(format!(
                "another transaction dropped the schema \"{}\" first: retry",
                name.schema
            )));
        }
    }
    for schema in &fork.schemas {
        let filled = || spec.names.keys().any(|n| n.schema == *schema && !fork.names.contains(n));
        let dropped = !fork.root.schemas.contains(schema);
        if spec.schemas.contains(schema) != base.schemas.contains(schema) || (dropped && filled()) {
            return Err(Error::conflict(format!(
                "another transaction changed the schema \"{schema}\" first: retry"
            )));
        }
    }
    Ok(())
}

fn apply_catalog(fork: &Fork, change: &mut Change) {
    for schema in &fork.schemas {
        if fork.root.schemas.contains(schema) {
            change.root.schemas.insert_mut(Arc::clone(schema));
        } else {
            change.root.schemas.remove_mut(schema);
        }
    }
    for name in &fork.names {
        match fork.root.names.get(name) {
            Some(view @ Object::View(_)) => {
                change.root.names.insert_mut(name.clone(), view.clone());
            }
            _ => {
                if matches!(change.root.names.get(name), Some(Object::View(_))) {
                    change.root.names.remove_mut(name);
                }
            }
        }
    }
    change.ops.extend(fork.catalog.iter().cloned());
}
