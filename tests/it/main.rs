//! The gateway from outside: real sockets, the built program, a provider with every fault.
//!
//! The folders are the parts of `src` and `filters` whose promises they test, each module one topic; `project` is what is
//! shipped and written about it. The provider, the process and the clients are in
//! `tests/support`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use gatekeeper_test_support as support;

/// Runs these tests over plain HTTP/1.1, HTTP/1.1 in TLS, and HTTP/2.
macro_rules! over_every_wire {
    ($($test:ident),+ $(,)?) => {
        over_every_wire! { @ plain Plain, $($test),+ }
        over_every_wire! { @ tls Tls, $($test),+ }
        over_every_wire! { @ h2 H2, $($test),+ }
    };
    (@ $name:ident $wire:ident, $($test:ident),+) => {
        mod $name {
            $(
                #[tokio::test]
                async fn $test() {
                    super::$test($crate::support::Wire::$wire).await;
                }
            )+
        }
    };
}

/// The same over the two wires that carry HTTP/1.1.
macro_rules! over_http1 {
    ($($test:ident),+ $(,)?) => {
        over_every_wire! { @ plain_http1 Plain, $($test),+ }
        over_every_wire! { @ tls_http1 Tls, $($test),+ }
    };
}

mod admin {
    pub mod admin_access;
    pub mod admin_tokens;
    pub mod feed;
}
mod budget {
    pub mod money;
    pub mod waste;
}
mod cli {
    pub mod commands;
    pub mod progress;
}
mod dialect {
    pub mod dialects;
    pub mod gemini;
    pub mod json;
    pub mod messages;
    pub mod relayed;
    pub mod responses;
    pub mod translation;
}
mod downstream {
    pub mod addresses;
    pub mod big_body;
    pub mod body_limit;
    pub mod disconnect;
    pub mod framing;
    pub mod malformed;
    pub mod resumption;
    pub mod silent;
    pub mod strangers;
}
mod filters {
    pub mod chain;
    pub mod charges;
    pub mod concurrency;
    pub mod smart;
    pub mod usage;
}
mod ledger {
    pub mod busy_core;
    pub mod clock;
    pub mod counting;
    pub mod farming;
    pub mod full_disk;
    pub mod kills;
    pub mod shared_conversations;
    pub mod shared_exact;
    pub mod shared_kills;
    pub mod shared_late;
    pub mod shared_leaving;
    pub mod shared_ledger;
    pub mod shared_model;
    pub mod shared_soak;
    pub mod shared_topologies;
    pub mod shared_trouble;
    pub mod slow_wire;
}
mod license_admin {
    pub mod operator;
    pub mod operator_cli;
    pub mod operator_fleet;
}
mod licenses {
    pub mod adopted;
    pub mod app_api;
    pub mod devices;
    pub mod guessing;
    pub mod issued;
    pub mod key_moves;
    pub mod known;
    pub mod license_budget;
    pub mod license_cache;
    pub mod license_canary;
    pub mod licenses_redis;
    pub mod moving_in;
    pub mod moving_in_api;
    pub mod shop_trouble;
    pub mod stripe;
    pub mod stripe_check;
    pub mod verdicts;
    pub mod webhooks;
}
mod os {
    pub mod descriptors;
    pub mod memory;
    pub mod private;
}
mod peer_sync {
    pub mod fleet;
}
mod pool {
    pub mod healing;
    pub mod master_keys;
    pub mod names;
    pub mod sticky;
}
mod project {
    pub mod documents;
    pub mod packaging;
    pub mod promises;
    pub mod small_texts;
}
mod prompts {
    pub mod asked;
    pub mod conversations;
    pub mod hostile;
    pub mod replayed;
}
mod proxy {
    pub mod capture;
    pub mod gate;
    pub mod helpful;
    pub mod path;
}
mod reload {
    pub mod going_live;
    pub mod reload_broken;
    pub mod reload_cli;
    pub mod reload_on_save;
    pub mod reload_storm;
}
mod server {
    pub mod lifecycle;
}
mod shops {
    pub mod signed_licences;
    pub mod vendors;
}
mod telemetry {
    pub mod access_log;
    pub mod board;
    pub mod failure_log;
    pub mod figures;
    pub mod monitoring;
}
mod upgrade {
    pub mod handover;
    pub mod handover_failures;
}
mod upstream {
    pub mod drain;
    pub mod failover;
    pub mod fault_bench;
    pub mod finished;
    pub mod first_example;
    pub mod matrix;
    pub mod odd_answers;
    pub mod outage;
    pub mod poisoned;
    pub mod refusals;
    pub mod routes;
    pub mod stream;
    pub mod timeouts;
    pub mod uploads;
    pub mod upstream_h2;
    pub mod upstream_tls;
}
mod vault {
    pub mod canary;
}
