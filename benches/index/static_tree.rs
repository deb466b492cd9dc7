//! A static B+-tree: sorted nodes of 16 keys, 17 children each, without pointers, searched by counting
//! with SIMD and in batches level by level. The opponent that a learned index has to beat.

const NODE: usize = 16;
const GROUP: usize = 32;

#[repr(align(64))]
#[derive(Clone, Copy)]
struct Node([u64; NODE]);

pub struct StaticTree {
    /// Root first; the last level holds the keys.
    levels: Vec<Vec<Node>>,
    len: usize,
}

impl StaticTree {
    pub fn new(keys: &[u64]) -> Self {
        let nodes = |keys: &mut dyn Iterator<Item = u64>| {
            let mut nodes = Vec::new();
            loop {
                let mut node = Node([u64::MAX; NODE]);
                let mut count = 0;
                for slot in &mut node.0 {
                    let Some(k) = keys.next() else { break };
                    *slot = k;
                    count += 1;
                }
                if count > 0 {
                    nodes.push(node);
                }
                if count < NODE {
                    return nodes;
                }
            }
        };
        let mut levels = vec![nodes(&mut keys.iter().copied())];
        // The highest key below each node of the level under construction.
        let mut highest: Vec<u64> = levels[0].iter().map(|n| n.0[NODE - 1]).collect();
        while highest.len() > 1 {
            let mut level = Vec::new();
            let mut above = Vec::new();
            for children in highest.chunks(NODE + 1) {
                let mut node = Node([u64::MAX; NODE]);
                for (slot, &k) in node.0.iter_mut().zip(&children[..children.len() - 1]) {
                    *slot = k;
                }
                level.push(node);
                above.push(children[children.len() - 1]);
            }
            levels.push(level);
            highest = above;
        }
        levels.reverse();
        Self { levels, len: keys.len() }
    }

    pub fn lower_bound_batch(&self, q: &[u64], out: &mut [u32]) {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the feature was detected.
            return unsafe { self.batch_avx512(q, out) };
        } else if is_x86_feature_detected!("avx2") {
            // SAFETY: the feature was detected.
            return unsafe { self.batch_avx2(q, out) };
        }
        self.batch(q, out);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512vl,avx512dq,popcnt")]
    fn batch_avx512(&self, q: &[u64], out: &mut [u32]) {
        self.batch(q, out);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,popcnt")]
    fn batch_avx2(&self, q: &[u64], out: &mut [u32]) {
        self.batch(q, out);
    }

    #[inline(always)]
    fn batch(&self, q: &[u64], out: &mut [u32]) {
        for (q, out) in q.chunks(GROUP).zip(out.chunks_mut(GROUP)) {
            let mut at = [0usize; GROUP];
            for (depth, level) in self.levels.iter().enumerate() {
                let below = self.levels.get(depth + 1);
                for (at, &q) in at.iter_mut().zip(q) {
                    let node = &level[*at];
                    let less = node.0.iter().map(|&k| u64::from(k < q)).sum::<u64>() as usize;
                    *at = match below {
                        Some(below) => {
                            let child = (*at * (NODE + 1) + less).min(below.len() - 1);
                            prefetch(&below[child]);
                            child
                        }
                        None => (*at * NODE + less).min(self.len),
                    };
                }
            }
            for (out, at) in out.iter_mut().zip(at) {
                *out = at as u32;
            }
        }
    }
}

#[inline(always)]
fn prefetch(node: &Node) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch never faults.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let p = std::ptr::from_ref(node).cast::<i8>();
        _mm_prefetch::<_MM_HINT_T0>(p);
        _mm_prefetch::<_MM_HINT_T0>(p.wrapping_add(64));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = node;
}
