//! Notifications: they make things happen at once. Whoever waits for one also looks from time to time without.

use sqlx::postgres::PgListener;

use crate::database::Store;
use crate::error::StoreError;

/// What is listened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// Tasks that are due soon; the payload names their bands.
    Due,
    /// Cancels that were asked for.
    Cancels,
    /// New events.
    Events,
}

impl Channel {
    const fn name(self) -> &'static str {
        match self {
            Channel::Due => "taskmaster_due",
            Channel::Cancels => "taskmaster_cancels",
            Channel::Events => "taskmaster_events",
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

/// Listens on a connection of its own; makes a new one by itself.
#[derive(Debug)]
pub struct Listener {
    store: Store,
    channels: &'static [Channel],
    connection: Option<PgListener>,
}

impl Listener {
    /// Waits for the next wake-up; [`Wakeup::Connected`] comes first. Cancel-safe.
    ///
    /// # Errors
    /// When the connection was lost or cannot be made; calling again makes a new one. Callers wait in between.
    pub async fn recv(&mut self) -> Result<Wakeup, StoreError> {
        let Some(connection) = &mut self.connection else {
            self.connection = Some(self.connect().await?);
            return Ok(Wakeup::Connected);
        };
        match connection.try_recv().await {
            Ok(Some(notification)) => {
                let channel = self.channels.iter().copied().find(|c| c.name() == notification.channel());
                Ok(Wakeup::Notified(channel.unwrap_or(Channel::Due), notification.payload().to_owned()))
            }
            lost => {
                self.connection = None;
                Err(lost.err().unwrap_or(sqlx::Error::WorkerCrashed).into())
            }
        }
    }

    async fn connect(&self) -> Result<PgListener, StoreError> {
        let mut listener = PgListener::connect_with(&self.store.pool).await?;
        listener.eager_reconnect(false);
        listener.listen_all(self.channels.iter().map(|c| c.name())).await?;
        Ok(listener)
    }
}

impl Store {
    /// A listener on the channels; connects when it is first waited for. Takes one connection of the pool while it lives.
    pub fn listen(&self, channels: &'static [Channel]) -> Listener {
        Listener { store: self.clone(), channels, connection: None }
    }
}
