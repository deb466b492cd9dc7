//! Reading a log back, and telling a torn tail from damage.
//!
//! A group is written only after the one before it was synced. So where a group cannot be read, one of
//! two things happened: the power went while it was written, in the newest file and with nothing after
//! it; or something that was synced has been damaged, and then another group, a mark, or another file, follows.
//! Only the first is dropped.

use std::path::Path;
use std::sync::Arc;

use super::WalRecord;
use super::format::{
    FILE_HEADER_LEN, FileHeader, GROUP_HEADER_LEN, GroupHeader, find_group, records,
};
use crate::engine::error::{Error, Result};
use crate::engine::fs::VfsFile;
use crate::engine::id::SeqNo;

/// Bytes read at once.
const WINDOW_BYTES: u64 = 1 << 20;

/// A part of a file in memory, moved forwards as a scan goes on.
struct Window {
    file: Arc<dyn VfsFile>,
    file_len: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    /// `len` bytes at `offset`; the caller knows that the file has them.
    fn get(&mut self, offset: u64, len: u64) -> Result<&[u8]> {
        let end = self.start + self.bytes.len() as u64;
        if offset < self.start || offset + len > end {
            let wanted = len.max(WINDOW_BYTES).min(self.file_len - offset);
            let wanted = usize::try_from(wanted)
                .map_err(|_| Error::exhausted("a group of the log is larger than memory"))?;
            self.bytes.resize(wanted, 0);
            self.start = offset;
            if let Err(e) = self.file.read_at(&mut self.bytes, offset) {
                self.bytes.clear();
                return Err(e.into());
            }
        }
        let at = (offset - self.start) as usize;
        Ok(&self.bytes[at..at + len as usize])
    }
}

/// Where a file's groups end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ScanEnd {
    /// Offset after the last good group.
    pub(super) end: u64,
    /// Offset of the last good group, if there is one.
    pub(super) last_group: Option<u64>,
    /// Bytes of a torn group after it.
    pub(super) torn_bytes: u64,
}

/// What the first bytes of a file are.
pub(super) enum FileStart {
    /// A header.
    Header(FileHeader),
    /// The file was being made when the power went: nothing in it was ever synced.
    Unfinished,
}

fn corruption(path: &Path, offset: u64, what: impl std::fmt::Display) -> Error {
    Error::corruption(format!("log file {} is damaged at offset {offset}: {what}", path.display()))
}

/// Reads a file's header. A file is unfinished only if there is nothing after the place of the header:
/// groups are written once the header is synced.
pub(super) fn read_start(file: &dyn VfsFile, path: &Path, file_len: u64) -> Result<FileStart> {
    if file_len < FILE_HEADER_LEN as u64 {
        return Ok(FileStart::Unfinished);
    }
    let mut bytes = [0; FILE_HEADER_LEN];
    file.read_at(&mut bytes, 0)?;
    let header = FileHeader::decode(&bytes)
        .map_err(|e| e.context(format_args!("log file {}", path.display())))?;
    match header {
        Some(header) => Ok(FileStart::Header(header)),
        None if file_len == FILE_HEADER_LEN as u64 => Ok(FileStart::Unfinished),
        None => Err(corruption(path, 0, "its header does not match its checksum")),
    }
}

/// Reads the groups of a file.
pub(super) struct Scan<'a> {
    pub(super) path: &'a Path,
    pub(super) header: FileHeader,
    /// Whether a torn group at the end may be dropped.
    pub(super) may_be_torn: bool,
    /// Records below this one are not handed on.
    pub(super) from: SeqNo,
    /// The number of the next record; moved on.
    pub(super) next_seq: &'a mut u64,
    /// Records handed on; counted up.
    pub(super) record_count: &'a mut u64,
}

