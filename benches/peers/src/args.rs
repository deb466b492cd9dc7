//! Arguments that the benches share.

use std::path::PathBuf;

pub struct Args {
    /// Numbers of keys or rows; empty for the bench's own.
    pub sizes: Vec<usize>,
    /// Names of sets; empty for all.
    pub sets: Vec<String>,
    pub rounds: Option<usize>,
    /// Where tables and charts go.
    pub docs: PathBuf,
}

impl Args {
    pub fn parse(mut words: impl Iterator<Item = String>) -> Self {
        let docs = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs"));
        let mut args = Self { sizes: Vec::new(), sets: Vec::new(), rounds: None, docs };
        let number = |text: &str| text.parse().unwrap_or_else(|_| panic!("{text} is no number"));
        while let Some(word) = words.next() {
            let value = words.next().unwrap_or_else(|| panic!("{word} needs a value"));
            match word.as_str() {
                "--sizes" => args.sizes = value.split(',').map(number).collect(),
                "--sets" => args.sets = value.split(',').map(str::to_owned).collect(),
                "--rounds" => args.rounds = Some(number(&value)),
                "--docs" => args.docs = PathBuf::from(value),
                _ => panic!("unknown argument {word}"),
            }
        }
        args
    }

    pub fn wants(&self, set: &str) -> bool {
        self.sets.is_empty() || self.sets.iter().any(|name| name == set)
    }
}
