//! OmenDB beside its peers. `benches/peers/run` fetches real keys, builds this and passes arguments on.
//!
//! ```text
//! run index [--sizes 1000000,10000000] [--sets fb,osm] [--rounds 9] [--docs DIR]
//! run text [--sizes 1000000] [--sets words,uuids] [--rounds 5] [--docs DIR]
//! run database [--sizes 10000000] [--sets OmenDB,SQLite] [--rounds 5] [--docs DIR]
//! ```
//!
//! Answers are compared before anything is timed. Contenders take turns within one run, and medians of short
//! pieces are taken, so that a noisy machine disturbs all of them alike. Tables and charts go to the
//! documentation, or where `--docs` says.

mod args;
mod chart;
mod contenders;
mod database;
mod index;
mod machine;
mod real;
mod sets;
mod static_tree;
mod text;

fn main() {
    let mut words = std::env::args().skip(1);
    match words.next().as_deref() {
        Some("index") => index::run(&args::Args::parse(words)),
        Some("text") => text::run(&args::Args::parse(words)),
        Some("database") => database::run(&args::Args::parse(words)),
        _ => {
            eprintln!(
                "usage: index|text|database [--sizes N,..] [--sets NAME,..] [--rounds N] [--docs DIR]"
            );
            std::process::exit(2);
        }
    }
}
