//! Log lines: one subscriber for the process.

use std::io::IsTerminal;

use clap::ValueEnum;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Settings of the logs, listed after those of each command.
#[derive(Debug, Clone, clap::Args)]
pub struct LogArgs {
    /// What to log: error, warn, info, debug, trace, or directives such as `info,taskmaster_coordinator=debug`
    #[arg(
        long,
        env = "TASKMASTER_LOG",
        default_value = "info",
        global = true,
        display_order = 900,
        value_name = "FILTER"
    )]
    pub log: String,
    /// How log lines look
    #[arg(
        long,
        env = "TASKMASTER_LOG_FORMAT",
        default_value = "text",
        global = true,
        display_order = 901,
        value_name = "FORMAT"
    )]
    pub log_format: LogFormat,
}

/// Sends log lines to standard error. To be called once.
///
/// # Errors
/// Says what is wrong with the filter.
pub fn init(args: &LogArgs) -> Result<(), String> {
    // sqlx logs every slow statement with its text; its warnings are enough. Of a certificate that is not believed the request's error says
    // the same.
    let filter: Targets = format!("{},sqlx=warn,hyper=warn,reqwest=warn,rustls_platform_verifier=off", args.log)
        .parse()
        .map_err(|error| format!("--log: {error}"))?;
    let (filtered, lines) = (tracing_subscriber::registry().with(filter), layer().with_writer(std::io::stderr));
    let result = match args.log_format {
        LogFormat::Text => {
            filtered.with(lines.with_target(false).with_ansi(std::io::stderr().is_terminal())).try_init()
        }
        LogFormat::Json => filtered.with(lines.json().flatten_event(true)).try_init(),
    };
    result.map_err(|error| error.to_string())
}
