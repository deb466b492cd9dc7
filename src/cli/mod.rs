//! The command line: a server, and clients that speak to one through Arrow Flight SQL.

mod client;
mod demo;
mod health;
mod load;
mod serve;
mod shell;

use std::error::Error;
use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{Given, LogFormat};

/// What a command fails with: its message is all that the user sees.
type Failure = Box<dyn Error + Send + Sync>;

/// An ordered database with learned indexes that speaks Arrow Flight SQL.
#[derive(Debug, Parser)]
#[command(name = "omendb", version, about, arg_required_else_help = true)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the server
    Serve(Box<serve::Args>),
    /// Loads a Parquet, CSV or Arrow file into a table
    Load(load::Args),
    /// Runs SQL: a shell, or the text given with -c
    Sql(shell::Args),
    /// Shows what it can do: loads a few million rows into a temporary database and queries them
    Demo(demo::Args),
    /// Says whether a server is ready; the exit code is 0 if it is
    Health(health::Args),
}

/// The URL of the server that a client command speaks to.
#[derive(Debug, clap::Args)]
struct Target {
    /// Where the server is
    #[arg(long, env = "OMENDB_URL", default_value = "grpc://127.0.0.1:50051")]
    url: String,
}

/// Runs the program.
pub fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("omendb: cannot start threads: {e}");
            return ExitCode::FAILURE;
        }
    };
    let result = match args.command {
        Command::Serve(args) => runtime.block_on(serve::run(*args)),
        Command::Load(args) => runtime.block_on(load::run(args)),
        Command::Sql(args) => shell::run(&runtime, &args),
        Command::Demo(args) => runtime.block_on(demo::run(args)),
        Command::Health(args) => runtime.block_on(health::run(args)),
    };
    // Calls that were cut off may still hold threads; they must not hold the process.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("omendb: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Sends log lines to stderr: stdout belongs to the program's output.
fn init_logging(filter: &str, format: LogFormat) -> Result<(), Failure> {
    let filter = tracing_subscriber::EnvFilter::try_new(filter)
        .map_err(|e| format!("the log filter \"{filter}\" is malformed: {e}"))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Text => builder.with_target(false).init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}

/// The settings of the file and those given otherwise, these first.
fn layers(given: Given, file: Option<&std::path::Path>) -> Result<Vec<Given>, Failure> {
    let mut layers = vec![given];
    if let Some(path) = file {
        layers.push(Given::read(path)?);
    }
    Ok(layers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn arguments_are_well_formed() {
        Args::command().debug_assert();
    }
}
