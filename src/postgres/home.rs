//! The files of a private PostgreSQL: where they are, who may read them, and that only one process uses them.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{Read, Seek, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::error::{PostgresError, Trying};
use super::user::{self, ServerUser};
use super::{leftover, locate};

/// Where root's databases are when the server's user may not enter the data directory.
const PLACE_OF_ROOT: &str = "/var/lib/taskmaster";

/// What ephemeral data directories are called, in the system's directory for temporary files.
const EPHEMERAL_PREFIX: &str = "taskmaster-ephemeral-";

/// An ephemeral directory younger than this may not have been locked yet by its owner.
const SWEEP_AGE: Duration = Duration::from_secs(60);

/// How long a lock may be held by children that are just being started, which inherit it until they run their program.
const LOCK_PATIENCE: Duration = Duration::from_millis(200);
const LOCK_POLL: Duration = Duration::from_millis(20);

/// A socket's path may be 103 bytes long on macOS, a little more on Linux; PostgreSQL adds `/.s.PGSQL.65535`.
const SOCKET_DIR_LIMIT_BYTES: usize = 103 - "/.s.PGSQL.65535".len();

/// Below the range from which systems take ports for outgoing connections, so that a port stays free between starts.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

const PORT_TRIES: usize = 50;

/// The directories of one private PostgreSQL, held by this process until dropped.
#[derive(Debug)]
pub(super) struct Home {
    /// TaskMaster's data directory.
    pub directory: PathBuf,
    /// What the server touches: `<directory>/postgres`, or where that link leads.
    pub place: PathBuf,
    /// Who the server runs as, if not as this process does.
    pub user: Option<ServerUser>,
    /// Whether everything goes when this is dropped.
    pub ephemeral: bool,
    /// Where the socket is.
    pub socket_dir: PathBuf,
    lock: File,
}

impl Home {
    /// Takes hold of a data directory, which is made when missing.
    pub async fn claim(directory: &Path) -> Result<Self, PostgresError> {
        Self::claim_as(directory, false).await
    }

    /// A new data directory that goes when this is dropped.
    pub async fn claim_ephemeral() -> Result<Self, PostgresError> {
        sweep_abandoned();
        let name = format!("{EPHEMERAL_PREFIX}{:016x}", rand::random::<u64>());
        Self::claim_as(&std::env::temp_dir().join(name), true).await
    }

    async fn claim_as(directory: &Path, ephemeral: bool) -> Result<Self, PostgresError> {
        make_directory(directory)?;
        let directory = directory.canonicalize().trying("find", directory)?;
        let lock = lock_patiently(&directory).await?;
        let link = directory.join("postgres");
        let user = ServerUser::needed_for(&link.join("data"))?;
        let place = place(&directory, &link, user)?;
        let socket_dir = socket_dir(&place, user)?;
        Ok(Self { directory, place, user, ephemeral, socket_dir, lock })
    }

    /// The server's data directory (PGDATA).
    pub fn data(&self) -> PathBuf {
        self.place.join("data")
    }

    /// Where the server's messages go.
    pub fn log(&self) -> PathBuf {
        self.directory.join("postgres.log")
    }

    /// The file that holds the password.
    pub fn password_file(&self) -> PathBuf {
        self.place.join("password")
    }

    /// A file as `PGPASSFILE` expects it.
    pub fn passfile(&self) -> PathBuf {
        self.place.join("pgpass")
    }

    /// The port of last time if it is free, otherwise another, which is noted.
    pub fn port(&self) -> Result<u16, PostgresError> {
        let file = self.place.join("port");
        let noted = fs::read_to_string(&file).ok().and_then(|text| text.trim().parse().ok());
        if let Some(port) = noted.filter(|port| is_free(*port)) {
            return Ok(port);
        }
        let port = free_port().trying("find a free port on", Path::new("127.0.0.1"))?;
        write_private(&file, &format!("{port}\n"))?;
        Ok(port)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if self.socket_dir.parent() != Some(&self.place) {
            let _ = fs::remove_dir_all(&self.socket_dir);
        }
        if self.ephemeral {
            let _ = fs::remove_dir_all(&self.place);
            let _ = fs::remove_dir_all(&self.directory);
        }
        // Closing would not do: a child that is just being started has a copy of the file for a moment.
        let _ = self.lock.unlock();
    }
}

/// Locks the directory for this process, even if a killed one's children let go of it only now.
async fn lock_patiently(directory: &Path) -> Result<File, PostgresError> {
    let began = Instant::now();
    loop {
        match lock(directory) {
            Err(PostgresError::InUse { .. }) if began.elapsed() < LOCK_PATIENCE => tokio::time::sleep(LOCK_POLL).await,
            locked => return locked,
        }
    }
}

