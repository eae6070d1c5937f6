//! `/status`: what the gateway is doing, in JSON.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Instant,
};

use gatekeeper_filters::kernel::UnixMs;
use serde_json::{Map, Value, json};

use super::{AdminApp, live_config};
use crate::{
    license_admin::LicenseAdmin,
    pool::{KeyState, ProviderPool, breaker::Circuit, health::QuarantineReason, key::MasterKey},
    reload::ReloadStatus,
    runtime::snapshot::Snapshot,
    telemetry::{dollars, peer_stats::GatewayFilter},
};

impl AdminApp {
    pub(super) fn status(
        &self,
        snapshot: &Snapshot,
        whose: Option<&GatewayFilter>,
    ) -> Map<String, Value> {
        let (now, today) = (Instant::now(), UnixMs::now());
        let mut status = self.served(snapshot, whose, today);
        let since = self.history.now().since;
        let keys: Vec<Value> = snapshot
            .providers
            .iter()
            .flat_map(|provider| keys(provider, now, today, since))
            .collect();
        let providers: Vec<Value> = snapshot
            .providers
            .iter()
            .enumerate()
            .map(|(index, provider)| {
                json!({
                    "name": &**provider.name(),
                    "dialect": provider.settings.dialect.name(),
                    "state": provider_state(provider, now),
                    "sick_for_ms": provider.breaker().faulty_for_ms(now),
                    "why": provider_why(provider),
                    "spent_today": dollars(snapshot.budgets.spent(index, today)),
                    "budget": provider.settings.budget.map(dollars),
                })
            })
            .collect();
        status.insert("spent_today".into(), json!(dollars(snapshot.budgets.total(today))));
        status.insert("budget".into(), json!(snapshot.settings.budget.map(dollars)));
        status.insert("version".into(), json!(env!("CARGO_PKG_VERSION")));
        status.insert("now".into(), json!(&*today.to_rfc3339()));
        status.insert("phase".into(), json!(self.phase.name()));
        status.insert("listen".into(), json!(listen(snapshot)));
        status.insert("store".into(), self.store());
        status.insert("keys".into(), json!(keys));
        status.insert("providers".into(), json!(providers));
        status.insert("config".into(), config(&self.history, snapshot));
        status.insert("sources".into(), json!(sources(snapshot)));
        status
    }

    /// What was served: by this gateway, by another, or by all that share a store.
    fn served(
        &self,
        snapshot: &Snapshot,
        whose: Option<&GatewayFilter>,
        now: UnixMs,
    ) -> Map<String, Value> {
        let telemetry = &snapshot.telemetry;
        let (live, neighbours) = (&telemetry.live, &telemetry.live.neighbours);
        // Before the list: a request that ends in between is in both rather than in neither.
        let mut in_flight = telemetry.in_flight();
        let mut status = match whose {
            Some(GatewayFilter::Own) => live.own(),
            Some(GatewayFilter::Other(name)) => neighbours.other(name).unwrap_or_default(),
            Some(GatewayFilter::All) | None => live.to_json(),
        };
        if whose == Some(&GatewayFilter::All) {
            let (totals, all) = neighbours.total(live.totals(), in_flight);
            totals.put_into(&mut status);
            in_flight = all;
        }
        if !matches!(whose, Some(GatewayFilter::Other(_))) {
            status.insert("in_flight".into(), json!(in_flight));
        }
        let figures = neighbours.figures(|| live.figures(now), whose);
        let active = self.operator.store.active_licenses(now);
        status.insert("figures".into(), figures.to_json(active, now));
        status
    }

    fn store(&self) -> Value {
        let kind = if self.operator.shared.is_some() { "redis" } else { "embedded" };
        json!({ "kind": kind, "up": self.is_store_up() })
    }

    pub(super) fn is_store_up(&self) -> bool {
        let LicenseAdmin { store, shared } = &self.operator;
        store.is_up() && shared.as_ref().is_none_or(|shared| shared.is_up())
    }
}

/// Where apps find this gateway.
fn listen(snapshot: &Snapshot) -> String {
    let server = &snapshot.settings.server;
    let scheme = if server.tls.is_some() { "https" } else { "http" };
    format!("{scheme}://{}", server.listen)
}

/// Which configuration is live since when, and what became of the last reload.
fn config(history: &ReloadStatus, snapshot: &Snapshot) -> Value {
    let chain: Vec<&str> = snapshot.chain.steps().iter().map(|step| step.name).collect();
    let steps: Vec<Value> = snapshot
        .chain
        .steps()
        .iter()
        .map(|step| json!({ "name": step.name, "summary": step.summary, "options": step.options }))
        .collect();
    let now = history.now();
    let refused = now
        .refused
        .map(|refusal| json!({ "at": &*refusal.at.to_rfc3339(), "problems": refusal.problems }));
    let is_https_missing =
        snapshot.settings.server.behind_tls && snapshot.telemetry.https_in_front.is_missing();
    json!({
        "https_in_front_missing": is_https_missing,
        "source": history.source, "since": &*now.since.to_rfc3339(), "chain": chain,
        "steps": steps, "live": live_config::of(snapshot),
        "limits_by_address": snapshot.settings.server.limits_by_address(),
        "waits_for_restart": now.waiting, "changes": now.changes, "refused": refused,
    })
}

