//! Who may use the API: without keys no web page of another origin, with keys nobody without one.

use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use taskmaster_openapi::coordinator::WorkerStatus;
use uuid::Uuid;

use crate::support::{Api, Database, Process, Reply, System};

/// An operation of the API, as a request that would do something.
#[derive(Debug, Clone)]
struct Operation {
    method: Method,
    path: String,
    body: Option<Value>,
}

/// Everything below `/v1` that the OpenAPI document has, aimed at these.
async fn operations(api: &Api, task: Uuid, worker_id: &str) -> Vec<Operation> {
    let document: Value = api.fetch("/openapi/v1/gateway.json").await.expect(200);
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap().iter().filter(|(path, _)| path.starts_with("/v1/")) {
        for method in item.as_object().unwrap().keys().filter(|key| !["parameters", "summary"].contains(&key.as_str()))
        {
            let body = match (method.as_str(), path.as_str()) {
                ("post", "/v1/tasks") => Some(json!({"command": "echo never"})),
                ("post", "/v1/tasks/batch") => Some(json!({"tasks": [{"command": "echo never"}]})),
                ("post", "/v1/tasks/cancel" | "/v1/tasks/retry") => Some(json!({"filter": {"queue": "default"}})),
                ("post", "/v1/workers/scale") => Some(json!({"workers": 0})),
                _ => None,
            };
            let method = method.to_uppercase().parse().unwrap();
            let id = task.to_string();
            let path = path
                .replace("{id}", &id)
                .replace("{delivery_id}", &id)
                .replace("{worker_id}", worker_id)
                .replace("{queue}", "mail");
            operations.push(Operation { method, path, body });
        }
    }
    assert!(operations.iter().filter(|operation| operation.method == Method::POST).count() >= 8, "{operations:?}");
    operations
}

/// Sends a request; the body as this content type, or as none.
async fn send(api: &Api, operation: &Operation, content_type: Option<&str>, headers: &[(&str, &str)]) -> Reply {
    let mut request = api.http().request(operation.method.clone(), format!("{}{}", api.url, operation.path));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if let Some(content_type) = content_type.filter(|_| operation.method == Method::POST) {
        request = request.header("content-type", content_type);
    }
    if let Some(body) = &operation.body {
        request = request.body(body.to_string());
    }
    let answer = request.send().await.unwrap();
    let (status, headers) = (answer.status(), answer.headers().clone());
    // A stream of events has no end.
    let text = if status.is_success() { String::new() } else { answer.text().await.unwrap() };
    Reply { status, headers, text }
}

fn assert_grants_nothing(headers: &HeaderMap, what: &str) {
    let granted: Vec<_> = headers.keys().filter(|name| name.as_str().starts_with("access-control-")).collect();
    assert!(granted.is_empty(), "{what}: {granted:?}");
}

/// Whether a token within the query says who may call this.
fn is_of_attempts(operation: &Operation) -> bool {
    operation.path.starts_with("/v1/attempts")
}

