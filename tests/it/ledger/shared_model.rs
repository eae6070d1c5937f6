//! The ledger of several gateways against a plain model: random walks of two gateways on a real Redis.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use gatekeeper::{
    config::settings::OnStoreDown,
    ledger::{DistributedLedger, EmbeddedLedger, Residency},
    redis_store::{RedisStore, url::RedisUrl},
};
use gatekeeper_filters::kernel::{
    About, Charge, Demand, Denied, Ledger, LicenseId, Limit, Period, RateRefused, RateRequest,
    UnixMs, UsageSource,
};

use proptest::prelude::*;
use tempfile::TempDir;

use crate::support::{Redis, eventually};

const MESSAGES: u64 = 6;
const TOKENS: u64 = 300;

struct Gateway {
    ledger: Arc<DistributedLedger>,
    _dir: TempDir,
}

async fn gateway(redis: &Redis) -> Gateway {
    let dir = TempDir::new().unwrap();
    let local = EmbeddedLedger::open(
        &dir.path().join("g.db"),
        Duration::from_secs(3600),
        Residency::Complete,
    )
    .unwrap();
    let store = RedisStore::new(RedisUrl::parse(&redis.url()).unwrap(), false).unwrap();
    let naming = |_: &LicenseId, id: &str| id.to_owned();
    let closed = OnStoreDown::Closed;
    let ledger = DistributedLedger::open(local, store.clone(), closed, Box::new(naming)).unwrap();
    store.start(vec![ledger.subscriber()]);
    eventually("the store is up", Duration::from_secs(10), || async { ledger.is_up() }).await;
    Gateway { ledger, _dir: dir }
}

#[derive(Debug, Clone)]
enum Step {
    Reserve { at: usize, input: u64, output: u64, id: Option<u8> },
    Settle { which: usize, message: bool, share: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let id = prop::option::of(0u8..2);
    prop_oneof![
        3 => (0usize..2, 1u64..40, 0u64..80, id)
            .prop_map(|(at, input, output, id)| Step::Reserve { at, input, output, id }),
        2 => (any::<usize>(), prop::bool::weighted(0.7), 0u64..=100)
            .prop_map(|(which, message, share)| Step::Settle { which, message, share }),
    ]
}

#[derive(Default, Clone)]
struct Group {
    requests: u32,
    open: u32,
    charged: bool,
    held: bool,
}

struct Open {
    at: usize,
    hold: u64,
    tokens: u64,
    group: Option<usize>,
}

/// What anybody would write down on paper.
#[derive(Default)]
struct Model {
    messages: u64,
    tokens: u64,
    groups: Vec<Group>,
    /// The newest group of each id.
    named: [Option<usize>; 2],
    open: Vec<Open>,
}

impl Model {
    fn used(&self) -> u64 {
        let alone = self.open.iter().filter(|open| open.group.is_none()).count();
        let held = self.groups.iter().filter(|group| group.held).count();
        self.messages + (alone + held) as u64
    }

    fn held_tokens(&self) -> u64 {
        self.open.iter().map(|open| open.tokens).sum()
    }

    /// The group that a request of this id joins, if it is not the first of a new one.
    fn joins(&self, id: u8) -> Option<usize> {
        self.named[id as usize].filter(|group| self.groups[*group].requests < 10)
    }

    fn is_covered(&self, id: Option<u8>) -> bool {
        let group = id.and_then(|id| self.joins(id)).map(|group| &self.groups[group]);
        group.is_some_and(|group| group.charged || group.held)
    }

    fn grant(&mut self, at: usize, hold: u64, tokens: u64, id: Option<u8>) {
        let covered = self.is_covered(id);
        let group = id.map(|id| {
            let group = self.joins(id).unwrap_or_else(|| {
                self.groups.push(Group::default());
                self.groups.len() - 1
            });
            self.named[id as usize] = Some(group);
            group
        });
        if let Some(group) = group {
            let group = &mut self.groups[group];
            group.requests += 1;
            group.open += 1;
            group.held |= !covered;
        }
        self.open.push(Open { at, hold, tokens, group });
    }

