//! `taskmaster up`.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::api::Api;
use super::process::Process;

/// A directory that goes with the test, and that the database's own user can enter.
pub struct Scratch(TempDir);

impl Scratch {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).expect("permissions");
        Self(directory)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn data_dir(&self) -> PathBuf {
        self.path().join("data")
    }
}

/// `up`, ready.
pub struct Up {
    pub process: Process,
    pub api: Api,
    /// From the program's start until it said that it is ready.
    pub took: Duration,
}

impl Up {
    /// `up` with these arguments on any free port, not waited for.
    pub fn spawn(args: &[&str]) -> Process {
        Process::spawn("up", &[&["up", "--port", "0"], args].concat(), &[])
    }

    /// `up` with these arguments on any free port, ready.
    pub async fn start(args: &[&str]) -> Self {
        let began = Instant::now();
        let mut process = Self::spawn(args);
        let find = |line: &str| Some(line.trim().strip_prefix("API")?.trim().strip_suffix("/v1/tasks")?.to_owned());
        let url = process.printed("the banner", find).await;
        let took = began.elapsed();
        Self { process, api: Api::new(&url), took }
    }

    /// `up` on a database that is kept in the directory.
    pub async fn start_in(scratch: &Scratch, args: &[&str]) -> Self {
        let directory = scratch.data_dir();
        let directory = directory.to_str().expect("a path in UTF-8");
        Self::start(&[&["--data-dir", directory], args].concat()).await
    }
}
