use proptest::prelude::*;

use super::*;

/// Every answer of `index` against a plain binary search.
fn check<K: ModelKey>(keys: &[K], extra: &[K]) {
    let index = LearnedKeys::build(keys);
    check_index(&index, keys, extra);
    let stored = Stored::of(&index);
    let read = stored.read::<K>().expect("its own format");
    check_index(&read, keys, extra);
    check_index(&read.portable(), keys, extra);
    assert_eq!(stored, Stored::of(&read));
}

/// An index as it is on disk: model and chunks.
#[derive(Debug, PartialEq)]
struct Stored {
    model: Vec<u8>,
    chunks: Vec<Vec<u8>>,
}

impl Stored {
    fn of<K: ModelKey>(index: &LearnedKeys<K>) -> Self {
        let mut model = Vec::new();
        index.encode(&mut model);
        let chunk = |i| {
            let bytes = index.chunks.get(i).expect("all in memory");
            bytes[..bytes.len() - bits::PADDING].to_vec()
        };
        Self { model, chunks: (0..index.chunks.len()).map(chunk).collect() }
    }

    fn read<K: ModelKey>(&self) -> crate::engine::error::Result<LearnedKeys<K>> {
        let lengths: Vec<u32> = self.chunks.iter().map(|c| c.len() as u32).collect();
        let index = LearnedKeys::decode_from(&self.model, &lengths)?;
        for (i, chunk) in self.chunks.iter().enumerate() {
            index.put(i, &Chunk::new(chunk))?;
        }
        Ok(index)
    }
}

fn batch<K: ModelKey>(index: &LearnedKeys<K>, queries: &[K]) -> (Vec<u32>, Vec<bool>) {
    let (mut out, mut found) = (vec![7; queries.len()], vec![true; queries.len()]);
    index.find_batch(queries, &mut out, &mut found).expect("all in memory");
    let mut again = vec![9; queries.len()];
    index.find_batch(queries, &mut again, &mut []).expect("all in memory");
    assert_eq!(out, again);
    (out, found)
}

fn check_index<K: ModelKey>(index: &LearnedKeys<K>, keys: &[K], extra: &[K]) {
    assert_eq!(index.len(), keys.len());
    assert_eq!(index.is_empty(), keys.is_empty());
    let mut decoded = Vec::new();
    index.decode(0..keys.len(), &mut decoded).unwrap();
    assert_eq!(decoded, keys);
    for (i, k) in keys.iter().enumerate() {
        assert_eq!(index.get(i), Ok(*k), "key {i}");
    }
    if keys.len() > 2 {
        let range = keys.len() / 3..keys.len() - keys.len() / 4;
        decoded.truncate(1);
        index.decode(range.clone(), &mut decoded).unwrap();
        assert_eq!(decoded[1..], keys[range]);
    }

    let mut queries = vec![K::default(), K::MAX, K::from_u128(1 << 63)];
    for k in keys.iter().chain(extra) {
        queries.push(*k);
        queries.push(K::from_u128(k.to_u128().wrapping_sub(1)));
        queries.push(K::from_u128(k.to_u128().wrapping_add(1)));
    }
    let mut expected = Vec::with_capacity(queries.len());
    for &q in &queries {
        let lower = keys.partition_point(|&k| k < q);
        assert_eq!(index.lower_bound(q), Ok(lower), "lower bound of {q:?}");
        assert_eq!(index.find(q), Ok((lower, keys.get(lower) == Some(&q))), "{q:?}");
        let upper = keys.partition_point(|&k| k <= q);
        assert_eq!(index.upper_bound(q), Ok(upper), "upper bound of {q:?}");
        let p = index.predict(q);
        assert!(p.lo <= p.pos && p.pos <= p.hi && p.hi <= keys.len(), "{p:?}");
        assert!(p.lo <= lower && lower <= p.hi, "{lower} of {q:?} outside {p:?}");
        expected.push((lower as u32, keys.get(lower) == Some(&q)));
    }
    assert_eq!(batch(index, &queries), expected.iter().copied().unzip());
    queries.reverse();
    expected.reverse();
    assert_eq!(batch(index, &queries), expected.iter().copied().unzip());
}

/// The same keys as `u64` and, moved around the 128-bit range, as `u128`.
fn check_both(mut keys: Vec<u64>) {
    keys.sort_unstable();
    check(&keys, &[]);
    let wide = |f: fn(u128) -> u128| keys.iter().map(|&k| f(u128::from(k))).collect::<Vec<_>>();
    check(&wide(|k| k), &[]);
    check(&wide(|k| k << 64), &[u128::from(u64::MAX)]);
    check(&wide(|k| (k << 37) + (1 << 127)), &[1 << 127]);
    check(&wide(|k| k + u128::from(u64::MAX / 2)), &[]);
}

