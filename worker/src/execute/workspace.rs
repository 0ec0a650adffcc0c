//! Where a command stands: a directory of its own for each attempt, for nobody else's eyes, and empty; what a command leaves in it is gone
//! when the attempt is.

use std::fs::{DirBuilder, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use taskmaster_openapi::report::TaskClaim;
use tokio::sync::Semaphore;
use uuid::Uuid;

/// For the worker's user only.
const MODE: u32 = 0o700;
const RM: &str = "/bin/rm";
/// Directories that are being removed at once.
const REMOVALS_MAX: u32 = 32;
/// Directories that wait for another attempt.
const SPARES_MAX: usize = 32;
/// How long an attempt waits for its directory's turn, and a worker at its end for all of them; what is very full goes on being removed
/// afterwards.
const REMOVE_WAIT: Duration = Duration::from_secs(5);

/// This process's own directory for workspaces, of all its workers: made when it is needed, also again if something tidies it
/// away. The guard removes it when the process has ended, however that came about.
static PRIVATE: LazyLock<PathBuf> =
    LazyLock::new(|| std::env::temp_dir().join(format!("taskmaster-{}", Uuid::new_v4())));
/// Names of the directories in it.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// The process's own directory for workspaces, whether it is there already or not.
pub(crate) fn private() -> &'static Path {
    &PRIVATE
}

/// The directories of a worker's attempts.
#[derive(Debug)]
pub(crate) struct Workspaces {
    base: Base,
    /// Those that attempts have left as they got them, for others: to make and to remove one for each takes half of the CPU time of short
    /// commands on an ext4 without a journal, which looks at every directory that was removed lately before it makes another.
    spares: Mutex<Vec<Workspace>>,
    spares_max: usize,
    /// Taken by those that are being removed, or looked at.
    removals: Arc<Semaphore>,
}

/// The directory that workspaces are made in.
#[derive(Debug)]
enum Base {
    Given(PathBuf),
    Private,
}

/// One attempt's directory; removed when dropped, which blocks.
#[derive(Debug)]
pub(crate) struct Workspace {
    path: PathBuf,
    made: Made,
}

/// What a directory was when it was made: another time of change means that somebody has done something with it since.
#[derive(Debug, PartialEq, Eq)]
struct Made {
    device: u64,
    inode: u64,
    mode: u32,
    user: u32,
    group: u32,
    changed: (i64, i64),
}

impl Workspaces {
    /// Under a directory that exists, or under one of the worker's own where the system keeps temporary files.
    ///
    /// # Errors
    /// The given directory is none.
    pub fn new(given: Option<PathBuf>) -> Result<Arc<Self>, String> {
        match given {
            None => Ok(Self::within(Base::Private, SPARES_MAX)),
            // Relative to where the worker stands now. It would keep spares when the worker is killed.
            Some(path) => match path.canonicalize() {
                Ok(path) if path.is_dir() => Ok(Self::within(Base::Given(path), 0)),
                Ok(_) => Err(format!("{} is not a directory", path.display())),
                Err(error) => Err(format!("{}: {error}", path.display())),
            },
        }
    }

    fn within(base: Base, spares_max: usize) -> Arc<Self> {
        let removals = Arc::new(Semaphore::new(REMOVALS_MAX as usize));
        Arc::new(Self { base, spares: Mutex::default(), spares_max, removals })
    }

