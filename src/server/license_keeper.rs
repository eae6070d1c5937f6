//! What licences of our own need from time to time: keys that were shown are forgotten, purchases whose webhooks were
//! lost are found.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use pingora_core::{server::ShutdownWatch, services::background::BackgroundService};

use crate::{lifecycle::Lifecycle, runtime::snapshot::Snapshot};

/// Between two looks at whether something is due.
const EVERY: Duration = Duration::from_secs(1);

pub struct LicenseKeeper {
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    pub phase: Arc<Lifecycle>,
}

#[async_trait]
impl BackgroundService for LicenseKeeper {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let mut ticks = tokio::time::interval(EVERY);
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    let issued = self.snapshot.load().licenses.issued.clone();
                    if let Some(issued) = issued.filter(|_| self.phase.is_serving()) {
                        issued.tend().await;
                    }
                }
                _ = shutdown.changed() => return,
            }
        }
    }
}
