//! Accounts come into memory when their licences ask.
//!
//! SQLite has everything of an account that is not in memory: at a start the journal is brought into it, and
//! an account is dropped only when all it counted is there.

use gatekeeper_filters::kernel::{LicenseId, StoreDown, UnixMs};

use super::EmbeddedLedger;

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
        Box::pin(self.load_from_sqlite(*license, now)).await
    }

    async fn load_from_sqlite(&self, license: LicenseId, now: UnixMs) -> Result<(), StoreDown> {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return self.load_blocking(&license, now);
        };
        let Some(reader) = self.reader.clone() else { return Ok(()) };
        let accounts = self.accounts.clone();
        let load = move || reader.load(&accounts, &license, now);
        runtime.spawn_blocking(load).await.map_err(|_| StoreDown)?
    }

    /// [`EmbeddedLedger::load`] on this thread.
    pub(super) fn load_blocking(&self, license: &LicenseId, now: UnixMs) -> Result<(), StoreDown> {
        self.reader.as_ref().map_or(Ok(()), |reader| reader.load(&self.accounts, license, now))
    }
}
