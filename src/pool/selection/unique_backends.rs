//! What every strategy needs: the key of a backend, and backends that are offered once each.

use std::sync::Arc;

use pingora_load_balancing::Backend;

use crate::pool::key::MasterKey;

pub(super) fn key(backend: &Backend) -> Option<&Arc<MasterKey>> {
    backend.ext.get::<Arc<MasterKey>>()
}

/// Backends that a strategy offers one after the other, each once.
pub(super) struct UniqueBackends {
    pub(super) left: Vec<u16>,
}

impl UniqueBackends {
    pub(super) fn all(count: usize) -> Self {
        Self { left: (0..count.min(usize::from(u16::MAX))).map(|index| index as u16).collect() }
    }

    /// Takes out the one for which `cost` is least.
    pub(super) fn cheapest<C: PartialOrd>(&mut self, cost: impl Fn(usize) -> C) -> Option<usize> {
        let costs =
            self.left.iter().enumerate().map(|(place, index)| (cost((*index).into()), place));
        let (_, place) = costs.reduce(|best, next| if next.0 < best.0 { next } else { best })?;
        Some(self.left.swap_remove(place).into())
    }

    /// Takes out the one at a place of those that are left.
    pub(super) fn take(&mut self, place: usize) -> usize {
        self.left.swap_remove(place).into()
    }
}
