//! Waiting for a provider, and the ways in which an attempt stops.

use std::{future::Future, pin::Pin};

use gatekeeper_filters::kernel::{Exchange, OnDisconnect};
use tokio::time::Instant;

use super::{
    classify::{Cause, Failure, Relayed},
    downstream::Downstream,
    watchdog::{Alarm, Watchdog},
};
use crate::pool::key::KeyNews;

/// Waits before the head of an answer.
pub const CONNECTION: &str = "connection";
pub const FIRST_BYTE: &str = "first byte";

/// Why an attempt did not deliver.
pub enum Stop {
    Failed(Failure),
    Relay(Relayed),
    /// The app left, or did not take its answer.
    AppLeft,
    /// The deadline over all attempts passed before anything was committed.
    Deadline,
    /// The gateway itself is short of something, named here for the operator; nothing was committed.
    Crowded(&'static str),
    /// The answer broke after its first event; holds what to log, and what the key showed.
    Broken(String, KeyNews),
}

impl Stop {
    /// Whether a provider may have worked on what nobody gets. What it refused, and what was refused before
    /// it was written whole, cost nothing.
    pub fn wastes(&self, exchange: &Exchange) -> bool {
        let worked = exchange.written.is_some() && !exchange.progress.delivered;
        worked
            && match self {
                Stop::Failed(failure) => failure.cause.is_work(),
                Stop::Deadline => true,
                Stop::Crowded(_) => exchange.progress.answered,
                Stop::Relay(_) | Stop::AppLeft | Stop::Broken(..) => false,
            }
    }

    pub fn is_timeout(&self) -> bool {
        match self {
            Stop::Failed(failure) => failure.cause == Cause::Timeout,
            Stop::Deadline => true,
            _ => false,
        }
    }

    /// Metric label, and what the key showed.
    pub fn account(&self) -> (&'static str, KeyNews) {
        match self {
            Stop::Failed(failure) => (failure.cause.name(), failure.news),
            Stop::Relay(_) => ("request_rejected", KeyNews::Heard),
            Stop::AppLeft => ("app_left", KeyNews::None),
            Stop::Deadline => (Cause::Timeout.name(), KeyNews::TimedOut),
            Stop::Crowded(_) => ("crowded", KeyNews::None),
            Stop::Broken(_, news) => (Cause::BrokenAnswer.name(), *news),
        }
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Stop::Failed(failure)
    }
}

/// Waits for something of the provider's, with an eye on the clock and, when it takes longer than a
/// moment, on the app. While output flows, the next write shows that an app has left. When it has,
/// `leaving` says what becomes of the wait.
///
/// The future is pinned by the caller: taken by value it would be stored twice, and what a request
/// stores, an open stream holds.
pub async fn watch<T>(
    down: &mut Downstream<'_>,
    watchdog: &mut Watchdog,
    leaving: OnDisconnect,
    what: &'static str,
    mut future: Pin<&mut impl Future<Output = T>>,
) -> Result<T, Stop> {
    loop {
        let looking = watchdog.is_looking();
        tokio::select! {
            biased;
            done = &mut future => return Ok(done),
            () = down.left(), if looking => Box::pin(let_go(down, watchdog, leaving)).await?,
            alarm = watchdog.alarm() => match alarm {
                Alarm::Look => {}
                Alarm::Quiet if down.keep_alive().await.is_ok() => {}
                Alarm::Quiet => Box::pin(let_go(down, watchdog, leaving)).await?,
                Alarm::Phase => return Err(too_slow(what).into()),
                Alarm::Total if down.is_gone() => return Err(Stop::AppLeft),
                Alarm::Total => return Err(Stop::Deadline),
            },
        }
    }
}

/// What a wait of this name means that was too long.
fn too_slow(what: &'static str) -> Failure {
    match what {
        CONNECTION => Failure::connect_timeout("no connection in time"),
        FIRST_BYTE => Failure::timeout(FIRST_BYTE),
        // The head of an answer has come.
        _ => Failure::stalled(what),
    }
}

/// The app has left: its answer is drained, if that is wanted and there is a place.
///
/// # Errors
/// It is not, or was drained for long enough.
pub async fn let_go(
    down: &mut Downstream<'_>,
    watchdog: &mut Watchdog,
    leaving: OnDisconnect,
) -> Result<(), Stop> {
    if leaving == OnDisconnect::Cut || !down.let_go().await {
        return Err(Stop::AppLeft);
    }
    watchdog.drain(Instant::now());
    Ok(())
}
