//! Schedules as users meet them: over HTTP, with workers that run what they make; and the page about them keeps its word.

use std::process::Command;

use reqwest::Method;
use serde_json::{Value, json};
use taskmaster_openapi::event::EventType;
use taskmaster_openapi::key::{IssuedKey, Scope};
use taskmaster_openapi::schedule::{
    BackfillResponse, Preview, Run, RunList, RunState, RunTrigger, Schedule, ScheduleList,
};
use taskmaster_openapi::task::{Task, TaskStatus};
use uuid::Uuid;

use crate::support::{Api, Reply, Target, Up, until};

const PAGE: &str = include_str!("../../docs/schedules.md");
/// Where the page's examples find the API.
const ADDRESS: &str = "127.0.0.1:8081";

fn path(id: Uuid) -> String {
    format!("/v1/schedules/{id}")
}

async fn create(api: &Api, schedule: Value) -> Schedule {
    api.post("/v1/schedules", &schedule).await.expect(201)
}

async fn runs(api: &Api, id: Uuid) -> Vec<Run> {
    api.fetch(&format!("{}/runs?page_size=500", path(id))).await.expect::<RunList>(200).runs
}

async fn patch(api: &Api, id: Uuid, body: &Value, headers: &[(&str, &str)]) -> Reply {
    api.send(Method::PATCH, &path(id), Some(body), headers).await
}

