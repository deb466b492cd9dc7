//! The engine beside embedded stores on disk: the same rows, the same durability, the same memory.

mod fjall;
mod omendb;
mod redb;
mod report;
mod sqlite;

use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::args::Args;
use crate::index::median;
use crate::machine;
use crate::real;
use crate::sets::Random;

/// Memory that each store may use for what it caches.
pub const CACHE_BYTES: usize = 1 << 30;
const ROWS: usize = 10_000_000;
/// Keys of one call of [`Store::many`].
const BATCH: usize = 1000;
/// Rows of a scan.
const SCANNED: usize = 1000;
/// Point reads of a turn.
const POINTS: usize = 20_000;
/// Point reads of a turn that are timed together.
const PIECE: usize = 100;
/// Reads after everything was forgotten.
const COLD: usize = 300;
/// Commits of [`COMMIT_ROWS`] rows each.
const COMMITS: usize = 100;
const COMMIT_ROWS: usize = 1000;

/// What a row holds beside its key.
pub type Row = (i64, f64, f64);

/// The row of a key.
pub fn row(key: i64) -> Row {
    (key.wrapping_mul(7), key as f64 * 0.5, (key as f64).sqrt())
}

/// A table of rows by key in a folder of its own. Failures end the bench.
pub trait Store {
    fn name(&self) -> &'static str;

    /// Stores rows in the order of their keys, in the fastest way there is. Durable when it returns.
    fn load(&mut self, keys: &[i64]);

    /// Stores rows in one transaction. Durable when it returns.
    fn commit(&mut self, keys: &[i64]);

    /// Reads the row of each key by itself, each in a transaction of its own.
    fn points(&self, keys: &[i64], rows: &mut [Option<Row>]);

    /// Reads the rows of all keys on one state of the table.
    fn many(&self, keys: &[i64], rows: &mut [Option<Row>]);

    /// Reads rows from a key on: how many, and the sum of all their values.
    fn scan(&self, from: i64, rows: usize) -> (usize, f64);

    /// How many rows have keys of `from..to`.
    fn count(&self, from: i64, to: i64) -> u64;

    /// Closes it, and opens it again with nothing in memory.
    fn reopen(&mut self);
}

/// Sum of a row's values, for scans to read them all.
pub fn sum((a, b, c): Row) -> f64 {
    a as f64 + b + c
}

