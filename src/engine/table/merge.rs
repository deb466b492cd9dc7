//! Reads live rows of several sorted sources in key order. One source alone passes its columns on as
//! slices; where sources overlap, stretches of rows are found by galloping from the head of one to the
//! head of the next, and gathered.

use std::cmp::Ordering;
use std::ops::Range;

use arrow::array::{ArrayRef, BinaryBuilder, UInt64Array, new_null_array};
use arrow::datatypes::DataType;

use super::source::SourceState;
use crate::engine::error::{Error, Result};
use crate::engine::id::FieldId;
use crate::engine::key::{self, EncodedKey, KeyColumn};
use crate::engine::size::written_bytes;

/// Rows of the window of keys that a merge holds of each source.
const WINDOW_ROWS: u64 = 16 * 1024;

/// What the values of a batch of a merge take, about: where they take more, it has fewer rows.
const BATCH_BYTES: usize = 256 << 20;

/// Rows of a file that are read by their pages where they are not in memory.
const FEW_ROWS: usize = 32;

/// A stretch of one source.
#[derive(Debug, Clone)]
pub(crate) struct Input {
    pub(crate) state: SourceState,
    /// The source's ordinal in its table snapshot, for row addresses.
    pub(crate) ordinal: u32,
    pub(crate) positions: Range<u64>,
}

impl Input {
    pub(crate) fn live_count(&self) -> u64 {
        self.state.live_in(&self.positions)
    }

    /// The key of a row, and its row id where keys repeat: what rows are ordered by.
    pub(crate) fn key_at(&self, position: u64, repeats: bool) -> Result<(EncodedKey, Option<u64>)> {
        let rows = position..position + 1;
        let row_id = match repeats {
            true => Some(self.state.source.row_ids(rows.clone())?.value(0)),
            false => None,
        };
        Ok((self.state.source.keys(rows)?.get(0), row_id))
    }
}

/// A column to read.
#[derive(Debug, Clone)]
pub(crate) enum Output {
    /// A stored column: rows of sources without it have the `initial` value, or NULL.
    Field { id: FieldId, data_type: DataType, initial: Option<ArrayRef> },
    /// The row's address in the snapshot.
    RowAddress,
}

impl Output {
    /// The field that it is, if it is one.
    pub(crate) fn field(&self) -> Option<FieldId> {
        match self {
            Self::Field { id, .. } => Some(*id),
            Self::RowAddress => None,
        }
    }

    /// The `column` that a source has of it, or where it is older than that, what its rows have instead.
    pub(crate) fn or_initial(&self, column: Option<ArrayRef>, rows: usize) -> Result<ArrayRef> {
        match (self, column) {
            (_, Some(column)) => Ok(column),
            (Self::Field { data_type, initial, .. }, None) => {
                initial_column(data_type, initial.as_ref(), rows)
            }
            (Self::RowAddress, None) => Err(Error::internal("row addresses are not stored")),
        }
    }
}

/// What is read, from every source alike.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub(crate) outputs: Vec<Output>,
    /// Whether keys repeat, so that row ids decide between equal ones.
    pub(crate) repeats: bool,
    /// Whether batches come with their keys.
    pub(crate) with_keys: bool,
}

/// Some rows in key order.
#[derive(Debug)]
pub(crate) struct Rows {
    pub(crate) columns: Vec<ArrayRef>,
    pub(crate) keys: Option<KeyColumn>,
    pub(crate) row_count: usize,
}

/// Columns of a stretch of rows in one block of a source. Few rows that are not in memory cost their pages, not whole
/// row groups.
pub(crate) fn read_columns(
    input: &Input,
    rows: &Range<u64>,
    outputs: &[Output],
) -> Result<Vec<ArrayRef>> {
    let len = (rows.end - rows.start) as usize;
    let source = &input.state.source;
    let mut few = match len <= FEW_ROWS && source.is_file() {
        true => {
            let fields = outputs.iter().filter_map(Output::field).collect::<Vec<_>>();
            let positions: Vec<u32> = rows.clone().map(|row| row as u32).collect();
            Some(source.take(&fields, &positions)?.into_iter())
        }
        false => None,
    };
    outputs
        .iter()
        .map(|output| match output {
            Output::Field { id, .. } => {
                let column = match &mut few {
                    Some(columns) => columns.next().flatten(),
                    None => source.column(*id, rows.clone())?,
                };
                output.or_initial(column, len)
            }
            Output::RowAddress => {
                let high = u64::from(input.ordinal) << 32;
                Ok(std::sync::Arc::new(UInt64Array::from_iter_values(
                    rows.clone().map(|p| high | p),
                )) as ArrayRef)
            }
        })
        .collect()
}

