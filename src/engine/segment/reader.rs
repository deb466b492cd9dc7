//! [`Segment`]: keys and columns of a segment, read when they are first asked for.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

use arrow::array::{Array, ArrayRef, BinaryArray, UInt32Array, new_empty_array};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use parking_lot::Mutex;

mod locate;

use super::footer::Footer;
use super::index_file::{self, IndexFile, IndexWriter, Owner};
use super::keys::{Built, CachedChunk, CachedModel, KeyIndex, KeysInMemory, SegmentKeys, Stop};
use super::plain_rows::PlainRows;
use super::{SegmentMeta, SegmentStore, blocks, decode, types};
use crate::engine::cache::{CacheKey, CachePart};
use crate::engine::error::{Error, ErrorKind, Result};
use crate::engine::id::FieldId;
use crate::engine::index::Chunk;
use crate::engine::key::{EncodedKey, KeyCodec, KeyColumn, KeyForm};

/// A column of a row group is cached whole once single rows of it were asked for this many times: about when these reads
/// have taken as long as reading the whole does.
const WARM_READS: u8 = 16;

/// A segment that can be read. Opening does no I/O: footer, index and columns are read at first use,
/// through the cache.
#[derive(Debug)]
pub struct Segment {
    store: SegmentStore,
    meta: SegmentMeta,
    codec: KeyCodec,
    data_path: PathBuf,
    index_path: PathBuf,
    /// Keys in memory; the cache has a hand in it.
    keys: Arc<KeysInMemory>,
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
            keys: Arc::default(),
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
        let at = self.with_keys(|index| match (index, key) {
            (KeyIndex::U64(keys), EncodedKey::U64(key)) => Ok(keys.lower_bound(*key)?),
            (KeyIndex::U128(keys), EncodedKey::U128(key)) => Ok(keys.lower_bound(*key)?),
            (KeyIndex::Bytes(keys), EncodedKey::Bytes(key)) => Ok(keys.lower_bound(key)?),
            _ => Err(Stop::WrongForm),
        })?;
        Ok(at as u64)
    }

    /// Position of the first row whose key is `> key`.
    pub fn upper_bound(&self, key: &EncodedKey) -> Result<u64> {
        let at = self.with_keys(|index| match (index, key) {
            (KeyIndex::U64(keys), EncodedKey::U64(key)) => Ok(keys.upper_bound(*key)?),
            (KeyIndex::U128(keys), EncodedKey::U128(key)) => Ok(keys.upper_bound(*key)?),
            (KeyIndex::Bytes(keys), EncodedKey::Bytes(key)) => Ok(keys.upper_bound(key)?),
            _ => Err(Stop::WrongForm),
        })?;
        Ok(at as u64)
    }

    /// [`Segment::lower_bound`], and whether the row there has just that key: one search.
    #[cfg(test)]
    pub fn find(&self, key: &EncodedKey) -> Result<(u64, bool)> {
        let (at, found) = self.with_keys(|index| find_in(index, key))?;
        Ok((at as u64, found))
    }

    /// [`Segment::find`] of many keys, in any order, at once.
    #[cfg(test)]
    pub fn find_batch(&self, keys: &KeyColumn) -> Result<(Vec<u32>, Vec<bool>)> {
        let (mut positions, mut found) = (vec![0; keys.len()], vec![false; keys.len()]);
        let mut done = 0;
        self.with_keys(|index| find_batch_in(index, keys, &mut done, &mut positions, &mut found))?;
        Ok((positions, found))
    }

    /// The keys of rows `rows`.
    pub fn keys(&self, rows: Range<u64>) -> Result<KeyColumn> {
        if rows.start > rows.end || rows.end > self.meta.row_count {
            return Err(self.out_of_range("rows", rows.end));
        }
        let (from, to) = (rows.start as usize, rows.end as usize);
        let mut out = KeyParts::default();
        self.with_keys(|index| match index {
            KeyIndex::U64(keys) => Ok(keys.decode(from + out.u64.len()..to, &mut out.u64)?),
            KeyIndex::U128(keys) => Ok(keys.decode(from + out.u128.len()..to, &mut out.u128)?),
            KeyIndex::Bytes(keys) => {
                Ok(keys.decode(from + out.ends.len()..to, &mut out.bytes, &mut out.ends)?)
            }
        })?;
        match self.codec.form() {
            KeyForm::U64 => Ok(KeyColumn::U64(out.u64)),
            KeyForm::U128 => Ok(KeyColumn::U128(out.u128)),
            KeyForm::Bytes => out.into_bytes(),
        }
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

    /// How many chunks of keys are in memory, but for empty ones.
    #[cfg(test)]
    pub(super) fn resident_chunks(&self) -> usize {
        let keys = self.keys.load();
        let chunks = keys.as_ref().map(|keys| keys.resident().filter(|(_, b)| b.len() > 512));
        chunks.map_or(0, Iterator::count)
    }

    /// Whether no key is in memory.
    #[cfg(test)]
    pub(super) fn is_cold(&self) -> bool {
        self.keys.load().as_ref().is_none_or(|keys| keys.resident().all(|(_, b)| b.len() < 512))
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

    /// Appends columns of the row at `position` to `columns`: [`Segment::take`] of one row.
    pub fn row(
        &self,
        fields: impl Iterator<Item = FieldId> + Clone,
        position: u32,
        columns: &mut Vec<Option<ArrayRef>>,
    ) -> Result<()> {
        if u64::from(position) >= self.meta.row_count {
            return Err(self.out_of_range("row", u64::from(position)));
        }
        let group = (position / self.meta.row_group_rows) as usize;
        let row = (position % self.meta.row_group_rows) as usize;
        let before = columns.len();
        for field in fields.clone() {
            if self.field_index(field).is_none() {
                columns.push(None);
            } else if let Some(column) =
                self.store.cache.get::<ArrayRef>(&self.column_key(field, group))
            {
                columns.push(Some(column.slice(row, 1)));
            } else {
                // What is not in memory is best read together.
                columns.truncate(before);
                columns.append(&mut self.take(&fields.collect::<Vec<_>>(), &[position])?);
                return Ok(());
            }
        }
        Ok(())
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
        index.all_keys(self.codec.form()).map(drop)
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
        let count = &cold_reads[group * self.meta.fields.len() + index];
        let reads = count.load(Ordering::Relaxed).saturating_add(1);
        let worth = reads >= WARM_READS;
        // What is evicted again must earn its place again.
        count.store(if worth { 0 } else { reads }, Ordering::Relaxed);
        worth
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
        let plain: Vec<Option<(PlainRows<'_>, Vec<Range<u64>>)>> = indices
            .iter()
            .map(|index| {
                let column = PlainRows::of(&footer, *index, group)?;
                let ranges = column.ranges(rows)?;
                Some((column, ranges))
            })
            .collect();
        let selection = decode::selection(rows);
        let others = lacking(indices, &plain);
        let mut ranges = footer.page_ranges(&others, group, &selection);
        ranges.extend(plain.iter().flatten().flat_map(|(_, ranges)| ranges.iter().cloned()));
        let mut bytes = self.read_ranges(&footer, ranges)?;
        let found: Vec<Option<ArrayRef>> = plain
            .iter()
            .map(|column| column.as_ref().and_then(|(column, _)| column.read(rows, &bytes)))
            .collect();
        let rest = lacking(indices, &found);
        if rest.len() > others.len() {
            // Pages that only looked plain.
            bytes = self.read_ranges(&footer, footer.page_ranges(&rest, group, &selection))?;
        }
        let selected = Some((selection, rows.len()));
        let decoded = match rest.as_slice() {
            [] => Ok(Vec::new()),
            rest => decode::columns(&footer, bytes, rest, group, selected),
        };
        let joined = decoded.and_then(|decoded| {
            let mut decoded = decoded.into_iter();
            let columns = indices.iter().zip(found).map(|(index, found)| match found {
                Some(column) => {
                    types::from_stored(column, footer.declared.field(*index).data_type())
                }
                None => decoded.next().ok_or_else(|| Error::internal("a column was not decoded")),
            });
            columns.map(|column| decode::check_length(column?, rows.len())).collect()
        });
        joined.map_err(|e| e.context(self.data_path.display()))
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
                Err(e) if is_lost(&e) => self.rebuild_index(&e)?.footer,
                Err(e) => return Err(e),
            };
            let bytes = footer.memory_bytes();
            Ok((footer, bytes))
        })
    }

    fn read_footer(&self, blocks: Vec<u32>) -> Result<Footer> {
        Footer::read(self.store.vfs.as_ref(), &self.data_path, &self.meta, blocks)
    }

    /// Runs `search` on the index, and again with every chunk that it lacks, until it has an answer.
    #[inline]
    pub(super) fn with_keys<T>(
        &self,
        mut search: impl FnMut(&KeyIndex) -> std::result::Result<T, Stop>,
    ) -> Result<T> {
        if let Some(keys) = &*self.keys.load()
            && let Ok(answer) = search(&keys.index)
        {
            return Ok(answer);
        }
        self.with_cold_keys(search)
    }

    #[cold]
    fn with_cold_keys<T>(
        &self,
        search: impl FnMut(&KeyIndex) -> std::result::Result<T, Stop>,
    ) -> Result<T> {
        self.with_held_keys(self.key_model()?, search)
    }

    /// Runs `search` on an index that is held until the answer: its chunks stay in it, and more come, whatever
    /// the cache evicts meanwhile.
    fn with_held_keys<T>(
        &self,
        mut keys: Arc<SegmentKeys>,
        mut search: impl FnMut(&KeyIndex) -> std::result::Result<T, Stop>,
    ) -> Result<T> {
        loop {
            match search(&keys.index) {
                Ok(answer) => return Ok(answer),
                Err(Stop::WrongForm) => return Err(self.wrong_form()),
                Err(Stop::Missing(chunk)) => match self.load_chunk(&keys, chunk) {
                    Err(e) if is_lost(&e) => keys = self.replace_keys(&e)?,
                    loaded => loaded?,
                },
            }
        }
    }

    /// Makes the index anew, because a part of it is lost.
    fn replace_keys(&self, lost: &Error) -> Result<Arc<SegmentKeys>> {
        // What is in memory may be of another model than the new file's.
        self.store.cache.remove_segment(self.meta.id);
        self.adopt(self.rebuild_index(lost)?.keys)
    }

    /// The index, with the chunks that are in memory.
    fn key_model(&self) -> Result<Arc<SegmentKeys>> {
        if let Some(keys) = &*self.keys.load() {
            return Ok(Arc::clone(keys));
        }
        let mut rebuilt = None;
        let key = CacheKey { segment: self.meta.id, part: CachePart::Keys };
        let model = self.store.cache.get_or_load(key, || {
            let keys = match self.open_index().and_then(|index| index.keys(self.codec.form())) {
                Ok(keys) => keys,
                Err(e) if is_lost(&e) => {
                    let keys = self.rebuild_index(&e)?.keys;
                    rebuilt.insert(keys).emptied()
                }
                Err(e) => return Err(e),
            };
            let bytes = keys.model_bytes();
            Ok((CachedModel::new(keys), bytes))
        })?;
        match rebuilt {
            Some(keys) => self.adopt(keys),
            None => Ok(model.install(&self.keys)),
        }
    }

    fn load_chunk(&self, keys: &SegmentKeys, chunk: usize) -> Result<()> {
        let place = keys.places[chunk];
        let cached = self.store.cache.get_or_load(self.chunk_key(chunk), || {
            let vfs = self.store.vfs.as_ref();
            let bytes = index_file::read_place(vfs, &self.index_path, place)?;
            let bytes = Chunk::new(&bytes);
            let size = bytes.memory_bytes();
            Ok((CachedChunk::new(chunk, bytes), size))
        })?;
        cached.install(&self.keys, keys).map_err(|e| e.context(self.index_path.display()))
    }

    /// Puts an index that is whole in memory into the cache, as much of it as fits, and gives it back whole.
    fn adopt(&self, keys: SegmentKeys) -> Result<Arc<SegmentKeys>> {
        let key = CacheKey { segment: self.meta.id, part: CachePart::Keys };
        let bytes = keys.model_bytes();
        let empty = keys.emptied();
        let model = self.store.cache.get_or_load(key, || Ok((CachedModel::new(empty), bytes)))?;
        model.install(&self.keys);
        for (chunk, bytes) in keys.resident() {
            let cached = self.store.cache.get_or_load(self.chunk_key(chunk), || {
                Ok((CachedChunk::new(chunk, bytes.clone()), bytes.memory_bytes()))
            })?;
            cached.install(&self.keys, &keys)?;
        }
        Ok(Arc::new(keys))
    }

    fn chunk_key(&self, chunk: usize) -> CacheKey {
        CacheKey { segment: self.meta.id, part: CachePart::KeyChunk(chunk as u32) }
    }

    fn open_index(&self) -> Result<IndexFile<'_>> {
        let form = self.codec.form();
        IndexFile::open(self.store.vfs.as_ref(), &self.index_path, &self.meta, form)
    }

    /// Keys of all rows, from the key columns of the Parquet file, a row group at a time.
    fn encode_keys(&self, footer: &Footer) -> Result<Built> {
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
        let mut last: Option<EncodedKey> = None;
        let parts = (0..self.group_count()).map(|group| {
            let columns = indices
                .iter()
                .map(|index| self.read_column(footer, *index, group))
                .collect::<Result<Vec<_>>>()?;
            let keys = self.codec.encode(&columns)?;
            let first = keys.first();
            if !keys.is_sorted() || last.is_some() && first.is_some() && first < last {
                return Err(damaged("its rows are not in the order of their keys"));
            }
            last = keys.last();
            Ok(keys)
        });
        Built::of(self.codec.form(), parts)
    }

    /// Makes the index from the Parquet file, once the whole of that is known to be as it was written,
    /// and puts it in the place of the lost one.
    fn rebuild_index(&self, lost: &Error) -> Result<Rebuilt> {
        let _one_at_a_time = self.rebuild.lock();
        // Another thread may have been first.
        if let Ok(index) = self.open_index()
            && let (Ok(blocks), Ok(keys)) = (index.blocks(), index.all_keys(self.codec.form()))
        {
            return Ok(Rebuilt { keys, footer: self.read_footer(blocks)? });
        }
        tracing::warn!("{lost}: rebuilding it from {}", self.data_path.display());
        let data = blocks::checksum_file(self.store.vfs.as_ref(), &self.data_path)?;
        self.check_data(&data)?;
        let footer = self.read_footer(data.blocks.clone())?;
        let built = self.encode_keys(&footer)?;
        if let Err(e) = self.replace_index(&built, &data) {
            // Answers are right without the file; the next start tries again.
            tracing::warn!("cannot write {}: {e}", self.index_path.display());
        }
        Ok(Rebuilt { keys: built.into_keys()?, footer })
    }

    fn replace_index(&self, built: &Built, data: &blocks::Checksums) -> Result<()> {
        let vfs = self.store.vfs.as_ref();
        let temporary = blocks::temporary(&self.index_path);
        match vfs.remove(&temporary) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(blocks::at_path(e, &temporary));
            }
            _ => {}
        }
        let mut writer = IndexWriter::create(vfs, &self.index_path, self.codec.form())?;
        built.chunks().try_for_each(|chunk| writer.chunk(chunk))?;
        let owner = Owner { segment: self.meta.id, row_count: self.meta.row_count };
        writer.finish(&owner, built.index(), built.filters(), data)?;
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

