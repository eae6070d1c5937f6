//! The disk tier of the licence cache, read at start: the table `licenses` in the database of the embedded
//! ledger. One thread writes it.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use gatekeeper_filters::kernel::{LicenseId, UnixMs};
use parking_lot::Mutex;
use rusqlite::{Connection, params};

use super::{cache_entry::CachedLicense, memory_cache::MemoryCache};

/// How long a write waits for a write of the ledger.
const BUSY: Duration = Duration::from_secs(5);
/// Between two attempts of a write that failed.
const RETRY: Duration = Duration::from_secs(1);

pub struct DiskCache {
    path: PathBuf,
    memory_cache: Arc<MemoryCache>,
    writes: Mutex<Option<Sender<CacheChange>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    away: Mutex<Option<DiskCacheMoved>>,
}

/// The table belongs to another process, which receives the changes made here.
struct DiskCacheMoved {
    tell: ForwardChange,
    told: HashSet<LicenseId>,
}

/// Sends a changed record to another process.
pub type ForwardChange = Box<dyn Fn(LicenseId, serde_json::Value) + Send>;

/// Changed records. Their content is read when they are written, so the last state always wins.
struct CacheChange {
    /// Written in one transaction.
    ids: Vec<LicenseId>,
    /// Receives whether they were written.
    done: Option<tokio::sync::oneshot::Sender<bool>>,
}

impl DiskCache {
    /// Loads the table into `memory_cache`, and starts the thread that writes changes. The ledger at `path`
    /// must be open already: it creates the table.
    ///
    /// # Errors
    /// The database can't be read, or no thread can be started.
    pub fn open(path: &Path, memory_cache: Arc<MemoryCache>) -> anyhow::Result<Self> {
        let connection = Connection::open(path)?;
        connection.busy_timeout(BUSY)?;
        load(&connection, &memory_cache)?;
        let (writes, waiting) = channel();
        let thread = std::thread::Builder::new().name("licenses-sqlite".into()).spawn({
            let memory_cache = memory_cache.clone();
            move || write_all(connection, &memory_cache, &waiting)
        })?;
        Ok(Self {
            path: path.to_owned(),
            memory_cache,
            writes: Mutex::new(Some(writes)),
            thread: Mutex::new(Some(thread)),
            away: Mutex::default(),
        })
    }

    /// Writes all pending changes before it returns; later changes go to another process instead.
    pub fn give(&self, tell: ForwardChange) {
        *self.away.lock() = Some(DiskCacheMoved { tell, told: HashSet::new() });
        let (done, is_done) = tokio::sync::oneshot::channel();
        if let Some(writes) = &*self.writes.lock() {
            // An empty change: its completion shows that everything before it was written.
            let _ = writes.send(CacheChange { ids: Vec::new(), done: Some(done) });
        }
        let _ = is_done.blocking_recv();
    }

    /// Takes the table back from the other process and loads what that process wrote.
    pub fn take_back(&self) {
        let read = Connection::open(&self.path).map_err(anyhow::Error::from);
        if let Err(problem) = read.and_then(|connection| load(&connection, &self.memory_cache)) {
            log::error!(
                "licences: entries that the other process wrote can't be read, so their shops are asked again; \
                 restart the gateway once its database can be read: {problem:#}"
            );
        }
        let away = self.away.lock().take();
        for id in away.into_iter().flat_map(|away| away.told) {
            self.put(id);
        }
    }

    /// Queues a changed record to be written.
    pub fn put(&self, id: LicenseId) {
        self.send(CacheChange { ids: vec![id], done: None });
    }

    /// Writes a changed record before it returns; whether that succeeded.
    pub async fn put_now(&self, id: LicenseId) -> bool {
        let (done, is_done) = tokio::sync::oneshot::channel();
        self.send(CacheChange { ids: vec![id], done: Some(done) });
        is_done.await.unwrap_or(false)
    }

