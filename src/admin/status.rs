//! `/status`: what the gateway is doing, in JSON.

use std::{sync::atomic::Ordering::Relaxed, time::Instant};

use gatekeeper_filters::kernel::{DOLLAR, UnixMs};
use serde_json::{Map, Value, json};

use super::Admin;
use crate::{
    config::settings::LicenseSource,
    licenses::STATIC,
    pool::{Provider, State, breaker::Circuit},
    reload::History,
    snapshot::Snapshot,
};

impl Admin {
    pub(super) fn status(&self, snapshot: &Snapshot) -> Map<String, Value> {
        let mut status = snapshot.telemetry.live.to_json();
        let (now, today) = (Instant::now(), UnixMs::now());
        let keys: Vec<Value> =
            snapshot.providers.iter().flat_map(|provider| keys(provider, now)).collect();
        let providers: Vec<Value> = snapshot
            .providers
            .iter()
            .enumerate()
            .map(|(index, provider)| {
                json!({
                    "name": &**provider.name(),
                    "dialect": provider.settings.dialect.name(),
                    "state": provider_state(provider, now),
                    "sick_for_ms": provider.breaker.sick_for_ms(now),
                    "spent_today": dollars(snapshot.budgets.spent(index, today)),
                    "budget": provider.settings.budget.map(dollars),
                })
            })
            .collect();
        status.insert("spent_today".into(), json!(dollars(snapshot.budgets.whole(today))));
        status.insert("budget".into(), json!(snapshot.settings.budget.map(dollars)));
        status.insert("in_flight".into(), json!(snapshot.telemetry.in_flight()));
        status.insert("keys".into(), json!(keys));
        status.insert("providers".into(), json!(providers));
        status.insert("config".into(), config(&self.history, snapshot));
        status.insert("sources".into(), json!(sources(snapshot)));
        status
    }
}

fn dollars(picodollars: u64) -> f64 {
    picodollars as f64 / DOLLAR as f64
}

/// Which configuration is live since when, and what became of the last reload.
fn config(history: &History, snapshot: &Snapshot) -> Value {
    let chain: Vec<&str> = snapshot.chain.steps().iter().map(|step| step.name).collect();
    let now = history.now();
    let refused = now
        .refused
        .map(|refusal| json!({ "at": &*refusal.at.to_rfc3339(), "problems": refusal.problems }));
    json!({
        "source": history.source, "since": &*now.since.to_rfc3339(), "chain": chain,
        "waits_for_restart": now.waiting, "changes": now.changes, "refused": refused,
    })
}

fn sources(snapshot: &Snapshot) -> Vec<Value> {
    let configured = &snapshot.settings.licenses.sources;
    let listed = configured.iter().any(|source| matches!(source, LicenseSource::Static(_)));
    let listed = listed.then(|| json!({ "name": STATIC, "state": "ok", "why": null }));
    let book = &snapshot.licenses;
    let shops = book.desk.report(&book.sources).into_iter().map(
        |(shop, report)| json!({ "name": shop.name(), "state": report.state, "why": report.why }),
    );
    listed.into_iter().chain(shops).collect()
}

pub(super) const PROVIDER_STATES: [&str; 4] = ["serving", "out", "sick", "recovering"];

/// `out`: it answers, but no key of it is ready.
pub(super) fn provider_state(provider: &Provider, now: Instant) -> &'static str {
    match provider.breaker.circuit() {
        Circuit::Open => "sick",
        Circuit::HalfOpen => "recovering",
        Circuit::Closed if provider.keys().iter().any(|key| key.state(now) == State::Ready) => {
            "serving"
        }
        Circuit::Closed => "out",
    }
}

fn keys(provider: &Provider, now: Instant) -> impl Iterator<Item = Value> {
    provider.keys().iter().map(move |key| {
        let state = key.state(now);
        let (why, left) = match state {
            State::Ready | State::Off => (None, None),
            State::Cooling { left_ms } => (Some("rate_limited"), Some(left_ms)),
            State::Quarantined { why, left_ms } => (Some(why.name()), Some(left_ms)),
        };
        let left_of_limit = key.group.allowance.known(now);
        json!({
            "provider": &**provider.name(), "id": &*key.id, "group": &*key.group_name,
            "state": state.name(), "why": why, "left_ms": left,
            "for_ms": key.resting_for_ms(now),
            "requests": key.health.requests.load(Relaxed),
            "errors": key.health.errors.load(Relaxed),
            "open": key.health.open.load(Relaxed),
            "remaining": left_of_limit.map(|(remaining, _)| remaining),
            "limit": left_of_limit.map(|(_, limit)| limit),
            "ttft_ms": key.health.pace.measured().map(|took| took.as_millis() as u64),
        })
    })
}
