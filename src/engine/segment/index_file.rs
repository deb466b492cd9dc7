//! The `.idx` file of a segment: learned keys, and checksums of the Parquet file's blocks.

use std::path::Path;

use super::SegmentMeta;
use super::blocks::{BLOCK_BYTES, BlockWriter, Checksums, at_path, temporary};
use crate::engine::error::{Error, ErrorKind, Result};
use crate::engine::fs::{Vfs, VfsFile};
use crate::engine::id::SegmentId;
use crate::engine::index::{LearnedKeys, ModelStats};
use crate::engine::key::{KeyColumn, KeyForm};

const MAGIC: [u8; 8] = *b"OMENIDX\0";
const VERSION: u32 = 1;
/// Magic, version and form of the keys.
const HEADER_BYTES: usize = 16;
/// See [`Trailer::encode`].
const TRAILER_BYTES: usize = 80;

/// The keys of a segment, in memory.
#[derive(Debug)]
pub(super) enum SegmentKeys {
    U64(LearnedKeys<u64>),
    U128(LearnedKeys<u128>),
    /// Not in the file: encoded from the key columns at first use.
    Bytes(KeyColumn),
}

impl SegmentKeys {
    /// Trains on all keys of a segment.
    pub(super) fn build(keys: KeyColumn) -> Self {
        match keys {
            KeyColumn::U64(keys) => Self::U64(LearnedKeys::build(&keys)),
            KeyColumn::U128(keys) => Self::U128(LearnedKeys::build(&keys)),
            bytes @ KeyColumn::Bytes(_) => Self::Bytes(bytes),
        }
    }

    /// Size and precision of the model; zeros where there is none.
    pub(super) fn stats(&self) -> ModelStats {
        match self {
            Self::U64(keys) => keys.stats(),
            Self::U128(keys) => keys.stats(),
            Self::Bytes(_) => ModelStats::default(),
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        match self {
            Self::U64(keys) => keys.memory_bytes(),
            Self::U128(keys) => keys.memory_bytes(),
            Self::Bytes(keys) => keys.memory_bytes(),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::U64(keys) => keys.len(),
            Self::U128(keys) => keys.len(),
            Self::Bytes(keys) => keys.len(),
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::U64(keys) => keys.encode(out),
            Self::U128(keys) => keys.encode(out),
            Self::Bytes(_) => {}
        }
    }

    fn decode(form: KeyForm, bytes: &[u8]) -> Result<Self> {
        match form {
            KeyForm::U64 => Ok(Self::U64(LearnedKeys::decode_from(bytes)?)),
            KeyForm::U128 => Ok(Self::U128(LearnedKeys::decode_from(bytes)?)),
            KeyForm::Bytes => Err(Error::internal("row-encoded keys are not in the index file")),
        }
    }
}

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
    segment: u64,
    row_count: u64,
    data_bytes: u64,
    data_crc: u32,
    blocks_crc: u32,
    keys_bytes: u64,
    keys_crc: u32,
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
        out.extend_from_slice(&self.keys_crc.to_le_bytes());
        out.extend_from_slice(&self.keys_bytes.to_le_bytes());
        out.extend_from_slice(&VERSION.to_le_bytes());
        // Reserved.
        out.resize(TRAILER_BYTES - 12, 0);
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
        if u32_at(48) != VERSION {
            return Err(Wrong::Version(u32_at(48)));
        }
        if u32_at(28) as usize != BLOCK_BYTES {
            return Err(Wrong::Damaged("its block size is another"));
        }
        Ok(Self {
            segment: u64_at(0),
            row_count: u64_at(8),
            data_bytes: u64_at(16),
            data_crc: u32_at(24),
            blocks_crc: u32_at(32),
            keys_crc: u32_at(36),
            keys_bytes: u64_at(40),
        })
    }
}

