//! Which key serves next. A provider has keys, keys have groups (one account, shared limits);
//! health belongs to a key, to its group or to the provider, outlives a reload and is found by name.

pub mod backoff;
pub mod breaker;
pub mod circuits;
mod clock;
pub mod credit;
pub mod dns;
pub mod doubt;
pub mod firewall;
pub mod health;
pub mod health_events;
pub mod health_registry;
pub mod key;
mod key_state;
mod key_turnover;
pub mod latency;
pub mod lease;
pub mod model_limits;
mod peer_options;
pub mod rate_headroom;
pub mod request_head;
pub mod retry_budget;
pub mod selection;
pub mod slow_answers;
mod unavailable;
mod why_idle;
pub mod witnesses;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use gatekeeper_filters::kernel;
use http::HeaderValue;
use pingora_load_balancing::selection::BackendIter;
use secrecy::ExposeSecret;

use self::{
    breaker::{Breaker, BreakerDecision},
    circuits::{CircuitProbes, Circuits},
    dns::UpstreamHost,
    health_registry::ProviderHealth,
    key::{Admission, EventSource, KeyIdentity, MasterKey},
    lease::{KeyLease, ProbeGuard},
    request_head::CommonHead,
    retry_budget::RetryBudget,
    selection::Selection,
};
pub use self::{health::KeyState, health_registry::HealthRegistry, unavailable::Unavailable};
use crate::config::settings;

/// One provider as requests see it: fixed settings, its keys and its addresses.
pub struct ProviderPool {
    pub settings: settings::ProviderSettings,
    pub endpoint: Arc<UpstreamHost>,
    /// Value of `Host`: with the port only where it is not the scheme's default.
    pub authority: HeaderValue,
    /// What the upstream heads of an endpoint have in common, in the order of `kernel::Endpoint`.
    pub heads: Vec<CommonHead>,
    keys: Vec<Arc<MasterKey>>,
    selection: Selection,
    health: Arc<ProviderHealth>,
    circuits: Arc<Circuits>,
    /// Counts selections, to deal out the turns of accounts that run dry.
    turn: AtomicU64,
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

fn authority(endpoint: &UpstreamHost) -> String {
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
pub struct SelectRequest<'a> {
    pub model: &'a Arc<str>,
    /// Keeps to one account where it can.
    pub conversation: Option<u64>,
    pub tried: &'a Exclusions,
    /// Which of the request's targets this is.
    pub target: usize,
}

/// What a request need not try again, with the place of the target at which it failed.
#[derive(Debug, Default)]
pub struct Exclusions {
    keys: Vec<(usize, Arc<str>)>,
    groups: Vec<(usize, Arc<str>)>,
    /// Groups of which a key failed: others come first.
    failing: Vec<(usize, Arc<str>)>,
}

impl Exclusions {
    pub fn key(&mut self, target: usize, key: &MasterKey) {
        self.keys.push((target, key.id.clone()));
    }

    pub fn group(&mut self, target: usize, key: &MasterKey) {
        self.groups.push((target, key.group_name.clone()));
    }

    pub fn failing(&mut self, target: usize, key: &MasterKey) {
        self.failing.push((target, key.group_name.clone()));
    }

    fn has(&self, target: usize, key: &MasterKey) -> bool {
        holds(&self.keys, target, &key.id) || holds(&self.groups, target, &key.group_name)
    }

