//! Health of a key and of its account. Kept over reloads, found by id.

pub use super::key_state::{KeyState, QuarantineReason};
use std::{
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    time::Instant,
};

use super::{
    backoff::{Cooldown, Quarantine, millis},
    credit::Credit,
    doubt::DoubtState,
    latency::LatencyEwma,
    model_limits::ModelLimits,
    rate_headroom::RateHeadroom,
};

/// Shared by the keys of one account: limits and money belong to it.
#[derive(Debug, Default)]
pub struct GroupHealth {
    pub cooling: Cooldown,
    pub quarantine: Quarantine,
    /// Limits that hold for one model.
    pub models: ModelLimits,
    pub allowance: RateHeadroom,
    pub credit: Credit,
}

/// Whether the operator paused a key, and when.
#[derive(Debug, Default)]
pub struct OperatorPause {
    is: AtomicBool,
    /// As [`millis`].
    since: AtomicU64,
}

impl OperatorPause {
    pub fn is(&self) -> bool {
        self.is.load(Relaxed)
    }

    /// Whether that is a change.
    pub fn set(&self, is: bool, now: Instant) -> bool {
        let was = self.is.swap(is, Relaxed);
        if is && !was {
            self.since.store(millis(now), Relaxed);
        }
        was != is
    }

    pub fn age_ms(&self, now: Instant) -> u64 {
        millis(now).saturating_sub(self.since.load(Relaxed))
    }
}

/// Probes in a row that came to the same.
#[derive(Debug, Default)]
pub struct Streak {
    passed: AtomicUsize,
    failed: AtomicUsize,
}

impl Streak {
    /// How many with this one.
    pub fn note(&self, passed: bool) -> usize {
        let (counted, other) = match passed {
            true => (&self.passed, &self.failed),
            false => (&self.failed, &self.passed),
        };
        other.store(0, Relaxed);
        counted.fetch_add(1, Relaxed) + 1
    }
}

/// One key's own health and counters.
#[derive(Debug, Default)]
pub struct KeyHealth {
    pub quarantine: Quarantine,
    pub probes: Streak,
    pub doubt: DoubtState,
    /// The operator wants it left alone.
    pub paused: OperatorPause,
    /// The live configuration no longer has it, or has it off: requests that began under an earlier one
    /// skip it, too.
    pub withdrawn: AtomicBool,
    pub requests: AtomicU64,
    pub errors: AtomicU64,
    /// Attempts since the last one that was answered.
    pub failed_in_a_row: AtomicU64,
    pub open: AtomicU64,
    pub pace: LatencyEwma,
}

impl GroupHealth {
    /// What the account's state makes of its keys.
    pub fn state(&self, now: Instant) -> KeyState {
        if let Some((why, left_ms)) = self.quarantine.status(now) {
            return KeyState::Quarantined { why, left_ms };
        }
        match self.cooling.left_ms(now) {
            0 => KeyState::Ready,
            left_ms => KeyState::Cooling { left_ms },
        }
    }
}
