//! The `.idx` file of a segment: its keys in chunks, filters of them, what finds them, and checksums of the Parquet file's
//! blocks. Each part has a checksum and is read by itself.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::SegmentMeta;
use super::blocks::{BLOCK_BYTES, BlockWriter, Checksums, at_path, temporary};
use super::keys::{KeyIndex, Place, SegmentFilters, SegmentKeys};
use crate::engine::error::{Error, ErrorKind, Result};
use crate::engine::fs::{Vfs, VfsFile};
use crate::engine::id::SegmentId;
use crate::engine::in_memory::check_may_read;
use crate::engine::index::{BuiltFilters, Chunk, Filters};
use crate::engine::key::KeyForm;

const MAGIC: [u8; 8] = *b"OMENIDX\0";
const VERSION: u32 = 3;
/// As [`VERSION`], without filters.
const PLAIN_VERSION: u32 = 2;
/// Magic, version and form of the keys.
const HEADER_BYTES: usize = 16;
/// Where the first chunk of keys lies.
pub(super) const KEYS_OFFSET: u64 = HEADER_BYTES as u64;
/// See [`Trailer::encode`].
const TRAILER_BYTES: usize = 80;

fn form_code(form: KeyForm) -> u32 {
    match form {
        KeyForm::U64 => 1,
        KeyForm::U128 => 2,
        KeyForm::Bytes => 3,
    }
}

/// The last bytes of the file: whose index it is, and where its sections are. Integers are little-endian.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Trailer {
    version: u32,
    segment: u64,
    row_count: u64,
    data_bytes: u64,
    data_crc: u32,
    blocks_crc: u32,
    /// Of all chunks of keys.
    keys_bytes: u64,
    directory_bytes: u64,
    directory_crc: u32,
    /// Of all parts of filters.
    filter_bytes: u64,
}

impl Trailer {
    fn encode(&self) -> [u8; TRAILER_BYTES] {
        let mut out = Vec::with_capacity(TRAILER_BYTES);
        out.extend_from_slice(&self.segment.to_le_bytes());
        out.extend_from_slice(&self.row_count.to_le_bytes());
        out.extend_from_slice(&self.data_bytes.to_le_bytes());
        out.extend_from_slice(&self.data_crc.to_le_bytes());
        out.extend_from_slice(&(BLOCK_BYTES as u32).to_le_bytes());
        out.extend_from_slice(&self.blocks_crc.to_le_bytes());
        out.extend_from_slice(&self.directory_crc.to_le_bytes());
        out.extend_from_slice(&self.keys_bytes.to_le_bytes());
        out.extend_from_slice(&self.version.to_le_bytes());
        out.extend_from_slice(&self.directory_bytes.to_le_bytes());
        out.extend_from_slice(&self.filter_bytes.to_le_bytes());
        out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
        out.extend_from_slice(&MAGIC);
        let mut bytes = [0; TRAILER_BYTES];
        bytes.copy_from_slice(&out);
        bytes
    }

    /// The trailer, or what is wrong with it.
    fn decode(bytes: &[u8; TRAILER_BYTES]) -> Result<Self, Wrong> {
        let u32_at = |at: usize| {
            let mut four = [0; 4];
            four.copy_from_slice(&bytes[at..at + 4]);
            u32::from_le_bytes(four)
        };
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        if bytes[TRAILER_BYTES - 8..] != MAGIC {
            return Err(Wrong::Damaged("does not end as an index file does"));
        }
        if crc32c::crc32c(&bytes[..TRAILER_BYTES - 12]) != u32_at(TRAILER_BYTES - 12) {
            return Err(Wrong::Damaged("the checksum of its trailer does not match"));
        }
        let version = u32_at(48);
        if ![PLAIN_VERSION, VERSION].contains(&version) {
            return Err(Wrong::Version(version));
        }
        if u32_at(28) as usize != BLOCK_BYTES {
            return Err(Wrong::Damaged("its block size is another"));
        }
        Ok(Self {
            version,
            segment: u64_at(0),
            row_count: u64_at(8),
            data_bytes: u64_at(16),
            data_crc: u32_at(24),
            blocks_crc: u32_at(32),
            directory_crc: u32_at(36),
            keys_bytes: u64_at(40),
            directory_bytes: u64_at(52),
            filter_bytes: u64_at(60),
        })
    }
}

