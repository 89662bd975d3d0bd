//! How many workers: one per CPU that the cgroup allots, two without a limit.

use std::path::Path;

/// Without a limit a sidecar shares its machine with many others.
const WITHOUT_LIMIT: usize = 2;

/// `asked`: `--concurrency`; `cpuset`: `--cpuset-threads`.
pub fn workers(asked: Option<u16>, cpuset: bool) -> usize {
    // Within the CPUs that this process may run on, and its quota.
    let available = std::thread::available_parallelism().map_or(1, usize::from);
    match asked {
        Some(asked) => usize::from(asked),
        None if cpuset => available,
        None => choose(quota(Path::new("/sys/fs/cgroup")), available),
    }
}

/// A fraction of a CPU still needs one worker; more workers than CPUs add nothing but switches.
fn choose(quota: Option<f64>, available: usize) -> usize {
    let wanted = quota.map_or(WITHOUT_LIMIT, |cpus| cpus.ceil() as usize);
    wanted.clamp(1, available.max(1))
}

/// CPUs allotted, by cgroup v2 or else v1. In a container the root of the mount is its own group.
fn quota(root: &Path) -> Option<f64> {
    let number = |text: &str| text.trim().parse::<f64>().ok().filter(|value| *value > 0.0);
    let read = |name: &str| std::fs::read_to_string(root.join(name)).ok();
    if let Some(text) = read("cpu.max") {
        let (quota, period) = text.trim().split_once(' ')?;
        return Some(number(quota)? / number(period)?);
    }
    let quota = number(&read("cpu/cpu.cfs_quota_us")?)?;
    Some(quota / number(&read("cpu/cpu.cfs_period_us")?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_of_both_versions_are_read() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(quota(dir.path()), None);
        std::fs::create_dir(dir.path().join("cpu")).unwrap();
        std::fs::write(dir.path().join("cpu/cpu.cfs_quota_us"), "-1\n").unwrap();
        std::fs::write(dir.path().join("cpu/cpu.cfs_period_us"), "100000\n").unwrap();
        assert_eq!(quota(dir.path()), None);
        std::fs::write(dir.path().join("cpu/cpu.cfs_quota_us"), "150000\n").unwrap();
        assert_eq!(quota(dir.path()), Some(1.5));
        std::fs::write(dir.path().join("cpu.max"), "max 100000\n").unwrap();
        assert_eq!(quota(dir.path()), None);
        std::fs::write(dir.path().join("cpu.max"), "20000 100000\n").unwrap();
        assert_eq!(quota(dir.path()), Some(0.2));
    }

    #[test]
    fn workers_follow_the_quota_within_what_there_is() {
        assert_eq!(choose(None, 64), 2);
        assert_eq!(choose(None, 1), 1);
        assert_eq!(choose(Some(0.2), 64), 1);
        assert_eq!(choose(Some(1.5), 64), 2);
        assert_eq!(choose(Some(8.0), 4), 4);
        assert_eq!(workers(Some(3), true), 3);
        assert!(workers(None, true) >= workers(None, false));
    }
}
