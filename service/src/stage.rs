//! Stages of a tower stack that look at a request before it is handled, and at its answer after, and wait for nothing.
//!
//! `axum::middleware::from_fn` puts every request's future into a box, and every service below into another; a dozen of those cost more
//! than what they do. A stage has a future of a known type. What waits for something is still best written with `from_fn`.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use pin_project_lite::pin_project;
use taskmaster_openapi::Problem;
use tower::{Layer, Service};

/// What is done with a request and with its answer.
pub trait Stage: Clone {
    /// What is kept of the request until its answer is there.
    type Kept;

    /// Looks at a request.
    ///
    /// # Errors
    /// The refusal, which is the answer; nothing further is done.
    fn enter(&self, request: &mut Request) -> Result<Self::Kept, Problem>;

    /// Looks at the answer.
    fn leave(&self, kept: Self::Kept, response: Response) -> Response;
}

/// Refuses requests, or lets them pass as they are: a stage that does not look at answers.
pub fn guard<C: Fn(&Request) -> Result<(), Problem> + Clone>(check: C) -> Staging<Guard<C>> {
    Staging(Guard(check))
}

/// See [`guard`].
#[derive(Debug, Clone)]
pub struct Guard<C>(C);

impl<C: Fn(&Request) -> Result<(), Problem> + Clone> Stage for Guard<C> {
    type Kept = ();

    fn enter(&self, request: &mut Request) -> Result<(), Problem> {
        (self.0)(request)
    }

    fn leave(&self, (): (), response: Response) -> Response {
        response
    }
}

/// The layer of a stage.
#[derive(Debug, Clone)]
pub struct Staging<S>(pub S);

impl<S: Clone, I> Layer<I> for Staging<S> {
    type Service = Staged<S, I>;

    fn layer(&self, inner: I) -> Self::Service {
        Staged { stage: self.0.clone(), inner }
    }
}

/// A service behind a stage.
#[derive(Debug, Clone)]
pub struct Staged<S, I> {
    stage: S,
    inner: I,
}

impl<S, I> Service<Request> for Staged<S, I>
where
    S: Stage,
    I: Service<Request, Error = Infallible, Response: IntoResponse>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Passage<S, I::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        match self.stage.enter(&mut request) {
            Ok(kept) => Passage::Inside { future: self.inner.call(request), outside: Some((self.stage.clone(), kept)) },
            Err(problem) => Passage::Refused { problem: Some(problem) },
        }
    }
}

pin_project! {
    /// A request on its way through a stage.
    #[project = PassageProjection]
    pub enum Passage<S: Stage, F> {
        Refused { problem: Option<Problem> },
        Inside {
            #[pin]
            future: F,
            // Taken when the answer is there.
            outside: Option<(S, S::Kept)>,
        },
    }
}

impl<S: Stage, F, R> Future for Passage<S, F>
where
    F: Future<Output = Result<R, Infallible>>,
    R: IntoResponse,
{
    type Output = Result<Response, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let response = match self.project() {
            // A future is not polled again once it has ended, so that these are there.
            PassageProjection::Refused { problem } => problem.take().unwrap_or_else(Problem::internal).into_response(),
            PassageProjection::Inside { future, outside } => {
                let response = match ready!(future.poll(context)) {
                    Ok(response) => response.into_response(),
                    Err(never) => match never {},
                };
                match outside.take() {
                    Some((stage, kept)) => stage.leave(kept, response),
                    None => response,
                }
            }
        };
        Poll::Ready(Ok(response))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::body::Body;
    use axum::routing::get;
    use http::{HeaderValue, StatusCode};
    use taskmaster_openapi::Code;
    use tower::{ServiceBuilder, ServiceExt};

    /// Notes in a header of the answer what it kept of the request.
    #[derive(Clone)]
    struct Echo(&'static str);

    impl Stage for Echo {
        type Kept = usize;

        fn enter(&self, request: &mut Request) -> Result<usize, Problem> {
            Ok(request.uri().path().len())
        }

        fn leave(&self, kept: usize, mut response: Response) -> Response {
            if let Ok(value) = HeaderValue::from_str(&format!("{} {kept}", self.0)) {
                response.headers_mut().append("seen", value);
            }
            response
        }
    }

    fn only_a(request: &Request) -> Result<(), Problem> {
        match request.uri().path() {
            "/a" => Ok(()),
            _ => Err(Problem::new(Code::NotFound, "not here")),
        }
    }

    async fn answer(path: &str) -> (StatusCode, Vec<String>) {
        let layers =
            ServiceBuilder::new().layer(Staging(Echo("outer"))).layer(guard(only_a)).layer(Staging(Echo("inner")));
        let router = Router::new().route("/{*path}", get(async || "here")).layer(layers);
        let response = router.oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
        let seen = response.headers().get_all("seen").iter().map(|v| v.to_str().unwrap().to_owned()).collect();
        (response.status(), seen)
    }

    #[tokio::test]
    async fn answers_pass_the_stages_outwards_and_a_refusal_passes_those_around_it_only() {
        assert_eq!(answer("/a").await, (StatusCode::OK, vec!["inner 2".into(), "outer 2".into()]));
        assert_eq!(answer("/bc").await, (StatusCode::NOT_FOUND, vec!["outer 3".into()]));
    }
}
