//! Several gateways on one Redis: one call, one budget, one truth about a licence.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::task::{JoinHandle, JoinSet};

use crate::{
    licenses::devices::{REQUIRED, activate, chat_on, deactivate, id_of},
    licenses::verdicts::unavailable,
    licenses::webhooks::{DISABLED, SECRET, send_signed},
    support::{
        Config, Gateway, Http, LICENSE, Mock, Mood, Redis, Reply, Says, Shop, eventually,
        shop::{BOUGHT, license_key},
        soon,
    },
};

/// Everything two gateways stand on. The gateways go first.
struct Pair {
    first: Gateway,
    second: Gateway,
    shop: Shop,
    redis: Redis,
    config: Config,
    _mock: Mock,
}

impl Pair {
    async fn start(change: impl FnOnce(Config) -> Config) -> Self {
        let (mock, shop) = (Mock::start(Reply::chat()).await, Shop::open().await);
        let redis = Redis::start().await;
        let config = Config::new(&mock)
            .lemonsqueezy(&shop)
            .webhook_secret("lemonsqueezy", SECRET)
            .server("trusted_proxies: [127.0.0.0/8]")
            .redis(&redis.url());
        let config = change(config);
        let first = Gateway::start(config.clone()).await;
        let second = Gateway::start(config.clone()).await;
        Self { first, second, shop, redis, config, _mock: mock }
    }

    fn gateways(&self) -> [&Gateway; 2] {
        [&self.first, &self.second]
    }

    /// Makes these licences known to both.
    async fn know(&self, keys: &[String]) {
        for key in keys {
            self.shop.sells(key, Says::license());
            for gateway in self.gateways() {
                gateway.app().chat_as(key).await.ok();
            }
        }
    }
}

/// Asks for these licences in turn, at both gateways, until told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    asking: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(pair: &Pair, keys: &[String]) -> Self {
        let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let asking = pair.gateways().map(|gateway| {
            let ask = ask_on(gateway.app(), keys.to_vec(), stop.clone(), served.clone());
            tokio::spawn(ask)
        });
        Self { stop, served, asking: asking.into() }
    }

    /// Waits for this many more answers.
    async fn goes_on(&self, answers: usize) {
        let from = self.served.load(Ordering::Relaxed);
        eventually("the load goes on", Duration::from_secs(20), || async {
            let refused = self.asking.iter().any(JoinHandle::is_finished);
            refused || self.served.load(Ordering::Relaxed) >= from + answers
        })
        .await;
    }

    /// Every answer was one of a provider.
    async fn ends(self) {
        self.stop.store(true, Ordering::Relaxed);
        for asking in self.asking {
            soon("the load ends", asking).await.expect("nobody is refused");
        }
    }
}

async fn ask_on(app: Http, keys: Vec<String>, stop: Arc<AtomicBool>, served: Arc<AtomicUsize>) {
    for key in keys.iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        app.chat_as(key).await.ok();
        served.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A Redis that the load keeps from answering is asked no longer, and each gateway calls for itself.
mod alone {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_thousand_first_requests_over_two_gateways_are_one_call() {
        let pair = Pair::start(|config| config).await;
        pair.shop.sells(BOUGHT, Says::license()).mood(Mood::Slow(Duration::from_millis(500)));
        let apps = pair.gateways().map(Gateway::app);
        let mut asking = JoinSet::new();
        for place in 0..1000 {
            let app = apps[place % 2].clone();
            asking.spawn(async move { app.chat_as(BOUGHT).await.status });
        }
        let statuses = asking.join_all().await;
        assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
        assert_eq!(pair.shop.calls_for(BOUGHT).len(), 1);
    }
}

/// One late answer is no reason to ask on one's own: Redis is as slow as this on a busy machine.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_moment_in_which_redis_is_slow_makes_no_second_call() {
    const LICENSES: usize = 12;
    // For 70 ms, exactly; a pause would end when Redis looks at its clock.
    const BUSY: &str = "local function now() \
                            local time = redis.call('TIME') \
                            return time[1] * 1000000 + time[2] \
                        end \
                        local began = now() \
                        while now() < began + 70000 do end";
    let pair = Pair::start(|config| config).await;
    pair.shop.mood(Mood::Slow(Duration::from_millis(200)));
    for place in 0..LICENSES {
        let key = license_key(place);
        pair.shop.sells(&key, Says::license());
        let asking = pair.gateways().map(|gateway| {
            let (app, key) = (gateway.app(), key.clone());
            tokio::spawn(async move { app.chat_as(&key).await.status })
        });
        // At every step of a first request, in turn.
        tokio::time::sleep(Duration::from_micros(place as u64 * 400)).await;
        pair.redis.ask(&["EVAL", BUSY, "0"]);
        for asked in asking {
            assert_eq!(asked.await.unwrap(), 200);
        }
        assert_eq!(pair.shop.calls_for(&key).len(), 1, "licence {place}");
    }
}