/// Why a trailer cannot be used.
enum Wrong {
    Damaged(&'static str),
    /// Whole, but of another version.
    Version(u32),
}

fn header(version: u32, form: KeyForm) -> [u8; HEADER_BYTES] {
    let mut out = [0; HEADER_BYTES];
    out[..8].copy_from_slice(&MAGIC);
    out[8..12].copy_from_slice(&version.to_le_bytes());
    out[12..].copy_from_slice(&form_code(form).to_le_bytes());
    out
}

/// Whose index it is.
#[derive(Debug)]
pub(super) struct Owner {
    pub(super) segment: SegmentId,
    pub(super) row_count: u64,
}

/// Writes an index file under its temporary name: chunk after chunk, as the keys come.
#[derive(Debug)]
pub(super) struct IndexWriter {
    out: BlockWriter,
    temporary: PathBuf,
    places: Vec<Place>,
    /// Bytes so far.
    len: u64,
}

impl IndexWriter {
    pub(super) fn create(vfs: &dyn Vfs, path: &Path, form: KeyForm) -> Result<Self> {
        let temporary = temporary(path);
        let mut out = BlockWriter::create(vfs, &temporary)?;
        out.write_all(&header(VERSION, form)).map_err(|e| at_path(e, &temporary))?;
        Ok(Self { out, temporary, places: Vec::new(), len: KEYS_OFFSET })
    }

