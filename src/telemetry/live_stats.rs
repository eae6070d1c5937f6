//! Running totals and recent requests for `/status`, `/feed` and `/api/history`. In memory only; lost at a
//! restart.
//!
//! ```text
//! a request ends ─► counters of its thread ─┐
//!                   counters of its thread ─┼─► collected four times a second, and at each read
//!                                          …┘
//! ```
//! A request locks the counters of its own thread, which only the collection contends for. Totals are exact
//! whenever they are read; only the minute that a request is counted in may be late by one collection.

use std::{
    collections::VecDeque,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use gatekeeper_filters::kernel::{Delivery, Outcome, Record, UnixMs, UsageFigures};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

pub use super::totals::{KEPT, Totals};
use super::{
    daily_totals::DailyTotals,
    histogram::Histogram,
    peer_stats::PeerStats,
    recent_request::RecentRequest,
    stats::{self, ErrorCounts, Stats},
    time_series::{self, Ring, TimeSeries, WindowTotals},
};
use crate::telemetry::completed_request::CompletedRequest;

/// More threads than this share tallies.
const TALLIES: usize = 32;

pub struct LiveStats {
    since: UnixMs,
    /// Random letters of this boot.
    pub boot: String,
    /// The number of the last request.
    last: AtomicU64,
    salt: RandomState,
    tallies: Box<[ThreadCounters]>,
    collected: Mutex<CollectedStats>,
    pub neighbours: PeerStats,
}

/// Its own cache lines, so that threads don't slow each other down.
#[repr(align(128))]
#[derive(Default)]
struct ThreadCounters(Mutex<CounterDelta>);

/// What one thread has counted since the last collection.
#[derive(Default)]
struct CounterDelta {
    total: u64,
    sums: WindowTotals,
    overhead: Histogram,
    codes: ErrorCounts,
    today: DailyTotals,
    recent: VecDeque<RecentRequest>,
}

struct CollectedStats {
    total: u64,
    success: u64,
    failed: u64,
    refused: u64,
    codes: ErrorCounts,
    history: TimeSeries,
    /// Requests that ended, by the second.
    seconds: Ring<u64>,
    today: DailyTotals,
    /// Newest first.
    recent: VecDeque<Arc<RecentRequest>>,
    /// Those that no feed has sent yet, newest first.
    fresh: VecDeque<Arc<RecentRequest>>,
    /// What tallies are swapped with.
    spare: CounterDelta,
}

/// How much of a request was waited, and what a smart model saved by it.
#[derive(Debug, Clone, Copy)]
pub(super) struct WaitTimes {
    /// Microseconds that were the gateway's own.
    pub own_us: u64,
    /// Picodollars.
    pub saved: u64,
}

impl LiveStats {
    pub fn new() -> Self {
        let salt = RandomState::new();
        Self {
            since: UnixMs::now(),
            boot: format!("{:016x}", RandomState::new().hash_one(0)),
            last: AtomicU64::new(0),
            salt,
            tallies: (0..TALLIES).map(|_| ThreadCounters::default()).collect(),
            collected: Mutex::new(CollectedStats {
                total: 0,
                success: 0,
                failed: 0,
                refused: 0,
                codes: ErrorCounts::default(),
                history: TimeSeries::default(),
                seconds: Ring::new(1_000, 61),
                today: DailyTotals::default(),
                recent: VecDeque::with_capacity(KEPT),
                fresh: VecDeque::with_capacity(KEPT),
                spare: CounterDelta::default(),
            }),
            neighbours: PeerStats::default(),
        }
    }

    /// Adds what was used and not counted here: before this process began, or in its predecessor since.
    pub fn used(&self, more: &DailyTotals) {
        self.collected.lock().today.add(more);
    }

    /// No less than this was used, here and elsewhere.
    pub fn used_at_least(&self, known: &DailyTotals) {
        self.take_in(UnixMs::now()).today.raise(known);
    }

    pub(super) fn finished(
        &self,
        request: &mut CompletedRequest<'_>,
        outcome: Outcome,
        record: &Record,
        times: WaitTimes,
    ) {
        let id = self.last.fetch_add(1, Relaxed) + 1;
        let who = record.license.map_or(0, |license| self.salt.hash_one(license) as u32);
        let first = request.first_output.map(|at| at.duration_since(request.arrived));
        let code = request.reject.map(|reject| reject.code);
        let seen = RecentRequest::new(id, request, outcome, record, who);
        let Some(ThreadCounters(tally)) = self.tallies.get(place() % TALLIES) else { return };
        let mut counted = tally.lock();
        counted.total += 1;
        let sums = &mut counted.sums;
        match outcome.delivery {
            Delivery::Whole => sums.success += 1,
            Delivery::Broken | Delivery::Failed => sums.failed += 1,
            Delivery::Refused | Delivery::Relayed => sums.refused += 1,
            Delivery::Abandoned => {}
        }
        sums.used.add(&UsageFigures::of_request(record));
        sums.saved = sums.saved.saturating_add(times.saved);
        if let Some(first) = first {
            sums.first.observe(first.as_millis() as u64);
        }
        if record.sent {
            sums.took.observe(record.ms);
            counted.overhead.observe(times.own_us);
        }
        if let Some(count) = code.and_then(|code| counted.codes.get_mut(code as usize)) {
            *count += 1;
        }
        counted.today.count(record, times.saved);
        if counted.recent.len() == KEPT {
            counted.recent.pop_back();
        }
        counted.recent.push_front(seen);
    }

    /// Brings in what the threads have counted.
    pub fn collect(&self, now: UnixMs) {
        drop(self.take_in(now));
    }

    fn take_in(&self, now: UnixMs) -> parking_lot::MutexGuard<'_, CollectedStats> {
        let mut collected = self.collected.lock();
        let mut spare = std::mem::take(&mut collected.spare);
        let mut came = Vec::new();
        for ThreadCounters(tally) in &self.tallies {
            {
                let mut counted = tally.lock();
                if counted.total == 0 {
                    continue;
                }
                std::mem::swap(&mut *counted, &mut spare);
            }
            came.extend(spare.recent.drain(..).map(Arc::new));
            collected.add(&spare, now);
            let emptied = std::mem::take(&mut spare.recent);
            spare = CounterDelta { recent: emptied, ..CounterDelta::default() };
        }
        collected.spare = spare;
        collected.see(came);
        collected.today.turn(now);
        collected
    }

    pub fn totals(&self) -> Totals {
        self.take_in(UnixMs::now()).totals()
    }

    /// Totals, and the newest requests first.
    pub fn recent(&self) -> (Totals, VecDeque<Arc<RecentRequest>>) {
        let collected = self.take_in(UnixMs::now());
        (collected.totals(), collected.recent.clone())
    }

    /// The same as members of `/status`.
    pub fn own(&self) -> Map<String, Value> {
        let (totals, recent) = self.recent();
        let mut own = Map::new();
        own.insert("boot".into(), json!(self.boot));
        own.insert("since".into(), json!(&*self.since.to_rfc3339()));
        totals.put_into(&mut own);
        own.insert("requests".into(), recent.iter().map(|seen| seen.to_json()).collect());
        own
    }

    /// Totals, and the requests that no feed has sent yet, newest first.
    pub fn fresh(&self) -> (Totals, VecDeque<Arc<RecentRequest>>) {
        let mut collected = self.take_in(UnixMs::now());
        let fresh = std::mem::take(&mut collected.fresh);
        (collected.totals(), fresh)
    }

    /// Totals and newest requests as members of `/status`: those of this gateway, and where several
    /// share a store the requests of all, and each one's totals.
    pub fn to_json(&self) -> Map<String, Value> {
        let own = self.own();
        match self.neighbours.together(own.clone()) {
            None => own,
            Some((requests, gateways)) => {
                let mut status = own;
                status.insert("requests".into(), requests);
                status.insert("gateways".into(), gateways);
                status
            }
        }
    }

    pub fn figures(&self, now: UnixMs) -> Stats {
        let collected = self.take_in(now);
        let mut figures = Stats {
            codes: stats::named(&collected.codes),
            today: collected.today.clone(),
            ..Stats::default()
        };
        for (_, sums) in collected.history.minutes.known(now) {
            figures.took.add(&sums.took);
            figures.first.add(&sums.first);
        }
        for (_, overhead) in collected.history.overhead.known(now) {
            figures.overhead.add(overhead);
        }
        // The running second and sixty whole ones.
        figures.per_minute = collected.seconds.known(now).map(|(_, count)| count).sum();
        figures
    }

    pub fn history(&self, now: UnixMs) -> time_series::SharedSeries {
        self.take_in(now).history.shared(now)
    }
}

