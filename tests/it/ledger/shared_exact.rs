//! The ledger of several gateways over a wire that is slow and stands still: every message and token is
//! counted once, with message ids and without, and nothing is refused that the limit allows.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use gatekeeper::{
    config::settings::OnStoreDown,
    ledger::{DistributedLedger, EmbeddedLedger, Residency},
    redis_store::{RedisStore, url::RedisUrl},
};
use gatekeeper_filters::kernel::{
    About, Charge, Demand, Denied, Grant, Ledger, LicenseId, Limit, Period, UnixMs, UsageSource,
};

use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::{
    ledger::slow_wire::SlowWire,
    support::{Noise, Redis, eventually},
};

pub const LICENSE: LicenseId = LicenseId([9; 32]);
const TOKENS: u64 = 1 << 40;

pub struct Gateway {
    pub ledger: Arc<DistributedLedger>,
    pub local: Arc<EmbeddedLedger>,
    pub store: Arc<RedisStore>,
    _dir: TempDir,
}

pub async fn gateway(url: &str, on_down: OnStoreDown) -> Gateway {
    let dir = TempDir::new().unwrap();
    let local = EmbeddedLedger::open(
        &dir.path().join("g.db"),
        Duration::from_secs(3600),
        Residency::Complete,
    )
    .unwrap();
    let store = RedisStore::new(RedisUrl::parse(url).unwrap(), false).unwrap();
    let naming = |license: &LicenseId, id: &str| format!("{}{id}", license.0[0]);
    let ledger =
        DistributedLedger::open(local.clone(), store.clone(), on_down, Box::new(naming)).unwrap();
    store.start(vec![ledger.subscriber()]);
    eventually("the store is up", Duration::from_secs(10), || async { ledger.is_up() }).await;
    Gateway { ledger, local, store, _dir: dir }
}

async fn gateways(count: usize, url: &str, on_down: OnStoreDown) -> Vec<Gateway> {
    let mut gateways = Vec::new();
    for _ in 0..count {
        gateways.push(gateway(url, on_down).await);
    }
    gateways
}

fn month(count: u64) -> Option<Limit> {
    Some(Limit { count, per: Period::Month })
}

pub fn demand(limit: u64, id: Option<String>) -> Demand {
    Demand {
        license: LICENSE,
        now: UnixMs::now(),
        about: About::default(),
        messages: month(limit),
        tokens: month(TOKENS),
        input: 10,
        input_cost: 0,
        output: Some(90),
        min_output: 20,
        pace: None,
        message_id: id.map(Into::into),
        conversation: None,
    }
}

pub fn charge(message: bool, tokens: u64) -> Charge {
    Charge { message, tokens, source: UsageSource::Reported, about: None }
}

/// Messages used, tokens used, and open requests, as a gateway says.
async fn standing(gateway: &Gateway, limit: u64) -> (u64, u64, u64) {
    let known = gateway.ledger.overview(&LICENSE, month(limit), month(TOKENS)).await;
    let known = known.expect("the store answers");
    (known.balance.messages.used, known.balance.tokens.used, known.open)
}

