//! What is in memory from the start: all accounts, or those of which another process had a part in memory alone.

use gatekeeper_filters::kernel::UnixMs;

use crate::ledger::{
    accounts::{Accounts, Residency},
    in_memory_state::InMemoryState,
    sqlite::Database,
};

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
