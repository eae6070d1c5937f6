//! What answers cost, by provider and UTC day, and the budgets that hold it.
//!
//! [`SpendTracker`] outlives every snapshot; [`Budgets`] are those of one. A cost counts the moment a
//! request settles, in the day in which it was asked for, so that a day here is a day in the store.
//! A budget is overshot by what is in flight when it is reached, and by no more.

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
    whole: Arc<SpendCounter>,
    tills: Mutex<BTreeMap<Arc<str>, Arc<SpendCounter>>>,
    /// What answers of each target hold that nobody sees.
    pub paces: UnseenRates,
    /// What each licence made providers do for nobody.
    wastes: WasteTracker,
    doubts: DoubtfulRequests,
}

/// What was spent in one place. Days lie in two slots by turns: a clock that steps back over
/// midnight finds the day again.
#[derive(Default)]
struct SpendCounter {
    days: [DaySlot; 2],
    turn: Mutex<()>,
    /// First moment of the day in which the operator was last told that the budget is spent.
    told: AtomicU64,
}

/// Picodollars.
#[derive(Default)]
struct DaySlot {
    /// Its first moment; 0 for none yet.
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
        // A provider's nonsense must not wrap round to an empty till.
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

    /// Whether `limit` is reached; tells the operator once a day.
    fn is_spent(&self, limit: u64, of: &str, now: UnixMs) -> bool {
        let spent = self.spent(now);
        let is = spent >= limit;
        if is && self.told.swap(start(now), Relaxed) != start(now) {
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
    fn till(&self, provider: &str) -> Arc<SpendCounter> {
        let mut tills = self.tills.lock();
        if let Some(till) = tills.get(provider) {
            return till.clone();
        }
        tills.entry(provider.into()).or_default().clone()
    }

    /// Adds to what this gateway has spent at a provider: what the store knows at a start.
    pub fn add(&self, provider: &str, picodollars: u64, now: UnixMs) {
        self.till(provider).add(picodollars, now);
        self.whole.add(picodollars, now);
    }

    /// Adds to what a licence has wasted: what the store knows at a start. It is spent already.
    pub fn add_waste(&self, license: &LicenseId, picodollars: u64, now: UnixMs) {
        self.wastes.add(license, picodollars, now);
    }

    /// Picodollars spent on the day of `now` at a provider, by all gateways.
    pub fn spent(&self, provider: &str, now: UnixMs) -> u64 {
        self.till(provider).spent(now)
    }

    /// Picodollars spent on the day of `now` in all, by all gateways.
    pub fn whole(&self, now: UnixMs) -> u64 {
        self.whole.spent(now)
    }

    /// What this gateway itself has spent on the day of `now`, by provider: for the other gateways.
    pub fn here(&self, now: UnixMs) -> Vec<(Arc<str>, u64)> {
        let tills = self.tills.lock();
        tills.iter().map(|(provider, till)| (provider.clone(), till.here(now))).collect()
    }

    /// What the other gateways together have spent on the day of `now` at a provider; replaces what
    /// was said before. One caller at a time.
    pub fn set_elsewhere(&self, provider: &str, picodollars: u64, now: UnixMs) {
        let till = self.till(provider);
        let before = till.day(now).elsewhere.swap(picodollars, Relaxed);
        // Wraps when the figure has become smaller, and the sum wraps back.
        self.whole.day(now).elsewhere.fetch_add(picodollars.wrapping_sub(before), Relaxed);
    }
}

/// The budgets of one configuration, and the tills that they hold.
pub struct Budgets {
    all: Arc<SpendTracker>,
    whole: Arc<SpendCounter>,
    /// Picodollars a day.
    whole_limit: Option<u64>,
    /// Picodollars that one licence may waste a day.
    waste_limit: Option<u64>,
    /// In the order of the snapshot's providers.
    providers: Vec<ProviderBudget>,
    /// Whether there is any budget at all.
    any: bool,
    /// By label: those of the snapshot's targets.
    paces: FxHashMap<Arc<str>, Arc<UnseenRate>>,
}

struct ProviderBudget {
    name: Arc<str>,
    till: Arc<SpendCounter>,
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
        let purse = |provider: &crate::config::settings::ProviderSettings| ProviderBudget {
            name: provider.name.clone(),
            till: spending.till(&provider.name),
            limit: provider.budget,
        };
        let providers: Vec<_> = settings.providers.iter().map(purse).collect();
        let whole_limit = settings.budget;
        let any = whole_limit.is_some() || providers.iter().any(|purse| purse.limit.is_some());
        let (all, whole) = (spending.clone(), spending.whole.clone());
        let labels = settings.models.values().flat_map(|model| &model.targets);
        let paces = labels.map(|target| (target.label.clone(), spending.paces.of(&target.label)));
        let waste_limit = waste_limit(settings);
        Self { all, whole, whole_limit, waste_limit, providers, any, paces: paces.collect() }
    }

    fn pace<T>(&self, target: &Target, act: impl FnOnce(&UnseenRate) -> T) -> T {
        match self.paces.get(&target.label) {
            Some(pace) => act(pace),
            // Of another configuration.
            None => act(&self.all.paces.of(&target.label)),
        }
    }

    /// Keeps in mind what counts only if its target proves to work.
    pub fn doubt(&self, target: &Target, record: Record) {
        self.all.doubts.add(&target.label, Instant::now(), record);
    }

    /// A target has answered somebody: what it worked on meanwhile is spent, and to be recorded.
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
            Some(limit) if self.all.wastes.spent(license, now) >= limit => Err(wasteful()),
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
        if self.is_whole_spent(now) {
            return Err(spent_up());
        }
        let may = |target: &Arc<Target>| !self.is_spent_at(target.provider, now);
        if targets.iter().all(may) {
            return Ok(Cow::Borrowed(targets));
        }
        let left: Vec<_> = targets.iter().filter(|target| may(target)).cloned().collect();
        if left.is_empty() { Err(spent_up()) } else { Ok(Cow::Owned(left)) }
    }

