//! Lookups of many keys: stage after stage, each of which asks for the memory of the next.

use super::bits::{Packed, prefetch};
use super::chunks::LINE;
use super::key::ModelKey;
use super::leaf::{Found, SAMPLE_ROWS};
use super::root::Root;
use super::{LearnedKeys, Missing};

/// Keys that go through a stage together: enough that a stage does not wait for its memory, few enough
/// that what all stages asked for fits the nearest cache.
const GROUP: usize = 8;
/// Stages of a lookup.
const STAGES: usize = 5;

/// A lookup between two stages.
#[derive(Clone, Copy)]
struct Search<'a, K> {
    /// After the first stage, where the root goes on; then the leaf.
    leaf: u32,
    /// The rows where the answer is, ends included; of a leaf whose line has breaks, `hi` is the part
    /// of it.
    lo: u32,
    hi: u32,
    /// How far what is looked for is above the leaf's first key; after the fourth stage its relative
    /// value, unless the leaf's line has breaks.
    u: K,
    /// The chunk of the leaf.
    residuals: &'a [u8],
}

impl<K: ModelKey> LearnedKeys<K> {
    /// [`Self::find`] of every key of `q`, in any order, into `out`, and into `found` where it is not empty.
    ///
    /// A lookup waits for memory up to four times: for its entry in the root, the first keys of leaves,
    /// its leaf and residuals. Groups of keys follow each other through these stages, so that what one
    /// waits for comes while the others compute.
    ///
    /// # Errors
    /// The chunk that is missing, and for how many of the keys there are answers already.
    ///
    /// # Panics
    /// If `q` and `out` differ in length.
    pub fn find_batch(
        &self,
        q: &[K],
        out: &mut [u32],
        found: &mut [bool],
    ) -> Result<(), (Missing, usize)> {
        assert_eq!(q.len(), out.len(), "one position per key");
        assert!(found.is_empty() || found.len() == q.len(), "one answer per key");
        if self.is_empty() {
            out.fill(0);
            found.fill(false);
            return Ok(());
        }
        let root = &self.model.root;
        #[cfg(target_arch = "x86_64")]
        if self.model.simd {
            // SAFETY: `simd` says that the processor has these features.
            return unsafe { self.batch_simd(root, q, out, found) };
        }
        // SAFETY: no SIMD.
        unsafe { self.batch_in::<false>(root, q, out, found) }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(
        enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,bmi1,bmi2,lzcnt,popcnt"
    )]
    fn batch_simd(
        &self,
        root: &Root<K>,
        q: &[K],
        out: &mut [u32],
        found: &mut [bool],
    ) -> Result<(), (Missing, usize)> {
        // SAFETY: these are the features it needs.
        unsafe { self.batch_in::<true>(root, q, out, found) }
    }

    /// # Safety
    /// With `SIMD`, the processor must support [`super::simd`].
    #[inline(always)]
    unsafe fn batch_in<const SIMD: bool>(
        &self,
        root: &Root<K>,
        q: &[K],
        out: &mut [u32],
        found: &mut [bool],
    ) -> Result<(), (Missing, usize)> {
        let Some(last) = q.last() else { return Ok(()) };
        let none = Search { leaf: 0, lo: 0, hi: 0, u: K::default(), residuals: &[] };
        let mut searches = [[none; GROUP]; STAGES];
        // All groups are whole, so that no stage asks how long its group is: the last one has its last
        // key several times.
        let (whole, rest) = q.as_chunks::<GROUP>();
        let mut tail = [*last; GROUP];
        tail[..rest.len()].copy_from_slice(rest);
        let keys = |group: usize| whole.get(group).unwrap_or(&tail);
        let groups = whole.len() + usize::from(!rest.is_empty());
        for step in 0..groups + STAGES - 1 {
            let at = |stage: usize| step.checked_sub(stage).filter(|group| *group < groups);
            if let Some(group) = at(0) {
                for (s, q) in searches[group % STAGES].iter_mut().zip(keys(group)) {
                    // A key below all is at 0, as the first one is.
                    let entry = root.begin((*q).max(self.model.min));
                    root.prefetch(entry);
                    // There are fewer entries.
                    s.leaf = entry.min(u32::MAX as usize) as u32;
                }
            }
            if let Some(group) = at(1) {
                for (s, q) in searches[group % STAGES].iter_mut().zip(keys(group)) {
                    self.follow(root, s, *q);
                }
            }
            if let Some(group) = at(2) {
                for (s, q) in searches[group % STAGES].iter_mut().zip(keys(group)) {
                    // SAFETY: the caller sees to it.
                    unsafe { self.choose::<SIMD>(s, *q) };
                }
            }
            if let Some(group) = at(3) {
                // The last stage, with which a group is done, is one group behind.
                let done = group.saturating_sub(1) * GROUP;
                for s in &mut searches[group % STAGES] {
                    // SAFETY: the caller sees to it.
                    unsafe { self.narrow::<SIMD>(s) }.map_err(|missing| (missing, done))?;
                }
            }
            if let Some(group) = at(4) {
                let (mut rows, mut are_there) = ([0; GROUP], [false; GROUP]);
                let searches = searches[group % STAGES].iter().zip(keys(group));
                for (i, (s, q)) in searches.enumerate() {
                    let found = (!found.is_empty()).then_some(&mut are_there[i]);
                    // SAFETY: the caller sees to it.
                    rows[i] = unsafe { self.compare::<SIMD>(s, *q, found) }
                        .map_err(|missing| (missing, group * GROUP))?;
                }
                let own = group * GROUP..q.len().min((group + 1) * GROUP);
                let count = own.len();
                out[own.clone()].copy_from_slice(&rows[..count]);
                if let Some(found) = found.get_mut(own) {
                    found.copy_from_slice(&are_there[..count]);
                }
            }
        }
        Ok(())
    }