#[tokio::test]
async fn a_schedule_lives_from_creation_over_changes_to_its_end() {
    let up = Up::start(&["--ephemeral"]).await;
    let api = &up.api;
    let target = Target::quick().await;
    let secret =
        json!({"url": target.url("/"), "headers": {"Authorization": "Bearer hunter2", "Accept": "text/plain"}});
    let body = json!({"name": "nightly", "cron": "30 2 * * *", "time_zone": "Europe/Berlin", "jitter_seconds": 600, "task": {"http": secret, "tags": ["n"]}});
    let made = api.send(Method::POST, "/v1/schedules", Some(&body), &[("Idempotency-Key", "one")]).await;
    let schedule: Schedule = made.expect(201);
    assert_eq!(made.header("location"), Some(path(schedule.id).as_str()));
    let again = api.send(Method::POST, "/v1/schedules", Some(&body), &[("Idempotency-Key", "one")]).await;
    assert_eq!((again.expect::<Schedule>(201).id, again.header("idempotency-replayed")), (schedule.id, Some("true")));
    let other = json!({"name": "other", "every_seconds": 60, "task": {"command": "true"}});
    let mismatch = api.send(Method::POST, "/v1/schedules", Some(&other), &[("Idempotency-Key", "one")]).await;
    assert_eq!((mismatch.status.as_u16(), &mismatch.json()["code"]), (422, &json!("idempotency_mismatch")));
    let taken = api.post("/v1/schedules", &body).await;
    assert_eq!((taken.status.as_u16(), &taken.json()["code"]), (409, &json!("schedule_name_taken")));

    // The next run that is shown is the one that the preview shows, jitter and all.
    let preview: Preview = api.fetch(&format!("{}/preview?count=2", path(schedule.id))).await.expect(200);
    assert_eq!(schedule.next_run_at, Some(preview.occurrences[0].run_at));
    assert_eq!(schedule.next_occurrence_at, Some(preview.occurrences[0].occurrence_at));
    assert!(preview.occurrences[0].run_at >= preview.occurrences[0].occurrence_at && preview.occurrences.len() == 2);

    // Secrets are not read back, and survive a change of something else.
    let seen = api.fetch(&path(schedule.id)).await;
    let tag = seen.header("etag").unwrap().to_owned();
    let http = seen.expect::<Schedule>(200).task.http.unwrap();
    assert_eq!((http.headers["Authorization"].as_str(), http.headers["Accept"].as_str()), ("***", "text/plain"));
    let unchanged = api.send(Method::GET, &path(schedule.id), None, &[("If-None-Match", &tag)]).await;
    assert_eq!(unchanged.status, 304);
    let change = json!({"time_zone": null, "overlap": "skip", "name": null});
    let changed = patch(api, schedule.id, &change, &[("If-Match", &tag)]).await.expect::<Schedule>(200);
    assert_eq!((changed.time_zone.as_str(), changed.name, changed.revision), ("UTC", None, 2));
    assert_eq!((changed.jitter_seconds, changed.task.tags), (600, Some(vec!["n".to_owned()])));
    let stale = patch(api, schedule.id, &json!({"overlap": "allow"}), &[("If-Match", &tag)]).await;
    assert_eq!((stale.status.as_u16(), &stale.json()["code"]), (412, &json!("precondition_failed")));
    let task: Task = api.send(Method::POST, &format!("{}/trigger", path(schedule.id)), None, &[]).await.expect(201);
    api.ended(task.id).await;
    let arrival = &target.of(task.id)[0];
    assert_eq!(arrival.headers["authorization"], "Bearer hunter2");
    for (wrong, pointer) in [
        (json!({"cron": "61 * * * *"}), "/cron"),
        (json!({"every_seconds": 5}), "/every_seconds"),
        (json!({"task": {"command": "true"}}), "/task"),
        (json!({"colour": "red"}), "/colour"),
        (json!({"task": null}), ""),
    ] {
        let refused = patch(api, schedule.id, &wrong, &[]).await;
        assert_eq!(refused.status, 422, "{wrong}");
        assert_eq!(refused.json()["errors"][0]["pointer"], pointer, "{wrong}");
    }

    // Paused, resumed, gone.
    let paused: Schedule =
        api.post(&format!("{}/pause", path(schedule.id)), &json!({"reason": "a move"})).await.expect(200);
    assert_eq!((paused.pause_reason.as_deref(), paused.next_run_at), (Some("a move"), None));
    let resumed: Schedule =
        api.send(Method::POST, &format!("{}/resume", path(schedule.id)), None, &[]).await.expect(200);
    assert!(resumed.paused_at.is_none() && resumed.next_run_at.is_some());
    let mut told = api.events(&format!("schedule_id={}&after=0", schedule.id)).await;
    for expected in [EventType::SchedulePaused, EventType::ScheduleResumed] {
        let event = told.next().await.event();
        assert_eq!((event.event_type, event.schedule_id), (expected, Some(schedule.id)));
    }
    let gone = api.send(Method::DELETE, &path(schedule.id), None, &[]).await;
    assert_eq!(gone.status, 204);
    for (method, path) in [
        (Method::GET, path(schedule.id)),
        (Method::DELETE, path(schedule.id)),
        (Method::POST, format!("{}/resume", path(schedule.id))),
        (Method::POST, format!("{}/trigger", path(schedule.id))),
        (Method::GET, format!("{}/runs", path(schedule.id))),
        (Method::GET, format!("{}/preview", path(schedule.id))),
    ] {
        let missing = api.send(method.clone(), &path, None, &[]).await;
        assert_eq!(
            (missing.status.as_u16(), &missing.json()["code"]),
            (404, &json!("schedule_not_found")),
            "{method} {path}"
        );
    }
}