/// The column of rows that are older than it.
fn initial_column(
    data_type: &DataType,
    initial: Option<&ArrayRef>,
    len: usize,
) -> Result<ArrayRef> {
    match initial {
        None => Ok(new_null_array(data_type, len)),
        Some(value) => {
            let indices = UInt64Array::from_value(0, len);
            Ok(arrow::compute::take(value, &indices, None)?)
        }
    }
}

/// Reads the live rows of `inputs` in key order.
#[derive(Debug)]
pub(crate) struct Reader {
    layout: Layout,
    batch_rows: usize,
    state: State,
}

#[derive(Debug)]
enum State {
    /// One source: its position.
    Single { input: Input, at: u64 },
    /// Several: their cursors, the one with the least head last.
    Merge(Vec<Cursor>),
}

impl Reader {
    pub(crate) fn new(mut inputs: Vec<Input>, layout: Layout, batch_rows: usize) -> Result<Self> {
        inputs.retain(|i| i.live_count() > 0);
        let state = match <[Input; 1]>::try_from(inputs) {
            Ok([input]) => State::Single { at: input.positions.start, input },
            Err(inputs) => {
                let mut cursors = Vec::with_capacity(inputs.len());
                for input in inputs {
                    let mut cursor = Cursor::new(input);
                    if cursor.fill(&layout)? {
                        cursors.push(cursor);
                    }
                }
                cursors.sort_by(|a, b| b.compare(a));
                State::Merge(cursors)
            }
        };
        Ok(Self { layout, batch_rows: batch_rows.max(1), state })
    }

    /// The next rows; `None` at the end. Never an empty batch.
    pub(crate) fn next(&mut self) -> Result<Option<Rows>> {
        match &mut self.state {
            State::Single { input, at } => next_single(input, at, &self.layout, self.batch_rows),
            State::Merge(cursors) => next_merged(cursors, &self.layout, self.batch_rows),
        }
    }
}

fn next_single(
    input: &Input,
    at: &mut u64,
    layout: &Layout,
    batch_rows: usize,
) -> Result<Option<Rows>> {
    while *at < input.positions.end {
        let block = input.state.source.block(*at);
        let end = (*at + batch_rows as u64).min(block.end).min(input.positions.end);
        let stretch = *at..end;
        *at = end;
        let live = input.state.deleted.live_ranges(stretch.start as u32..stretch.end as u32);
        let (Some(first), Some(last)) = (live.first(), live.last()) else { continue };
        let rows = u64::from(first.start)..u64::from(last.end);
        let mut columns = read_columns(input, &rows, &layout.outputs)?;
        let row_count = live.iter().map(|r| r.len()).sum();
        if live.len() > 1 {
            let mut builder = arrow::array::BooleanBufferBuilder::new(rows.end as usize);
            for range in &live {
                let gap = range.start as usize - first.start as usize - builder.len();
                builder.append_n(gap, false);
                builder.append_n(range.len(), true);
            }
            let filter = arrow::array::BooleanArray::new(builder.finish(), None);
            let filter = arrow::compute::FilterBuilder::new(&filter).optimize().build();
            for column in &mut columns {
                *column = filter.filter(column)?;
            }
        }
        let keys = if layout.with_keys {
            let all = input.state.source.keys(rows)?;
            let mut keys = KeyBuilder::like(&all);
            for range in &live {
                let from = (range.start - first.start) as usize;
                keys.extend(&all, from..from + range.len());
            }
            Some(keys.finish())
        } else {
            None
        };
        return Ok(Some(Rows { columns, keys, row_count }));
    }
    Ok(None)
}

/// A source in a merge: a window of its keys, and where its head is in it. Heads are live.
#[derive(Debug)]
struct Cursor {
    input: Input,
    /// Positions of the window.
    window: Range<u64>,
    /// Its keys, and row ids where keys repeat.
    keys: KeyColumn,
    row_ids: Option<UInt64Array>,
    /// The head, as an offset into the window.
    head: usize,
    /// The columns of the window, and their place in the batch being built.
    columns: Vec<ArrayRef>,
    /// What a row of the window takes on average, in bytes.
    row_bytes: usize,
    batch_slot: Option<usize>,
}

impl Cursor {
    fn new(input: Input) -> Self {
        let start = input.positions.start;
        Self {
            input,
            window: start..start,
            keys: KeyColumn::U64(Vec::new()),
            row_ids: None,
            head: 0,
            columns: Vec::new(),
            row_bytes: 1,
            batch_slot: None,
        }
    }

