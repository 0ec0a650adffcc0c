//! The worker's settings, as flags and as environment variables.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use taskmaster_openapi::limits;
use taskmaster_service::settings::{seconds, seconds_or_zero};
use taskmaster_service::{Secret, TrustArgs};

use crate::error::WorkerError;
use crate::targets::{PortRule, TargetRule};

/// Slots of a worker that is not told otherwise; the reference's figure.
const SLOTS_DEFAULT: u16 = 5;
/// Tasks a worker holds beyond its slots when it is not told otherwise.
const QUEUE_DEFAULT: u16 = 5_000;
/// Slots and queue together leave this much of what a worker may hold to outcomes that nobody has acknowledged yet.
const OUTCOMES_MIN: usize = 1_000;
/// Default of `--drain-timeout`.
const DRAIN_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// Default of `--kill-grace-seconds`: a cancel is done within two seconds.
const KILL_GRACE_DEFAULT: Duration = Duration::from_secs(1);
/// More would stretch a stop, a time-out and the drain beyond what others wait for them.
const KILL_GRACE_MAX: Duration = Duration::from_secs(5);
/// Default of `--circuit-failures`: more than a few tasks that fail by themselves come to, less than a second of many.
const CIRCUIT_FAILURES_DEFAULT: u32 = 20;
/// Default of `--coordinator-url`.
const COORDINATOR_DEFAULT: &str = "http://127.0.0.1:8080";

