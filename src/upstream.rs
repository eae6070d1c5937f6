//! The attempt loop: select → attempt → classify, and back, until an answer is committed.
//!
//! Pingora's own proxy hooks commit to the app as soon as a header arrives, replay no body over
//! 64 KiB and can't read the body of a 429. So the connection is Pingora's (its pooled `Connector`),
//! the loop is ours. The only way back is before the first byte of an answer has gone to the app.

pub mod attempt;
pub mod classify;
pub mod downstream;
pub mod drain;
pub mod events;
pub mod limits;
pub mod peer;
pub mod relay;
pub mod request;
pub mod scrub;
pub mod socket;
pub mod watch;
pub mod watchdog;
pub mod wire;

use std::{sync::Arc, time::Instant};

use gatekeeper_filters::kernel::{Code, Reject, Target, UnixMs};

use self::{
    attempt::Attempt,
    classify::{Cause, Failure, Next},
    downstream::Downstream,
    peer::Connector,
    watch::Stop,
    watchdog::Watchdog,
};
use crate::{
    pool::{Provider, Unready, key::Key, key::KeyNews, key::Lease},
    proxy::flight::{Attempted, Flight},
    snapshot::Snapshot,
};

/// Over all targets.
const MAX_ATTEMPTS: usize = 3;

/// How a request left the loop.
pub enum Served {
    /// The whole answer was written.
    Whole,
    /// The answer broke after its first event; the app was told in the stream.
    Broken,
    /// The app is gone.
    AppLeft,
    /// A provider's own 4xx about the request.
    Relayed(classify::Relayed),
    /// Nothing could serve.
    Rejected(Box<Reject>),
}

/// Runs attempts until one answers or none is left.
pub async fn serve(
    connector: &Connector,
    down: &mut Downstream<'_>,
    flight: &mut Flight,
    snapshot: &Arc<Snapshot>,
) -> Served {
    let Some(route) = flight.exchange.as_ref().and_then(|exchange| exchange.route.clone()) else {
        let reject = Reject::new(Code::ModelNotFound, "There is no such model here.")
            .internal("no filter of the chain chose a route");
        return Served::Rejected(Box::new(reject));
    };
    let asked = flight.exchange.as_ref().map_or_else(UnixMs::now, |exchange| exchange.now);
    let targets = match snapshot.budgets.affordable(&route.targets, asked) {
        Ok(targets) => targets,
        Err(reject) => return Served::Rejected(Box::new(reject)),
    };
    let first = &snapshot.providers[targets[0].provider];
    let mut watchdog = Watchdog::new(first.settings.timeouts.total, down.is_stream());
    let mut course = Course::new(&targets);
    let mut now = Instant::now();
    while let Some((target, lease)) = course.next(&snapshot.providers, now) {
        let began = now;
        let result = Attempt { connector, snapshot, target: &target, lease: &lease, began }
            .run(down, flight, &mut watchdog)
            .await;
        let (outcome, news) = match &result {
            Ok(()) if down.is_gone() => (Stop::AppLeft.account().0, KeyNews::Good),
            Ok(()) => ("ok", KeyNews::Good),
            Err(stop) => stop.account(),
        };
        now = Instant::now();
        lease.report(news, now);
        flight.attempts.push(Attempted {
            provider: target.provider_name.clone(),
            key: lease.key().id.clone(),
            outcome,
            ms: (now - began).as_millis() as u64,
        });
        snapshot.telemetry.attempted(&target.provider_name, outcome);
        match result {
            // Whatever came of it, nobody is there to hear of it or to wait for another key.
            _ if down.is_gone() => return Served::AppLeft,
            Ok(()) => return Served::Whole,
            Err(Stop::AppLeft) => return Served::AppLeft,
            Err(Stop::Broken(detail)) => {
                log::warn!(
                    "A stream broke after it had begun: {detail}. request={} target={} key={}",
                    flight.request_id,
                    target.label,
                    lease.key().id
                );
                return Served::Broken;
            }
            Err(Stop::Relay(relayed)) => return Served::Relayed(relayed),
            Err(Stop::Deadline) => return Served::Rejected(Box::new(timed_out())),
            Err(Stop::Failed(failure)) => course.note(&target, &lease, failure, &flight.request_id),
        }
    }
    Served::Rejected(Box::new(course.reject(&snapshot.providers, now)))
}

