use proptest::prelude::*;

use super::*;

/// Every answer against the sorted keys themselves.
fn check(keys: &[Vec<u8>], extra: &[Vec<u8>]) -> SparseKeys {
    assert!(keys.is_sorted());
    let index = SparseKeys::build(keys.iter().map(Vec::as_slice)).unwrap();
    check_index(&index, keys, extra);
    let stored = Stored::of(&index);
    let read = stored.read().unwrap();
    check_index(&read, keys, extra);
    assert_eq!(Stored::of(&read), stored);
    index
}

fn check_index(index: &SparseKeys, keys: &[Vec<u8>], extra: &[Vec<u8>]) {
    assert_eq!((index.len(), index.is_empty()), (keys.len(), keys.is_empty()));
    let mut queries = vec![vec![], vec![0], vec![0xff; 40]];
    for key in keys.iter().chain(extra) {
        queries.push(key.clone());
        // Just above, just below, a prefix, and the next of the same length.
        queries.push([key, &[0][..]].concat());
        if let Some((last, rest)) = key.split_last() {
            queries.push(rest.to_vec());
            queries.push([rest, &[last.wrapping_add(1)]].concat());
            queries.push([rest, &[last.wrapping_sub(1), 0xff]].concat());
            queries.push(key[..key.len() / 2].to_vec());
        }
    }
    for q in &queries {
        let (lower, upper) = (keys.partition_point(|k| k < q), keys.partition_point(|k| k <= q));
        assert_eq!(index.lower_bound(q), Ok(lower), "lower bound of {q:?}");
        assert_eq!(index.upper_bound(q), Ok(upper), "upper bound of {q:?}");
        assert_eq!(index.find(q), Ok((lower, upper > lower)), "{q:?}");
    }
    let third = keys.len() / 3;
    for range in [0..keys.len(), third..keys.len() - third, third..third] {
        assert_eq!(decode(index, range.clone()), keys[range]);
    }
    for i in (0..keys.len()).step_by(keys.len() / 50 + 1) {
        assert_eq!(decode(index, i..i + 1), keys[i..i + 1]);
    }
}

fn decode(index: &SparseKeys, range: Range<usize>) -> Vec<Vec<u8>> {
    let (mut out, mut ends) = (vec![7], Vec::new());
    index.decode(range, &mut out, &mut ends).unwrap();
    let mut start = 1;
    ends.into_iter().map(|end| out[std::mem::replace(&mut start, end)..end].to_vec()).collect()
}

/// An index as it is on disk.
#[derive(Debug, PartialEq)]
struct Stored {
    fences: Vec<u8>,
    blocks: Vec<Vec<u8>>,
}

impl Stored {
    fn of(index: &SparseKeys) -> Self {
        let mut fences = Vec::new();
        index.encode(&mut fences);
        let block = |i| {
            let bytes = index.chunks.get(i).unwrap();
            bytes[..bytes.len() - PADDING].to_vec()
        };
        Self { fences, blocks: (0..index.chunks.len()).map(block).collect() }
    }

    fn read(&self) -> Result<SparseKeys> {
        let lengths: Vec<u32> = self.blocks.iter().map(|b| b.len() as u32).collect();
        let index = SparseKeys::decode_from(&self.fences, &lengths)?;
        for (i, block) in self.blocks.iter().enumerate() {
            index.put(i, &Chunk::new(block))?;
        }
        Ok(index)
    }
}

fn sorted(mut keys: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    keys.sort();
    keys
}

/// A small generator, so that a failure can be repeated.
fn random(seed: u64) -> impl FnMut() -> u64 {
    let mut x = seed;
    move || {
        x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z ^ (z >> 31)
    }
}

#[test]
fn small_and_extreme_sets() {
    check(&[], &[]);
    check(&[vec![]], &[]);
    check(&[vec![], vec![], vec![0], vec![0, 0]], &[]);
    check(&[vec![0xff; 300], vec![0xff; 301]], &[vec![0xff; 299]]);
    check(&(0..=255u8).map(|b| vec![b]).collect::<Vec<_>>(), &[]);
}

#[test]
fn many_blocks() {
    let mut next = random(1);
    let names = (0..12_000).map(|_| format!("user-{:012}", next() % 1_000_000_007).into_bytes());
    let index = check(&sorted(names.collect()), &[]);
    assert!(index.fences.ends.len() >= 8, "{}", index.fences.ends.len());
    assert!(index.fences.bytes.len() < 16 * index.fences.ends.len(), "fences are short");
    let words = (0..12_000).map(|_| next().to_be_bytes()[..next() as usize % 9].to_vec());
    check(&sorted(words.collect()), &[]);
}

#[test]
fn runs_of_equal_keys_over_many_blocks() {
    let mut keys = vec![b"before".to_vec(); 3];
    keys.extend(vec![b"equal".to_vec(); 30_000]);
    keys.extend((0..9_000).map(|i: u32| format!("equal{:05}", i / 100).into_bytes()));
    let keys = sorted(keys);
    let index = SparseKeys::build(keys.iter().map(Vec::as_slice)).unwrap();
    assert!(index.fences.ends.len() > 4);
    for q in ["", "equal", "equal0", "equal00007", "equal00007x", "equa", "before", "z"] {
        let (lower, upper) = (
            keys.partition_point(|k| k.as_slice() < q.as_bytes()),
            keys.partition_point(|k| k.as_slice() <= q.as_bytes()),
        );
        assert_eq!(index.find(q.as_bytes()), Ok((lower, upper > lower)), "{q}");
        assert_eq!(index.upper_bound(q.as_bytes()), Ok(upper), "{q}");
    }
    assert_eq!(decode(&index, 0..keys.len()), keys);
    let bytes: usize = index.fences.chunk_lengths.iter().map(|l| *l as usize).sum();
    assert!(bytes < 5 * keys.len(), "{bytes}");
}

