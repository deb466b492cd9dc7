//! Removes the files that the newest checkpoint does not refer to.

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;

use super::store::{Newest, PACK_SUFFIX, ROOT, Store, TEMPORARY_SUFFIX, numbered};
use crate::engine::error::Result;

impl Store {
    /// Takes `newest` for the newest checkpoint, which is durable, and removes what it does not refer
    /// to. What cannot be removed now is found by the sweep after a later checkpoint.
    pub(super) fn collect_garbage(&mut self, newest: Newest) {
        let before = self.newest.replace(newest);
        let Some(newest) = &self.newest else { return };
        let packs: HashSet<u64> = newest
            .tables
            .values()
            .flat_map(|w| w.bitmaps.iter().flatten().map(|at| at.checkpoint))
            .collect();
        let parts: BTreeSet<PathBuf> =
            newest.tables.values().map(|w| self.part_path(&w.part)).collect();
        let directories: HashSet<u64> = newest
            .tables
            .values()
            .map(|w| w.part.checkpoint)
            .chain(std::iter::once(newest.seq))
            .collect();
        let removed = if self.unswept {
            self.sweep(newest.seq, &directories, &parts, &packs)
        } else {
            self.remove_replaced(before.as_ref(), &directories, &parts, &packs)
        };
        if let Err(e) = &removed {
            tracing::warn!(error = %e, "files of older checkpoints could not be removed");
        }
        self.unswept = removed.is_err();
        self.pack_bytes.retain(|seq, _| packs.contains(seq));
    }

    /// Removes what `before` referred to and the newest checkpoint does not.
    fn remove_replaced(
        &self,
        before: Option<&Newest>,
        directories: &HashSet<u64>,
        parts: &BTreeSet<PathBuf>,
        packs: &HashSet<u64>,
    ) -> Result<()> {
        let Some(before) = before else { return Ok(()) };
        self.vfs.remove(&self.directory(before.seq).join(ROOT))?;
        let mut left = BTreeSet::from([before.seq]);
        for written in before.tables.values() {
            let path = self.part_path(&written.part);
            if !parts.contains(&path) {
                self.vfs.remove(&path)?;
            }
            left.insert(written.part.checkpoint);
        }
        for seq in left.difference(&directories.iter().copied().collect()) {
            self.vfs.remove_dir(&self.directory(*seq))?;
        }
        for seq in self.pack_bytes.keys().filter(|seq| !packs.contains(seq)) {
            self.vfs.remove(&self.pack_path(*seq))?;
        }
        Ok(())
    }

    /// Removes whatever of a manifest's files is not referred to, also what crashes left. Names that
    /// are not a manifest's stay.
    fn sweep(
        &self,
        newest: u64,
        directories: &HashSet<u64>,
        parts: &BTreeSet<PathBuf>,
        packs: &HashSet<u64>,
    ) -> Result<()> {
        for directory in self.vfs.list(&self.manifest_dir)? {
            let Some(seq) = numbered(&directory, "") else { continue };
            for path in self.vfs.list(&directory)? {
                let is_root = path.file_name().is_some_and(|name| name == ROOT);
                let keep = parts.contains(&path) || (is_root && seq == newest);
                if !keep {
                    self.vfs.remove(&path)?;
                }
            }
            if !directories.contains(&seq) {
                self.vfs.remove_dir(&directory)?;
            }
        }
        for path in self.vfs.list(&self.bitmap_dir)? {
            let temporary = format!("{PACK_SUFFIX}{TEMPORARY_SUFFIX}");
            let is_garbage = match numbered(&path, PACK_SUFFIX) {
                Some(seq) => !packs.contains(&seq),
                None => numbered(&path, &temporary).is_some(),
            };
            if is_garbage {
                self.vfs.remove(&path)?;
            }
        }
        Ok(())
    }
}
