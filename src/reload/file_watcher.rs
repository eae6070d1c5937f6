//! Notices that the file was saved, or one it names (secrets, KEKs, certificates), however that was done: written in
//! place, renamed over, a link turned to another file, a mount swapped.
//!
//! It looks, twice a second, at what the paths lead to. The kernel's own notices (inotify) would have to be asked for
//! at every link of each path and say nothing of network mounts; a look costs one system call a file.

use std::{
    io,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use super::Reloader;
use crate::config::SourceFiles;

/// Between two looks. What changed has to stay the same for one more: whoever writes may not be done.
const PAUSE: Duration = Duration::from_millis(500);
/// From one reload to the next, however often one is asked for.
const APART: Duration = Duration::from_millis(250);

/// Reads the file again whenever it was saved or somebody asks, for as long as the gateway lives.
///
/// # Errors
/// No thread can be started.
pub fn begin(reload: &Arc<Reloader>) -> io::Result<()> {
    let bell = reload.bell.clone();
    let reload = Arc::downgrade(reload);
    let look = move || {
        let (mut before, mut last) = (None, None);
        loop {
            let asked = bell.wait(PAUSE);
            match take(&reload, asked, before.as_ref(), &mut last) {
                Some(now) => before = Some(now),
                None => return,
            }
        }
    };
    std::thread::Builder::new().name("config-watch".into()).spawn(look).map(drop)
}

/// One look; what was there, or `None` when the gateway is gone.
fn take(
    reload: &Weak<Reloader>,
    asked: bool,
    before: Option<&SourceFiles>,
    last: &mut Option<Instant>,
) -> Option<SourceFiles> {
    let reload = reload.upgrade()?;
    let seen = reload.seen.lock().clone();
    let now = seen.look();
    if asked || (Some(&now) == before && now != seen) {
        if let Some(left) = last.and_then(|last| APART.checked_sub(last.elapsed())) {
            std::thread::sleep(left);
        }
        reload.bell.silence();
        *last = Some(Instant::now());
        reload.reload();
    }
    Some(now)
}