/// Settings of one worker.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// Coordinators (or gateways) to join, separated by commas; one that answers names the others
    #[arg(
        long, env = "TASKMASTER_COORDINATOR_URL", value_name = "URL,…", value_delimiter = ',',
        default_value = COORDINATOR_DEFAULT, value_parser = coordinator_url
    )]
    pub coordinator_url: Vec<String>,

    #[command(flatten)]
    pub trust: TrustArgs,

    /// The secret that lets workers join; the same as the coordinators'
    #[arg(long, env = "TASKMASTER_JOIN_TOKEN", value_name = "SECRET", hide_env_values = true)]
    pub join_token: Option<Secret>,

    /// Where coordinators reach this worker. Port 0 takes any free port; 0.0.0.0 listens on every network
    #[arg(long, env = "TASKMASTER_WORKER_LISTEN", value_name = "IP:PORT", default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,

    /// The address to tell coordinators, where it is not the one listened on (behind NAT or a proxy), such as
    /// http://10.0.0.7:4000
    ///
    /// When left out: the address of --listen, or if that is 0.0.0.0 or `[::]` the local address that leads to the coordinator.
    #[arg(long, env = "TASKMASTER_WORKER_ADVERTISE", value_name = "URL", value_parser = coordinator_url)]
    pub advertise: Option<String>,

    /// Tasks to run at once, 1 to 1000
    #[arg(
        long, env = "TASKMASTER_SLOTS", value_name = "N", default_value_t = SLOTS_DEFAULT,
        value_parser = clap::value_parser!(u16).range(1..=limits::SLOTS_MAX)
    )]
    pub slots: u16,

    /// Tasks to hold beyond those that run; slots and queue together are at most 9000
    #[arg(long, env = "TASKMASTER_QUEUE_MAX", value_name = "N", default_value_t = QUEUE_DEFAULT)]
    pub queue_max: u16,

    /// Run `command` and `argv` tasks. Whoever can create tasks then runs programs as this user on this machine
    #[arg(
        long, env = "TASKMASTER_ALLOW_COMMANDS", value_name = "BOOL", default_value = "false",
        num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = BoolishValueParser::new()
    )]
    pub allow_commands: bool,

    /// Narrow --allow-commands to these programs, absolute paths or names in this worker's PATH, separated by commas
    ///
    /// They are looked up once, at the start, and called by `argv`; `command` tasks are refused for good. A program that runs
    /// others (a shell, env, find) opens all of them.
    #[arg(long, env = "TASKMASTER_ALLOW_PROGRAMS", value_name = "PROGRAM,…", value_delimiter = ',')]
    pub allow_programs: Vec<String>,

    /// Where each attempt of a command gets an empty directory of its own, removed when it has ended; a private one among the
    /// system's temporary files when left out
    #[arg(long, env = "TASKMASTER_COMMAND_DIRECTORY", value_name = "PATH")]
    pub command_directory: Option<PathBuf>,

    /// Seconds from SIGTERM to SIGKILL for a command that is cancelled or takes too long, 0 to 5
    #[arg(
        long, env = "TASKMASTER_KILL_GRACE_SECONDS", value_name = "SECONDS", default_value = "1", value_parser = kill_grace
    )]
    pub kill_grace_seconds: Duration,

    /// Serve only these queues, separated by commas; all when left out
    #[arg(long, env = "TASKMASTER_QUEUES", value_name = "NAME,…", value_delimiter = ',')]
    pub queues: Vec<String>,

    /// Words that describe this worker, as name=value separated by commas: tasks may require them
    #[arg(long, env = "TASKMASTER_LABELS", value_name = "K=V,…", value_delimiter = ',', value_parser = label)]
    pub labels: Vec<(String, String)>,

    /// Let HTTP tasks reach these networks besides public ones: CIDRs, `private`, `loopback`, or `all`, separated by commas
    ///
    /// `private` is RFC 1918, RFC 6598 and IPv6 unique local addresses. Addresses of cloud metadata services stay refused
    /// unless a CIDR or `all` covers them.
    #[arg(long, env = "TASKMASTER_ALLOW_TARGETS", value_name = "NETWORK,…", value_delimiter = ',')]
    pub allow_targets: Vec<TargetRule>,

    /// Let HTTP tasks reach these ports, or `all`, of those that other protocols have: the "bad ports" of the Fetch standard, such as
    /// 22, 25, 6667
    #[arg(long, env = "TASKMASTER_ALLOW_TARGET_PORTS", value_name = "PORT,…", value_delimiter = ',')]
    pub allow_target_ports: Vec<PortRule>,

    /// Failures in a row (no connection, time-outs, 5xx) after which a host is not asked for a while; its HTTP tasks go back then, and use
    /// no attempt. 0 is never
    #[arg(long, env = "TASKMASTER_CIRCUIT_FAILURES", value_name = "N", default_value_t = CIRCUIT_FAILURES_DEFAULT)]
    pub circuit_failures: u32,

    /// Do no work: every task takes this many seconds and succeeds. For trying out and measuring
    #[arg(long, env = "TASKMASTER_SIMULATE", value_name = "SECONDS", value_parser = seconds_or_zero)]
    pub simulate: Option<Duration>,

    /// Seconds that running tasks may go on after a stop was asked for, before they are stopped
    #[arg(
        long, env = "TASKMASTER_WORKER_DRAIN_TIMEOUT", value_name = "SECONDS", default_value = "30", value_parser = seconds
    )]
    pub drain_timeout: Duration,

    /// The worker's id, 1 to 128 letters, digits, `.`, `_`, `-`; must be new for every start. A new UUIDv7 when left out
    #[arg(long, env = "TASKMASTER_WORKER_ID", value_name = "ID")]
    pub worker_id: Option<String>,

    /// The program, with its first arguments, that becomes the guard of running commands by calling [`crate::guard_main`].
    /// This program with [`crate::GUARD_SUBCOMMAND`] when `None`.
    #[arg(skip)]
    pub guard_command: Option<Vec<OsString>>,
}

impl Default for Config {
    /// What the flags give when none is set.
    fn default() -> Self {
        Self {
            coordinator_url: vec![COORDINATOR_DEFAULT.into()],
            trust: TrustArgs::default(),
            join_token: None,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            advertise: None,
            slots: SLOTS_DEFAULT,
            queue_max: QUEUE_DEFAULT,
            allow_commands: false,
            allow_programs: Vec::new(),
            command_directory: None,
            kill_grace_seconds: KILL_GRACE_DEFAULT,
            queues: Vec::new(),
            labels: Vec::new(),
            allow_targets: Vec::new(),
            allow_target_ports: Vec::new(),
            circuit_failures: CIRCUIT_FAILURES_DEFAULT,
            simulate: None,
            drain_timeout: DRAIN_TIMEOUT_DEFAULT,
            worker_id: None,
            guard_command: None,
        }
    }
}

