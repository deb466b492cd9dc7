//! Threads with large stacks for planning and for statements that block: parsers and planners recurse as deep as a statement
//! nests. Threads are made when no idle one is left, and end when they have been idle for a while.

use std::any::Any;
use std::cell::Cell;
use std::collections::VecDeque;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::error::{Error, Result};
use super::planning::{self, Watch};
use crate::engine;

/// Stack of a worker, in bytes. Reserved, not used, until a statement is that deep: a level of a syntax tree takes up to 4 KiB to
/// copy, and several times that without optimization.
pub(super) const STACK_BYTES: usize = 64 << 20;

const IDLE: Duration = Duration::from_secs(10);

type Job = Box<dyn FnOnce() + Send>;

/// The threads. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Workers {
    shared: Arc<Shared>,
    runtime: Handle,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    idle_count: usize,
}

impl std::fmt::Debug for Workers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Workers")
    }
}

impl Workers {
    /// Threads that work inside `runtime`.
    pub(crate) fn new(runtime: Handle) -> Self {
        Self { shared: Arc::default(), runtime }
    }

    /// The runtime that they work inside.
    pub(crate) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Runs `work` on a thread of its own, inside the queries' runtime; a panic becomes an internal
    /// error. Once begun, it runs to its end though the caller be dropped; only planning ends early then.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (sender, receiver) = oneshot::channel();
        let runtime = self.runtime.clone();
        let watch = Watch::default();
        let flag = watch.flag();
        self.submit(Box::new(move || {
            let _entered = runtime.enter();
            let result = planning::watched(flag, || caught(work));
            // The receiver is gone where the caller was cancelled.
            let _ = sender.send(result);
        }))?;
        let result = receiver.await;
        drop(watch);
        result.map_err(|_| Error::internal("a worker thread ended before its work"))?
    }

    fn submit(&self, job: Job) -> Result<()> {
        let mut state = self.shared.state.lock();
        if state.idle_count > state.jobs.len() {
            state.jobs.push_back(job);
            self.shared.wake.notify_one();
            return Ok(());
        }
        drop(state);
        let shared = Arc::clone(&self.shared);
        std::thread::Builder::new()
            .name("omendb-sql".into())
            .stack_size(STACK_BYTES)
            .spawn(move || shared.work(job))
            .map_err(|e| engine::Error::exhausted(format!("cannot start a thread: {e}")))?;
        Ok(())
    }
}

thread_local! {
    static HAS_LARGE_STACK: Cell<bool> = const { Cell::new(false) };
}

/// Drops a deep tree where there is room for it.
pub(super) fn drop_on_large_stack<T: Send + 'static>(tree: T) {
    if HAS_LARGE_STACK.get() {
        return drop(tree);
    }
    // Without a thread it is better never freed than dropped here.
    let tree = ManuallyDrop::new(tree);
    let thread = std::thread::Builder::new().name("omendb-drop".into()).stack_size(STACK_BYTES);
    let started = thread.spawn(move || {
        HAS_LARGE_STACK.set(true);
        drop(ManuallyDrop::into_inner(tree));
    });
    if let Err(error) = started {
        tracing::warn!("cannot start a thread: {error}");
    }
}

/// Does `work` on a large stack and waits for it.
#[cfg(test)]
pub(super) fn on_large_stack<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> std::thread::Result<T> {
    let work = move || {
        HAS_LARGE_STACK.set(true);
        work()
    };
    std::thread::Builder::new().stack_size(STACK_BYTES).spawn(work).unwrap().join()
}

impl Shared {
    fn work(&self, first: Job) {
        HAS_LARGE_STACK.set(true);
        first();
        loop {
            let mut state = self.state.lock();
            state.idle_count += 1;
            while state.jobs.is_empty() {
                if self.wake.wait_for(&mut state, IDLE).timed_out() && state.jobs.is_empty() {
                    state.idle_count -= 1;
                    return;
                }
            }
            state.idle_count -= 1;
            let job = state.jobs.pop_front();
            drop(state);
            if let Some(job) = job {
                job();
            }
        }
    }
}

/// Does `work`; a panic becomes an internal error.
pub(crate) fn caught<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(panic_error(panic.as_ref())))
}

/// The error for a panic that was caught.
pub(crate) fn panic_error(panic: &(dyn Any + Send)) -> Error {
    let message = panic
        .downcast_ref::<&str>()
        .map(|s| (*s).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned());
    Error::internal(format!("a defect stopped the statement: {message}"))
}
