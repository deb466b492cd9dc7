//! Reads the newest checkpoint.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use prost::Message;
use roaring::RoaringBitmap;

use super::frame::{self, HEADER_LEN, Kind};
use super::store::{Newest, ROOT, Store, Written};
use super::{Checkpoint, TableCheckpoint};
use crate::engine::error::{Error, Result};
use crate::engine::id::{Generation, SegmentId, SeqNo, TableId};
use crate::engine::proto::{self, BitmapRef, PartRef};
use crate::engine::wal::AddedSegment;

impl Store {
    pub(super) fn load(&mut self, seq: u64) -> Result<Checkpoint> {
        let path = self.directory(seq).join(ROOT);
        let in_root = |e: Error| e.context(format_args!("manifest file {}", path.display()));
        let (payload, _) = frame::read(&*self.vfs, &path, Kind::Root)?;
        let root = decode::<proto::Root>(&payload, &path)?;
        if root.seq != seq {
            let message = format!("is of checkpoint {}: it was renamed", root.seq);
            return Err(in_root(Error::corruption(message)));
        }
        let mut packs = HashMap::new();
        let mut newest = Newest { seq, tables: BTreeMap::new() };
        let mut tables = Vec::with_capacity(root.tables.len());
        for part in root.tables {
            let written = self.load_part(part, &mut packs)?;
            tables.push(Arc::clone(&written.table));
            let id = written.table.meta.id;
            if newest.tables.insert(id, written).is_some() {
                return Err(in_root(Error::corruption(format!("names table {id} twice"))));
            }
        }
        self.pack_bytes = packs.iter().map(|(seq, pack)| (*seq, pack.len() as u64)).collect();
        self.newest = Some(newest);
        let views = root.views.into_iter().map(proto::decode_view).collect::<Result<_>>();
        Ok(Checkpoint {
            seq: SeqNo(seq),
            replay_from: SeqNo(root.replay_from),
            next_segment: SegmentId(root.next_segment),
            next_table: TableId(root.next_table),
            schemas: root.schemas,
            views: views.map_err(in_root)?,
            tables,
        })
    }

    fn load_part(&self, part: PartRef, packs: &mut HashMap<u64, Vec<u8>>) -> Result<Written> {
        let path = self.part_path(&part);
        let in_part = |e: Error| e.context(format_args!("manifest file {}", path.display()));
        let (payload, crc) = frame::read(&*self.vfs, &path, Kind::Part)?;
        if crc != part.crc || (payload.len() + HEADER_LEN) as u64 != part.file_bytes {
            let message = "is not the file that the root refers to: it was replaced";
            return Err(in_part(Error::corruption(message)));
        }
        let message = decode::<proto::Part>(&payload, &path)?;
        let table = message.table.ok_or_else(|| in_part(proto::missing("the table")))?;
        let meta = proto::decode_table(table).map_err(in_part)?;
        if meta.id.0 != part.table {
            return Err(in_part(Error::corruption(format!("is of table {}", meta.id))));
        }
        let mut segments = Vec::with_capacity(message.segments.len());
        let mut bitmaps = Vec::with_capacity(message.segments.len());
        for live in message.segments {
            let meta = proto::decode_segment(live.segment).map_err(in_part)?;
            let deleted = match &live.deleted {
                None => RoaringBitmap::new(),
                Some(at) => self.load_bitmap(at, packs)?,
            };
            proto::check_deleted(&meta, &deleted).map_err(in_part)?;
            segments.push(AddedSegment { meta, deleted });
            bitmaps.push(live.deleted);
        }
        let table = Arc::new(TableCheckpoint {
            meta: Arc::new(meta),
            next_row_id: message.next_row_id,
            flushed_below: Generation(message.flushed_below),
            segments,
        });
        Ok(Written { table, part, bitmaps })
    }

    /// The bitmap at a place of a pack. Packs are read whole, since at least half of one is live, and
    /// their payloads kept in `packs`.
    fn load_bitmap(
        &self,
        at: &BitmapRef,
        packs: &mut HashMap<u64, Vec<u8>>,
    ) -> Result<RoaringBitmap> {
        let path = self.pack_path(at.checkpoint);
        if let Entry::Vacant(slot) = packs.entry(at.checkpoint) {
            let (payload, _) = frame::read(&*self.vfs, &path, Kind::Bitmaps)?;
            slot.insert(payload);
        }
        let damaged = |what: &str| {
            let (path, offset) = (path.display(), at.offset);
            Error::corruption(format!("bitmap file {path} is damaged at offset {offset}: {what}"))
        };
        // Offsets are those in the file.
        let range = usize::try_from(at.offset).ok().and_then(|offset| {
            let start = offset.checked_sub(HEADER_LEN)?;
            Some(start..start.checked_add(usize::try_from(at.bytes).ok()?)?)
        });
        let bytes = range
            .and_then(|range| packs.get(&at.checkpoint)?.get(range))
            .ok_or_else(|| damaged("it is shorter than the manifest says"))?;
        if crc32c::crc32c(bytes) != at.crc {
            return Err(damaged("a bitmap does not match its checksum"));
        }
        let bitmap = proto::decode_bitmap(bytes).map_err(|e| damaged(e.message()))?;
        if bitmap.len() != at.cardinality {
            return Err(damaged("a bitmap has not as many rows as the manifest says"));
        }
        Ok(bitmap)
    }
}

fn decode<M: Message + Default>(payload: &[u8], path: &Path) -> Result<M> {
    M::decode(payload).map_err(|e| {
        Error::corruption(format!("manifest file {} cannot be read: {e}", path.display()))
            .with_source(e)
    })
}
