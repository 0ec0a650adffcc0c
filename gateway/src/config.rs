//! The gateway's settings: read once, and refused with one clear line before anything is served.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use taskmaster_service::{Secret, TlsFiles, settings};

use crate::edge::cors::{Origin, Origins};
use crate::edge::origin::AllowedHost;

/// How this installation scales its workers, when the gateway cannot.
const SCALE_HINT: &str = "This gateway does not start workers itself. With Compose: `docker compose up --scale worker=N`. On \
    a container host: set the number of replicas of the worker. Elsewhere: start or stop `taskmaster worker` processes.";

/// Settings of the gateway.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// Address to listen on
    #[arg(long, env = "TASKMASTER_GATEWAY_LISTEN", default_value = "127.0.0.1:8081", value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// API keys that allow everything, separated by commas, besides those of `taskmaster keys`. Requests must then carry a key
    /// (`Authorization: Bearer <key>`)
    #[arg(long, env = "TASKMASTER_API_KEYS", value_delimiter = ',', value_name = "KEYS", hide_env_values = true)]
    pub api_key: Vec<Secret>,
    /// Serve requests without API keys even on an address that other machines can reach
    #[arg(long, env = "TASKMASTER_ALLOW_ANONYMOUS", value_parser = clap::builder::FalseyValueParser::new(),
        action = clap::ArgAction::SetTrue)]
    pub allow_anonymous: bool,
    /// Want API keys on a loopback address as well
    #[arg(long, env = "TASKMASTER_REQUIRE_KEYS", value_parser = clap::builder::FalseyValueParser::new(),
        action = clap::ArgAction::SetTrue)]
    pub require_keys: bool,
    /// Names, besides those of this machine's loopback, under which a gateway without API keys may be called, separated by
    /// commas: `tasks.example.com`, `tasks.example.com:8443`, or an origin such as `https://tasks.example.com`
    #[arg(long, env = "TASKMASTER_ALLOWED_HOSTS", value_delimiter = ',', value_name = "HOSTS")]
    pub allowed_host: Vec<String>,
    /// Origins whose web pages may use this gateway from a browser (CORS), separated by commas: `https://app.example.com`, or `*`
    /// for all; none when left out
    #[arg(long, env = "TASKMASTER_CORS_ORIGINS", value_delimiter = ',', value_name = "ORIGINS")]
    pub cors_origins: Vec<String>,
    /// Networks of proxies whose `X-Forwarded-For` is believed, separated by commas: `10.0.0.0/8`
    #[arg(long, env = "TASKMASTER_TRUSTED_PROXIES", value_delimiter = ',', value_name = "NETWORKS")]
    pub trusted_proxies: Vec<String>,
    /// The URL by which the outside reaches this installation, such as `https://tasks.example.com`: HTTP tasks that end by a callback
    /// tell their targets. Where it is left out, a gateway on a loopback address takes its own, and others refuse such tasks. The same
    /// for every gateway
    #[arg(long, env = "TASKMASTER_PUBLIC_URL", value_name = "URL")]
    pub public_url: Option<String>,
    #[command(flatten)]
    pub tls: TlsArgs,
    #[command(flatten)]
    pub connections: ConnectionLimits,
    #[command(flatten)]
    pub rate_limits: RateLimits,
    /// Requests in progress at once, those included that wait for their turn or their body; further ones are refused with 503
    #[arg(long, env = "TASKMASTER_CONCURRENCY_MAX", default_value_t = 2_048, value_name = "COUNT",
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub concurrency_max: u32,
    /// Reading requests worked on at once; further ones wait their turn for some milliseconds, and are refused with 503 then. 16 for
    /// each processor when left out
    #[arg(long, env = "TASKMASTER_READS_AT_ONCE", value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub reads_at_once: Option<u32>,
    /// As --reads-at-once, of writing requests; 32 for each processor when left out
    #[arg(long, env = "TASKMASTER_WRITES_AT_ONCE", value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub writes_at_once: Option<u32>,
    /// A request that is not answered within so many seconds fails with 504; streams and `Prefer: wait` may take longer
    #[arg(long, env = "TASKMASTER_REQUEST_TIMEOUT_SECONDS", default_value = "30", value_name = "SECONDS",
        value_parser = settings::seconds)]
    pub request_timeout: Duration,
    /// How many seconds requests in progress may go on once the process is to stop
    #[arg(long, env = "TASKMASTER_DRAIN_TIMEOUT_SECONDS", default_value = "20", value_name = "SECONDS",
        value_parser = settings::seconds)]
    pub drain_timeout: Duration,
    /// For how many seconds an `Idempotency-Key` is remembered
    #[arg(long, env = "TASKMASTER_IDEMPOTENCY_SECONDS", default_value = "86400", value_name = "SECONDS",
        value_parser = settings::seconds)]
    pub idempotency: Duration,
    /// Clients that may follow `GET /v1/events` at once
    #[arg(long, env = "TASKMASTER_SSE_CLIENTS_MAX", default_value_t = 2_000, value_name = "COUNT",
        value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub sse_clients_max: u32,
    /// Schedules that this installation may have
    #[arg(long, env = "TASKMASTER_SCHEDULES_MAX", default_value_t = 100_000, value_name = "COUNT",
        value_parser = clap::value_parser!(u32).range(0..=10_000_000))]
    pub schedules_max: u32,
    /// … of which one client (API key, else address) may be so many
    #[arg(long, env = "TASKMASTER_SSE_PER_CLIENT_MAX", default_value_t = 200, value_name = "COUNT",
        value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub sse_per_client_max: u32,
    /// What `POST /v1/workers/scale` answers where this host scales workers by other means
    #[arg(long, env = "TASKMASTER_SCALE_HINT", default_value = SCALE_HINT, value_name = "TEXT", hide_default_value = true)]
    pub scale_hint: String,
}

