//! What answers cost, by provider and UTC day, and the budgets that hold it.
//!
//! [`SpendTracker`] outlives every snapshot; [`Budgets`] belong to one. A cost counts when a request
//! settles, on the day on which it arrived, so that a day here is a day in the store. A budget is exceeded
//! by the requests in flight when it is reached, and by no more.

#[cfg(test)]
mod bad_days;
mod day;
mod doubts;
#[cfg(test)]
mod hang_ups;
pub mod unseen_tokens;
mod waste;

use std::{
    borrow::Cow,
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release},
    },
    time::Instant,
};

use gatekeeper_filters::kernel::{
    Code, CostSink, Cut, LicenseId, Record, Rejection, Target, UnixMs, UnseenEstimate, Whole,
};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use self::{
    day::start,
    doubts::DoubtfulRequests,
    unseen_tokens::{UnseenRate, UnseenRates},
    waste::WasteTracker,
};

use crate::config::settings::Settings;

/// Everything spent, of all providers that were ever configured.
#[derive(Default)]
pub struct SpendTracker {
    /// Of all providers together.
    total: Arc<SpendCounter>,
    counters: Mutex<BTreeMap<Arc<str>, Arc<SpendCounter>>>,
    /// How fast each target produces tokens that are not visible in its answers.
    pub unseen_rates: UnseenRates,
    /// Cost of provider work that was never delivered, by licence.
    waste: WasteTracker,
    doubts: DoubtfulRequests,
}

/// What was spent in one place. Days lie in two slots by turns: a clock that steps back over
/// midnight finds the day again.
#[derive(Default)]
struct SpendCounter {
    days: [DaySlot; 2],
    turn: Mutex<()>,
    /// Start of the day for which the exhausted budget was last logged.
    logged_day: AtomicU64,
}

/// Picodollars.
#[derive(Default)]
struct DaySlot {
    /// Its start; 0 for none yet.
    start: AtomicU64,
    /// By this gateway.
    here: AtomicU64,
    /// By other gateways, as far as is known.
    elsewhere: AtomicU64,
}

impl SpendCounter {
    /// The day of `now`, begun when it is another than the one in its slot. That one is two days
    /// away or more: no request lasts so long, so it is over, or the clock was wrong.
    fn day(&self, now: UnixMs) -> &DaySlot {
        let start = start(now);
        let day = &self.days[(start / 86_400_000 % 2) as usize];
        if day.start.load(Acquire) != start {
            let _turn = self.turn.lock();
            if day.start.load(Relaxed) != start {
                day.here.store(0, Relaxed);
                day.elsewhere.store(0, Relaxed);
                day.start.store(start, Release);
            }
        }
        day
    }

    fn add(&self, picodollars: u64, now: UnixMs) {
        // Saturates: an absurd figure of a provider must not wrap the counter to zero.
        let add = |spent: u64| Some(spent.saturating_add(picodollars));
        let _ = self.day(now).here.fetch_update(Relaxed, Relaxed, add);
    }

    fn here(&self, now: UnixMs) -> u64 {
        self.day(now).here.load(Relaxed)
    }

    fn spent(&self, now: UnixMs) -> u64 {
        let day = self.day(now);
        day.here.load(Relaxed).saturating_add(day.elsewhere.load(Relaxed))
    }

    /// Whether `limit` is reached; logs that once a day.
    fn is_spent(&self, limit: u64, of: &str, now: UnixMs) -> bool {
        let spent = self.spent(now);
        let is = spent >= limit;
        if is && self.logged_day.swap(start(now), Relaxed) != start(now) {
            log::error!(
                "The budget of {of} is spent: ${} of ${} today; requests are refused or go \
                 elsewhere until midnight UTC.",
                dollars(spent),
                dollars(limit)
            );
        }
        is
    }
}

impl SpendTracker {
    fn counter(&self, provider: &str) -> Arc<SpendCounter> {
        let mut counters = self.counters.lock();
        if let Some(counter) = counters.get(provider) {
            return counter.clone();
        }
        counters.entry(provider.into()).or_default().clone()
    }

    /// Adds to what this gateway has spent at a provider: what the store knows at a start.
    pub fn add(&self, provider: &str, picodollars: u64, now: UnixMs) {
        self.counter(provider).add(picodollars, now);
        self.total.add(picodollars, now);
    }

