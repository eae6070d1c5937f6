//! Which key serves next. A provider has keys, keys have groups (one account, shared limits);
//! health belongs to a key or to its group, outlives a reload and is found by id.

pub mod health;
pub mod key;
pub mod resolve;
pub mod selection;

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use gatekeeper_filters::kernel;
use http::{HeaderValue, request::Parts};
use parking_lot::Mutex;
use pingora_load_balancing::{
    Backend,
    selection::{BackendIter, BackendSelection},
};
use secrecy::ExposeSecret;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use self::{
    health::{GroupHealth, KeyHealth, State, Why},
    key::{Key, Lease, Told},
    resolve::Endpoint,
    selection::SmoothRoundRobin,
};
use crate::{config::settings, licenses::Hasher, upstream::request::common_head};

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

/// A key, or all keys of an account, begins to rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rested {
    Group {
        provider: Arc<str>,
        group: Arc<str>,
        left: Duration,
    },
    Key {
        provider: Arc<str>,
        key: Arc<str>,
        /// Which secret it has ([`Hasher::secret`]).
        mark: String,
        why: Why,
        left: Duration,
    },
}

/// Where rests are told, once somebody wants to know.
type Teller = Arc<OnceLock<UnboundedSender<Rested>>>;

/// The health of all keys and groups, kept over reloads.
pub struct HealthBook {
    /// A key whose secret changed is a new one, even if the old one was quarantined; so the mark of
    /// its secret is part of its name.
    keys: Mutex<HashMap<(Name, String), Arc<KeyHealth>>>,
    groups: Mutex<HashMap<Name, Arc<GroupHealth>>>,
    hasher: Hasher,
    teller: Teller,
}

impl HealthBook {
    pub fn new(hasher: Hasher) -> Self {
        let (keys, groups) = (Mutex::default(), Mutex::default());
        Self { keys, groups, hasher, teller: Arc::default() }
    }

    /// Rests that begin here are told from now on.
    pub fn tell(&self) -> UnboundedReceiver<Rested> {
        let (teller, rested) = unbounded_channel();
        let _ = self.teller.set(teller);
        rested
    }

    /// Another gateway found something out about a key or an account.
    pub fn hear(&self, rested: &Rested) {
        let now = Instant::now();
        match rested {
            Rested::Group { provider, group, left } => {
                if let Some(health) = self.groups.lock().get(&(provider.clone(), group.clone())) {
                    health.cool(Some(*left), now);
                }
            }
            Rested::Key { provider, key, mark, why, left } => {
                let at = ((provider.clone(), key.clone()), mark.clone());
                if let Some(health) = self.keys.lock().get(&at) {
                    health.quarantine_for(*why, *left, now);
                }
            }
        }
    }

    fn key(&self, provider: &Arc<str>, id: &Arc<str>, mark: &str) -> Arc<KeyHealth> {
        let at = ((provider.clone(), id.clone()), mark.to_owned());
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
            let mark = book.hasher.secret(&settings.name, key.secret.expose_secret());
            let health = book.key(&settings.name, &key.id, &mark);
            let group = book.group(&settings.name, &key.group);
            let told = Told { provider: settings.name.clone(), mark, teller: book.teller.clone() };
            keys.push(Arc::new(Key::new(key, health, group, told)?));
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
    pub fn select(
        &self,
        _conversation: Option<u64>,
        tried: &[Arc<Key>],
        now: Instant,
    ) -> Result<Lease, Unready> {
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
