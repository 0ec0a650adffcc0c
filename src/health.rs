//! Asks a process whether it is well: for health checks of containers, whose images have no HTTP client.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use clap::Args;
use taskmaster_service::TrustArgs;
use taskmaster_service::settings::seconds;

#[derive(Debug, Args)]
pub struct HealthArgs {
    /// What to ask: /readyz says whether the process can do its work, /livez whether it runs
    #[arg(default_value = "http://127.0.0.1:8081/readyz", value_name = "URL")]
    url: String,
    /// Longest wait for the answer
    #[arg(long, default_value = "2", value_parser = seconds, value_name = "SECONDS")]
    timeout: Duration,
    /// Connect to this address, whatever the URL's name leads to: for a gateway with TLS, whose certificate has a name that leads
    /// elsewhere from here
    #[arg(long, value_name = "IP")]
    address: Option<IpAddr>,
    #[command(flatten)]
    trust: TrustArgs,
}

/// Asks. The answer's body says what is missing.
///
/// # Errors
/// One line: there is no answer, or it is not 200.
#[allow(clippy::print_stdout, reason = "the answer is what the command is for")]
pub async fn run(args: &HealthArgs) -> Result<(), String> {
    let mut client = args.trust.builder(args.timeout).map_err(|error| error.to_string())?;
    if let Some(address) = args.address {
        let url: reqwest::Url = args.url.parse().map_err(|error| format!("{} is no URL: {error}", args.url))?;
        client = client.resolve(url.host_str().unwrap_or_default(), SocketAddr::new(address, 0));
    }
    let client = client.build().map_err(|error| error.to_string())?;
    let answer = client.get(&args.url).send().await.map_err(|error| format!("{}: {}", args.url, root_cause(&error)))?;
    let status = answer.status();
    let body = answer.text().await.unwrap_or_default();
    match status.is_success() {
        true => {
            println!("{}", body.trim_end());
            Ok(())
        }
        false => Err(format!("{} answered {status}: {}", args.url, body.trim_end())),
    }
}

/// The innermost error: the others only say that a request failed.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