    fn is_whole_spent(&self, now: UnixMs) -> bool {
        self.whole_limit.is_some_and(|limit| self.whole.is_spent(limit, "all providers", now))
    }

    fn is_spent_at(&self, provider: usize, now: UnixMs) -> bool {
        let purse = &self.providers[provider];
        purse.limit.is_some_and(|limit| purse.till.is_spent(limit, &purse.name, now))
    }

    /// Every budget that is set.
    pub fn used(&self, now: UnixMs) -> impl Iterator<Item = BudgetStatus<'_>> {
        let whole = self.whole_limit.map(|limit| ("all", &self.whole, limit));
        let each = self.providers.iter().filter_map(|p| Some((&*p.name, &p.till, p.limit?)));
        let used = move |(name, till, limit): (_, &Arc<SpendCounter>, _)| BudgetStatus {
            name,
            spent: till.spent(now),
            limit,
        };
        whole.into_iter().chain(each).map(used)
    }

    /// Picodollars spent on the day of `now` at a provider of the snapshot, and in all.
    pub fn spent(&self, provider: usize, now: UnixMs) -> u64 {
        self.providers[provider].till.spent(now)
    }

    /// The same of all providers together.
    pub fn whole(&self, now: UnixMs) -> u64 {
        self.whole.spent(now)
    }
}

impl CostSink for Budgets {
    fn spend(&self, target: &Target, picodollars: u64, now: UnixMs) {
        let purse = self.providers.get(target.provider);
        match purse.filter(|purse| purse.name == target.provider_name) {
            Some(purse) => {
                purse.till.add(picodollars, now);
                self.whole.add(picodollars, now);
            }
            // A configuration that went live meanwhile chose the target; its places are others.
            None => return self.all.add(&target.provider_name, picodollars, now),
        }
        // Told when it happens, not when the next request is refused.
        self.is_spent_at(target.provider, now);
        self.is_whole_spent(now);
    }

    fn waste(&self, license: &LicenseId, _: &Target, picodollars: u64, now: UnixMs) {
        self.all.wastes.add(license, picodollars, now);
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
        self.all.wastes.timed_out(license, now)
    }
}

/// The share of the smallest budget that is set: no licence takes more than that of any.
fn waste_limit(settings: &Settings) -> Option<u64> {
    let budgets = settings.providers.iter().map(|provider| provider.budget);
    let smallest = budgets.chain([settings.budget]).flatten().min()?;
    Some((smallest / 10_000).saturating_mul(settings.waste_per_licence).max(1))
}

/// Seconds; waste of a day does not come back sooner, but a longer one is not for a 429 to say.
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
    let (whole, rest) = (picodollars / DOLLAR, picodollars % DOLLAR);
    let text = format!("{whole}.{rest:012}");
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
        assert_eq!((spending.spent("p", last), spending.whole(last)), (12, 12));
        let first = UnixMs(last.0 + 1);
        assert_eq!((spending.spent("p", first), spending.whole(first)), (0, 0));
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
                let before = spending.whole(at(days));
                spending.add("p", 5, at(days));
                assert_eq!(spending.whole(at(days)), before + 5);
            }
        }
    }

    #[test]
    fn nonsense_fills_a_till_and_does_not_empty_it() {
        let spending = SpendTracker::default();
        for _ in 0..3 {
            spending.add("p", u64::MAX - 1, NOON);
        }
        assert_eq!((spending.spent("p", NOON), spending.whole(NOON)), (u64::MAX, u64::MAX));
    }

    #[test]
    fn what_others_spent_is_replaced_and_never_published_as_our_own() {
        let spending = SpendTracker::default();
        spending.add("p", 10, NOON);
        for (figure, whole) in [(100, 110), (40, 50), (0, 10), (7, 17)] {
            spending.set_elsewhere("p", figure, NOON);
            assert_eq!((spending.spent("p", NOON), spending.whole(NOON)), (10 + figure, whole));
        }
        spending.set_elsewhere("q", 3, NOON);
        assert_eq!(spending.whole(NOON), 20);
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
            assert_eq!((spending.spent("p", moment), spending.whole(moment)), (24_000, 24_000));
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
