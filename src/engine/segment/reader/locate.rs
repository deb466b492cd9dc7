//! Finds keys, and nothing but them: what filters rule out is not searched for in chunks that are not in memory.

use std::sync::Arc;

use super::{Segment, index_file, is_lost};
use crate::engine::cache::{CacheKey, CachePart};
use crate::engine::error::Result;
use crate::engine::index::Probe;
use crate::engine::key::{EncodedKey, KeyColumn};
use crate::engine::segment::FilterUse;
use crate::engine::segment::keys::{CachedFilters, KeyRef, SegmentKeys, Stop};

/// Keys of one chunk from which on filters are not asked: of so many absent ones, one passes about as often as
/// not, and the chunk is read besides the filter.
const DENSE_KEYS: u32 = 64;
/// Probes between that for which memory is asked and that which is answered.
const AHEAD: usize = 8;

/// Whether there are filters, and so few keys for the chunks between the first and the last of them that asking
/// may pay.
fn is_worth_asking(mine: &SegmentKeys, keys: &KeyColumn) -> bool {
    if mine.filters.is_none() || keys.is_empty() {
        return false;
    }
    let chunk_of = |i: usize| mine.chunk_of(KeyRef::at(keys, i)).map(|at| at.chunk);
    let chunks = match (chunk_of(0), chunk_of(keys.len() - 1)) {
        (Some(first), Some(last)) if keys.is_sorted() => last.saturating_sub(first) + 1,
        _ => mine.places.len(),
    };
    keys.len() < DENSE_KEYS as usize * chunks
}

/// Parts of the filters that a search has at hand.
struct Parts<'a> {
    segment: &'a Segment,
    keys: &'a SegmentKeys,
    filters: FilterUse,
    /// By number: not asked for yet, not to be had, or there.
    parts: Vec<Option<Option<Arc<CachedFilters>>>>,
}

impl<'a> Parts<'a> {
    fn new(segment: &'a Segment, keys: &'a SegmentKeys, filters: FilterUse) -> Self {
        let count = keys.filters.as_ref().map_or(0, |filters| filters.places.len());
        Self { segment, keys, filters, parts: vec![None; count] }
    }

    /// Makes sure that a part is at hand if it can be.
    fn load(&mut self, part: usize) -> Result<()> {
        if self.parts[part].is_none() {
            self.parts[part] = Some(self.segment.filter_part(self.keys, part, self.filters)?);
        }
        if let Some(Some(filters)) = &self.parts[part] {
            filters.note_use();
        }
        Ok(())
    }

    /// The bytes of a part; none where it is not at hand.
    fn bytes(&self, part: usize) -> &[u8] {
        self.parts[part].as_ref().and_then(Option::as_ref).map_or(&[], |filters| &filters.bytes)
    }
}

impl Segment {
    /// Position of the first row with just this key, if there is one.
    #[inline]
    pub fn locate(&self, key: &EncodedKey, filters: FilterUse) -> Result<Option<u64>> {
        if let Some(keys) = &*self.keys.load()
            && let Ok((at, found)) = super::find_in(&keys.index, key)
        {
            return Ok(found.then_some(at as u64));
        }
        self.locate_cold(key, filters)
    }

    #[cold]
    fn locate_cold(&self, key: &EncodedKey, filters: FilterUse) -> Result<Option<u64>> {
        let mut keys = self.key_model()?;
        let wanted = KeyRef::new(key);
        if let Some(at) = keys.chunk_of(wanted)
            && !keys.has(at)
            && let Some(probe) = keys.probe(at, wanted)
        {
            match self.filter_part(&keys, probe.part, filters) {
                Err(e) if is_lost(&e) => keys = self.replace_keys(&e)?,
                part => {
                    if let Some(part) = part? {
                        part.note_use();
                        if !probe.may_be_in(&part.bytes) {
                            return Ok(None);
                        }
                    }
                }
            }
        }
        let (at, found) = self.with_held_keys(keys, |index| super::find_in(index, key))?;
        Ok(found.then_some(at as u64))
    }

