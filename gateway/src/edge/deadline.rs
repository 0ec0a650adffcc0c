//! How long a request may take: until its answer's headers are there.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::Poll;

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::{StreamExt, stream};
use http::header;
use taskmaster_openapi::{Code, Problem};

use crate::config::Settings;
use crate::edge::admission::Admission;
use crate::prefer;

/// Ends requests that take too long: 408 when it was the client who did not finish sending, else 504. `Prefer: wait=N` adds N
/// seconds. What streams once its headers are sent has no deadline here.
pub(crate) async fn limit(settings: &Settings, admission: &Admission, request: Request, next: Next) -> Response {
    let limit = settings.request_timeout + prefer::wait(request.headers()).unwrap_or_default();
    let arrival = Arc::new(AtomicU8::new(UNREAD));
    let request = request.map(|body| watched(body, arrival.clone(), admission.clone()));
    if let Ok(response) = tokio::time::timeout(limit, next.run(request)).await {
        return response;
    }
    let seconds = limit.as_secs_f64();
    if arrival.load(Ordering::Relaxed) == ARRIVING {
        let detail = format!("The body did not arrive within {seconds} s.");
        return closing(Problem::new(Code::RequestTimeout, detail)).into_response();
    }
    let detail = format!("The request was not finished within {seconds} s. What it asked for may still happen.");
    closing(Problem::new(Code::Timeout, detail)).into_response()
}

/// The rest of the body may still be on its way: the connection is of no further use.
fn closing(problem: Problem) -> Problem {
    problem.with_header(header::CONNECTION, "close")
}

/// How much of a body has arrived.
const UNREAD: u8 = 0;
const ARRIVING: u8 = 1;
const ARRIVED: u8 = 2;

/// A body that notes how far its reader got, and leaves its request's place to others while the client sends nothing.
fn watched(body: Body, arrival: Arc<AtomicU8>, admission: Admission) -> Body {
    if body.is_end_stream() {
        return body;
    }
    let mut chunks = body.into_data_stream();
    Body::from_stream(stream::poll_fn(move |context| {
        let polled = chunks.poll_next_unpin(context);
        let ended = matches!(polled, Poll::Ready(None | Some(Err(_))));
        match polled.is_pending() {
            true => admission.pause(),
            false => admission.resume(),
        }
        arrival.store(if ended { ARRIVED } else { ARRIVING }, Ordering::Relaxed);
        polled
    }))
}
