//! [`FaultFs`]: a file system in memory that is as treacherous as a real one may be.
//!
//! * What was written but not synced is, after a [`FaultFs::crash`], there, not there, or there in
//!   part, block by block. So is what was created, renamed or removed in a directory that was not
//!   synced.
//! * Every call is counted and can be made to fail ([`FaultFs::inject`]): once or for good, for want
//!   of space, with an error of the device, or as a power cut, after which every call fails.
//! * A failed sync loses what it did not write, as Linux does: the pages count as clean, reads show
//!   them still, and the next sync succeeds without writing them. Names are not lost like that: a file
//!   system keeps them in its journal, and where it cannot write that, it takes no more writes at all.
//!
//! All choices follow from a seed, so a failure can be replayed.
//!
//! ```
//! use std::path::Path;
//! use omendb::engine::fs::{Vfs, fault::FaultFs};
//!
//! let fs = FaultFs::new();
//! let file = fs.create(Path::new("/file"))?;
//! file.write_at(b"kept", 0)?;
//! file.sync()?;
//! fs.sync_dir(Path::new("/"))?;
//! file.write_at(b"perhaps", 4)?;
//! let found = fs.crash(7);
//! assert!(found.contents(Path::new("/file")).unwrap().starts_with(b"kept"));
//! assert!(file.len().is_err(), "the power is off");
//! # Ok::<(), std::io::Error>(())
//! ```

mod inode;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use self::inode::{Inode, Random};
use super::{Vfs, VfsFile};

/// A file system in memory with faults. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct FaultFs {
    state: Arc<Mutex<State>>,
}

/// What a call asked of a [`FaultFs`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// [`Vfs::open`] or [`Vfs::open_write`].
    Open,
    /// [`Vfs::create`].
    Create,
    /// [`VfsFile::len`].
    Len,
    /// [`VfsFile::read_at`].
    Read,
    /// [`VfsFile::write_at`].
    Write,
    /// [`VfsFile::sync`].
    Sync,
    /// [`VfsFile::set_len`] to more than the present length.
    SetLen,
    /// [`VfsFile::set_len`] to no more than the present length.
    Cut,
    /// [`Vfs::rename`].
    Rename,
    /// [`Vfs::remove`].
    Remove,
    /// [`Vfs::remove_dir`].
    RemoveDir,
    /// One directory made by [`Vfs::create_dir_all`].
    CreateDir,
    /// [`Vfs::list`].
    List,
    /// [`Vfs::exists`].
    Exists,
    /// [`Vfs::sync_dir`], and the syncs of [`Vfs::create_dir_all`].
    SyncDir,
    /// [`Vfs::lock`].
    Lock,
}

impl Operation {
    /// Whether it changes what a crash leaves behind: tests of crashes need only stop at these.
    pub fn changes_disk(self) -> bool {
        !matches!(
            self,
            Self::Open | Self::Len | Self::Read | Self::List | Self::Exists | Self::Lock
        )
    }

    fn takes_space(self) -> bool {
        matches!(self, Self::Create | Self::Write | Self::SetLen | Self::CreateDir)
    }

    fn syncs(self) -> bool {
        matches!(self, Self::Sync | Self::SyncDir)
    }
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The power goes: this call and all after it fail.
    PowerCut,
    /// The process is killed: this call and all after it fail, and do nothing. What was done before stays
    /// in the system's cache for the next process, which begins with [`FaultFs::clear_faults`].
    Killed,
    /// An error of the device, whatever the call. A write is done in part; a sync loses pages.
    Device,
    /// No space is left, for the first call from there on that takes some. A write is done in part.
    NoSpace,
    /// The first sync of a file or directory from there on fails and loses pages.
    Sync,
    /// The first write from there on panics, as a defect in the code around it would.
    Panic,
}

/// How often an injected [`Fault`] strikes. (A power cut and a kill last in any case.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Repeat {
    /// Once.
    Once,
    /// From there on, until [`FaultFs::clear_faults`].
    Forever,
}

#[derive(Debug)]
struct Injected {
    at: u64,
    /// What the path of the call must hold.
    within: String,
    fault: Fault,
    repeat: Repeat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    Directory,
    File(u64),
}

/// Changes of names that reach the disk together: one name, or both of a rename.
type NameChange = Vec<(PathBuf, Option<Node>)>;

