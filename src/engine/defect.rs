//! Defects: a panic is caught where a thread or a lock would otherwise be lost with it, and becomes an error.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::error::Error;

/// Does `work`. A panic becomes an error of kind [`Internal`](super::ErrorKind::Internal) that says `what` it stopped; the state
/// that `work` was given must be one that the caller can go on with.
pub(super) fn caught<T>(what: &str, work: impl FnOnce() -> T) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let message = message(panic.as_ref());
        tracing::error!("a defect stopped {what}: {message}");
        Error::internal(format!("a defect stopped {what}: {message}"))
    })
}

/// What a panic says.
fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
