//! How much memory large bodies may take together, whoever sends them.

use std::sync::Arc;

use axum::extract::Request;
use bytes::Bytes;
use http::{HeaderMap, header};
use taskmaster_openapi::Problem;
use taskmaster_service::extract;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

const KIB: usize = 1024;

/// A budget of bytes for bodies that are in memory at the same time.
#[derive(Debug, Clone)]
pub(crate) struct BodyBudget(Arc<Semaphore>);

/// A body in memory; its part of the budget is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct HeldBody {
    pub bytes: Bytes,
    _held: Option<OwnedSemaphorePermit>,
}

impl BodyBudget {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes_max / KIB)))
    }

    /// Reads a body of at most so many bytes, once the budget has room for it. The request's deadline bounds the wait.
    ///
    /// # Errors
    /// As [`extract::read_body`].
    pub(crate) async fn read(&self, request: Request, limit_bytes: usize) -> Result<HeldBody, Problem> {
        let kib = announced_bytes(request.headers(), limit_bytes).div_ceil(KIB);
        let permits = u32::try_from(kib).unwrap_or(u32::MAX);
        // The semaphore is never closed; without a permit the body would only go uncounted.
        let held = self.0.clone().acquire_many_owned(permits).await.ok();
        Ok(HeldBody { bytes: extract::read_body(request, limit_bytes).await?, _held: held })
    }
}

/// What the body will take at most: what the client announces, or the limit when it does not say.
fn announced_bytes(headers: &HeaderMap, limit_bytes: usize) -> usize {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    announced.unwrap_or(limit_bytes).min(limit_bytes)
}