/// TLS, for a gateway without a proxy before it.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct TlsArgs {
    /// Serve HTTPS with this certificate: a PEM file, the gateway's own certificate first, then those between it and its root.
    /// The files are read again when they change
    #[arg(long, env = "TASKMASTER_TLS_CERTIFICATE", value_name = "FILE")]
    pub tls_certificate: Option<String>,
    /// … and this key of it: a PEM file without a password
    #[arg(long, env = "TASKMASTER_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<String>,
}

impl TlsArgs {
    /// Blank counts as absent: an environment file may set a variable to nothing.
    fn files(&self) -> Result<Option<TlsFiles>, ConfigError> {
        let given =
            |path: &Option<String>| path.as_deref().map(str::trim).filter(|path| !path.is_empty()).map(PathBuf::from);
        match (given(&self.tls_certificate), given(&self.tls_key)) {
            (Some(certificate), Some(key)) => Ok(Some(TlsFiles { certificate, key })),
            (None, None) => Ok(None),
            _ => Err(ConfigError::HalfOfTls),
        }
    }
}

/// How many connections there may be, and how long they may be silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::Args)]
pub struct ConnectionLimits {
    /// Connections at once; further ones wait
    #[arg(long, env = "TASKMASTER_CONNECTIONS_MAX", default_value_t = CONNECTIONS_MAX, value_name = "COUNT",
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub connections_max: u32,
    /// … of which one address (of IPv6 one /64) may have so many; further ones are refused. Trusted proxies may have all
    #[arg(long, env = "TASKMASTER_CONNECTIONS_PER_ADDRESS_MAX", default_value_t = CONNECTIONS_PER_ADDRESS_MAX,
        value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub connections_per_address_max: u32,
    /// A connection is closed when a request's headers have not arrived within so many seconds, or none has begun
    #[arg(long = "header-timeout-seconds", env = "TASKMASTER_HEADER_TIMEOUT_SECONDS", default_value = "75",
        value_name = "SECONDS", value_parser = settings::seconds)]
    pub header_timeout: Duration,
}

const CONNECTIONS_MAX: u32 = 10_000;
const CONNECTIONS_PER_ADDRESS_MAX: u32 = 2_000;
/// Longer than clients keep connections that they do not use, so that seldom one is closed in the moment it is used again.
const HEADER_TIMEOUT: Duration = Duration::from_secs(75);

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            connections_max: CONNECTIONS_MAX,
            connections_per_address_max: CONNECTIONS_PER_ADDRESS_MAX,
            header_timeout: HEADER_TIMEOUT,
        }
    }
}

