//! HTTP requests: made exactly as given, answered within bounds, and only to addresses that are allowed.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use chrono::{DateTime, Utc};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use rand::Rng;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use taskmaster_openapi::limits::{
    HEADER_NAME_CHARS_MAX, HEADER_VALUE_BYTES_MAX, RESULT_HEADERS_MAX, RETRY_SECONDS_MAX,
};
use taskmaster_openapi::response::{Meaning, ResponseRules};
use taskmaster_openapi::task::{Completion, ErrorCode, HttpWork, TaskResult};
use taskmaster_openapi::worker::{SubmittedTask, headers};

use super::output::Output;
use super::{Ending, Failure};
use crate::circuits::{Circuits, OpenHost};
use crate::targets::{RefusedTarget, TargetGuard};

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections kept open to one target.
const IDLE_CONNECTIONS_MAX: usize = 64;
/// How long an unused connection is kept; below what servers commonly allow (60 s and more).
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);
/// Statuses that are a host's fault.
const SERVER_ERRORS_FROM: u16 = 500;
const USER_AGENT: &str = concat!("TaskMaster/", env!("CARGO_PKG_VERSION"));

/// Makes HTTP requests.
#[derive(Debug)]
pub(crate) struct HttpExecutor {
    client: reqwest::Client,
    guard: TargetGuard,
    circuits: Mutex<Circuits>,
}

impl HttpExecutor {
    /// A host's circuit opens after so many failures in a row; never when 0.
    pub fn new(guard: TargetGuard, circuit_failures: u32) -> reqwest::Result<Self> {
        taskmaster_service::client::install_tls();
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .tcp_nodelay(true)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .user_agent(USER_AGENT)
            .dns_resolver(AllowedAddresses { guard: guard.clone() })
            .build()?;
        Ok(Self { client, guard, circuits: Mutex::new(Circuits::new(circuit_failures)) })
    }

    /// Runs an attempt, unless its host is not to be asked now, and notes how the host did.
    pub async fn guarded(
        &self,
        task: &SubmittedTask,
        work: &HttpWork,
        attempt: impl Future<Output = Ending>,
    ) -> Ending {
        let host = if task.try_always { None } else { host_of(&work.url) };
        let Some(host) = host else { return attempt.await };
        if let Err(wait) = self.circuits().admit(&host, Instant::now()) {
            // Spread, so that they do not come back all at once.
            let wait_ms = wait.as_secs_f64() * 1000.0 * (1.0 + rand::rng().random::<f64>());
            return Ending::PutOff(wait_ms.ceil() as u64);
        }
        let ending = attempt.await;
        if let Some(failed) = has_host_failed(&ending) {
            self.circuits().note(&host, failed, Instant::now());
        }
        ending
    }

    fn circuits(&self) -> MutexGuard<'_, Circuits> {
        self.circuits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The hosts that are not asked for a while, at most so many.
    pub fn open_circuits(&self, max: usize) -> Vec<OpenHost> {
        self.circuits().open(max, Instant::now())
    }

    /// Makes one request. Dropping it ends the exchange.
    pub async fn run(&self, task: &SubmittedTask, work: &HttpWork) -> Ending {
        let request = match self.request(task, work) {
            Ok(request) => request,
            Err(failure) => return Ending::Failed(None, failure),
        };
        match self.client.execute(request).await {
            Ok(answer) => read(answer, work).await,
            Err(error) => Ending::Failed(None, failure_of(&error)),
        }
    }

    fn request(&self, task: &SubmittedTask, work: &HttpWork) -> Result<reqwest::Request, Failure> {
        let unusable =
            |what: &str| Failure::new(ErrorCode::HttpProtocol, format!("the request cannot be made: {what}"));
        let url = url::Url::parse(&work.url).map_err(|error| unusable(&format!("the URL: {error}")))?;
        let refused = |refused: RefusedTarget| Failure::new(ErrorCode::TargetRefused, refused.to_string());
        self.guard.check_url(&url).map_err(refused)?;
        let method = http::Method::from_bytes(work.method.as_str().as_bytes()).map_err(|_| unusable("the method"))?;
        let mut request = reqwest::Request::new(method, url);
        *request.headers_mut() = given_headers(work).map_err(|name| unusable(&format!("the header {name:?}")))?;
        let own = [(headers::TASK_ID, task.task_id.to_string()), (headers::ATTEMPT, task.attempt.to_string())];
        for (name, value) in own {
            let value = HeaderValue::try_from(value).map_err(|_| unusable(name))?;
            request.headers_mut().insert(HeaderName::from_static(name), value);
        }
        // A trace that the task itself names is not this one.
        if !request.headers().contains_key(headers::TRACEPARENT) {
            let trace = [(headers::TRACEPARENT, &task.traceparent), (headers::TRACESTATE, &task.tracestate)];
            for (name, value) in trace.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?))) {
                let value = HeaderValue::try_from(value).map_err(|_| unusable(name))?;
                request.headers_mut().insert(HeaderName::from_static(name), value);
            }
        }
        let body = match (&work.body, &work.body_base64) {
            (Some(text), _) => Some(text.clone().into_bytes()),
            (None, Some(text)) => {
                Some(BASE64_STANDARD.decode(text).map_err(|_| unusable("body_base64 is not base64"))?)
            }
            (None, None) => None,
        };
        *request.body_mut() = body.map(reqwest::Body::from);
        Ok(request)
    }
}

