//! What became of maintenance: a task that fails is tried again later and later, keeps no other from its turn, and tells why.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::error::{Error, ErrorKind, Result};
use super::id::TableId;

/// The longest time between two tries of a task that fails.
const LONGEST: Duration = Duration::from_secs(60);

/// What is done unasked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Task {
    /// Memtables of a table become segments.
    Flush,
    /// Segments of a table are merged.
    Compact,
    /// The log is shortened by a checkpoint.
    Checkpoint,
    /// Files that nobody needs are removed.
    Remove,
}

impl Task {
    /// Its name, as `omendb.tables` and the log show it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Flush => "flush",
            Self::Compact => "compaction",
            Self::Checkpoint => "checkpoint",
            Self::Remove => "removal of files",
        }
    }
}

/// A task that fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailingTask {
    /// The table that it concerns; none where it concerns them all.
    pub table: Option<TableId>,
    /// What fails.
    pub task: Task,
    /// Why, the last time.
    pub error: String,
    /// How often in a row.
    pub attempts: u32,
}

#[derive(Debug)]
struct Failure {
    error: String,
    attempts: u32,
    retry_at: Instant,
}

/// Tasks that fail.
#[derive(Debug, Default)]
pub(super) struct Upkeep {
    failing: Mutex<BTreeMap<(Option<TableId>, Task), Failure>>,
}

impl Upkeep {
    /// Does `work`, unless it has failed and its time has not come; notes what becomes of it. Says whether it was done.
    pub(super) fn attempt<T>(
        &self,
        table: Option<TableId>,
        task: Task,
        pause: Duration,
        work: impl FnOnce() -> Result<T>,
    ) -> Option<T> {
        let waits = |failure: &Failure| failure.retry_at > Instant::now();
        if self.failing.lock().get(&(table, task)).is_some_and(waits) {
            return None;
        }
        match work() {
            Ok(done) => {
                if self.failing.lock().remove(&(table, task)).is_some() {
                    tracing::info!(
                        task = task.name(),
                        table = table.map(|t| t.0),
                        "succeeds again"
                    );
                }
                Some(done)
            }
            // Nothing fails where the database is closed meanwhile.
            Err(e) if e.kind() == ErrorKind::Closed => None,
            Err(e) => {
                self.note(table, task, pause, &e);
                None
            }
        }
    }

    fn note(&self, table: Option<TableId>, task: Task, pause: Duration, error: &Error) {
        let mut failing = self.failing.lock();
        let attempts = failing.get(&(table, task)).map_or(0, |f| f.attempts).saturating_add(1);
        let pause = pause.saturating_mul(1 << attempts.min(16)).clamp(pause, LONGEST.max(pause));
        let retry_at = Instant::now() + pause;
        tracing::error!(
            task = task.name(),
            table = table.map(|t| t.0),
            attempts,
            %error,
            "work in the background failed; it is tried again in {pause:?}"
        );
        failing.insert((table, task), Failure { error: error.to_string(), attempts, retry_at });
    }

    /// Forgets what concerns tables that are gone.
    pub(super) fn retain(&self, is_there: impl Fn(TableId) -> bool) {
        self.failing.lock().retain(|(table, _), _| table.is_none_or(&is_there));
    }

    /// What fails at present.
    pub(super) fn failing(&self) -> Vec<FailingTask> {
        let failing = self.failing.lock();
        let task = |((table, task), failure): (&(Option<TableId>, Task), &Failure)| FailingTask {
            table: *table,
            task: *task,
            error: failure.error.clone(),
            attempts: failure.attempts,
        };
        failing.iter().map(task).collect()
    }

    /// Why the flush of one of these tables fails, if one does.
    pub(super) fn flush_error(&self, tables: impl IntoIterator<Item = TableId>) -> Option<String> {
        let failing = self.failing.lock();
        tables.into_iter().find_map(|t| Some(failing.get(&(Some(t), Task::Flush))?.error.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_waits_longer_each_time_and_is_told() {
        let upkeep = Upkeep::default();
        let fail = |pause| {
            let work = || Err::<(), _>(Error::internal("no luck"));
            upkeep.attempt(Some(TableId(1)), Task::Flush, pause, work)
        };
        assert!(fail(Duration::ZERO).is_none());
        assert!(fail(Duration::from_secs(5)).is_none());
        let failing = upkeep.failing();
        assert_eq!((failing.len(), failing[0].attempts), (1, 2));
        assert!(failing[0].error.contains("no luck"));
        let all = Duration::ZERO;
        let done = |table| upkeep.attempt(Some(TableId(table)), Task::Flush, all, || Ok(()));
        assert!(done(1).is_none(), "its time has not come");
        assert!(done(2).is_some(), "another table has nothing to do with it");
        assert_eq!(upkeep.flush_error([TableId(2)]), None);
        assert!(upkeep.flush_error([TableId(2), TableId(1)]).is_some());
        upkeep.retain(|table| table != TableId(1));
        assert!(upkeep.failing().is_empty());
    }

    #[test]
    fn what_succeeds_again_is_forgotten() {
        let upkeep = Upkeep::default();
        let fail = || Err::<(), _>(Error::internal("once"));
        assert!(upkeep.attempt(None, Task::Checkpoint, Duration::ZERO, fail).is_none());
        assert!(upkeep.attempt(None, Task::Checkpoint, Duration::ZERO, || Ok(())).is_some());
        assert!(upkeep.failing().is_empty());
    }
}
