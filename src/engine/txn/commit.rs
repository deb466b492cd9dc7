//! Commits: validated in order against an unpublished root, appended to the log and synced as a group,
//! published in order, acknowledged.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arrow::array::RecordBatch;
use parking_lot::{Condvar, Mutex};
use roaring::RoaringBitmap;

use super::conflict::{KeySet, WriteSets};
use super::root::{DbRoot, Object};
use super::transaction::{Fork, Transaction};
use super::turns::{Claims, Turn, Turns};
use crate::engine::Shared;
use crate::engine::defect::caught;
use crate::engine::error::{Error, ErrorKind, Result};
use crate::engine::id::{SegmentId, SeqNo, TableId};
use crate::engine::key::{KeyColumn, compare};
use crate::engine::schema::KeyKind;
use crate::engine::table::{
    Fate, Input, KeyBuilder, Reader, SegmentFile, Source, SourceId, SourceState, TableShape,
    TableState, new_run,
};
use crate::engine::wal::{AddedSegment, WalOp, WalRecord};

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
    let seq = install_with(&shared, |spec, seq, write_sets| {
        check_names(&base, &fork, spec)?;
        for diff in &diffs {
            diff.check(&base, spec, write_sets)?;
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
        Err(error) => {
            if error.kind() == ErrorKind::Conflict {
                shared.committer.wait_published();
            }
            Err(Refused { error, claims: claims(&fork, &diffs) })
        }
    }
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

/// What a transaction did to one table.
struct TableDiff {
    id: TableId,
    base: Option<Arc<TableState>>,
    fork: Option<Arc<TableState>>,
    redefined: bool,
    truncated: bool,
    /// Rows of the base that it deleted.
    deleted: Vec<(SourceState, Vec<u32>)>,
    /// Runs and segments that it added, with what it deleted of them again.
    runs: Vec<SourceState>,
    segments: Vec<SourceState>,
    /// Keys that it wrote, where they are unique.
    written: Vec<KeySet>,
}

impl TableDiff {
    fn new(
        id: TableId,
        base: Option<&Arc<TableState>>,
        fork: Option<&Arc<TableState>>,
    ) -> Result<Self> {
        let mut diff = Self {
            id,
            base: base.cloned(),
            fork: fork.cloned(),
            redefined: false,
            truncated: false,
            deleted: Vec::new(),
            runs: Vec::new(),
            segments: Vec::new(),
            written: Vec::new(),
        };
        let Some(fork) = fork else { return Ok(diff) };
        let mut old: BTreeMap<SourceId, &SourceState> = BTreeMap::new();
        if let Some(base) = base {
            diff.redefined = !Arc::ptr_eq(&base.shape, &fork.shape);
            diff.truncated = base.epoch != fork.epoch;
            if !diff.truncated {
                old = base.sources().map(|s| (s.source.id(), s)).collect();
            }
        }
        for state in fork.sources() {
            match old.get(&state.source.id()) {
                Some(before) => {
                    let positions = state.deleted.since(&before.deleted);
                    if !positions.is_empty() {
                        diff.deleted.push(((*before).clone(), positions));
                    }
                }
                None => match &state.source {
                    Source::Run(_) => diff.runs.extend(compact_run(&fork.shape, state)?),
                    Source::Segment(_) => diff.segments.push(state.clone()),
                },
            }
        }
        if fork.shape.meta.key_kind == KeyKind::Primary {
            diff.collect_written()?;
        }
        Ok(diff)
    }

    fn collect_written(&mut self) -> Result<()> {
        for (source, positions) in &self.deleted {
            let keys = keys_at(&source.source, positions)?;
            self.written.push(KeySet::Keys(Arc::new(keys)));
        }
        for run in &self.runs {
            if let Source::Run(r) = &run.source {
                self.written.push(KeySet::Keys(Arc::new(r.keys.clone())));
            }
        }
        self.written.extend(self.segments.iter().cloned().map(KeySet::Segment));
        Ok(())
    }

    /// Whether it concerns all rows of the table.
    fn is_whole(&self) -> bool {
        self.fork.is_none() || self.truncated || self.redefined
    }

    /// Whether the diff can follow what was committed since the transaction began.
    fn check(&self, base_root: &DbRoot, spec: &DbRoot, write_sets: &WriteSets) -> Result<()> {
        let Some(base) = &self.base else { return Ok(()) };
        let name = &base.shape.meta.name;
        let Some(now) = spec.tables.get(&self.id) else {
            return Err(Error::conflict(format!(
                "table {name}: another transaction dropped it first: retry"
            )));
        };
        if !Arc::ptr_eq(&now.shape, &base.shape) {
            return Err(Error::conflict(format!(
                "table {name}: another transaction changed its definition first: retry"
            )));
        }
        if now.epoch != base.epoch || (self.is_whole() && now.last_write > base_root.seq) {
            return Err(Error::conflict(format!(
                "table {name}: another transaction changed its rows first: retry"
            )));
        }
        write_sets
            .check(base_root.seq, self.id, &self.written)
            .map_err(|e| e.context(format_args!("table {name}")))
    }

    /// Puts the diff into the new root and the log record.
    fn install(&self, change: &mut Change, seq: SeqNo, memtable_bytes: usize) -> Result<()> {
        let Some(fork) = &self.fork else {
            if let Some(state) = change.root.remove_table(self.id) {
                change.ops.push(WalOp::DropTable(self.id));
                change.removed.extend(segment_files(&state));
            }
            return Ok(());
        };
        let mut state = match (&self.base, change.root.tables.get(&self.id)) {
            (Some(_), Some(now)) => (**now).clone(),
            _ => TableState {
                segments: Arc::default(),
                memtables: vec![crate::engine::table::Memtable::new(fork.flushed_below)],
                live_count: 0,
                ..(**fork).clone()
            },
        };
        if self.truncated {
            change.removed.extend(segment_files(&state));
            state.truncate();
            change.ops.push(WalOp::Truncate(self.id));
        }
        if self.redefined || self.base.is_none() {
            state.shape = Arc::clone(&fork.shape);
            change.ops.push(WalOp::PutTable(Arc::clone(&fork.shape.meta)));
        }
        self.install_deletes(&mut state, change)?;
        self.install_rows(&mut state, change, seq)?;
        if state.active().bytes >= memtable_bytes {
            state.seal();
        }
        state.last_write = seq;
        change.root.put_table(Arc::new(state));
        Ok(())
    }

    fn install_deletes(&self, state: &mut TableState, change: &mut Change) -> Result<()> {
        // Where the rows lie now: compaction and flushes may have moved them since.
        let mut places: BTreeMap<SourceId, Vec<u32>> = BTreeMap::new();
        for (source, positions) in &self.deleted {
            let id = source.source.id();
            if state.find_source(id).is_some() {
                places.entry(id).or_default().extend(positions);
            } else {
                for (id, position) in relocate(state, &source.source, positions)? {
                    places.entry(id).or_default().push(position);
                }
            }
        }
        for (id, mut positions) in places {
            positions.sort_unstable();
            let Some(source) = state.find_source(id).map(|s| s.source.clone()) else { continue };
            let live = state.delete(id, positions.iter().copied());
            if live != Some(positions.len() as u64) {
                return Err(Error::conflict(format!(
                    "table {}: another transaction deleted the same rows first: retry",
                    state.shape.meta.name
                )));
            }
            change.ops.push(match &source {
                Source::Segment(file) => WalOp::DeletePositions {
                    table: self.id,
                    segment: file.segment.meta().id,
                    positions: RoaringBitmap::from_sorted_iter(positions).unwrap_or_default(),
                },
                Source::Run(_) => WalOp::DeleteKeys {
                    table: self.id,
                    keys: keys_at(&source, &positions)?,
                    row_ids: row_ids_at(&state.shape, &source, &positions)?,
                },
            });
        }
        Ok(())
    }

    fn install_rows(&self, state: &mut TableState, change: &mut Change, seq: SeqNo) -> Result<()> {
        for run in &self.runs {
            if let Source::Run(r) = &run.source {
                change.ops.push(WalOp::Rows {
                    table: self.id,
                    generation: state.active().generation,
                    batch: r.batch.clone(),
                });
                state.add_run(Arc::clone(r), seq)?;
            }
        }
        if !self.segments.is_empty() {
            let add = self.segments.iter().filter_map(added_segment).collect();
            change.ops.push(WalOp::EditSegments {
                table: self.id,
                flushed_below: None,
                remove: Vec::new(),
                add,
            });
            change.added.extend(self.segments.iter().filter_map(segment_file));
            state.add_segments(self.segments.iter().cloned());
        }
        Ok(())
    }
}

/// A run without the rows that are deleted of it; `None` where none is left.
fn compact_run(shape: &Arc<TableShape>, state: &SourceState) -> Result<Option<SourceState>> {
    if state.deleted.count() == 0
        && let Source::Run(run) = &state.source
        && run.fields == shape.stored_fields
    {
        return Ok(Some(state.clone()));
    }
    let rows = state.live_count() as usize;
    let input = Input { state: state.clone(), ordinal: 0, positions: 0..state.source.len() };
    let mut reader = Reader::new(vec![input], shape.stored_layout(true), rows.max(1))?;
    let mut batches = Vec::new();
    let mut keys = Vec::new();
    while let Some(rows) = reader.next()? {
        batches.push(RecordBatch::try_new(Arc::clone(&shape.stored_schema), rows.columns)?);
        keys.extend(rows.keys);
    }
    if batches.is_empty() {
        return Ok(None);
    }
    let batch = arrow::compute::concat_batches(&shape.stored_schema, &batches)?;
    let keys = KeyColumn::concat(&keys.iter().collect::<Vec<_>>())?;
    Ok(Some(SourceState::new(Source::Run(new_run(shape, batch, keys)))))
}

/// The segment of a source.
pub(crate) fn segment_file(state: &SourceState) -> Option<Arc<SegmentFile>> {
    match &state.source {
        Source::Segment(file) => Some(Arc::clone(file)),
        Source::Run(_) => None,
    }
}

/// All segments of a table.
pub(crate) fn segment_files(state: &TableState) -> Vec<Arc<SegmentFile>> {
    state.segments.iter().filter_map(segment_file).collect()
}

/// A segment as log and manifest hold it.
pub(crate) fn added_segment(state: &SourceState) -> Option<AddedSegment> {
    let file = segment_file(state)?;
    Some(AddedSegment { meta: file.segment.meta().clone(), deleted: state.deleted.to_bitmap() })
}

/// Cuts ascending positions of a source into stretches that lie near each other, each within one block of it.
fn stretches<'a>(
    source: &'a Source,
    positions: &'a [u32],
) -> impl Iterator<Item = (Range<u64>, &'a [u32])> {
    const WINDOW: u64 = 16 * 1024;
    let mut rest = positions;
    std::iter::from_fn(move || {
        let first = u64::from(*rest.first()?);
        let end = (first + WINDOW).min(source.block(first).end);
        let (stretch, after) = rest.split_at(rest.partition_point(|p| u64::from(*p) < end));
        rest = after;
        Some((first..u64::from(*stretch.last()?) + 1, stretch))
    })
}

/// The keys at ascending positions of a source.
pub(crate) fn keys_at(source: &Source, positions: &[u32]) -> Result<KeyColumn> {
    if let Source::Run(run) = source {
        return run.keys.take(positions);
    }
    let mut keys: Option<KeyBuilder> = None;
    for (rows, stretch) in stretches(source, positions) {
        let window = source.keys(rows.clone())?;
        let keys = keys.get_or_insert_with(|| KeyBuilder::like(&window));
        for position in stretch {
            let at = (u64::from(*position) - rows.start) as usize;
            keys.extend(&window, at..at + 1);
        }
    }
    Ok(keys.map_or(KeyColumn::U64(Vec::new()), KeyBuilder::finish))
}

/// The hidden row ids at ascending positions of a source; none where keys are unique.
pub(crate) fn row_ids_at(
    shape: &TableShape,
    source: &Source,
    positions: &[u32],
) -> Result<Vec<u64>> {
    let mut row_ids = Vec::new();
    if !shape.meta.has_row_id() {
        return Ok(row_ids);
    }
    row_ids.reserve(positions.len());
    for (rows, stretch) in stretches(source, positions) {
        let window = source.row_ids(rows.clone())?;
        row_ids.extend(stretch.iter().map(|p| window.value((u64::from(*p) - rows.start) as usize)));
    }
    Ok(row_ids)
}

/// Where rows lie now whose source is gone, because compaction or a flush moved them. A row that is not
/// found was deleted by another transaction.
pub(crate) fn relocate(
    state: &TableState,
    source: &Source,
    positions: &[u32],
) -> Result<Vec<(SourceId, u32)>> {
    let keys = keys_at(source, positions)?;
    let mut places = Vec::with_capacity(positions.len());
    if state.shape.repeats() {
        let row_ids = row_ids_at(&state.shape, source, positions)?;
        for (i, row_id) in row_ids.iter().enumerate() {
            places.extend(find_row(state.sources(), &keys, i, *row_id)?);
        }
    } else {
        debug_assert!((1..keys.len()).all(|i| compare(&keys, i - 1, &keys, i).is_le()));
        for found in state.find_live(&keys, state.segments.filter_use())? {
            if let Some(s) = state.source_at(found.ordinal) {
                places.push((s.source.id(), found.position));
            }
        }
    }
    if places.len() != positions.len() {
        return Err(Error::conflict(format!(
            "table {}: another transaction deleted the same rows first: retry",
            state.shape.meta.name
        )));
    }
    Ok(places)
}

/// The live row with key `i` of `keys` and a row id.
pub(crate) fn find_row<'a>(
    sources: impl IntoIterator<Item = &'a SourceState>,
    keys: &KeyColumn,
    i: usize,
    row_id: u64,
) -> Result<Option<(SourceId, u32)>> {
    let key = keys.get(i);
    for s in sources {
        if s.live_count() == 0 || s.source.min_key() > key || s.source.max_key() < key {
            continue;
        }
        if let Some(position) = s.source.find_row(&key, row_id)?
            && !s.deleted.contains(position as u32)
        {
            return Ok(Some((s.source.id(), position as u32)));
        }
    }
    Ok(None)
}

/// The id of a segment source.
pub(crate) fn segment_id(state: &SourceState) -> Option<SegmentId> {
    match state.source.id() {
        SourceId::Segment(id) => Some(id),
        SourceId::Run(_) => None,
    }
}
