//! The gateway from outside: real sockets, the built program, a provider with every fault.
//!
//! Each module is one topic; `support` holds the provider, the process and the clients.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

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

mod access_log;
mod addresses;
mod admin_access;
mod admin_tokens;
mod big_body;
mod body_limit;
mod busy_core;
mod canary;
mod capture;
mod chain;
mod charges;
mod cli;
mod clock;
mod concurrency;
mod descriptors;
mod devices;
mod dialects;
mod disconnect;
mod documents;
mod drain;
mod failover;
mod farming;
mod fault_bench;
mod feed;
mod figures;
mod finished;
mod first_example;
mod fleet;
mod framing;
mod full_disk;
mod gate;
mod gemini;
mod handover;
mod handover_failures;
mod healing;
mod helpful;
mod json;
mod kills;
mod known;
mod ledger;
mod license_budget;
mod license_cache;
mod license_canary;
mod licenses;
mod licenses_redis;
mod lifecycle;
mod malformed;
mod master_keys;
mod matrix;
mod memory;
mod messages;
mod mock_itself;
mod money;
mod monitoring;
mod names;
mod odd_answers;
mod operator;
mod operator_cli;
mod operator_fleet;
mod outage;
mod packaging;
mod path;
mod poisoned;
mod private;
mod progress;
mod refusals;
mod relayed;
mod reload;
mod reload_broken;
mod reload_cli;
mod reload_on_save;
mod reload_storm;
mod responses;
mod routes;
mod shared_exact;
mod shared_kills;
mod shared_late;
mod shared_leaving;
mod shared_ledger;
mod shared_model;
mod shared_soak;
mod shared_topologies;
mod shared_trouble;
mod shop_itself;
mod shop_trouble;
mod signed_licences;
mod silent;
mod slow_wire;
mod smart;
mod sticky;
mod strangers;
mod stream;
mod support;
mod timeouts;
mod translation;
mod upstream_h2;
mod upstream_tls;
mod usage;
mod vendors;
mod waste;
mod webhooks;
