//! Background sync from this gateway to Redis. A single task sends all updates in order, so a newer update
//! can never be overwritten by an older one.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use gatekeeper_filters::kernel::{About, LicenseId, UnixMs};
use rustc_hash::FxHashSet;
use tokio::sync::{mpsc::UnboundedReceiver, oneshot};

use super::{
    DistributedLedger, open_reservations::EndedReservation, resync_queue::ResyncQueue,
    scripts::GatewayId, sync_message::SyncMessage,
};
use crate::redis_store::{SILENCE, StoreFailure, script::ScriptCall, wait_budget::WaitBudget};

/// Messages taken from the queue at a time.
const BATCH: usize = 256;
/// Licences whose full state is sent concurrently.
pub const CONCURRENT_SYNCS: usize = 64;
/// Pause between two batches. The first message of an idle gateway is sent at once; until a settlement
/// is sent, its request counts as open, so that nothing is granted twice.
pub const COALESCE: Duration = Duration::from_millis(1);
/// Interval of renewals and retries.
const TICK: Duration = Duration::from_secs(1);
/// Age at which an open request is renewed.
const RENEW_AFTER: Duration = Duration::from_secs(20);
const SWEEP_INTERVAL: Duration = Duration::from_secs(600);
/// How long a stopping process waits for the store.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(300);
/// How long an unresponsive store may delay the hand-over to another process.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);
/// Replies of the scripts: the update was applied, or earlier data of this gateway is missing.
const APPLIED_CODE: &str = "1";
const LOST_CODE: &str = "2";