#[derive(Debug, Default)]
struct State {
    inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    live: BTreeMap<PathBuf, Node>,
    durable: BTreeMap<PathBuf, Node>,
    pending: Vec<NameChange>,
    locked: BTreeSet<PathBuf>,
    trace: Vec<(Operation, PathBuf)>,
    injected: Vec<Injected>,
    power_is_off: bool,
    random: Random,
}

/// What becomes of a call.
enum Verdict {
    Go,
    /// It takes effect as far as a call can that was not synced, and fails.
    Cut,
    Fail(Fault),
}

impl FaultFs {
    /// An empty file system. `/` and the relative root exist.
    pub fn new() -> Self {
        Self::default()
    }

    /// One whose failing syncs lose what `seed` says.
    pub fn seeded(seed: u64) -> Self {
        let state = State { random: Random(seed), ..State::default() };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Makes the call with number `at` (from 0, as [`FaultFs::operation_count`] counts), or the first
    /// after it that `fault` can strike, fail.
    pub fn inject(&self, at: u64, fault: Fault, repeat: Repeat) {
        let within = String::new();
        self.state.lock().injected.push(Injected { at, within, fault, repeat });
    }

    /// [`FaultFs::inject`] from now on, for calls on paths that hold `within` alone.
    pub fn inject_within(&self, within: &str, fault: Fault, repeat: Repeat) {
        let within = within.to_owned();
        self.state.lock().injected.push(Injected { at: 0, within, fault, repeat });
    }

    /// Takes back all faults that were injected and have not struck for good (a power cut has).
    pub fn clear_faults(&self) {
        self.state.lock().injected.clear();
    }

    /// Calls so far.
    pub fn operation_count(&self) -> u64 {
        self.state.lock().trace.len() as u64
    }

    /// Every call so far, in order.
    pub fn trace(&self) -> Vec<(Operation, PathBuf)> {
        self.state.lock().trace.clone()
    }

    /// Cuts the power, and returns the file system as it is found afterwards. The same `seed` finds the
    /// same; this one fails every call from now on.
    pub fn crash(&self, seed: u64) -> Self {
        let mut state = self.state.lock();
        state.power_is_off = true;
        Self { state: Arc::new(Mutex::new(state.after_crash(seed))) }
    }

    /// The bytes of a file as reads see them.
    pub fn contents(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state.lock();
        match state.live.get(path)? {
            Node::File(inode) => state.inodes.get(inode).map(|i| i.content.clone()),
            Node::Directory => None,
        }
    }

    /// Replaces the bytes of a file or makes it, durably and uncounted, as damage does.
    pub fn set_contents(&self, path: &Path, bytes: &[u8]) {
        let mut state = self.state.lock();
        let id = match state.live.get(path) {
            Some(Node::File(id)) => *id,
            _ => {
                state.next_inode += 1;
                state.next_inode
            }
        };
        state.inodes.insert(id, Inode::durable(bytes.to_vec()));
        state.live.insert(path.to_owned(), Node::File(id));
        state.durable.insert(path.to_owned(), Node::File(id));
    }

    /// Paths of all files, sorted.
    pub fn files(&self) -> Vec<PathBuf> {
        let state = self.state.lock();
        let files = state.live.iter().filter(|(_, node)| matches!(node, Node::File(_)));
        files.map(|(path, _)| path.clone()).collect()
    }

    /// A file system of its own with the same files, all durable, no faults and no power cut.
    pub fn duplicate(&self) -> Self {
        let state = self.state.lock();
        let inodes = state.inodes.iter().map(|(id, i)| (*id, Inode::durable(i.content.clone())));
        Self {
            state: Arc::new(Mutex::new(State {
                inodes: inodes.collect(),
                next_inode: state.next_inode,
                live: state.live.clone(),
                durable: state.live.clone(),
                ..State::default()
            })),
        }
    }
}

fn apply(names: &mut BTreeMap<PathBuf, Node>, change: &NameChange) {
    for (path, node) in change {
        match node {
            Some(node) => {
                names.insert(path.clone(), *node);
            }
            // A directory goes with all that is still named in it.
            None => names.retain(|name, _| !name.starts_with(path)),
        }
    }
}

fn is_root(path: &Path) -> bool {
    path == Path::new("/") || path.as_os_str().is_empty() || path == Path::new(".")
}

fn error(kind: io::ErrorKind, message: &str, path: &Path) -> io::Error {
    io::Error::new(kind, format!("{}: {message}", path.display()))
}

impl Fault {
    fn strikes(self, operation: Operation) -> bool {
        match self {
            Self::PowerCut | Self::Killed | Self::Device => true,
            Self::NoSpace => operation.takes_space(),
            Self::Sync => operation.syncs(),
            Self::Panic => operation == Operation::Write,
        }
    }