    /// Writes changed records, all of them or none, before it returns; whether that succeeded.
    pub async fn put_all_now(&self, ids: &[LicenseId]) -> bool {
        let (done, is_done) = tokio::sync::oneshot::channel();
        self.send(CacheChange { ids: ids.to_vec(), done: Some(done) });
        is_done.await.unwrap_or(false)
    }

    /// Writes all pending changes before it returns, and ends the thread.
    pub fn close(&self) {
        *self.writes.lock() = None;
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            log::error!(
                "licences: the thread that writes the cache ended unexpectedly; licences that it had not written are \
                 asked about again after the restart"
            );
        }
    }

    fn send(&self, change: CacheChange) {
        if let Some(away) = &mut *self.away.lock() {
            for id in change.ids {
                if let Some(kept) = self.memory_cache.get(&id) {
                    (away.tell)(id, serde_json::to_value(&kept.record).unwrap_or_default());
                    away.told.insert(id);
                }
            }
            if let Some(done) = change.done {
                let _ = done.send(true);
            }
            return;
        }
        if let Some(writes) = &*self.writes.lock() {
            let _ = writes.send(change);
        }
    }
}

fn load(connection: &Connection, memory_cache: &MemoryCache) -> anyhow::Result<()> {
    let now = UnixMs::now();
    let mut statement = connection.prepare("SELECT license, record FROM licenses")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (id, text) = (row.get::<_, String>(0)?, row.get::<_, String>(1)?);
        // A record that can't be read costs one call to the shop.
        let record = serde_json::from_str::<CachedLicense>(&text);
        if let (Some(id), Ok(record)) = (LicenseId::from_hex(&id), record) {
            memory_cache.adopt(id, &record.repaired(now));
        }
    }
    Ok(())
}

/// Writes changes as they arrive, each batch in one transaction. A batch that fails is tried again.
fn write_all(
    mut connection: Connection,
    memory_cache: &MemoryCache,
    waiting: &Receiver<CacheChange>,
) {
    let (mut changed, mut failing) = (HashSet::new(), false);
    loop {
        let first = match changed.is_empty() {
            true => waiting.recv().map_err(|_| RecvTimeoutError::Disconnected),
            false => waiting.recv_timeout(RETRY),
        };
        if matches!(first, Err(RecvTimeoutError::Disconnected)) {
            // The last attempt; an earlier failure was logged.
            let _ = write(&mut connection, memory_cache, &changed);
            return;
        }
        let mut told = Vec::new();
        for change in first.into_iter().chain(waiting.try_iter()) {
            told.extend(change.done);
            changed.extend(change.ids);
        }
        let written = write(&mut connection, memory_cache, &changed);
        // Logged when the state changes, not at each attempt.
        match (&written, failing) {
            (Ok(()), true) => log::info!("licences: the cache is written to disk again"),
            (Err(error), false) => log::error!(
                "licences: writing the cache to disk failed: {error}. It is tried again every second."
            ),
            _ => {}
        }
        failing = written.is_err();
        if !failing {
            changed.clear();
        }
        for done in told {
            let _ = done.send(written.is_ok());
        }
    }
}

fn write(
    connection: &mut Connection,
    memory_cache: &MemoryCache,
    changed: &HashSet<LicenseId>,
) -> rusqlite::Result<()> {
    let tx = connection.transaction()?;
    let mut insert =
        tx.prepare_cached("INSERT OR REPLACE INTO licenses (license, record) VALUES (?1, ?2)")?;
    let mut delete = tx.prepare_cached("DELETE FROM licenses WHERE license = ?1")?;
    for id in changed {
        let Some(kept) = memory_cache.get(id) else {
            delete.execute([id.to_hex()])?;
            continue;
        };
        let text = serde_json::to_string(&kept.record).unwrap_or_default();
        insert.execute(params![id.to_hex(), text])?;
    }
    drop((insert, delete));
    tx.commit()
}
