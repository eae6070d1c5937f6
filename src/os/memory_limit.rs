//! Limits derived from the memory of this machine: open requests, bytes they hold, connections. Together at
//! most three quarters of it, unless configured.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Bytes of an open stream whose app reads slowly: what was sent ahead to it is held.
const A_REQUEST: u64 = 206 * 1024;
/// Bytes of a connection that waits for its next request; with TLS it takes most.
const A_CONNECTION: u64 = 32 * 1024;
/// Bytes held, unless configured.
const MOST_BUFFERED: u64 = 256 * 1024 * 1024;
/// Lower bound, whatever the machine reports.
const LEAST: u64 = 256;
const MOST: u64 = 1_000_000;
/// Assumed if the machine reports nothing.
const UNKNOWN: u64 = 1 << 30;

/// Half of the memory may go into open requests.
pub fn open_requests() -> u64 {
    (available(Path::new("/")) / 2 / A_REQUEST).clamp(LEAST, MOST)
}

/// An eighth of the memory may be held by requests and answers.
pub fn buffered() -> u64 {
    (available(Path::new("/")) / 8).min(MOST_BUFFERED)
}

/// An eighth of the memory may go into connections.
pub fn connections() -> usize {
    (available(Path::new("/")) / 8 / A_CONNECTION).clamp(LEAST, MOST) as usize
}

/// Bytes available to this process: the memory of the machine, or the limit of its container. The kernel's
/// files are below `root`.
fn available(root: &Path) -> u64 {
    let read = |path: &str| fs::read_to_string(root.join(path));
    let machine = read("proc/meminfo").ok().and_then(|text| meminfo(&text));
    let group = read("proc/self/cgroup").unwrap_or_default();
    let limits = limits(root, &group).into_iter();
    let limits = limits.filter_map(|path| fs::read_to_string(path).ok()?.trim().parse().ok());
    machine.into_iter().chain(limits).min().unwrap_or(UNKNOWN)
}

/// Where limits of this process may stand: of its group and of all around it, as a unit of systemd's or a
/// container has them.
fn limits(root: &Path, group: &str) -> Vec<PathBuf> {
    // Lines are `NUMBER:CONTROLLERS:PATH`; the second kind of hierarchy has neither number nor controllers.
    let own = |of: fn(&str) -> bool| {
        let parts = group.lines().filter_map(|line| line.split_once(':')?.1.split_once(":/"));
        parts.filter(|(controllers, _)| of(controllers)).map(|(_, path)| path).next()
    };
    let unified = Path::new(own(str::is_empty).unwrap_or_default());
    let memory = own(|controllers| controllers.split(',').any(|one| one == "memory"));
    let memory = Path::new(memory.unwrap_or_default());
    let root = root.join("sys/fs/cgroup");
    let unified = unified.ancestors().map(|group| root.join(group).join("memory.max"));
    let single = |group| root.join("memory").join(group).join("memory.limit_in_bytes");
    unified.chain(memory.ancestors().map(single)).collect()
}

fn meminfo(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_understood() {
        let text = "MemTotal:       24684096 kB\nMemFree:        21719664 kB\n";
        assert_eq!(meminfo(text), Some(24_684_096 * 1024));
        assert_eq!(meminfo("nonsense"), None);
        let paths = limits(Path::new("/"), "0::/system.slice/gatekeeper.service\n");
        let wanted =
            ["system.slice/gatekeeper.service/memory.max", "system.slice/memory.max", "memory.max"];
        for (path, wanted) in paths.iter().zip(wanted) {
            assert_eq!(path, &Path::new("/sys/fs/cgroup").join(wanted));
        }
        assert!((LEAST..=MOST).contains(&open_requests()));
    }

    #[test]
    fn the_smallest_of_what_machine_and_containers_give_counts() {
        let root = tempfile::TempDir::new().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        assert_eq!(available(root.path()), UNKNOWN, "the kernel says nothing");
        write("proc/meminfo", "MemTotal:        1000 kB\n");
        assert_eq!(available(root.path()), 1_024_000, "a machine without containers");
        write("proc/self/cgroup", "0::/outer.slice/inner\n");
        write("sys/fs/cgroup/outer.slice/inner/memory.max", "max\n");
        write("sys/fs/cgroup/outer.slice/memory.max", "2048000\n");
        assert_eq!(available(root.path()), 1_024_000, "a limit above what the machine has");
        write("sys/fs/cgroup/outer.slice/memory.max", "512000\n");
        assert_eq!(available(root.path()), 512_000, "what is around its own group counts");
        write("sys/fs/cgroup/memory/memory.limit_in_bytes", "256000\n");
        assert_eq!(available(root.path()), 256_000, "so does the older kind of group");
        write("proc/self/cgroup", "9:name=systemd:/a\n4:cpu,memory:/outer/inner\n0::/\n");
        write("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "1000\n");
        write("sys/fs/cgroup/memory/outer/memory.limit_in_bytes", "128000\n");
        assert_eq!(available(root.path()), 128_000, "and what is around its own");
    }
}