/// Requests a minute that one client (API key, else address) may make; 0 is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::Args)]
pub struct RateLimits {
    /// Reading requests a minute that one client (API key, else address) may make; 0 is no limit
    #[arg(long = "rate-limit-reads", env = "TASKMASTER_RATE_LIMIT_READS", default_value_t = RATE_LIMIT, value_name = "COUNT",
        value_parser = clap::value_parser!(u32).range(0..=RATE_LIMIT_MAX))]
    pub reads: u32,
    /// As --rate-limit-reads, of writing requests
    #[arg(long = "rate-limit-writes", env = "TASKMASTER_RATE_LIMIT_WRITES", default_value_t = RATE_LIMIT, value_name = "COUNT",
        value_parser = clap::value_parser!(u32).range(0..=RATE_LIMIT_MAX))]
    pub writes: u32,
    /// Wrong API keys a minute that one address may present; 0 is no limit
    #[arg(long = "rate-limit-wrong-keys", env = "TASKMASTER_RATE_LIMIT_WRONG_KEYS", default_value_t = WRONG_KEYS_LIMIT,
        value_name = "COUNT", value_parser = clap::value_parser!(u32).range(0..=RATE_LIMIT_MAX))]
    pub wrong_keys: u32,
}

const RATE_LIMIT: u32 = 600_000;
const WRONG_KEYS_LIMIT: u32 = 60;
/// A request a microsecond.
const RATE_LIMIT_MAX: i64 = 60_000_000;

impl Default for RateLimits {
    fn default() -> Self {
        Self { reads: RATE_LIMIT, writes: RATE_LIMIT, wrong_keys: WRONG_KEYS_LIMIT }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8081)),
            api_key: Vec::new(),
            allow_anonymous: false,
            require_keys: false,
            allowed_host: Vec::new(),
            cors_origins: Vec::new(),
            trusted_proxies: Vec::new(),
            public_url: None,
            tls: TlsArgs::default(),
            connections: ConnectionLimits::default(),
            rate_limits: RateLimits::default(),
            concurrency_max: 2_048,
            reads_at_once: None,
            writes_at_once: None,
            request_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(20),
            idempotency: Duration::from_secs(86_400),
            sse_clients_max: 2_000,
            schedules_max: 100_000,
            sse_per_client_max: 200,
            scale_hint: SCALE_HINT.into(),
        }
    }
}

/// What is wrong with the settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("TASKMASTER_API_KEYS: a key must consist of visible ASCII characters")]
    ApiKey,
    #[error("--allowed-host: {0:?} is neither a host name nor an origin")]
    AllowedHost(String),
    #[error("--cors-origins: {0:?} is neither an origin (https://app.example.com) nor *")]
    CorsOrigin(String),
    #[error(
        "--cors-origins: * would let every web page use a gateway that wants no API keys; name the origins, or use --require-keys"
    )]
    CorsForAll,
    #[error("--tls-certificate and --tls-key belong together: give both, or none")]
    HalfOfTls,
    #[error("--trusted-proxies: {0:?} is neither a network (10.0.0.0/8) nor an address")]
    TrustedProxy(String),
    #[error("--public-url: {0:?} is not an http or https URL without a query (https://tasks.example.com)")]
    PublicUrl(String),
}

/// The settings, parsed.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub api_keys: Vec<Secret>,
    /// Requests without an API key are refused.
    pub keys_required: bool,
    pub allowed_hosts: Vec<AllowedHost>,
    pub cors_origins: Origins,
    pub trusted_proxies: Vec<IpNet>,
    /// How the outside reaches this installation, without a slash at its end; none where nobody said so.
    pub public_url: Option<String>,
    pub tls: Option<TlsFiles>,
    pub connections: ConnectionLimits,
    pub rate_limits: RateLimits,
    pub concurrency_max: usize,
    pub reads_at_once: usize,
    pub writes_at_once: usize,
    pub request_timeout: Duration,
    pub drain_timeout: Duration,
    pub idempotency: Duration,
    pub sse_clients_max: usize,
    pub schedules_max: u32,
    pub sse_per_client_max: usize,
    pub scale_hint: String,
}

