//! How many connections the process can hold, by its descriptors and its memory.

use std::path::Path;

/// Descriptors reserved for listeners, logs, admin and the control plane.
const OWN: u64 = 128;
/// Descriptors of a connection: those of both its ends.
const OF_CONNECTION: u64 = 2;
/// Memory of an active connection, bytes.
const BYTES: u64 = 16 << 10;
/// The lower bound, however few descriptors and however little memory there are.
const LEAST: u64 = 16;

/// Connections that may come in. What the app itself calls keeps half of what there is.
pub fn inbound() -> u64 {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    bound(descriptors(&limits), memory())
}

/// Bytes that the cgroup allots, v2 or v1; `None`: no limit.
pub fn memory() -> Option<u64> {
    allotted(Path::new("/sys/fs/cgroup"))
}

fn bound(descriptors: Option<u64>, memory: Option<u64>) -> u64 {
    let by_descriptors = descriptors.map(|all| all.saturating_sub(OWN) / OF_CONNECTION / 2);
    let by_memory = memory.map(|bytes| bytes / 2 / BYTES);
    let lower = [by_descriptors, by_memory].into_iter().flatten().min();
    lower.unwrap_or(u64::MAX).max(LEAST)
}

/// The soft RLIMIT_NOFILE, as proc(5) writes it.
fn descriptors(limits: &str) -> Option<u64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn allotted(root: &Path) -> Option<u64> {
    let read = |name: &str| std::fs::read_to_string(root.join(name)).ok();
    let text = read("memory.max").or_else(|| read("memory/memory.limit_in_bytes"))?;
    // "max", and in v1 a number beyond all memory, are no limit.
    text.trim().parse().ok().filter(|bytes| *bytes < 1 << 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scarcer_of_descriptors_and_memory_decides() {
        assert_eq!(bound(Some(2000), None), 468);
        assert_eq!(bound(Some(1 << 20), Some(128 << 20)), 4096);
        assert_eq!(bound(Some(1 << 20), None), 262_112);
        assert_eq!(bound(Some(10), Some(1)), LEAST);
        assert!(inbound() >= LEAST);
    }

    #[test]
    fn limits_are_read_as_the_kernel_writes_them() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units\n\
                      Max open files            1024                 524288               files\n";
        assert_eq!(descriptors(limits), Some(1024));
        assert_eq!(
            descriptors("Max open files   unlimited  unlimited files"),
            None
        );
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(allotted(dir.path()), None);
        std::fs::create_dir(dir.path().join("memory")).unwrap();
        let v1 = dir.path().join("memory/memory.limit_in_bytes");
        std::fs::write(&v1, "9223372036854771712\n").unwrap();
        assert_eq!(allotted(dir.path()), None);
        std::fs::write(&v1, "1048576\n").unwrap();
        assert_eq!(allotted(dir.path()), Some(1 << 20));
        std::fs::write(dir.path().join("memory.max"), "max\n").unwrap();
        assert_eq!(allotted(dir.path()), None);
        std::fs::write(dir.path().join("memory.max"), "2097152\n").unwrap();
        assert_eq!(allotted(dir.path()), Some(2 << 20));
    }
}
