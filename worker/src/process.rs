//! The worker's own process, and what commands, which run as the same user, can see of it.

/// Keeps commands from reading the worker's secrets in its memory or environment (`/proc/PID/environ`, `ptrace`), unless they run
/// as root; and from leaving core files, which hold what they worked on. Both are inherited or lost by what the process starts, so that
/// nothing needs to be done between `fork` and `exec`, which would make starting a command slower.
pub(crate) fn keep_from_commands() {
    // SAFETY: integers, and a pointer to a structure that lives as long as the call.
    unsafe {
        #[cfg(target_os = "linux")]
        libc::prctl(libc::PR_SET_DUMPABLE, 0);
        let mut core = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        if libc::getrlimit(libc::RLIMIT_CORE, &mut core) == 0 {
            core.rlim_cur = 0;
            libc::setrlimit(libc::RLIMIT_CORE, &core);
        }
    }
}