/// All gateways say this, and nothing is open or presumed.
pub async fn rests_at(gateways: &[Gateway], redis: &Redis, limit: u64, messages: u64, tokens: u64) {
    let began = Instant::now();
    loop {
        let mut said = Vec::new();
        for gateway in gateways {
            said.push(standing(gateway, limit).await);
        }
        if said.iter().all(|said| *said == (messages, tokens, 0)) {
            break;
        }
        let late = began.elapsed() > Duration::from_secs(8);
        assert!(!late, "expected {messages} messages, {tokens} tokens: {said:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let keys = redis.ask(&["KEYS", "gk:{*}:used"]).list();
    for field in redis.ask(&["HKEYS", &keys[0].text()]).list() {
        assert!(!field.text().starts_with("p:"), "{} is presumed", field.text());
    }
}

/// What requests of one id, or one without, came to.
#[derive(Default)]
struct Came {
    granted: u64,
    charged: bool,
}

/// What anybody would write down on paper.
#[derive(Default)]
struct Paper {
    ids: Mutex<BTreeMap<String, Came>>,
    alone: AtomicU64,
    tokens: AtomicU64,
    refused: AtomicU64,
    down: AtomicU64,
}

impl Paper {
    /// Distinct ids, each ten requests, and requests without one.
    fn messages(&self) -> u64 {
        let of = |came: &Came| if came.charged { came.granted.div_ceil(10) } else { 0 };
        self.ids.lock().values().map(of).sum::<u64>() + self.alone.load(Relaxed)
    }

    fn settled(&self, id: Option<&str>, message: bool, tokens: u64) {
        self.tokens.fetch_add(tokens, Relaxed);
        match id {
            None => drop(self.alone.fetch_add(u64::from(message), Relaxed)),
            Some(id) => {
                let mut ids = self.ids.lock();
                let came = ids.entry(id.to_owned()).or_default();
                came.granted += 1;
                came.charged |= message;
            }
        }
    }
}

/// How apps ask.
#[derive(Clone, Copy)]
struct Manner {
    limit: u64,
    /// Requests in all.
    requests: u64,
    /// In so many of a hundred requests nothing came of it, for the message.
    fails: u64,
}

/// One app after the other takes a request, waits a little, and settles it.
async fn app(
    ledger: Arc<DistributedLedger>,
    paper: Arc<Paper>,
    left: Arc<AtomicU64>,
    manner: Manner,
    seed: u64,
) {
    let mut noise = Noise::new(seed);
    while left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok() {
        // Half of them share an id, by one to ten; where some fail, an id stands for at most ten.
        let id = (noise.below(2) == 0).then(|| format!("m{}", noise.below(manner.requests / 10)));
        let id = id.filter(|id| {
            manner.fails == 0 || paper.ids.lock().get(id).is_none_or(|came| came.granted < 5)
        });
        match ledger.reserve(&demand(manner.limit, id.clone())).await {
            Ok(Grant { hold, .. }) => {
                tokio::time::sleep(Duration::from_millis(noise.below(12))).await;
                let (message, tokens) = (noise.below(100) >= manner.fails, noise.below(90));
                ledger.settle(hold, charge(message, tokens));
                paper.settled(id.as_deref(), message, tokens);
            }
            Err(Denied::Messages { used, .. }) => {
                assert!(used >= manner.limit, "refused at {used} of {}", manner.limit);
                paper.refused.fetch_add(1, Relaxed);
            }
            Err(Denied::StoreDown) => {
                // Asked again, as a client does; what was given up on its way must not be counted.
                left.fetch_add(1, Relaxed);
                paper.down.fetch_add(1, Relaxed);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(other) => panic!("{other:?}"),
        }
    }
}

/// Runs apps at gateways over a slow wire that stands still now and then.
async fn walk(count: usize, manner: Manner, seed: u64) -> (Vec<Gateway>, Redis, Arc<Paper>) {
    let redis = Redis::start().await;
    let wire = Arc::new(SlowWire::to(redis.port(), 0, 20, seed).await);
    let gateways = gateways(count, &wire.url(), OnStoreDown::Closed).await;
    let (paper, left) = (Arc::new(Paper::default()), Arc::new(AtomicU64::new(manner.requests)));
    let mut apps = JoinSet::new();
    for nth in 0..24 {
        let ledger = gateways[nth % count].ledger.clone();
        apps.spawn(app(ledger, paper.clone(), left.clone(), manner, seed + nth as u64));
    }
    let stop = Arc::new(AtomicBool::new(false));
    let pauses = tokio::spawn({
        let (stop, wire) = (stop.clone(), wire.clone());
        async move {
            while !stop.load(Relaxed) {
                tokio::time::sleep(Duration::from_millis(300)).await;
                wire.pause(Duration::from_millis(600)).await;
            }
        }
    });
    while let Some(done) = apps.join_next().await {
        done.unwrap();
    }
    stop.store(true, Relaxed);
    pauses.await.unwrap();
    // The wire ends with the test.
    std::mem::forget(wire);
    (gateways, redis, paper)
}

/// How much longer than in `make test`.
fn times() -> u64 {
    std::env::var("GATEKEEPER_LEDGER_TIMES").ok().and_then(|times| times.parse().ok()).unwrap_or(1)
}

/// Nothing flushes between the steps: what a gateway has settled is on its way when the next asks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_a_slow_wire_every_message_and_token_is_counted_once() {
    for (gateways, seed) in [(1, 11), (3, 12)] {
        for turn in 0..times() {
            let manner = Manner { limit: 1_000_000, requests: 1_500, fails: 30 };
            let seed = seed + 1_000 * turn;
            let (gateways, redis, paper) = walk(gateways, manner, seed).await;
            println!(
                "seed {seed}: {} messages, {:?} told to ask again",
                paper.messages(),
                paper.down
            );
            assert_eq!(paper.refused.load(Relaxed), 0);
            assert_eq!(paper.down.load(Relaxed), 0, "told to ask again");
            let tokens = paper.tokens.load(Relaxed);
            rests_at(&gateways, &redis, manner.limit, paper.messages(), tokens).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_a_slow_wire_exactly_the_limit_is_served() {
    for (gateways, seed) in [(1, 21), (3, 22)] {
        for turn in 0..times() {
            let manner = Manner { limit: 300, requests: 1_200, fails: 0 };
            let seed = seed + 1_000 * turn;
            let (gateways, redis, paper) = walk(gateways, manner, seed).await;
            println!("seed {seed}: {} refused", paper.refused.load(Relaxed));
            assert!(paper.refused.load(Relaxed) > 0);
            assert_eq!(paper.messages(), manner.limit, "served");
            let tokens = paper.tokens.load(Relaxed);
            rests_at(&gateways, &redis, manner.limit, manner.limit, tokens).await;
        }
    }
}

/// An owner that was given up pays for the one of its id that was charged, though a list of what is open left
/// its entry out, and though the answer is lost: asked again, the store says the same.
#[tokio::test]
async fn an_owner_that_is_given_up_pays_though_its_entry_is_gone() {
    let redis = Redis::start().await;
    let gateway = gateway(&redis.url(), OnStoreDown::Closed).await;
    let ask = || async { gateway.ledger.reserve(&demand(10, Some("m".into()))).await.unwrap() };
    let _owner = ask().await;
    let key = |kind: &str| format!("gk:{{{}}}:{kind}", LICENSE.to_hex());
    let (used, open, group) = (key("used"), key("open"), key("message:9m"));
    let names = || redis.ask(&["HKEYS", &open]).list();
    let owner = names()[0].text();
    gateway.ledger.settle(ask().await.hold, charge(true, 7));
    eventually("it is told", Duration::from_secs(5), || async { names().len() == 1 }).await;
    redis.ask(&["HDEL", &open, &owner]);

    let script = concat!(
        include_str!("../../../src/ledger/distributed/account.lua"),
        include_str!("../../../src/ledger/distributed/ending.lua"),
        include_str!("../../../src/ledger/distributed/cancel.lua")
    );
    let [name, boot, _] = *owner.split(':').collect::<Vec<_>>() else { panic!("{owner}") };
    let cancel = || redis.ask(&["EVAL", script, "3", &used, &open, &group, name, boot, &owner]);
    for turn in 0..2 {
        assert_eq!(cancel().list().len(), 2, "turn {turn}: the name of what has to pay");
    }
}

/// Fifty are held open and end together, while others ask: each has an id of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_of_their_own_pass_no_limit_when_they_end_together() {
    const LIMIT: u64 = 50;
    for (turn, count) in [1, 1, 2].into_iter().enumerate() {
        // Of its own: the gateways of the turn before would put back what they know.
        let redis = Redis::start().await;
        let wire = SlowWire::to(redis.port(), 8, 8, 1).await;
        let gateways = gateways(count, &wire.url(), OnStoreDown::Closed).await;
        let ask = |nth: u64| {
            let ledger = gateways[nth as usize % count].ledger.clone();
            async move {
                let asked = ledger.reserve(&demand(LIMIT, Some(format!("own-{nth}")))).await;
                (ledger, asked)
            }
        };
        let held: JoinSet<_> = (0..LIMIT).map(ask).collect();
        let held = held.join_all().await;
        let mut more = JoinSet::new();
        for (nth, (ledger, grant)) in held.into_iter().enumerate() {
            ledger.settle(grant.expect("room for fifty").hold, charge(true, 7));
            more.spawn(ask(LIMIT + 2 * nth as u64));
            more.spawn(ask(LIMIT + 2 * nth as u64 + 1));
        }
        let passed = more.join_all().await.into_iter().filter(|(_, asked)| asked.is_ok()).count();
        assert_eq!(passed, 0, "turn {turn}");
        rests_at(&gateways, &redis, LIMIT, LIMIT, 7 * LIMIT).await;
    }
}

/// Requests with ids that end while Redis is silent, or whose gateway is slow to hear, leave nothing
/// behind: the limit is had to its end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ends_while_redis_is_silent_is_counted_once() {
    const LIMIT: u64 = 50;
    let redis = Redis::start().await;
    let wire = SlowWire::to(redis.port(), 0, 1, 1).await;
    let gateways = gateways(1, &wire.url(), OnStoreDown::Closed).await;
    let ledger = &gateways[0].ledger;
    let mut open = Vec::new();
    for nth in 0..20 {
        let grant = ledger.reserve(&demand(LIMIT, Some(format!("m{nth}")))).await.unwrap();
        open.push(grant.hold);
    }
    wire.stop();
    open.iter().for_each(|hold| ledger.settle(*hold, charge(true, 5)));
    // Asked for and given up meanwhile.
    let late = demand(LIMIT, Some("late".into()));
    let gave_up = tokio::time::timeout(Duration::from_millis(200), ledger.reserve(&late)).await;
    assert!(gave_up.is_err());
    tokio::time::sleep(Duration::from_millis(400)).await;
    wire.go_on();
    rests_at(&gateways, &redis, LIMIT, 20, 100).await;
    for nth in 20..LIMIT {
        let grant = ledger.reserve(&demand(LIMIT, Some(format!("m{nth}")))).await.unwrap();
        ledger.settle(grant.hold, charge(true, 5));
    }
    let over = ledger.reserve(&demand(LIMIT, None)).await;
    assert!(matches!(over, Err(Denied::Messages { used: LIMIT, .. })), "{over:?}");
    rests_at(&gateways, &redis, LIMIT, LIMIT, 5 * LIMIT).await;
}

/// The owner of a shared message gives it back while others are open, and before, and after they end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shared_message_is_paid_once_whichever_request_of_it_costs_something() {
    const LIMIT: u64 = 1_000;
    let redis = Redis::start().await;
    let wire = SlowWire::to(redis.port(), 0, 3, 5).await;
    let gateways = gateways(2, &wire.url(), OnStoreDown::Closed).await;
    let mut noise = Noise::new(77);
    let (mut messages, mut tokens) = (0, 0);
    for nth in 0..60 {
        let id = Some(format!("shared-{nth}"));
        let mut open = Vec::new();
        for turn in 0..1 + noise.below(4) as usize {
            let ledger = &gateways[turn % 2].ledger;
            open.push((ledger, ledger.reserve(&demand(LIMIT, id.clone())).await.unwrap().hold));
        }
        let mut costs = false;
        while !open.is_empty() {
            let (ledger, hold) = open.swap_remove(noise.below(open.len() as u64) as usize);
            let message = noise.below(3) == 0;
            ledger.settle(hold, charge(message, 3));
            (costs, tokens) = (costs | message, tokens + 3);
            if noise.below(2) == 0 {
                ledger.flush().await;
            }
        }
        messages += u64::from(costs);
    }
    rests_at(&gateways, &redis, LIMIT, messages, tokens).await;
}

/// The hash of open requests is lost alone: the sums tell, and the gateways put it back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_open_requests_are_noticed_and_put_back() {
    const LIMIT: u64 = 20;
    let redis = Redis::start().await;
    let gateways = gateways(2, &redis.url(), OnStoreDown::Closed).await;
    let mut open = Vec::new();
    for nth in 0..12 {
        let ledger = &gateways[nth % 2].ledger;
        let id = (nth % 3 == 0).then(|| format!("m{nth}"));
        open.push((ledger, ledger.reserve(&demand(LIMIT, id)).await.unwrap().hold));
    }
    let keys = redis.ask(&["KEYS", "gk:{*}:open"]).list();
    redis.ask(&["DEL", &keys[0].text()]);
    let mut more: JoinSet<_> =
        (0..40)
            .map(|nth| {
                let ledger = gateways[nth % 2].ledger.clone();
                async move {
                    ledger.reserve(&demand(LIMIT, None)).await.map(|grant| (ledger, grant.hold))
                }
            })
            .collect();
    let mut passed = 0;
    while let Some(asked) = more.join_next().await {
        if let Ok((ledger, hold)) = asked.unwrap() {
            ledger.settle(hold, charge(true, 1));
            passed += 1;
        }
    }
    assert!(passed <= LIMIT - 12, "{passed} beside 12 open of {LIMIT}");
    for gateway in &gateways {
        eventually("all is back", Duration::from_secs(5), || async {
            standing(gateway, LIMIT).await.0 == 12 + passed
        })
        .await;
    }
    open.iter().for_each(|(ledger, hold)| ledger.settle(*hold, charge(true, 1)));
    rests_at(&gateways, &redis, LIMIT, 12 + passed, 12 + passed).await;
}

/// What is presumed of a gateway that knows better is put right as soon as it stands in the way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_presumed_of_a_living_gateway_is_put_right() {
    const LIMIT: u64 = 5;
    let redis = Redis::start().await;
    let gateways = gateways(2, &redis.url(), OnStoreDown::Closed).await;
    for nth in 0..3 {
        let ledger = &gateways[nth % 2].ledger;
        let grant = ledger.reserve(&demand(LIMIT, None)).await.unwrap();
        ledger.settle(grant.hold, charge(true, 1));
    }
    rests_at(&gateways, &redis, LIMIT, 3, 3).await;
    // As a request would leave that was never heard of again.
    let script = "local key = KEYS[1]
        for _, field in ipairs(redis.call('HKEYS', key)) do
          if string.sub(field, 1, 2) == 'u:' then
            local known = cmsgpack.unpack(redis.call('HGET', key, field))
            known[3][11], known[3][12] = 2, 50
            redis.call('HSET', key, 'p:' .. string.sub(field, 3), cmsgpack.pack(known[3]))
          end
        end return 1";
    let keys = redis.ask(&["KEYS", "gk:{*}:used"]).list();
    redis.ask(&["EVAL", script, "1", &keys[0].text()]);
    let refused = gateways[0].ledger.reserve(&demand(LIMIT, None)).await;
    assert!(matches!(refused, Err(Denied::Messages { .. })), "{refused:?}");
    rests_at(&gateways, &redis, LIMIT, 3, 3).await;
    for _ in 0..2 {
        let grant = gateways[0].ledger.reserve(&demand(LIMIT, None)).await.unwrap();
        gateways[0].ledger.settle(grant.hold, charge(true, 1));
    }
    rests_at(&gateways, &redis, LIMIT, 5, 5).await;
}

