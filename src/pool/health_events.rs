//! What changes in the health of keys, accounts and providers: told to the log, and to the other
//! gateways if there are some.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::{breaker::Fault, health::QuarantineReason};

/// Who it is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum HealthSubject {
    Provider {
        provider: Arc<str>,
    },
    /// All keys of an account.
    Group {
        provider: Arc<str>,
        group: Arc<str>,
    },
    /// One model at an account.
    Model {
        provider: Arc<str>,
        group: Arc<str>,
        model: Arc<str>,
    },
    Key {
        provider: Arc<str>,
        key: Arc<str>,
        /// Which secret it has (`vault::KeyedHash::secret`).
        mark: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealthChange {
    /// Of an account, or of a model there: it rests for so long.
    Cools(Duration),
    /// Of a key, an account or a model there, for so long at least.
    Quarantined(QuarantineReason, Duration),
    /// Of a provider: its circuit opened, by faults of this kind.
    Sick(Fault),
    /// Of a key: the operator wants it left alone.
    Paused,
    /// Of a key: the operator wants it tried again.
    Resumed,
    /// It is over.
    Sound,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthEvent {
    pub of: HealthSubject,
    pub change: HealthChange,
}

/// Where news are told, once somebody wants to know.
#[derive(Debug, Clone, Default)]
pub struct HealthEventSender(Arc<OnceLock<UnboundedSender<HealthEvent>>>);

impl HealthEventSender {
    /// News are told from now on.
    pub fn listen(&self) -> UnboundedReceiver<HealthEvent> {
        let (sender, news) = unbounded_channel();
        let _ = self.0.set(sender);
        news
    }

    pub fn tell(&self, of: HealthSubject, change: HealthChange) {
        if let Some(sender) = self.0.get() {
            let _ = sender.send(HealthEvent { of, change });
        }
    }
}
