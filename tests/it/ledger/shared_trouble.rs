//! The store of several gateways in trouble: what is served meanwhile, and that nothing is lost.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::task::JoinHandle;

use crate::{
    ledger::shared_ledger::Fleet,
    support::{Gateway, LICENSE, Reply, eventually, repeat, sse},
};

const PLAN: &str = "messages: 10000000/month, tokens: 10000000000/month, models: [fast]";

/// Apps that ask on and on.
pub struct Load {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicU64>,
    /// The longest that an answer took, in milliseconds.
    slowest: Arc<AtomicU64>,
    apps: Vec<JoinHandle<()>>,
}

impl Load {
    pub fn on(gateways: &[Gateway], apps: usize, allowed: &'static [u16]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (served, slowest) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let gateways: Vec<_> = gateways.iter().map(Gateway::app).collect();
        let apps = (0..apps)
            .map(|nth| {
                let app = gateways[nth % gateways.len()].clone();
                let (stop, served, slowest) = (stop.clone(), served.clone(), slowest.clone());
                tokio::spawn(async move {
                    while !stop.load(Relaxed) {
                        let asked = Instant::now();
                        let answer = app.chat().await;
                        slowest.fetch_max(asked.elapsed().as_millis() as u64, Relaxed);
                        assert!(allowed.contains(&answer.status), "{}", answer.text());
                        served.fetch_add(u64::from(answer.status == 200), Relaxed);
                        tokio::time::sleep(Duration::from_millis(2)).await;
                    }
                })
            })
            .collect();
        Self { stop, served, slowest, apps }
    }

    /// How many were served in all.
    pub async fn end(self) -> u64 {
        self.stop.store(true, Relaxed);
        for app in self.apps {
            app.await.unwrap();
        }
        self.served.load(Relaxed)
    }
}

async fn a_while() {
    tokio::time::sleep(Duration::from_millis(400)).await;
}

/// Killed with -9 and started again, it has lost up to a second; the gateways put it back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_redis_costs_no_answer_and_no_count() {
    let mut fleet = Fleet::start(2, PLAN, Reply::chat(), "").await;
    let load = Load::on(&fleet.gateways, 6, &[200]);
    let kills: usize = repeat::times("GATEKEEPER_REDIS_KILLS", 3);
    for _ in 0..kills {
        a_while().await;
        fleet.redis.kill();
        a_while().await;
        fleet.redis.restart().await;
        fleet.is_counting().await;
    }
    a_while().await;
    let served = load.end().await;
    assert!(served > 100, "{served}");
    assert_eq!(fleet.mock.count() as u64, served);
    fleet.used_is(served, served * sse::TOKENS).await;
    println!("{kills} kills -9 of Redis under load: {served} answers, all of them counted once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_emptied_redis_is_filled_again_under_load() {
    let fleet = Fleet::start(3, PLAN, Reply::chat(), "").await;
    let load = Load::on(&fleet.gateways, 6, &[200]);
    for _ in 0..5 {
        a_while().await;
        fleet.redis.flush();
        fleet.redis.ask(&["SCRIPT", "FLUSH"]);
    }
    a_while().await;
    let served = load.end().await;
    fleet.used_is(served, served * sse::TOKENS).await;
}

/// A buyer who has used everything does not get it again because Redis was emptied.
#[tokio::test]
async fn an_emptied_redis_gives_nobody_a_second_quota() {
    let plan = "messages: 5/month, models: [fast]";
    let fleet = Fleet::start(2, plan, Reply::chat(), "on_store_down: closed").await;
    for turn in 0..5 {
        fleet.apps()[turn % 2].chat().await.ok();
    }
    for turn in 0..6 {
        fleet.redis.flush();
        let answer = fleet.apps()[turn % 2].chat().await;
        match answer.status {
            402 => answer.is(402, "quota_exceeded"),
            _ => answer.is(503, "store_unavailable"),
        };
        fleet.is_counting().await;
    }
    fleet.used_is(5, 5 * sse::TOKENS).await;
}

#[tokio::test]
async fn a_lease_is_two_percent_a_gateway_and_is_merged_back() {
    let plan = "messages: 1000/month, tokens: 10000000/month, models: [fast]";
    let mut fleet = Fleet::start(3, plan, Reply::chat(), "").await;
    for app in fleet.apps() {
        app.chat().await.ok();
    }
    fleet.redis.kill();
    let mut served = 0;
    for app in fleet.apps() {
        let mut leased = 0;
        // Each without a lease waits a second for the store.
        for _ in 0..22 {
            let answer = app.chat().await;
            if answer.status == 200 {
                assert_eq!(answer.header("x-quota-messages-remaining"), None);
                leased += 1;
            } else {
                answer.is(503, "store_unavailable");
                assert!(answer.number("retry-after") <= 60);
            }
        }
        assert_eq!(leased, 20);
        served += leased;
        // It can't be known.
        let me = app.get("/v1/me").bearer_auth(LICENSE).send().await.unwrap();
        assert_eq!(me.status(), 503);
    }
    fleet.redis.restart().await;
    let back = Instant::now();
    fleet.is_counting().await;
    assert!(back.elapsed() < Duration::from_secs(2), "{:?}", back.elapsed());
    fleet.used_is(3 + served, (3 + served) * sse::TOKENS).await;
    // It is had once a month, whatever restarts between.
    fleet.gateways[1].restart().await;
    fleet.is_counting().await;
    fleet.apps()[0].chat().await.ok();
    fleet.apps()[1].chat().await.ok();
    fleet.redis.kill();
    fleet.apps()[0].chat().await.is(503, "store_unavailable");
    fleet.apps()[1].chat().await.is(503, "store_unavailable");
}

