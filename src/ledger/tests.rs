//! The ledger as its callers see it; crashes are in `crash`, days in `daily`, a random walk in
//! `model`.

mod adjustments;
mod crash;
mod daily;
mod model;
mod moving;
mod on_demand;

use std::{
    path::PathBuf,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use gatekeeper_filters::kernel::{
    About, Balance, Charge, Demand, Denied, Grant, Ledger, LicenseId, Limit, Period, RateRefused,
    RateRequest, Record, UnixMs, Usage, UsageSource,
};

use super::{
    accounts::Residency,
    embedded::{
        EmbeddedLedger,
        operator_actions::{AdjustRequest, Adjustment},
        pepper_check::PepperMismatch,
    },
    journal::JournalSize,
    open_error::StoreOpenError,
};

/// 2026-11-15T10:30:30Z.
const NOW: UnixMs = UnixMs(1_794_738_630_000);
const KEEP: Duration = Duration::from_secs(90 * 86_400);
const SMALL: JournalSize = JournalSize { segment: 512 << 10, segments: 64 };
const ANNA: LicenseId = LicenseId([1; 32]);
const BERT: LicenseId = LicenseId([2; 32]);

struct Store {
    dir: tempfile::TempDir,
}

impl Store {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("data/gatekeeper.db")
    }

    fn open(&self) -> Arc<EmbeddedLedger> {
        self.try_open(SMALL).unwrap()
    }

    /// With all accounts in memory, as where gateways share a store.
    fn open_complete(&self) -> Arc<EmbeddedLedger> {
        EmbeddedLedger::open_at(&self.path(), KEEP, SMALL, NOW, None, Residency::Complete).unwrap()
    }

    fn try_open(&self, size: JournalSize) -> Result<Arc<EmbeddedLedger>, StoreOpenError> {
        EmbeddedLedger::open_at(&self.path(), KEEP, size, NOW, None, Residency::OnDemand)
    }
}

/// No future here ever waits.
fn ready<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("the embedded ledger waits for nothing"),
    }
}

fn month(count: u64) -> Option<Limit> {
    Some(Limit { count, per: Period::Month })
}

/// An operator's order for limits of a month.
fn order(license: LicenseId, id: &str) -> AdjustRequest<'_> {
    AdjustRequest { license, id, note: "", messages: month(1), tokens: month(1) }
}

fn about() -> About {
    About { plan: "pro".into(), model: "fast".into(), provider: "groq".into() }
}

fn ask(license: LicenseId) -> Demand {
    Demand {
        license,
        now: NOW,
        about: about(),
        messages: None,
        tokens: None,
        input: 10,
        input_cost: 50,
        output: Some(90),
        min_output: 20,
        pace: None,
        message_id: None,
        conversation: None,
    }
}

fn reserve(ledger: &EmbeddedLedger, demand: &Demand) -> Result<Grant, Denied> {
    ready(ledger.reserve(demand))
}

fn charge(tokens: u64) -> Charge {
    Charge { message: true, tokens, source: UsageSource::Reported, about: None }
}

const BACK: Charge = Charge::NOTHING;

fn balance_at(ledger: &EmbeddedLedger, license: LicenseId, per: Period, now: UnixMs) -> Balance {
    let limit = Some(Limit { count: 1_000_000, per });
    ready(ledger.balance(&license, limit, limit, now)).unwrap()
}

/// Messages (in flight too) and tokens this month.
fn used(ledger: &EmbeddedLedger, license: LicenseId) -> (u64, u64) {
    let balance = balance_at(ledger, license, Period::Month, NOW);
    (balance.messages.used, balance.tokens.used)
}

fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < Duration::from_secs(30), "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn concurrent_requests_get_exactly_what_the_limit_allows() {
    let store = Store::new();
    let ledger = store.try_open(JournalSize { segment: 1 << 20, segments: 16 }).unwrap();
    for (nth, limit) in [0, 1, 7, 500].into_iter().enumerate() {
        let demand = Demand { messages: month(limit), ..ask(LicenseId([nth as u8; 32])) };
        let granted = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for turn in 0..125 {
                        match reserve(&ledger, &demand) {
                            Ok(grant) if turn % 2 == 0 => ledger.settle(grant.hold, charge(1)),
                            Ok(_) => {}
                            Err(Denied::Messages { used, .. }) => {
                                assert_eq!(used, limit);
                                continue;
                            }
                            Err(other) => panic!("{other:?}"),
                        }
                        granted.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(granted.into_inner(), limit);
        assert_eq!(used(&ledger, demand.license).0, limit);
    }
}

#[test]
fn a_message_given_back_can_be_used_again() {
    let store = Store::new();
    let ledger = store.open();
    let demand = Demand { messages: month(1), ..ask(ANNA) };
    for _ in 0..100 {
        let grant = reserve(&ledger, &demand).unwrap();
        assert!(matches!(reserve(&ledger, &demand), Err(Denied::Messages { .. })));
        ledger.settle(grant.hold, BACK);
    }
    let grant = reserve(&ledger, &demand).unwrap();
    assert_eq!(grant.balance.messages.left, Some(0));
    ledger.settle(grant.hold, charge(5));
    let denied = reserve(&ledger, &demand).unwrap_err();
    let resets_at = Period::Month.window(NOW).end;
    assert_eq!(denied, Denied::Messages { limit: month(1).unwrap(), used: 1, resets_at });
}

#[test]
fn settling_twice_charges_once() {
    let store = Store::new();
    let ledger = store.open();
    let grant = reserve(&ledger, &ask(ANNA)).unwrap();
    assert_eq!(ledger.open_reservations(), 1);
    ledger.settle(grant.hold, charge(70));
    ledger.settle(grant.hold, charge(70));
    ledger.settle(grant.hold, BACK);
    ledger.settle(12345, charge(70));
    assert_eq!(used(&ledger, ANNA), (1, 70));
    assert_eq!(used(&ledger, BERT), (0, 0));
    assert_eq!(ledger.open_reservations(), 0);
}

#[test]
fn an_answer_shrinks_to_what_is_left_and_no_further() {
    let store = Store::new();
    let ledger = store.open();
    let demand = Demand { tokens: month(150), ..ask(ANNA) };
    let first = reserve(&ledger, &demand).unwrap();
    assert_eq!(first.output, Some(90));
    let second = reserve(&ledger, &demand).unwrap();
    assert_eq!(second.output, Some(40));
    assert_eq!(reserve(&ledger, &demand).unwrap_err(), Denied::Busy);

    ledger.settle(second.hold, charge(0));
    ledger.settle(first.hold, charge(121));
    // 29 left, 30 needed: no open reservation is to blame.
    let Denied::Tokens { used, left, needed, .. } = reserve(&ledger, &demand).unwrap_err() else {
        panic!("tokens are used up");
    };
    assert_eq!((used, left, needed), (121, 29, 30));
    // An app that asks for less than the floor gets what it asks for.
    let modest = Demand { output: Some(19), ..demand.clone() };
    assert_eq!(reserve(&ledger, &modest).unwrap().output, Some(19));
}

#[test]
fn what_has_no_output_needs_only_its_input_and_no_cap_means_what_is_left() {
    let store = Store::new();
    let ledger = store.open();
    let embedding = Demand { tokens: month(10), output: Some(0), min_output: 256, ..ask(ANNA) };
    assert_eq!(reserve(&ledger, &embedding).unwrap().output, Some(0));
    assert_eq!(reserve(&ledger, &embedding).unwrap_err(), Denied::Busy);
    let uncapped = Demand { tokens: month(100), output: None, ..ask(BERT) };
    assert_eq!(reserve(&ledger, &uncapped).unwrap().output, Some(90));
    let unlimited = Demand { output: None, ..ask(BERT) };
    assert_eq!(reserve(&ledger, &unlimited).unwrap().output, None);
}

