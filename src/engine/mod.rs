//! The storage engine: tables in key order with learned indexes, durable through a write-ahead log.
//!
//! Synchronous, and usable alone: nothing here names SQL, gRPC or a command line.

pub(crate) mod background;
mod cache;
mod checkpoint;
mod clock;
mod defect;
mod error;
pub mod fs;
mod handle;
mod id;
mod in_memory;
pub mod index;
mod key;
mod maintenance;
mod manifest;
mod options;
mod proto;
mod recovery;
mod schema;
mod segment;
pub(crate) mod size;
mod table;
mod txn;
mod upkeep;
mod wal;

pub use cache::CacheStats;
pub use clock::{Clock, SystemClock};
pub use error::{Error, ErrorKind, ObjectKind, Result};
pub use handle::Table;
pub use id::{FieldId, Generation, SegmentId, SeqNo, TableId};
pub use in_memory::in_memory;
pub use key::{EncodedKey, KeyCodec, KeyColumn, KeyForm, KeyRange};
pub use options::Options;
pub use schema::{Column, DEFAULT_SCHEMA, KeyKind, KeySpec, ROW_ID_COLUMN, TableMeta, TableName};
pub use segment::SegmentMeta;
pub use table::{
    Ahead, KeyWalk, Part, ROW_ADDRESS_COLUMN, RangeExplanation, RowAddress, Scan, ScanRequest,
    SegmentInfo, SegmentRange, TableSnapshot,
};
pub use txn::{OnConflict, Savepoint, Snapshot, Transaction, Write, WriteResult};
pub use upkeep::{FailingTask, Task};

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use arrow::datatypes::Schema;
use parking_lot::{Condvar, Mutex};

use cache::Cache;
use checkpoint::Checkpointer;
use defect::caught;
use manifest::ManifestStore;
use recovery::Recovery;
use segment::SegmentStore;
use table::Garbage;
use txn::{Committer, DbRoot};
use upkeep::Upkeep;
use wal::Wal;

/// What the parts of an open database share.
#[derive(Debug)]
pub(crate) struct Shared {
    options: Options,
    clock: Arc<dyn Clock>,
    store: SegmentStore,
    garbage: Arc<Garbage>,
    /// The latest committed state.
    root: ArcSwap<DbRoot>,
    committer: Committer,
    wal: Mutex<Wal>,
    checkpointer: Mutex<Checkpointer>,
    next_segment: AtomicU64,
    next_table: AtomicU64,
    /// Flushes run one at a time.
    flushing: Mutex<()>,
    /// Compactions run one at a time.
    compacting: Mutex<()>,
    /// Small segments that a compaction has left as small as they were.
    settled: Mutex<HashSet<SegmentId>>,
    /// Signalled after a flush: writers may have waited for room.
    flushed: Condvar,
    room: Mutex<()>,
    /// What the threads in the background are asked to look at.
    wanted: Mutex<background::Wanted>,
    wake: Condvar,
    /// What fails of the work in the background.
    upkeep: Upkeep,
    closed: AtomicBool,
    /// Bulk loads under way: they share the memory for loads.
    load_count: AtomicUsize,
    /// Held as long as anything uses the files.
    _lock: Lock,
}

/// The lock of the data directory.
struct Lock(#[expect(dead_code, reason = "held, not used")] Box<dyn Send + Sync>);

impl std::fmt::Debug for Lock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Lock")
    }
}

/// How long a writer waits for room before it looks again, and how often: a minute in all.
const ROOM_WAIT: Duration = Duration::from_millis(20);
const ROOM_WAITS: usize = 3_000;

/// Sealed memtables of a table that may wait for their flush before writers wait too.
const SEALED_MEMTABLES: usize = 4;