fn sources(snapshot: &Snapshot) -> Vec<Value> {
    let book = &snapshot.licenses;
    let shops = book.validator.report(&book.sources).into_iter().map(|(shop, report)| {
        json!({
            "name": shop.name(), "state": report.state, "why": report.why,
            "last_event": report
                .last_event
                .or_else(|| snapshot.telemetry.webhooks.last_taken(shop.name()))
                .map(|at| at.to_rfc3339().to_string()),
            "webhook": snapshot.telemetry.webhooks.of(shop.name()),
        })
    });
    let webhooks = &snapshot.telemetry.webhooks;
    let local = book.local_sources().map(|(name, shop)| {
        let last = shop.and_then(|shop| webhooks.last_taken(shop));
        let mut source = json!({
            "name": name, "state": "ok", "why": null,
            "last_event": last.map(|at| at.to_rfc3339().to_string()),
        });
        if let Some(shop) = shop {
            source["webhook"] = webhooks.of(shop);
        }
        source
    });
    local.chain(shops).collect()
}

pub(super) const PROVIDER_STATES: [&str; 4] = ["serving", "out", "sick", "recovering"];

/// What keeps a provider from serving, where that is neither its keys nor its answers.
fn provider_why(provider: &ProviderPool) -> Option<&'static str> {
    match () {
        () if provider.breaker().firewall.refuses() => Some("firewall"),
        () if provider.endpoint.has_no_address() => Some("no_address"),
        () => None,
    }
}

/// `out`: it answers, but no key of it is ready; or its name has no address.
pub(super) fn provider_state(provider: &ProviderPool, now: Instant) -> &'static str {
    let serves = |key: &Arc<MasterKey>| key.can_serve(now) && provider.is_closed_for(key);
    match provider.breaker().circuit() {
        Circuit::Open => "sick",
        Circuit::HalfOpen => "recovering",
        Circuit::Closed if provider.endpoint.has_no_address() => "out",
        Circuit::Closed if provider.keys().iter().any(serves) => "serving",
        Circuit::Closed => "out",
    }
}

/// A model that rests at an account, whose other models may serve.
fn resting(model: &str, state: KeyState) -> Value {
    let (why, left) = why_and_left(state);
    json!({ "model": model, "state": state.name(), "why": why, "left_ms": left })
}

fn why_and_left(state: KeyState) -> (Option<&'static str>, Option<u64>) {
    match state {
        KeyState::Ready | KeyState::Off => (None, None),
        KeyState::Doubtful => (Some(QuarantineReason::NoPermission.name()), None),
        KeyState::Cooling { left_ms } => (Some("rate_limited"), Some(left_ms)),
        KeyState::Quarantined { why, left_ms } => (Some(why.name()), Some(left_ms)),
    }
}

/// `wall` is the time of day at `now`; `loaded`, when the configuration went live.
fn keys(
    provider: &ProviderPool,
    now: Instant,
    wall: UnixMs,
    loaded: UnixMs,
) -> impl Iterator<Item = Value> {
    provider.keys().iter().map(move |key| {
        let state = key.state(now);
        let since = match state {
            KeyState::Ready => None,
            _ => key
                .in_state_for_ms(now)
                .map_or(Some(loaded), |ms| Some(UnixMs(wall.0.saturating_sub(ms)))),
        };
        let (mut why, left) = why_and_left(state);
        let left_of_limit = key.group.allowance.known(now);
        let limited = key.resting_models(now);
        if let (KeyState::Cooling { .. }, 0, Some((_, first))) =
            (state, key.group.cooling.left_ms(now), limited.first())
        {
            why = why_and_left(*first).0;
        }
        let models: Vec<Value> =
            limited.iter().map(|(model, state)| resting(model, *state)).collect();
        json!({
            "provider": &**provider.name(), "id": &*key.id, "group": &*key.group_name,
            "state": state.name(), "why": why, "left_ms": left,
            "since": since.map(|since| since.to_rfc3339().to_string()),
            "for_ms": key.resting_for_ms(now),
            "models": models,
            "fails_for_ms": provider.account(key).faulty_for_ms(now),
            "requests": key.health.requests.load(Relaxed),
            "errors": key.health.errors.load(Relaxed),
            "failed_in_a_row": key.health.failed_in_a_row.load(Relaxed),
            "open": key.health.open.load(Relaxed),
            "remaining": left_of_limit.map(|(remaining, _)| remaining),
            "limit": left_of_limit.map(|(_, limit)| limit),
            "ttft_ms": key.health.pace.measured().map(|took| took.as_millis() as u64),
        })
    })
}
