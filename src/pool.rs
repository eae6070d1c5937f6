//! Which key serves next. A provider has keys, keys have groups (one account, shared limits);
//! health belongs to a key, to its group or to the provider, outlives a reload and is found by name.

pub mod allowance;
pub mod book;
pub mod breaker;
pub mod circuits;
pub mod credit;
pub mod doubt;
pub mod firewall;
pub mod health;
pub mod key;
pub mod lease;
pub mod model_limits;
pub mod news;
pub mod pace;
pub mod resolve;
pub mod rest;
pub mod retry_budget;
pub mod selection;
pub mod witnesses;

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
    book::ProviderHealth,
    breaker::{Breaker, Pass},
    circuits::{Circuits, Trials},
    key::{Entry, Key, Place, Told},
    lease::{Lease, Trial},
    resolve::Endpoint,
    retry_budget::RetryBudget,
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
    health: Arc<ProviderHealth>,
    circuits: Arc<Circuits>,
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
    pub model: &'a Arc<str>,
    /// Keeps to one account where it can.
    pub conversation: Option<u64>,
    pub tried: &'a Tried,
    /// Which of the request's targets this is.
    pub target: usize,
}

/// What a request need not try again, with the place of the target at which it failed.
#[derive(Debug, Default)]
pub struct Tried {
    keys: Vec<(usize, Arc<str>)>,
    groups: Vec<(usize, Arc<str>)>,
    /// Groups of which a key failed: others come first.
    failing: Vec<(usize, Arc<str>)>,
}

impl Tried {
    pub fn key(&mut self, target: usize, key: &Key) {
        self.keys.push((target, key.id.clone()));
    }

    pub fn group(&mut self, target: usize, key: &Key) {
        self.groups.push((target, key.group_name.clone()));
    }

    pub fn failing(&mut self, target: usize, key: &Key) {
        self.failing.push((target, key.group_name.clone()));
    }

    fn has(&self, target: usize, key: &Key) -> bool {
        holds(&self.keys, target, &key.id) || holds(&self.groups, target, &key.group_name)
    }

    /// Whether another account's key comes first.
    fn puts_last(&self, target: usize, key: &Key) -> bool {
        holds(&self.failing, target, &key.group_name)
    }
}

fn holds(list: &[(usize, Arc<str>)], target: usize, name: &Arc<str>) -> bool {
    list.iter().any(|(at, tried)| *at == target && tried == name)
}

impl Provider {
    /// `models`: what the configuration has its keys serve.
    ///
    /// # Errors
    /// A secret or a host name that can't stand in a header.
    pub fn new(
        settings: settings::Provider,
        models: Arc<[Arc<str>]>,
        endpoint: Arc<Endpoint>,
        book: &HealthBook,
    ) -> Result<Self, Unusable> {
        let provider = book.provider(&settings.name, &settings.base);
        let mut keys = Vec::with_capacity(settings.keys.len());
        let mut accounts: Vec<(Arc<str>, bool)> = Vec::new();
        for key in &settings.keys {
            let known = accounts.iter().position(|(group, _)| *group == key.group);
            let account = known.unwrap_or_else(|| {
                accounts.push((key.group.clone(), false));
                accounts.len() - 1
            });
            accounts[account].1 |= !key.off;
            let mark = book.hasher.secret(&settings.name, key.secret.expose_secret());
            let health = book.key(&settings.name, &key.id, &mark);
            let group = book.group(&settings.name, &key.group);
            let place = Place { group, account, models: models.clone() };
            let told = Told { provider: settings.name.clone(), mark, teller: book.teller.clone() };
            keys.push(Arc::new(Key::new(key, settings.dialect, health, place, told)?));
        }
        let selection = Selection::new(settings.strategy, &keys);
        let accounts = accounts.iter().map(|(group, in_use)| (provider.account(group), *in_use));
        let circuits = Arc::new(Circuits::new(provider.breaker.clone(), accounts));
        let base = &settings.base.path;
        let authority = HeaderValue::from_str(&authority(&endpoint))
            .map_err(|_| Unusable::Host(settings.name.clone()))?;
        let heads = kernel::Endpoint::ALL
            .iter()
            .map(|endpoint| common_head(&format!("{base}{}", path(*endpoint)), &authority))
            .collect::<Result<_, _>>()
            .map_err(|_| Unusable::Host(settings.name.clone()))?;
        Ok(Self {
            settings,
            endpoint,
            authority,
            heads,
            keys,
            selection,
            health: provider,
            circuits,
            turn: AtomicU64::new(0),
        })
    }

    pub fn name(&self) -> &Arc<str> {
        &self.settings.name
    }

    pub fn keys(&self) -> &[Arc<Key>] {
        &self.keys
    }

    pub fn circuits(&self) -> &Circuits {
        &self.circuits
    }

    /// Over all of its accounts.
    pub fn breaker(&self) -> &Breaker {
        &self.circuits.provider
    }

    /// Of the key's account.
    pub fn account(&self, key: &Key) -> &Breaker {
        self.circuits.account(key.account)
    }

    /// Of second tries, and of tries through an open circuit.
    pub fn budget(&self) -> &RetryBudget {
        &self.health.budget
    }

    /// The next key that may serve and was not tried, as far as no circuit is open.
    pub fn select(&self, wish: &Wish<'_>, now: Instant) -> Option<Lease> {
        let provider = match self.breaker().pass(now) {
            Pass::Free => false,
            Pass::Trial => true,
            Pass::No => return None,
        };
        let lease = self.next_key(wish, provider, now);
        if lease.is_none() && provider {
            self.breaker().end_trial();
        }
        lease
    }