    fn settle(&mut self, open: &Open, message: bool, tokens: u64) {
        self.tokens += tokens;
        let Some(group) = open.group else {
            self.messages += u64::from(message);
            return;
        };
        let group = &mut self.groups[group];
        group.open -= 1;
        if message && !group.charged {
            group.charged = true;
            group.held = false;
            self.messages += 1;
        } else if group.open == 0 {
            group.held = false;
        }
    }
}

fn demand(license: LicenseId, input: u64, output: u64, id: Option<u8>) -> Demand {
    let month = |count| Some(Limit { count, per: Period::Month });
    Demand {
        license,
        now: UnixMs::now(),
        about: About::default(),
        input_cost: 0,
        messages: month(MESSAGES),
        tokens: month(TOKENS),
        input,
        output: Some(output),
        min_output: 20,
        pace: None,
        message_id: id.map(|id| format!("m{id}").into()),
        conversation: None,
    }
}

async fn walk(gateways: &[Gateway; 2], license: LicenseId, steps: Vec<Step>) {
    let mut model = Model::default();
    for step in steps {
        match step {
            Step::Reserve { at, input, output, id } => {
                let demand = demand(license, input, output, id);
                let covered = model.is_covered(id);
                let unsettled = TOKENS.saturating_sub(model.tokens);
                let left = unsettled.saturating_sub(model.held_tokens());
                let floor = if output == 0 { 0 } else { output.clamp(1, 20) };
                match gateways[at].ledger.reserve(&demand).await {
                    Ok(grant) => {
                        assert!(covered || model.used() < MESSAGES);
                        assert_eq!(grant.output, Some(output.min(left - input)));
                        model.grant(at, grant.hold, input + grant.output.unwrap(), id);
                        assert_eq!(grant.balance.messages.used, model.used());
                        assert_eq!(grant.balance.tokens.used, model.tokens);
                    }
                    Err(Denied::Messages { used, .. }) => {
                        assert!(!covered && model.used() >= MESSAGES);
                        assert_eq!(used, model.used());
                    }
                    Err(Denied::Busy) => {
                        assert!(input + floor > left && input + floor <= unsettled)
                    }
                    Err(Denied::Tokens { .. }) => assert!(input + floor > unsettled),
                    Err(other) => panic!("{other:?}"),
                }
            }
            Step::Settle { which, message, share } => {
                if model.open.is_empty() {
                    continue;
                }
                let open = model.open.remove(which % model.open.len());
                let tokens = open.tokens * share / 100;
                let ledger = &gateways[open.at].ledger;
                let charge = Charge { message, tokens, source: UsageSource::Reported, about: None };
                ledger.settle(open.hold, charge.clone());
                // Once more changes nothing.
                ledger.settle(open.hold, charge);
                ledger.flush().await;
                model.settle(&open, message, tokens);
            }
        }
        let month = |count| Some(Limit { count, per: Period::Month });
        for gateway in gateways {
            let balance =
                gateway.ledger.balance(&license, month(MESSAGES), month(TOKENS), UnixMs::now());
            let balance = balance.await.unwrap();
            assert_eq!(balance.messages.used, model.used());
            assert_eq!(balance.tokens.used, model.tokens);
        }
    }
}

#[test]
fn two_gateways_do_what_the_model_does() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (redis, gateways) = runtime.block_on(async {
        let redis = Redis::start().await;
        let gateways = [gateway(&redis).await, gateway(&redis).await];
        (redis, gateways)
    });
    let next = AtomicU64::new(0);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 128,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let walks = prop::collection::vec(step(), 1..50);
    let outcome = runner.run(&walks, |steps| {
        // Each walk, shrunk ones too, is of a licence of its own.
        let mut license = [0; 32];
        license[..8].copy_from_slice(&next.fetch_add(1, Relaxed).to_be_bytes());
        runtime.block_on(walk(&gateways, LicenseId(license), steps));
        Ok(())
    });
    outcome.unwrap();
    drop(redis);
}

/// A request that has to wait until what this gateway settled is told is one request all the same.
#[tokio::test]
async fn a_request_that_is_asked_about_twice_counts_once() {
    let redis = Redis::start().await;
    let gateway = gateway(&redis).await;
    for nth in 0..60 {
        let mut license = [255; 32];
        license[0] = nth;
        let license = LicenseId(license);
        let rate = Some(Limit { count: 2, per: Period::Day });
        let pace = Some(RateRequest { license, rate, concurrency: None });
        // Two of these do not fit beside each other, but well one after the other.
        let demand = Demand { pace, min_output: 200, ..demand(license, 10, 270, None) };
        for _ in 0..2 {
            let grant = gateway.ledger.reserve(&demand).await.expect("room for both");
            let source = UsageSource::Reported;
            let charge = Charge { message: true, tokens: 20, source, about: None };
            gateway.ledger.settle(grant.hold, charge);
        }
        let third = gateway.ledger.reserve(&demand).await;
        assert!(matches!(third, Err(Denied::TooFast(RateRefused::Rate { .. }))), "{third:?}");
    }
}
