//! Reads accounts from SQLite, over a connection of its own: no request waits for a batch that is being written.

use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use gatekeeper_filters::kernel::{LicenseId, StoreDown, UnixMs};
use parking_lot::Mutex;

use crate::ledger::{accounts::Accounts, sqlite::Database};

pub struct AccountReader {
    db: Mutex<Database>,
    /// The last read failed: one line in the log for each change, not for each request.
    fails: AtomicBool,
}

impl AccountReader {
    /// # Errors
    /// SQLite can't be opened.
    pub fn open(path: &Path) -> rusqlite::Result<Self> {
        Ok(Self { db: Mutex::new(Database::reader(path)?), fails: AtomicBool::default() })
    }

    /// Has the account of a licence in memory.
    ///
    /// # Errors
    /// SQLite can't be read.
    pub fn load(
        &self,
        accounts: &Accounts,
        license: &LicenseId,
        now: UnixMs,
    ) -> Result<(), StoreDown> {
        while let Some(since) = accounts.missing(license) {
            let read = self.db.lock().account(license, now);
            let failing = read.is_err();
            let is_news = self.fails.swap(failing, Relaxed) != failing;
            match read {
                Ok(account) => {
                    accounts.admit(*license, account, since);
                    if is_news {
                        log::info!("store: usage of licences can be read from SQLite again.");
                    }
                }
                Err(problem) => {
                    if is_news {
                        log::error!(
                            "store: usage of licences can't be read from SQLite: {problem}. Requests of \
                             licences that were not used lately are refused (503 `store_unavailable`) \
                             until it can; check the disk and the file at `store.path`."
                        );
                    }
                    return Err(StoreDown);
                }
            }
        }
        Ok(())
    }
}
