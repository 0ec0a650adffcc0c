//! Waiting for a child to end without reaping it: until it is reaped its process id, and so the number of its process group,
//! cannot be given to another, and the group can be killed without hitting a stranger.

use std::io;

/// Waits until the child has ended. It stays a zombie until somebody waits for it.
///
/// # Errors
/// Fails when the kernel has no handle left for the process.
#[cfg(target_os = "linux")]
pub(super) async fn ended(pid: u32) -> io::Result<()> {
    use std::os::fd::{FromRawFd, OwnedFd};
    use tokio::io::Interest;
    use tokio::io::unix::AsyncFd;

    // SAFETY: pidfd_open takes two integers; its result is checked.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, libc::c_long::from(pid), 0 as libc::c_long) };
    if fd < 0 {
        return ended_blocking(pid).await;
    }
    // SAFETY: the descriptor was just made and belongs to nobody else.
    let handle = unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) };
    // SAFETY: an OwnedFd is the same open descriptor for as long as it lives, and lives inside of the AsyncFd.
    match unsafe { AsyncFd::register_with_interest(handle, Interest::READABLE) } {
        Ok(handle) => handle.readable().await.map(|mut ready| ready.retain_ready()),
        Err(_) => ended_blocking(pid).await,
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) async fn ended(pid: u32) -> io::Result<()> {
    ended_blocking(pid).await
}

/// The same with a thread that waits, for kernels without process descriptors.
async fn ended_blocking(pid: u32) -> io::Result<()> {
    let waiting = tokio::task::spawn_blocking(move || {
        loop {
            // SAFETY: an all-zero siginfo_t is valid, and waitid only writes to it.
            let result = unsafe {
                let mut info: libc::siginfo_t = std::mem::zeroed();
                libc::waitid(libc::P_PID, pid, &mut info, libc::WEXITED | libc::WNOWAIT)
            };
            match result {
                0 => return Ok(()),
                _ if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
                _ => return Err(io::Error::last_os_error()),
            }
        }
    });
    waiting.await.map_err(io::Error::other)?
}
