//! `/metrics`: updates the gauges, then writes all metrics.

use std::time::Instant;

use gatekeeper_filters::kernel::UnixMs;
use http::StatusCode;

use super::{
    AdminApp, AdminReply, answer,
    status::{PROVIDER_STATES, provider_state},
};
use crate::{licenses, pool::KeyState, runtime::snapshot::Snapshot};

impl AdminApp {
    pub(super) fn metrics(&self, snapshot: &Snapshot) -> AdminReply {
        let metrics = &snapshot.telemetry.metrics;
        let _one = metrics.scraping.lock();
        metrics.in_flight.set(snapshot.telemetry.in_flight() as i64);
        metrics.reservations_open.set(self.operator.store.open_reservations() as i64);
        metrics.store_up.set(i64::from(self.is_store_up()));
        let now = Instant::now();
        // A reload may have taken a provider, a key, a budget or a shop away.
        metrics.provider_state.reset();
        metrics.key_state.reset();
        metrics.key_model_cooling.reset();
        metrics.budget_used.reset();
        metrics.license_source_state.reset();
        for provider in &snapshot.providers {
            for state in PROVIDER_STATES {
                let is = i64::from(state == provider_state(provider, now));
                metrics.provider_state.with_label_values(&[provider.name(), state]).set(is);
            }
            for key in provider.keys() {
                let current = key.state(now).name();
                for state in KeyState::NAMES {
                    let labels = [&**provider.name(), &*key.id, state];
                    let is = i64::from(state == current);
                    metrics.key_state.with_label_values(&labels).set(is);
                }
                for (model, state) in key.resting_models(now) {
                    let labels = [&**provider.name(), &*key.id, &*model];
                    let seconds = state.left_ms() as f64 / 1000.0;
                    metrics.key_model_cooling.with_label_values(&labels).set(seconds);
                }
            }
        }
        for budget in snapshot.budgets.used(UnixMs::now()) {
            let ratio = budget.spent as f64 / budget.limit as f64;
            metrics.budget_used.with_label_values(&[budget.name]).set(ratio);
        }
        metrics.active(self.operator.store.active_licenses(UnixMs::now()));
        let book = &snapshot.licenses;
        for (shop, report) in book.validator.report(&book.sources) {
            for state in licenses::STATES {
                let is = i64::from(state == report.state);
                metrics.license_source_state.with_label_values(&[shop.name(), state]).set(is);
            }
        }
        answer(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", metrics.expose())
    }
}
