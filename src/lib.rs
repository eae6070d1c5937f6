//! Gatekeeper: a gateway between a desktop app and the AI providers its seller pays for.
//!
//! The app knows a licence key; the gateway alone knows the master keys. The way of a request:
//! [`proxy`] (routes, filters, body) → [`upstream`] (select, attempt, classify, relay) → [`proxy`]
//! (settle, record). Filters decide and live in a crate of their own; this crate is the machine.
//!
//! **Invariants**, held by `tests/architecture`: each part imports lower parts only, as `allowed.txt` there
//! lists them; only [`downstream`], [`proxy`], [`upstream`], [`runtime`], the peers of [`pool`], [`server`],
//! [`admin`] and [`stand_in`] name Pingora's HTTP types; only [`ledger`] and the disk cache of [`licenses`]
//! name SQL; filters name neither.

pub mod admin;
pub mod budget;
pub mod cli;
pub mod config;
pub mod dialect;
pub mod downstream;
#[cfg(any(test, feature = "fuzzing"))]
#[allow(clippy::panic, reason = "a fuzzer finds panics")]
pub mod fuzz_targets;
pub mod ledger;
pub mod license_admin;
pub mod licenses;
pub mod lifecycle;
pub mod logging;
pub mod os;
pub mod peer_sync;
pub mod pool;
pub mod progress;
pub mod prompts;
pub mod proxy;
pub mod redis_store;
pub mod reload;
pub mod runtime;
pub mod server;
pub mod shops;
pub mod stand_in;
pub mod telemetry;
pub mod tls;
pub mod upgrade;
pub mod upstream;
pub mod vault;

use std::process::ExitCode;

use gatekeeper_filters::kernel::Registry;

use crate::cli::demo;

/// The whole program, with the filters that YAML may name. A gateway with filters of its own is a
/// `main` that adds them to [`gatekeeper_filters::builtin`] and calls this.
pub fn main(registry: Registry) -> ExitCode {
    // One TLS provider for all crates, before any of them picks its own.
    let _ = rustls::crypto::ring::default_provider().install_default();
    server::protect_memory();
    let actions = cli::Actions { run: server::run, demo: demo::run, operate: server::operate };
    cli::main(registry, actions)
}
