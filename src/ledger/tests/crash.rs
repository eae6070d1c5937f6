//! A process that dies at any time: copies of a live store, torn ends, `kill -9`, a full disk.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    sync::atomic::AtomicBool,
};

use super::*;
use crate::ledger::journal::{
    self,
    entry::{EntryExpectation, EntryFrame, EntryNames, EntryScan, JournalEntry, ReservedEntry},
};

/// The files as a killed process leaves them. SQLite is paused, as it would be consistent after a real
/// crash, too; the journal goes on.
fn copy(ledger: &EmbeddedLedger, from: &Store) -> Store {
    let to = Store::new();
    let journal = to.path().with_file_name("gatekeeper.db.journal");
    fs::create_dir_all(&journal).unwrap();
    let _still = ledger.db.lock();
    let parent = from.path().parent().unwrap().to_owned();
    for name in ["gatekeeper.db", "gatekeeper.db-wal"] {
        if parent.join(name).exists() {
            fs::copy(parent.join(name), to.path().with_file_name(name)).unwrap();
        }
    }
    for (_, file) in journal::files(&parent.join("gatekeeper.db.journal")).unwrap() {
        fs::copy(&file, journal.join(file.file_name().unwrap())).unwrap();
    }
    to
}

#[test]
fn what_was_settled_is_charged_after_death_at_any_moment() {
    let store = Store::new();
    let ledger = store.open();
    let (settled, granted, stop) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    granted.fetch_add(1, Ordering::SeqCst);
                    if let Ok(grant) = reserve(&ledger, &ask(ANNA)) {
                        ledger.settle(grant.hold, charge(3));
                        settled.fetch_add(1, Ordering::SeqCst);
                    }
                    std::thread::sleep(Duration::from_micros(50));
                }
            });
        }
        for _ in 0..12 {
            std::thread::sleep(Duration::from_millis(35));
            let before = settled.load(Ordering::SeqCst);
            let dead = copy(&ledger, &store);
            let after = granted.load(Ordering::SeqCst);
            let again = dead.open();
            let (messages, tokens) = used(&again, ANNA);
            assert!(before <= messages && messages <= after, "{before} {messages} {after}");
            assert!(3 * before <= tokens && tokens <= 10 * after, "{before} {tokens} {after}");
            assert_eq!(again.open_reservations(), 0);
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn what_was_given_is_there_after_death_at_any_moment() {
    let store = Store::new();
    let ledger = store.open();
    for nth in 1..=30 {
        assert!(ledger.grant(&order(ANNA, &nth.to_string()), [1, 10], NOW).unwrap());
        let grant = reserve(&ledger, &ask(ANNA)).unwrap();
        ledger.settle(grant.hold, charge(3));
        ledger.reset(&order(ANNA, &nth.to_string()), NOW).unwrap();
        if nth % 5 == 0 {
            let again = copy(&ledger, &store).open();
            let seen = again.overview(&ANNA, month(1), month(1), NOW).unwrap();
            assert_eq!(seen.messages, Adjustment { extra: nth, forgiven: nth });
            assert_eq!(seen.tokens, Adjustment { extra: 10 * nth, forgiven: 3 * nth });
            assert!(!again.grant(&order(ANNA, &nth.to_string()), [1, 10], NOW).unwrap());
            assert_eq!(again.actions(&ANNA).len() as u64, 2 * nth);
        }
    }
}

#[test]
fn every_torn_end_is_recognised() {
    let store = Store::new();
    let ledger = store.open();
    let done = reserve(&ledger, &ask(ANNA)).unwrap();
    ledger.settle(done.hold, charge(77));
    reserve(&ledger, &ask(BERT)).unwrap();
    // The journal of a process whose SQLite never got anything.
    let dead = Store::new();
    let journal = dead.path().with_file_name("gatekeeper.db.journal");
    fs::create_dir_all(&journal).unwrap();
    let (_, file) = journal::files(ledger.journal.dir()).unwrap().remove(0);
    let whole = fs::read(&file).unwrap();
    let length = ledger.journal.oldest().unwrap().written().len();
    let die_with = |bytes: &[u8]| {
        fs::remove_dir_all(dead.path().parent().unwrap()).unwrap();
        fs::create_dir_all(&journal).unwrap();
        fs::write(journal.join(file.file_name().unwrap()), bytes).unwrap();
        let again = dead.open();
        (used(&again, ANNA), used(&again, BERT))
    };
    // The magic is written before anything else, and whole.
    for cut in (16..length).step_by(5) {
        for rest in [0, 0xff] {
            let mut torn = whole.clone();
            torn[cut..].fill(0);
            torn[cut..cut + 8].fill(rest);
            if torn == whole {
                continue; // Only the zeros that fill the last entry up.
            }
            let (anna, bert) = die_with(&torn);
            assert!([(0, 0), (1, 10), (1, 77)].contains(&anna), "{cut} {anna:?}");
            assert_eq!(bert, (0, 0), "{cut}");
        }
    }
    assert_eq!(die_with(&whole), ((1, 77), (1, 10)));
}

#[test]
fn orphans_are_charged_once_over_any_number_of_restarts() {
    let store = Store::new();
    let ledger = store.open();
    for nth in 0..3 {
        reserve(&ledger, &round("m", nth, 1)).unwrap();
    }
    reserve(&ledger, &ask(BERT)).unwrap();
    let dead = copy(&ledger, &store);
    for _ in 0..400 {
        let again = dead.open();
        assert_eq!((used(&again, ANNA), used(&again, BERT)), ((1, 30), (1, 10)));
    }
}

#[test]
fn a_settle_after_the_end_is_found_at_the_next_start() {
    let store = Store::new();
    let ledger = store.open();
    let late = reserve(&ledger, &ask(ANNA)).unwrap();
    reserve(&ledger, &ask(BERT)).unwrap();
    ledger.close();
    assert!(matches!(store.try_open(SMALL), Err(StoreOpenError::InUse { .. })));
    ledger.settle(late.hold, charge(5));
    drop(ledger);
    let again = store.open();
    assert_eq!((used(&again, ANNA), used(&again, BERT)), ((1, 5), (1, 10)));
}

#[test]
fn a_long_request_outlives_its_journal_segment() {
    let store = Store::new();
    let ledger = store.open();
    let long = reserve(&ledger, &ask(BERT)).unwrap();
    let lost = reserve(&ledger, &ask(BERT)).unwrap();
    for _ in 0..6_000 {
        let grant = eventually_reserve(&ledger);
        ledger.settle(grant.hold, charge(1));
    }
    let first = ledger.journal.dir().join("0000000001.log");
    eventually("the first segment is removed", || !first.exists());
    ledger.settle(long.hold, charge(5));
    let again = copy(&ledger, &store).open();
    assert_eq!(used(&again, ANNA), (6_000, 6_000));
    assert_eq!(used(&again, BERT), (2, 5 + lost.input));
}

/// Tiny segments can run out for a short time.
fn eventually_reserve(ledger: &EmbeddedLedger) -> Grant {
    loop {
        match reserve(ledger, &ask(ANNA)) {
            Ok(grant) => return grant,
            Err(Denied::StoreDown) => std::thread::sleep(Duration::from_millis(1)),
            Err(other) => panic!("{other:?}"),
        }
    }
}

/// Reserves until the store has no room, keeping everything open.
fn fill(ledger: &EmbeddedLedger) -> Vec<Grant> {
    let mut open = Vec::new();
    let begin = Instant::now();
    let mut refused = 0;
    while refused < 20 {
        match reserve(ledger, &ask(ANNA)) {
            Ok(grant) => open.push(grant),
            Err(Denied::StoreDown) => {
                refused += 1;
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(other) => panic!("{other:?}"),
        }
        assert!(begin.elapsed() < Duration::from_secs(60));
    }
    open
}

fn refuses_then_recovers(
    store: &Store,
    ledger: &EmbeddedLedger,
    block: impl FnOnce() -> Box<dyn FnOnce()>,
) {
    let free = block();
    let open = fill(ledger);
    assert!(!ledger.is_up());
    // What is in flight still settles, and a record is dropped rather than waited for.
    for grant in &open {
        ledger.settle(grant.hold, charge(2));
    }
    ledger.record(record(NOW, ""));
    let count = open.len() as u64;
    assert_eq!(used(ledger, ANNA), (count, 2 * count));
    assert!(matches!(reserve(ledger, &ask(ANNA)), Err(Denied::StoreDown)));
    free();
    eventually("the store is up again", || ledger.is_up());
    assert!(reserve(ledger, &ask(BERT)).is_ok());
    let again = copy(ledger, store).open();
    assert_eq!(used(&again, ANNA), (count, 2 * count));
    assert_eq!(used(&again, BERT), (1, 10));
}

#[test]
fn without_room_for_a_segment_nothing_is_granted_and_nothing_settled_is_lost() {
    let store = Store::new();
    let ledger = store.try_open(JournalSize { segment: 64 << 10, segments: 64 }).unwrap();
    let dir = ledger.journal.dir().to_owned();
    let away = dir.with_extension("away");
    refuses_then_recovers(&store, &ledger, || {
        fs::rename(&dir, &away).unwrap();
        Box::new(move || fs::rename(&away, &dir).unwrap())
    });
}

#[test]
fn a_stalled_sqlite_holds_the_journal_up_only_to_its_bound() {
    let store = Store::new();
    let ledger = store.try_open(JournalSize { segment: 16 << 10, segments: 5 }).unwrap();
    let path = store.path();
    refuses_then_recovers(&store, &ledger, || {
        let other = rusqlite::Connection::open(path).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        Box::new(move || other.execute_batch("ROLLBACK").unwrap())
    });
}

#[test]
fn what_waits_for_room_is_charged_once_when_the_store_could_not_be_given() {
    let store = Store::new();
    let ledger = store.try_open(JournalSize { segment: 16 << 10, segments: 5 }).unwrap();
    let other = rusqlite::Connection::open(store.path()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let open = fill(&ledger);
    let (kept, settled) = open.split_last().unwrap();
    for grant in settled {
        ledger.settle(grant.hold, charge(2));
    }
    assert!(!ledger.journal.waiting().is_empty());
    assert!(ledger.give_at(NOW).is_err());
    let volatile = ledger.volatile();
    other.execute_batch("ROLLBACK").unwrap();
    ledger.take_back(&volatile).unwrap();
    let count = settled.len() as u64;
    assert_eq!(used(&ledger, ANNA), (count + 1, 2 * count));
    assert_eq!(ledger.open_reservations(), 1);
    ledger.settle(kept.hold, charge(3));
    ledger.close();
    drop(ledger);
    assert_eq!(used(&store.open(), ANNA), (count + 1, 2 * count + 3));
}

#[test]
fn a_start_with_a_clock_set_back_grants_nothing_twice() {
    let store = Store::new();
    let ledger = store.open();
    let grant = reserve(&ledger, &ask(ANNA)).unwrap();
    ledger.settle(grant.hold, charge(9));
    drop(ledger);
    for now in [NOW.0 - 3_600_000, NOW.0 - 40 * 86_400_000, 0, NOW.0 + 20 * 86_400_000] {
        let ledger = EmbeddedLedger::open_at(
            &store.path(),
            KEEP,
            SMALL,
            UnixMs(now),
            None,
            Residency::OnDemand,
        )
        .unwrap();
        assert_eq!(used(&ledger, ANNA), (1, 9), "{now}");
    }
}

#[test]
fn an_entry_reads_back_as_it_was_written() {
    let reserved = ReservedEntry {
        hold: u64::MAX,
        license: ANNA,
        time: NOW,
        input: 5,
        group: 0,
        message: Some(UnixMs(0)),
    };
    let about = about();
    let expected = EntryExpectation { names: EntryNames::of(&about), cost: 7, conversation: None };
    let mut bytes = EntryFrame::reserved(&reserved, &expected).stamp(41).to_vec();
    let long = "é".repeat(400);
    bytes.extend(EntryFrame::request(&record(NOW, &long)).stamp(42));
    bytes.extend([0; 32]);
    let mut scan = EntryScan::new(&bytes);
    assert_eq!(scan.next(), Some((41, JournalEntry::Reserved(reserved, expected))));
    let Some((42, JournalEntry::Request(request))) = scan.next() else { panic!("a request") };
    assert_eq!(request.texts[2], "é".repeat(127));
    assert_eq!((scan.next(), scan.is_torn()), (None, false));
    for flipped in 4..96 {
        let mut bytes = bytes.clone();
        bytes[flipped] ^= 1;
        assert_eq!(EntryScan::new(&bytes).next(), None, "{flipped}");
    }
}

const CHILD: &str = "GATEKEEPER_TEST_LEDGER_CHILD";

/// Not a test of its own: what the killed process does.
#[test]
fn child() {
    let Ok(path) = std::env::var(CHILD) else { return };
    let ledger = EmbeddedLedger::open_at(
        Path::new(&path),
        KEEP,
        JournalSize::default(),
        NOW,
        None,
        Residency::OnDemand,
    )
    .unwrap();
    let mut out = std::io::stdout();
    loop {
        let grant = reserve(&ledger, &ask(ANNA)).unwrap();
        ledger.settle(grant.hold, charge(3));
        // One request in eight never ends.
        if (grant.hold / 64).is_multiple_of(8) {
            reserve(&ledger, &ask(BERT)).unwrap();
        }
        writeln!(out, "settled").unwrap();
        // Slow enough to live through some batches.
        std::thread::sleep(Duration::from_micros(500));
    }
}

#[test]
fn kill_9_loses_nothing_that_was_settled() {
    let store = Store::new();
    let (mut least, mut orphans) = (0, 0);
    for nth in 0..8_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "ledger::tests::crash::child", "--nocapture"])
            .env(CHILD, store.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let settled =
            |line: &std::io::Result<String>| line.as_ref().is_ok_and(|l| l.ends_with("settled"));
        // Die after a different number of requests each time, in the middle of one.
        least += lines.by_ref().filter(settled).take(200 + 173 * nth as usize).count() as u64;
        child.kill().unwrap();
        child.wait().unwrap();
        least += lines.filter(settled).count() as u64;
        let again = store.open();
        let (messages, tokens) = used(&again, ANNA);
        let one = nth + 1;
        assert!(least <= messages && messages <= least + one, "{least} {messages}");
        assert!(3 * least <= tokens && tokens <= 3 * least + 10 * one, "{least} {tokens}");
        let (messages, tokens) = used(&again, BERT);
        assert!(messages > orphans && tokens == 10 * messages);
        orphans = messages;
    }
}
