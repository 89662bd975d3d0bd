//! How many connections and pipes the process may hold, by its descriptors and its memory.

use std::path::{Component, Path};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors reserved for listeners, logs, admin and the control plane.
const OWN: u64 = 128;
/// Descriptors of a connection: those of both its ends.
const OF_CONNECTION: u64 = 2;
/// Of all descriptors, the share that pipes may take: one in so many.
const OF_PIPES: u64 = 8;
/// Descriptors of a pipe.
const OF_PIPE: u64 = 2;
/// Of all descriptors, the share that health checks may take: one in so many.
const OF_CHECKS: u64 = 8;
/// The most connections of health checks, however many descriptors there are.
const MOST_CHECKS: u64 = 16 << 10;
/// Memory of an active connection, bytes.
const BYTES: u64 = 16 << 10;
/// The lowest bound, however few descriptors and however little memory there are.
const LEAST: u64 = 16;

/// Raises the soft RLIMIT_NOFILE to the hard one. The soft one is 1,024 by tradition, for programs
/// that use select(2).
pub fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, soft = ?limit.current, hard = ?limit.maximum, "the soft limit of open files (RLIMIT_NOFILE) stays as it is");
    }
}

/// Limit of inbound connections, and of connections to upstreams that are opened for them. Half of
/// the capacity is kept for the app's own calls.
pub fn inbound() -> u64 {
    bound(getrlimit(Resource::Nofile).current, memory())
}

/// Pipes that each of `workers` threads may have. Without any, bulk passes through buffers.
pub fn pipes(workers: usize) -> usize {
    pipes_of(getrlimit(Resource::Nofile).current, workers)
}

/// Connections of active health checks, in use or kept.
pub fn health_checks() -> usize {
    let most = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX) / OF_CHECKS;
    usize::try_from(most.clamp(LEAST, MOST_CHECKS)).unwrap_or(usize::MAX)
}

fn pipes_of(descriptors: Option<u64>, workers: usize) -> usize {
    let all = descriptors.unwrap_or(u64::MAX) / OF_PIPES / OF_PIPE;
    usize::try_from(all).unwrap_or(usize::MAX) / workers.max(1)
}

/// Bytes that the process may use: the lowest limit of its cgroup and those above it, v2 or v1, and
/// of the machine's memory. `None`: neither can be read.
pub fn memory() -> Option<u64> {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let of_cgroup = allotted(Path::new("/sys/fs/cgroup"), &read("/proc/self/cgroup"));
    let of_machine = total(&read("/proc/meminfo"));
    of_cgroup.into_iter().chain(of_machine).min()
}

fn bound(descriptors: Option<u64>, memory: Option<u64>) -> u64 {
    let by_descriptors = descriptors.map(|all| {
        let taken = OWN.saturating_add(all / OF_PIPES);
        all.saturating_sub(taken) / OF_CONNECTION / 2
    });
    let by_memory = memory.map(|bytes| bytes / 2 / BYTES);
    let lower = [by_descriptors, by_memory].into_iter().flatten().min();
    lower.unwrap_or(u64::MAX).max(LEAST)
}

/// The lowest limit of a process with these `groups`, which are /proc/self/cgroup as cgroups(7)
/// describes it. `root`: where the hierarchies are mounted. In a container the file may have the
/// path that the group has on the host, while only the group itself is mounted: then only `root` is
/// read.
fn allotted(root: &Path, groups: &str) -> Option<u64> {
    let limits = groups.lines().filter_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        match controllers.split(',').any(|name| name == "memory") {
            true => lowest(&root.join("memory"), path, "memory.limit_in_bytes"),
            false if controllers.is_empty() => lowest(root, path, "memory.max"),
            false => None,
        }
    });
    limits.min()
}