#[test]
fn keys_longer_than_a_block() {
    let mut next = random(2);
    let base: Vec<u8> = (0..70_000).map(|_| next() as u8).collect();
    let mut keys: Vec<Vec<u8>> = (0..6).map(|i| base[i * 1000..].to_vec()).collect();
    // Many that differ only behind 70,000 bytes, and one many times.
    keys.extend((0..50u64).map(|i| [&base[..], &i.wrapping_mul(next()).to_be_bytes()].concat()));
    keys.extend((0..40).map(|_| base.clone()));
    keys.extend((0..10).map(|i| vec![i; 20_000]));
    let keys = sorted(keys);
    let index = SparseKeys::build(keys.iter().map(Vec::as_slice)).unwrap();
    for q in keys.iter().step_by(9).chain([&base[..69_999].to_vec(), &vec![5; 19_999]]) {
        let (lower, upper) = (keys.partition_point(|k| k < q), keys.partition_point(|k| k <= q));
        assert_eq!(index.find(q), Ok((lower, upper > lower)));
        assert_eq!(index.upper_bound(q), Ok(upper));
    }
    assert_eq!(decode(&index, 0..keys.len()), keys);
    let (stored, whole): (usize, usize) = (
        index.fences.chunk_lengths.iter().map(|l| *l as usize).sum(),
        keys.iter().map(Vec::len).sum(),
    );
    assert!(stored < whole / 4, "{stored} of {whole}: long prefixes are stored once a block");
}

/// Keys that share prefixes of all lengths, empty ones and repeats.
fn keys() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let part = prop_oneof![
        6 => prop::collection::vec(0u8..3, 0..4),
        2 => prop::collection::vec(any::<u8>(), 0..12),
        1 => (any::<u8>(), 1usize..60).prop_map(|(b, n)| vec![b; n]),
        1 => Just(vec![0xff; 9]),
        1 => (any::<u8>(), 4_000usize..20_000).prop_map(|(b, n)| vec![b; n]),
    ];
    prop::collection::vec((part, 0usize..6, 1usize..4), 0..150).prop_map(|parts| {
        let mut keys: Vec<Vec<u8>> = Vec::new();
        for (part, from, repeats) in parts {
            // Goes on from an earlier key, so that prefixes nest.
            let mut key = keys.iter().rev().nth(from).cloned().unwrap_or_default();
            if key.len() > 30_000 {
                key.truncate(5);
            }
            key.extend(part);
            keys.extend(std::iter::repeat_n(key, repeats));
        }
        keys.sort();
        keys
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_keys_are_found(keys in keys(), extra in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..20)) {
        check(&keys, &extra);
    }

    /// Damaged bytes are refused, or give some keys; nothing panics.
    #[test]
    fn damaged_bytes_do_no_harm(
        keys in keys(),
        damage in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let index = SparseKeys::build(keys.iter().map(Vec::as_slice)).unwrap();
        let mut stored = Stored::of(&index);
        for (in_block, at, value) in damage {
            let bytes = match stored.blocks.first_mut() {
                // The offsets are where damage tells.
                Some(block) if in_block => block,
                _ => &mut stored.fences,
            };
            let limit = bytes.len().min(600);
            bytes[at.index(limit)] = value;
        }
        if let Some(cut) = cut {
            stored.fences.truncate(cut.index(stored.fences.len()));
        }
        if let Ok(index) = stored.read() {
            for q in keys.iter().take(40) {
                prop_assert!(index.find(q).unwrap().0 <= index.len());
                prop_assert!(index.upper_bound(q).unwrap() <= index.len());
            }
            decode(&index, 0..index.len());
        }
    }
}

/// A search says which block it lacks, and one bound needs one block.
#[test]
fn blocks_come_one_by_one() {
    let keys: Vec<Vec<u8>> = (0..60_000).map(|i| format!("key {i:07}").into_bytes()).collect();
    let whole = SparseKeys::build(keys.iter().map(Vec::as_slice)).unwrap();
    let copy = |index: &SparseKeys, missing: Missing| {
        index.put(missing.chunk, &whole.chunks.slot(missing.chunk).unwrap()).unwrap();
    };
    for i in (0..60_000).step_by(1_777) {
        for q in [keys[i].clone(), [&keys[i][..], b"x"].concat()] {
            let index = whole.emptied();
            copy(&index, index.lower_bound(&q).unwrap_err());
            assert_eq!(index.lower_bound(&q), whole.lower_bound(&q));
            let index = whole.emptied();
            copy(&index, index.upper_bound(&q).unwrap_err());
            assert_eq!(index.upper_bound(&q), whole.upper_bound(&q));
        }
    }
    let index = whole.emptied();
    let (mut out, mut ends) = (Vec::new(), Vec::new());
    let mut misses = 0;
    while let Err(missing) = index.decode(10 + ends.len()..59_990, &mut out, &mut ends) {
        copy(&index, missing);
        misses += 1;
    }
    assert_eq!(misses, whole.chunks.len());
    assert_eq!(out, keys[10..59_990].concat());
    let gone = index.without_chunk(3);
    assert_eq!(gone.find(&keys[0]), Ok((0, true)));
    assert_eq!(gone.decode(0..60_000, &mut out, &mut ends), Err(Missing { chunk: 3 }));
    assert_eq!(
        index.memory_bytes() - gone.memory_bytes(),
        whole.chunks.slot(3).unwrap().memory_bytes()
    );
}
