//! Notices that the file was saved, however that was done: written in place, renamed over, a link turned to
//! another file, a mount swapped.
//!
//! It looks, twice a second, at what the path leads to. The kernel's own notices (inotify) would have to be asked for
//! at every link of the path and say nothing of network mounts; a look costs one system call.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::Path,
    sync::{Arc, Weak},
    time::Duration,
};

use super::Reload;

/// Between two looks. What changed has to stay the same for one more: whoever writes may not be done.
const PAUSE: Duration = Duration::from_millis(500);

/// What tells one state of a file from another. Seconds and nanoseconds; `changed` moves with its permissions, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// Of what the path leads to; `None` while there is nothing.
    pub fn of(path: &Path) -> Option<Self> {
        let told = fs::metadata(path).ok()?;
        Some(Self {
            device: told.dev(),
            inode: told.ino(),
            length: told.len(),
            modified: (told.mtime(), told.mtime_nsec()),
            changed: (told.ctime(), told.ctime_nsec()),
        })
    }
}

/// Reads the file again whenever it was saved, for as long as the gateway lives.
///
/// # Errors
/// No thread can be started.
pub fn begin(reload: &Arc<Reload>) -> io::Result<()> {
    let reload = Arc::downgrade(reload);
    let look = move || {
        let mut before = None;
        while let Some(now) = take(&reload, before) {
            before = now;
            std::thread::sleep(PAUSE);
        }
    };
    std::thread::Builder::new().name("config-watch".into()).spawn(look).map(drop)
}

/// One look; what was there, or `None` when the gateway is gone.
fn take(reload: &Weak<Reload>, before: Option<Stamp>) -> Option<Option<Stamp>> {
    let reload = reload.upgrade()?;
    let now = Stamp::of(&reload.file);
    if now == before && now != *reload.seen.lock() {
        reload.reload();
    }
    Some(now)
}
