//! Milliseconds on a monotonic clock, so that a stepped wall clock changes nothing.

use std::{sync::LazyLock, time::Instant};

pub(super) static BOOT: LazyLock<Instant> = LazyLock::new(Instant::now);

pub(super) fn millis(at: Instant) -> u64 {
    at.saturating_duration_since(*BOOT).as_millis() as u64
}

/// Starts the clock; call once, early.
pub fn start_clock() {
    LazyLock::force(&BOOT);
}
