//! Calling a URL with one task: where that may lead, and what its answer means.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use taskmaster_openapi::checks::Findings;
use taskmaster_openapi::client::{ClientError, WorkerClient};
use taskmaster_openapi::destination;
use taskmaster_openapi::report::{ReportStatus, StatusReport, TaskClaim};
use taskmaster_openapi::task::{ErrorCode, TaskError};
use taskmaster_openapi::worker::{SubmitCode, SubmitTaskRequest, SubmitTaskResponse};

/// Answers that say that the task was not looked at: whoever answers has no time, does not know the caller, or is somebody else.
const NOT_TAKEN: [u16; 6] = [401, 403, 404, 405, 429, 503];

/// What came of a call.
#[derive(Debug, PartialEq)]
pub(crate) enum Called {
    /// The attempt has ended like this.
    Ended(Box<StatusReport>),
    /// The task was not begun, for this reason.
    NotTaken(String),
}

impl Called {
    /// The same of a task that is known to have started.
    pub fn after_start(self, claim: TaskClaim) -> Self {
        match self {
            Called::NotTaken(why) => {
                Called::Ended(Box::new(failure(claim, ErrorCode::WorkerError, why, Duration::ZERO)))
            }
            ended => ended,
        }
    }
}

/// Calls URLs, of public addresses and of networks that workers may be in.
#[derive(Debug, Clone)]
pub(crate) struct UrlCaller {
    client: WorkerClient,
    guard: Guard,
}

impl UrlCaller {
    /// # Errors
    /// When the TLS roots of the machine cannot be read.
    pub fn new(networks: &[IpNet], timeout_max: Duration) -> reqwest::Result<Self> {
        let guard = Guard(networks.into());
        let http = taskmaster_service::client::builder(timeout_max).dns_resolver(Arc::new(guard.clone())).build()?;
        Ok(Self { client: WorkerClient::new(http), guard })
    }

    /// Calls with one task, and waits for its outcome for as long as the attempt may take.
    pub async fn call(&self, url: &str, secret: &str, request: &SubmitTaskRequest, timeout: Duration) -> Called {
        let Some(claim) = request.tasks.first().map(|task| TaskClaim { task_id: task.task_id, claim: task.claim })
        else {
            return Called::NotTaken("there was no task".into());
        };
        if let Err(refused) = self.guard.check_url(url) {
            return Called::NotTaken(refused);
        }
        let began = Instant::now();
        let answer = self.client.call_url(url, secret, request, timeout).await;
        meaning(claim, answer, began.elapsed(), timeout)
    }
}

/// What an answer says of the task.
fn meaning(
    claim: TaskClaim,
    answer: Result<SubmitTaskResponse, ClientError>,
    took: Duration,
    timeout: Duration,
) -> Called {
    let failed = |code, message: String| Called::Ended(Box::new(failure(claim, code, message, took)));
    match answer {
        Ok(answer) => outcome(claim, answer, took),
        Err(ClientError::Connect { reason, .. }) => Called::NotTaken(reason),
        Err(error) => match error.status().map(|status| status.as_u16()) {
            Some(status) if NOT_TAKEN.contains(&status) => Called::NotTaken(format!("the URL answered {status}")),
            Some(status) if (200..300).contains(&status) => {
                failed(ErrorCode::WorkerError, "the URL's answer is no SubmitTaskResponse".into())
            }
            Some(status) => failed(ErrorCode::WorkerError, format!("the URL answered {status}")),
            None if took >= timeout => {
                failed(ErrorCode::Timeout, format!("the URL did not answer within {} s", timeout.as_secs_f64()))
            }
            None => failed(ErrorCode::WorkerError, "the connection to the URL broke before its answer".into()),
        },
    }
}