#[tokio::test]
async fn web_pages_of_other_origins_can_do_nothing_to_a_gateway_without_keys() {
    let mut system = System::builder().start().await;
    let worker_id = system.worker_id(0).await;
    let api = system.api.clone();
    let queued = api.create(json!({"command": "echo never", "delay_seconds": 3600})).await;
    let cancelled = api.create(json!({"command": "echo never", "delay_seconds": 3600})).await;
    let (_, cancelled) = api.cancel(cancelled.id).await;
    let port = api.url.rsplit(':').next().unwrap().to_owned();
    let host = |name: &str| format!("{name}:{port}");
    let own = host("127.0.0.1");

    let mut operations = operations(&api, queued.id, &worker_id).await;
    // What other apps send needs a secret that no page has, under whatever name it comes: `hooks` and `http_tasks` test that.
    operations.retain(|operation| !operation.path.ends_with("/receive") && !is_of_attempts(operation));
    let retry = Operation { method: Method::POST, path: format!("/v1/tasks/{}/retry", cancelled.id), body: None };
    operations.push(retry);
    let page = |origin: &str| vec![("host", own.clone()), ("origin", origin.to_owned())];
    let foreign: Vec<Vec<(&str, String)>> = vec![
        // A page whose own name resolves to this machine.
        vec![("host", "evil.example".into())],
        vec![("host", host("evil.example"))],
        vec![("host", host("localhost.evil.example"))],
        vec![("host", host("127.0.0.1.nip.io"))],
        vec![("host", host("evil.example")), ("origin", format!("http://{}", host("evil.example")))],
        vec![("host", host("192.168.0.1"))],
        vec![("host", host("0.0.0.0"))],
        // Pages of other sites, of other ports, and without an origin of their own.
        page("https://evil.example"),
        page("http://127.0.0.1:1"),
        page("http://127.0.0.1"),
        page(&format!("http://{}", host("localhost"))),
        page("null"),
        page("file://"),
        page("chrome-extension://abcdefghijklmnop"),
        vec![("host", own.clone()), ("sec-fetch-site", "cross-site".into())],
        vec![("host", own.clone()), ("sec-fetch-site", "cross-site".into()), ("sec-fetch-mode", "navigate".into())],
    ];
    for operation in &operations {
        for headers in &foreign {
            let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let what = format!("{} {} {headers:?}", operation.method, operation.path);
            for content_type in [Some("application/json"), Some("text/plain"), None] {
                let reply = send(&api, operation, content_type, &headers).await;
                assert_eq!(reply.status.as_u16(), 403, "{what}: {}", reply.text);
                assert_eq!(reply.json()["code"], "forbidden_origin", "{what}");
                assert_grants_nothing(&reply.headers, &what);
            }
            let asked = [("access-control-request-method", "POST"), ("access-control-request-headers", "content-type")];
            let preflight = Operation { method: Method::OPTIONS, body: None, ..operation.clone() };
            let reply = send(&api, &preflight, None, &[&headers[..], &asked[..]].concat()).await;
            assert!(matches!(reply.status.as_u16(), 403 | 405), "{what}: {}", reply.status);
            assert_grants_nothing(&reply.headers, &what);
        }
        // What a form can send without asking, even where a browser would not say whence it comes.
        for content_type in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
            if operation.body.is_some() {
                let reply = send(&api, operation, Some(content_type), &[]).await;
                assert_eq!(reply.status.as_u16(), 415, "{content_type} to {}", operation.path);
                assert_grants_nothing(&reply.headers, &operation.path);
            }
        }
    }
    assert_eq!(api.list("").await, [cancelled, queued.clone()]);
    let workers = api.workers().await;
    assert!(workers.len() == 1 && workers[0].status == WorkerStatus::Active, "{workers:?}");

    // This gateway's own pages, and programs.
    let task = json!({"command": "echo never", "delay_seconds": 3600});
    let create = Operation { method: Method::POST, path: "/v1/tasks".into(), body: Some(task) };
    let (own_origin, local_origin) = (format!("http://{own}"), format!("http://{}", host("localhost")));
    let friends: [&[(&str, &str)]; 7] = [
        &[],
        &[("host", &host("localhost"))],
        &[("host", &host("LOCALHOST"))],
        &[("host", &host("[::1]"))],
        &[("host", &own), ("origin", &own_origin), ("sec-fetch-site", "same-origin")],
        &[("host", &host("localhost")), ("origin", &local_origin), ("sec-fetch-site", "same-origin")],
        &[("host", &own), ("sec-fetch-site", "none")],
    ];
    for headers in friends {
        for content_type in ["application/json", "application/json; charset=utf-8", "Application/JSON"] {
            let reply = send(&api, &create, Some(content_type), headers).await;
            assert_eq!(reply.status.as_u16(), 201, "{headers:?} {content_type}: {}", reply.text);
            assert_grants_nothing(&reply.headers, "a friend");
        }
    }
    assert_eq!(api.list("").await.len(), 2 + 3 * friends.len());
}

