//! How well a key and its account are. Kept over reloads, found by id.

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

/// Why a key, or its whole account, is in quarantine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuarantineReason {
    BadCredential,
    NoPermission,
    NoMoney,
    DailyLimit,
}

impl QuarantineReason {
    const ALL: [QuarantineReason; 4] = [
        QuarantineReason::BadCredential,
        QuarantineReason::NoPermission,
        QuarantineReason::NoMoney,
        QuarantineReason::DailyLimit,
    ];

    pub fn name(self) -> &'static str {
        match self {
            QuarantineReason::BadCredential => "bad_credential",
            QuarantineReason::NoPermission => "no_permission",
            QuarantineReason::NoMoney => "no_money",
            QuarantineReason::DailyLimit => "daily_limit",
        }
    }

    pub fn from_name(name: &str) -> Option<QuarantineReason> {
        Self::ALL.into_iter().find(|why| why.name() == name)
    }

    /// Whether asking for the list of models tells when it is over. That list costs nothing, and is
    /// shown to an account without money, too.
    pub fn ends_by_probe(self) -> bool {
        matches!(self, QuarantineReason::BadCredential | QuarantineReason::NoPermission)
    }

    /// Never 0.
    pub(super) fn code(self) -> u32 {
        self as u32 + 1
    }

    pub(super) fn from_code(code: u32) -> Option<QuarantineReason> {
        Self::ALL.into_iter().find(|why| why.code() == code)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyState {
    Ready,
    /// It serves where no other key can: somebody was refused with it, and a probe finds out whether all are.
    Doubtful,
    Cooling {
        left_ms: u64,
    },
    /// `left_ms`: until it is tried again.
    Quarantined {
        why: QuarantineReason,
        left_ms: u64,
    },
    /// By the configuration or the operator.
    Off,
}

impl KeyState {
    /// Milliseconds until it is tried again; 0 where no time tells.
    pub fn left_ms(self) -> u64 {
        match self {
            KeyState::Cooling { left_ms } | KeyState::Quarantined { left_ms, .. } => left_ms,
            KeyState::Ready | KeyState::Doubtful | KeyState::Off => 0,
        }
    }

    /// Metric label.
    pub fn name(self) -> &'static str {
        match self {
            KeyState::Ready => "ready",
            KeyState::Doubtful => "doubtful",
            KeyState::Cooling { .. } => "cooling",
            KeyState::Quarantined { .. } => "quarantined",
            KeyState::Off => "off",
        }
    }

    /// Whether requests may go to it.
    pub fn serves(self) -> bool {
        matches!(self, KeyState::Ready | KeyState::Doubtful)
    }

    pub const NAMES: [&'static str; 5] = ["ready", "doubtful", "cooling", "quarantined", "off"];
}

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

    /// Whether that is news.
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
    /// The live configuration has it no more, or has it off: requests that began under another one leave it, too.
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
