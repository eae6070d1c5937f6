//! Background sync from this gateway to Redis. A single task sends all updates in order, so a newer update
//! can never be overwritten by an older one.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use gatekeeper_filters::kernel::{About, LicenseId, UnixMs};
use rustc_hash::{FxHashMap, FxHashSet};
use tokio::sync::{mpsc::UnboundedReceiver, oneshot};

use super::{
    DistributedLedger,
    open_reservations::EndedReservation,
    scripts::{CancelArgs, GatewayId},
    sync_message::SyncMessage,
};
use crate::redis_store::{
    SILENCE, StoreFailure, pubsub::Subscriber, script::ScriptCall, wait_budget::WaitBudget,
};

/// Settlements told in one go, and licences synced at one time.
const BATCH: usize = 256;
const SYNCED: usize = 64;
/// Between two tellings. The first of an idle gateway is told at once; until it is told, what ended
/// counts as open, so that nothing is granted twice.
const GATHER: Duration = Duration::from_millis(1);
/// Between two looks for what has to be renewed or told again.
const LOOK: Duration = Duration::from_secs(1);
/// An open request is renewed after this.
const RENEW: Duration = Duration::from_secs(20);
/// A request that was given up is cancelled on the store. If the store forgets that, it may still be
/// granted what it asked for while a connection dies; after this what it left is put right.
const DOUBT: Duration = Duration::from_secs(70);
const SWEEP: Duration = Duration::from_secs(600);
/// How long the end of the process waits for the store.
const FLUSH: Duration = Duration::from_millis(300);
/// How long a store that does not answer holds up the way of this ledger to another process.
const SETTLE_UP: Duration = Duration::from_secs(3);
const CHANNEL: &str = "gk:ledger";
const LOST: &str = "lost";
/// What scripts answer that took what they were told.
const TOOK: &str = "1";
/// What they answer when something told before is gone.
const LOST_CODE: &str = "2";
const ASKS: &str = "asks";
const WHOLE: &str = "whole";
const PRESUMED: &str = "presumed";
/// Between two questions about what is presumed of gateways, for one licence.
const PRESUMED_EVERY: Duration = Duration::from_secs(5);
/// How long a gateway that has put back everything waits for the others that live to do so.
const OTHERS: Duration = Duration::from_millis(1_500);
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// Licences about which the store has to be told everything.
#[derive(Default)]
struct ResyncQueue {
    now: FxHashSet<LicenseId>,
    /// In the order of their moments.
    later: VecDeque<(Instant, LicenseId)>,
    /// Requests that are to be cancelled on the store.
    given_up: Vec<CancelArgs>,
    /// When the other gateways were last asked about what is presumed of them.
    asked: FxHashMap<LicenseId, Instant>,
}

impl ResyncQueue {
    fn give_up(&mut self, given_up: CancelArgs) {
        self.later.push_back((Instant::now() + DOUBT, given_up.license));
        self.given_up.push(given_up);
    }

    /// Whether the other gateways are to be asked about a licence.
    fn ask(&mut self, license: LicenseId) -> bool {
        let now = Instant::now();
        self.asked.retain(|_, at| now.duration_since(*at) < PRESUMED_EVERY);
        let is_first = !self.asked.contains_key(&license);
        self.asked.entry(license).or_insert(now);
        is_first
    }

    fn take(&mut self) -> Vec<LicenseId> {
        let now = Instant::now();
        while let Some((_, license)) = self.later.pop_front_if(|(due, _)| *due <= now) {
            self.now.insert(license);
        }
        self.now.drain().collect()
    }
}