impl Default for LiveStats {
    fn default() -> Self {
        Self::new()
    }
}

impl CollectedStats {
    fn totals(&self) -> Totals {
        let Self { total, success, failed, refused, .. } = *self;
        Totals { total, success, failed, refused }
    }

    fn add(&mut self, counted: &CounterDelta, now: UnixMs) {
        self.total += counted.total;
        self.success += counted.sums.success;
        self.failed += counted.sums.failed;
        self.refused += counted.sums.refused;
        for (to, from) in self.codes.iter_mut().zip(counted.codes) {
            *to += from;
        }
        self.history.add(&counted.sums, &counted.overhead, now);
        if let Some(second) = self.seconds.at(now) {
            *second += counted.total;
        }
        self.today.add(&counted.today);
    }

    fn see(&mut self, mut came: Vec<Arc<RecentRequest>>) {
        // Threads were collected one after the other.
        came.sort_unstable_by_key(|seen| seen.id);
        for seen in came.split_off(came.len().saturating_sub(KEPT)) {
            for list in [&mut self.recent, &mut self.fresh] {
                if list.len() == KEPT {
                    list.pop_back();
                }
                list.push_front(seen.clone());
            }
        }
    }
}

/// The tally of this thread.
fn place() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static PLACE: usize = NEXT.fetch_add(1, Relaxed);
    }
    PLACE.with(|place| *place)
}

