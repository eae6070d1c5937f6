//! Questions to Redis that come late: a connection that was replaced delivers what was written to it when it
//! likes, also after the same was asked again and answered over another one.

use std::time::Duration;

use gatekeeper::config::settings::OnStoreDown;
use gatekeeper_filters::kernel::Ledger;

use crate::{
    ledger::shared_exact::{Gateway, LICENSE, charge, demand, gateway, rests_at},
    ledger::slow_wire::SlowWire,
    support::{Redis, eventually},
};

const LIMIT: u64 = 100;

/// A request that Redis was asked about twice, as the answer to the first question was late.
struct AskedTwice {
    redis: Redis,
    gateway: Gateway,
    hold: u64,
    first: Vec<String>,
    _wire: SlowWire,
}

impl AskedTwice {
    async fn begin() -> Self {
        let redis = Redis::start().await;
        let wire = SlowWire::to(redis.port(), 0, 0, 1).await;
        let gateway = gateway(&wire.url(), OnStoreDown::Closed).await;
        // Redis knows the scripts from now on.
        let before = gateway.ledger.reserve(&demand(LIMIT, None)).await.unwrap();
        gateway.ledger.settle(before.hold, charge(true, 1));
        rests_at(std::slice::from_ref(&gateway), &redis, LIMIT, 1, 1).await;
        let monitor = redis.monitor();
        let wanted = demand(LIMIT, Some("m".into()));
        let (_, grant) =
            tokio::join!(wire.pause(Duration::from_millis(500)), gateway.ledger.reserve(&wanted));
        // Twice, and once more if a minute ended meanwhile.
        let asked = || monitor.calls(":message:9m");
        eventually("both are heard", Duration::from_secs(5), || async { asked().len() >= 2 }).await;
        let (hold, first) = (grant.unwrap().hold, asked().swap_remove(0));
        Self { redis, gateway, hold, first, _wire: wire }
    }

    /// The first question comes once more.
    fn repeat(&self) {
        let words: Vec<&str> = self.first.iter().map(String::as_str).collect();
        self.redis.ask(&words).list();
    }

    /// Gives the message back.
    async fn settle(&self) {
        self.gateway.ledger.settle(self.hold, charge(false, 7));
        self.gateway.ledger.flush().await;
    }

    /// The next request of the id pays its message, and nothing was lost.
    async fn counts_both(self) {
        let next = self.gateway.ledger.reserve(&demand(LIMIT, Some("m".into()))).await.unwrap();
        self.gateway.ledger.settle(next.hold, charge(true, 7));
        let used = format!("gk:{{{}}}:used", LICENSE.to_hex());
        rests_at(&[self.gateway], &self.redis, LIMIT, 2, 15).await;
        assert_eq!(self.redis.ask(&["HEXISTS", &used, "e"]).text(), "0", "taken for a loss");
    }
}

#[tokio::test]
async fn a_question_that_comes_while_its_request_is_open_changes_nothing() {
    let asked = AskedTwice::begin().await;
    asked.repeat();
    asked.settle().await;
    asked.counts_both().await;
}

#[tokio::test]
async fn a_question_that_comes_after_the_end_of_its_request_is_granted_nothing() {
    let asked = AskedTwice::begin().await;
    asked.settle().await;
    for _ in 0..2 {
        asked.repeat();
    }
    asked.counts_both().await;
}

/// What is granted without Redis costs what it costs with it: an id is one message, whoever of its requests
/// was decided on where.
#[tokio::test]
async fn an_id_that_is_served_without_redis_is_one_message_all_the_same() {
    const LIMIT: u64 = 1_000;
    let redis = Redis::start().await;
    let wire = SlowWire::to(redis.port(), 0, 0, 1).await;
    let gateway = gateway(&wire.url(), OnStoreDown::Lease).await;
    let ledger = gateway.ledger.clone();
    let take = async |id: &str| ledger.reserve(&demand(LIMIT, Some(id.into()))).await.unwrap().hold;
    ledger.settle(take("paid").await, charge(true, 1));
    let (owner, gives_back) = (take("owned").await, take("back").await);
    ledger.flush().await;

    wire.stop();
    for (id, costs) in [
        ("paid", true),
        ("owned", true),
        ("back", true),
        ("new", true),
        ("new", true),
        ("no", false),
    ] {
        ledger.settle(take(id).await, charge(costs, 1));
    }
    let still_open = take("late").await;
    ledger.settle(owner, charge(true, 1));
    ledger.settle(gives_back, charge(false, 1));
    wire.go_on();
    eventually("it is back", Duration::from_secs(10), || async { ledger.is_up() }).await;
    ledger.settle(still_open, charge(true, 1));
    let gateways = [gateway];
    rests_at(&gateways, &redis, LIMIT, 5, 10).await;
    assert_eq!(gateways[0].local.open_reservations(), 0);
    for id in ["paid", "owned", "back", "new", "late"] {
        ledger.settle(take(id).await, charge(true, 1));
    }
    rests_at(&gateways, &redis, LIMIT, 5, 15).await;
    ledger.settle(take("no").await, charge(true, 1));
    rests_at(&gateways, &redis, LIMIT, 6, 16).await;
}
