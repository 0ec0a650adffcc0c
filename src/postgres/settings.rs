//! How the server is set up: nothing is traded for durability, and a small machine is assumed.

use std::fs;

const MIB: u64 = 1 << 20;

/// The most that PostgreSQL's own cache takes. The operating system caches as well.
const SHARED_BUFFERS_MAX: u64 = 256 * MIB;

/// The least: PostgreSQL works with it, slowly.
const SHARED_BUFFERS_MIN: u64 = 16 * MIB;

/// Size of a file of the log, fixed when the cluster is made. Until the first checkpoint leaves some to use again, each is written full
/// of zeroes before its first use, and whoever commits waits meanwhile: with PostgreSQL's 16 MiB for a tenth of a second.
pub(super) const WAL_FILE_MIB: &str = "4";

/// What holds on every start, whatever the files in the data directory say.
const FIXED: [(&str, &str); 23] = [
    // Accepted means committed, power cuts included.
    ("fsync", "on"),
    ("synchronous_commit", "on"),
    ("full_page_writes", "on"),
    // Few checkpoints: each makes the next change of every page costly.
    ("max_wal_size", "4GB"),
    ("min_wal_size", "80MB"),
    ("checkpoint_timeout", "15min"),
    ("max_connections", "100"),
    // Commits write their log themselves; this is for those that would not wait for it.
    ("wal_writer_delay", "1s"),
    // Linux would write what has lain in its cache for 30 s all at once, and commits would wait for that.
    ("backend_flush_after", "256kB"),
    // Solid-state disks, short statements.
    ("random_page_cost", "1.1"),
    ("jit", "off"),
    // A task is updated several times within seconds: dead rows must go as fast as they come.
    ("autovacuum_naptime", "10s"),
    ("autovacuum_vacuum_cost_delay", "0"),
    ("listen_addresses", "127.0.0.1"),
    ("unix_socket_permissions", "0700"),
    ("password_encryption", "scram-sha-256"),
    ("ssl", "off"),
    // One log, written by us to be.
    ("logging_collector", "off"),
    ("log_destination", "stderr"),
    ("log_timezone", "UTC"),
    ("timezone", "UTC"),
    ("cluster_name", "taskmaster"),
    ("restart_after_crash", "on"),
];

/// The settings as the server takes them, `name=value` each.
pub(super) fn arguments(has_lz4: bool) -> Vec<String> {
    let shared_buffers = format!("shared_buffers={}MB", shared_buffers(memory()) / MIB);
    let wal_compression = format!("wal_compression={}", if has_lz4 { "lz4" } else { "on" });
    let fixed = FIXED.iter().map(|(name, value)| format!("{name}={value}"));
    fixed.chain([shared_buffers, wal_compression]).collect()
}

/// An eighth of the memory, within bounds.
fn shared_buffers(memory: Option<u64>) -> u64 {
    memory.map_or(SHARED_BUFFERS_MAX, |memory| (memory / 8).clamp(SHARED_BUFFERS_MIN, SHARED_BUFFERS_MAX))
}

/// What this process may use, in bytes: the machine's memory or the container's. Unknown outside Linux.
fn memory() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total_memory(&text));
    let container = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok()?.trim().parse().ok())
        .min();
    machine.into_iter().chain(container).min()
}

fn total_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_machine_gets_a_small_cache_and_a_large_one_no_more_than_the_bound() {
        let mib = |memory: u64| shared_buffers(Some(memory * MIB)) / MIB;
        assert_eq!([mib(64), mib(512), mib(1024), mib(2048), mib(65536)], [16, 64, 128, 256, 256]);
        assert_eq!(shared_buffers(None), SHARED_BUFFERS_MAX);
    }

    #[test]
    fn the_machines_memory_is_read_from_the_kernels_table() {
        assert_eq!(total_memory("MemTotal:       24682496 kB\nMemFree: 1 kB\n"), Some(24_682_496 * 1024));
        assert_eq!(total_memory("nothing"), None);
    }
}