#[test]
fn a_refusal_for_tokens_takes_no_message() {
    let store = Store::new();
    let ledger = store.open();
    let id = Some("m1".into());
    let demand = Demand { messages: month(5), tokens: month(20), message_id: id, ..ask(ANNA) };
    assert!(matches!(reserve(&ledger, &demand), Err(Denied::Tokens { .. })));
    assert_eq!(used(&ledger, ANNA), (0, 0));
    assert_eq!(ledger.open_reservations(), 0);
}

#[test]
fn a_charge_above_the_reservation_counts_in_full_and_the_balance_stays_at_zero() {
    let store = Store::new();
    let ledger = store.open();
    let demand = Demand { messages: month(3), tokens: month(100), ..ask(ANNA) };
    let grant = reserve(&ledger, &demand).unwrap();
    ledger.settle(grant.hold, charge(250));
    let balance = ready(ledger.balance(&ANNA, month(0), month(100), NOW)).unwrap();
    assert_eq!((balance.tokens.used, balance.tokens.left), (250, Some(0)));
    // The plan was changed to a smaller one.
    assert_eq!((balance.messages.used, balance.messages.left), (1, Some(0)));
    assert!(matches!(reserve(&ledger, &demand), Err(Denied::Tokens { left: 0, .. })));
}

#[test]
fn a_request_counts_in_the_window_it_was_made_in() {
    let store = Store::new();
    let ledger = store.open();
    let end = Period::Month.window(NOW).end;
    let late = Demand { now: UnixMs(end.0 - 1), messages: month(1), ..ask(ANNA) };
    let early = Demand { now: end, ..late.clone() };
    let first = reserve(&ledger, &late).unwrap();
    let second = reserve(&ledger, &early).unwrap();
    ledger.settle(first.hold, charge(30));
    let at = |now| {
        let balance = balance_at(&ledger, ANNA, Period::Month, now);
        (balance.messages.used, balance.tokens.used)
    };
    assert_eq!((at(late.now), at(end)), ((1, 30), (1, 0)));
    ledger.settle(second.hold, charge(4));
    assert_eq!((at(late.now), at(end)), ((1, 30), (1, 4)));
    // The clock goes back over the boundary: nothing is granted twice.
    assert!(matches!(reserve(&ledger, &late), Err(Denied::Messages { .. })));
    assert!(matches!(reserve(&ledger, &early), Err(Denied::Messages { .. })));
    // Once into a far future, and back.
    let far = Demand { now: UnixMs(end.0 + 10 * 365 * 86_400_000), ..late.clone() };
    assert!(reserve(&ledger, &far).is_ok());
    assert!(matches!(reserve(&ledger, &early), Err(Denied::Messages { .. })));
}

#[test]
fn a_clock_that_was_set_back_finds_every_window_again() {
    let at = |days: i64, per| {
        let now = UnixMs(NOW.0.checked_add_signed(days * 86_400_000).unwrap());
        Demand { now, messages: Some(Limit { count: 2, per }), ..ask(ANNA) }
    };
    for per in [Period::Hour, Period::Day] {
        let store = Store::new();
        let ledger = store.open();
        let mut had = Vec::new();
        for days in [0, 1, 0, -1, 0, 1, -2, -1, 2, 0, 1] {
            let granted = (0..3).filter(|_| match reserve(&ledger, &at(days, per)) {
                Ok(grant) => {
                    ledger.settle(grant.hold, charge(1));
                    true
                }
                Err(Denied::Messages { used, .. }) => {
                    assert_eq!(used, 2);
                    false
                }
                Err(other) => panic!("{other:?}"),
            });
            let expected = if had.contains(&days) { 0 } else { 2 };
            assert_eq!(granted.count(), expected, "{per:?}, {days} days on");
            assert_eq!(balance_at(&ledger, ANNA, per, at(days, per).now).messages.used, 2);
            had.push(days);
        }
    }
}