    /// Moves the head on to a live row, loading windows as needed. `false` at the end.
    fn fill(&mut self, layout: &Layout) -> Result<bool> {
        loop {
            let at = self.window.start + self.head as u64;
            if at < self.window.end {
                let live = self.input.state.deleted.live_ranges(at as u32..self.window.end as u32);
                if let Some(range) = live.first() {
                    self.head = (u64::from(range.start) - self.window.start) as usize;
                    return Ok(true);
                }
            }
            let start = self.window.end;
            if start >= self.input.positions.end {
                return Ok(false);
            }
            let source = &self.input.state.source;
            let end =
                (start + WINDOW_ROWS).min(source.block(start).end).min(self.input.positions.end);
            self.window = start..end;
            self.head = 0;
            self.batch_slot = None;
            if self.input.state.live_in(&self.window) == 0 {
                continue;
            }
            self.keys = source.keys(self.window.clone())?;
            self.row_ids =
                if layout.repeats { Some(source.row_ids(self.window.clone())?) } else { None };
            self.columns = read_columns(&self.input, &self.window, &layout.outputs)?;
            let bytes: u64 = self.columns.iter().map(|c| written_bytes(c.as_ref())).sum();
            self.row_bytes = (bytes / (end - start)).max(1) as usize;
        }
    }

    /// Compares the heads.
    fn compare(&self, other: &Self) -> Ordering {
        self.compare_at(self.head, other)
    }

    fn compare_at(&self, at: usize, other: &Self) -> Ordering {
        key::compare(&self.keys, at, &other.keys, other.head).then_with(|| {
            match (&self.row_ids, &other.row_ids) {
                (Some(a), Some(b)) => a.value(at).cmp(&b.value(other.head)),
                _ => Ordering::Equal,
            }
        })
    }

    /// The end of the stretch from the head on that is not after the head of `next`.
    fn stretch_end(&self, next: Option<&Self>, most: usize) -> usize {
        let limit = (self.window.end - self.window.start) as usize;
        let limit = limit.min(self.head.saturating_add(most));
        let Some(next) = next else { return limit };
        // Gallop: in random data the stretch is a row or two.
        let (mut low, mut step) = (self.head + 1, 1);
        let mut high = low;
        while high < limit && self.compare_at(high, next) != Ordering::Greater {
            low = high + 1;
            high += step;
            step *= 2;
        }
        high = high.min(limit);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.compare_at(middle, next) == Ordering::Greater {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        low
    }
}

/// A batch in the making: windows' columns, and the stretches of them in order.
#[derive(Default)]
struct Gather {
    windows: Vec<Vec<ArrayRef>>,
    stretches: Vec<(usize, Range<usize>)>,
    row_count: usize,
    bytes: usize,
}

fn next_merged(
    cursors: &mut Vec<Cursor>,
    layout: &Layout,
    batch_rows: usize,
) -> Result<Option<Rows>> {
    let mut gather = Gather::default();
    let mut keys: Option<KeyBuilder> = None;
    for cursor in cursors.iter_mut() {
        cursor.batch_slot = None;
    }
    while gather.row_count < batch_rows && gather.bytes < BATCH_BYTES {
        let Some(mut cursor) = cursors.pop() else { break };
        let fitting = (BATCH_BYTES - gather.bytes).div_ceil(cursor.row_bytes);
        let most = fitting.min(batch_rows - gather.row_count);
        let end = cursor.stretch_end(cursors.last(), most);
        let slot = *cursor.batch_slot.get_or_insert_with(|| {
            gather.windows.push(cursor.columns.clone());
            gather.windows.len() - 1
        });
        let base = cursor.window.start;
        let (from, to) = (base + cursor.head as u64, base + end as u64);
        for range in cursor.input.state.deleted.live_ranges(from as u32..to as u32) {
            let range =
                (u64::from(range.start) - base) as usize..(u64::from(range.end) - base) as usize;
            gather.row_count += range.len();
            gather.bytes += range.len() * cursor.row_bytes;
            if layout.with_keys {
                keys.get_or_insert_with(|| KeyBuilder::like(&cursor.keys))
                    .extend(&cursor.keys, range.clone());
            }
            match gather.stretches.last_mut() {
                Some((s, last)) if *s == slot && last.end == range.start => last.end = range.end,
                _ => gather.stretches.push((slot, range)),
            }
        }
        cursor.head = end;
        if cursor.fill(layout)? {
            let place = cursors.partition_point(|c| c.compare(&cursor) == Ordering::Greater);
            cursors.insert(place, cursor);
        }
    }
    if gather.row_count == 0 {
        return Ok(None);
    }
    let columns = (0..layout.outputs.len()).map(|c| gather.column(c)).collect::<Result<_>>()?;
    Ok(Some(Rows { columns, keys: keys.map(KeyBuilder::finish), row_count: gather.row_count }))
}

impl Gather {
    fn column(&self, index: usize) -> Result<ArrayRef> {
        if let [(slot, range)] = self.stretches.as_slice() {
            return Ok(self.windows[*slot][index].slice(range.start, range.len()));
        }
        // Long stretches are copied as such, short ones row by row.
        if self.row_count / self.stretches.len() >= 16 {
            let parts: Vec<ArrayRef> = self
                .stretches
                .iter()
                .map(|(slot, range)| self.windows[*slot][index].slice(range.start, range.len()))
                .collect();
            let parts: Vec<&dyn arrow::array::Array> = parts.iter().map(AsRef::as_ref).collect();
            return Ok(arrow::compute::concat(&parts)?);
        }
        let arrays: Vec<&dyn arrow::array::Array> =
            self.windows.iter().map(|w| w[index].as_ref()).collect();
        let mut rows = Vec::with_capacity(self.row_count);
        for (slot, range) in &self.stretches {
            rows.extend(range.clone().map(|row| (*slot, row)));
        }
        Ok(arrow::compute::interleave(&arrays, &rows)?)
    }
}

/// Gathers keys.
#[derive(Debug)]
pub(crate) enum KeyBuilder {
    U64(Vec<u64>),
    U128(Vec<u128>),
    Bytes(BinaryBuilder),
}

impl KeyBuilder {
    /// A builder of keys of the form of `keys`.
    pub(crate) fn like(keys: &KeyColumn) -> Self {
        match keys {
            KeyColumn::U64(_) => Self::U64(Vec::new()),
            KeyColumn::U128(_) => Self::U128(Vec::new()),
            KeyColumn::Bytes(_) => Self::Bytes(BinaryBuilder::new()),
        }
    }

