//! Notifications: they make things happen at once. Whoever waits for one also looks from time to time without.

use std::time::{Duration, Instant};

use sqlx::postgres::{PgListener, PgNotification};
use tokio::sync::OwnedSemaphorePermit;

use crate::database::Store;
use crate::error::StoreError;

/// What is listened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// Tasks that are due soon; the payload names their bands, separated by commas: `lane:priority`, or `lane:priority:tasks:micros`,
    /// which also says how many tasks have just come that are due (empty where it is not known), and when the first of all is, in
    /// microseconds since 1970. `*` is every band.
    Due,
    /// Cancels that were asked for.
    Cancels,
    /// New events.
    Events,
    /// Schedules that were changed.
    Schedules,
}

impl Channel {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Channel::Due => "taskmaster_due",
            Channel::Cancels => "taskmaster_cancels",
            Channel::Events => "taskmaster_events",
            Channel::Schedules => "taskmaster_schedules",
        }
    }
}

/// Something may have happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wakeup {
    /// A notification and its payload.
    Notified(Channel, String),
    /// The connection was (re)made: notifications may have been missed.
    Connected,
}

/// A connection that has been silent for so long is asked whether it lives: one that was cut off says nothing either.
const SILENT: Duration = Duration::from_secs(30);
/// It must answer within this.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);

/// Listens on a connection of its own; makes a new one by itself.
#[derive(Debug)]
pub struct Listener {
    store: Store,
    channels: &'static [Channel],
    /// With its place in the pool.
    connection: Option<(PgListener, OwnedSemaphorePermit)>,
    heard_at: Instant,
}

impl Listener {
    /// Waits for the next wake-up; [`Wakeup::Connected`] comes first. Cancel-safe.
    ///
    /// # Errors
    /// When the connection was lost or cannot be made; calling again makes a new one. Callers wait in between.
    pub async fn recv(&mut self) -> Result<Wakeup, StoreError> {
        let Some((connection, _)) = &mut self.connection else {
            self.connection = Some(self.connect().await?);
            self.heard_at = Instant::now();
            return Ok(Wakeup::Connected);
        };
        let heard = hear(connection, &mut self.heard_at).await;
        match heard {
            Ok(notification) => {
                self.heard_at = Instant::now();
                let channel = self.channels.iter().copied().find(|c| c.name() == notification.channel());
                Ok(Wakeup::Notified(channel.unwrap_or(Channel::Due), notification.payload().to_owned()))
            }
            Err(error) => {
                self.connection = None;
                Err(error.into())
            }
        }
    }

    async fn connect(&self) -> Result<(PgListener, OwnedSemaphorePermit), StoreError> {
        let (pool, place) = self.store.pool.below().await?;
        let mut listener = PgListener::connect_with(pool).await?;
        listener.eager_reconnect(false);
        listener.listen_all(self.channels.iter().map(|c| c.name())).await?;
        Ok((listener, place))
    }
}

/// The next notification; an error when the connection is dead.
async fn hear(connection: &mut PgListener, heard_at: &mut Instant) -> sqlx::Result<PgNotification> {
    loop {
        let silent = heard_at.elapsed();
        if silent < SILENT {
            match tokio::time::timeout(SILENT - silent, connection.try_recv()).await {
                Ok(notification) => return notification?.ok_or(sqlx::Error::WorkerCrashed),
                Err(_) => continue,
            }
        }
        // Callers may give up waiting at any time: an answer that is overdue counts as none.
        if silent > SILENT + ANSWERS_WITHIN * 2 {
            return Err(sqlx::Error::WorkerCrashed);
        }
        let alive = sqlx::query("select 1").execute(&mut *connection);
        tokio::time::timeout(ANSWERS_WITHIN, alive).await.map_err(|_| sqlx::Error::WorkerCrashed)??;
        *heard_at = Instant::now();
    }
}

impl Store {
    /// A listener on the channels; connects when it is first waited for. Takes one connection of the pool while it lives.
    pub fn listen(&self, channels: &'static [Channel]) -> Listener {
        Listener { store: self.clone(), channels, connection: None, heard_at: Instant::now() }
    }
}
