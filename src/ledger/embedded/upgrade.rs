//! Moves a store to another process while requests are open.
//!
//! The next owner reads SQLite and the journal, as after any start. The rest is
//! [`InMemoryState`]. Reservations whose requests go on in another process stay open: their rows are in
//! SQLite, and [`InMemoryState::open`] lists them; all others are charged as after a crash.
//!
//! The lock is passed as an open file: no third process can take it in between, and the survivor of the two
//! still holds it. The kernel does not distinguish the two, so the process that handed the store over must
//! know whether the other one has ended ([`crate::upgrade`]).

use std::sync::atomic::Ordering;

use gatekeeper_filters::kernel::UnixMs;

use super::{
    EmbeddedLedger, recovery, restore,
    store_lock::{StoreLock, beside},
};
use crate::ledger::{
    in_memory_state::{InMemoryState, InheritedStore},
    journal::entry::EntryNames,
    open_error::StoreOpenError,
    sqlite::batch::Batch,
};

impl EmbeddedLedger {
    /// Writes everything to SQLite and releases the store; this ledger must not be called afterwards.
    ///
    /// # Errors
    /// The lock can't be copied, or the journal has no room; then [`EmbeddedLedger::take_back`].
    pub fn give(&self) -> std::io::Result<InheritedStore> {
        self.give_at(UnixMs::now())
    }

    pub(crate) fn give_at(&self, now: UnixMs) -> std::io::Result<InheritedStore> {
        let lock = match &*self.owner.lock() {
            Some(owner) => owner.copy()?,
            None => return Err(std::io::Error::other("the store is not here")),
        };
        let volatile = self.accounts.volatile(now);
        self.stop();
        if !self.journal.is_written() {
            return Err(std::io::Error::other("the journal has no room for what was settled"));
        }
        // What the database did not take is in the journal, and the next owner begins with that.
        if let Some(owner) = &mut *self.owner.lock() {
            owner.is_shared = true;
        }
        self.accounts.clear();
        Ok(InheritedStore { lock, volatile })
    }

    /// What is in memory alone.
    pub fn volatile(&self) -> InMemoryState {
        self.accounts.volatile(UnixMs::now())
    }

    /// Takes the store back from a process that has ended. `volatile` is what is open here by now.
    ///
    /// # Errors
    /// It can't be read or written.
    pub fn take_back(&self, volatile: &InMemoryState) -> Result<(), StoreOpenError> {
        // A successor may have let go of the lock, and a third process may have taken it.
        if !self.owner.lock().as_ref().is_some_and(StoreLock::renew) {
            return Err(StoreOpenError::InUse { path: self.path.clone(), pid: None });
        }
        self.stop();
        let now = UnixMs::now();
        let dir = beside(&self.path, ".journal");
        let sqlite = |source| StoreOpenError::Sqlite { path: self.path.clone(), source };
        let mut db = self.db.lock();
        // What was settled and waits for room in the journal is no orphan: its charge is known.
        let waiting = self.journal.waiting();
        let mut live = volatile.live();
        live.extend(waiting.iter().map(|settled| settled.hold));
        let found = recovery::recover(&mut db, &self.path, &dir, &live)?;
        if !waiting.is_empty() {
            let known = db.orphans().map_err(sqlite)?;
            let mut batch = Batch::default();
            batch.reaches = found.reaches;
            for settled in &waiting {
                let names = known.iter().find(|row| row.reserved.hold == settled.hold);
                batch.settle(settled, names.map(|row| EntryNames::of(&row.about)));
            }
            db.apply(&batch).map_err(sqlite)?;
            self.journal.forget_waiting(waiting.len());
        }
        self.accounts.clear();
        restore::restore(&db, &self.accounts, volatile, now).map_err(sqlite)?;
        drop(db);
        let file = |source| StoreOpenError::File { path: dir, source };
        self.journal.restart(found.reaches + 1).map_err(file)?;
        self.journal.tend();
        self.filled.store(true, Ordering::Relaxed);
        if let Some(owner) = &mut *self.owner.lock() {
            owner.is_shared = false;
            owner.sign();
        }
        self.start(self.keep).map_err(StoreOpenError::Thread)
    }

    /// Holds of requests in another process, with the estimate of their input: what they are charged
    /// if that process vanishes.
    pub fn inputs(&self, volatile: &InMemoryState) -> rusqlite::Result<Vec<(u64, u64)>> {
        let live = volatile.live();
        let rows = self.db.lock().orphans()?;
        let rows = rows.iter().map(|row| &row.reserved);
        Ok(rows.filter(|row| live.contains(&row.hold)).map(|r| (r.hold, r.input)).collect())
    }

    /// Charges what is still open when the process ends, as its next start would. After
    /// [`EmbeddedLedger::close`], when nothing can settle any more.
    pub fn charge_open(&self) {
        let mut db = self.db.lock();
        if let Err(problem) = recovery::charge(&mut db) {
            log::warn!("store: open requests are charged at the next start, not now: {problem}");
        }
        let _ = db.checkpoint();
    }
}
