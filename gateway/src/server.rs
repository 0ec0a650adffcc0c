//! The process, and the stack that every request passes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{MatchedPath, Request};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::get;
use axum::{Extension, Router};
use taskmaster_openapi::gateway::paths;
use taskmaster_service::layers::{self, RequestId};
use taskmaster_service::server::{ServerLimits, serve_tls};
use taskmaster_service::tls::TlsError;
use taskmaster_service::{Health, Shutdown, Tls, client};
use taskmaster_store::Store;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tower::ServiceBuilder;
use tower_http::trace::TraceLayer;

use crate::app::{App, Scaler};
use crate::config::{Config, ConfigError, Settings};
use crate::create::Creator;
use crate::edge::admission::{Admission, Traffic};
use crate::edge::keyring::Keyring;
use crate::edge::{admission, client as who, coding, cors, deadline, headers, key, origin, rate};
use crate::forward::Forwarder;
use crate::{attempts, docs, readiness, router, tasks};

/// A coordinator that has not answered by then is given up; below the client's own patience with the gateway.
const FORWARD_TIMEOUT: Duration = Duration::from_secs(10);

/// Between tries to learn from the database whether there is an API key, and to tell it the public URL.
const KEY_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Why the gateway could not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(
        "requests to {0} must carry an API key, and there is none yet: make one with `taskmaster keys create --name NAME --scopes \
         admin` (or set TASKMASTER_API_KEYS, or say --allow-anonymous when something else keeps strangers out)"
    )]
    NoKeys(SocketAddr),
    #[error("TLS: {0}")]
    Tls(#[from] TlsError),
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
/// Wrong settings, or a machine that lacks what is needed; and once the database is there, that it has no API key where one is wanted.
pub async fn run(
    config: Config,
    listener: TcpListener,
    store: Store,
    health: Health,
    scaler: Option<Arc<dyn Scaler>>,
    shutdown: Shutdown,
) -> Result<(), GatewayError> {
    let address = listener.local_addr()?;
    // Of this gateway alone: it also ends when there are no keys.
    let shutdown = shutdown.child();
    let settings = config.check(address)?;
    let tls = settings.tls.clone().map(Tls::load).transpose()?;
    let limits = limits(&settings);
    let forwarder = Forwarder::new(client::build(FORWARD_TIMEOUT)?, store.clone());
    let (creator, creating) = Creator::new(store.clone(), settings.request_timeout);
    let (keyring, looking_up) = Keyring::new(store.clone());
    let needs_key = settings.keys_required && settings.api_keys.is_empty();
    let app = App::new(settings, store.clone(), creator, keyring, forwarder, scaler, shutdown.clone());
    let router = stack(&app, &health)?;
    health.waiting(readiness::NAME, "not asked yet");

    let mut background = JoinSet::new();
    background.spawn(creating);
    background.spawn(looking_up);
    background.spawn(move_events(store.clone(), shutdown.clone()));
    background.spawn(watch_replica(store.clone(), shutdown.clone()));
    background.spawn(readiness::watch(store.clone(), health, shutdown.clone()));
    background.spawn(follow_events(app.clone(), shutdown.clone()));
    background.spawn(note_keys(app.clone(), shutdown.clone()));
    background.spawn(tell_public_url(app.clone(), shutdown.clone()));
    background.spawn(share_quotas(app, shutdown.clone()));

    tracing::info!(%address, "the gateway serves its API and /docs");
    let has_key = async {
        let checked = if needs_key { has_key(&store, address, &shutdown).await } else { Ok(()) };
        if checked.is_err() {
            shutdown.request();
        }
        checked
    };
    // The router is dropped at the end of this, and with it the last clones of creator and keyring, which ends the first of the above.
    let ((), checked) = tokio::join!(serve_tls(listener, router, limits, tls, shutdown.clone()), has_key);
    while let Some(ended) = background.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "a part of the gateway ended by itself");
        }
    }
    checked
}

/// Serves one route, `GET /v1/tasks/{id}`, with the whole stack off: what the stack costs is the difference.
///
/// # Errors
/// As [`run`].
pub async fn run_bare(
    config: Config,
    listener: TcpListener,
    store: Store,
    shutdown: Shutdown,
) -> Result<(), GatewayError> {
    let settings = config.check(listener.local_addr()?)?;
    let limits = limits(&settings);
    let forwarder = Forwarder::new(client::build(FORWARD_TIMEOUT)?, store.clone());
    let (creator, creating) = Creator::new(store.clone(), settings.request_timeout);
    let (keyring, looking_up) = Keyring::new(store.clone());
    let app = App::new(settings, store, creator, keyring, forwarder, None, shutdown.clone());
    let route = Router::new().route(paths::TASK, get(tasks::get)).layer(Extension(Admission::uncounted()));
    let serving = serve_tls(listener, route.with_state(app), limits, None, shutdown);
    tokio::join!(serving, creating, looking_up);
    Ok(())
}