#[tokio::test]
async fn schedules_run_on_time_and_their_runs_tell_what_became_of_them() {
    let up = Up::start(&["--ephemeral"]).await;
    let api = &up.api;
    let ticks = create(api, json!({"cron": "* * * * * *", "task": {"command": "true"}})).await;
    // Six occurrences each, however long it takes to create the schedules.
    let starts_at = ticks.created_at + chrono::TimeDelta::seconds(4);
    let six = async |overlap: &str, command: &str| {
        let ends_at = starts_at + chrono::TimeDelta::seconds(5);
        let schedule = json!({
            "every_seconds": 1, "starts_at": starts_at, "ends_at": ends_at, "overlap": overlap, "task": {"command": command},
        });
        create(api, schedule).await
    };
    let slow = six("skip", "sleep 2.5").await;
    let queued = six("queue_one", "sleep 1.5").await;
    let replaced = six("cancel_old", "sleep 30").await;
    let failing = create(
        api,
        json!({"every_seconds": 1, "pause_after_failures": 2, "task": {"command": "false", "max_attempts": 1}}),
    )
    .await;

    let done = async || {
        let states: Vec<RunState> = runs(api, slow.id).await.iter().map(|run| run.state).collect();
        (states.len() >= 6).then_some(states)
    };
    let states = until("six occurrences have passed", done).await;
    assert!(states.contains(&RunState::Skipped) && states.contains(&RunState::Fired), "{states:?}");
    // Of those that ran no two ran at once, and each that was left out was while one ran.
    let slow_runs: Vec<Task> = tasks(api, slow.id).await;
    assert!((2..=3).contains(&slow_runs.len()), "{slow_runs:?}");

    let waited = async || {
        let all = runs(api, queued.id).await;
        let is_over = all.len() >= 6 && all.iter().all(|run| run.state != RunState::Waiting);
        (is_over && all.iter().all(|run| run.task_status.is_none_or(TaskStatus::is_terminal))).then_some(all)
    };
    let all = until("nothing waits any more", waited).await;
    let mut ran: Vec<Task> = tasks(api, queued.id).await;
    ran.sort_by_key(|task| task.scheduled_at);
    assert!(ran.len() >= 3 && all.iter().any(|run| run.state == RunState::Skipped), "{all:?}");
    assert!(ran.windows(2).all(|pair| pair[0].completed_at <= pair[1].started_at), "two ran at once");

    let cancelled = async || {
        let all = tasks(api, replaced.id).await;
        let cancelled = all.iter().filter(|task| task.status == TaskStatus::Cancelled).count();
        (all.len() >= 6 && cancelled >= all.len() - 1).then_some(())
    };
    until("each has cancelled the one before", cancelled).await;
    api.post("/v1/tasks/cancel", &json!({"filter": {"schedule_id": replaced.id}})).await.expect::<Value>(200);

    let paused = async || {
        let schedule: Schedule = api.fetch(&path(failing.id)).await.expect(200);
        schedule.paused_at.and(schedule.pause_reason)
    };
    assert_eq!(until("paused after failures", paused).await, "its last 2 runs FAILED");

    // The ticks have started on time: made ahead, and none before its time.
    let on_time = async || {
        let done: Vec<Task> = tasks(api, ticks.id).await;
        let done: Vec<Task> = done.into_iter().filter(|task| task.status == TaskStatus::Complete).collect();
        (done.len() >= 6).then_some(done)
    };
    let done = until("ticks are complete", on_time).await;
    assert!(
        done.iter().all(|task| task.started_at.unwrap() >= task.scheduled_at && task.created_at < task.scheduled_at),
        "{done:?}"
    );
    let schedule: Schedule = api.fetch(&path(ticks.id)).await.expect(200);
    assert!(schedule.last_occurrence_at.unwrap() < schedule.next_occurrence_at.unwrap());
    let page: RunList = api.fetch(&format!("{}/runs?page_size=2", path(ticks.id))).await.expect(200);
    let next: RunList = api
        .fetch(&format!("{}/runs?page_size=2&page_token={}", path(ticks.id), page.next_page_token))
        .await
        .expect(200);
    let times: Vec<_> = page.runs.iter().chain(&next.runs).map(|run| run.occurrence_at).collect();
    assert!(times.len() == 4 && times.windows(2).all(|pair| (pair[0] - pair[1]).num_seconds() == 1), "{times:?}");
}

/// All tasks of a schedule.
async fn tasks(api: &Api, id: Uuid) -> Vec<Task> {
    api.list(&format!("schedule_id={id}")).await
}