/// Why a trailer cannot be used.
enum Wrong {
    Damaged(&'static str),
    /// Whole, but of another version.
    Version(u32),
}

fn header(form: KeyForm) -> [u8; HEADER_BYTES] {
    let mut out = [0; HEADER_BYTES];
    out[..8].copy_from_slice(&MAGIC);
    out[8..12].copy_from_slice(&VERSION.to_le_bytes());
    out[12..].copy_from_slice(&form_code(form).to_le_bytes());
    out
}

/// Whose index it is.
#[derive(Debug)]
pub(super) struct Owner {
    pub(super) segment: SegmentId,
    pub(super) row_count: u64,
    pub(super) form: KeyForm,
}

/// Writes an index file under its temporary name and syncs it.
pub(super) fn write(
    vfs: &dyn Vfs,
    path: &Path,
    owner: &Owner,
    keys: &SegmentKeys,
    data: &Checksums,
) -> Result<Checksums> {
    use std::io::Write;

    let mut encoded = Vec::new();
    keys.encode(&mut encoded);
    let blocks: Vec<u8> = data.blocks.iter().flat_map(|crc| crc.to_le_bytes()).collect();
    let trailer = Trailer {
        segment: owner.segment.0,
        row_count: owner.row_count,
        data_bytes: data.len,
        data_crc: data.whole,
        blocks_crc: crc32c::crc32c(&blocks),
        keys_bytes: encoded.len() as u64,
        keys_crc: crc32c::crc32c(&encoded),
    };
    let temporary = temporary(path);
    let mut out = BlockWriter::create(vfs, &temporary)?;
    let written = (|| {
        out.write_all(&header(owner.form))?;
        out.write_all(&encoded)?;
        out.write_all(&blocks)?;
        out.write_all(&trailer.encode())?;
        out.finish()
    })();
    written.map_err(|e| at_path(e, &temporary))
}

/// An index file that is open and whose trailer fits the segment.
#[derive(Debug)]
pub(super) struct IndexFile<'a> {
    file: std::sync::Arc<dyn VfsFile>,
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
                    "{}: format version {version} is not supported, only {VERSION}: use the release that wrote it",
                    path.display()
                ),
            ),
        })?;
        let mut head = [0; HEADER_BYTES];
        file.read_at(&mut head, 0).map_err(|e| at_path(e, path))?;
        if head != header(form) {
            return Err(damaged("does not begin as an index file does"));
        }
        let blocks_bytes = meta.data_bytes.div_ceil(BLOCK_BYTES as u64) * 4;
        let lengths =
            trailer.keys_bytes.checked_add(blocks_bytes + (HEADER_BYTES + TRAILER_BYTES) as u64);
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
        let offset = HEADER_BYTES as u64 + self.trailer.keys_bytes;
        let len = self.trailer.data_bytes.div_ceil(BLOCK_BYTES as u64) * 4;
        let bytes = self.section(offset, len, self.trailer.blocks_crc)?;
        Ok(bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    }

    /// The learned keys.
    pub(super) fn keys(&self, form: KeyForm) -> Result<SegmentKeys> {
        let offset = HEADER_BYTES as u64;
        let bytes = self.section(offset, self.trailer.keys_bytes, self.trailer.keys_crc)?;
        let keys = SegmentKeys::decode(form, &bytes).map_err(|e| e.context(self.path.display()))?;
        if keys.len() as u64 != self.trailer.row_count {
            return Err(Error::corruption(format!(
                "{}: holds {} keys for {} rows",
                self.path.display(),
                keys.len(),
                self.trailer.row_count
            )));
        }
        Ok(keys)
    }

    fn section(&self, offset: u64, len: u64, crc: u32) -> Result<Vec<u8>> {
        let mut bytes = vec![0; len as usize];
        self.file.read_at(&mut bytes, offset).map_err(|e| at_path(e, self.path))?;
        if crc32c::crc32c(&bytes) != crc {
            return Err(Error::corruption(format!(
                "{}: the checksum of the section at offset {offset} does not match",
                self.path.display()
            )));
        }
        Ok(bytes)
    }
}
