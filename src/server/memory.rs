//! How many requests may be open, where the file does not say: what the memory of this machine carries.

use std::fs;

/// Bytes of an open stream, as `make bench` measures it, and a little.
const A_REQUEST: u64 = 96 * 1024;
/// Whatever the machine says of itself.
const LEAST: u64 = 256;
const MOST: u64 = 1_000_000;
/// Where the machine says nothing.
const UNKNOWN: u64 = 1 << 30;

/// Half of the memory may go into open requests.
pub fn open_requests() -> u64 {
    (available() / 2 / A_REQUEST).clamp(LEAST, MOST)
}

/// Bytes this process may have: those of the machine, or fewer where a container has a limit.
fn available() -> u64 {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| meminfo(&text));
    let limits = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let limits =
        limits.iter().filter_map(|path| fs::read_to_string(path).ok()?.trim().parse().ok());
    machine.into_iter().chain(limits).min().unwrap_or(UNKNOWN)
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
        assert!((LEAST..=MOST).contains(&open_requests()));
        assert!(available() > 64 << 20, "this test runs somewhere");
    }
}
