//! A store goes to another owner while requests are open, and comes back.

use std::path::Path;

use gatekeeper_filters::kernel::{LicenseId, Period};
use proptest::prelude::*;

use super::*;
use crate::ledger::in_memory_state::InheritedStore;

fn named(license: LicenseId, id: &str) -> Demand {
    Demand { message_id: Some(id.into()), messages: month(5), tokens: month(1_000), ..ask(license) }
}

fn inherit(path: &Path, inherited: InheritedStore) -> Arc<EmbeddedLedger> {
    EmbeddedLedger::open_at(path, KEEP, SMALL, NOW, Some(inherited), Residency::OnDemand).unwrap()
}

fn pace(license: LicenseId) -> RateRequest {
    RateRequest {
        license,
        rate: Some(Limit { count: 3, per: Period::Minute }),
        concurrency: Some(2),
    }
}

#[test]
fn what_is_open_stays_open_and_settles_there() {
    let store = Store::new();
    let old = store.open();
    let alone = reserve(&old, &named(ANNA, "a")).unwrap();
    let joined = reserve(&old, &named(ANNA, "a")).unwrap();
    let other = reserve(&old, &named(BERT, "b")).unwrap();
    old.settle(other.hold, BACK);
    let given = old.give_at(NOW).unwrap();
    assert!(matches!(store.try_open(SMALL), Err(StoreOpenError::InUse { .. })));
    let new = inherit(&store.path(), given);
    assert_eq!(used(&new, ANNA), (1, 0));
    // Two requests of 100 tokens are open: 800 are left of 1,000.
    let most = Demand { output: Some(10_000), ..named(ANNA, "other") };
    assert_eq!(reserve(&new, &most).unwrap().output, Some(790));
    // The id still leads to its message, and holds are never given out twice.
    let again = reserve(&new, &named(BERT, "b")).unwrap();
    assert!(again.hold > other.hold);
    new.settle(joined.hold, charge(7));
    new.settle(alone.hold, charge(5));
    new.settle(alone.hold, charge(500));
    assert_eq!(used(&new, ANNA), (2, 12), "one message for the id, one for the open one");
    drop(old);
    assert!(
        matches!(store.try_open(SMALL), Err(StoreOpenError::InUse { .. })),
        "it is the new one's"
    );
    new.close();
}

#[test]
fn places_and_rates_of_the_minute_go_along() {
    let store = Store::new();
    let old = store.open();
    let now = UnixMs::now();
    ready(old.enter(&pace(ANNA), now)).unwrap();
    ready(old.enter(&pace(ANNA), now)).unwrap();
    let new = inherit(&store.path(), old.give().unwrap());
    let refused = ready(new.enter(&pace(ANNA), now)).unwrap_err();
    assert!(matches!(refused, RateRefused::Concurrency { limit: 2 }), "{refused:?}");
    new.leave(&ANNA);
    ready(new.enter(&pace(ANNA), now)).unwrap();
    new.leave(&ANNA);
    let refused = ready(new.enter(&pace(ANNA), now)).unwrap_err();
    assert!(matches!(refused, RateRefused::Rate { .. }), "{refused:?}");
}

#[test]
fn it_comes_back_with_what_the_other_did_and_what_it_left_open_is_charged() {
    let store = Store::new();
    let old = store.open();
    let kept = reserve(&old, &named(ANNA, "a")).unwrap();
    let given = old.give_at(NOW).unwrap();
    let mut volatile = given.volatile.clone();
    let new = inherit(&store.path(), given);
    let theirs = reserve(&new, &ask(BERT)).unwrap();
    new.settle(theirs.hold, charge(30));
    let left = reserve(&new, &ask(BERT)).unwrap();
    // Dead: what was in memory alone is gone.
    new.stop();
    // The kernel closes what it had open, its locks with it.
    *new.owner.lock() = None;
    std::mem::forget(new);
    volatile.open = vec![(kept.hold, 100)];
    old.take_back(&volatile).unwrap();
    assert_eq!(used(&old, BERT), (2, 30 + left.input));
    assert_eq!(used(&old, ANNA), (1, 0));
    let joined = reserve(&old, &named(ANNA, "a")).unwrap();
    old.settle(joined.hold, charge(1));
    old.settle(kept.hold, charge(2));
    assert_eq!(used(&old, ANNA), (1, 3));
    assert_eq!(old.open_reservations(), 0);
    old.close();
    let next = store.open();
    assert_eq!((used(&next, ANNA), used(&next, BERT)), ((1, 3), (2, 30 + left.input)));
}

