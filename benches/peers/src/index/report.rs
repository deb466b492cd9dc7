//! The tables, as a page of the documentation.

use std::fmt::Write as _;
use std::io;

use super::measure::{Figures, Measured};
use crate::args::Args;
use crate::machine;

const HEAD: &str = "\
# Figures of the learned index

Written by `benches/peers/run index`; [benchmarks.md](../benchmarks.md#learned-index) says what they mean, and
[learned-index.md](../learned-index.md#key-sets-of-the-benchmark) what the sets are.

";

const CONTENDERS: &str = "\
Every contender answers the position of the first key not below the one asked for; answers were compared with binary search before
anything was timed. \"Single\" lookups are independent of each other, \"dependent\" ones wait for the one before; batches have 1,024
keys. OmenDB and the S+-tree search batches together, the others one key after the other. Absent keys lie between neighbours; sets
that have no such room have no figures. Times are nanoseconds a lookup, medians of short pieces of turns that all contenders took
one after the other, each on keys of its own, in rounds that went from set to set. The index was trained once more in each round,
the others built three times. Everything was compiled for this processor. brie-tree has no room for 100 million keys.

";

/// What a table shows of a contender.
type Pick = fn(&Figures) -> Option<f64>;

pub fn write(
    args: &Args,
    all: &[Measured],
    absent: &[String],
    rounds: usize,
    load: &str,
) -> io::Result<()> {
    let mut page = String::from(HEAD);
    let _ = writeln!(page, "{}; load average {load}; {rounds} rounds.\n", machine::describe());
    page.push_str(CONTENDERS);
    if !absent.is_empty() {
        let _ = writeln!(
            page,
            "Left out, because their files were not there: {}.\n",
            absent.join("; ")
        );
    }
    page.push_str("![latency by number of keys](../charts/index-latency.svg)\n");
    let mut sizes: Vec<usize> = all.iter().map(|m| m.size).filter(|s| *s >= 1_000_000).collect();
    sizes.sort_unstable();
    sizes.dedup();
    for size in sizes {
        let of: Vec<&Measured> = all.iter().filter(|m| m.size == size).collect();
        section(&mut page, &format!("{} million keys", size / 1_000_000), &of);
    }
    let real: Vec<&Measured> = all.iter().filter(|m| m.size == 0).collect();
    if !real.is_empty() {
        section(&mut page, "Real keys", &real);
    }
    let dir = args.docs.join("benchmarks");
    std::fs::create_dir_all(&dir)?;
    std::fs::write(dir.join("index.md"), page)
}

fn section(page: &mut String, title: &str, of: &[&Measured]) {
    let _ = writeln!(page, "\n## {title}");
    let modes: [(&str, Pick); 5] = [
        ("single, ns", |c| c.times[0]),
        ("dependent, ns", |c| c.times[1]),
        ("batched, ns", |c| c.times[2]),
        ("absent, single, ns", |c| c.times[3]),
        ("absent, batched, ns", |c| c.times[4]),
    ];
    for (label, pick) in modes {
        times(page, label, of, pick);
    }
    model(page, of);
    let costs: [(&str, Pick); 2] =
        [("built, ns/key", |c| Some(c.build)), ("held, bytes/key", |c| Some(c.bytes))];
    for (label, pick) in costs {
        header(page, label, of, "");
        for m in of {
            let cells: Vec<String> =
                m.contenders.iter().map(|c| cell(pick(c), c.name == "OmenDB")).collect();
            let _ = writeln!(page, "| {} | {} |", m.set, cells.join(" | "));
        }
    }
}

/// The heading of a table with a column for each contender.
fn header(page: &mut String, label: &str, of: &[&Measured], more: &str) {
    let names: Vec<&str> =
        of.first().map_or(Vec::new(), |m| m.contenders.iter().map(|c| c.name).collect());
    let _ = writeln!(page, "\n| {label} | {} |{more}", names.join(" | "));
    let columns = names.len() + 1 + more.matches('|').count();
    let _ = writeln!(page, "{}|", "|---".repeat(columns));
}

fn times(page: &mut String, label: &str, of: &[&Measured], pick: Pick) {
    if of.iter().all(|m| m.contenders.iter().all(|c| pick(c).is_none())) {
        return;
    }
    header(page, label, of, " vs `BTreeMap` | vs binary search | vs best other |");
    for m in of {
        let own = pick(&m.contenders[0]);
        let ratio = |other: Option<f64>| match (own, other) {
            (Some(own), Some(other)) => format!("{:.1}x", other / own),
            _ => "–".to_owned(),
        };
        let of = |name: &str| m.contenders.iter().find(|c| c.name == name).and_then(pick);
        let best = m.contenders[1..].iter().filter_map(pick).min_by(f64::total_cmp);
        let cells: Vec<String> =
            m.contenders.iter().map(|c| cell(pick(c), c.name == "OmenDB")).collect();
        let _ = writeln!(
            page,
            "| {} | {} | {} | {} | {} |",
            m.set,
            cells.join(" | "),
            ratio(of("BTreeMap")),
            ratio(of("binary search")),
            ratio(best)
        );
    }
}

fn model(page: &mut String, of: &[&Measured]) {
    page.push_str("\n| model | keys | leaves | model, bytes/key | keys, bytes/key | error, mean rows | error, largest |\n");
    let _ = writeln!(page, "{}|", "|---".repeat(7));
    for m in of {
        let rows = m.rows as f64;
        let _ = writeln!(
            page,
            "| {} | {} | {} | {:.3} | {:.2} | {:.1} | {} |",
            m.set,
            m.rows,
            m.stats.leaf_count,
            m.stats.model_bytes as f64 / rows,
            m.stats.key_bytes as f64 / rows,
            m.stats.mean_error,
            m.stats.max_error
        );
    }
}

fn cell(value: Option<f64>, strong: bool) -> String {
    let text = match value {
        None => return "–".to_owned(),
        Some(v) if v >= 99.95 => format!("{v:.0}"),
        Some(v) if v >= 9.995 => format!("{v:.1}"),
        Some(v) => format!("{v:.2}"),
    };
    if strong { format!("**{text}**") } else { text }
}
