//! Where the files of checkpoints are, and how they are written.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use prost::Message;
use roaring::RoaringBitmap;

use super::frame::{self, HEADER_LEN, Kind};
use super::{Checkpoint, TableCheckpoint};
use crate::engine::error::{Error, ErrorKind, Result};
use crate::engine::fs::Vfs;
use crate::engine::id::{SegmentId, TableId};
use crate::engine::proto::{self, BitmapRef, PartRef};
use crate::engine::wal::AddedSegment;

pub(super) const ROOT: &str = "root";
const PART_SUFFIX: &str = ".part";
pub(super) const PACK_SUFFIX: &str = ".del";
pub(super) const TEMPORARY_SUFFIX: &str = ".tmp";

/// A table as some checkpoint on disk has it.
#[derive(Debug, Clone)]
pub(super) struct Written {
    pub(super) table: Arc<TableCheckpoint>,
    pub(super) part: PartRef,
    /// Where the bitmap of each of the table's segments is; none where no row is deleted.
    pub(super) bitmaps: Vec<Option<BitmapRef>>,
}

/// The newest checkpoint on disk.
#[derive(Debug)]
pub(super) struct Newest {
    pub(super) seq: u64,
    pub(super) tables: BTreeMap<TableId, Written>,
}

#[derive(Debug)]
pub(super) struct Store {
    pub(super) vfs: Arc<dyn Vfs>,
    pub(super) manifest_dir: PathBuf,
    pub(super) bitmap_dir: PathBuf,
    pub(super) newest: Option<Newest>,
    /// Bytes of bitmaps in each pack that the newest checkpoint refers to.
    pub(super) pack_bytes: HashMap<u64, u64>,
    /// A sync is running. Still set after an error, it says that it was the sync that failed.
    pub(super) syncing: bool,
    /// A sync failed: what is on the disk is not known any more.
    pub(super) failed: bool,
    /// The directories may hold files that nothing refers to.
    pub(super) unswept: bool,
}

impl Store {
    pub(super) fn open(vfs: Arc<dyn Vfs>, dir: &Path) -> Result<(Self, Option<Checkpoint>)> {
        let mut store = Self {
            manifest_dir: dir.join("manifest"),
            bitmap_dir: dir.join("bitmaps"),
            vfs,
            newest: None,
            pack_bytes: HashMap::new(),
            syncing: false,
            failed: false,
            unswept: true,
        };
        store.vfs.create_dir_all(&store.manifest_dir)?;
        store.vfs.create_dir_all(&store.bitmap_dir)?;
        let mut seqs: Vec<u64> = store
            .vfs
            .list(&store.manifest_dir)?
            .iter()
            .filter_map(|path| numbered(path, ""))
            .collect();
        seqs.sort_unstable();
        for seq in seqs.into_iter().rev() {
            // Without a root a directory holds parts of older checkpoints, or one that was not finished.
            if store.vfs.exists(&store.directory(seq).join(ROOT))? {
                // A process killed after it named the root may not have synced that.
                store.vfs.sync_dir(&store.directory(seq))?;
                let checkpoint = store.load(seq)?;
                return Ok((store, Some(checkpoint)));
            }
        }
        Ok((store, None))
    }

    pub(super) fn directory(&self, seq: u64) -> PathBuf {
        self.manifest_dir.join(format!("{seq:020}"))
    }

    pub(super) fn part_path(&self, part: &PartRef) -> PathBuf {
        self.directory(part.checkpoint).join(format!("{}{PART_SUFFIX}", part.table))
    }

    pub(super) fn pack_path(&self, seq: u64) -> PathBuf {
        self.bitmap_dir.join(format!("{seq:020}{PACK_SUFFIX}"))
    }

    pub(super) fn write(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        let seq = checkpoint.seq.0;
        if self.failed {
            return Err(Error::new(
                ErrorKind::ReadOnly,
                "no checkpoint is written since a sync failed: restart when the disk is well",
            ));
        }
        match &self.newest {
            Some(newest) if newest.seq == seq => return Ok(()),
            Some(newest) if newest.seq > seq => {
                return Err(Error::internal(format!(
                    "checkpoint {seq} is older than the newest, {}",
                    newest.seq
                )));
            }
            _ => {}
        }
        match self.try_write(checkpoint) {
            Ok(newest) => {
                self.collect_garbage(newest);
                Ok(())
            }
            Err(e) => {
                self.failed = self.syncing;
                self.unswept = true;
                if self.failed {
                    // Its root may be named in the system's cache and not on the disk. The next process
                    // must not take it for durable; if it is, nothing is lost either.
                    let _ = self.vfs.remove(&self.directory(seq).join(ROOT));
                }
                Err(e.context(format_args!("checkpoint {seq} could not be written")))
            }
        }
    }

