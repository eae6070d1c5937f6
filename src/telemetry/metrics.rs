//! Every metric by name, in one place. Labels come from closed sets: endpoints, configured names,
//! statuses; never from what an app sends.

mod register;

use std::{
    cell::RefCell,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use gatekeeper_filters::kernel::{DOLLAR, Delivery, Outcome, Record};
use parking_lot::Mutex;
use prometheus::{
    Counter, CounterVec, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter,
    IntCounterVec, IntGauge, IntGaugeVec, Opts,
};

use self::register::{MetricsBuilder, MetricsRegistry, put};
use crate::telemetry::completed_request::CompletedRequest;

/// Seconds; an answer takes from a few milliseconds to minutes.
const DURATIONS: [f64; 12] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0];
/// Seconds; our own share is microseconds, unless something is wrong.
const OVERHEADS: [f64; 9] = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25];

pub struct Metrics {
    registered: MetricsRegistry,
    /// Held during a scrape, which first updates the gauges.
    pub scraping: Mutex<()>,
    requests: IntCounterVec,
    broken: IntCounterVec,
    unseen: IntCounterVec,
    duration: HistogramVec,
    overhead: Histogram,
    first_token: HistogramVec,
    tokens: IntCounterVec,
    cost: CounterVec,
    saved: Counter,
    pub budget_used: GaugeVec,
    active_licenses: IntGaugeVec,
    pub attempts: IntCounterVec,
    pub key_state: IntGaugeVec,
    pub key_model_cooling: GaugeVec,
    pub provider_state: IntGaugeVec,
    quota_rejections: IntCounterVec,
    pub reservations_open: IntGauge,
    overruns: IntCounter,
    pub in_flight: IntGauge,
    pub store_up: IntGauge,
    license_checks: IntCounterVec,
    pub license_cache: LicenseCacheCounters,
    pub license_source_state: IntGaugeVec,
    reloads: IntCounterVec,
    last_reload: Gauge,
}

