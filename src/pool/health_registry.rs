//! The health of all keys, accounts and providers: kept over reloads, found by name.

use std::{collections::HashMap, sync::Arc, time::Instant};

use parking_lot::Mutex;
use tokio::sync::mpsc::UnboundedReceiver;

use super::{
    backoff::{Cooldown, Quarantine},
    breaker::Breaker,
    health::{GroupHealth, KeyHealth},
    health_events::{HealthChange, HealthEvent, HealthEventSender, HealthSubject},
    retry_budget::RetryBudget,
};
use crate::{config::settings::BaseUrl, vault::KeyedHash};

/// By provider and id.
type KeyName = (Arc<str>, Arc<str>);
/// By name and address: a provider that moved is a new one.
type Providers = HashMap<(Arc<str>, String), Arc<ProviderHealth>>;

/// Of one provider at one address.
#[derive(Debug, Default)]
pub struct ProviderHealth {
    pub breaker: Arc<Breaker>,
    pub budget: RetryBudget,
    /// By group.
    accounts: Mutex<HashMap<Arc<str>, Arc<Breaker>>>,
}

impl ProviderHealth {
    pub(super) fn account(&self, group: &Arc<str>) -> Arc<Breaker> {
        self.accounts.lock().entry(group.clone()).or_default().clone()
    }

    fn close(&self) {
        self.breaker.close();
        for account in self.accounts.lock().values() {
            account.close();
        }
    }
}

/// What another gateway found out of an account, or of a model there.
fn apply_limit(cooling: &Cooldown, quarantine: &Quarantine, change: HealthChange, now: Instant) {
    match change {
        HealthChange::Cools(left) => cooling.begin(Some(left), now),
        HealthChange::Quarantined(why, left) => quarantine.begin(why, Some(left), now),
        _ => {
            cooling.lift();
            quarantine.lift();
        }
    }
}

pub struct HealthRegistry {
    /// A key whose secret changed is a new one, even if the old one was quarantined; so the mark of
    /// its secret is part of its name.
    pub(super) keys: Mutex<HashMap<(KeyName, String), Arc<KeyHealth>>>,
    groups: Mutex<HashMap<KeyName, Arc<GroupHealth>>>,
    providers: Mutex<Providers>,
    pub(super) hasher: KeyedHash,
    pub(super) sender: HealthEventSender,
}

impl HealthRegistry {
    pub fn new(hasher: KeyedHash) -> Self {
        Self {
            keys: Mutex::default(),
            groups: Mutex::default(),
            providers: Mutex::default(),
            hasher,
            sender: HealthEventSender::default(),
        }
    }

    /// Attaches the receiver of the changes found by this gateway.
    pub fn subscribe(&self) -> UnboundedReceiver<HealthEvent> {
        self.sender.listen()
    }

    /// Another gateway found something out.
    pub fn apply(&self, event: &HealthEvent) {
        let now = Instant::now();
        match &event.of {
            HealthSubject::Provider { provider } => {
                let known = self.providers.lock();
                let here = known.iter().filter(|((name, _), _)| name == provider);
                for (_, health) in here {
                    match event.change {
                        HealthChange::Faulty(fault) => health.breaker.open(fault, now),
                        _ => health.close(),
                    }
                }
            }
            HealthSubject::Group { provider, group } => {
                let Some(health) = self.known_group(provider, group) else { return };
                apply_limit(&health.cooling, &health.quarantine, event.change, now);
            }
            HealthSubject::Model { provider, group, model } => {
                let Some(health) = self.known_group(provider, group) else { return };
                let health = health.models.of(model, now);
                apply_limit(&health.cooling, &health.quarantine, event.change, now);
            }
            HealthSubject::Key { provider, key, mark } => {
                let at = ((provider.clone(), key.clone()), mark.clone());
                let known = self.keys.lock().get(&at).cloned();
                let Some(health) = known else { return };
                match event.change {
                    HealthChange::Quarantined(why, left) => {
                        health.quarantine.begin(why, Some(left), now)
                    }
                    HealthChange::Paused => drop(health.paused.set(true, now)),
                    HealthChange::Resumed => {
                        health.paused.set(false, now);
                        health.quarantine.lift();
                    }
                    _ => drop(health.quarantine.lift()),
                }
            }
        }
    }

    fn known_group(&self, provider: &Arc<str>, group: &Arc<str>) -> Option<Arc<GroupHealth>> {
        self.groups.lock().get(&(provider.clone(), group.clone())).cloned()
    }

    pub(super) fn key(&self, provider: &Arc<str>, id: &Arc<str>, mark: &str) -> Arc<KeyHealth> {
        let at = ((provider.clone(), id.clone()), mark.to_owned());
        self.keys.lock().entry(at).or_default().clone()
    }

    pub(super) fn group(&self, provider: &Arc<str>, id: &Arc<str>) -> Arc<GroupHealth> {
        let at = (provider.clone(), id.clone());
        self.groups.lock().entry(at).or_default().clone()
    }

    pub(super) fn provider(&self, name: &Arc<str>, base: &BaseUrl) -> Arc<ProviderHealth> {
        let at = (name.clone(), base.at(""));
        self.providers.lock().entry(at).or_default().clone()
    }
}
