//! Windows that memory has let go of: after the clock was set back, SQLite tells what was used in them.
//!
//! An account keeps two windows of each kind, which is enough for a clock that goes forward, and for one
//! step. A clock that was set back may come to any window again. From then on a window that is not in
//! memory is looked up before anything is granted in it: after a step of less than five minutes until
//! the clock is where it was, after a longer one for good.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use gatekeeper_filters::kernel::{LicenseId, Period, StoreDown, UnixMs};

use super::EmbeddedLedger;
use crate::ledger::journal::Journal;

/// A step back of less comes to other minutes alone.
const SLACK: u64 = 5 * 60 * 1000;
/// Requests that overtake each other are no step back, if they do so within this.
const OVERTAKEN: u64 = 2_000;
/// The longest of the windows that a small step may come to again.
const MINUTE: u64 = 60_000;
/// How exact the latest moment is kept: writing it each time would cost every request a cache line.
const STEP: u64 = 1000;
/// How long SQLite may take to catch up with the journal.
const PATIENCE: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(5);

/// Whether the clock was set back in this process.
#[derive(Default)]
pub struct ClockGuard {
    latest: AtomicU64,
    /// By a small step: until then there may be windows that memory has let go of.
    until: AtomicU64,
    ever: AtomicBool,
}

impl ClockGuard {
    /// Takes in the time of a request; whether the windows of it may be known to SQLite alone.
    pub fn hear(&self, now: UnixMs) -> bool {
        let latest = self.latest.load(Relaxed);
        if now.0 > latest + STEP {
            self.latest.store(now.0, Relaxed);
        } else if now.0 + SLACK < latest {
            self.latest.store(now.0, Relaxed);
            if !self.ever.swap(true, Relaxed) {
                log::warn!(
                    "store: the clock was set back by {} s; what was used before is looked up.",
                    (latest - now.0) / 1000
                );
            }
        } else if now.0 + OVERTAKEN < latest {
            self.until.fetch_max(latest + STEP + MINUTE, Relaxed);
        }
        now.0 < self.until.load(Relaxed) || self.ever.load(Relaxed)
    }
}

impl EmbeddedLedger {
    /// Has the windows of `now` in memory. Waits for nothing, unless the clock was once set back.
    ///
    /// # Errors
    /// SQLite does not have all that the journal has, and can't tell.
    pub(crate) async fn recall(&self, license: &LicenseId, now: UnixMs) -> Result<(), StoreDown> {
        if !self.set_back.hear(now) {
            return Ok(());
        }
        let lost = self.book.lost(license, now);
        if lost.is_empty() {
            return Ok(());
        }
        self.filling.wake();
        let (db, journal, license) = (self.db.clone(), self.journal.clone(), *license);
        let look = move || {
            wait_until_filled(&db, &journal)?;
            look_up(&db, license, &lost)
        };
        let found = match tokio::runtime::Handle::try_current() {
            Ok(runtime) => runtime.spawn_blocking(look).await.map_err(|_| StoreDown)?,
            Err(_) => look(),
        };
        for (period, start, (messages, tokens)) in found? {
            self.book.remember(license, period, start, messages, tokens);
        }
        Ok(())
    }
}

/// Messages and tokens of each window.
type RestoredWindows = Vec<(Period, UnixMs, (u64, u64))>;

fn look_up(
    db: &Lookups,
    license: LicenseId,
    lost: &MissingWindows,
) -> Result<RestoredWindows, StoreDown> {
    let db = db.lock();
    let used = lost.iter().map(|(period, start)| {
        let used = db.used(&license, *period, *start).map_err(|_| StoreDown)?;
        Ok((*period, *start, used))
    });
    used.collect()
}

type Lookups = Arc<parking_lot::Mutex<crate::ledger::sqlite::Database>>;

fn wait_until_filled(db: &Lookups, journal: &Journal) -> Result<(), StoreDown> {
    let (wanted, deadline) = (journal.reaches(), Instant::now() + PATIENCE);
    while db.lock().applied().map_err(|_| StoreDown)? < wanted {
        if Instant::now() >= deadline {
            return Err(StoreDown);
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// A window of each kind that is not in memory.
pub type MissingWindows = Vec<(Period, UnixMs)>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_step_counts_until_the_clock_is_back_and_a_large_one_for_good() {
        let clock = ClockGuard::default();
        for now in [10_000_000, 10_500_000, 10_499_000] {
            assert!(!clock.hear(UnixMs(now)), "{now}");
        }
        for now in [10_400_000, 10_200_500, 10_500_000, 10_559_000] {
            assert!(clock.hear(UnixMs(now)), "{now}");
        }
        assert!(!clock.hear(UnixMs(10_570_000)));
        assert!(clock.hear(UnixMs(10_200_000)));
        assert!(clock.hear(UnixMs(99_000_000)));
    }
}
