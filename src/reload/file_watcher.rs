//! Watches the configuration file and the files it names (secrets, KEKs, certificates) by polling, so that every way
//! of saving is noticed: written in place, renamed over, a link to another file, a swapped mount.
//!
//! Polls twice a second: one system call a file. inotify would need a watch on every link of each path, and reports
//! nothing on network mounts.

use std::{
    io,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use super::Reloader;
use crate::config::SourceFiles;

/// Interval between two polls. A change has to be stable for one interval: a write may be in progress.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// Minimum interval between two reloads.
const MIN_INTERVAL: Duration = Duration::from_millis(250);

/// Starts the thread that reloads after a change or on request, for the lifetime of the gateway.
///
/// # Errors
/// No thread can be started.
pub fn begin(reload: &Arc<Reloader>) -> io::Result<()> {
    let trigger = reload.trigger.clone();
    let reload = Arc::downgrade(reload);
    let watch = move || {
        let (mut before, mut last) = (None, None);
        loop {
            let requested = trigger.wait(POLL_INTERVAL);
            match poll(&reload, requested, before.as_ref(), &mut last) {
                Some(now) => before = Some(now),
                None => return,
            }
        }
    };
    std::thread::Builder::new().name("config-watch".into()).spawn(watch).map(drop)
}

/// One poll; the state of the files, or `None` when the gateway has ended.
fn poll(
    reload: &Weak<Reloader>,
    requested: bool,
    before: Option<&SourceFiles>,
    last: &mut Option<Instant>,
) -> Option<SourceFiles> {
    let reload = reload.upgrade()?;
    let last_read = reload.last_read.lock().clone();
    let now = last_read.look();
    if requested || (Some(&now) == before && now != last_read) {
        if let Some(left) = last.and_then(|last| MIN_INTERVAL.checked_sub(last.elapsed())) {
            std::thread::sleep(left);
        }
        reload.trigger.clear();
        *last = Some(Instant::now());
        reload.reload();
    }
    Some(now)
}