/// Scheme, host and port.
fn host_of(url: &str) -> Option<String> {
    let url = url::Url::parse(url).ok()?;
    Some(format!("{}://{}:{}", url.scheme(), url.host_str()?, url.port_or_known_default()?))
}

/// Whether the attempt shows that its host does not do its work; `None` where it shows neither that nor the contrary.
fn has_host_failed(ending: &Ending) -> Option<bool> {
    let by_status = |result: &Option<TaskResult>| {
        result.as_ref().and_then(|result| result.http_status).map(|status| status >= SERVER_ERRORS_FROM)
    };
    match ending {
        Ending::Complete(result) => by_status(result),
        Ending::Detached => Some(false),
        Ending::Failed(result, failure) => match failure.error.code {
            ErrorCode::HttpStatus => by_status(result),
            ErrorCode::Connect | ErrorCode::Dns | ErrorCode::HttpProtocol | ErrorCode::Timeout => Some(true),
            _ => None,
        },
        Ending::Stopped(_) | Ending::PutOff(_) => None,
    }
}

/// The task's headers, without those that frame the message: they follow from the body.
fn given_headers(work: &HttpWork) -> Result<HeaderMap, &str> {
    let mut map = HeaderMap::with_capacity(work.headers.len() + 2);
    for (name, value) in &work.headers {
        let parsed = (HeaderName::try_from(name.as_str()), HeaderValue::try_from(value.as_str()));
        let (Ok(header_name), Ok(value)) = parsed else { return Err(name) };
        if header_name != header::CONTENT_LENGTH && header_name != header::TRANSFER_ENCODING {
            map.append(header_name, value);
        }
    }
    Ok(map)
}

/// Reads the answer, as much as is kept of it, and judges it.
async fn read(mut answer: reqwest::Response, work: &HttpWork) -> Ending {
    let status = answer.status();
    let headers = std::mem::take(answer.headers_mut());
    let mut body = Output::default();
    loop {
        match answer.chunk().await {
            Ok(Some(bytes)) if body.push(&bytes) => {}
            // All of it, or as much as is kept: what is left is not read, and the connection is closed.
            Ok(_) => break,
            Err(error) => return Ending::Failed(None, failure_of(&error)),
        }
    }
    let body = body.into_text();
    let result = Some(TaskResult {
        http_status: Some(status.as_u16()),
        headers: kept_headers(&headers),
        body: body.text,
        body_base64: body.base64,
        body_truncated: body.truncated,
        ..TaskResult::default()
    });
    let meaning = match &work.response {
        Some(rules) => rules.meaning(status.as_u16()),
        None => ResponseRules::default().meaning(status.as_u16()),
    };
    if meaning == Meaning::Success {
        let will_call_back = status == http::StatusCode::ACCEPTED && work.completion == Completion::Callback;
        return if will_call_back { Ending::Detached } else { Ending::Complete(result) };
    }
    let failure = Failure::new(ErrorCode::HttpStatus, format!("the target answered with status {}", status.as_u16()));
    let never = headers.get(headers::RETRY).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"never"));
    let permanent = never || meaning == Meaning::Final;
    let retry_after_ms = headers
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| parse_retry_after_ms(value, Utc::now()));
    Ending::Failed(result, Failure { permanent, retry_after_ms, ..failure })
}

/// Headers of an answer as they are kept: at most so many, without cookies.
fn kept_headers(headers: &HeaderMap) -> std::collections::BTreeMap<String, String> {
    let mut kept = std::collections::BTreeMap::new();
    let is_kept = |name: &HeaderName| *name != header::SET_COOKIE && name.as_str().len() <= HEADER_NAME_CHARS_MAX;
    for name in headers.keys().filter(|name| is_kept(name)).take(RESULT_HEADERS_MAX) {
        let values: Vec<_> =
            headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        let mut value = values.join(", ");
        value.truncate(value.floor_char_boundary(HEADER_VALUE_BYTES_MAX));
        kept.insert(name.as_str().to_owned(), value);
    }
    kept
}