    /// A key that was not tried, for a request that has nothing else left: through circuits that quick faults
    /// opened, accounts whose own is closed first.
    pub fn select_through(&self, wish: &Wish<'_>, now: Instant) -> Option<Lease> {
        if !self.breaker().lets_through() {
            return None;
        }
        let any = |wants_closed: bool| {
            let mut candidates = self.selection.candidates(wish.conversation);
            while let Some(backend) = candidates.next() {
                let Some(key) = selection::index(backend).map(|index| &self.keys[index]) else {
                    continue;
                };
                let breaker = self.account(key);
                let is_closed = breaker.circuit() == breaker::Circuit::Closed;
                if wish.tried.has(wish.target, key)
                    || is_closed != wants_closed
                    || !breaker.lets_through()
                {
                    continue;
                }
                if let Some(entry) = key.enter(wish.model, now) {
                    return Some(self.lease_through(key, wish.model, entry));
                }
            }
            None
        };
        any(true).or_else(|| any(false))
    }

    /// Whether neither the provider's circuit nor that of the key's account is open.
    pub fn is_closed_for(&self, key: &Key) -> bool {
        self.circuits.is_closed(key.account)
    }

    /// One key, which was asked before.
    pub fn select_again(&self, key: &Arc<Key>, model: &Arc<str>, now: Instant) -> Option<Lease> {
        if !self.circuits.lets_through(key.account) {
            return None;
        }
        key.enter(model, now).map(|entry| self.lease_through(key, model, entry))
    }

    fn lease_through(&self, key: &Arc<Key>, model: &Arc<str>, entry: Entry) -> Lease {
        let through = !self.circuits.is_closed(key.account);
        let circuits = Trials { through, ..Trials::default() };
        self.lease(key, model, Trial { entry, circuits })
    }

    fn lease(&self, key: &Arc<Key>, model: &Arc<str>, trial: Trial) -> Lease {
        Lease::new(key.clone(), model.clone(), self.circuits.clone(), trial)
    }

    /// An account that runs dry is passed over now and then, and in the end taken if nobody else can; so is one of
    /// which this request met a fault, and after those a key that is in doubt.
    /// `provider`: this request is the one that the provider is tried by, whatever the circuits of its accounts.
    fn next_key(&self, wish: &Wish<'_>, provider: bool, now: Instant) -> Option<Lease> {
        let mut spared: Option<(u32, &Arc<Key>)> = None;
        let mut last: Vec<&Arc<Key>> = Vec::new();
        let mut doubted: Option<&Arc<Key>> = None;
        let mut candidates = self.selection.candidates(wish.conversation);
        while let Some(backend) = candidates.next() {
            let Some(index) = selection::index(backend) else { continue };
            let key = &self.keys[index];
            if wish.tried.has(wish.target, key) {
                continue;
            }
            if wish.tried.puts_last(wish.target, key) {
                last.push(key);
                continue;
            }
            if key.health.doubt.holds() {
                doubted.get_or_insert(key);
                continue;
            }
            let share = key.group.allowance.share(now);
            if share < FULL_SHARE
                && self.spares(share)
                && key.state_for(wish.model, now) == State::Ready
            {
                if spared.is_none_or(|(most, _)| share > most) {
                    spared = Some((share, key));
                }
                continue;
            }
            if let Some(trial) = self.enter(key, wish.model, provider, now) {
                return Some(self.lease(key, wish.model, trial));
            }
        }
        let spared = spared.map(|(_, key)| key);
        spared.into_iter().chain(last).chain(doubted).find_map(|key| {
            let trial = self.enter(key, wish.model, provider, now)?;
            Some(self.lease(key, wish.model, trial))
        })
    }

    fn enter(&self, key: &Key, model: &str, provider: bool, now: Instant) -> Option<Trial> {
        let account = match self.circuits.pass(key.account, now) {
            Pass::Free => false,
            Pass::Trial => true,
            Pass::No if provider => false,
            Pass::No => return None,
        };
        let circuits = Trials { provider, account, through: false };
        match key.enter(model, now) {
            Some(entry) => Some(Trial { entry, circuits }),
            None => {
                self.circuits.end(key.account, Trials { account, ..Trials::default() });
                None
            }
        }
    }

    /// Whether a turn of an account with so many thousandths of its share goes to another.
    fn spares(&self, share: u32) -> bool {
        let turn = rest::mixed(self.turn.fetch_add(1, Relaxed));
        (turn % u64::from(FULL_SHARE)) >= u64::from(share)
    }

    /// Whether some key that was not tried is ready for this, its circuits closed. Takes nothing.
    pub fn can_serve(&self, wish: &Wish<'_>, now: Instant) -> bool {
        self.keys.iter().any(|key| {
            !wish.tried.has(wish.target, key)
                && self.is_closed_for(key)
                && key.state_for(wish.model, now).serves()
        })
    }

    /// The same of another account than that of `key`.
    pub fn can_serve_beside(&self, key: &Key, wish: &Wish<'_>, now: Instant) -> bool {
        self.keys.iter().any(|other| {
            other.account != key.account
                && !wish.tried.has(wish.target, other)
                && self.is_closed_for(other)
                && other.state_for(wish.model, now).serves()
        })
    }

    /// Milliseconds until the first of its cooling keys is ready for a model, if some are cooling.
    pub fn soonest_ms(&self, model: &str, now: Instant) -> Option<u64> {
        let waits = self.keys.iter().filter_map(|key| match key.state_for(model, now) {
            State::Cooling { left_ms } => Some(left_ms),
            _ => None,
        });
        waits.min()
    }
}
