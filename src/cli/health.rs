//! `omendb health`.

use std::time::Duration;

use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::{Failure, Target, client};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let check = async {
        let channel = client::channel(&args.target.url).await?;
        let request = HealthCheckRequest { service: String::new() };
        let response = HealthClient::new(channel).check(request).await.map_err(client::failure)?;
        Ok::<_, Failure>(response.into_inner().status())
    };
    let status = tokio::time::timeout(Duration::from_secs(5), check)
        .await
        .map_err(|_| format!("{} does not answer", args.target.url))??;
    match status {
        ServingStatus::Serving => {
            println!("ready");
            Ok(())
        }
        _ => Err("the server is not ready".into()),
    }
}
