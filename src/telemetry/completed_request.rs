//! What telemetry reads of a request that has ended. The request's own context belongs to the layers above.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use gatekeeper_filters::kernel::{Code, Exchange, Rejection};

pub struct CompletedRequest<'a> {
    pub arrived: Instant,
    pub endpoint: &'static str,
    pub request_id: &'a Arc<str>,
    /// The path that was asked for, where it was refused.
    pub path: Option<&'a str>,
    /// `None` where the request was answered or refused before its licence was looked at.
    pub exchange: Option<&'a Exchange>,
    pub reject: Option<&'a Rejection>,
    /// The live list takes them over.
    pub attempts: Vec<AttemptRecord>,
    /// The first output went to the app.
    pub first_output: Option<Instant>,
    /// Time spent waiting for providers, and for the app's body; the rest is the gateway's own.
    pub waited: Duration,
}

impl<'a> CompletedRequest<'a> {
    /// A request that ended before it had a context: its head was refused.
    pub fn without_context(request_id: &'a Arc<str>, reject: Option<&'a Rejection>) -> Self {
        Self {
            arrived: Instant::now(),
            endpoint: "other",
            request_id,
            path: None,
            exchange: None,
            reject,
            attempts: Vec::new(),
            first_output: None,
            waited: Duration::ZERO,
        }
    }

    /// `messages`, `tokens` or nothing: which limit refused.
    pub fn refused_by(&self) -> Option<&'static str> {
        let reject = self.reject?;
        match reject.code {
            Code::QuotaExceeded => reject.quota.as_ref().map(|quota| quota.kind),
            Code::RateLimited => Some("rate"),
            _ => None,
        }
    }
}

/// An attempt that failed, for the operator's log.
pub struct FailedAttempt {
    /// Its number in the request, from 1.
    pub number: usize,
    pub target: Arc<str>,
    pub provider: Arc<str>,
    pub key: Arc<str>,
    /// A word from the list of [`AttemptRecord::outcome`].
    pub outcome: &'static str,
    /// The status and what the answer said. Holds no secret and no text of the app.
    pub why: String,
}

/// One attempt, for the live view and the record.
#[derive(Debug, Clone)]
pub struct AttemptRecord {
    pub provider: Arc<str>,
    pub key: Arc<str>,
    /// A word from the closed list of `upstream::wait::AttemptError::account`, or `ok`.
    pub outcome: &'static str,
    pub ms: u64,
}
