//! Equal answers first, then times in turns.

use std::hint::black_box;
use std::time::Instant;

use omendb::engine::index::{LearnedKeys, ModelStats};

use crate::contenders::{Brie, Contender, Map, Pgm, Sorted, Spline};
use crate::machine;
use crate::sets::Random;
use crate::static_tree::StaticTree;

/// Lookups of one turn.
const TURN: usize = 1 << 16;
/// Keys to look up, of which each turn takes the next few, so that no turn finds what the one before it left
/// in the cache.
const POOL: usize = 1 << 22;
/// Keys of one batch.
const BATCH: usize = 1024;
/// Single lookups that are timed together.
const SINGLES: usize = 128;
/// Answers that are compared.
const COMPARED: usize = 1 << 17;

/// Ways to look up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Single,
    /// Each waits for the last.
    Dependent,
    Batched,
    AbsentSingle,
    AbsentBatched,
}

impl Mode {
    pub const ALL: [Self; 5] =
        [Self::Single, Self::Dependent, Self::Batched, Self::AbsentSingle, Self::AbsentBatched];

    fn is_absent(self) -> bool {
        matches!(self, Self::AbsentSingle | Self::AbsentBatched)
    }
}

/// Figures of one contender on one set.
pub struct Figures {
    pub name: &'static str,
    /// Nanoseconds a lookup, in the order of [`Mode::ALL`]; `None` where the set has no such keys.
    pub times: [Option<f64>; 5],
    /// Nanoseconds a key.
    pub build: f64,
    /// Bytes a key, keys included.
    pub bytes: f64,
}

/// Everything about one set.
pub struct Measured {
    pub set: String,
    /// The size it was made for; 0 for real keys.
    pub size: usize,
    pub rows: usize,
    /// The learned index first.
    pub contenders: Vec<Figures>,
    pub stats: ModelStats,
    /// Keys by the bits of the distance, in rows, from where the model expects them.
    pub errors: Vec<usize>,
    /// Keys with the shares of rows below them: the model's and the real one; over the whole range, and over a
    /// thousand keys in the middle.
    pub curves: [Vec<(f64, f64, f64)>; 2],
}

impl Measured {
    pub fn time(&self, contender: &str, mode: Mode) -> Option<f64> {
        let figures = self.contenders.iter().find(|c| c.name == contender)?;
        Mode::ALL.iter().zip(figures.times).find(|(m, _)| **m == mode)?.1
    }
}

/// A contender behind a pointer; its lookups are compiled into the loops all the same.
trait Turns {
    fn answer(&self, q: &[u64], out: &mut [u32]);
    fn answer_batch(&self, q: &[u64], out: &mut [u32]);
    fn answer_present(&self, q: &[u64], out: &mut [u32]);
    /// Nanoseconds a lookup: the median of short pieces, most of which nothing interrupts.
    fn turn(&self, mode: Mode, q: &[u64], out: &mut [u32]) -> f64;
}

impl<C: Contender> Turns for C {
    fn answer(&self, q: &[u64], out: &mut [u32]) {
        q.iter().zip(out).for_each(|(q, out)| *out = self.lower_bound(*q));
    }

    fn answer_batch(&self, q: &[u64], out: &mut [u32]) {
        self.lower_bound_batch(q, out);
    }

    fn answer_present(&self, q: &[u64], out: &mut [u32]) {
        q.iter().zip(out).for_each(|(q, out)| *out = self.position(*q));
    }

    fn turn(&self, mode: Mode, q: &[u64], out: &mut [u32]) -> f64 {
        match mode {
            Mode::Single => pieces(SINGLES, q, out, |q, _| each(q, |q| self.position(q))),
            Mode::Dependent => pieces(SINGLES, q, out, |q, _| chained(q, |q| self.position(q))),
            Mode::AbsentSingle => pieces(SINGLES, q, out, |q, _| each(q, |q| self.lower_bound(q))),
            Mode::Batched | Mode::AbsentBatched => {
                // Short pieces where it makes no difference: see `pieces`.
                let len = if C::BATCHES { BATCH } else { SINGLES };
                pieces(len, q, out, |q, out| self.lower_bound_batch(q, out))
            }
        }
    }
}

