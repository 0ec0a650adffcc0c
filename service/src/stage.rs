//! Stages of a tower stack, each of which looks at a request before it is handled, and at its answer after.
//!
//! `axum::middleware::from_fn` puts the future of every request into a box, and a copy of every service below into another; a dozen of
//! those cost more than what they do. A stage has a future of a known type, and a box only where it waits for something.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use futures::future::BoxFuture;
use pin_project_lite::pin_project;
use taskmaster_openapi::Problem;
use tower::{Layer, Service};

/// What is done with a request and with its answer.
pub trait Stage: Clone {
    /// What is kept of the request until its answer is there.
    type Kept;

    /// Looks at a request.
    fn enter(&self, request: Request) -> Entry<Self::Kept>;

    /// Looks at the answer; it stays as it is where a stage only looks at requests.
    fn leave(&self, _: Self::Kept, response: Response) -> Exit {
        response.into()
    }
}

/// What becomes of a request at a stage.
pub enum Entry<K> {
    /// It goes on to what is further in.
    Passed(Request, K),
    /// The refusal is the answer; nothing further is done.
    Refused(Problem),
    /// That is known once this is over.
    Later(BoxFuture<'static, Entry<K>>),
}

/// What becomes of an answer at a stage.
pub enum Exit {
    Answered(Response),
    /// The answer is there once this is over.
    Later(BoxFuture<'static, Response>),
}

impl From<Response> for Exit {
    fn from(response: Response) -> Self {
        Exit::Answered(response)
    }
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

    fn enter(&self, request: Request) -> Entry<()> {
        match (self.0)(&request) {
            Ok(()) => Entry::Passed(request, ()),
            Err(problem) => Entry::Refused(problem),
        }
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
    I: Service<Request, Error = Infallible, Response: IntoResponse> + Clone,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Passage<S, I, I::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        match self.stage.enter(request) {
            Entry::Passed(request, kept) => {
                Passage::Inside { future: self.inner.call(request), outside: Some((self.stage.clone(), kept)) }
            }
            Entry::Refused(problem) => Passage::Refused { problem: Some(problem) },
            Entry::Later(entry) => {
                // Of the two, the one that was said to be ready.
                let ready = self.inner.clone();
                let inner = std::mem::replace(&mut self.inner, ready);
                Passage::Entering { entry, behind: Some((self.stage.clone(), inner)) }
            }
        }
    }
}

pin_project! {
    /// A request on its way through a stage.
    #[project = PassageProjection]
    pub enum Passage<S: Stage, I, F> {
        Entering { entry: BoxFuture<'static, Entry<S::Kept>>, behind: Option<(S, I)> },
        Refused { problem: Option<Problem> },
        Inside {
            #[pin]
            future: F,
            outside: Option<(S, S::Kept)>,
        },
        Leaving { exit: BoxFuture<'static, Response> },
    }
}

impl<S, I> Future for Passage<S, I, I::Future>
where
    S: Stage,
    I: Service<Request, Error = Infallible, Response: IntoResponse>,
{
    type Output = Result<Response, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            // What is taken is there: each of these is come to once.
            let next = match self.as_mut().project() {
                PassageProjection::Entering { entry, behind } => {
                    match (ready!(entry.as_mut().poll(context)), behind.take()) {
                        (Entry::Passed(request, kept), Some((stage, mut inner))) => {
                            Passage::Inside { future: inner.call(request), outside: Some((stage, kept)) }
                        }
                        (Entry::Later(entry), behind) => Passage::Entering { entry, behind },
                        (Entry::Refused(problem), _) => Passage::Refused { problem: Some(problem) },
                        (Entry::Passed(..), None) => Passage::Refused { problem: None },
                    }
                }
                PassageProjection::Refused { problem } => {
                    let problem = problem.take().unwrap_or_else(Problem::internal);
                    return Poll::Ready(Ok(problem.into_response()));
                }
                PassageProjection::Inside { future, outside } => {
                    let response = match ready!(future.poll(context)) {
                        Ok(response) => response.into_response(),
                        Err(never) => match never {},
                    };
                    match outside.take().map(|(stage, kept)| stage.leave(kept, response)) {
                        Some(Exit::Answered(response)) => return Poll::Ready(Ok(response)),
                        Some(Exit::Later(exit)) => Passage::Leaving { exit },
                        None => Passage::Refused { problem: None },
                    }
                }
                PassageProjection::Leaving { exit } => return exit.as_mut().poll(context).map(Ok),
            };
            self.set(next);
        }
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

        fn enter(&self, request: Request) -> Entry<usize> {
            let kept = request.uri().path().len();
            Entry::Passed(request, kept)
        }

        fn leave(&self, kept: usize, mut response: Response) -> Exit {
            if let Ok(value) = HeaderValue::from_str(&format!("{} {kept}", self.0)) {
                response.headers_mut().append("seen", value);
            }
            response.into()
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
