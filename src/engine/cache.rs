//! One cache under one byte budget for decoded columns, keys and footers.

use super::id::SegmentId;

/// A cache of immutable values, evicted by use; one scan does not push out what is used often.
#[derive(Debug)]
pub struct Cache {}

impl Cache {
    /// A cache of at most `budget_bytes`.
    pub fn new(_budget_bytes: usize) -> Self {
        todo!()
    }

    /// Bytes held now.
    pub fn used_bytes(&self) -> usize {
        todo!()
    }

    /// Forgets all that belongs to a segment.
    pub fn remove_segment(&self, _segment: SegmentId) {
        todo!()
    }
}