/// Locks the directory for this process. The kernel lets go when the process ends, however it does; programs that it runs
/// do not inherit the lock, since Rust opens files close-on-exec.
fn lock(directory: &Path) -> Result<File, PostgresError> {
    let path = directory.join("postgres.lock");
    let mut open = OpenOptions::new();
    open.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut file = open.open(&path).trying("open", &path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            return Err(PostgresError::InUse { directory: directory.to_owned(), holder: holder.trim().parse().ok() });
        }
        Err(TryLockError::Error(error)) => return Err(error).trying("lock", &path),
    }
    file.set_len(0).and_then(|()| file.rewind()).trying("write", &path)?;
    writeln!(file, "{}", std::process::id()).trying("write", &path)?;
    Ok(file)
}

/// The directory for what the server touches. It is `link` itself wherever possible. Where the server's user may not go
/// there (root's data directory lies in /root, as a rule), it is a new one of root's, and `link` leads to it: with the
/// link deleted the database is gone as well, as far as TaskMaster is concerned.
fn place(directory: &Path, link: &Path, user: Option<ServerUser>) -> Result<PathBuf, PostgresError> {
    if !link.exists() {
        let target = match (fs::read_link(link), user) {
            (Ok(dangling), _) => directory.join(dangling),
            (Err(_), Some(user)) if !user.can_enter(directory) => {
                let target = Path::new(PLACE_OF_ROOT).join(format!("{:016x}", rand::random::<u64>()));
                symlink(&target, link).trying("make the link", link)?;
                target
            }
            (Err(_), _) => link.to_owned(),
        };
        make_directory(&target)?;
    }
    let place = link.canonicalize().trying("find", link)?;
    if place.parent() != Some(directory) {
        tracing::info!(place = %place.display(), "the database is kept where the server's user can go");
    }
    Ok(place)
}

/// Makes a directory, if it is missing, that nobody else can list, and that root's server can pass.
fn make_directory(path: &Path) -> Result<(), PostgresError> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).trying("make the directory", parent)?;
    }
    // Whatever is secret in it has a mode of its own.
    let mode = if user::is_root() { 0o711 } else { 0o700 };
    DirBuilder::new().mode(0o700).create(path).trying("make the directory", path)?;
    fs::set_permissions(path, Permissions::from_mode(mode)).trying("set the mode of", path)
}

/// A fresh directory for the server's socket, which only its user and root can enter.
fn socket_dir(place: &Path, user: Option<ServerUser>) -> Result<PathBuf, PostgresError> {
    let inside = place.join("socket");
    let path = if inside.as_os_str().as_bytes().len() <= SOCKET_DIR_LIMIT_BYTES {
        inside
    } else {
        Path::new("/tmp").join(format!("taskmaster-{:016x}", rand::random::<u64>()))
    };
    // Sockets of earlier servers, whose lock files could stand in the way.
    let _ = fs::remove_dir_all(&path);
    owned_directory(&path, user)?;
    Ok(path)
}

/// Makes a directory that belongs to the server's user alone.
pub(super) fn owned_directory(path: &Path, user: Option<ServerUser>) -> Result<(), PostgresError> {
    DirBuilder::new().mode(0o700).create(path).trying("make the directory", path)?;
    give(path, user)
}

/// Hands a file or a directory over to the server's user.
pub(super) fn give(path: &Path, user: Option<ServerUser>) -> Result<(), PostgresError> {
    user.map_or(Ok(()), |user| chown(path, Some(user.uid), Some(user.gid))).trying("change the owner of", path)
}

/// Writes a small file that only its owner can read, on disk when this returns.
pub(super) fn write_private(path: &Path, text: &str) -> Result<(), PostgresError> {
    let mut open = OpenOptions::new();
    let file = open.write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all())).trying("write", path)
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

fn free_port() -> std::io::Result<u16> {
    let random = (0..PORT_TRIES).map(|_| rand::random_range(PORTS)).find(|port| is_free(*port));
    random.map_or_else(|| Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port()), Ok)
}

/// Removes the ephemeral directories of processes that were killed.
fn sweep_abandoned() {
    let pattern = std::env::temp_dir().join(format!("{EPHEMERAL_PREFIX}*"));
    for directory in locate::expand(&pattern) {
        let link = directory.join("postgres");
        let place = link.canonicalize().unwrap_or(link);
        if !is_old(&directory.join("postgres.lock")) || leftover::runs(&place.join("data")) {
            continue;
        }
        // Held while removing. Somebody else's directories cannot be locked.
        if let Ok(_lock) = lock(&directory) {
            let _ = fs::remove_dir_all(&place);
            let _ = fs::remove_dir_all(&directory);
        }
    }
}

fn is_old(file: &Path) -> bool {
    let modified = file.metadata().and_then(|it| it.modified());
    modified.is_ok_and(|modified| modified.elapsed().is_ok_and(|age| age > SWEEP_AGE))
}