    /// Whether another account's key comes first.
    fn puts_last(&self, target: usize, key: &MasterKey) -> bool {
        holds(&self.failing, target, &key.group_name)
    }
}

fn holds(list: &[(usize, Arc<str>)], target: usize, name: &Arc<str>) -> bool {
    list.iter().any(|(at, tried)| *at == target && tried == name)
}

impl ProviderPool {
    /// `models`: what the configuration has its keys serve.
    ///
    /// # Errors
    /// A secret or a host name that can't stand in a header.
    pub fn new(
        settings: settings::ProviderSettings,
        models: Arc<[Arc<str>]>,
        endpoint: Arc<UpstreamHost>,
        registry: &HealthRegistry,
    ) -> Result<Self, Unavailable> {
        let provider = registry.provider(&settings.name, &settings.base);
        let mut keys = Vec::with_capacity(settings.keys.len());
        let mut accounts: Vec<(Arc<str>, bool)> = Vec::new();
        for key in &settings.keys {
            let known = accounts.iter().position(|(group, _)| *group == key.group);
            let account = known.unwrap_or_else(|| {
                accounts.push((key.group.clone(), false));
                accounts.len() - 1
            });
            accounts[account].1 |= !key.off;
            let mark = registry.hasher.secret(&settings.name, key.secret.expose_secret());
            let health = registry.key(&settings.name, &key.id, &mark);
            let group = registry.group(&settings.name, &key.group);
            let place = KeyIdentity { group, account, models: models.clone() };
            let events = EventSource {
                provider: settings.name.clone(),
                mark,
                sender: registry.sender.clone(),
            };
            keys.push(Arc::new(MasterKey::new(key, settings.dialect, health, place, events)?));
        }
        let selection = Selection::new(settings.strategy, &keys);
        let accounts = accounts.iter().map(|(group, in_use)| (provider.account(group), *in_use));
        let circuits = Arc::new(Circuits::new(provider.breaker.clone(), accounts));
        let base = &settings.base.path;
        let authority = HeaderValue::from_str(&authority(&endpoint))
            .map_err(|_| Unavailable::Host(settings.name.clone()))?;
        let heads = kernel::Endpoint::ALL
            .iter()
            .map(|endpoint| CommonHead::new(&format!("{base}{}", path(*endpoint)), &authority))
            .collect::<Result<_, _>>()
            .map_err(|_| Unavailable::Host(settings.name.clone()))?;
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

    pub fn keys(&self) -> &[Arc<MasterKey>] {
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
    pub fn account(&self, key: &MasterKey) -> &Breaker {
        self.circuits.account(key.account)
    }

    /// Of second tries, and of tries through an open circuit.
    pub fn budget(&self) -> &RetryBudget {
        &self.health.budget
    }

    /// The next key that may serve and was not tried, as far as no circuit is open.
    pub fn select(&self, request: &SelectRequest<'_>, now: Instant) -> Option<KeyLease> {
        let provider = match self.breaker().pass(now) {
            BreakerDecision::Free => false,
            BreakerDecision::Trial => true,
            BreakerDecision::No => return None,
        };
        let lease = self.next_key(request, provider, now);
        if lease.is_none() && provider {
            self.breaker().end_trial();
        }
        lease
    }

    /// A key that was not tried, for a request that has nothing else left: through circuits that quick faults
    /// opened, accounts whose own is closed first.
    pub fn select_through(&self, request: &SelectRequest<'_>, now: Instant) -> Option<KeyLease> {
        if !self.breaker().lets_through() {
            return None;
        }
        let any = |wants_closed: bool| {
            let mut candidates = self.selection.candidates(request.conversation);
            while let Some(backend) = candidates.next() {
                let Some(key) = selection::index(backend).map(|index| &self.keys[index]) else {
                    continue;
                };
                let breaker = self.account(key);
                let is_closed = breaker.circuit() == breaker::Circuit::Closed;
                if request.tried.has(request.target, key)
                    || is_closed != wants_closed
                    || !breaker.lets_through()
                {
                    continue;
                }
                if let Some(entry) = key.enter(request.model, now) {
                    return Some(self.lease_through(key, request.model, entry));
                }
            }
            None
        };
        any(true).or_else(|| any(false))
    }

    /// Whether neither the provider's circuit nor that of the key's account is open.
    pub fn is_closed_for(&self, key: &MasterKey) -> bool {
        self.circuits.is_closed(key.account)
    }

    /// One key, which was asked before.
    pub fn select_again(
        &self,
        key: &Arc<MasterKey>,
        model: &Arc<str>,
        now: Instant,
    ) -> Option<KeyLease> {
        if !self.circuits.lets_through(key.account) {
            return None;
        }
        key.enter(model, now).map(|entry| self.lease_through(key, model, entry))
    }

    fn lease_through(&self, key: &Arc<MasterKey>, model: &Arc<str>, entry: Admission) -> KeyLease {
        let through = !self.circuits.is_closed(key.account);
        let circuits = CircuitProbes { through, ..CircuitProbes::default() };
        self.lease(key, model, ProbeGuard { entry, circuits })
    }

    fn lease(&self, key: &Arc<MasterKey>, model: &Arc<str>, trial: ProbeGuard) -> KeyLease {
        KeyLease::new(key.clone(), model.clone(), self.circuits.clone(), trial)
    }

    /// An account close to its limits is skipped at times, and used only if no other key can serve; so is
    /// an account on which this request met a fault, and last a doubtful key. `provider`: this request is
    /// the probe of the provider, whatever the circuits of its accounts.
    fn next_key(
        &self,
        request: &SelectRequest<'_>,
        provider: bool,
        now: Instant,
    ) -> Option<KeyLease> {
        let mut spared: Option<(u32, &Arc<MasterKey>)> = None;
        let mut last: Vec<&Arc<MasterKey>> = Vec::new();
        let mut doubted: Option<&Arc<MasterKey>> = None;
        let mut candidates = self.selection.candidates(request.conversation);
        while let Some(backend) = candidates.next() {
            let Some(index) = selection::index(backend) else { continue };
            let key = &self.keys[index];
            if request.tried.has(request.target, key) {
                continue;
            }
            if request.tried.puts_last(request.target, key) {
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
                && key.state_for(request.model, now) == KeyState::Ready
            {
                if spared.is_none_or(|(most, _)| share > most) {
                    spared = Some((share, key));
                }
                continue;
            }
            if let Some(trial) = self.enter(key, request.model, provider, now) {
                return Some(self.lease(key, request.model, trial));
            }
        }
        let spared = spared.map(|(_, key)| key);
        spared.into_iter().chain(last).chain(doubted).find_map(|key| {
            let trial = self.enter(key, request.model, provider, now)?;
            Some(self.lease(key, request.model, trial))
        })
    }

    fn enter(
        &self,
        key: &MasterKey,
        model: &str,
        provider: bool,
        now: Instant,
    ) -> Option<ProbeGuard> {
        let account = match self.circuits.pass(key.account, now) {
            BreakerDecision::Free => false,
            BreakerDecision::Trial => true,
            BreakerDecision::No if provider => false,
            BreakerDecision::No => return None,
        };
        let circuits = CircuitProbes { provider, account, through: false };
        match key.enter(model, now) {
            Some(entry) => Some(ProbeGuard { entry, circuits }),
            None => {
                self.circuits
                    .end(key.account, CircuitProbes { account, ..CircuitProbes::default() });
                None
            }
        }
    }

    /// Whether a turn of an account with so many thousandths of its share goes to another.
    fn spares(&self, share: u32) -> bool {
        let turn = backoff::mixed(self.turn.fetch_add(1, Relaxed));
        (turn % u64::from(FULL_SHARE)) >= u64::from(share)
    }

    /// Whether some key that was not tried is ready for this, its circuits closed. Takes nothing.
    pub fn can_serve(&self, request: &SelectRequest<'_>, now: Instant) -> bool {
        self.keys.iter().any(|key| {
            !request.tried.has(request.target, key)
                && self.is_closed_for(key)
                && key.state_for(request.model, now).serves()
        })
    }

    /// The same of another account than that of `key`.
    pub fn can_serve_beside(
        &self,
        key: &MasterKey,
        request: &SelectRequest<'_>,
        now: Instant,
    ) -> bool {
        self.keys.iter().any(|other| {
            other.account != key.account
                && !request.tried.has(request.target, other)
                && self.is_closed_for(other)
                && other.state_for(request.model, now).serves()
        })
    }

    /// Milliseconds until the first of its cooling keys is ready for a model, if some are cooling.
    pub fn soonest_ms(&self, model: &str, now: Instant) -> Option<u64> {
        let waits = self.keys.iter().filter_map(|key| match key.state_for(model, now) {
            KeyState::Cooling { left_ms } => Some(left_ms),
            _ => None,
        });
        waits.min()
    }
}