/// A small generator, so that a failure can be repeated.
fn random(seed: u64) -> impl FnMut() -> u64 {
    let mut x = seed;
    move || {
        x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[test]
fn small_and_extreme_sets() {
    check_both(vec![]);
    check_both(vec![0]);
    check_both(vec![u64::MAX]);
    check_both(vec![0, u64::MAX]);
    check_both(vec![u64::MAX - 1, u64::MAX]);
    check_both(vec![0, 1]);
    check_both(vec![5; 3]);
    check_both(vec![0, 0, u64::MAX, u64::MAX]);
    check::<u128>(&[0, 1, u128::MAX - 1, u128::MAX], &[1 << 64, 1 << 127]);
    check_both((0..64).map(|b| 1 << b).collect());
    check_both((0..64).map(|b| u64::MAX - (1 << b)).collect());
}

#[test]
fn dense_sets() {
    for n in [63, 64, 65, 255, 256, 257, 4095, 4097, 16_500] {
        check_both((0..n).collect());
    }
    check_both((0..5_000).map(|i| (1 << 63) - 2_500 + i).collect());
    check_both((0..5_000).map(|i| u64::MAX - i).collect());
    check_both((0..5_000).map(|i| i * 1_000 / 3).collect());
    check_both((0..5_000).map(|i| (1 << 53) + i * 2).collect());
}

#[test]
fn sets_longer_than_the_longest_leaf() {
    for step in [0, 1, 1_000_003] {
        let keys: Vec<u64> = (0..200_000).map(|i| i * step).collect();
        let index = LearnedKeys::build(&keys);
        let mut all = Vec::new();
        index.decode(0..keys.len(), &mut all).unwrap();
        assert_eq!(all, keys);
        for q in keys.iter().step_by(97).flat_map(|&k| [k.saturating_sub(1), k, k + 1]) {
            assert_eq!(index.lower_bound(q), Ok(keys.partition_point(|&k| k < q)));
            assert_eq!(index.upper_bound(q), Ok(keys.partition_point(|&k| k <= q)));
        }
    }
}

/// The last leaf stores residuals of more rows than it has keys; they must not count.
#[test]
fn keys_above_the_last_one_are_at_the_end() {
    let mut next = random(11);
    for count in [130, 700, 1_001, 1_009, 1_023] {
        let mut keys: Vec<u64> = (0..count).map(|_| next() >> 24).collect();
        keys.sort_unstable();
        let last = keys[keys.len() - 1];
        let gap = (last - keys[0]) / count;
        let above: Vec<u64> = (1..2_000).map(|i| last + i * gap / 16).collect();
        check(&keys, &above);
    }
}

#[test]
fn jittered_uniform_and_bursty_sets() {
    let mut next = random(1);
    check_both((0..5_000u64).map(|i| i * 1_000 + next() % 700).collect());
    check_both((0..5_000).map(|_| next()).collect());
    check_both((0..5_000).map(|_| next() >> 40).collect());
    let mut at = 0;
    let bursty = (0..5_000).map(|i| {
        at += if i % 1_000 == 0 { 1 << 40 } else { next() % 3 };
        at
    });
    check_both(bursty.collect());
}

#[test]
fn skewed_and_adversarial_sets() {
    let mut next = random(2);
    let mut exponential: Vec<u64> = (0..5_000)
        .map(|_| {
            let s = next() % 64;
            next() >> s
        })
        .collect();
    exponential.extend([0, u64::MAX]);
    check_both(exponential);
    let mut outliers: Vec<u64> = (0..5_000).map(|i| i * 7 + next() % 7).collect();
    outliers.extend((0..21).map(|_| u64::MAX - next() % (1 << 50)));
    check_both(outliers);
    check_both((0..5_000).map(|i| (i / 100) << 50).collect());
    check_both((0..5_000u64).map(|i| if i % 2 == 0 { i } else { u64::MAX - i }).collect());
    check_both((0..5_000u64).map(|i| i * i * i).collect());
}

/// Even stretches of `rows` keys, `step` apart and off by less than `off`, with gaps between them.
fn stretches(len: usize, rows: usize, step: u64, off: u64, gap: u64) -> Vec<u64> {
    let mut next = random(9);
    let mut at = 1 << 40;
    let mut keys: Vec<u64> = (0..len)
        .map(|i| {
            at += if i > 0 && i % rows == 0 { gap + next() % gap } else { step };
            at + next() % off.max(1)
        })
        .collect();
    keys.sort_unstable();
    keys
}

#[test]
fn stretches_with_gaps_between() {
    for (rows, step, off, gap) in [
        (100, 1, 0, 1_000_000),
        (90, 1, 0, 1 << 38),
        (300, 60_000_000, 0, 1 << 36),
        (1_000, 1_000, 700, 1 << 30),
        (150, 1_000, 3_000, 1 << 20),
        (130, 0, 0, 5_000_000),
        (2_000, 7, 0, 40_000),
    ] {
        let keys = stretches(3_000, rows, step, off, gap);
        let index = LearnedKeys::build(&keys);
        let broken = index.model.leaves.iter().filter(|l| l.has_breaks()).count();
        assert!(broken > 0, "{rows} {step} {off} {gap}: {:?}", index.stats());
        check_both(keys);
    }
    // As far apart as breaks can be, and further.
    for gap in [1 << 45, 1 << 47, 1 << 48, 1 << 56] {
        check_both(stretches(1_000, 200, 1, 0, gap));
    }
    let keys = stretches(500, 100, 1, 0, 1 << 30);
    check(&keys, &(0..64).step_by(3).map(|bit| keys[0] + 150 + (1 << bit)).collect::<Vec<_>>());
    // Where all rows that are compared at once may lie at the end of a part.
    check_both((0..2_000u64).map(|i| i % 256 + (i / 256) * 10_000_000).collect());
    check_both((0..600u64).map(|i| if i < 597 { i } else { i << 30 }).collect());
}

#[test]
fn runs_of_repeats() {
    let mut next = random(3);
    check_both(vec![1 << 63; 5_000]);
    check_both((0..5_000).map(|_| next() % 12).collect());
    check_both((0..5_000).map(|i| if i < 2_500 { 77 } else { next() % 1_000_000 }).collect());
    check_both((0..5_000).map(|i| i * 2 / 3).collect());
}

/// Sorted keys whose gaps come from a few very different scales.
fn keys() -> impl Strategy<Value = Vec<u64>> {
    let gap = prop_oneof![
        4 => Just(1u64),
        2 => Just(0u64),
        4 => 0u64..1_000,
        2 => 0u64..1 << 30,
        1 => (0u32..58).prop_map(|b| 1 << b),
    ];
    let count = prop_oneof![15 => 1usize..40, 1 => 100usize..500];
    (any::<u64>(), prop::collection::vec((gap, count), 0..60)).prop_map(|(first, runs)| {
        let mut at = first >> (first % 64);
        let mut keys = Vec::new();
        for (gap, count) in runs {
            for _ in 0..count {
                at = at.saturating_add(gap);
                keys.push(at);
            }
        }
        keys
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_keys_are_found(keys in keys(), extra in prop::collection::vec(any::<u64>(), 0..20)) {
        check(&keys, &extra);
        let wide: Vec<u128> = keys.iter().map(|&k| u128::from(k) << (extra.len() * 3)).collect();
        check(&wide, &extra.iter().map(|&k| u128::from(k) << 40).collect::<Vec<_>>());
    }

    /// Damaged bytes are refused, or give some keys; nothing panics and nothing reads out of bounds.
    #[test]
    fn damaged_bytes_do_no_harm(
        keys in keys(),
        wide in any::<bool>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut stored = if wide {
            let keys: Vec<u128> = keys.iter().map(|&k| u128::from(k) << 50).collect();
            Stored::of(&LearnedKeys::build(&keys))
        } else {
            Stored::of(&LearnedKeys::build(&keys))
        };
        for (at, value) in damage {
            let at = at.index(stored.model.len());
            stored.model[at] = value;
        }
        if let Some(cut) = cut {
            stored.model.truncate(cut.index(stored.model.len()));
        }
        exercise::<u64>(&stored, &keys);
        exercise::<u128>(&stored, &[0, 1, u128::MAX]);
    }

    #[test]
    fn random_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let stored = Stored { model: bytes, chunks: vec![Vec::new(), vec![1; 16]] };
        exercise::<u64>(&stored, &[0, 1, u64::MAX]);
        exercise::<u128>(&stored, &[0, 1, u128::MAX]);
    }
}

/// Small enough for Miri: `cargo +nightly miri test --no-default-features --lib a_few_keys`.
#[test]
fn a_few_keys_are_found_and_their_damage_does_no_harm() {
    let square = |i: u64| i * i * 977;
    let (count, step) = if cfg!(miri) { (20, 13) } else { (150, 1) };
    for keys in [vec![1, 2, 3, 5, 8, 13, 21, 1 << 40], (0..count).map(square).collect()] {
        check(&keys, &[4, u64::MAX]);
        let wide: Vec<u128> = keys.iter().map(|&k| u128::from(k) << 60).collect();
        check(&wide, &[4, u128::MAX]);
        let mut stored = Stored::of(&LearnedKeys::build(&keys));
        for at in (0..stored.model.len()).step_by(step) {
            let sound = stored.model[at];
            for value in [0, 1, 40, 255] {
                stored.model[at] = value;
                exercise::<u64>(&stored, &[0, 5, 1 << 39, u64::MAX]);
            }
            stored.model[at] = sound;
        }
    }
    // A leaf whose line has breaks: the only one.
    let keys = stretches(256, 64, 3, 2, 1 << 30);
    let mut stored = Stored::of(&LearnedKeys::build(&keys));
    let queries = [keys[0], keys[63] + 1, keys[64], keys[200], keys[255] + 1, u64::MAX];
    exercise(&stored, &queries);
    for at in (stored.model.len() - 64..stored.model.len()).step_by(step) {
        let sound = stored.model[at];
        for value in [0, 1, 40, 255] {
            stored.model[at] = value;
            exercise(&stored, &queries);
        }
        stored.model[at] = sound;
    }
}

fn exercise<K: ModelKey>(stored: &Stored, queries: &[K]) {
    let Ok(index) = stored.read::<K>() else { return };
    exercise_index(&index.portable(), queries);
    exercise_index(&index, queries);
}

fn exercise_index<K: ModelKey>(index: &LearnedKeys<K>, queries: &[K]) {
    assert!(batch(index, queries).0.iter().all(|&p| p as usize <= index.len()));
    for &q in queries {
        assert!(index.lower_bound(q).unwrap() <= index.len());
        assert!(index.upper_bound(q).unwrap() <= index.len());
        let p = index.predict(q);
        assert!(p.lo <= p.hi && p.hi <= index.len());
    }
    let mut keys = Vec::new();
    index.decode(0..index.len(), &mut keys).unwrap();
    assert_eq!(keys.len(), index.len());
    for (i, k) in keys.iter().enumerate() {
        assert_eq!(index.get(i), Ok(*k));
    }
    index.stats();
}

fn bytes_per_key(keys: &[u64]) -> (f64, f64) {
    let stats = LearnedKeys::build(keys).stats();
    let n = keys.len() as f64;
    (stats.model_bytes as f64 / n, stats.key_bytes as f64 / n)
}

#[test]
fn ordered_keys_take_little_room_and_others_no_more_than_themselves() {
    let mut next = random(4);
    let (model, keys) = bytes_per_key(&(0..100_000).collect::<Vec<_>>());
    assert!(model + keys <= 0.1, "{model} + {keys}");
    let jittered: Vec<u64> = (0..100_000).map(|i| (1 << 50) + i * 1_000 + next() % 250).collect();
    let (model, keys) = bytes_per_key(&jittered);
    assert!(model <= 0.06 && keys <= 1.5, "{model}, {keys}");
    let (model, keys) = bytes_per_key(&stretches(100_000, 100, 1, 0, 1_000_000));
    assert!(model + keys <= 0.25, "{model} + {keys}");
    let mut spread: Vec<u64> = (0..100_000).map(|_| next() >> (next() % 40)).collect();
    spread.sort_unstable();
    let (model, keys) = bytes_per_key(&spread);
    assert!(model <= 0.3 && keys <= 8.0, "{model}, {keys}");
}

#[test]
fn the_error_is_bounded_on_skewed_keys() {
    let mut next = random(5);
    let mut keys: Vec<u64> = (0..200_000).map(|_| 1 << (next() % 40)).collect();
    let mut at = 0u64;
    keys.iter_mut().for_each(|k| {
        at += *k;
        *k = at;
    });
    let stats = LearnedKeys::build(&keys).stats();
    assert!(stats.max_error <= 256, "{stats:?}");
    assert!(stats.mean_error <= stats.max_error as f64, "{stats:?}");
}

/// A model that is wrong everywhere costs time, not answers.
#[test]
fn a_wrong_model_gives_right_answers() {
    let mut next = random(6);
    let ordered: Vec<u64> = (0..5_000).map(|i| i * 1_000 + next() % 900).collect();
    let mut scattered: Vec<u64> = (0..5_000).map(|_| next()).collect();
    scattered.sort_unstable();
    for keys in [ordered, scattered] {
        let right = LearnedKeys::build(&keys);
        let broken = |change: &dyn Fn(&mut leaf::Leaf)| {
            let mut wrong = right.clone();
            Arc::make_mut(&mut wrong.model).leaves.iter_mut().for_each(change);
            check_index_bounds(&wrong, &keys);
            #[cfg(target_arch = "x86_64")]
            check_index_bounds(&wrong.portable(), &keys);
        };
        // Lines to other rows, and fewer rows than they need.
        for float in [0.0, -1.0, 1e9, f32::INFINITY, f32::NAN] {
            broken(&|l| {
                if !l.is_sampled::<u64>() {
                    l.hints[42] = 8;
                    l.hints[..4].copy_from_slice(&f32::to_le_bytes(float));
                }
            });
        }
        // Samples of other keys, ascending and not.
        for other in [0, 1 << 11, 0xfff] {
            broken(&|l| {
                if l.is_sampled::<u64>() {
                    let mut samples = l.samples();
                    let (own, _) = samples.split_at_mut(l.sample_count());
                    own.iter_mut().for_each(|sample| *sample ^= other);
                    own.reverse();
                    l.set_samples(&samples);
                }
            });
        }
    }
}

fn check_index_bounds(index: &LearnedKeys<u64>, keys: &[u64]) {
    let queries: Vec<u64> = keys.iter().flat_map(|&k| [k.saturating_sub(1), k, k + 1]).collect();
    let expected: Vec<u32> =
        queries.iter().map(|&q| keys.partition_point(|&k| k < q) as u32).collect();
    for (&q, &e) in queries.iter().zip(&expected) {
        assert_eq!(index.lower_bound(q), Ok(e as usize), "{q}");
    }
    assert_eq!(batch(index, &queries).0, expected);
}

#[test]
fn damage_is_named() {
    let stored = Stored::of(&LearnedKeys::<u64>::build(&[1, 2, 3, 10]));
    let lengths: Vec<u32> = stored.chunks.iter().map(|c| c.len() as u32).collect();
    let bytes = &stored.model;
    let error =
        |bytes: &[u8]| LearnedKeys::<u64>::decode_from(bytes, &lengths).expect_err("damage");
    let kind = crate::engine::error::ErrorKind::Corruption;
    assert_eq!(error(&[]).kind(), kind);
    assert_eq!(error(&bytes[..bytes.len() - 1]).kind(), kind);
    assert_eq!(stored.read::<u128>().expect_err("other keys").kind(), kind);
    let mut newer = bytes.clone();
    newer[4] = 9;
    assert!(error(&newer).message().contains("version 9"), "{}", error(&newer));
    let mut huge = bytes.clone();
    huge[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(error(&huge).kind(), kind);
    let read = |lengths: &[u32]| LearnedKeys::<u64>::decode_from(bytes, lengths);
    assert_eq!(read(&lengths[1..]).expect_err("no empty chunk").kind(), kind);
    assert_eq!(read(&[0, 0]).expect_err("residuals outside").kind(), kind);
    // The root is made from the first keys and takes their order for granted.
    let many =
        Stored::of(&LearnedKeys::<u64>::build(&(0..300_000).map(|i| i * i).collect::<Vec<_>>()));
    let lengths_of_many: Vec<u32> = many.chunks.iter().map(|c| c.len() as u32).collect();
    let mut disordered = many.model.clone();
    disordered[32..40].copy_from_slice(&u64::MAX.to_le_bytes());
    let error = LearnedKeys::<u64>::decode_from(&disordered, &lengths_of_many).expect_err("order");
    assert!(error.message().contains("leaf 1 has a first key below"), "{error}");
    // Lines of keys of 128 bits may be shifted further than those that are computed in 64.
    let mut steep = Stored::of(&LearnedKeys::<u128>::build(&[1, 2, 3, 10]));
    let exponent = steep.model.len() - 64 + 12;
    steep.model[exponent] = 128 + 70;
    let error = steep.read::<u128>().expect_err("too steep");
    assert!(error.message().contains("too steep"), "{error}");
    // Rows between breaks are not asked whether they are in order.
    let mut broken = Stored::of(&LearnedKeys::build(&stretches(256, 64, 1, 0, 1 << 30)));
    let marks = broken.model.len() - 48;
    for damage in [marks..marks + 1, marks + 2..marks + 8, marks + 47..marks + 48] {
        let right = broken.model.clone();
        broken.model[damage].fill(0xf0);
        let error = broken.read::<u64>().expect_err("breaks");
        assert!(error.message().contains("breaks that are not in order"), "{error}");
        broken.model = right;
    }
    // Nor are searches of samples safe where one that is there follows one that is not.
    let mut next = random(5);
    let mut keys: Vec<u64> = (0..200).map(|_| next()).collect();
    keys.sort_unstable();
    let mut sampled = Stored::of(&LearnedKeys::build(&keys));
    let samples = sampled.model.len() - 48;
    let model = sampled.read::<u64>().expect("its own format").model.clone();
    assert!(model.leaves.last().is_some_and(Leaf::is_sampled::<u64>));
    for damage in [samples..samples + 3, samples + 44..samples + 45, samples + 3..samples + 6] {
        let right = sampled.model.clone();
        sampled.model[damage.clone()].fill(if damage.start == samples + 44 { 0 } else { 0xff });
        let error = sampled.read::<u64>().expect_err("samples");
        assert!(error.message().contains("samples"), "{error}");
        sampled.model = right;
    }
    let short = Chunk::new(&vec![0; lengths[1] as usize - 1]);
    assert_eq!(read(&lengths).unwrap().put(1, &short).expect_err("too short").kind(), kind);
}

/// A search says which chunk it lacks, and is right once it has it.
#[test]
fn chunks_come_one_by_one() {
    let mut next = random(7);
    let mut keys: Vec<u64> = (0..60_000).map(|_| next()).collect();
    keys.sort_unstable();
    let whole = LearnedKeys::build(&keys);
    assert!(whole.chunks.len() > 8);
    let copy = |index: &LearnedKeys<u64>, missing: Missing| {
        index.put(missing.chunk, &whole.chunks.slot(missing.chunk).unwrap()).unwrap();
    };
    let index = whole.emptied();
    assert_eq!(index.memory_bytes(), index.model_bytes() + bits::PADDING);
    let missing = index.find(keys[30_000]).unwrap_err();
    assert_eq!(index.get(30_000), Err(missing));
    copy(&index, missing);
    assert_eq!(index.find(keys[30_000]), Ok((30_000, true)));
    assert_eq!(index.get(30_000), Ok(keys[30_000]));
    assert!(index.get(0).is_err());
    let gone = index.without_chunk(missing.chunk);
    assert_eq!(gone.find(keys[30_000]), Err(missing));
    assert_eq!(index.find(keys[30_000]), Ok((30_000, true)), "the old table stays");

    // Batches and decoding go on where they were.
    let queries: Vec<u64> = keys.iter().copied().rev().step_by(7).collect();
    let (mut out, mut found) = (vec![0; queries.len()], vec![false; queries.len()]);
    let (mut done, mut misses) = (0, 0);
    while let Err((missing, more)) =
        index.find_batch(&queries[done..], &mut out[done..], &mut found[done..])
    {
        copy(&index, missing);
        (done, misses) = (done + more, misses + 1);
    }
    assert_eq!(misses, whole.chunks.len() - 2, "all but the empty one and that from before");
    assert!(found.iter().all(|f| *f));
    assert!(out.iter().zip(&queries).all(|(p, q)| keys[*p as usize] == *q));
    let index = index.emptied();
    let mut decoded = Vec::new();
    while let Err(missing) = index.decode(100 + decoded.len()..59_000, &mut decoded) {
        copy(&index, missing);
    }
    assert_eq!(decoded, keys[100..59_000]);
}

#[test]
fn parts_are_trained_on_as_the_whole() {
    let mut next = random(8);
    let keys: Vec<u64> = (0..200_000).map(|i| i * 1_000 + next() % 900).collect();
    let whole = Stored::of(&LearnedKeys::build(&keys));
    let mut builder = Builder::default();
    let mut chunks = Vec::new();
    let mut rest = &keys[..];
    while !rest.is_empty() {
        let (part, more) = rest.split_at(rest.len().min(next() as usize % 90_000));
        builder.push(part);
        chunks.extend(builder.take_chunks());
        rest = more;
    }
    let (index, last) = builder.finish();
    chunks.extend(last);
    let mut model = Vec::new();
    index.encode(&mut model);
    assert_eq!(Stored { model, chunks }, whole);
}