/// `gatekeeper_license_cache_total` by result: every request counts in one of them.
pub struct LicenseCacheCounters {
    /// Taken as it was.
    pub fresh: IntCounter,
    /// Served, and asked about again.
    pub stale: IntCounter,
    /// A cached refusal was still valid.
    pub negative: IntCounter,
    /// The request had to wait for a shop.
    pub miss: IntCounter,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    #[allow(clippy::too_many_lines, reason = "a list of names and their help")]
    pub fn new() -> Self {
        let registry = MetricsBuilder::default();
        let counters = |name: &str, help: &str, labels: &[&str]| {
            put(&registry, IntCounterVec::new(Opts::new(name, help), labels))
        };
        let gauge = |name: &str, help: &str| put(&registry, IntGauge::new(name, help));
        let histograms = |name: &str, help: &str, buckets: &[f64], labels: &[&str]| {
            let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
            put(&registry, HistogramVec::new(options, labels))
        };
        let overhead_options = HistogramOpts::new(
            "gatekeeper_overhead_seconds",
            "Time of a request to a provider that is the gateway's own: without waiting for provider, app or shop.",
        );
        Self {
            requests: counters(
                "gatekeeper_requests_total",
                "Requests by endpoint, plan and HTTP status; 499 when the app left first.",
                &["endpoint", "plan", "status"],
            ),
            broken: counters(
                "gatekeeper_responses_broken_total",
                "Answers that broke off after they had begun: their status was 200 by then.",
                &["endpoint", "plan"],
            ),
            unseen: counters(
                "gatekeeper_malformed_requests_total",
                "Requests whose head could not be read; on the public listener they count as requests, too.",
                &["listener"],
            ),
            duration: histograms(
                "gatekeeper_request_duration_seconds",
                "From a request's head to the end of its answer.",
                &DURATIONS,
                &["endpoint"],
            ),
            overhead: put(
                &registry,
                Histogram::with_opts(overhead_options.buckets(OVERHEADS.to_vec())),
            ),
            first_token: histograms(
                "gatekeeper_time_to_first_token_seconds",
                "From a request's head to the first output that went to the app.",
                &DURATIONS,
                &["provider"],
            ),
            tokens: counters(
                "gatekeeper_tokens_total",
                "Tokens by direction; input includes cached and cache_write, output includes reasoning.",
                &["provider", "model", "direction", "source"],
            ),
            cost: put(
                &registry,
                CounterVec::new(
                    Opts::new(
                        "gatekeeper_cost_dollars_total",
                        "What answers cost, for models with a price in the configuration.",
                    ),
                    &["provider", "model"],
                ),
            ),
            saved: put(
                &registry,
                Counter::new(
                    "gatekeeper_saved_dollars_total",
                    "Estimated savings of smart routing in dollars (complex-tier price minus actual cost).",
                ),
            ),
            budget_used: put(
                &registry,
                GaugeVec::new(
                    Opts::new(
                        "gatekeeper_budget_used_ratio",
                        "Spent today (UTC) over the day's budget; provider all is the whole.",
                    ),
                    &["provider"],
                ),
            ),
            active_licenses: put(
                &registry,
                IntGaugeVec::new(
                    Opts::new(
                        "gatekeeper_active_licenses",
                        "Licences that asked for something in the last UTC days, today included.",
                    ),
                    &["window"],
                ),
            ),
            attempts: counters(
                "gatekeeper_upstream_attempts_total",
                "Attempts at a provider, by how they ended.",
                &["provider", "outcome"],
            ),
            key_state: put(
                &registry,
                IntGaugeVec::new(
                    Opts::new("gatekeeper_key_state", "1 for the state a key is in, else 0."),
                    &["provider", "key", "state"],
                ),
            ),
            key_model_cooling: put(
                &registry,
                GaugeVec::new(
                    Opts::new(
                        "gatekeeper_key_model_cooling",
                        "Seconds left of a limit of one model at a key's account; only while there is one.",
                    ),
                    &["provider", "key", "model"],
                ),
            ),
            provider_state: put(
                &registry,
                IntGaugeVec::new(
                    Opts::new(
                        "gatekeeper_provider_state",
                        "1 for the state a provider is in, else 0: serving, out (no key is ready), sick, recovering.",
                    ),
                    &["provider", "state"],
                ),
            ),
            quota_rejections: counters(
                "gatekeeper_quota_rejections_total",
                "Requests refused by a limit of the plan.",
                &["plan", "limit"],
            ),
            reservations_open: gauge(
                "gatekeeper_reservations_open",
                "Reservations that are not settled yet.",
            ),
            overruns: put(
                &registry,
                IntCounter::new(
                    "gatekeeper_reservation_overruns_total",
                    "Answers whose reported usage was above what was reserved.",
                ),
            ),
            in_flight: gauge("gatekeeper_in_flight", "Requests that are open now."),
            store_up: gauge("gatekeeper_store_up", "1 while the store takes reservations."),
            license_checks: counters(
                "gatekeeper_license_checks_total",
                "Licences looked up in the configuration (source static), and calls to shops.",
                &["source", "verdict"],
            ),
            license_cache: {
                let cache = counters(
                    "gatekeeper_license_cache_total",
                    "Requests with a shop's licence, by what was known of it.",
                    &["result"],
                );
                let of = |result: &str| cache.with_label_values(&[result]);
                LicenseCacheCounters {
                    fresh: of("fresh"),
                    stale: of("stale"),
                    negative: of("negative"),
                    miss: of("miss"),
                }
            },
            license_source_state: put(
                &registry,
                IntGaugeVec::new(
                    Opts::new(
                        "gatekeeper_license_source_state",
                        "1 for the state a source of licences is in, else 0.",
                    ),
                    &["source", "state"],
                ),
            ),
            reloads: counters(
                "gatekeeper_config_reload_total",
                "Configurations loaded, the one at start included.",
                &["result"],
            ),
            last_reload: put(
                &registry,
                Gauge::new(
                    "gatekeeper_config_last_success_timestamp_seconds",
                    "When the live configuration was loaded.",
                ),
            ),
            scraping: Mutex::new(()),
            registered: registry.complete(),
        }
    }

