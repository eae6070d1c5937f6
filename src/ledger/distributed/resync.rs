//! Resynchronisation after the store may have lost data, together with the other gateways.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use gatekeeper_filters::kernel::LicenseId;
use tokio::sync::mpsc::UnboundedReceiver;

use super::{
    DistributedLedger,
    resync_queue::ResyncQueue,
    sync::{COALESCE, CONCURRENT_SYNCS},
    sync_message::SyncMessage,
};
use crate::redis_store::pubsub::Subscriber;

const CHANNEL: &str = "gk:ledger";
/// Messages on the channel.
const LOST: &str = "lost";
const RESYNC_QUERY: &str = "asks";
const RESYNCED: &str = "whole";
const PRESUMED: &str = "presumed";
/// How long a resynchronised gateway waits for the others that are alive.
const BARRIER_TIMEOUT: Duration = Duration::from_millis(1_500);
const RESYNC_QUERY_INTERVAL: Duration = Duration::from_millis(50);

impl DistributedLedger {
    /// Sends the store the full state of every licence, after it may have lost data. Requests are decided
    /// there again once this is complete.
    pub(super) async fn resync(
        &self,
        loss: u64,
        messages: &mut UnboundedReceiver<SyncMessage>,
        queue: &mut ResyncQueue,
    ) {
        if loss == 0 || !self.store.is_up() {
            return;
        }
        self.save_allowances();
        let began = Instant::now();
        let Ok(instance) = self.store.life().await else { return };
        self.reservations.forget_store_knowledge();
        let licenses = self.local.accounts.licenses();
        for some in licenses.chunks(CONCURRENT_SYNCS) {
            let failed = self.sync(some).await;
            // One retry: nothing is granted before all of it has arrived.
            queue.due.extend(self.sync(&failed).await);
            if !self.store.is_up() {
                // `catch_up` starts over when the store is back.
                return;
            }
            self.process_pending(messages, queue).await;
        }
        // Emptied again during the resync: what was sent first is gone.
        match self.store.life().await {
            Ok(now) if now == instance => {}
            Ok(_) => return self.store.lost(),
            Err(_) => return,
        }
        self.barrier.lock().begin(instance, loss);
        self.announce_resynced().await;
        let mut queried: Option<Instant> = None;
        while !self.barrier.lock().are_resynced(&self.store.peers())
            && began.elapsed() < BARRIER_TIMEOUT
        {
            if *self.store.losses().borrow() != loss {
                // A newer loss: no gateway reports itself resynchronised until it has recovered from that one.
                return;
            }
            // Repeated: replies sent before this gateway subscribed are lost.
            if queried.is_none_or(|at| at.elapsed() >= RESYNC_QUERY_INTERVAL) {
                queried = Some(Instant::now());
                self.announce(RESYNC_QUERY).await;
            }
            self.process_pending(messages, queue).await;
            tokio::time::sleep(COALESCE).await;
        }
        self.resynced_loss.store(loss, Relaxed);
        self.resynced.notify_waiters();
        log::info!(
            "The usage of {} licences was written back to the shared store in {} ms.",
            licenses.len(),
            began.elapsed().as_millis()
        );
    }

    /// Whether the store again has everything of this gateway that it may have lost.
    pub(super) fn is_resynced(&self) -> bool {
        self.store.is_up() && self.barrier.lock().loss() == *self.store.losses().borrow()
    }

    pub(super) async fn announce_resynced(&self) {
        self.announce(RESYNCED).await;
    }

    /// Publishes a message about the store instance that this gateway has resynchronised with.
    async fn announce(&self, what: &str) {
        let instance = self.barrier.lock().instance().to_owned();
        if !instance.is_empty() {
            let text = format!("{what} {instance} {}", self.gateway_id.gateway);
            let _ = self.store.publish(CHANNEL, &text).await;
        }
    }

    pub(super) async fn publish_loss(&self) {
        let _ = self.store.publish(CHANNEL, LOST).await;
    }

    /// Has every gateway, this one too, send its full state of a licence.
    pub(super) async fn request_sync(&self, license: LicenseId, queue: &mut ResyncQueue) {
        if queue.may_query(license) {
            queue.due.insert(license);
            let text = format!("{PRESUMED} {}", license.to_hex());
            let _ = self.store.publish(CHANNEL, &text).await;
        }
    }

    /// Handles the messages of other gateways.
    pub fn subscriber(self: &Arc<Self>) -> Subscriber {
        let ledger = self.clone();
        let on_message = move |boot: &str, text: &str| match text.split_once(' ') {
            None if text == LOST => ledger.store.lost(),
            Some((RESYNC_QUERY, _)) => drop(ledger.sync_queue.send(SyncMessage::ResyncQueried)),
            Some((PRESUMED, license)) => {
                if let Some(license) = LicenseId::from_hex(license) {
                    let _ = ledger.sync_queue.send(SyncMessage::SyncLicense { license });
                }
            }
            Some((RESYNCED, rest)) => {
                if let Some((instance, gateway)) = rest.split_once(' ') {
                    ledger.barrier.lock().record(boot, instance, gateway);
                }
            }
            _ => {}
        };
        Subscriber { channel: CHANNEL, heard: Box::new(on_message) }
    }
}
