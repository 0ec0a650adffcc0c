//! The operating-system user that the server runs as: PostgreSQL refuses root.

use std::ffi::{CString, c_char};
use std::mem::MaybeUninit;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::{fs, ptr};

use super::error::PostgresError;

/// Another user than the one who runs this process. There is none unless this process is root's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ServerUser {
    pub uid: u32,
    pub gid: u32,
}

impl ServerUser {
    /// The user for a server on `data`: nobody else for an ordinary user; for root the owner of an existing database,
    /// otherwise `postgres` or `nobody`.
    pub fn needed_for(data: &Path) -> Result<Option<Self>, PostgresError> {
        if !is_root() {
            return Ok(None);
        }
        let owner = fs::metadata(data).ok().map(|owned| Self { uid: owned.uid(), gid: owned.gid() });
        let user = owner.filter(|owner| owner.uid != 0).or_else(|| look_up("postgres")).or_else(|| look_up("nobody"));
        user.map(Some).ok_or(PostgresError::NoServerUser)
    }

    /// Whether the user can enter `directory`, which must be absolute, and every one above it.
    pub fn can_enter(&self, directory: &Path) -> bool {
        directory.ancestors().all(|ancestor| {
            fs::metadata(ancestor).is_ok_and(|it| {
                let class = if it.uid() == self.uid {
                    0o100
                } else if it.gid() == self.gid {
                    0o010
                } else {
                    0o001
                };
                it.mode() & class != 0
            })
        })
    }
}

/// Whether this process runs as root.
pub(super) fn is_root() -> bool {
    // SAFETY: geteuid only reads a number and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

fn look_up(name: &str) -> Option<ServerUser> {
    let name = CString::new(name).ok()?;
    let mut strings: Vec<c_char> = vec![0; 16 * 1024];
    let mut entry = MaybeUninit::<libc::passwd>::uninit();
    let mut found = ptr::null_mut();
    // SAFETY: every pointer is to a live local of the size named; the call keeps none of them.
    let code =
        unsafe { libc::getpwnam_r(name.as_ptr(), entry.as_mut_ptr(), strings.as_mut_ptr(), strings.len(), &mut found) };
    if code != 0 || found.is_null() {
        return None;
    }
    // SAFETY: a non-null `found` says that the entry was filled in.
    let entry = unsafe { entry.assume_init() };
    // A system whose `postgres` were root would gain nothing by it.
    (entry.pw_uid != 0).then_some(ServerUser { uid: entry.pw_uid, gid: entry.pw_gid })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_known_and_is_not_root() {
        assert!(look_up("nobody").is_some_and(|user| user.uid != 0));
        assert_eq!(look_up("no-such-user-here"), None);
    }

    #[test]
    fn a_closed_directory_above_keeps_the_user_out() {
        use std::os::unix::fs::PermissionsExt;
        let above = tempfile::tempdir().unwrap();
        let inner = above.path().canonicalize().unwrap().join("inner");
        fs::create_dir(&inner).unwrap();
        let stranger = ServerUser { uid: u32::MAX - 1, gid: u32::MAX - 1 };
        fs::set_permissions(above.path(), fs::Permissions::from_mode(0o711)).unwrap();
        assert!(stranger.can_enter(&inner));
        fs::set_permissions(above.path(), fs::Permissions::from_mode(0o700)).unwrap();
        assert!(!stranger.can_enter(&inner));
    }
}