/// Never more than was left when it was last seen.
#[tokio::test]
async fn a_lease_ends_where_the_quota_did() {
    let plan = "messages: 500/month, models: [fast]";
    let mut fleet = Fleet::start(1, plan, Reply::chat(), "").await;
    let chat = crate::support::client::chat(&serde_json::json!({}));
    let mut served = 0;
    let app = fleet.gateways[0].app();
    // Few at a time: a machine that is busy elsewhere must not take the store for slow.
    while served < 497 {
        let answers = fleet.ask((497 - served).min(20), &chat).await;
        served += answers.iter().filter(|answer| answer.status == 200).count();
    }
    fleet.is_counting().await;
    fleet.redis.kill();
    let mut leased = 0;
    for _ in 0..5 {
        leased += u64::from(app.chat().await.status == 200);
    }
    assert_eq!(leased, 3);
    fleet.redis.restart().await;
    fleet.is_counting().await;
    app.chat().await.is(402, "quota_exceeded");
    fleet.used_is(500, 500 * sse::TOKENS).await;
}

#[tokio::test]
async fn a_stranger_gets_no_lease_and_closed_means_closed() {
    let mut fleet = Fleet::start(1, PLAN, Reply::chat(), "").await;
    fleet.redis.kill();
    // Nothing was ever decided about this licence here.
    fleet.gateways[0].app().chat().await.is(503, "store_unavailable");
    let mut closed = Fleet::start(1, PLAN, Reply::chat(), "on_store_down: closed").await;
    closed.gateways[0].app().chat().await.ok();
    closed.redis.kill();
    closed.gateways[0].app().chat().await.is(503, "store_unavailable");
    closed.redis.restart().await;
    closed.is_counting().await;
    closed.gateways[0].app().chat().await.ok();
    closed.used_is(2, 2 * sse::TOKENS).await;
}

/// Starts without its store, and finds it when it comes.
#[tokio::test]
async fn a_gateway_starts_before_its_store() {
    let mut fleet = Fleet::start(1, PLAN, Reply::chat(), "").await;
    fleet.redis.kill();
    fleet.gateways[0].restart().await;
    fleet.gateways[0].app().chat().await.is(503, "store_unavailable");
    fleet.redis.restart().await;
    fleet.is_counting().await;
    fleet.gateways[0].app().chat().await.ok();
}

/// Keys of a licence that hold something else, and memory that is used up.
#[tokio::test]
async fn a_store_that_takes_nothing_is_no_reason_to_guess() {
    let fleet = Fleet::start(1, PLAN, Reply::chat(), "on_store_down: closed").await;
    let gateway: &Gateway = &fleet.gateways[0];
    gateway.app().chat().await.ok();
    let keys = fleet.redis.ask(&["KEYS", "gk:{*}:used"]).list();
    let key = keys[0].text();
    fleet.redis.ask(&["SET", &key, "nonsense"]);
    gateway.app().chat().await.is(503, "store_unavailable");
    // Allowances for outages hide it from apps; the log names the script and what Redis said.
    let logs = gateway.logs();
    let told: Vec<&str> =
        logs.lines().filter(|line| line.contains("is up and answers `")).collect();
    // The first request may still be settling.
    let is_named = ["reserve", "settle"].iter().any(|name| told[0].contains(&format!("`{name}`")));
    assert!(is_named && told[0].contains("ERROR") && told[0].contains("WRONGTYPE"), "{logs}");
    eventually("it is put right", Duration::from_secs(5), || async {
        gateway.app().chat().await.status == 200
    })
    .await;
    fleet.used_is(2, 2 * sse::TOKENS).await;
    fleet.redis.ask(&["CONFIG", "SET", "maxmemory", "1"]);
    gateway.app().chat().await.is(503, "store_unavailable");
    fleet.redis.ask(&["CONFIG", "SET", "maxmemory", "0"]);
    fleet.is_counting().await;
    gateway.app().chat().await.ok();
    fleet.used_is(3, 3 * sse::TOKENS).await;
}

/// They measure the machine, or keep all of it busy: `make test` runs them with nothing beside them.
mod alone {
    use super::*;

    /// A Redis that hangs holds nobody up.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_paused_redis_is_waited_for_a_moment_only() {
        let fleet = Fleet::start(2, PLAN, Reply::chat(), "").await;
        let load = Load::on(&fleet.gateways, 8, &[200]);
        let mut slowest = longest_in_a_pause(&fleet, &load).await;
        // 100 ms for Redis, some 35 for the answer; a machine that stood still does not do so twice.
        if slowest >= 200 {
            println!("{slowest} ms, once more");
            fleet.is_counting().await;
            slowest = longest_in_a_pause(&fleet, &load).await;
        }
        assert!(slowest < 200, "{slowest} ms");
        fleet.is_counting().await;
        a_while().await;
        let served = load.end().await;
        fleet.used_is(served, served * sse::TOKENS).await;
    }

    /// The longest that an answer took while Redis was paused, in milliseconds.
    async fn longest_in_a_pause(fleet: &Fleet, load: &Load) -> u64 {
        a_while().await;
        let pause = repeat::time("GATEKEEPER_PAUSE_SECONDS", 2.0);
        let before = load.served.load(Relaxed);
        load.slowest.store(0, Relaxed);
        fleet.redis.ask(&["CLIENT", "PAUSE", &pause.as_millis().to_string(), "ALL"]);
        // Redis answers when the pause is over.
        let paused = Instant::now();
        tokio::task::block_in_place(|| fleet.redis.ask(&["PING"]));
        assert!(paused.elapsed() > pause / 2, "it was not paused");
        let slowest = load.slowest.load(Relaxed);
        let served = load.served.load(Relaxed) - before;
        assert!(served > 20 * 8 * pause.as_secs(), "{served} answers in {pause:?}");
        slowest
    }
}
