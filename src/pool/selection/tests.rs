//! In which order the strategies offer keys. That each offers every key once is true of all of them.

use std::{
    collections::HashMap,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use gatekeeper_filters::kernel::Dialect;

use super::*;
use crate::{
    config::settings,
    pool::{
        HealthRegistry,
        key::{EventSource, KeyIdentity},
    },
    vault::KeyedHash,
};

/// Keys by group and weight.
fn keys(of: &[(&str, u32)]) -> Vec<Arc<MasterKey>> {
    let registry = HealthRegistry::new(KeyedHash::new(&[7; 32]));
    let provider: Arc<str> = "p".into();
    let key = |(index, (group, weight)): (usize, &(&str, u32))| {
        let settings = settings::KeySettings {
            id: format!("k{index}").into(),
            secret: "secret".into(),
            group: (*group).into(),
            weight: *weight,
            off: false,
        };
        let health = registry.key(&provider, &settings.id, "mark");
        let group = registry.group(&provider, &settings.group);
        let sender = registry.sender.clone();
        let events = EventSource { provider: provider.clone(), mark: "mark".into(), sender };
        let place = KeyIdentity { group, account: 0, models: Arc::new([]) };
        Arc::new(MasterKey::new(&settings, Dialect::OpenAi, health, place, events).unwrap())
    };
    of.iter().enumerate().map(key).collect()
}

fn order(selection: &Selection, conversation: Option<u64>) -> Vec<usize> {
    let mut candidates = selection.candidates(conversation);
    let mut order = Vec::new();
    while let Some(backend) = candidates.next() {
        order.push(index(backend).unwrap());
    }
    order
}

#[test]
fn every_strategy_offers_each_key_once() {
    let keys = keys(&[("a", 1), ("a", 5), ("b", 1), ("c", 2)]);
    for strategy in [Strategy::RoundRobin, Strategy::LeastBusy, Strategy::Fastest] {
        let selection = Selection::new(strategy, &keys);
        for conversation in [None, Some(1), Some(2)] {
            for _ in 0..20 {
                let mut order = order(&selection, conversation);
                order.sort_unstable();
                assert_eq!(order, [0, 1, 2, 3], "{strategy:?}");
            }
        }
        assert!(super::tests::order(&Selection::new(strategy, &[]), None).is_empty());
    }
}

#[test]
fn the_least_busy_for_its_weight_comes_first_and_equals_take_turns() {
    let keys = keys(&[("a", 1), ("b", 1), ("c", 4)]);
    let selection = Selection::new(Strategy::LeastBusy, &keys);
    assert_eq!(order(&selection, None)[0], 2, "an idle heavy one is least busy");
    keys[2].health.open.store(6, Relaxed);
    keys[0].health.open.store(1, Relaxed);
    assert_eq!(order(&selection, None), [1, 2, 0]);
    keys[2].health.open.store(100, Relaxed);
    keys[0].health.open.store(0, Relaxed);
    let firsts: Vec<_> = (0..4).map(|_| order(&selection, None)[0]).collect();
    assert!(firsts.contains(&0) && firsts.contains(&1), "{firsts:?}");
}

#[test]
fn the_faster_of_two_comes_first_and_a_slow_one_gets_another_chance_later() {
    let keys = keys(&[("a", 1), ("b", 1), ("c", 1)]);
    let selection = Selection::new(Strategy::Fastest, &keys);
    for (key, ms) in keys.iter().zip([200, 20, 2000]) {
        key.health.pace.note(Duration::from_millis(ms), Instant::now());
    }
    let mut firsts = HashMap::new();
    for _ in 0..3000 {
        *firsts.entry(order(&selection, None)[0]).or_insert(0) += 1;
    }
    assert!(firsts[&1] > 1800 && firsts[&0] > 700, "{firsts:?}");
    assert!(!firsts.contains_key(&2), "the slowest loses to every other key: {firsts:?}");
    keys[1].health.open.store(50, Relaxed);
    assert_ne!(order(&selection, None)[0], 1, "who is buried under requests is slow, too");
}

#[test]
fn a_conversation_keeps_its_account_and_conversations_spread_by_weight() {
    let keys = keys(&[("a", 1), ("a", 1), ("b", 1), ("c", 3)]);
    let one = Selection::new(Strategy::RoundRobin, &keys);
    let other = Selection::new(Strategy::LeastBusy, &keys);
    let mut firsts = HashMap::new();
    for conversation in 0..6000 {
        let order = order(&one, Some(conversation));
        assert_eq!(order, super::tests::order(&other, Some(conversation)), "gateways agree");
        *firsts.entry(&*keys[order[0]].group_name).or_insert(0) += 1;
        // The next key of the same account comes before another account.
        let (a, b) =
            (order.iter().position(|key| *key == 0), order.iter().position(|key| *key == 1));
        assert_eq!(a.unwrap().abs_diff(b.unwrap()), 1, "{order:?}");
    }
    assert!(
        (1000..1400).contains(&firsts["a"]) && (3300..3900).contains(&firsts["c"]),
        "{firsts:?}"
    );
}
