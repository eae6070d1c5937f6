//! What an operator gives and forgives.

use super::*;
use crate::ledger::{
    adjustment::{LimitChange, LimitChanges},
    journal::entry::{EntryFrame, EntryScan, JournalEntry},
    operator_action::{OperatorAction, OperatorActionKind},
};

fn settle(ledger: &EmbeddedLedger, demand: &Demand, count: usize) {
    for _ in 0..count {
        let grant = reserve(ledger, demand).unwrap();
        ledger.settle(grant.hold, charge(5));
    }
}

fn limited() -> Demand {
    Demand { messages: month(3), tokens: month(1_000), ..ask(ANNA) }
}

#[test]
fn extra_messages_raise_the_limit_of_this_window_everywhere() {
    let store = Store::new();
    let ledger = store.open();
    settle(&ledger, &limited(), 3);
    assert!(matches!(reserve(&ledger, &limited()), Err(Denied::Messages { .. })));
    ledger.grant(&order(ANNA, "a"), [2, 0], NOW).unwrap();
    ledger.grant(&order(ANNA, "b"), [1, 0], NOW).unwrap();
    let grant = reserve(&ledger, &limited()).unwrap();
    let messages = grant.balance.messages;
    assert_eq!((messages.limit, messages.used, messages.left), (Some(6), 4, Some(2)));
    ledger.settle(grant.hold, charge(5));
    settle(&ledger, &limited(), 2);
    let Err(Denied::Messages { limit, used, .. }) = reserve(&ledger, &limited()) else { panic!() };
    assert_eq!((limit.count, used), (6, 6));
    // And ends with the window.
    let next = Demand { now: UnixMs(NOW.0 + 20 * 86_400_000), ..limited() };
    settle(&ledger, &next, 3);
    assert!(matches!(reserve(&ledger, &next), Err(Denied::Messages { .. })));
    // A clock that is set back finds it again.
    assert_eq!(
        ledger.overview(&ANNA, month(3), None, NOW).unwrap().balance.messages.limit,
        Some(6)
    );
}

#[test]
fn extra_tokens_are_tokens_that_fit() {
    let store = Store::new();
    let ledger = store.open();
    let demand = Demand { tokens: month(100), input: 150, ..ask(ANNA) };
    assert!(matches!(reserve(&ledger, &demand), Err(Denied::Tokens { needed: 170, .. })));
    ledger.grant(&order(ANNA, "a"), [0, 100], NOW).unwrap();
    assert_eq!(reserve(&ledger, &demand).unwrap().output, Some(50));
}

#[test]
fn a_reset_forgives_what_was_settled_and_open_requests_still_count() {
    let store = Store::new();
    let ledger = store.open();
    settle(&ledger, &limited(), 2);
    let open = reserve(&ledger, &limited()).unwrap();
    assert!(ledger.reset(&order(ANNA, "a"), NOW).unwrap());
    assert_eq!(used(&ledger, ANNA), (1, 0));
    ledger.settle(open.hold, charge(7));
    assert_eq!(used(&ledger, ANNA), (1, 7));
    // Nothing new was settled for the retried one; the next one forgives the rest.
    assert!(!ledger.reset(&order(ANNA, "a"), NOW).unwrap());
    assert_eq!(used(&ledger, ANNA), (1, 7));
    assert!(ledger.reset(&order(ANNA, "b"), NOW).unwrap());
    assert!(ledger.reset(&order(ANNA, "c"), NOW).unwrap());
    assert_eq!(used(&ledger, ANNA), (0, 0));
    settle(&ledger, &limited(), 3);
    assert!(matches!(reserve(&ledger, &limited()), Err(Denied::Messages { .. })));
}

#[test]
fn each_limit_has_the_window_of_its_own_period() {
    let store = Store::new();
    let ledger = store.open();
    let day = Some(Limit { count: 1, per: Period::Day });
    let order = AdjustRequest { messages: day, ..order(ANNA, "a") };
    ledger.grant(&order, [4, 40], NOW).unwrap();
    let seen = ledger.overview(&ANNA, day, month(10), NOW).unwrap();
    assert_eq!((seen.messages.extra, seen.tokens.extra), (4, 40));
    let tomorrow = UnixMs(NOW.0 + 86_400_000);
    let seen = ledger.overview(&ANNA, day, month(10), tomorrow).unwrap();
    assert_eq!((seen.messages.extra, seen.tokens.extra), (0, 40));
    assert_eq!(ledger.overview(&ANNA, month(1), None, NOW).unwrap().messages.extra, 0);
}

