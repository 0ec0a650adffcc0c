//! The database of `up`: one that exists, or a private one that is kept running.

use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use taskmaster_service::{Secret, Shutdown};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::UpArgs;
use crate::postgres::{Options, PrivatePostgres};

/// Between tries to start a server that ended by itself.
const RESTART_PAUSE: Duration = Duration::from_secs(1);
/// A server that cannot be started again so often is given up.
const RESTARTS_MAX: u32 = 10;

pub(super) struct Database {
    connect_options: PgConnectOptions,
    description: String,
    keeper: Option<Keeper>,
}

/// Who keeps a private server running.
struct Keeper {
    stop: Shutdown,
    running: JoinHandle<()>,
    lost: watch::Receiver<Option<String>>,
}

impl Database {
    /// Finds or starts the database.
    ///
    /// # Errors
    /// One line: what is missing, and what to install or to set.
    pub async fn start(args: &UpArgs) -> Result<Self, String> {
        if let Some(url) = &args.database_url {
            return Self::existing(url);
        }
        let options = if args.ephemeral { Options::ephemeral() } else { Options::new(&args.data_dir) };
        let server = PrivatePostgres::start(&options).await.map_err(|error| error.to_string())?;
        let connect_options = server.connect_options();
        let description = describe(args, &server);
        let (sender, lost) = watch::channel(None);
        let stop = Shutdown::new();
        let running = tokio::spawn(keep(options, server, sender, stop.clone()));
        Ok(Self { connect_options, description, keeper: Some(Keeper { stop, running, lost }) })
    }

    fn existing(url: &Secret) -> Result<Self, String> {
        let connect_options: PgConnectOptions =
            url.expose().parse().map_err(|error| format!("--database-url is not a URL of PostgreSQL: {error}"))?;
        let name = connect_options.get_database().unwrap_or_default().to_owned();
        let description = format!("{name} on {}", connect_options.get_host());
        Ok(Self { connect_options, description, keeper: None })
    }

    pub fn connect_options(&self) -> PgConnectOptions {
        self.connect_options.clone()
    }

    pub fn describe(&self) -> String {
        self.description.clone()
    }

    /// Waits until the database is gone for good; an existing one never is.
    pub async fn lost(&self) -> String {
        if let Some(keeper) = &self.keeper {
            let mut lost = keeper.lost.clone();
            if let Ok(reason) = lost.wait_for(Option::is_some).await
                && let Some(reason) = reason.as_ref()
            {
                return reason.clone();
            }
        }
        std::future::pending().await
    }

    pub async fn stop(self) {
        if let Some(keeper) = self.keeper {
            keeper.stop.request();
            let _ = keeper.running.await;
        }
    }
}

fn describe(args: &UpArgs, server: &PrivatePostgres) -> String {
    let (major, minor) = server.version();
    let kept = match args.ephemeral {
        true => "gone at the end".to_owned(),
        false => format!("kept in {}", server.directory().display()),
    };
    format!("private PostgreSQL {major}.{minor}, {kept}\n               {}", server.psql())
}

/// Starts the server again when it ends by itself: its address stays the same, and everything connects again.
async fn keep(options: Options, server: PrivatePostgres, lost: watch::Sender<Option<String>>, stop: Shutdown) {
    let mut server = server;
    let mut restarts = 0;
    while let Some(reason) = stop.or_stop(server.ended()).await {
        tracing::error!(reason, "the private PostgreSQL ended by itself");
        server.stop().await;
        if options.ephemeral {
            lost.send_replace(Some(format!("the throw-away database ended by itself: {reason}")));
            return stop.requested().await;
        }
        server = loop {
            restarts += 1;
            if stop.or_stop(tokio::time::sleep(RESTART_PAUSE)).await.is_none() {
                return;
            }
            match PrivatePostgres::start(&options).await {
                Ok(server) => break server,
                Err(error) if restarts < RESTARTS_MAX => tracing::error!(%error, "it could not be started again"),
                Err(error) => {
                    lost.send_replace(Some(error.to_string()));
                    return stop.requested().await;
                }
            }
        };
        restarts = 0;
    }
    server.stop().await;
}
