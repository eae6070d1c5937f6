//! What operators see: metrics, the live list of requests, the access log.

pub mod access_log;
pub mod completed_request;
pub mod daily_totals;
mod dollars;
pub mod failures;
pub mod histogram;
pub mod https_in_front;
pub mod live_stats;
pub mod metrics;
pub mod peer_stats;
pub mod recent_request;
pub mod refused_licenses;
pub mod stats;
pub mod time_series;
pub mod totals;
pub mod webhooks;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use gatekeeper_filters::kernel::{Delivery, Exchange, Outcome, Record, UnixMs, Usage, UsageSource};

use self::{
    access_log::AccessLog,
    completed_request::CompletedRequest,
    failures::Failures,
    https_in_front::HttpsInFront,
    live_stats::{LiveStats, WaitTimes},
    metrics::Metrics,
    refused_licenses::RefusedLicenses,
    webhooks::Webhooks,
};

pub use self::dollars::dollars;

pub struct Telemetry {
    pub metrics: Metrics,
    pub live: LiveStats,
    pub access: AccessLog,
    /// Requests that ended with a 5xx.
    pub failures: Failures,
    /// Attempts that failed, whether or not another one served the request.
    pub failed_attempts: Failures,
    pub webhooks: Webhooks,
    pub refused_licenses: RefusedLicenses,
    pub https_in_front: HttpsInFront,
    in_flight: AtomicU64,
    open: AtomicU64,
}

/// Counts one request that a valid licence has open, while it lives.
pub struct OpenGuard(Arc<Telemetry>);

impl Drop for OpenGuard {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

/// Counts one open request while it lives.
pub struct InFlightGuard(Arc<Telemetry>);

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

impl Telemetry {
    pub fn new(access: AccessLog) -> Arc<Self> {
        Arc::new(Self {
            metrics: Metrics::new(),
            live: LiveStats::new(),
            access,
            failures: Failures::of("requests"),
            failed_attempts: Failures::of("attempts"),
            webhooks: Webhooks::default(),
            refused_licenses: RefusedLicenses::default(),
            https_in_front: HttpsInFront::default(),
            in_flight: AtomicU64::new(0),
            open: AtomicU64::new(0),
        })
    }

    pub fn enter(self: &Arc<Self>) -> InFlightGuard {
        self.in_flight.fetch_add(1, Relaxed);
        InFlightGuard(self.clone())
    }

    /// Counts a request that its licence may ask, unless `most` are open.
    pub fn open(self: &Arc<Self>, most: u64) -> Option<OpenGuard> {
        let open = OpenGuard(self.clone());
        (self.open.fetch_add(1, Relaxed) < most).then_some(open)
    }

    pub fn in_flight(&self) -> u64 {
        self.in_flight.load(Relaxed)
    }

    /// One attempt at a provider ended.
    pub fn attempted(&self, provider: &str, outcome: &str) {
        self.metrics.attempts.with_label_values(&[provider, outcome]).inc();
    }

    /// One request ended. Returns its record for the ledger.
    pub fn finished(&self, request: &mut CompletedRequest<'_>, outcome: Outcome) -> Record {
        let elapsed = request.arrived.elapsed();
        let own = elapsed.saturating_sub(request.waited);
        let record = record(request, outcome, elapsed);
        self.metrics.finished(request, outcome, &record, elapsed, own);
        self.access.write(request, &record);
        if !is_local(request, outcome) {
            let saved = request.exchange.map_or(0, |exchange| exchange.saved);
            let times = WaitTimes { own_us: own.as_micros() as u64, saved };
            self.live.finished(request, outcome, &record, times);
        }
        record
    }
}

/// Answers of our own that cost nothing are no news for the operator.
fn is_local(request: &CompletedRequest<'_>, outcome: Outcome) -> bool {
    request.exchange.is_none() && outcome.delivery == Delivery::Whole
}

fn record(request: &CompletedRequest<'_>, outcome: Outcome, elapsed: Duration) -> Record {
    let exchange = request.exchange;
    let nothing = (Usage::default(), UsageSource::Estimated);
    let (usage, source) = exchange.map_or(nothing, Exchange::usage);
    let target = exchange.and_then(|exchange| exchange.served.clone());
    let empty: Arc<str> = Arc::from("");
    let served = outcome.delivery != Delivery::Refused && outcome.delivery != Delivery::Failed;
    Record {
        time: exchange.map_or_else(UnixMs::now, |exchange| exchange.now),
        license: exchange.and_then(|e| e.license.as_ref()).map(|license| license.id),
        endpoint: request.endpoint,
        plan: exchange
            .and_then(|e| e.license.as_ref())
            .map_or_else(|| empty.clone(), |license| license.plan.name.clone()),
        model: exchange
            .and_then(|e| e.route.as_ref().and(e.asked_name()))
            .map_or_else(|| empty.clone(), Arc::clone),
        served: target
            .as_ref()
            .filter(|_| served)
            .map_or_else(|| empty.clone(), |target| target.label.clone()),
        provider: request.attempts.last().map_or_else(|| empty.clone(), |a| a.provider.clone()),
        key: request.attempts.last().map_or_else(|| empty.clone(), |a| a.key.clone()),
        usage,
        source,
        charged: exchange.map_or(0, |exchange| exchange.settled.tokens),
        wasted: exchange.map_or(0, |exchange| exchange.wasted.total()),
        cost: exchange.map_or(0, |exchange| exchange.cost),
        wasted_cost: exchange.map_or(0, |exchange| exchange.wasted_cost),
        sent: exchange.is_some_and(|exchange| exchange.progress.sent),
        status: outcome.status,
        ms: elapsed.as_millis() as u64,
        attempts: request.attempts.len() as u32,
    }
}
