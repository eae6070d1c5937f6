//! Conversations that several gateways count together: however many turns there are, over a wire that stands still,
//! and without Redis.

use std::time::Duration;

use gatekeeper::{
    config::settings::OnStoreDown,
    ledger::{EmbeddedLedger, Residency},
};
use gatekeeper_filters::kernel::{
    ConversationDemand, ConversationLimits, ConversationRefused, Demand, Denied, Ledger, Limit,
    Period,
};
use tempfile::TempDir;

use crate::{
    ledger::{
        shared_exact::{Gateway, charge, demand, gateway, rests_at},
        slow_wire::SlowWire,
    },
    support::{Noise, Redis, eventually},
};

const LIMIT: u64 = 100_000;

fn said(turn: u32, id: Option<&str>) -> Demand {
    let limits = ConversationLimits {
        rate: None,
        messages: Some(Limit { count: 1_000, per: Period::Day }),
        repeats: Some(3),
    };
    let conversation = ConversationDemand { id: 1 << 63 | 7, turn: Some(turn), limits };
    Demand { conversation: Some(conversation), ..demand(LIMIT, id.map(Into::into)) }
}

/// Whether it is let through; settled at once.
async fn passes(ledger: &impl Ledger, asked: &Demand, costs: bool) -> bool {
    match ledger.reserve(asked).await {
        Ok(grant) => {
            ledger.settle(grant.hold, charge(costs, 1));
            true
        }
        Err(Denied::Conversation(ConversationRefused::Repeats { .. })) => false,
        Err(other) => panic!("{other:?}"),
    }
}

async fn rests(gateway: Gateway, redis: &Redis, messages: u64, tokens: u64) -> Gateway {
    let gateways = [gateway];
    rests_at(&gateways, redis, LIMIT, messages, tokens).await;
    let [gateway] = gateways;
    gateway
}

/// Both stores say the same of each request, and what is counted on paper.
#[tokio::test]
async fn both_stores_count_the_same_turns() {
    let redis = Redis::start().await;
    let shared = gateway(&redis.url(), OnStoreDown::Closed).await;
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("g.db");
    let alone =
        EmbeddedLedger::open(&path, Duration::from_secs(3600), Residency::OnDemand).unwrap();
    let (mut noise, mut times) = (Noise::new(23), [0; 60]);
    for nth in 0..400 {
        let turn = noise.below(60) as usize;
        // Beyond 22 bits it is not looked at.
        let asked = said(turn as u32 * 69_997, None);
        let (fits, costs) = (times[turn] < 3, noise.below(5) > 0);
        let counted =
            (passes(&*alone, &asked, costs).await, passes(&*shared.ledger, &asked, costs).await);
        assert_eq!(counted, (fits, fits), "request {nth}, turn {turn}: {}", times[turn]);
        times[turn] += usize::from(fits && costs);
        if fits && !costs {
            shared.ledger.flush().await;
        }
    }
    assert!(times.iter().filter(|times| **times == 3).count() > 20, "{times:?}");
    let keys = redis.ask(&["KEYS", "gk:*:turns"]).list();
    let ttl = redis.ask(&["TTL", &keys[0].text()]).text();
    assert!((590..=600).contains(&ttl.parse::<i32>().unwrap()), "{ttl}");
}

/// Further turns are kept only while they count, whatever becomes of their conversations.
#[tokio::test]
async fn further_turns_on_redis_are_forgotten() {
    let redis = Redis::start().await;
    let shared = gateway(&redis.url(), OnStoreDown::Closed).await;
    for turn in 0..10 {
        assert!(passes(&*shared.ledger, &said(turn, None), true).await);
    }
    let key = redis.ask(&["KEYS", "gk:*:turns"]).list()[0].text();
    // As conversations leave them that ended eleven minutes ago.
    let script = "local old = string.char(0, 0, 0, 9) .. string.rep('abcde', 20) \
        for n = 1, 300 do redis.call('HSET', KEYS[1], struct.pack('>I8', n * 2654435761), old) end \
        redis.call('HDEL', KEYS[1], ARGV[1]) return tostring(redis.call('HLEN', KEYS[1]))";
    let before = redis.ask(&["EVAL", script, "1", &key, "none"]).text();
    assert_eq!(before, "301");
    for conversation in 0..200_u64 {
        for turn in 0..9 {
            let mut asked = said(turn, None);
            if let Some(counted) = &mut asked.conversation {
                counted.id = conversation.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            }
            assert!(passes(&*shared.ledger, &asked, true).await);
        }
    }
    let left: u64 = redis.ask(&["HLEN", &key]).text().parse().unwrap();
    assert!(left < 300, "{left} with 201 that count");
}

