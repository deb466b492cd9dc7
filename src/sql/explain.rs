//! How key ranges are read, in words: segments touched, predicted and exact positions, rows.

use std::fmt::Write;

use crate::engine::{KeyRange, Result, TableSnapshot};

/// Segments named one by one at most.
const MAX_SEGMENTS: usize = 8;

/// One line on how `ranges` of a table are read.
pub(crate) fn summary(table: &TableSnapshot, ranges: &[&KeyRange]) -> Result<String> {
    let mut rows = 0;
    let mut memtable_rows = 0;
    let mut segment_count = table.segments().len();
    let mut touched = std::collections::BTreeSet::new();
    let mut places = String::new();
    let mut named = 0;
    for range in ranges {
        let explained = table.explain(range)?;
        rows += explained.row_count;
        memtable_rows += explained.memtable_rows;
        segment_count = explained.segment_count;
        for segment in &explained.segments {
            touched.insert(segment.segment);
            named += 1;
            if named > MAX_SEGMENTS {
                continue;
            }
            if !places.is_empty() {
                places.push_str("; ");
            }
            let positions = &segment.positions;
            // Writing to a string cannot fail.
            let _ = match segment.predicted {
                Some(predicted) => write!(
                    places,
                    "{}: predicted {predicted}, exact {}..{}",
                    segment.segment, positions.start, positions.end
                ),
                None => {
                    write!(
                        places,
                        "{}: exact {}..{}",
                        segment.segment, positions.start, positions.end
                    )
                }
            };
        }
    }
    if named > MAX_SEGMENTS {
        let _ = write!(places, "; {} more", named - MAX_SEGMENTS);
    }
    let kind = if table.meta().key.is_empty() { "row id" } else { "key" };
    Ok(format!(
        "{kind} ranges={}, rows={rows}, segments={} of {segment_count}, positions=[{places}], memtable rows={memtable_rows}",
        ranges.len(),
        touched.len(),
    ))
}