#[test]
fn every_kind_of_period_is_counted_whatever_the_plan_limits() {
    let store = Store::new();
    let ledger = store.open();
    let grant = reserve(&ledger, &ask(ANNA)).unwrap();
    ledger.settle(grant.hold, charge(33));
    for per in Period::ALL {
        let balance = balance_at(&ledger, ANNA, per, NOW);
        assert_eq!((balance.messages.used, balance.tokens.used), (1, 33));
        let changed = Demand { messages: Some(Limit { count: 1, per }), ..ask(ANNA) };
        assert!(matches!(reserve(&ledger, &changed), Err(Denied::Messages { .. })));
    }
    let next = balance_at(&ledger, ANNA, Period::Minute, Period::Minute.window(NOW).end);
    assert_eq!((next.messages.used, next.tokens.used), (0, 0));
}

fn round(id: &str, after_ms: u64, limit: u64) -> Demand {
    let now = UnixMs(NOW.0 + after_ms);
    Demand { now, messages: month(limit), message_id: Some(id.into()), ..ask(ANNA) }
}

#[test]
fn requests_of_one_message_count_once() {
    let store = Store::new();
    let ledger = store.open();
    for nth in 0..10 {
        let grant = reserve(&ledger, &round("m", nth, 1)).unwrap();
        ledger.settle(grant.hold, charge(7));
    }
    assert_eq!(used(&ledger, ANNA), (1, 70));
    assert!(matches!(reserve(&ledger, &round("m", 10, 1)), Err(Denied::Messages { .. })));
    assert!(reserve(&ledger, &round("m", 10, 2)).is_ok());
    assert!(matches!(reserve(&ledger, &round("other", 11, 2)), Err(Denied::Messages { .. })));
    assert_eq!(used(&ledger, ANNA).0, 2);
}

#[test]
fn a_message_id_is_good_for_ten_minutes() {
    let store = Store::new();
    let ledger = store.open();
    reserve(&ledger, &round("m", 0, 1)).unwrap();
    assert!(reserve(&ledger, &round("m", 599_999, 1)).is_ok());
    assert!(matches!(reserve(&ledger, &round("m", 600_000, 1)), Err(Denied::Messages { .. })));
}

#[test]
fn a_message_is_charged_once_whichever_of_its_requests_is() {
    // Three requests of one message settle in this order; true is charged.
    for outcomes in 0..8_u8 {
        let store = Store::new();
        let ledger = store.open();
        let grants = [0, 1, 2].map(|nth| reserve(&ledger, &round("m", nth, 1)).unwrap());
        for (nth, grant) in grants.iter().enumerate() {
            assert_eq!(used(&ledger, ANNA).0, 1);
            let message = outcomes & (1 << nth) != 0;
            ledger.settle(grant.hold, Charge { message, ..charge(1) });
        }
        assert_eq!(used(&ledger, ANNA), (u64::from(outcomes != 0), 3));
        // A retry of the message costs nothing, or what was given back.
        assert!(reserve(&ledger, &round("m", 3, 1)).is_ok());
        assert_eq!(used(&ledger, ANNA).0, 1);
        drop(ledger);
        // The retry was still open: an orphan, which charges the message once at most.
        assert_eq!(used(&store.open(), ANNA), (1, 13));
    }
}

#[test]
fn a_message_given_back_and_taken_by_others_is_refused_to_its_retry() {
    let store = Store::new();
    let ledger = store.open();
    let grant = reserve(&ledger, &round("m", 0, 1)).unwrap();
    ledger.settle(grant.hold, BACK);
    reserve(&ledger, &round("other", 1, 1)).unwrap();
    assert!(matches!(reserve(&ledger, &round("m", 2, 1)), Err(Denied::Messages { .. })));
}