impl Settings {
    /// Names an API key without telling it: the same for as long as the key is the same, wherever it stands in the list.
    pub(crate) fn key_digest(&self, place: usize) -> String {
        use sha2::{Digest, Sha256};
        let key = self.api_keys.get(place).map(Secret::expose).unwrap_or_default();
        let digest = Sha256::digest(key.as_bytes());
        digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }
}

impl Config {
    /// Checks the settings for a gateway that listens on `address`.
    ///
    /// Blank entries of lists count as absent: an environment file may set a variable to nothing.
    pub(crate) fn check(&self, address: SocketAddr) -> Result<Settings, ConfigError> {
        let api_keys = api_keys(&self.api_key)?;
        let open = self.allow_anonymous || address.ip().is_loopback();
        let keys_required = self.require_keys || !open || !api_keys.is_empty();
        let cors_origins = Origins::new(parse_all(&self.cors_origins, Origin::parse, ConfigError::CorsOrigin)?);
        if cors_origins.any() && !keys_required {
            return Err(ConfigError::CorsForAll);
        }
        Ok(Settings {
            keys_required,
            api_keys,
            allowed_hosts: self.allowed_hosts()?,
            cors_origins,
            trusted_proxies: parse_all(&self.trusted_proxies, network, ConfigError::TrustedProxy)?,
            public_url: self.public_url(address)?,
            tls: self.tls.files()?,
            connections: self.connections,
            rate_limits: self.rate_limits,
            concurrency_max: self.concurrency_max as usize,
            reads_at_once: at_once(self.reads_at_once, READS_PER_PROCESSOR),
            writes_at_once: at_once(self.writes_at_once, WRITES_PER_PROCESSOR),
            request_timeout: self.request_timeout,
            drain_timeout: self.drain_timeout,
            idempotency: self.idempotency,
            sse_clients_max: self.sse_clients_max as usize,
            schedules_max: self.schedules_max,
            sse_per_client_max: self.sse_per_client_max as usize,
            scale_hint: self.scale_hint.clone(),
        })
    }
}

impl Config {
    /// Those that are named, and where targets call back.
    fn allowed_hosts(&self) -> Result<Vec<AllowedHost>, ConfigError> {
        let mut hosts = parse_all(&self.allowed_host, AllowedHost::parse, ConfigError::AllowedHost)?;
        let public = self.public_url.as_deref().and_then(|given| reqwest::Url::parse(given.trim()).ok());
        hosts.extend(public.and_then(|url| AllowedHost::parse(&url.origin().ascii_serialization())));
        Ok(hosts)
    }

    fn public_url(&self, address: SocketAddr) -> Result<Option<String>, ConfigError> {
        let Some(given) = self.public_url.as_deref().map(str::trim).filter(|given| !given.is_empty()) else {
            let scheme = if self.tls.files()?.is_some() { "https" } else { "http" };
            return Ok(address.ip().is_loopback().then(|| format!("{scheme}://{address}")));
        };
        let wrong = || ConfigError::PublicUrl(given.to_owned());
        let url = reqwest::Url::parse(given).map_err(|_| wrong())?;
        let right = matches!(url.scheme(), "http" | "https")
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        match right {
            true => Ok(Some(url.as_str().trim_end_matches('/').to_owned())),
            false => Err(wrong()),
        }
    }
}

/// Enough to keep processors and database busy. Writes are more, because those that wait together are written together.
const READS_PER_PROCESSOR: usize = 16;
const WRITES_PER_PROCESSOR: usize = 32;

fn at_once(given: Option<u32>, per_processor: usize) -> usize {
    let processors = || std::thread::available_parallelism().map_or(1, usize::from);
    given.map_or_else(|| per_processor * processors(), |given| given as usize)
}

