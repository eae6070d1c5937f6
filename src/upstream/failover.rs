//! The way of one request through its targets and their keys.
//!
//! First targets with closed circuits: after a failed key of a target one more, then the next target, then,
//! with attempts left, the skipped keys. Then one key through a circuit that quick faults opened. Then,
//! after a pause, the same key once more. So no request is refused while a ready key is untried that could
//! serve it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use gatekeeper_filters::kernel::{Code, Rejection, Target};

use super::classify::{ClientError, FailoverScope, Failure, FailureCause};
use crate::pool::{
    Exclusions, KeyState, ProviderPool, SelectRequest,
    backoff::jitter,
    key::{AttemptFeedback, MasterKey},
    lease::KeyLease,
};

/// Attempts over all targets; more where there are more targets.
const ATTEMPTS: usize = 3;
pub const MOST_ATTEMPTS: usize = 6;
/// A request that nothing can serve waits for a cooling account, if it is not for long.
const SHORT: Duration = Duration::from_secs(2);
/// Before the same key is asked once more, after a fault that may have passed: this, and up to as much again.
const MOMENT: (Duration, Duration) = (Duration::from_millis(300), Duration::from_millis(200));

/// What a request does next.
pub enum NextStep {
    Attempt(Arc<Target>, KeyLease),
    /// Looks again after so long.
    Wait(Duration),
    /// With the reason.
    End,
}

/// The key that is asked once more when nothing else is left.
enum RetryKind {
    /// None yet.
    None,
    /// After a pause that is yet to come.
    Later(usize, Arc<MasterKey>),
    /// The pause is over.
    Now(usize, Arc<MasterKey>),
    Done,
}

/// Which target and key come next.
pub struct FailoverPlan<'a> {
    targets: &'a [Arc<Target>],
    /// Requests of one conversation go to one account where they can.
    conversation: Option<u64>,
    /// No pause goes beyond it.
    deadline: Instant,
    at: usize,
    /// A bit for each target that was looked at: its provider knows of the request.
    seen: u64,
    /// A bit for each target that was asked.
    asked: u64,
    /// A bit for each target that can't serve this request, whatever the key.
    closed: u64,
    attempts: usize,
    tried: Exclusions,
    /// The current target failed often enough, or cost enough patience, that another one comes first.
    leaves: bool,
    /// Faults of the current target's provider itself, not of a key.
    faults: usize,
    /// It went through an open circuit: once is enough.
    through: bool,
    again: RetryKind,
    /// An attempt failed without a fault of the provider or the request: retried once, not twice.
    blameless: bool,
    last: Option<Failure>,
    /// Targets that were not asked because their dialect has no words for the request; why.
    passed_over: usize,
    unfit: Option<Rejection>,
    /// Some attempt was rate-limited.
    limited: bool,
    /// A key that could serve was cooling, or was told to.
    cooling: bool,
    /// It waited for a cooling account already: once is enough.
    waited: bool,
}

fn bit(at: usize) -> u64 {
    1 << at.min(63)
}

impl<'a> FailoverPlan<'a> {
    pub fn new(targets: &'a [Arc<Target>], conversation: Option<u64>, deadline: Instant) -> Self {
        Self {
            targets,
            conversation,
            deadline,
            at: 0,
            seen: 0,
            asked: 0,
            closed: 0,
            attempts: 0,
            tried: Exclusions::default(),
            leaves: false,
            faults: 0,
            through: false,
            again: RetryKind::None,
            blameless: false,
            last: None,
            passed_over: 0,
            unfit: None,
            limited: false,
            cooling: false,
            waited: false,
        }
    }

    fn most(&self) -> usize {
        self.targets.len().clamp(ATTEMPTS, MOST_ATTEMPTS)
    }

    pub fn next(&mut self, providers: &[ProviderPool], now: Instant) -> NextStep {
        if self.attempts >= self.most() {
            return NextStep::End;
        }
        if let Some((at, lease)) = self.open_way(providers, now) {
            return self.attempt(at, lease);
        }
        if let Some(pause) = self.wait(providers, now) {
            return NextStep::Wait(pause);
        }
        if let Some((at, lease)) = self.way_through(providers, now) {
            return self.attempt(at, lease);
        }
        self.once_more(providers, now)
    }

    fn attempt(&mut self, at: usize, lease: KeyLease) -> NextStep {
        self.switch_to(at);
        self.asked |= bit(at);
        self.attempts += 1;
        NextStep::Attempt(self.targets[at].clone(), lease)
    }

    /// A key that no open circuit stands before: of the current target, of those behind it, then of all.
    fn open_way(&mut self, providers: &[ProviderPool], now: Instant) -> Option<(usize, KeyLease)> {
        let stays = !self.leaves && !self.has_to_move_on(providers, now);
        let first = if stays { self.at } else { self.at + 1 };
        (first..self.targets.len())
            .chain(0..first.min(self.targets.len()))
            .find_map(|at| self.find(at, providers, now).map(|lease| (at, lease)))
    }

