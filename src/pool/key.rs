//! A master key: its secret as a header value, its account, and how it is for the models it serves.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use gatekeeper_filters::kernel::Dialect;
use http::{HeaderName, HeaderValue, header::AUTHORIZATION};
use secrecy::ExposeSecret;

use super::{
    Unavailable,
    health::{GroupHealth, KeyHealth, KeyState, QuarantineReason},
    health_events::{HealthChange, HealthEventSender, HealthSubject},
    model_limits::Scope,
};
use crate::config::settings;

mod suspicion;

pub struct MasterKey {
    pub id: Arc<str>,
    pub group_name: Arc<str>,
    pub weight: u32,
    off: bool,
    /// As its provider wants it, marked sensitive: never printed, never indexed by HPACK.
    credential: (HeaderName, HeaderValue),
    pub health: Arc<KeyHealth>,
    pub group: Arc<GroupHealth>,
    /// Its account's place in the provider's [`super::circuits::Circuits`].
    pub account: usize,
    /// The models that the configuration has it serve.
    pub models: Arc<[Arc<str>]>,
    pub(super) events: EventSource,
}

/// Where a key stands at its provider.
pub(super) struct KeyIdentity {
    pub group: Arc<GroupHealth>,
    pub account: usize,
    pub models: Arc<[Arc<str>]>,
}

/// The names of a key in health events, and their sender.
pub(super) struct EventSource {
    pub provider: Arc<str>,
    pub mark: String,
    pub sender: HealthEventSender,
}

/// A pause that grew by less, in milliseconds, is not reported.
const NEWS: u64 = 100;

/// What an attempt showed about its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptFeedback {
    /// It answered.
    Good,
    /// The provider answered and rejected the request, which says nothing about the account's money and
    /// limits.
    Rejected,
    /// Rate-limited: the model rests at its whole account, or all of the account does, as long as stated,
    /// else doubling.
    Limited(Scope, Option<Duration>),
    /// At its daily limit, as long as stated; scope as above. Or out of money, which is always the account's.
    Spent(QuarantineReason, Scope, Option<Duration>),
    /// The key itself is rejected, until a probe succeeds.
    Refused(QuarantineReason),
    /// It was refused, possibly because of this request: the cause has to be reported to
    /// [`MasterKey::doubt`].
    Doubtful,
    /// The account's credit does not cover this request: the licence has to be reported to
    /// [`MasterKey::is_out_of_credit`].
    TooDear,
    /// A fault of the provider or of the account, independent of the key.
    Fault,
    /// No answer in time, or no connection.
    TimedOut,
    /// Neither's fault: this model, or this request, at this account.
    Unfit,
    /// Nothing: the app left.
    None,
}

/// Why a key may be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    Ready,
    /// As the one request that finds out whether it, its account, or the model there is sound again.
    KeyTrial,
    GroupTrial,
    ModelTrial,
}

impl MasterKey {
    pub(super) fn new(
        settings: &settings::KeySettings,
        dialect: Dialect,
        health: Arc<KeyHealth>,
        place: KeyIdentity,
        events: EventSource,
    ) -> Result<Self, Unavailable> {
        let secret = settings.secret.expose_secret();
        let (name, text) = match dialect {
            Dialect::OpenAi => (AUTHORIZATION, format!("Bearer {secret}")),
            Dialect::Anthropic => (HeaderName::from_static("x-api-key"), secret.to_owned()),
            Dialect::Gemini => (HeaderName::from_static("x-goog-api-key"), secret.to_owned()),
        };
        let text = zeroize::Zeroizing::new(text);
        let mut value =
            HeaderValue::from_str(&text).map_err(|_| Unavailable::Secret(settings.id.clone()))?;
        value.set_sensitive(true);
        Ok(Self {
            id: settings.id.clone(),
            group_name: settings.group.clone(),
            weight: settings.weight,
            off: settings.off,
            credential: (name, value),
            health,
            group: place.group,
            account: place.account,
            models: place.models,
            events,
        })
    }

    pub fn credential(&self) -> &(HeaderName, HeaderValue) {
        &self.credential
    }

    /// How it is for all that it serves: it cools while some of its models do, whose account others use.
    pub fn state(&self, now: Instant) -> KeyState {
        self.or_doubtful(match self.own_state(now) {
            KeyState::Ready => self.group.models.state_of(&self.models, now),
            state => state,
        })
    }

    fn or_doubtful(&self, state: KeyState) -> KeyState {
        match state {
            KeyState::Ready if self.health.doubt.holds() => KeyState::Doubtful,
            state => state,
        }
    }

