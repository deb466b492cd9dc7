//! `omendb serve`.

use std::io::Write;
use std::path::PathBuf;

use super::{Failure, init_logging, layers};
use crate::config::{Given, Settings, check_environment};
use crate::server::{Server, log_panics, signalled};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    given: Given,
    /// Configuration file (TOML); flags and OMENDB_* variables come before it
    #[arg(long, env = "OMENDB_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Prints the settings that would be used, as a configuration file, and ends
    #[arg(long)]
    print_config: bool,
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    check_environment()?;
    let settings = Settings::resolve(&layers(args.given, args.config.as_deref())?);
    if args.print_config {
        print!("{}", toml::to_string(&settings)?);
        return Ok(());
    }
    init_logging(&settings.log, settings.log_format)?;
    log_panics();
    // Before the database is opened: a signal that comes while it recovers is not lost.
    let shutdown = tokio::spawn(signalled());
    let data_dir = settings.data_dir.clone();
    let insecure = settings.insecure;
    let server = Server::open(settings).await?;
    let address = server.address();
    if insecure && !address.ip().is_loopback() {
        tracing::warn!("anyone who reaches {address} can read and change everything (--insecure)");
    }
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "OmenDB {} listens on grpc://{address}, data in {}\nTry: omendb sql --url grpc://{address} -c \"SELECT 1\"",
        env!("CARGO_PKG_VERSION"),
        data_dir.display()
    )?;
    out.flush()?;
    drop(out);
    server
        .run(async {
            let _ = shutdown.await;
        })
        .await?;
    Ok(())
}
