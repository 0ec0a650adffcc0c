//! Hostile requests: what no honest client sends, thousands of times and many at once, byte by byte over sockets of its own.
//!
//! What is HTTP gets the problem document that the contract has for it. What is not gets a bare status and a closed connection:
//! there is no request yet that a problem could be about. Through all of it the process stays as it is.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use serde_json::{Value, json};
use taskmaster_openapi::Code;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Process, System};

/// Requests in all.
const REQUESTS: usize = 10_000;
/// Connections at once.
const CONCURRENCY: usize = 32;
/// Connections that begin a request, and hold it open while all others are made.
const SLOW_CLIENTS: usize = 200;
/// How much more memory the process may have after all requests than after the first tenth of them.
const GROWTH_BYTES_MAX: u64 = 48 * 1024 * 1024;
/// For one exchange; nothing here takes long.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(30);

/// What must come back.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Expected {
    /// A problem document with this code, and the status that goes with it.
    Problem(Code),
    /// This status without a body, and the end of the connection: it was no HTTP.
    Bare(u16),
    /// So many answers, all of this status: the oddity is allowed, and ignored.
    Answers(usize, u16),
    /// The end of the connection: whoever stops in the middle of a request is not listening.
    Closed,
}

/// One kind of hostile request.
struct Kind {
    what: &'static str,
    bytes: Vec<u8>,
    expected: Expected,
    /// The client says no more after its bytes, and so ends its side.
    stops: bool,
}

fn kind(what: &'static str, expected: Expected, bytes: impl Into<Vec<u8>>) -> Kind {
    Kind { what, bytes: bytes.into(), expected, stops: false }
}

/// A request with these lines after its first, and this body.
fn request(first: &str, lines: &[&str], body: &[u8]) -> Vec<u8> {
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    let mut bytes = format!("{first} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{lines}\r\n").into_bytes();
    bytes.extend(body);
    bytes
}

/// As [`request`], for `POST /v1/tasks`, from a client that does not ask for the connection's end.
fn kept_alive(lines: &[&str], body: &[u8]) -> Vec<u8> {
    let closing = request("POST /v1/tasks", lines, body);
    String::from_utf8_lossy(&closing).replacen("Connection: close\r\n", "", 1).into_bytes()
}

fn get(path: &str, lines: &[&str]) -> Vec<u8> {
    request(&format!("GET {path}"), lines, b"")
}

/// A body for `POST /v1/tasks`, said to be JSON.
fn post(body: impl AsRef<[u8]>) -> Vec<u8> {
    post_with(&[], body)
}

fn post_with(lines: &[&str], body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let length = format!("Content-Length: {}", body.len());
    request("POST /v1/tasks", &[lines, &["Content-Type: application/json", &length]].concat(), body)
}

/// A body in the chunks that are given as they stand.
fn chunked(chunks: &str) -> Vec<u8> {
    let lines = ["Content-Type: application/json", "Transfer-Encoding: chunked"];
    request("POST /v1/tasks", &lines, chunks.as_bytes())
}

const BARE: Expected = Expected::Bare(400);
const FINE: Expected = Expected::Answers(1, 200);
const HOST: &str = "Host: 127.0.0.1\r\nConnection: close";