#[test]
fn many_message_ids_stay_bounded() {
    let store = Store::new();
    let ledger = store.open();
    for nth in 0..3_000_u64 {
        let grant = reserve(&ledger, &round(&format!("m{nth}"), nth, 10_000)).unwrap();
        ledger.settle(grant.hold, charge(0));
    }
    assert_eq!(used(&ledger, ANNA).0, 3_000);
    // The newest are remembered, the oldest are not.
    reserve(&ledger, &round("m2999", 3_000, 3_000)).unwrap();
    assert!(reserve(&ledger, &round("m0", 3_000, 3_000)).is_err());
}

#[test]
fn pace_counts_requests_and_places() {
    let store = Store::new();
    let ledger = store.open();
    let limit = Limit { count: 3, per: Period::Minute };
    let pace = RateRequest { license: ANNA, rate: Some(limit), concurrency: Some(2) };
    let enter = |now| ready(ledger.enter(&pace, now));
    assert_eq!((enter(NOW), enter(NOW)), (Ok(()), Ok(())));
    // Refused for its place, and not counted.
    assert_eq!(enter(NOW), Err(RateRefused::Concurrency { limit: 2 }));
    ledger.leave(&ANNA);
    assert_eq!(enter(NOW), Ok(()));
    ledger.leave(&ANNA);
    assert_eq!(enter(NOW), Err(RateRefused::Rate { limit, retry_after: 30 }));
    let next = UnixMs(NOW.0 + 30_000);
    assert_eq!(enter(next), Ok(()));
    ledger.leave(&BERT);
}

#[test]
fn a_rate_of_a_day_outlives_a_restart() {
    let store = Store::new();
    let pace = RateRequest {
        license: ANNA,
        rate: Some(Limit { count: 2, per: Period::Day }),
        concurrency: Some(1),
    };
    let ledger = store.open();
    ready(ledger.enter(&pace, NOW)).unwrap();
    drop(ledger);
    let ledger = store.open();
    ready(ledger.enter(&pace, NOW)).unwrap();
    ledger.leave(&ANNA);
    assert!(matches!(ready(ledger.enter(&pace, NOW)), Err(RateRefused::Rate { .. })));
}

fn record(time: UnixMs, model: &str) -> Record {
    Record {
        time,
        license: Some(ANNA),
        endpoint: "/chat",
        plan: "pro".into(),
        model: model.into(),
        served: "groq/llama".into(),
        provider: "groq".into(),
        key: "groq-1".into(),
        usage: Usage {
            input: 1,
            output: 2,
            cached: 3,
            cache_write: 1,
            cache_write_1h: 0,
            reasoning: 4,
        },
        source: UsageSource::Reported,
        charged: 3,
        wasted: 6,
        cost: 5,
        wasted_cost: 4,
        sent: true,
        status: 200,
        ms: 12,
        attempts: 1,
    }
}

#[test]
fn an_operator_finds_requests_and_usage_in_sqlite() {
    let store = Store::new();
    let ledger = store.open();
    ledger.record(record(UnixMs(NOW.0 + 5), &"é".repeat(200)));
    let grant = reserve(&ledger, &ask(ANNA)).unwrap();
    ledger.settle(grant.hold, charge(3));
    let one = |query: &str| {
        ledger.db.lock().connection().query_row(query, [], |row| row.get::<_, String>(0)).ok()
    };
    let row = "SELECT time || ' ' || license || ' ' || endpoint || ' ' || served || ' ' || \"key\" \
               || ' ' || source || ' ' || length(model) || ' ' || ms FROM requests";
    eventually("the record arrives", || one(row).is_some());
    let hex = ANNA.to_hex();
    let expected =
        format!("2026-11-15T10:30:30.005Z {hex} /chat groq/llama groq-1 reported 127 12");
    assert_eq!(one(row), Some(expected));
    let row = "SELECT start || ' ' || messages || ' ' || tokens FROM usage WHERE period = 'month'";
    eventually("the charge arrives", || one(row).is_some());
    assert_eq!(one(row).unwrap(), "2026-11-01T00:00:00Z 1 3");
}