#[tokio::test]
async fn a_gateway_with_keys_serves_nobody_without_one_and_needs_no_other_check() {
    let (first, second) = ("key-of-the-first-client", "key-of-the-second-client");
    let database = Database::new().await;
    let keys = format!("{first},{second}");
    let environment = [
        ("DATABASE_URL", database.url.as_str()),
        ("TASKMASTER_API_KEYS", &keys),
        ("TASKMASTER_RATE_LIMIT_WRONG_KEYS", "0"),
    ];
    let mut gateway = Process::spawn("gateway", &["gateway", "--listen", "127.0.0.1:0"], &environment);
    let address = gateway.logged("gateway").await["address"].as_str().unwrap().to_owned();
    let api = Api::new(&format!("http://{address}"));
    crate::support::until("ready", async || api.readyz().await.filter(|status| *status == 200)).await;

    let authorised = |key: &str| format!("Bearer {key}");
    let create = Operation { method: Method::POST, path: "/v1/tasks".into(), body: Some(json!({"command": "x"})) };
    let later = json!({"command": "echo never", "delay_seconds": 3600});
    let key = [("authorization", &*authorised(first))];
    let kept = api.send(Method::POST, "/v1/tasks", Some(&later), &key).await;
    let kept: taskmaster_openapi::task::Task = kept.expect(201);
    let mut operations = operations(&api, kept.id, "nobody").await;
    operations.retain(|operation| !is_of_attempts(operation));
    let (basic, cut, more, both) =
        (format!("Basic {first}"), authorised(&first[1..]), authorised(&format!("{first}x")), authorised(&keys));
    for operation in &operations {
        let wrong = ["", "Bearer", "Bearer ", "Bearer nonsense", first, &basic, &cut, &more, &both];
        let mut replies = vec![send(&api, operation, Some("application/json"), &[]).await];
        for value in wrong {
            replies.push(send(&api, operation, Some("application/json"), &[("authorization", value)]).await);
        }
        replies.push(send(&api, operation, Some("application/json"), &[("x-api-key", first)]).await);
        let asked = Operation { path: format!("{}?api_key={first}", operation.path), ..operation.clone() };
        replies.push(send(&api, &asked, Some("application/json"), &[]).await);
        for reply in replies {
            assert_eq!(reply.status.as_u16(), 401, "{} {}: {}", operation.method, operation.path, reply.text);
            assert_eq!(reply.json()["code"], "unauthorized");
            assert_eq!(reply.header("www-authenticate"), Some("Bearer"));
            assert!(!reply.text.contains(first) && !reply.text.contains(second), "{}", reply.text);
            assert_grants_nothing(&reply.headers, &operation.path);
        }
    }
    let unknown = Operation { method: Method::GET, path: "/v1/nothing".into(), body: None };
    assert_eq!(send(&api, &unknown, None, &[]).await.status.as_u16(), 401, "what there is, is nobody's business");
    for open in ["/livez", "/readyz", "/docs/", "/openapi/v1/gateway.json"] {
        assert_eq!(api.fetch(open).await.status.as_u16(), 200, "{open}");
    }

    // Pages have no key. Whoever has one may come from anywhere; a browser still lets no foreign page read the answer.
    for key in [first, second] {
        let headers = [
            ("authorization", authorised(key)),
            ("host", "tasks.example.com".into()),
            ("origin", "https://elsewhere.example".into()),
        ];
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let reply = send(&api, &create, Some("application/json"), &headers).await;
        assert_eq!(reply.status.as_u16(), 201, "{}", reply.text);
        assert_grants_nothing(&reply.headers, "with a key");
    }
    let listed = api.send(Method::GET, "/v1/tasks", None, &[("authorization", &authorised(second))]).await;
    assert_eq!(listed.expect::<Value>(200)["tasks"].as_array().unwrap().len(), 3);
    assert!(!gateway.log().iter().any(|line| line.contains(first) || line.contains(second)), "a key in the log");
}
