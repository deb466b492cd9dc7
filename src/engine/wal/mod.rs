//! The write-ahead log: the only commit point, for small writes, loads, flushes and compactions alike.
//!
//! A commit is a [`WalRecord`]. Records are numbered without gaps and written in groups: one write and
//! one sync make a whole group durable. `docs/file-format.md` has the bytes, and the argument why what
//! [`Wal::append`] returned from survives a power cut, and what it did not is there whole or not at all.

mod format;
mod record;
mod recovery;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use roaring::RoaringBitmap;

use self::format::{FILE_HEADER_LEN, FileHeader, GROUP_HEADER_LEN, GroupHeader, encode_group};
use self::recovery::{FileStart, Scan, ScanEnd, read_start};
use super::error::{Error, ErrorKind, Result};
use super::fs::{Vfs, VfsFile};
use super::id::{Generation, SegmentId, SeqNo, TableId};
use super::key::KeyColumn;
use super::schema::{TableMeta, TableName};
use super::segment::SegmentMeta;

/// One commit: applied whole or not at all.
#[derive(Debug, Clone)]
pub struct WalRecord {
    /// Its place in the order of commits.
    pub seq: SeqNo,
    /// What it changes, in order.
    pub ops: Vec<WalOp>,
}

/// A segment that an edit adds, with the rows of it that are deleted at that moment.
#[derive(Debug, Clone)]
pub struct AddedSegment {
    /// The segment.
    pub meta: SegmentMeta,
    /// Positions of its deleted rows.
    pub deleted: RoaringBitmap,
}

/// One resolved change. Replaying applies it as it stands: no SQL, no search for duplicates.
#[derive(Debug, Clone)]
pub enum WalOp {
    /// Creates a table, or replaces its definition.
    PutTable(Arc<TableMeta>),
    /// Drops a table and all its rows.
    DropTable(TableId),
    /// Creates a schema.
    PutSchema(String),
    /// Drops an empty schema.
    DropSchema(String),
    /// Creates or replaces a view: its name and its SQL text.
    PutView(TableName, String),
    /// Drops a view.
    DropView(TableName),
    /// Removes all rows of a table.
    Truncate(TableId),
    /// Adds rows, sorted by key and of the table's stored schema, to the memtable of a generation.
    Rows {
        /// The table.
        table: TableId,
        /// The memtable they go to.
        generation: Generation,
        /// The rows.
        batch: RecordBatch,
    },
    /// Deletes rows of memtables, by key, and by row id where the table has one.
    DeleteKeys {
        /// The table.
        table: TableId,
        /// Keys of the rows.
        keys: KeyColumn,
        /// Their row ids; empty for tables with a primary key.
        row_ids: Vec<u64>,
    },
    /// Deletes rows of a segment, by position.
    DeletePositions {
        /// The table.
        table: TableId,
        /// The segment, live at this point of the log.
        segment: SegmentId,
        /// The positions.
        positions: RoaringBitmap,
    },
    /// Changes the set of a table's segments: a load, a flush or a compaction.
    EditSegments {
        /// The table.
        table: TableId,
        /// Memtables of generations below this one are dropped: their rows are in segments now.
        flushed_below: Option<Generation>,
        /// Segments that are no longer live.
        remove: Vec<SegmentId>,
        /// Segments that are live from now on.
        add: Vec<AddedSegment>,
    },
}

impl WalRecord {
    /// Appends the record's bytes.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<()> {
        record::encode(self, out)
    }

    /// The record of these bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        record::decode(bytes)
    }
}

/// Files grow in steps of this: a sync is several times as fast when the file's length stays.
const GROWTH_BYTES: u64 = 1 << 20;

/// The log of a database: files in one directory, the newest open for appending.
///
/// File `<first record>.wal` holds the records from that one on, up to the first of the next file. The
/// newest file is never removed, so that the log knows which record comes next.
#[derive(Debug)]
pub struct Wal {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    /// In order; the last is the active one.
    files: Vec<LogFile>,
    /// The newest file, open. None until a log without files gets its first record.
    active: Option<Active>,
    /// The number of the next record; unknown while there is no file.
    next_seq: Option<u64>,
    /// Set where the disk may hold something else than this knows: nothing is written any more.
    failed: bool,
    /// Where groups are put together; kept to keep its memory.
    group: Vec<u8>,
}

#[derive(Debug)]
struct LogFile {
    path: PathBuf,
    first_seq: u64,
    /// Bytes up to the end of its last group.
    end: u64,
}

#[derive(Debug)]
struct Active {
    file: Arc<dyn VfsFile>,
    /// Length of the file, space set aside included.
    len: u64,
    /// Whether groups are followed by marks.
    marks: bool,
}

