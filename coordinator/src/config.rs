//! Settings of a coordinator; the defaults are the reference's.

use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;
use taskmaster_service::Secret;
use taskmaster_service::settings::seconds;

/// Settings of a coordinator.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// Where workers reach this coordinator
    #[arg(
        long = "listen",
        env = "TASKMASTER_COORDINATOR_LISTEN",
        default_value = "127.0.0.1:8080",
        value_name = "ADDRESS"
    )]
    pub listen: SocketAddr,
    /// The URL that workers and gateways are told, when it is not the address of --listen
    #[arg(long = "advertise", env = "TASKMASTER_COORDINATOR_ADVERTISE", value_name = "URL")]
    pub advertise: Option<String>,
    /// What lets a worker in: the same on every coordinator and worker, at least 16 characters
    #[arg(long, env = "TASKMASTER_JOIN_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub join_token: Secret,
    /// Networks that workers may have their addresses in, separated by commas
    #[arg(
        long,
        env = "TASKMASTER_WORKER_NETWORKS",
        value_delimiter = ',',
        value_name = "CIDR",
        default_value = "127.0.0.0/8,::1/128,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7"
    )]
    pub worker_networks: Vec<IpNet>,
    /// Time between a worker's heartbeats
    #[arg(long, env = "TASKMASTER_HEARTBEAT_SECONDS", default_value = "5", value_parser = seconds, value_name = "SECONDS")]
    pub heartbeat_seconds: Duration,
    /// A worker that misses so many heartbeats is given up
    #[arg(long, env = "TASKMASTER_HEARTBEAT_MISSES", default_value_t = 3, value_parser = clap::value_parser!(u32).range(2..=100), value_name = "COUNT")]
    pub heartbeat_misses: u32,
    /// How often the database is looked at for due tasks, besides notifications
    #[arg(long, env = "TASKMASTER_POLL_SECONDS", default_value = "10", value_parser = seconds, value_name = "SECONDS")]
    pub poll_seconds: Duration,
    /// How far ahead a poll looks for due times, to set the timer
    #[arg(long, env = "TASKMASTER_LOOKAHEAD_SECONDS", default_value = "30", value_parser = seconds, value_name = "SECONDS")]
    pub lookahead_seconds: Duration,
    /// Do not listen for notifications: due tasks are found by polling alone
    #[arg(long, env = "TASKMASTER_NO_NOTIFICATIONS", value_parser = clap::builder::FalseyValueParser::new(),
        action = clap::ArgAction::SetTrue)]
    pub no_notifications: bool,
    /// An attempt that its worker does not end within its time-out and so long is ended here
    #[arg(long, env = "TASKMASTER_TIMEOUT_MARGIN_SECONDS", default_value = "15", value_parser = seconds, value_name = "SECONDS")]
    pub timeout_margin_seconds: Duration,
    /// Finished tasks are kept for so many days
    #[arg(long, env = "TASKMASTER_HISTORY_DAYS", default_value_t = 365, value_parser = clap::value_parser!(i32).range(1..=36500), value_name = "DAYS")]
    pub history_days: i32,
    /// Events are kept for so long: a client of the event stream that was away for longer misses some
    #[arg(long, env = "TASKMASTER_EVENTS_KEPT_SECONDS", default_value = "3600", value_parser = seconds, value_name = "SECONDS")]
    pub events_kept_seconds: Duration,
    /// How long a stop may take
    #[arg(long = "drain-timeout", env = "TASKMASTER_COORDINATOR_DRAIN_SECONDS", default_value = "20", value_parser = seconds, value_name = "SECONDS")]
    pub drain_timeout: Duration,
}

/// Shorter join tokens can be guessed.
const JOIN_TOKEN_CHARS_MIN: usize = 16;

impl Config {
    /// How long after a heartbeat a worker counts as there.
    pub fn worker_lease(&self) -> Duration {
        self.heartbeat_seconds * self.heartbeat_misses
    }

    /// Checks what the parser cannot.
    ///
    /// # Errors
    /// One line that says what to change.
    pub fn check(&self) -> Result<(), String> {
        if self.join_token.expose().len() < JOIN_TOKEN_CHARS_MIN {
            return Err(format!("--join-token must have at least {JOIN_TOKEN_CHARS_MIN} characters"));
        }
        match &self.advertise {
            Some(url) if url::Url::parse(url).is_err() => Err(format!("--advertise: {url} is not a URL")),
            _ => Ok(()),
        }
    }
}
