//! The server's log: a file that stays bounded, and whose end explains why a server does not come up.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::{PostgresError, Trying};

/// A log larger than this is put aside as `postgres.log.old`, in place of the one before.
const LIMIT_BYTES: u64 = 10 << 20;

/// How often a running server's log is looked at.
const CHECK_EVERY: Duration = Duration::from_secs(60);

/// How much of its end is shown in an error.
const TAIL_LINES: usize = 20;
const TAIL_BYTES: u64 = 16 << 10;

/// The log, from where one start of the server began to write.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: File,
    begin: u64,
}

impl Log {
    /// Opens the log for a server that is about to start.
    pub fn open(path: &Path) -> Result<Self, PostgresError> {
        put_aside_if_large(path);
        // The file is ours and only handed over open, so that the server's user needs no rights to it.
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path).trying("open", path)?;
        let begin = file.metadata().trying("read", path)?.len();
        Ok(Self { path: path.to_owned(), file, begin })
    }

    /// Another handle to write to.
    pub fn writer(&self) -> Result<File, PostgresError> {
        self.file.try_clone().trying("open", &self.path)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn len(&self) -> u64 {
        self.file.metadata().map_or(0, |it| it.len())
    }

    /// The last lines of this start.
    pub fn tail(&self) -> String {
        let mut text = Vec::new();
        let from = self.begin.max(self.len().saturating_sub(TAIL_BYTES));
        let read = File::open(&self.path).and_then(|mut file| {
            file.seek(SeekFrom::Start(from))?;
            file.take(TAIL_BYTES).read_to_end(&mut text)
        });
        if let Err(error) = read {
            return format!("(it cannot be read: {error})");
        }
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }
}

/// Keeps a running server's log bounded until dropped.
#[derive(Debug)]
pub(super) struct Bounded(tokio::task::JoinHandle<()>);

impl Bounded {
    pub fn new(path: PathBuf) -> Self {
        Self(tokio::spawn(async move {
            let mut clock = tokio::time::interval(CHECK_EVERY);
            loop {
                clock.tick().await;
                put_aside_if_large(&path);
            }
        }))
    }
}

impl Drop for Bounded {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Copies and empties the file instead of moving it: the server has it open. It appends, so it goes on at the start.
fn put_aside_if_large(path: &Path) {
    if fs::metadata(path).is_ok_and(|it| it.len() > LIMIT_BYTES) {
        let _ = fs::copy(path, path.with_extension("log.old"));
        let _ = OpenOptions::new().write(true).open(path).and_then(|file| file.set_len(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn the_tail_is_of_this_start_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("postgres.log");
        fs::write(&path, "an earlier start\n").unwrap();
        let log = Log::open(&path).unwrap();
        assert_eq!(log.tail(), "");
        for line in 0..30 {
            writeln!(log.writer().unwrap(), "line {line}").unwrap();
        }
        assert!(log.tail().starts_with("line 10\n") && log.tail().ends_with("line 29"));
    }

    #[test]
    fn a_large_log_is_put_aside_even_while_it_is_written_to() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("postgres.log");
        let log = Log::open(&path).unwrap();
        log.writer().unwrap().write_all(&vec![b'x'; LIMIT_BYTES as usize + 1]).unwrap();
        put_aside_if_large(&path);
        log.writer().unwrap().write_all(b"next").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "next");
        assert_eq!(fs::metadata(directory.path().join("postgres.log.old")).unwrap().len(), LIMIT_BYTES + 1);
    }
}
