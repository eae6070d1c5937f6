//! Why an attempt did not deliver, and what that means for the key.

use gatekeeper_filters::kernel::Exchange;

use super::classify::{Classification, ClientError, Failure, FailureCause};
use crate::pool::key::AttemptFeedback;

/// Why an attempt did not deliver.
pub enum AttemptError {
    Failed(Failure),
    Relay(ClientError),
    /// The app left, or did not take its answer.
    AppLeft,
    /// The deadline over all attempts passed before anything was committed.
    Deadline,
    /// The gateway itself is short of something, named here for the operator; nothing was committed.
    Crowded(&'static str),
    /// The answer broke after its first event; holds what to log, and what the key showed.
    Broken(String, AttemptFeedback),
}

impl AttemptError {
    /// Whether a provider may have worked on an answer that was not delivered. What it refused, and what
    /// failed before it was sent completely, costs nothing.
    pub fn wastes(&self, exchange: &Exchange) -> bool {
        let worked = exchange.written.is_some() && !exchange.progress.delivered;
        worked
            && match self {
                AttemptError::Failed(failure) => failure.cause.is_work(),
                AttemptError::Deadline => true,
                AttemptError::Crowded(_) => exchange.progress.answered,
                AttemptError::Relay(_) | AttemptError::AppLeft | AttemptError::Broken(..) => false,
            }
    }

    pub fn is_timeout(&self) -> bool {
        match self {
            AttemptError::Failed(failure) => failure.cause == FailureCause::Timeout,
            AttemptError::Deadline => true,
            _ => false,
        }
    }

    /// Metric label, and what the key showed.
    pub fn account(&self) -> (&'static str, AttemptFeedback) {
        match self {
            AttemptError::Failed(failure) => (failure.cause.name(), failure.news),
            AttemptError::Relay(_) => ("request_rejected", AttemptFeedback::Rejected),
            AttemptError::AppLeft => ("app_left", AttemptFeedback::None),
            AttemptError::Deadline => (FailureCause::Timeout.name(), AttemptFeedback::TimedOut),
            AttemptError::Crowded(_) => ("crowded", AttemptFeedback::None),
            AttemptError::Broken(_, news) => (FailureCause::BrokenAnswer.name(), *news),
        }
    }
}

impl From<Failure> for AttemptError {
    fn from(failure: Failure) -> Self {
        AttemptError::Failed(failure)
    }
}

impl From<Classification> for AttemptError {
    fn from(judgement: Classification) -> Self {
        match judgement {
            Classification::Failed(failure) => AttemptError::Failed(failure),
            Classification::Relay(relayed) => AttemptError::Relay(relayed),
        }
    }
}