impl Config {
    /// Checks what one flag alone cannot tell.
    pub(crate) fn validate(&self) -> Result<(), WorkerError> {
        let wrong = |flag, reason: String| Err(WorkerError::Setting { flag, reason });
        if self.coordinator_url.is_empty() {
            return wrong("--coordinator-url", "name at least one coordinator".into());
        }
        let most = limits::HELD_TASKS_MAX - OUTCOMES_MIN;
        if usize::from(self.slots) + usize::from(self.queue_max) > most {
            return wrong("--queue-max", format!("slots and queue together must be at most {most}"));
        }
        if !self.allow_commands && !self.allow_programs.is_empty() {
            return wrong("--allow-programs", "narrows --allow-commands, which is not set".into());
        }
        if self.labels.len() > limits::LABELS_MAX {
            return wrong("--labels", format!("at most {} labels", limits::LABELS_MAX));
        }
        match self.worker_id.as_deref() {
            Some(id) if !is_worker_id(id) => {
                wrong("--worker-id", "must be 1 to 128 letters, digits, `.`, `_` and `-`".into())
            }
            _ => Ok(()),
        }
    }

    /// Outcomes that may wait to be acknowledged: what slots and queue leave of what a worker may hold.
    pub(crate) fn outcomes_max(&self) -> usize {
        limits::HELD_TASKS_MAX - usize::from(self.slots) - usize::from(self.queue_max)
    }
}

/// The pattern of the coordinator's contract.
fn is_worker_id(id: &str) -> bool {
    (1..=limits::WORKER_ID_CHARS_MAX).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// An origin (`http://host:port`), without the slash at its end.
fn coordinator_url(text: &str) -> Result<String, String> {
    let url = url::Url::parse(text.trim()).map_err(|error| format!("not a URL ({error}), such as http://host:8080"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("must begin with http:// or https://".into());
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() {
        return Err("must have a host and a port only, such as http://host:8080".into());
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

fn kill_grace(text: &str) -> Result<Duration, String> {
    let grace = seconds_or_zero(text)?;
    if grace <= KILL_GRACE_MAX { Ok(grace) } else { Err(format!("must be at most {}", KILL_GRACE_MAX.as_secs())) }
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("must be name=value".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        worker: Config,
    }

    fn parse(arguments: &[&str]) -> Result<Config, clap::Error> {
        Command::try_parse_from(std::iter::once(&"worker").chain(arguments)).map(|c| c.worker)
    }

    #[test]
    fn no_flags_give_the_defaults() {
        assert_eq!(format!("{:?}", parse(&[]).unwrap()), format!("{:?}", Config::default()));
        assert!(Config::default().validate().is_ok());
    }

    #[test]
    fn lists_are_separated_by_commas() {
        let config = parse(&[
            "--coordinator-url=http://a:1/,https://b:2",
            "--queues=one,two",
            "--labels=zone=eu,kind=big",
            "--allow-targets=10.0.0.0/8,loopback",
            "--allow-commands",
        ])
        .unwrap();
        assert_eq!(config.coordinator_url, ["http://a:1", "https://b:2"]);
        assert_eq!(config.queues, ["one", "two"]);
        assert_eq!(config.labels[1], ("kind".into(), "big".into()));
        assert_eq!(config.allow_targets.len(), 2);
        assert!(config.allow_commands && !parse(&["--allow-commands=0"]).unwrap().allow_commands);
    }

    #[test]
    fn nonsense_is_refused_with_a_hint() {
        for wrong in [
            "--slots=0",
            "--slots=1001",
            "--coordinator-url=host:8080",
            "--coordinator-url=http://h/p",
            "--labels=x",
            "--allow-targets=lan",
            "--allow-target-ports=ssh",
            "--allow-commands=perhaps",
            "--kill-grace-seconds=6",
            "--simulate=-1",
        ] {
            assert!(parse(&[wrong]).is_err(), "{wrong}");
        }
        for wrong in ["--queue-max=9500", "--worker-id=a/b", "--worker-id=", "--allow-programs=cat"] {
            assert!(parse(&[wrong]).unwrap().validate().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_join_token_does_not_show_in_debug_output() {
        assert!(!format!("{:?}", parse(&["--join-token=hunter2"]).unwrap()).contains("hunter2"));
    }
}
