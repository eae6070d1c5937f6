//! The key with the fewest open requests for its weight first.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use pingora_load_balancing::{
    Backend,
    selection::{BackendIter, BackendSelection},
};

use super::unique_backends::{UniqueBackends, key};

pub struct LeastBusy {
    backends: Vec<Backend>,
    /// The first among equals.
    turn: AtomicUsize,
}

impl BackendSelection for LeastBusy {
    type Iter = LeastBusyIter;
    type Config = ();

    fn build(backends: &BTreeSet<Backend>) -> Self {
        Self { backends: backends.iter().cloned().collect(), turn: AtomicUsize::new(0) }
    }

    fn iter(self: &Arc<Self>, _key: &[u8]) -> LeastBusyIter {
        let first = self.turn.fetch_add(1, Relaxed);
        LeastBusyIter {
            selection: self.clone(),
            offers: UniqueBackends::all(self.backends.len()),
            first,
        }
    }
}

pub struct LeastBusyIter {
    selection: Arc<LeastBusy>,
    offers: UniqueBackends,
    first: usize,
}

impl BackendIter for LeastBusyIter {
    fn next(&mut self) -> Option<&Backend> {
        let backends = &self.selection.backends;
        let (count, first) = (backends.len(), self.first);
        let index = self.offers.cheapest(|index| {
            let backend = &backends[index];
            let open = key(backend).map_or(0, |key| key.health.open.load(Relaxed));
            let behind = (index + count - first % count) % count;
            // With it, not without it: two idle keys differ by their weights, too.
            ((open + 1) as f64 / backend.weight as f64, behind)
        })?;
        backends.get(index)
    }
}
