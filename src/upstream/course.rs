//! The way of one request through its targets and their keys.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use gatekeeper_filters::kernel::{Code, Reject, Target};

use super::classify::{Cause, Failure, Next};
use crate::pool::{Provider, Tried, Unready, Wish, key::Lease};

/// Over all targets.
const MAX_ATTEMPTS: usize = 3;
/// A request that nothing can serve waits for a cooling account, if it is not for long.
const SHORT: Duration = Duration::from_secs(2);

/// What a request does next.
pub enum Step {
    Attempt(Arc<Target>, Lease),
    /// Looks again after so long.
    Wait(Duration),
    /// Is told why not.
    End,
}

/// Which target and key come next.
pub struct Course<'a> {
    targets: &'a [Arc<Target>],
    /// Requests of one conversation go to one account where they can.
    conversation: Option<u64>,
    at: usize,
    /// A bit for each target that was asked.
    asked: u64,
    attempts: usize,
    /// What was tried at the current target.
    tried: Tried,
    /// Faults of the current target's provider itself, not of a key.
    faults: usize,
    /// The current target was too slow: it would cost as much patience again; another one may not.
    slow: bool,
    last: Option<Failure>,
    /// Targets that were not asked because their dialect has no words for the request; why.
    passed_over: usize,
    unfit: Option<Reject>,
    /// Some attempt was rate-limited.
    limited: bool,
    /// It waited already: once is enough.
    waited: bool,
}

impl<'a> Course<'a> {
    pub fn new(targets: &'a [Arc<Target>], conversation: Option<u64>) -> Self {
        Self {
            targets,
            conversation,
            at: 0,
            asked: 0,
            attempts: 0,
            tried: Tried::default(),
            faults: 0,
            slow: false,
            last: None,
            passed_over: 0,
            unfit: None,
            limited: false,
            waited: false,
        }
    }

    /// The last attempt, and the one after a timeout, belong to the next target, if that one can serve:
    /// a provider on which two keys failed is less likely to answer than another one.
    pub fn next(&mut self, providers: &[Provider], now: Instant) -> Step {
        if self.attempts == MAX_ATTEMPTS {
            return Step::End;
        }
        let last = self.attempts + 1 == MAX_ATTEMPTS && !self.tried.is_empty();
        let next =
            if last || self.slow { self.find(self.at + 1, false, providers, now) } else { None };
        let next = next.or_else(|| self.find(self.at, false, providers, now));
        if next.is_none()
            && let Some(pause) = self.wait(providers, now)
        {
            return Step::Wait(pause);
        }
        // Nobody else is left: a sick provider that was passed over may answer all the same.
        match next.or_else(|| self.find(0, true, providers, now)) {
            Some((target, lease)) => {
                self.attempts += 1;
                Step::Attempt(target, lease)
            }
            None => Step::End,
        }
    }

    /// Requests that were not tried anywhere wait a moment rather than be refused. When they wake,
    /// each is tried once: a storm of refusals costs one attempt a request, not two.
    fn wait(&mut self, providers: &[Provider], now: Instant) -> Option<Duration> {
        if self.waited || self.last.is_some() {
            return None;
        }
        self.waited = true;
        let left = Duration::from_millis(self.soonest(providers, now)?);
        (left <= SHORT).then_some(left)
    }

    /// `whatever`: a sick provider will do, if it was not asked yet.
    fn find(
        &mut self,
        from: usize,
        whatever: bool,
        providers: &[Provider],
        now: Instant,
    ) -> Option<(Arc<Target>, Lease)> {
        let fresh = Tried::default();
        for (at, target) in self.targets.iter().enumerate().skip(from) {
            let asked = self.asked >> at.min(63) & 1 == 1;
            if asked && (whatever || at != self.at) {
                continue;
            }
            // What failed for one model of a provider may serve another of its models.
            let tried = if at == self.at { &self.tried } else { &fresh };
            let wish = Wish { conversation: self.conversation, tried, whatever };
            if let Ok(lease) = providers[target.provider].select(&wish, now) {
                self.turn_to(at);
                self.asked |= 1 << at.min(63);
                return Some((target.clone(), lease));
            }
        }
        None
    }

    pub fn note(&mut self, target: &Target, lease: &Lease, failure: Failure, request: &str) {
        let (detail, label, key) = (&failure.detail, &target.label, lease.key());
        if failure.cause == Cause::ModelMissing {
            let message = "A model is not served; mend `models`";
            log::error!("{message}: {detail}. request={request} target={label} key={}", key.id);
        } else {
            log::warn!(
                "An attempt failed: {detail}. request={request} target={label} key={}",
                key.id
            );
        }
        self.tried.keys.push(key.id.clone());
        if failure.cause == Cause::RateLimited {
            self.limited = true;
            // Whoever waited for an account is not sent on to the next one: all that waited would be.
            if self.waited {
                self.attempts = MAX_ATTEMPTS;
            }
        }
        match failure.next {
            Next::Key => {}
            Next::Account => self.tried.groups.push(key.group_name.clone()),
            Next::OneMoreKey => {
                self.faults += 1;
                self.slow = failure.cause == Cause::Timeout;
                if self.faults > 1 {
                    self.leave_target();
                }
            }
            Next::Target => self.leave_target(),
        }
        self.last = Some(failure);
    }

    /// The target just chosen can't be asked this; that was no attempt.
    pub fn pass_over(&mut self, why: &Reject) {
        self.attempts -= 1;
        self.passed_over += 1;
        self.unfit.get_or_insert_with(|| why.clone());
        self.leave_target();
    }

    fn leave_target(&mut self) {
        self.turn_to(self.at + 1);
    }

    fn turn_to(&mut self, at: usize) {
        if at != self.at {
            self.at = at;
            self.faults = 0;
            self.slow = false;
            self.tried.clear();
        }
    }

    /// What the app is told when nothing served.
    pub fn reject(&self, providers: &[Provider], now: Instant) -> Reject {
        if let Some(unfit) = &self.unfit
            && self.passed_over == self.targets.len()
        {
            return unfit.clone();
        }
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
        let on_keys = |failure: &Failure| matches!(failure.next, Next::Key | Next::Account);
        self.limited || self.last.as_ref().is_none_or(on_keys)
    }

    /// Milliseconds until the first cooling key of any target is ready.
    fn soonest(&self, providers: &[Provider], now: Instant) -> Option<u64> {
        let waits = self.targets.iter().filter_map(|target| {
            match providers[target.provider].unready(now) {
                Unready::Cooling(ms) => Some(ms),
                Unready::Out | Unready::Sick => None,
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