    fn error(self, path: &Path) -> io::Error {
        match self {
            Self::PowerCut => error(io::ErrorKind::Other, "the power is off", path),
            Self::Killed => error(io::ErrorKind::Other, "the process was killed", path),
            Self::Device => error(io::ErrorKind::Other, "injected error of the device", path),
            Self::NoSpace => error(io::ErrorKind::StorageFull, "injected lack of space", path),
            Self::Sync => error(io::ErrorKind::Other, "injected failure of a sync", path),
            Self::Panic => error(io::ErrorKind::Other, "injected defect", path),
        }
    }
}

impl State {
    /// Counts a call and decides what becomes of it.
    fn begin(&mut self, operation: Operation, path: &Path) -> io::Result<Verdict> {
        if self.power_is_off {
            return Err(Fault::PowerCut.error(path));
        }
        let number = self.trace.len() as u64;
        self.trace.push((operation, path.to_owned()));
        let striking = self.injected.iter().position(|i| {
            i.at <= number
                && i.fault.strikes(operation)
                && path.to_string_lossy().contains(&i.within)
        });
        let Some(index) = striking else {
            return Ok(Verdict::Go);
        };
        let fault = self.injected[index].fault;
        if fault == Fault::Killed {
            return Err(fault.error(path));
        }
        if self.injected[index].repeat == Repeat::Once {
            self.injected.remove(index);
        }
        assert!(fault != Fault::Panic, "injected defect at {}", path.display());
        if fault == Fault::PowerCut {
            self.power_is_off = true;
            return Ok(Verdict::Cut);
        }
        Ok(Verdict::Fail(fault))
    }

    /// For calls without an effect of their own.
    fn begin_read(&mut self, operation: Operation, path: &Path) -> io::Result<()> {
        match self.begin(operation, path)? {
            Verdict::Go => Ok(()),
            Verdict::Cut => Err(Fault::PowerCut.error(path)),
            Verdict::Fail(fault) => Err(fault.error(path)),
        }
    }

    fn is_directory(&self, path: &Path) -> bool {
        is_root(path) || self.live.get(path) == Some(&Node::Directory)
    }

    fn file(&self, path: &Path) -> io::Result<u64> {
        match self.live.get(path) {
            Some(Node::File(inode)) => Ok(*inode),
            Some(Node::Directory) => Err(error(io::ErrorKind::IsADirectory, "is one", path)),
            None => Err(error(io::ErrorKind::NotFound, "no such file", path)),
        }
    }

    fn check_parent(&self, path: &Path) -> io::Result<()> {
        if path.parent().is_none_or(|parent| self.is_directory(parent)) {
            return Ok(());
        }
        Err(error(io::ErrorKind::NotFound, "its directory does not exist", path))
    }

    fn change_names(
        &mut self,
        operation: Operation,
        path: &Path,
        change: NameChange,
    ) -> io::Result<()> {
        let verdict = self.begin(operation, path)?;
        if let Verdict::Fail(fault) = verdict {
            return Err(fault.error(path));
        }
        apply(&mut self.live, &change);
        self.pending.push(change);
        match verdict {
            Verdict::Cut => Err(Fault::PowerCut.error(path)),
            _ => Ok(()),
        }
    }

    fn create(&mut self, path: &Path) -> io::Result<u64> {
        self.check_parent(path)?;
        if self.live.contains_key(path) || is_root(path) {
            return Err(error(io::ErrorKind::AlreadyExists, "exists", path));
        }
        self.next_inode += 1;
        let inode = self.next_inode;
        self.inodes.insert(inode, Inode::default());
        self.change_names(
            Operation::Create,
            path,
            vec![(path.to_owned(), Some(Node::File(inode)))],
        )?;
        Ok(inode)
    }