/// A store that is silent for less than a quarter of a second is there; after a longer silence requests
/// go on where they waited, and nothing is put back that was not lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silence_is_waited_for_and_is_no_loss() {
    const LIMIT: u64 = 1_000_000;
    let redis = Redis::start().await;
    let wire = SlowWire::to(redis.port(), 0, 1, 3).await;
    let gateway = gateway(&wire.url(), OnStoreDown::Closed).await;
    let losses = *gateway.store.losses().borrow();
    let stop = Arc::new(AtomicBool::new(false));
    let down = Arc::new(AtomicU64::new(0));
    let watching = tokio::spawn({
        let (ledger, stop, down) = (gateway.ledger.clone(), stop.clone(), down.clone());
        async move {
            while !stop.load(Relaxed) {
                if !ledger.is_up() {
                    down.fetch_add(1, Relaxed);
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    });
    for silence in [50, 100, 150] {
        tokio::join!(wire.pause(Duration::from_millis(silence)), async {
            for _ in 0..10 {
                let grant = gateway.ledger.reserve(&demand(LIMIT, None)).await.unwrap();
                gateway.ledger.settle(grant.hold, charge(true, 1));
            }
        });
    }
    assert_eq!(down.load(Relaxed), 0, "it was taken to be away");
    // Until it is taken to be away, and for longer.
    for longer in [0, 300] {
        wire.stop();
        let is_away = eventually("it is away", Duration::from_secs(5), || async {
            down.swap(0, Relaxed) > 0
        });
        let silence = async {
            is_away.await;
            tokio::time::sleep(Duration::from_millis(longer)).await;
            wire.go_on();
        };
        let asked = demand(LIMIT, None);
        let (_, grant) = tokio::join!(silence, gateway.ledger.reserve(&asked));
        gateway.ledger.settle(grant.unwrap().hold, charge(true, 1));
        eventually("it is back", Duration::from_secs(5), || async { gateway.ledger.is_up() }).await;
        down.store(0, Relaxed);
    }
    assert_eq!(*gateway.store.losses().borrow(), losses, "taken for a loss");
    stop.store(true, Relaxed);
    watching.await.unwrap();
    rests_at(&[gateway], &redis, LIMIT, 32, 32).await;
}

/// Refused for good, a licence is not served for the store's being away, in that window; others are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_lease_for_a_licence_that_was_refused_last() {
    const LIMIT: u64 = 200;
    let mut redis = Redis::start().await;
    let gateways = gateways(3, &redis.url(), OnStoreDown::Lease).await;
    // Each has seen it with plenty left.
    for gateway in &gateways {
        let grant = gateway.ledger.reserve(&demand(LIMIT, None)).await.unwrap();
        gateway.ledger.settle(grant.hold, charge(true, 1));
    }
    for _ in 3..LIMIT {
        let grant = gateways[0].ledger.reserve(&demand(LIMIT, None)).await.unwrap();
        gateways[0].ledger.settle(grant.hold, charge(true, 1));
    }
    for gateway in &gateways[1..] {
        let refused = gateway.ledger.reserve(&demand(LIMIT, None)).await;
        assert!(matches!(refused, Err(Denied::Messages { .. })), "{refused:?}");
    }
    redis.kill();
    for gateway in &gateways {
        // Used up, as it was told last; without such a word nothing is known.
        let refused = gateway.ledger.reserve(&demand(LIMIT, None)).await;
        assert!(matches!(refused, Err(Denied::StoreDown | Denied::Messages { .. })), "{refused:?}");
    }
}

/// With a lease a request waits for a tenth of a second at most, without one for a second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_a_lease_waits_shortly_and_who_has_none_a_second() {
    let redis = Redis::start().await;
    let wire = SlowWire::to(redis.port(), 0, 0, 3).await;
    let gateway = gateway(&wire.url(), OnStoreDown::Lease).await;
    let known = demand(1_000, None);
    let grant = gateway.ledger.reserve(&known).await.unwrap();
    gateway.ledger.settle(grant.hold, charge(true, 1));
    wire.stop();
    let began = Instant::now();
    gateway.ledger.reserve(&known).await.expect("a lease");
    let leased = began.elapsed();
    let unknown = Demand { license: LicenseId([10; 32]), ..known };
    let began = Instant::now();
    assert_eq!(gateway.ledger.reserve(&unknown).await.unwrap_err(), Denied::StoreDown);
    let waited = began.elapsed();
    // Where the machine is busy, standing still comes on top.
    let ms = Duration::from_millis;
    assert!(leased >= ms(90) && leased < ms(600), "{leased:?}");
    assert!(waited >= ms(950) && waited < ms(6_000), "{waited:?}");
    wire.go_on();
}
