//! An S+-tree: a static B+-tree of nodes of 16 keys, 17 children each, without pointers, searched by
//! counting with SIMD, in huge pages, and in batches level by level with prefetch (Slotin, *Algorithms for
//! Modern Hardware*; Groot Koerkamp, *Static search trees*). The opponent that a learned index has to beat.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};

/// Keys of a node: two cache lines, two compares with AVX-512.
const NODE: usize = 16;
/// Lookups of a batch that go down the levels together.
const GROUP: usize = 32;
const HUGE_PAGE: usize = 2 << 20;

#[repr(align(64))]
#[derive(Clone, Copy)]
struct Node([u64; NODE]);

/// Nodes in one piece of memory for which the system is asked to use huge pages.
struct Nodes {
    first: *mut Node,
    len: usize,
}

impl Nodes {
    fn layout(len: usize) -> Layout {
        let bytes = len * size_of::<Node>();
        // Small trees need no huge page of their own.
        let align = if bytes >= HUGE_PAGE { HUGE_PAGE } else { align_of::<Node>() };
        Layout::from_size_align(bytes, align).unwrap_or_else(|e| panic!("{len} nodes: {e}"))
    }

    /// Nodes of zeroes, one at least.
    fn new(len: usize) -> Self {
        assert!(len > 0, "a tree of one node at least");
        let layout = Self::layout(len);
        // SAFETY: the layout has a size.
        let first = unsafe { alloc_zeroed(layout) }.cast::<Node>();
        if first.is_null() {
            handle_alloc_error(layout);
        }
        #[cfg(target_os = "linux")]
        if layout.align() == HUGE_PAGE {
            // SAFETY: the range is ours. That the advice is refused costs time, no answer.
            unsafe { libc::madvise(first.cast(), layout.size(), libc::MADV_HUGEPAGE) };
        }
        Self { first, len }
    }

    fn as_mut(&mut self) -> &mut [Node] {
        // SAFETY: that many nodes were allocated, and any bytes are one.
        unsafe { std::slice::from_raw_parts_mut(self.first, self.len) }
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout.
        unsafe { dealloc(self.first.cast(), Self::layout(self.len)) };
    }
}

pub struct StaticTree {
    nodes: Nodes,
    /// Where each level begins among the nodes; root first, the last level holds the keys.
    levels: Vec<usize>,
    len: usize,
    isa: Isa,
}

#[derive(Clone, Copy)]
enum Isa {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Portable,
}

/// Counts the keys of a node below `q`.
trait Count {
    /// # Safety
    /// The processor must support what it uses.
    unsafe fn below(node: &Node, q: u64) -> usize;
}

struct Portable;

impl Count for Portable {
    #[inline(always)]
    unsafe fn below(node: &Node, q: u64) -> usize {
        node.0.iter().map(|&k| u64::from(k < q)).sum::<u64>() as usize
    }
}

#[cfg(target_arch = "x86_64")]
struct Avx512;

#[cfg(target_arch = "x86_64")]
impl Count for Avx512 {
    #[inline(always)]
    unsafe fn below(node: &Node, q: u64) -> usize {
        use std::arch::x86_64::{_mm512_cmplt_epu64_mask, _mm512_load_si512, _mm512_set1_epi64};
        // SAFETY: the caller vouches for AVX-512; a node is 128 bytes, aligned to 64.
        unsafe {
            let from = node.0.as_ptr().cast();
            let q = _mm512_set1_epi64(q as i64);
            let low = _mm512_cmplt_epu64_mask(_mm512_load_si512(from), q);
            let high = _mm512_cmplt_epu64_mask(_mm512_load_si512(from.add(1)), q);
            (u32::from(high) << 8 | u32::from(low)).count_ones() as usize
        }
    }
}

#[cfg(target_arch = "x86_64")]
struct Avx2;

#[cfg(target_arch = "x86_64")]
impl Count for Avx2 {
    #[inline(always)]
    unsafe fn below(node: &Node, q: u64) -> usize {
        use std::arch::x86_64::{
            _mm256_castsi256_pd, _mm256_cmpgt_epi64, _mm256_load_si256, _mm256_movemask_pd,
            _mm256_set1_epi64x, _mm256_xor_si256,
        };
        // SAFETY: the caller vouches for AVX2; a node is 4 times 32 bytes, aligned to 64.
        unsafe {
            // There are only signed compares.
            let sign = _mm256_set1_epi64x(i64::MIN);
            let q = _mm256_xor_si256(_mm256_set1_epi64x(q as i64), sign);
            let mut mask = 0;
            for part in 0..4 {
                let keys = _mm256_load_si256(node.0.as_ptr().add(4 * part).cast());
                let below = _mm256_cmpgt_epi64(q, _mm256_xor_si256(keys, sign));
                mask |= _mm256_movemask_pd(_mm256_castsi256_pd(below)) << (4 * part);
            }
            mask.count_ones() as usize
        }
    }
}

