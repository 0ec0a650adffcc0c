//! Processors and their time: who runs where, and how much of it was used. Where the system does not tell (anything but Linux),
//! everybody runs everywhere, and nothing is counted.

use std::time::Duration;

/// The processors of this machine, shared out between what is measured and who measures. One that has only one has both on it.
#[derive(Debug, Clone)]
pub(super) struct Shares {
    pub measured: Vec<usize>,
    pub load: Vec<usize>,
}

impl Shares {
    pub fn halves() -> Self {
        let all: Vec<usize> = (0..std::thread::available_parallelism().map_or(1, usize::from)).collect();
        let (measured, load) = all.split_at(all.len() / 2);
        match measured.is_empty() {
            true => Self { measured: all.clone(), load: all },
            false => Self { measured: measured.to_vec(), load: load.to_vec() },
        }
    }
}

/// Keeps this thread on these processors, and the threads and processes that it starts from now on.
#[cfg(target_os = "linux")]
pub(super) fn keep_thread_on(processors: &[usize]) -> Result<(), String> {
    keep_on(0, processors)
}

/// Keeps every thread of this process on these processors, and the threads and processes that they start from now on.
#[cfg(target_os = "linux")]
pub(super) fn keep_process_on(processors: &[usize]) -> Result<(), String> {
    threads()?.into_iter().try_for_each(|thread| keep_on(thread, processors))
}

#[cfg(target_os = "linux")]
fn keep_on(thread: i32, processors: &[usize]) -> Result<(), String> {
    // SAFETY: a set of bits, zeroed, of which the bits of these processors are set; the call only reads it.
    let kept = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        for processor in processors.iter().filter(|processor| **processor < libc::CPU_SETSIZE as usize) {
            libc::CPU_SET(*processor, &mut set);
        }
        libc::sched_setaffinity(thread, size_of::<libc::cpu_set_t>(), &set)
    };
    match kept {
        0 => Ok(()),
        _ => Err(format!("a thread cannot be kept on processors {processors:?}: {}", std::io::Error::last_os_error())),
    }
}

#[cfg(target_os = "linux")]
fn threads() -> Result<Vec<i32>, String> {
    let threads = std::fs::read_dir("/proc/self/task").map_err(|error| error.to_string())?;
    Ok(threads.filter_map(|thread| thread.ok()?.file_name().to_str()?.parse().ok()).collect())
}

/// How long the threads of this process with this name (of at most 15 characters) have run, user and system.
#[cfg(target_os = "linux")]
pub(super) fn ran_for(name: &str) -> Result<Duration, String> {
    let ran = |thread: &i32| {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/self/task/{thread}/{file}")).unwrap_or_default();
        // On the processor, waiting for it, and how often: nanoseconds.
        let nanos = read("schedstat").split(' ').next().and_then(|nanos| nanos.parse().ok());
        nanos.filter(|_| read("comm").trim_end() == name).map(Duration::from_nanos)
    };
    Ok(threads()?.iter().filter_map(ran).sum())
}

/// Resident memory of a process, in MiB.
#[cfg(target_os = "linux")]
pub(super) fn resident_mib(pid: u32) -> Result<f64, String> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).map_err(|error| error.to_string())?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    let kib: f64 = line.trim().trim_end_matches(" kB").trim().parse().map_err(|_| "no resident memory".to_owned())?;
    Ok(kib / 1024.0)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn keep_thread_on(_: &[usize]) -> Result<(), String> {
    Ok(())
}

#[cfg(not(target_os = "linux"))]
pub(super) fn keep_process_on(_: &[usize]) -> Result<(), String> {
    Ok(())
}

#[cfg(not(target_os = "linux"))]
pub(super) fn ran_for(_: &str) -> Result<Duration, String> {
    Ok(Duration::ZERO)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn resident_mib(_: u32) -> Result<f64, String> {
    Ok(0.0)
}
