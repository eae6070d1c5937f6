//! The live configuration and the outcome of the last reload, for `/status`.

use std::sync::Arc;

use gatekeeper_filters::kernel::UnixMs;
use parking_lot::Mutex;

use super::outcome::ReloadOutcome;

/// Updated at start and by every reload.
pub struct ReloadStatus {
    /// The file, or the name of a built-in configuration.
    pub source: String,
    inner: Mutex<Inner>,
}

struct Inner {
    since: UnixMs,
    /// Fields whose change waits for a restart.
    waiting: Vec<&'static str>,
    /// What the last reload that went live changed.
    changes: Vec<String>,
    refused: Option<LastRefusal>,
}

/// The last reload, when it was refused.
#[derive(Debug, Clone)]
pub struct LastRefusal {
    pub at: UnixMs,
    pub problems: Vec<String>,
}

/// A copy of the current [`ReloadStatus`].
pub struct StatusNow {
    pub since: UnixMs,
    pub waiting: Vec<&'static str>,
    pub changes: Vec<String>,
    pub refused: Option<LastRefusal>,
}

impl ReloadStatus {
    pub fn begin(source: String) -> Arc<Self> {
        let inner =
            Inner { since: UnixMs::now(), waiting: Vec::new(), changes: Vec::new(), refused: None };
        Arc::new(Self { source, inner: Mutex::new(inner) })
    }

    pub fn now(&self) -> StatusNow {
        let inner = self.inner.lock();
        StatusNow {
            since: inner.since,
            waiting: inner.waiting.clone(),
            changes: inner.changes.clone(),
            refused: inner.refused.clone(),
        }
    }

    pub(super) fn live(&self, outcome: &ReloadOutcome) {
        let (waiting, changes) = (outcome.waits.clone(), outcome.changes.clone());
        *self.inner.lock() = Inner { since: UnixMs::now(), waiting, changes, refused: None };
    }

    pub(super) fn refused(&self, problems: Vec<String>) {
        self.inner.lock().refused = Some(LastRefusal { at: UnixMs::now(), problems });
    }
}
