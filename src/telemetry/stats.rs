//! Figures of one gateway, or of several added up: failures by code, how long things took, today.

use gatekeeper_filters::kernel::{Code, ModelTotals, UnixMs, UsageFigures};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{daily_totals::DailyTotals, dollars, histogram::Histogram};

/// Requests that failed or were refused, by place in [`Code::ALL`].
pub type ErrorCounts = [u64; Code::ALL.len()];

/// Exchanged between gateways, so that each can add up the figures of all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stats {
    /// By name; those that never happened are left out.
    pub codes: Vec<(String, u64)>,
    /// Milliseconds of the requests of the last hour that a provider was asked for.
    pub took: Histogram,
    /// Milliseconds to their first output.
    pub first: Histogram,
    /// Microseconds of them that were the gateway's own.
    pub overhead: Histogram,
    /// Requests that ended in the last 60 seconds.
    pub per_minute: u64,
    pub today: DailyTotals,
}

impl Stats {
    pub fn add(&mut self, other: &Self) {
        for (name, count) in &other.codes {
            match self.codes.iter_mut().find(|(known, _)| known == name) {
                Some((_, known)) => *known = known.saturating_add(*count),
                None => self.codes.push((name.clone(), *count)),
            }
        }
        self.took.add(&other.took);
        self.first.add(&other.first);
        self.overhead.add(&other.overhead);
        self.per_minute = self.per_minute.saturating_add(other.per_minute);
        self.today.add(&other.today);
    }

    /// As a member of `/status`; `active` are licences of 1, 7 and 30 days.
    pub fn to_json(&self, active: [u64; 3], now: UnixMs) -> Value {
        let mut today = self.today.clone();
        today.turn(now);
        let status = |name: &str| Code::ALL.iter().map(|code| code.wire()).find(|w| w.1 == name);
        let mut codes = self.codes.clone();
        codes.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        let codes: Vec<Value> = codes
            .iter()
            .map(|(name, count)| {
                json!({ "code": name, "status": status(name).map(|wire| wire.0), "count": count })
            })
            .collect();
        today.models.sort_by_key(|of| (std::cmp::Reverse(of.figures.requests), of.model.clone()));
        let models: Vec<Value> = today
            .models
            .iter()
            .map(|ModelTotals { model, figures: of }| {
                json!({
                    "model": &**model, "requests": of.requests, "input": of.input,
                    "output": of.output, "cached": of.cached, "cost": dollars(of.cost),
                })
            })
            .collect();
        let mut sum = UsageFigures::default();
        today.models.iter().for_each(|model| sum.add(&model.figures));
        let [day, week, month] = active;
        json!({
            "codes": codes,
            "latency": {
                "p50_ms": self.took.quantile(0.5), "p95_ms": self.took.quantile(0.95),
                "ttft_p50_ms": self.first.quantile(0.5), "ttft_p95_ms": self.first.quantile(0.95),
                "overhead_p50_us": self.overhead.quantile(0.5),
                "overhead_p95_us": self.overhead.quantile(0.95),
            },
            "requests_per_minute": self.per_minute,
            "active": { "1d": day, "7d": week, "30d": month },
            "models_today": models,
            "tokens_today": {
                "input": sum.input, "output": sum.output, "cached": sum.cached,
            },
            "cost_today": dollars(sum.cost),
            "saved_today": dollars(today.saved),
        })
    }
}

/// The codes that happened, by name.
pub fn named(codes: &ErrorCounts) -> Vec<(String, u64)> {
    let all = Code::ALL.iter().zip(codes).filter(|(_, count)| **count > 0);
    all.map(|(code, count)| (code.wire().1.to_owned(), *count)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_gateways_add_up_and_survive_being_told() {
        let mut codes = [0; Code::ALL.len()];
        codes[Code::RateLimited as usize] = 3;
        let one = Stats { codes: named(&codes), per_minute: 5, ..Stats::default() };
        let mut other = Stats { codes: named(&codes), per_minute: 6, ..Stats::default() };
        other.took.observe(40);
        let text = serde_json::to_string(&other).unwrap();
        let mut all = one;
        all.add(&serde_json::from_str(&text).unwrap());
        let json = all.to_json([1, 2, 3], UnixMs(1_800_000_000_000));
        assert_eq!(json["codes"], json!([{ "code": "rate_limited", "status": 429, "count": 6 }]));
        assert_eq!(json["requests_per_minute"], 11);
        assert!(json["latency"]["p50_ms"].as_f64().unwrap() >= 40.0);
        assert_eq!(json["latency"]["overhead_p50_us"], Value::Null);
        assert_eq!(json["active"], json!({ "1d": 1, "7d": 2, "30d": 3 }));
        // A gateway of another version, that knows more or less.
        assert_eq!(serde_json::from_str::<Stats>("{\"new\":1}").unwrap(), Stats::default());
    }

    #[test]
    fn every_code_has_its_place() {
        for (place, code) in Code::ALL.into_iter().enumerate() {
            assert_eq!(code as usize, place);
        }
    }
}
