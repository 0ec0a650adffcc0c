//! The claims: what a worker must do, each tried on a worker of its own.

use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use taskmaster_openapi::report::{ReportStatus, StatusReport};
use taskmaster_openapi::task::{ErrorCode, Work};
use taskmaster_openapi::worker::{ReleaseCode, SubmitCode, SubmitTaskRequest, SubmittedTask};

use super::stage::{NEVER_MS, Stage, claim_of};
use super::standin::{Heard, JOIN_TOKEN, LEASE_MS, ReportFault, StandIn};

/// What came of trying a claim.
pub enum Verdict {
    Holds,
    DoesNotApply(&'static str),
}

type Tried = Result<Verdict, String>;

/// Something that a worker must do.
pub struct Claim {
    pub name: &'static str,
    pub test: for<'a> fn(&'a mut Stage) -> BoxFuture<'a, Tried>,
}

macro_rules! claims {
    ($($name:literal => $test:ident),+ $(,)?) => {
        &[$(Claim { name: $name, test: |stage| Box::pin($test(stage)) }),+]
    };
}

/// All of them, in the order of docs/workers.md.
pub const CLAIMS: &[Claim] = claims![
    "joins with the join token, and goes on with its own" => joins,
    "joins again when its token is refused" => joins_again,
    "runs a task, and reports that it succeeded" => runs,
    "reports what failed, and why" => fails,
    "hears nobody who does not have its push secret" => checks_the_secret,
    "refuses what is meant for another worker" => refuses_what_is_anothers,
    "refuses what is not valid, and goes on" => refuses_nonsense,
    "takes a claim once, however often it is pushed" => takes_once,
    "takes as much as it has room for" => keeps_to_its_room,
    "runs at most as many tasks at once as it has slots" => keeps_to_its_slots,
    "refuses work that it does not do" => refuses_other_work,
    "starts nothing early" => is_never_early,
    "ends an attempt that takes too long" => times_out,
    "reports again and again until it is answered" => reports_until_answered,
    "names all that it holds, and nothing else" => names_what_it_holds,
    "lets go of what waits" => releases,
    "does not start what a heartbeat's answer says to stop" => stops_what_waits,
    "does not fail when it is told to stop what runs" => stops_what_runs,
    "starts nothing when its lease is over" => keeps_to_its_lease,
    "turns to another coordinator when its home is gone" => turns_to_another,
    "drains when it is terminated" => drains_when_terminated,
    "drains when a heartbeat's answer says so" => drains_when_asked,
];

fn expect(holds: bool, right: &str, seen: impl std::fmt::Debug) -> Result<(), String> {
    if holds { Ok(()) } else { Err(format!("{right}; there was {seen:?}")) }
}

fn expect_status(report: &StatusReport, status: ReportStatus) -> Result<(), String> {
    expect(report.status == status, &format!("the report must be {status:?}"), report)
}

async fn joins(stage: &mut Stage) -> Tried {
    stage.standin.heartbeats(3).await?;
    let heard = stage.standin.heard();
    for (i, heartbeat) in heard.heartbeats.iter().enumerate() {
        let token = if i == 0 { JOIN_TOKEN } else { heard.token.as_str() };
        expect(
            heartbeat.token == token,
            &format!("the bearer token of heartbeat {i} must be {token}"),
            &heartbeat.token,
        )?;
        let same = heartbeat.worker_id == stage.worker_id && heartbeat.body.push_secret == stage.first.push_secret;
        expect(same, "a worker has one id and one push secret from its start to its end", heartbeat)?;
        expect(heartbeat.body.held.is_empty(), "a worker that was given nothing holds nothing", &heartbeat.body.held)?;
    }
    Ok(Verdict::Holds)
}

async fn joins_again(stage: &mut Stage) -> Tried {
    stage.standin.set(|heard| {
        heard.token = "another-token-of-this-worker-alone-with-43-or-more-characters".into();
        heard.heartbeats.clear();
    });
    let rejoined = |heard: &Heard| {
        let mut tokens = heard.heartbeats.iter().map(|heartbeat| heartbeat.token.as_str());
        (tokens.any(|token| token == JOIN_TOKEN) && tokens.any(|token| token == heard.token)).then_some(())
    };
    stage.standin.until("a heartbeat with the join token, and one with the new token", rejoined).await?;
    stage.works().await?;
    Ok(Verdict::Holds)
}

