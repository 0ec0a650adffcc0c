//! The words of the command line. Every flag of a process is an environment variable as well.

use std::ffi::{OsStr, OsString};
use std::time::Duration;

use clap::{Arg, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use sqlx::postgres::PgConnectOptions;
use taskmaster_service::Secret;
use taskmaster_service::logging::LogArgs;
use taskmaster_store::{DatabaseArgs, Store};

use crate::{bench, conformance, documents, health, keys, up};

/// A distributed task scheduler over plain HTTP: commands and HTTP requests, now, later or after a delay, kept in PostgreSQL, run
/// by workers, each recorded with exactly one outcome.
#[derive(Debug, Parser)]
#[command(name = "taskmaster", version, arg_required_else_help = true, max_term_width = 110, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    #[command(flatten)]
    pub log: LogArgs,
}

const EXAMPLES: &str = "Start with `taskmaster up`. It needs nothing else, and prints what to try.";

const UP_NOTES: &str = "Only this machine can reach the API, and web pages cannot; so its workers run commands, and HTTP tasks may call \
    loopback addresses. The environment variables of gateway, coordinator and worker hold here as well, but for those of TLS: see their --help.";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run everything in this process, on a private PostgreSQL: gateway, coordinator and workers
    #[command(after_help = UP_NOTES)]
    Up(up::UpArgs),
    /// Run a gateway: the public API
    Gateway(GatewayArgs),
    /// Run a coordinator: it claims due tasks for workers, and records what came of them
    Coordinator(CoordinatorArgs),
    /// Run a worker: it runs tasks, and never touches the database
    Worker(Box<taskmaster_worker::Config>),
    /// Bring the database's schema up to date, then end
    Migrate(StoreArgs),
    /// Make, list, rotate and revoke API keys
    Keys(keys::KeysArgs),
    /// Print an OpenAPI document, or write all that is generated from the contracts
    Openapi(documents::OpenapiArgs),
    /// Measure: create tasks through the public API, wait until all are recorded, print rates and percentiles
    Bench(Box<bench::BenchArgs>),
    /// Test whether a worker, in whatever language, keeps the contract: docs/workers.md
    Conformance(conformance::ConformanceArgs),
    /// Ask a process whether it is well: ends with 0 if so, with 1 if not
    Health(health::HealthArgs),
    /// Watches over the commands of a worker, and ends them when the worker dies
    #[command(name = taskmaster_worker::GUARD_SUBCOMMAND, hide = true)]
    CommandGuard,
}

/// Where the database is.
#[derive(Debug, Clone, Args)]
pub struct StoreArgs {
    /// PostgreSQL 15 or newer: postgres://user:password@host:port/database
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    pub database_url: Secret,
    #[command(flatten)]
    pub pool: DatabaseArgs,
}

impl StoreArgs {
    /// How to connect.
    ///
    /// # Errors
    /// One line, without the URL, which has a password in it.
    pub fn connect_options(&self) -> Result<PgConnectOptions, String> {
        self.database_url.expose().parse().map_err(|error| {
            format!("--database-url (DATABASE_URL) is not a URL such as postgres://user:password@host:5432/database: {error}")
        })
    }
}

/// A replica that the gateway reads from.
#[derive(Debug, Clone, Args)]
pub struct ReplicaArgs {
    /// A standby server that follows the database: what users look at is read from it where it is current enough
    #[arg(long, env = "DATABASE_READ_URL", hide_env_values = true, value_name = "URL")]
    pub database_read_url: Option<Secret>,
    /// Lists, workers and figures are read from the standby while it is behind by no more than so many seconds
    #[arg(long, env = "TASKMASTER_DATABASE_READ_LAG_SECONDS", default_value_t = 5, value_name = "SECONDS",
        value_parser = clap::value_parser!(u32).range(1..=taskmaster_store::replica::AGE_SECONDS_MAX))]
    pub database_read_lag_seconds: u32,
}

