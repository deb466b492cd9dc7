//! [`Rooted`]: the files of one directory, named from there. Errors then name a file of the database without telling where the
//! server keeps it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Vfs, VfsFile};

/// A directory of another file system as one of its own. The empty path is the directory.
#[derive(Debug)]
pub(crate) struct Rooted {
    inner: Arc<dyn Vfs>,
    root: PathBuf,
    names: Names,
}

/// Takes the directory out of errors.
#[derive(Debug, Clone)]
struct Names(Arc<str>);

impl Names {
    /// What paths below the directory begin with.
    fn new(root: &Path) -> Self {
        Self(format!("{}{}", root.display(), std::path::MAIN_SEPARATOR).into())
    }

    fn relative<T>(&self, result: io::Result<T>) -> io::Result<T> {
        result.map_err(|e| {
            let message = e.to_string();
            match message.contains(&*self.0) {
                true => io::Error::new(e.kind(), message.replace(&*self.0, "")),
                false => e,
            }
        })
    }
}

impl Rooted {
    pub(crate) fn new(inner: Arc<dyn Vfs>, root: PathBuf) -> Self {
        Self { names: Names::new(&root), inner, root }
    }

    fn at(&self, path: &Path) -> PathBuf {
        // `join` of an empty path would end with a separator.
        if path.as_os_str().is_empty() { self.root.clone() } else { self.root.join(path) }
    }

    fn file(&self, opened: io::Result<Arc<dyn VfsFile>>) -> io::Result<Arc<dyn VfsFile>> {
        let inner = self.names.relative(opened)?;
        Ok(Arc::new(RootedFile { inner, names: self.names.clone() }))
    }
}

impl Vfs for Rooted {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        self.file(self.inner.open(&self.at(path)))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        self.file(self.inner.create(&self.at(path)))
    }

    fn open_write(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        self.file(self.inner.open_write(&self.at(path)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.names.relative(self.inner.rename(&self.at(from), &self.at(to)))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.names.relative(self.inner.remove(&self.at(path)))
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.names.relative(self.inner.remove_dir(&self.at(path)))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.names.relative(self.inner.create_dir_all(&self.at(path)))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let own = |found: PathBuf| found.strip_prefix(&self.root).map(Path::to_owned).ok();
        let found = self.names.relative(self.inner.list(&self.at(path)))?;
        Ok(found.into_iter().filter_map(own).collect())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.names.relative(self.inner.exists(&self.at(path)))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.names.relative(self.inner.sync_dir(&self.at(path)))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        self.names.relative(self.inner.lock(&self.at(path)))
    }
}

/// An open file of a [`Rooted`].
#[derive(Debug)]
struct RootedFile {
    inner: Arc<dyn VfsFile>,
    names: Names,
}

impl VfsFile for RootedFile {
    fn len(&self) -> io::Result<u64> {
        self.names.relative(self.inner.len())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.names.relative(self.inner.read_at(buf, offset))
    }

    fn start_read(&self, offset: u64, len: u64) {
        self.inner.start_read(offset, len);
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.names.relative(self.inner.write_at(buf, offset))
    }

    fn sync(&self) -> io::Result<()> {
        self.names.relative(self.inner.sync())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.names.relative(self.inner.set_len(len))
    }

    fn start_write_back(&self, offset: u64, len: u64) {
        self.inner.start_write_back(offset, len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::fs::fault::FaultFs;

    #[test]
    fn files_are_named_from_the_directory() {
        let fs = FaultFs::new();
        let rooted = Rooted::new(Arc::new(fs.clone()), PathBuf::from("/srv/secret"));
        rooted.create_dir_all(Path::new("")).unwrap();
        rooted.create_dir_all(Path::new("tables")).unwrap();
        rooted.create(Path::new("tables/1")).unwrap().write_at(b"x", 0).unwrap();
        rooted.rename(Path::new("tables/1"), Path::new("tables/2")).unwrap();
        rooted.sync_dir(Path::new("tables")).unwrap();
        assert_eq!(rooted.list(Path::new("tables")).unwrap(), [PathBuf::from("tables/2")]);
        assert_eq!(rooted.list(Path::new("")).unwrap(), [PathBuf::from("tables")]);
        assert!(fs.contents(Path::new("/srv/secret/tables/2")).is_some());
        assert!(rooted.exists(Path::new("tables/2")).unwrap());
        let missing = rooted.open(Path::new("tables/3")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        assert!(missing.to_string().starts_with("tables/3"), "{missing}");
        rooted.remove(Path::new("tables/2")).unwrap();
        assert!(!rooted.exists(Path::new("tables/2")).unwrap());
    }
}
