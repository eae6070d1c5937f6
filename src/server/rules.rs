//! Limits of connections, from the live configuration.

use std::{net::IpAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;

use crate::{downstream::accept::Rules, runtime::snapshot::Snapshot};

/// For apps.
pub struct PublicRules(pub Arc<ArcSwap<Snapshot>>);

/// For operators: there are few places, and no shares.
pub struct AdminRules(pub Arc<ArcSwap<Snapshot>>);

impl Rules for PublicRules {
    fn header_timeout(&self) -> Duration {
        self.0.load().settings.server.limits.header_timeout
    }

    fn per_address(&self) -> Option<usize> {
        self.0.load().settings.server.limits.connections_per_address
    }

    fn limits(&self, peer: IpAddr) -> bool {
        let snapshot = self.0.load();
        let server = &snapshot.settings.server;
        let is_trusted = || server.trusted_proxies.iter().any(|network| network.contains(&peer));
        server.limits_by_address() && !peer.is_loopback() && !is_trusted()
    }
}

impl Rules for AdminRules {
    fn header_timeout(&self) -> Duration {
        self.0.load().settings.server.limits.header_timeout
    }

    fn per_address(&self) -> Option<usize> {
        None
    }

    fn limits(&self, _peer: IpAddr) -> bool {
        false
    }
}
