//! Finds PostgreSQL's programs on this machine.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};

use super::program;
use super::user::ServerUser;

/// Older ones lack what the schema uses.
pub(super) const OLDEST_MAJOR: u32 = 15;

/// Where packages put the programs without putting them on the PATH. `*` stands for any part of one name.
const USUAL_PLACES: [&str; 9] = [
    "/usr/lib/postgresql/*/bin",                          // Debian, Ubuntu
    "/usr/pgsql-*/bin",                                   // PGDG's RPMs
    "/usr/libexec/postgresql*",                           // Alpine
    "/usr/local/pgsql/bin",                               // built from source
    "/opt/homebrew/opt/postgresql/bin",                   // Homebrew on Apple silicon
    "/opt/homebrew/opt/postgresql@*/bin",                 //
    "/usr/local/opt/postgresql/bin",                      // Homebrew on Intel
    "/usr/local/opt/postgresql@*/bin",                    //
    "/Applications/Postgres.app/Contents/Versions/*/bin", //
];

/// How long `postgres --version` may take.
const VERSION_PATIENCE: Duration = Duration::from_secs(10);
const BUSY_POLL: Duration = Duration::from_millis(20);

/// One installation of PostgreSQL: a directory that has `postgres` and `initdb`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Programs {
    /// The directory, with symbolic links resolved, as PostgreSQL finds its other files relative to it.
    pub bin: PathBuf,
    /// 17 and 5 for 17.5; 18 and 0 for 18beta1.
    pub version: (u32, u32),
}

impl Programs {
    pub fn postgres(&self) -> PathBuf {
        self.bin.join("postgres")
    }

    pub fn initdb(&self) -> PathBuf {
        self.bin.join("initdb")
    }

    pub fn major(&self) -> u32 {
        self.version.0
    }

    /// What the programs in `bin` say they are, or why they do not run.
    pub async fn ask(bin: PathBuf) -> Result<Self, String> {
        let output = ask_version(&bin).await.map_err(|error| error.to_string())?;
        if !output.status.success() {
            return Err(program::complaint(&output));
        }
        let said = String::from_utf8_lossy(&output.stdout);
        let version = parse_version(&said).ok_or_else(|| format!("unknown version {:?}", said.trim()))?;
        Ok(Self { bin, version })
    }
}

async fn ask_version(bin: &Path) -> io::Result<Output> {
    let began = Instant::now();
    loop {
        let mut command = program::command(&bin.join("postgres"), None, libc::SIGKILL);
        command.arg("--version");
        match program::output(command, VERSION_PATIENCE).await {
            // A program just unpacked, which a child that is being started elsewhere still has open for writing.
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy && began.elapsed() < VERSION_PATIENCE => {
                tokio::time::sleep(BUSY_POLL).await;
            }
            output => return output,
        }
    }
}

/// `postgres (PostgreSQL) 15.19 (Debian 15.19-0+deb12u1)` is 15 and 19.
fn parse_version(said: &str) -> Option<(u32, u32)> {
    let words = said.strip_prefix("postgres (PostgreSQL) ")?;
    let (major, rest) = leading_number(words)?;
    let minor = rest.strip_prefix('.').and_then(leading_number).map_or(0, |(minor, _)| minor);
    Some((major, minor))
}

fn leading_number(text: &str) -> Option<(u32, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

/// The newest programs in `directories`: of the major version `wanted`, or of any that is new enough.
pub(super) async fn newest(directories: &[PathBuf], wanted: Option<u32>, user: Option<ServerUser>) -> Option<Programs> {
    let mut best: Option<Programs> = None;
    for bin in installations(directories, user) {
        let programs = match Programs::ask(bin.clone()).await {
            Ok(programs) => programs,
            Err(reason) => {
                tracing::debug!(bin = %bin.display(), reason, "passing over PostgreSQL programs that do not run");
                continue;
            }
        };
        let fits = wanted.map_or(programs.major() >= OLDEST_MAJOR, |major| programs.major() == major);
        if fits && best.as_ref().is_none_or(|best| programs.version > best.version) {
            best = Some(programs);
        }
    }
    best
}

/// The directories that really hold the programs, where `user` may run them. Those on the PATH often hold links only.
fn installations(directories: &[PathBuf], user: Option<ServerUser>) -> BTreeSet<PathBuf> {
    directories
        .iter()
        .filter_map(|directory| directory.join("postgres").canonicalize().ok())
        .filter_map(|postgres| Some(postgres.parent()?.to_owned()))
        .filter(|bin| bin.join("postgres").is_file() && bin.join("initdb").is_file())
        .filter(|bin| user.is_none_or(|user| user.can_enter(bin)))
        .collect()
}

/// The PATH and where packages usually put PostgreSQL.
pub(super) fn usual_directories() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).filter(|directory| directory.is_absolute());
    on_path.chain(USUAL_PLACES.iter().flat_map(|pattern| expand(Path::new(pattern)))).collect()
}