    /// [`Segment::locate`] of many keys, in any order, at once: positions, and which of them count.
    pub fn locate_batch(
        &self,
        keys: &KeyColumn,
        filters: FilterUse,
    ) -> Result<(Vec<u32>, Vec<bool>)> {
        let (mut positions, mut found) = (vec![0; keys.len()], vec![false; keys.len()]);
        let mut done = 0;
        // A search among bytes takes several times as long as a filter does, among numbers twice as long.
        let asks_first = match keys {
            KeyColumn::Bytes(_) => filters != FilterUse::InMemory,
            _ => filters == FilterUse::First,
        };
        if let Some(mine) = &*self.keys.load()
            && (!asks_first || !is_worth_asking(mine, keys))
        {
            match super::find_batch_in(&mine.index, keys, &mut done, &mut positions, &mut found) {
                Ok(()) => return Ok((positions, found)),
                Err(Stop::WrongForm) => return Err(self.wrong_form()),
                Err(Stop::Missing(_)) => {}
            }
        }
        // Held throughout: what is in memory now is not read again because filters, or other chunks, come.
        let mut mine = self.key_model()?;
        if !is_worth_asking(&mine, keys) {
            self.with_held_keys(mine, |index| {
                super::find_batch_in(index, keys, &mut done, &mut positions, &mut found)
            })?;
            return Ok((positions, found));
        }
        let left = match self.not_ruled_out(&mine, keys, done, filters) {
            Err(e) if is_lost(&e) => {
                mine = self.replace_keys(&e)?;
                (done as u32..keys.len() as u32).collect()
            }
            left => left?,
        };
        let wanted = keys.take(&left)?;
        let (mut at, mut hits) = (vec![0; left.len()], vec![false; left.len()]);
        let mut done = 0;
        self.with_held_keys(mine, |index| {
            super::find_batch_in(index, &wanted, &mut done, &mut at, &mut hits)
        })?;
        for (i, (at, hit)) in left.into_iter().zip(at.into_iter().zip(hits)) {
            (positions[i as usize], found[i as usize]) = (at, hit);
        }
        Ok((positions, found))
    }

    /// Which of `all` keys from `from` on are to be searched for: filters were not asked for them, or let them pass.
    fn not_ruled_out(
        &self,
        keys: &SegmentKeys,
        all: &KeyColumn,
        from: usize,
        filters: FilterUse,
    ) -> Result<Vec<u32>> {
        let rest = from as u32..all.len() as u32;
        let mut counts = vec![0u32; keys.places.len()];
        let mut asked = Vec::with_capacity(rest.len());
        for i in rest.clone() {
            let at = keys.chunk_of(KeyRef::at(all, i as usize));
            // Absent keys must not keep chunks in memory, in the place of the filters that suffice for them.
            let at = at.filter(|at| filters != FilterUse::InMemory || !keys.has(*at));
            at.iter().for_each(|at| counts[at.chunk] += 1);
            asked.push(at);
        }
        let mut parts = Parts::new(self, keys, filters);
        let mut probes: Vec<Option<Probe>> = Vec::with_capacity(rest.len());
        for (i, at) in rest.clone().zip(asked) {
            let at = at.filter(|at| counts[at.chunk] < DENSE_KEYS);
            let probe = at.and_then(|at| keys.probe(at, KeyRef::at(all, i as usize)));
            probe.map_or(Ok(()), |probe| parts.load(probe.part))?;
            probes.push(probe);
        }
        let mut left = Vec::new();
        for (n, i) in rest.enumerate() {
            if let Some(Some(ahead)) = probes.get(n + AHEAD) {
                ahead.prefetch(parts.bytes(ahead.part));
            }
            if probes[n].is_none_or(|probe| probe.may_be_in(parts.bytes(probe.part))) {
                left.push(i);
            }
        }
        Ok(left)
    }

    /// A part of the filters; `None` where it may not be read for this.
    fn filter_part(
        &self,
        keys: &SegmentKeys,
        part: usize,
        filters: FilterUse,
    ) -> Result<Option<Arc<CachedFilters>>> {
        let Some(own) = &keys.filters else { return Ok(None) };
        own.note_use();
        let key = CacheKey { segment: self.meta.id, part: CachePart::KeyFilters(part as u32) };
        let cache = &self.store.cache;
        match filters {
            FilterUse::InMemory => Ok(cache.get(&key)),
            FilterUse::Read | FilterUse::First => {
                let place = own.places[part];
                let load = || {
                    let vfs = self.store.vfs.as_ref();
                    let bytes = index_file::read_place(vfs, &self.index_path, place)?;
                    let size = bytes.len();
                    Ok((CachedFilters::new(bytes), size))
                };
                cache.get_or_load(key, load).map(Some)
            }
        }
    }
}