/// What [`Wal::open`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WalRecovery {
    /// Records handed to the visitor.
    pub record_count: u64,
    /// Bytes of the torn tail that were cut off: a write that was never acknowledged.
    pub torn_bytes: u64,
    /// The number of the next record: one above the last that was ever written. Unknown where the log
    /// has no file. A checkpoint at a higher number, with records of its own still in the log, says that
    /// the log has lost its end.
    pub next_seq: Option<SeqNo>,
}

impl Wal {
    /// Opens the log in `dir` (made if missing), hands every record with a number of at least `from` to
    /// `visit` in order, cuts a torn tail off, durably, and is then ready to append. Damage below what is
    /// known durable is an error that names file and offset; so is a log that lacks records from `from`
    /// on, or ends before it. Where all of it was read, all that was read is durable.
    pub fn open(
        vfs: Arc<dyn Vfs>,
        dir: &Path,
        from: SeqNo,
        visit: &mut dyn FnMut(WalRecord) -> Result<()>,
    ) -> Result<(Self, WalRecovery)> {
        vfs.create_dir_all(dir)?;
        let mut wal = Self {
            files: list_files(&*vfs, dir)?,
            vfs,
            dir: dir.to_owned(),
            active: None,
            next_seq: None,
            failed: false,
            group: Vec::new(),
        };
        let recovery = wal.recover(from, visit)?;
        Ok((wal, recovery))
    }

    fn recover(
        &mut self,
        from: SeqNo,
        visit: &mut dyn FnMut(WalRecord) -> Result<()>,
    ) -> Result<WalRecovery> {
        // A process killed after it made or removed a file may not have synced that.
        self.vfs.sync_dir(&self.dir)?;
        let newest_is_unfinished = self.drop_unfinished()?;
        if let Some(first) = self.files.first()
            && first.first_seq > from.0.max(1)
        {
            return Err(Error::corruption(format!(
                "the log begins with record {} in {}, and the records from {from} on are missing",
                first.first_seq,
                first.path.display()
            )));
        }
        // Files that end below `from` may be left over from an earlier checkpoint, with gaps.
        let needed = self.files.iter().rposition(|f| f.first_seq <= from.0).unwrap_or(0);
        let mut recovery = WalRecovery::default();
        let count = self.files.len();
        for i in 0..needed {
            self.files[i].end = self.vfs.open(&self.files[i].path)?.len()?;
        }
        for i in needed..count {
            let is_newest = i + 1 == count;
            let path = &self.files[i].path;
            let file = if is_newest { self.vfs.open_write(path)? } else { self.vfs.open(path)? };
            let len = file.len()?;
            let header = self.check_start(i, &*file, len)?;
            let scan = Scan {
                path,
                header,
                may_be_torn: is_newest && !newest_is_unfinished,
                from,
                next_seq: self.next_seq.get_or_insert(header.first_seq),
                record_count: &mut recovery.record_count,
            };
            let found = scan.run(Arc::clone(&file), len, visit)?;
            self.files[i].end = found.end;
            if is_newest {
                recovery.torn_bytes = found.torn_bytes;
                self.make_durable(file, len, header, found)?;
            }
        }
        self.check_reaches(from)?;
        recovery.next_seq = self.next_seq.map(SeqNo);
        Ok(recovery)
    }

    /// The header of file `i`, which must go on where the file before it ends.
    fn check_start(&self, i: usize, file: &dyn VfsFile, len: u64) -> Result<FileHeader> {
        let LogFile { path, first_seq, .. } = &self.files[i];
        let header = match read_start(file, path, len)? {
            FileStart::Header(header) => header,
            FileStart::Unfinished => {
                return Err(Error::corruption(format!(
                    "log file {} is damaged at offset 0: it has no header, and a newer file follows",
                    path.display()
                )));
            }
        };
        if header.first_seq != *first_seq {
            return Err(Error::corruption(format!(
                "log file {} says that it begins with record {}: it was renamed",
                path.display(),
                header.first_seq
            )));
        }
        match (self.next_seq, i.checked_sub(1)) {
            (Some(next_seq), Some(before)) if next_seq != header.first_seq => {
                let before = &self.files[before];
                Err(Error::corruption(format!(
                    "log file {} ends before record {next_seq} at offset {}, and the next file begins \
                     with record {}: what is between is lost",
                    before.path.display(),
                    before.end,
                    header.first_seq
                )))
            }
            _ => Ok(header),
        }
    }

