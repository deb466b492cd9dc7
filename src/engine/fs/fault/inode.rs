//! The contents of a file: what reads see, what is on the disk, and what may be after a power cut.

use std::collections::BTreeSet;

/// Bytes that reach the disk together, or not, or torn somewhere inside.
pub(super) const BLOCK: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Inode {
    /// What reads see.
    pub(super) content: Vec<u8>,
    /// What is on the disk.
    durable: Vec<u8>,
    /// Blocks of `content` that were written since the last sync.
    dirty: BTreeSet<usize>,
    /// The shortest that the file was since the last sync: what the disk has beyond is stale.
    kept_len: usize,
}

impl Inode {
    pub(super) fn durable(content: Vec<u8>) -> Self {
        let kept_len = content.len();
        Self { durable: content.clone(), content, dirty: BTreeSet::new(), kept_len }
    }

    fn is_clean(&self) -> bool {
        self.dirty.is_empty()
            && self.kept_len == self.content.len()
            && self.durable.len() == self.content.len()
    }

    pub(super) fn write(&mut self, bytes: &[u8], offset: usize) {
        if bytes.is_empty() {
            return;
        }
        let end = offset + bytes.len();
        if self.content.len() < end {
            self.content.resize(end, 0);
        }
        self.content[offset..end].copy_from_slice(bytes);
        self.dirty.extend(offset / BLOCK..=(end - 1) / BLOCK);
    }

    pub(super) fn set_len(&mut self, len: usize) {
        self.content.resize(len, 0);
        self.kept_len = self.kept_len.min(len);
        self.dirty.retain(|block| block * BLOCK < len);
    }

    /// Copies bytes `range` of block `block` to the disk, as far as `disk` is long enough.
    fn copy_block(&self, disk: &mut [u8], block: usize, upto: usize) {
        let start = block * BLOCK;
        let end = (start + upto.min(BLOCK)).min(self.content.len()).min(disk.len());
        if start < end {
            disk[start..end].copy_from_slice(&self.content[start..end]);
        }
    }

    pub(super) fn sync(&mut self) {
        let mut durable = std::mem::take(&mut self.durable);
        durable.truncate(self.kept_len);
        durable.resize(self.content.len(), 0);
        for block in std::mem::take(&mut self.dirty) {
            self.copy_block(&mut durable, block, BLOCK);
        }
        self.durable = durable;
        self.kept_len = self.content.len();
    }

    /// Writes some blocks; the others are forgotten, so that no later sync writes them.
    pub(super) fn fail_sync(&mut self, random: &mut Random) {
        self.dirty.retain(|_| random.quarters(2));
        self.sync();
    }

    /// What is on the disk after a power cut: of what was not synced, each block with `share` quarters
    /// of a chance, some of these torn.
    pub(super) fn after_crash(&self, random: &mut Random, share: usize) -> Vec<u8> {
        let mut disk = self.durable.clone();
        if self.is_clean() {
            return disk;
        }
        if random.quarters(share) {
            disk.truncate(self.kept_len);
        }
        let (low, high) = (disk.len().min(self.content.len()), disk.len().max(self.content.len()));
        let len = match random.below(4) {
            0 => low + random.below(high - low + 1),
            _ if random.quarters(share) => self.content.len(),
            _ => disk.len(),
        };
        disk.resize(len, 0);
        for &block in &self.dirty {
            if random.quarters(share) {
                let upto = if random.quarters(1) { random.below(BLOCK) } else { BLOCK };
                self.copy_block(&mut disk, block, upto);
            }
        }
        disk
    }
}

/// SplitMix64: few lines, and the same everywhere.
#[derive(Debug, Default)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`, or 0.
    pub(super) fn below(&mut self, n: usize) -> usize {
        (self.next() % (n.max(1) as u64)) as usize
    }

    /// True `share` times out of 4.
    pub(super) fn quarters(&mut self, share: usize) -> bool {
        self.below(4) < share
    }
}
