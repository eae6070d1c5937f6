//! Notifies systemd and the predecessor once all ports accept connections.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use pingora_core::{server::ShutdownWatch, services::background::BackgroundService};

use crate::{
    ledger::DistributedLedger,
    lifecycle::Lifecycle,
    os::{sockets::Listeners, systemd},
    upgrade::{self, Predecessor, UpgradeServer},
};

/// Sends "ready" once all ports accept connections.
pub(super) struct ReadyNotifier {
    pub phase: Arc<Lifecycle>,
    pub addresses: [SocketAddr; 2],
    pub ports: Arc<Listeners>,
    /// Of ports.
    pub count: usize,
    pub shared: Option<Arc<DistributedLedger>>,
    pub predecessor: Option<Arc<Predecessor>>,
    pub handover: Option<Arc<UpgradeServer>>,
}

#[async_trait]
impl BackgroundService for ReadyNotifier {
    async fn start(&self, _shutdown: ShutdownWatch) {
        while self.ports.open.load(Relaxed) < self.count {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        if let (Some(shared), Some(_)) = (&self.shared, &self.predecessor) {
            shared.await_resync_until(Instant::now() + upgrade::STORE_TIME).await;
        }
        if let Some(handover) = &self.handover {
            handover.open();
        }
        if !self.phase.serve() {
            // A signal came first: the predecessor must not stop for this process.
            if let Some(predecessor) = &self.predecessor {
                predecessor.failed("it was told to end");
            }
            return;
        }
        if let Some(predecessor) = &self.predecessor {
            predecessor.ready();
        }
        systemd::ready();
        let [public, admin] = self.addresses;
        log::info!(
            "Gatekeeper serves apps on {public}, operators on {admin} (dashboard, /status, /metrics)."
        );
    }
}