    /// Adds to what a licence has wasted: what the store knows at a start. It is spent already.
    pub fn add_waste(&self, license: &LicenseId, picodollars: u64, now: UnixMs) {
        self.waste.add(license, picodollars, now);
    }

    /// Picodollars spent on the day of `now` at a provider, by all gateways.
    pub fn spent(&self, provider: &str, now: UnixMs) -> u64 {
        self.counter(provider).spent(now)
    }

    /// Picodollars spent on the day of `now` in all, by all gateways.
    pub fn total(&self, now: UnixMs) -> u64 {
        self.total.spent(now)
    }

    /// What this gateway itself has spent on the day of `now`, by provider: for the other gateways.
    pub fn here(&self, now: UnixMs) -> Vec<(Arc<str>, u64)> {
        let counters = self.counters.lock();
        counters.iter().map(|(provider, counter)| (provider.clone(), counter.here(now))).collect()
    }

    /// Sets what the other gateways together have spent at a provider on the day of `now`, in place of the
    /// last figure. Not to be called concurrently.
    pub fn set_elsewhere(&self, provider: &str, picodollars: u64, now: UnixMs) {
        let counter = self.counter(provider);
        let before = counter.day(now).elsewhere.swap(picodollars, Relaxed);
        // Wraps when the figure has become smaller, and the sum wraps back.
        self.total.day(now).elsewhere.fetch_add(picodollars.wrapping_sub(before), Relaxed);
    }
}

/// The budgets of one configuration, and the counters that they hold.
pub struct Budgets {
    all: Arc<SpendTracker>,
    total: Arc<SpendCounter>,
    /// Picodollars a day.
    total_limit: Option<u64>,
    /// Picodollars that one licence may waste a day.
    waste_limit: Option<u64>,
    /// In the order of the snapshot's providers.
    providers: Vec<ProviderBudget>,
    /// Whether there is any budget at all.
    any: bool,
    /// By label: those of the snapshot's targets.
    unseen_rates: FxHashMap<Arc<str>, Arc<UnseenRate>>,
}

struct ProviderBudget {
    name: Arc<str>,
    counter: Arc<SpendCounter>,
    limit: Option<u64>,
}

/// One budget: the provider's name (`all` for the whole), picodollars spent today, and the limit.
pub struct BudgetStatus<'a> {
    pub name: &'a str,
    pub spent: u64,
    pub limit: u64,
}

impl Budgets {
    pub fn new(settings: &Settings, spending: &Arc<SpendTracker>) -> Self {
        let budget = |provider: &crate::config::settings::ProviderSettings| ProviderBudget {
            name: provider.name.clone(),
            counter: spending.counter(&provider.name),
            limit: provider.budget,
        };
        let providers: Vec<_> = settings.providers.iter().map(budget).collect();
        let total_limit = settings.budget;
        let any = total_limit.is_some() || providers.iter().any(|budget| budget.limit.is_some());
        let (all, total) = (spending.clone(), spending.total.clone());
        let labels = settings.models.values().flat_map(|model| &model.targets);
        let unseen_rates =
            labels.map(|target| (target.label.clone(), spending.unseen_rates.of(&target.label)));
        let waste_limit = waste_limit(settings);
        Self {
            all,
            total,
            total_limit,
            waste_limit,
            providers,
            any,
            unseen_rates: unseen_rates.collect(),
        }
    }

    fn pace<T>(&self, target: &Target, act: impl FnOnce(&UnseenRate) -> T) -> T {
        match self.unseen_rates.get(&target.label) {
            Some(pace) => act(pace),
            // Of another configuration.
            None => act(&self.all.unseen_rates.of(&target.label)),
        }
    }

    /// Keeps in mind what counts only if its target proves to work.
    pub fn doubt(&self, target: &Target, record: Record) {
        self.all.doubts.add(&target.label, Instant::now(), record);
    }

    /// The target has answered a request: the doubtful ones of the same period count as spent, and are
    /// returned to be recorded.
    pub fn prove(&self, target: &Target) -> Vec<Record> {
        let proven = self.all.doubts.prove(&target.label, Instant::now());
        for record in &proven {
            self.spend(target, record.cost, record.time);
            if let Some(license) = &record.license {
                self.waste(license, target, record.cost, record.time);
            }
        }
        proven
    }

