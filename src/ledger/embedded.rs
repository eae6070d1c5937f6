//! The ledger of one machine.

mod account_reader;
mod active_licenses;
pub mod clock;
pub mod clock_rollback;
mod load;
pub mod operator_actions;
pub mod pepper_check;
pub mod recovery;
mod restore;
pub mod sqlite_writer;
pub mod store_lock;
pub mod upgrade;

use std::{
    fs::DirBuilder,
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{Builder, JoinHandle},
    time::Duration,
};

use async_trait::async_trait;
use gatekeeper_filters::kernel::{
    Balance, Charge, Demand, Denied, Grant, Ledger, LicenseId, Limit, ModelTotals, RateRefused,
    RateRequest, Record, StoreDown, UnixMs,
};
use parking_lot::Mutex;

use super::{
    accounts::{Accounts, Residency},
    embedded::{
        account_reader::AccountReader,
        active_licenses::ActiveLicenses,
        clock::ClockGuard,
        pepper_check::{PepperCheck, PepperMismatch},
        sqlite_writer::{SqliteWriter, TICK},
        store_lock::{StoreLock, beside},
    },
    in_memory_state::{InMemoryState, InheritedStore},
    journal::{Journal, JournalSize, entry::EntryFrame, wakeup::Wakeup},
    open_error::StoreOpenError,
    sqlite::{Database, daily_usage::DAY_MS},
};
use crate::progress::Progress;

/// Counters in memory, a journal that survives `kill -9`, SQLite behind it. One owner a store.
pub struct EmbeddedLedger {
    pub(super) accounts: Arc<Accounts>,
    pub(super) journal: Arc<Journal>,
    pub(super) db: Arc<Mutex<Database>>,
    /// `None` where all accounts are in memory.
    pub(super) reader: Option<Arc<AccountReader>>,
    pub(super) filled: Arc<AtomicBool>,
    pub(super) set_back: ClockGuard,
    /// Wakes the thread that fills SQLite.
    pub(super) filling: Arc<Wakeup>,
    active: Arc<ActiveLicenses>,
    /// Those of all gateways that share a store: of which day, in days since 1970, and how many.
    active_everywhere: Mutex<Option<(u64, [u64; 3])>>,
    /// In the order they are stopped.
    threads: Mutex<Vec<(Arc<Wakeup>, JoinHandle<()>)>>,
    pub(super) owner: Mutex<Option<StoreLock>>,
    pub(super) path: PathBuf,
    pub(super) keep: Duration,
}

impl EmbeddedLedger {
    /// Takes the store at `path`, making it when missing, and brings it up to date. Records of
    /// requests are kept for `keep`.
    pub fn open(
        path: &Path,
        keep: Duration,
        residency: Residency,
    ) -> Result<Arc<Self>, StoreOpenError> {
        let size = JournalSize::default();
        Self::open_at(path, keep, size, UnixMs::now(), None, residency)
    }

    /// [`EmbeddedLedger::open`] of a store that another process gives away.
    pub fn inherit(
        path: &Path,
        keep: Duration,
        inherited: InheritedStore,
        residency: Residency,
    ) -> Result<Arc<Self>, StoreOpenError> {
        let size = JournalSize::default();
        Self::open_at(path, keep, size, UnixMs::now(), Some(inherited), residency)
    }

    /// [`EmbeddedLedger::open`] with the journal's size and the time to begin at.
    pub(super) fn open_at(
        path: &Path,
        keep: Duration,
        size: JournalSize,
        now: UnixMs,
        inherited: Option<InheritedStore>,
        residency: Residency,
    ) -> Result<Arc<Self>, StoreOpenError> {
        let (link, path) = (path, &*real(path));
        let dir = beside(path, ".journal");
        make_parent(path)?;
        let (lock, volatile) = match inherited {
            Some(inherited) => (Some(inherited.lock), inherited.volatile),
            None => (None, InMemoryState::default()),
        };
        let owner = store_lock::owner(path, lock)?;
        fetch_journal(link, &dir)?;
        make_dir(&dir)?;
        let mut db = Database::open(path)?;
        let found = recovery::recover(&mut db, path, &dir, &volatile.live())?;
        log_found(path, &found);
        let accounts = Arc::new(Accounts::new(residency));
        let sqlite = |source| StoreOpenError::Sqlite { path: path.to_owned(), source };
        let counting = Progress::of("Reading what licences used", "");
        restore::restore(&db, &accounts, &volatile, now).map_err(sqlite)?;
        let reader = match residency {
            Residency::Complete => None,
            Residency::OnDemand => Some(Arc::new(AccountReader::open(path).map_err(sqlite)?)),
        };
        drop(counting);
        let journal = Journal::begin(&dir, size, found.reaches + 1)
            .map_err(|source| StoreOpenError::File { path: dir, source })?;
        journal.tend();
        let ledger = Self {
            accounts,
            journal: Arc::new(journal),
            db: Arc::new(Mutex::new(db)),
            reader,
            filled: Arc::new(AtomicBool::new(true)),
            set_back: ClockGuard::default(),
            filling: Arc::default(),
            active: Arc::default(),
            active_everywhere: Mutex::default(),
            threads: Mutex::default(),
            owner: Mutex::new(Some(owner)),
            path: path.to_owned(),
            keep,
        };
        ledger.start(keep).map_err(StoreOpenError::Thread)?;
        Ok(Arc::new(ledger))
    }

