//! Reads accounts from SQLite when their licences ask.
//!
//! SQLite has everything of an account that is not in memory: at a start the journal is brought into it, and
//! an account is dropped only when all it counted is there.

use gatekeeper_filters::kernel::{LicenseId, StoreDown, UnixMs};
use parking_lot::Mutex;

use super::EmbeddedLedger;
use crate::ledger::{accounts::Accounts, sqlite::Database};

impl EmbeddedLedger {
    /// Has the account of a licence in memory.
    ///
    /// # Errors
    /// SQLite can't be read.
    pub(crate) async fn load(&self, license: &LicenseId, now: UnixMs) -> Result<(), StoreDown> {
        if self.accounts.missing(license).is_none() {
            return Ok(());
        }
        // Rare, so not part of each request's future.
        Box::pin(self.load_elsewhere(*license, now)).await
    }

    async fn load_elsewhere(&self, license: LicenseId, now: UnixMs) -> Result<(), StoreDown> {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return self.load_here(&license, now);
        };
        let Some(reader) = self.reader.clone() else { return Ok(()) };
        let accounts = self.accounts.clone();
        let read = move || read(&reader, &accounts, &license, now);
        runtime.spawn_blocking(read).await.map_err(|_| StoreDown)?
    }

    /// [`EmbeddedLedger::load`] on this thread.
    pub(super) fn load_here(&self, license: &LicenseId, now: UnixMs) -> Result<(), StoreDown> {
        let Some(reader) = &self.reader else { return Ok(()) };
        read(reader, &self.accounts, license, now)
    }
}

fn read(
    reader: &Mutex<Database>,
    accounts: &Accounts,
    license: &LicenseId,
    now: UnixMs,
) -> Result<(), StoreDown> {
    while let Some(since) = accounts.missing(license) {
        let account = reader.lock().account(license, now).map_err(|problem| {
            log::error!("store: the usage of a licence can't be read from SQLite: {problem}");
            StoreDown
        })?;
        accounts.admit(*license, account, since);
    }
    Ok(())
}
