use super::*;
use crate::config::RateLimits;
use crate::edge::client::Principal;
use crate::router::Operation;
use std::convert::Infallible;

use axum::body::Bytes;
use futures::{FutureExt, StreamExt, stream};
use taskmaster_store::keys::{KeyId, KeyToken};

#[tokio::test]
async fn with_keys_the_api_wants_one_and_documents_and_health_do_not() {
    let gateway = Gateway::with_keys(&["first-key", "second-key"]);
    for path in ["/v1/tasks", "/v1/events", "/v1/nothing"] {
        let answer = gateway.get(path).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (401, "unauthorized"), "{path}");
        assert_eq!(answer.header("www-authenticate"), "Bearer");
    }
    let with = |key: &str| request("GET", "/v1/tasks").header("authorization", format!("Bearer {key}"));
    assert_eq!(gateway.send(with("wrong").body(Body::empty()).unwrap()).await.code(), "unauthorized");
    assert_eq!(gateway.send(with("second-key").body(Body::empty()).unwrap()).await.code(), "database_unavailable");
    for path in ["/livez", "/readyz", "/docs/", "/openapi/v1/gateway.json"] {
        assert_eq!(gateway.get(path).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn the_workers_contract_passes_without_an_api_key() {
    let gateway = Gateway::with_keys(&["key"]);
    assert_eq!(gateway.post("/v1/task-status", "{}").await.code(), "database_unavailable");
    assert_eq!(gateway.post("/v1/workers/w-1/heartbeat", "{}").await.code(), "database_unavailable");
}

#[tokio::test]
async fn a_key_that_is_presented_is_checked_even_where_none_is_wanted() {
    let gateway = Gateway::new(Config::default());
    let with = |value: &str| request("GET", "/v1/tasks/x").header("authorization", value).body(Body::empty()).unwrap();
    assert_eq!(gateway.send(with("Bearer nonsense")).await.code(), "unauthorized");
    // Other schemes belong to whatever stands before the gateway.
    assert_eq!(gateway.send(with("Basic bm9uc2Vuc2U=")).await.code(), "invalid_path");
    let token = KeyToken::random(KeyId::random()).expose();
    assert_eq!(gateway.send(with(&format!("Bearer {token}"))).await.code(), "database_unavailable", "nobody can tell");
}

/// What a page of another origin can make a browser send without asking first, and what DNS rebinding makes of it.
const ATTACKS: [&[(&str, &str)]; 5] = [
    &[("host", "localhost:8081"), ("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")],
    &[("host", "localhost:8081"), ("origin", "http://localhost:3000"), ("sec-fetch-site", "same-site")],
    &[("host", "localhost:8081"), ("origin", "null")],
    &[("host", "localhost:8081"), ("sec-fetch-site", "cross-site")],
    &[("host", "rebound.example:8081"), ("origin", "http://rebound.example:8081"), ("sec-fetch-site", "same-origin")],
];

#[tokio::test]
async fn a_web_page_of_another_origin_can_do_nothing() {
    let gateway = Gateway::new(Config::default());
    let operations = crate::router::public().into_iter().chain(crate::router::forwarded());
    for Operation { method, path, .. } in operations {
        let path = path
            .replace("{id}", NIL)
            .replace("{delivery_id}", NIL)
            .replace("{worker_id}", "w-1")
            .replace("{queue}", "mail");
        for attack in ATTACKS {
            let mut request = request(method.as_str(), &path).header("content-type", "application/json");
            request.headers_mut().unwrap().remove("host");
            for (name, value) in attack {
                request = request.header(*name, *value);
            }
            let answer = gateway.send(request.body(r#"{"command":"x"}"#.into()).unwrap()).await;
            assert_eq!(
                (answer.status.as_u16(), answer.code().as_str()),
                (403, "forbidden_origin"),
                "{attack:?} {path}"
            );
        }
    }
}

#[tokio::test]
async fn what_a_form_can_send_is_refused_and_cross_origin_requests_are_never_granted() {
    let gateway = Gateway::new(Config::default());
    for content_type in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
        let form = request("POST", "/v1/tasks").header("content-type", content_type).body(r#"{"command":"x"}"#.into());
        assert_eq!(gateway.send(form.unwrap()).await.code(), "unsupported_media_type");
    }
    let preflight = request("OPTIONS", "/v1/tasks")
        .header("origin", "https://evil.example")
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "content-type");
    let answer = gateway.send(preflight.body(Body::empty()).unwrap()).await;
    assert!(!answer.status.is_success());
    assert!(answer.headers.keys().all(|name| !name.as_str().starts_with("access-control-")));
}

#[tokio::test]
async fn with_keys_any_host_may_be_used() {
    let gateway = Gateway::with_keys(&["key"]);
    let request = request("GET", "/v1/tasks").header("authorization", "Bearer key");
    let mut request = request.header("origin", "https://dash.example").body(Body::empty()).unwrap();
    request.headers_mut().insert("host", "tasks.example.com".parse().unwrap());
    assert_eq!(gateway.send(request).await.code(), "database_unavailable");
}

#[tokio::test]
async fn every_answer_of_the_api_says_what_is_left_of_the_quota() {
    let gateway =
        Gateway::new(Config { rate_limits: RateLimits { reads: 4, ..RateLimits::default() }, ..Config::default() });
    for (path, status, remaining) in [
        ("/v1/tasks/x", 400, 3),
        ("/v1/nothing", 404, 2),
        ("/v1/tasks?colour=red", 400, 1),
        ("/v1/task-status", 405, 0),
    ] {
        let answer = gateway.get(path).await;
        assert_eq!(answer.status.as_u16(), status);
        assert_eq!(answer.header("ratelimit-policy"), "\"reads\";q=4;w=60", "{path}");
        let left = answer.header("ratelimit");
        assert!(left.starts_with(&format!("\"reads\";r={remaining};t=")), "{path}: {left}");
    }
    let refused = gateway.get("/v1/tasks").await;
    assert_eq!((refused.status.as_u16(), refused.code().as_str()), (429, "rate_limited"));
    let reset = refused.header("ratelimit").rsplit_once("t=").unwrap().1.to_owned();
    assert!(refused.header("retry-after").parse::<u64>().unwrap() >= reset.parse().unwrap());
    let health = gateway.get("/livez").await;
    assert!(health.status.is_success() && health.header("ratelimit").is_empty());
    assert!(gateway.get("/docs/").await.status.is_success());
}

#[tokio::test]
async fn wrong_keys_count_against_the_address_that_guesses_and_against_no_key() {
    let rate_limits = RateLimits { wrong_keys: 2, ..RateLimits::default() };
    let gateway = Gateway::new(Config { rate_limits, api_key: vec![Secret::new("key")], ..Config::default() });
    let with = |key: &str| {
        let request = request("GET", "/v1/tasks/x").header("authorization", format!("Bearer {key}"));
        gateway.send(request.body(Body::empty()).unwrap())
    };
    for left in ["1", "0"] {
        let refused = with("wrong").await;
        assert_eq!(refused.code(), "unauthorized");
        assert_eq!(refused.header("ratelimit-policy"), "\"wrong-keys\";q=2;w=60");
        assert!(refused.header("ratelimit").starts_with(&format!("\"wrong-keys\";r={left};t=")));
    }
    let refused = with("wrong").await;
    assert_eq!((refused.code().as_str(), refused.header("retry-after")), ("rate_limited", "30"));
    // Nobody asks the database for a key that this gateway has never seen.
    assert_eq!(with(&KeyToken::random(KeyId::random()).expose()).await.code(), "rate_limited");
    assert_eq!(with("key").await.code(), "invalid_path", "the right key works from the same address");
    assert_eq!(gateway.get("/v1/tasks/x").await.code(), "unauthorized", "none is no wrong one");
}

#[tokio::test]
async fn reads_and_writes_have_quotas_of_their_own() {
    let rate_limits = RateLimits { reads: 1, writes: 1, ..RateLimits::default() };
    let gateway = Gateway::new(Config { rate_limits, ..Config::default() });
    for expected in ["invalid_path", "rate_limited"] {
        assert_eq!(gateway.get("/v1/tasks/x").await.code(), expected);
        assert_eq!(gateway.post("/v1/tasks/x/cancel", "").await.code(), expected);
    }
    assert_eq!(gateway.post("/v1/task-status", "{}").await.code(), "rate_limited");
}

#[tokio::test]
async fn one_request_too_many_is_shed_and_health_still_answers() {
    let gateway = Gateway::new(Config { concurrency_max: 1, ..Config::default() });
    let place = gateway.app.admissions.all().clone().try_acquire_owned().unwrap();
    let shed = gateway.get("/v1/tasks/x").await;
    assert_eq!((shed.status.as_u16(), shed.code().as_str(), shed.header("retry-after")), (503, "overloaded", "1"));
    assert_eq!(gateway.get("/livez").await.status, 200);
    drop(place);
    assert_eq!(gateway.get("/v1/tasks/x").await.code(), "invalid_path");
    assert_eq!(gateway.app.admissions.all().available_permits(), 1, "the place is free again");
}

#[tokio::test]
async fn writes_that_take_all_their_places_leave_reads_theirs_and_a_body_that_does_not_come_takes_none() {
    let config = Config { reads_at_once: Some(1), writes_at_once: Some(1), ..Config::default() };
    let gateway = Gateway::new(config);
    let stalled = request("POST", "/v1/tasks").header("content-type", "application/json");
    let stalled = stalled.body(Body::from_stream(stream::pending::<Result<Bytes, Infallible>>())).unwrap();
    let mut stalled = std::pin::pin!(gateway.send(stalled));
    assert!(stalled.as_mut().now_or_never().is_none(), "it waits for its body");
    assert_eq!(gateway.post("/v1/tasks", "{").await.code(), "invalid_json", "and another is worked on");

    let place = gateway.app.admissions.occupy(true).await;
    let (refused, read) = tokio::join!(gateway.post("/v1/tasks", "{"), gateway.get("/v1/tasks/x"));
    assert_eq!((refused.code().as_str(), refused.header("retry-after")), ("overloaded", "1"));
    assert_eq!(read.code(), "invalid_path");
    assert_eq!(gateway.post("/v1/task-status", "{}").await.code(), "database_unavailable", "workers have their own");
    let (admitted, ()) = tokio::join!(gateway.post("/v1/tasks", "{"), async { drop(place) });
    assert_eq!(admitted.code(), "invalid_json", "its turn came");
}

#[tokio::test]
async fn one_follower_too_many_is_refused() {
    let gateway = Gateway::new(Config { sse_clients_max: 0, ..Config::default() });
    assert_eq!(gateway.get("/v1/events").await.code(), "overloaded");
}

#[tokio::test]
async fn one_client_cannot_take_all_streams() {
    let gateway = Gateway::new(Config { sse_per_client_max: 1, ..Config::default() });
    let place = gateway.app.sse_clients.take(Principal::Address([127, 0, 0, 1].into())).unwrap();
    let refused = gateway.get("/v1/events").await;
    assert_eq!((refused.code().as_str(), refused.header("retry-after")), ("overloaded", "5"));
    let other = Request::builder().uri("/v1/events").header("host", "localhost").body(Body::empty()).unwrap();
    assert_eq!(gateway.send(other).await.code(), "database_unavailable", "another client is not refused");
    drop(place);
    assert_eq!(gateway.get("/v1/events").await.code(), "database_unavailable");
}

#[tokio::test]
async fn a_body_that_does_not_arrive_in_time_is_the_clients_failure() {
    let gateway = Gateway::new(Config { request_timeout: Duration::from_millis(20), ..Config::default() });
    let begun = || stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"{"))]);
    for path in ["/v1/tasks", "/v1/tasks/batch", "/v1/task-status"] {
        let nothing = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
        let unfinished = Body::from_stream(begun().chain(stream::pending()));
        for body in [nothing, unfinished] {
            let answer = gateway.post(path, body).await;
            assert_eq!((answer.status.as_u16(), answer.code().as_str()), (408, "request_timeout"), "{path}");
        }
    }
}

