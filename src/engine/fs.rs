//! [`Vfs`]: the one door to files, and the seam where tests inject faults.
//!
//! [`OsFs`] is the operating system's file system. [`fault::FaultFs`] is one in memory that loses what
//! was not synced and fails where a test wants it to.

pub mod fault;
mod os;
mod rooted;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use os::OsFs;
pub(crate) use rooted::Rooted;

/// A file system. Paths are whole paths; every call is synchronous.
pub trait Vfs: Send + Sync + std::fmt::Debug {
    /// Opens an existing file to read.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>>;
    /// Makes a file to write and read; fails where one exists.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>>;
    /// Opens an existing file to write and read, at its present length.
    fn open_write(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>>;
    /// Renames a file over whatever has the new name. Durable only after [`Vfs::sync_dir`].
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty directory.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes a directory and its parents, each synced into its parent.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Paths of what a directory holds, sorted.
    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>>;
    /// Whether a file or directory exists.
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// Makes creations, renames and removals in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Takes the exclusive lock of a file (made if missing) until the result is dropped; an error of
    /// kind `WouldBlock` says that another process holds it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>>;
}

/// An open file. Reads and writes name their offset, so that one handle serves many threads.
#[allow(clippy::len_without_is_empty)]
pub trait VfsFile: Send + Sync + std::fmt::Debug {
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Fills `buf` from `offset`; an end of file before it is full is an error.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
    /// Asks for a part of the file to be fetched into memory, without waiting for it: it will be read soon.
    fn start_read(&self, _offset: u64, _len: u64) {}
    /// Writes all of `buf` at `offset`.
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;
    /// Makes contents (and what is needed to read them) durable: `fdatasync`.
    fn sync(&self) -> io::Result<()>;
    /// Cuts or extends the file.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Asks for write-back of what was written so far to begin, so that a later [`VfsFile::sync`] is short.
    fn start_write_back(&self, _offset: u64, _len: u64) {}
}
