//! Hand-over of the distributed ledger to another process. To the store that is the next boot of the same
//! gateway: it sends what this one settled, and what is open, under its own name.

use std::{
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use super::{DistributedLedger, open_reservations::ReservationsState};

const POLL_INTERVAL: Duration = Duration::from_millis(2);

impl DistributedLedger {
    /// Whether the ledger was handed over to another process.
    pub fn is_handed_over(&self) -> bool {
        self.handed_over.load(Relaxed)
    }

    /// Sends all settlements and stops the sync; this ledger must not be called afterwards. `None` if the
    /// store delays that for too long.
    pub async fn hand_over(&self) -> Option<ReservationsState> {
        if !self.drain_outbox().await {
            return None;
        }
        self.handed_over.store(true, Relaxed);
        self.store.retire(true);
        self.charge_undecided();
        Some(self.reservations.export())
    }

    /// Waits until requests are decided on the store, or until `deadline`.
    pub async fn await_resync_until(&self, deadline: Instant) {
        while !self.is_up() && Instant::now() < deadline {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Takes over what was open in another process, before this one grants anything.
    pub fn adopt(&self, held: ReservationsState) {
        self.reservations.adopt(held);
    }

    /// Resumes after the process that had taken over has ended. The embedded ledger must be reclaimed first.
    ///
    /// # Errors
    /// The database fails.
    pub fn reclaim(&self, held: ReservationsState) -> rusqlite::Result<()> {
        let (_, boot) = self.local.identity()?;
        self.gateway_id.boot.store(boot, Relaxed);
        self.reservations.export();
        self.reservations.adopt(held);
        self.handed_over.store(false, Relaxed);
        self.store.retire(false);
        // The next resync sends what the other process may not have sent.
        self.store.lost();
        Ok(())
    }
}
