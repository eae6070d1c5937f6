//! The outcome of a reload, and the reasons to refuse one.

use std::net::SocketAddr;

use crate::{
    config::{Diagnostic, Problems},
    ledger::PepperMismatch,
    runtime::snapshot::SnapshotError,
    vault::pepper,
};

/// The outcome of a reload, or of a dry run.
#[derive(Debug, Default)]
pub struct ReloadOutcome {
    /// It is live, except for `waits`.
    pub live: bool,
    /// One line for each change.
    pub changes: Vec<String>,
    /// Fields whose change takes effect after an upgrade or a restart.
    pub waits: Vec<&'static str>,
    pub warnings: Vec<String>,
    /// Why it is refused; empty when it is not.
    pub problems: Vec<String>,
}

/// Why the last good configuration stays.
#[derive(Debug, thiserror::Error)]
pub enum ReloadRefused {
    #[error("{0}")]
    File(#[from] Problems),
    #[error("{0}")]
    Snapshot(#[from] SnapshotError),
    #[error("vault: {0}")]
    Pepper(#[from] PepperMismatch),
    #[error("vault: {0}")]
    PepperText(#[from] pepper::PepperError),
    #[error(
        "admin.token: missing, and the running gateway has one; a reload does not remove it. \
         Write `token: none` to remove it"
    )]
    TokenGone,
    #[error(
        "admin.token: the listener stays at {0} until a hand-over, and off loopback it needs a token. \
         Leave the token in, run `gatekeeper upgrade`, then take it out"
    )]
    Opened(SocketAddr),
    #[error(
        "licenses.sources: the list of `static` is empty now, and the {0} licences of it would be \
         refused. Take the source out, or write `sources: none`, if it is meant"
    )]
    ListEmptied(usize),
    #[error("log.access: {0}")]
    AccessLog(std::io::Error),
    #[error("providers: the stand-in provider starts with the process only: restart the gateway")]
    StandIn,
}

impl ReloadRefused {
    /// One line for each problem.
    pub fn lines(&self) -> Vec<String> {
        match self {
            ReloadRefused::File(problems) => {
                problems.list.iter().map(Diagnostic::to_string).collect()
            }
            other => vec![other.to_string()],
        }
    }
}