    /// The pepper for licence ids: `configured` when it is the one this store has always been used
    /// with, the store's own when none is configured. Call before the first request.
    pub fn pepper(&self, configured: Option<&[u8; 32]>) -> Result<PepperCheck, PepperMismatch> {
        pepper_check::settle(&self.db.lock(), configured)
    }

    /// Where gateways share a store, their licences are counted there. `day` is in days since 1970.
    pub fn set_active_licenses(&self, day: u64, everywhere: [u64; 3]) {
        *self.active_everywhere.lock() = Some((day, everywhere));
    }

    /// The id of this gateway among those that share a store, kept in its database, and its boot number,
    /// which grows with each start.
    ///
    /// # Errors
    /// SQLite fails.
    pub fn identity(&self) -> rusqlite::Result<(String, u64)> {
        self.db.lock().identity(UnixMs::now())
    }

    /// The name of this gateway alone.
    ///
    /// # Errors
    /// SQLite fails.
    pub fn gateway(&self) -> rusqlite::Result<String> {
        self.db.lock().gateway()
    }

    /// Picodollars of the day of `now`, by provider, as far as they are in SQLite: all of them
    /// before the first request.
    pub fn spent(&self, now: UnixMs) -> Result<Vec<(String, u64)>, rusqlite::Error> {
        self.db.lock().spent(now)
    }

    /// Picodollars that each licence wasted on the day of `now`, as [`EmbeddedLedger::spent`].
    ///
    /// # Errors
    /// SQLite fails.
    pub fn wasted(&self, now: UnixMs) -> rusqlite::Result<Vec<(LicenseId, u64)>> {
        self.db.lock().wasted(now)
    }

    /// What is known of targets, by label.
    ///
    /// # Errors
    /// SQLite fails.
    pub fn unseen(&self) -> rusqlite::Result<Vec<(String, String)>> {
        self.db.lock().unseen()
    }

    /// Keeps what [`EmbeddedLedger::unseen`] gives.
    ///
    /// # Errors
    /// SQLite fails.
    pub fn keep_unseen(&self, known: &[(String, String)]) -> rusqlite::Result<()> {
        self.db.lock().keep_unseen(known)
    }

    /// When each shop's webhooks came, as a run before has kept it.
    ///
    /// # Errors
    /// SQLite fails.
    pub fn webhooks(&self) -> rusqlite::Result<Vec<(String, [String; 3])>> {
        self.db.lock().webhooks()
    }

    /// Keeps what [`EmbeddedLedger::webhooks`] gives.
    ///
    /// # Errors
    /// SQLite fails.
    pub fn keep_webhooks(&self, rows: &[(String, [String; 3])]) -> rusqlite::Result<()> {
        self.db.lock().keep_webhooks(rows)
    }

    /// What was used on the day of `now`, by model, as far as it is in SQLite: all of it before the
    /// first request.
    ///
    /// # Errors
    /// SQLite fails.
    pub fn by_model(&self, now: UnixMs) -> rusqlite::Result<Vec<ModelTotals>> {
        self.db.lock().by_model(now)
    }

    /// Distinct licences of today, of 7 and of 30 days (UTC, today included), ten seconds old at most
    /// where they can be counted in a fifth of one.
    pub fn active_licenses(&self, now: UnixMs) -> [u64; 3] {
        // A figure of another day does not apply.
        if let Some((day, everywhere)) = *self.active_everywhere.lock()
            && day == now.0 / DAY_MS
        {
            return everywhere;
        }
        self.active.get(&self.path, now)
    }

    /// Requests in flight.
    pub fn open_reservations(&self) -> u64 {
        self.accounts.open()
    }

    /// Whether the journal takes reservations and SQLite takes what is in the journal; or another
    /// process sees to both.
    pub fn is_up(&self) -> bool {
        let is_given = self.owner.lock().as_ref().is_some_and(|owner| owner.is_shared);
        is_given || (self.filled.load(Ordering::Relaxed) && self.journal.is_up())
    }