    /// Whether a licence may be served on the day of `now`.
    ///
    /// # Errors
    /// It has wasted its share of the day's budget.
    pub fn may_ask(&self, license: &LicenseId, now: UnixMs) -> Result<(), Rejection> {
        match self.waste_limit {
            Some(limit) if self.all.waste.spent(license, now) >= limit => Err(wasteful()),
            _ => Ok(()),
        }
    }

    /// The targets whose provider may still be paid, in order.
    ///
    /// # Errors
    /// There is none.
    pub fn affordable<'a>(
        &self,
        targets: &'a [Arc<Target>],
        now: UnixMs,
    ) -> Result<Cow<'a, [Arc<Target>]>, Rejection> {
        if !self.any {
            return Ok(Cow::Borrowed(targets));
        }
        if self.is_total_spent(now) {
            return Err(spent_up());
        }
        let may = |target: &Arc<Target>| !self.is_spent_at(target.provider, now);
        if targets.iter().all(may) {
            return Ok(Cow::Borrowed(targets));
        }
        let left: Vec<_> = targets.iter().filter(|target| may(target)).cloned().collect();
        if left.is_empty() { Err(spent_up()) } else { Ok(Cow::Owned(left)) }
    }

    fn is_total_spent(&self, now: UnixMs) -> bool {
        self.total_limit.is_some_and(|limit| self.total.is_spent(limit, "all providers", now))
    }

    fn is_spent_at(&self, provider: usize, now: UnixMs) -> bool {
        let budget = &self.providers[provider];
        budget.limit.is_some_and(|limit| budget.counter.is_spent(limit, &budget.name, now))
    }

    /// Every budget that is set.
    pub fn used(&self, now: UnixMs) -> impl Iterator<Item = BudgetStatus<'_>> {
        let total = self.total_limit.map(|limit| ("all", &self.total, limit));
        let each = self.providers.iter().filter_map(|p| Some((&*p.name, &p.counter, p.limit?)));
        let used = move |(name, counter, limit): (_, &Arc<SpendCounter>, _)| BudgetStatus {
            name,
            spent: counter.spent(now),
            limit,
        };
        total.into_iter().chain(each).map(used)
    }

    /// Picodollars spent on the day of `now` at a provider of the snapshot, and in all.
    pub fn spent(&self, provider: usize, now: UnixMs) -> u64 {
        self.providers[provider].counter.spent(now)
    }

    /// The same of all providers together.
    pub fn total(&self, now: UnixMs) -> u64 {
        self.total.spent(now)
    }
}

impl CostSink for Budgets {
    fn spend(&self, target: &Target, picodollars: u64, now: UnixMs) {
        let budget = self.providers.get(target.provider);
        match budget.filter(|budget| budget.name == target.provider_name) {
            Some(budget) => {
                budget.counter.add(picodollars, now);
                self.total.add(picodollars, now);
            }
            // The target was chosen under an earlier configuration, whose indices differ.
            None => return self.all.add(&target.provider_name, picodollars, now),
        }
        // Logged when the budget is exhausted, not when the next request is refused.
        self.is_spent_at(target.provider, now);
        self.is_total_spent(now);
    }

    fn waste(&self, license: &LicenseId, _: &Target, picodollars: u64, now: UnixMs) {
        self.all.waste.add(license, picodollars, now);
    }

    fn answered(&self, target: &Target) {
        self.pace(target, |pace| pace.answered(Instant::now()));
    }

    fn learn(&self, target: &Target, answer: &Whole) {
        self.pace(target, |pace| pace.learn(answer));
    }

    fn unseen(&self, target: &Target, cut: &Cut) -> UnseenEstimate {
        self.pace(target, |pace| pace.unseen(cut))
    }

    fn timed_out(&self, license: &LicenseId, now: UnixMs) -> u32 {
        self.all.waste.timed_out(license, now)
    }
}

/// The share of the smallest budget that is set: no licence takes more than that of any.
fn waste_limit(settings: &Settings) -> Option<u64> {
    let budgets = settings.providers.iter().map(|provider| provider.budget);
    let smallest = budgets.chain([settings.budget]).flatten().min()?;
    Some((smallest / 10_000).saturating_mul(settings.waste_per_licence).max(1))
}

/// Seconds. The waste of a day is not forgiven sooner, but a 429 never states more than a minute.
const WASTEFUL_RETRY_AFTER: u64 = 60;

