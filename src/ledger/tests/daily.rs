//! Days: filled exactly once from the journal, also over a change of version.

use std::fs;

use super::*;
use crate::ledger::{
    journal::{
        self,
        entry::{EntryFrame, EntryNames, SettledEntry},
    },
    sqlite::daily_usage::{self, DailyRow},
};

fn rows(store: &Store) -> Vec<DailyRow> {
    daily_usage::read(&store.path(), "2000-01-01", "2999-12-31").unwrap()
}

/// Requests, messages, input, output, cached, cost.
fn numbers(row: &DailyRow) -> [u64; 6] {
    let of = &row.figures;
    [of.requests, of.messages, of.input, of.output, of.cached, of.cost]
}

/// The journal of a process whose SQLite never got anything.
fn journal_of(frames: Vec<EntryFrame>) -> Store {
    let dead = Store::new();
    let dir = dead.path().with_file_name("gatekeeper.db.journal");
    fs::create_dir_all(&dir).unwrap();
    let mut bytes = crate::ledger::journal::segment::MAGIC.to_vec();
    for (frame, sequence) in frames.into_iter().zip(1..) {
        let mut frame = frame;
        bytes.extend(frame.stamp(sequence));
    }
    fs::write(dir.join("0000000001.log"), bytes).unwrap();
    dead
}

#[test]
fn a_day_is_added_up_by_licence_plan_model_and_provider() {
    let store = Store::new();
    let ledger = store.open();
    for _ in 0..3 {
        ledger.record(record(NOW, "fast"));
    }
    ledger.record(Record { license: None, ..record(NOW, "fast") });
    ledger.record(Record { license: Some(BERT), ..record(NOW, "fast") });
    ledger.record(Record { plan: "free".into(), ..record(NOW, "fast") });
    ledger.record(record(NOW, "strong"));
    ledger.record(Record { provider: "openai".into(), cost: 1 << 50, ..record(NOW, "fast") });
    let usage = Usage::default();
    let nothing =
        Record { sent: false, wasted: 0, cost: 0, wasted_cost: 0, usage, ..record(NOW, "fast") };
    ledger.record(nothing);
    ledger.close();
    drop(ledger);
    let names = || fs::read_dir(store.path().parent().unwrap()).unwrap().count();
    let before = names();
    let rows = rows(&store);
    assert_eq!((rows.len(), names()), (5, before), "reading leaves nothing behind");
    let (anna, bert) = (ANNA.to_hex(), BERT.to_hex());
    let row = |license: &String, plan: &str, model: &str, provider: &str| {
        let is = |row: &&DailyRow| {
            (&row.license, &*row.plan, &*row.model, &*row.provider)
                == (license, plan, model, provider)
        };
        numbers(rows.iter().find(is).unwrap())
    };
    assert_eq!(row(&anna, "pro", "fast", "groq"), [4, 0, 3, 6, 9, 15]);
    for (license, plan, model) in
        [(&bert, "pro", "fast"), (&anna, "free", "fast"), (&anna, "pro", "strong")]
    {
        assert_eq!(row(license, plan, model, "groq"), [1, 0, 1, 2, 3, 5]);
    }
    assert_eq!(row(&anna, "pro", "fast", "openai"), [1, 0, 1, 2, 3, 1 << 50]);
    assert!(rows.iter().all(|row| row.day == "2026-11-15"));
    let waste = |row: &DailyRow| {
        let of = &row.figures;
        (of.cache_write, of.wasted) == (of.input, 6 * of.input)
    };
    assert!(rows.iter().all(waste));
    let ledger = store.open();
    let spent = ledger.spent(NOW).unwrap();
    assert_eq!(spent, [("groq".to_owned(), 30), ("openai".to_owned(), 1 << 50)]);
    assert_eq!(ledger.spent(UnixMs(NOW.0 + 86_400_000)).unwrap(), []);
}

#[test]
fn a_request_counts_in_the_day_it_arrived_in() {
    let store = Store::new();
    let ledger = store.open();
    let midnight = Period::Day.window(NOW).end;
    for ms in [midnight.0 - 1, midnight.0, midnight.0 + 1] {
        ledger.record(record(UnixMs(ms), "fast"));
    }
    ledger.close();
    let found: Vec<_> =
        rows(&store).into_iter().map(|row| (row.day, row.figures.requests)).collect();
    assert_eq!(found, [("2026-11-15".to_owned(), 1), ("2026-11-16".to_owned(), 2)]);
    assert_eq!(ledger.spent(midnight).unwrap(), [("groq".to_owned(), 10)]);
    assert_eq!(daily_usage::read(&store.path(), "2026-11-16", "2026-11-16").unwrap().len(), 1);
}