    /// Appends the next chunk.
    pub(super) fn chunk(&mut self, bytes: &[u8]) -> Result<()> {
        let place = self.append(bytes)?;
        self.places.push(place);
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> Result<Place> {
        let len = u32::try_from(bytes.len())
            .map_err(|_| Error::exhausted("a key exceeds 4 GiB: use shorter keys"))?;
        let place = Place { offset: self.len, len, crc: crc32c::crc32c(bytes) };
        self.len += bytes.len() as u64;
        self.out.write_all(bytes).map_err(|e| at_path(e, &self.temporary))?;
        Ok(place)
    }

    /// Completes and syncs the file. `index` and `filters` are of the chunks that were written.
    pub(super) fn finish(
        mut self,
        owner: &Owner,
        index: &KeyIndex,
        filters: Option<&BuiltFilters>,
        data: &Checksums,
    ) -> Result<Checksums> {
        let mut directory = Vec::new();
        put_places(&self.places, &mut directory);
        let keys_bytes = self.len - KEYS_OFFSET;
        if let Some(built) = filters {
            let parts = built.parts.iter().map(|part| self.append(part));
            let places = parts.collect::<Result<Vec<Place>>>()?;
            put_places(&places, &mut directory);
            built.filters.encode(&mut directory);
        }
        index.encode(&mut directory);
        let blocks: Vec<u8> = data.blocks.iter().flat_map(|crc| crc.to_le_bytes()).collect();
        let trailer = Trailer {
            version: VERSION,
            segment: owner.segment.0,
            row_count: owner.row_count,
            data_bytes: data.len,
            data_crc: data.whole,
            blocks_crc: crc32c::crc32c(&blocks),
            keys_bytes,
            filter_bytes: self.len - KEYS_OFFSET - keys_bytes,
            directory_bytes: directory.len() as u64,
            directory_crc: crc32c::crc32c(&directory),
        };
        let mut out = self.out;
        let written = (|| {
            out.write_all(&directory)?;
            out.write_all(&blocks)?;
            out.write_all(&trailer.encode())?;
            out.finish()
        })();
        written.map_err(|e| at_path(e, &self.temporary))
    }
}

/// Lengths and checksums of chunks, or of parts of filters.
fn put_places(places: &[Place], directory: &mut Vec<u8>) {
    directory.extend_from_slice(&(places.len() as u32).to_le_bytes());
    for place in places {
        directory.extend_from_slice(&place.len.to_le_bytes());
        directory.extend_from_slice(&place.crc.to_le_bytes());
    }
}

/// An index file that is open and whose trailer fits the segment.
#[derive(Debug)]
pub(super) struct IndexFile<'a> {
    file: Arc<dyn VfsFile>,
    path: &'a Path,
    trailer: Trailer,
}

impl<'a> IndexFile<'a> {
    /// Opens the index of the segment that `meta` describes.
    pub(super) fn open(
        vfs: &dyn Vfs,
        path: &'a Path,
        meta: &SegmentMeta,
        form: KeyForm,
    ) -> Result<Self> {
        check_may_read()?;
        let file = vfs.open(path).map_err(|e| at_path(e, path))?;
        let len = file.len().map_err(|e| at_path(e, path))?;
        let damaged = |what: &str| Error::corruption(format!("{}: {what}", path.display()));
        if len < (HEADER_BYTES + TRAILER_BYTES) as u64 {
            return Err(damaged("shorter than an index file"));
        }
        let mut tail = [0; TRAILER_BYTES];
        file.read_at(&mut tail, len - TRAILER_BYTES as u64).map_err(|e| at_path(e, path))?;
        let trailer = Trailer::decode(&tail).map_err(|wrong| match wrong {
            Wrong::Damaged(what) => damaged(what),
            Wrong::Version(version) => Error::new(
                ErrorKind::Unsupported,
                format!(
                    "{}: format version {version} is not supported, only {PLAIN_VERSION} and {VERSION}: use the release that wrote it",
                    path.display()
                ),
            ),
        })?;
        let mut head = [0; HEADER_BYTES];
        file.read_at(&mut head, 0).map_err(|e| at_path(e, path))?;
        if head != header(trailer.version, form) {
            return Err(damaged("does not begin as an index file does"));
        }
        let blocks_bytes = meta.data_bytes.div_ceil(BLOCK_BYTES as u64) * 4;
        let lengths = trailer
            .keys_bytes
            .checked_add(trailer.directory_bytes)
            .and_then(|l| l.checked_add(trailer.filter_bytes))
            .and_then(|l| l.checked_add(blocks_bytes + (HEADER_BYTES + TRAILER_BYTES) as u64));
        if trailer.segment != meta.id.0
            || trailer.row_count != meta.row_count
            || (trailer.data_bytes, trailer.data_crc) != (meta.data_bytes, meta.data_crc)
            || lengths != Some(len)
        {
            return Err(damaged("is not the index of its segment"));
        }
        Ok(Self { file, path, trailer })
    }

