//! Reloads counters from SQLite after the wall clock was set back.
//!
//! An account keeps two windows of each kind, which is enough for a clock that goes forward, and for one
//! step. A clock that was set back may return to any window. From then on a window that is not in memory is
//! looked up before anything is granted in it: after a step of less than five minutes until the clock is
//! where it was, after a longer one permanently.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use gatekeeper_filters::kernel::{LicenseId, Period, StoreDown, UnixMs};

use super::EmbeddedLedger;
use crate::ledger::{journal::Journal, windows::MissingWindows};

/// How long SQLite may take to catch up with the journal.
const PATIENCE: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(5);

impl EmbeddedLedger {
    /// Has the windows of `now` in memory. Waits for nothing, unless the clock was once set back.
    ///
    /// # Errors
    /// SQLite has not caught up with the journal, or can't be read.
    pub(crate) async fn recall(&self, license: &LicenseId, now: UnixMs) -> Result<(), StoreDown> {
        if !self.set_back.hear(now) {
            return Ok(());
        }
        let lost = self.accounts.lost(license, now);
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
            self.accounts.remember(license, period, start, messages, tokens);
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
