//! The learned index beside trees, binary search and other learned indexes.

mod charts;
mod measure;
mod report;

use crate::args::Args;
use crate::machine;
use crate::real::REAL;
use crate::sets::SETS;
use measure::Measured;
pub use measure::{built, median};

/// Sizes of the tables.
const SIZES: [usize; 3] = [1_000_000, 10_000_000, 100_000_000];
/// Sizes that the chart of latencies has besides.
const CHART_SIZES: [usize; 2] = [10_000, 100_000];
/// From this size on only the sets of the chart are measured: others take too long to make and to search.
const LARGE: usize = 50_000_000;
/// Sets of the chart: ordered, smooth, and two that are hard.
const CHART_SETS: [&str; 5] = ["sequential", "jittered", "uniform", "osm", "fb"];

pub fn run(args: &Args) {
    let rounds = args.rounds.unwrap_or(3);
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
        for set in SETS {
            if args.wants(set.name) && (!few || CHART_SETS.contains(&set.name)) {
                all.push(measure::measure(set.name, &(set.make)(size), size, rounds));
            }
        }
    }
    for set in REAL.iter().filter(|set| args.wants(set.name)) {
        match set.keys() {
            Ok(keys) => all.push(measure::measure(set.name, &keys, 0, rounds)),
            Err(why) => {
                eprintln!("{} is left out: {why}", set.name);
                absent.push(format!("{} ({why})", set.name));
            }
        }
    }
    let load = format!("{before} at the beginning and {} at the end", machine::load());
    let written = report::write(args, &all, &absent, rounds, &load)
        .and_then(|()| charts::write(&args.docs.join("charts"), &all));
    written.unwrap_or_else(|e| panic!("{}: {e}", args.docs.display()));
}
