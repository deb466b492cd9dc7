//! Files in checked blocks: a writer that takes the CRC32C of every block on the way, and a reader
//! that verifies whatever it reads.
//!
//! The checks are of fixed blocks of the file and not of Parquet's pages: that covers the footer and the
//! page index too, and any part of a file can be read and verified alone.

use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use prost::bytes::Bytes;

use crate::engine::error::{Error, Result};
use crate::engine::fs::{Vfs, VfsFile};
use crate::engine::in_memory::check_may_read;

/// Bytes of a checked block. A read of less reads the whole block.
pub(super) const BLOCK_BYTES: usize = 16 << 10;
/// Bytes written at a time; whole blocks.
const BUFFER_BYTES: usize = 64 * BLOCK_BYTES;

/// Lengths and checksums of a file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Checksums {
    /// CRC32C of every block; the last may be short.
    pub(super) blocks: Vec<u32>,
    /// CRC32C of the whole file.
    pub(super) whole: u32,
    /// Length of the file.
    pub(super) len: u64,
}

impl Checksums {
    /// Takes in the next bytes of the file: whole blocks, unless they are the last.
    pub(super) fn update(&mut self, bytes: &[u8]) {
        for block in bytes.chunks(BLOCK_BYTES) {
            self.blocks.push(crc32c::crc32c(block));
            // Whole right after: the block is still in the first-level cache.
            self.whole = crc32c::crc32c_append(self.whole, block);
        }
        self.len += bytes.len() as u64;
    }
}

/// Appends to a new file through a buffer.
#[derive(Debug)]
pub(super) struct BlockWriter {
    file: Arc<dyn VfsFile>,
    buffer: Vec<u8>,
    checksums: Checksums,
}

impl BlockWriter {
    pub(super) fn create(vfs: &dyn Vfs, path: &Path) -> Result<Self> {
        let file = vfs.create(path).map_err(|e| at_path(e, path))?;
        Ok(Self { file, buffer: Vec::with_capacity(BUFFER_BYTES), checksums: Checksums::default() })
    }

    fn write_buffer(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let offset = self.checksums.len;
        self.checksums.update(&self.buffer);
        self.file.write_at(&self.buffer, offset)?;
        self.file.start_write_back(offset, self.buffer.len() as u64);
        self.buffer.clear();
        Ok(())
    }

    /// Writes what is left, syncs, and gives lengths and checksums.
    pub(super) fn finish(mut self) -> io::Result<Checksums> {
        self.write_buffer()?;
        self.file.sync()?;
        Ok(self.checksums)
    }
}

impl Write for BlockWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(BUFFER_BYTES - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..taken]);
        if self.buffer.len() == BUFFER_BYTES {
            self.write_buffer()?;
        }
        Ok(taken)
    }

    /// Does nothing: a block is written when it is full.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads ranges of a file, each block verified.
#[derive(Debug)]
pub(super) struct BlockReader<'a> {
    file: Arc<dyn VfsFile>,
    path: &'a Path,
    len: u64,
    blocks: &'a [u32],
}

impl<'a> BlockReader<'a> {
    /// Opens the file at `path`, which is `len` bytes long and whose blocks have the checksums `blocks`.
    pub(super) fn open(vfs: &dyn Vfs, path: &'a Path, len: u64, blocks: &'a [u32]) -> Result<Self> {
        check_may_read()?;
        let file = vfs.open(path).map_err(|e| at_path(e, path))?;
        let found = file.len().map_err(|e| at_path(e, path))?;
        if found != len || blocks.len() as u64 != len.div_ceil(BLOCK_BYTES as u64) {
            return Err(Error::corruption(format!(
                "{} has {found} bytes, not {len}: restore it from a backup",
                path.display()
            )));
        }
        Ok(Self { file, path, len, blocks })
    }

    /// Length of the file.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Says that `range` will be read soon.
    pub(super) fn will_read(&self, range: &Range<u64>) {
        let start = range.start / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
        let end = range.end.next_multiple_of(BLOCK_BYTES as u64).min(self.len);
        self.file.start_read(start, end.saturating_sub(start));
    }

    /// The bytes of `range`.
    pub(super) fn read(&self, range: Range<u64>) -> Result<Bytes> {
        if range.start > range.end || range.end > self.len {
            return Err(Error::corruption(format!(
                "{}: bytes {}..{} lie outside its {} bytes",
                self.path.display(),
                range.start,
                range.end,
                self.len
            )));
        }
        let block_bytes = BLOCK_BYTES as u64;
        let first = range.start / block_bytes;
        let start = first * block_bytes;
        let end = range.end.next_multiple_of(block_bytes).min(self.len);
        let mut bytes = vec![0; (end - start) as usize];
        self.file.read_at(&mut bytes, start).map_err(|e| at_path(e, self.path))?;
        for (block, i) in bytes.chunks(BLOCK_BYTES).zip(first as usize..) {
            if crc32c::crc32c(block) != self.blocks[i] {
                return Err(Error::corruption(format!(
                    "{}: the checksum of the block at offset {} does not match: restore the file from a backup",
                    self.path.display(),
                    i * BLOCK_BYTES
                )));
            }
        }
        let from = (range.start - start) as usize;
        Ok(Bytes::from(bytes).slice(from..from + (range.end - range.start) as usize))
    }
}

/// Reads a whole file for its checksums.
pub(super) fn checksum_file(vfs: &dyn Vfs, path: &Path) -> Result<Checksums> {
    let file = vfs.open(path).map_err(|e| at_path(e, path))?;
    let len = file.len().map_err(|e| at_path(e, path))?;
    let mut checksums = Checksums::default();
    let mut buffer = vec![0; BUFFER_BYTES.min(len as usize)];
    while checksums.len < len {
        let part = &mut buffer[..(len - checksums.len).min(BUFFER_BYTES as u64) as usize];
        file.read_at(part, checksums.len).map_err(|e| at_path(e, path))?;
        checksums.update(part);
    }
    Ok(checksums)
}

/// An error of the operating system, with the file that it is about.
pub(super) fn at_path(error: io::Error, path: &Path) -> Error {
    Error::from(error).context(path.display())
}

/// The name under which a file is written until it is whole.
pub(super) fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    name.into()
}