impl ReplicaArgs {
    /// The store, with the replica if there is one.
    ///
    /// # Errors
    /// One line, without the URL, which has a password in it.
    pub fn added_to(&self, store: Store, pool: &DatabaseArgs) -> Result<Store, String> {
        let Some(url) = &self.database_read_url else { return Ok(store) };
        let options = url.expose().parse().map_err(|error| {
            format!("--database-read-url (DATABASE_READ_URL) is not a URL such as postgres://user:password@host:5432/database: {error}")
        })?;
        Ok(store.with_replica(options, pool, Duration::from_secs(self.database_read_lag_seconds.into())))
    }
}

/// A gateway alone.
#[derive(Debug, Args)]
pub struct GatewayArgs {
    #[command(flatten)]
    pub store: StoreArgs,
    #[command(flatten)]
    pub replica: ReplicaArgs,
    #[command(flatten)]
    pub gateway: taskmaster_gateway::Config,
    /// Bring the database's schema up to date at the start
    #[arg(long, env = "TASKMASTER_MIGRATE", value_parser = clap::builder::FalseyValueParser::new(),
        action = clap::ArgAction::SetTrue)]
    pub migrate: bool,
}

/// A coordinator alone.
#[derive(Debug, Args)]
pub struct CoordinatorArgs {
    #[command(flatten)]
    pub store: StoreArgs,
    #[command(flatten)]
    pub coordinator: taskmaster_coordinator::Config,
    /// Bring the database's schema up to date at the start
    #[arg(long, env = "TASKMASTER_MIGRATE", value_parser = clap::builder::FalseyValueParser::new(),
        action = clap::ArgAction::SetTrue)]
    pub migrate: bool,
}

/// The command line and the environment variables of this process. Ends the process where they are wrong, or ask for help.
pub fn parse() -> Cli {
    let matches = without_blank_variables(Cli::command(), &variable).get_matches();
    Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

fn variable(name: &OsStr) -> Option<OsString> {
    std::env::var_os(name)
}

/// An environment file may set a variable to nothing: that counts as not set.
fn without_blank_variables(command: clap::Command, variable: &dyn Fn(&OsStr) -> Option<OsString>) -> clap::Command {
    let is_blank = |arg: &Arg| {
        let value = arg.get_env().and_then(variable);
        value.is_some_and(|value| value.to_str().is_some_and(|value| value.trim().is_empty()))
    };
    command
        .mut_args(|arg| if is_blank(&arg) { arg.env(None::<&str>) } else { arg })
        .mut_subcommands(|subcommand| without_blank_variables(subcommand, variable))
}

/// The settings of one process as its environment variables have them, for processes that have no command line of their own.
///
/// # Errors
/// Says which variable is wrong.
pub fn from_environment<T: Args>(arguments: &[&str]) -> Result<T, String> {
    let command = without_blank_variables(T::augment_args(clap::Command::new("taskmaster")), &variable);
    let matches = command
        .try_get_matches_from(std::iter::once(&"taskmaster").chain(arguments))
        .map_err(|error| error.to_string().lines().next().unwrap_or_default().to_owned())?;
    T::from_arg_matches(&matches).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_variable_that_is_set_to_nothing_is_as_good_as_not_set() {
        let blank = |name: &OsStr| (name.to_str() != Some("TASKMASTER_SLOTS")).then(|| OsString::from(" "));
        let cli = without_blank_variables(Cli::command(), &blank);
        let worker = cli.find_subcommand("worker").unwrap();
        let with_variable: Vec<_> = worker.get_arguments().filter_map(|arg| arg.get_env()).collect();
        assert_eq!(with_variable, ["TASKMASTER_SLOTS"]);
    }

    #[test]
    fn every_flag_of_a_process_has_a_help_text_and_an_environment_variable() {
        let cli = Cli::command();
        for name in ["gateway", "coordinator", "worker", "migrate"] {
            let command = cli.find_subcommand(name).unwrap();
            for arg in command.get_arguments().filter(|arg| !["help", "version"].contains(&arg.get_id().as_str())) {
                assert!(arg.get_help().is_some(), "{name} --{} has no help", arg.get_id());
                assert!(arg.get_env().is_some(), "{name} --{} has no environment variable", arg.get_id());
            }
        }
    }
}