impl DistributedLedger {
    pub(super) async fn run_sync(self: Arc<Self>, mut messages: UnboundedReceiver<SyncMessage>) {
        let (mut losses, mut ups) = (self.store.losses(), self.store.ups());
        losses.mark_changed();
        let mut queue = ResyncQueue::default();
        let mut tick = tokio::time::interval(TICK);
        let mut swept = Instant::now();
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                biased;
                changed = losses.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let loss = *losses.borrow_and_update();
                    if self.is_handed_over() {
                        continue;
                    }
                    self.resync(loss, &mut messages, &mut queue).await;
                }
                // Sends what could not be sent during the outage.
                changed = ups.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    if !self.is_handed_over() {
                        self.catch_up(&mut messages, &mut queue).await;
                    }
                }
                count = messages.recv_many(&mut batch, BATCH) => {
                    if count == 0 {
                        return;
                    }
                    self.process(std::mem::take(&mut batch), &mut queue).await;
                    // Requests that end during this pause share the next batch.
                    tokio::time::sleep(COALESCE).await;
                }
                _ = tick.tick() => {
                    if self.is_handed_over() {
                        continue;
                    }
                    self.save_allowances();
                    self.catch_up(&mut messages, &mut queue).await;
                    if swept.elapsed() >= SWEEP_INTERVAL {
                        swept = Instant::now();
                        self.reservations.sweep(UnixMs::now());
                    }
                }
            }
        }
    }

    /// Sends the store what it has not received yet.
    async fn catch_up(
        &self,
        messages: &mut UnboundedReceiver<SyncMessage>,
        queue: &mut ResyncQueue,
    ) {
        let loss = *self.store.losses().borrow();
        if self.resynced_loss.load(Relaxed) != loss {
            // The last resync was interrupted.
            self.resync(loss, messages, queue).await;
        } else if self.store.is_up() {
            self.renew(queue).await;
        }
    }

    /// Saves the allowances in the database: each is granted once a window, over restarts too.
    pub(super) fn save_allowances(&self) {
        let changed = self.reservations.take_changed_allowances();
        if changed.is_empty() {
            return;
        }
        let rows: Vec<_> = changed.iter().map(|(license, used)| (*license, used.rows())).collect();
        if let Err(problem) = self.local.db.lock().keep_leases(&rows, UnixMs::now()) {
            log::error!("Saving the outage allowances failed: {problem}");
            for (license, _) in changed {
                self.reservations.with(&license, |local| local.allowance_changed = true);
            }
        }
    }

    async fn renew(&self, queue: &mut ResyncQueue) {
        self.cancel(queue).await;
        let mut licenses = self.reservations.not_renewed_for(RENEW_AFTER);
        licenses.extend(queue.take_due());
        for some in licenses.chunks(CONCURRENT_SYNCS) {
            queue.due.extend(self.sync(some).await);
        }
    }

    /// Sends the full state of these licences; returns those that the store did not apply.
    pub(super) async fn sync(&self, licenses: &[LicenseId]) -> Vec<LicenseId> {
        let applied = join_all(licenses.iter().map(async |license| {
            let share = || self.local.accounts.contribution(license);
            let state = self.reservations.full_state(license, share);
            let call = self.scripts.sync(&self.gateway_id, license, &state);
            let reply = self.send(call).await;
            self.apply_reply(license, state.ended, reply)
        }));
        let applied = applied.await.into_iter().zip(licenses);
        applied.filter(|(is_applied, _)| !is_applied).map(|(_, license)| *license).collect()
    }

    async fn send(&self, call: ScriptCall<'_>) -> Result<Vec<String>, StoreFailure> {
        self.store.call_within(call, &mut WaitBudget::of(SILENCE)).await
    }

    /// Applies the store's reply about settled requests; whether the store has applied them.
    fn apply_reply(
        &self,
        license: &LicenseId,
        ended: Vec<EndedReservation>,
        reply: Result<Vec<String>, StoreFailure>,
    ) -> bool {
        let owing = self.read_reply(reply);
        if let Some(owing) = &owing {
            ended
                .iter()
                .for_each(|one| self.apply_decision(*license, one, owing.contains(&one.hold)));
        }
        self.reservations.mark_synced(license, ended, owing.is_some());
        owing.is_some()
    }

    /// The requests that have to pay a shared message; `None` if the update was not applied. A loss that
    /// the store reports is passed on to the other gateways.
    fn read_reply(&self, reply: Result<Vec<String>, StoreFailure>) -> Option<Vec<u64>> {
        let reply = reply.ok()?;
        match &*reply {
            [code, owing @ ..] if code == APPLIED_CODE => {
                Some(owing.iter().filter_map(|name| GatewayId::hold(name)).collect())
            }
            [code] if code == LOST_CODE => {
                self.report_loss();
                None
            }
            _ => None,
        }
    }

    /// Cancels abandoned reservations; those that the store did not confirm are kept for a retry.
    async fn cancel(&self, queue: &mut ResyncQueue) {
        let cancellations = std::mem::take(&mut queue.cancellations);
        let replies = join_all(cancellations.iter().map(async |cancel| {
            let call = self.scripts.cancel(&self.gateway_id, cancel);
            let reply = self.send(call).await;
            let refused = matches!(reply, Err(StoreFailure::Refused));
            (self.read_reply(reply), refused)
        }));
        for ((owing, refused), cancel) in replies.await.into_iter().zip(cancellations) {
            let license = cancel.license;
            if refused {
                // A full sync repairs a key of the wrong type.
                queue.due.insert(license);
            }
            let Some(owing) = owing else {
                queue.cancellations.push(cancel);
                continue;
            };
            // Full states no longer need to list it.
            self.reservations.end(cancel.hold);
            if !owing.is_empty() {
                let ended = EndedReservation {
                    hold: cancel.hold,
                    taken: cancel.taken,
                    about: About::default(),
                    group: None,
                    message: None,
                    returned: None,
                };
                self.charge_late(license, &ended);
            }
        }
    }

    /// The store has lost data: starts a resync here and at the other gateways.
    pub(super) fn report_loss(&self) {
        self.store.lost();
        let _ = self.sync_queue.send(SyncMessage::StoreLost);
    }

    /// Processes the messages that have arrived during a resync.
    pub(super) async fn process_pending(
        &self,
        messages: &mut UnboundedReceiver<SyncMessage>,
        queue: &mut ResyncQueue,
    ) {
        let mut pending = Vec::new();
        while let Ok(message) = messages.try_recv() {
            pending.push(message);
        }
        self.process(pending, queue).await;
    }

    /// Sends what these messages ask for; settlements are combined by licence.
    async fn process(&self, messages: Vec<SyncMessage>, queue: &mut ResyncQueue) {
        let mut settled = FxHashSet::default();
        let (mut adjusted, mut flushed) = (Vec::new(), Vec::new());
        for message in messages {
            match message {
                SyncMessage::Settled { license } => drop(settled.insert(license)),
                SyncMessage::Cancel(cancel) => queue.cancel(cancel),
                SyncMessage::QueryPeers { license } => self.request_sync(license, queue).await,
                SyncMessage::SyncLicense { license } => drop(queue.due.insert(license)),
                SyncMessage::Adjusted { license, done } => adjusted.push((license, done)),
                SyncMessage::StoreLost => self.publish_loss().await,
                // Does not wait for the barrier: two gateways would wait for each other.
                SyncMessage::ResyncQueried if self.is_resynced() => self.announce_resynced().await,
                // `resync` announces it when it is complete.
                SyncMessage::ResyncQueried => {}
                SyncMessage::Flush(done) => flushed.push(done),
            }
        }
        let failed = join_all(settled.iter().map(async |license| {
            let share = || self.local.accounts.contribution(license);
            // `None`: an earlier batch has sent it already.
            let settlements = self.reservations.take_unsynced(license, share)?;
            let call = self.scripts.settle(&self.gateway_id, license, &settlements);
            let reply = self.send(call).await;
            (!self.apply_reply(license, settlements.ended, reply)).then_some(*license)
        }));
        queue.due.extend(failed.await.into_iter().flatten());
        if !queue.cancellations.is_empty() {
            self.cancel(queue).await;
        }
        self.synced.notify_waiters();
        self.sync_adjusted(adjusted, queue).await;
        for done in flushed {
            let _ = done.send(());
        }
    }

    async fn sync_adjusted(
        &self,
        adjusted: Vec<(LicenseId, oneshot::Sender<bool>)>,
        queue: &mut ResyncQueue,
    ) {
        for (license, done) in adjusted {
            let is_applied = self.sync(&[license]).await.is_empty();
            if !is_applied {
                queue.due.insert(license);
            }
            let _ = done.send(is_applied);
        }
    }

    /// Waits until every queued settlement is in the local accounts and has been sent, and saves the
    /// allowances; whether that was done in time.
    pub(super) async fn drain_outbox(&self) -> bool {
        let (done, is_done) = oneshot::channel();
        let sent = self.sync_queue.send(SyncMessage::Flush(done)).is_ok();
        let is_drained = sent && tokio::time::timeout(DRAIN_TIMEOUT, is_done).await.is_ok();
        self.save_allowances();
        is_drained
    }

    /// Waits until everything queued so far has been sent, if the store answers.
    pub async fn flush(&self) {
        let (done, is_done) = oneshot::channel();
        if self.store.is_up() && self.sync_queue.send(SyncMessage::Flush(done)).is_ok() {
            let _ = tokio::time::timeout(FLUSH_TIMEOUT, is_done).await;
        }
    }
}
