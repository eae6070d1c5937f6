//! Which gateways have replayed their state after Redis may have lost it.

use rustc_hash::{FxHashMap, FxHashSet};

/// Who has put back everything since the store was last empty.
#[derive(Default)]
pub struct ResyncBarrier {
    life: String,
    loss: u64,
    /// Others, by their boots.
    others: FxHashMap<String, PeerState>,
}

/// What another gateway said last.
struct PeerState {
    gateway: String,
    /// The life that it has put back everything in.
    life: String,
}

impl ResyncBarrier {
    /// The store's life that this gateway has put back everything in; empty before the first.
    pub fn life(&self) -> &str {
        &self.life
    }

    /// After which loss of the store it did.
    pub fn loss(&self) -> u64 {
        self.loss
    }

    /// What the others said before is worth nothing: a copy that a store falls back to has the same life.
    pub fn begin(&mut self, life: String, loss: u64) {
        (self.life, self.loss) = (life, loss);
        self.others.values_mut().for_each(|other| other.life.clear());
    }

    pub fn hear(&mut self, boot: &str, life: &str, gateway: &str) {
        let other = PeerState { gateway: gateway.to_owned(), life: life.to_owned() };
        self.others.insert(boot.to_owned(), other);
    }

    /// Whether all of these boots are, or a later one of the same gateway is.
    pub fn are_whole(&mut self, living: &[String]) -> bool {
        self.others.retain(|boot, _| living.contains(boot));
        let whole = self.others.values().filter(|other| other.life == self.life);
        let whole: FxHashSet<&str> = whole.map(|other| &*other.gateway).collect();
        let mut boots = living.iter().map(|boot| self.others.get(boot));
        boots.all(|other| other.is_some_and(|other| whole.contains(&*other.gateway)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_live_are_whole_in_this_life_or_their_successors_are() {
        let living =
            |boots: &[&str]| -> Vec<String> { boots.iter().map(|b| b.to_string()).collect() };
        let mut peers = ResyncBarrier::default();
        peers.hear("b1", "old", "b");
        peers.begin("new".into(), 1);
        assert!(peers.are_whole(&[]), "alone");
        assert!(!peers.are_whole(&living(&["b1"])), "whole in another life");
        assert!(!peers.are_whole(&living(&["b1", "c1"])), "never heard of");
        peers.hear("c1", "new", "c");
        assert!(peers.are_whole(&living(&["c1"])));
        // Of `b` the first boot died, and is taken to live for a moment.
        peers.hear("b1", "old", "b");
        assert!(!peers.are_whole(&living(&["b1", "c1"])));
        peers.hear("b2", "new", "b");
        assert!(peers.are_whole(&living(&["b1", "b2", "c1"])));
        // The store lost something once more, and may have kept its life.
        peers.begin("new".into(), 2);
        assert!(!peers.are_whole(&living(&["b2", "c1"])));
    }
}
