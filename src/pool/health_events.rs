//! Changes in the health of keys, accounts and providers: sent to the log and to the other gateways.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::{breaker::Fault, health::QuarantineReason};

/// What the event is about.
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
    /// Of an account, or of a model there: it cools for this time.
    Cools(Duration),
    /// Of a key, an account or a model there, for so long at least.
    Quarantined(QuarantineReason, Duration),
    /// Of a provider: its circuit opened, by faults of this kind.
    Faulty(Fault),
    /// Of a key: paused by an operator.
    Paused,
    /// Of a key: resumed by an operator.
    Resumed,
    /// It is over.
    Healthy,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthEvent {
    pub of: HealthSubject,
    pub change: HealthChange,
}

/// Sends events once a receiver is attached.
#[derive(Debug, Clone, Default)]
pub struct HealthEventSender(Arc<OnceLock<UnboundedSender<HealthEvent>>>);

impl HealthEventSender {
    /// Attaches the receiver.
    pub fn listen(&self) -> UnboundedReceiver<HealthEvent> {
        let (sender, receiver) = unbounded_channel();
        let _ = self.0.set(sender);
        receiver
    }

    pub fn send(&self, of: HealthSubject, change: HealthChange) {
        if let Some(sender) = self.0.get() {
            let _ = sender.send(HealthEvent { of, change });
        }
    }
}
