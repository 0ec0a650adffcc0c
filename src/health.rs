//! Asks a process whether it is well: for health checks of containers, whose images have no HTTP client.

use std::time::Duration;

use clap::Args;
use taskmaster_service::client;
use taskmaster_service::settings::seconds;

#[derive(Debug, Args)]
pub struct HealthArgs {
    /// What to ask: /readyz says whether the process can do its work, /livez whether it runs
    #[arg(default_value = "http://127.0.0.1:8081/readyz", value_name = "URL")]
    url: String,
    /// Longest wait for the answer
    #[arg(long, default_value = "2", value_parser = seconds, value_name = "SECONDS")]
    timeout: Duration,
}

/// Asks. The answer's body says what is missing.
///
/// # Errors
/// One line: there is no answer, or it is not 200.
#[allow(clippy::print_stdout, reason = "the answer is what the command is for")]
pub async fn run(args: &HealthArgs) -> Result<(), String> {
    let client = client::build(args.timeout).map_err(|error| error.to_string())?;
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
