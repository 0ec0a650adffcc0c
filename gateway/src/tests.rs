//! The gateway as a whole, without a database: what it serves, what it refuses, and what it says when the database is away.

mod api;
mod edge;
mod manners;
mod refusals;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;
use taskmaster_service::{Health, Secret, Shutdown, client};
use taskmaster_store::{DatabaseArgs, Store};
use tower::ServiceExt;

use crate::app::{App, Scaler};
use crate::config::Config;
use crate::create::Creator;
use crate::edge::keyring::Keyring;
use crate::forward::Forwarder;
use crate::server;

/// In place of every id.
const NIL: &str = "00000000-0000-0000-0000-000000000000";

/// A gateway whose database refuses connections.
struct Gateway {
    router: Router,
    app: App,
    /// Ends with the gateway.
    _creating: tokio::task::JoinSet<()>,
}

/// An answer, read whole.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{:?}", String::from_utf8_lossy(&self.body)))
    }

    fn code(&self) -> String {
        assert_eq!(self.header("content-type"), "application/problem+json");
        let problem = self.json();
        assert_eq!(problem["status"].as_u64(), Some(self.status.as_u16().into()));
        assert!(!problem["request_id"].as_str().unwrap().is_empty() && problem["instance"].is_string());
        problem["code"].as_str().unwrap().to_owned()
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl Gateway {
    fn new(config: Config) -> Self {
        Self::with_scaler(config, None)
    }

    fn with_scaler(config: Config, scaler: Option<Arc<dyn Scaler>>) -> Self {
        // Port 1 has no listener: a connection is refused at once.
        let options = sqlx::postgres::PgConnectOptions::new_without_pgpass().host("127.0.0.1").port(1).username("x");
        let store = Store::new(options, &DatabaseArgs { database_connect_seconds: 1, ..DatabaseArgs::default() });
        let forwarder = Forwarder::new(client::build(Duration::from_secs(1)).unwrap(), store.clone());
        let settings = config.check(config.listen).unwrap();
        let (creator, creating) = Creator::new(store.clone(), settings.request_timeout);
        let mut background = tokio::task::JoinSet::new();
        background.spawn(creating);
        let (keyring, looking_up) = Keyring::new(store.clone());
        background.spawn(looking_up);
        let app = App::new(settings, store, creator, keyring, forwarder, scaler, Shutdown::new());
        let router = server::stack(&app, &Health::new());
        Self { router, app, _creating: background }
    }

    fn with_keys(keys: &[&str]) -> Self {
        Self::new(Config { api_key: keys.iter().map(|key| Secret::new(*key)).collect(), ..Config::default() })
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes().to_vec();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    async fn get(&self, path: impl AsRef<str>) -> Answer {
        self.send(request("GET", path.as_ref()).body(Body::empty()).unwrap()).await
    }

    async fn post(&self, path: impl AsRef<str>, body: impl Into<Body>) -> Answer {
        let request = request("POST", path.as_ref()).header("content-type", "application/json");
        self.send(request.body(body.into()).unwrap()).await
    }
}

/// A request as a program on this machine sends it.
fn request(method: &str, path: &str) -> http::request::Builder {
    let peer = ConnectInfo(SocketAddr::from(([127, 0, 0, 1], 50_000)));
    Request::builder().method(method).uri(path).header("host", "localhost:8081").extension(peer)
}