/// `Retry-After` (RFC 9110, 10.2.3): whole seconds, or a date; at most the longest delay between attempts.
fn parse_retry_after_ms(value: &str, now: DateTime<Utc>) -> Option<u64> {
    let value = value.trim();
    let wait_ms = if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        value.parse::<u64>().unwrap_or(u64::MAX).saturating_mul(1000)
    } else {
        // IMF-fixdate, the form that servers must send, is a date of RFC 2822.
        let date = DateTime::parse_from_rfc2822(value).ok()?;
        u64::try_from(date.signed_duration_since(now).num_milliseconds()).unwrap_or(0)
    };
    Some(wait_ms.min((RETRY_SECONDS_MAX * 1000.0) as u64))
}

/// Why an exchange failed.
fn failure_of(error: &reqwest::Error) -> Failure {
    if let Some(refused) = cause::<RefusedTarget>(error) {
        return Failure::new(ErrorCode::TargetRefused, refused.to_string());
    }
    if let Some(unresolved) = cause::<Unresolved>(error) {
        return Failure::new(ErrorCode::Dns, unresolved.to_string());
    }
    if error.is_timeout() {
        // The attempt's own time-out is the caller's, so this is the connection's.
        let seconds = CONNECT_TIMEOUT.as_secs();
        return Failure::new(ErrorCode::Connect, format!("the target took no connection within {seconds} seconds"));
    }
    let (code, what) = match error.is_connect() {
        true => (ErrorCode::Connect, "no connection to the target"),
        false => (ErrorCode::HttpProtocol, "the exchange with the target broke off"),
    };
    Failure::new(code, format!("{what}: {}", innermost(error)))
}

/// The first error of this type among the causes.
fn cause<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut current = Some(error);
    while let Some(error) = current {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        current = error.source();
    }
    None
}

/// The innermost cause: the outer ones only repeat the URL, which may hold secrets.
fn innermost(error: &dyn Error) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

/// A name without an address.
#[derive(Debug, thiserror::Error)]
#[error("the name {name} cannot be resolved: {reason}")]
struct Unresolved {
    name: String,
    reason: io::Error,
}

/// Resolves names as the system does, and gives out only the addresses that are allowed. They are the very ones that are then
/// connected to: between the check and the connection no name is asked for again, so that none can change its mind (DNS rebinding).
struct AllowedAddresses {
    guard: TargetGuard,
}

impl Resolve for AllowedAddresses {
    fn resolve(&self, name: Name) -> Resolving {
        let (name, guard) = (name.as_str().to_owned(), self.guard.clone());
        Box::pin(async move {
            // Port 0 stands for the URL's.
            let looked_up = tokio::net::lookup_host((name.as_str(), 0)).await.map(Vec::from_iter);
            let found: Vec<SocketAddr> = looked_up.map_err(|reason| Unresolved { name: name.clone(), reason })?;
            Ok(Box::new(guard.admit(&name, found)?.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date_within_a_week() {
        let now = "1994-11-06T08:49:00Z".parse().unwrap();
        for (value, expected) in [
            ("0", Some(0)),
            ("120", Some(120_000)),
            (" 5 ", Some(5_000)),
            ("99999999999999999999999", Some(604_800_000)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(37_000)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("Sat, 06 Nov 2094 08:00:00 GMT", Some(604_800_000)),
            ("", None),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
        ] {
            assert_eq!(parse_retry_after_ms(value, now), expected, "{value:?}");
        }
    }

    #[test]
    fn kept_headers_are_bounded_and_have_no_cookies() {
        let mut headers = HeaderMap::new();
        headers.insert(header::SET_COOKIE, HeaderValue::from_static("session=1"));
        headers.append(header::VIA, HeaderValue::from_static("a"));
        headers.append(header::VIA, HeaderValue::from_static("b"));
        headers.insert(header::SERVER, HeaderValue::from_bytes(&vec![b'x'; 20_000]).unwrap());
        for number in 0..100 {
            headers.insert(HeaderName::try_from(format!("x-{number}")).unwrap(), HeaderValue::from_static("v"));
        }
        let kept = kept_headers(&headers);
        assert_eq!(kept.len(), RESULT_HEADERS_MAX);
        assert!(!kept.contains_key("set-cookie"));
        assert_eq!(kept["via"], "a, b");
        assert_eq!(kept["server"].len(), HEADER_VALUE_BYTES_MAX);
    }
}