/// A request that was given up while Redis was silent is given back to its conversation, with an id and without.
#[tokio::test]
async fn what_was_given_up_on_its_way_was_never_counted() {
    let redis = Redis::start().await;
    let wire = SlowWire::to(redis.port(), 0, 0, 1).await;
    let mut gateway = gateway(&wire.url(), OnStoreDown::Closed).await;
    // Nine turns: the last has no place beside the counts.
    for turn in 0..9 {
        assert!(passes(&*gateway.ledger, &said(turn, None), true).await);
    }
    let mut messages = 9;
    for (nth, id) in [None, Some("m"), None, None].into_iter().enumerate() {
        for turn in [0, 8] {
            let ledger = gateway.ledger.clone();
            wire.stop();
            let asked = said(turn, id);
            let given_up =
                tokio::time::timeout(Duration::from_millis(100), ledger.reserve(&asked)).await;
            assert!(given_up.is_err(), "{given_up:?}");
            wire.go_on();
            let up = || async { ledger.is_up() };
            eventually("the store is up", Duration::from_secs(10), up).await;
            drop(asked);
            gateway = rests(gateway, &redis, messages, messages).await;
        }
        if nth % 2 == 1 {
            continue;
        }
        for turn in [0, 8] {
            assert!(passes(&*gateway.ledger, &said(turn, None), true).await, "turn {turn}");
        }
        messages += 2;
        gateway = rests(gateway, &redis, messages, messages).await;
    }
    for turn in [0, 8] {
        assert!(!passes(&*gateway.ledger, &said(turn, None), true).await, "turn {turn}");
    }
}

/// Without Redis a gateway counts by itself: requests of one id once, and what fails not at all.
#[tokio::test]
async fn conversations_are_counted_without_redis() {
    let redis = Redis::start().await;
    let wire = SlowWire::to(redis.port(), 0, 0, 1).await;
    let gateway = gateway(&wire.url(), OnStoreDown::Lease).await;
    let ledger = gateway.ledger.clone();
    assert!(passes(&*ledger, &said(1, Some("before")), true).await);
    let gateway = rests(gateway, &redis, 1, 1).await;
    wire.stop();
    for id in ["a", "a", "a", "a", "b"] {
        assert!(passes(&*ledger, &said(7, Some(id)), true).await, "{id}");
    }
    for _ in 0..3 {
        assert!(passes(&*ledger, &said(7, Some("fails")), false).await);
        assert!(passes(&*ledger, &said(8, Some("fails")), false).await);
        assert!(passes(&*ledger, &said(8, None), false).await);
    }
    assert!(passes(&*ledger, &said(7, Some("c")), true).await);
    assert!(!passes(&*ledger, &said(7, Some("d")), true).await);
    assert!(!passes(&*ledger, &said(7, None), true).await);
    assert!(passes(&*ledger, &said(7, Some("c")), true).await, "counted already");
    for nth in 0..3 {
        assert!(passes(&*ledger, &said(8, None), true).await, "{nth}");
    }
    assert!(!passes(&*ledger, &said(8, Some("e")), true).await);
    wire.go_on();
    let up = || async { ledger.is_up() };
    eventually("the store is up", Duration::from_secs(10), up).await;
    // Messages before, a, b, c, and three of the other turn; each request a token.
    let gateway = rests(gateway, &redis, 7, 1 + 5 + 9 + 1 + 1 + 3).await;
    // What was counted alone is not Redis'.
    assert!(passes(&*gateway.ledger, &said(7, None), true).await);
}
