//! Pingora's per-request context: everything about one request, from the head to its record.

use std::{sync::Arc, time::Instant};

use gatekeeper_filters::kernel::{Exchange, ModelRequest, Outcome, Rejection};
use pingora_core::{Error, ErrorType};

use crate::{
    downstream::memory_budget::MemoryPermit,
    runtime::{replays::Recorder, snapshot::Snapshot},
    telemetry::{
        InFlightGuard, OpenGuard,
        completed_request::{AttemptRecord, CompletedRequest, FailedAttempt},
    },
};

pub struct RequestContext {
    pub arrived: Instant,
    /// Pinned once per request, so a reload in the middle changes nothing for it.
    pub snapshot: Option<Arc<Snapshot>>,
    pub in_flight: Option<InFlightGuard>,
    /// Counts among `server.limits.requests`: its licence may ask.
    pub open: Option<OpenGuard>,
    /// Where the process listens that has taken over, and serves this request.
    pub elsewhere: Option<Arc<String>>,
    /// From the gate on, for requests that go to a provider.
    pub exchange: Option<Box<Exchange>>,
    pub ask: Option<Box<ModelRequest>>,
    pub endpoint: &'static str,
    /// The path that was asked for, where the gate refused it.
    pub path: Option<Box<str>>,
    pub request_id: Arc<str>,
    pub attempts: Vec<AttemptRecord>,
    /// Those of `attempts` that failed, until the log has them.
    pub failed: Vec<FailedAttempt>,
    /// The first output went to the app.
    pub first_output: Option<Instant>,
    /// The provider's first output came, in the latest attempt.
    pub first_said: Option<Instant>,
    /// Time spent waiting for providers, and for the app's body; the rest is ours.
    pub waited: std::time::Duration,
    /// Its answer is written down for others that ask the same.
    pub recorder: Option<Recorder>,
    /// What its body takes of `server.limits.buffered`.
    pub held: Option<MemoryPermit>,
    /// Set once, where the request ends.
    pub outcome: Option<Outcome>,
    pub reject: Option<Box<Rejection>>,
}

impl Default for RequestContext {
    fn default() -> Self {
        Self {
            arrived: Instant::now(),
            snapshot: None,
            in_flight: None,
            open: None,
            elsewhere: None,
            exchange: None,
            ask: None,
            endpoint: "other",
            path: None,
            request_id: Arc::from(""),
            attempts: Vec::new(),
            failed: Vec::new(),
            first_output: None,
            first_said: None,
            waited: std::time::Duration::ZERO,
            recorder: None,
            held: None,
            outcome: None,
            reject: None,
        }
    }
}

impl RequestContext {
    /// The ended request as telemetry reads it; the attempts go along.
    pub fn completed(&mut self) -> CompletedRequest<'_> {
        CompletedRequest {
            arrived: self.arrived,
            endpoint: self.endpoint,
            request_id: &self.request_id,
            path: self.path.as_deref(),
            exchange: self.exchange.as_deref(),
            reject: self.reject.as_deref(),
            attempts: std::mem::take(&mut self.attempts),
            first_output: self.first_output,
            waited: self.waited,
        }
    }

    /// The configuration this request keeps to its end.
    ///
    /// # Errors
    /// Never after the first hook, which pins it.
    pub fn pinned(&self) -> pingora_core::Result<Arc<Snapshot>> {
        let missing = || Error::explain(ErrorType::InternalError, "a request without a snapshot");
        self.snapshot.clone().ok_or_else(missing)
    }
}
