//! Threads that run plans. Each running statement has a runtime of its own as long as there are enough: a plan that computes for
//! seconds without giving way keeps only its own threads, and the operating system shares the processors out among all of them.
//! It lets what is short go first: threads of plans have a lower priority than those that plan, read by the key and serve calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle, Runtime};

use super::error::Result;
use crate::engine;

/// Stack of a thread that runs queries, in bytes: expressions are evaluated as deep as they nest.
const STACK_BYTES: usize = 64 << 20;

/// Runtimes at most; beyond that, statements share those with the least to do.
const MAX_RUNTIMES: usize = 32;

/// How much of the processor plans leave to what is short, as `nice` has it; compaction leaves more.
const NICENESS: i32 = 9;

/// Threads of all of them at most, as long as each has one.
const MAX_THREADS: usize = 512;

/// The runtimes. Made as they are needed, and kept.
#[derive(Debug)]
pub(crate) struct Runtimes {
    /// For what is short: it drives nothing that computes for long.
    common: Option<Runtime>,
    common_handle: Handle,
    own: Mutex<Vec<Own>>,
}

#[derive(Debug)]
struct Own {
    runtime: Runtime,
    leases: Arc<AtomicUsize>,
}

impl Own {
    /// Statements that it runs, and tasks that have not ended yet, though their statement may have.
    fn load(&self) -> usize {
        self.leases.load(Ordering::Acquire) + self.runtime.handle().metrics().num_alive_tasks()
    }
}

/// A runtime for one statement, until it is dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    handle: Handle,
    leases: Arc<AtomicUsize>,
}

impl Lease {
    /// The runtime.
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.leases.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for Runtimes {
    fn drop(&mut self) {
        // The last handle may be dropped on an async thread, which must not wait.
        let own = self.own.get_mut().drain(..).map(|own| own.runtime);
        own.chain(self.common.take()).for_each(Runtime::shutdown_background);
    }
}

impl Runtimes {
    /// With the common runtime alone.
    pub(crate) fn new() -> Result<Self> {
        let common = runtime("omendb-common", threads(), 0)?;
        let common_handle = common.handle().clone();
        Ok(Self { common: Some(common), common_handle, own: Mutex::default() })
    }

    /// The common runtime.
    pub(crate) fn common(&self) -> &Handle {
        &self.common_handle
    }

    /// A runtime for one statement: one that has nothing to do, where there can be one.
    pub(crate) fn lease(&self) -> Result<Lease> {
        let mut own = self.own.lock();
        let idlest = own.iter().map(Own::load).enumerate().min_by_key(|(_, load)| *load);
        let most = MAX_RUNTIMES.min((MAX_THREADS / threads()).max(4));
        let chosen = match idlest {
            Some((at, 0)) => at,
            Some((at, _)) if own.len() >= most => at,
            _ => {
                let runtime = runtime("omendb-query", threads(), NICENESS)?;
                own.push(Own { runtime, leases: Arc::default() });
                own.len() - 1
            }
        };
        let Own { runtime, leases } = &own[chosen];
        leases.fetch_add(1, Ordering::AcqRel);
        Ok(Lease { handle: runtime.handle().clone(), leases: Arc::clone(leases) })
    }
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}

fn runtime(name: &str, threads: usize, niceness: i32) -> Result<Runtime> {
    let begin = move || {
        if niceness > 0 {
            engine::background::give_way(niceness);
        }
    };
    Ok(Builder::new_multi_thread()
        .on_thread_start(begin)
        .thread_name(name)
        .worker_threads(threads)
        .thread_stack_size(STACK_BYTES)
        .enable_time()
        .build()
        .map_err(engine::Error::from)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_gets_a_runtime_that_nothing_keeps_busy() {
        let runtimes = Runtimes::new().unwrap();
        let (first, second) = (runtimes.lease().unwrap(), runtimes.lease().unwrap());
        assert_ne!(first.handle().id(), second.handle().id());
        let busy = first.handle().id();
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        let task = first.handle().spawn(async move { receiver.recv().is_err() });
        drop(first);
        drop(second);
        // What was given back is used again, unless something of it still runs.
        assert_ne!(runtimes.lease().unwrap().handle().id(), busy);
        assert_eq!(runtimes.own.lock().len(), 2);
        drop(sender);
        assert!(futures::executor::block_on(task).unwrap());
    }
}
