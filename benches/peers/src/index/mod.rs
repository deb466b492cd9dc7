//! The learned index beside trees, binary search and other learned indexes.

mod charts;
mod measure;
mod report;

use crate::args::Args;
use crate::machine;
use crate::real::REAL;
use crate::sets::SETS;
use measure::{Contest, Measured};
pub use measure::{built, median};

/// Sizes of the tables.
const SIZES: [usize; 3] = [1_000_000, 10_000_000, 100_000_000];
/// Sizes that the chart of latencies has besides.
const CHART_SIZES: [usize; 2] = [10_000, 100_000];
/// From this size on only the sets of the chart are measured: others take too long to make and to search.
const LARGE: usize = 50_000_000;
/// Keys that are in memory together, with all contenders: some 100 bytes each.
const TOGETHER: usize = 60_000_000;
/// Sets of the chart: ordered, smooth, and two that are hard.
const CHART_SETS: [&str; 5] = ["sequential", "jittered", "uniform", "osm", "fb"];

pub fn run(args: &Args) {
    let rounds = args.rounds.unwrap_or(9);
    let before = machine::load();
    let mut all: Vec<Measured> = Vec::new();
    let mut absent = Vec::new();
    let sizes: Vec<usize> = if args.sizes.is_empty() {
        CHART_SIZES.into_iter().chain(SIZES).collect()
    } else {
        args.sizes.clone()
    };
    for size in sizes {
        let few = args.sizes.is_empty() && (CHART_SIZES.contains(&size) || size >= LARGE);
        let wanted: Vec<_> = SETS
            .iter()
            .filter(|set| args.wants(set.name) && (!few || CHART_SETS.contains(&set.name)))
            .collect();
        for sets in wanted.chunks((TOGETHER / size).max(1)) {
            let sets: Vec<_> = sets.iter().map(|set| (set.name, (set.make)(size))).collect();
            all.extend(measure_all(&sets, size, rounds));
        }
    }
    let mut real = Vec::new();
    for set in REAL.iter().filter(|set| args.wants(set.name)) {
        match set.keys() {
            Ok(keys) => real.push((set.name, keys)),
            Err(why) => {
                eprintln!("{} is left out: {why}", set.name);
                absent.push(format!("{} ({why})", set.name));
            }
        }
    }
    all.extend(measure_all(&real, 0, rounds));
    let load = format!("{before} at the beginning and {} at the end", machine::load());
    let written = report::write(args, &all, &absent, rounds, &load)
        .and_then(|()| charts::write(&args.docs.join("charts"), &all));
    written.unwrap_or_else(|e| panic!("{}: {e}", args.docs.display()));
}

/// Rounds go from set to set, so that what else the machine does for a while falls on one round of many and not on one set.
fn measure_all(
    sets: &[(&'static str, Vec<u64>)],
    size: usize,
    rounds: usize,
) -> impl Iterator<Item = Measured> {
    let mut contests: Vec<Contest<'_>> =
        sets.iter().map(|(name, keys)| Contest::new(name, keys, size)).collect();
    for _ in 0..rounds {
        contests.iter_mut().for_each(Contest::round);
    }
    contests.into_iter().map(Contest::finish)
}
