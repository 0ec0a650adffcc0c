//! Where a command stands: a directory of its own for each attempt, for nobody else's eyes, gone when the attempt is.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use taskmaster_openapi::report::TaskClaim;
use tokio::sync::Semaphore;
use uuid::Uuid;

/// For the worker's user only.
const MODE: u32 = 0o700;
const RM: &str = "/bin/rm";
/// Directories that are being removed at once.
const REMOVALS_MAX: u32 = 32;
/// How long an attempt waits for its directory's turn, and a worker at its end for all of them; what is very full goes on being removed
/// afterwards.
const REMOVE_WAIT: Duration = Duration::from_secs(5);

/// This process's own directory for workspaces, of all its workers: made when it is needed, also again if something tidies it
/// away. The guard removes it when the process has ended, however that came about.
static PRIVATE: LazyLock<PathBuf> =
    LazyLock::new(|| std::env::temp_dir().join(format!("taskmaster-{}", Uuid::new_v4())));

/// The directory that workspaces are made in.
#[derive(Debug)]
pub(crate) enum Workspaces {
    Given(PathBuf),
    Private,
}

/// One attempt's directory; removed when dropped, which blocks.
#[derive(Debug)]
pub(crate) struct Workspace {
    path: PathBuf,
}

impl Workspaces {
    /// Under a directory that exists, or under one of the worker's own where the system keeps temporary files.
    ///
    /// # Errors
    /// The given directory is none.
    pub fn new(given: Option<PathBuf>) -> Result<Self, String> {
        match given {
            None => Ok(Self::Private),
            // Relative to where the worker stands now.
            Some(path) => match path.canonicalize() {
                Ok(path) if path.is_dir() => Ok(Self::Given(path)),
                Ok(_) => Err(format!("{} is not a directory", path.display())),
                Err(error) => Err(format!("{}: {error}", path.display())),
            },
        }
    }

    /// Makes a directory for an attempt. Blocks.
    ///
    /// # Errors
    /// It cannot be made, or is there already: no attempt may find what another left.
    pub fn create(&self, claim: TaskClaim) -> io::Result<Workspace> {
        let name = format!("{}-{}", claim.task_id, claim.claim);
        let make = |path: &Path, recursive| DirBuilder::new().recursive(recursive).mode(MODE).create(path);
        let base = match self {
            Self::Given(base) => base,
            Self::Private => private(),
        };
        let path = base.join(name);
        match make(&path, false) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && matches!(self, Self::Private) => {
                make(base, true)?;
                make(&path, false)?;
            }
            made => made?,
        }
        Ok(Workspace { path })
    }
}

/// The process's own directory for workspaces, whether it is there already or not.
pub(crate) fn private() -> &'static Path {
    &PRIVATE
}

impl Workspace {
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Removes directories while their slots work on: to remove even an empty one may wait for a disk.
#[derive(Debug)]
pub(crate) struct Removals(Arc<Semaphore>);

impl Default for Removals {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(REMOVALS_MAX as usize)))
    }
}

impl Removals {
    /// Begins to remove a directory with all that is in it, when it is its turn.
    pub async fn begin(&self, workspace: Workspace) {
        let turn = tokio::time::timeout(REMOVE_WAIT, self.0.clone().acquire_owned()).await;
        // `ended` waits for it, and so does the runtime.
        tokio::task::spawn_blocking(move || {
            drop(workspace);
            drop(turn);
        });
    }

    /// Waits a while until nothing is being removed.
    pub async fn ended(&self) {
        let _ = tokio::time::timeout(REMOVE_WAIT, self.0.acquire_many(REMOVALS_MAX)).await;
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        if let Err(error) = remove_tree(&self.path) {
            tracing::warn!(directory = %self.path.display(), %error, "the directory of an attempt stays behind");
        }
    }
}

/// Removes a directory with all that is in it; none is fine as well. Blocks.
///
/// What is not empty is removed by `rm`: the standard library goes down by recursion with a file descriptor for every level, so that
/// a command that nests directories deep enough would end the worker.
///
/// # Errors
/// Something could not be removed.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        removed => return removed,
    }
    let mut rm = Command::new(RM);
    rm.arg("-rf").arg("--").arg(path).env_clear().current_dir("/");
    let status = rm.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("{RM} -rf ended with {status}"))) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn claim() -> TaskClaim {
        TaskClaim { task_id: Uuid::now_v7(), claim: 1 }
    }

    #[test]
    fn each_attempt_has_a_private_directory_that_is_gone_afterwards() {
        let base = tempfile::tempdir().unwrap();
        let workspaces = Workspaces::new(Some(base.path().into())).unwrap();
        let held = claim();
        let (one, other) = (workspaces.create(held).unwrap(), workspaces.create(claim()).unwrap());
        assert_ne!(one.path(), other.path());
        assert_eq!(one.path().metadata().unwrap().permissions().mode() & 0o777, MODE);
        assert!(workspaces.create(held).is_err(), "nobody finds what another left");
        std::fs::create_dir_all(one.path().join("a/b")).unwrap();
        std::fs::write(one.path().join("a/file"), "x").unwrap();
        std::os::unix::fs::symlink(other.path(), one.path().join("link")).unwrap();
        std::fs::write(other.path().join("kept"), "x").unwrap();
        drop(one);
        assert!(other.path().join("kept").exists(), "links are not followed");
        drop(other);
        assert_eq!(base.path().read_dir().unwrap().count(), 0);
    }

    #[tokio::test]
    async fn more_directories_than_are_removed_at_once_are_gone_when_their_removal_has_ended() {
        let base = tempfile::tempdir().unwrap();
        let workspaces = Workspaces::new(Some(base.path().into())).unwrap();
        let removals = Removals::default();
        for _ in 0..3 * REMOVALS_MAX {
            let workspace = workspaces.create(claim()).unwrap();
            std::fs::write(workspace.path().join("file"), "x").unwrap();
            removals.begin(workspace).await;
        }
        removals.ended().await;
        assert_eq!(base.path().read_dir().unwrap().count(), 0);
    }

    #[test]
    fn directories_may_be_nested_deeper_than_any_stack_or_path() {
        let base = tempfile::tempdir().unwrap();
        let workspace = Workspaces::new(Some(base.path().into())).unwrap().create(claim()).unwrap();
        let nest = "import os\nfor _ in range(20_000): os.mkdir('d'); os.chdir('d')";
        let nested = Command::new("python3").args(["-c", nest]).current_dir(workspace.path()).status().unwrap();
        assert!(nested.success());
        drop(workspace);
        assert_eq!(base.path().read_dir().unwrap().count(), 0);
    }

    #[test]
    fn the_process_own_directory_is_made_when_needed_for_its_user_only() {
        let workspaces = Workspaces::new(None).unwrap();
        drop(workspaces.create(claim()).unwrap());
        std::fs::remove_dir(private()).unwrap();
        drop(workspaces.create(claim()).unwrap());
        assert_eq!(private().metadata().unwrap().permissions().mode() & 0o777, MODE);
        std::fs::remove_dir(private()).unwrap();
    }

    #[test]
    fn a_given_directory_must_be_there() {
        assert!(Workspaces::new(Some("/no/such/directory".into())).is_err());
        assert!(Workspaces::new(Some("/etc/passwd".into())).is_err());
    }
}
