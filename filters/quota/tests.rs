use std::time::Instant;

use super::*;
use crate::{
    kernel::{
        Credential, Input, License, LicenseId, Limit, ModelSet, OnDisconnect, Period,
        RequestMembers, RequestProgress, UnixMs, Usage,
        ports::{Balance, Grant, RateRefused, RateRequest, Record, StoreDown},
    },
    meter::estimate::Estimate,
};

/// Grants what fits below `left` tokens, and keeps what was settled.
#[derive(Default)]
struct FakeLedger {
    settled: parking_lot::Mutex<Vec<Charge>>,
}

#[async_trait]
impl Ledger for FakeLedger {
    async fn enter(&self, _: &RateRequest, _: UnixMs) -> Result<(), RateRefused> {
        Ok(())
    }
    fn leave(&self, _: &LicenseId) {}
    async fn reserve(&self, demand: &Demand) -> Result<Grant, Denied> {
        let balance = Balance::default();
        Ok(Grant { hold: 1, output: demand.output, input: demand.input, balance })
    }
    fn settle(&self, _: u64, charge: Charge) {
        self.settled.lock().push(charge);
    }
    async fn balance(
        &self,
        _: &LicenseId,
        _: Option<Limit>,
        _: Option<Limit>,
        _: UnixMs,
    ) -> Result<Balance, StoreDown> {
        Ok(Balance::default())
    }
    fn record(&self, _: Record) {}
}

struct FakeExpenses {
    timeouts: u32,
}

impl CostSink for FakeExpenses {
    fn spend(&self, _: &crate::kernel::Target, _: u64, _: UnixMs) {}

    fn timed_out(&self, _: &LicenseId, _: UnixMs) -> u32 {
        self.timeouts
    }
}

fn plan() -> Plan {
    Plan {
        name: "free".into(),
        messages: None,
        tokens: Some(Limit { count: 100_000, per: Period::Month }),
        rate: None,
        concurrency: None,
        concurrency_is_default: false,
        models: ModelSet::All,
        prompts: ModelSet::NONE,
        prompts_only: false,
        conversation: None,
        idempotency: None,
        max_output_tokens: Some(1024),
        min_output_tokens: 256,
        max_input_tokens: None,
        devices_required: false,
        max_devices: None,
        on_disconnect: OnDisconnect::default(),
        upgrade_url: None,
    }
}

fn license(plan: Plan) -> License {
    let id = LicenseId([0; 32]);
    License { id, key: id, plan: Arc::new(plan), until: None }
}

fn ask(output_cap: Option<u64>) -> ModelRequest {
    let members = RequestMembers::default();
    let input = Input { text: Estimate::of_tokens(100), bytes: 400, ..Input::default() };
    ModelRequest { input, output_cap, ..ModelRequest::new("fast".into(), members) }
}

fn filter(ledger: &Arc<FakeLedger>, timeouts: u32) -> QuotaFilter {
    let expenses = Arc::new(FakeExpenses { timeouts });
    QuotaFilter { ledger: ledger.clone(), expenses, oddities: Oddities::default() }
}

/// Runs a request to its outcome; what was charged.
async fn charged(progress: RequestProgress, reported: Option<Usage>, outcome: Outcome) -> Charge {
    let ledger = Arc::new(FakeLedger::default());
    let filter = filter(&ledger, 1);
    let mut exchange =
        Exchange::new(Endpoint::Chat, Credential::new("K"), UnixMs(0), Instant::now());
    exchange.license = Some(license(plan()));
    let mut ask = ask(Some(500));
    exchange.input = ask.input.clone();
    filter.request(&mut exchange, &mut ask).await.unwrap();
    exchange.progress = progress;
    exchange.metered.reported = reported;
    if reported.is_none() {
        exchange.metered.output_millitokens = Estimate::of_tokens(7);
    }
    exchange.metered.seen_millitokens = Estimate::of_tokens(7);
    filter.settle(&mut exchange, &outcome);
    filter.settle(&mut exchange, &outcome);
    let settled = ledger.settled.lock();
    assert_eq!(settled.len(), 1, "settled once");
    Charge { about: None, ..settled[0].clone() }
}

