//! How many requests are worked on at once: one more is refused at once, so that those in progress are answered in time.

use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use taskmaster_openapi::{Code, Problem};
use tokio::sync::OwnedSemaphorePermit;

use crate::app::App;

/// A request's place among those that are worked on, as an extension of the request.
#[derive(Debug, Clone)]
pub(crate) struct Admission(Arc<Mutex<Option<OwnedSemaphorePermit>>>);

impl Admission {
    /// Gives the place to another: for a request that from now on only waits.
    pub(crate) fn release(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// Admits a request, or sheds it. The place is free again once the answer's headers are there: streams do not occupy one.
pub(crate) async fn admit(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let Ok(permit) = app.admissions.clone().try_acquire_owned() else {
        let detail = format!("{} requests are worked on already. Try again in a second.", app.settings.concurrency_max);
        return Problem::new(Code::Overloaded, detail).retry_after_seconds(1).into_response();
    };
    let admission = Admission(Arc::new(Mutex::new(Some(permit))));
    request.extensions_mut().insert(admission.clone());
    let response = next.run(request).await;
    admission.release();
    response
}