#[test]
fn what_is_too_old_is_pruned_a_little_at_a_time() {
    let store = Store::new();
    let ledger = store.open();
    for nth in 0..1_500 {
        ledger.record(record(UnixMs(NOW.0 + nth % 2 * 1_000), ""));
    }
    let grant = reserve(&ledger, &ask(ANNA)).unwrap();
    ledger.settle(grant.hold, charge(3));
    ledger.close();
    let count = |table: &str| -> i64 {
        let query = format!("SELECT count(*) FROM {table}");
        ledger.db.lock().connection().query_row(&query, [], |row| row.get(0)).unwrap()
    };
    assert_eq!((count("requests"), count("usage")), (1_500, 4));
    let prune = |now: u64| ledger.db.lock().prune(UnixMs(now), KEEP).unwrap();
    let then = NOW.0 + KEEP.as_millis() as u64 + 500;
    assert!(!prune(then));
    assert_eq!((count("requests"), count("usage")), (750, 2));
    prune(then + 400 * 86_400_000);
    assert_eq!((count("requests"), count("usage")), (0, 0));
}

#[test]
fn an_account_is_forgotten_only_when_nothing_of_it_still_counts() {
    let store = Store::new();
    let ledger = store.open_complete();
    let done = reserve(&ledger, &ask(ANNA)).unwrap();
    ledger.settle(done.hold, charge(3));
    let long = reserve(&ledger, &ask(BERT)).unwrap();
    let end = Period::Month.window(NOW).end;
    ledger.accounts.sweep(UnixMs(end.0 + 3_600_000));
    assert_eq!((ledger.accounts.count(), used(&ledger, ANNA)), (2, (1, 3)));
    // Two days into the next month only the one in flight is left.
    let later = UnixMs(end.0 + 2 * 86_400_000);
    ledger.accounts.sweep(later);
    assert_eq!((ledger.accounts.count(), used(&ledger, BERT).0), (1, 1));
    ledger.settle(long.hold, BACK);
    ledger.accounts.sweep(later);
    assert_eq!(ledger.accounts.count(), 0);
}

#[test]
fn a_store_has_one_owner_and_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let store = Store::new();
    let ledger = store.open();
    let refused = store.try_open(SMALL).map(|_| ()).unwrap_err().to_string();
    assert!(refused.contains(store.path().to_str().unwrap()), "{refused}");
    assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
    ledger.record(record(NOW, ""));
    let mut seen = 0;
    let parent = store.path().parent().unwrap().to_owned();
    for dir in [parent.clone(), parent.join("gatekeeper.db.journal")] {
        assert_eq!(dir.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        for file in std::fs::read_dir(dir).unwrap() {
            let meta = file.unwrap().metadata().unwrap();
            seen += 1;
            assert!(meta.is_dir() || meta.permissions().mode() & 0o777 == 0o600);
        }
    }
    assert!(seen >= 4);
    ledger.close();
    assert!(!ledger.is_up());
    assert_eq!(reserve(&ledger, &ask(ANNA)).unwrap_err(), Denied::StoreDown);
    store.open();
}

