//! [`Segment`]: keys and columns of a segment, read when they are first asked for.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

use arrow::array::{Array, ArrayRef, UInt32Array, new_empty_array};
use parking_lot::Mutex;

use super::footer::Footer;
use super::index_file::{self, IndexFile, SegmentKeys};
use super::{SegmentMeta, SegmentStore, blocks, decode};
use crate::engine::cache::{CacheKey, CachePart};
use crate::engine::error::{Error, ErrorKind, Result};
use crate::engine::id::FieldId;
use crate::engine::key::{EncodedKey, KeyCodec, KeyColumn, KeyForm};

/// A column of a row group is cached whole once single rows of it were asked for this many times.
const WARM_READS: u8 = 4;

/// A segment that can be read. Opening does no I/O: footer, index and columns are read at first use,
/// through the cache.
#[derive(Debug)]
pub struct Segment {
    store: SegmentStore,
    meta: SegmentMeta,
    codec: KeyCodec,
    data_path: PathBuf,
    index_path: PathBuf,
    /// How often rows of a column of a row group were read past the cache: groups times fields.
    cold_reads: OnceLock<Box<[AtomicU8]>>,
    /// Held while the index file is written anew.
    rebuild: Mutex<()>,
}

impl Segment {
    /// A reader of the segment that `meta` describes, with keys of `codec`.
    pub fn open(store: &SegmentStore, meta: SegmentMeta, codec: &KeyCodec) -> Self {
        Self {
            data_path: store.data_path(meta.table, meta.id),
            index_path: store.index_path(meta.table, meta.id),
            store: store.clone(),
            codec: codec.clone(),
            meta,
            cold_reads: OnceLock::new(),
            rebuild: Mutex::new(()),
        }
    }

    /// What manifest and log say of it.
    pub fn meta(&self) -> &SegmentMeta {
        &self.meta
    }

    /// Number of row groups.
    pub fn group_count(&self) -> usize {
        self.meta.row_count.div_ceil(u64::from(self.meta.row_group_rows)) as usize
    }

    /// The rows of row group `group`.
    pub fn group_rows(&self, group: usize) -> Range<u64> {
        let start = group as u64 * u64::from(self.meta.row_group_rows);
        start..(start + u64::from(self.meta.row_group_rows)).min(self.meta.row_count)
    }

    /// Position of the first row whose key is `>= key` (`row_count` where there is none).
    pub fn lower_bound(&self, key: &EncodedKey) -> Result<u64> {
        match (&*self.segment_keys()?, key) {
            (SegmentKeys::U64(keys), EncodedKey::U64(key)) => Ok(keys.lower_bound(*key) as u64),
            (SegmentKeys::U128(keys), EncodedKey::U128(key)) => Ok(keys.lower_bound(*key) as u64),
            (SegmentKeys::Bytes(keys), EncodedKey::Bytes(_)) => Ok(keys.lower_bound(key) as u64),
            _ => Err(self.wrong_form()),
        }
    }

    /// Position of the first row whose key is `> key`.
    pub fn upper_bound(&self, key: &EncodedKey) -> Result<u64> {
        match (&*self.segment_keys()?, key) {
            (SegmentKeys::U64(keys), EncodedKey::U64(key)) => Ok(keys.upper_bound(*key) as u64),
            (SegmentKeys::U128(keys), EncodedKey::U128(key)) => Ok(keys.upper_bound(*key) as u64),
            (SegmentKeys::Bytes(keys), EncodedKey::Bytes(_)) => Ok(keys.upper_bound(key) as u64),
            _ => Err(self.wrong_form()),
        }
    }