/// Those of `indices` for which there is nothing.
fn lacking<T>(indices: &[usize], found: &[Option<T>]) -> Vec<usize> {
    indices.iter().zip(found).filter(|(_, found)| found.is_none()).map(|(i, _)| *i).collect()
}

/// The lower bound of a key, and whether it is there.
#[inline(always)]
fn find_in(index: &KeyIndex, key: &EncodedKey) -> std::result::Result<(usize, bool), Stop> {
    match (index, key) {
        (KeyIndex::U64(keys), EncodedKey::U64(key)) => Ok(keys.find(*key)?),
        (KeyIndex::U128(keys), EncodedKey::U128(key)) => Ok(keys.find(*key)?),
        (KeyIndex::Bytes(keys), EncodedKey::Bytes(key)) => Ok(keys.find(key)?),
        _ => Err(Stop::WrongForm),
    }
}

/// [`find_in`] of the keys from `done` on, which is moved to the first that has no answer.
fn find_batch_in(
    index: &KeyIndex,
    keys: &KeyColumn,
    done: &mut usize,
    positions: &mut [u32],
    found: &mut [bool],
) -> std::result::Result<(), Stop> {
    let (positions, found) = (&mut positions[*done..], &mut found[*done..]);
    let all = match (index, keys) {
        (KeyIndex::U64(mine), KeyColumn::U64(keys)) => {
            mine.find_batch(&keys[*done..], positions, found)
        }
        (KeyIndex::U128(mine), KeyColumn::U128(keys)) => {
            mine.find_batch(&keys[*done..], positions, found)
        }
        (KeyIndex::Bytes(mine), KeyColumn::Bytes(keys)) => {
            let one = |i: usize| mine.find(keys.value(*done + i)).map_err(|m| (m, i));
            (0..positions.len()).try_for_each(|i| {
                let (position, hit) = one(i)?;
                (positions[i], found[i]) = (position as u32, hit);
                Ok(())
            })
        }
        _ => return Err(Stop::WrongForm),
    };
    all.map_err(|(missing, more)| {
        *done += more;
        missing.into()
    })
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

/// What a lost index was replaced by.
struct Rebuilt {
    /// All of them in memory.
    keys: SegmentKeys,
    footer: Footer,
}

/// Keys as they are decoded, of one form.
#[derive(Default)]
struct KeyParts {
    u64: Vec<u64>,
    u128: Vec<u128>,
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl KeyParts {
    fn into_bytes(self) -> Result<KeyColumn> {
        let mut offsets = Vec::with_capacity(self.ends.len() + 1);
        offsets.push(0);
        for end in self.ends {
            offsets.push(i32::try_from(end).map_err(|_| {
                Error::exhausted("the keys to read at once exceed 2 GiB: read fewer rows at once")
            })?);
        }
        let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
        Ok(KeyColumn::Bytes(BinaryArray::new(offsets, self.bytes.into(), None)))
    }
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