    /// A configuration went live.
    pub fn loaded(&self) {
        self.reloads.with_label_values(&["success"]).inc();
        // Both results are there from the start, so that an alert on failures has a series to watch.
        self.reloads.with_label_values(&["failure"]).inc_by(0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last_reload.set(now.as_secs_f64());
    }

    /// A changed configuration could not go live.
    pub fn reload_failed(&self) {
        self.reloads.with_label_values(&["failure"]).inc();
    }

    /// A source has answered about a licence.
    pub fn license_checked(&self, source: &str, verdict: &str) {
        self.license_checks(source, verdict).inc();
    }

    pub fn license_checks(&self, source: &str, verdict: &str) -> IntCounter {
        self.license_checks.with_label_values(&[source, verdict])
    }

    /// A request was refused before any hook saw it, on this listener.
    pub fn unseen(&self, listener: &str) {
        self.unseen.with_label_values(&[listener]).inc();
    }

    pub(super) fn finished(
        &self,
        request: &CompletedRequest<'_>,
        outcome: Outcome,
        record: &Record,
        elapsed: Duration,
        own: Duration,
    ) {
        let plan = if record.plan.is_empty() { "none" } else { &record.plan };
        self.with_series(request, outcome, record, |series| {
            series.requests.inc();
            if outcome.delivery == Delivery::Broken {
                series.broken.inc();
            }
            series.duration.observe(elapsed.as_secs_f64());
        });
        if let Some(limit) = request.refused_by() {
            self.quota_rejections.with_label_values(&[plan, limit]).inc();
        }
        let Some(exchange) = request.exchange else { return };
        self.overhead.observe(own.as_secs_f64());
        if exchange.settled.overrun {
            self.overruns.inc();
        }
        if exchange.saved > 0 {
            self.saved.inc_by(exchange.saved as f64 / DOLLAR as f64);
        }
        if let Some(first) = request.first_output {
            let wait = first.duration_since(request.arrived).as_secs_f64();
            self.first_token.with_label_values(&[&record.provider]).observe(wait);
        }
        if exchange.progress.answered {
            self.count_usage(record, exchange.served.as_ref().map_or("", |t| &t.model));
        }
    }

    /// The series that every request may count in. Each thread remembers the last ones: almost
    /// always they are the same again, and finding them by their labels costs more than counting.
    fn with_series(
        &self,
        request: &CompletedRequest<'_>,
        outcome: Outcome,
        record: &Record,
        count: impl FnOnce(&Series),
    ) {
        let of = (std::ptr::from_ref(self) as usize, request.endpoint, outcome.status);
        LAST.with_borrow_mut(|last| match last {
            Some(series) if series.of == of && series.plan == record.plan => count(series),
            _ => {
                let plan = if record.plan.is_empty() { "none" } else { &record.plan };
                let mut digits = [0; 3];
                let status = three_digits(outcome.status, &mut digits);
                let requests = self.requests.with_label_values(&[request.endpoint, plan, status]);
                // There from the first request on, so that an alert sees the first one that breaks.
                let broken = self.broken.with_label_values(&[request.endpoint, plan]);
                let duration = self.duration.with_label_values(&[request.endpoint]);
                let plan = record.plan.clone();
                count(last.insert(Series { of, plan, requests, broken, duration }));
            }
        });
    }

    /// Licences active over 1, 7 and 30 days.
    pub fn active(&self, licenses: [u64; 3]) {
        for (window, count) in ["1d", "7d", "30d"].into_iter().zip(licenses) {
            self.active_licenses.with_label_values(&[window]).set(count as i64);
        }
    }

    fn count_usage(&self, record: &Record, model: &str) {
        let (usage, source) = (record.usage, record.source.name());
        for (direction, count) in [
            ("input", usage.input),
            ("output", usage.output),
            ("cached", usage.cached),
            ("cache_write", usage.cache_write),
        ] {
            if count > 0 {
                let labels = [&*record.provider, model, direction, source];
                self.tokens.with_label_values(&labels).inc_by(count);
            }
        }
        if record.cost > 0 {
            let cost = record.cost as f64 / DOLLAR as f64;
            self.cost.with_label_values(&[&*record.provider, model]).inc_by(cost);
        }
    }

    /// The text exposition of everything.
    pub fn expose(&self) -> Vec<u8> {
        self.registered.expose()
    }
}

struct Series {
    /// Whose metrics, endpoint, status.
    of: (usize, &'static str, u16),
    plan: Arc<str>,
    requests: IntCounter,
    broken: IntCounter,
    duration: Histogram,
}

thread_local! {
    static LAST: RefCell<Option<Series>> = const { RefCell::new(None) };
}

fn three_digits(status: u16, digits: &mut [u8; 3]) -> &str {
    for (place, digit) in [100, 10, 1].into_iter().zip(digits.iter_mut()) {
        *digit = b'0' + (status / place % 10) as u8;
    }
    std::str::from_utf8(digits).unwrap_or("000")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_unique_and_explained() {
        let metrics = Metrics::new();
        metrics.loaded();
        let text = String::from_utf8(metrics.expose()).unwrap();
        for name in ["gatekeeper_in_flight", "gatekeeper_cost_dollars_total"] {
            assert_eq!(text.matches(&format!("# HELP {name} ")).count(), 1, "{name}");
            assert_eq!(text.matches(&format!("# TYPE {name} ")).count(), 1, "{name}");
        }
        assert!(text.contains("gatekeeper_config_reload_total{result=\"success\"} 1"));
        assert_eq!(three_digits(499, &mut [0; 3]), "499");
    }
}