    /// Whether it can serve something.
    pub fn can_serve(&self, now: Instant) -> bool {
        self.own_state(now) == KeyState::Ready && !self.group.models.all_rest(&self.models, now)
    }

    /// How it is for one model.
    pub fn state_for(&self, model: &str, now: Instant) -> KeyState {
        self.or_doubtful(match self.own_state(now) {
            KeyState::Ready => {
                self.group.models.get(model).map_or(KeyState::Ready, |health| health.state(now))
            }
            state => state,
        })
    }

    /// Its own and its account's, whatever the model.
    fn own_state(&self, now: Instant) -> KeyState {
        if self.is_off() {
            return KeyState::Off;
        }
        match self.health.quarantine.status(now) {
            Some((why, left_ms)) => KeyState::Quarantined { why, left_ms },
            None => self.group.state(now),
        }
    }

    /// Its models that rest by themselves, by name.
    pub fn resting_models(&self, now: Instant) -> Vec<(Arc<str>, KeyState)> {
        self.group.models.resting(&self.models, now)
    }

    /// Milliseconds that it, its account, or all of its models have been in quarantine.
    pub fn resting_for_ms(&self, now: Instant) -> Option<u64> {
        let own = [&self.health.quarantine, &self.group.quarantine]
            .into_iter()
            .find_map(|quarantine| quarantine.status(now).map(|_| quarantine.age_ms(now)));
        own.or_else(|| match self.state(now) {
            KeyState::Quarantined { .. } => self.group.models.age_ms(&self.models, now),
            _ => None,
        })
    }

    /// Milliseconds since its state began; `None` when it is ready, or off by the configuration.
    pub fn in_state_for_ms(&self, now: Instant) -> Option<u64> {
        match self.state(now) {
            KeyState::Ready => None,
            KeyState::Doubtful => Some(self.health.doubt.age_ms(now)),
            KeyState::Off if self.off => None,
            KeyState::Off => Some(self.health.paused.age_ms(now)),
            KeyState::Cooling { .. } if self.group.cooling.left_ms(now) > 0 => {
                Some(self.group.cooling.age_ms(now))
            }
            KeyState::Cooling { .. } => self.group.models.age_ms(&self.models, now),
            KeyState::Quarantined { .. } => self.resting_for_ms(now),
        }
    }

    pub fn is_off(&self) -> bool {
        self.off || self.health.paused.is() || self.is_withdrawn()
    }

    /// Whether the live configuration no longer has it.
    pub fn is_withdrawn(&self) -> bool {
        self.health.withdrawn.load(Relaxed)
    }

    pub(super) fn is_switched_off(&self) -> bool {
        self.off
    }

    /// Whether it may be taken for a model now; a trial that is granted must be ended by its lease.
    pub(super) fn enter(&self, model: &str, now: Instant) -> Option<Admission> {
        let limits = self.group.models.get(model);
        if limits.as_ref().is_some_and(|limits| limits.rests(now)) {
            return None;
        }
        let (why, left_ms) = match self.own_state(now) {
            KeyState::Quarantined { why, left_ms } => (why, left_ms),
            KeyState::Ready => {
                return match limits.filter(|limits| limits.quarantine.status(now).is_some()) {
                    None => Some(Admission::Ready),
                    Some(due) => due.quarantine.try_now(now).then_some(Admission::ModelTrial),
                };
            }
            KeyState::Cooling { .. } | KeyState::Doubtful | KeyState::Off => return None,
        };
        // A trial is a request: whose account rests has none.
        let rests = self.group.cooling.left_ms(now) > 0
            || self.group.quarantine.status(now).is_some_and(|(_, left_ms)| left_ms > 0);
        if left_ms > 0 || rests {
            return None;
        }
        let own = &self.health.quarantine;
        match own.status(now) {
            None => self.group.quarantine.try_now(now).then_some(Admission::GroupTrial),
            Some(_) if !own.ends_by_request(why) => None,
            Some(_) => own.try_now(now).then_some(Admission::KeyTrial),
        }
    }

    /// Whether a probe is due; on `true` the caller has to report its result.
    pub fn is_due_for_probe(&self, now: Instant) -> bool {
        let own = &self.health.quarantine;
        let by_probe = |(why, left)| left == 0 && !own.ends_by_request(why);
        !self.is_off() && own.status(now).is_some_and(by_probe) && own.try_now(now)
    }