    /// [`Segment::lower_bound`] of many keys (in any order) at once, and for each whether the row there
    /// has just that key.
    pub fn lower_bound_batch(&self, keys: &KeyColumn) -> Result<(Vec<u32>, Vec<bool>)> {
        let mut positions = vec![0; keys.len()];
        let found = match (&*self.segment_keys()?, keys) {
            (SegmentKeys::U64(mine), KeyColumn::U64(keys)) => {
                mine.lower_bound_batch(keys, &mut positions);
                hits(&positions, keys, mine.len(), |p| mine.get(p))
            }
            (SegmentKeys::U128(mine), KeyColumn::U128(keys)) => {
                mine.lower_bound_batch(keys, &mut positions);
                hits(&positions, keys, mine.len(), |p| mine.get(p))
            }
            (SegmentKeys::Bytes(mine), KeyColumn::Bytes(_)) => (0..keys.len())
                .map(|i| {
                    let position = mine.lower_bound(&keys.get(i));
                    positions[i] = position as u32;
                    position < mine.len()
                        && crate::engine::key::compare(mine, position, keys, i).is_eq()
                })
                .collect(),
            _ => return Err(self.wrong_form()),
        };
        Ok((positions, found))
    }

    /// The keys of rows `rows`.
    pub fn keys(&self, rows: Range<u64>) -> Result<KeyColumn> {
        if rows.start > rows.end || rows.end > self.meta.row_count {
            return Err(self.out_of_range("rows", rows.end));
        }
        let rows = rows.start as usize..rows.end as usize;
        Ok(match &*self.segment_keys()? {
            SegmentKeys::U64(keys) => {
                let mut out = Vec::with_capacity(rows.len());
                keys.decode(rows, &mut out);
                KeyColumn::U64(out)
            }
            SegmentKeys::U128(keys) => {
                let mut out = Vec::with_capacity(rows.len());
                keys.decode(rows, &mut out);
                KeyColumn::U128(out)
            }
            SegmentKeys::Bytes(keys) => keys.slice(rows.start, rows.len()),
        })
    }

    /// The whole column `field` of row group `group`, decoded, from the cache or into it. `None` where
    /// the segment is older than the column.
    pub fn column(&self, field: FieldId, group: usize) -> Result<Option<ArrayRef>> {
        let Some(index) = self.field_index(field) else { return Ok(None) };
        if group >= self.group_count() {
            return Err(self.out_of_range("row group", group as u64));
        }
        let column = self.store.cache.get_or_load(self.column_key(field, group), || {
            let footer = self.footer()?;
            let column = self.read_column(&footer, index, group)?;
            let bytes = column.get_array_memory_size();
            Ok((column, bytes))
        })?;
        Ok(Some(ArrayRef::clone(&column)))
    }

    /// Whether [`Segment::column`] would answer without I/O.
    #[cfg(test)]
    pub(crate) fn is_cached(&self, field: FieldId, group: usize) -> bool {
        self.store.cache.contains(&self.column_key(field, group))
    }

    /// Rows at `positions` (ascending) of the columns `fields` (`None` as in [`Segment::column`]).
    /// Reads only the pages it needs where a row group is not cached.
    pub fn take(&self, fields: &[FieldId], positions: &[u32]) -> Result<Vec<Option<ArrayRef>>> {
        if let Some(last) = positions.last()
            && u64::from(*last) >= self.meta.row_count
        {
            return Err(self.out_of_range("row", u64::from(*last)));
        }
        if !positions.is_sorted() {
            return Err(Error::internal("positions to take are not ascending"));
        }
        if positions.is_empty() {
            return self.take_nothing(fields);
        }
        let mut parts: Vec<Vec<ArrayRef>> = vec![Vec::new(); fields.len()];
        let group_rows = self.meta.row_group_rows;
        for run in positions.chunk_by(|a, b| a / group_rows == b / group_rows) {
            let group = (run[0] / group_rows) as usize;
            let start = group as u32 * group_rows;
            let rows: Vec<u32> = run.iter().map(|p| p - start).collect();
            self.take_group(fields, group, &rows, &mut parts)?;
        }
        parts
            .into_iter()
            .map(|parts| match parts.as_slice() {
                [] => Ok(None),
                [one] => Ok(Some(Arc::clone(one))),
                many => {
                    let many: Vec<&dyn Array> = many.iter().map(AsRef::as_ref).collect();
                    Ok(Some(arrow::compute::concat(&many)?))
                }
            })
            .collect()
    }