async fn runs(stage: &mut Stage) -> Tried {
    let task = SubmittedTask { attempt: 3, ..stage.task("ok") };
    let claim = stage.give(&task).await?;
    let report = stage.standin.outcome(claim).await?;
    expect_status(&report, ReportStatus::Complete)?;
    let status = report.result.as_ref().and_then(|result| result.http_status);
    expect(status == Some(200), "`result/http_status` must be 200", &report)?;
    let heard = stage.standin.heard();
    let call = heard.calls.iter().find(|call| call.task_id == Some(claim.task_id));
    let attempt = call.and_then(|call| call.attempt);
    expect(attempt == Some(3), "the request must carry TaskMaster-Task-Id and TaskMaster-Attempt", &heard.calls)?;
    Ok(Verdict::Holds)
}

async fn fails(stage: &mut Stage) -> Tried {
    let claim = stage.give(&stage.task("fails")).await?;
    let report = stage.standin.outcome(claim).await?;
    expect_status(&report, ReportStatus::Failed)?;
    let status = report.result.as_ref().and_then(|result| result.http_status);
    expect(status == Some(500), "`result/http_status` must be 500", &report)?;
    let code = report.error.as_ref().map(|error| error.code);
    expect(code == Some(ErrorCode::HttpStatus), "`error/code` must be http_status", &report)?;
    Ok(Verdict::Holds)
}

async fn checks_the_secret(stage: &mut Stage) -> Tried {
    let task = stage.task("ok");
    let request = SubmitTaskRequest { worker_id: stage.worker_id.clone(), tasks: vec![task.clone()] };
    for secret in ["", "not-the-push-secret", JOIN_TOKEN] {
        let answer = stage.push(secret, &request).await;
        let status = answer.as_ref().err().and_then(|error| error.status());
        expect(status.is_some_and(|status| status == 401), "a wrong push secret must be answered 401", &answer)?;
    }
    stage.works().await?;
    expect(stage.standin.calls_of(claim_of(&task)) == 0, "what was refused must not run", "a call")?;
    Ok(Verdict::Holds)
}

async fn refuses_what_is_anothers(stage: &mut Stage) -> Tried {
    let task = stage.task("ok");
    let request = SubmitTaskRequest { worker_id: "somebody-else".into(), tasks: vec![task.clone()] };
    let answer = stage.push(&stage.first.push_secret, &request).await;
    let status = answer.as_ref().err().and_then(|error| error.status());
    expect(status.is_some_and(|status| status.is_client_error()), "another's tasks must be answered 4xx", &answer)?;
    stage.works().await?;
    expect(stage.standin.calls_of(claim_of(&task)) == 0, "what was refused must not run", "a call")?;
    Ok(Verdict::Holds)
}

async fn refuses_nonsense(stage: &mut Stage) -> Tried {
    let http = taskmaster_service::client::build(stage.patience).map_err(|error| error.to_string())?;
    let url = format!("{}{}", stage.first.address, taskmaster_openapi::worker::paths::TASKS);
    for body in ["", "{", "[]", "{\"tasks\": 7}", "{\"worker_id\": 7, \"tasks\": [{}]}"] {
        let request = http.post(&url).bearer_auth(&stage.first.push_secret);
        let request = request.header("content-type", "application/json").body(body);
        let answer = request.send().await.map_err(|error| format!("{body:?} was not answered: {error}"))?;
        expect(answer.status().is_client_error(), &format!("{body:?} must be answered 4xx"), answer.status())?;
    }
    stage.works().await?;
    Ok(Verdict::Holds)
}

async fn takes_once(stage: &mut Stage) -> Tried {
    let task = stage.task("held");
    let claim = stage.give(&task).await?;
    let again = stage.offer(&task).await?;
    expect(again == SubmitCode::AlreadyHeld, "a claim that is held must be answered already_held", again)?;
    stage.standin.set(|heard| heard.opened = true);
    stage.standin.outcome(claim).await?;
    stage.is_held(claim, false).await?;
    let again = stage.offer(&task).await?;
    expect(
        again == SubmitCode::AlreadyHeld,
        "a claim that has ended is still known, and answered already_held",
        again,
    )?;
    stage.works().await?;
    let calls = stage.standin.calls_of(claim);
    expect(calls == 1, "the task must run once", calls)?;
    Ok(Verdict::Holds)
}

