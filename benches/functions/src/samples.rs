//! What the functions work on: tasks of all kinds, as users write them.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use taskmaster_openapi::report::TaskClaim;
use taskmaster_openapi::task::{HttpMethod, HttpWork, Work};
use uuid::Uuid;

use crate::ITEMS;

/// Ids as they follow one another in life: made in one millisecond, and else at random.
pub(crate) fn id(i: usize) -> Uuid {
    let random = (i as u128 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835) >> 66;
    Uuid::from_u128(0x0189_0a5d_ac96_7000_8000_0000_0000_0000 | random)
}

pub(crate) fn claim(i: usize) -> TaskClaim {
    TaskClaim { task_id: id(i), claim: i as i64 + 1 }
}

pub(crate) fn claims() -> Vec<TaskClaim> {
    (0..ITEMS).map(claim).collect()
}

/// 2026-01-31, and some microseconds more for each.
pub(crate) fn time(i: usize) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::microseconds(1_769_817_600_000_000 + i as i64 * 1_234)
}

/// A body of `POST /v1/tasks`.
pub(crate) fn new_task(i: usize) -> Value {
    match i % 4 {
        0 => json!({"command": format!("echo hello {i}")}),
        1 => json!({
            "argv": ["/usr/bin/convert", format!("in-{i}.png"), "-resize", "50%", "out.png"], "queue": "images",
            "priority": 5, "max_attempts": 5, "timeout_seconds": 60, "tags": ["images", format!("customer-{i}")],
        }),
        2 => json!({
            "http": {
                "url": format!("https://example.com/hooks/{i}?source=tests"), "method": "POST",
                "headers": {"Content-Type": "application/json", "X-Request-Id": i.to_string()},
                "body": format!("{{\"order\":{i},\"state\":\"paid\"}}"),
            },
            "queue": "hooks", "delay_seconds": 30.5,
            "retry": {"initial_seconds": 2, "multiplier": 3, "max_seconds": 600, "jitter": 0.1},
        }),
        _ => json!({
            "command": format!("/opt/reports/run --day {i}"), "queue": "reports", "scheduled_at": time(i),
            "retry": {"delays_seconds": [1, 10, 60, 600]}, "tags": ["nightly"],
        }),
    }
}

/// The work of such a task.
pub(crate) fn work(i: usize) -> Work {
    match i % 4 {
        1 => Work::Argv(
            ["/usr/bin/convert", "in.png", "-resize", "50%", "out.png"].into_iter().map(str::to_owned).collect(),
        ),
        2 => Work::Http(HttpWork {
            method: HttpMethod::Post,
            url: format!("https://example.com/hooks/{i}?source=tests"),
            headers: [("Content-Type".to_owned(), "application/json".to_owned())].into(),
            body: Some(format!("{{\"order\":{i},\"state\":\"paid\"}}")),
            ..HttpWork::default()
        }),
        _ => Work::Command(format!("echo hello {i}")),
    }
}
