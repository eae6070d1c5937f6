use std::time::Instant;

use super::*;
use crate::kernel::{
    Credential, License, LicenseId, Limit, Members, ModelSet, OnDisconnect, Period, Progress,
    UnixMs, Usage,
    ports::{Balance, Grant, Pace, Record, StoreDown, TooFast},
};

/// Grants what fits below `left` tokens, and keeps what was settled.
#[derive(Default)]
struct FakeLedger {
    settled: parking_lot::Mutex<Vec<Charge>>,
}

#[async_trait]
impl Ledger for FakeLedger {
    async fn enter(&self, _: &Pace, _: UnixMs) -> Result<(), TooFast> {
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

fn plan() -> Plan {
    Plan {
        name: "free".into(),
        messages: None,
        tokens: Some(Limit { count: 100_000, per: Period::Month }),
        rate: None,
        concurrency: None,
        concurrency_is_default: false,
        models: ModelSet::All,
        max_output_tokens: Some(1024),
        min_output_tokens: 256,
        max_input_tokens: None,
        devices_required: false,
        max_devices: None,
        on_disconnect: OnDisconnect::default(),
        upgrade_url: None,
    }
}

fn ask(output_cap: Option<u64>) -> Ask {
    let members = Members::default();
    Ask { text_tokens: 100, output_cap, ..Ask::new("fast".into(), members) }
}

/// Runs a request to its outcome; what was charged.
async fn charged(progress: Progress, reported: Option<Usage>, outcome: Outcome) -> Charge {
    let ledger = Arc::new(FakeLedger::default());
    let filter = QuotaFilter { ledger: ledger.clone() };
    let mut exchange =
        Exchange::new(Endpoint::Chat, Credential::new("K"), UnixMs(0), Instant::now());
    exchange.license =
        Some(License { id: LicenseId([0; 32]), plan: Arc::new(plan()), until: None });
    filter.request(&mut exchange, &mut ask(Some(500))).await.unwrap();
    exchange.progress = progress;
    exchange.metered.reported = reported;
    exchange.metered.output_millitokens = 7_000;
    filter.settle(&mut exchange, &outcome);
    filter.settle(&mut exchange, &outcome);
    let settled = ledger.settled.lock();
    assert_eq!(settled.len(), 1, "settled once");
    settled[0]
}

const SENT: Progress = Progress { sent: true, answered: false, counted: false, delivered: false };
const ANSWERED: Progress = Progress { answered: true, ..SENT };
const COUNTED: Progress = Progress { counted: true, ..ANSWERED };
const DELIVERED: Progress = Progress { delivered: true, ..COUNTED };

fn outcome(status: u16, delivery: Delivery) -> Outcome {
    Outcome { status, delivery }
}

fn charge_of(message: bool, tokens: u64, source: Source) -> Charge {
    Charge { message, tokens, source }
}

#[tokio::test]
async fn what_comes_back_depends_on_how_far_the_request_came() {
    use Delivery::{Abandoned, Broken, Failed, Relayed, Whole};
    use Source::{Estimated, Reported};
    let usage = Some(Usage { input: 90, output: 10, ..Usage::default() });
    let unsent = Progress::default();
    for (progress, usage, outcome, expected) in [
        (unsent, None, outcome(503, Failed), charge_of(false, 0, Estimated)),
        (unsent, None, outcome(499, Abandoned), charge_of(false, 0, Estimated)),
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
async fn reported_usage_is_believed_up_to_four_times_the_reservation() {
    let whole = outcome(200, Delivery::Whole);
    let report = |output| Some(Usage { output, ..Usage::default() });
    assert_eq!(charged(DELIVERED, report(2400), whole).await.tokens, 2400);
    assert_eq!(charged(DELIVERED, report(2401), whole).await.tokens, 600);
    assert_eq!(charged(DELIVERED, report(0), whole).await.tokens, 0, "an explicit 0 is 0");
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
    let least =
        |app, budget, cap| min_output(&plan, &Ask { thinking_budget: budget, ..ask(app) }, cap);
    assert_eq!(least(None, None, Some(1024)), 256);
    assert_eq!(least(Some(16), None, Some(16)), 16);
    assert_eq!(least(None, None, Some(0)), 0);
    assert_eq!(least(Some(1000), Some(600), Some(1000)), 601, "thinking and a word");
    assert_eq!(least(Some(1000), Some(100), Some(1000)), 256, "the plan wants more");
    assert_eq!(least(Some(500), Some(600), Some(500)), 500, "never above the app's own cap");
    assert_eq!(least(None, Some(u64::MAX), Some(1024)), 1024);
}