/// The outcome in an answer.
fn outcome(claim: TaskClaim, answer: SubmitTaskResponse, took: Duration) -> Called {
    let mine = |report: &StatusReport| (report.task_id, report.claim) == (claim.task_id, claim.claim);
    let Some(mut report) = answer.reports.into_iter().find(mine) else {
        let code = answer.results.iter().find(|result| result.claim == claim.claim).map(|result| result.code);
        return match code {
            Some(SubmitCode::NoRoom | SubmitCode::Draining | SubmitCode::Unsupported) => {
                Called::NotTaken(format!("the URL did not take the task: {code:?}"))
            }
            _ => {
                let message = "the URL's answer has no outcome of the task in `reports`".into();
                Called::Ended(Box::new(failure(claim, ErrorCode::WorkerError, message, took)))
            }
        };
    };
    let mut findings = Findings::of("reports", 0);
    findings.report(&report);
    if let Some(wrong) = findings.into_errors().into_iter().next() {
        let message = format!("the URL's answer is not allowed: {} {}", wrong.pointer, wrong.detail);
        return Called::Ended(Box::new(failure(claim, ErrorCode::WorkerError, message, took)));
    }
    match report.status {
        ReportStatus::Released => Called::NotTaken("the URL gave the task back".into()),
        ReportStatus::Started | ReportStatus::Detached => {
            let message = "the URL only said that the task has started; its answer must have the outcome".into();
            Called::Ended(Box::new(failure(claim, ErrorCode::WorkerError, message, took)))
        }
        ReportStatus::Complete | ReportStatus::Failed | ReportStatus::Cancelled => {
            // Whoever is called need not know of times.
            report.started_ms_ago = report.started_ms_ago.or(Some(took.as_millis() as u64));
            report.ended_ms_ago = report.ended_ms_ago.or(Some(0));
            Called::Ended(Box::new(report))
        }
    }
}

fn failure(claim: TaskClaim, code: ErrorCode, message: String, took: Duration) -> StatusReport {
    StatusReport { error: Some(TaskError { code, message }), ..report(claim, ReportStatus::Failed, took) }
}

/// A report of what began so long ago, and ends now.
pub(crate) fn report(claim: TaskClaim, status: ReportStatus, began_ago: Duration) -> StatusReport {
    StatusReport {
        task_id: claim.task_id,
        claim: claim.claim,
        status,
        started_ms_ago: Some(began_ago.as_millis() as u64),
        ended_ms_ago: (status != ReportStatus::Started).then_some(0),
        result: None,
        error: None,
        permanent: false,
        retry_after_ms: None,
    }
}

/// Where calls may lead. Names are checked when they are connected to, so that none can change its mind (DNS rebinding).
#[derive(Debug, Clone)]
struct Guard(Arc<[IpNet]>);

/// A name or an address that must not be called.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0} is a private, local or reserved address, in none of the networks that this coordinator allows (--worker-networks)"
)]
struct Refused(String);

impl Guard {
    fn allows(&self, address: IpAddr) -> bool {
        let inner = destination::inner(address);
        let is_listed = self.0.iter().any(|network| network.contains(&address) || network.contains(&inner));
        destination::is_possible(address) && (is_listed || destination::is_public(inner))
    }

