//! The day that a conversation is counted in.

use gatekeeper_filters::kernel::Period;
use serde::{Deserialize, Serialize};

use crate::ledger::{conversations::SAME_TURN, windows::Windows};

/// A day whose conversations have a key of their own, by its beginning in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConversationDay(pub u64);

impl ConversationDay {
    pub fn of(windows: &Windows) -> Self {
        Self(windows.of(Period::Day).start.0 / 1000)
    }

    /// The day before, in the first ten minutes of this one.
    pub fn before(self, windows: &Windows) -> Option<Self> {
        let passed = windows.of(Period::Minute).start.0 / 1000 - self.0;
        (passed <= u64::from(SAME_TURN)).then(|| Self(self.0.saturating_sub(86_400)))
    }
}