#[tokio::test]
async fn lists_are_paged_backfills_run_once_and_keys_allow_what_their_scopes_say() {
    let up = Up::start(&["--ephemeral"]).await;
    let api = &up.api;
    let mut made = Vec::new();
    for i in 0..5 {
        made.push(create(api, json!({"name": format!("s{i}"), "cron": "@hourly", "starts_at": "2026-01-01T00:00:00Z", "task": {"command": "echo x"}})).await.id);
    }
    made.reverse();
    let (mut listed, mut next) = (Vec::new(), "/v1/schedules?page_size=2".to_owned());
    loop {
        let reply = api.fetch(&next).await;
        listed.extend(reply.expect::<ScheduleList>(200).schedules.into_iter().map(|schedule| schedule.id));
        let Some(link) = reply.header("link") else { break };
        next = link.trim_start_matches('<').split('>').next().unwrap().to_owned();
    }
    assert_eq!(listed, made);
    let named: ScheduleList = api.fetch("/v1/schedules?name=s3").await.expect(200);
    assert_eq!(named.schedules.iter().map(|schedule| schedule.id).collect::<Vec<_>>(), [made[1]]);

    let backfill = format!("{}/backfill", path(made[0]));
    let range = json!({"from": "2026-01-01T00:00:00Z", "to": "2026-01-01T05:00:00Z"});
    for expected in [5, 0] {
        let filled: BackfillResponse = api.post(&backfill, &range).await.expect(200);
        assert_eq!((filled.occurrences, filled.runs), (5, expected));
    }
    let all_complete = async || {
        let runs = runs(api, made[0]).await;
        runs.iter().all(|run| run.task_status == Some(TaskStatus::Complete)).then_some(runs)
    };
    let filled = until("the backfill is done", all_complete).await;
    assert!(filled.iter().filter(|run| run.trigger == RunTrigger::Backfill).count() == 5, "{filled:?}");
    for (wrong, pointer) in [
        (json!({"from": "2026-01-02T00:00:00Z", "to": "2026-01-01T00:00:00Z"}), "/to"),
        (json!({"from": "2026-01-02T00:00:00Z", "to": "9000-01-01T00:00:00Z"}), "/to"),
    ] {
        let refused = api.post(&backfill, &wrong).await;
        assert_eq!((refused.status.as_u16(), &refused.json()["errors"][0]["pointer"]), (422, &json!(pointer)));
    }

    let with = async |scopes: &[Scope]| {
        let key: IssuedKey = api.post("/v1/keys", &json!({"name": "k", "scopes": scopes})).await.expect(201);
        api.with_key(&key.token)
    };
    let (reader, writer) = (with(&[Scope::TasksRead]).await, with(&[Scope::TasksRead, Scope::TasksWrite]).await);
    let command = json!({"every_seconds": 3600, "task": {"command": "true"}});
    let request = json!({"every_seconds": 3600, "task": {"http": {"url": "http://127.0.0.1:1/"}}});
    assert_eq!(reader.fetch(&path(made[0])).await.status, 200);
    assert_eq!(reader.post("/v1/schedules", &request).await.status, 403);
    assert_eq!(writer.post("/v1/schedules", &request).await.status, 201);
    let refused = writer.post("/v1/schedules", &command).await;
    assert_eq!((refused.status.as_u16(), &refused.json()["errors"][0]["pointer"]), (403, &json!("/task/command")));
}

#[tokio::test]
async fn every_command_of_the_page_about_schedules_works_as_it_stands() {
    let up = Up::start(&["--ephemeral"]).await;
    let address = up.api.url.strip_prefix("http://").unwrap();
    let blocks = PAGE.split("\n```").filter_map(|part| part.strip_prefix("sh\n"));
    let script: Vec<String> = blocks.map(|block| block.replace(ADDRESS, address)).collect();
    assert!(script.len() >= 4, "{script:#?}");
    let curl = "curl() { command curl --fail-with-body --show-error --max-time 30 \"$@\"; }\n";
    let ran = Command::new("sh").arg("-euc").arg(format!("{curl}{}", script.join("\n"))).output().unwrap();
    let (answer, error) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{answer}\n{error}");
    assert!(answer.contains("2026-03-29T03:00:00+02:00"), "{answer}");
}