/// What is no HTTP.
fn framing() -> Vec<Kind> {
    let many: String = (0..101).map(|i| format!("X-{i}: v\r\n")).collect();
    let long = "x".repeat(1024 * 1024);
    vec![
        kind("a TLS hello", BARE, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
        kind("noise", BARE, b"\x00\xff\xfe\x01\x02\r\n\r\n"),
        kind("no version", BARE, "GET /livez\r\n\r\n"),
        kind("an unknown version", BARE, format!("GET /livez HTTP/9.9\r\n{HOST}\r\n\r\n")),
        kind("HTTP/2", Expected::Closed, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        kind("a blank in the path", BARE, format!("GET /li vez HTTP/1.1\r\n{HOST}\r\n\r\n")),
        kind("a NUL in the path", BARE, format!("GET /\0 HTTP/1.1\r\n{HOST}\r\n\r\n")),
        kind("a line without a colon", BARE, get("/livez", &["Nonsense"])),
        kind("a blank before the colon", BARE, get("/livez", &["X-A : b"])),
        kind("a folded line", BARE, get("/livez", &["X-A: b", " c"])),
        kind("a NUL in a header", BARE, get("/livez", &["X-A: b\0c"])),
        kind("a name that is none", BARE, get("/livez", &["X(A): b"])),
        kind("a hundred headers too many", Expected::Bare(431), get("/livez", &[many.trim_end()])),
        kind("a header of 1 MiB", Expected::Bare(431), get("/livez", &[&format!("X-A: {long}")])),
        kind("a path of 100 KiB", Expected::Bare(414), get(&format!("/{}", &long[..100 * 1024]), &[])),
        kind(
            "a method of 1 KiB",
            Expected::Problem(Code::MethodNotAllowed),
            request(&format!("{} /", "M".repeat(1024)), &[], b""),
        ),
        kind("two lengths", BARE, request("POST /v1/tasks", &["Content-Length: 2", "Content-Length: 3"], b"{}")),
        kind("a list of lengths", BARE, request("POST /v1/tasks", &["Content-Length: 2, 3"], b"{}")),
        kind("a length below 0", BARE, request("POST /v1/tasks", &["Content-Length: -1"], b"")),
        kind("a length with a sign", BARE, request("POST /v1/tasks", &["Content-Length: +2"], b"{}")),
        kind("a length in hexadecimal", BARE, request("POST /v1/tasks", &["Content-Length: 0x2"], b"{}")),
        kind(
            "a length beyond 64 bits",
            BARE,
            request("POST /v1/tasks", &["Content-Length: 99999999999999999999"], b""),
        ),
        kind("an unknown coding", BARE, request("POST /v1/tasks", &["Transfer-Encoding: xchunked"], b"0\r\n\r\n")),
        kind(
            "a coding after chunks",
            BARE,
            request("POST /v1/tasks", &["Transfer-Encoding: chunked, gzip"], b"0\r\n\r\n"),
        ),
        kind(
            "chunks in HTTP/1.0",
            BARE,
            format!("POST /v1/tasks HTTP/1.0\r\n{HOST}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ),
    ]
}

/// Bodies that try to be two requests, or break off.
fn smuggling() -> Vec<Kind> {
    let json = ["Content-Type: application/json"];
    let both = [json[0], "Content-Length: 6", "Transfer-Encoding: chunked"];
    let smuggled = b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
    let broken = Expected::Problem(Code::InvalidJson);
    let stops = |kind: Kind| Kind { stops: true, ..kind };
    vec![
        // The chunks count, and nothing after them is read: the connection ends with the answer (RFC 9112, 6.3), also where
        // the client would go on.
        kind("a length and chunks, kept alive", broken, kept_alive(&both, smuggled)),
        kind("a length and chunks", broken, request("POST /v1/tasks", &both, smuggled)),
        kind(
            "more than the length",
            broken,
            request("POST /v1/tasks", &[json[0], "Content-Length: 1"], b"{GET /smuggled HTTP/1.1\r\n\r\n"),
        ),
        kind("a chunk that is no number", broken, chunked("zz\r\n{}\r\n0\r\n\r\n")),
        kind("a chunk beyond 64 bits", broken, chunked("fffffffffffffffff\r\n{}\r\n0\r\n\r\n")),
        kind("a chunk longer than it says", broken, chunked("1\r\n{}\r\n0\r\n\r\n")),
        stops(kind(
            "a body that stops",
            broken,
            request("POST /v1/tasks", &[json[0], "Content-Length: 100"], b"{\"comm"),
        )),
        stops(kind("chunks that stop", broken, chunked("20\r\n{\"comm"))),
        stops(kind("headers that stop", Expected::Closed, "GET /livez HTTP/1.1\r\nHost: 127.0")),
        stops(kind("a line that stops", Expected::Closed, "GE")),
        kind(
            "a body of an exabyte",
            Expected::Problem(Code::BodyTooLarge),
            request("POST /v1/tasks", &[json[0], "Content-Length: 1000000000000000000", "Expect: 100-continue"], b""),
        ),
        kind("ten requests at once", Expected::Answers(10, 200), pipeline(10)),
    ]
}

fn pipeline(count: usize) -> Vec<u8> {
    let mut bytes = b"GET /v1/tasks?page_size=1 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".repeat(count - 1);
    bytes.extend(get("/v1/tasks?page_size=1", &[]));
    bytes
}

/// JSON, and what only looks like it.
fn bodies() -> Vec<Kind> {
    let broken = Expected::Problem(Code::InvalidJson);
    let shape = Expected::Problem(Code::InvalidBody);
    let value = Expected::Problem(Code::ValidationFailed);
    let media = Expected::Problem(Code::UnsupportedMediaType);
    let typed = |media: &str| request("POST /v1/tasks", &[media, "Content-Length: 2"], b"{}");
    vec![
        kind("no type", media, request("POST /v1/tasks", &["Content-Length: 2"], b"{}")),
        kind("a form", media, typed("Content-Type: application/x-www-form-urlencoded")),
        kind("text", media, typed("Content-Type: text/plain;application/json")),
        kind("a type of noise", media, typed("Content-Type: \u{fffd}")),
        kind("brackets, 100,000 deep", shape, post("[".repeat(100_000))),
        kind("objects, 10,000 deep", shape, post("{\"http\":".repeat(10_000))),
        kind("a NUL", broken, post("{\"command\":\"a\0b\"}")),
        kind("an escaped NUL", value, post(r#"{"command":"a\u0000b"}"#)),
        kind("bytes that are not UTF-8", broken, post(b"{\"command\":\"\xc3\x28\"}")),
        kind("UTF-16", broken, post(b"\xff\xfe{\0}\0")),
        kind("a byte order mark", broken, post("\u{feff}{\"command\":\"x\"}")),
        kind("half a surrogate", broken, post(r#"{"command":"\ud800"}"#)),
        kind("a compressed body", broken, post_with(&["Content-Encoding: gzip"], b"\x1f\x8b\x08\x00\x00\x00")),
        kind("a number beyond floats", broken, post(r#"{"command":"x","delay_seconds":1e999}"#)),
        kind("a number beyond integers", shape, post(r#"{"command":"x","priority":99999999999999999999}"#)),
        kind(
            "a number of 1,000 digits",
            broken,
            post(format!(r#"{{"command":"x","delay_seconds":{}}}"#, "9".repeat(1000))),
        ),
        kind("not a number", broken, post(r#"{"command":"x","delay_seconds":NaN}"#)),
        kind("a key twice", shape, post(r#"{"command":"x","command":"y"}"#)),
        kind("__proto__", shape, post(r#"{"__proto__":{"command":"x"}}"#)),
        kind("1 MiB of one key", shape, post(format!(r#"{{"{}":1}}"#, "k".repeat(1_000_000)))),
        kind(
            "1 MiB and more",
            Expected::Problem(Code::BodyTooLarge),
            post(format!(r#"{{"command":"{}"}}"#, "x".repeat(1024 * 1024))),
        ),
        kind("100,000 tags", value, post(format!(r#"{{"command":"x","tags":[{}"a"]}}"#, r#""a","#.repeat(100_000)))),
        kind("a target of this machine", value, post(r#"{"http":{"url":"http://0x0.0/"}}"#)),
        kind("a target with a password", value, post(r#"{"http":{"url":"http://u:p@h/"}}"#)),
        kind("a target that is a file", value, post(r#"{"http":{"url":"file:///etc/passwd"}}"#)),
        kind("a header within a header", value, post(r#"{"http":{"url":"http://h/","headers":{"x":"a\r\nHost: b"}}}"#)),
        kind(
            "a header of the connection",
            value,
            post(r#"{"http":{"url":"http://h/","headers":{"Transfer-Encoding":"chunked"}}}"#),
        ),
        kind("SQL for a queue", value, post(r#"{"command":"x","queue":"q'; DROP TABLE tasks; --"}"#)),
    ]
}

/// Paths, methods, queries and headers.
fn lines() -> Vec<Kind> {
    let problem = Expected::Problem;
    let keyed = |line: &str| post_with(&[line], r#"{"command":"x"}"#);
    let query = "a=b&".repeat(5_000);
    let ranges: String = (0..1_000).map(|i| format!("{i}-{i},")).collect();
    vec![
        kind("dots", problem(Code::NotFound), get("/v1/../../etc/passwd", &[])),
        kind("dots in disguise", problem(Code::NotFound), get("/v1/%2e%2e/%2e%2e/etc/passwd", &[])),
        kind("two slashes", problem(Code::NotFound), get("//v1/tasks", &[])),
        kind("a parameter of the path", problem(Code::NotFound), get("/v1/tasks;a=b", &[])),
        kind("a NUL for an id", problem(Code::InvalidPath), get("/v1/tasks/%00", &[])),
        kind("bytes for an id", problem(Code::InvalidPath), get("/v1/tasks/%ff%fe", &[])),
        kind("an escape that is none", problem(Code::InvalidPath), get("/v1/tasks/%zz", &[])),
        kind("another authority", problem(Code::ForbiddenOrigin), get("http://evil.example/v1/tasks", &["X-A: b"])),
        kind(
            "another host",
            problem(Code::ForbiddenOrigin),
            "GET /v1/tasks HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
        ),
        kind("another page", problem(Code::ForbiddenOrigin), get("/v1/tasks", &["Origin: https://evil.example"])),
        kind("a page of nowhere", problem(Code::ForbiddenOrigin), get("/v1/tasks", &["Origin: null"])),
        kind("a method that is not there", problem(Code::MethodNotAllowed), request("DELETE /v1/tasks", &[], b"")),
        kind("a method of its own", problem(Code::MethodNotAllowed), request("BREW /v1/tasks", &[], b"")),
        kind("TRACE", problem(Code::MethodNotAllowed), request("TRACE /v1/tasks", &[], b"")),
        kind("a method in small letters", problem(Code::MethodNotAllowed), request("get /v1/tasks", &[], b"")),
        kind("a tunnel", problem(Code::NotFound), request("CONNECT 127.0.0.1:22", &[], b"")),
        kind("5,000 parameters", problem(Code::InvalidQuery), get(&format!("/v1/tasks?{query}"), &[])),
        kind("a parameter twice", problem(Code::InvalidQuery), get("/v1/tasks?queue=a&queue=b", &[])),
        kind("a token of noise", problem(Code::InvalidPageToken), get("/v1/tasks?page_token=%ff%00AAAA", &[])),
        kind(
            "a token of other filters",
            problem(Code::InvalidPageToken),
            get("/v1/tasks?page_token=AQGiBDq8cXFeuBOLko8usA1_nS2SmmjIMw", &[]),
        ),
        kind("an event below 0", problem(Code::InvalidHeader), get("/v1/events", &["Last-Event-ID: -1"])),
        kind("a lone quote for a key", problem(Code::InvalidHeader), keyed("Idempotency-Key: \"")),
        kind(
            "8 KiB for a key",
            problem(Code::InvalidHeader),
            keyed(&format!("Idempotency-Key: {}", "k".repeat(8 * 1024))),
        ),
        kind(
            "a token that lets nobody in",
            problem(Code::Unauthorized),
            request("DELETE /v1/workers/w", &["Authorization: Bearer x"], b""),
        ),
        kind(
            "no token",
            problem(Code::Unauthorized),
            request(
                "POST /v1/task-status",
                &["Content-Type: application/json", "Content-Length: 31"],
                br#"{"worker_id":"w","reports":[]} "#,
            ),
        ),
        kind("a thousand ranges", FINE, get("/v1/tasks", &[&format!("Range: bytes={ranges}0-0")])),
        kind(
            "preconditions of noise",
            FINE,
            get("/v1/stats", &["If-None-Match: W/,,\"", "If-Modified-Since: never", "If-Match: *"]),
        ),
        kind("forwarded for noise", FINE, get("/v1/tasks", &["X-Forwarded-For: ,,\u{fffd},::::,1.2.3.4.5"])),
        kind("an upgrade", FINE, get("/v1/tasks", &["Upgrade: h2c, websocket", "HTTP2-Settings: AAMAAABkAAQAAP__"])),
        kind(
            "a preference of noise",
            FINE,
            get("/v1/tasks", &["Prefer: wait=\"\\\\\\\",;=wait=9999999999999999999999"]),
        ),
        kind("a request id of noise", FINE, get("/v1/tasks", &["X-Request-Id: \u{fffd} a\tb"])),
        kind("nobody's credentials", FINE, get("/v1/tasks", &["Authorization: Bearer \u{fffd}", "Cookie: a=b"])),
    ]
}

/// What came back on one connection.
async fn exchange(address: &str, kind: &Kind) -> Result<Vec<u8>, String> {
    let exchanging = async {
        let mut stream = TcpStream::connect(address).await.map_err(|error| format!("connect: {error}"))?;
        // Whoever is refused in the middle of what it says may not be heard to its end.
        let _ = stream.write_all(&kind.bytes).await;
        if kind.stops {
            let _ = stream.shutdown().await;
        }
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        Ok(answer)
    };
    tokio::time::timeout(EXCHANGE_TIMEOUT, exchanging).await.unwrap_or_else(|_| Err("no end of it".into()))
}

/// Status, headers and body of each answer on a connection.
fn answers(mut bytes: &[u8]) -> Vec<(u16, String, Vec<u8>)> {
    let mut answers = Vec::new();
    while let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
        let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        bytes = &bytes[end + 4..];
        // "Go on" is no answer yet.
        if status == 100 {
            continue;
        }
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
        let (body, rest) = match head.contains("transfer-encoding: chunked") {
            true => dechunked(bytes),
            false => {
                let (body, rest) = bytes.split_at(length.unwrap_or(bytes.len()).min(bytes.len()));
                (body.to_vec(), rest)
            }
        };
        answers.push((status, head, body));
        bytes = rest;
    }
    answers
}

/// A body in chunks, and what follows it.
fn dechunked(mut bytes: &[u8]) -> (Vec<u8>, &[u8]) {
    let mut body = Vec::new();
    while let Some(end) = bytes.windows(2).position(|window| window == b"\r\n") {
        let size = std::str::from_utf8(&bytes[..end]).ok().and_then(|size| usize::from_str_radix(size, 16).ok());
        let Some(chunk) = size.and_then(|size| bytes.get(end + 2..end + 2 + size)) else { break };
        body.extend_from_slice(chunk);
        bytes = bytes.get(end + 2 + chunk.len() + 2..).unwrap_or_default();
        if chunk.is_empty() {
            break;
        }
    }
    (body, bytes)
}

/// What is wrong with what came back.
fn fault(expected: Expected, bytes: &[u8]) -> Option<String> {
    let answers = answers(bytes);
    let shown = || {
        answers
            .iter()
            .map(|(status, _, body)| format!("{status} {}", String::from_utf8_lossy(&body[..body.len().min(300)])))
            .collect::<Vec<_>>()
            .join(" | ")
    };
    let right = match (expected, answers.as_slice()) {
        (Expected::Closed, answers) => answers.is_empty(),
        (Expected::Bare(status), [(given, _, body)]) => *given == status && body.is_empty(),
        (Expected::Answers(count, status), answers) => {
            answers.len() == count && answers.iter().all(|answer| answer.0 == status)
        }
        (Expected::Problem(code), [(status, head, body)]) => {
            let problem: Value = serde_json::from_slice(body).unwrap_or_default();
            head.contains("content-type: application/problem+json")
                && head.contains("x-request-id: ")
                && *status == code.status().as_u16()
                && problem["status"] == *status
                && problem["code"] == json!(code)
        }
        _ => false,
    };
    (!right).then(|| format!("{} answers: {}", answers.len(), shown()))
}

/// Sends so many requests of all kinds in turn; gives back what went wrong, by kind.
async fn attack(address: &str, kinds: &Arc<Vec<Kind>>, count: usize) -> BTreeMap<&'static str, String> {
    let exchanges = (0..count).map(|number| {
        let (address, kinds) = (address.to_owned(), kinds.clone());
        // Tasks of their own, so that both of the machine's processors have something to do.
        tokio::spawn(async move {
            let kind = &kinds[number % kinds.len()];
            let answer = exchange(&address, kind).await;
            let fault = answer.map_or_else(Some, |bytes| fault(kind.expected, &bytes))?;
            Some((kind.what, format!("expected {:?}, got {fault}", kind.expected)))
        })
    });
    let faults = futures::stream::iter(exchanges).buffer_unordered(CONCURRENCY);
    faults.filter_map(async |fault| fault.expect("no exchange panics")).collect().await
}

fn resident_bytes(process: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_hostile_requests_are_each_answered_as_documented_and_leave_nothing_behind() {
    // As many places as there are connections, however many processors: none is refused because of the others.
    let system = System::builder().workers(0).gateway_args(&["--reads-at-once", "32"]).start().await;
    let address = system.api.url.trim_start_matches("http://").to_owned();
    let kept = system.api.create(json!({"command": "echo kept", "delay_seconds": 3600})).await;
    let kinds: Arc<Vec<Kind>> = Arc::new([framing(), smuggling(), bodies(), lines()].into_iter().flatten().collect());
    assert!(kinds.len() >= 40);

    let mut slow = Vec::new();
    for _ in 0..SLOW_CLIENTS {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        stream.write_all(b"POST /v1/tasks HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Le").await.unwrap();
        slow.push(stream);
    }

    let mut faults = attack(&address, &kinds, REQUESTS / 10).await;
    let before = resident_bytes(&system.gateways[0]);
    faults.extend(attack(&address, &kinds, REQUESTS - REQUESTS / 10).await);
    let after = resident_bytes(&system.gateways[0]);

    let mut report = String::new();
    for (what, fault) in &faults {
        writeln!(report, "{what}: {fault}").unwrap();
    }
    assert!(faults.is_empty(), "{} of {} kinds:\n{report}", faults.len(), kinds.len());
    assert!(after.saturating_sub(before) <= GROWTH_BYTES_MAX, "grew from {before} to {after} bytes");
    // Nothing was created, nothing panicked, and an honest client is served.
    drop(slow);
    assert_eq!(system.api.list("").await, [system.api.get(kept.id).await]);
    for line in system.gateways[0].log().iter().chain(system.coordinators[0].log().iter()) {
        let level = serde_json::from_str::<Value>(line).unwrap_or_default()["level"].clone();
        assert!(level != "ERROR" && level != "WARN" && !line.contains("panic"), "{line}");
    }
}
