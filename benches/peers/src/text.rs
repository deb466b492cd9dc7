//! The index of keys that are bytes beside `BTreeMap` and binary search.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hint::black_box;
use std::time::Instant;

use omendb::engine::index::SparseKeys;

use crate::args::Args;
use crate::index::{built, median};
use crate::machine;
use crate::real;
use crate::sets::Random;

type Key = Box<[u8]>;

/// Keys of the sets that are made.
const KEYS: usize = 1_000_000;
/// Lookups of one turn, of a pool of those.
const TURN: usize = 1 << 15;
const POOL: usize = 1 << 19;
/// Lookups that are timed together.
const PIECE: usize = 128;
/// Answers that are compared.
const COMPARED: usize = 1 << 16;

const NAMES: [&str; 3] = ["OmenDB", "BTreeMap", "binary search"];

pub fn run(args: &Args) {
    let rounds = args.rounds.unwrap_or(5);
    let count = args.sizes.first().copied().unwrap_or(KEYS);
    let before = machine::load();
    let mut random = Random::new(11);
    let words = words();
    if let Err(why) = &words {
        eprintln!("words and URLs are left out: {why}");
    }
    let mut table = String::new();
    let mut add = |name: &str, make: &mut dyn FnMut() -> Vec<Key>| {
        if args.wants(name) {
            table.push_str(&measure(name, make(), rounds));
        }
    };
    if let Ok(words) = &words {
        add("words", &mut || words.clone());
        add("urls", &mut || (0..count).map(|_| url(words, &mut random)).collect());
    }
    add("uuids", &mut || (0..count).map(|_| uuid(&mut random)).collect());
    add("orders", &mut || (0..count).map(|i| order(i, &mut random)).collect());
    let load = format!("{before} at the beginning and {} at the end", machine::load());
    let mut page = String::from(HEAD);
    let _ = writeln!(page, "{}; load average {load}; {rounds} rounds.\n", machine::describe());
    if let Err(why) = &words {
        let _ = writeln!(page, "Left out: words and URLs ({why}).\n");
    }
    page.push_str(SETS);
    page.push_str(&table);
    let dir = args.docs.join("benchmarks");
    std::fs::create_dir_all(&dir)
        .and_then(|()| std::fs::write(dir.join("text.md"), page))
        .unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
}

const HEAD: &str = "\
# Figures of the index of keys that are bytes