    /// Reads both files whole and checks all checksums.
    pub fn verify(&self) -> Result<()> {
        let data = blocks::checksum_file(self.store.vfs.as_ref(), &self.data_path)?;
        self.check_data(&data)?;
        let index = self.open_index()?;
        if index.blocks()? != data.blocks {
            return Err(Error::corruption(format!(
                "{}: its checksums are not those of {}",
                self.index_path.display(),
                self.data_path.display()
            )));
        }
        if self.codec.form() != KeyForm::Bytes {
            index.keys(self.codec.form())?;
        }
        Ok(())
    }

    fn take_nothing(&self, fields: &[FieldId]) -> Result<Vec<Option<ArrayRef>>> {
        let footer = self.footer()?;
        let empty = |index: usize| new_empty_array(footer.declared.field(index).data_type());
        Ok(fields.iter().map(|field| self.field_index(*field).map(empty)).collect())
    }

    /// Appends rows `rows` of `group` to `parts`, a column each.
    fn take_group(
        &self,
        fields: &[FieldId],
        group: usize,
        rows: &[u32],
        parts: &mut [Vec<ArrayRef>],
    ) -> Result<()> {
        let mut cold: Vec<(usize, usize)> = Vec::new();
        for (i, field) in fields.iter().enumerate() {
            let Some(index) = self.field_index(*field) else { continue };
            let column = match self.store.cache.get::<ArrayRef>(&self.column_key(*field, group)) {
                Some(column) => Some(ArrayRef::clone(&column)),
                None if self.is_worth_caching(index, group, rows) => self.column(*field, group)?,
                None => None,
            };
            match column {
                Some(column) => parts[i].push(take_rows(&column, rows)?),
                None => cold.push((i, index)),
            }
        }
        if cold.is_empty() {
            return Ok(());
        }
        let mut distinct = rows.to_vec();
        distinct.dedup();
        let indices: Vec<usize> = cold.iter().map(|(_, index)| *index).collect();
        let columns = self.read_rows(&indices, group, &distinct)?;
        for ((i, _), column) in cold.into_iter().zip(columns) {
            parts[i].push(if distinct.len() == rows.len() {
                column
            } else {
                take_repeated(&column, &distinct, rows)?
            });
        }
        Ok(())
    }

    /// Whether to read and keep a whole column instead of some pages: most of its pages are needed, or it
    /// is asked for time and again.
    fn is_worth_caching(&self, index: usize, group: usize, rows: &[u32]) -> bool {
        let page = |row: &u32| *row as usize / super::properties::PAGE_ROWS;
        let needed = rows.chunk_by(|a, b| page(a) == page(b)).count();
        let all = self.meta.row_group_rows as usize / super::properties::PAGE_ROWS + 1;
        if needed * 2 > all {
            return true;
        }
        let cold_reads = self.cold_reads.get_or_init(|| {
            (0..self.group_count() * self.meta.fields.len()).map(|_| AtomicU8::new(0)).collect()
        });
        // Saturates rather than wraps: what was evicted again is soon cached again.
        let count = &cold_reads[group * self.meta.fields.len() + index];
        let reads = count.load(Ordering::Relaxed).saturating_add(1);
        count.store(reads, Ordering::Relaxed);
        reads >= WARM_READS
    }

    fn read_column(&self, footer: &Footer, index: usize, group: usize) -> Result<ArrayRef> {
        let ranges = footer.column_ranges(&[index], group);
        let bytes = self.read_ranges(footer, ranges)?;
        let rows = self.group_rows(group);
        decode::column(footer, bytes, index, group)
            .and_then(|column| decode::check_length(column, (rows.end - rows.start) as usize))
            .map_err(|e| e.context(self.data_path.display()))
    }

    fn read_rows(&self, indices: &[usize], group: usize, rows: &[u32]) -> Result<Vec<ArrayRef>> {
        let footer = self.footer()?;
        let selection = decode::selection(rows);
        let ranges = footer.page_ranges(indices, group, &selection);
        let bytes = self.read_ranges(&footer, ranges)?;
        decode::columns(&footer, bytes, indices, group, Some((selection, rows.len())))
            .and_then(|columns| {
                columns.into_iter().map(|c| decode::check_length(c, rows.len())).collect()
            })
            .map_err(|e| e.context(self.data_path.display()))
    }