#[test]
fn a_successor_that_fails_leaves_the_lock_held() {
    let store = Store::new();
    let old = store.open();
    let kept = reserve(&old, &named(ANNA, "a")).unwrap();
    let given = old.give_at(NOW).unwrap();
    let volatile = given.volatile.clone();
    let is_held = || matches!(store.try_open(SMALL), Err(StoreOpenError::InUse { .. }));
    let new = inherit(&store.path(), given);
    new.close();
    drop(new);
    assert!(is_held());
    old.take_back(&volatile).unwrap();
    assert!(is_held());
    old.settle(kept.hold, charge(5));
    assert_eq!(used(&old, ANNA), (1, 5));
    drop(old);
    assert!(!is_held());
}

#[test]
fn a_store_that_somebody_else_has_does_not_come_back() {
    let store = Store::new();
    let old = store.open();
    let given = old.give_at(NOW).unwrap();
    let volatile = given.volatile.clone();
    // As a successor of another version might.
    rustix::fs::flock(&given.lock, rustix::fs::FlockOperation::Unlock).unwrap();
    let third = store.open();
    assert!(matches!(old.take_back(&volatile), Err(StoreOpenError::InUse { .. })));
    drop(third);
    old.take_back(&volatile).unwrap();
}

#[test]
fn what_is_open_at_the_end_can_be_charged_at_once() {
    let store = Store::new();
    let ledger = store.open();
    reserve(&ledger, &ask(ANNA)).unwrap();
    ledger.close();
    ledger.charge_open();
    drop(ledger);
    let next = store.open();
    assert_eq!(used(&next, ANNA), (1, 10));
    assert!(next.db.lock().orphans().unwrap().is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// However often it moves, and whatever happens between, the sums are those of a ledger that never
    /// moved.
    #[test]
    fn moving_changes_no_sum(steps in prop::collection::vec((0u8..6, 0u8..4, 1u64..50), 1..60)) {
        let (moving, still) = (Store::new(), Store::new());
        let (mut here, there) = (moving.open(), still.open());
        let mut before: Vec<Arc<EmbeddedLedger>> = Vec::new();
        let mut open: Vec<(u64, u64)> = Vec::new();
        for (what, who, amount) in steps {
            let license = LicenseId([who; 32]);
            match what {
                0..=2 => {
                    let demand = if what == 0 { named(license, "id") } else {
                        Demand { messages: month(5), tokens: month(1_000), ..ask(license) }
                    };
                    let (one, other) = (reserve(&here, &demand), reserve(&there, &demand));
                    prop_assert_eq!(one.is_ok(), other.is_ok());
                    if let (Ok(one), Ok(other)) = (one, other) {
                        prop_assert_eq!(one.output, other.output);
                        open.push((one.hold, other.hold));
                    }
                }
                3 | 4 if !open.is_empty() => {
                    let (one, other) = open.swap_remove(amount as usize % open.len());
                    let charge = if what == 3 { charge(amount) } else { BACK };
                    here.settle(one, charge.clone());
                    there.settle(other, charge);
                }
                5 => {
                    let next = inherit(&moving.path(), here.give_at(NOW).unwrap());
                    before.push(std::mem::replace(&mut here, next));
                }
                _ => {}
            }
            for who in 0..4 {
                let license = LicenseId([who; 32]);
                prop_assert_eq!(used(&here, license), used(&there, license));
            }
        }
        drop(before);
    }
}
