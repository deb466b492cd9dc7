//! Panics in the log. Those that a statement causes are caught and answered; a statement that is sent again and again must not
//! fill the log with them.

use std::collections::HashMap;
use std::panic::{PanicHookInfo, set_hook};
use std::sync::Arc;

use parking_lot::Mutex;

/// Places in the code that are counted apart.
const MOST_PLACES: usize = 1000;

/// How often each place has panicked.
#[derive(Debug, Default)]
struct Counts(Mutex<HashMap<String, u64>>);

impl Counts {
    /// Counts a panic; says how many that were at this place, where it is worth a line: the first, the second, the fourth and
    /// so on.
    fn add(&self, place: &str) -> Option<u64> {
        let mut counts = self.0.lock();
        let place = if counts.len() < MOST_PLACES { place } else { "elsewhere" };
        let count = counts.entry(place.to_owned()).or_default();
        *count += 1;
        count.is_power_of_two().then_some(*count)
    }
}

/// Logs panics as a line each, and those of one place more and more rarely.
pub fn log_panics() {
    let counts = Arc::new(Counts::default());
    set_hook(Box::new(move |panic: &PanicHookInfo<'_>| {
        let place = panic.location().map_or_else(|| "?".to_owned(), ToString::to_string);
        if let Some(count) = counts.add(&place) {
            let message = panic.payload_as_str().unwrap_or("no message");
            let thread = std::thread::current();
            let thread = thread.name().unwrap_or("?");
            tracing::error!(place, count, thread, "panic: {message}");
        }
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_told_of_more_and_more_rarely() {
        let counts = Counts::default();
        let told = (0..100).filter(|_| counts.add("a.rs:1").is_some()).count();
        assert_eq!(told, 7);
        assert_eq!(counts.add("b.rs:1"), Some(1));
    }
}