#[test]
fn replayed_twice_it_is_counted_once() {
    let frames = || {
        vec![EntryFrame::request(&record(NOW, "fast")), EntryFrame::request(&record(NOW, "fast"))]
    };
    let dead = journal_of(frames());
    let dir = dead.path().with_file_name("gatekeeper.db.journal");
    let journal = fs::read(dir.join("0000000001.log")).unwrap();
    for _ in 0..3 {
        drop(dead.open());
        assert_eq!(rows(&dead).iter().map(numbers).collect::<Vec<_>>(), [[2, 0, 2, 4, 6, 10]]);
        // As if the process had died before it could remove what it had applied.
        for (_, file) in journal::files(&dir).unwrap() {
            fs::remove_file(file).unwrap();
        }
        fs::write(dir.join("0000000001.log"), &journal).unwrap();
    }
}

#[test]
fn a_journal_of_the_former_version_is_read() {
    let tried = Record { attempts: 0, ..record(NOW, "fast") };
    let dead = journal_of(vec![
        EntryFrame::costless(&record(NOW, "fast")),
        EntryFrame::costless(&tried),
        EntryFrame::wasteless(&record(NOW, "fast")),
        EntryFrame::nameless(&settled(3)),
        EntryFrame::request(&record(NOW, "fast")),
        EntryFrame::settled(&settled(4), &EntryNames::of(&about())),
    ]);
    drop(dead.open());
    // Earlier versions marked a message in its reservation, this one in its settlement.
    assert_eq!(rows(&dead).iter().map(numbers).collect::<Vec<_>>(), [[4, 3, 4, 8, 12, 10]]);
    assert_eq!(used(&dead.open(), ANNA), (2, 14));
}

fn settled(hold: u64) -> SettledEntry {
    SettledEntry {
        hold,
        license: ANNA,
        time: NOW,
        tokens: 7,
        group: 0,
        message: Some(NOW),
        returned: None,
    }
}

/// Requests that share a message id are one message, those that gave it back none.
#[test]
fn messages_are_counted_as_they_are_charged() {
    let store = Store::new();
    let ledger = store.open();
    let served = About { provider: "openai".into(), ..about() };
    for (id, message) in [
        (Some("a"), true),
        (Some("a"), true),
        (Some("b"), false),
        (Some("b"), true),
        (None, false),
        (None, true),
    ] {
        let demand = Demand { message_id: id.map(Into::into), ..ask(ANNA) };
        let grant = reserve(&ledger, &demand).unwrap();
        ledger.settle(grant.hold, Charge { message, about: Some(served.clone()), ..charge(1) });
        ledger.record(Record { provider: "openai".into(), ..record(NOW, "fast") });
    }
    ledger.close();
    let rows = rows(&store);
    assert_eq!(rows.iter().map(numbers).collect::<Vec<_>>(), [[6, 3, 6, 12, 18, 30]]);
    assert_eq!((used(&ledger, ANNA).0, &*rows[0].provider), (3, "openai"));
}

/// What a kill leaves open is charged at the next start; it has a row, a day and a cost.
#[test]
fn what_is_charged_after_a_kill_has_a_row_and_is_in_the_budget() {
    let store = Store::new();
    let ledger = store.open();
    for id in ["a", "a", "b"] {
        let demand = Demand { message_id: Some(id.into()), ..ask(ANNA) };
        reserve(&ledger, &demand).unwrap();
    }
    drop(ledger);
    let next = store.open();
    assert_eq!(used(&next, ANNA), (2, 30));
    let days: Vec<_> = rows(&store).iter().map(numbers).collect();
    assert_eq!(days, [[3, 2, 30, 0, 0, 150]]);
    assert_eq!(next.spent(NOW).unwrap(), [("groq".to_owned(), 150)]);
    let query = "SELECT count(*) || ' ' || min(plan || model || provider || source) || ' ' ||
                 sum(input) || ' ' || sum(charged) || ' ' || max(status) FROM requests";
    let row: String = next.db.lock().connection().query_row(query, [], |row| row.get(0)).unwrap();
    assert_eq!(row, "3 profastgroqestimated 30 30 0");
}