fn api_keys(given: &[Secret]) -> Result<Vec<Secret>, ConfigError> {
    let keys: Vec<Secret> = given.iter().map(|key| Secret::new(key.expose().trim())).collect();
    let keys: Vec<Secret> = keys.into_iter().filter(|key| !key.expose().is_empty()).collect();
    match keys.iter().all(|key| key.expose().bytes().all(|byte| byte.is_ascii_graphic())) {
        true => Ok(keys),
        false => Err(ConfigError::ApiKey),
    }
}

fn parse_all<T>(
    given: &[String],
    parse: fn(&str) -> Option<T>,
    error: fn(String) -> ConfigError,
) -> Result<Vec<T>, ConfigError> {
    let entries = given.iter().map(|entry| entry.trim()).filter(|entry| !entry.is_empty());
    entries.map(|entry| parse(entry).ok_or_else(|| error(entry.to_owned()))).collect()
}

fn network(text: &str) -> Option<IpNet> {
    text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        config: Config,
    }

    fn parse(arguments: &[&str]) -> Config {
        Command::parse_from([&["gateway"], arguments].concat()).config
    }

    const EVERYWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8081);

    #[test]
    fn the_default_is_what_the_flags_default_to() {
        assert_eq!(format!("{:?}", parse(&[])), format!("{:?}", Config::default()));
    }

    #[test]
    fn keys_are_wanted_unless_only_this_machine_can_ask_or_it_was_told_so() {
        let loopback = Config::default().listen;
        for (arguments, address, required) in [
            (&[][..], EVERYWHERE, true),
            (&[], loopback, false),
            (&["--allow-anonymous"], EVERYWHERE, false),
            (&["--require-keys"], loopback, true),
            (&["--require-keys", "--allow-anonymous"], EVERYWHERE, true),
            (&["--api-key", "k1,k2"], loopback, true),
            (&["--api-key", "k1", "--allow-anonymous"], EVERYWHERE, true),
        ] {
            assert_eq!(parse(arguments).check(address).unwrap().keys_required, required, "{arguments:?} {address}");
        }
    }

    #[test]
    fn blank_entries_count_as_absent_and_keys_of_blanks_do_not_open_the_gateway() {
        let blank = parse(&["--api-key", " , ", "--allowed-host", "", "--trusted-proxies", ""]);
        assert!(blank.check(EVERYWHERE).unwrap().keys_required);
        let settings = blank.check(Config::default().listen).unwrap();
        assert!(settings.api_keys.is_empty() && !settings.keys_required);
        assert!(settings.allowed_hosts.is_empty() && settings.trusted_proxies.is_empty());
    }

    #[test]
    fn wrong_values_are_named() {
        for (arguments, named) in [
            (["--allowed-host", "a b"], "a b"),
            (["--trusted-proxies", "10.0.0.0/33"], "10.0.0.0/33"),
            (["--cors-origins", "app.example.com"], "app.example.com"),
            (["--cors-origins", "*"], "--require-keys"),
            (["--tls-key", "key.pem"], "--tls-certificate"),
            (["--public-url", "tasks.example.com"], "tasks.example.com"),
            (["--public-url", "https://tasks.example.com/?x"], "--public-url"),
            (["--api-key", "k\u{e9}y"], "TASKMASTER_API_KEYS"),
        ] {
            let error = parse(&arguments).check(Config::default().listen).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn a_gateway_knows_its_own_url_where_only_this_machine_can_ask() {
        let of = |arguments: &[&str], address: SocketAddr| parse(arguments).check(address).unwrap().public_url;
        let given = &["--public-url", "https://tasks.example.com/x/"][..];
        assert_eq!(of(given, EVERYWHERE).as_deref(), Some("https://tasks.example.com/x"));
        assert_eq!(of(&["--public-url", " "], EVERYWHERE), None);
        assert_eq!(parse(given).check(EVERYWHERE).unwrap().allowed_hosts.len(), 1, "targets may use that name");
        assert_eq!(of(&[], Config::default().listen).as_deref(), Some("http://127.0.0.1:8081"));
    }

    #[test]
    fn keys_do_not_show_in_debug_output() {
        assert!(!format!("{:?}", parse(&["--api-key", "hunter2"])).contains("hunter2"));
    }
}
