//! The shop is asked fifty times a minute at most, and whoever tries keys keeps no buyer out.

use std::{
    collections::HashMap,
    fs,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use tokio::task::JoinSet;

use crate::{
    licenses::known::restart_knowing,
    licenses::verdicts::{start, unavailable},
    support::{
        Config, Gateway, Http, LICENSE, Mock, Mood, Noise, Raw, Reply, Says, Shop, eventually,
        repeat,
        shop::{BOUGHT, license_key},
        within,
    },
};

/// Calls a minute, in all.
const BUDGET: usize = 50;
/// Those of them that new keys may have.
const NEW: usize = 30;
/// Never-seen keys a minute and address.
const TRIES: usize = 20;
/// Addresses of [`Flood`].
const ADDRESSES: usize = 50;
/// How long the flood takes where the machine keeps up, and how long it goes on at most, however many keys it tries:
/// calls are counted by the minute.
const PACE: Duration = Duration::from_secs(45);
const LIMIT: Duration = Duration::from_secs(58);

fn behind_a_proxy(config: Config, shop: &Shop) -> Config {
    config.lemonsqueezy(shop).server("trusted_proxies: [127.0.0.0/8]")
}

/// A key nobody has.
fn random_key(noise: &mut Noise) -> String {
    let mut part = |digits: usize| format!("{:0digits$X}", noise.below(1 << (4 * digits)));
    format!("{}-{}-4{}-9{}-{}", part(8), part(4), part(3), part(3), part(12))
}

/// Counts by the minute begin anew with it: not in the middle of a test.
async fn away_from_the_turn_of_the_minute() {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let second = now.as_secs() % 60;
    if second > 54 {
        tokio::time::sleep(Duration::from_secs(60 - second)).await;
    }
}

/// Tries a new key from each of these addresses at once; how many were refused for being too many.
async fn too_many(app: &Http, addresses: Vec<String>, noise: &mut Noise) -> usize {
    let mut asking = JoinSet::new();
    for address in addresses {
        let (app, key) = (app.clone(), random_key(noise));
        asking.spawn(async move {
            let answer = app.chat_from(&address, &key).await;
            match answer.status {
                429 => {
                    assert!(answer.is(429, "rate_limited").number("retry-after") <= 60);
                    1
                }
                403 => 0,
                _ => {
                    unavailable(&answer);
                    0
                }
            }
        });
    }
    asking.join_all().await.into_iter().sum()
}

#[tokio::test]
async fn an_address_may_try_twenty_new_keys_a_minute() {
    let (_mock, shop, gateway) = start(behind_a_proxy).await;
    shop.sells(BOUGHT, Says::license());
    let (app, mut noise) = (gateway.app(), Noise::new(1));
    app.chat_from("198.51.100.1", BOUGHT).await.ok();
    away_from_the_turn_of_the_minute().await;
    let addresses = vec!["198.51.100.1".to_owned(); TRIES + 10];
    let refused = too_many(&app, addresses, &mut noise).await;
    assert!((9..=10).contains(&refused), "{refused} of {} were too many", TRIES + 10);
    // Whoever has one IPv6 address has 2^64 of them.
    away_from_the_turn_of_the_minute().await;
    let addresses = (0..TRIES + 10).map(|place| format!("2001:db8:0:1::{place:x}")).collect();
    let refused = too_many(&app, addresses, &mut noise).await;
    assert!((9..=10).contains(&refused), "{refused} of one network were too many");
    // Another address, another network, and a known licence from the same address.
    for address in ["198.51.100.2", "2001:db8:0:2::1"] {
        let answer = app.chat_from(address, &random_key(&mut noise)).await;
        assert_ne!(answer.status, 429, "{address}");
    }
    app.chat_from("198.51.100.1", BOUGHT).await.ok();
}

/// A key that was tried before is no new one: typing it again is no attack.
#[tokio::test]
async fn the_same_key_may_be_asked_again_and_again() {
    let (_mock, shop, gateway) = start(behind_a_proxy).await;
    let app = gateway.app();
    for _ in 0..3 * TRIES {
        app.chat_from("198.51.100.1", &license_key(1)).await.is(403, "license_invalid");
    }
    assert_eq!(shop.calls().len(), 1);
}

#[tokio::test]
async fn a_header_from_who_is_no_proxy_names_no_address() {
    let (_mock, _shop, gateway) = start(|config, shop| config.lemonsqueezy(shop)).await;
    let (app, mut noise) = (gateway.app(), Noise::new(2));
    let addresses = (0..2 * TRIES + 10).map(|place| format!("198.51.100.{place}")).collect();
    let refused = too_many(&app, addresses, &mut noise).await;
    assert!(refused > 0, "whoever writes a header may try as many keys as he likes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_keys_leave_a_part_of_the_budget_to_known_licences() {
    let (_mock, shop, gateway) =
        start(|config, shop| behind_a_proxy(config, shop).cache("fresh: 2s, stale: 600s")).await;
    shop.sells(BOUGHT, Says::license());
    gateway.app().chat_from("198.51.100.250", BOUGHT).await.ok();
    let (app, mut noise) = (gateway.app(), Noise::new(3));
    let mut asking = JoinSet::new();
    for place in 0..120 {
        let (app, key) = (app.clone(), random_key(&mut noise));
        asking.spawn(async move {
            let answer = app.chat_from(&format!("198.51.{place}.1"), &key).await;
            if answer.status != 403 {
                unavailable(&answer);
            }
            answer.status
        });
    }
    shop.saw_any(8).await;
    // Its freshness ends in the middle of that.
    shop.sells(BOUGHT, Says::refused("disabled"));
    eventually("a known licence is checked again", Duration::from_secs(10), || async {
        app.chat_from("198.51.100.250", BOUGHT).await.status == 403
    })
    .await;
    let statuses = asking.join_all().await;
    let unknown = shop.calls().len() - shop.calls_for(BOUGHT).len();
    assert!(statuses.contains(&503), "120 keys found room");
    assert!(unknown <= NEW, "{unknown} calls about new keys");
    assert!(shop.most_in_a_minute() <= BUDGET);
}

/// Addresses that try keys nobody has.
struct Flood {
    gateway: SocketAddr,
    keys: usize,
    began: Instant,
    sent: AtomicUsize,
    statuses: parking_lot::Mutex<HashMap<u16, usize>>,
}

impl Flood {
    fn sent(&self) -> usize {
        self.sent.load(Ordering::Relaxed)
    }

    /// One address, over one connection as long as that lasts.
    async fn from(self: Arc<Self>, place: usize, mut noise: Noise) {
        let mut raw = None;
        let turns = self.keys / ADDRESSES;
        for turn in 0..turns {
            if self.began.elapsed() > LIMIT {
                return;
            }
            let due = self.began + PACE * turn as u32 / turns as u32;
            tokio::time::sleep_until(due.into()).await;
            let mut connection = match raw.take() {
                Some(connection) => connection,
                None => Raw::to(self.gateway).await.unwrap(),
            };
            let key = random_key(&mut noise);
            connection
                .send(format!(
                    "GET /v1/me HTTP/1.1\r\nhost: x\r\nx-forwarded-for: 203.0.113.{place}\r\n\
                     authorization: Bearer {key}\r\n\r\n"
                ))
                .await;
            self.sent.fetch_add(1, Ordering::Relaxed);
            if let Some(answer) = connection.answer().await {
                *self.statuses.lock().entry(answer.status).or_default() += 1;
                raw = Some(connection);
            }
        }
    }
}

/// Resident memory of a process, in KiB.
fn memory(pid: u32) -> i64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_random_keys_costs_fifty_calls_and_keeps_no_buyer_out() {
    let (_mock, shop, gateway) = start(behind_a_proxy).await;
    shop.sells(BOUGHT, Says::license());
    let app = gateway.app();
    for _ in 0..200 {
        app.chat_from("198.51.100.1", LICENSE).await.ok();
    }
    let before = memory(gateway.pid());
    let flood = Arc::new(Flood {
        gateway: gateway.public,
        keys: repeat::times("GATEKEEPER_FLOOD_KEYS", 10_000),
        began: Instant::now(),
        sent: AtomicUsize::default(),
        statuses: parking_lot::Mutex::default(),
    });
    let mut flooding = JoinSet::new();
    for place in 1..=ADDRESSES {
        flooding.spawn(flood.clone().from(place, Noise::new(1_000 + place as u64)));
    }
    eventually("the flood is in its second half", LIMIT, || async {
        flood.sent() > flood.keys / 2 || flood.began.elapsed() > LIMIT / 2
    })
    .await;
    let answer =
        within(Duration::from_secs(2), "a buyer", app.chat_from("192.0.2.1", BOUGHT)).await;
    answer.ok();
    assert!(flood.sent() < flood.keys, "the flood was over");
    flooding.join_all().await;
    let sent = flood.sent();
    let grown = memory(gateway.pid()) - before;
    let statuses = flood.statuses.lock().clone();
    println!(
        "{sent} random keys from {ADDRESSES} addresses in {:?}: {} calls to the shop, {grown} KiB \
         more memory, answers {statuses:?}",
        flood.began.elapsed(),
        shop.calls().len(),
    );
    assert!(sent > flood.keys / 5, "no flood: {sent} keys");
    assert!(statuses.keys().all(|status| [403, 429, 503].contains(status)), "{statuses:?}");
    assert!(shop.most_in_a_minute() <= BUDGET, "{} calls", shop.most_in_a_minute());
    assert!(grown < 40 * 1024, "{grown} KiB more");
    app.chat_from("192.0.2.1", BOUGHT).await.ok();
}

/// Everybody's freshness ends in one second, and the shop takes sixty calls a minute.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_licences_that_end_at_once_are_all_served() {
    let (mock, shop) = (Mock::start(Reply::chat()).await, Shop::open().await);
    shop.allows(60);
    let config = Config::new(&mock).lemonsqueezy(&shop).cache("fresh: 2s, stale: 600s");
    let mut gateway = Gateway::start(config).await;
    let keys: Vec<String> = (0..1_000).map(license_key).collect();
    for key in &keys {
        shop.sells(key, Says::license());
    }
    gateway.app().chat_as(&keys[0]).await.ok();
    let checked = Instant::now();
    restart_knowing(&mut gateway, &keys[0], &keys[1..]).await;
    shop.mood(Mood::Slow(Duration::from_millis(50)));
    tokio::time::sleep_until((checked + Duration::from_millis(2_100)).into()).await;
    for round in 0..2 {
        let app = gateway.app();
        let mut asking = JoinSet::new();
        for key in keys.clone() {
            let app = app.clone();
            asking.spawn(async move { app.chat_as(&key).await.status });
        }
        let statuses = asking.join_all().await;
        let served = statuses.iter().filter(|status| **status == 200).count();
        assert_eq!(served, keys.len(), "round {round}");
    }
    // And the shop is asked about them meanwhile, as far as that goes.
    eventually("the shop is asked", Duration::from_secs(10), || async { shop.calls().len() >= 10 })
        .await;
    assert!(shop.most_in_a_minute() <= BUDGET, "{} calls", shop.most_in_a_minute());
}