#[tokio::test]
async fn what_one_gateway_learns_the_other_knows() {
    let pair = Pair::start(|config| config).await;
    pair.shop.sells(BOUGHT, Says::license());
    pair.first.app().chat_as(BOUGHT).await.ok();
    pair.second.app().chat_as(BOUGHT).await.ok();
    for _ in 0..2 {
        for gateway in pair.gateways() {
            gateway.app().chat_as(&license_key(1)).await.is(403, "license_invalid");
        }
    }
    let calls = |key: &str| pair.shop.calls_for(key).len();
    assert_eq!((calls(BOUGHT), calls(&license_key(1))), (1, 1));
    // A third one comes later, and nobody is at the shop.
    pair.shop.close().await;
    let third = Gateway::start(pair.config.clone()).await;
    third.app().chat_as(BOUGHT).await.ok();
    assert_eq!(third.me(BOUGHT).await["plan"], "pro");
}

#[tokio::test]
async fn what_is_known_outlives_gateways_and_redis() {
    let mut pair = Pair::start(|config| config).await;
    pair.know(&[BOUGHT.to_owned()]).await;
    pair.shop.close().await;
    pair.first.kill();
    pair.redis.restart().await;
    pair.first.restart().await;
    pair.first.app().chat_as(BOUGHT).await.ok();
}

#[tokio::test]
async fn a_webhook_at_one_gateway_acts_at_the_other_within_a_second() {
    let pair = Pair::start(|config| config).await;
    pair.know(&[BOUGHT.to_owned()]).await;
    pair.shop.sells(BOUGHT, Says::refused("disabled"));
    let app = pair.second.app();
    app.chat_as(BOUGHT).await.ok();
    assert_eq!(send_signed(&pair.first, DISABLED).await.status, 200);
    eventually("the other gateway refuses", Duration::from_secs(1), || async {
        app.chat_as(BOUGHT).await.status == 403
    })
    .await;
    app.chat_as(BOUGHT).await.is(403, "license_disabled");
    pair.first.app().chat_as(BOUGHT).await.is(403, "license_disabled");
    assert_eq!(pair.shop.calls_for(BOUGHT).len(), 2);
}