fn wasteful() -> Rejection {
    Rejection::new(
        Code::RateLimited,
        "Too many of your requests took too long today. Please ask for shorter answers, or try again \
         tomorrow.",
    )
    .internal("the licence has wasted its share of the day's budget (`budget.waste_per_licence`)")
    .retry_after(WASTEFUL_RETRY_AFTER)
}

/// Waiting some seconds does not help, and the buyer is not to blame.
fn spent_up() -> Rejection {
    Rejection::new(
        Code::UpstreamExhausted,
        "The AI service has reached its capacity for today. Please try again tomorrow.",
    )
    .internal("the budget of every provider that could serve is spent")
}

/// Exact decimal text of picodollars: `0.000011`, `20`.
pub fn dollars(picodollars: u64) -> String {
    use gatekeeper_filters::kernel::DOLLAR;
    let (total, rest) = (picodollars / DOLLAR, picodollars % DOLLAR);
    let text = format!("{total}.{rest:012}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400_000;
    const NOON: UnixMs = UnixMs(20_000 * DAY + DAY / 2);

    fn at(days: u64) -> UnixMs {
        UnixMs(NOON.0 + days * DAY)
    }

    #[test]
    fn a_day_begins_at_midnight_with_nothing_spent() {
        let spending = SpendTracker::default();
        let last = UnixMs(start(at(1)) - 1);
        spending.add("p", 7, last);
        spending.set_elsewhere("p", 5, last);
        assert_eq!((spending.spent("p", last), spending.total(last)), (12, 12));
        let first = UnixMs(last.0 + 1);
        assert_eq!((spending.spent("p", first), spending.total(first)), (0, 0));
        spending.add("p", 1, first);
        // Asked for before midnight, settled after it.
        spending.add("p", 2, last);
        assert_eq!((spending.spent("p", last), spending.spent("p", first)), (14, 1));
        assert_eq!(spending.here(first), [("p".into(), 1)]);
    }

    #[test]
    fn a_clock_that_was_far_ahead_stops_no_counting() {
        let spending = SpendTracker::default();
        for ahead in [2, 3, 40, 3_650] {
            spending.add("p", 1, at(ahead));
            for days in [0, 1] {
                let before = spending.total(at(days));
                spending.add("p", 5, at(days));
                assert_eq!(spending.total(at(days)), before + 5);
            }
        }
    }

    #[test]
    fn nonsense_fills_a_till_and_does_not_empty_it() {
        let spending = SpendTracker::default();
        for _ in 0..3 {
            spending.add("p", u64::MAX - 1, NOON);
        }
        assert_eq!((spending.spent("p", NOON), spending.total(NOON)), (u64::MAX, u64::MAX));
    }

    #[test]
    fn what_others_spent_is_replaced_and_never_published_as_our_own() {
        let spending = SpendTracker::default();
        spending.add("p", 10, NOON);
        for (figure, total) in [(100, 110), (40, 50), (0, 10), (7, 17)] {
            spending.set_elsewhere("p", figure, NOON);
            assert_eq!((spending.spent("p", NOON), spending.total(NOON)), (10 + figure, total));
        }
        spending.set_elsewhere("q", 3, NOON);
        assert_eq!(spending.total(NOON), 20);
        assert_eq!(spending.here(NOON), [("p".into(), 10), ("q".into(), 0)]);
    }

    #[test]
    fn many_threads_spend_exactly_what_they_spend_also_over_midnight() {
        let spending = SpendTracker::default();
        let moments = [UnixMs(start(at(1)) - 1), at(1)];
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let spending = &spending;
                scope.spawn(move || {
                    for turn in 0..2_000 {
                        spending.add("p", 3, moments[(turn + thread) % 2]);
                    }
                });
            }
        });
        for moment in moments {
            assert_eq!((spending.spent("p", moment), spending.total(moment)), (24_000, 24_000));
        }
    }

    #[test]
    fn dollars_are_written_to_the_picodollar() {
        for (picodollars, text) in [
            (0, "0"),
            (1, "0.000000000001"),
            (1_110_000, "0.00000111"),
            (20_000_000_000_000, "20"),
            (12_345_000_000_000, "12.345"),
        ] {
            assert_eq!(dollars(picodollars), text);
        }
    }
}
