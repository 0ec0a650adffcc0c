//! How long a request may take: until its answer's headers are there.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use futures::{StreamExt, stream};
use http::header;
use pin_project_lite::pin_project;
use taskmaster_openapi::{Code, Problem};
use tokio::time::Timeout;
use tower::Service;

use crate::app::App;
use crate::edge::admission::Admission;
use crate::prefer;

/// A service that ends requests that take too long: 408 when it was the client who did not finish sending, else 504. `Prefer: wait=N`
/// adds N seconds. What streams once its headers are sent has no deadline here.
#[derive(Clone)]
pub(crate) struct Deadline<I> {
    pub app: App,
    pub inner: I,
}

impl<I> Service<Request> for Deadline<I>
where
    I: Service<Request, Error = Infallible, Response: IntoResponse>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Limited<I::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let limit = self.app.settings.request_timeout + prefer::wait(request.headers()).unwrap_or_default();
        let arrival = (!request.body().is_end_stream()).then(Arc::default);
        let request = match (&arrival, request.extensions().get::<Admission>().cloned()) {
            (Some(arrival), Some(admission)) => request.map(|body| watched(body, Arc::clone(arrival), admission)),
            _ => request,
        };
        Limited { inner: tokio::time::timeout(limit, self.inner.call(request)), limit, arrival }
    }
}

pin_project! {
    /// A request that is ended when it takes too long.
    pub(crate) struct Limited<F> {
        #[pin]
        inner: Timeout<F>,
        limit: Duration,
        // How much of the body has arrived, where there is one.
        arrival: Option<Arc<AtomicU8>>,
    }
}

impl<F, R> Future for Limited<F>
where
    F: Future<Output = Result<R, Infallible>>,
    R: IntoResponse,
{
    type Output = Result<Response, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let limited = self.project();
        Poll::Ready(Ok(match ready!(limited.inner.poll(context)) {
            Ok(Ok(response)) => response.into_response(),
            Ok(Err(never)) => match never {},
            Err(_) => too_late(*limited.limit, limited.arrival.as_deref()).into_response(),
        }))
    }
}

fn too_late(limit: Duration, arrival: Option<&AtomicU8>) -> Problem {
    let seconds = limit.as_secs_f64();
    if arrival.is_some_and(|arrival| arrival.load(Ordering::Relaxed) == ARRIVING) {
        return closing(Problem::new(Code::RequestTimeout, format!("The body did not arrive within {seconds} s.")));
    }
    let detail = format!("The request was not finished within {seconds} s. What it asked for may still happen.");
    closing(Problem::new(Code::Timeout, detail))
}

/// The rest of the body may still be on its way: the connection is of no further use.
fn closing(problem: Problem) -> Problem {
    problem.with_header(header::CONNECTION, "close")
}

/// How much of a body has arrived: 0 while nobody has begun to read it.
const ARRIVING: u8 = 1;
const ARRIVED: u8 = 2;

/// A body that notes how far its reader got, and leaves its request's place to others while the client sends nothing.
fn watched(body: Body, arrival: Arc<AtomicU8>, admission: Admission) -> Body {
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