    fn create_dir(&mut self, path: &Path) -> io::Result<()> {
        self.check_parent(path)?;
        let change = vec![(path.to_owned(), Some(Node::Directory))];
        self.change_names(Operation::CreateDir, path, change)
    }

    fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        if !self.is_directory(path) {
            return Err(error(io::ErrorKind::NotFound, "no such directory", path));
        }
        let verdict = self.begin(Operation::SyncDir, path)?;
        if matches!(verdict, Verdict::Cut) {
            return Err(Fault::PowerCut.error(path));
        }
        let inside = |change: &NameChange| change.iter().any(|(p, _)| p.parent() == Some(path));
        let (mut synced, others) =
            std::mem::take(&mut self.pending).into_iter().partition::<Vec<_>, _>(inside);
        // A sync that fails gets some way.
        let done = match verdict {
            Verdict::Go => synced.len(),
            _ => self.random.below(synced.len() + 1),
        };
        synced.drain(..done).for_each(|change| apply(&mut self.durable, &change));
        synced.extend(others);
        self.pending = synced;
        match verdict {
            Verdict::Fail(fault) => Err(fault.error(path)),
            _ => Ok(()),
        }
    }

    fn after_crash(&self, seed: u64) -> State {
        let mut random = Random(seed);
        // From "nothing that was not synced" to "all of it", so that the extremes come up too.
        let share = random.below(5);
        let in_order = random.quarters(2);
        let mut names = self.durable.clone();
        if in_order {
            // A journal: changes of names up to some point.
            let count = random.below(self.pending.len() + 1);
            self.pending[..count].iter().for_each(|change| apply(&mut names, change));
        } else {
            for change in &self.pending {
                if random.quarters(share) {
                    apply(&mut names, change);
                }
            }
        }
        let directories: BTreeSet<PathBuf> = names
            .iter()
            .filter(|(_, node)| **node == Node::Directory)
            .map(|(path, _)| path.clone())
            .collect();
        names.retain(|path, _| {
            path.ancestors().skip(1).all(|dir| is_root(dir) || directories.contains(dir))
        });
        let mut inodes = BTreeMap::new();
        for node in names.values() {
            if let Node::File(id) = node
                && let Some(inode) = self.inodes.get(id)
            {
                inodes.insert(*id, Inode::durable(inode.after_crash(&mut random, share)));
            }
        }
        State {
            inodes,
            next_inode: self.next_inode,
            live: names.clone(),
            durable: names,
            random,
            ..State::default()
        }
    }
}

#[derive(Debug)]
struct FaultFile {
    fs: FaultFs,
    inode: u64,
    path: PathBuf,
    writable: bool,
}

impl FaultFs {
    fn handle(&self, inode: u64, path: &Path, writable: bool) -> Arc<dyn VfsFile> {
        Arc::new(FaultFile { fs: self.clone(), inode, path: path.to_owned(), writable })
    }
}

impl Vfs for FaultFs {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        let mut state = self.state.lock();
        state.begin_read(Operation::Open, path)?;
        Ok(self.handle(state.file(path)?, path, false))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        let inode = self.state.lock().create(path)?;
        Ok(self.handle(inode, path, true))
    }

    fn open_write(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        let mut state = self.state.lock();
        state.begin_read(Operation::Open, path)?;
        Ok(self.handle(state.file(path)?, path, true))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        let inode = state.file(from)?;
        state.check_parent(to)?;
        if state.is_directory(to) {
            return Err(error(io::ErrorKind::IsADirectory, "is one", to));
        }
        let change = if from == to {
            Vec::new()
        } else {
            vec![(to.to_owned(), Some(Node::File(inode))), (from.to_owned(), None)]
        };
        state.change_names(Operation::Rename, from, change)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.file(path)?;
        state.change_names(Operation::Remove, path, vec![(path.to_owned(), None)])
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        if !state.is_directory(path) {
            return Err(error(io::ErrorKind::NotFound, "no such directory", path));
        }
        if state.live.keys().any(|p| p.parent() == Some(path)) {
            return Err(error(io::ErrorKind::DirectoryNotEmpty, "is not empty", path));
        }
        state.change_names(Operation::RemoveDir, path, vec![(path.to_owned(), None)])
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        let missing: Vec<&Path> = path.ancestors().take_while(|p| !state.is_directory(p)).collect();
        // As `OsFs` does: see there why.
        let existing = path.ancestors().nth(missing.len());
        if let Some(parent) = existing.and_then(Path::parent) {
            state.sync_dir(parent)?;
        }
        for dir in missing.into_iter().rev() {
            state.create_dir(dir)?;
            if let Some(parent) = dir.parent() {
                state.sync_dir(parent)?;
            }
        }
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let mut state = self.state.lock();
        state.begin_read(Operation::List, path)?;
        if !state.is_directory(path) {
            return Err(error(io::ErrorKind::NotFound, "no such directory", path));
        }
        Ok(state.live.keys().filter(|p| p.parent() == Some(path)).cloned().collect())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let mut state = self.state.lock();
        state.begin_read(Operation::Exists, path)?;
        Ok(is_root(path) || state.live.contains_key(path))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.state.lock().sync_dir(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let mut state = self.state.lock();
        state.begin_read(Operation::Lock, path)?;
        state.check_parent(path)?;
        if !state.locked.insert(path.to_owned()) {
            return Err(error(io::ErrorKind::WouldBlock, "is locked", path));
        }
        Ok(Box::new(HeldLock { fs: self.clone(), path: path.to_owned() }))
    }
}

