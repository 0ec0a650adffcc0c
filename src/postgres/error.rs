//! What can go wrong, each with what to do about it.

use std::io;
use std::path::{Path, PathBuf};

/// Why there is no private PostgreSQL. Every message is one that a user can act upon.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// A living `up` holds the data directory.
    #[error(
        "{} is in use by another taskmaster{}: stop that one, or choose another data directory",
        directory.display(), holder.map(|pid| format!(" (process {pid})")).unwrap_or_default()
    )]
    InUse {
        /// The data directory.
        directory: PathBuf,
        /// The process that holds it, as far as it is known.
        holder: Option<u32>,
    },

    /// Neither on this machine nor to be had from the network.
    #[error(
        "no {wanted} on this machine, and none could be fetched ({reason}): \
         install it ({hint}), or use a running one with --database-url"
    )]
    NoPrograms {
        /// Which PostgreSQL is needed.
        wanted: String,
        /// Why it could not be fetched.
        reason: String,
        /// The command that installs it here.
        hint: String,
    },

    /// The data directory holds something that this module did not make.
    #[error("{} is not a database of PostgreSQL 15 or newer: move it away, or choose another data directory", .0.display())]
    NotACluster(PathBuf),

    /// The database is there, its password is not.
    #[error(
        "{} is missing, and without it the database beside it cannot be opened: \
         put it back, or delete {} to start anew without its tasks",
        file.display(), file.parent().unwrap_or(Path::new("/")).display()
    )]
    PasswordLost {
        /// Where the password is kept.
        file: PathBuf,
    },

    /// PostgreSQL refuses to run as root, and there is nobody else to run it as.
    #[error(
        "PostgreSQL does not run as root, and this machine has neither a user `postgres` nor `nobody`: \
         run as an ordinary user, or use a running PostgreSQL with --database-url"
    )]
    NoServerUser,

    /// An earlier server of this directory does not end.
    #[error("an earlier PostgreSQL server of {} (process {pid}) does not stop: end it, then try again", data.display())]
    LeftoverRuns {
        /// Its data directory.
        data: PathBuf,
        /// Its process id.
        pid: i32,
    },

    /// `initdb` failed.
    #[error("PostgreSQL's initdb could not make a database in {}: {reason}", directory.display())]
    NotInitialised {
        /// Where it should have been.
        directory: PathBuf,
        /// What initdb said.
        reason: String,
    },

    /// The server ended, or was not ready in time.
    #[error("PostgreSQL did not start: {reason}. The end of {}:\n{tail}", log.display())]
    NotStarted {
        /// What was observed.
        reason: String,
        /// The server's log.
        log: PathBuf,
        /// The last lines of this start.
        tail: String,
    },

    /// The server is up and does not let us in.
    #[error("the private PostgreSQL cannot be used: {0}")]
    Unusable(#[from] sqlx::Error),

    /// The operating system refused something.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Says what was tried with which path when an I/O operation fails.
pub(super) trait Trying<T> {
    fn trying(self, action: &'static str, path: &Path) -> Result<T, PostgresError>;
}

impl<T> Trying<T> for io::Result<T> {
    fn trying(self, action: &'static str, path: &Path) -> Result<T, PostgresError> {
        self.map_err(|source| PostgresError::Io { action, path: path.to_owned(), source })
    }
}