impl Shared {
    fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Closed, "the database is closed"));
        }
        Ok(())
    }

    /// Lets the threads in the background look for work.
    fn wake_background(&self) {
        *self.wanted.lock() = background::Wanted::all();
        self.wake.notify_all();
    }

    /// Waits while flushes are far behind: memory stays bounded.
    fn wait_for_room(&self, tables: &BTreeSet<TableId>) -> Result<()> {
        if !self.options.background {
            return Ok(());
        }
        let crowded = |shared: &Self| {
            let root = shared.root.load();
            let sealed = |id| root.tables.get(id).map_or(0, |t| t.memtables.len());
            tables.iter().any(|id| sealed(id) > SEALED_MEMTABLES)
        };
        let mut room = self.room.lock();
        let mut waits = 0;
        while crowded(self) {
            self.check_open()?;
            // A flush that fails for good, on a full disk say, must not hold writers for ever.
            if waits == ROOM_WAITS {
                let why = self.upkeep.flush_error(tables.iter().copied());
                return Err(Error::exhausted(format!(
                    "memtables wait for their flush and take no more rows: {}; retry",
                    why.unwrap_or_else(|| "it takes long".to_owned())
                )));
            }
            waits += 1;
            if let Some(why) = self.committer.failed() {
                return Err(Error::new(ErrorKind::ReadOnly, why));
            }
            self.wake_background();
            self.flushed.wait_for(&mut room, ROOM_WAIT);
        }
        Ok(())
    }

    /// Makes the directory of a table. Where its sync fails, nobody knows what a later sync would be
    /// worth, so the database takes no writes any more.
    fn create_table_dir(&self, table: TableId) -> Result<()> {
        self.store.create_table_dir(table).inspect_err(|e| self.fail(e))
    }

    /// Makes the names of a table's segments durable; see [`Shared::create_table_dir`].
    fn sync_table_dir(&self, table: TableId) -> Result<()> {
        self.store.sync_table_dir(table).inspect_err(|e| self.fail(e))
    }

    /// Does `work`; a panic in it ends all writes, because nobody knows what it has left undone.
    fn or_fail<T>(&self, what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        caught(what, work).unwrap_or_else(|defect| {
            self.committer.fail(defect.message());
            Err(defect)
        })
    }

    /// Begins a new log file, whose existence says that the one before it is complete: what cannot be read of that from now
    /// on is damage, and never taken for a write that a crash has cut off.
    fn close_log(&self) {
        if self.committer.failed().is_some() {
            return;
        }
        if let Err(e) = self.wal.lock().rotate() {
            // Nothing is lost: every commit was synced.
            tracing::warn!(error = %e, "the log could not be closed");
        }
    }

    fn fail(&self, e: &Error) {
        tracing::error!(error = %e, "a directory could not be synced: the database is read-only now");
        self.committer.fail(&format!("a directory could not be synced: {e}"));
    }

    /// Removes the files of segments that nobody needs any more.
    fn collect_garbage(&self) -> Result<()> {
        if self.garbage.is_empty() {
            return Ok(());
        }
        let mut result = Ok(());
        for (table, segment) in self.garbage.take() {
            let removed = self.store.remove(table, segment).and_then(|()| {
                match self.root.load().tables.get(&table) {
                    None => self.store.remove_table_dir(table),
                    Some(_) => Ok(()),
                }
            });
            if removed.is_err() {
                // It is tried again; the files are in nobody's way meanwhile.
                self.garbage.put((table, segment));
                result = removed;
            }
        }
        result
    }
}

/// An open database. Cheap to clone; the data directory is released when the last clone (and the last
/// snapshot of a scan, and the last transaction) is dropped.
#[derive(Debug, Clone)]
pub struct Engine {
    handle: Arc<Handle>,
}

/// Stops the background threads with the last engine.
#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
    background: Mutex<Vec<std::thread::JoinHandle<()>>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Handle {
    fn stop(&self) {
        self.shared.closed.store(true, Ordering::Release);
        self.shared.wake_background();
        for thread in self.background.lock().drain(..) {
            if thread.join().is_err() {
                tracing::error!("a background thread panicked");
            }
        }
        self.shared.close_log();
        if let Err(e) = self.shared.collect_garbage() {
            tracing::warn!(error = %e, "files that are not needed any more could not be removed");
        }
    }
}

impl Engine {
    /// Opens the database in `dir`, and makes it if there is none.
    pub fn open(dir: impl AsRef<Path>, options: Options) -> Result<Self> {
        Self::open_with(dir, options, Arc::new(fs::OsFs), Arc::new(SystemClock))
    }