impl DistributedLedger {
    pub(super) async fn speak(self: Arc<Self>, mut hearing: UnboundedReceiver<SyncMessage>) {
        let (mut losses, mut ups) = (self.store.losses(), self.store.ups());
        losses.mark_changed();
        let mut due = ResyncQueue::default();
        let mut look = tokio::time::interval(LOOK);
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
                    if self.is_away() {
                        continue;
                    }
                    self.put_back(loss, &mut hearing, &mut due).await;
                }
                // What could not be told meanwhile.
                changed = ups.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    if !self.is_away() {
                        self.catch_up(&mut hearing, &mut due).await;
                    }
                }
                count = hearing.recv_many(&mut batch, BATCH) => {
                    if count == 0 {
                        return;
                    }
                    self.tell(std::mem::take(&mut batch), &mut due).await;
                    // What ends meanwhile is told together.
                    tokio::time::sleep(GATHER).await;
                }
                _ = look.tick() => {
                    // Another process speaks for this gateway.
                    if self.is_away() {
                        continue;
                    }
                    self.keep_leases();
                    self.catch_up(&mut hearing, &mut due).await;
                    if swept.elapsed() >= SWEEP {
                        swept = Instant::now();
                        self.holds.sweep(UnixMs::now());
                    }
                }
            }
        }
    }

    /// Tells the store what it has still to hear.
    async fn catch_up(&self, hearing: &mut UnboundedReceiver<SyncMessage>, due: &mut ResyncQueue) {
        let loss = *self.store.losses().borrow();
        if self.whole.load(Relaxed) != loss {
            // It fell silent while everything was put back.
            self.put_back(loss, hearing, due).await;
        } else if self.store.is_up() {
            self.renew(due).await;
        }
    }

    /// Tells the store everything, after it may have lost something. Only then are requests decided
    /// there again.
    async fn put_back(
        &self,
        loss: u64,
        hearing: &mut UnboundedReceiver<SyncMessage>,
        due: &mut ResyncQueue,
    ) {
        if loss == 0 || !self.store.is_up() {
            return;
        }
        self.keep_leases();
        let began = Instant::now();
        let Ok(life) = self.store.life().await else { return };
        self.holds.forget_spoken();
        let licenses = self.local.book.licenses();
        for some in licenses.chunks(SYNCED) {
            let untold = self.sync(some).await;
            // Once more: nothing is granted before all of it is there.
            due.now.extend(self.sync(&untold).await);
            if !self.store.is_up() {
                // Begun anew once it is back.
                return;
            }
            let mut waiting = Vec::new();
            while let Ok(said) = hearing.try_recv() {
                waiting.push(said);
            }
            self.tell(waiting, due).await;
        }
        // Emptied once more meanwhile: what was put back first is gone.
        match self.store.life().await {
            Ok(now) if now == life => {}
            Ok(_) => return self.store.lost(),
            Err(_) => return,
        }
        self.peers.lock().begin(life, loss);
        self.announce(WHOLE).await;
        let mut asked: Option<Instant> = None;
        while !self.peers.lock().are_whole(&self.store.peers()) && began.elapsed() < OTHERS {
            if *self.store.losses().borrow() != loss {
                // Begun anew: until it has put back what the newest loss took, no gateway says that it is whole.
                return;
            }
            // Again and again: what they answered before this gateway listened is lost.
            if asked.is_none_or(|at| at.elapsed() >= ASK_AGAIN) {
                asked = Some(Instant::now());
                self.announce(ASKS).await;
            }
            let mut waiting = Vec::new();
            while let Ok(said) = hearing.try_recv() {
                waiting.push(said);
            }
            self.tell(waiting, due).await;
            tokio::time::sleep(GATHER).await;
        }
        self.whole.store(loss, Relaxed);
        self.came_back.notify_waiters();
        log::info!(
            "The usage of {} licences was written back to the shared store in {} ms.",
            licenses.len(),
            began.elapsed().as_millis()
        );
    }

    /// Leases are had once a window, whatever restarts between.
    fn keep_leases(&self) {
        let leases = self.holds.take_leases();
        if leases.is_empty() {
            return;
        }
        let kept: Vec<_> = leases.iter().map(|(license, lease)| (*license, lease.kept())).collect();
        if let Err(problem) = self.local.db.lock().keep_leases(&kept, UnixMs::now()) {
            log::error!("store: leases cannot be saved: {problem}");
            leases.iter().for_each(|(license, _)| self.holds.with(license, |l| l.leased = true));
        }
    }

    /// Whether everything is back that the store may have lost of this gateway.
    fn has_put_back(&self) -> bool {
        self.store.is_up() && self.peers.lock().loss() == *self.store.losses().borrow()
    }

    /// Says something about the life of the store that this gateway knows.
    async fn announce(&self, what: &str) {
        let life = self.peers.lock().life().to_owned();
        if !life.is_empty() {
            let text = format!("{what} {life} {}", self.speaker.gateway);
            let _ = self.store.publish(CHANNEL, &text).await;
        }
    }

    async fn renew(&self, due: &mut ResyncQueue) {
        self.cancel(due).await;
        let mut licenses = self.holds.untold_for(RENEW);
        licenses.extend(due.take());
        for some in licenses.chunks(SYNCED) {
            due.now.extend(self.sync(some).await);
        }
    }

    /// Tells everything about these licences; those that the store did not take.
    async fn sync(&self, licenses: &[LicenseId]) -> Vec<LicenseId> {
        let told = join_all(licenses.iter().map(async |license| {
            let listed = self.holds.list(license, || self.local.book.contribution(license));
            let call = self.scripts.sync(&self.speaker, license, &listed);
            let answer = self.tell_it(call).await;
            self.told_of(license, listed.ended, answer)
        }));
        let told = told.await.into_iter().zip(licenses);
        told.filter(|(told, _)| !told).map(|(_, license)| *license).collect()
    }

    async fn tell_it(&self, call: ScriptCall<'_>) -> Result<Vec<String>, StoreFailure> {
        self.store.call_within(call, &mut WaitBudget::of(SILENCE)).await
    }

    /// Takes in what the store answers about settled requests; whether it took what it was told.
    fn told_of(
        &self,
        license: &LicenseId,
        ended: Vec<EndedReservation>,
        answer: Result<Vec<String>, StoreFailure>,
    ) -> bool {
        let owing = self.took(answer);
        if let Some(owing) = &owing {
            ended.iter().for_each(|one| self.decided(*license, one, owing.contains(&one.hold)));
        }
        self.holds.told(license, ended, owing.is_some());
        owing.is_some()
    }

    /// The requests that have to pay a shared message, of what the store took; if what it was told
    /// before is gone, all are to know.
    fn took(&self, answer: Result<Vec<String>, StoreFailure>) -> Option<Vec<u64>> {
        let answer = answer.ok()?;
        match &*answer {
            [code, owing @ ..] if code == TOOK => {
                Some(owing.iter().filter_map(|name| GatewayId::hold(name)).collect())
            }
            [code] if code == LOST_CODE => {
                self.lost();
                None
            }
            _ => None,
        }
    }

    /// Cancels requests that were given up; those that can't be told now are told later.
    async fn cancel(&self, due: &mut ResyncQueue) {
        let given_up = std::mem::take(&mut due.given_up);
        let cancelled = join_all(given_up.iter().map(async |given_up| {
            let call = self.scripts.cancel(&self.speaker, given_up);
            let answer = self.tell_it(call).await;
            let refused = matches!(answer, Err(StoreFailure::Refused));
            (self.took(answer), refused)
        }));
        for ((owing, refused), given_up) in cancelled.await.into_iter().zip(given_up) {
            let license = given_up.license;
            if refused {
                // Telling everything puts right what is wrong there.
                due.now.insert(license);
            }
            let Some(owing) = owing else {
                due.given_up.push(given_up);
                continue;
            };
            // A list of what is open may leave it out from now on.
            self.holds.end(given_up.hold);
            if !owing.is_empty() {
                let ended = EndedReservation {
                    hold: given_up.hold,
                    taken: given_up.taken,
                    about: About::default(),
                    group: None,
                    message: None,
                };
                self.charge_late(license, &ended);
            }
        }
    }

    /// The store was found empty.
    pub(super) fn lost(&self) {
        self.store.lost();
        let _ = self.said.send(SyncMessage::Lost);
    }

    /// Tells what was settled, licence by licence.
    async fn tell(&self, said: Vec<SyncMessage>, due: &mut ResyncQueue) {
        let mut settled = FxHashSet::default();
        let (mut adjusted, mut flushed) = (Vec::new(), Vec::new());
        for said in said {
            match said {
                SyncMessage::Settled { license } => drop(settled.insert(license)),
                SyncMessage::GivenUp(given_up) => due.give_up(given_up),
                SyncMessage::Presumed { license } => self.ask_about(license, due).await,
                SyncMessage::Tell { license } => drop(due.now.insert(license)),
                SyncMessage::Adjusted { license, done } => adjusted.push((license, done)),
                SyncMessage::Lost => drop(self.store.publish(CHANNEL, LOST).await),
                // Whether the others have, too, is nothing to wait for: two would wait for each other.
                SyncMessage::Asked if self.has_put_back() => self.announce(WHOLE).await,
                // It is announced when it is so.
                SyncMessage::Asked => {}
                SyncMessage::Flush(done) => flushed.push(done),
            }
        }
        let untold = join_all(settled.iter().map(async |license| {
            let news = self.holds.news(license, || self.local.book.contribution(license));
            // Told together with others before.
            let news = news?;
            let call = self.scripts.settle(&self.speaker, license, &news);
            let answer = self.tell_it(call).await;
            (!self.told_of(license, news.ended, answer)).then_some(*license)
        }));
        due.now.extend(untold.await.into_iter().flatten());
        if !due.given_up.is_empty() {
            self.cancel(due).await;
        }
        self.told.notify_waiters();
        self.tell_adjusted(adjusted, due).await;
        for done in flushed {
            let _ = done.send(());
        }
    }

    /// Has every gateway tell what it knows of a licence, this one too.
    async fn ask_about(&self, license: LicenseId, due: &mut ResyncQueue) {
        if due.ask(license) {
            due.now.insert(license);
            let text = format!("{PRESUMED} {}", license.to_hex());
            let _ = self.store.publish(CHANNEL, &text).await;
        }
    }

    async fn tell_adjusted(
        &self,
        adjusted: Vec<(LicenseId, oneshot::Sender<bool>)>,
        due: &mut ResyncQueue,
    ) {
        for (license, done) in adjusted {
            let took = self.sync(&[license]).await.is_empty();
            if !took {
                due.now.insert(license);
            }
            let _ = done.send(took);
        }
    }

    /// Hears of what other gateways noticed.
    pub fn listener(self: &Arc<Self>) -> Subscriber {
        let shared = self.clone();
        let heard = move |boot: &str, text: &str| match text.split_once(' ') {
            None if text == LOST => shared.store.lost(),
            Some((ASKS, _)) => drop(shared.said.send(SyncMessage::Asked)),
            Some((PRESUMED, license)) => {
                if let Some(license) = LicenseId::from_hex(license) {
                    let _ = shared.said.send(SyncMessage::Tell { license });
                }
            }
            Some((WHOLE, said)) => {
                if let Some((life, gateway)) = said.split_once(' ') {
                    shared.peers.lock().hear(boot, life, gateway);
                }
            }
            _ => {}
        };
        Subscriber { channel: CHANNEL, heard: Box::new(heard) }
    }

    /// Brings everything that is settled into the own book, whether the store answers or not.
    pub(super) async fn settle_outbox(&self) -> bool {
        let (done, is_done) = oneshot::channel();
        let sent = self.said.send(SyncMessage::Flush(done)).is_ok();
        let settled = sent && tokio::time::timeout(SETTLE_UP, is_done).await.is_ok();
        self.keep_leases();
        settled
    }

    /// Waits until the store has been told everything so far, if it answers.
    pub async fn flush(&self) {
        let (done, is_done) = oneshot::channel();
        if self.store.is_up() && self.said.send(SyncMessage::Flush(done)).is_ok() {
            let _ = tokio::time::timeout(FLUSH, is_done).await;
        }
    }
}