    pub(crate) fn extend(&mut self, keys: &KeyColumn, range: Range<usize>) {
        match (self, keys) {
            (Self::U64(out), KeyColumn::U64(k)) => out.extend_from_slice(&k[range]),
            (Self::U128(out), KeyColumn::U128(k)) => out.extend_from_slice(&k[range]),
            (Self::Bytes(out), KeyColumn::Bytes(k)) => {
                for i in range {
                    out.append_value(k.value(i));
                }
            }
            // Keys of one table have one form.
            _ => debug_assert!(false, "keys of two forms in one table"),
        }
    }

    pub(crate) fn finish(self) -> KeyColumn {
        match self {
            Self::U64(k) => KeyColumn::U64(k),
            Self::U128(k) => KeyColumn::U128(k),
            Self::Bytes(mut k) => KeyColumn::Bytes(k.finish()),
        }
    }
}

/// Cuts overlapping inputs, of which the positions `within` count, after the first `rank` of their live rows in
/// key order: the position in each up to which its rows are among them. This is what OFFSET, ranks and equal parts are made of.
///
/// A selection by pivots: the middle row of the input with most candidates left divides all inputs, and
/// one side of every input is settled, so it costs O(log n) searches of each.
pub(crate) fn split_at_rank(
    inputs: &[Input],
    within: &[Range<u64>],
    rank: u64,
    repeats: bool,
) -> Result<Vec<u64>> {
    let mut low: Vec<u64> = within.iter().map(|w| w.start).collect();
    let mut high: Vec<u64> = within.iter().map(|w| w.end).collect();
    if let ([input], [range]) = (inputs, within) {
        return Ok(vec![input.state.deleted.skip_live(range.start, range.end, rank)]);
    }
    loop {
        let widest = (0..inputs.len()).max_by_key(|i| high[*i] - low[*i]);
        let Some(widest) = widest.filter(|i| high[*i] > low[*i]) else { return Ok(low) };
        let middle = low[widest] + (high[widest] - low[widest]) / 2;
        let (pivot, row_id) = inputs[widest].key_at(middle, repeats)?;
        let mut cut = Vec::with_capacity(inputs.len());
        let mut below = 0;
        for (i, input) in inputs.iter().enumerate() {
            let at = match row_id {
                _ if i == widest => middle,
                // What is settled needs no search.
                _ if low[i] == high[i] => low[i],
                Some(row_id) => input.state.source.lower_bound_row(&pivot, row_id)?,
                None => input.state.source.lower_bound(&pivot)?,
            };
            let at = at.clamp(low[i], high[i]);
            below += input.state.live_in(&(within[i].start..at));
            cut.push(at);
        }
        if below > rank {
            high = cut;
        } else {
            // All before the pivot belong to the first part; the pivot too, if there is room.
            low = cut;
            let live = inputs[widest].state.live_in(&(middle..middle + 1));
            if below + live <= rank {
                low[widest] = middle + 1;
            } else {
                return Ok(low);
            }
        }
    }
}
