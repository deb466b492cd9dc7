//! Settings of a server: flag, then `OMENDB_*` environment variable, then configuration file, then default.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{engine, flight, machine, sql};

/// A number of bytes, written as `1GiB`, `64MiB` or plain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes(pub u64);

const UNITS: [(&str, u64); 7] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
];

impl FromStr for Bytes {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let s = s.trim();
        let digits = s.find(|c: char| !c.is_ascii_digit()).unwrap_or(s.len());
        let (number, unit) = s.split_at(digits);
        let unit = unit.trim();
        let factor = if unit.is_empty() || unit.eq_ignore_ascii_case("B") {
            Some(1)
        } else {
            UNITS.iter().find(|(name, _)| unit.eq_ignore_ascii_case(name)).map(|(_, f)| *f)
        };
        number
            .parse::<u64>()
            .ok()
            .zip(factor)
            .and_then(|(n, factor)| n.checked_mul(factor))
            .map(Self)
            .ok_or_else(|| format!("\"{s}\" is not a size; write it like 512MiB or 1GiB"))
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, factor) in UNITS[..4].iter().rev() {
            if self.0 >= *factor && self.0.is_multiple_of(*factor) {
                return write!(f, "{}{name}", self.0 / factor);
            }
        }
        write!(f, "{}", self.0)
    }
}

/// A time, written as `500ms`, `30s`, `5m` or `1h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time(pub Duration);

impl FromStr for Time {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let s = s.trim();
        let digits = s.find(|c: char| !c.is_ascii_digit()).unwrap_or(s.len());
        let (number, unit) = s.split_at(digits);
        let millis = match unit.trim() {
            "ms" => Some(1),
            "s" => Some(1_000),
            "m" | "min" => Some(60_000),
            "h" => Some(3_600_000),
            _ => None,
        };
        number
            .parse::<u64>()
            .ok()
            .zip(millis)
            .and_then(|(n, millis)| n.checked_mul(millis))
            .map(|millis| Self(Duration::from_millis(millis)))
            .ok_or_else(|| format!("\"{s}\" is not a time; write it like 500ms, 30s, 5m or 1h"))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_millis() {
            ms if ms.is_multiple_of(1000) => write!(f, "{}s", ms / 1000),
            ms => write!(f, "{ms}ms"),
        }
    }
}