#[test]
fn a_file_of_an_older_version_gets_the_tables_it_lacks() {
    let store = Store::new();
    let ledger = store.open();
    let older = "DROP TABLE licenses; PRAGMA user_version = 1";
    ledger.db.lock().connection().execute_batch(older).unwrap();
    drop(ledger);
    let ledger = store.open();
    let count = "SELECT count(*) FROM licenses";
    let rows: i64 = ledger.db.lock().connection().query_row(count, [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 0);
}

#[test]
fn a_newer_schema_and_a_foreign_journal_are_refused() {
    let store = Store::new();
    let ledger = store.open();
    ledger.db.lock().connection().pragma_update(None, "user_version", 7).unwrap();
    drop(ledger);
    let refused = store.try_open(SMALL).map(|_| ()).unwrap_err();
    assert!(matches!(refused, StoreOpenError::Newer { found: 7, known: 6, .. }), "{refused}");

    let store = Store::new();
    drop(store.open());
    let foreign = store.path().with_file_name("gatekeeper.db.journal/0000000900.log");
    std::fs::write(&foreign, b"something else altogether").unwrap();
    assert!(matches!(store.try_open(SMALL), Err(StoreOpenError::Foreign { .. })));
}

#[test]
fn a_pepper_never_changes_unnoticed() {
    let store = Store::new();
    let own = store.open().pepper(None).unwrap();
    let ledger = store.open();
    assert_eq!(*ledger.pepper(None).unwrap(), *own);
    assert_eq!(*ledger.pepper(Some(&own)).unwrap(), *own);
    assert!(matches!(ledger.pepper(Some(&[7; 32])), Err(PepperMismatch::StoreHasItsOwn)));

    let store = Store::new();
    assert_eq!(*store.open().pepper(Some(&[7; 32])).unwrap(), [7; 32]);
    let ledger = store.open();
    assert_eq!(*ledger.pepper(Some(&[7; 32])).unwrap(), [7; 32]);
    let differs = ledger.pepper(Some(&[8; 32])).unwrap_err();
    assert!(differs.to_string().contains("every buyer's used quota would read 0"));
    assert!(matches!(ledger.pepper(None), Err(PepperMismatch::Missing)));
}

/// Ten a minute are ten a minute, whichever of the last five minutes a clock returns to, with open requests
/// and rates, too.
#[test]
fn a_minute_is_handed_out_once_by_a_clock_that_is_set_by_less_than_five() {
    let store = Store::new();
    let ledger = store.open();
    let minute = |count| Some(Limit { count, per: Period::Minute });
    let mut had = std::collections::HashMap::<u64, [u64; 2]>::new();
    let mut open = Vec::new();
    for step in [0, 1, 2, 3, 0, 4, 1, 2, 0, 3, 4, 1, 0] {
        let now = UnixMs(NOW.0 + step * 60_000);
        let [messages, rate] = had.entry(step).or_default();
        for turn in 0..6 {
            let demand = Demand { now, messages: minute(3), ..ask(ANNA) };
            if let Ok(grant) = reserve(&ledger, &demand) {
                *messages += 1;
                match turn % 2 {
                    0 => ledger.settle(grant.hold, charge(1)),
                    _ => open.push(grant.hold),
                }
            }
            let pace = RateRequest { license: BERT, rate: minute(2), concurrency: None };
            *rate += u64::from(ready(ledger.enter(&pace, now)).is_ok());
        }
        assert_eq!([*messages, *rate], [3, 2], "minute {step}");
    }
    open.iter().for_each(|hold| ledger.settle(*hold, charge(1)));
}

/// One file has one owner, and one journal, by whatever path it is reached.
#[test]
fn a_store_has_one_owner_by_whatever_path_it_is_reached() {
    let store = Store::new();
    let ledger = store.open();
    let other = store.dir.path().join("other");
    std::fs::create_dir(&other).unwrap();
    let (soft, hard, dotted) = (
        other.join("soft.db"),
        other.join("hard.db"),
        store.dir.path().join("./data/./gatekeeper.db"),
    );
    std::os::unix::fs::symlink(store.path(), &soft).unwrap();
    std::fs::hard_link(store.path(), &hard).unwrap();
    for path in [&soft, &hard, &dotted] {
        let opened = EmbeddedLedger::open_at(path, KEEP, SMALL, NOW, None, Residency::OnDemand);
        assert!(matches!(opened, Err(StoreOpenError::InUse { .. })), "{}", path.display());
    }
    let grant = reserve(&ledger, &Demand { messages: month(1), ..ask(ANNA) }).unwrap();
    ledger.settle(grant.hold, charge(7));
    ledger.close();
    drop(ledger);
    let linked =
        EmbeddedLedger::open_at(&soft, KEEP, SMALL, NOW, None, Residency::OnDemand).unwrap();
    assert_eq!(used(&linked, ANNA), (1, 7));
    assert!(matches!(store.try_open(SMALL), Err(StoreOpenError::InUse { .. })));
    linked.close();
}