#[test]
fn a_store_of_the_former_version_keeps_its_data_and_gets_its_days() {
    let store = Store::new();
    let ledger = store.open();
    let grant = reserve(&ledger, &ask(ANNA)).unwrap();
    ledger.settle(grant.hold, charge(30));
    ledger.record(record(NOW, "fast"));
    ledger.record(record(UnixMs(NOW.0 + 86_400_000), "fast"));
    ledger.record(Record { license: None, ..record(NOW, "fast") });
    ledger.close();
    let former = "DROP TABLE daily; DROP TABLE unseen;
                  ALTER TABLE requests DROP COLUMN cost; ALTER TABLE requests DROP COLUMN cache_write;
                  ALTER TABLE requests DROP COLUMN wasted; ALTER TABLE requests DROP COLUMN wasted_cost;
                  ALTER TABLE open DROP COLUMN plan; ALTER TABLE open DROP COLUMN model;
                  ALTER TABLE open DROP COLUMN provider; ALTER TABLE open DROP COLUMN cost;
                  PRAGMA user_version = 2";
    ledger.db.lock().connection().execute_batch(former).unwrap();
    drop(ledger);
    for _ in 0..2 {
        let ledger = store.open();
        assert_eq!(used(&ledger, ANNA), (1, 30));
        let count = "SELECT count(*) || ' ' || sum(cost) FROM requests";
        let kept: String =
            ledger.db.lock().connection().query_row(count, [], |row| row.get(0)).unwrap();
        assert_eq!(kept, "3 0");
        let days: Vec<_> = rows(&store).iter().map(numbers).collect();
        assert_eq!(days, [[1, 1, 1, 2, 3, 0], [1, 1, 1, 2, 3, 0]]);
    }
    store.open().record(record(NOW, "fast"));
    assert_eq!(numbers(&rows(&store)[0]), [2, 1, 2, 4, 6, 5]);
}

#[test]
fn a_store_of_the_version_before_keeps_its_days_and_their_messages() {
    let store = Store::new();
    let ledger = store.open();
    ledger.settle(reserve(&ledger, &ask(ANNA)).unwrap().hold, charge(30));
    ledger.record(record(NOW, "fast"));
    ledger.close();
    let former = "ALTER TABLE daily DROP COLUMN cache_write; ALTER TABLE daily DROP COLUMN wasted;
                  ALTER TABLE daily DROP COLUMN wasted_cost; DROP TABLE unseen;
                  ALTER TABLE requests DROP COLUMN wasted; PRAGMA user_version = 5";
    ledger.db.lock().connection().execute_batch(former).unwrap();
    drop(ledger);
    let ledger = store.open();
    ledger.settle(reserve(&ledger, &ask(ANNA)).unwrap().hold, charge(30));
    ledger.record(record(NOW, "fast"));
    ledger.close();
    let rows = rows(&store);
    assert_eq!(rows.iter().map(numbers).collect::<Vec<_>>(), [[2, 2, 2, 4, 6, 10]]);
    assert_eq!((rows[0].figures.cache_write, rows[0].figures.wasted), (1, 6));
}

#[test]
fn days_are_kept_for_400_days() {
    let store = Store::new();
    let ledger = store.open();
    for day in 0..3 {
        ledger.record(record(UnixMs(NOW.0 + day * 86_400_000), "fast"));
    }
    ledger.close();
    let prune = |days: u64| {
        ledger.db.lock().prune(UnixMs(NOW.0 + days * 86_400_000), KEEP).unwrap();
        rows(&store).len()
    };
    assert_eq!((prune(400), prune(401), prune(403)), (3, 2, 0));
}

#[test]
fn active_licences_are_distinct_and_today_is_included() {
    let store = Store::new();
    let ledger = store.open();
    for (nth, age) in [0, 0, 6, 7, 29, 30].into_iter().enumerate() {
        for model in ["fast", "strong"] {
            let license = Some(LicenseId([nth as u8; 32]));
            let time = UnixMs(NOW.0 - age * 86_400_000);
            ledger.record(Record { license, ..record(time, model) });
        }
    }
    ledger.close();
    assert_eq!(ledger.active_licenses(NOW), [2, 3, 5]);
}

#[test]
fn a_store_that_can_not_be_read_says_why() {
    let store = Store::new();
    let read =
        || daily_usage::read(&store.path(), "2026-11-01", "2026-11-30").unwrap_err().to_string();
    assert!(read().contains("no gateway has run"), "{}", read());
    let ledger = store.open();
    for (version, says) in
        [(2, "an older gatekeeper (schema 2"), (9, "a newer gatekeeper (schema 9")]
    {
        ledger.db.lock().connection().pragma_update(None, "user_version", version).unwrap();
        assert!(read().contains(says), "{}", read());
    }
}