fn limits(settings: &Settings) -> ServerLimits {
    ServerLimits {
        connections_max: settings.connections.connections_max as usize,
        connections_per_address_max: settings.connections.connections_per_address_max as usize,
        proxies: settings.trusted_proxies.clone(),
        header_read_timeout: settings.connections.header_timeout,
        drain_timeout: settings.drain_timeout,
    }
}

/// Waits until the database says whether any API key works; none, and nobody could ever use this gateway.
async fn has_key(store: &Store, address: SocketAddr, shutdown: &Shutdown) -> Result<(), GatewayError> {
    loop {
        match shutdown.or_stop(store.has_active_key()).await {
            Some(Ok(false)) => return Err(GatewayError::NoKeys(address)),
            Some(Ok(true)) | None => return Ok(()),
            // Readiness says what is missing.
            Some(Err(_)) => {}
        }
        if shutdown.or_stop(tokio::time::sleep(KEY_CHECK_INTERVAL)).await.is_none() {
            return Ok(());
        }
    }
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

async fn note_keys(app: App, shutdown: Shutdown) {
    app.keyring.note_used(&app.store, &shutdown).await;
}

/// Tasks that wait may have been created under another URL, by a gateway that is gone.
async fn tell_public_url(app: App, shutdown: Shutdown) {
    while attempts::keep_public_url(&app).await.is_err() {
        if shutdown.or_stop(tokio::time::sleep(KEY_CHECK_INTERVAL)).await.is_none() {
            return;
        }
    }
}

async fn share_quotas(app: App, shutdown: Shutdown) {
    rate::shared::run(&app.limiter, &app.settings, &app.store, &shutdown).await;
}

/// The stack. What is below reads from the outside in, but for the end of it: around all of that lie `layers::wrap` (a request id, one
/// log line a request, problem documents for every failure, and panics that become such), and around that the last three, so that no
/// answer lacks its headers.
pub(crate) fn stack(app: &App, health: &Health) -> serde_json::Result<Router> {
    let edge = |traffic: Traffic| {
        ServiceBuilder::new()
            // A span, so that what handlers log can be told apart.
            .layer(TraceLayer::new_for_http().make_span_with(span).on_request(()).on_response(()).on_failure(()))
            // The quota before all else, refusals included: guessing keys has a limit too, and every answer says what is left.
            .layer(from_fn_with_state(app.clone(), rate::limit))
            // What is too much is refused at once, so that what is in progress is answered in time.
            .layer(from_fn_with_state((app.clone(), traffic), admission::admit))
            // Inside of that: a request which is ended gives its place to another.
            .layer(from_fn_with_state(app.clone(), deadline::limit))
            // Without keys, a web page could use the gateway from its visitor's browser.
            .layer(from_fn_with_state(app.clone(), origin::guard))
    };
    // Around it: who asks decides the quota; nobody is refused yet. What an API key must allow, each operation says in `router`.
    let keyed = router::of(router::public()).merge(router::rest()).layer(from_fn(key::require));
    let keyed = keyed.layer(edge(Traffic::Api)).layer(from_fn_with_state(app.clone(), who::identify));
    // The forwarded contract carries workers' tokens, not API keys; the coordinator checks those.
    let forwarded = router::of(router::forwarded())
        .layer(edge(Traffic::Workers))
        .layer(from_fn_with_state(app.clone(), who::locate));
    // Nor do targets that call back have keys.
    let called_back =
        router::of(router::called_back()).layer(edge(Traffic::Api)).layer(from_fn_with_state(app.clone(), who::locate));
    let api = forwarded.merge(called_back).merge(keyed).with_state(app.clone());
    // Health and documents are open: they tell nothing about anybody's tasks.
    let open = health.router().merge(docs::router(app.settings.keys_required)?);
    let whole = layers::wrap(api.merge(open)).layer(from_fn(coding::compress)).layer(from_fn(headers::secure));
    let whole = match app.settings.tls {
        Some(_) => whole.layer(from_fn(headers::https_only)),
        None => whole,
    };
    // Outermost: a browser asks whether a page may send a request before that is sent, and without an API key.
    Ok(whole.layer(from_fn_with_state(app.clone(), cors::grant)))
}

fn span(request: &Request) -> tracing::Span {
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let id = request.extensions().get::<RequestId>().map_or("", |id| &id.0);
    tracing::info_span!("request", method = %request.method(), route, request_id = id)
}