/// Which target and key come next.
struct Course<'a> {
    targets: &'a [Arc<Target>],
    at: usize,
    attempts: usize,
    tried: Vec<Arc<Key>>,
    /// Faults of the current target's provider itself, not of a key.
    faults: usize,
    last: Option<Failure>,
    /// Some attempt was rate-limited.
    limited: bool,
}

impl<'a> Course<'a> {
    fn new(targets: &'a [Arc<Target>]) -> Self {
        Self {
            targets,
            at: 0,
            attempts: 0,
            tried: Vec::new(),
            faults: 0,
            last: None,
            limited: false,
        }
    }

    /// The last attempt belongs to the next target, if that one can serve: a provider on which two
    /// keys failed is less likely to answer than another one.
    fn next(&mut self, providers: &[Provider], now: Instant) -> Option<(Arc<Target>, Lease)> {
        if self.attempts == MAX_ATTEMPTS {
            return None;
        }
        self.attempts += 1;
        let last = self.attempts == MAX_ATTEMPTS && !self.tried.is_empty();
        if last && let Some(found) = self.find(self.at + 1, providers, now) {
            return Some(found);
        }
        self.find(self.at, providers, now)
    }

    fn find(
        &mut self,
        from: usize,
        providers: &[Provider],
        now: Instant,
    ) -> Option<(Arc<Target>, Lease)> {
        for (at, target) in self.targets.iter().enumerate().skip(from) {
            // What failed for one model of a provider may serve another of its models.
            let tried = if at == self.at { &*self.tried } else { &[] };
            if let Ok(lease) = providers[target.provider].select(tried, now) {
                self.turn_to(at);
                return Some((target.clone(), lease));
            }
        }
        None
    }

    fn note(&mut self, target: &Target, lease: &Lease, failure: Failure, request: &str) {
        log::warn!(
            "An attempt failed: {}. request={request} target={} key={}",
            failure.detail,
            target.label,
            lease.key().id
        );
        self.tried.push(lease.key().clone());
        self.limited |= failure.cause == Cause::RateLimited;
        match failure.next {
            Next::Key => {}
            Next::OneMoreKey => {
                self.faults += 1;
                if self.faults > 1 {
                    self.leave_target();
                }
            }
            Next::Target => self.leave_target(),
        }
        self.last = Some(failure);
    }

    fn leave_target(&mut self) {
        self.turn_to(self.at + 1);
    }

    fn turn_to(&mut self, at: usize) {
        if at != self.at {
            self.at = at;
            self.faults = 0;
            self.tried.clear();
        }
    }

    /// What the app is told when nothing served.
    fn reject(&self, providers: &[Provider], now: Instant) -> Reject {
        let soonest = self.soonest(providers, now);
        match (&self.last, soonest) {
            (_, Some(ms)) if self.is_waiting() => exhausted(ms),
            (Some(failure), _) if failure.cause == Cause::Timeout => timed_out(),
            _ => Reject::new(
                Code::UpstreamError,
                "The AI service could not answer. Please try again in a moment.",
            ),
        }
    }

    /// Whether a cooling key is what the request was refused for: nothing was tried, or what was
    /// tried failed on its keys only.
    fn is_waiting(&self) -> bool {
        let on_keys = |failure: &Failure| failure.next == Next::Key;
        self.limited || self.last.as_ref().is_none_or(on_keys)
    }

    /// Milliseconds until the first cooling key of any target is ready.
    fn soonest(&self, providers: &[Provider], now: Instant) -> Option<u64> {
        let waits = self.targets.iter().filter_map(|target| {
            match providers[target.provider].unready(now) {
                Unready::Cooling(ms) => Some(ms),
                Unready::Out => None,
            }
        });
        waits.min()
    }
}

fn exhausted(ms: u64) -> Reject {
    Reject::new(
        Code::UpstreamExhausted,
        "The AI service is very busy. Please try again in a moment.",
    )
    .internal("every key that could serve is cooling")
    .retry_after(ms.div_ceil(1000))
}

fn timed_out() -> Reject {
    Reject::new(
        Code::UpstreamTimeout,
        "The AI service took too long to answer. Please try again in a moment.",
    )
}

#[cfg(test)]
mod tests;