/// The median of pieces of `len` lookups. Other work on the machine interrupts some, the fewer the shorter they are.
fn pieces(len: usize, q: &[u64], out: &mut [u32], f: impl Fn(&[u64], &mut [u32])) -> f64 {
    let times = q.chunks(len).zip(out.chunks_mut(len)).map(|(q, out)| {
        let begin = Instant::now();
        f(black_box(q), out);
        begin.elapsed().as_secs_f64() * 1e9 / q.len() as f64
    });
    let median = median(times.collect());
    black_box(out);
    median
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

pub fn median(mut v: Vec<f64>) -> f64 {
    v.sort_by(f64::total_cmp);
    v[v.len() / 2]
}

/// A contender, nanoseconds a key to build it, and the bytes it holds a key.
pub fn built<C>(keys: usize, build: impl Fn() -> C) -> (C, f64, f64) {
    let times = if keys > 20_000_000 { 1 } else { 3 };
    let mut taken = Vec::new();
    let mut last = None;
    let before = machine::held();
    for _ in 0..times {
        drop(last.take());
        let begin = Instant::now();
        last = Some(build());
        taken.push(begin.elapsed().as_secs_f64() * 1e9 / keys as f64);
    }
    let bytes = (machine::held() - before) as f64 / keys as f64;
    let last = last.unwrap_or_else(|| unreachable!("it is built once at least"));
    (last, median(taken), bytes)
}

/// All contenders on one set.
pub struct Contest<'a> {
    set: &'static str,
    /// See [`Measured::size`].
    size: usize,
    keys: &'a [u64],
    index: LearnedKeys<u64>,
    /// Nanoseconds a key to train it, once more in each round.
    training: Vec<f64>,
    /// Name, time to build and bytes of each.
    names: Vec<(&'static str, f64, f64)>,
    contenders: Vec<Box<dyn Turns + 'a>>,
    present: Vec<u64>,
    absent: Vec<u64>,
    times: Vec<[Vec<f64>; 5]>,
    turns: usize,
}

impl<'a> Contest<'a> {
    /// Builds them, and compares their answers.
    pub fn new(set: &'static str, keys: &'a [u64], size: usize) -> Self {
        eprintln!("{set}: {} keys", keys.len());
        let (index, build, bytes) = built(keys.len(), || LearnedKeys::build(keys));
        let mut names = vec![("OmenDB", build, bytes)];
        let mut contenders: Vec<Box<dyn Turns + 'a>> = vec![Box::new(index.clone())];
        let mut keep = |name, contender, build, bytes| {
            names.push((name, build, bytes));
            contenders.push(contender);
        };
        let (map, build, bytes) = built(keys.len(), || Map::new(keys));
        keep("BTreeMap", Box::new(map), build, bytes);
        keep("binary search", Box::new(Sorted(keys)), 0.0, 8.0);
        if keys.len() <= Brie::MAX_KEYS {
            let (brie, build, bytes) = built(keys.len(), || Brie::new(keys));
            keep("brie-tree", Box::new(brie), build, bytes);
        }
        let (pgm, build, bytes) = built(keys.len(), || Pgm::new(keys));
        keep("PGM", Box::new(pgm), build, bytes);
        let (spline, build, bytes) = built(keys.len(), || Spline::new(keys));
        let spline = spline.unwrap_or_else(|| panic!("{set}: all keys are equal"));
        // It finds places in an array that it does not hold.
        keep("RadixSpline", Box::new(spline), build, bytes + 8.0);
        let (tree, build, bytes) = built(keys.len(), || StaticTree::new(keys));
        keep("S+-tree", Box::new(tree), build, bytes);

        let mut random = Random::new(99);
        let present: Vec<u64> =
            (0..POOL).map(|_| keys[random.below(keys.len() as u64) as usize]).collect();
        let absent = absent_keys(keys, &mut random);
        compare(keys, &present, &absent, &names, &contenders);
        let times = names.iter().map(|_| Default::default()).collect();
        let training = vec![names[0].1];
        Self {
            set,
            size,
            keys,
            index,
            training,
            names,
            contenders,
            present,
            absent,
            times,
            turns: 0,
        }
    }

    /// Each has a turn in each mode.
    pub fn round(&mut self) {
        let begin = Instant::now();
        drop(black_box(LearnedKeys::build(self.keys)));
        self.training.push(begin.elapsed().as_secs_f64() * 1e9 / self.keys.len() as f64);
        let mut out = vec![0; TURN];
        for (m, mode) in Mode::ALL.into_iter().enumerate() {
            let pool = if mode.is_absent() { &self.absent } else { &self.present };
            if pool.is_empty() {
                continue;
            }
            for (contender, times) in self.contenders.iter().zip(&mut self.times) {
                let at = self.turns * TURN % POOL;
                times[m].push(contender.turn(mode, &pool[at..at + TURN], &mut out));
                self.turns += 1;
            }
        }
    }

    pub fn finish(mut self) -> Measured {
        self.names[0].1 = median(self.training);
        let contenders: Vec<Figures> = self
            .names
            .into_iter()
            .zip(self.times)
            .map(|((name, build, bytes), times)| Figures {
                name,
                times: times.map(|t| (!t.is_empty()).then(|| median(t))),
                build,
                bytes,
            })
            .collect();
        for c in &contenders {
            let times: Vec<String> =
                c.times.iter().map(|t| t.map_or("-".to_owned(), |t| format!("{t:.1}"))).collect();
            println!(
                "{:<12} {:>10} {:<14} {:>8} {:>8} {:>8} {:>8} {:>8}  build {:>6.1} bytes {:>5.2}",
                self.set,
                self.keys.len(),
                c.name,
                times[0],
                times[1],
                times[2],
                times[3],
                times[4],
                c.build,
                c.bytes
            );
        }
        Measured {
            set: self.set.to_owned(),
            size: self.size,
            rows: self.keys.len(),
            contenders,
            stats: self.index.stats(),
            errors: errors(self.keys, &self.index),
            curves: curves(self.keys, &self.index),
        }
    }
}

/// Keys between neighbours; none where hardly any two have room between them.
fn absent_keys(keys: &[u64], random: &mut Random) -> Vec<u64> {
    let mut absent = Vec::with_capacity(POOL);
    for _ in 0..100 * POOL {
        let i = random.below(keys.len() as u64 - 1) as usize;
        let gap = keys[i + 1] - keys[i];
        if gap > 1 {
            absent.push(keys[i] + 1 + random.below(gap - 1));
            if absent.len() == POOL {
                return absent;
            }
        }
    }
    Vec::new()
}

/// Sees to it that all give the same answers, for present and absent keys and the extremes.
fn compare(
    keys: &[u64],
    present: &[u64],
    absent: &[u64],
    names: &[(&str, f64, f64)],
    contenders: &[Box<dyn Turns + '_>],
) {
    let ends = [keys[0], keys[keys.len() - 1]];
    let mut all: Vec<u64> = vec![0, 1, u64::MAX - 1, u64::MAX];
    all.extend(ends.iter().flat_map(|k| [k.wrapping_sub(1), *k, k.wrapping_add(1)]));
    all.extend(present.iter().take(COMPARED));
    all.extend(absent.iter().take(COMPARED));
    all.extend(present.iter().take(COMPARED).flat_map(|k| [k.wrapping_sub(1), k.wrapping_add(1)]));
    let expected = |q: &[u64]| -> Vec<u32> {
        q.iter().map(|q| keys.partition_point(|k| k < q) as u32).collect()
    };
    let (right, right_present) = (expected(&all), expected(&present[..COMPARED]));
    let mut out = vec![0; all.len()];
    for ((name, ..), contender) in names.iter().zip(contenders) {
        contender.answer(&all, &mut out);
        assert!(out == right, "{name} answers otherwise than binary search");
        contender.answer_batch(&all, &mut out);
        assert!(out == right, "{name} answers otherwise than binary search, in batches");
        contender.answer_present(&present[..COMPARED], &mut out[..COMPARED]);
        assert!(out[..COMPARED] == right_present, "{name} does not find what is there");
    }
}

fn errors(keys: &[u64], index: &LearnedKeys<u64>) -> Vec<usize> {
    let mut counts = Vec::new();
    let mut first = 0;
    for (i, key) in keys.iter().enumerate() {
        if *key != keys[first] {
            first = i;
        }
        let error = index.predict(*key).pos.abs_diff(first);
        let bits = (usize::BITS - error.leading_zeros()) as usize;
        if counts.len() <= bits {
            counts.resize(bits + 1, 0);
        }
        counts[bits] += 1;
    }
    counts
}

/// See [`Measured::curves`].
fn curves(keys: &[u64], index: &LearnedKeys<u64>) -> [Vec<(f64, f64, f64)>; 2] {
    const POINTS: u64 = 56;
    let curve = |from: usize, to: usize| -> Vec<(f64, f64, f64)> {
        let (first, span) = (keys[from], keys[to - 1] - keys[from]);
        let share = |at: usize| (at as f64 - from as f64) / (to - from) as f64;
        let points = (0..=POINTS).map(|i| {
            let q = first + (u128::from(span) * u128::from(i) / u128::from(POINTS)) as u64;
            let real = keys.partition_point(|k| *k < q);
            (i as f64 / POINTS as f64, share(index.predict(q).pos), share(real))
        });
        points.collect()
    };
    // A handful of huge keys would leave nothing of the others to see.
    let middle = keys.len() / 2;
    [
        curve(0, keys.len() - keys.len() / 500),
        curve(middle - 500.min(middle), (middle + 500).min(keys.len())),
    ]
}
