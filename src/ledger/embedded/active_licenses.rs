//! Counts the licences in use, beside everything else.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    thread::Builder,
    time::{Duration, Instant},
};

use gatekeeper_filters::kernel::UnixMs;
use parking_lot::{Condvar, Mutex};

use crate::ledger::sqlite::Database;

/// How old a count may be: this, and as many times as long as it took.
const AGE: Duration = Duration::from_secs(10);
const TIMES: u32 = 50;
/// How long the one that finds a count too old waits for the next.
const WAIT: Duration = Duration::from_millis(40);

/// Distinct licences over 1, 7 and 30 days, by a thread that reads a million of them in a second or two.
#[derive(Default)]
pub struct ActiveLicenses {
    state: Mutex<Count>,
    counted: Condvar,
}

#[derive(Default)]
struct Count {
    licenses: [u64; 3],
    /// When the next one is due; `None` before the first.
    due: Option<Instant>,
    runs: bool,
}

impl ActiveLicenses {
    /// The last count of the store at `path`, which is 0 until the first one is done.
    pub fn get(self: &Arc<Self>, path: &Path, now: UnixMs) -> [u64; 3] {
        let mut state = self.state.lock();
        if state.runs || state.due.is_some_and(|due| Instant::now() < due) {
            return state.licenses;
        }
        let (this, path) = (self.clone(), path.to_owned());
        let thread = Builder::new().name("ledger-active".into());
        state.runs = thread.spawn(move || this.count(path, now)).is_ok();
        self.counted.wait_while_for(&mut state, |state| state.runs, WAIT);
        state.licenses
    }

    fn count(&self, path: PathBuf, now: UnixMs) {
        let began = Instant::now();
        let counted = Database::reader(&path).and_then(|db| db.active_licenses(now));
        let mut state = self.state.lock();
        match counted {
            Ok(licenses) => state.licenses = licenses,
            Err(problem) => log::warn!("store: active licences can't be counted: {problem}"),
        }
        state.due = Some(Instant::now() + AGE.max(began.elapsed() * TIMES));
        state.runs = false;
        self.counted.notify_all();
    }
}