const BEGUN: RequestProgress = RequestProgress {
    sent: true,
    written: false,
    answered: false,
    counted: false,
    delivered: false,
};
const SENT: RequestProgress = RequestProgress { written: true, ..BEGUN };
/// A good answer that began before the request was written whole.
const EARLY: RequestProgress = RequestProgress { answered: true, ..BEGUN };
const ANSWERED: RequestProgress = RequestProgress { answered: true, ..SENT };
const COUNTED: RequestProgress = RequestProgress { counted: true, ..ANSWERED };
const DELIVERED: RequestProgress = RequestProgress { delivered: true, ..COUNTED };

fn outcome(status: u16, delivery: Delivery) -> Outcome {
    Outcome { status, delivery }
}

fn charge_of(message: bool, tokens: u64, source: UsageSource) -> Charge {
    Charge { message, tokens, source, about: None }
}

#[tokio::test]
async fn what_comes_back_depends_on_how_far_the_request_came() {
    use Delivery::{Abandoned, Broken, Failed, Relayed, Whole};
    use UsageSource::{Estimated, Reported};
    let usage = Some(Usage { input: 90, output: 10, ..Usage::default() });
    let unsent = RequestProgress::default();
    for (progress, usage, outcome, expected) in [
        (unsent, None, outcome(503, Failed), charge_of(false, 0, Estimated)),
        (unsent, None, outcome(499, Abandoned), charge_of(false, 0, Estimated)),
        // No provider works on half a request.
        (BEGUN, None, outcome(499, Abandoned), charge_of(false, 0, Estimated)),
        (BEGUN, None, outcome(413, Relayed), charge_of(false, 0, Estimated)),
        (EARLY, None, outcome(499, Abandoned), charge_of(true, 107, Estimated)),
        (SENT, None, outcome(502, Failed), charge_of(false, 0, Estimated)),
        (SENT, None, outcome(400, Relayed), charge_of(false, 0, Estimated)),
        (SENT, None, outcome(499, Abandoned), charge_of(true, 100, Estimated)),
        // A page in a 200 is no answer.
        (ANSWERED, None, outcome(502, Failed), charge_of(false, 0, Estimated)),
        (ANSWERED, None, outcome(504, Failed), charge_of(false, 0, Estimated)),
        (ANSWERED, None, outcome(400, Relayed), charge_of(false, 0, Estimated)),
        (COUNTED, None, outcome(502, Failed), charge_of(false, 107, Estimated)),
        (COUNTED, usage, outcome(503, Failed), charge_of(false, 100, Reported)),
        (ANSWERED, None, outcome(499, Abandoned), charge_of(true, 107, Estimated)),
        (DELIVERED, usage, outcome(200, Whole), charge_of(true, 100, Reported)),
        (DELIVERED, None, outcome(200, Broken), charge_of(true, 107, Estimated)),
        (DELIVERED, usage, outcome(499, Abandoned), charge_of(true, 100, Reported)),
    ] {
        assert_eq!(charged(progress, usage, outcome).await, expected, "{progress:?} {outcome:?}");
    }
}

#[tokio::test]
async fn a_report_is_charged_up_to_what_is_possible() {
    let whole = outcome(200, Delivery::Whole);
    let report = |input, output| Some(Usage { input, output, ..Usage::default() });
    for (reported, tokens) in [
        // No count of the output, or none at all.
        (report(90, 0), 97),
        (report(0, 0), 107),
        // Ten times the estimate, as templates, tools and rare scripts make it.
        (report(1000, 500), 1500),
        // 400 bytes and what wraps them.
        (report(4496, 10), 4506),
        (report(4497, 10), 4506),
        (report(1 << 53, 10), 4506),
        // The cap that was sent.
        (report(90, 501), 590),
        (report(1 << 53, 1 << 53), 4996),
    ] {
        assert_eq!(charged(DELIVERED, reported, whole).await.tokens, tokens, "{reported:?}");
    }
}

#[test]
fn what_is_booked_knows_no_cap_but_the_largest_answer_there_is() {
    let mut exchange =
        Exchange::new(Endpoint::Chat, Credential::new("K"), UnixMs(0), Instant::now());
    exchange.progress = DELIVERED;
    exchange.output_cap = Some(500);
    exchange.input.bytes = 1000;
    let reported =
        Usage { input: 700, output: 2000, cached: 650, reasoning: 1900, ..Usage::default() };
    exchange.metered.reported = Some(reported);
    assert_eq!(exchange.usage(), (reported, UsageSource::Reported));
    let nonsense = 1 << 53;
    exchange.metered.reported = Some(Usage {
        input: nonsense,
        output: nonsense,
        cached: nonsense,
        cache_write: nonsense,
        cache_write_1h: nonsense,
        reasoning: nonsense,
    });
    let (usage, _) = exchange.usage();
    assert_eq!((usage.input, usage.output), (5096, 131_072));
    assert_eq!((usage.cached, usage.cache_write, usage.reasoning), (5096, 0, 131_072));
}

