//! The process, and the stack that every request passes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::{MatchedPath, Request};
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use axum::{Extension, Router};
use taskmaster_openapi::gateway::paths;
use taskmaster_service::layers::{self, RequestId};
use taskmaster_service::server::{ServerLimits, serve_tls};
use taskmaster_service::stage::{Staging, guard};
use taskmaster_service::tls::TlsError;
use taskmaster_service::{Health, Shutdown, Tls, client};
use taskmaster_store::Store;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tower::{Service, ServiceBuilder, layer::layer_fn};
use tracing::instrument::{Instrument, Instrumented};

use crate::app::{App, Scaler};
use crate::config::{Config, ConfigError, Settings};
use crate::create::Creator;
use crate::edge::admission::{Admission, Admit, Traffic};
use crate::edge::client::Identify;
use crate::edge::deadline::Deadline;
use crate::edge::keyring::Keyring;
use crate::edge::{coding, cors, headers, key, origin, rate};
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
    let router = stack(&app, &health);
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
    let served = async {
        // The router is dropped at the end of this, and with it the last clones of creator and keyring, which ends the first of the above.
        let ((), checked) = tokio::join!(serve_tls(listener, router, limits, tls, shutdown.clone()), has_key);
        while let Some(ended) = background.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a part of the gateway ended by itself");
            }
        }
        checked
    };
    store.tell_news_while(served).await
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

/// The stack, each part of it from the outside in: `outside`, then `layers::wrap` (a request id, problem documents for every failure, one
/// log line a request, and panics that become problems), then `edge`; and what an API key must allow, which `router` says.
///
/// Each part is one layer of the router, which boxes what it is given, and clones it with every request.
pub(crate) fn stack(app: &App, health: &Health) -> Router {
    let outside = ServiceBuilder::new()
        // A browser asks whether a page may send a request before that is sent, and without an API key.
        .option_layer(app.settings.cors_origins.are_granted().then(|| from_fn_with_state(app.clone(), cors::grant)))
        // No answer lacks these.
        .layer(Staging(headers::Secured { over_tls: app.settings.tls.is_some() }))
        .layer(Staging(coding::Compress));
    let edge = |traffic: Traffic| {
        let (timed, page_guard) = (app.clone(), app.clone());
        ServiceBuilder::new()
            // Who asks decides the quota; nobody is refused yet.
            .layer(Staging(Identify { app: app.clone(), traffic }))
            // The quota before all else, refusals included: guessing keys has a limit too, and every answer says what is left.
            .layer(Staging(rate::Quotas(app.clone())))
            // What is too much is refused, and what takes too long is ended, so that what is in progress is answered in time.
            .layer(Staging(Admit { app: app.clone(), traffic }))
            .layer(layer_fn(move |inner| Deadline { app: timed.clone(), inner }))
            // A span for what is worked on, so that what handlers log can be told apart.
            .layer(layer_fn(Spanned))
            // Without keys, a web page could use the gateway from its visitor's browser.
            .layer(guard(move |request: &Request| origin::guard(&page_guard, traffic, request)))
            .layer(guard(key::require))
    };
    let api = router::of(router::public()).merge(router::rest()).layer(edge(Traffic::Api));
    let received = router::of(router::receiving()).layer(edge(Traffic::Tokens));
    let forwarded = router::of(router::forwarded()).layer(edge(Traffic::Workers));
    // Health and documents are open: they tell nothing about anybody's tasks.
    let open = health.router().merge(docs::router(app.settings.keys_required));
    layers::wrap(api.merge(received).merge(forwarded).with_state(app.clone()).merge(open)).layer(outside)
}

/// A service whose work is done in a span of the request.
#[derive(Debug, Clone)]
struct Spanned<I>(I);

impl<I: Service<Request>> Service<Request> for Spanned<I> {
    type Response = I::Response;
    type Error = I::Error;
    type Future = Instrumented<I::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), I::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
        let id = request.extensions().get::<RequestId>().map_or("", |id| &id.0);
        let span = tracing::info_span!("request", method = %request.method(), route, request_id = id);
        self.0.call(request).instrument(span)
    }
}
