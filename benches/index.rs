//! The learned index against `BTreeMap`, binary search and a static B+-tree, over the key sets that
//! `docs/learned-index.md` describes. Everything is measured in turns within one run, and medians are
//! printed, so that a noisy machine disturbs all of them alike.
//!
//! ```text
//! cargo bench --no-default-features --bench index -- [--rows 1000000,10000000] [--sets sequential,fb] [--rounds 7]
//! ```

#[path = "index/sets.rs"]
mod sets;
#[path = "index/static_tree.rs"]
mod static_tree;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Instant;

use omendb::engine::index::LearnedKeys;
use sets::{Random, SETS};
use static_tree::StaticTree;

/// Lookups of one turn.
const QUERIES: usize = 1 << 17;
/// Keys of one batch.
const BATCH: usize = 1024;
/// Single lookups that are timed together.
const SINGLES: usize = 128;
/// Keys of one segment of the directory.
const SEGMENT: usize = 1_000_000;

fn main() {
    let args = Args::parse();
    println!(
        "{QUERIES} lookups of present keys a turn, batches of {BATCH}, {} rounds",
        args.rounds
    );
    println!(
        "ns per lookup (medians): one = independent, dep = each waits for the last, bat = batched"
    );
    println!("model, keys: bytes per key; err: mean and largest, in rows");
    for &rows in &args.rows {
        println!();
        println!(
            "{:<12}{:>10} | {:>5} {:>5} {:>5} | {:>5} {:>5} | {:>5} {:>5} | {:>5} {:>5} | {:>5} | {:>5} {:>5} {:>5} {:>5} | {:>5} {:>5} {:>5} | {:>7} {:>5}",
            "set",
            "rows",
            "one",
            "dep",
            "bat",
            "s.one",
            "s.bat",
            "btree",
            "dep",
            "bsrch",
            "dep",
            "tree",
            "x one",
            "x dep",
            "x bat",
            "xbs1",
            "train",
            "model",
            "keys",
            "err",
            "max",
        );
        for set in
            SETS.iter().filter(|s| args.sets.is_empty() || args.sets.iter().any(|n| n == s.name))
        {
            measure(set.name, &(set.make)(rows), args.rounds);
        }
    }
}

struct Args {
    rows: Vec<usize>,
    sets: Vec<String>,
    rounds: usize,
}

impl Args {
    fn parse() -> Self {
        let mut args = Self { rows: vec![1_000_000, 10_000_000], sets: Vec::new(), rounds: 7 };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().unwrap_or_else(|| panic!("{word} needs a value"));
            match word.as_str() {
                "--rows" => {
                    args.rows = value().split(',').map(|n| n.parse().expect("a number")).collect();
                }
                "--sets" => args.sets = value().split(',').map(str::to_owned).collect(),
                "--rounds" => args.rounds = value().parse().expect("a number"),
                "--bench" => {}
                _ => panic!("unknown argument {word}"),
            }
        }
        args
    }
}

/// Learned indexes over consecutive pieces, as the segments of a table are.
struct Directory {
    firsts: Vec<u64>,
    segments: Vec<LearnedKeys<u64>>,
}

impl Directory {
    fn new(keys: &[u64]) -> Self {
        let pieces = || keys.chunks(SEGMENT);
        Self {
            firsts: pieces().map(|p| p[0]).collect(),
            segments: pieces().map(LearnedKeys::build).collect(),
        }
    }

    fn segment_of(&self, q: u64) -> usize {
        self.firsts.partition_point(|&f| f < q).saturating_sub(1)
    }

    fn lower_bound(&self, q: u64) -> u32 {
        let s = self.segment_of(q);
        (s * SEGMENT + lower_bound(&self.segments[s], q) as usize) as u32
    }

    /// Sorts the keys of the batch by segment and asks each segment once.
    fn lower_bound_batch(&self, q: &[u64], out: &mut [u32], scratch: &mut Scratch) {
        scratch.counts.clear();
        scratch.counts.resize(self.segments.len() + 1, 0);
        scratch.segment.clear();
        for &q in q {
            let s = self.segment_of(q);
            scratch.counts[s + 1] += 1;
            scratch.segment.push(s as u32);
        }
        for s in 0..self.segments.len() {
            scratch.counts[s + 1] += scratch.counts[s];
        }
        scratch.keys.resize(q.len(), 0);
        scratch.order.resize(q.len(), 0);
        scratch.found.resize(q.len(), 0);
        let mut next = scratch.counts.clone();
        for (i, &q) in q.iter().enumerate() {
            let at = &mut next[scratch.segment[i] as usize];
            scratch.keys[*at] = q;
            scratch.order[*at] = i as u32;
            *at += 1;
        }
        for (s, segment) in self.segments.iter().enumerate() {
            let range = scratch.counts[s]..scratch.counts[s + 1];
            batch(segment, &scratch.keys[range.clone()], &mut scratch.found[range.clone()]);
            for i in range {
                out[scratch.order[i] as usize] = scratch.found[i] + (s * SEGMENT) as u32;
            }
        }
    }
}

/// All keys are in memory here.
fn lower_bound(index: &LearnedKeys<u64>, q: u64) -> u32 {
    index.lower_bound(q).unwrap_or(usize::MAX) as u32
}