    /// [`Engine::open`] on another file system and clock.
    pub fn open_with(
        dir: impl AsRef<Path>,
        options: Options,
        vfs: Arc<dyn fs::Vfs>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        options.check()?;
        let root = dir.as_ref();
        // Errors reach clients, whom it does not concern where the server keeps its files.
        let vfs: Arc<dyn fs::Vfs> = Arc::new(fs::Rooted::new(vfs, root.to_owned()));
        let dir = PathBuf::new();
        vfs.create_dir_all(&dir)?;
        let lock = vfs.lock(&dir.join("LOCK")).map_err(|e| {
            if e.kind() == std::io::ErrorKind::WouldBlock {
                let message =
                    format!("the data directory {} is open in another process", root.display());
                Error::new(ErrorKind::Locked, message)
            } else {
                Error::from(e).context(root.join("LOCK").display())
            }
        })?;
        let tables = dir.join("tables");
        vfs.create_dir_all(&tables)?;
        let cache = Arc::new(Cache::new(options.cache_bytes));
        let store = SegmentStore { vfs: Arc::clone(&vfs), dir: tables, cache };
        let garbage = Arc::new(Garbage::default());
        let (manifest, checkpoint) = ManifestStore::open(Arc::clone(&vfs), &dir)?;
        let mut recovery = Recovery::new(&store, &garbage, checkpoint.as_ref())?;
        let from = checkpoint.as_ref().map_or(SeqNo(1), |c| c.replay_from);
        let (wal, found) =
            Wal::open(vfs, &dir.join("wal"), from, &mut |record| recovery.apply(record))?;
        if let Some(known) = checkpoint.as_ref().filter(|c| c.replay_from <= c.seq)
            && found.next_seq.is_none_or(|next| next <= known.seq)
        {
            return Err(Error::corruption(format!(
                "{}: the log ends before commit {}, which the manifest holds: files are missing",
                dir.join("wal").display(),
                known.seq
            )));
        }
        recovery.remove_orphans()?;
        tracing::info!(
            records = found.record_count,
            torn_bytes = found.torn_bytes,
            commit = recovery.root.seq.0,
            "recovered"
        );
        let (next_segment, next_table) = recovery.counters();
        let checkpointed = checkpoint.map_or(SeqNo(0), |c| c.seq);
        let root = Arc::new(recovery.root);
        let shared = Arc::new(Shared {
            clock,
            store,
            garbage,
            committer: Committer::new(Arc::clone(&root)),
            root: ArcSwap::new(root),
            wal: Mutex::new(wal),
            checkpointer: Mutex::new(Checkpointer::new(manifest, checkpointed)),
            next_segment,
            next_table,
            flushing: Mutex::new(()),
            compacting: Mutex::new(()),
            settled: Mutex::default(),
            flushed: Condvar::new(),
            room: Mutex::new(()),
            wanted: Mutex::new(background::Wanted::all()),
            wake: Condvar::new(),
            upkeep: Upkeep::default(),
            closed: AtomicBool::new(false),
            load_count: AtomicUsize::new(0),
            _lock: Lock(lock),
            options,
        });
        let background =
            if shared.options.background { background::spawn(&shared)? } else { Vec::new() };
        Ok(Self { handle: Arc::new(Handle { shared, background: Mutex::new(background) }) })
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }

    /// The options it was opened with.
    pub fn options(&self) -> &Options {
        &self.shared().options
    }

