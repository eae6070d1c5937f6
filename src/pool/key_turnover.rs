//! Which keys serve after a reload: those that came back, and those that are gone.

use std::{
    collections::HashSet,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use super::{HealthRegistry, ProviderPool, health::KeyHealth, key::MasterKey};

impl HealthRegistry {
    /// These providers go live next: what an older configuration had taken away may be used again.
    pub fn readmit(&self, next: &[ProviderPool]) {
        for key in in_use(next) {
            key.health.withdrawn.store(false, Relaxed);
        }
    }

    /// These providers are live: every other key gets no new request, not even one that began when it was there.
    pub fn withdraw_all_but(&self, live: &[ProviderPool]) {
        let live: HashSet<*const KeyHealth> =
            in_use(live).map(|key| Arc::as_ptr(&key.health)).collect();
        for health in self.keys.lock().values() {
            health.withdrawn.store(!live.contains(&Arc::as_ptr(health)), Relaxed);
        }
    }
}

fn in_use(providers: &[ProviderPool]) -> impl Iterator<Item = &Arc<MasterKey>> {
    providers.iter().flat_map(ProviderPool::keys).filter(|key| !key.is_switched_off())
}