struct HeldLock {
    fs: FaultFs,
    path: PathBuf,
}

impl Drop for HeldLock {
    fn drop(&mut self) {
        self.fs.state.lock().locked.remove(&self.path);
    }
}

impl State {
    /// The inode of an open file: it lives on when its name is gone.
    fn inode(&mut self, id: u64) -> &mut Inode {
        self.inodes.entry(id).or_default()
    }
}

impl FaultFile {
    fn check_writable(&self) -> io::Result<()> {
        if self.writable {
            return Ok(());
        }
        Err(error(io::ErrorKind::PermissionDenied, "is open to read only", &self.path))
    }
}

impl VfsFile for FaultFile {
    fn len(&self) -> io::Result<u64> {
        let mut state = self.fs.state.lock();
        state.begin_read(Operation::Len, &self.path)?;
        Ok(state.inode(self.inode).content.len() as u64)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let mut state = self.fs.state.lock();
        state.begin_read(Operation::Read, &self.path)?;
        let content = &state.inode(self.inode).content;
        let bytes = usize::try_from(offset)
            .ok()
            .and_then(|start| content.get(start..start.checked_add(buf.len())?));
        match bytes {
            Some(bytes) => buf.copy_from_slice(bytes),
            None => {
                return Err(error(io::ErrorKind::UnexpectedEof, "read past its end", &self.path));
            }
        }
        Ok(())
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.check_writable()?;
        let mut state = self.fs.state.lock();
        let verdict = state.begin(Operation::Write, &self.path)?;
        let offset = usize::try_from(offset)
            .map_err(|_| error(io::ErrorKind::FileTooLarge, "too large", &self.path))?;
        let inode = state.inode(self.inode);
        match verdict {
            Verdict::Go => inode.write(buf, offset),
            Verdict::Cut => {
                inode.write(buf, offset);
                return Err(Fault::PowerCut.error(&self.path));
            }
            Verdict::Fail(fault) => {
                inode.write(&buf[..buf.len() / 2], offset);
                return Err(fault.error(&self.path));
            }
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.fs.state.lock();
        let state = &mut *state;
        match state.begin(Operation::Sync, &self.path)? {
            Verdict::Go => state.inode(self.inode).sync(),
            Verdict::Cut => return Err(Fault::PowerCut.error(&self.path)),
            Verdict::Fail(fault) => {
                let mut random = std::mem::take(&mut state.random);
                state.inode(self.inode).fail_sync(&mut random);
                state.random = random;
                return Err(fault.error(&self.path));
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        let mut state = self.fs.state.lock();
        let len = usize::try_from(len)
            .map_err(|_| error(io::ErrorKind::FileTooLarge, "too large", &self.path))?;
        let is_cut = len <= state.inode(self.inode).content.len();
        let operation = if is_cut { Operation::Cut } else { Operation::SetLen };
        let verdict = state.begin(operation, &self.path)?;
        if let Verdict::Fail(fault) = verdict {
            return Err(fault.error(&self.path));
        }
        state.inode(self.inode).set_len(len);
        match verdict {
            Verdict::Cut => Err(Fault::PowerCut.error(&self.path)),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
