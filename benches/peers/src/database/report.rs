//! The table, as a page of the documentation.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use super::Figures;
use crate::machine;

const HEAD: &str = "\
# Figures of the engine beside other stores

Written by `benches/peers/run database`; [benchmarks.md](../benchmarks.md#engine) says what they mean.

";

const STORES: &str = "\
Each store holds the same rows, a key and three columns of 8 bytes, in a process with this bench, without SQL where it has none; 1 GiB
of cache each; every commit is synced. SQLite keeps them in a table by integer primary key, with prepared statements, WAL and
`synchronous = FULL`; redb and fjall keep the columns in one value; fjall loads by its ingestion of sorted rows. A point read is a
transaction of its own and takes out all columns; \"1,000 keys at once\" read one state. Answers were compared before anything was
timed. Medians of turns that the stores took one after the other; what follows a restart was measured once. Hot reads are
processor time of the thread that reads, all else is time that passed.

";

pub fn write(
    docs: &Path,
    all: &[Figures],
    rows: usize,
    rounds: usize,
    load: &str,
    forgets: bool,
) -> io::Result<()> {
    let mut page = String::from(HEAD);
    let _ = writeln!(
        page,
        "{}; load average {load}; {rows} rows, {rounds} rounds.\n",
        machine::describe()
    );
    page.push_str(STORES);
    page.push_str(if forgets {
        "\"Cold\" is a store that was opened anew, with the system's cache of files dropped.\n"
    } else {
        "\"Cold\" is a store that was opened anew; the system's cache of files could not be dropped.\n"
    });
    let names: Vec<&str> = all.iter().map(|f| f.name).collect();
    let _ = writeln!(page, "\n| | {} | best other / {} |", names.join(" | "), names[0]);
    let _ = writeln!(page, "{}|", "|---".repeat(names.len() + 2));
    for (i, (what, own)) in all[0].values.iter().enumerate() {
        let cells: Vec<String> = all.iter().map(|f| cell(f.values[i].1)).collect();
        let best = all[1..].iter().map(|f| f.values[i].1).min_by(f64::total_cmp);
        let ratio = best.map_or("–".to_owned(), |best| format!("{:.2}x", best / own));
        let _ = writeln!(page, "| {what} | {} | {ratio} |", cells.join(" | "));
    }
    let dir = docs.join("benchmarks");
    std::fs::create_dir_all(&dir)?;
    std::fs::write(dir.join("database.md"), page)
}

fn cell(value: f64) -> String {
    if value >= 1e6 {
        format!("{:.2} M", value / 1e6)
    } else if value >= 99.95 {
        format!("{value:.0}")
    } else {
        format!("{value:.1}")
    }
}
