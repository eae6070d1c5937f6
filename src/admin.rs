//! The admin listener: `/metrics`, `/status`, `/healthz`, `/readyz`. Nothing here changes anything.
//!
//! Health needs no token; the rest does when the listener is off loopback. `Host` must be one of
//! ours, so that a web page that rebinds its name to this address reads nothing.

use std::{
    net::IpAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Instant,
};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use gatekeeper_filters::kernel::{DOLLAR, UnixMs};
use http::{HeaderMap, Method, Response, StatusCode};
use pingora_core::{apps::http_app::ServeHttp, protocols::http::ServerSession};
use secrecy::ExposeSecret;
use serde_json::{Map, Value, json};
use subtle::ConstantTimeEq;

use crate::{
    config::settings::LicenseSource,
    ledger::{Embedded, Shared},
    licenses::{self, STATIC},
    pool::{Provider, health::State},
    proxy::deadline,
    reload::History,
    server::ending::Phase,
    snapshot::Snapshot,
};

pub struct Admin {
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    pub store: Arc<Embedded>,
    /// Where several gateways count together.
    pub shared: Option<Arc<Shared>>,
    pub phase: Arc<Phase>,
    pub history: Arc<History>,
}

type Answer = Response<Vec<u8>>;

#[async_trait]
impl ServeHttp for Admin {
    async fn response(&self, session: &mut ServerSession) -> Answer {
        deadline::head_is_here();
        let request = session.req_header();
        let path = request.uri.path();
        let get = request.method == Method::GET || request.method == Method::HEAD;
        if !["/healthz", "/readyz", "/metrics", "/status"].contains(&path) {
            return text(
                StatusCode::NOT_FOUND,
                "There is nothing here. Try /status or /metrics.\n",
            );
        }
        if !get {
            return text(StatusCode::METHOD_NOT_ALLOWED, "This address takes GET requests only.\n");
        }
        match path {
            "/healthz" => return text(StatusCode::OK, "ok\n"),
            "/readyz" => return self.ready(),
            _ => {}
        }
        let snapshot = self.snapshot.load();
        if let Err(refusal) = allow(&request.headers, &snapshot) {
            return refusal;
        }
        match path {
            "/metrics" => self.metrics(&snapshot),
            _ => json_answer(&self.status(&snapshot)),
        }
    }
}

impl Admin {
    /// 503 only while starting or draining: a store outage must not take every gateway out.
    fn ready(&self) -> Answer {
        if self.phase.is_serving() {
            text(StatusCode::OK, "ready\n")
        } else {
            text(StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
        }
    }

    fn metrics(&self, snapshot: &Snapshot) -> Answer {
        let metrics = &snapshot.telemetry.metrics;
        metrics.in_flight.set(snapshot.telemetry.in_flight() as i64);
        metrics.reservations_open.set(self.store.open_reservations() as i64);
        let is_up = self.store.is_up() && self.shared.as_ref().is_none_or(|s| s.is_up());
        metrics.store_up.set(i64::from(is_up));
        let now = Instant::now();
        for provider in &snapshot.providers {
            for state in ["serving", "out"] {
                let is = i64::from(state == provider_state(provider, now));
                metrics.provider_state.with_label_values(&[provider.name(), state]).set(is);
            }
            for key in provider.keys() {
                let current = key.state(now).name();
                for state in State::NAMES {
                    let labels = [&**provider.name(), &*key.id, state];
                    let is = i64::from(state == current);
                    metrics.key_state.with_label_values(&labels).set(is);
                }
            }
        }
        // A reload may have taken a budget away.
        metrics.budget_used.reset();
        for budget in snapshot.budgets.used(UnixMs::now()) {
            let ratio = budget.spent as f64 / budget.limit as f64;
            metrics.budget_used.with_label_values(&[budget.name]).set(ratio);
        }
        metrics.active(self.store.active_licenses(UnixMs::now()));
        let book = &snapshot.licenses;
        for (shop, report) in book.desk.report(&book.sources) {
            for state in licenses::STATES {
                let is = i64::from(state == report.state);
                metrics.license_source_state.with_label_values(&[shop.name(), state]).set(is);
            }
        }
        answer(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", metrics.expose())
    }

    fn status(&self, snapshot: &Snapshot) -> Map<String, Value> {
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
        "waits_for_restart": now.waiting, "refused": refused,
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

fn provider_state(provider: &Provider, now: Instant) -> &'static str {
    let ready = provider.keys().iter().any(|key| key.state(now) == State::Ready);
    if ready { "serving" } else { "out" }
}

fn keys(provider: &Provider, now: Instant) -> impl Iterator<Item = Value> {
    provider.keys().iter().map(move |key| {
        let state = key.state(now);
        let (why, left) = match state {
            State::Ready | State::Off => (None, None),
            State::Cooling { left_ms } => (Some("rate_limited"), Some(left_ms)),
            State::Quarantined { why, left_ms } => (Some(why.name()), Some(left_ms)),
        };
        json!({
            "provider": &**provider.name(), "id": &*key.id, "group": &*key.group_name,
            "state": state.name(), "why": why, "left_ms": left,
            "requests": key.health.requests.load(Relaxed),
            "errors": key.health.errors.load(Relaxed),
            "open": key.health.open.load(Relaxed),
        })
    })
}

fn allow(headers: &HeaderMap, snapshot: &Snapshot) -> Result<(), Answer> {
    let settings = &snapshot.settings.admin;
    let bearer = headers
        .get(http::header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let token = settings.token.as_ref().map(|token| token.expose_secret());
    let trusted = match (token, bearer) {
        (Some(token), Some(bearer)) => bool::from(token.as_bytes().ct_eq(bearer.as_bytes())),
        _ => false,
    };
    if trusted {
        return Ok(());
    }
    if !settings.listen.ip().is_loopback() || bearer.is_some() {
        return Err(text(StatusCode::UNAUTHORIZED, "Send the admin token as a bearer token.\n"));
    }
    let host = headers.get(http::header::HOST).and_then(|host| host.to_str().ok());
    if host.is_some_and(|host| is_our_host(host, snapshot)) {
        return Ok(());
    }
    Err(text(StatusCode::FORBIDDEN, "This host name is not in admin.hosts.\n"))
}

fn is_our_host(host: &str, snapshot: &Snapshot) -> bool {
    let settings = &snapshot.settings.admin;
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let literal = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    name.eq_ignore_ascii_case("localhost")
        || literal.is_ok_and(|ip| ip.is_loopback() || ip == settings.listen.ip())
        || settings.hosts.iter().any(|known| known.eq_ignore_ascii_case(name))
}

fn json_answer(value: &Map<String, Value>) -> Answer {
    let body = serde_json::to_vec(value).unwrap_or_default();
    answer(StatusCode::OK, "application/json", body)
}

fn text(status: StatusCode, words: &str) -> Answer {
    answer(status, "text/plain; charset=utf-8", words.as_bytes().to_vec())
}

fn answer(status: StatusCode, kind: &str, body: Vec<u8>) -> Answer {
    let built = Response::builder()
        .status(status)
        .header(http::header::CONTENT_TYPE, kind)
        .header(http::header::CONTENT_LENGTH, body.len())
        .header(http::header::CACHE_CONTROL, "no-store")
        .header("x-content-type-options", "nosniff")
        .body(body);
    built.unwrap_or_default()
}
