//! The database itself: which programs it needs, how it is made, and how one gets in.

use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};
use sqlx::{ConnectOptions, Connection};

use super::error::{PostgresError, Trying};
use super::home::{self, Home};
use super::locate::{OLDEST_MAJOR, Programs};
use super::{program, settings};

/// The name of the superuser, and of the database.
pub(super) const NAME: &str = "taskmaster";

/// initdb takes a second or two; a slow disk gets more.
const INITDB_PATIENCE: Duration = Duration::from_secs(120);

/// Connecting to a server that says it is ready.
const CONNECT_PATIENCE: Duration = Duration::from_secs(30);

/// PostgreSQL's code for a database that does not exist.
const NO_SUCH_DATABASE: &str = "3D000";

/// The major version that made the database; none when there is no database yet.
pub(super) fn major(home: &Home) -> Result<Option<u32>, PostgresError> {
    let data = home.data();
    let is_empty = data.read_dir().map_or(true, |mut entries| entries.next().is_none());
    match fs::read_to_string(data.join("PG_VERSION")) {
        Ok(version) => match version.trim().parse() {
            Ok(major) if major >= OLDEST_MAJOR => Ok(Some(major)),
            _ => Err(PostgresError::NotACluster(data)),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound && is_empty => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(PostgresError::NotACluster(data)),
        Err(error) => Err(error).trying("read", &data.join("PG_VERSION")),
    }
}

/// The password of an existing database, or of the one that this makes.
pub(super) async fn open_or_make(home: &Home, programs: &Programs) -> Result<String, PostgresError> {
    remove_half_made(home);
    let exists = major(home)?.is_some();
    let password = password(home, exists)?;
    if !exists {
        make(home, programs, &password).await?;
    }
    Ok(password)
}

fn password(home: &Home, must_exist: bool) -> Result<String, PostgresError> {
    let file = home.password_file();
    match fs::read_to_string(&file) {
        Ok(password) => return Ok(password.trim().to_owned()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).trying("read", &file),
        Err(_) if must_exist => return Err(PostgresError::PasswordLost { file }),
        Err(_) => {}
    }
    let password = format!("{:032x}", rand::random::<u128>());
    let partial = file.with_extension("new");
    home::write_private(&partial, &password)?;
    fs::rename(&partial, &file).trying("write", &file)?;
    Ok(password)
}

/// Makes the database under another name, so that one whose making was interrupted is never taken for whole.
async fn make(home: &Home, programs: &Programs, password: &str) -> Result<(), PostgresError> {
    let new = half_made(home);
    home::owned_directory(&new, home.user)?;
    // initdb reads the password as the server's user, who cannot read ours.
    let password_file = home.socket_dir.join("initial-password");
    home::write_private(&password_file, password)?;
    home::give(&password_file, home.user)?;
    let made = initdb(home, programs, &new, &password_file).await;
    let _ = fs::remove_file(&password_file);
    made?;
    fs::rename(&new, home.data()).trying("move into place", &new)?;
    // The rename has to survive a power cut as the files have.
    File::open(&home.place).and_then(|place| place.sync_all()).trying("sync", &home.place)
}

async fn initdb(home: &Home, programs: &Programs, new: &Path, password_file: &Path) -> Result<(), PostgresError> {
    let mut command = program::command(&programs.initdb(), home.user, libc::SIGKILL);
    command.args(["--encoding=UTF8", "--locale=C", "--auth=scram-sha-256", "--username", NAME]);
    command.args(["--wal-segsize", settings::WAL_FILE_MIB]);
    command.arg("--pwfile").arg(password_file).arg("--pgdata").arg(new);
    if home.ephemeral {
        command.arg("--no-sync");
    }
    let failed = |reason| PostgresError::NotInitialised { directory: home.place.clone(), reason };
    match program::output(command, INITDB_PATIENCE).await {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(failed(program::complaint(&output))),
        Err(error) => Err(failed(error.to_string())),
    }
}

/// Each attempt has a name of its own: the initdb of a killed process may still be writing to another.
fn half_made(home: &Home) -> PathBuf {
    home.place.join(format!("data.new-{:016x}", rand::random::<u64>()))
}

fn remove_half_made(home: &Home) {
    let Ok(entries) = home.place.read_dir() else { return };
    for entry in entries.flatten().filter(|entry| entry.file_name().as_bytes().starts_with(b"data.new-")) {
        // What cannot be removed now is tried again next time.
        let _ = fs::remove_dir_all(entry.path());
    }
}

/// How to get into the running server.
#[derive(Debug, Clone)]
pub(super) struct Access {
    pub socket_dir: PathBuf,
    pub port: u16,
    pub password: String,
}

impl Access {
    /// Through the socket: a little faster than TCP, and nothing on the network is involved.
    pub fn connect_options(&self, database: &str) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .socket(&self.socket_dir)
            .port(self.port)
            .username(NAME)
            .password(&self.password)
            .database(database)
            .ssl_mode(PgSslMode::Disable)
    }

    /// Makes the database when it is missing: on the first start, or after a first one that was killed before this.
    pub async fn ensure_database(&self) -> Result<(), PostgresError> {
        match self.connect(NAME).await {
            Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(NO_SUCH_DATABASE) => {}
            Err(error) => return Err(error.into()),
            Ok(connection) => return Ok(connection.close().await?),
        }
        let mut connection = self.connect("postgres").await?;
        sqlx::query("CREATE DATABASE taskmaster").execute(&mut connection).await?;
        Ok(connection.close().await?)
    }

    async fn connect(&self, database: &str) -> sqlx::Result<PgConnection> {
        let options = self.connect_options(database);
        tokio::time::timeout(CONNECT_PATIENCE, options.connect())
            .await
            .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
    }
}
