//! What handlers share.

use std::sync::Arc;

use futures::future::BoxFuture;
use taskmaster_openapi::Problem;
use taskmaster_openapi::gateway::ScaleResponse;
use taskmaster_service::Shutdown;
use taskmaster_service::places::Places;
use taskmaster_store::Store;
use tokio::sync::OnceCell;

use crate::config::Settings;
use crate::create::Creator;
use crate::edge::admission::Admissions;
use crate::edge::bodies::BodyBudget;
use crate::edge::client::Principal;
use crate::edge::keyring::Keyring;
use crate::edge::rate::Limiter;
use crate::feed::Feed;
use crate::forward::Forwarder;

/// Bodies of batches in memory at once, in bytes: four of the largest, thousands of usual ones.
const BATCH_BODIES_BYTES_MAX: usize = 128 * 1024 * 1024;

/// Something that can change the number of workers at run time.
pub trait Scaler: Send + Sync {
    /// Sets the number of workers, from 0 to [`taskmaster_openapi::limits::SCALE_WORKERS_MAX`].
    fn scale<'a>(&'a self, workers: usize) -> BoxFuture<'a, Result<ScaleResponse, Problem>>;
}

/// What handlers share. Cheap to clone.
#[derive(Clone)]
pub(crate) struct App(Arc<Shared>);

impl std::ops::Deref for App {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

pub(crate) struct Shared {
    pub settings: Settings,
    pub store: Store,
    pub creator: Creator,
    pub keyring: Keyring,
    pub feed: Feed,
    pub forwarder: Forwarder,
    pub scaler: Option<Arc<dyn Scaler>>,
    pub limiter: Limiter,
    pub admissions: Admissions,
    pub batch_bodies: BodyBudget,
    /// Set once coordinators can know the public URL.
    pub public_url_kept: OnceCell<()>,
    pub sse_clients: Arc<Places<Principal>>,
    pub shutdown: Shutdown,
}

impl App {
    pub(crate) fn new(
        settings: Settings,
        store: Store,
        creator: Creator,
        keyring: Keyring,
        forwarder: Forwarder,
        scaler: Option<Arc<dyn Scaler>>,
        shutdown: Shutdown,
    ) -> Self {
        Self(Arc::new(Shared {
            feed: Feed::new(store.clone()),
            limiter: Limiter::new(settings.rate_limits),
            admissions: Admissions::new(settings.concurrency_max, settings.reads_at_once, settings.writes_at_once),
            batch_bodies: BodyBudget::new(BATCH_BODIES_BYTES_MAX),
            public_url_kept: OnceCell::new(),
            sse_clients: Places::new(settings.sse_clients_max, settings.sse_per_client_max),
            settings,
            store,
            creator,
            keyring,
            forwarder,
            scaler,
            shutdown,
        }))
    }
}
