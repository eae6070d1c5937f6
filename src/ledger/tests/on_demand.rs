//! Accounts that are read from SQLite when they are used, and dropped when they are not.

use std::thread;

use super::*;
use crate::ledger::accounts::Accounts;

/// A sweep as the thread that fills SQLite does it: after everything counted so far is there.
pub fn sweep(ledger: &EmbeddedLedger, now: UnixMs) {
    let reaches = ledger.journal.reaches();
    while ledger.db.lock().applied().unwrap() < reaches {
        ledger.filling.wake();
        thread::sleep(Duration::from_millis(1));
    }
    let rates = ledger.accounts.take_rates();
    ledger.db.lock().keep_rates(&rates).unwrap();
    ledger.accounts.sweep(now);
}

/// Two of them: the second drops what was not used since the first.
fn drop_unused(ledger: &EmbeddedLedger, now: UnixMs) {
    sweep(ledger, now);
    sweep(ledger, now);
    let rates = ledger.accounts.take_rates();
    ledger.db.lock().keep_rates(&rates).unwrap();
}

fn count(accounts: &Accounts) -> usize {
    accounts.count()
}

fn hourly(license: LicenseId, count: u64) -> RateRequest {
    RateRequest { license, rate: Some(Limit { count, per: Period::Hour }), concurrency: Some(2) }
}

#[test]
fn a_start_reads_no_account_and_each_is_whole_when_it_is_used() {
    let store = Store::new();
    let ledger = store.open();
    for license in [ANNA, BERT] {
        let done = reserve(&ledger, &ask(license)).unwrap();
        ledger.settle(done.hold, charge(7));
    }
    ledger.grant(&order(ANNA, "a"), [2, 5], NOW).unwrap();
    drop(ledger);
    let ledger = store.open();
    assert_eq!(count(&ledger.accounts), 0);
    let limited = Demand { messages: month(1), ..ask(BERT) };
    assert!(matches!(reserve(&ledger, &limited), Err(Denied::Messages { used: 1, .. })));
    assert_eq!(count(&ledger.accounts), 1);
    assert_eq!(used(&ledger, ANNA), (1, 7));
    let limited = Demand { messages: month(1), ..ask(ANNA) };
    assert!(reserve(&ledger, &limited).is_ok() && reserve(&ledger, &limited).is_ok());
    assert!(reserve(&ledger, &limited).is_err());
}

#[test]
fn what_is_not_used_leaves_memory_and_comes_back_as_it_was() {
    let store = Store::new();
    let ledger = store.open();
    let done = reserve(&ledger, &ask(ANNA)).unwrap();
    ledger.settle(done.hold, charge(7));
    ledger.grant(&order(ANNA, "a"), [2, 0], NOW).unwrap();
    for _ in 0..3 {
        ready(ledger.enter(&hourly(ANNA, 3), NOW)).unwrap();
        ledger.leave(&ANNA);
    }
    // A rate of the current minute is nowhere else.
    drop_unused(&ledger, NOW);
    assert_eq!(count(&ledger.accounts), 1);
    let later = UnixMs(NOW.0 + 600_000);
    drop_unused(&ledger, later);
    assert_eq!(count(&ledger.accounts), 0);
    let refused = ready(ledger.enter(&hourly(ANNA, 3), later));
    assert!(matches!(refused, Err(RateRefused::Rate { .. })), "{refused:?}");
    assert_eq!(used(&ledger, ANNA), (1, 7));
    let seen = ledger.overview(&ANNA, month(1), None, later).unwrap();
    assert_eq!((seen.messages.extra, seen.balance.messages.left), (2, Some(2)));
    assert!(!ledger.grant(&order(ANNA, "a"), [2, 0], later).unwrap());
}

#[test]
fn what_is_open_keeps_its_account_in_memory() {
    let store = Store::new();
    let ledger = store.open();
    let later = UnixMs(NOW.0 + 600_000);
    let open = reserve(&ledger, &ask(ANNA)).unwrap();
    ready(ledger.enter(&hourly(BERT, 9), NOW)).unwrap();
    for _ in 0..3 {
        drop_unused(&ledger, later);
    }
    assert_eq!(count(&ledger.accounts), 2);
    let full = ready(ledger.enter(&hourly(BERT, 9), later))
        .and_then(|()| ready(ledger.enter(&hourly(BERT, 9), later)));
    assert!(matches!(full, Err(RateRefused::Concurrency { limit: 2 })), "{full:?}");
    // It was used just now: the next sweep leaves it alone.
    ledger.settle(open.hold, charge(30));
    sweep(&ledger, later);
    assert_eq!((count(&ledger.accounts), used(&ledger, ANNA)), (2, (1, 30)));
}

#[test]
fn a_message_id_holds_its_account_as_long_as_it_is_known() {
    let store = Store::new();
    let ledger = store.open();
    let named = |now| Demand { message_id: Some("m".into()), now, ..ask(ANNA) };
    let first = reserve(&ledger, &named(NOW)).unwrap();
    ledger.settle(first.hold, charge(1));
    let soon = UnixMs(NOW.0 + 300_000);
    drop_unused(&ledger, soon);
    let second = reserve(&ledger, &named(soon)).unwrap();
    ledger.settle(second.hold, charge(1));
    assert_eq!(used(&ledger, ANNA), (1, 2), "one message");
}

/// Requests of many licences beside sweeps that drop them all the time: each gets its limit exactly.
#[test]
fn no_count_is_lost_between_memory_and_sqlite() {
    const LIMIT: u64 = 40;
    let store = Store::new();
    let ledger = store.open();
    let licenses: Vec<_> = (0..24).map(|nth| LicenseId([nth; 32])).collect();
    let granted = AtomicU64::new(0);
    let dropped = AtomicU64::new(0);
    thread::scope(|scope| {
        let apps: Vec<_> = (0..3)
            .map(|app| {
                let (ledger, licenses, granted) = (&ledger, &licenses, &granted);
                scope.spawn(move || {
                    for nth in 0..LIMIT as usize * licenses.len() {
                        let license = licenses[(nth * 7 + app * 5) % licenses.len()];
                        let demand = Demand { messages: month(LIMIT), ..ask(license) };
                        match reserve(ledger, &demand) {
                            Ok(grant) => {
                                ledger.settle(grant.hold, charge(1));
                                granted.fetch_add(1, Ordering::Relaxed);
                            }
                            Err(Denied::Messages { .. } | Denied::StoreDown) => {}
                            Err(other) => panic!("{other:?}"),
                        }
                        if nth % 16 == 0 {
                            thread::sleep(Duration::from_micros(300));
                        }
                    }
                })
            })
            .collect();
        let later = UnixMs(NOW.0 + 600_000);
        while !apps.iter().all(thread::ScopedJoinHandle::is_finished) {
            let before = count(&ledger.accounts);
            sweep(&ledger, later);
            let left = before.saturating_sub(count(&ledger.accounts));
            dropped.fetch_add(left as u64, Ordering::Relaxed);
        }
    });
    println!("{granted:?} granted, accounts dropped {dropped:?} times meanwhile");
    drop_unused(&ledger, UnixMs(NOW.0 + 600_000));
    for license in &licenses {
        let demand = Demand { messages: month(LIMIT), ..ask(*license) };
        while let Ok(grant) = reserve(&ledger, &demand) {
            ledger.settle(grant.hold, charge(1));
            granted.fetch_add(1, Ordering::Relaxed);
        }
        assert_eq!(used(&ledger, *license), (LIMIT, LIMIT));
    }
    assert_eq!(granted.into_inner(), LIMIT * licenses.len() as u64);
}
