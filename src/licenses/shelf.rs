//! Records on this machine's disk: what a restart begins with. They lie in the store's own database,
//! in the table `licenses`; one thread writes them.

use std::{
    collections::HashMap,
    path::Path,
    sync::mpsc::{Receiver, Sender, channel},
    thread::JoinHandle,
    time::Duration,
};

use gatekeeper_filters::kernel::LicenseId;
use parking_lot::Mutex;
use rusqlite::{Connection, params};

use super::record::Record;

/// How long a write waits for the ledger's.
const BUSY: Duration = Duration::from_secs(5);

pub struct Shelf {
    writes: Mutex<Option<Sender<Write>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Write {
    id: LicenseId,
    record: Record,
    /// Told when it is on the shelf.
    done: Option<tokio::sync::oneshot::Sender<bool>>,
}

impl Shelf {
    /// The shelf, and what stands on it. The store at `path` must be open already: it makes the
    /// table.
    ///
    /// # Errors
    /// The database can't be read, or no thread can be started.
    pub fn open(path: &Path) -> anyhow::Result<(Self, Vec<(LicenseId, Record)>)> {
        let connection = Connection::open(path)?;
        connection.busy_timeout(BUSY)?;
        let records = load(&connection)?;
        let (writes, waiting) = channel();
        let thread = std::thread::Builder::new()
            .name("licenses-sqlite".into())
            .spawn(move || write_all(connection, &waiting))?;
        let shelf = Self { writes: Mutex::new(Some(writes)), thread: Mutex::new(Some(thread)) };
        Ok((shelf, records))
    }

    /// Keeps a record, soon.
    pub fn put(&self, id: LicenseId, record: Record) {
        self.send(Write { id, record, done: None });
    }

    /// Keeps a record; whether it is there when this returns.
    pub async fn put_now(&self, id: LicenseId, record: Record) -> bool {
        let (done, is_done) = tokio::sync::oneshot::channel();
        self.send(Write { id, record, done: Some(done) });
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

    fn send(&self, write: Write) {
        if let Some(writes) = &*self.writes.lock() {
            let _ = writes.send(write);
        }
    }
}

fn load(connection: &Connection) -> anyhow::Result<Vec<(LicenseId, Record)>> {
    let mut statement = connection.prepare("SELECT license, record FROM licenses")?;
    let rows =
        statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
    let mut records = Vec::new();
    for row in rows {
        let (id, text) = row?;
        // One that can't be read costs a question to the shop.
        if let (Some(id), Ok(record)) = (LicenseId::from_hex(&id), serde_json::from_str(&text)) {
            records.push((id, record));
        }
    }
    Ok(records)
}

/// Writes what waits, all of it in one transaction.
fn write_all(mut connection: Connection, waiting: &Receiver<Write>) {
    while let Ok(first) = waiting.recv() {
        let mut latest = HashMap::new();
        let mut told = Vec::new();
        for write in std::iter::once(first).chain(waiting.try_iter()) {
            told.extend(write.done);
            latest.insert(write.id, write.record);
        }
        let written = write(&mut connection, &latest);
        if let Err(error) = &written {
            log::error!("licences: the database takes nothing: {error}");
        }
        for done in told {
            let _ = done.send(written.is_ok());
        }
    }
}

fn write(
    connection: &mut Connection,
    records: &HashMap<LicenseId, Record>,
) -> rusqlite::Result<()> {
    let tx = connection.transaction()?;
    let mut insert =
        tx.prepare_cached("INSERT OR REPLACE INTO licenses (license, record) VALUES (?1, ?2)")?;
    for (id, record) in records {
        let text = serde_json::to_string(record).unwrap_or_default();
        insert.execute(params![id.to_hex(), text])?;
    }
    drop(insert);
    tx.commit()
}