    fn check_reaches(&self, from: SeqNo) -> Result<()> {
        match (self.next_seq, self.files.last()) {
            (Some(next), Some(newest)) if next < from.0 => Err(Error::corruption(format!(
                "the log ends before record {next} at offset {} of {}, and a checkpoint holds records \
                 up to {} that must have been in it: its end is lost",
                newest.end,
                newest.path.display(),
                from.0 - 1
            ))),
            _ => Ok(()),
        }
    }

    /// Removes a newest file whose making was cut off by a crash. Says whether there was one: then the
    /// file before it was durable to its end.
    fn drop_unfinished(&mut self) -> Result<bool> {
        let Some(newest) = self.files.last() else {
            return Ok(false);
        };
        let file = self.vfs.open(&newest.path)?;
        match read_start(&*file, &newest.path, file.len()?)? {
            FileStart::Header(_) => Ok(false),
            FileStart::Unfinished => {
                self.vfs.remove(&newest.path)?;
                // Back after a crash, it would vouch for what is appended to the file before it.
                self.vfs.sync_dir(&self.dir)?;
                self.files.pop();
                Ok(true)
            }
        }
    }

    /// Cuts what was torn off the newest file, and makes the rest durable, whatever the process before
    /// this one left in the system's cache. After a failed sync the cache may show bytes that the disk
    /// does not have and that no sync would write: so those that no later group vouches for are written
    /// again.
    fn make_durable(
        &mut self,
        file: Arc<dyn VfsFile>,
        len: u64,
        header: FileHeader,
        found: ScanEnd,
    ) -> Result<()> {
        let mut len = len;
        if found.torn_bytes > 0 {
            file.set_len(found.end)?;
            len = found.end;
        }
        file.write_at(&header.encode(), 0)?;
        if let Some(start) = found.last_group {
            let mut group = vec![0; (found.end - start) as usize];
            file.read_at(&mut group, start)?;
            file.write_at(&group, start)?;
        }
        file.sync()?;
        let active = self.active.insert(Active { file, len, marks: header.has_marks() });
        if let Some(next_seq) = self.next_seq.filter(|_| found.last_group.is_some()) {
            active.mark(&GroupHeader::mark(found.end, next_seq, header.first_seq));
        }
        Ok(())
    }

    /// Appends a group of encoded records, numbered `first..=last` without gaps, and syncs.
    ///
    /// An error of kind [`ErrorKind::OutcomeUnknown`] says that a sync failed: the group may or may not
    /// be there after a restart, and the log takes nothing more (every later call is
    /// [`ErrorKind::ReadOnly`]). After any other error the group is not in the log and never will be;
    /// where the disk is full, for example, the same numbers can be appended once there is space.
    pub fn append(&mut self, first: SeqNo, last: SeqNo, records: &[Vec<u8>]) -> Result<()> {
        self.check_usable()?;
        if records.is_empty() {
            return Ok(());
        }
        let next_seq = self.next_seq.unwrap_or(first.0);
        if first.0 != next_seq || last.0.checked_sub(first.0) != Some(records.len() as u64 - 1) {
            return Err(Error::internal(format!(
                "{} records numbered {first} to {last} cannot follow record {} of the log",
                records.len(),
                next_seq.wrapping_sub(1)
            )));
        }
        if self.active.is_none() {
            self.create_file(first.0)?;
        }
        let (Some(active), Some(newest)) = (&mut self.active, self.files.last_mut()) else {
            return Err(Error::internal("the log has no file to append to"));
        };
        let header = GroupHeader {
            record_count: 0,
            payload_len: 0,
            first_seq: first.0,
            last_seq: last.0,
            offset: newest.end,
            durable_through: newest.end,
            file_first_seq: newest.first_seq,
            payload_crc: 0,
        };
        self.group.clear();
        encode_group(&mut self.group, records, header)?;
        let end = newest.end + self.group.len() as u64;
        let written = active.write(&self.group, newest.end);
        if self.group.capacity() as u64 > GROWTH_BYTES {
            self.group = Vec::new();
        }
        if let Err(e) = written {
            // Some of the group, or all of it, may be in the file. It has to go, for good, before it is called lost.
            if let Err(again) = active.cut(newest.end).and_then(|()| active.file.sync()) {
                self.failed = true;
                return Err(Error::new(
                    ErrorKind::OutcomeUnknown,
                    format!("the log could not be written ({e}) nor set back ({again})"),
                )
                .with_source(e));
            }
            return Err(Error::from(e).context("the log could not be written"));
        }
        if let Err(e) = active.file.sync() {
            self.failed = true;
            return Err(Error::new(
                ErrorKind::OutcomeUnknown,
                format!("the sync of the log failed, so the commit may be lost or not: {e}"),
            )
            .with_source(e));
        }
        newest.end = end;
        let next_seq = last.0 + 1;
        self.next_seq = Some(next_seq);
        active.mark(&GroupHeader::mark(end, next_seq, newest.first_seq));
        Ok(())
    }