#[tokio::test]
async fn an_answer_that_takes_too_long_is_our_failure() {
    let gateway = Gateway::new(Config { request_timeout: Duration::from_millis(20), ..Config::default() });
    let held = all_of_the_batch_budget(&gateway).await;
    let answer = gateway.post("/v1/tasks/batch", r#"{"tasks":[{"command":"x"}]}"#).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (504, "timeout"));
    drop(held);
    assert_eq!(gateway.post("/v1/tasks/batch", "{").await.code(), "invalid_json");
}

async fn all_of_the_batch_budget(gateway: &Gateway) -> Vec<crate::edge::bodies::HeldBody> {
    let mut held = Vec::new();
    for _ in 0..4 {
        let empty = request("POST", "/").body(Body::empty()).unwrap();
        held.push(gateway.app.batch_bodies.read(empty, 32 * 1024 * 1024).await.unwrap());
    }
    held
}

#[tokio::test]
async fn every_answer_keeps_browsers_from_making_more_of_it() {
    let gateway = Gateway::new(Config::default());
    for path in ["/v1/tasks/x", "/docs/", "/livez", "/nothing", "/openapi/v1/gateway.json"] {
        let answer = gateway.get(path).await;
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("x-frame-options"), "DENY", "{path}");
        assert!(answer.header("content-security-policy").contains("default-src 'none'"), "{path}");
        assert!(!answer.header("x-request-id").is_empty(), "{path}");
    }
    assert_eq!(gateway.get("/v1/tasks/x").await.header("cache-control"), "no-store");
}
