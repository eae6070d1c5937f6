//! Why a provider is not asked, in the operator's words, for the log line of a request that found no key.

use std::{fmt::Write, time::Instant};

use super::{KeyState, ProviderPool, breaker::Circuit, key::MasterKey};

/// Keys that are named.
const NAMED: usize = 3;

impl ProviderPool {
    /// `groq: groq-1 quarantined (bad_credential), groq-2 off`.
    pub fn why_idle(&self, now: Instant) -> String {
        let mut why = format!("{}: ", self.name());
        if self.breaker().circuit() != Circuit::Closed {
            why.push_str("circuit open");
            return why;
        }
        if self.endpoint.has_no_address() {
            why.push_str("no address");
            return why;
        }
        for (place, key) in self.keys().iter().take(NAMED).enumerate() {
            let comma = if place > 0 { ", " } else { "" };
            // Writing to a text can't fail.
            let _ = write!(why, "{comma}{} {}", key.id, self.of_key(key, now));
        }
        if self.keys().len() > NAMED {
            let _ = write!(why, " and {} more", self.keys().len() - NAMED);
        }
        why
    }

    fn of_key(&self, key: &MasterKey, now: Instant) -> String {
        match key.state(now) {
            KeyState::Quarantined { why, .. } => format!("quarantined ({})", why.name()),
            KeyState::Ready if self.account(key).circuit() != Circuit::Closed => {
                "fails, its account's circuit is open".to_owned()
            }
            KeyState::Ready => "was asked or is busy".to_owned(),
            other => other.name().to_owned(),
        }
    }
}
