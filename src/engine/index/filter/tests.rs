use proptest::prelude::*;

use super::*;

fn random(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        let mixed = (state ^ state >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ mixed >> 29
    }
}

/// Filters of chunks with these keys, each of them worth it.
fn build(chunks: &[Vec<u64>]) -> Option<BuiltFilters> {
    let mut builder = FilterBuilder::learned();
    for chunk in chunks {
        builder.add_numbers(chunk, 60);
        builder.end_chunk(chunk.len() * 8);
    }
    builder.finish()
}

fn lengths(built: &BuiltFilters) -> Vec<u32> {
    built.parts.iter().map(|part| part.len() as u32).collect()
}

fn may_hold(built: &BuiltFilters, chunk: usize, key: u64) -> bool {
    let probe = built.filters.probe(chunk, 60, || hash_number(key));
    probe.is_none_or(|probe| probe.may_be_in(&built.parts[probe.part]))
}

/// The bits are those that the Parquet crate sets.
#[test]
fn blocks_are_those_of_the_parquet_format() {
    let mut next = random(3);
    let keys: Vec<u64> = (0..5_000).map(|_| next()).collect();
    let built = build(std::slice::from_ref(&keys)).unwrap();
    assert_eq!(built.parts.len(), 1);
    let mut theirs = parquet::bloom_filter::Sbbf::new(&vec![0; built.parts[0].len()]);
    keys.iter().for_each(|key| theirs.insert(&key.to_le_bytes()[..]));
    let mut bits = Vec::new();
    theirs.write_bitset(&mut bits).unwrap();
    assert!(bits == built.parts[0]);
}

#[test]
fn numbers_hash_as_their_bytes_do() {
    let mut next = random(4);
    for _ in 0..1_000 {
        let (low, high) = (next(), next());
        assert_eq!(hash_number(low), hash_bytes(&low.to_le_bytes()));
        let wide = u128::from(high) << 64 | u128::from(low);
        assert_eq!(hash_number(wide), hash_bytes(&wide.to_le_bytes()));
    }
}

#[test]
fn of_absent_keys_fewer_than_one_in_a_hundred_pass() {
    let mut next = random(5);
    let chunks: Vec<Vec<u64>> = (0..9).map(|_| (0..5_000).map(|_| next()).collect()).collect();
    let built = build(&chunks).unwrap();
    assert!(built.parts.len() > 1 && built.parts.iter().all(|part| part.len() <= PART_BYTES));
    let passed = (0..90_000).filter(|i| may_hold(&built, i % 9, next())).count();
    assert!((300..900).contains(&passed), "{passed} of 90,000");
    let bytes: usize = built.parts.iter().map(Vec::len).sum();
    assert!((1.3..1.4).contains(&(bytes as f64 / 45_000.0)));
}

#[test]
fn keys_that_take_little_room_have_no_filter() {
    let mut builder = FilterBuilder::learned();
    builder.add_numbers(&[1_u64, 2, 3], MIN_KEY_BITS - 1);
    builder.end_chunk(1000);
    assert_eq!(builder.finish(), None);
    let mut builder = FilterBuilder::sparse();
    (0..100_u32).for_each(|i| builder.add_bytes(&i.to_be_bytes()));
    builder.end_chunk(299);
    (0..100_u32).for_each(|i| builder.add_bytes(&i.to_be_bytes()));
    builder.end_chunk(300);
    let built = builder.finish().unwrap();
    assert_eq!(built.filters.probe(0, 0, || 7), None);
    assert!(built.filters.probe(1, 0, || 7).is_some());
    // In one chunk, leaves whose keys are in the filter and leaves whose keys are not.
    let mut builder = FilterBuilder::learned();
    builder.add_numbers(&[1_u64, 2, 3], MIN_KEY_BITS - 1);
    builder.add_numbers(&[1_u64 << 40], MIN_KEY_BITS);
    builder.end_chunk(1000);
    let built = builder.finish().unwrap();
    assert_eq!(built.filters.probe(0, MIN_KEY_BITS - 1, || 7), None);
    assert!(built.filters.probe(0, MIN_KEY_BITS, || 7).is_some());
}

#[test]
fn a_table_of_other_parts_is_refused() {
    let mut next = random(7);
    let chunks: Vec<Vec<u64>> = (0..12).map(|_| (0..4_000).map(|_| next()).collect()).collect();
    let built = build(&chunks).unwrap();
    let mut table = Vec::new();
    built.filters.encode(&mut table);
    let decode = |table: &[u8], chunks: usize, lengths: &[u32]| {
        let mut rest = table;
        Filters::decode(&mut rest, chunks, lengths).map(|filters| (filters, rest.len()))
    };
    let own = lengths(&built);
    assert!(own.len() > 1);
    assert!(decode(&table, 12, &own).unwrap() == (built.filters, 0));
    let mut longer = own.clone();
    longer.push(32);
    let mut shorter = own.clone();
    shorter[0] -= 32;
    for wrong in [&own[1..], &longer, &shorter] {
        assert!(decode(&table, 12, wrong).is_err());
    }
    assert!(decode(&table, 13, &own).is_err());
    assert!(decode(&table[..table.len() - 1], 12, &own).is_err());
    table[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(decode(&table, 12, &own).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_key_that_is_there_always_passes(
        sizes in prop::collection::vec(0..3_000_usize, 1..20),
        shift in 0..60_u32,
        seed in any::<u64>(),
    ) {
        let mut next = random(seed);
        let mut chunks = Vec::new();
        for size in sizes {
            let mut keys: Vec<u64> = (0..size).map(|_| next() >> shift).collect();
            keys.sort_unstable();
            chunks.push(keys);
        }
        let Some(built) = build(&chunks) else { return Ok(()) };
        let mut table = Vec::new();
        built.filters.encode(&mut table);
        let mut rest = &table[..];
        let filters = Filters::decode(&mut rest, chunks.len(), &lengths(&built)).unwrap();
        prop_assert!(rest.is_empty() && filters == built.filters);
        for (i, chunk) in chunks.iter().enumerate() {
            prop_assert!(chunk.iter().all(|key| may_hold(&built, i, *key)));
        }
    }
}

/// Bytes of any length, some of them repeating from block to block, so that fences are keys themselves.
#[test]
fn keys_at_the_ends_of_blocks_pass() {
    let mut next = random(11);
    let mut keys: Vec<Vec<u8>> =
        (0..40_000).map(|_| next().to_be_bytes()[..2 + next() as usize % 7].to_vec()).collect();
    keys.extend((0..20_000).map(|_| vec![77; 9]));
    keys.sort_unstable();
    let mut builder = crate::engine::index::SparseBuilder::with_filters();
    keys.iter().for_each(|key| builder.push(key).unwrap());
    let (index, _, built) = builder.finish_with_filters();
    let built = built.unwrap();
    let mut undecided = 0;
    for key in &keys {
        let Some(block) = index.chunk_of(key) else {
            undecided += 1;
            continue;
        };
        let probe = built.filters.probe(block, 0, || hash_bytes(key));
        assert!(probe.is_none_or(|probe| probe.may_be_in(&built.parts[probe.part])), "{key:?}");
    }
    assert!((1..25_000).contains(&undecided));
}