async fn keeps_to_its_room(stage: &mut Stage) -> Tried {
    let room = usize::try_from(stage.first.room).map_err(|_| "room is below 0")?;
    let tasks: Vec<SubmittedTask> =
        (0..=room).map(|_| SubmittedTask { start_in_ms: NEVER_MS, ..stage.task("ok") }).collect();
    let mut codes = Vec::new();
    for part in tasks.chunks(1_000) {
        codes.extend(stage.submit(part).await?.results.into_iter().map(|result| result.code));
    }
    let taken = codes.iter().filter(|code| **code == SubmitCode::Accepted).count();
    expect(taken == room, &format!("{room} tasks must be taken, the room that the heartbeat named"), taken)?;
    expect(codes.last() == Some(&SubmitCode::NoRoom), "the task beyond must be answered no_room", codes.last())?;
    stage.standin.heartbeats(2).await?;
    let room = stage.standin.heard().heartbeats.last().map(|heartbeat| heartbeat.body.room);
    expect(room == Some(0), "the heartbeats that follow must name no room", room)?;
    Ok(Verdict::Holds)
}

async fn keeps_to_its_slots(stage: &mut Stage) -> Tried {
    let slots = usize::try_from(stage.first.slots).map_err(|_| "slots is below 0")?;
    if slots > 200 {
        return Ok(Verdict::DoesNotApply("it has more than 200 slots"));
    }
    let room = usize::try_from(stage.first.room).unwrap_or_default();
    let tasks: Vec<SubmittedTask> = (0..(slots + 3).min(room)).map(|_| stage.task("held")).collect();
    stage.submit(&tasks).await?;
    let all_busy = |heard: &Heard| (heard.calls_in_progress >= slots).then_some(());
    stage.standin.until("as many calls at once as the worker has slots", all_busy).await?;
    // What is beyond the slots would begin now.
    stage.standin.heartbeats(3).await?;
    stage.standin.set(|heard| heard.opened = true);
    for task in &tasks {
        expect_status(&stage.standin.outcome(claim_of(task)).await?, ReportStatus::Complete)?;
    }
    let most = stage.standin.heard().calls_in_progress_max;
    expect(most == slots, &format!("{slots} tasks may run at once"), most)?;
    Ok(Verdict::Holds)
}

async fn refuses_other_work(stage: &mut Stage) -> Tried {
    if stage.first.abilities.commands {
        return Ok(Verdict::DoesNotApply("it runs commands as well as HTTP requests"));
    }
    for work in [Work::Command("true".into()), Work::Argv(vec!["true".into()])] {
        let code = stage.offer(&SubmittedTask { work, ..stage.task("ok") }).await?;
        expect(code == SubmitCode::Unsupported, "commands must be answered unsupported", code)?;
    }
    Ok(Verdict::Holds)
}

async fn is_never_early(stage: &mut Stage) -> Tried {
    for delay_ms in [150.5, 400.0, 900.0] {
        let task = SubmittedTask { start_in_ms: delay_ms, ..stage.task("ok") };
        let pushed = Instant::now();
        let claim = stage.give(&task).await?;
        stage.standin.outcome(claim).await?;
        let heard = stage.standin.heard();
        let began = heard.calls.iter().find(|call| call.task_id == Some(claim.task_id)).map(|call| call.at);
        let waited = began.map(|began| began.saturating_duration_since(pushed));
        let right = format!("it must begin {delay_ms} ms after the push, or later");
        expect(waited.is_some_and(|waited| waited >= Duration::from_secs_f64(delay_ms / 1_000.0)), &right, waited)?;
    }
    Ok(Verdict::Holds)
}

async fn times_out(stage: &mut Stage) -> Tried {
    let task = SubmittedTask { timeout_ms: 300, ..stage.task("held") };
    let claim = stage.give(&task).await?;
    let report = stage.standin.outcome(claim).await?;
    expect_status(&report, ReportStatus::Failed)?;
    let code = report.error.as_ref().map(|error| error.code);
    expect(code == Some(ErrorCode::Timeout), "`error/code` must be timeout", &report)?;
    stage.works().await?;
    Ok(Verdict::Holds)
}

