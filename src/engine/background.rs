//! The threads that work unasked: one flushes, takes checkpoints and removes what nobody needs, and one compacts. Writers wait for
//! the first when they are far ahead, so it never waits for the second, which gives way to everybody.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use super::Shared;
use super::error::Result;
use super::id::TableId;
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

type Work = fn(&Arc<Shared>) -> Result<()>;

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
        if let Err(e) = work(shared) {
            if shared.committer.failed().is_some() || shared.closed.load(Ordering::Acquire) {
                return;
            }
            tracing::error!(error = %e, "work in the background failed; it will be tried again");
            std::thread::sleep(shared.options.background_interval);
        }
        let mut wanted = shared.wanted.lock();
        if !*flag(&mut wanted) {
            shared.wake.wait_for(&mut wanted, shared.options.background_interval);
        }
        *flag(&mut wanted) = false;
    }
}

/// Flushes sealed memtables, and takes a checkpoint when the log is long.
fn flush(shared: &Arc<Shared>) -> Result<()> {
    loop {
        let sealed: Vec<TableId> = {
            let root = shared.root.load();
            let tables = root.tables.iter().filter(|(_, t)| t.memtables.len() > 1);
            tables.map(|(id, _)| *id).collect()
        };
        for table in &sealed {
            maintenance::flush(shared, *table, false)?;
        }
        if shared.wal.lock().len_bytes() > shared.options.wal_bytes {
            checkpoint::checkpoint(shared)?;
        }
        shared.collect_garbage()?;
        if shared.closed.load(Ordering::Acquire) || sealed.is_empty() {
            return Ok(());
        }
    }
}

/// Compacts until nothing asks for it.
fn compact(shared: &Arc<Shared>) -> Result<()> {
    give_way();
    while !shared.closed.load(Ordering::Acquire) && maintenance::compact_step(shared)? {
        shared.collect_garbage()?;
    }
    Ok(())
}

/// Lowers the priority of this thread, and of those that it starts.
fn give_way() {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: it takes integers and touches no memory. On Linux, process 0 means the calling thread.
        let refused = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, COMPACTION_NICENESS) } != 0;
        if refused {
            let e = std::io::Error::last_os_error();
            tracing::debug!("compaction runs at full priority: {e}");
        }
    }
}