    /// Checksums of the Parquet file's blocks.
    pub(super) fn blocks(&self) -> Result<Vec<u32>> {
        let offset = self.directory_offset() + self.trailer.directory_bytes;
        let len = self.trailer.data_bytes.div_ceil(BLOCK_BYTES as u64) * 4;
        let bytes = self.section(offset, len as usize, self.trailer.blocks_crc)?;
        Ok(bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    }

    /// What finds the keys; none of them.
    pub(super) fn keys(&self, form: KeyForm) -> Result<SegmentKeys> {
        let len = self.trailer.directory_bytes as usize;
        let bytes = self.section(self.directory_offset(), len, self.trailer.directory_crc)?;
        let damaged = |what: String| Error::corruption(format!("{}: {what}", self.path.display()));
        let mut model = &bytes[..];
        let places = take_places(&mut model, KEYS_OFFSET, self.trailer.keys_bytes)
            .ok_or_else(|| damaged("its directory is not that of its keys".into()))?;
        let lengths: Vec<u32> = places.iter().map(|place| place.len).collect();
        let filters = self.filters(&mut model, lengths.len())?;
        let index =
            KeyIndex::decode(form, model, &lengths).map_err(|e| e.context(self.path.display()))?;
        if index.len() as u64 != self.trailer.row_count {
            let (found, rows) = (index.len(), self.trailer.row_count);
            return Err(damaged(format!("holds {found} keys for {rows} rows")));
        }
        Ok(SegmentKeys { index, places: places.into(), filters })
    }

    /// Takes off the directory where the filters of so many chunks lie.
    fn filters(
        &self,
        directory: &mut &[u8],
        chunk_count: usize,
    ) -> Result<Option<Arc<SegmentFilters>>> {
        let len = self.trailer.filter_bytes;
        if len == 0 {
            return Ok(None);
        }
        let offset = KEYS_OFFSET + self.trailer.keys_bytes;
        let places = take_places(directory, offset, len).ok_or_else(|| {
            let path = self.path.display();
            Error::corruption(format!("{path}: its directory is not that of its filters"))
        })?;
        let lengths: Vec<u32> = places.iter().map(|place| place.len).collect();
        let filters = Filters::decode(directory, chunk_count, &lengths)
            .map_err(|e| e.context(self.path.display()))?;
        Ok(Some(Arc::new(SegmentFilters::new(filters, places))))
    }

    fn directory_offset(&self) -> u64 {
        KEYS_OFFSET + self.trailer.keys_bytes + self.trailer.filter_bytes
    }

    /// What finds the keys, and all of them. Filters are checked.
    pub(super) fn all_keys(&self, form: KeyForm) -> Result<SegmentKeys> {
        let keys = self.keys(form)?;
        for (i, place) in keys.places.iter().enumerate() {
            let bytes = self.section(place.offset, place.len as usize, place.crc)?;
            keys.put(i, &Chunk::new(&bytes)).map_err(|e| e.context(self.path.display()))?;
        }
        for place in keys.filters.iter().flat_map(|filters| &filters.places) {
            self.section(place.offset, place.len as usize, place.crc)?;
        }
        Ok(keys)
    }

    fn section(&self, offset: u64, len: usize, crc: u32) -> Result<Vec<u8>> {
        read_section(&*self.file, self.path, offset, len, crc)
    }
}

/// Takes off a directory the places of parts that lie back to back, `len` bytes from `offset`.
fn take_places(directory: &mut &[u8], mut offset: u64, len: u64) -> Option<Vec<Place>> {
    let end = offset.checked_add(len)?;
    let (count, rest) = directory.split_first_chunk()?;
    let count = u32::from_le_bytes(*count) as usize;
    let (table, rest) = rest.split_at_checked(count.checked_mul(8)?)?;
    let places = table.as_chunks::<8>().0.iter().map(|entry| {
        let [l0, l1, l2, l3, c0, c1, c2, c3] = *entry;
        let (len, crc) =
            (u32::from_le_bytes([l0, l1, l2, l3]), u32::from_le_bytes([c0, c1, c2, c3]));
        let place = Place { offset, len, crc };
        offset += u64::from(len);
        place
    });
    let places: Vec<Place> = places.collect();
    *directory = rest;
    (offset == end).then_some(places)
}

/// The bytes of a chunk of keys or a part of filters. Its place comes from a directory that was verified.
pub(super) fn read_place(vfs: &dyn Vfs, path: &Path, place: Place) -> Result<Vec<u8>> {
    check_may_read()?;
    let file = vfs.open(path).map_err(|e| at_path(e, path))?;
    read_section(&*file, path, place.offset, place.len as usize, place.crc)
}

/// Reads and verifies `len` bytes.
fn read_section(
    file: &dyn VfsFile,
    path: &Path,
    offset: u64,
    len: usize,
    crc: u32,
) -> Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    file.read_at(&mut bytes, offset).map_err(|e| at_path(e, path))?;
    if crc32c::crc32c(&bytes) != crc {
        return Err(Error::corruption(format!(
            "{}: the checksum of the section at offset {offset} does not match",
            path.display()
        )));
    }
    Ok(bytes)
}
