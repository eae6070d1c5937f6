//! One account for one conversation: weighted rendezvous hashing, so that gateways agree without
//! communication, and an account that is added or removed moves only its own conversations.

use std::{collections::BTreeSet, hash::Hasher, sync::Arc};

use pingora_load_balancing::{
    Backend,
    selection::{BackendIter, BackendSelection},
};

use super::unique_backends::{UniqueBackends, key};
use crate::pool::backoff::mixed;

pub struct Affinity {
    backends: Vec<Backend>,
    /// Of each backend's group, and of the key itself.
    names: Vec<(u64, u64)>,
}

impl BackendSelection for Affinity {
    type Iter = AffinityIter;
    type Config = ();

    fn build(backends: &BTreeSet<Backend>) -> Self {
        let backends: Vec<Backend> = backends.iter().cloned().collect();
        let names = backends.iter().map(|backend| match key(backend) {
            Some(key) => (hashed(&key.group_name), hashed(&key.id)),
            None => (0, 0),
        });
        Self { names: names.collect(), backends }
    }

    fn iter(self: &Arc<Self>, key: &[u8]) -> AffinityIter {
        let mut hasher = rustc_hash::FxHasher::default();
        hasher.write(key);
        let offers = UniqueBackends::all(self.backends.len());
        AffinityIter { selection: self.clone(), offers, conversation: mixed(hasher.finish()) }
    }
}

fn hashed(name: &str) -> u64 {
    let mut hasher = rustc_hash::FxHasher::default();
    hasher.write(name.as_bytes());
    mixed(hasher.finish())
}

pub struct AffinityIter {
    selection: Arc<Affinity>,
    offers: UniqueBackends,
    conversation: u64,
}

impl BackendIter for AffinityIter {
    fn next(&mut self) -> Option<&Backend> {
        let Affinity { backends, names } = &*self.selection;
        let conversation = self.conversation;
        let index = self.offers.cheapest(|index| {
            let (group, key) = names[index];
            let chance = (mixed(group ^ conversation) as f64 + 1.0) / (u64::MAX as f64 + 2.0);
            // Keys of one account have the same first cost, unless their weights differ.
            (-chance.ln() / backends[index].weight as f64, mixed(key ^ conversation))
        })?;
        backends.get(index)
    }
}