#[cfg(test)]
mod tests {
    use gatekeeper_filters::kernel::{LicenseId, Usage, UsageSource};

    use super::*;

    fn record(model: &str) -> Record {
        Record {
            time: UnixMs::now(),
            license: Some(LicenseId([7; 32])),
            endpoint: "chat",
            plan: "free".into(),
            model: model.into(),
            served: "p/m".into(),
            provider: "p".into(),
            key: "p-1".into(),
            usage: Usage { input: 10, output: 5, ..Usage::default() },
            source: UsageSource::Reported,
            charged: 15,
            wasted: 0,
            cost: 3,
            wasted_cost: 0,
            sent: true,
            status: 200,
            ms: 40,
            attempts: 1,
        }
    }

    fn one(live: &LiveStats, delivery: Delivery) {
        let outcome = Outcome { status: 200, delivery };
        let times = WaitTimes { own_us: 30, saved: 1 };
        live.finished(
            &mut CompletedRequest::without_context(&"".into(), None),
            outcome,
            &record("fast"),
            times,
        );
    }

    #[test]
    fn nothing_is_lost_or_counted_twice_by_many_threads_and_those_who_look() {
        const EACH: u64 = 20_000;
        let live = LiveStats::new();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..EACH).for_each(|_| one(&live, Delivery::Whole)));
            }
            scope.spawn(|| {
                let mut last = 0;
                while last < 4 * EACH {
                    let totals = live.totals();
                    assert!(totals.total >= last && totals.success == totals.total);
                    last = totals.total;
                }
            });
        });
        let now = UnixMs::now();
        let figures = live.figures(now);
        assert_eq!(figures.today.models[0].figures.requests, 4 * EACH);
        assert_eq!(figures.today.models[0].figures.input, 40 * EACH);
        assert_eq!(figures.took.count(), 4 * EACH);
        assert!((29.0..32.0).contains(&figures.overhead.quantile(0.5).unwrap()));
        assert_eq!(figures.per_minute, 4 * EACH);
        let (_, fresh) = live.fresh();
        assert_eq!(fresh.len(), KEPT);
        assert_eq!(live.own()["requests"].as_array().unwrap().len(), KEPT);
        assert!(live.fresh().1.is_empty());
    }

    #[test]
    fn what_ended_how_is_told_apart() {
        let live = LiveStats::new();
        for delivery in [
            Delivery::Whole,
            Delivery::Broken,
            Delivery::Failed,
            Delivery::Refused,
            Delivery::Relayed,
            Delivery::Abandoned,
        ] {
            one(&live, delivery);
        }
        let totals = live.totals();
        assert_eq!(totals, Totals { total: 6, success: 1, failed: 2, refused: 2 });
        let mut members = Map::new();
        totals.put_into(&mut members);
        assert_eq!(members["success_rate"], json!(1.0 / 3.0));
        let own = live.own();
        let names: Vec<&str> = own["requests"]
            .as_array()
            .unwrap()
            .iter()
            .map(|r| r["outcome"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["abandoned", "relayed", "refused", "failed", "broken", "whole"]);
        assert_eq!(own["requests"][0]["id"], 6);
    }
}
