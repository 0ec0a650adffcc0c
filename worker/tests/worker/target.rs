//! A recording HTTP target.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;

#[derive(Debug, Clone)]
pub struct Received {
    pub at: Instant,
    pub method: String,
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

#[derive(Debug, Default)]
struct Record {
    received: Vec<Received>,
    running: usize,
    running_most: usize,
}

/// Answers by path: `/sleep/MS`, `/status/CODE`, `/header/NAME/VALUE/CODE`, `/bytes/COUNT`, `/binary`, `/redirect`, `/cut`; all else 200 "ok".
#[derive(Debug, Clone)]
pub struct Target {
    pub url: String,
    record: Arc<Mutex<Record>>,
}

impl Target {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let record = Arc::new(Mutex::new(Record::default()));
        let router = Router::new().fallback(answer).with_state(record.clone());
        let shutdown = taskmaster_service::Shutdown::new();
        tokio::spawn(taskmaster_service::server::serve(listener, router, Default::default(), shutdown));
        Self { url, record }
    }

    pub fn received(&self) -> Vec<Received> {
        self.record.lock().unwrap().received.clone()
    }

    /// The most requests that were in progress at once.
    pub fn running_most(&self) -> usize {
        self.record.lock().unwrap().running_most
    }
}

async fn answer(State(record): State<Arc<Mutex<Record>>>, request: Request) -> Response {
    let at = Instant::now();
    let (parts, body) = request.into_parts();
    let path = parts.uri.to_string();
    {
        let mut record = record.lock().unwrap();
        record.running += 1;
        record.running_most = record.running_most.max(record.running);
    }
    let body = body.collect().await.unwrap().to_bytes();
    let received = Received { at, method: parts.method.to_string(), path: path.clone(), headers: parts.headers, body };
    record.lock().unwrap().received.push(received);
    let response = respond(&path).await;
    record.lock().unwrap().running -= 1;
    response
}

async fn respond(path: &str) -> Response {
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    match parts[..] {
        ["sleep", ms] => {
            tokio::time::sleep(Duration::from_millis(ms.parse().unwrap())).await;
            "slept".into_response()
        }
        ["status", code] => (StatusCode::from_u16(code.parse().unwrap()).unwrap(), "as asked").into_response(),
        ["header", name, value, code] => {
            let status = StatusCode::from_u16(code.parse().unwrap()).unwrap();
            let headers = HeaderMap::from_iter([(name.parse().unwrap(), value.replace('_', " ").parse().unwrap())]);
            (status, headers, "as asked").into_response()
        }
        ["bytes", count] => vec![b'x'; count.parse().unwrap()].into_response(),
        ["binary"] => vec![0xff, 0xfe].into_response(),
        ["redirect"] => (StatusCode::FOUND, [("location", "/elsewhere"), ("set-cookie", "a=b")]).into_response(),
        ["cut"] => {
            let broken = futures::stream::once(async { Err::<Bytes, _>(std::io::Error::other("cut")) });
            axum::body::Body::from_stream(broken).into_response()
        }
        _ => "ok".into_response(),
    }
}