    fn read_ranges(&self, footer: &Footer, ranges: Vec<Range<u64>>) -> Result<decode::FileRanges> {
        let vfs = self.store.vfs.as_ref();
        let file =
            blocks::BlockReader::open(vfs, &self.data_path, self.meta.data_bytes, &footer.blocks)?;
        decode::FileRanges::read(&file, ranges)
    }

    fn footer(&self) -> Result<Arc<Footer>> {
        let key = CacheKey { segment: self.meta.id, part: CachePart::Footer };
        self.store.cache.get_or_load(key, || {
            let footer = match self.open_index().and_then(|index| index.blocks()) {
                Ok(blocks) => self.read_footer(blocks)?,
                Err(e) if is_lost(&e) => self.rebuild_index(&e)?.1,
                Err(e) => return Err(e),
            };
            let bytes = footer.memory_bytes();
            Ok((footer, bytes))
        })
    }

    fn read_footer(&self, blocks: Vec<u32>) -> Result<Footer> {
        Footer::read(self.store.vfs.as_ref(), &self.data_path, &self.meta, blocks)
    }

    pub(super) fn segment_keys(&self) -> Result<Arc<SegmentKeys>> {
        let key = CacheKey { segment: self.meta.id, part: CachePart::Keys };
        self.store.cache.get_or_load(key, || {
            let form = self.codec.form();
            let keys = if form == KeyForm::Bytes {
                SegmentKeys::Bytes(self.encode_keys(&*self.footer()?)?)
            } else {
                match self.open_index().and_then(|index| index.keys(form)) {
                    Ok(keys) => keys,
                    Err(e) if is_lost(&e) => self.rebuild_index(&e)?.0,
                    Err(e) => return Err(e),
                }
            };
            let bytes = keys.memory_bytes();
            Ok((keys, bytes))
        })
    }

