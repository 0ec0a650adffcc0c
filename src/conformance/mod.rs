//! `taskmaster conformance`: whether a worker, in whatever language, keeps the contract. A stand-in plays the coordinator and what HTTP
//! tasks call; every claim has a stand-in and a worker of its own.

mod claims;
mod stage;
mod standin;

use std::io::Write;
use std::time::Duration;

use clap::Args;
use futures::StreamExt;
use taskmaster_service::Shutdown;
use taskmaster_service::settings::seconds;

use claims::{CLAIMS, Claim, Verdict};
use stage::Stage;

/// What to test, and how patiently.
#[derive(Debug, Args)]
#[command(after_help = NOTES)]
pub struct ConformanceArgs {
    /// The program and arguments that start the worker. `{coordinator}` and `{join_token}` in them are replaced
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    pub worker_command: Vec<String>,
    /// Only claims whose names contain this
    #[arg(long, value_name = "WORDS")]
    pub only: Option<String>,
    /// Claims that are tested at once
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=32))]
    pub jobs: u8,
    /// How long anything may take before its claim does not hold, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "20", value_parser = seconds)]
    pub patience_seconds: Duration,
    /// Show what the workers write
    #[arg(long)]
    pub output: bool,
}

const NOTES: &str = "For example: taskmaster conformance -- python3 worker.py --coordinator {coordinator} --join-token {join_token}\n\n\
    The worker also finds them as TASKMASTER_COORDINATOR_URL and TASKMASTER_JOIN_TOKEN. It must run HTTP tasks that call 127.0.0.1, and \
    is asked to drain by SIGTERM. docs/workers.md says what each claim is about.";

/// Tests every claim that was asked for, and prints what came of each.
///
/// # Errors
/// When a claim does not hold, none has such a name, or standard output is closed.
pub async fn run(args: ConformanceArgs, shutdown: Shutdown) -> Result<(), String> {
    let only = args.only.clone().unwrap_or_default();
    let asked: Vec<&Claim> = CLAIMS.iter().filter(|claim| claim.name.contains(&only)).collect();
    if asked.is_empty() {
        return Err(format!("no claim has `{only}` in its name"));
    }
    let (mut held, mut failed, mut skipped) = (0, 0, 0);
    let args = &args;
    let tested = asked.into_iter().map(|claim| async move { (claim.name, test(claim, args).await) });
    let mut tested = std::pin::pin!(futures::stream::iter(tested).buffered(args.jobs.into()));
    while let Some(next) = shutdown.or_stop(tested.next()).await {
        let Some((name, verdict)) = next else { break };
        match verdict {
            Ok(Verdict::Holds) => {
                held += 1;
                say(&format!("ok    {name}"))?;
            }
            Ok(Verdict::DoesNotApply(why)) => {
                skipped += 1;
                say(&format!("skip  {name}: {why}"))?;
            }
            Err(why) => {
                failed += 1;
                say(&format!("FAIL  {name}\n      {why}"))?;
            }
        }
    }
    say(&format!("{held} claims hold, {failed} do not, {skipped} do not apply"))?;
    match failed {
        _ if shutdown.is_requested() => Err("stopped before the end".into()),
        0 => Ok(()),
        _ => Err("the worker does not keep the contract".into()),
    }
}

/// Tests one claim with a worker of its own.
async fn test(claim: &Claim, args: &ConformanceArgs) -> Result<Verdict, String> {
    let mut stage = Stage::set(&args.worker_command, args.patience_seconds, args.output).await?;
    let verdict = (claim.test)(&mut stage).await;
    // What broke the shape of the contract says more than what came of it.
    stage.standin.check()?;
    verdict
}

fn say(line: &str) -> Result<(), String> {
    writeln!(std::io::stdout(), "{line}").map_err(|error| format!("cannot write: {error}"))
}
