//! What HTTP tasks call: a server in this process that answers every request with 200 and nothing.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use axum::Router;
use taskmaster_openapi::task::{HttpMethod, HttpWork, NewTask};
use taskmaster_service::Shutdown;
use taskmaster_service::server::{ServerLimits, serve};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

pub(super) struct Target {
    url: String,
    serving: AbortHandle,
}

impl Target {
    pub async fn start() -> Result<Self, String> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(|error| error.to_string())?;
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        let router = Router::new().fallback(async || ());
        let limits = ServerLimits { connections_max: 2_000, ..ServerLimits::default() };
        let serving = tokio::spawn(async move { serve(listener, router, limits, Shutdown::new()).await });
        Ok(Self { url: format!("http://{address}/"), serving: serving.abort_handle() })
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// A task that calls it.
    pub fn task(&self) -> NewTask {
        let (url, method, headers) = (self.url.clone(), HttpMethod::default(), BTreeMap::new());
        let http = HttpWork { method, url, headers, ..HttpWork::default() };
        NewTask { http: Some(http), ..NewTask::default() }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