    fn find(&mut self, at: usize, providers: &[ProviderPool], now: Instant) -> Option<KeyLease> {
        if self.closed & bit(at) != 0 {
            return None;
        }
        let provider = &providers[self.targets[at].provider];
        if self.seen & bit(at) == 0 {
            self.seen |= bit(at);
            provider.budget().count(now);
        }
        provider.select(&self.wish(at), now)
    }

    fn wish(&self, at: usize) -> SelectRequest<'_> {
        SelectRequest {
            model: &self.targets[at].model,
            conversation: self.conversation,
            tried: &self.tried,
            target: at,
        }
    }

    /// Whether the attempts that are left are just enough for the targets that were never asked and can serve.
    fn has_to_move_on(&self, providers: &[ProviderPool], now: Instant) -> bool {
        // Hot: the first attempt need not look.
        if self.attempts == 0 || self.asked & bit(self.at) == 0 {
            return false;
        }
        let left = self.most() - self.attempts;
        let never_asked = (0..self.targets.len()).filter(|at| {
            let provider = &providers[self.targets[*at].provider];
            (self.asked | self.closed) & bit(*at) == 0 && provider.can_serve(&self.wish(*at), now)
        });
        never_asked.take(left).count() == left
    }

    /// Requests that were not tried anywhere wait for a short time rather than being refused. After that
    /// each is tried once: a burst of refusals costs one attempt a request, not two.
    fn wait(&mut self, providers: &[ProviderPool], now: Instant) -> Option<Duration> {
        if self.waited || self.last.is_some() {
            return None;
        }
        self.waited = true;
        let left = Duration::from_millis(self.earliest_retry(providers, now)?);
        self.cooling = true;
        (left <= SHORT && self.has_time_for(left, now)).then_some(left)
    }

    fn has_time_for(&self, pause: Duration, now: Instant) -> bool {
        now + pause < self.deadline
    }

    /// One key through a circuit that quick faults opened: its provider may have recovered.
    fn way_through(
        &mut self,
        providers: &[ProviderPool],
        now: Instant,
    ) -> Option<(usize, KeyLease)> {
        if std::mem::replace(&mut self.through, true) {
            return None;
        }
        (0..self.targets.len()).filter(|at| self.closed & bit(*at) == 0).find_map(|at| {
            let provider = &providers[self.targets[at].provider];
            if !provider.budget().has_left(now) {
                return None;
            }
            let lease = provider.select_through(&self.wish(at), now)?;
            provider.budget().take(now).then_some((at, lease))
        })
    }

    /// The same key once more, after a pause, unless its circuit has opened or its target was given up.
    fn once_more(&mut self, providers: &[ProviderPool], now: Instant) -> NextStep {
        match std::mem::replace(&mut self.again, RetryKind::Done) {
            RetryKind::Later(at, key) => {
                let target = &self.targets[at];
                let pause = match key.state_for(&target.model, now) {
                    KeyState::Ready | KeyState::Doubtful => MOMENT.0 + jitter(MOMENT.1),
                    KeyState::Cooling { left_ms } => Duration::from_millis(left_ms),
                    KeyState::Quarantined { .. } | KeyState::Off => return NextStep::End,
                };
                let provider = &providers[target.provider];
                // An open circuit lets one try pass, not two.
                let may = self.closed & bit(at) == 0
                    && provider.is_closed_for(&key)
                    && pause <= SHORT
                    && self.has_time_for(pause, now)
                    && provider.budget().take(now);
                if !may {
                    return NextStep::End;
                }
                self.again = RetryKind::Now(at, key);
                NextStep::Wait(pause)
            }
            RetryKind::Now(at, key) => {
                let target = &self.targets[at];
                match providers[target.provider].select_again(&key, &target.model, now) {
                    Some(lease) => self.attempt(at, lease),
                    None => NextStep::End,
                }
            }
            RetryKind::None | RetryKind::Done => NextStep::End,
        }
    }

    pub fn note(&mut self, target: &Target, lease: &KeyLease, failure: Failure) {
        let key = lease.key();
        if failure.next != FailoverScope::Again {
            self.tried.key(self.at, key);
        } else if std::mem::replace(&mut self.blameless, true) {
            self.attempts = self.most();
        }
        self.cooling |= matches!(failure.news, AttemptFeedback::Limited(..));
        if failure.cause == FailureCause::RateLimited {
            self.limited = true;
            // A request that waited for an account does not go on to the next one, which would get the
            // whole queue.
            if self.waited {
                self.attempts = self.most();
            }
        }
        if may_be_asked_again(&failure) && !matches!(self.again, RetryKind::Done) {
            self.again = RetryKind::Later(self.at, key.clone());
        }
        match failure.next {
            FailoverScope::Key => {}
            FailoverScope::Account => self.tried.group(self.at, key),
            FailoverScope::OneMoreKey => {
                self.tried.failing(self.at, key);
                self.faults += 1;
                self.leaves = self.faults > 1;
            }
            FailoverScope::Elsewhere => self.leaves = true,
            FailoverScope::Larger => {
                self.tried.group(self.at, key);
                self.leaves = true;
            }
            FailoverScope::Again => {}
            FailoverScope::Target => self.next_target(),
            FailoverScope::Provider => self.leave_provider(target.provider),
        }
        // It would cost as much patience again; another one may not.
        self.leaves |= failure.cause == FailureCause::Timeout;
        self.last = Some(failure);
    }

    /// The target just chosen can't be asked this; that was no attempt.
    pub fn skip_key(&mut self, why: &Rejection) {
        self.attempts -= 1;
        self.passed_over += 1;
        self.unfit.get_or_insert_with(|| why.clone());
        self.next_target();
    }

    fn next_target(&mut self) {
        self.closed |= bit(self.at);
        self.leaves = true;
    }

    fn leave_provider(&mut self, provider: usize) {
        for (at, target) in self.targets.iter().enumerate() {
            if target.provider == provider {
                self.closed |= bit(at);
            }
        }
        self.leaves = true;
    }

    fn switch_to(&mut self, at: usize) {
        if at != self.at {
            self.at = at;
            self.faults = 0;
            self.leaves = false;
        }
    }

    /// Whether the request can still be served if the attempt on `key`, which is under way, fails in time:
    /// by another target, or another account of this one.
    pub fn has_another(&self, key: &MasterKey, providers: &[ProviderPool], now: Instant) -> bool {
        let can_serve = |at: usize| {
            let provider = &providers[self.targets[at].provider];
            self.closed & bit(at) == 0
                && match at == self.at {
                    true => provider.can_serve_beside(key, &self.wish(at), now),
                    false => provider.can_serve(&self.wish(at), now),
                }
        };
        self.attempts < self.most() && (0..self.targets.len()).any(can_serve)
    }

    /// After an attempt without a fault, a second result of the same kind is accepted.
    pub fn tries_again(&self) -> bool {
        self.blameless
    }

    /// The provider's error about the request itself, if that is the final reason.
    pub fn relayed(&self) -> Option<ClientError> {
        self.last.as_ref()?.instead.as_deref().cloned()
    }

    /// The error for the app when no target served.
    pub fn reject(&self, providers: &[ProviderPool], now: Instant) -> Rejection {
        if let Some(unfit) = &self.unfit
            && self.passed_over == self.targets.len()
        {
            return unfit.clone();
        }
        // A key may have become ready since the last look: the request failed on its rate limit all the same.
        let ready_by_now = || self.cooling.then_some(1);
        let soonest = self.earliest_retry(providers, now).or_else(ready_by_now);
        match (&self.last, soonest) {
            (last, Some(ms)) if self.is_waiting() => {
                let reject = exhausted(ms);
                let Some(last) = last else { return reject };
                let why = format!("{}; the last one: {}", reject.internal, last.detail);
                reject.internal(why)
            }
            (Some(failure), _) if failure.cause == FailureCause::Timeout => {
                timed_out().internal(failure.detail.clone())
            }
            (last, _) => {
                let why = last.as_ref().map_or_else(
                    || self.why_idle(providers, now),
                    |failure| failure.detail.clone(),
                );
                Rejection::new(
                    Code::UpstreamError,
                    "The AI service could not answer. Please try again in a moment.",
                )
                .internal(why)
            }
        }
    }

    /// Why no key of any target could be asked.
    fn why_idle(&self, providers: &[ProviderPool], now: Instant) -> String {
        let mut asked: Vec<usize> = self.targets.iter().map(|target| target.provider).collect();
        asked.dedup();
        let why: Vec<String> = asked.iter().map(|at| providers[*at].why_idle(now)).collect();
        format!("no key can be asked ({})", why.join("; "))
    }

    /// Whether a cooling key is what the request was refused for: nothing was tried, or what was
    /// tried failed on its keys only.
    fn is_waiting(&self) -> bool {
        let on_keys = |failure: &Failure| {
            failure.cause != FailureCause::Timeout
                && matches!(
                    failure.next,
                    FailoverScope::Key | FailoverScope::Account | FailoverScope::Larger
                )
        };
        self.limited || self.last.as_ref().is_none_or(on_keys)
    }

    /// Milliseconds until the first cooling key of any target is ready.
    fn earliest_retry(&self, providers: &[ProviderPool], now: Instant) -> Option<u64> {
        let of = |target: &Arc<Target>| providers[target.provider].soonest_ms(&target.model, now);
        self.targets.iter().filter_map(of).min()
    }
}

/// A transient fault, or a rate limit with a stated end in the near future.
fn may_be_asked_again(failure: &Failure) -> bool {
    match failure.news {
        AttemptFeedback::Limited(_, Some(stated)) => stated <= SHORT,
        _ => failure.again,
    }
}

fn exhausted(ms: u64) -> Rejection {
    Rejection::new(
        Code::UpstreamExhausted,
        "The AI service is very busy. Please try again in a moment.",
    )
    .internal("every key that could serve is cooling")
    .retry_after(ms.div_ceil(1000))
}

pub fn timed_out() -> Rejection {
    Rejection::new(
        Code::UpstreamTimeout,
        "The AI service took too long to answer. Please try again in a moment.",
    )
}

#[cfg(test)]
mod tests;