/// The existing paths that a pattern with at most one `*` in each name stands for.
pub(super) fn expand(pattern: &Path) -> Vec<PathBuf> {
    pattern.components().fold(vec![PathBuf::new()], |found, component| {
        let name = component.as_os_str().to_string_lossy();
        match name.split_once('*') {
            None => found.into_iter().map(|path| path.join(component)).collect(),
            Some((head, tail)) => found.iter().flat_map(|path| entries_like(path, head, tail)).collect(),
        }
    })
}

fn entries_like(directory: &Path, head: &str, tail: &str) -> Vec<PathBuf> {
    let Ok(entries) = directory.read_dir() else { return Vec::new() };
    let fits = |name: &str| name.len() >= head.len() + tail.len() && name.starts_with(head) && name.ends_with(tail);
    entries.flatten().filter(|entry| entry.file_name().to_str().is_some_and(fits)).map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_every_package_writes_them() {
        let version = |number| parse_version(&format!("postgres (PostgreSQL) {number}\n"));
        assert_eq!(version("15.19 (Debian 15.19-0+deb12u1)"), Some((15, 19)));
        assert_eq!(version("17.11"), Some((17, 11)));
        assert_eq!(version("18beta1"), Some((18, 0)));
        assert_eq!(version(""), None);
        assert_eq!(parse_version("no PostgreSQL"), None);
    }

    #[test]
    fn a_star_stands_for_any_part_of_one_name() {
        let root = tempfile::tempdir().unwrap();
        for name in ["postgresql@16/bin", "postgresql@17/bin", "mysql@9/bin"] {
            std::fs::create_dir_all(root.path().join(name)).unwrap();
        }
        let mut found = expand(&root.path().join("postgresql@*/bin"));
        found.sort();
        assert_eq!(found, [root.path().join("postgresql@16/bin"), root.path().join("postgresql@17/bin")]);
        assert!(expand(&root.path().join("nothing*/bin")).is_empty());
    }

    #[tokio::test]
    async fn the_newest_that_fits_is_taken_and_links_are_followed() {
        let root = tempfile::tempdir().unwrap();
        let directories: Vec<PathBuf> =
            ["14.2", "15.9", "15.10", "17.0"].iter().map(|version| pretend(root.path(), version)).collect();
        let links = root.path().join("links");
        std::fs::create_dir(&links).unwrap();
        std::os::unix::fs::symlink(directories[2].join("postgres"), links.join("postgres")).unwrap();

        assert_eq!(newest(&directories, None, None).await.unwrap().version, (17, 0));
        assert_eq!(newest(&directories, Some(15), None).await.unwrap().version, (15, 10));
        assert_eq!(newest(&directories, Some(16), None).await, None);
        assert_eq!(newest(&directories[..1], None, None).await, None, "14 is too old");
        let linked = newest(&[links], None, None).await.unwrap();
        assert_eq!(linked.bin, directories[2].canonicalize().unwrap());
    }

    fn pretend(root: &Path, version: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let bin = root.join(version);
        std::fs::create_dir(&bin).unwrap();
        for name in ["postgres", "initdb"] {
            let script = format!("#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n");
            std::fs::write(bin.join(name), script).unwrap();
            std::fs::set_permissions(bin.join(name), std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        bin
    }
}
