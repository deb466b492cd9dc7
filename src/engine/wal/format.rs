//! The bytes of a log file: its header, and the headers of groups. All numbers are little-endian.
//!
//! ```text
//! file  = file header (32) group*  zeroes*        zeroes: space set aside for groups to come
//! group = group header (64) record* padding       a multiple of 8 bytes long; one write, one sync
//! record = length (4) message (proto: LogRecord)
//! ```
//!
//! After the last group may stand a *mark*: a group header without records, written once the group before it was synced. The
//! next group takes its place.

use crate::engine::error::{Error, ErrorKind};

/// Version of the format that this program writes, and the newest it reads.
pub(super) const FORMAT_VERSION: u32 = 2;
/// The oldest that it reads: it has no marks.
const OLDEST_VERSION: u32 = 1;

const FILE_MAGIC: [u8; 8] = *b"OMENWAL\0";
const GROUP_MAGIC: [u8; 4] = *b"OGRP";

/// Length of a file's header.
pub(super) const FILE_HEADER_LEN: usize = 32;
/// Length of a group's header.
pub(super) const GROUP_HEADER_LEN: usize = 64;
/// Groups begin at multiples of this.
pub(super) const GROUP_ALIGNMENT: usize = 8;

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

/// The first bytes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileHeader {
    /// The number of the file's first record: one above the last of the file before, all of whose
    /// groups were synced before this header was written.
    pub(super) first_seq: u64,
    /// Version of the file's format.
    pub(super) version: u32,
}

impl FileHeader {
    /// The header of a new file.
    pub(super) fn new(first_seq: u64) -> Self {
        Self { first_seq, version: FORMAT_VERSION }
    }

    /// Whether groups of the file are followed by marks.
    pub(super) fn has_marks(self) -> bool {
        self.version > OLDEST_VERSION
    }

    pub(super) fn encode(self) -> [u8; FILE_HEADER_LEN] {
        let mut out = [0; FILE_HEADER_LEN];
        out[..8].copy_from_slice(&FILE_MAGIC);
        out[8..12].copy_from_slice(&self.version.to_le_bytes());
        out[16..24].copy_from_slice(&self.first_seq.to_le_bytes());
        let crc = crc32c::crc32c(&out[..28]);
        out[28..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// The header, or none where the bytes are not one. Magic, version and checksum stay where they are
    /// in every version to come.
    pub(super) fn decode(bytes: &[u8; FILE_HEADER_LEN]) -> Result<Option<Self>, Error> {
        if bytes[..8] != FILE_MAGIC || u32_at(bytes, 28) != crc32c::crc32c(&bytes[..28]) {
            return Ok(None);
        }
        let version = u32_at(bytes, 8);
        if !(OLDEST_VERSION..=FORMAT_VERSION).contains(&version) {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "has format version {version} of the log, and this program reads versions \
                     {OLDEST_VERSION} to {FORMAT_VERSION}: open it with the version of omendb that wrote it"
                ),
            ));
        }
        Ok(Some(Self { first_seq: u64_at(bytes, 16), version }))
    }
}

/// The first bytes of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct GroupHeader {
    /// Records in it.
    pub(super) record_count: u32,
    /// Bytes after the header, padding included.
    pub(super) payload_len: u64,
    /// Number of its first record.
    pub(super) first_seq: u64,
    /// Number of its last record.
    pub(super) last_seq: u64,
    /// Where in the file it begins.
    pub(super) offset: u64,
    /// All bytes of the file below this were synced when the group was written.
    pub(super) durable_through: u64,
    /// [`FileHeader::first_seq`] of its file.
    pub(super) file_first_seq: u64,
    /// CRC32C of the payload.
    pub(super) payload_crc: u32,
}

