//! What memory the machine has, or the control group that the process is in.

use std::path::Path;

use crate::config::Bytes;

/// Where nothing tells.
const UNKNOWN: u64 = 2 << 30;

/// Half of the memory that this process may use, in whole MiB.
pub(crate) fn half_of_memory() -> Bytes {
    let memory = memory(Path::new("/")).unwrap_or(UNKNOWN);
    Bytes(((memory / 2) >> 20).max(64) << 20)
}

/// The least of what the machine below `root` has and its control groups allow.
fn memory(root: &Path) -> Option<u64> {
    let read = |path: String| std::fs::read_to_string(root.join(path)).ok();
    let mut least = read("proc/meminfo".into()).as_deref().and_then(total);
    let groups = read("proc/self/cgroup".into()).unwrap_or_default();
    for line in groups.lines() {
        // Version 2 has one line, "0::/path"; version 1 one for each hierarchy, "4:memory:/path".
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let (base, file) = match controllers {
            "" => ("sys/fs/cgroup", "memory.max"),
            c if c.split(',').any(|c| c == "memory") => {
                ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        // A group is bound by those above it. In a container the path may be one of the host, which is not there: the
        // container's own group is at the top.
        for group in Path::new(path.trim_start_matches('/')).ancestors() {
            let limit = read(format!("{base}/{}/{file}", group.display()));
            // No number means no limit.
            if let Some(limit) = limit.and_then(|limit| limit.trim().parse().ok()) {
                least = Some(least.map_or(limit, |least| least.min(limit)));
            }
        }
    }
    least
}

/// The machine's memory.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)]) -> Option<u64> {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        memory(root.path())
    }

    const MEMINFO: (&str, &str) = ("proc/meminfo", "MemTotal:       16000000 kB\nMemFree: 1 kB\n");

    #[test]
    fn the_least_limit_counts() {
        assert_eq!(machine(&[]), None);
        assert_eq!(machine(&[MEMINFO]), Some(16_000_000 << 10));
        let v2 = ("proc/self/cgroup", "0::/a/b\n");
        let files = [
            MEMINFO,
            v2,
            ("sys/fs/cgroup/a/memory.max", "500000000\n"),
            ("sys/fs/cgroup/a/b/memory.max", "max\n"),
        ];
        assert_eq!(machine(&files), Some(500_000_000), "the group above");
        assert_eq!(
            machine(&[MEMINFO, v2, ("sys/fs/cgroup/memory.max", "7000000")]),
            Some(7_000_000)
        );
        let v1 = ("proc/self/cgroup", "5:cpu,memory:/docker/x\n1:name=systemd:/\n");
        let limit = ("sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes", "300000000");
        assert_eq!(machine(&[MEMINFO, v1, limit]), Some(300_000_000));
        let none = ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712");
        assert_eq!(machine(&[MEMINFO, v1, none]), Some(16_000_000 << 10));
    }
}
