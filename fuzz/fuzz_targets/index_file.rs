//! Index files whose checksums are right and whose contents are not: what is read of them may be refused or be
//! other keys, and nothing is read out of bounds.
//!
//! `cargo +nightly fuzz run index_file`. The first byte of the input chooses a form of keys, the second their
//! shape; the others, three by three, say what is changed in the index of such keys: where, and to what.

#![no_main]

use libfuzzer_sys::fuzz_target;
use omendb::engine::index::{Builder, Chunk, LearnedKeys, ModelKey, SparseBuilder, SparseKeys};

/// An index as it is on disk.
struct Stored {
    model: Vec<u8>,
    chunks: Vec<Vec<u8>>,
}

impl Stored {
    fn lengths(&self) -> Vec<u32> {
        self.chunks.iter().map(|chunk| chunk.len() as u32).collect()
    }

    /// Changes a byte of the model, which most hangs on, or of a chunk, or moves a byte from one chunk to the next.
    fn change(&mut self, [low, high, value]: [u8; 3]) {
        let at = usize::from(u16::from_le_bytes([low, high & 0x3f]));
        match high >> 6 {
            0 | 1 => {
                let len = self.model.len();
                self.model[at % len] = value;
            }
            2 => {
                let sizes: usize = self.chunks.iter().map(Vec::len).sum();
                let mut at = at.checked_rem(sizes).unwrap_or(0);
                for chunk in &mut self.chunks {
                    if at < chunk.len() {
                        chunk[at] = value;
                        return;
                    }
                    at -= chunk.len();
                }
            }
            _ => {
                let from = at % self.chunks.len().max(1);
                if from + 1 < self.chunks.len()
                    && let Some(byte) = self.chunks[from].pop()
                {
                    self.chunks[from + 1].insert(0, byte);
                }
            }
        }
    }
}

/// Ascending numbers of some shape.
fn numbers(shape: u8) -> Vec<u64> {
    let count = [1, 3, 200, 1000, 5000][usize::from(shape) % 5];
    let mut random = u64::from(shape) + 1;
    let mut next = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        random >> 3
    };
    let mut keys: Vec<u64> = match shape / 5 % 5 {
        0 => (0..count).map(|i| 1000 + i * 7).collect(),
        1 => (0..count).map(|i| i * 1000 + next() % 300).collect(),
        2 => (0..count).map(|_| next()).collect(),
        3 => (0..count).map(|i| (i / 90 << 25) + i * 20 + next() % 5).collect(),
        _ => (0..count).map(|_| 1 << (next() % 64)).collect(),
    };
    keys.sort_unstable();
    keys
}

fn learned<K: ModelKey>(keys: &[K], changes: &[[u8; 3]]) {
    let mut builder = Builder::default();
    builder.push(keys);
    let mut chunks = builder.take_chunks();
    let (index, rest) = builder.finish();
    chunks.extend(rest);
    let mut stored = Stored { model: Vec::new(), chunks };
    index.encode(&mut stored.model);
    changes.iter().for_each(|change| stored.change(*change));
    let Ok(index) = LearnedKeys::<K>::decode_from(&stored.model, &stored.lengths()) else { return };
    for (i, chunk) in stored.chunks.iter().enumerate() {
        if index.put(i, &Chunk::new(chunk)).is_err() {
            return;
        }
    }
    let mut queries = vec![K::default(), K::MAX];
    queries.extend(keys.iter().step_by(keys.len().div_ceil(64)));
    search(&index, &queries);
    search(&index.portable(), &queries);
}

fn search<K: ModelKey>(index: &LearnedKeys<K>, queries: &[K]) {
    for q in queries {
        assert!(index.lower_bound(*q).is_ok_and(|at| at <= index.len()));
        assert!(index.upper_bound(*q).is_ok_and(|at| at <= index.len()));
        assert!(index.predict(*q).hi <= index.len());
    }
    let (mut at, mut found) = (vec![0; queries.len()], vec![false; queries.len()]);
    assert!(index.find_batch(queries, &mut at, &mut found).is_ok());
    assert!(at.iter().all(|at| *at as usize <= index.len()));
    let mut decoded = Vec::new();
    assert!(index.decode(0..index.len(), &mut decoded).is_ok());
    assert_eq!(decoded.len(), index.len());
}

fn sparse(keys: &[Vec<u8>], changes: &[[u8; 3]]) {
    let mut builder = SparseBuilder::default();
    for key in keys {
        builder.push(key).expect("short keys");
    }
    let mut chunks = builder.take_chunks();
    let (index, rest) = builder.finish();
    chunks.extend(rest);
    let mut stored = Stored { model: Vec::new(), chunks };
    index.encode(&mut stored.model);
    changes.iter().for_each(|change| stored.change(*change));
    let Ok(index) = SparseKeys::decode_from(&stored.model, &stored.lengths()) else { return };
    for (i, chunk) in stored.chunks.iter().enumerate() {
        if index.put(i, &Chunk::new(chunk)).is_err() {
            return;
        }
    }
    for q in
        keys.iter().step_by(keys.len().div_ceil(64)).map(Vec::as_slice).chain([&[][..], &[255; 9]])
    {
        assert!(index.lower_bound(q).is_ok_and(|at| at <= index.len()));
        assert!(index.upper_bound(q).is_ok_and(|at| at <= index.len()));
        assert!(index.find(q).is_ok_and(|(at, _)| at <= index.len()));
    }
    let (mut decoded, mut ends) = (Vec::new(), Vec::new());
    assert!(index.decode(0..index.len(), &mut decoded, &mut ends).is_ok());
    assert_eq!(ends.len(), index.len());
}

fuzz_target!(|data: &[u8]| {
    let [form, shape, changes @ ..] = data else { return };
    let changes = changes.as_chunks::<3>().0;
    let numbers = numbers(*shape);
    match form % 4 {
        0 => learned::<u64>(&numbers, changes),
        // Keys that span few bits of 128, and many.
        1 => learned(
            &numbers.iter().map(|n| u128::from(*n) + (7 << 90)).collect::<Vec<_>>(),
            changes,
        ),
        2 => learned(&numbers.iter().map(|n| u128::from(*n) << 60).collect::<Vec<_>>(), changes),
        _ => {
            let keys: Vec<Vec<u8>> =
                numbers.iter().map(|n| format!("customer {n:020}").into_bytes()).collect();
            sparse(&keys, changes);
        }
    }
});
