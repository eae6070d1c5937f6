//! How the ledger of a gateway among several goes to another process. To the store it is the next boot of
//! the same gateway: it puts back what this gateway settled, and what is open, under its own name.

use std::{
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use super::{DistributedLedger, open_reservations::ReservationsState};

const LOOK: Duration = Duration::from_millis(2);

impl DistributedLedger {
    /// Whether another process speaks for this gateway.
    pub fn is_away(&self) -> bool {
        self.away.load(Relaxed)
    }

    /// Brings everything settled into the own book and falls silent; nobody may call this ledger any
    /// more. `None` when the store holds that up for too long.
    pub async fn give(&self) -> Option<ReservationsState> {
        if !self.settle_outbox().await {
            return None;
        }
        self.away.store(true, Relaxed);
        self.store.retire(true);
        self.charge_undecided();
        Some(self.holds.give())
    }

    /// Waits until requests are decided on the store, or until `deadline`.
    pub async fn is_whole(&self, deadline: Instant) {
        while !self.is_up() && Instant::now() < deadline {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// What was open in another process, before this one is asked for anything.
    pub fn adopt(&self, held: ReservationsState) {
        self.holds.adopt(held);
    }

    /// Speaks again, after the process that did so has ended. The own book must be back already.
    ///
    /// # Errors
    /// The database fails.
    pub fn take_back(&self, held: ReservationsState) -> rusqlite::Result<()> {
        let (_, boot) = self.local.identity()?;
        self.speaker.boot.store(boot, Relaxed);
        self.holds.give();
        self.holds.adopt(held);
        self.away.store(false, Relaxed);
        self.store.retire(false);
        // What the other process told last is told anew.
        self.store.lost();
        Ok(())
    }
}
