//! A master key: its secret as a header value, its group, and the lease of one attempt on it.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use http::HeaderValue;
use secrecy::ExposeSecret;

use super::{
    Rested, Teller, Unusable,
    health::{GroupHealth, KeyHealth, State, Why},
};
use crate::config::settings;

pub struct Key {
    pub id: Arc<str>,
    pub group_name: Arc<str>,
    pub weight: u32,
    off: bool,
    /// `Bearer …`, marked sensitive: never printed, never indexed by HPACK.
    authorization: HeaderValue,
    pub health: Arc<KeyHealth>,
    group: Arc<GroupHealth>,
    told: Told,
}

/// To whom it is told that the key begins to rest, and by what name.
pub(super) struct Told {
    pub provider: Arc<str>,
    pub mark: String,
    pub teller: Teller,
}

/// A rest that grew by less, in milliseconds, is no news.
const NEWS: u64 = 100;

/// What an attempt showed about its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyNews {
    /// It answered.
    Good,
    /// Rate-limited: its whole group rests, as long as stated, else doubling.
    Limited(Option<Duration>),
    /// Of no use until its account is mended.
    Broken(Why),
    /// An error that says nothing about the key itself.
    Fault,
    /// Nothing: the app left.
    None,
}

impl Key {
    pub(super) fn new(
        settings: &settings::Key,
        health: Arc<KeyHealth>,
        group: Arc<GroupHealth>,
        told: Told,
    ) -> Result<Self, Unusable> {
        let text = zeroize::Zeroizing::new(format!("Bearer {}", settings.secret.expose_secret()));
        let mut authorization =
            HeaderValue::from_str(&text).map_err(|_| Unusable::Secret(settings.id.clone()))?;
        authorization.set_sensitive(true);
        Ok(Self {
            id: settings.id.clone(),
            group_name: settings.group.clone(),
            weight: settings.weight,
            off: settings.off,
            authorization,
            health,
            group,
            told,
        })
    }

    pub fn authorization(&self) -> HeaderValue {
        self.authorization.clone()
    }

    /// Rests its whole account.
    fn cool(&self, stated: Option<Duration>, now: Instant) {
        let before = self.group.left_ms(now);
        self.group.cool(stated, now);
        let left = self.group.left_ms(now);
        if left > before + NEWS
            && let Some(teller) = self.told.teller.get()
        {
            let _ = teller.send(Rested::Group {
                provider: self.told.provider.clone(),
                group: self.group_name.clone(),
                left: Duration::from_millis(left),
            });
        }
    }

    fn quarantine(&self, why: Why, now: Instant) {
        let before = self.health.quarantined(now).map_or(0, |(_, left)| left);
        self.health.quarantine(why, now);
        let left = self.health.quarantined(now).map_or(0, |(_, left)| left);
        if left > before + NEWS
            && let Some(teller) = self.told.teller.get()
        {
            let _ = teller.send(Rested::Key {
                provider: self.told.provider.clone(),
                key: self.id.clone(),
                mark: self.told.mark.clone(),
                why,
                left: Duration::from_millis(left),
            });
        }
    }

    pub fn state(&self, now: Instant) -> State {
        if self.off {
            return State::Off;
        }
        if let Some((why, left_ms)) = self.health.quarantined(now) {
            return State::Quarantined { why, left_ms };
        }
        match self.group.left_ms(now) {
            0 => State::Ready,
            left_ms => State::Cooling { left_ms },
        }
    }
}

/// One attempt's hold on a key. Dropped without news it counts as an attempt and nothing else.
pub struct Lease {
    key: Arc<Key>,
}

impl Lease {
    pub(super) fn new(key: Arc<Key>) -> Self {
        key.health.requests.fetch_add(1, Relaxed);
        key.health.open.fetch_add(1, Relaxed);
        Self { key }
    }

    pub fn key(&self) -> &Arc<Key> {
        &self.key
    }

    pub fn report(&self, news: KeyNews, now: Instant) {
        let key = &self.key;
        match news {
            KeyNews::Good => {
                key.health.succeeded(now);
                key.group.succeeded(now);
                return;
            }
            KeyNews::Limited(stated) => key.cool(stated, now),
            KeyNews::Broken(why) => key.quarantine(why, now),
            KeyNews::Fault => {}
            KeyNews::None => return,
        }
        key.health.errors.fetch_add(1, Relaxed);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.key.health.open.fetch_sub(1, Relaxed);
    }
}
