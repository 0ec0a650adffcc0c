//! Which file a task's program is: found once where there is a list of allowed ones, and never left to the kernel or the C library
//! to look for. With a path in hand, starting a process also takes the fast way (`posix_spawn`).

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

const SHELL: &str = "/bin/sh";

/// The programs that tasks may run.
#[derive(Debug)]
pub(crate) enum Programs {
    /// All, and shell lines: names are looked for in these directories.
    Any(Vec<PathBuf>),
    /// These, by the names that tasks call them by, and no shell lines.
    Only(HashMap<String, PathBuf>),
}

/// Why a program is not run.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum NoProgram {
    #[error(
        "this worker runs only the programs of its list (--allow-programs, TASKMASTER_ALLOW_PROGRAMS), given as argv, and no shell lines"
    )]
    Shell,
    #[error(
        "the program {0:?} is not among those that this worker runs; --allow-programs (TASKMASTER_ALLOW_PROGRAMS) on the worker lists them"
    )]
    NotAllowed(String),
    #[error("there is no program {0:?} in the worker's PATH")]
    NotFound(String),
}

impl NoProgram {
    /// Whether the worker refuses it, whatever is installed.
    pub fn is_refusal(&self) -> bool {
        !matches!(self, Self::NotFound(_))
    }
}

impl Programs {
    /// Any program when the list is empty; names are looked for in `search_path` as `PATH` writes it.
    ///
    /// # Errors
    /// Names the entry of the list that is no program.
    pub fn new(allowed: &[String], search_path: &OsStr) -> Result<Self, String> {
        // A relative entry would depend on where the process stands.
        let directories: Vec<PathBuf> = std::env::split_paths(search_path).filter(|path| path.is_absolute()).collect();
        let allowed: Vec<&str> = allowed.iter().map(|name| name.trim()).filter(|name| !name.is_empty()).collect();
        if allowed.is_empty() {
            return Ok(Self::Any(directories));
        }
        let mut programs = HashMap::new();
        for name in allowed {
            let path = match name.contains('/') {
                true => Some(PathBuf::from(name)).filter(|path| path.is_absolute() && is_program(path)),
                false => find(name, &directories),
            };
            let path = path.ok_or_else(|| {
                format!("{name:?} is neither the absolute path of a program nor the name of one in the worker's PATH")
            })?;
            // Called by its path or, where it was listed by its name, also by that.
            programs.extend(path.to_str().map(|text| (text.to_owned(), path.clone())));
            programs.insert(name.to_owned(), path);
        }
        Ok(Self::Only(programs))
    }

    /// The shell, for lines.
    ///
    /// # Errors
    /// `Shell` where there is a list.
    pub fn shell(&self) -> Result<PathBuf, NoProgram> {
        match self {
            Self::Any(_) => Ok(SHELL.into()),
            Self::Only(_) => Err(NoProgram::Shell),
        }
    }

    /// The file to run for the first entry of `argv`. A name is looked for on the disk: blocks.
    ///
    /// # Errors
    /// `NotAllowed` by the list; `NotFound` where a name is in no directory.
    pub fn find(&self, name: &str) -> Result<PathBuf, NoProgram> {
        match self {
            Self::Any(_) if name.contains('/') => Ok(name.into()),
            Self::Any(directories) => find(name, directories).ok_or_else(|| NoProgram::NotFound(name.into())),
            Self::Only(programs) => programs.get(name).cloned().ok_or_else(|| NoProgram::NotAllowed(name.into())),
        }
    }
}

fn find(name: &str, directories: &[PathBuf]) -> Option<PathBuf> {
    directories.iter().map(|directory| directory.join(name)).find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(allowed: &[&str]) -> Result<Programs, String> {
        let allowed: Vec<String> = allowed.iter().map(|name| (*name).to_owned()).collect();
        Programs::new(&allowed, OsStr::new("relative:/usr/bin:/bin"))
    }

    #[test]
    fn a_list_opens_what_it_names_and_nothing_that_only_looks_like_it() {
        let programs = only(&["printf", "/bin/cat", " "]).unwrap();
        let printf = programs.find("printf").unwrap();
        assert!(printf.is_absolute() && printf.ends_with("printf"));
        assert_eq!(programs.find(printf.to_str().unwrap()), Ok(printf));
        assert_eq!(programs.find("/bin/cat"), Ok("/bin/cat".into()));
        for other in ["cat", "sh", "/bin/sh", "./printf", "/bin/../bin/cat", "/bin//cat", "PRINTF", "printf ", ""] {
            assert_eq!(programs.find(other), Err(NoProgram::NotAllowed(other.into())), "{other:?}");
        }
        assert_eq!(programs.shell(), Err(NoProgram::Shell));
    }

    #[test]
    fn a_list_that_names_no_program_is_refused_at_the_start() {
        for wrong in ["no-such-program", "/no/such/program", "bin/cat", "./cat", "/etc/passwd", "/bin"] {
            assert!(only(&[wrong]).unwrap_err().contains(wrong), "{wrong}");
        }
    }

    #[test]
    fn without_a_list_names_are_found_in_absolute_directories_only() {
        let programs = only(&["", " "]).unwrap();
        assert!(matches!(&programs, Programs::Any(directories) if directories.len() == 2));
        assert!(programs.find("printf").unwrap().is_absolute());
        assert_eq!(programs.find("no-such-program"), Err(NoProgram::NotFound("no-such-program".into())));
        assert_eq!(programs.find("a/b"), Ok("a/b".into()));
        assert_eq!(programs.shell(), Ok(SHELL.into()));
    }
}