#[test]
fn twenty_grants_at_once_add_up_and_one_that_is_retried_acts_once() {
    let store = Store::new();
    let ledger = store.open();
    std::thread::scope(|scope| {
        for nth in 0..20 {
            let ledger = &ledger;
            scope.spawn(move || {
                for _ in 0..3 {
                    ledger.grant(&order(ANNA, &format!("id-{nth}")), [10, 1], NOW).unwrap();
                }
            });
        }
    });
    let extra = |ledger: &EmbeddedLedger| {
        let seen = ledger.overview(&ANNA, month(1), month(1), NOW).unwrap();
        (seen.messages.extra, seen.tokens.extra)
    };
    assert_eq!(extra(&ledger), (200, 20));
    drop(ledger);
    let ledger = store.open();
    assert_eq!(extra(&ledger), (200, 20));
    // Ids are known again after a restart, and are those of one licence.
    assert!(!ledger.grant(&order(ANNA, "id-7"), [10, 1], NOW).unwrap());
    assert!(ledger.grant(&order(BERT, "id-7"), [10, 1], NOW).unwrap());
    assert_eq!(ledger.actions(&ANNA).len(), 20);
}

#[test]
fn what_was_given_outlives_any_number_of_restarts_and_the_sweep() {
    let store = Store::new();
    let ledger = store.open();
    ledger.grant(&AdjustRequest { note: "sorry", ..order(ANNA, "a") }, [7, 0], NOW).unwrap();
    ledger.note(OperatorActionKind::Revoke, &order(ANNA, "b"), "", NOW).unwrap();
    drop(ledger);
    for _ in 0..3 {
        let ledger = store.open();
        ledger.accounts.sweep(NOW);
        assert_eq!(ledger.overview(&ANNA, month(1), None, NOW).unwrap().messages.extra, 7);
        let done = ledger.actions(&ANNA);
        let done: Vec<_> = done.iter().map(|a| (a.kind.name(), &*a.detail, &*a.note)).collect();
        assert_eq!(done, [("grant", "7 messages", "sorry"), ("revoke", "", "")]);
    }
    let ledger = store.open();
    ledger.accounts.sweep(UnixMs(NOW.0 + 60 * 86_400_000));
    assert_eq!(ledger.accounts.count(), 0);
}

/// Other gateways receive the share of the current window, in whatever order it was granted.
#[test]
fn what_is_told_is_of_the_current_window() {
    let store = Store::new();
    let ledger = store.open();
    let extra = || {
        let given = ledger.accounts.contribution(&ANNA).given;
        given.map(|given| given[Period::Month as usize].extra_messages)
    };
    assert_eq!(extra(), None);
    ledger.grant(&order(ANNA, "a"), [5, 0], NOW).unwrap();
    assert_eq!(extra(), Some(5), "before the first request, too");
    settle(&ledger, &limited(), 1);
    ledger.grant(&order(ANNA, "b"), [9, 0], UnixMs(NOW.0 - 20 * 86_400_000)).unwrap();
    assert_eq!(extra(), Some(5));
    let next = Demand { now: UnixMs(NOW.0 + 20 * 86_400_000), ..limited() };
    settle(&ledger, &next, 1);
    assert_eq!(extra(), None);
}

#[test]
fn the_last_use_is_known_at_once_and_about_after_a_restart() {
    let store = Store::new();
    let ledger = store.open();
    assert_eq!(ledger.last_use(&ANNA).unwrap(), None);
    settle(&ledger, &limited(), 1);
    ledger.grant(&order(BERT, "a"), [1, 0], NOW).unwrap();
    assert_eq!(ledger.last_use(&ANNA).unwrap(), Some(NOW));
    drop(ledger);
    let ledger = store.open();
    assert_eq!(ledger.last_use(&ANNA).unwrap(), Some(Period::Minute.window(NOW).start));
    assert_eq!(ledger.last_use(&BERT).unwrap(), None, "given is not used");
}

#[test]
fn an_action_reads_back_as_it_was_written() {
    let change = |period, extra, forgiven| LimitChange { period, extra, forgiven };
    let changes = LimitChanges {
        messages: change(Period::Day, 5, 0),
        tokens: change(Period::Month, 0, u64::MAX),
    };
    let action = OperatorAction {
        time: NOW,
        kind: OperatorActionKind::Restore,
        license: ANNA,
        id: "an-id".into(),
        detail: "5 messages".into(),
        note: "é".repeat(200).into(),
        changes: Some(changes),
    };
    let bare = OperatorAction {
        kind: OperatorActionKind::Grant,
        note: "".into(),
        changes: None,
        ..action.clone()
    };
    let mut bytes = EntryFrame::action(&action).stamp(1).to_vec();
    bytes.extend(EntryFrame::action(&bare).stamp(2));
    let entries: Vec<_> = EntryScan::new(&bytes).collect();
    assert_eq!(entries, [(1, JournalEntry::Action(action)), (2, JournalEntry::Action(bare))]);
}