/// Who could not hear the word of a webhook reads it up.
#[tokio::test]
async fn a_webhook_that_a_gateway_could_not_hear_acts_there_soon() {
    let pair = Pair::start(|config| config).await;
    pair.know(&[BOUGHT.to_owned()]).await;
    pair.shop.sells(BOUGHT, Says::refused("disabled"));
    assert_ne!(pair.redis.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]).text(), "0");
    assert_eq!(send_signed(&pair.first, DISABLED).await.status, 200);
    let app = pair.second.app();
    eventually("the other gateway refuses", Duration::from_secs(10), || async {
        app.chat_as(BOUGHT).await.status == 403
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_flushed_under_load_is_written_back() {
    let pair = Pair::start(|config| config).await;
    let keys: Vec<String> = (0..10).map(license_key).collect();
    pair.know(&keys).await;
    assert_eq!(pair.shop.calls().len(), keys.len());
    pair.shop.close().await;
    let load = Load::start(&pair, &keys);
    for _ in 0..3 {
        load.goes_on(20).await;
        pair.redis.flush();
    }
    // A gateway that knows nothing itself finds everything in Redis again.
    let third = Gateway::start(pair.config.clone()).await;
    let (app, began) = (third.app(), Instant::now());
    for key in &keys {
        loop {
            let answer = app.chat_from("198.51.100.9", key).await;
            if answer.status == 200 {
                break;
            }
            // Nor has it a lease: until all three have put back their usage, it grants nothing.
            if answer.error("code") != "store_unavailable" {
                unavailable(&answer);
            }
            assert!(began.elapsed() < Duration::from_secs(10), "{key} is not written back");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
    load.ends().await;
    assert_eq!(pair.shop.calls().len(), keys.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_may_die_and_come_back_under_load() {
    let mut pair = Pair::start(|config| config.cache("fresh: 2s, stale: 600s")).await;
    let keys: Vec<String> = (0..3).map(license_key).collect();
    pair.know(&keys).await;
    let load = Load::start(&pair, &keys);
    load.goes_on(50).await;
    pair.redis.kill();
    let died = Instant::now();
    // Long enough for every freshness to end.
    while died.elapsed() < Duration::from_millis(2_500) {
        load.goes_on(10).await;
    }
    pair.redis.restart().await;
    load.goes_on(200).await;
    load.ends().await;
    assert!(pair.shop.most_in_a_minute() <= 50 + 10, "{}", pair.shop.most_in_a_minute());
}

/// A gateway that dies while it asks takes the licence with it only for a moment.
#[tokio::test]
async fn when_the_one_that_asks_is_killed_the_other_goes_on() {
    let mut pair = Pair::start(|config| config).await;
    pair.shop.sells(BOUGHT, Says::license()).mood(Mood::Hangs);
    let app = pair.first.app();
    let hangs = tokio::spawn(async move {
        let request = app.get("/v1/me").bearer_auth(BOUGHT).send();
        let _ = request.await;
    });
    pair.shop.saw(BOUGHT, 1).await;
    pair.first.kill();
    let _ = hangs.await;
    pair.shop.mood(Mood::Well);
    let (app, killed) = (pair.second.app(), Instant::now());
    loop {
        let answer = app.chat_as(BOUGHT).await;
        if answer.status == 200 {
            break;
        }
        unavailable(&answer);
        assert!(killed.elapsed() < Duration::from_secs(20), "the lock is held for ever");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(pair.shop.calls_for(BOUGHT).len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_gateways_share_one_budget() {
    let pair = Pair::start(|config| config).await;
    let apps = pair.gateways().map(Gateway::app);
    let mut asking = JoinSet::new();
    for place in 0..160 {
        let app = apps[place % 2].clone();
        asking.spawn(async move {
            let answer = app.chat_from(&format!("198.51.{place}.1"), &license_key(place)).await;
            if answer.status != 403 {
                unavailable(&answer);
            }
            answer.status
        });
    }
    let statuses = asking.join_all().await;
    assert!(statuses.contains(&403) && statuses.contains(&503));
    let most = pair.shop.most_in_a_minute();
    assert!(most <= 50, "{most} calls in a minute");
}

/// Neither the file nor any shop knows devices of this licence: the gateways keep the list together.
#[tokio::test]
async fn a_device_of_one_gateway_is_one_of_the_other() {
    let pair = Pair::start(|config| config.plan("free", REQUIRED)).await;
    let max = json!(2);
    let one = id_of(&activate(&pair.first, LICENSE, "one").await, 1, &max);
    chat_on(&pair.second, LICENSE, Some(&one)).await.ok();
    let two = id_of(&activate(&pair.second, LICENSE, "two").await, 2, &max);
    chat_on(&pair.first, LICENSE, Some(&two)).await.ok();
    activate(&pair.first, LICENSE, "three").await.is(403, "device_limit");
    deactivate(&pair.second, LICENSE, &one).await.ok();
    eventually("the device is gone at both", Duration::from_secs(1), || async {
        chat_on(&pair.first, LICENSE, Some(&one)).await.status == 403
    })
    .await;
    let three = id_of(&activate(&pair.first, LICENSE, "three").await, 2, &max);
    for id in [&two, &three] {
        for gateway in pair.gateways() {
            chat_on(gateway, LICENSE, Some(id)).await.ok();
        }
    }
}

/// No list, no decision: an unknown device may be known to the others.
#[tokio::test]
async fn without_redis_a_device_that_is_not_known_is_not_refused() {
    let mut pair = Pair::start(|config| config.plan("free", REQUIRED)).await;
    let one = id_of(&activate(&pair.first, LICENSE, "one").await, 1, &json!(2));
    chat_on(&pair.first, LICENSE, Some(&one)).await.ok();
    pair.redis.kill();
    chat_on(&pair.first, LICENSE, Some(&one)).await.ok();
    unavailable(&chat_on(&pair.second, LICENSE, Some(&one)).await);
    pair.redis.restart().await;
    eventually("the other gateway asks Redis again", Duration::from_secs(5), || async {
        chat_on(&pair.second, LICENSE, Some(&one)).await.status == 200
    })
    .await;
}