Written by `benches/peers/run text`; [benchmarks.md](../benchmarks.md#keys-that-are-bytes) says what they mean.

";

const SETS: &str = "\
`BTreeMap<Box<[u8]>, u32>` and binary search of a `Vec<Box<[u8]>>` hold the same keys. Answers were compared before anything was timed.
Times are nanoseconds a lookup of single keys that are independent of each other, medians of short pieces of turns; absent keys are present
ones with a byte behind them. Words are those of the Debian package `wamerican-insane` (public domain); URLs have a host of 600, two words
and a number; UUIDs are random, as text; orders are `customer-00000/order-00000000`.

| keys | number | bytes, mean | OmenDB, present | `BTreeMap` | binary search | OmenDB, absent | `BTreeMap` | binary search | present vs `BTreeMap` | built, ns/key | `BTreeMap` | held, bytes/key | `BTreeMap` |
|---|---|---|---|---|---|---|---|---|---|---|---|---|---|
";

fn words() -> Result<Vec<Key>, String> {
    let path = real::cache()?.join("american-english-insane");
    let text = std::fs::read(&path).map_err(|_| "american-english-insane is missing".to_owned())?;
    Ok(text.split(|b| *b == b'\n').filter(|w| !w.is_empty()).map(Key::from).collect())
}

fn url(words: &[Key], random: &mut Random) -> Key {
    // Some hosts have many more pages than others.
    let host = (random.below(600) * random.below(600) / 600) as usize * (words.len() / 600);
    let mut word = || &words[random.below(words.len() as u64) as usize];
    let mut key = b"https://www.".to_vec();
    key.extend_from_slice(&words[host]);
    key.extend_from_slice(b".example/");
    key.extend_from_slice(word());
    key.push(b'/');
    key.extend_from_slice(word());
    key.extend_from_slice(format!("?id={}", random.below(1_000_000)).as_bytes());
    key.into()
}

fn uuid(random: &mut Random) -> Key {
    let (a, b) = (random.next(), random.next());
    let (time, node) = (a >> 32, b & 0xffff_ffff_ffff);
    let parts = (a >> 16 & 0xffff, a & 0xfff, b >> 50 | 0x8000);
    let text = format!("{time:08x}-{:04x}-4{:03x}-{:04x}-{node:012x}", parts.0, parts.1, parts.2);
    text.into_bytes().into()
}

fn order(i: usize, random: &mut Random) -> Key {
    format!("customer-{:05}/order-{i:08}", random.below(50_000)).into_bytes().into()
}

/// A row of the table.
fn measure(name: &str, mut keys: Vec<Key>, rounds: usize) -> String {
    keys.sort_unstable();
    keys.dedup();
    let n = keys.len();
    let mean = keys.iter().map(|k| k.len()).sum::<usize>() as f64 / n as f64;
    let (index, build, bytes) =
        built(n, || SparseKeys::build(keys.iter().map(|k| &**k)).unwrap_or_else(|e| panic!("{e}")));
    let (map, map_build, map_bytes) =
        built(n, || keys.iter().cloned().zip(0..).collect::<BTreeMap<Key, u32>>());
    let mut random = Random::new(12);
    let present: Vec<Key> =
        (0..POOL).map(|_| keys[random.below(n as u64) as usize].clone()).collect();
    let absent: Vec<Key> = present.iter().map(|k| [&**k, b"!"].concat().into()).collect();

    let find: [&dyn Fn(&[u8]) -> usize; 3] = [
        &|q| index.lower_bound(q).unwrap_or(usize::MAX),
        &|q| {
            let above = (std::ops::Bound::Included(q), std::ops::Bound::Unbounded);
            map.range::<[u8], _>(above).next().map_or(n, |(_, at)| *at as usize)
        },
        &|q| keys.partition_point(|k| **k < *q),
    ];
    for q in present.iter().take(COMPARED).chain(absent.iter().take(COMPARED)) {
        let right = find[2](q);
        assert!(find[0](q) == right && find[1](q) == right, "{name}: answers differ");
    }

    let mut times: [[Vec<f64>; 3]; 2] = Default::default();
    let mut turn = 0;
    for _ in 0..rounds {
        for (pool, times) in [&present, &absent].into_iter().zip(&mut times) {
            for (find, times) in find.iter().zip(times) {
                let at = turn * TURN % POOL;
                times.push(time(&pool[at..at + TURN], find));
                turn += 1;
            }
        }
    }
    let [present, absent] = times.map(|of| of.map(median));
    eprintln!("{name}: {n} keys; present {present:.0?}, absent {absent:.0?} ns of {NAMES:?}");
    let cells = |t: [f64; 3]| format!("**{:.0}** | {:.0} | {:.0}", t[0], t[1], t[2]);
    format!(
        "| {name} | {n} | {mean:.1} | {} | {} | {:.1}x | {build:.0} | {map_build:.0} | {bytes:.1} | {map_bytes:.1} |\n",
        cells(present),
        cells(absent),
        present[1] / present[0],
    )
}

fn time(queries: &[Key], find: &dyn Fn(&[u8]) -> usize) -> f64 {
    let pieces = queries.chunks(PIECE).map(|q| {
        let begin = Instant::now();
        let sum: usize = q.iter().map(|q| find(q)).sum();
        black_box(sum);
        begin.elapsed().as_secs_f64() * 1e9 / q.len() as f64
    });
    median(pieces.collect())
}