    /// Refuses further reservations, brings everything into SQLite and into its one file. With
    /// nothing in flight the store is free for the next owner; otherwise it stays taken, and late
    /// settles go into the journal, until this value is dropped. May be called again.
    pub fn close(&self) {
        self.stop();
        if self.open_reservations() == 0 {
            *self.owner.lock() = None;
        }
    }

    pub(super) fn stop(&self) {
        self.journal.close();
        // The journal first: what waits there for room should still reach SQLite.
        for (signal, thread) in self.threads.lock().drain(..) {
            signal.stop();
            if thread.join().is_err() {
                log::error!("store: the writer thread ended unexpectedly");
            }
        }
    }

    /// Keeps a finished request that comes as an entry of the journal.
    pub fn record_entry(&self, entry: Vec<u8>) {
        self.journal.append_or_drop(EntryFrame::from_bytes(entry));
    }

    /// Whether this process owns the store.
    pub fn is_here(&self) -> bool {
        self.owner.lock().as_ref().is_some_and(|owner| !owner.is_shared)
    }

    pub(super) fn start(&self, keep: Duration) -> io::Result<()> {
        let journal = self.journal.clone();
        let tend = move || {
            while !journal.signal.wait(TICK) {
                journal.tend();
            }
            journal.tend();
        };
        let filling = self.filling.clone();
        let worker = SqliteWriter {
            accounts: self.accounts.clone(),
            journal: self.journal.clone(),
            db: self.db.clone(),
            filled: self.filled.clone(),
            signal: filling.clone(),
            keep,
        };
        let thread = |name: &str| Builder::new().name(name.to_owned());
        let mut threads = self.threads.lock();
        threads.push((self.journal.signal.clone(), thread("ledger-journal").spawn(tend)?));
        threads.push((filling, thread("ledger-sqlite").spawn(move || worker.run())?));
        Ok(())
    }
}

impl Drop for EmbeddedLedger {
    fn drop(&mut self) {
        self.close();
    }
}

#[async_trait]
impl Ledger for EmbeddedLedger {
    /// Rates of an hour, a day or a month outlive a restart, up to the last 200 ms; those of a
    /// minute and open places begin anew. `StoreDown` when SQLite can't be read.
    async fn enter(&self, pace: &RateRequest, now: UnixMs) -> Result<(), RateRefused> {
        self.load(&pace.license, now).await.map_err(|StoreDown| RateRefused::StoreDown)?;
        self.accounts.enter(pace, now)
    }

    fn leave(&self, license: &LicenseId) {
        self.accounts.leave(license);
    }

    async fn reserve(&self, demand: &Demand) -> Result<Grant, Denied> {
        self.load(&demand.license, demand.now).await.map_err(|StoreDown| Denied::StoreDown)?;
        self.recall(&demand.license, demand.now).await.map_err(|_| Denied::StoreDown)?;
        self.accounts.reserve(demand, &self.journal)
    }

    fn settle(&self, hold: u64, charge: Charge) {
        self.accounts.settle(hold, charge, &self.journal);
    }

    /// Messages: charged and in flight. Tokens: charged. Without a limit, `used` is this month's.
    async fn balance(
        &self,
        license: &LicenseId,
        messages: Option<Limit>,
        tokens: Option<Limit>,
        now: UnixMs,
    ) -> Result<Balance, StoreDown> {
        self.load(license, now).await?;
        self.recall(license, now).await?;
        Ok(self.accounts.balance(license, messages, tokens, now))
    }

    fn record(&self, record: Record) {
        self.journal.append_or_drop(EntryFrame::request(&record));
    }
}

/// Where the store lies, links followed: its journal and its lock lie beside it. A link to nothing yet is
/// followed by the next start.
fn real(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// Earlier versions kept the journal beside a link, and a first start does.
fn fetch_journal(link: &Path, dir: &Path) -> Result<(), StoreOpenError> {
    let beside_link = beside(link, ".journal");
    if !link.is_symlink() || !beside_link.is_dir() || dir.exists() {
        return Ok(());
    }
    std::fs::rename(&beside_link, dir)
        .map_err(|source| StoreOpenError::File { path: beside_link, source })
}

fn make_parent(path: &Path) -> Result<(), StoreOpenError> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.map_or(Ok(()), make_dir)
}

fn make_dir(dir: &Path) -> Result<(), StoreOpenError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|source| StoreOpenError::File { path: dir.to_owned(), source })
}

fn log_found(path: &Path, found: &recovery::RecoveryReport) {
    let recovery::RecoveryReport { replayed, orphans, torn, .. } = *found;
    let path = path.display();
    if replayed > 0 || orphans > 0 {
        log::info!(
            "store {path}: {replayed} journal entries applied, {orphans} requests without an \
             outcome charged one message and their input"
        );
    }
    if torn > 0 {
        log::warn!(
            "store {path}: {torn} journal files end in an incomplete entry, which was skipped"
        );
    }
}