async fn reports_until_answered(stage: &mut Stage) -> Tried {
    use ReportFault::{LoseAnswer, NotRecorded, Refuse};
    let task = stage.task("held");
    let claim = stage.give(&task).await?;
    stage.standin.until("a call", |heard| (!heard.calls.is_empty()).then_some(())).await?;
    stage.standin.set(|heard| {
        heard.report_faults = [Refuse, Refuse, NotRecorded, LoseAnswer, Refuse, LoseAnswer].into();
        heard.opened = true;
    });
    stage.standin.until("another try to report", |heard| heard.report_faults.is_empty().then_some(())).await?;
    expect_status(&stage.standin.outcome(claim).await?, ReportStatus::Complete)?;
    stage.is_held(claim, false).await?;
    stage.works().await?;
    Ok(Verdict::Holds)
}

async fn names_what_it_holds(stage: &mut Stage) -> Tried {
    let waits = SubmittedTask { start_in_ms: NEVER_MS, ..stage.task("ok") };
    let (waits, runs) = (stage.give(&waits).await?, stage.give(&stage.task("held")).await?);
    stage.is_held(waits, true).await?;
    stage.is_held(runs, true).await?;
    // An outcome that nobody has acknowledged is held as well: who lost the task would run it again.
    stage.standin.set(|heard| {
        heard.report_faults = vec![ReportFault::Refuse; 20].into();
        heard.opened = true;
    });
    let refused = |heard: &Heard| (heard.report_faults.len() < 20).then_some(());
    stage.standin.until("a report", refused).await?;
    stage.is_held(runs, true).await?;
    stage.standin.set(|heard| heard.report_faults.clear());
    stage.standin.outcome(runs).await?;
    stage.is_held(runs, false).await?;
    stage.is_held(waits, true).await?;
    Ok(Verdict::Holds)
}

async fn releases(stage: &mut Stage) -> Tried {
    let waits = SubmittedTask { start_in_ms: 700.0, ..stage.task("ok") };
    let waits = stage.give(&waits).await?;
    let runs = stage.give(&stage.task("held")).await?;
    stage.standin.until("a call", |heard| (!heard.calls.is_empty()).then_some(())).await?;
    let code = stage.release(waits, false).await?;
    expect(code == ReleaseCode::Released, "what waits must be released", code)?;
    let code = stage.release(runs, false).await?;
    expect(code == ReleaseCode::Running, "what runs must be answered running", code)?;
    let unknown = claim_of(&stage.task("ok"));
    let code = stage.release(unknown, false).await?;
    expect(code == ReleaseCode::Unknown, "what it never held must be answered unknown", code)?;
    stage.is_held(waits, false).await?;
    let later = SubmittedTask { start_in_ms: 1_000.0, ..stage.task("ok") };
    let later = stage.give(&later).await?;
    stage.standin.outcome(later).await?;
    let calls = stage.standin.calls_of(waits);
    expect(calls == 0, "what was released must never run", calls)?;
    stage.standin.set(|heard| heard.opened = true);
    expect_status(&stage.standin.outcome(runs).await?, ReportStatus::Complete)?;
    Ok(Verdict::Holds)
}

async fn stops_what_waits(stage: &mut Stage) -> Tried {
    let waits = SubmittedTask { start_in_ms: 1_000.0, ..stage.task("ok") };
    let waits = stage.give(&waits).await?;
    stage.standin.set(|heard| heard.stop = vec![waits]);
    stage.is_held(waits, false).await?;
    let later = SubmittedTask { start_in_ms: 1_200.0, ..stage.task("ok") };
    let later = stage.give(&later).await?;
    stage.standin.outcome(later).await?;
    let calls = stage.standin.calls_of(waits);
    expect(calls == 0, "what was stopped before it began must never run", calls)?;
    Ok(Verdict::Holds)
}

