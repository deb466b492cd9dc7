//! The `omendb` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    omendb::cli::main()
}
