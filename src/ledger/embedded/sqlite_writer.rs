//! The thread that brings the journal into SQLite.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use gatekeeper_filters::kernel::UnixMs;
use parking_lot::Mutex;

use crate::ledger::{
    accounts::Accounts,
    journal::{Journal, entry::EntryScan, segment::Segment, wakeup::Wakeup},
    sqlite::{Database, batch::Batch},
};

/// How often the journal is synced and SQLite filled: what a power cut may lose.
pub const TICK: Duration = Duration::from_millis(200);
/// Bytes of the journal that go into one transaction.
const BATCH: usize = 1 << 20;
/// When spent segments are removed at the latest, as a number of them and in time.
const SPENT: usize = 4;
const SPENT_AGE: Duration = Duration::from_secs(1);
const PRUNE_EVERY: Duration = Duration::from_secs(3600);
const SWEEP_EVERY: Duration = Duration::from_secs(600);

pub struct SqliteWriter {
    pub accounts: Arc<Accounts>,
    pub journal: Arc<Journal>,
    pub db: Arc<Mutex<Database>>,
    /// False while SQLite refuses what the journal has for it.
    pub filled: Arc<AtomicBool>,
    pub signal: Arc<Wakeup>,
    pub keep: Duration,
}

/// Where the worker stands in the journal, and when it last did what is not done every time.
struct WriterPosition {
    offset: usize,
    synced: Instant,
    prune: Instant,
    swept: Instant,
    /// Whether SQLite could not be brought to the disk when it was last tried.
    unsynced: bool,
}

impl SqliteWriter {
    pub fn run(self) {
        let now = Instant::now();
        let mut progress = WriterPosition {
            offset: 0,
            synced: now,
            prune: now + 300 * TICK,
            swept: now,
            unsynced: false,
        };
        loop {
            let stop = self.signal.wait(TICK);
            let outcome = self.fill(&mut progress).and_then(|()| self.upkeep(&mut progress));
            self.report(outcome);
            if stop {
                break;
            }
        }
        self.report(self.db.lock().checkpoint());
    }

    /// Everything the journal has, batch by batch.
    fn fill(&self, progress: &mut WriterPosition) -> rusqlite::Result<()> {
        while let Some(segment) = self.journal.oldest() {
            let sealed = segment.is_sealed();
            let batch = next_batch(&segment, progress.offset);
            if batch.bytes > 0 {
                self.db.lock().apply(&batch.sums)?;
                progress.offset += batch.bytes;
            } else if sealed {
                self.journal.spend_oldest();
                progress.offset = 0;
                self.remove_spent(progress, SPENT);
            } else {
                break;
            }
        }
        Ok(())
    }

    fn upkeep(&self, progress: &mut WriterPosition) -> rusqlite::Result<()> {
        if progress.synced.elapsed() >= SPENT_AGE {
            self.remove_spent(progress, 1);
        }
        let rates = self.accounts.take_rates();
        if !rates.is_empty() {
            let kept = self.db.lock().keep_rates(&rates);
            kept.inspect_err(|_| self.accounts.keep_rates_again(&rates))?;
        }
        // What was counted before the last sweep is in SQLite by now, unless it waits for room.
        if progress.swept.elapsed() >= SWEEP_EVERY && self.journal.is_written() {
            progress.swept = Instant::now();
            self.accounts.sweep(UnixMs::now());
        }
        if Instant::now() >= progress.prune {
            let more = self.db.lock().prune(UnixMs::now(), self.keep)?;
            progress.prune = Instant::now() + if more { TICK } else { PRUNE_EVERY };
        }
        Ok(())
    }

    /// A segment may go when SQLite has its content on the disk, not only in its cache.
    fn remove_spent(&self, progress: &mut WriterPosition, least: usize) {
        if self.journal.spent() < least {
            return;
        }
        progress.synced = Instant::now();
        let synced = self.db.lock().sync();
        let failing = synced.is_err();
        // Once for each change, not for each attempt.
        let is_news = std::mem::replace(&mut progress.unsynced, failing) != failing;
        match synced {
            Ok(()) => self.journal.remove_spent(),
            Err(problem) if is_news => {
                log::error!("store: syncing to disk failed: {problem}")
            }
            Err(_) => {}
        }
    }

    /// Once for each change, not for each attempt.
    fn report(&self, outcome: rusqlite::Result<()>) {
        let dropped = self.journal.take_dropped();
        if dropped > 0 {
            log::warn!("store: {dropped} request records dropped, the journal is nearly full");
        }
        let works = outcome.is_ok();
        if self.filled.swap(works, Ordering::Relaxed) == works {
            return;
        }
        match outcome {
            Ok(()) => log::info!("store: SQLite works again"),
            Err(problem) => {
                log::error!(
                    "store: SQLite fails, the journal keeps everything meanwhile: {problem}"
                );
            }
        }
    }
}

struct NextBatch<'a> {
    sums: Batch<'a>,
    bytes: usize,
}

fn next_batch(segment: &Segment, offset: usize) -> NextBatch<'_> {
    // The magic stands before the first entry and has no sequence.
    let magic = if offset == 0 { crate::ledger::journal::segment::MAGIC.len() } else { 0 };
    let bytes = segment.written().get(offset + magic..).unwrap_or_default();
    let mut sums = Batch::default();
    let mut scan = EntryScan::new(bytes);
    while scan.consumed < BATCH
        && let Some((sequence, entry)) = scan.next()
    {
        sums.add(sequence, entry);
    }
    let bytes = if scan.consumed > 0 { scan.consumed + magic } else { 0 };
    NextBatch { sums, bytes }
}
