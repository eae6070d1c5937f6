//! Which gateways have replayed their state after Redis may have lost it.

use rustc_hash::{FxHashMap, FxHashSet};

/// Which gateways have resynchronised with the current store instance.
#[derive(Default)]
pub struct ResyncBarrier {
    instance: String,
    loss: u64,
    /// Other gateways, by boot.
    others: FxHashMap<String, PeerState>,
}

/// The last report of another gateway.
struct PeerState {
    gateway: String,
    /// The store instance that it has resynchronised with.
    instance: String,
}

impl ResyncBarrier {
    /// The store instance that this gateway has resynchronised with; empty before the first.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// The loss of the store after which it did.
    pub fn loss(&self) -> u64 {
        self.loss
    }

    /// Discards earlier reports of the others: a replica that takes over has the same instance name.
    pub fn begin(&mut self, instance: String, loss: u64) {
        (self.instance, self.loss) = (instance, loss);
        self.others.values_mut().for_each(|other| other.instance.clear());
    }

    pub fn record(&mut self, boot: &str, instance: &str, gateway: &str) {
        let other = PeerState { gateway: gateway.to_owned(), instance: instance.to_owned() };
        self.others.insert(boot.to_owned(), other);
    }

    /// Whether each of these boots, or another boot of the same gateway, has resynchronised.
    pub fn are_resynced(&mut self, alive: &[String]) -> bool {
        self.others.retain(|boot, _| alive.contains(boot));
        let resynced = self.others.values().filter(|other| other.instance == self.instance);
        let resynced: FxHashSet<&str> = resynced.map(|other| &*other.gateway).collect();
        let mut boots = alive.iter().map(|boot| self.others.get(boot));
        boots.all(|other| other.is_some_and(|other| resynced.contains(&*other.gateway)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_gateway_alive_or_a_later_boot_of_it_has_resynchronised() {
        let alive =
            |boots: &[&str]| -> Vec<String> { boots.iter().map(|b| b.to_string()).collect() };
        let mut peers = ResyncBarrier::default();
        peers.record("b1", "old", "b");
        peers.begin("new".into(), 1);
        assert!(peers.are_resynced(&[]), "alone");
        assert!(!peers.are_resynced(&alive(&["b1"])), "resynchronised with another instance");
        assert!(!peers.are_resynced(&alive(&["b1", "c1"])), "never reported");
        peers.record("c1", "new", "c");
        assert!(peers.are_resynced(&alive(&["c1"])));
        // The first boot of `b` died, and counts as alive for a moment.
        peers.record("b1", "old", "b");
        assert!(!peers.are_resynced(&alive(&["b1", "c1"])));
        peers.record("b2", "new", "b");
        assert!(peers.are_resynced(&alive(&["b1", "b2", "c1"])));
        // The store lost data again, and may have kept its instance name.
        peers.begin("new".into(), 2);
        assert!(!peers.are_resynced(&alive(&["b2", "c1"])));
    }
}