    /// The latest committed state.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { root: self.shared().root.load_full() }
    }

    /// Begins a transaction on the latest committed state.
    pub fn begin(&self) -> Result<Transaction> {
        Transaction::begin(self.shared())
    }

    /// Runs `statement` in a transaction and commits; from the start where another transaction was first. It comes to its end
    /// whatever others do: after the first tries it waits its turn, and those who write the same rows wait for it.
    pub fn write<T>(&self, statement: impl FnMut(&mut Transaction) -> Result<T>) -> Result<T> {
        self.write_while(&|| Ok(()), statement)
    }

    /// [`Engine::write`] of a statement that may be stopped: `wanted` is asked while it waits for others, and its error returned.
    pub fn write_while<T>(
        &self,
        wanted: &dyn Fn() -> Result<()>,
        statement: impl FnMut(&mut Transaction) -> Result<T>,
    ) -> Result<T> {
        txn::write(self.shared(), statement, wanted)
    }

    /// Creates a table.
    pub fn create_table(
        &self,
        name: impl Into<TableName>,
        schema: &Schema,
        key: &KeySpec,
    ) -> Result<Table> {
        let name = name.into();
        let id = self.write(|txn| txn.create_table(&name, schema, key))?;
        Ok(Table::new(self.clone(), id))
    }

    /// Drops a table.
    pub fn drop_table(&self, name: impl Into<TableName>) -> Result<()> {
        let name = name.into();
        self.write(|txn| {
            let table = txn.snapshot().table(&name).ok_or_else(|| no_table(&name))?;
            txn.drop_table(table.id())
        })
    }

    /// The table called `name`.
    pub fn table(&self, name: impl Into<TableName>) -> Result<Table> {
        let name = name.into();
        let table = self.snapshot().table(&name).ok_or_else(|| no_table(&name))?;
        Ok(Table::new(self.clone(), table.id()))
    }

    /// Why the database takes no writes any more, if so.
    pub fn read_only(&self) -> Option<String> {
        self.shared().committer.failed()
    }

    /// Maintenance that fails at present, by table. It is tried again by itself.
    pub fn failing_tasks(&self) -> Vec<FailingTask> {
        self.shared().upkeep.failing()
    }

    /// Writes the memtables of a table (of all for `None`) to segments.
    pub fn flush(&self, table: Option<TableId>) -> Result<()> {
        self.shared().check_open()?;
        let all: Vec<TableId> = match table {
            Some(id) => vec![id],
            None => self.shared().root.load().tables.keys().copied().collect(),
        };
        all.into_iter().try_for_each(|id| maintenance::flush(self.shared(), id, true))
    }

    /// Merges overlapping segments of a table and drops its deleted rows, whatever the triggers say. Says
    /// how many segments were rewritten.
    pub fn compact(&self, table: TableId) -> Result<usize> {
        self.shared().check_open()?;
        maintenance::flush(self.shared(), table, true)?;
        let count = maintenance::compact_all(self.shared(), table)?;
        self.shared().collect_garbage()?;
        Ok(count)
    }

    /// Trains the index of every segment of a table anew. Says how many there are and how long training
    /// took.
    pub fn retrain(&self, table: TableId) -> Result<(usize, Duration)> {
        self.shared().check_open()?;
        let done = maintenance::retrain(self.shared(), table)?;
        self.shared().collect_garbage()?;
        Ok(done)
    }

    /// Writes a checkpoint and drops the log before it.
    pub fn checkpoint(&self) -> Result<()> {
        self.shared().check_open()?;
        checkpoint::checkpoint(self.shared())
    }

    /// How the cache of decoded columns and keys has done so far.
    pub fn cache_stats(&self) -> CacheStats {
        self.shared().store.cache.stats()
    }

    /// Reads the files of every segment whole and checks their checksums. An error of kind
    /// [`ErrorKind::Corruption`] names file and offset.
    pub fn verify(&self) -> Result<()> {
        let root = self.shared().root.load_full();
        for file in root.tables.values().flat_map(|t| txn::segment_files(t)) {
            file.segment.verify()?;
        }
        Ok(())
    }

    /// Bytes of the log that a restart would read.
    pub fn wal_bytes(&self) -> u64 {
        self.shared().wal.lock().len_bytes()
    }

    /// Finishes what runs in the background; every later write is refused. The files are released with
    /// the last clone, snapshot and transaction.
    pub fn close(&self) -> Result<()> {
        self.handle.stop();
        self.shared().committer.fail("the database is closed");
        Ok(())
    }
}

fn no_table(name: &TableName) -> Error {
    Error::not_found(format!("table {name} does not exist")).of(ObjectKind::Table)
}
