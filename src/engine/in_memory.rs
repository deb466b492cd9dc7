//! Work that must not wait for a file, as on a thread that serves connections.

use std::cell::Cell;

use super::error::{Error, Result};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// Files may be read.
    Free,
    /// They may not.
    MemoryOnly,
    /// One would have been.
    Refused,
}

thread_local! {
    static SCOPE: Cell<Scope> = const { Cell::new(Scope::Free) };
}

/// Sets the thread free again, however the work ends.
struct Reset;

impl Drop for Reset {
    fn drop(&mut self) {
        SCOPE.set(Scope::Free);
    }
}

/// Does `work` with what is in memory; `None` where it needed a file, or something that another thread is reading from one: the
/// caller does it again where it may wait. Work may be repeated, so it must change nothing.
pub fn in_memory<T>(work: impl FnOnce() -> T) -> Option<T> {
    let reset = Reset;
    SCOPE.set(Scope::MemoryOnly);
    let result = work();
    let complete = SCOPE.get() == Scope::MemoryOnly;
    drop(reset);
    complete.then_some(result)
}

/// Must be called before a file of a segment is read: an error inside [`in_memory`].
pub(super) fn check_may_read() -> Result<()> {
    if SCOPE.get() == Scope::Free {
        return Ok(());
    }
    SCOPE.set(Scope::Refused);
    Err(Error::internal("what is not in memory was read where no file may be"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_that_would_read_is_given_up_and_the_thread_set_free() {
        assert_eq!(in_memory(|| 7), Some(7));
        // A refusal counts even where the work goes on without what it wanted.
        assert_eq!(in_memory(|| check_may_read().is_err()), None);
        assert!(check_may_read().is_ok());
        let panicked = std::panic::catch_unwind(|| in_memory(|| panic!("a defect")));
        assert!(panicked.is_err() && check_may_read().is_ok());
    }
}
