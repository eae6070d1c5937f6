//! Keeps secrets in memory from core dumps and from other processes of the same user.

/// Set to `1`, the process can be traced, profiled and dumped by its own user.
const DUMPABLE: &str = "GATEKEEPER_DUMPABLE";

/// A core dump would hold every secret, and so does the memory that another process of this user could read: both
/// are switched off, where the kernel does not refuse. `RLIMIT_CORE` alone does not hold for dumps that are
/// piped to a handler (core(5)), nor for /proc/PID/mem and environ.
pub fn protect_memory() {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};
    no_core_dumps();
    if std::env::var_os(DUMPABLE).is_some_and(|value| value == "1") {
        return;
    }
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        log::warn!("Other processes of this user can read the memory of this process: {error}.");
    }
}

fn no_core_dumps() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    if let Err(error) = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }) {
        log::warn!("Core dumps cannot be disabled: {error}.");
    }
}
