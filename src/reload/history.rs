//! What is live since when, and how the last reload went: for `/status`.

use std::sync::Arc;

use gatekeeper_filters::kernel::UnixMs;
use parking_lot::Mutex;

use super::Outcome;

/// Told by the start and by every reload.
pub struct History {
    /// The file, or what stands in for one.
    pub source: String,
    inner: Mutex<Inner>,
}

struct Inner {
    since: UnixMs,
    /// Fields whose change waits for a restart.
    waiting: Vec<&'static str>,
    /// What the last reload that went live changed.
    changes: Vec<String>,
    refused: Option<Refusal>,
}

/// The last reload, when it was refused.
#[derive(Debug, Clone)]
pub struct Refusal {
    pub at: UnixMs,
    pub problems: Vec<String>,
}

/// What [`History`] knows at one moment.
pub struct Now {
    pub since: UnixMs,
    pub waiting: Vec<&'static str>,
    pub changes: Vec<String>,
    pub refused: Option<Refusal>,
}

impl History {
    pub fn begin(source: String) -> Arc<Self> {
        let inner =
            Inner { since: UnixMs::now(), waiting: Vec::new(), changes: Vec::new(), refused: None };
        Arc::new(Self { source, inner: Mutex::new(inner) })
    }

    pub fn now(&self) -> Now {
        let inner = self.inner.lock();
        Now {
            since: inner.since,
            waiting: inner.waiting.clone(),
            changes: inner.changes.clone(),
            refused: inner.refused.clone(),
        }
    }

    pub(super) fn live(&self, outcome: &Outcome) {
        let (waiting, changes) = (outcome.waits.clone(), outcome.changes.clone());
        *self.inner.lock() = Inner { since: UnixMs::now(), waiting, changes, refused: None };
    }

    pub(super) fn refused(&self, problems: Vec<String>) {
        self.inner.lock().refused = Some(Refusal { at: UnixMs::now(), problems });
    }
}