    fn check_usable(&self) -> Result<()> {
        if self.failed {
            return Err(Error::new(
                ErrorKind::ReadOnly,
                format!(
                    "the log in {} takes no writes since one failed: restart when the disk is well",
                    self.dir.display()
                ),
            ));
        }
        Ok(())
    }

    /// Makes the file that begins with record `first_seq` the active one.
    fn create_file(&mut self, first_seq: u64) -> Result<()> {
        let path = self.dir.join(file_name(first_seq));
        let file = self.vfs.create(&path)?;
        let mut syncing = false;
        let mut fill = || {
            file.write_at(&FileHeader::new(first_seq).encode(), 0)?;
            syncing = true;
            file.sync()?;
            self.vfs.sync_dir(&self.dir)
        };
        if let Err(e) = fill() {
            // Left over, the file would vouch for what is appended to the one before it.
            let removed = self.vfs.remove(&path).and_then(|()| self.vfs.sync_dir(&self.dir));
            self.failed = syncing || removed.is_err();
            return Err(Error::from(e).context("a new log file cannot be made"));
        }
        let end = FILE_HEADER_LEN as u64;
        self.active = Some(Active { file, len: end, marks: true });
        self.files.push(LogFile { path, first_seq, end });
        self.next_seq = Some(first_seq);
        Ok(())
    }

    /// Begins a new file if the present one holds records: its existence says that the one before is complete.
    pub fn rotate(&mut self) -> Result<()> {
        self.check_usable()?;
        let (Some(active), Some(newest)) = (&mut self.active, self.files.last()) else {
            return Ok(());
        };
        if newest.end <= FILE_HEADER_LEN as u64 {
            return Ok(());
        }
        active.cut(newest.end)?;
        if let Err(e) = active.file.sync() {
            self.failed = true;
            return Err(Error::from(e).context("a log file cannot be closed"));
        }
        let next_seq = self.next_seq.ok_or_else(|| Error::internal("the log lost count"))?;
        self.create_file(next_seq)
    }

    /// Removes files all of whose records are below `seq`, but never the newest. Those that come back
    /// after a crash are passed over.
    pub fn remove_below(&mut self, seq: SeqNo) -> Result<()> {
        while self.files.len() > 1 && self.files[1].first_seq <= seq.0 {
            self.vfs.remove(&self.files[0].path)?;
            self.files.remove(0);
        }
        Ok(())
    }

    /// Bytes of all its files, without space set aside.
    pub fn len_bytes(&self) -> u64 {
        self.files.iter().map(|f| f.end).sum()
    }
}

impl Active {
    fn write(&mut self, group: &[u8], offset: u64) -> std::io::Result<()> {
        let end = offset + group.len() as u64;
        if end > self.len {
            let len = (end + GROUP_HEADER_LEN as u64).next_multiple_of(GROWTH_BYTES);
            self.file.set_len(len)?;
            self.len = len;
        }
        self.file.write_at(group, offset)
    }

    /// Writes the mark of the group before it, which was synced just now. It is not synced itself: a process that is killed
    /// leaves it, and after a power cut it may be missing, which costs no more than that damage to the last group looks like a
    /// torn write. So it matters to nobody whether this fails.
    fn mark(&mut self, mark: &GroupHeader) {
        let end = mark.offset + GROUP_HEADER_LEN as u64;
        if self.marks
            && end <= self.len
            && let Err(e) = self.file.write_at(&mark.encode(), mark.offset)
        {
            tracing::warn!("the mark after a group of the log could not be written: {e}");
        }
    }

    fn cut(&mut self, end: u64) -> std::io::Result<()> {
        self.file.set_len(end)?;
        self.len = end;
        Ok(())
    }
}

fn file_name(first_seq: u64) -> String {
    format!("{first_seq:020}.wal")
}

/// The log files in `dir`, in order. Anything else is none of the log's business.
fn list_files(vfs: &dyn Vfs, dir: &Path) -> Result<Vec<LogFile>> {
    let first_seq = |path: &Path| -> Option<u64> {
        let name = path.file_name()?.to_str()?;
        let first_seq = name.strip_suffix(".wal")?.parse().ok()?;
        (name == file_name(first_seq)).then_some(first_seq)
    };
    let files = vfs.list(dir)?.into_iter();
    let mut files: Vec<LogFile> = files
        .filter_map(|path| Some(LogFile { first_seq: first_seq(&path)?, path, end: 0 }))
        .collect();
    files.sort_unstable_by_key(|f| f.first_seq);
    Ok(files)
}
