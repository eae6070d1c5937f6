//! A master key: its secret as a header value, its group, and the lease of one attempt on it.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use gatekeeper_filters::kernel::Dialect;
use http::{HeaderName, HeaderValue, header::AUTHORIZATION};
use parking_lot::Mutex;
use secrecy::ExposeSecret;

use super::{
    Unusable,
    allowance::Left,
    breaker::Breaker,
    health::{GroupHealth, KeyHealth, State, Why},
    news::{Change, Subject, Teller},
};
use crate::config::settings;

pub struct Key {
    pub id: Arc<str>,
    pub group_name: Arc<str>,
    pub weight: u32,
    off: bool,
    /// As its provider wants it, marked sensitive: never printed, never indexed by HPACK.
    credential: (HeaderName, HeaderValue),
    pub health: Arc<KeyHealth>,
    pub group: Arc<GroupHealth>,
    told: Told,
}

/// By what name it is told how the key is, and to whom.
pub(super) struct Told {
    pub provider: Arc<str>,
    pub mark: String,
    pub teller: Teller,
}

/// A pause that grew by less, in milliseconds, is no news.
const NEWS: u64 = 100;

/// What an attempt showed about its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyNews {
    /// It answered.
    Good,
    /// It was heard and its request turned down, which tells nothing of its account's money and limits.
    Heard,
    /// Rate-limited: its whole group rests, as long as stated, else doubling.
    Limited(Option<Duration>),
    /// Its account is out of money or at its daily limit, as long as stated.
    Spent(Why, Option<Duration>),
    /// The key itself is not taken, until a probe says otherwise.
    Refused(Why),
    /// A fault of the provider's, which says nothing about the key.
    Fault,
    /// Neither's fault: this model, or this request, at this account.
    Unfit,
    /// Nothing: the app left.
    None,
}

/// Why a key may be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    Ready,
    /// As the one request that finds out whether it, or its account, is sound again.
    KeyTrial,
    GroupTrial,
}

impl Key {
    pub(super) fn new(
        settings: &settings::Key,
        dialect: Dialect,
        health: Arc<KeyHealth>,
        group: Arc<GroupHealth>,
        told: Told,
    ) -> Result<Self, Unusable> {
        let secret = settings.secret.expose_secret();
        let (name, text) = match dialect {
            Dialect::OpenAi => (AUTHORIZATION, format!("Bearer {secret}")),
            Dialect::Anthropic => (HeaderName::from_static("x-api-key"), secret.to_owned()),
            Dialect::Gemini => (HeaderName::from_static("x-goog-api-key"), secret.to_owned()),
        };
        let text = zeroize::Zeroizing::new(text);
        let mut value =
            HeaderValue::from_str(&text).map_err(|_| Unusable::Secret(settings.id.clone()))?;
        value.set_sensitive(true);
        Ok(Self {
            id: settings.id.clone(),
            group_name: settings.group.clone(),
            weight: settings.weight,
            off: settings.off,
            credential: (name, value),
            health,
            group,
            told,
        })
    }

    pub fn credential(&self) -> (HeaderName, HeaderValue) {
        self.credential.clone()
    }

    pub fn state(&self, now: Instant) -> State {
        if self.is_off() {
            return State::Off;
        }
        match self.health.quarantine.status(now) {
            Some((why, left_ms)) => State::Quarantined { why, left_ms },
            None => self.group.state(now),
        }
    }

    /// Milliseconds that it, or its account, has been in quarantine.
    pub fn resting_for_ms(&self, now: Instant) -> Option<u64> {
        [&self.health.quarantine, &self.group.quarantine]
            .into_iter()
            .find_map(|quarantine| quarantine.status(now).map(|_| quarantine.age_ms(now)))
    }

    /// Milliseconds since its state began; `None` when it is ready, or off by the configuration.
    pub fn in_state_for_ms(&self, now: Instant) -> Option<u64> {
        match self.state(now) {
            State::Ready => None,
            State::Off if self.off => None,
            State::Off => Some(self.health.paused.age_ms(now)),
            State::Cooling { .. } => Some(self.group.cooling.age_ms(now)),
            State::Quarantined { .. } => self.resting_for_ms(now),
        }
    }

