//! Remembers signed webhook events, so that a repeated one has no effect.

use std::time::Duration;

use moka::sync::Cache;

/// How long an event is known again, and how many are.
const SEEN: Duration = Duration::from_secs(72 * 3600);
const EVENTS: u64 = 100_000;

/// Processed events, by SHA-256.
pub fn seen() -> Cache<[u8; 32], ()> {
    Cache::builder().max_capacity(EVENTS).time_to_live(SEEN).build()
}
