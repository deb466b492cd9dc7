//! Filters of keys behind the public interface: nothing that is there is missed, and what is not there costs few reads.

use std::collections::BTreeMap;
use std::path::Path;

use omendb::engine::{Engine, ErrorKind, KeySpec, OnConflict, Options, Table};
use proptest::prelude::*;

use crate::{keys, open, rows, schema, small};

fn scattered(seed: u64) -> impl FnMut() -> i64 {
    let mut state = seed;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        let mixed = (state ^ state >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed ^ mixed >> 29) as i64
    }
}

/// Which of some keys the table has, looked up one by one and together.
fn found(table: &Table, wanted: &[i64]) -> Vec<bool> {
    let snapshot = table.snapshot().unwrap();
    let encoded = snapshot.codec().encode(&keys(wanted)).unwrap();
    let one = |i| snapshot.locate_one(&encoded.get(i)).unwrap().is_some();
    let single: Vec<bool> = (0..wanted.len()).map(one).collect();
    let batched = snapshot.locate(&encoded).unwrap();
    assert!(batched.iter().map(Option::is_some).eq(single.iter().copied()));
    let counted = |i: usize| snapshot.count(&omendb::engine::KeyRange::point(encoded.get(i)));
    assert!((0..wanted.len()).all(|i| counted(i).unwrap() == u64::from(single[i])));
    assert_eq!(table.get_many(&keys(wanted)).unwrap().1, single);
    single
}

/// Absent keys, over segments that overlap and of which nothing is in memory.
#[test]
fn keys_that_are_nowhere_cost_few_reads() {
    const SEGMENT: usize = 200_000;
    let options = Options { background: false, ..Options::default() };
    let (dir, engine) = open(options.clone());
    let table = engine.create_table("t", &schema(), &KeySpec::primary(["key"])).unwrap();
    let mut next = scattered(1);
    for _ in 0..5 {
        let some: Vec<(i64, i64)> = (0..SEGMENT).map(|i| (next(), i as i64)).collect();
        table.insert(&rows(&some)).unwrap();
    }
    engine.close().unwrap();
    drop((table, engine));
    let engine = Engine::open(dir.path(), options).unwrap();
    let snapshot = engine.table("t").unwrap().snapshot().unwrap();
    assert_eq!(snapshot.segments().len(), 5);
    let index_bytes: u64 = snapshot.segments().iter().map(|s| s.meta.index_bytes).sum();
    let chunks = index_bytes / (32 << 10);
    assert!(chunks > 200, "{chunks} chunks and filters");
    let mut reads = |count: usize| {
        let before = engine.cache_stats().miss_count;
        let absent: Vec<i64> = (0..count).map(|_| next()).collect();
        let encoded = snapshot.codec().encode(&keys(&absent)).unwrap();
        assert!(snapshot.locate(&encoded).unwrap().iter().all(Option::is_none));
        engine.cache_stats().miss_count - before
    };
    // Models, filters, and a few chunks of keys that pass their filters.
    let first = reads(200);
    assert!(first < 85, "{first} reads");
    // Chunks alone, for one key in a hundred in each segment.
    let more = reads(1_000);
    assert!(more < 65, "{more} reads");
}

/// What is done to a table.
#[derive(Debug, Clone)]
enum Step {
    Load(u8),
    Upsert(u8),
    Delete(u8),
    Flush,
    Compact,
    /// With a cache of so many bytes.
    Reopen(usize),
    /// A byte of one index file changes while nobody has it open.
    Damage(u16, u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (70..200_u8).prop_map(Step::Load),
        2 => (1..120_u8).prop_map(Step::Upsert),
        2 => (1..60_u8).prop_map(Step::Delete),
        1 => Just(Step::Flush),
        1 => Just(Step::Compact),
        2 => prop::sample::select(vec![0, 10_000, 1 << 20]).prop_map(Step::Reopen),
        2 => (any::<u16>(), any::<u16>()).prop_map(|(file, at)| Step::Damage(file, at)),
    ]
}

fn damage(dir: &Path, file: u16, at: u16) {
    let mut files = Vec::new();
    for table in std::fs::read_dir(dir.join("tables")).into_iter().flatten() {
        let names = std::fs::read_dir(table.unwrap().path()).unwrap();
        let paths = names.map(|name| name.unwrap().path());
        files.extend(paths.filter(|path| path.extension().is_some_and(|e| e == "idx")));
    }
    files.sort();
    if files.is_empty() {
        return;
    }
    let path = &files[usize::from(file) % files.len()];
    let mut bytes = std::fs::read(path).unwrap();
    let at = usize::from(at) % bytes.len();
    bytes[at] ^= 0x11;
    std::fs::write(path, bytes).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn keys_are_found_through_all_that_happens_to_them(
        steps in prop::collection::vec(step(), 1..14),
        seed in any::<u64>(),
    ) {
        let mut options = Options { cache_bytes: 20_000, ..small() };
        let (dir, mut engine) = open(options.clone());
        let mut table = engine.create_table("t", &schema(), &KeySpec::primary(["key"])).unwrap();
        let mut model: BTreeMap<i64, i64> = BTreeMap::new();
        let mut gone: Vec<i64> = Vec::new();
        let mut next = scattered(seed);
        for step in steps {
            let mut pick = |count: u8| -> Vec<i64> {
                let all: Vec<i64> = model.keys().copied().collect();
                let mut some: Vec<i64> = (0..usize::from(count).min(all.len()))
                    .map(|_| all[next() as usize % all.len()])
                    .collect();
                some.sort_unstable();
                some.dedup();
                some
            };
            match step {
                Step::Load(count) => {
                    let new: Vec<(i64, i64)> = (0..count).map(|i| (next(), i.into())).collect();
                    table.insert(&rows(&new)).unwrap();
                    model.extend(new.iter().copied());
                    let again = table.insert(&rows(&new)).unwrap_err();
                    prop_assert_eq!(again.kind(), ErrorKind::DuplicateKey);
                    let ignored = engine
                        .write(|txn| txn.insert(table.id(), &rows(&new), OnConflict::Ignore))
                        .unwrap();
                    prop_assert_eq!(ignored.ignored_count, u64::from(count));
                }
                Step::Upsert(count) => {
                    let mut some: Vec<(i64, i64)> =
                        pick(count).into_iter().map(|key| (key, key ^ 5)).collect();
                    some.push((next(), 9));
                    table.upsert(&rows(&some)).unwrap();
                    model.extend(some);
                }
                Step::Delete(count) => {
                    let some = pick(count);
                    prop_assert_eq!(table.delete(&keys(&some)).unwrap(), some.len() as u64);
                    model.retain(|key, _| some.binary_search(key).is_err());
                    gone.extend(some);
                }
                Step::Flush => engine.flush(None).unwrap(),
                Step::Compact => drop(engine.compact(table.id()).unwrap()),
                Step::Reopen(_) | Step::Damage(..) => {
                    engine.close().unwrap();
                    drop((table, engine));
                    match step {
                        Step::Damage(file, at) => damage(dir.path(), file, at),
                        Step::Reopen(bytes) => options.cache_bytes = bytes,
                        _ => unreachable!(),
                    }
                    engine = Engine::open(dir.path(), options.clone()).unwrap();
                    table = engine.table("t").unwrap();
                }
            }
            let mut wanted: Vec<i64> = model.keys().copied().collect();
            wanted.extend(&gone);
            wanted.extend((0..100).map(|_| next()));
            let expected: Vec<bool> = wanted.iter().map(|key| model.contains_key(key)).collect();
            prop_assert!(found(&table, &wanted) == expected);
        }
    }
}