    /// From the entry of the root to the leaves that it may be.
    #[inline(always)]
    fn follow(&self, root: &Root<K>, s: &mut Search<'_, K>, q: K) {
        let (leaf, more) = root.follow(&self.model.firsts, q, s.leaf as usize);
        let firsts = self.model.firsts.as_ptr().wrapping_add(leaf);
        prefetch(firsts);
        prefetch(firsts.wrapping_add(more.max(LINE / K::BYTES)));
        s.leaf = leaf as u32;
    }

    /// The leaf.
    ///
    /// # Safety
    /// As [`Self::batch_in`].
    #[inline(always)]
    unsafe fn choose<const SIMD: bool>(&self, s: &mut Search<'_, K>, q: K) {
        let model = &*self.model;
        // SAFETY: the caller sees to it.
        let (leaf, first) = unsafe { Root::choose::<SIMD>(&model.firsts, q, s.leaf as usize) };
        prefetch(model.leaves.as_ptr().wrapping_add(leaf));
        s.leaf = leaf as u32;
        s.u = q.saturating_sub(first);
    }

    /// The rows; asks for their residuals.
    ///
    /// # Safety
    /// As [`Self::batch_in`].
    #[inline(always)]
    unsafe fn narrow<'a, const SIMD: bool>(&'a self, s: &mut Search<'a, K>) -> Result<(), Missing> {
        let l = &self.model.leaves[s.leaf as usize];
        if l.has_breaks() {
            // SAFETY: the caller sees to it.
            let (part, lo) = unsafe { l.aim_broken::<K, SIMD>(s.u) };
            s.residuals = self.chunks.get(l.chunk())?;
            l.prefetch(Packed(s.residuals), lo, lo + SAMPLE_ROWS);
            (s.lo, s.hi) = (lo as u32, part as u32);
            return Ok(());
        }
        let u = l.relative(s.u);
        // SAFETY: the caller sees to it.
        let (lo, hi) = unsafe {
            if l.is_sampled::<K>() {
                match l.narrow::<K, SIMD>(u) {
                    Ok(lo) => (lo, lo + SAMPLE_ROWS),
                    // All of them are asked for, and halved in the next stage.
                    Err(rows) => (rows.start, rows.end),
                }
            } else {
                l.aim::<K, SIMD>(s.u, u)
            }
        };
        s.residuals = self.chunks.get(l.chunk())?;
        l.prefetch(Packed(s.residuals), lo, hi);
        (s.u, s.lo, s.hi) = (u, lo as u32, hi as u32);
        Ok(())
    }

    /// The answer.
    ///
    /// # Safety
    /// As [`Self::batch_in`].
    #[inline(always)]
    unsafe fn compare<const SIMD: bool>(
        &self,
        s: &Search<'_, K>,
        q: K,
        found: Option<&mut bool>,
    ) -> Result<u32, Missing> {
        let leaf = s.leaf as usize;
        let l = &self.model.leaves[leaf];
        let (lo, hi) = (s.lo as usize, s.hi as usize);
        let view = l.view(Packed(s.residuals));
        // SAFETY: the caller sees to all of it.
        let Found { at, certain, there } = unsafe {
            if l.is_sampled::<K>() {
                let lo = if hi - lo > SAMPLE_ROWS { self.halve(leaf, s.u, lo..hi)? } else { lo };
                self.sampled(l, view.find_sampled::<SIMD>(l, s.u, lo))
            } else if l.has_breaks() {
                l.place(view.find_broken::<SIMD>(l, s.u, hi, lo))
            } else {
                l.place(view.find_aimed::<SIMD>(l, s.u, lo, hi))
            }
        };
        if certain {
            if let Some(found) = found {
                *found = there && q >= self.model.min;
            }
            return Ok(at as u32);
        }
        let position = self.settle(leaf, q, at)?;
        if let Some(found) = found {
            *found = self.is_at(leaf, q, position)?;
        }
        Ok(position as u32)
    }
}
