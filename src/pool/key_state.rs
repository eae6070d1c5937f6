//! What a key is doing, and why it is not used.

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

    /// Whether a probe (the list of models) shows that it is over. The list is free, and is shown to an
    /// account without money, too.
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
    /// Used only where no other key can serve: a request was refused with it, and a probe checks whether
    /// all are.
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
    /// Milliseconds until the next try; 0 where no time is known.
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
