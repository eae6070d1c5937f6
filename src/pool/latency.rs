//! Latency of a key: an exponentially weighted mean of the time to its first output.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use super::backoff::millis;

/// What was measured so long ago weighs as much as nothing: half of it each time.
const HALF_LIFE_MS: f64 = 30_000.0;
/// The share of a new measurement.
const NEWEST: f64 = 0.3;

#[derive(Debug, Default)]
pub struct LatencyEwma {
    /// Microseconds to the first output; 0 while nothing was measured.
    mean: AtomicU64,
    /// Milliseconds on the monotonic clock.
    at: AtomicU64,
}

impl LatencyEwma {
    /// Of two concurrent samples one may be lost: a mean tolerates that.
    pub fn note(&self, took: Duration, now: Instant) {
        let took = took.as_micros() as f64;
        let mean = match self.mean.load(Relaxed) {
            0 => took,
            known => known as f64 + (took - known as f64) * NEWEST,
        };
        self.mean.store(mean.max(1.0) as u64, Relaxed);
        self.at.store(millis(now), Relaxed);
    }

    /// The mean in microseconds, decaying to 0: a key that was slow an hour ago is tried again.
    pub fn expected(&self, now: Instant) -> u64 {
        let age = millis(now).saturating_sub(self.at.load(Relaxed)) as f64;
        (self.mean.load(Relaxed) as f64 * 0.5f64.powf(age / HALF_LIFE_MS)) as u64
    }

    /// The mean as it was measured; `None` before anything was.
    pub fn measured(&self) -> Option<Duration> {
        Some(self.mean.load(Relaxed)).filter(|mean| *mean > 0).map(Duration::from_micros)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_what_is_measured_and_fades() {
        let (pace, now) = (LatencyEwma::default(), Instant::now());
        assert_eq!((pace.expected(now), pace.measured()), (0, None));
        pace.note(Duration::from_millis(100), now);
        assert_eq!(pace.expected(now), 100_000);
        for _ in 0..20 {
            pace.note(Duration::from_millis(500), now);
        }
        assert!(pace.expected(now) > 490_000);
        assert!((240_000..260_000).contains(&pace.expected(now + Duration::from_secs(30))));
        assert!(pace.expected(now + Duration::from_secs(600)) < 10);
    }
}
