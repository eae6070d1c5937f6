//! Recovery after a crash: replays the journal into SQLite and charges reservations without an outcome.

use std::{fs, path::Path};

use gatekeeper_filters::kernel::UsageSource;
use rustc_hash::FxHashSet;

use crate::{
    ledger::{
        journal::{
            self,
            entry::{EntryNames, EntryScan, SettledEntry, UsageEntry},
            segment::MAGIC,
        },
        open_error::StoreOpenError,
        orphan::OrphanedReservation,
        sqlite::{Database, batch::Batch},
    },
    progress::Progress,
};

/// What was left, for one line in the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Entries that SQLite did not have yet.
    pub replayed: u64,
    /// Reservations without an outcome, now charged.
    pub orphans: u64,
    /// Segments that end in something that is no entry: the last one, after a crash in the middle
    /// of a write, or any, after a power cut.
    pub torn: u64,
    /// Sequence of the last entry.
    pub reaches: u64,
}

/// Brings everything from the journal into SQLite, charges orphans, removes the files. May be
/// interrupted and repeated anywhere.
///
/// Reservations that are `live` belong to requests of a process that goes on: they stay open.
pub fn recover(
    db: &mut Database,
    path: &Path,
    dir: &Path,
    live: &FxHashSet<u64>,
) -> Result<RecoveryReport, StoreOpenError> {
    let sqlite = |source| StoreOpenError::Sqlite { path: path.to_owned(), source };
    let file = |source| StoreOpenError::File { path: dir.to_owned(), source };
    let mut found =
        RecoveryReport { reaches: db.applied().map_err(sqlite)?, ..RecoveryReport::default() };
    let files = journal::files(dir).map_err(file)?;
    let progress = Progress::of(format!("Reading the journal {}", dir.display()), "files");
    progress.expect(files.len() as u64);
    for (_, segment) in &files {
        let bytes = fs::read(segment).map_err(file)?;
        let Some(entries) = entries(&bytes) else {
            return Err(StoreOpenError::Foreign { path: segment.clone() });
        };
        let batch = replay(entries, &mut found);
        if batch.reaches > 0 {
            db.apply(&batch).map_err(sqlite)?;
        }
        progress.step();
    }
    charge_orphans(db, &mut found, live).map_err(sqlite)?;
    db.sync().map_err(file)?;
    for (_, segment) in &files {
        fs::remove_file(segment).map_err(file)?;
    }
    Ok(found)
}

/// Charges what is open now.
pub fn charge(db: &mut Database) -> rusqlite::Result<()> {
    let mut found = RecoveryReport { reaches: db.applied()?, ..RecoveryReport::default() };
    charge_orphans(db, &mut found, &FxHashSet::default())
}

/// Everything behind the magic. A segment that was just made may have none of it, or a part.
fn entries(bytes: &[u8]) -> Option<&[u8]> {
    let (head, rest) = bytes.split_at_checked(MAGIC.len()).unwrap_or((bytes, &[]));
    let ours = head.iter().zip(MAGIC).all(|(byte, magic)| *byte == magic || *byte == 0);
    ours.then_some(rest)
}

fn replay<'a>(bytes: &'a [u8], found: &mut RecoveryReport) -> Batch<'a> {
    let mut batch = Batch::default();
    let mut scan = EntryScan::new(bytes);
    for (sequence, entry) in scan.by_ref() {
        if sequence > found.reaches {
            batch.add(sequence, entry);
            found.reaches = sequence;
            found.replayed += 1;
        }
    }
    found.torn += u64::from(scan.is_torn());
    batch
}

/// One message and the input estimate each: what they cost at least. Requests that share a message
/// id cost one message together. Each has its row, so that what was charged is explained, and its cost
/// is in the budget.
fn charge_orphans(
    db: &mut Database,
    found: &mut RecoveryReport,
    live: &FxHashSet<u64>,
) -> rusqlite::Result<()> {
    let orphans = db.orphans()?;
    let mut batch = Batch::default();
    batch.reaches = found.reaches;
    for OrphanedReservation { reserved, about, cost } in &orphans {
        if live.contains(&reserved.hold) {
            continue;
        }
        let charged = reserved.group != 0 && batch.charged.contains(&reserved.group);
        let names = EntryNames::of(about);
        let settled = SettledEntry {
            hold: reserved.hold,
            license: reserved.license,
            time: reserved.time,
            tokens: reserved.input,
            group: reserved.group,
            message: reserved.message.filter(|_| !charged),
            returned: None,
        };
        batch.settle(&settled, Some(names));
        batch.record(vanished(&settled, names, *cost));
        found.orphans += 1;
    }
    if found.orphans > 0 {
        db.apply(&batch)?;
    }
    Ok(())
}

/// The row of a request that was never settled. Its status is 0.
fn vanished<'a>(settled: &SettledEntry, names: EntryNames<'a>, cost: u64) -> UsageEntry<'a> {
    let EntryNames { plan, model, provider } = names;
    let estimated = UsageSource::Estimated.name();
    UsageEntry {
        time: settled.time,
        license: Some(settled.license),
        texts: ["", plan, model, "", provider, "", estimated],
        numbers: [settled.tokens, 0, 0, 0, settled.tokens, 0, 0, 1],
        cost,
        ..UsageEntry::default()
    }
}