    pub fn is_off(&self) -> bool {
        self.off || self.health.paused.is() || self.is_withdrawn()
    }

    /// Whether the live configuration has it no more.
    pub fn is_withdrawn(&self) -> bool {
        self.health.withdrawn.load(Relaxed)
    }

    pub(super) fn is_switched_off(&self) -> bool {
        self.off
    }

    /// Whether it may be taken now; a trial that is granted must be ended by its lease.
    pub(super) fn enter(&self, now: Instant) -> Option<Entry> {
        let State::Quarantined { why, left_ms } = self.state(now) else {
            return (self.state(now) == State::Ready).then_some(Entry::Ready);
        };
        // A trial is a request: whose account rests has none.
        let rests = self.group.cooling.left_ms(now) > 0
            || self.group.quarantine.status(now).is_some_and(|(_, left_ms)| left_ms > 0);
        if left_ms > 0 || rests {
            return None;
        }
        let own = &self.health.quarantine;
        match own.status(now) {
            None => self.group.quarantine.try_now(now).then_some(Entry::GroupTrial),
            Some(_) if !own.ends_by_request(why) => None,
            Some(_) => own.try_now(now).then_some(Entry::KeyTrial),
        }
    }

    /// Whether a probe has to find out about it now; who is told so has to say what came of it.
    pub fn is_due_for_probe(&self, now: Instant) -> bool {
        let own = &self.health.quarantine;
        let by_probe = |(why, left)| left == 0 && !own.ends_by_request(why);
        !self.is_off() && own.status(now).is_some_and(by_probe) && own.try_now(now)
    }

    /// The operator mends it: whatever rests is tried again.
    pub fn resume(&self) {
        if self.health.paused.set(false, Instant::now()) {
            self.told.teller.tell(self.subject(), Change::Resumed);
        }
        self.sound();
        let (cooled, quarantined) = (self.group.cooling.lift(), self.group.quarantine.lift());
        if cooled || quarantined {
            self.tell_group(Change::Sound);
        }
    }

    /// The operator wants it left alone, until it is resumed. Where gateways share a Redis all of them do, and
    /// those that start later; else it is forgotten when the process ends.
    pub fn pause(&self) {
        self.health.paused.set(true, Instant::now());
        self.told.teller.tell(self.subject(), Change::Paused);
    }

    /// A probe found it sound.
    pub fn sound(&self) {
        if self.health.quarantine.lift() {
            log::info!("A key is taken again. provider={} key={}", self.told.provider, self.id);
            self.told.teller.tell(self.subject(), Change::Sound);
        }
    }

    fn subject(&self) -> Subject {
        let Told { provider, mark, .. } = &self.told;
        Subject::Key { provider: provider.clone(), key: self.id.clone(), mark: mark.clone() }
    }

    fn tell_group(&self, change: Change) {
        let (provider, group) = (self.told.provider.clone(), self.group_name.clone());
        self.told.teller.tell(Subject::Group { provider, group }, change);
    }

    /// Rests its whole account.
    fn cool(&self, stated: Option<Duration>, now: Instant) {
        let before = self.group.cooling.left_ms(now);
        self.group.cooling.begin(stated, now);
        let left = self.group.cooling.left_ms(now);
        if left > before + NEWS {
            self.tell_group(Change::Cools(Duration::from_millis(left)));
        }
    }

    fn refuse(&self, why: Why, now: Instant) {
        let before = self.health.quarantine.status(now).map_or(0, |(_, left)| left);
        self.health.quarantine.begin(why, None, now);
        let left = self.health.quarantine.status(now).map_or(0, |(_, left)| left);
        if left > before + NEWS {
            let (name, provider) = (why.name(), &self.told.provider);
            log::error!(
                "A key is out: {name}. Mend it in the configuration or at the provider. \
                 provider={provider} key={} next_probe={}s",
                self.id,
                left / 1000
            );
            let left = Duration::from_millis(left);
            self.told.teller.tell(self.subject(), Change::Quarantined(why, left));
        }
    }

