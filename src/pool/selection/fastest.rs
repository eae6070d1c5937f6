//! Prefers the faster of two keys, by the time to their first output. Two at random, not the fastest of
//! all: so a fast key is not overloaded, and a slow one is measured again.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use pingora_load_balancing::{
    Backend,
    selection::{BackendIter, BackendSelection},
};

use super::unique_backends::{UniqueBackends, key};
use crate::pool::backoff::mixed;

pub struct Fastest {
    backends: Vec<Backend>,
    /// Each key has a number of places in proportion to its weight.
    turn: AtomicU64,
}

impl BackendSelection for Fastest {
    type Iter = FastestIter;
    type Config = ();

    fn build(backends: &BTreeSet<Backend>) -> Self {
        Self { backends: backends.iter().cloned().collect(), turn: AtomicU64::new(0) }
    }

    fn iter(self: &Arc<Self>, _key: &[u8]) -> FastestIter {
        let dice = mixed(self.turn.fetch_add(1, Relaxed));
        let offers = UniqueBackends::all(self.backends.len());
        FastestIter { selection: self.clone(), offers, dice, now: Instant::now() }
    }
}

pub struct FastestIter {
    selection: Arc<Fastest>,
    offers: UniqueBackends,
    dice: u64,
    now: Instant,
}

impl FastestIter {
    /// Microseconds to be expected; what is busy already counts as slower, and a heavy key as faster.
    fn cost(&self, index: usize) -> f64 {
        let backend = &self.selection.backends[index];
        let Some(key) = key(backend) else { return f64::MAX };
        let busy = key.health.open.load(Relaxed) + 1;
        key.health.pace.expected(self.now) as f64 * busy as f64 / backend.weight as f64
    }
}

impl BackendIter for FastestIter {
    fn next(&mut self) -> Option<&Backend> {
        let left = &self.offers.left;
        let place = match left.len() {
            0 => return None,
            1 => 0,
            count => {
                let one = (self.dice >> 32) as usize % count;
                let other = (one + 1 + (self.dice & 0xffff_ffff) as usize % (count - 1)) % count;
                let cost = |place: usize| self.cost(left[place].into());
                if cost(other) < cost(one) { other } else { one }
            }
        };
        self.dice = mixed(self.dice);
        let index = self.offers.take(place);
        self.selection.backends.get(index)
    }
}
