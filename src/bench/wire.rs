//! Load by a client that does next to nothing: fixed requests over connections that stay open, answers of which only the status is
//! looked at. So what is measured is the gateway, and not who measures.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use taskmaster_service::Secret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// No answer takes longer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// A request, as it goes over the wire.
pub(super) fn request(method: &str, path: &str, key: Option<&Secret>, body: &[u8]) -> Bytes {
    let key = key.map(|key| format!("Authorization: Bearer {}\r\n", key.expose())).unwrap_or_default();
    let body_headers = match body.len() {
        0 => String::new(),
        length => format!("Content-Type: application/json\r\nContent-Length: {length}\r\n"),
    };
    let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{key}{body_headers}\r\n");
    [head.as_bytes(), body].concat().into()
}

/// A connection that stays open.
pub(super) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub async fn open(address: SocketAddr) -> Result<Self, String> {
        let stream = TcpStream::connect(address).await.map_err(|error| format!("{address}: {error}"))?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        Ok(Self { stream, buffer: Vec::with_capacity(16 * 1024) })
    }

    /// The status of the answer to a request.
    pub async fn ask(&mut self, request: &[u8]) -> Result<u16, String> {
        let asked = tokio::time::timeout(ANSWER_TIMEOUT, self.exchange(request)).await;
        asked.map_err(|_| format!("no answer within {} s", ANSWER_TIMEOUT.as_secs()))?
    }

    /// As [`Self::ask`], with the body of the answer.
    pub async fn ask_for_body(&mut self, request: &[u8]) -> Result<(u16, Vec<u8>), String> {
        let status = self.ask(request).await?;
        let body = head_length(&self.buffer).map(|head| self.buffer[head..].to_vec()).unwrap_or_default();
        Ok((status, body))
    }

    async fn exchange(&mut self, request: &[u8]) -> Result<u16, String> {
        self.stream.write_all(request).await.map_err(|error| error.to_string())?;
        self.buffer.clear();
        loop {
            if self.stream.read_buf(&mut self.buffer).await.map_err(|error| error.to_string())? == 0 {
                return Err("the connection was closed".into());
            }
            if let Some(status) = whole_answer(&self.buffer)? {
                return Ok(status);
            }
        }
    }
}

fn head_length(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|place| place + 4)
}

/// The status of an answer that has arrived whole.
fn whole_answer(bytes: &[u8]) -> Result<Option<u16>, String> {
    let Some(head_length) = head_length(bytes) else { return Ok(None) };
    let head = std::str::from_utf8(&bytes[..head_length]).map_err(|error| error.to_string())?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    if bytes.len() < head_length + length.unwrap_or(0) {
        return Ok(None);
    }
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.map(Some).ok_or_else(|| format!("no answer of HTTP: {:?}", head.lines().next()))
}

/// What came back.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// How long each answer of 2xx took, in milliseconds: from the moment that it should have been asked for, where that was late.
    pub admitted_ms: Vec<f64>,
    /// Answers of 503.
    pub refused: u64,
}

impl Answers {
    pub fn add(&mut self, other: Self) {
        self.admitted_ms.extend(other.admitted_ms);
        self.refused += other.refused;
    }

    fn note(&mut self, status: u16, took: Duration) -> Result<(), String> {
        match status {
            200..300 => self.admitted_ms.push(took.as_secs_f64() * 1000.0),
            503 => self.refused += 1,
            other => return Err(format!("an answer of {other}")),
        }
        Ok(())
    }
}

/// As fast as answers come, over so many connections.
pub(super) async fn closed(
    address: SocketAddr,
    request: Bytes,
    connections: usize,
    within: Duration,
) -> Result<Answers, String> {
    let end = Instant::now() + within;
    each(connections, move |_| {
        let request = request.clone();
        async move {
            let (mut connection, mut answers) = (Connection::open(address).await?, Answers::default());
            while Instant::now() < end {
                let asked = Instant::now();
                answers.note(connection.ask(&request).await?, asked.elapsed())?;
            }
            Ok(answers)
        }
    })
    .await
}

/// So many requests a second, whether answers come or not, over so many connections in turn. What was due in the first second is not
/// counted.
pub(super) async fn open(
    address: SocketAddr,
    request: Bytes,
    per_second: f64,
    connections: usize,
    within: Duration,
) -> Result<Answers, String> {
    let mut opened = Vec::new();
    for _ in 0..connections {
        opened.push(Connection::open(address).await?);
    }
    let (began, next) = (Instant::now() + Duration::from_millis(10), Arc::new(AtomicU64::new(0)));
    let opened = std::sync::Mutex::new(opened);
    each(connections, move |_| {
        let (request, next) = (request.clone(), next.clone());
        let connection = opened.lock().ok().and_then(|mut opened| opened.pop());
        async move {
            let (mut connection, mut answers) = (connection.ok_or("too few connections")?, Answers::default());
            loop {
                // Whichever connection is free takes the next request; when none is, it is late, and that counts.
                let due = began + Duration::from_secs_f64(next.fetch_add(1, Ordering::Relaxed) as f64 / per_second);
                if due >= began + WARM_UP + within {
                    return Ok(answers);
                }
                let mut asked = due;
                if due > Instant::now() {
                    tokio::time::sleep_until(due.into()).await;
                    asked = Instant::now();
                }
                let status = connection.ask(&request).await?;
                if due >= began + WARM_UP {
                    answers.note(status, asked.elapsed())?;
                }
            }
        }
    })
    .await
}

/// A burst is served late rather than refused; what follows is what is looked at.
const WARM_UP: Duration = Duration::from_secs(1);

async fn each<F>(count: usize, run: impl Fn(usize) -> F) -> Result<Answers, String>
where
    F: Future<Output = Result<Answers, String>> + Send + 'static,
{
    let mut running: JoinSet<_> = (0..count).map(run).collect();
    let mut all = Answers::default();
    while let Some(answers) = running.join_next().await {
        all.add(answers.map_err(|error| error.to_string())??);
    }
    Ok(all)
}

/// Runs the load on a thread of its own, on these processors.
pub(super) async fn on_its_own<T: Send + 'static>(
    processors: Vec<usize>,
    load: impl Future<Output = Result<T, String>> + Send + 'static,
) -> Result<T, String> {
    let (tell, told) = tokio::sync::oneshot::channel();
    let run = move || {
        let ran = super::cores::keep_thread_on(&processors).and_then(|()| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map_err(|error| error.to_string())?.block_on(load)
        });
        let _ = tell.send(ran);
    };
    std::thread::Builder::new().name("load".into()).spawn(run).map_err(|error| error.to_string())?;
    told.await.map_err(|_| "the load ended before its time".to_owned())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_when_its_body_is() {
        let answer = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 3\r\n\r\nabc";
        for length in 0..answer.len() {
            assert_eq!(whole_answer(&answer[..length]), Ok(None), "{length}");
        }
        assert_eq!(whole_answer(answer), Ok(Some(503)));
        assert!(whole_answer(b"nonsense\r\n\r\n").is_err());
    }

    #[test]
    fn a_request_carries_its_key_and_its_body() {
        let key = Secret::new("k");
        assert_eq!(request("GET", "/a", None, b""), "GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let post = request("POST", "/a", Some(&key), b"{}");
        assert!(
            post.ends_with(b"Authorization: Bearer k\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
        );
    }
}
