//! Simulates faulty days of a provider, and buyers that provoke them, against a budget of $20 a day.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use gatekeeper_filters::kernel::{
    CostSink, Cut, DOLLAR, LicenseId, Record, Target, UnixMs, Usage, UsageSource, Whole,
};

use super::{Budgets, SpendTracker};
use crate::config::tests::settings;

/// Input and output of every request here, and how long it is waited for (the default of `first_byte`).
const INPUT: u64 = 1_000;
const OUTPUT: u64 = 2_000;
const WAITED: Duration = Duration::from_secs(120);
const YAML: &str = r#"
licenses: { sources: [ { static: { keys: [ { key: JSTAR-DEMO-0001, plan: free } ] } } ] }
plans: { free: { messages: 1000/month, models: ["*"] } }
providers: { stand-in: { base_url: stand-in } }
models: { fast: [ stand-in/small ] }
prices: { stand-in/small: { input: 3, output: 15 } }
budget: { day: $20 }
"#;

/// Of no request in particular.
pub(super) fn record(wasted: u64, cost: u64) -> Record {
    let empty: Arc<str> = "".into();
    Record {
        time: UnixMs(0),
        license: None,
        endpoint: "chat",
        plan: empty.clone(),
        model: empty.clone(),
        served: empty.clone(),
        provider: empty.clone(),
        key: empty,
        usage: Usage::default(),
        source: UsageSource::Estimated,
        charged: 0,
        wasted,
        cost,
        wasted_cost: cost,
        sent: false,
        status: 0,
        ms: 0,
        attempts: 0,
    }
}

struct Operator {
    budgets: Budgets,
    target: Arc<Target>,
    /// The hour begins.
    noon: UnixMs,
    began: Instant,
}

impl Operator {
    /// Whose target has answered before, as it usually does.
    fn new() -> Self {
        let settings = settings(YAML).0;
        let target = settings.models.values().flat_map(|model| &model.targets).next().unwrap();
        let (target, spending) = (target.clone(), Arc::new(SpendTracker::default()));
        let budgets = Budgets::new(&settings, &spending);
        for _ in 0..50 {
            let took = Duration::from_secs(20);
            let answer = Whole { streamed: false, took, output: OUTPUT, reasoning: 0, seen: 0 };
            budgets.learn(&target, &answer);
        }
        let noon = UnixMs(20_000 * 86_400_000 + 43_200_000);
        Self { budgets, target, noon, began: Instant::now() }
    }

    fn at(&self, second: u64) -> (Instant, UnixMs) {
        (self.began + Duration::from_secs(second), UnixMs(self.noon.0 + second * 1_000))
    }

    fn price(&self, input: u64, output: u64) -> u64 {
        let usage = Usage { input, output, ..Usage::default() };
        self.target.price.as_ref().map_or(0, |price| price.cost(&usage))
    }

    /// One request of the licence is answered.
    fn serve(&self, license: &LicenseId, second: u64) {
        let (at, now) = self.at(second);
        assert!(self.budgets.may_ask(license, now).is_ok(), "refused at {second} s");
        let targets = [self.target.clone()];
        assert!(self.budgets.affordable(&targets, now).is_ok(), "no money at {second} s");
        self.budgets.spend(&self.target, self.price(INPUT, 200), now);
        self.budgets.pace(&self.target, |pace| pace.answered(at));
    }

    /// A request that was sent then is given up: what the chain of filters does about it.
    fn time_out(&self, license: &LicenseId, sent: u64) -> u64 {
        let ((sent, now), label) = (self.at(sent), &self.target.label);
        let cut = Cut { streamed: false, sent, head: None, at: sent + WAITED };
        let unseen = self.budgets.unseen(&self.target, &cut);
        let cost = self.price(INPUT, unseen.tokens);
        self.budgets.spend(&self.target, cost, now);
        self.budgets.waste(license, &self.target, cost, now);
        if unseen.doubtful > 0 {
            let late = record(unseen.doubtful, self.price(0, unseen.doubtful));
            self.budgets.all.doubts.add(label, cut.at, Record { time: now, ..late });
        }
        cost
    }

    fn spent(&self) -> f64 {
        self.budgets.total(self.noon) as f64 / DOLLAR as f64
    }
}

fn license(number: u8) -> LicenseId {
    LicenseId([number; 32])
}

/// For an hour one licence keeps as many requests open as its plan allows, each of which times out, while
/// others are served: its waste is bounded, and the others never find the budget exhausted.
#[test]
fn one_licence_that_provokes_timeouts_for_an_hour_has_nobody_else_refused() {
    const AT_ONCE: u64 = 16;
    let operator = Operator::new();
    let hostile = license(1);
    let (mut wasted, mut asked, mut refused) = (0, 0, 0);
    for second in 0..3_600 {
        if second % 3 == 0 {
            operator.serve(&license(2 + (second % 8) as u8), second);
        }
        if second % WAITED.as_secs() != 0 {
            continue;
        }
        let now = operator.at(second).1;
        // All of them ask before the first is given up.
        let open = (0..AT_ONCE).filter(|_| operator.budgets.may_ask(&hostile, now).is_ok()).count();
        refused += AT_ONCE as usize - open;
        asked += open;
        wasted += (0..open).map(|_| operator.time_out(&hostile, second)).sum::<u64>();
    }
    let (wasted, each) = (wasted as f64 / DOLLAR as f64, 0.033);
    println!(
        "{asked} timeouts wasted ${wasted:.2}, {refused} refused; ${:.2} in all",
        operator.spent()
    );
    assert!(refused > 0 && wasted >= 2.0, "a tenth of $20 may be wasted: {wasted}");
    assert!(wasted <= 2.0 + AT_ONCE as f64 * each, "{wasted}");
    let unbounded = (3_600 / WAITED.as_secs() * AT_ONCE) as f64 * each;
    assert!(unbounded > 3.0 * wasted, "without a bound it would be {unbounded}");
}

/// Two a second, of many licences, with no circuit to keep them off: but for those of its last good minute, they
/// cost their input; those of its last bad minute count when it answers again.
#[test]
fn a_provider_that_hangs_for_half_an_hour_does_not_spend_the_budget() {
    let operator = Operator::new();
    operator.serve(&license(0), 0);
    for second in 0..1_800 {
        for nth in 0..2 {
            operator.time_out(&license((second * 2 + nth) as u8), second);
        }
    }
    let hung = operator.spent();
    let again = operator.at(1_800 + WAITED.as_secs()).0;
    let proven = operator.budgets.all.doubts.prove(&operator.target.label, again);
    for late in &proven {
        operator.budgets.spend(&operator.target, late.cost, operator.noon);
    }
    println!("${hung:.2} while it hung, {} proven: ${:.2} in all", proven.len(), operator.spent());
    assert!((100..=130).contains(&proven.len()), "{}", proven.len());
    // Input of 3,600, and the output of two minutes.
    let expected = 3_600.0 * 0.003 + 240.0 * 0.03;
    assert!((expected - 1.0..=expected + 1.0).contains(&operator.spent()), "{}", operator.spent());
    operator.serve(&license(9), 1_921);
}