fn batch(index: &LearnedKeys<u64>, q: &[u64], out: &mut [u32]) {
    assert!(index.find_batch(q, out, &mut []).is_ok(), "all keys are in memory");
}

#[derive(Default)]
struct Scratch {
    counts: Vec<usize>,
    segment: Vec<u32>,
    keys: Vec<u64>,
    order: Vec<u32>,
    found: Vec<u32>,
}

fn measure(name: &str, keys: &[u64], rounds: usize) {
    let mut random = Random::new(99);
    let queries: Vec<u64> =
        (0..QUERIES).map(|_| keys[random.below(keys.len() as u64) as usize]).collect();
    let index = LearnedKeys::build(keys);
    let mut train = Vec::new();
    for _ in 0..rounds {
        for piece in keys.chunks(SEGMENT / 8).take(16) {
            let begin = Instant::now();
            black_box(LearnedKeys::build(black_box(piece)));
            train.push(begin.elapsed().as_secs_f64() * 1e9 / piece.len() as f64);
        }
    }
    let directory = Directory::new(keys);
    let map: BTreeMap<u64, u32> =
        keys.iter().rev().enumerate().map(|(i, &k)| (k, (keys.len() - 1 - i) as u32)).collect();
    let tree = StaticTree::new(keys);
    let mut out = vec![0; QUERIES];
    let mut scratch = Scratch::default();
    let absent: Vec<u64> = queries.iter().map(|q| q.wrapping_add(1)).collect();
    for q in [&queries, &absent] {
        let expected: Vec<u32> =
            q.iter().map(|&q| keys.partition_point(|&k| k < q) as u32).collect();
        assert!(q.iter().zip(&expected).all(|(&q, &e)| lower_bound(&index, q) == e));
        assert!(q.iter().zip(&expected).all(|(&q, &e)| directory.lower_bound(q) == e));
        batch(&index, q, &mut out);
        assert_eq!(out, expected);
        directory.lower_bound_batch(q, &mut out, &mut scratch);
        assert_eq!(out, expected);
        tree.lower_bound_batch(q, &mut out);
        assert_eq!(out, expected);
        assert!(q.iter().zip(&expected).all(|(q, e)| map.get(q).is_none_or(|p| p == e)));
    }

    let mut times: [Vec<f64>; 10] = Default::default();
    for _ in 0..rounds {
        let mut turn = 0;
        // A turn is timed piece by piece and its median taken: other work on the machine interrupts
        // some pieces, not most. So pieces are short, of single lookups above all.
        let mut time = |piece: usize, f: &mut dyn FnMut(&[u64], &mut [u32])| {
            let pieces = queries.chunks(piece).zip(out.chunks_mut(piece)).map(|(q, out)| {
                let begin = Instant::now();
                f(q, out);
                begin.elapsed().as_secs_f64() * 1e9 / q.len() as f64
            });
            times[turn].push(median(pieces.collect()));
            turn += 1;
        };
        time(SINGLES, &mut |q, _| each(q, |q| lower_bound(&index, q)));
        time(SINGLES, &mut |q, _| chained(q, |q| lower_bound(&index, q)));
        time(BATCH, &mut |q, out| batch(&index, q, out));
        time(SINGLES, &mut |q, _| each(q, |q| directory.lower_bound(q)));
        time(BATCH, &mut |q, out| directory.lower_bound_batch(q, out, &mut scratch));
        time(SINGLES, &mut |q, _| each(q, |q| map[&q]));
        time(SINGLES, &mut |q, _| chained(q, |q| map[&q]));
        time(SINGLES, &mut |q, _| each(q, |q| keys.partition_point(|&k| k < q) as u32));
        time(SINGLES, &mut |q, _| chained(q, |q| keys.partition_point(|&k| k < q) as u32));
        time(BATCH, &mut |q, out| tree.lower_bound_batch(q, out));
        black_box(&out);
    }
    let t = times.map(median);
    let [one, dep, bat, s_one, s_bat, btree, btree_dep, search, search_dep, tree] = t;
    let stats = index.stats();
    let n = keys.len() as f64;
    println!(
        "{name:<12}{:>10} | {one:>5.0} {dep:>5.0} {bat:>5.1} | {s_one:>5.0} {s_bat:>5.1} | {btree:>5.0} {btree_dep:>5.0} | {search:>5.0} {search_dep:>5.0} | {tree:>5.1} | {:>5.1} {:>5.1} {:>5.1} {:>5.1} | {:>5.2} {:>5.3} {:>5.2} | {:>7.2} {:>5}",
        keys.len(),
        btree / one,
        btree_dep / dep,
        btree / bat,
        search / one,
        median(train),
        stats.model_bytes as f64 / n,
        stats.key_bytes as f64 / n,
        stats.mean_error,
        stats.max_error,
    );
}

fn each(queries: &[u64], f: impl Fn(u64) -> u32) {
    let mut sum = 0u32;
    for &q in queries {
        sum = sum.wrapping_add(f(q));
    }
    black_box(sum);
}

/// The key of each lookup depends on the result of the one before.
fn chained(queries: &[u64], f: impl Fn(u64) -> u32) {
    let zero = black_box(0u32);
    let mut last = 0u32;
    for &q in queries {
        last = f(q ^ u64::from(last & zero));
    }
    black_box(last);
}

fn median(mut v: Vec<f64>) -> f64 {
    v.sort_by(f64::total_cmp);
    v[v.len() / 2]
}
