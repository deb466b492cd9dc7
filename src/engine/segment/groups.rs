//! Where row groups end. All groups of a segment but the last have the same number of rows, and none takes more than can be held:
//! a group is decoded into one array a column, whose 32-bit offsets end at 2 GiB.

use arrow::array::{ArrayRef, RecordBatch};

use crate::engine::size::written_bytes;

/// A segment of smaller row groups than usual has so many at most.
const MOST_GROUPS: usize = 64;
/// Groups after the first may take so many times what that may.
const SLACK: u64 = 4;

/// Counts the rows of a segment's groups. The first group decides how many each has: as many as are wanted, or fewer if these
/// take too much room. A later group that would take much more ends the segment.
#[derive(Debug)]
pub(super) struct GroupPlan {
    wanted_rows: usize,
    most_bytes: u64,
    /// Rows of a group, once the first is complete.
    rows: Option<usize>,
    /// Complete groups.
    count: usize,
    /// Rows and bytes of the group in progress.
    in_group: usize,
    group_bytes: u64,
}

impl GroupPlan {
    pub(super) fn new(wanted_rows: usize, most_bytes: u64) -> Self {
        Self { wanted_rows, most_bytes, rows: None, count: 0, in_group: 0, group_bytes: 0 }
    }

    /// Rows of a group, as far as that is known.
    pub(super) fn group_rows(&self) -> usize {
        self.rows.unwrap_or(self.wanted_rows)
    }

    /// How many of the first rows of `batch` the segment takes. Where these are not all, it is complete with them.
    pub(super) fn take(&mut self, batch: &RecordBatch) -> usize {
        let mut taken = 0;
        while taken < batch.num_rows() {
            if self.in_group == 0
                && self.count >= MOST_GROUPS
                && self.group_rows() < self.wanted_rows
            {
                return taken;
            }
            let room = (self.group_rows() - self.in_group).min(batch.num_rows() - taken);
            let most = self.most_bytes.saturating_mul(if self.rows.is_some() { SLACK } else { 1 });
            let left = most.saturating_sub(self.group_bytes);
            let (mut fitting, mut bytes) = fitting(batch, taken, room, left);
            if fitting == 0 && self.in_group == 0 {
                // One row is always taken.
                (fitting, bytes) = (1, slice_bytes(batch, taken, 1));
            }
            taken += fitting;
            self.in_group += fitting;
            self.group_bytes = self.group_bytes.saturating_add(bytes);
            if fitting < room && self.rows.is_some() {
                return taken;
            }
            if fitting < room || self.in_group == self.group_rows() {
                self.rows = Some(self.in_group);
                self.count += 1;
                (self.in_group, self.group_bytes) = (0, 0);
            }
        }
        taken
    }
}

/// How many rows from `start` on, of `room` at most, take no more than `bytes`, and what they take.
fn fitting(batch: &RecordBatch, start: usize, room: usize, bytes: u64) -> (usize, u64) {
    let of = |rows: usize| slice_bytes(batch, start, rows);
    let all = of(room);
    if all <= bytes {
        return (room, all);
    }
    let (mut fits, mut fails) = (0, room);
    while fits + 1 < fails {
        let middle = fits + (fails - fits) / 2;
        if of(middle) <= bytes { fits = middle } else { fails = middle }
    }
    (fits, of(fits))
}

fn slice_bytes(batch: &RecordBatch, start: usize, rows: usize) -> u64 {
    let of = |column: &ArrayRef| written_bytes(column.slice(start, rows).as_ref());
    batch.columns().iter().map(of).fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use arrow::array::StringArray;

    fn texts(lengths: &[usize]) -> RecordBatch {
        let texts = lengths.iter().map(|length| "x".repeat(*length));
        let column: ArrayRef = Arc::new(StringArray::from_iter_values(texts));
        RecordBatch::try_from_iter([("t", column)]).unwrap()
    }

    #[test]
    fn small_rows_make_groups_of_the_wanted_size() {
        let mut plan = GroupPlan::new(10, 1000);
        assert_eq!(plan.take(&texts(&[6; 35])), 35);
        assert_eq!((plan.group_rows(), plan.count, plan.in_group), (10, 3, 5));
    }

    #[test]
    fn large_rows_make_smaller_groups() {
        let mut plan = GroupPlan::new(10, 1000);
        assert_eq!(plan.take(&texts(&[196; 12])), 12);
        assert_eq!((plan.group_rows(), plan.count, plan.in_group), (5, 2, 2));
        // Smaller rows do not change that any more.
        assert_eq!(plan.take(&texts(&[1; 4])), 4);
        assert_eq!((plan.group_rows(), plan.count, plan.in_group), (5, 3, 1));
    }

    #[test]
    fn much_larger_rows_later_on_end_the_segment() {
        let mut plan = GroupPlan::new(10, 1000);
        assert_eq!(plan.take(&texts(&[6; 10])), 10);
        assert_eq!(plan.take(&texts(&[996; 10])), 4);
        let mut next = GroupPlan::new(10, 1000);
        assert_eq!(next.take(&texts(&[996; 6])), 6);
        assert_eq!(next.group_rows(), 1);
    }

    #[test]
    fn a_row_that_is_too_large_alone_is_a_group_and_there_are_not_too_many() {
        let mut plan = GroupPlan::new(10, 1000);
        assert_eq!(plan.take(&texts(&[5000])), 1);
        assert_eq!(plan.take(&texts(&[1; 100])), MOST_GROUPS - 1);
        assert_eq!((plan.group_rows(), plan.count), (1, MOST_GROUPS));
    }
}
