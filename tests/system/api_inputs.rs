//! What the public API refuses: a table of requests, all sent to one gateway, with the answers they must get.
//!
//! Of every answer it is also asked that it is a problem document, that the OpenAPI document knows its status and its code, and that
//! nothing was created.

use std::collections::BTreeSet;
use std::fmt::Write;

use futures::stream;
use reqwest::Method;
use serde_json::{Value, json};
use taskmaster_openapi::limits;

use crate::support::{Api, Reply, System};

const MIB: usize = 1024 * 1024;
const UNKNOWN_ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

enum Body {
    None,
    Json(Value),
    Bytes(Vec<u8>),
    /// Sent in pieces, without saying how much there will be.
    Chunked(Vec<u8>),
}

/// A request, and its refusal.
struct Row {
    what: String,
    method: Method,
    path: String,
    headers: Vec<(&'static str, Vec<u8>)>,
    body: Body,
    status: u16,
    code: &'static str,
    /// The first pointer in `errors`; none when there are to be no errors.
    pointer: Option<String>,
}

impl Row {
    fn new(what: impl Into<String>, method: Method, path: impl Into<String>) -> Self {
        let (what, path) = (what.into(), path.into());
        Self { what, method, path, headers: Vec::new(), body: Body::None, status: 0, code: "", pointer: None }
    }

    fn get(path: impl Into<String>) -> Self {
        let path = path.into();
        Self::new(path.clone(), Method::GET, path)
    }

    fn post(what: impl Into<String>, path: impl Into<String>) -> Self {
        Self::new(what, Method::POST, path)
    }

    fn header(mut self, name: &'static str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn body(self, body: Body) -> Self {
        Self { body, ..self }
    }

    fn json(self, body: Value) -> Self {
        self.body(Body::Json(body))
    }

    /// A body that says that it is JSON.
    fn text(self, body: impl Into<Vec<u8>>) -> Self {
        self.header("content-type", "application/json").body(Body::Bytes(body.into()))
    }

    fn is(self, status: u16, code: &'static str) -> Self {
        Self { status, code, ..self }
    }

    fn at(self, pointer: impl Into<String>) -> Self {
        Self { pointer: Some(pointer.into()), ..self }
    }

