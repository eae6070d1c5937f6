//! What is in memory from the start: all accounts, or those that another process had something of in memory alone.

use std::{path::Path, sync::Arc};

use gatekeeper_filters::kernel::UnixMs;
use parking_lot::Mutex;

use crate::ledger::{
    accounts::{Accounts, Residency},
    in_memory_state::InMemoryState,
    sqlite::Database,
};

/// A connection of its own, so that a request never waits for a batch that is being written; none where all
/// accounts are in memory.
pub type AccountReader = Option<Arc<Mutex<Database>>>;

/// The reader that accounts of this residency need.
pub fn reader(path: &Path, residency: Residency) -> rusqlite::Result<AccountReader> {
    match residency {
        Residency::Complete => Ok(None),
        Residency::OnDemand => Ok(Some(Arc::new(Mutex::new(Database::reader(path)?)))),
    }
}

/// Brings into memory what has to be there from the start, and what another process had in memory alone.
pub fn restore(
    db: &Database,
    accounts: &Accounts,
    volatile: &InMemoryState,
    now: UnixMs,
) -> rusqlite::Result<()> {
    let rows = if volatile.made.is_empty() { Vec::new() } else { db.orphans()? };
    match accounts.residency() {
        Residency::Complete => db.restore(accounts, now)?,
        Residency::OnDemand => {
            let open = rows.iter().map(|row| row.reserved.license);
            for license in volatile.licenses().chain(open) {
                if let Some(since) = accounts.missing(&license) {
                    accounts.admit(license, db.account(&license, now)?, since);
                }
            }
        }
    }
    db.restore_actions(accounts)?;
    if !volatile.made.is_empty() {
        accounts.adopt(volatile, &rows);
    }
    Ok(())
}