/// The input that Anthropic reports at the start of a stream holds, whatever was reserved.
#[tokio::test]
async fn an_input_that_was_reported_is_not_clamped_when_the_app_leaves() {
    let ledger = Arc::new(FakeLedger::default());
    let filter = filter(&ledger, 1);
    let mut exchange =
        Exchange::new(Endpoint::Messages, Credential::new("K"), UnixMs(0), Instant::now());
    exchange.license = Some(license(plan()));
    let mut ask = ask(Some(500));
    exchange.input = ask.input.clone();
    filter.request(&mut exchange, &mut ask).await.unwrap();
    exchange.progress = DELIVERED;
    exchange.metered.input = Some(Usage { input: 4000, ..Usage::default() });
    exchange.metered.seen_millitokens = Estimate::of_tokens(7);
    filter.settle(&mut exchange, &outcome(499, Delivery::Abandoned));
    assert_eq!(ledger.settled.lock()[0].tokens, 4007);
}

/// The first timeout within an hour comes back, the second costs the message and its input, others the
/// output, too; whatever an attempt reported is charged in any case.
#[tokio::test]
async fn a_timeout_comes_back_once() {
    let slow = |spoilt, nth| async move {
        let ledger = Arc::new(FakeLedger::default());
        let filter = filter(&ledger, nth);
        let mut exchange =
            Exchange::new(Endpoint::Chat, Credential::new("K"), UnixMs(0), Instant::now());
        exchange.license = Some(license(plan()));
        let mut ask = ask(Some(500));
        exchange.input = ask.input.clone();
        filter.request(&mut exchange, &mut ask).await.unwrap();
        exchange.progress = SENT;
        exchange.timed_out = true;
        (exchange.last_wasted, exchange.spoilt) = (900, spoilt);
        filter.settle(&mut exchange, &outcome(504, Delivery::Failed));
        let settled = ledger.settled.lock()[0].clone();
        (settled.message, settled.tokens)
    };
    assert_eq!(slow(0, 1).await, (false, 0));
    assert_eq!(slow(0, 2).await, (true, 100));
    assert_eq!(slow(0, 3).await, (true, 600), "no more than the answer was allowed to have");
    assert_eq!(slow(0, 9).await, (true, 600));
    assert_eq!(slow(130, 1).await, (false, 130));
    assert_eq!(slow(130, 2).await, (true, 130));
}

#[test]
fn the_cap_is_the_lowest_there_is() {
    let cap = |plan: &Plan, app| output_cap(plan, Endpoint::Chat, app);
    let mut plan = plan();
    assert_eq!(cap(&plan, Some(500)), Some(500));
    assert_eq!(cap(&plan, Some(5000)), Some(1024));
    assert_eq!(cap(&plan, None), Some(1024));
    plan.max_output_tokens = None;
    assert_eq!(cap(&plan, None), Some(DEFAULT_OUTPUT_CAP));
    plan.tokens = None;
    assert_eq!(cap(&plan, None), None);
    assert_eq!(output_cap(&plan, Endpoint::Embeddings, None), None);
}

#[test]
fn a_shrunk_cap_never_goes_below_what_the_plan_or_the_app_wants() {
    let plan = plan();
    let least = |app, budget, cap| {
        min_output(&plan, &ModelRequest { thinking_budget: budget, ..ask(app) }, cap)
    };
    assert_eq!(least(None, None, Some(1024)), 256);
    assert_eq!(least(Some(16), None, Some(16)), 16);
    assert_eq!(least(None, None, Some(0)), 0);
    assert_eq!(least(Some(1000), Some(600), Some(1000)), 601, "thinking and a word");
    assert_eq!(least(Some(1000), Some(100), Some(1000)), 256, "the plan wants more");
    assert_eq!(least(Some(500), Some(600), Some(500)), 500, "never above the app's own cap");
    assert_eq!(least(None, Some(u64::MAX), Some(1024)), 1024);
}
