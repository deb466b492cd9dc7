//! The threads that work unasked: one flushes, takes checkpoints and removes what nobody needs, and one compacts. Writers wait for
//! the first when they are far ahead, so it never waits for the second, which gives way to everybody.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use super::Shared;
use super::defect::caught;
use super::error::Result;
use super::id::TableId;
use super::upkeep::Task;
use super::{checkpoint, maintenance};

/// How much of the processor the compacting thread leaves to others, as `nice` has it.
#[cfg(target_os = "linux")]
const COMPACTION_NICENESS: i32 = 10;

/// What there may be to do.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    flush: bool,
    compact: bool,
}

impl Wanted {
    pub(super) fn all() -> Self {
        Self { flush: true, compact: true }
    }
}

type Work = fn(&Arc<Shared>);

/// Starts the threads.
pub(super) fn spawn(shared: &Arc<Shared>) -> Result<Vec<JoinHandle<()>>> {
    let spawn = |name: &str, flag: fn(&mut Wanted) -> &mut bool, work: Work| {
        let shared = Arc::clone(shared);
        std::thread::Builder::new().name(name.to_owned()).spawn(move || run(&shared, flag, work))
    };
    Ok(vec![
        spawn("omendb-flush", |wanted| &mut wanted.flush, flush)?,
        spawn("omendb-compact", |wanted| &mut wanted.compact, compact)?,
    ])
}

fn run(shared: &Arc<Shared>, flag: fn(&mut Wanted) -> &mut bool, work: Work) {
    while !shared.closed.load(Ordering::Acquire) {
        // Each task catches its own panics; one elsewhere must not end the thread unnoticed either.
        if let Err(defect) = caught("work in the background", || work(shared)) {
            shared.committer.fail(defect.message());
        }
        if shared.committer.failed().is_some() {
            return;
        }
        let mut wanted = shared.wanted.lock();
        if !*flag(&mut wanted) {
            shared.wake.wait_for(&mut wanted, shared.options.background_interval);
        }
        *flag(&mut wanted) = false;
    }
}

/// Flushes sealed memtables, and takes a checkpoint when the log is long.
fn flush(shared: &Arc<Shared>) {
    let attempt = |table, task, work: &dyn Fn() -> Result<()>| {
        shared.upkeep.attempt(table, task, shared.options.background_interval, work).is_some()
    };
    loop {
        let sealed: Vec<TableId> = {
            let root = shared.root.load();
            shared.upkeep.retain(|table| root.tables.get(&table).is_some());
            let tables = root.tables.iter().filter(|(_, t)| t.memtables.len() > 1);
            tables.map(|(id, _)| *id).collect()
        };
        let mut flushed = false;
        for table in &sealed {
            flushed |=
                attempt(Some(*table), Task::Flush, &|| maintenance::flush(shared, *table, false));
        }
        attempt(None, Task::Checkpoint, &|| checkpoint::checkpoint_if_long(shared));
        attempt(None, Task::Remove, &|| shared.collect_garbage());
        if shared.closed.load(Ordering::Acquire) || !flushed {
            return;
        }
    }
}

/// Compacts until nothing asks for it.
fn compact(shared: &Arc<Shared>) {
    give_way(COMPACTION_NICENESS);
    let mut done = true;
    while done && !shared.closed.load(Ordering::Acquire) {
        done = false;
        let tables: Vec<TableId> = shared.root.load().tables.keys().copied().collect();
        for table in tables {
            let pause = shared.options.background_interval;
            let step = || maintenance::compact_step(shared, table);
            done |= shared.upkeep.attempt(Some(table), Task::Compact, pause, step) == Some(true);
        }
        let remove = || shared.collect_garbage();
        shared.upkeep.attempt(None, Task::Remove, shared.options.background_interval, remove);
    }
}

/// Lowers the priority of this thread, and of those that it starts, as `nice` has it.
pub(crate) fn give_way(niceness: i32) {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: it takes integers and touches no memory. On Linux, process 0 means the calling thread.
        let refused = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, niceness) } != 0;
        if refused {
            let e = std::io::Error::last_os_error();
            tracing::debug!("a thread runs at full priority: {e}");
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = niceness;
}