    /// An address in the URL is resolved by nobody, so nobody else would check it.
    fn check_url(&self, url: &str) -> Result<(), String> {
        let url = url::Url::parse(url).map_err(|error| error.to_string())?;
        let address: IpAddr = match url.host() {
            Some(url::Host::Ipv4(address)) => address.into(),
            Some(url::Host::Ipv6(address)) => address.into(),
            _ => return Ok(()),
        };
        if self.allows(address) { Ok(()) } else { Err(Refused(address.to_string()).to_string()) }
    }
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let (name, guard) = (name.as_str().to_owned(), self.clone());
        Box::pin(async move {
            // Port 0 stands for the URL's.
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let allowed: Vec<SocketAddr> = found.iter().copied().filter(|address| guard.allows(address.ip())).collect();
            match (allowed.is_empty(), found.first()) {
                (true, Some(address)) => Err(Refused(format!("{name} ({})", address.ip())).into()),
                _ => Ok(Box::new(allowed.into_iter()) as Addrs),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const TOOK: Duration = Duration::from_millis(40);
    const TIMEOUT: Duration = Duration::from_secs(1);
    const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

    fn claim() -> TaskClaim {
        TaskClaim { task_id: ID.parse().unwrap(), claim: 7 }
    }

    fn answered(results: Value, reports: Value) -> Called {
        let answer = json!({"results": results, "room": 0, "reports": reports});
        meaning(claim(), Ok(serde_json::from_value(answer).unwrap()), TOOK, TIMEOUT)
    }

    fn ended(called: Called) -> StatusReport {
        match called {
            Called::Ended(report) => *report,
            Called::NotTaken(why) => panic!("not taken: {why}"),
        }
    }

    #[test]
    fn an_outcome_in_the_answer_is_the_attempts_end() {
        let report = ended(answered(json!([]), json!([{"task_id": ID, "claim": 7, "status": "COMPLETE"}])));
        assert_eq!((report.status, report.started_ms_ago), (ReportStatus::Complete, Some(40)));
        let wrong = json!([{"task_id": ID, "claim": 7, "status": "FAILED", "permanent": true}]);
        assert!(ended(answered(json!([]), wrong)).permanent);
    }

    #[test]
    fn an_answer_without_the_tasks_outcome_fails_the_attempt() {
        let taken = json!([{"task_id": ID, "claim": 7, "code": "accepted"}]);
        for reports in [
            json!([]),
            json!([{"task_id": ID, "claim": 6, "status": "COMPLETE"}]),
            json!([{"task_id": ID, "claim": 7, "status": "STARTED"}]),
            json!([{"task_id": ID, "claim": 7, "status": "COMPLETE", "result": {"stdout": "x".repeat(70_000)}}]),
        ] {
            let report = ended(answered(taken.clone(), reports));
            assert_eq!(report.error.unwrap().code, ErrorCode::WorkerError);
        }
    }

    #[test]
    fn what_was_not_taken_goes_to_others() {
        for code in ["no_room", "draining", "unsupported"] {
            let called = answered(json!([{"task_id": ID, "claim": 7, "code": code}]), json!([]));
            assert!(matches!(called, Called::NotTaken(_)), "{code}");
        }
        let back = answered(json!([]), json!([{"task_id": ID, "claim": 7, "status": "RELEASED"}]));
        assert!(matches!(back, Called::NotTaken(_)));
    }

    #[test]
    fn a_status_says_whether_the_task_may_have_run() {
        let with = |status: u16| {
            let status = http::StatusCode::from_u16(status).unwrap();
            meaning(claim(), Err(ClientError::Unexpected { address: "x".into(), status }), TOOK, TIMEOUT)
        };
        assert!(NOT_TAKEN.into_iter().all(|status| matches!(with(status), Called::NotTaken(_))));
        for status in [200, 302, 400, 422, 500, 502, 504] {
            assert_eq!(ended(with(status)).error.unwrap().code, ErrorCode::WorkerError, "{status}");
        }
        let gone = |took| {
            let error = ClientError::NoAnswer { address: "x".into(), reason: "x".into() };
            ended(meaning(claim(), Err(error), took, TIMEOUT)).error.unwrap().code
        };
        assert_eq!((gone(TOOK), gone(TIMEOUT)), (ErrorCode::WorkerError, ErrorCode::Timeout));
        let refused = ClientError::Connect { address: "x".into(), reason: "refused".into() };
        assert_eq!(meaning(claim(), Err(refused), TOOK, TIMEOUT), Called::NotTaken("refused".into()));
    }

    #[test]
    fn calls_lead_to_public_addresses_and_to_networks_that_are_allowed() {
        let guard = Guard(vec!["10.0.0.0/8".parse().unwrap()].into());
        for (url, allowed) in [
            ("https://1.1.1.1/run", true),
            ("https://example.com/run", true),
            ("http://10.1.2.3:8080/run", true),
            ("http://[::ffff:10.1.2.3]/run", true),
            ("http://192.168.0.1/run", false),
            ("http://127.0.0.1/run", false),
            ("http://0x7f000001/run", false),
            ("http://[::1]/run", false),
            ("http://169.254.169.254/latest", false),
            ("http://0.0.0.0/run", false),
        ] {
            assert_eq!(guard.check_url(url).is_ok(), allowed, "{url}");
        }
    }

    #[tokio::test]
    async fn a_name_that_leads_to_a_refused_address_is_not_connected_to() {
        let caller = UrlCaller::new(&[], TIMEOUT).unwrap();
        let request = SubmitTaskRequest {
            worker_id: "x".into(),
            tasks: vec![
                serde_json::from_value(
                    json!({"task_id": ID, "claim": 7, "attempt": 1, "timeout_ms": 1, "work": {"command": "true"}}),
                )
                .unwrap(),
            ],
        };
        match caller.call("http://localhost:9/", "secret", &request, TIMEOUT).await {
            Called::NotTaken(why) => assert!(why.contains("--worker-networks"), "{why}"),
            Called::Ended(report) => panic!("{report:?}"),
        }
    }
}