    fn open_index(&self) -> Result<IndexFile<'_>> {
        let form = self.codec.form();
        IndexFile::open(self.store.vfs.as_ref(), &self.index_path, &self.meta, form)
    }

    /// Keys of all rows, from the key columns of the Parquet file.
    fn encode_keys(&self, footer: &Footer) -> Result<KeyColumn> {
        let key = footer.key_fields().map_err(|e| e.context(self.data_path.display()))?;
        let damaged = |what: &str| {
            Error::corruption(format!(
                "{}: {what}: restore it from a backup",
                self.data_path.display()
            ))
        };
        let indices: Vec<usize> = key.iter().filter_map(|field| self.field_index(*field)).collect();
        if indices.len() != key.len() {
            return Err(damaged("a key column is missing"));
        }
        let mut parts = Vec::with_capacity(self.group_count());
        for group in 0..self.group_count() {
            let columns = indices
                .iter()
                .map(|index| self.read_column(footer, *index, group))
                .collect::<Result<Vec<_>>>()?;
            parts.push(self.codec.encode(&columns)?);
        }
        let keys = KeyColumn::concat(&parts.iter().collect::<Vec<_>>())?;
        if !keys.is_sorted() {
            return Err(damaged("its rows are not in the order of their keys"));
        }
        Ok(keys)
    }

    /// Makes the index from the Parquet file, once the whole of that is known to be as it was written,
    /// and puts it in the place of the lost one.
    fn rebuild_index(&self, lost: &Error) -> Result<(SegmentKeys, Footer)> {
        let _one_at_a_time = self.rebuild.lock();
        let form = self.codec.form();
        // Another thread may have been first.
        if let Ok(index) = self.open_index()
            && let Ok(blocks) = index.blocks()
        {
            let keys = match form {
                KeyForm::Bytes => Ok(SegmentKeys::Bytes(KeyColumn::empty(form))),
                _ => index.keys(form),
            };
            if let Ok(keys) = keys {
                return Ok((keys, self.read_footer(blocks)?));
            }
        }
        tracing::warn!("{lost}: rebuilding it from {}", self.data_path.display());
        let data = blocks::checksum_file(self.store.vfs.as_ref(), &self.data_path)?;
        self.check_data(&data)?;
        let footer = self.read_footer(data.blocks.clone())?;
        let keys = SegmentKeys::build(match form {
            KeyForm::Bytes => KeyColumn::empty(form),
            _ => self.encode_keys(&footer)?,
        });
        if let Err(e) = self.replace_index(&keys, &data) {
            // Answers are right without the file; the next start tries again.
            tracing::warn!("cannot write {}: {e}", self.index_path.display());
        }
        Ok((keys, footer))
    }

    fn replace_index(&self, keys: &SegmentKeys, data: &blocks::Checksums) -> Result<()> {
        let vfs = self.store.vfs.as_ref();
        let temporary = blocks::temporary(&self.index_path);
        match vfs.remove(&temporary) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(blocks::at_path(e, &temporary));
            }
            _ => {}
        }
        let owner = index_file::Owner {
            segment: self.meta.id,
            row_count: self.meta.row_count,
            form: self.codec.form(),
        };
        index_file::write(vfs, &self.index_path, &owner, keys, data)?;
        vfs.rename(&temporary, &self.index_path)
            .map_err(|e| blocks::at_path(e, &self.index_path))?;
        self.store.sync_table_dir(self.meta.table)
    }

    fn check_data(&self, found: &blocks::Checksums) -> Result<()> {
        if (found.len, found.whole) == (self.meta.data_bytes, self.meta.data_crc) {
            return Ok(());
        }
        Err(Error::corruption(format!(
            "{}: length {} and checksum {:08x} are not the {} and {:08x} it was written with: restore it from a backup",
            self.data_path.display(),
            found.len,
            found.whole,
            self.meta.data_bytes,
            self.meta.data_crc
        )))
    }

    fn field_index(&self, field: FieldId) -> Option<usize> {
        self.meta.fields.iter().position(|f| *f == field)
    }

    fn column_key(&self, field: FieldId, group: usize) -> CacheKey {
        let part = CachePart::Column { group: group as u32, field };
        CacheKey { segment: self.meta.id, part }
    }

    fn wrong_form(&self) -> Error {
        Error::internal(format!("segment {}: a key of another form than its table's", self.meta.id))
    }

    fn out_of_range(&self, what: &str, which: u64) -> Error {
        Error::internal(format!(
            "segment {}: {what} {which} lies beyond its {} rows",
            self.meta.id, self.meta.row_count
        ))
    }
}

/// An index file that is missing or damaged can be made anew; one that cannot be read cannot.
fn is_lost(error: &Error) -> bool {
    error.kind() == ErrorKind::Corruption
        || std::error::Error::source(error)
            .and_then(|e| e.downcast_ref::<std::io::Error>())
            .is_some_and(|e| {
                matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::UnexpectedEof)
            })
}

fn hits<K: PartialEq + Copy>(
    positions: &[u32],
    keys: &[K],
    len: usize,
    get: impl Fn(usize) -> K,
) -> Vec<bool> {
    let hit = |(position, key): (&u32, &K)| {
        let position = *position as usize;
        position < len && get(position) == *key
    };
    positions.iter().zip(keys).map(hit).collect()
}

/// Rows of a column; a run of rows is a slice and copies nothing.
fn take_rows(column: &ArrayRef, rows: &[u32]) -> Result<ArrayRef> {
    let (first, last) = (rows[0] as usize, rows[rows.len() - 1] as usize);
    if last - first + 1 == rows.len() && rows.is_sorted_by(|a, b| a < b) {
        return Ok(column.slice(first, rows.len()));
    }
    Ok(arrow::compute::take(column, &UInt32Array::from(rows.to_vec()), None)?)
}

/// Rows of a column that holds only the rows `distinct`, in order, where `rows` repeats some.
fn take_repeated(column: &ArrayRef, distinct: &[u32], rows: &[u32]) -> Result<ArrayRef> {
    let mut at = 0;
    let places = rows.iter().map(|row| {
        while distinct[at] < *row {
            at += 1;
        }
        at as u32
    });
    Ok(arrow::compute::take(column, &UInt32Array::from_iter_values(places), None)?)
}
