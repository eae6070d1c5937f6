//! The way of one request through its targets and their keys.

use std::{sync::Arc, time::Instant};

use gatekeeper_filters::kernel::{Code, Reject, Target};

use super::classify::{Cause, Failure, Next};
use crate::pool::{
    Provider, Unready,
    key::{Key, Lease},
};

/// Over all targets.
const MAX_ATTEMPTS: usize = 3;

/// Which target and key come next.
pub struct Course<'a> {
    targets: &'a [Arc<Target>],
    /// Requests of one conversation go to one account where they can.
    conversation: Option<u64>,
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
    pub fn new(targets: &'a [Arc<Target>], conversation: Option<u64>) -> Self {
        Self {
            targets,
            conversation,
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
    pub fn next(&mut self, providers: &[Provider], now: Instant) -> Option<(Arc<Target>, Lease)> {
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
            if let Ok(lease) = providers[target.provider].select(self.conversation, tried, now) {
                self.turn_to(at);
                return Some((target.clone(), lease));
            }
        }
        None
    }

    pub fn note(&mut self, target: &Target, lease: &Lease, failure: Failure, request: &str) {
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
    pub fn reject(&self, providers: &[Provider], now: Instant) -> Reject {
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

pub fn timed_out() -> Reject {
    Reject::new(
        Code::UpstreamTimeout,
        "The AI service took too long to answer. Please try again in a moment.",
    )
}

#[cfg(test)]
mod tests;