impl Scan<'_> {
    pub(super) fn run(
        mut self,
        file: Arc<dyn VfsFile>,
        file_len: u64,
        visit: &mut dyn FnMut(WalRecord) -> Result<()>,
    ) -> Result<ScanEnd> {
        let mut window = Window { file, file_len, start: 0, bytes: Vec::new() };
        let mut offset = FILE_HEADER_LEN as u64;
        let mut last_group = None;
        while offset < file_len {
            let header = self.read_header(&mut window, offset)?;
            if let Some(mark) = header.filter(GroupHeader::is_mark) {
                let torn_bytes = self.after_mark(&mut window, &mark)?;
                return Ok(ScanEnd { end: offset, last_group, torn_bytes });
            }
            let payload = match header {
                Some(header) => read_payload(&mut window, &header)?,
                None => None,
            };
            let (Some(header), Some(payload)) = (header, payload) else {
                let torn_bytes = self.torn_bytes(&mut window, offset, header)?;
                return Ok(ScanEnd { end: offset, last_group, torn_bytes });
            };
            self.visit_group(&header, payload, visit)?;
            last_group = Some(offset);
            offset += GROUP_HEADER_LEN as u64 + header.payload_len;
        }
        Ok(ScanEnd { end: offset, last_group, torn_bytes: 0 })
    }

    /// The group's header at `offset`, if there is a good one.
    fn read_header(&self, window: &mut Window, offset: u64) -> Result<Option<GroupHeader>> {
        if window.file_len - offset < GROUP_HEADER_LEN as u64 {
            return Ok(None);
        }
        let header = GroupHeader::decode(window.get(offset, GROUP_HEADER_LEN as u64)?);
        Ok(header.filter(|h| h.offset == offset && h.file_first_seq == self.header.first_seq))
    }

    /// Checks a mark. What follows it was never whole: the next group would have taken the mark's place. Returns how many bytes
    /// to drop, the mark's own included if there are others.
    fn after_mark(&self, window: &mut Window, mark: &GroupHeader) -> Result<u64> {
        let expected = GroupHeader::mark(mark.offset, *self.next_seq, self.header.first_seq);
        if *mark != expected || !self.header.has_marks() {
            return Err(corruption(
                self.path,
                mark.offset,
                format_args!("a mark stands there that is not that of record {}", self.next_seq),
            ));
        }
        let end = mark.offset + GROUP_HEADER_LEN as u64;
        match self.torn_bytes(window, end, None)? {
            0 => Ok(0),
            behind => Ok(GROUP_HEADER_LEN as u64 + behind),
        }
    }

    fn visit_group(
        &mut self,
        header: &GroupHeader,
        payload: &[u8],
        visit: &mut dyn FnMut(WalRecord) -> Result<()>,
    ) -> Result<()> {
        let damaged = |what: String| corruption(self.path, header.offset, what);
        if header.first_seq != *self.next_seq {
            return Err(damaged(format!(
                "it goes on with record {}, and record {} is missing",
                header.first_seq, self.next_seq
            )));
        }
        let records = records(payload, header.record_count)
            .ok_or_else(|| damaged("its records do not fit their lengths".to_owned()))?;
        let next_seq = header.first_seq.checked_add(records.len() as u64);
        if records.is_empty() || header.last_seq.checked_add(1) != next_seq {
            return Err(damaged("its records are not those that it counts".to_owned()));
        }
        for (i, (at, bytes)) in records.into_iter().enumerate() {
            let seq = header.first_seq + i as u64;
            if seq < self.from.0 {
                continue;
            }
            let place = header.offset + (GROUP_HEADER_LEN + at) as u64;
            let record = WalRecord::decode(bytes).map_err(|e| {
                e.context(format_args!("log file {} at offset {place}", self.path.display()))
            })?;
            if record.seq.0 != seq {
                return Err(corruption(
                    self.path,
                    place,
                    format_args!("record {} stands where {seq} should", record.seq),
                ));
            }
            *self.record_count += 1;
            visit(record)?;
        }
        *self.next_seq = header.last_seq + 1;
        Ok(())
    }

    /// Decides about what stands at `offset` and is no good group. `header` is its header where just the
    /// payload is bad. Returns how many bytes to drop, or the error where they may not be dropped.
    fn torn_bytes(
        &self,
        window: &mut Window,
        offset: u64,
        header: Option<GroupHeader>,
    ) -> Result<u64> {
        // A torn group's own payload may look like anything; behind its end is nothing.
        let search_from = match header.and_then(|h| h.end()) {
            Some(end) => end,
            None => offset,
        };
        let mut used_end = offset;
        let mut at = offset;
        while at < window.file_len {
            let len = WINDOW_BYTES.min(window.file_len - at);
            let bytes = without_zeroes(window.get(at, len)?);
            if !bytes.is_empty() {
                used_end = at + bytes.len() as u64;
            }
            let skip = search_from.saturating_sub(at).min(bytes.len() as u64);
            let later = find_group(&bytes[skip as usize..], at + skip, self.header.first_seq);
            if let Some(later) = later {
                return Err(corruption(
                    self.path,
                    offset,
                    format_args!(
                        "a good group follows at offset {}, which was written when everything below \
                         offset {} was durable; the records from {} on cannot be read",
                        later.offset, later.durable_through, self.next_seq
                    ),
                ));
            }
            if at + len == window.file_len {
                break;
            }
            // Windows overlap, so that a header across their border is seen whole.
            at += len - GROUP_HEADER_LEN as u64;
        }
        if used_end > offset && !self.may_be_torn {
            return Err(corruption(
                self.path,
                offset,
                format_args!(
                    "a newer file follows, so it was durable; the records from {} on cannot be read",
                    self.next_seq
                ),
            ));
        }
        Ok(used_end - offset)
    }
}

/// `bytes` without the zeroes at its end. Space set aside is much longer than what is torn.
fn without_zeroes(bytes: &[u8]) -> &[u8] {
    const ZEROES: [u8; 4096] = [0; 4096];
    let mut end = bytes.len();
    while end > 0 && bytes[..end].ends_with(&ZEROES[..end.min(ZEROES.len())]) {
        end -= end.min(ZEROES.len());
    }
    let used = bytes[..end].iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
    &bytes[..used]
}

/// The payload of a group, if it is all there and matches its checksum.
fn read_payload<'w>(window: &'w mut Window, header: &GroupHeader) -> Result<Option<&'w [u8]>> {
    match header.end() {
        Some(end) if end <= window.file_len => {}
        _ => return Ok(None),
    }
    let payload = window.get(header.offset + GROUP_HEADER_LEN as u64, header.payload_len)?;
    Ok((crc32c::crc32c(payload) == header.payload_crc).then_some(payload))
}