    async fn send(&self, api: &Api) -> Reply {
        let mut request = api.http().request(self.method.clone(), format!("{}{}", api.url, self.path));
        for (name, value) in &self.headers {
            request = request.header(*name, value.as_slice());
        }
        request = match &self.body {
            Body::None => request,
            Body::Json(body) => request.json(body),
            Body::Bytes(body) => request.body(body.clone()),
            Body::Chunked(body) => {
                let pieces: Vec<_> =
                    body.chunks(64 * 1024).map(|piece| Ok::<_, std::io::Error>(piece.to_vec())).collect();
                request.body(reqwest::Body::wrap_stream(stream::iter(pieces)))
            }
        };
        let answer = request.send().await.unwrap_or_else(|error| panic!("{}: {error:?}", self.what));
        let (status, headers) = (answer.status(), answer.headers().clone());
        Reply { status, headers, text: answer.text().await.unwrap() }
    }
}

/// A command with these fields besides.
fn with(fields: Value) -> Value {
    let mut task = json!({"command": "echo never"});
    task.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    task
}

fn http(fields: Value) -> Value {
    let mut work = json!({"url": "http://127.0.0.1:9/"});
    work.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    json!({"http": work})
}

/// Bodies that are no JSON, or none of a task.
fn bodies() -> Vec<Row> {
    let broken: [(&str, &[u8]); 10] = [
        ("words", b"echo hello"),
        ("nothing", b""),
        ("an opening brace", b"{"),
        ("single quotes", b"{'command':'x'}"),
        ("an unfinished object", b"{\"command\":\"echo"),
        ("a trailing comma", b"{\"command\":\"x\",}"),
        ("more after the end", b"{\"command\":\"x\"} {}"),
        ("a number beyond all bounds", b"{\"command\":\"x\",\"delay_seconds\":1e999}"),
        ("a lone surrogate", b"{\"command\":\"\\ud800\"}"),
        ("a control character", b"{\"command\":\"a\0b\"}"),
    ];
    let mut rows = Vec::new();
    for (what, body) in broken {
        rows.push(Row::post(what, "/v1/tasks").text(body).is(400, "invalid_json").at(""));
    }
    for (what, body) in &broken[..4] {
        for path in ["/v1/tasks/batch", "/v1/tasks/cancel", "/v1/tasks/retry", "/v1/workers/scale"] {
            rows.push(Row::post(format!("{what} to {path}"), path).text(*body).is(400, "invalid_json").at(""));
        }
    }
    let bytes = b"{\"command\":\"\xff\"}";
    rows.push(Row::post("bytes that are not UTF-8", "/v1/tasks").text(*bytes).is(400, "invalid_json").at(""));
    for (what, body) in [("null", "null"), ("a list", "[]"), ("a text", "\"x\""), ("a number", "7"), ("true", "true")] {
        for path in ["/v1/tasks", "/v1/tasks/batch", "/v1/tasks/retry", "/v1/workers/scale"] {
            rows.push(Row::post(format!("{what} to {path}"), path).text(body).is(422, "invalid_body").at(""));
        }
    }
    let deep = "[".repeat(100_000);
    rows.push(Row::post("100,000 brackets", "/v1/tasks").text(deep.clone()).is(422, "invalid_body").at(""));
    let deep = format!("{{\"tags\":{deep}");
    rows.push(Row::post("100,000 brackets within", "/v1/tasks").text(deep).is(422, "invalid_body").at("/tags/0"));
    rows.push(
        Row::post("a field twice", "/v1/tasks").text(r#"{"command":"x","command":"y"}"#).is(422, "invalid_body").at(""),
    );
    rows
}

/// Bodies that are not announced as JSON, and those that are too large.
fn types_and_sizes() -> Vec<Row> {
    let mut rows = Vec::new();
    let task = || Body::Bytes(br#"{"command":"echo never"}"#.to_vec());
    for path in ["/v1/tasks", "/v1/tasks/batch", "/v1/tasks/cancel", "/v1/tasks/retry", "/v1/workers/scale"] {
        let refused = |row: Row| row.body(task()).is(415, "unsupported_media_type").at("Content-Type");
        rows.push(refused(Row::post(format!("no content type to {path}"), path)));
        for given in
            ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/json", "*/*"]
        {
            rows.push(refused(Row::post(format!("{given} to {path}"), path).header("content-type", given)));
        }
    }
    let padded = |bytes: usize| {
        let mut body = br#"{"command":""#.to_vec();
        body.resize(bytes - 2, b'x');
        body.extend(b"\"}");
        body
    };
    for (path, limit) in [
        ("/v1/tasks", MIB),
        ("/v1/tasks/batch", 32 * MIB),
        ("/v1/tasks/cancel", MIB),
        ("/v1/tasks/retry", MIB),
        ("/v1/workers/scale", MIB),
    ] {
        let refused = |row: Row| row.header("content-type", "application/json").is(413, "body_too_large");
        for bytes in [limit + 1, limit + 5 * MIB] {
            let what = format!("{bytes} bytes to {path}");
            rows.push(refused(Row::post(what.clone(), path).body(Body::Bytes(padded(bytes)))));
            rows.push(refused(Row::post(format!("{what} in pieces"), path).body(Body::Chunked(padded(bytes)))));
        }
    }
    // Not too large for a body, but for a command.
    let row = Row::post("a command of a whole body", "/v1/tasks").header("content-type", "application/json");
    rows.push(row.body(Body::Chunked(padded(MIB))).is(422, "validation_failed").at("/command"));
    rows
}

/// Tasks that cannot be: alone, and as an item of a batch.
fn tasks() -> Vec<Row> {
    let shapes = [
        (json!({"command": 7}), "/command"),
        (json!({"command": ["echo"]}), "/command"),
        (json!({"command": {"x": 1}}), "/command"),
        (json!({"argv": "echo hello"}), "/argv"),
        (json!({"argv": [1]}), "/argv/0"),
        (json!({"argv": ["echo", null]}), "/argv/1"),
        (json!({"http": "http://x"}), "/http"),
        (json!({"http": ["GET", "http://x"]}), "/http"),
        (json!({"http": {}}), "/http"),
        (json!({"http": {"method": "GET"}}), "/http"),
        (http(json!({"url": 7})), "/http/url"),
        (http(json!({"url": null})), "/http/url"),
        (http(json!({"method": "get"})), "/http/method"),
        (http(json!({"method": "BREW"})), "/http/method"),
        (http(json!({"method": ""})), "/http/method"),
        (http(json!({"headers": [["a", "b"]]})), "/http/headers"),
        (http(json!({"headers": {"a": 1}})), "/http/headers/a"),
        (http(json!({"headers": {"a": null}})), "/http/headers/a"),
        (http(json!({"headers": {"a": ["b"]}})), "/http/headers/a"),
        (http(json!({"body": {"a": 1}})), "/http/body"),
        (http(json!({"timeout": 1})), "/http/timeout"),
        (http(json!({"Url": "x"})), "/http/Url"),
        (with(json!({"comment": "x"})), "/comment"),
        (with(json!({"Command": "x"})), "/Command"),
        (with(json!({"id": UNKNOWN_ID})), "/id"),
        (with(json!({"status": "COMPLETE"})), "/status"),
        (with(json!({"a/b~c": 1})), "/a~1b~0c"),
        (with(json!({"priority": "high"})), "/priority"),
        (with(json!({"priority": 1.5})), "/priority"),
        (with(json!({"priority": true})), "/priority"),
        (with(json!({"priority": 1e30})), "/priority"),
        (with(json!({"max_attempts": "3"})), "/max_attempts"),
        (with(json!({"timeout_seconds": 0.5})), "/timeout_seconds"),
        (with(json!({"timeout_seconds": "1m"})), "/timeout_seconds"),
        (with(json!({"delay_seconds": "5"})), "/delay_seconds"),
        (with(json!({"delay_seconds": [5]})), "/delay_seconds"),
        (with(json!({"queue": 1})), "/queue"),
        (with(json!({"tags": "a"})), "/tags"),
        (with(json!({"tags": {"a": "b"}})), "/tags"),
        (with(json!({"tags": ["a", 1]})), "/tags/1"),
        (with(json!({"retry": 3})), "/retry"),
        (with(json!({"retry": [1, 2, 3]})), "/retry"),
        (with(json!({"retry": {"max_attempts": 3}})), "/retry/max_attempts"),
        (with(json!({"retry": {"jitter": "0.2"}})), "/retry/jitter"),
        (with(json!({"retry": {"delays_seconds": 1}})), "/retry/delays_seconds"),
        (with(json!({"retry": {"delays_seconds": [1, "2"]}})), "/retry/delays_seconds/1"),
        (with(json!({"scheduled_at": "tomorrow"})), "/scheduled_at"),
        (with(json!({"scheduled_at": ""})), "/scheduled_at"),
        (with(json!({"scheduled_at": "2030-01-01"})), "/scheduled_at"),
        (with(json!({"scheduled_at": "2030-01-01T00:00:00"})), "/scheduled_at"),
        (with(json!({"scheduled_at": "2030-02-30T00:00:00Z"})), "/scheduled_at"),
        (with(json!({"scheduled_at": "2030-01-01T25:00:00Z"})), "/scheduled_at"),
        (with(json!({"scheduled_at": "2030-01-01T00:00:00+99:00"})), "/scheduled_at"),
        (with(json!({"scheduled_at": "2030-01-01T00:00:00 Europe/Berlin"})), "/scheduled_at"),
        (with(json!({"scheduled_at": "10000-01-01T00:00:00Z"})), "/scheduled_at"),
        (with(json!({"scheduled_at": "+300000-01-01T00:00:00Z"})), "/scheduled_at"),
        (with(json!({"scheduled_at": 1_900_000_000})), "/scheduled_at"),
        (with(json!({"scheduled_at": {"at": "now"}})), "/scheduled_at"),
    ];
    let long = |length: usize| "x".repeat(length);
    let many = |count: usize| (0..count).map(|i| format!("n{i}")).collect::<Vec<_>>();
    let headers =
        |count: usize| many(count).into_iter().map(|name| (name, json!("v"))).collect::<serde_json::Map<_, _>>();
    let values = [
        (json!({}), ""),
        (json!({"command": null}), ""),
        (json!({"queue": "q"}), ""),
        (with(http(json!({}))), ""),
        (with(json!({"argv": ["x"]})), ""),
        (json!({"command": ""}), "/command"),
        (json!({"command": " \t\n"}), "/command"),
        (json!({"command": "a\0b"}), "/command"),
        (json!({"command": long(128 * 1024 + 1)}), "/command"),
        (json!({"argv": []}), "/argv"),
        (json!({"argv": [""]}), "/argv/0"),
        (json!({"argv": ["echo", "a\0b"]}), "/argv/1"),
        (json!({"argv": vec!["x"; 1001]}), "/argv"),
        (http(json!({"url": ""})), "/http/url"),
        (http(json!({"url": "example.com"})), "/http/url"),
        (http(json!({"url": "/v1/tasks"})), "/http/url"),
        (http(json!({"url": "ftp://example.com"})), "/http/url"),
        (http(json!({"url": "file:///etc/passwd"})), "/http/url"),
        (http(json!({"url": "javascript:alert(1)"})), "/http/url"),
        (http(json!({"url": "http://"})), "/http/url"),
        (http(json!({"url": "http://user:pass@example.com"})), "/http/url"),
        (http(json!({"url": "http://exa mple.com"})), "/http/url"),
        (http(json!({"url": "http://example.com:70000"})), "/http/url"),
        (http(json!({"url": "http://[::1"})), "/http/url"),
        (http(json!({"url": "http://example.com/\0"})), "/http/url"),
        (http(json!({"url": format!("http://example.com/{}", long(8192))})), "/http/url"),
        (http(json!({"headers": {"a b": "c"}})), "/http/headers/a b"),
        (http(json!({"headers": {"": "c"}})), "/http/headers/"),
        (http(json!({"headers": {"a/b": "c"}})), "/http/headers/a~1b"),
        (http(json!({"headers": {"a\0": "c"}})), "/http/headers/a\0"),
        (http(json!({"headers": {"x-ä": "c"}})), "/http/headers/x-ä"),
        (http(json!({"headers": {"x": "a\r\nHost: evil"}})), "/http/headers/x"),
        (http(json!({"headers": {"x": "a\0"}})), "/http/headers/x"),
        (http(json!({"headers": {"x": long(8193)}})), "/http/headers/x"),
        (http(json!({"headers": {"Host": "evil"}})), "/http/headers/Host"),
        (http(json!({"headers": {"Content-Length": "0"}})), "/http/headers/Content-Length"),
        (http(json!({"headers": {"TaskMaster-Attempt": "9"}})), "/http/headers/TaskMaster-Attempt"),
        (http(json!({"headers": {"a": "1", "A": "2"}})), "/http/headers/a"),
        (http(json!({"headers": headers(101)})), "/http/headers"),
        (http(json!({"body": "a\0b"})), "/http/body"),
        (http(json!({"body": "a", "body_base64": "YQ=="})), "/http/body_base64"),
        (http(json!({"body_base64": "not base64!"})), "/http/body_base64"),
        (with(json!({"scheduled_at": "1969-12-31T23:59:59Z"})), "/scheduled_at"),
        (with(json!({"scheduled_at": "0001-01-01T00:00:00Z"})), "/scheduled_at"),
        (with(json!({"scheduled_at": "1970-01-01T00:00:00+01:00"})), "/scheduled_at"),
        (with(json!({"scheduled_at": "9999-12-31T23:59:59-01:00"})), "/scheduled_at"),
        (with(json!({"scheduled_at": "2030-01-01T00:00:00Z", "delay_seconds": 1})), "/delay_seconds"),
        (with(json!({"delay_seconds": -1})), "/delay_seconds"),
        (with(json!({"delay_seconds": -0.001})), "/delay_seconds"),
        (with(json!({"delay_seconds": 315_576_001})), "/delay_seconds"),
        (with(json!({"delay_seconds": 1e300})), "/delay_seconds"),
        (with(json!({"queue": ""})), "/queue"),
        (with(json!({"queue": "a b"})), "/queue"),
        (with(json!({"queue": "a/b"})), "/queue"),
        (with(json!({"queue": "schlüssel"})), "/queue"),
        (with(json!({"queue": "a\0"})), "/queue"),
        (with(json!({"queue": long(65)})), "/queue"),
        (with(json!({"priority": -1})), "/priority"),
        (with(json!({"priority": 10})), "/priority"),
        (with(json!({"priority": i64::MIN})), "/priority"),
        (with(json!({"max_attempts": 0})), "/max_attempts"),
        (with(json!({"max_attempts": -3})), "/max_attempts"),
        (with(json!({"max_attempts": 101})), "/max_attempts"),
        (with(json!({"timeout_seconds": 0})), "/timeout_seconds"),
        (with(json!({"timeout_seconds": -1})), "/timeout_seconds"),
        (with(json!({"timeout_seconds": 86_401})), "/timeout_seconds"),
        (with(json!({"tags": many(21)})), "/tags"),
        (with(json!({"tags": [""]})), "/tags/0"),
        (with(json!({"tags": ["a", "b", "a"]})), "/tags/2"),
        (with(json!({"tags": ["a", "b\0"]})), "/tags/1"),
        (with(json!({"tags": [long(101)]})), "/tags/0"),
        (with(json!({"retry": {"initial_seconds": -1}})), "/retry/initial_seconds"),
        (with(json!({"retry": {"initial_seconds": 604_801, "max_seconds": 604_800}})), "/retry/initial_seconds"),
        (with(json!({"retry": {"initial_seconds": 9, "max_seconds": 1}})), "/retry/initial_seconds"),
        (with(json!({"retry": {"multiplier": 0.5}})), "/retry/multiplier"),
        (with(json!({"retry": {"multiplier": 101}})), "/retry/multiplier"),
        (with(json!({"retry": {"max_seconds": -1}})), "/retry/max_seconds"),
        (with(json!({"retry": {"jitter": 1.1}})), "/retry/jitter"),
        (with(json!({"retry": {"jitter": -0.1}})), "/retry/jitter"),
        (with(json!({"retry": {"delays_seconds": []}})), "/retry/delays_seconds"),
        (with(json!({"retry": {"delays_seconds": vec![1; 101]}})), "/retry/delays_seconds"),
        (with(json!({"retry": {"delays_seconds": [1, -1]}})), "/retry/delays_seconds/1"),
    ];
    let shapes = shapes.into_iter().map(|(task, pointer)| (task, "invalid_body", pointer));
    let values = values.into_iter().map(|(task, pointer)| (task, "validation_failed", pointer));
    let mut rows = Vec::new();
    for (task, code, pointer) in shapes.chain(values) {
        let what: String = task.to_string().chars().take(150).collect();
        let batch = json!({"tasks": [{"command": "echo never"}, task]});
        rows.push(Row::post(what.clone(), "/v1/tasks").json(task).is(422, code).at(pointer));
        let row = Row::post(format!("{what} in a batch"), "/v1/tasks/batch").json(batch);
        rows.push(row.is(422, code).at(format!("/tasks/1{pointer}")));
    }
    rows
}

fn batches() -> Vec<Row> {
    let batch = |what: &str, body: Value, code, pointer: &str| {
        Row::post(what, "/v1/tasks/batch").json(body).is(422, code).at(pointer)
    };
    vec![
        batch("no tasks", json!({}), "invalid_body", ""),
        batch("an empty batch", json!({"tasks": []}), "validation_failed", "/tasks"),
        batch("tasks null", json!({"tasks": null}), "invalid_body", "/tasks"),
        batch("tasks as an object", json!({"tasks": {"0": {"command": "x"}}}), "invalid_body", "/tasks"),
        batch("an unknown field", json!({"tasks": [{"command": "x"}], "queue": "q"}), "invalid_body", "/queue"),
        batch("a number for a task", json!({"tasks": [{"command": "x"}, 7]}), "invalid_body", "/tasks/1"),
        batch("a list for a task", json!({"tasks": [["echo"]]}), "invalid_body", "/tasks/0"),
        batch("10,001 tasks", json!({"tasks": vec![json!({"command": "x"}); 10_001]}), "validation_failed", "/tasks"),
        batch(
            "10,001 bad tasks",
            json!({"tasks": vec![json!({"priority": 10}); 10_001]}),
            "validation_failed",
            "/tasks",
        ),
        batch("null for a whole batch", json!({"tasks": [null]}), "invalid_body", "/tasks/0"),
    ]
}

/// Changes of many tasks, of workers, and of tasks that are not there.
fn changes() -> Vec<Row> {
    let mut rows = Vec::new();
    for path in ["/v1/tasks/cancel", "/v1/tasks/retry"] {
        for (body, code, pointer) in [
            (json!({}), "invalid_body", ""),
            (json!({"filter": {}}), "validation_failed", "/filter"),
            (json!({"filter": null}), "invalid_body", "/filter"),
            (json!({"filter": {"status": "COMPLETE"}}), "validation_failed", "/filter/status"),
            (json!({"filter": {"status": "queued"}}), "invalid_body", "/filter/status"),
            (json!({"filter": {"colour": "red"}}), "invalid_body", "/filter/colour"),
            (json!({"filter": {"queue": "a b"}}), "validation_failed", "/filter/queue"),
            (json!({"filter": {"queue": "a\0"}}), "validation_failed", "/filter/queue"),
            (json!({"filter": {"tag": "a\0"}}), "validation_failed", "/filter/tag"),
            (json!({"filter": {"worker_id": "a\0"}}), "validation_failed", "/filter/worker_id"),
            (json!({"filter": {"created_after": "yesterday"}}), "invalid_body", "/filter/created_after"),
            (
                json!({"filter": {"created_before": "1960-01-01T00:00:00Z"}}),
                "validation_failed",
                "/filter/created_before",
            ),
            (json!({"filter": {"queue": "q"}, "dry_run": "yes"}), "invalid_body", "/dry_run"),
            (json!({"filter": {"queue": "q"}, "limit": 1}), "invalid_body", "/limit"),
        ] {
            rows.push(Row::post(format!("{body} to {path}"), path).json(body).is(422, code).at(pointer));
        }
    }
    for (body, code, pointer) in [
        (json!({}), "invalid_body", ""),
        (json!({"workers": "3"}), "invalid_body", "/workers"),
        (json!({"workers": 1.5}), "invalid_body", "/workers"),
        (json!({"workers": null}), "invalid_body", "/workers"),
        (json!({"workers": -1}), "validation_failed", "/workers"),
        (json!({"workers": 201}), "validation_failed", "/workers"),
        (json!({"workers": i64::MAX}), "validation_failed", "/workers"),
        (json!({"workers": 1, "slots": 5}), "invalid_body", "/slots"),
    ] {
        rows.push(Row::post(format!("scale {body}"), "/v1/workers/scale").json(body).is(422, code).at(pointer));
    }
    // This gateway has no workers of its own.
    let scale = Row::post("scale elsewhere", "/v1/workers/scale").json(json!({"workers": 3}));
    rows.push(scale.is(501, "scaling_unsupported"));
    for id in ["nobody", UNKNOWN_ID, "a%00b", "a%20b", &"x".repeat(200)] {
        let row = Row::post(format!("drain {id}"), format!("/v1/workers/{id}/drain"));
        rows.push(row.is(404, "worker_not_found"));
    }
    let drain = Row::post("drain bytes that are not UTF-8", "/v1/workers/%ff/drain");
    rows.push(drain.is(400, "invalid_path").at("worker_id"));
    for (method, rest) in
        [(Method::GET, ""), (Method::GET, "/attempts"), (Method::POST, "/cancel"), (Method::POST, "/retry")]
    {
        let row = |id: &str| Row::new(format!("{method} {id}{rest}"), method.clone(), format!("/v1/tasks/{id}{rest}"));
        rows.push(row(UNKNOWN_ID).is(404, "task_not_found"));
        rows.push(row("00000000-0000-0000-0000-000000000000").is(404, "task_not_found"));
        rows.push(row("ffffffff-ffff-ffff-ffff-ffffffffffff").is(404, "task_not_found"));
        let malformed =
            ["1", "x", "..%2f", "%00", "%ff", "%20", "01890a5d-ac96-774b-bcce-b302099a805", "null", &"a".repeat(3000)];
        rows.extend(malformed.map(|id| row(id).is(400, "invalid_path").at("id")));
    }
    rows
}

/// Queries of lists and of events.
fn queries() -> Vec<Row> {
    let mut rows = Vec::new();
    for (query, name) in [
        ("colour=red", "colour"),
        ("Status=QUEUED", "Status"),
        ("status=queued", "status"),
        ("status=", "status"),
        ("status=DONE", "status"),
        ("status=QUEUED&status=FAILED", "status"),
        ("queue=", "queue"),
        ("queue=a%20b", "queue"),
        ("queue=%00", "queue"),
        ("tag=", "tag"),
        ("tag=%00", "tag"),
        ("worker_id=%00", "worker_id"),
        ("worker_id=", "worker_id"),
        ("created_after=yesterday", "created_after"),
        ("created_after=", "created_after"),
        ("created_after=1700000000", "created_after"),
        ("created_after=1969-12-31T23:59:59Z", "created_after"),
        ("created_before=%2B10000-01-01T00:00:00Z", "created_before"),
        ("created_before=2026-01-01T00:00:00+01:00", "created_before"),
        ("page_size=0", "page_size"),
        ("page_size=-1", "page_size"),
        ("page_size=ten", "page_size"),
        ("page_size=1.5", "page_size"),
        ("page_size=", "page_size"),
        ("page_size=99999999999999999999", "page_size"),
    ] {
        rows.push(Row::get(format!("/v1/tasks?{query}")).is(400, "invalid_query").at(name));
    }
    let another_lists = "AQGiBDq8cXFeuBOLko8usA1_nS2SmmjIMw";
    for token in ["x", "%00", "%ff", "AAAA", another_lists, &"A".repeat(5000)] {
        rows.push(Row::get(format!("/v1/tasks?page_token={token}")).is(400, "invalid_page_token").at("page_token"));
    }
    for (query, name) in [
        ("types=task.done", "types"),
        ("types=", "types"),
        ("types=task.completed,", "types"),
        ("types=log.truncated", "types"),
        ("types=TASK.COMPLETED", "types"),
        ("task_id=7", "task_id"),
        ("task_id=", "task_id"),
        ("after=-1", "after"),
        ("after=x", "after"),
        ("after=1.5", "after"),
        ("after=99999999999999999999", "after"),
        ("after=1&after=2", "after"),
        ("since=1", "since"),
    ] {
        rows.push(Row::get(format!("/v1/events?{query}")).is(400, "invalid_query").at(name));
    }
    let queue = format!("/v1/events?queue={}", "q".repeat(65));
    rows.push(Row::get(queue).is(400, "invalid_query").at("queue"));
    for last in [&b"x"[..], b"-1", b"1.5", b"1 2", b"\xff", b"99999999999999999999"] {
        let row = Row::new(format!("Last-Event-ID {last:?}"), Method::GET, "/v1/events").header("last-event-id", last);
        rows.push(row.is(400, "invalid_header").at("Last-Event-ID"));
    }
    for key in [&b""[..], b"\"\"", b"\"", b"a\"", b"a b\xff", &[b'k'; 256]] {
        let row = Row::post(format!("Idempotency-Key {key:?}"), "/v1/tasks").header("idempotency-key", key);
        rows.push(row.json(json!({"command": "echo never"})).is(400, "invalid_header").at("Idempotency-Key"));
    }
    rows
}

/// Paths that are not there, and methods that they do not have; of the latter, those that they have.
fn paths() -> Vec<(Row, Option<&'static str>)> {
    let mut rows = Vec::new();
    for path in [
        "/nothing",
        "/v1",
        "/v1/",
        "/v2/tasks",
        "/v1/tasks/",
        "/v1//tasks",
        "/V1/tasks",
        "/v1/task",
        "/v1/tasks/01890a5d-ac96-774b-bcce-b302099a8057/explain/more",
        "/v1/%00",
        "/openapi/v1/other.json",
        "/docs/../etc/passwd",
        "/docs/nothing.js",
        "/.env",
    ] {
        rows.push((Row::get(path).is(404, "not_found"), None));
        if !path.starts_with("/docs/") {
            rows.push((Row::post(format!("POST {path}"), path).json(json!({})).is(404, "not_found"), None));
        }
    }
    for (path, allowed) in [
        ("/v1/tasks", "GET,HEAD,OPTIONS,POST"),
        ("/v1/tasks/batch", "OPTIONS,POST"),
        ("/v1/tasks/cancel", "OPTIONS,POST"),
        ("/v1/tasks/retry", "OPTIONS,POST"),
        ("/v1/tasks/01890a5d-ac96-774b-bcce-b302099a8057", "GET,HEAD,OPTIONS"),
        ("/v1/tasks/01890a5d-ac96-774b-bcce-b302099a8057/attempts", "GET,HEAD,OPTIONS"),
        ("/v1/tasks/01890a5d-ac96-774b-bcce-b302099a8057/cancel", "OPTIONS,POST"),
        ("/v1/tasks/01890a5d-ac96-774b-bcce-b302099a8057/retry", "OPTIONS,POST"),
        ("/v1/events", "GET,HEAD,OPTIONS"),
        ("/v1/stats", "GET,HEAD,OPTIONS"),
        ("/v1/workers", "GET,HEAD,OPTIONS"),
        ("/v1/workers/scale", "OPTIONS,POST"),
        ("/v1/workers/w/drain", "OPTIONS,POST"),
        ("/v1/url-workers", "GET,HEAD,OPTIONS"),
        ("/v1/url-workers/w", "DELETE,GET,HEAD,OPTIONS,PUT"),
        ("/livez", "GET,HEAD,OPTIONS"),
        ("/readyz", "GET,HEAD,OPTIONS"),
        ("/openapi/v1/gateway.json", "GET,HEAD,OPTIONS"),
    ] {
        for method in
            [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS, Method::TRACE]
        {
            if !allowed.split(',').any(|allowed| allowed == method.as_str()) {
                let row = Row::new(format!("{method} {path}"), method, path);
                rows.push((row.is(405, "method_not_allowed"), Some(allowed)));
            }
        }
    }
    rows
}

/// The OpenAPI document, asked for what it says of refusals.
struct Document(Value);

impl Document {
    async fn fetch(api: &Api) -> Self {
        Self(api.fetch("/openapi/v1/gateway.json").await.expect(200))
    }

    fn codes(&self) -> BTreeSet<&str> {
        let codes = self.0["components"]["schemas"]["Code"]["enum"].as_array().unwrap();
        codes.iter().map(|code| code.as_str().unwrap()).collect()
    }

    /// The answers that are documented for a request, unless its path or method is not documented at all.
    fn answers(&self, method: &Method, path: &str) -> Option<&serde_json::Map<String, Value>> {
        let path = path.split('?').next().unwrap();
        let matches = |template: &str| {
            let (mut ours, mut theirs) = (path.split('/'), template.split('/'));
            ours.clone().count() == theirs.clone().count()
                && ours.all(|part| theirs.next().is_some_and(|other| other.starts_with('{') || other == part))
        };
        let paths = self.0["paths"].as_object().unwrap();
        // A path that is written out wins over one with a parameter, as in the router.
        let (_, item) = paths.get_key_value(path).or_else(|| paths.iter().find(|(template, _)| matches(template)))?;
        item[method.as_str().to_lowercase()]["responses"].as_object()
    }

    fn documents(&self, method: &Method, path: &str, status: u16) -> bool {
        let Some(answers) = self.answers(method, path) else { return matches!(status, 404 | 405) };
        let range = format!("{}XX", status / 100);
        let answer = answers.get(&status.to_string()).or_else(|| answers.get(&range));
        answer.is_some_and(|answer| answer["content"]["application/problem+json"].is_object())
    }
}

/// Everything that is wrong with an answer.
fn faults(row: &Row, reply: &Reply, document: &Document) -> String {
    let mut faults = String::new();
    let mut fault = |what: String| writeln!(faults, "    {what}").unwrap();
    let (status, content_type) = (reply.status.as_u16(), reply.header("content-type").unwrap_or("none"));
    if (status, content_type) != (row.status, "application/problem+json") {
        fault(format!("answered {status} as {content_type}, expected {} as a problem", row.status));
        return faults + &format!("    {}\n", reply.text);
    }
    let problem = reply.json();
    if problem["code"] != row.code || !document.codes().contains(row.code) {
        fault(format!("code {}, expected {} and that in the document", problem["code"], row.code));
    }
    let pointer = problem["errors"][0]["pointer"].as_str();
    if pointer != row.pointer.as_deref() {
        fault(format!("points at {pointer:?}, expected {:?}", row.pointer));
    }
    if problem["status"] != status || problem["request_id"].as_str() != reply.header("x-request-id") {
        fault("status or request id are not those of the answer".into());
    }
    if problem["title"].as_str().is_none_or(str::is_empty) || problem["detail"].as_str().is_none_or(str::is_empty) {
        fault("no title or no detail".into());
    }
    let absolute = problem["type"].as_str().is_some_and(|uri| uri.starts_with("https://"));
    let path = row.path.split('?').next().unwrap();
    let instance: String = path.chars().take(limits::PROBLEM_DETAIL_CHARS_MAX).collect();
    // A client resolves `..` before it asks.
    if !absolute || (problem["instance"] != instance && !path.contains("..")) {
        fault(format!("type {} of {}", problem["type"], problem["instance"]));
    }
    if !document.documents(&row.method, &row.path, status) {
        fault(format!("{status} is not documented for {} {}", row.method, row.path));
    }
    match faults.is_empty() {
        true => faults,
        false => faults + &format!("    {}\n", reply.text),
    }
}

#[tokio::test]
async fn every_bad_request_is_refused_as_documented_and_creates_nothing() {
    let system = System::builder().coordinators(0).workers(0).start().await;
    let api = &system.api;
    let document = Document::fetch(api).await;
    let kept = api.create(json!({"command": "echo kept", "delay_seconds": 3600})).await;
    let before = api.stats().await;

    let mut rows: Vec<(Row, Option<&str>)> = paths();
    let parts = [bodies(), types_and_sizes(), tasks(), batches(), changes(), queries()];
    rows.extend(parts.into_iter().flatten().map(|row| (row, None)));
    let retry = Row::post("retry of a QUEUED task", format!("/v1/tasks/{}/retry", kept.id));
    rows.push((retry.is(409, "task_state_conflict"), None));
    let count = rows.len();

    let (mut wrong, mut report) = (0, String::new());
    for (row, allowed) in rows {
        let reply = row.send(api).await;
        let mut faults = faults(&row, &reply, &document);
        if let Some(allowed) = allowed {
            let mut given: Vec<&str> = reply.header("allow").unwrap_or("").split(',').map(str::trim).collect();
            given.sort_unstable();
            if given.join(",") != allowed {
                writeln!(faults, "    allows {given:?}, expected {allowed}").unwrap();
            }
        }
        let newest: Value = api.fetch("/v1/tasks?page_size=1").await.json();
        if newest["tasks"][0]["id"] != json!(kept.id) {
            writeln!(faults, "    created {}", newest["tasks"][0]).unwrap();
        }
        if !faults.is_empty() {
            wrong += 1;
            writeln!(report, "{}\n{faults}", row.what).unwrap();
        }
    }
    assert!(wrong == 0, "{wrong} of {count} requests:\n{report}");
    assert_eq!(api.list("").await, [api.get(kept.id).await]);
    let after = api.stats().await;
    assert_eq!((after.tasks, after.queues), (before.tasks, before.queues));
}

#[tokio::test]
async fn a_batch_with_many_bad_items_names_the_first_hundred_of_their_faults_and_counts_all() {
    let system = System::builder().coordinators(0).workers(0).start().await;
    let good = json!({"command": "echo never"});
    let bad = json!({"command": "echo never", "priority": 10, "queue": "a b"});
    let tasks: Vec<Value> = (0..500).map(|i| if i % 5 == 3 { bad.clone() } else { good.clone() }).collect();
    let problem: Value = system.api.post("/v1/tasks/batch", &json!({"tasks": tasks})).await.expect(422);
    let pointers: Vec<&str> =
        problem["errors"].as_array().unwrap().iter().map(|e| e["pointer"].as_str().unwrap()).collect();
    let expected: Vec<String> =
        (0..50).flat_map(|i| ["queue", "priority"].map(|name| format!("/tasks/{}/{name}", 5 * i + 3))).collect();
    assert_eq!(pointers, expected);
    assert!(problem["detail"].as_str().unwrap().starts_with("200 values are not allowed"), "{problem}");

    let tasks = [good.clone(), bad.clone(), good, json!({"http": {"url": "x", "headers": {"a b": ""}}}), bad];
    let problem: Value = system.api.post("/v1/tasks/batch", &json!({"tasks": tasks})).await.expect(422);
    let pointers: Vec<&str> =
        problem["errors"].as_array().unwrap().iter().map(|e| e["pointer"].as_str().unwrap()).collect();
    let expected = ["1/queue", "1/priority", "3/http/url", "3/http/headers/a b", "4/queue", "4/priority"];
    assert_eq!(pointers, expected.map(|rest| format!("/tasks/{rest}")));
    assert_eq!(system.api.list("").await, []);
}

#[tokio::test]
async fn what_cannot_be_read_of_a_preference_or_a_precondition_is_ignored() {
    let system = System::builder().coordinators(0).workers(0).start().await;
    let api = &system.api;
    let task = json!({"command": "echo never", "delay_seconds": 3600});
    for prefer in
        ["wait", "wait=", "wait=-1", "wait=ten", "wait=0", "return=minimal", "", ";;;", "wait=1.5", "\"wait=9"]
    {
        let created = api.send(Method::POST, "/v1/tasks", Some(&task), &[("Prefer", prefer)]).await;
        created.expect::<Value>(201);
        assert_eq!(created.header("preference-applied"), None, "{prefer:?}");
    }
    let [newest, ..] = api.list("").await.try_into().map(|tasks: [_; 10]| tasks).unwrap();
    for tag in ["", "nonsense", "\"other\"", "W/", ",,,"] {
        let path = format!("/v1/tasks/{}", newest.id);
        api.send(Method::GET, &path, None, &[("If-None-Match", tag)]).await.expect::<Value>(200);
    }
    // A page that is too large is a page of the largest size there is.
    let page: Value = api.fetch("/v1/tasks?page_size=9223372036854775807").await.expect(200);
    assert_eq!(page["tasks"].as_array().unwrap().len(), 10);
    // A request id that cannot be used is replaced, one that can be is kept.
    for (given, kept) in [("my-id.1", true), ("a b", false), ("", false), (&*"x".repeat(129), false)] {
        let reply = api.send(Method::GET, "/v1/tasks/x", None, &[("X-Request-Id", given)]).await;
        let problem: Value = reply.expect(400);
        assert_eq!(problem["request_id"].as_str(), reply.header("x-request-id"));
        assert_eq!(reply.header("x-request-id") == Some(given), kept, "{given:?}");
    }
}