    fn try_write(&mut self, checkpoint: &Checkpoint) -> Result<Newest> {
        let seq = checkpoint.seq.0;
        let (mut tables, pack) = self.place(checkpoint)?;
        if !pack.is_empty() {
            let (bytes, _) = frame::encode(Kind::Bitmaps, &pack);
            self.write_file(&self.pack_path(seq), &bytes)?;
            self.sync(|vfs, store| vfs.sync_dir(&store.bitmap_dir))?;
            self.pack_bytes.insert(seq, pack.len() as u64);
        }
        drop(pack);
        self.empty_directory(seq)?;
        for written in tables.values_mut().filter(|w| w.part.checkpoint == seq) {
            let payload = encode_part(written)?;
            let (bytes, crc) = frame::encode(Kind::Part, &payload);
            written.part.crc = crc;
            written.part.file_bytes = bytes.len() as u64;
            self.write_file(&self.part_path(&written.part), &bytes)?;
        }
        let directory = self.directory(seq);
        self.sync(|vfs, _| vfs.sync_dir(&directory))?;
        let root = proto::Root {
            seq,
            replay_from: checkpoint.replay_from.0,
            next_segment: checkpoint.next_segment.0,
            next_table: checkpoint.next_table.0,
            schemas: checkpoint.schemas.clone(),
            views: checkpoint.views.iter().map(|(n, sql)| proto::encode_view(n, sql)).collect(),
            tables: checkpoint
                .tables
                .iter()
                .filter_map(|t| tables.get(&t.meta.id).map(|w| w.part))
                .collect(),
        };
        let (bytes, _) = frame::encode(Kind::Root, &root.encode_to_vec());
        self.write_file(&directory.join(ROOT), &bytes)?;
        self.sync(|vfs, _| vfs.sync_dir(&directory))?;
        Ok(Newest { seq, tables })
    }

    /// Decides where the part and the bitmaps of every table are or will be, and puts those bitmaps
    /// together that are not on disk yet. Lengths and checksums of new parts are not known here.
    fn place(&self, checkpoint: &Checkpoint) -> Result<(BTreeMap<TableId, Written>, Vec<u8>)> {
        let seq = checkpoint.seq.0;
        let mut places = Vec::with_capacity(checkpoint.tables.len());
        let mut live_bytes: HashMap<u64, u64> = HashMap::new();
        for table in &checkpoint.tables {
            let bitmaps = self.present_bitmaps(table);
            for at in bitmaps.iter().flatten() {
                *live_bytes.entry(at.checkpoint).or_default() += at.bytes;
            }
            places.push((table, bitmaps));
        }
        // A pack that is mostly garbage is given up: what is live of it moves to the new one.
        let worn = |at: &BitmapRef| {
            let live = live_bytes.get(&at.checkpoint).copied().unwrap_or(0);
            self.pack_bytes.get(&at.checkpoint).is_some_and(|bytes| live < bytes / 2)
        };
        let mut tables = BTreeMap::new();
        let mut pack = Vec::new();
        for (table, mut bitmaps) in places {
            let id = table.meta.id;
            let previous = self.newest.as_ref().and_then(|n| n.tables.get(&id));
            let unchanged = previous
                .filter(|w| Arc::ptr_eq(&w.table, table) && !bitmaps.iter().flatten().any(worn));
            let written = if let Some(written) = unchanged {
                written.clone()
            } else {
                for (segment, at) in table.segments.iter().zip(&mut bitmaps) {
                    if at.as_ref().is_none_or(worn) {
                        *at = append_bitmap(&mut pack, seq, &segment.deleted)?;
                    }
                }
                let part = PartRef { table: id.0, checkpoint: seq, file_bytes: 0, crc: 0 };
                Written { table: Arc::clone(table), part, bitmaps }
            };
            if tables.insert(id, written).is_some() {
                return Err(Error::internal(format!("a checkpoint has table {id} twice")));
            }
        }
        Ok((tables, pack))
    }