/// Figures of one store.
pub struct Figures {
    name: &'static str,
    /// What is measured, and the figure; in the same order for each store.
    values: Vec<(&'static str, f64)>,
}

pub fn run(args: &Args) {
    let rows = args.sizes.first().copied().unwrap_or(ROWS);
    let rounds = args.rounds.unwrap_or(5);
    let before = machine::load();
    let dir = real::cache().unwrap_or_else(|e| panic!("{e}")).join("databases");
    // What a run that was stopped left.
    if dir.exists() {
        std::fs::remove_dir_all(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    }
    let folder = |name: &str| -> PathBuf {
        let folder = dir.join(name);
        std::fs::create_dir_all(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        folder
    };
    let keys: Vec<i64> = (0..rows as i64).map(|k| k * 10).collect();
    let mut stores: Vec<(PathBuf, Box<dyn Store>)> = vec![
        (folder("omendb"), Box::new(omendb::Engine::create(&folder("omendb")))),
        (folder("sqlite"), Box::new(sqlite::Sqlite::create(&folder("sqlite")))),
        (folder("redb"), Box::new(redb::Redb::create(&folder("redb")))),
        (folder("fjall"), Box::new(fjall::Fjall::create(&folder("fjall")))),
    ];
    stores.retain(|(_, store)| args.wants(store.name()));
    let mut all: Vec<Figures> = Vec::new();
    for (dir, store) in &mut stores {
        let begin = Instant::now();
        store.load(&keys);
        let load = per_row(begin, rows);
        // Closed, so that what is written later is on disk, too.
        store.reopen();
        let bytes = bytes_in(dir) as f64 / rows as f64;
        eprintln!("{}: loaded, {load:.1} ns/row, {bytes:.1} bytes/row", store.name());
        all.push(Figures {
            name: store.name(),
            values: vec![("load in key order, ns/row", load), ("on disk, bytes/row", bytes)],
        });
    }
    compare(&stores, &keys);
    hot(&stores, &keys, rounds, &mut all);
    let forgets = cold(&mut stores, &keys, &mut all);
    commits(&mut stores, &keys, &mut all);
    let load = format!("{before} at the beginning and {} at the end", machine::load());
    drop(stores);
    std::fs::remove_dir_all(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    report::write(&args.docs, &all, rows, rounds, &load, forgets)
        .unwrap_or_else(|e| panic!("{}: {e}", args.docs.display()));
}

fn per_row(begin: Instant, rows: usize) -> f64 {
    begin.elapsed().as_secs_f64() * 1e9 / rows as f64
}

fn bytes_in(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let sizes = entries.filter_map(Result::ok).map(|entry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => bytes_in(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    });
    sizes.sum()
}

type Stores = [(PathBuf, Box<dyn Store>)];

/// Random keys of rows, or of none.
fn some(keys: &[i64], count: usize, offset: i64, random: &mut Random) -> Vec<i64> {
    (0..count).map(|_| keys[random.below(keys.len() as u64) as usize] + offset).collect()
}

/// Sees to it that all give the same answers.
fn compare(stores: &Stores, keys: &[i64]) {
    let mut random = Random::new(5);
    let mut wanted = some(keys, 2000, 0, &mut random);
    wanted.extend(some(keys, 2000, 3, &mut random));
    wanted.extend([i64::MIN, -1, 0, i64::MAX]);
    let expected: Vec<Option<Row>> = wanted
        .iter()
        .map(|k| (*k >= 0 && k % 10 == 0 && *k < 10 * keys.len() as i64).then(|| row(*k)))
        .collect();
    for (_, store) in stores {
        let name = store.name();
        let mut rows = vec![None; wanted.len()];
        store.points(&wanted, &mut rows);
        assert!(rows == expected, "{name}: points");
        rows.fill(None);
        store.many(&wanted, &mut rows);
        assert!(rows == expected, "{name}: many");
        for from in some(keys, 20, -4, &mut random) {
            let rest = keys[keys.partition_point(|k| *k < from)..].iter().take(SCANNED);
            let right = (rest.len(), rest.map(|k| sum(row(*k))).sum::<f64>());
            let (count, total) = store.scan(from, SCANNED);
            // Sums in another order differ in their last bits.
            assert!(count == right.0 && (total - right.1).abs() <= right.1 * 1e-9, "{name}: scan");
            let to = from + 123_456;
            let right = keys.partition_point(|k| *k < to) - keys.partition_point(|k| *k < from);
            assert_eq!(store.count(from, to), right as u64, "{name}: count");
        }
        eprintln!("{name}: answers are right");
    }
}

/// Reads of what is in memory, in processor time: they wait for nothing, and others on the machine do not count.
fn hot(stores: &Stores, keys: &[i64], rounds: usize, all: &mut [Figures]) {
    const WHAT: [&str; 6] = [
        "point read, hot, ns",
        "read of an absent key, hot, ns",
        "1,000 keys at once, hot, ns/key",
        "scan of 1,000 rows, hot, ns/row",
        "COUNT of 1,000 rows, ns",
        "COUNT of half the table, ns",
    ];
    let mut random = Random::new(6);
    for (_, store) in stores {
        // Everything is read once.
        for from in keys.iter().step_by(SCANNED) {
            store.scan(*from, SCANNED);
        }
    }
    let mut times: Vec<[Vec<f64>; 6]> = stores.iter().map(|_| Default::default()).collect();
    let mut rows = vec![None; POINTS];
    let half = 5 * keys.len() as i64;
    for _ in 0..rounds {
        for ((_, store), times) in stores.iter().zip(&mut times) {
            for (what, offset) in [(0, 0), (1, 3)] {
                let wanted = some(keys, POINTS, offset, &mut random);
                let pieces = wanted.chunks(PIECE).zip(rows.chunks_mut(PIECE)).map(|(q, rows)| {
                    let begin = machine::thread_time();
                    store.points(q, rows);
                    (machine::thread_time() - begin) / q.len() as f64
                });
                times[what].push(median(pieces.collect()));
            }
            let wanted = some(keys, POINTS, 0, &mut random);
            let pieces = wanted.chunks(BATCH).zip(rows.chunks_mut(BATCH)).map(|(q, rows)| {
                let begin = machine::thread_time();
                store.many(q, rows);
                (machine::thread_time() - begin) / q.len() as f64
            });
            times[2].push(median(pieces.collect()));
            let scans = some(&keys[..keys.len() - SCANNED], 50, 0, &mut random);
            let each = |f: &dyn Fn(i64)| -> f64 {
                median(
                    scans
                        .iter()
                        .map(|from| {
                            let begin = machine::thread_time();
                            f(*from);
                            machine::thread_time() - begin
                        })
                        .collect(),
                )
            };
            times[3].push(
                each(&|from| {
                    std::hint::black_box(store.scan(from, SCANNED));
                }) / SCANNED as f64,
            );
            times[4].push(each(&|from| {
                std::hint::black_box(store.count(from, from + 10 * SCANNED as i64));
            }));
            let begin = machine::thread_time();
            std::hint::black_box(store.count(half / 2, half / 2 + half));
            times[5].push(machine::thread_time() - begin);
        }
    }
    for (figures, times) in all.iter_mut().zip(times) {
        figures.values.extend(WHAT.into_iter().zip(times.map(median)));
        eprintln!("{}: {:?}", figures.name, figures.values);
    }
}

/// Reads after a restart; says whether the system forgot the files, too.
fn cold(stores: &mut Stores, keys: &[i64], all: &mut [Figures]) -> bool {
    let mut random = Random::new(7);
    let mut forgets = true;
    for ((_, store), figures) in stores.iter_mut().zip(all) {
        store.reopen();
        forgets &= forget_files();
        let mut times = Vec::new();
        let begin = Instant::now();
        for key in some(keys, COLD, 0, &mut random) {
            let begin = Instant::now();
            store.points(&[key], &mut [None]);
            times.push(begin.elapsed().as_secs_f64() * 1e6);
        }
        let mean = begin.elapsed().as_secs_f64() * 1e6 / COLD as f64;
        let first = times[0];
        figures.values.extend([
            ("first point read, cold, us", first),
            ("first 300 point reads, cold, us, median", median(times)),
            ("the same, mean", mean),
        ]);
        store.reopen();
        forgets &= forget_files();
        let begin = Instant::now();
        let (count, _) = store.scan(0, keys.len());
        assert_eq!(count, keys.len());
        figures.values.push(("scan of all rows, cold, ns/row", per_row(begin, keys.len())));
    }
    forgets
}

/// Asks the system to drop what it keeps of files.
fn forget_files() -> bool {
    // SAFETY: it takes and gives nothing.
    unsafe { libc::sync() };
    std::fs::write("/proc/sys/vm/drop_caches", "3").is_ok()
}

fn commits(stores: &mut Stores, keys: &[i64], all: &mut [Figures]) {
    let mut random = Random::new(8);
    // Rows between those that are there: new ones, in no order.
    let mut new: Vec<i64> = some(keys, COMMITS * COMMIT_ROWS, 5, &mut random);
    new.sort_unstable();
    new.dedup();
    for i in (1..new.len()).rev() {
        new.swap(i, random.below(i as u64 + 1) as usize);
    }
    for ((_, store), figures) in stores.iter_mut().zip(all) {
        let mut times = Vec::new();
        for rows in new.chunks(COMMIT_ROWS) {
            let begin = Instant::now();
            store.commit(rows);
            times.push(per_row(begin, rows.len()));
        }
        let count = store.count(i64::MIN, i64::MAX);
        assert_eq!(count as usize, keys.len() + new.len(), "{}: after commits", store.name());
        figures.values.push(("commits of 1,000 rows at random keys, ns/row", median(times)));
    }
}