impl GroupHeader {
    pub(super) fn encode(&self) -> [u8; GROUP_HEADER_LEN] {
        let mut out = [0; GROUP_HEADER_LEN];
        out[..4].copy_from_slice(&GROUP_MAGIC);
        out[4..8].copy_from_slice(&self.record_count.to_le_bytes());
        let words = [
            self.payload_len,
            self.first_seq,
            self.last_seq,
            self.offset,
            self.durable_through,
            self.file_first_seq,
        ];
        for (slot, word) in out[8..56].chunks_exact_mut(8).zip(words) {
            slot.copy_from_slice(&word.to_le_bytes());
        }
        out[56..60].copy_from_slice(&self.payload_crc.to_le_bytes());
        let crc = crc32c::crc32c(&out[..60]);
        out[60..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// The header that begins `bytes`, or none where there is no undamaged one.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.first_chunk::<GROUP_HEADER_LEN>()?;
        if bytes[..4] != GROUP_MAGIC || u32_at(bytes, 60) != crc32c::crc32c(&bytes[..60]) {
            return None;
        }
        Some(Self {
            record_count: u32_at(bytes, 4),
            payload_len: u64_at(bytes, 8),
            first_seq: u64_at(bytes, 16),
            last_seq: u64_at(bytes, 24),
            offset: u64_at(bytes, 32),
            durable_through: u64_at(bytes, 40),
            file_first_seq: u64_at(bytes, 48),
            payload_crc: u32_at(bytes, 56),
        })
    }

    /// The mark that says that all of the file below `offset` was synced, and that record `next_seq` comes next.
    pub(super) fn mark(offset: u64, next_seq: u64, file_first_seq: u64) -> Self {
        Self {
            record_count: 0,
            payload_len: 0,
            first_seq: next_seq,
            last_seq: next_seq.wrapping_sub(1),
            offset,
            durable_through: offset,
            file_first_seq,
            payload_crc: 0,
        }
    }

    /// Whether it is a mark, and not the header of a group.
    pub(super) fn is_mark(&self) -> bool {
        self.record_count == 0 && self.payload_len == 0
    }

    /// Where the group ends.
    pub(super) fn end(&self) -> Option<u64> {
        self.offset.checked_add(GROUP_HEADER_LEN as u64)?.checked_add(self.payload_len)
    }
}

/// Offsets in `bytes`, which begin at offset `start` of a file (a multiple of 8), where the header of a
/// group of that file stands.
pub(super) fn find_group(bytes: &[u8], start: u64, file_first_seq: u64) -> Option<GroupHeader> {
    let candidates = (0..bytes.len()).step_by(GROUP_ALIGNMENT);
    candidates.filter(|at| bytes[*at..].starts_with(&GROUP_MAGIC)).find_map(|at| {
        // A value of a user may hold such bytes: they do not name their own place in the log.
        GroupHeader::decode(&bytes[at..])
            .filter(|g| g.offset == start + at as u64 && g.file_first_seq == file_first_seq)
    })
}

/// The records of a payload, each with its offset in it. None where the lengths do not fit.
pub(super) fn records(payload: &[u8], count: u32) -> Option<Vec<(usize, &[u8])>> {
    // A record has at least its length: no count makes this allocate more than the payload has.
    if count as usize > payload.len() / 4 {
        return None;
    }
    let mut records = Vec::with_capacity(count as usize);
    let mut at = 0;
    for _ in 0..count {
        let len = u32::from_le_bytes(*payload.get(at..)?.first_chunk::<4>()?) as usize;
        at += 4;
        records.push((at, payload.get(at..at.checked_add(len)?)?));
        at += len;
    }
    let padding = &payload[at..];
    (padding.len() < GROUP_ALIGNMENT && padding.iter().all(|b| *b == 0)).then_some(records)
}

/// Appends a group to `out` (which is empty).
pub(super) fn encode_group(
    out: &mut Vec<u8>,
    records: &[Vec<u8>],
    mut header: GroupHeader,
) -> Result<(), Error> {
    let unpadded = GROUP_HEADER_LEN + records.iter().map(|r| r.len() + 4).sum::<usize>();
    let len = unpadded.next_multiple_of(GROUP_ALIGNMENT);
    out.reserve_exact(len);
    out.resize(GROUP_HEADER_LEN, 0);
    for record in records {
        let record_len = u32::try_from(record.len()).map_err(|_| {
            Error::exhausted(format!(
                "a commit of {} bytes is too large for the log: write it in smaller batches",
                record.len()
            ))
        })?;
        out.extend_from_slice(&record_len.to_le_bytes());
        out.extend_from_slice(record);
    }
    out.resize(len, 0);
    header.record_count = u32::try_from(records.len())
        .map_err(|_| Error::internal("more records in a group of the log than 2^32"))?;
    header.payload_len = (len - GROUP_HEADER_LEN) as u64;
    header.payload_crc = crc32c::crc32c(&out[GROUP_HEADER_LEN..]);
    out[..GROUP_HEADER_LEN].copy_from_slice(&header.encode());
    Ok(())
}
