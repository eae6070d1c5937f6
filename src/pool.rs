//! Which key serves next. A provider has keys, keys have groups (one account, shared limits);
//! health belongs to a key, to its group or to the provider, outlives a reload and is found by name.

pub mod allowance;
pub mod book;
pub mod breaker;
pub mod health;
pub mod key;
pub mod news;
pub mod pace;
pub mod resolve;
pub mod rest;
pub mod selection;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use gatekeeper_filters::kernel;
use http::{HeaderValue, request::Parts};
use pingora_load_balancing::selection::BackendIter;
use secrecy::ExposeSecret;

pub use self::{book::HealthBook, health::State};
use self::{
    breaker::{Breaker, Pass},
    key::{Key, Lease, Told},
    resolve::Endpoint,
    selection::Selection,
};
use crate::{config::settings, upstream::request::common_head};

/// One provider as requests see it: fixed settings, its keys and its addresses.
pub struct Provider {
    pub settings: settings::Provider,
    pub endpoint: Arc<Endpoint>,
    /// What `Host` says: the port only where it is not the scheme's own.
    pub authority: HeaderValue,
    /// What the upstream heads of an endpoint have in common, in the order of `kernel::Endpoint`.
    pub heads: Vec<Parts>,
    keys: Vec<Arc<Key>>,
    selection: Selection,
    /// Whether it is sick.
    pub breaker: Arc<Breaker>,
    /// Counts selections, to deal out the turns of accounts that run dry.
    turn: AtomicU64,
}

/// A provider that no request can be made for.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    #[error("the secret of key `{0}` has characters that no header can carry")]
    Secret(Arc<str>),
    #[error("the base URL of provider `{0}` makes no request head")]
    Host(Arc<str>),
}

/// Gemini's path names the model, so its requests are made one by one.
fn path(endpoint: kernel::Endpoint) -> &'static str {
    match endpoint {
        kernel::Endpoint::Chat => "/chat/completions",
        kernel::Endpoint::Responses => "/responses",
        kernel::Endpoint::Embeddings => "/embeddings",
        kernel::Endpoint::Messages => "/messages",
        kernel::Endpoint::Generate => "/models",
    }
}

fn authority(endpoint: &Endpoint) -> String {
    let host = if endpoint.host.contains(':') {
        format!("[{}]", endpoint.host)
    } else {
        endpoint.host.clone()
    };
    match (endpoint.tls, endpoint.port) {
        (true, 443) | (false, 80) => host,
        (_, port) => format!("{host}:{port}"),
    }
}

/// Thousandths: every turn of an account is its own.
const FULL_SHARE: u32 = 1000;

/// What a request wants of a provider.
pub struct Wish<'a> {
    /// Keeps to one account where it can.
    pub conversation: Option<u64>,
    pub tried: &'a Tried,
    /// A sick provider will do: nothing else is left.
    pub whatever: bool,
}

/// What a request need not try again at a target.
#[derive(Debug, Default)]
pub struct Tried {
    /// Ids.
    pub keys: Vec<Arc<str>>,
    pub groups: Vec<Arc<str>>,
}

impl Tried {
    fn has(&self, key: &Key) -> bool {
        self.keys.contains(&key.id) || self.groups.contains(&key.group_name)
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.groups.is_empty()
    }

    pub fn clear(&mut self) {
        self.keys.clear();
        self.groups.clear();
    }
}

/// Why no key of a provider can serve now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unready {
    /// The provider itself does not answer.
    Sick,
    /// The soonest key is ready in so many milliseconds.
    Cooling(u64),
    /// Every key is quarantined, off or was tried already.
    Out,
}

impl Provider {
    /// # Errors
    /// A secret or a host name that can't stand in a header.
    pub fn new(
        settings: settings::Provider,
        endpoint: Arc<Endpoint>,
        book: &HealthBook,
    ) -> Result<Self, Unusable> {
        let mut keys = Vec::with_capacity(settings.keys.len());
        for key in &settings.keys {
            let mark = book.hasher.secret(&settings.name, key.secret.expose_secret());
            let health = book.key(&settings.name, &key.id, &mark);
            let group = book.group(&settings.name, &key.group);
            let told = Told { provider: settings.name.clone(), mark, teller: book.teller.clone() };
            keys.push(Arc::new(Key::new(key, settings.dialect, health, group, told)?));
        }
        let selection = Selection::new(settings.strategy, &keys);
        let breaker = book.provider(&settings.name, &settings.base);
        let base = &settings.base.path;
        let authority = HeaderValue::from_str(&authority(&endpoint))
            .map_err(|_| Unusable::Host(settings.name.clone()))?;
        let heads = kernel::Endpoint::ALL
            .iter()
            .map(|endpoint| common_head(&format!("{base}{}", path(*endpoint)), &authority))
            .collect::<Result<_, _>>()
            .map_err(|_| Unusable::Host(settings.name.clone()))?;
        let turn = AtomicU64::new(0);
        Ok(Self { settings, endpoint, authority, heads, keys, selection, breaker, turn })
    }

    pub fn name(&self) -> &Arc<str> {
        &self.settings.name
    }

    pub fn keys(&self) -> &[Arc<Key>] {
        &self.keys
    }

    /// The next key that may serve and was not `tried`, of a provider that is not sick.
    ///
    /// # Errors
    /// Why there is none.
    pub fn select(&self, wish: &Wish<'_>, now: Instant) -> Result<Lease, Unready> {
        let pass = if wish.whatever { Pass::Free } else { self.breaker.pass() };
        if pass == Pass::No {
            return Err(Unready::Sick);
        }
        let is_trial = pass == Pass::Trial;
        let lease = self
            .key(wish, now)
            .map(|(key, entry)| Lease::new(key.clone(), entry, self.breaker.clone(), is_trial));
        if lease.is_none() && is_trial {
            self.breaker.end_trial();
        }
        lease.ok_or_else(|| self.unready(now))
    }

    /// An account that runs dry is passed over now and then, and in the end taken if nobody else can.
    fn key(&self, wish: &Wish<'_>, now: Instant) -> Option<(&Arc<Key>, key::Entry)> {
        let mut spared: Option<(u32, &Arc<Key>)> = None;
        let mut candidates = self.selection.candidates(wish.conversation);
        while let Some(backend) = candidates.next() {
            let Some(index) = selection::index(backend) else { continue };
            let key = &self.keys[index];
            if wish.tried.has(key) {
                continue;
            }
            let share = key.group.allowance.share(now);
            if share < FULL_SHARE && self.spares(share) && key.state(now) == State::Ready {
                if spared.is_none_or(|(most, _)| share > most) {
                    spared = Some((share, key));
                }
                continue;
            }
            if let Some(entry) = key.enter(now) {
                return Some((key, entry));
            }
        }
        let (_, key) = spared?;
        key.enter(now).map(|entry| (key, entry))
    }

    /// Whether a turn of an account with so many thousandths of its share goes to another.
    fn spares(&self, share: u32) -> bool {
        let turn = rest::mixed(self.turn.fetch_add(1, Relaxed));
        (turn % u64::from(FULL_SHARE)) >= u64::from(share)
    }

    /// Why none is ready, if none is.
    pub fn unready(&self, now: Instant) -> Unready {
        let waits = self.keys.iter().filter_map(|key| match key.state(now) {
            State::Cooling { left_ms } => Some(left_ms),
            _ => None,
        });
        waits.min().map_or(Unready::Out, Unready::Cooling)
    }
}
