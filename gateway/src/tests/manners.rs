//! What every path does beside its operations: `HEAD`, `OPTIONS`, methods that it does not have, compression, CORS.

use std::collections::BTreeMap;
use std::io::Read;

use flate2::read::GzDecoder;
use serde_json::json;

use super::*;

/// Every path that is served, as one can ask for it, with its methods.
fn paths() -> BTreeMap<String, Vec<String>> {
    let mut paths: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let operations = crate::router::public().into_iter().chain(crate::router::forwarded());
    for operation in operations.chain(crate::router::receiving()) {
        let path = operation
            .path
            .replace("{id}", &uuid::Uuid::nil().to_string())
            .replace("{worker_id}", "w-1")
            .replace("{queue}", "mail");
        paths.entry(path).or_default().push(operation.method.to_string());
    }
    for open in ["/livez", "/readyz", "/", "/docs", "/docs/", "/docs/index.css", "/openapi/v1/gateway.json"] {
        paths.insert(open.into(), vec!["GET".into()]);
    }
    paths
}

async fn ask(gateway: &Gateway, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let request = headers.iter().fold(request(method, path), |request, (name, value)| request.header(*name, *value));
    gateway.send(request.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn every_path_says_which_methods_it_has() {
    let gateway = Gateway::new(Config::default());
    for (path, methods) in paths() {
        let answer = ask(&gateway, "OPTIONS", &path, &[]).await;
        assert_eq!((answer.status.as_u16(), answer.body.len()), (204, 0), "{path}");
        let mut allowed: Vec<&str> = answer.header("allow").split(", ").collect();
        let mut expected: Vec<&str> = methods.iter().map(String::as_str).chain(["OPTIONS"]).collect();
        expected.extend(methods.contains(&"GET".to_owned()).then_some("HEAD"));
        allowed.sort();
        expected.sort();
        assert_eq!(allowed, expected, "{path}");
        for other in ["TRACE", "BREW", "PROPFIND"] {
            let refused = ask(&gateway, other, &path, &[]).await;
            assert_eq!(
                (refused.status.as_u16(), refused.code().as_str()),
                (405, "method_not_allowed"),
                "{other} {path}"
            );
            let mut allowed: Vec<&str> = refused.header("allow").split(',').map(str::trim).collect();
            allowed.sort();
            assert_eq!(allowed, expected, "{other} {path}");
        }
    }
    assert_eq!(ask(&gateway, "OPTIONS", "/v1/nothing", &[]).await.code(), "not_found");
}

#[tokio::test]
async fn head_is_answered_as_get_without_a_body_wherever_there_is_get() {
    let gateway = Gateway::new(Config::default());
    let varies = ["x-request-id", "ratelimit"];
    for (path, methods) in paths() {
        let (head, get) = (ask(&gateway, "HEAD", &path, &[]).await, gateway.get(&path).await);
        assert!(head.body.is_empty(), "{path}");
        assert_eq!(head.status, get.status, "{path}");
        if methods.contains(&"GET".to_owned()) {
            assert_ne!(head.status, 405, "{path}");
            for name in get.headers.keys().filter(|name| !varies.contains(&name.as_str())) {
                assert_eq!(head.headers.get(name), get.headers.get(name), "{name} of {path}");
            }
        }
    }
}

fn unzipped(answer: &Answer) -> Vec<u8> {
    assert_eq!(answer.header("content-encoding"), "gzip");
    let mut plain = Vec::new();
    GzDecoder::new(answer.body.as_slice()).read_to_end(&mut plain).unwrap();
    plain
}

#[tokio::test]
async fn large_answers_are_compressed_for_those_who_take_it_and_have_a_weak_tag_then() {
    let gateway = Gateway::new(Config::default());
    for path in ["/openapi/v1/gateway.json", "/docs/swagger-ui.css"] {
        let plain = ask(&gateway, "GET", path, &[]).await;
        let small = ask(&gateway, "GET", path, &[("accept-encoding", "br, gzip")]).await;
        assert_eq!((plain.header("content-encoding"), plain.header("vary")), ("", "accept-encoding"));
        assert_eq!(small.header("vary"), "accept-encoding");
        assert!(small.body.len() * 3 < plain.body.len(), "{} of {}", small.body.len(), plain.body.len());
        assert_eq!(unzipped(&small), plain.body);
        assert_eq!(small.header("etag"), format!("W/{}", plain.header("etag")));
        // Each is known again by its own tag, and by the other's: they are the same to a reader.
        for tag in [plain.header("etag"), small.header("etag")] {
            let known = ask(&gateway, "GET", path, &[("accept-encoding", "gzip"), ("if-none-match", tag)]).await;
            assert_eq!((known.status.as_u16(), known.header("etag")), (304, tag));
            assert_eq!((known.header("vary"), known.header("content-encoding")), ("accept-encoding", ""));
        }
        // Whoever takes neither gets what there is.
        assert_eq!(ask(&gateway, "GET", path, &[("accept-encoding", "identity;q=0, *;q=0")]).await.body, plain.body);
    }
}

#[tokio::test]
async fn problems_are_compressed_as_well_and_small_answers_are_not() {
    let gateway = Gateway::new(Config::default());
    let batch = json!({"tasks": vec![json!({"http": {"url": "x"}}); 100]}).to_string();
    let post = |accepted: &str| {
        let request = request("POST", "/v1/tasks/batch").header("content-type", "application/json");
        gateway.send(request.header("accept-encoding", accepted).body(batch.clone().into()).unwrap())
    };
    let (plain, small) = (post("identity").await, post("gzip").await);
    assert_eq!((plain.status.as_u16(), plain.code().as_str()), (422, "validation_failed"));
    assert_eq!((small.status.as_u16(), small.header("content-type")), (422, "application/problem+json"));
    let problem: Value = serde_json::from_slice(&unzipped(&small)).unwrap();
    assert_eq!(problem["errors"], plain.json()["errors"]);
    let tiny = ask(&gateway, "GET", "/v1/tasks/x", &[("accept-encoding", "gzip")]).await;
    assert_eq!((tiny.code().as_str(), tiny.header("content-encoding"), tiny.header("vary")), ("invalid_path", "", ""));
}

const PAGE: &str = "https://app.example.com";
const PREFLIGHT: [(&str, &str); 2] =
    [("access-control-request-method", "POST"), ("access-control-request-headers", "authorization,content-type")];

fn with_cors(origins: &[&str], keys: &[&str]) -> Gateway {
    let api_key = keys.iter().map(|key| Secret::new(*key)).collect();
    let cors_origins = origins.iter().map(|&origin| origin.into()).collect();
    Gateway::new(Config { api_key, cors_origins, ..Config::default() })
}

#[tokio::test]
async fn pages_of_configured_origins_may_ask_first_and_read_what_comes_back() {
    let gateway = with_cors(&[PAGE], &["key"]);
    let first = ask(&gateway, "OPTIONS", "/v1/tasks", &[&[("origin", PAGE)], &PREFLIGHT[..]].concat()).await;
    assert_eq!((first.status.as_u16(), first.header("access-control-allow-origin")), (204, PAGE), "without a key");
    assert!(first.header("access-control-allow-methods").contains("DELETE"));
    assert!(first.header("access-control-allow-headers").contains("Authorization"));
    assert_eq!((first.header("access-control-max-age"), first.header("vary")), ("7200", "origin"));
    assert_eq!(first.header("access-control-allow-credentials"), "", "a key is no cookie");

    let bearer = ("authorization", "Bearer key");
    for (headers, code) in [(vec![("origin", PAGE)], "unauthorized"), (vec![("origin", PAGE), bearer], "invalid_path")]
    {
        let answer = ask(&gateway, "GET", "/v1/tasks/x", &headers).await;
        assert_eq!((answer.code().as_str(), answer.header("access-control-allow-origin")), (code, PAGE));
        assert!(answer.header("access-control-expose-headers").contains("RateLimit"));
    }
    for stranger in ["https://evil.example", "null", "http://app.example.com"] {
        let answer = ask(&gateway, "GET", "/v1/tasks/x", &[("origin", stranger), bearer]).await;
        assert_eq!((answer.header("access-control-allow-origin"), answer.header("vary")), ("", "origin"), "{stranger}");
        let first = ask(&gateway, "OPTIONS", "/v1/tasks", &[&[("origin", stranger)], &PREFLIGHT[..]].concat()).await;
        assert_eq!((first.code().as_str(), first.header("access-control-allow-origin")), ("unauthorized", ""));
    }
}

#[tokio::test]
async fn without_keys_pages_of_configured_origins_get_in_and_no_others() {
    let gateway = with_cors(&[PAGE], &[]);
    let site = ("sec-fetch-site", "cross-site");
    let answer = ask(&gateway, "GET", "/v1/tasks/x", &[("origin", PAGE), site]).await;
    assert_eq!((answer.code().as_str(), answer.header("access-control-allow-origin")), ("invalid_path", PAGE));
    let answer = ask(&gateway, "GET", "/v1/tasks/x", &[("origin", "https://evil.example"), site]).await;
    assert_eq!((answer.code().as_str(), answer.header("access-control-allow-origin")), ("forbidden_origin", ""));
    // A page that has its own name lead here is still told from this gateway's.
    let rebound = Request::builder().uri("/v1/tasks/x").header("host", "app.example.com").header("origin", PAGE);
    assert_eq!(gateway.send(rebound.body(Body::empty()).unwrap()).await.code(), "forbidden_origin");
}

#[tokio::test]
async fn with_keys_all_origins_can_be_let_in() {
    let gateway = with_cors(&["*"], &["key"]);
    let answer = ask(&gateway, "GET", "/livez", &[("origin", "https://anything.example")]).await;
    assert_eq!(answer.header("access-control-allow-origin"), "https://anything.example");
}
