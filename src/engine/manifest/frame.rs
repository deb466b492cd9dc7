//! The frame around every file of a manifest: magic, format version, length and checksums.
//!
//! ```text
//! magic (8) version (4) crc of the payload (4) length of the payload (8) zero (4) crc of these (4) payload
//! ```

use std::path::Path;

use crate::engine::error::{Error, ErrorKind, Result};
use crate::engine::fs::Vfs;

/// Version of the format that this program writes, and the newest it reads.
const FORMAT_VERSION: u32 = 1;

/// Length of the frame's header, little-endian numbers all.
pub(super) const HEADER_LEN: usize = 32;

/// What kind of file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Root,
    Part,
    Bitmaps,
}

impl Kind {
    fn magic(self) -> [u8; 8] {
        match self {
            Self::Root => *b"OMENROOT",
            Self::Part => *b"OMENPART",
            Self::Bitmaps => *b"OMENDEL\0",
        }
    }
}

/// The file's bytes, and the checksum of its payload.
pub(super) fn encode(kind: Kind, payload: &[u8]) -> (Vec<u8>, u32) {
    let crc = crc32c::crc32c(payload);
    let mut out = Vec::with_capacity(HEADER_LEN + payload.len());
    out.extend_from_slice(&kind.magic());
    out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&(payload.len() as u64).to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    let header_crc = crc32c::crc32c(&out);
    out.extend_from_slice(&header_crc.to_le_bytes());
    out.extend_from_slice(payload);
    (out, crc)
}

/// Reads a whole file and returns its payload and the checksum of that.
pub(super) fn read(vfs: &dyn Vfs, path: &Path, kind: Kind) -> Result<(Vec<u8>, u32)> {
    let damaged = |offset: usize, what: &str| {
        let path = path.display();
        Error::corruption(format!("manifest file {path} is damaged at offset {offset}: {what}"))
    };
    let file = match vfs.open(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::corruption(format!(
                "manifest file {} is missing: it was removed, or the directory is not complete",
                path.display()
            ))
            .with_source(e));
        }
        file => file?,
    };
    let len = file.len()?;
    let mut header = [0; HEADER_LEN];
    if len < HEADER_LEN as u64 {
        return Err(damaged(0, "it is shorter than its header"));
    }
    file.read_at(&mut header, 0)?;
    let (fields, header_crc) = header.split_at(HEADER_LEN - 4);
    if fields[..8] != kind.magic() {
        return Err(damaged(0, "it does not begin as it should"));
    }
    if header_crc != crc32c::crc32c(fields).to_le_bytes() {
        return Err(damaged(0, "its header does not match its checksum"));
    }
    if fields[8..12] != FORMAT_VERSION.to_le_bytes() {
        let mut version = [0; 4];
        version.copy_from_slice(&fields[8..12]);
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "manifest file {} has format version {}, and this program reads version \
                 {FORMAT_VERSION}: open it with the version of omendb that wrote it",
                path.display(),
                u32::from_le_bytes(version)
            ),
        ));
    }
    let payload_len = len - HEADER_LEN as u64;
    if fields[16..24] != payload_len.to_le_bytes() {
        return Err(damaged(HEADER_LEN, "it is not as long as its header says"));
    }
    let payload_len = usize::try_from(payload_len)
        .map_err(|_| Error::exhausted(format!("{} is larger than memory", path.display())))?;
    let mut payload = vec![0; payload_len];
    file.read_at(&mut payload, HEADER_LEN as u64)?;
    let crc = crc32c::crc32c(&payload);
    if fields[12..16] != crc.to_le_bytes() {
        return Err(damaged(HEADER_LEN, "its contents do not match their checksum"));
    }
    Ok((payload, crc))
}
