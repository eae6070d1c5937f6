//! Which key serves next. A provider has keys, keys have groups (one account, shared limits);
//! health belongs to a key or to its group, outlives a reload and is found by id.

pub mod health;
pub mod key;
pub mod resolve;
pub mod selection;

use std::{
    collections::{BTreeSet, HashMap},
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Instant,
};

use gatekeeper_filters::kernel;
use http::{HeaderValue, request::Parts};
use parking_lot::Mutex;
use pingora_load_balancing::{
    Backend,
    selection::{BackendIter, BackendSelection},
};
use secrecy::ExposeSecret;

use self::{
    health::{GroupHealth, KeyHealth, State},
    key::{Key, Lease},
    resolve::Endpoint,
    selection::SmoothRoundRobin,
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
    selection: Arc<SmoothRoundRobin>,
}

/// By provider and id.
type Name = (Arc<str>, Arc<str>);

/// The health of all keys and groups, kept over reloads.
#[derive(Default)]
pub struct HealthBook {
    /// A key whose secret changed is a new one, even if the old one was quarantined; so the hash of
    /// its secret, under keys of this process, is part of its name.
    keys: Mutex<HashMap<(Name, u64), Arc<KeyHealth>>>,
    groups: Mutex<HashMap<Name, Arc<GroupHealth>>>,
    secrets: RandomState,
}

impl HealthBook {
    fn key(&self, provider: &Arc<str>, key: &settings::Key) -> Arc<KeyHealth> {
        let secret = self.secrets.hash_one(key.secret.expose_secret());
        let at = ((provider.clone(), key.id.clone()), secret);
        self.keys.lock().entry(at).or_default().clone()
    }

    fn group(&self, provider: &Arc<str>, id: &Arc<str>) -> Arc<GroupHealth> {
        let at = (provider.clone(), id.clone());
        self.groups.lock().entry(at).or_default().clone()
    }
}

/// A provider that no request can be made for.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    #[error("the secret of key `{0}` has characters that no header can carry")]
    Secret(Arc<str>),
    #[error("the base URL of provider `{0}` makes no request head")]
    Host(Arc<str>),
}

fn path(endpoint: kernel::Endpoint) -> &'static str {
    match endpoint {
        kernel::Endpoint::Chat => "/chat/completions",
        kernel::Endpoint::Responses => "/responses",
        kernel::Endpoint::Embeddings => "/embeddings",
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

/// Why no key of a provider can serve now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unready {
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
            let health = book.key(&settings.name, key);
            let group = book.group(&settings.name, &key.group);
            keys.push(Arc::new(Key::new(key, health, group)?));
        }
        let backends: BTreeSet<Backend> =
            keys.iter().enumerate().map(|(index, key)| selection::backend(index, key)).collect();
        let selection = Arc::new(SmoothRoundRobin::build(&backends));
        let base = &settings.base.path;
        let authority = HeaderValue::from_str(&authority(&endpoint))
            .map_err(|_| Unusable::Host(settings.name.clone()))?;
        let heads = kernel::Endpoint::ALL
            .iter()
            .map(|endpoint| common_head(&format!("{base}{}", path(*endpoint)), &authority))
            .collect::<Result<_, _>>()
            .map_err(|_| Unusable::Host(settings.name.clone()))?;
        Ok(Self { settings, endpoint, authority, heads, keys, selection })
    }

    pub fn name(&self) -> &Arc<str> {
        &self.settings.name
    }

    pub fn keys(&self) -> &[Arc<Key>] {
        &self.keys
    }

    /// The next ready key that is not among `tried`.
    ///
    /// # Errors
    /// Why there is none.
    pub fn select(&self, tried: &[Arc<Key>], now: Instant) -> Result<Lease, Unready> {
        let mut candidates = self.selection.iter(&[]);
        while let Some(backend) = candidates.next() {
            let Some(key) = selection::key(backend) else { continue };
            let fresh = !tried.iter().any(|other| Arc::ptr_eq(other, key));
            if fresh && key.state(now) == State::Ready {
                return Ok(Lease::new(key.clone()));
            }
        }
        Err(self.unready(now))
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
