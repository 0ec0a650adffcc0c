//! The process, and the stack that every request passes.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::middleware::{from_fn, from_fn_with_state};
use taskmaster_service::layers::{self, RequestId};
use taskmaster_service::server::{ServerLimits, serve};
use taskmaster_service::{Health, Shutdown, client};
use taskmaster_store::Store;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tower::ServiceBuilder;
use tower_http::trace::TraceLayer;

use crate::app::{App, Scaler};
use crate::config::{Config, ConfigError};
use crate::create::Creator;
use crate::edge::{admission, client as who, deadline, headers, key, origin, rate};
use crate::forward::Forwarder;
use crate::{docs, readiness, router};

/// A coordinator that has not answered by then is given up; below the client's own patience with the gateway.
const FORWARD_TIMEOUT: Duration = Duration::from_secs(10);

/// Why the gateway could not start.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("the listener has no address: {0}")]
    Listener(#[from] std::io::Error),
    #[error("the HTTP client cannot be made: {0}")]
    Client(#[from] reqwest::Error),
    #[error("an OpenAPI document cannot be written: {0}")]
    Document(#[from] serde_json::Error),
}

/// Serves the API on the listener until the stop is requested and requests in progress have been answered.
///
/// Does not need the database to start: until that is there, `/readyz` says so and requests are answered with 503.
///
/// # Errors
/// At the start only: wrong settings, or a machine that lacks what is needed.
pub async fn run(
    config: Config,
    listener: TcpListener,
    store: Store,
    health: Health,
    scaler: Option<Arc<dyn Scaler>>,
    shutdown: Shutdown,
) -> Result<(), GatewayError> {
    let address = listener.local_addr()?;
    let settings = config.check(address)?;
    let limits = ServerLimits { drain_timeout: settings.drain_timeout, ..ServerLimits::default() };
    let forwarder = Forwarder::new(client::build(FORWARD_TIMEOUT)?, store.clone());
    let (creator, creating) = Creator::new(store.clone(), settings.request_timeout);
    let app = App::new(settings, store.clone(), creator, forwarder, scaler, shutdown.clone());
    let router = stack(&app, &health)?;
    health.waiting(readiness::NAME, "not asked yet");

    let mut background = JoinSet::new();
    background.spawn(creating);
    background.spawn(move_events(store.clone(), shutdown.clone()));
    background.spawn(watch_replica(store.clone(), shutdown.clone()));
    background.spawn(readiness::watch(store, health, shutdown.clone()));
    background.spawn(follow_events(app.clone(), shutdown.clone()));
    background.spawn(forget_clients(app, shutdown.clone()));

    tracing::info!(%address, "the gateway serves its API and /docs");
    // The router is dropped at the end of this, and with it the last clone of the creator, which ends the first of the above.
    serve(listener, router, limits, shutdown).await;
    while let Some(ended) = background.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "a part of the gateway ended by itself");
        }
    }
    Ok(())
}

/// Events that this process leaves reach the log even where no coordinator is up.
async fn move_events(store: Store, shutdown: Shutdown) {
    let _ = shutdown.or_stop(store.pump_events()).await;
}

async fn watch_replica(store: Store, shutdown: Shutdown) {
    let _ = shutdown.or_stop(store.watch_replica()).await;
}

async fn follow_events(app: App, shutdown: Shutdown) {
    app.feed.run(shutdown).await;
}

async fn forget_clients(app: App, shutdown: Shutdown) {
    if let Some(limiter) = &app.limiter {
        limiter.sweep(&shutdown).await;
    }
}

/// The stack, from the outside in. Around what is listed here lie `headers::secure`, so that no answer lacks its headers, and
/// `layers::wrap`: a request id, one log line a request, problem documents for every failure, and panics that become such.
pub(crate) fn stack(app: &App, health: &Health) -> serde_json::Result<Router> {
    let edge = ServiceBuilder::new()
        // A span, so that what handlers log can be told apart.
        .layer(TraceLayer::new_for_http().make_span_with(span).on_request(()).on_response(()).on_failure(()))
        // Who asks decides the quota; nobody is refused yet.
        .layer(from_fn_with_state(app.clone(), who::identify))
        // The quota before all else, refusals included: guessing keys has a limit too, and every answer says what is left.
        .layer(from_fn_with_state(app.clone(), rate::limit))
        // What is too much is refused at once, so that what is in progress is answered in time.
        .layer(from_fn_with_state(app.clone(), admission::admit))
        // Inside of that: a request which is ended gives its place to another.
        .layer(from_fn_with_state(app.clone(), deadline::limit))
        // Without keys, a web page could use the gateway from its visitor's browser.
        .layer(from_fn_with_state(app.clone(), origin::guard));
    // The forwarded contract carries workers' tokens, not API keys; the coordinator checks those.
    let keyed = router::of(router::public()).merge(router::rest()).layer(from_fn_with_state(app.clone(), key::require));
    let api = router::of(router::forwarded()).merge(keyed).layer(edge).with_state(app.clone());
    // Health and documents are open: they tell nothing about anybody's tasks.
    let open = health.router().merge(docs::router()?);
    Ok(layers::wrap(api.merge(open)).layer(from_fn(headers::secure)))
}

fn span(request: &Request) -> tracing::Span {
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let id = request.extensions().get::<RequestId>().map_or("", |id| &id.0);
    tracing::info_span!("request", method = %request.method(), route, request_id = id)
}