async fn stops_what_runs(stage: &mut Stage) -> Tried {
    let claim = stage.give(&stage.task("held")).await?;
    stage.standin.until("a call", |heard| (!heard.calls.is_empty()).then_some(())).await?;
    stage.standin.set(|heard| heard.stop = vec![claim]);
    // A worker may let it end by itself.
    stage.standin.heartbeats(5).await?;
    stage.standin.set(|heard| heard.opened = true);
    let report = stage.standin.outcome(claim).await?;
    let right = matches!(report.status, ReportStatus::Cancelled | ReportStatus::Complete);
    expect(right, "it must be reported CANCELLED, or as it ended by itself", &report)?;
    stage.works().await?;
    Ok(Verdict::Holds)
}

async fn keeps_to_its_lease(stage: &mut Stage) -> Tried {
    let lease = Duration::from_millis(LEASE_MS);
    let waits = SubmittedTask { start_in_ms: lease.as_secs_f64() * 1_000.0 + 1_000.0, ..stage.task("ok") };
    let pushed = Instant::now();
    let waits = stage.give(&waits).await?;
    stage.standin.set(|heard| heard.refuses_heartbeats = true);
    let mut code = SubmitCode::Accepted;
    while code != SubmitCode::Draining && pushed.elapsed() < lease + stage.patience {
        code = stage.offer(&stage.task("ok")).await?;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    expect(code == SubmitCode::Draining, "once the lease is over, tasks must be answered draining", code)?;
    // By then the task has been due for a while.
    tokio::time::sleep((lease + Duration::from_millis(1_500)).saturating_sub(pushed.elapsed())).await;
    let calls = stage.standin.calls_of(waits);
    expect(calls == 0, "a task that becomes due after the lease must not start", calls)?;
    stage.standin.set(|heard| heard.refuses_heartbeats = false);
    expect_status(&stage.standin.outcome(waits).await?, ReportStatus::Complete)?;
    Ok(Verdict::Holds)
}

async fn turns_to_another(stage: &mut Stage) -> Tried {
    let other = StandIn::start(stage.patience).await?;
    other.set(|heard| heard.opened = true);
    stage.standin.set(|heard| heard.others = vec![other.url.clone()]);
    stage.standin.heartbeats(2).await?;
    let task = SubmittedTask { start_in_ms: 300.0, ..stage.task_at(&other, "ok") };
    let claim = stage.give(&task).await?;
    stage.standin.die();
    other.heartbeats(2).await?;
    expect_status(&other.outcome(claim).await?, ReportStatus::Complete)?;
    other.check()?;
    other.die();
    Ok(Verdict::Holds)
}

async fn drains_when_terminated(stage: &mut Stage) -> Tried {
    drains(stage, |stage| stage.terminate()).await?;
    let status = stage.ended().await?;
    expect(status.success(), "the process must end with status 0", status)?;
    Ok(Verdict::Holds)
}

async fn drains_when_asked(stage: &mut Stage) -> Tried {
    drains(stage, |stage| stage.standin.set(|heard| heard.drain = true)).await?;
    Ok(Verdict::Holds)
}

/// It takes nothing more, gives back what waits, finishes what runs, and says goodbye.
async fn drains(stage: &mut Stage, ask: impl FnOnce(&Stage)) -> Result<(), String> {
    let runs = stage.give(&stage.task("held")).await?;
    stage.standin.until("a call", |heard| (!heard.calls.is_empty()).then_some(())).await?;
    let waits = SubmittedTask { start_in_ms: NEVER_MS, ..stage.task("ok") };
    let waits = stage.give(&waits).await?;
    ask(stage);
    let says_so = |heard: &Heard| heard.heartbeats.last()?.body.draining.then_some(());
    stage.standin.until("a heartbeat with `draining`", says_so).await?;
    let code = stage.offer(&stage.task("ok")).await?;
    expect(code == SubmitCode::Draining, "a worker that drains must answer draining", code)?;
    expect_status(&stage.standin.outcome(waits).await?, ReportStatus::Released)?;
    stage.standin.set(|heard| heard.opened = true);
    expect_status(&stage.standin.outcome(runs).await?, ReportStatus::Complete)?;
    let id = stage.worker_id.clone();
    stage.standin.until("a DELETE of the worker", |heard| heard.removed.contains(&id).then_some(())).await
}