impl StaticTree {
    pub fn new(keys: &[u64]) -> Self {
        // Nodes of each level, keys first.
        let mut counts = vec![keys.len().div_ceil(NODE).max(1)];
        while counts[counts.len() - 1] > 1 {
            counts.push(counts[counts.len() - 1].div_ceil(NODE + 1));
        }
        counts.reverse();
        let levels: Vec<usize> = counts
            .iter()
            .scan(0, |next, count| Some(std::mem::replace(next, *next + count)))
            .collect();
        let mut nodes = Nodes::new(counts.iter().sum());
        let last = levels.len() - 1;
        let all = nodes.as_mut();
        // Room that is left holds the largest key, which is below none.
        all.fill(Node([u64::MAX; NODE]));
        for (node, keys) in all[levels[last]..].iter_mut().zip(keys.chunks(NODE)) {
            node.0[..keys.len()].copy_from_slice(keys);
        }
        // The highest key below each node of the level under construction.
        let mut highest: Vec<u64> =
            keys.chunks(NODE).filter_map(|keys| keys.last().copied()).collect();
        for level in levels[..last].iter().rev() {
            for (node, children) in all[*level..].iter_mut().zip(highest.chunks(NODE + 1)) {
                let inner = &children[..children.len() - 1];
                node.0[..inner.len()].copy_from_slice(inner);
            }
            highest = highest.chunks(NODE + 1).filter_map(|below| below.last().copied()).collect();
        }
        Self { nodes, levels, len: keys.len(), isa: isa() }
    }

    pub fn lower_bound(&self, q: u64) -> u32 {
        match self.isa {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the features were detected.
            Isa::Avx512 => unsafe { self.single_avx512(q) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the features were detected.
            Isa::Avx2 => unsafe { self.single_avx2(q) },
            // SAFETY: it needs no features.
            Isa::Portable => unsafe { self.single::<Portable>(q) },
        }
    }

    pub fn lower_bound_batch(&self, q: &[u64], out: &mut [u32]) {
        match self.isa {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the features were detected.
            Isa::Avx512 => unsafe { self.batch_avx512(q, out) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the features were detected.
            Isa::Avx2 => unsafe { self.batch_avx2(q, out) },
            // SAFETY: it needs no features.
            Isa::Portable => unsafe { self.batch::<Portable>(q, out) },
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,popcnt,bmi1,bmi2")]
    fn single_avx512(&self, q: u64) -> u32 {
        // SAFETY: these are the features it needs.
        unsafe { self.single::<Avx512>(q) }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,popcnt,bmi1,bmi2")]
    fn single_avx2(&self, q: u64) -> u32 {
        // SAFETY: these are the features it needs.
        unsafe { self.single::<Avx2>(q) }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,popcnt,bmi1,bmi2")]
    fn batch_avx512(&self, q: &[u64], out: &mut [u32]) {
        // SAFETY: these are the features it needs.
        unsafe { self.batch::<Avx512>(q, out) }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,popcnt,bmi1,bmi2")]
    fn batch_avx2(&self, q: &[u64], out: &mut [u32]) {
        // SAFETY: these are the features it needs.
        unsafe { self.batch::<Avx2>(q, out) }
    }

    /// # Safety
    /// See [`Count::below`].
    #[inline(always)]
    unsafe fn single<C: Count>(&self, q: u64) -> u32 {
        let mut at = 0;
        let (last, inner) =
            (self.levels[self.levels.len() - 1], &self.levels[..self.levels.len() - 1]);
        for level in inner {
            // SAFETY: see `batch`.
            at = at * (NODE + 1) + unsafe { C::below(&*self.nodes.first.add(level + at), q) };
        }
        // SAFETY: see `batch`.
        let less = unsafe { C::below(&*self.nodes.first.add(last + at), q) };
        (at * NODE + less).min(self.len) as u32
    }

    /// # Safety
    /// See [`Count::below`].
    #[inline(always)]
    unsafe fn batch<C: Count>(&self, q: &[u64], out: &mut [u32]) {
        let last = self.levels.len() - 1;
        for (q, out) in q.chunks(GROUP).zip(out.chunks_mut(GROUP)) {
            let mut at = [0u32; GROUP];
            for depth in 0..last {
                let (level, below) = (self.levels[depth], self.levels[depth + 1]);
                for (at, &q) in at.iter_mut().zip(q) {
                    // SAFETY: a node counts no more keys than it was given, which is one less than its
                    // children, so `at` is always a node of its level.
                    unsafe {
                        let less = C::below(&*self.nodes.first.add(level + *at as usize), q);
                        *at = *at * (NODE as u32 + 1) + less as u32;
                        prefetch(self.nodes.first.add(below + *at as usize));
                    }
                }
            }
            for ((at, &q), out) in at.iter().zip(q).zip(out) {
                // SAFETY: as above.
                let less = unsafe {
                    C::below(&*self.nodes.first.add(self.levels[last] + *at as usize), q)
                };
                *out = (*at as usize * NODE + less).min(self.len) as u32;
            }
        }
    }
}

fn isa() -> Isa {
    #[cfg(target_arch = "x86_64")]
    {
        let avx512 = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512bw");
        let common = is_x86_feature_detected!("popcnt")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2");
        if common && avx512 {
            return Isa::Avx512;
        }
        if common && is_x86_feature_detected!("avx2") {
            return Isa::Avx2;
        }
    }
    Isa::Portable
}

#[inline(always)]
fn prefetch(node: *const Node) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch never faults.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let p = node.cast::<i8>();
        _mm_prefetch::<_MM_HINT_T0>(p);
        _mm_prefetch::<_MM_HINT_T0>(p.wrapping_add(64));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = node;
}