    /// Where the bitmaps of a table's segments are already.
    fn present_bitmaps(&self, table: &Arc<TableCheckpoint>) -> Vec<Option<BitmapRef>> {
        let previous = self.newest.as_ref().and_then(|n| n.tables.get(&table.meta.id));
        let Some(previous) = previous else {
            return vec![None; table.segments.len()];
        };
        if Arc::ptr_eq(&previous.table, table) {
            return previous.bitmaps.clone();
        }
        let before: HashMap<SegmentId, (&RoaringBitmap, &BitmapRef)> = previous
            .table
            .segments
            .iter()
            .zip(&previous.bitmaps)
            .filter_map(|(segment, at)| Some((segment.meta.id, (&segment.deleted, at.as_ref()?))))
            .collect();
        let present = |segment: &AddedSegment| {
            let (deleted, at) = before.get(&segment.meta.id)?;
            (segment.deleted == **deleted).then_some(**at)
        };
        table.segments.iter().map(present).collect()
    }

    /// Makes the directory of a checkpoint, without what an attempt before this left in it: a root that
    /// is back after a crash must not find other parts than its own.
    fn empty_directory(&mut self, seq: u64) -> Result<()> {
        let directory = self.directory(seq);
        self.sync(|vfs, _| vfs.create_dir_all(&directory))?;
        let leftover = self.vfs.list(&directory)?;
        for path in &leftover {
            self.vfs.remove(path)?;
        }
        if !leftover.is_empty() {
            self.sync(|vfs, _| vfs.sync_dir(&directory))?;
        }
        Ok(())
    }

    /// Writes a file under a temporary name, syncs it, and gives it its name. The caller syncs the
    /// directory.
    fn write_file(&mut self, path: &Path, bytes: &[u8]) -> Result<()> {
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(TEMPORARY_SUFFIX);
        let temporary = PathBuf::from(temporary);
        if self.vfs.exists(&temporary)? {
            self.vfs.remove(&temporary)?;
        }
        let file = self.vfs.create(&temporary)?;
        file.write_at(bytes, 0)?;
        self.sync(|_, _| file.sync())?;
        Ok(self.vfs.rename(&temporary, path)?)
    }

    /// Runs what syncs, so that its failure is known from others.
    fn sync(&mut self, sync: impl FnOnce(&dyn Vfs, &Self) -> std::io::Result<()>) -> Result<()> {
        self.syncing = true;
        sync(&*self.vfs, self)?;
        self.syncing = false;
        Ok(())
    }
}

fn encode_part(written: &Written) -> Result<Vec<u8>> {
    let table = &written.table;
    let segments = table.segments.iter().zip(&written.bitmaps).map(|(segment, at)| {
        proto::LiveSegment { segment: Some(proto::encode_segment(&segment.meta)), deleted: *at }
    });
    let part = proto::Part {
        table: Some(proto::encode_table(&table.meta)?),
        next_row_id: table.next_row_id,
        flushed_below: table.flushed_below.0,
        segments: segments.collect(),
    };
    Ok(part.encode_to_vec())
}

/// Appends a bitmap to the payload of a pack and says where it will be.
fn append_bitmap(
    pack: &mut Vec<u8>,
    seq: u64,
    bitmap: &RoaringBitmap,
) -> Result<Option<BitmapRef>> {
    let bytes = proto::encode_bitmap(bitmap)?;
    if bytes.is_empty() {
        return Ok(None);
    }
    let at = BitmapRef {
        checkpoint: seq,
        offset: (HEADER_LEN + pack.len()) as u64,
        bytes: bytes.len() as u64,
        crc: crc32c::crc32c(&bytes),
        cardinality: bitmap.len(),
    };
    pack.extend_from_slice(&bytes);
    Ok(Some(at))
}

/// The number that a path's last part is, before `suffix`.
pub(super) fn numbered(path: &Path, suffix: &str) -> Option<u64> {
    let digits = path.file_name()?.to_str()?.strip_suffix(suffix)?;
    let number = digits.parse().ok()?;
    (digits == format!("{number:020}")).then_some(number)
}