/// The lowest limit in the files called `name` from `root` down to `path`.
fn lowest(root: &Path, path: &str, name: &str) -> Option<u64> {
    let mut folder = root.to_owned();
    let below = Path::new(path).components().filter_map(|part| match part {
        Component::Normal(part) => {
            folder.push(part);
            Some(folder.clone())
        }
        // Outside of the cgroup namespace's root, which cannot be read.
        _ => None,
    });
    let folders = std::iter::once(root.to_owned()).chain(below.collect::<Vec<_>>());
    let limit = |folder: &Path| {
        let text = std::fs::read_to_string(folder.join(name)).ok()?;
        // "max", and in v1 a number that exceeds all memory, mean no limit.
        text.trim().parse().ok().filter(|bytes| *bytes < 1 << 60)
    };
    folders.filter_map(|folder| limit(&folder)).min()
}

/// MemTotal, bytes, as proc_meminfo(5) writes it.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scarcer_of_descriptors_and_memory_decides() {
        assert_eq!(bound(Some(2000), None), 405);
        assert_eq!(bound(Some(1 << 20), Some(128 << 20)), 4096);
        assert_eq!(bound(Some(1 << 20), None), 229_344);
        assert_eq!(bound(Some(10), Some(1)), LEAST);
        assert!(inbound() >= LEAST);
    }

    #[test]
    fn pipes_of_all_workers_take_a_share_of_the_descriptors() {
        assert_eq!(pipes_of(Some(1024), 2), 32);
        assert_eq!(pipes_of(Some(64), 8), 0);
        assert!(pipes_of(None, 0) > 1 << 40);
        assert!(pipes(2) > 0);
    }

    #[test]
    fn there_is_always_a_bound_on_memory() {
        let memory = memory().unwrap();
        assert!((1 << 20..1 << 60).contains(&memory), "{memory}");
        assert_eq!(
            total("MemTotal:       16333764 kB\nMemFree: 1 kB\n"),
            Some(16_333_764 << 10)
        );
        assert_eq!(total("MemFree: 1 kB\n"), None);
    }

    /// A hierarchy with these limits, by path.
    fn hierarchy(limits: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, limit) in limits {
            let file = root.path().join(path);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, limit).unwrap();
        }
        root
    }

    #[test]
    fn the_lowest_limit_of_a_group_and_those_above_applies() {
        type Limits<'a> = &'a [(&'a str, &'a str)];
        const MIB: u64 = 1 << 20;
        let unit = "0::/system.slice/anyam.service\n";
        let container = "0::/\n";
        let v1 = "12:cpu,cpuacct:/a\n5:memory:/docker/c1\n0::/unlimited\n";
        let cases: [(Limits<'_>, &str, Option<u64>); 9] = [
            (&[], unit, None),
            (
                &[("system.slice/anyam.service/memory.max", "max\n")],
                unit,
                None,
            ),
            // A unit's own limit, or its slice's; the root has no file.
            (
                &[("system.slice/anyam.service/memory.max", "1048576\n")],
                unit,
                Some(MIB),
            ),
            (
                &[
                    ("system.slice/anyam.service/memory.max", "4194304\n"),
                    ("system.slice/memory.max", "2097152\n"),
                ],
                unit,
                Some(2 * MIB),
            ),
            // With a cgroup namespace of its own, or with the host's paths.
            (&[("memory.max", "1048576\n")], container, Some(MIB)),
            (&[("memory.max", "1048576\n")], unit, Some(MIB)),
            (
                &[("memory.max", "1048576\n")],
                "0::/../../other\n",
                Some(MIB),
            ),
            (
                &[
                    ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
                    ("memory/docker/c1/memory.limit_in_bytes", "3145728\n"),
                ],
                v1,
                Some(3 * MIB),
            ),
            // The path of another controller does not count.
            (&[("memory/a/memory.limit_in_bytes", "1\n")], v1, None),
        ];
        for (limits, groups, wanted) in cases {
            let root = hierarchy(limits);
            assert_eq!(allotted(root.path(), groups), wanted, "{limits:?} {groups}");
        }
    }
}
