//! Records on this machine's disk: what a restart begins with. They lie in the store's own database,
//! in the table `licenses`; one thread writes them.

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

/// How long a write waits for the ledger's.
const BUSY: Duration = Duration::from_secs(5);
/// Between two attempts to write what the database did not take.
const RETRY: Duration = Duration::from_secs(1);

pub struct DiskCache {
    path: PathBuf,
    records: Arc<MemoryCache>,
    writes: Mutex<Option<Sender<CacheChange>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    away: Mutex<Option<DiskCacheMoved>>,
}

/// The shelf is another process', which is told of what changes here.
struct DiskCacheMoved {
    tell: ForwardChange,
    told: HashSet<LicenseId>,
}

/// Tells another process of a record.
pub type ForwardChange = Box<dyn Fn(LicenseId, serde_json::Value) + Send>;

/// A record changed. What it is by now is read when it is written, so the last one always stays.
struct CacheChange {
    /// Of one transaction.
    ids: Vec<LicenseId>,
    /// Told when it is on the shelf.
    done: Option<tokio::sync::oneshot::Sender<bool>>,
}

impl DiskCache {
    /// Fills `records` with what stands on the shelf, and writes down what changes there. The store
    /// at `path` must be open already: it makes the table.
    ///
    /// # Errors
    /// The database can't be read, or no thread can be started.
    pub fn open(path: &Path, records: Arc<MemoryCache>) -> anyhow::Result<Self> {
        let connection = Connection::open(path)?;
        connection.busy_timeout(BUSY)?;
        load(&connection, &records)?;
        let (writes, waiting) = channel();
        let thread = std::thread::Builder::new().name("licenses-sqlite".into()).spawn({
            let records = records.clone();
            move || write_all(connection, &records, &waiting)
        })?;
        Ok(Self {
            path: path.to_owned(),
            records,
            writes: Mutex::new(Some(writes)),
            thread: Mutex::new(Some(thread)),
            away: Mutex::default(),
        })
    }

    /// Everything that was put is on the shelf when this returns, and from now on another process is
    /// told instead.
    pub fn give(&self, tell: ForwardChange) {
        *self.away.lock() = Some(DiskCacheMoved { tell, told: HashSet::new() });
        let (done, is_done) = tokio::sync::oneshot::channel();
        if let Some(writes) = &*self.writes.lock() {
            // No record: only what was sent before it matters.
            let _ = writes.send(CacheChange { ids: Vec::new(), done: Some(done) });
        }
        let _ = is_done.blocking_recv();
    }

    /// The shelf is this process' again. What the other one put there meanwhile is read.
    pub fn take_back(&self) {
        let read = Connection::open(&self.path).map_err(anyhow::Error::from);
        if let Err(problem) = read.and_then(|connection| load(&connection, &self.records)) {
            log::error!("licences: what was written meanwhile can't be read: {problem:#}");
        }
        let away = self.away.lock().take();
        for id in away.into_iter().flat_map(|away| away.told) {
            self.put(id);
        }
    }

    /// Keeps a changed record, soon.
    pub fn put(&self, id: LicenseId) {
        self.send(CacheChange { ids: vec![id], done: None });
    }

    /// Keeps a changed record; whether it is there when this returns.
    pub async fn put_now(&self, id: LicenseId) -> bool {
        let (done, is_done) = tokio::sync::oneshot::channel();
        self.send(CacheChange { ids: vec![id], done: Some(done) });
        is_done.await.unwrap_or(false)
    }

    /// Keeps changed records, all of them or none; whether they are there when this returns.
    pub async fn put_all_now(&self, ids: &[LicenseId]) -> bool {
        let (done, is_done) = tokio::sync::oneshot::channel();
        self.send(CacheChange { ids: ids.to_vec(), done: Some(done) });
        is_done.await.unwrap_or(false)
    }

    /// Everything that was put is on the shelf when this returns.
    pub fn close(&self) {
        *self.writes.lock() = None;
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            log::error!("licences: the thread of the database ended before its time");
        }
    }

    fn send(&self, change: CacheChange) {
        if let Some(away) = &mut *self.away.lock() {
            for id in change.ids {
                if let Some(kept) = self.records.get(&id) {
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

fn load(connection: &Connection, records: &MemoryCache) -> anyhow::Result<()> {
    let now = UnixMs::now();
    let mut statement = connection.prepare("SELECT license, record FROM licenses")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (id, text) = (row.get::<_, String>(0)?, row.get::<_, String>(1)?);
        // One that can't be read costs a question to the shop.
        let record = serde_json::from_str::<CachedLicense>(&text);
        if let (Some(id), Ok(record)) = (LicenseId::from_hex(&id), record) {
            records.adopt(id, &record.repaired(now));
        }
    }
    Ok(())
}

/// Writes what changed, all of it in one transaction. What the database did not take is tried again.
fn write_all(mut connection: Connection, records: &MemoryCache, waiting: &Receiver<CacheChange>) {
    let (mut changed, mut failing) = (HashSet::new(), false);
    loop {
        let first = match changed.is_empty() {
            true => waiting.recv().map_err(|_| RecvTimeoutError::Disconnected),
            false => waiting.recv_timeout(RETRY),
        };
        if matches!(first, Err(RecvTimeoutError::Disconnected)) {
            // What is still not taken was reported; nobody can wait for it any longer.
            let _ = write(&mut connection, records, &changed);
            return;
        }
        let mut told = Vec::new();
        for change in first.into_iter().chain(waiting.try_iter()) {
            told.extend(change.done);
            changed.extend(change.ids);
        }
        let written = write(&mut connection, records, &changed);
        // Once for each change, not for each attempt.
        match (&written, failing) {
            (Ok(()), true) => log::info!("licences: the database works again"),
            (Err(error), false) => log::error!("licences: the database takes nothing: {error}"),
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
    records: &MemoryCache,
    changed: &HashSet<LicenseId>,
) -> rusqlite::Result<()> {
    let tx = connection.transaction()?;
    let mut insert =
        tx.prepare_cached("INSERT OR REPLACE INTO licenses (license, record) VALUES (?1, ?2)")?;
    let mut delete = tx.prepare_cached("DELETE FROM licenses WHERE license = ?1")?;
    for id in changed {
        let Some(kept) = records.get(id) else {
            delete.execute([id.to_hex()])?;
            continue;
        };
        let text = serde_json::to_string(&kept.record).unwrap_or_default();
        insert.execute(params![id.to_hex(), text])?;
    }
    drop((insert, delete));
    tx.commit()
}