macro_rules! serde_as_text {
    ($($name:ident),*) => {$(
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                #[derive(Deserialize)]
                #[serde(untagged)]
                enum Value {
                    Text(String),
                    Number(u64),
                }
                let text = match Value::deserialize(d)? {
                    Value::Text(text) => text,
                    Value::Number(number) => number.to_string(),
                };
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

serde_as_text!(Bytes, Time);

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

macro_rules! settings {
    ($($(#[$doc:meta])* $name:ident, $env:literal, $value:literal: $type:ty = $default:expr;)*) => {
        /// Settings that were given in one place: on the command line and in the environment, or in a file.
        #[derive(Debug, Clone, Default, clap::Args, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct Given {
            $(
                $(#[$doc])*
                #[arg(long, env = $env, value_name = $value)]
                pub $name: Option<$type>,
            )*
            /// Listens on other than loopback addresses without users or passwords. Whoever reaches the
            /// port can then read, change and drop everything.
            #[arg(long, env = "OMENDB_INSECURE", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
            pub insecure: Option<bool>,
        }

        /// Settings of a server, each with a value.
        #[derive(Debug, Clone, Serialize)]
        pub struct Settings {
            $($(#[$doc])* pub $name: $type,)*
            /// Listens on other than loopback addresses without users or passwords.
            pub insecure: bool,
        }

        impl Settings {
            /// The first value given for each setting, else its default.
            pub fn resolve(given: &[Given]) -> Self {
                Self {
                    $($name: given.iter().find_map(|g| g.$name.clone()).unwrap_or_else(|| $default),)*
                    insecure: given.iter().find_map(|g| g.insecure).unwrap_or(false),
                }
            }
        }

        const VARIABLES: &[&str] = &[$($env,)* "OMENDB_INSECURE"];
    };
}

settings! {
    /// Directory of the database; made if missing
    data_dir, "OMENDB_DATA_DIR", "DIR": PathBuf = PathBuf::from("omendb-data");
    /// Address to listen on; port 0 takes a free one
    listen, "OMENDB_LISTEN", "HOST:PORT": String = "127.0.0.1:50051".to_owned();
    /// Memory to work with: half for the cache, a quarter for queries, the rest for loads, recent writes and connections;
    /// by default half of what the machine or control group has
    memory, "OMENDB_MEMORY", "BYTES": Bytes = machine::half_of_memory();
    /// What to log: error, warn, info, debug, trace, or a filter like "info,omendb=debug"
    log, "OMENDB_LOG", "FILTER": String = "info".to_owned();
    /// How log lines on stderr look
    log_format, "OMENDB_LOG_FORMAT", "FORMAT": LogFormat = LogFormat::Text;
    /// Bytes of one incoming message at most
    max_message, "OMENDB_MAX_MESSAGE", "BYTES": Bytes = Bytes(64 << 20);
    /// Connections at most; more wait to be accepted
    max_connections, "OMENDB_MAX_CONNECTIONS", "COUNT": usize = 1024;
    /// Calls that are open at once, at most, results that are being read included; more are refused
    max_calls, "OMENDB_MAX_CALLS", "COUNT": usize = 4096;
    /// Statements that run at once, at most; more wait
    max_statements, "OMENDB_MAX_STATEMENTS", "COUNT": usize = 256;
    /// Bulk loads at once, at most; more wait
    max_loads, "OMENDB_MAX_LOADS", "COUNT": usize = 16;
    /// How long what finds no place or no memory waits for it before it is refused
    queue_timeout, "OMENDB_QUEUE_TIMEOUT", "TIME": Time = Time(Duration::from_secs(30));
    /// A session that is idle for longer is closed
    session_idle, "OMENDB_SESSION_IDLE", "TIME": Time = Time(Duration::from_secs(3600));
    /// A transaction that is idle for longer is rolled back
    transaction_idle, "OMENDB_TRANSACTION_IDLE", "TIME": Time = Time(Duration::from_secs(1800));
    /// How long rows of RETURNING, and what a query in a transaction reads, wait for the client to fetch them
    result_lease, "OMENDB_RESULT_LEASE", "TIME": Time = Time(Duration::from_secs(60));
    /// Bytes of one SQL text at most
    max_sql, "OMENDB_MAX_SQL", "BYTES": Bytes = Bytes(1 << 20);
    /// Time that planning one statement may take
    planning_timeout, "OMENDB_PLANNING_TIMEOUT", "TIME": Time = Time(Duration::from_secs(10));
    /// Bytes of one value that a function such as repeat makes, at most
    max_value, "OMENDB_MAX_VALUE", "BYTES": Bytes = Bytes(64 << 20);
    /// How long running calls may go on after SIGTERM
    shutdown_grace, "OMENDB_SHUTDOWN_GRACE", "TIME": Time = Time(Duration::from_secs(30));
}

/// Variables that other commands read.
const OTHER_VARIABLES: &[&str] = &["OMENDB_CONFIG", "OMENDB_URL"];

impl Given {
    /// Reads a configuration file.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path)
            .map_err(|e| format!("cannot read the configuration file {}: {e}", path.display()))?;
        toml::from_str(&text).map_err(|e| format!("configuration file {}: {e}", path.display()))
    }
}

/// Refuses `OMENDB_*` variables that mean nothing: most are misspelt.
pub fn check_environment() -> Result<(), String> {
    for (name, _) in std::env::vars_os() {
        let Some(name) = name.to_str().filter(|n| n.starts_with("OMENDB_")) else { continue };
        if name == "OMENDB_PASSWORD" || name == "OMENDB_PASSWORD_FILE" {
            return Err(format!(
                "{name} is set, but this version has no users and passwords yet; unset it, and keep to a loopback address"
            ));
        }
        let known = VARIABLES.iter().chain(OTHER_VARIABLES).any(|v| *v == name);
        if !known && !name.starts_with("OMENDB_TEST_") {
            return Err(format!(
                "the environment variable {name} is not a setting; those are {}",
                VARIABLES.join(", ")
            ));
        }
    }
    Ok(())
}

impl Settings {
    fn memory_bytes(&self) -> usize {
        usize::try_from(self.memory.0).unwrap_or(usize::MAX)
    }

    /// What the memory is for.
    fn shares(&self) -> sql::Shares {
        sql::Shares::of(self.memory_bytes())
    }

    /// The engine's options.
    pub fn engine_options(&self) -> engine::Options {
        let shares = self.shares();
        engine::Options {
            cache_bytes: shares.cache,
            load_buffer_bytes: shares.loads,
            memtable_bytes: shares.memtable,
            write_set_bytes: shares.write_sets,
            row_group_bytes: shares.row_group,
            ..engine::Options::default()
        }
    }

    /// The options of SQL. What sorts and joins spill goes below the data directory.
    pub fn sql_options(&self) -> sql::SqlOptions {
        sql::SqlOptions {
            memory: self.shares(),
            max_statements: self.max_statements,
            max_loads: self.max_loads,
            queue_timeout: self.queue_timeout.0,
            max_sql_bytes: usize::try_from(self.max_sql.0).unwrap_or(usize::MAX),
            spill_dir: Some(self.data_dir.join("spill")),
            planning_timeout: self.planning_timeout.0,
            max_value_bytes: usize::try_from(self.max_value.0).unwrap_or(usize::MAX),
        }
    }

    /// The options of the Flight service.
    pub fn flight_options(&self) -> flight::Options {
        let shares = self.shares();
        let max_message = usize::try_from(self.max_message.0).unwrap_or(usize::MAX);
        let max_message = sql::Shares::message(self.memory_bytes(), max_message);
        flight::Options {
            max_message_bytes: max_message,
            // What one may grow to when uncompressed.
            max_decoded_bytes: sql::Shares::message(self.memory_bytes(), 4 * max_message),
            session_idle: self.session_idle.0,
            transaction_idle: self.transaction_idle.0,
            result_lease: self.result_lease.0,
            kept_bytes: shares.kept,
            load_ahead_bytes: shares.memtable,
            ..flight::Options::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_read_and_written() {
        for (text, bytes) in
            [("1GiB", 1 << 30), ("512 mib", 512 << 20), ("10", 10), ("2GB", 2_000_000_000)]
        {
            assert_eq!(text.parse(), Ok(Bytes(bytes)), "{text}");
        }
        assert!("1 parsec".parse::<Bytes>().is_err());
        assert!("99999999999TiB".parse::<Bytes>().is_err());
        assert_eq!(Bytes(3 << 20).to_string(), "3MiB");
        assert_eq!("5m".parse(), Ok(Time(Duration::from_secs(300))));
        assert!("5".parse::<Time>().is_err());
        assert_eq!(Time(Duration::from_millis(1500)).to_string(), "1500ms");
    }

    #[test]
    fn the_first_that_gives_a_setting_wins() {
        let flags = Given { listen: Some("[::1]:1".into()), ..Given::default() };
        let file: Given = toml::from_str("listen = \"[::1]:2\"\nmemory = \"2GiB\"").unwrap();
        let settings = Settings::resolve(&[flags, file]);
        assert_eq!((settings.listen.as_str(), settings.memory), ("[::1]:1", Bytes(2 << 30)));
        assert_eq!(settings.data_dir, Path::new("omendb-data"));
        let printed = toml::to_string(&settings).unwrap();
        let again: Given = toml::from_str(&printed).unwrap();
        assert_eq!(Settings::resolve(&[again]).memory, Bytes(2 << 30));
    }

    #[test]
    fn an_unknown_key_is_an_error() {
        assert!(toml::from_str::<Given>("memroy = \"1GiB\"").is_err());
    }
}