    /// On an operator's command: ends every back-off and quarantine.
    pub fn resume(&self) {
        if self.health.paused.set(false, Instant::now()) {
            self.events.sender.send(self.subject(), HealthChange::Resumed);
        }
        self.sound();
        self.health.doubt.lift();
        let (cooled, quarantined) = (self.group.cooling.lift(), self.group.quarantine.lift());
        if cooled || quarantined {
            self.notify_group(HealthChange::Healthy);
        }
        for (model, health) in self.group.models.all() {
            let (cooled, quarantined) = (health.cooling.lift(), health.quarantine.lift());
            if cooled || quarantined {
                self.notify_model(&model, HealthChange::Healthy);
            }
        }
    }

    /// The operator wants it left alone, until it is resumed. Where gateways share a Redis all of them do, and
    /// those that start later; else it is forgotten when the process ends.
    pub fn pause(&self) {
        self.health.paused.set(true, Instant::now());
        self.events.sender.send(self.subject(), HealthChange::Paused);
    }

    /// A probe found it sound.
    pub fn sound(&self) {
        self.health.failed_in_a_row.store(0, Relaxed);
        if self.health.quarantine.lift() {
            log::info!("Key enabled again. provider={} key={}", self.events.provider, self.id);
            self.events.sender.send(self.subject(), HealthChange::Healthy);
        }
    }

    fn subject(&self) -> HealthSubject {
        let EventSource { provider, mark, .. } = &self.events;
        HealthSubject::Key { provider: provider.clone(), key: self.id.clone(), mark: mark.clone() }
    }

    pub(super) fn notify_group(&self, change: HealthChange) {
        let (provider, group) = (self.events.provider.clone(), self.group_name.clone());
        self.events.sender.send(HealthSubject::Group { provider, group }, change);
    }

    pub(super) fn notify_model(&self, model: &Arc<str>, change: HealthChange) {
        let (provider, group) = (self.events.provider.clone(), self.group_name.clone());
        self.events
            .sender
            .send(HealthSubject::Model { provider, group, model: model.clone() }, change);
    }

    fn notify_scope(&self, scope: Scope, model: &Arc<str>, change: HealthChange) {
        match scope {
            Scope::Account => self.notify_group(change),
            Scope::Model => self.notify_model(model, change),
        }
    }

    /// A model rests at its whole account, or all of the account does.
    pub(super) fn cool(
        &self,
        scope: Scope,
        model: &Arc<str>,
        stated: Option<Duration>,
        now: Instant,
    ) {
        let of_model = (scope == Scope::Model).then(|| self.group.models.of(model, now));
        let cooling = of_model.as_ref().map_or(&self.group.cooling, |health| &health.cooling);
        let before = cooling.left_ms(now);
        cooling.begin(stated, now);
        let left = cooling.left_ms(now);
        if left > before + NEWS {
            self.notify_scope(scope, model, HealthChange::Cools(Duration::from_millis(left)));
        }
    }

    pub(super) fn refuse(&self, why: QuarantineReason, now: Instant) {
        let before = self.health.quarantine.status(now).map_or(0, |(_, left)| left);
        self.health.quarantine.begin(why, None, now);
        let left = self.health.quarantine.status(now).map_or(0, |(_, left)| left);
        if left > before + NEWS {
            let (name, provider) = (why.name(), &self.events.provider);
            log::error!(
                "Key disabled: {name}. Fix it in the configuration or at the provider. \
                 provider={provider} key={} next_probe={}s",
                self.id,
                left / 1000
            );
            let left = Duration::from_millis(left);
            self.events.sender.send(self.subject(), HealthChange::Quarantined(why, left));
        }
    }

    pub(super) fn spend(
        &self,
        why: QuarantineReason,
        scope: Scope,
        model: &Arc<str>,
        stated: Option<Duration>,
        now: Instant,
    ) {
        let of_model = (scope == Scope::Model).then(|| self.group.models.of(model, now));
        let quarantine =
            of_model.as_ref().map_or(&self.group.quarantine, |health| &health.quarantine);
        let before = quarantine.status(now).map_or(0, |(_, left)| left);
        quarantine.begin(why, stated, now);
        let left = quarantine.status(now).map_or(0, |(_, left)| left);
        if left > before + NEWS {
            let (name, provider, group) = (why.name(), &self.events.provider, &self.group_name);
            let seconds = left / 1000;
            match scope {
                Scope::Account => log::error!(
                    "Account disabled: {name}. \
                     provider={provider} group={group} tried_again_in={seconds}s"
                ),
                Scope::Model => log::error!(
                    "Model disabled at one account: {name}. \
                     provider={provider} group={group} model={model} tried_again_in={seconds}s"
                ),
            }
            let change = HealthChange::Quarantined(why, Duration::from_millis(left));
            self.notify_scope(scope, model, change);
        }
    }
}
