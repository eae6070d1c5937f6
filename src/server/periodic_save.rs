//! Keeps over restarts what was learned of targets and when webhooks came: in the store, from time to time and at the
//! end.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use pingora_core::{server::ShutdownWatch, services::background::BackgroundService};

use crate::{budget::SpendTracker, ledger::EmbeddedLedger, telemetry::Telemetry};

const EVERY: Duration = Duration::from_secs(10);

#[derive(Clone)]
pub struct Keeper {
    pub store: Arc<EmbeddedLedger>,
    pub spending: Arc<SpendTracker>,
    pub telemetry: Arc<Telemetry>,
}

impl Keeper {
    /// A store that another process owns is that one's to write.
    pub fn keep(&self) {
        if !self.store.is_here() {
            return;
        }
        let changed = self.spending.unseen_rates.changed();
        if !changed.is_empty()
            && let Err(problem) = self.store.keep_unseen(&changed)
        {
            log::warn!("store: estimates learned from answers were not saved: {problem}");
        }
        let webhooks = self.telemetry.webhooks.changed();
        if !webhooks.is_empty()
            && let Err(problem) = self.store.keep_webhooks(&webhooks)
        {
            log::warn!("store: when webhooks came was not saved: {problem}");
        }
    }
}

#[async_trait]
impl BackgroundService for Keeper {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let mut ticks = tokio::time::interval(EVERY);
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    let keeper = self.clone();
                    let _ = tokio::task::spawn_blocking(move || keeper.keep()).await;
                }
                _ = shutdown.changed() => return,
            }
        }
    }
}
