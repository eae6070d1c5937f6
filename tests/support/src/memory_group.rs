//! A group of processes that the kernel lets have only so much memory.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

/// Below the group of the tests; gone with the last of its processes.
pub struct MemoryGroup {
    dir: PathBuf,
}

impl MemoryGroup {
    /// `None`, and a line that says so, where none can be made.
    pub fn make(bytes: u64) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("gatekeeper-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let made = candidates().into_iter().find_map(|(parent, limit)| {
            let group = Self { dir: parent.join(&name) };
            fs::create_dir(&group.dir).ok()?;
            fs::write(group.dir.join(limit), bytes.to_string()).ok()?;
            Some(group)
        });
        if made.is_none() {
            eprintln!("SKIPPED: no group with a limit of memory can be made here");
        }
        made
    }

    /// What starts a program in this group.
    pub fn starts(&self) -> Vec<String> {
        let procs = self.dir.join("cgroup.procs").display().to_string();
        let script = r#"echo $$ >"$0" && exec "$@""#;
        ["sh", "-c", script, &procs].map(str::to_owned).to_vec()
    }

    /// How often the kernel ended a process of it for want of memory.
    pub fn kills(&self) -> u64 {
        let text = ["memory.oom_control", "memory.events"]
            .into_iter()
            .find_map(|file| fs::read_to_string(self.dir.join(file)).ok())
            .unwrap();
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.unwrap().trim().parse().unwrap()
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.dir);
    }
}

/// Where a group may be made, and the file of its limit: below this process' own group, of either kind.
fn candidates() -> Vec<(PathBuf, &'static str)> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let of = |wanted: &str| {
        let mut lines = groups.lines().filter_map(|line| line.split_once(':')?.1.split_once(":/"));
        lines.find(|(controllers, _)| *controllers == wanted).map(|(_, path)| path)
    };
    let root = Path::new("/sys/fs/cgroup");
    let single = of("memory").map(|path| (root.join("memory").join(path), "memory.limit_in_bytes"));
    let unified = of("").map(|path| (root.join(path), "memory.max"));
    single.into_iter().chain(unified).collect()
}
