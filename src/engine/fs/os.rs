//! [`OsFs`]: the operating system's files.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Vfs, VfsFile};

/// The file system of the operating system. Its errors name the operation and the path.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsFs;

#[derive(Debug)]
struct OsFile {
    file: File,
    path: PathBuf,
}

/// What failed, and where: the operating system says neither.
#[derive(Debug)]
struct PathError {
    operation: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl std::fmt::Display for PathError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: {}", self.operation, self.path.display(), self.source)
    }
}

impl std::error::Error for PathError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

fn at(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> io::Error {
    move |source| {
        io::Error::new(source.kind(), PathError { operation, path: path.to_owned(), source })
    }
}

fn open_with(
    options: &OpenOptions,
    operation: &'static str,
    path: &Path,
) -> io::Result<Arc<dyn VfsFile>> {
    let file = options.open(path).map_err(at(operation, path))?;
    Ok(Arc::new(OsFile { file, path: path.to_owned() }))
}

/// The directory that holds `path`.
fn parent_of(path: &Path) -> Option<&Path> {
    path.parent().map(|p| if p.as_os_str().is_empty() { Path::new(".") } else { p })
}

impl Vfs for OsFs {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        open_with(OpenOptions::new().read(true), "open", path)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        open_with(OpenOptions::new().read(true).write(true).create_new(true), "create", path)
    }

    fn open_write(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        open_with(OpenOptions::new().read(true).write(true), "open", path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to).map_err(at("rename", from))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path).map_err(at("remove", path))
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_dir(path).map_err(at("remove directory", path))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut missing = Vec::new();
        let mut existing = Some(path);
        while let Some(dir) = existing {
            if self.exists(dir)? {
                break;
            }
            missing.push(dir);
            existing = parent_of(dir);
        }
        // A process killed between making a directory and syncing its parent leaves one that exists
        // but is not durable. Its children are only made after that sync, so one level is enough.
        if let Some(parent) = existing.and_then(parent_of) {
            match self.sync_dir(parent) {
                // Where we may not look, somebody else made the directory for us.
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {}
                synced => synced?,
            }
        }
        for dir in missing.into_iter().rev() {
            match std::fs::create_dir(dir) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                made => made.map_err(at("create directory", dir))?,
            }
            if let Some(parent) = parent_of(dir) {
                self.sync_dir(parent)?;
            }
        }
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let list = || -> io::Result<Vec<PathBuf>> {
            std::fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect()
        };
        let mut paths = list().map_err(at("list", path))?;
        paths.sort_unstable();
        Ok(paths)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists().map_err(at("look up", path))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path).and_then(|dir| dir.sync_all()).map_err(at("sync directory", path))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(at("open", path))?;
        match file.try_lock() {
            // The lock lives as long as the open file.
            Ok(()) => Ok(Box::new(file)),
            Err(TryLockError::WouldBlock) => {
                Err(at("lock", path)(io::Error::from(io::ErrorKind::WouldBlock)))
            }
            Err(TryLockError::Error(e)) => Err(at("lock", path)(e)),
        }
    }
}

impl VfsFile for OsFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata().map_err(at("look up", &self.path))?.len())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buf, offset).map_err(at("read", &self.path))
    }

    fn start_read(&self, offset: u64, len: u64) {
        start_read(&self.file, offset, len);
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(buf, offset).map_err(at("write", &self.path))
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data().map_err(at("sync", &self.path))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len).map_err(at("set the length of", &self.path))
    }

    fn start_write_back(&self, offset: u64, len: u64) {
        start_write_back(&self.file, offset, len);
    }
}

#[cfg(target_os = "linux")]
fn start_write_back(file: &File, offset: u64, len: u64) {
    use std::os::fd::AsRawFd;

    let (Ok(offset), Ok(len)) = (i64::try_from(offset), i64::try_from(len)) else {
        return;
    };
    // SAFETY: it takes no pointer, and the descriptor is open as long as `file` is borrowed.
    // The result is of no use: this is a hint, and an error of the disk shows up at the sync.
    unsafe { libc::sync_file_range(file.as_raw_fd(), offset, len, libc::SYNC_FILE_RANGE_WRITE) };
}

#[cfg(target_os = "linux")]
fn start_read(file: &File, offset: u64, len: u64) {
    use std::os::fd::AsRawFd;

    let (Ok(offset), Ok(len)) = (i64::try_from(offset), i64::try_from(len)) else {
        return;
    };
    // SAFETY: it takes no pointer, and the descriptor is open as long as `file` is borrowed.
    // The result is of no use: this is a hint, and an error of the disk shows up at the read.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), offset, len, libc::POSIX_FADV_WILLNEED) };
}

#[cfg(not(target_os = "linux"))]
fn start_read(_file: &File, _offset: u64, _len: u64) {}

#[cfg(not(target_os = "linux"))]
fn start_write_back(_file: &File, _offset: u64, _len: u64) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_directories_and_names() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("a/b/c");
        OsFs.create_dir_all(&dir).unwrap();
        OsFs.create_dir_all(&dir).unwrap();
        let path = dir.join("file");
        let file = OsFs.create(&path).unwrap();
        file.write_at(b"hello", 3).unwrap();
        file.start_write_back(0, 8);
        file.sync().unwrap();
        assert_eq!(file.len().unwrap(), 8);
        assert_eq!(OsFs.create(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        let to = dir.join("renamed");
        OsFs.rename(&path, &to).unwrap();
        OsFs.sync_dir(&dir).unwrap();
        assert!(!OsFs.exists(&path).unwrap());
        assert_eq!(OsFs.list(&dir).unwrap(), std::slice::from_ref(&to));
        let mut buf = [1; 8];
        OsFs.open(&to).unwrap().read_at(&mut buf, 0).unwrap();
        assert_eq!(&buf, b"\0\0\0hello");
        let past_end = OsFs.open(&to).unwrap().read_at(&mut buf, 1).unwrap_err();
        assert_eq!(past_end.kind(), io::ErrorKind::UnexpectedEof);
        assert!(past_end.to_string().contains("renamed"), "{past_end}");
        OsFs.open_write(&to).unwrap().set_len(2).unwrap();
        assert_eq!(OsFs.open(&to).unwrap().len().unwrap(), 2);
        OsFs.remove(&to).unwrap();
        OsFs.remove_dir(&dir).unwrap();
        let missing = OsFs.open(&to).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_lock_is_held_once() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("LOCK");
        let held = OsFs.lock(&path).unwrap();
        assert_eq!(OsFs.lock(&path).err().unwrap().kind(), io::ErrorKind::WouldBlock);
        drop(held);
        OsFs.lock(&path).unwrap();
    }
}
