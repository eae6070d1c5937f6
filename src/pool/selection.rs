//! Load balancing over keys: the strategies, each a `BackendSelection`.
//!
//! One backend is one key. A backend's identity is its address and weight, so each key gets an
//! address of its own that is never connected to; the key itself is in `ext`.

mod affinity;
mod fastest;
mod least_busy;
mod round_robin;
mod unique_backends;

use std::{
    collections::BTreeSet,
    net::{Ipv6Addr, SocketAddr, SocketAddrV6},
    sync::Arc,
};

use pingora_load_balancing::{
    Backend,
    selection::{BackendIter, BackendSelection},
};

use self::{
    affinity::Affinity, fastest::Fastest, least_busy::LeastBusy, round_robin::SmoothRoundRobin,
};
use super::key::MasterKey;
use crate::config::settings::Strategy;

/// A key as the load balancer knows it.
pub fn backend(index: usize, key: &Arc<MasterKey>) -> Backend {
    let address = SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, 0, index as u32, 0);
    let mut ext = http::Extensions::new();
    ext.insert(key.clone());
    Backend {
        addr: pingora_core::protocols::l4::socket::SocketAddr::Inet(SocketAddr::V6(address)),
        weight: key.weight.max(1) as usize,
        ext,
    }
}

/// The place of a backend's key in the provider's list.
pub fn index(backend: &Backend) -> Option<usize> {
    match &backend.addr {
        pingora_core::protocols::l4::socket::SocketAddr::Inet(SocketAddr::V6(address)) => {
            usize::try_from(address.flowinfo()).ok()
        }
        _ => None,
    }
}

/// How the keys of one provider take turns.
pub struct Selection {
    strategy: StrategyKind,
    affinity: Arc<Affinity>,
}

enum StrategyKind {
    RoundRobin(Arc<SmoothRoundRobin>),
    LeastBusy(Arc<LeastBusy>),
    Fastest(Arc<Fastest>),
}

/// Keys in the order in which they should serve, each once.
pub enum Candidates {
    RoundRobin(round_robin::RoundRobinIter),
    LeastBusy(least_busy::LeastBusyIter),
    Fastest(fastest::FastestIter),
    Affinity(affinity::AffinityIter),
}

impl Selection {
    pub fn new(strategy: Strategy, keys: &[Arc<MasterKey>]) -> Self {
        let backends: BTreeSet<Backend> =
            keys.iter().enumerate().map(|(index, key)| backend(index, key)).collect();
        let strategy = match strategy {
            Strategy::RoundRobin => {
                StrategyKind::RoundRobin(Arc::new(SmoothRoundRobin::build(&backends)))
            }
            Strategy::LeastBusy => StrategyKind::LeastBusy(Arc::new(LeastBusy::build(&backends))),
            Strategy::Fastest => StrategyKind::Fastest(Arc::new(Fastest::build(&backends))),
        };
        Self { strategy, affinity: Arc::new(Affinity::build(&backends)) }
    }

    /// A conversation keeps its account, so that the provider's prompt cache stays warm; all else goes
    /// by the strategy.
    pub fn candidates(&self, conversation: Option<u64>) -> Candidates {
        if let Some(conversation) = conversation {
            return Candidates::Affinity(self.affinity.iter(&conversation.to_be_bytes()));
        }
        match &self.strategy {
            StrategyKind::RoundRobin(selection) => Candidates::RoundRobin(selection.iter(&[])),
            StrategyKind::LeastBusy(selection) => Candidates::LeastBusy(selection.iter(&[])),
            StrategyKind::Fastest(selection) => Candidates::Fastest(selection.iter(&[])),
        }
    }
}

impl BackendIter for Candidates {
    fn next(&mut self) -> Option<&Backend> {
        match self {
            Candidates::RoundRobin(turn) => turn.next(),
            Candidates::LeastBusy(turn) => turn.next(),
            Candidates::Fastest(turn) => turn.next(),
            Candidates::Affinity(turn) => turn.next(),
        }
    }
}

#[cfg(test)]
mod tests;