    fn spend(&self, why: Why, stated: Option<Duration>, now: Instant) {
        let before = self.group.quarantine.status(now).map_or(0, |(_, left)| left);
        self.group.quarantine.begin(why, stated, now);
        let left = self.group.quarantine.status(now).map_or(0, |(_, left)| left);
        if left > before + NEWS {
            let (name, provider) = (why.name(), &self.told.provider);
            log::error!(
                "An account is out: {name}. \
                 provider={provider} group={} tried_again_in={}s",
                self.group_name,
                left / 1000
            );
            self.tell_group(Change::Quarantined(why, Duration::from_millis(left)));
        }
    }
}

/// One attempt's hold on a key. Dropped without news it counts as an attempt and nothing else.
pub struct Lease {
    key: Arc<Key>,
    breaker: Arc<Breaker>,
    /// What this attempt finds out for others.
    trial: Mutex<Trial>,
}

struct Trial {
    entry: Entry,
    /// It is the request by which a sick provider is tried.
    provider: bool,
}

impl Lease {
    pub(super) fn new(key: Arc<Key>, entry: Entry, breaker: Arc<Breaker>, provider: bool) -> Self {
        key.health.requests.fetch_add(1, Relaxed);
        key.health.open.fetch_add(1, Relaxed);
        Self { key, breaker, trial: Mutex::new(Trial { entry, provider }) }
    }

    pub fn key(&self) -> &Arc<Key> {
        &self.key
    }

    /// What the answer's head says of the account's limits.
    pub fn allows(&self, limits: impl Iterator<Item = Left>, now: Instant) {
        self.key.group.allowance.note(limits, now);
    }

    /// The first output came so long after the attempt began.
    pub fn first_output(&self, took: Duration, now: Instant) {
        self.key.health.pace.note(took, now);
    }

    /// Output goes to the app: what was tried by this attempt is sound now, however long its answer takes.
    pub fn serves(&self, now: Instant) {
        let is_trial = {
            let trial = self.trial.lock();
            trial.provider || trial.entry != Entry::Ready
        };
        if is_trial {
            self.report(KeyNews::Good, now);
        }
    }

    pub fn report(&self, news: KeyNews, now: Instant) {
        // Nobody found anything out: the next request may try.
        if news == KeyNews::None {
            return;
        }
        let key = &self.key;
        let provider_trial = std::mem::take(&mut self.trial.lock().provider);
        match news {
            KeyNews::Fault => {
                if self.breaker.failed(provider_trial, now) {
                    let provider = key.told.provider.clone();
                    log::error!(
                        "A provider is sick: others serve where they can. provider={provider}"
                    );
                    key.told.teller.tell(Subject::Provider { provider }, Change::Sick);
                }
            }
            _ => {
                if self.breaker.answered(provider_trial, now) {
                    let provider = key.told.provider.clone();
                    log::info!("A provider is well again. provider={provider}");
                    key.told.teller.tell(Subject::Provider { provider }, Change::Sound);
                }
            }
        }
        match news {
            KeyNews::Good => {
                let entry = std::mem::replace(&mut self.trial.lock().entry, Entry::Ready);
                key.group.cooling.answered(now);
                key.health.quarantine.answered(entry == Entry::KeyTrial);
                if key.group.quarantine.answered(entry == Entry::GroupTrial) {
                    key.tell_group(Change::Sound);
                }
                return;
            }
            KeyNews::Heard => {
                let trial = &mut self.trial.lock().entry;
                key.health.quarantine.answered(*trial == Entry::KeyTrial);
                if *trial == Entry::KeyTrial {
                    *trial = Entry::Ready;
                }
                return;
            }
            KeyNews::Limited(stated) => key.cool(stated, now),
            KeyNews::Spent(why, stated) => key.spend(why, stated, now),
            KeyNews::Refused(why) => key.refuse(why, now),
            KeyNews::Fault | KeyNews::Unfit | KeyNews::None => {}
        }
        key.health.errors.fetch_add(1, Relaxed);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.key.health.open.fetch_sub(1, Relaxed);
        let trial = self.trial.get_mut();
        match trial.entry {
            Entry::Ready => {}
            Entry::KeyTrial => self.key.health.quarantine.end_trial(),
            Entry::GroupTrial => self.key.group.quarantine.end_trial(),
        }
        if trial.provider {
            self.breaker.end_trial();
        }
    }
}