    /// A directory for an attempt: one that nobody has touched, or a new one. Blocks.
    ///
    /// # Errors
    /// It cannot be made, or is there already: no attempt may find what another left.
    pub fn create(&self, claim: TaskClaim) -> io::Result<Workspace> {
        while let Some(spare) = self.take_spare() {
            if spare.is_untouched() {
                return Ok(spare);
            }
        }
        let make = |path: &Path, recursive| DirBuilder::new().recursive(recursive).mode(MODE).create(path);
        let path = match &self.base {
            Base::Given(base) => base.join(format!("{}-{}", claim.task_id, claim.claim)),
            Base::Private => private().join(NEXT.fetch_add(1, Ordering::Relaxed).to_string()),
        };
        match make(&path, false) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && matches!(self.base, Base::Private) => {
                make(private(), true)?;
                make(&path, false)?;
            }
            made => made?,
        }
        let made = Made::of(&path.symlink_metadata()?);
        Ok(Workspace { path, made })
    }

    /// Begins to remove a directory with all that is in it, when it is its turn, while its slot works on: to remove even an empty one
    /// may wait for a disk. One that is as it was is kept for another attempt.
    pub async fn give_back(self: &Arc<Self>, workspace: Workspace) {
        let turn = tokio::time::timeout(REMOVE_WAIT, self.removals.clone().acquire_owned()).await;
        let workspaces = self.clone();
        // `settled` waits for it, and so does the runtime.
        tokio::task::spawn_blocking(move || {
            drop(workspaces.keep(workspace));
            drop(turn);
        });
    }

    /// Waits a while until nothing is left.
    pub async fn settled(&self) {
        let _ = tokio::time::timeout(REMOVE_WAIT, self.removals.acquire_many(REMOVALS_MAX)).await;
        let spares = std::mem::take(&mut *self.spares());
        let _ = tokio::task::spawn_blocking(move || drop(spares)).await;
    }

    fn spares(&self) -> MutexGuard<'_, Vec<Workspace>> {
        self.spares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_spare(&self) -> Option<Workspace> {
        self.spares().pop()
    }

    /// Keeps one that may be used again. Gives back any other.
    fn keep(&self, workspace: Workspace) -> Option<Workspace> {
        if self.spares_max == 0 || !workspace.is_untouched() {
            return Some(workspace);
        }
        let mut spares = self.spares();
        if spares.len() >= self.spares_max {
            return Some(workspace);
        }
        spares.push(workspace);
        None
    }
}

impl Made {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            mode: metadata.mode(),
            user: metadata.uid(),
            group: metadata.gid(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl Workspace {
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// As it was made, and empty: the clock of file systems ticks every few milliseconds, and what comes into a directory right after it
    /// was made leaves no other time.
    fn is_untouched(&self) -> bool {
        self.path.symlink_metadata().is_ok_and(|metadata| Made::of(&metadata) == self.made)
            && self.path.read_dir().is_ok_and(|mut entries| entries.next().is_none())
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
        for _ in 0..3 * REMOVALS_MAX {
            let workspace = workspaces.create(claim()).unwrap();
            std::fs::write(workspace.path().join("file"), "x").unwrap();
            workspaces.give_back(workspace).await;
        }
        workspaces.settled().await;
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

    /// The next change has another time.
    fn tick() {
        std::thread::sleep(Duration::from_millis(20));
    }

    fn change_mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[tokio::test]
    async fn a_directory_that_is_left_as_it_was_is_for_another_attempt_until_somebody_touches_it() {
        let base = tempfile::tempdir().unwrap();
        let workspaces = Workspaces::within(Base::Given(base.path().into()), 2);
        let three = [(); 3].map(|()| workspaces.create(claim()).unwrap());
        let first = three[0].path().to_owned();
        for workspace in three {
            assert!(workspace.is_untouched());
            workspaces.give_back(workspace).await;
            drop(workspaces.removals.acquire_many(REMOVALS_MAX).await.unwrap());
        }
        assert_eq!(base.path().read_dir().unwrap().count(), 2, "no more are kept");
        drop(workspaces.create(claim()).unwrap());
        tick();
        std::fs::write(first.join("late"), "x").unwrap();
        let next = workspaces.create(claim()).unwrap();
        assert!(next.path() != first && !first.exists(), "what was put there while it waited is gone");
        workspaces.give_back(next).await;
        workspaces.settled().await;
        assert_eq!(base.path().read_dir().unwrap().count(), 0);
    }

    #[test]
    fn a_directory_with_which_anything_was_done_is_not_used_again() {
        let base = tempfile::tempdir().unwrap();
        let workspaces = Workspaces::within(Base::Given(base.path().into()), SPARES_MAX);
        let uses: [fn(&Path); 7] = [
            |path| std::fs::write(path.join("file"), "x").unwrap(),
            |path| std::fs::create_dir(path.join("directory")).unwrap(),
            |path| {
                tick();
                std::fs::write(path.join("file"), "x").unwrap();
                std::fs::remove_file(path.join("file")).unwrap();
            },
            |path| change_mode(path, 0o755),
            |path| {
                tick();
                change_mode(path, 0o755);
                change_mode(path, MODE);
            },
            |path| std::fs::remove_dir(path).unwrap(),
            |path| std::fs::rename(path, path.with_extension("elsewhere")).unwrap(),
        ];
        for (n, use_it) in uses.iter().enumerate() {
            let workspace = workspaces.create(claim()).unwrap();
            use_it(workspace.path());
            assert!(workspaces.keep(workspace).is_some(), "use {n}");
        }
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
