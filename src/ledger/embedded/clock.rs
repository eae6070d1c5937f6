//! Notices a wall clock that was set back.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use gatekeeper_filters::kernel::UnixMs;

/// A smaller step back reaches other minutes only.
const SLACK: u64 = 5 * 60 * 1000;
/// Requests that overtake each other are no step back, if they do so within this.
const OVERTAKEN: u64 = 2_000;
/// The longest window that a small step may return to.
const MINUTE: u64 = 60_000;
/// Resolution of the latest time: storing it each time would cost every request a cache line.
const STEP: u64 = 1000;

/// Whether the clock was set back in this process.
#[derive(Default)]
pub struct ClockGuard {
    latest: AtomicU64,
    /// By a small step: until then there may be windows that memory has let go of.
    until: AtomicU64,
    ever: AtomicBool,
}

impl ClockGuard {
    /// Takes in the time of a request; whether the windows of it may be known to SQLite alone.
    pub fn hear(&self, now: UnixMs) -> bool {
        let latest = self.latest.load(Relaxed);
        if now.0 > latest + STEP {
            self.latest.store(now.0, Relaxed);
        } else if now.0 + SLACK < latest {
            self.latest.store(now.0, Relaxed);
            if !self.ever.swap(true, Relaxed) {
                log::warn!(
                    "store: the clock was set back by {} s; earlier usage is read from SQLite.",
                    (latest - now.0) / 1000
                );
            }
        } else if now.0 + OVERTAKEN < latest {
            self.until.fetch_max(latest + STEP + MINUTE, Relaxed);
        }
        now.0 < self.until.load(Relaxed) || self.ever.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_step_counts_until_the_clock_is_back_and_a_large_one_for_good() {
        let clock = ClockGuard::default();
        for now in [10_000_000, 10_500_000, 10_499_000] {
            assert!(!clock.hear(UnixMs(now)), "{now}");
        }
        for now in [10_400_000, 10_200_500, 10_500_000, 10_559_000] {
            assert!(clock.hear(UnixMs(now)), "{now}");
        }
        assert!(!clock.hear(UnixMs(10_570_000)));
        assert!(clock.hear(UnixMs(10_200_000)));
        assert!(clock.hear(UnixMs(99_000_000)));
    }
}
