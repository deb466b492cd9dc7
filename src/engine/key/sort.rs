//! Sorting keys: the positions in key order, stable.
//!
//! Numbers go through a least-significant-digit radix sort of (key, position) pairs whose passes over
//! digits that all keys share are skipped: timestamps of a day differ in 5 bytes of 8. Small columns,
//! and bytes, are sorted by comparison with the position as the tie break.

use arrow::array::{Array, BinaryArray};

/// Below this many keys, comparing beats counting.
const RADIX_MIN: usize = 512;

/// Positions of `keys` in order.
pub(super) fn indices_u64(keys: &[u64]) -> Vec<u32> {
    if keys.is_sorted() {
        return (0..keys.len() as u32).collect();
    }
    let mut pairs: Vec<(u64, u32)> = keys.iter().copied().zip(0..).collect();
    if keys.len() < RADIX_MIN {
        pairs.sort_unstable();
    } else {
        let varying = keys.iter().fold(0, |bits, key| bits | (key ^ keys[0]));
        radix(&mut pairs, varying);
    }
    pairs.into_iter().map(|(_, position)| position).collect()
}

/// Positions of `keys` in order.
pub(super) fn indices_u128(keys: &[u128]) -> Vec<u32> {
    if keys.is_sorted() {
        return (0..keys.len() as u32).collect();
    }
    let varying = keys.iter().fold(0, |bits, key| bits | (key ^ keys[0]));
    // Only the bits that vary decide. Where they span 64 bits, the narrower sort does.
    let low = varying.trailing_zeros();
    if 128 - varying.leading_zeros() - low <= 64 {
        return indices_u64(&keys.iter().map(|key| (key >> low) as u64).collect::<Vec<_>>());
    }
    let mut pairs: Vec<(u128, u32)> = keys.iter().copied().zip(0..).collect();
    pairs.sort_unstable();
    pairs.into_iter().map(|(_, position)| position).collect()
}

/// Sorts by the bytes of the key that `varying` has bits in, from the lowest up.
fn radix(pairs: &mut Vec<(u64, u32)>, varying: u64) {
    let mut spare = vec![(0, 0); pairs.len()];
    for shift in (0..u64::BITS).step_by(8).filter(|shift| (varying >> shift) as u8 != 0) {
        let mut starts = [0usize; 256];
        for (key, _) in pairs.iter() {
            starts[usize::from((*key >> shift) as u8)] += 1;
        }
        let mut sum = 0;
        for start in &mut starts {
            (*start, sum) = (sum, sum + *start);
        }
        for pair in pairs.iter() {
            let start = &mut starts[usize::from((pair.0 >> shift) as u8)];
            spare[*start] = *pair;
            *start += 1;
        }
        std::mem::swap(pairs, &mut spare);
    }
}

/// Positions of `keys` in order. The 8 bytes after what all keys begin with decide most comparisons
/// without touching the keys.
pub(super) fn indices_bytes(keys: &BinaryArray) -> Vec<u32> {
    if keys.is_empty() {
        return Vec::new();
    }
    let first = keys.value(0);
    let mut shared = first.len();
    for key in keys.iter().flatten() {
        shared = shared.min(key.len());
        shared = first[..shared].iter().zip(key).take_while(|(a, b)| a == b).count();
    }
    let head = |key: &[u8]| {
        let mut head = [0; 8];
        let rest = &key[shared..key.len().min(shared + 8)];
        head[..rest.len()].copy_from_slice(rest);
        u64::from_be_bytes(head)
    };
    let mut pairs: Vec<(u64, u32)> = keys.iter().flatten().map(head).zip(0..).collect();
    let rest = |position: u32| &keys.value(position as usize)[shared..];
    pairs.sort_unstable_by(|a, b| {
        a.0.cmp(&b.0).then_with(|| rest(a.1).cmp(rest(b.1))).then(a.1.cmp(&b.1))
    });
    pairs.into_iter().map(|(_, position)| position).collect()
}
