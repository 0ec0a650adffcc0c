//! Killing a command with all its descendants: its process group, and those who left the group, who are known by the claim
//! that every descendant has in its environment (the way of Jenkins' ProcessTreeKiller).

use std::collections::HashSet;
use std::time::Duration;

use taskmaster_openapi::report::TaskClaim;

/// The variables that mark a command's descendants.
pub(crate) const TASK_ID_VARIABLE: &str = "TASKMASTER_TASK_ID";
pub(crate) const CLAIM_VARIABLE: &str = "TASKMASTER_CLAIM";

/// Scans for descendants that are made while others are being killed.
const SCANS_MAX: usize = 50;
/// Between two scans: the time that killed processes get to disappear.
const SCAN_PAUSE: Duration = Duration::from_millis(10);

/// What a command's descendants have in their environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Marker(pub TaskClaim);

impl Marker {
    #[cfg(target_os = "linux")]
    fn variables(self) -> [Vec<u8>; 2] {
        [
            format!("{TASK_ID_VARIABLE}={}", self.0.task_id).into_bytes(),
            format!("{CLAIM_VARIABLE}={}", self.0.claim).into_bytes(),
        ]
    }
}

impl std::fmt::Display for Marker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.0.task_id, self.0.claim)
    }
}

impl std::str::FromStr for Marker {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (task_id, claim) = text.split_once('/').ok_or(())?;
        Ok(Self(TaskClaim { task_id: task_id.parse().map_err(|_| ())?, claim: claim.parse().map_err(|_| ())? }))
    }
}

/// Asks a process group to end. Harmless when it is gone.
pub(crate) fn terminate_group(group: u32) {
    signal_group(group, libc::SIGTERM);
}

/// Kills a process group. Harmless when it is gone.
pub(crate) fn kill_group(group: u32) {
    signal_group(group, libc::SIGKILL);
}

fn signal_group(group: u32, signal: libc::c_int) {
    if let Ok(group) = libc::pid_t::try_from(group)
        && group > 1
    {
        // SAFETY: killpg takes two integers. A group that has ended is no error of ours.
        unsafe { libc::killpg(group, signal) };
    }
}

/// Kills whoever carries one of the markers, until `quiet_scans` scans in a row have found nobody, or the scans are used up.
/// Blocks for some milliseconds. Processes that belong to another user, or have cleared their environment, are not found.
pub(crate) fn kill_marked(markers: &HashSet<Marker>, quiet_scans: usize) {
    let mut quiet = 0;
    for scan in 0..SCANS_MAX {
        if scan > 0 {
            std::thread::sleep(SCAN_PAUSE);
        }
        let found = marked_processes(markers);
        for pid in &found {
            // SAFETY: kill takes two integers; the process may have ended since.
            unsafe { libc::kill(*pid, libc::SIGKILL) };
        }
        quiet = if found.is_empty() { quiet + 1 } else { 0 };
        if quiet >= quiet_scans {
            return;
        }
    }
}

/// The processes that carry one of the markers, this one excepted.
#[cfg(target_os = "linux")]
fn marked_processes(markers: &HashSet<Marker>) -> Vec<libc::pid_t> {
    let own = std::process::id() as libc::pid_t;
    let wanted: Vec<_> = markers.iter().map(|marker| marker.variables()).collect();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse::<libc::pid_t>().ok())
        .filter(|pid| *pid != own && *pid > 1)
        .filter(|pid| {
            // Unreadable: another user's, or gone.
            let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            is_marked(&environment, &wanted)
        })
        .collect()
}

#[cfg(target_os = "linux")]
fn is_marked(environment: &[u8], wanted: &[[Vec<u8>; 2]]) -> bool {
    let names: [&[u8]; 2] = [TASK_ID_VARIABLE.as_bytes(), CLAIM_VARIABLE.as_bytes()];
    let ours: Vec<&[u8]> =
        environment.split(|byte| *byte == 0).filter(|v| names.iter().any(|name| v.starts_with(name))).collect();
    !ours.is_empty() && wanted.iter().any(|pair| pair.iter().all(|variable| ours.contains(&variable.as_slice())))
}

/// Other systems do not show the environment of a process: only the group is killed there.
#[cfg(not(target_os = "linux"))]
fn marked_processes(_markers: &HashSet<Marker>) -> Vec<libc::pid_t> {
    Vec::new()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn marker(claim: i64) -> Marker {
        Marker(TaskClaim { task_id: Uuid::nil(), claim })
    }

    #[test]
    fn a_marker_reads_back_as_it_was_written() {
        assert_eq!(marker(7).to_string().parse(), Ok(marker(7)));
        for wrong in ["", "/", "x/1", "00000000-0000-0000-0000-000000000000"] {
            assert!(wrong.parse::<Marker>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_the_very_claim_is_marked() {
        let wanted = [marker(1).variables()];
        let environment = |claim: &str| format!("A=1\0{TASK_ID_VARIABLE}={}\0{claim}\0", Uuid::nil()).into_bytes();
        assert!(is_marked(&environment("TASKMASTER_CLAIM=1"), &wanted));
        assert!(!is_marked(&environment("TASKMASTER_CLAIM=12"), &wanted));
        assert!(!is_marked(&environment("X=TASKMASTER_CLAIM=1"), &wanted));
        assert!(!is_marked(b"", &wanted));
    }
}
