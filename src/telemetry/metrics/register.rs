//! The registry, and name and help of every metric family: the crate lists only families that have a series
//! already.

use std::cell::RefCell;

use prometheus::{
    Counter, CounterVec, Encoder, Gauge, GaugeVec, Histogram, HistogramVec, IntCounter,
    IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder, core::Collector,
};

struct Family {
    name: String,
    help: String,
    kind: &'static str,
}

/// What a collector is to Prometheus.
pub trait MetricKind {
    const NAME: &'static str;
}

macro_rules! kinds {
    ($($name:literal: $($collector:ty),+;)+) => {
        $($(impl MetricKind for $collector { const NAME: &'static str = $name; })+)+
    };
}

kinds! {
    "counter": Counter, CounterVec, IntCounter, IntCounterVec;
    "gauge": Gauge, GaugeVec, IntGauge, IntGaugeVec;
    "histogram": Histogram, HistogramVec;
}

/// While collectors are made.
#[derive(Default)]
pub struct MetricsBuilder {
    registry: Registry,
    families: RefCell<Vec<Family>>,
}

/// Registers a collector. Names are constants, so a clash is found by the first test.
pub fn put<C>(register: &MetricsBuilder, made: prometheus::Result<C>) -> C
where
    C: Collector + MetricKind + Clone + 'static,
{
    let registered = made.and_then(|c| register.registry.register(Box::new(c.clone())).map(|()| c));
    let collector = registered.unwrap_or_else(|error| unreachable!("{error}"));
    let families = collector.desc().into_iter().map(|desc| Family {
        name: desc.fq_name.clone(),
        help: desc.help.clone(),
        kind: C::NAME,
    });
    register.families.borrow_mut().extend(families);
    collector
}

impl MetricsBuilder {
    pub fn complete(self) -> MetricsRegistry {
        MetricsRegistry { registry: self.registry, families: self.families.into_inner() }
    }
}

/// All collectors there are.
pub struct MetricsRegistry {
    registry: Registry,
    families: Vec<Family>,
}

impl MetricsRegistry {
    /// The text exposition of everything.
    pub fn expose(&self) -> Vec<u8> {
        let mut text = Vec::new();
        let gathered = self.registry.gather();
        if let Err(error) = TextEncoder::new().encode(&gathered, &mut text) {
            log::error!("Metrics cannot be encoded: {error}.");
        }
        for Family { name, help, kind } in &self.families {
            if !gathered.iter().any(|family| family.name() == name) {
                text.extend(format!("# HELP {name} {help}\n# TYPE {name} {kind}\n").bytes());
            }
        }
        text
    }
}
