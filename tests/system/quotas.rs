//! Rate limits of several gateways.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;

use crate::support::{Api, Reply, System};

const LIMIT: u32 = 300;
/// Requests of the client, half of them to each gateway.
const REQUESTS: u32 = 960;
/// Gateways tell one another once a second, and hear it within the next.
const TOLD_WITHIN_SECONDS: f64 = 3.0;

/// Whether a writing request, which is refused for its path, is admitted.
async fn is_admitted(api: &Api) -> bool {
    let reply = api.send(Method::POST, "/v1/tasks/no-id/cancel", None, &[]).await;
    assert!(reply.header("ratelimit-policy").unwrap().starts_with("\"writes\";q="), "{reply:?}");
    match reply.status.as_u16() {
        400 => true,
        429 => false,
        other => panic!("{other}: {}", reply.text),
    }
}

#[tokio::test]
async fn a_client_of_two_gateways_has_one_quota_and_what_it_is_admitted_for_within_the_seconds_that_they_hear_of_it() {
    let limit = LIMIT.to_string();
    let system = System::builder().coordinators(0).workers(0).gateway_args(&["--rate-limit-writes", &limit]);
    let mut system = system.start().await;
    let other = Api::new(&system.add_gateway().await);
    // Both have looked before anything is told.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(
        system.database.number("select count(*) from quota_use").await,
        0,
        "nothing is written while nobody asks"
    );

    let (began, mut admitted) = (Instant::now(), 0);
    for _ in 0..REQUESTS / 2 {
        for api in [&system.api, &other] {
            admitted += u32::from(is_admitted(api).await);
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    let seconds = began.elapsed().as_secs_f64();
    let (fair, asked_per_second) = (f64::from(LIMIT) * (1.0 + seconds / 60.0), f64::from(REQUESTS) / seconds);
    let over = f64::from(admitted) - fair;
    eprintln!(
        "{admitted} of {REQUESTS} requests admitted in {seconds:.1} s: {over:.0} more than one gateway would have"
    );
    assert!(admitted >= LIMIT, "{admitted}");
    assert!(over <= asked_per_second * TOLD_WITHIN_SECONDS, "{admitted} of {REQUESTS} in {seconds} s");
}

/// What is left of the quota of reads.
fn left(reply: &Reply) -> u32 {
    let left =
        reply.header("ratelimit").and_then(|value| value.strip_prefix("\"reads\";r=")).expect("a quota of reads");
    left.split(';').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn an_answer_that_the_client_has_already_costs_nothing() {
    // One comes back in twelve seconds: what is left does not rise by itself meanwhile.
    let system = System::builder().coordinators(0).workers(0).gateway_args(&["--rate-limit-reads", "5"]).start().await;
    let task = system.api.create(json!({"command": "true", "delay_seconds": 3600})).await;
    let path = format!("/v1/tasks/{}", task.id);
    // Readiness was asked for before, and the list of workers.
    let first = system.api.fetch(&path).await;
    let tag = first.header("etag").unwrap().to_owned();
    for _ in 0..20 {
        let again = system.api.send(Method::GET, &path, None, &[("if-none-match", &tag)]).await;
        assert_eq!((again.status.as_u16(), left(&again) >= left(&first)), (304, true), "{again:?}");
    }
    while system.api.fetch(&path).await.status == 200 {}
    let refused = system.api.send(Method::GET, &path, None, &[("if-none-match", &tag)]).await;
    assert_eq!(refused.status.as_u16(), 429, "whoever has nothing left is not looked at");
}
