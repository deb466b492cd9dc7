//! The thread that flushes, compacts, checkpoints and removes what nobody needs.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use super::Shared;
use super::error::Result;
use super::id::TableId;
use super::{checkpoint, maintenance};

/// Starts the thread.
pub(super) fn spawn(shared: &Arc<Shared>) -> Result<JoinHandle<()>> {
    let shared = Arc::clone(shared);
    Ok(std::thread::Builder::new()
        .name("omendb-background".to_owned())
        .spawn(move || run(&shared))?)
}

fn run(shared: &Arc<Shared>) {
    while !shared.closed.load(Ordering::Acquire) {
        if let Err(e) = work(shared) {
            if shared.committer.failed().is_some() {
                return;
            }
            tracing::error!(error = %e, "flush, compaction or checkpoint failed; it will be tried again");
            std::thread::sleep(shared.options.background_interval);
        }
        let mut work = shared.work.lock();
        if !*work {
            shared.wake.wait_for(&mut work, shared.options.background_interval);
        }
        *work = false;
    }
}

/// Does what there is to do.
fn work(shared: &Arc<Shared>) -> Result<()> {
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
        if shared.closed.load(Ordering::Acquire)
            || (sealed.is_empty() && !maintenance::compact_step(shared)?)
        {
            return Ok(());
        }
    }
}
