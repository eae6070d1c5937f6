//! Looks after the connection: connects, beats, and tells when the store is away, back, or another one.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use redis::Cmd;
use tokio::time::timeout;

use super::{
    RedisStore, SILENCE, SUSPICIOUS, connection,
    connection::RedisConnection,
    durability_check::{self, UnsafeRedis},
    failure::{StoreFailure, StoreUnavailable},
    format,
    subscriber::BEATS,
    thread_connection,
    timing::{BEAT, CONNECT},
    wait_budget::WaitBudget,
};

/// How long a connection is kept that is silent.
const KEPT: Duration = Duration::from_secs(2);
/// Between two looks at a store that is away.
const LOOK: Duration = Duration::from_millis(100);
/// Seconds for which a sign stays that is not renewed.
const SIGN: u64 = 3600;

impl RedisStore {
    pub(super) async fn tend(self: Arc<Self>) {
        let mut said = None;
        loop {
            let was_up = self.is_up();
            let known = self.beat(was_up).await;
            // A connection may have broken meanwhile.
            let is_up = known.is_ok() && self.connection.load().is_some();
            // Both may be so, and are one loss. Said before anything is decided there.
            let is_new = is_up && self.is_new.swap(false, Relaxed);
            if is_up && (is_new || known == Ok(false)) {
                self.lost();
            }
            self.is_up.store(is_up, Relaxed);
            if is_up {
                *self.seen.lock() = Instant::now();
            }
            if is_up && !was_up {
                self.ups.send_modify(|ups| *ups += 1);
            }
            if said != Some(is_up) {
                said = Some(is_up);
                if is_up {
                    log::info!("The shared store answers.");
                } else {
                    log::warn!(
                        "The shared store does not answer: {}. Until it does, licences are checked in memory \
                         and usage is limited as `store.on_store_down` says.",
                        self.why.lock()
                    );
                }
            }
            tokio::select! {
                () = tokio::time::sleep(if is_up { BEAT } else { LOOK }) => {}
                () = self.suspicion.notified(), if is_up => {}
            }
        }
    }

    /// Whether the store still has the sign that this gateway left there. Listeners hear the beat,
    /// too: a subscription on which nothing comes is dead.
    async fn beat(&self, was_up: bool) -> Result<bool, StoreUnavailable> {
        if self.connection.load().is_none() {
            self.connect().await.map_err(|unfit| {
                self.failed(unfit.to_string());
                StoreUnavailable
            })?;
        }
        let sign = format!("gk:here:{}", self.boot);
        // Where an operation was suspicious, it has waited for the rest.
        let wait = if was_up { SILENCE - SUSPICIOUS } else { KEPT };
        let heard = self.heard.load(Relaxed);
        let mut patience = WaitBudget::of(wait);
        let found = async |wire: &mut RedisConnection| Cmd::get(&sign).query_async(wire).await;
        match self.try_within::<Option<u8>>(&mut patience, "GET", found).await {
            Ok(None) => {
                let _ = self.renew(&sign).await;
                // What is known to be missing must not be found by another look before it is said.
                if self.connection.load().is_some() { Ok(false) } else { Err(StoreUnavailable) }
            }
            Ok(Some(_)) => self.renew(&sign).await.map(|()| true),
            // Others are answered.
            Err(StoreFailure::Away) if was_up && self.heard.load(Relaxed) != heard => Ok(true),
            // The sign lies on one server of a cluster.
            Err(_) if self.is_cluster() => {
                let mut patience = WaitBudget::of(SILENCE);
                let beat = Cmd::publish(BEATS, self.message("beat"));
                let told = async |wire: &mut RedisConnection| beat.query_async::<u64>(wire).await;
                self.try_within(&mut patience, "PUBLISH", told).await?;
                Ok(true)
            }
            Err(_) => {
                if !was_up {
                    self.give_up(self.epoch.load(Relaxed));
                }
                Err(StoreUnavailable)
            }
        }
    }

    /// Not in one step with the look: if the answer of that came late, the sign would hide a loss.
    async fn renew(&self, sign: &str) -> Result<(), StoreUnavailable> {
        let mut pipe = redis::pipe();
        pipe.cmd("SET").arg(sign).arg(1).arg("EX").arg(SIGN).ignore();
        if !self.is_cluster() {
            format::renew(&mut pipe);
        }
        pipe.cmd("PUBLISH").arg(BEATS).arg(self.message("beat")).ignore();
        let told = async |wire: &mut RedisConnection| pipe.exec_async(wire).await;
        Ok(self.try_within(&mut WaitBudget::of(SILENCE), "a heartbeat", told).await?)
    }

    async fn connect(&self) -> Result<(), UnsafeRedis> {
        let made = timeout(CONNECT * 2, connection::connect(&self.address, CONNECT)).await;
        let mut wire = made.map_err(|_| UnsafeRedis::Silent)??;
        if !self.unsafe_eviction {
            let fit = timeout(CONNECT, durability_check::check(&mut wire)).await;
            fit.map_err(|_| UnsafeRedis::Silent)??;
        }
        self.is_new.store(true, Relaxed);
        self.connection.store(Some(Arc::new(wire)));
        self.epoch.store(thread_connection::next_number(), Relaxed);
        Ok(())
    }

    /// The check at start, before anything depends on the store. A store that does not answer may come later.
    ///
    /// # Errors
    /// It answers, and must not be used.
    pub fn check(&self) -> Result<(), UnsafeRedis> {
        let checked = self.runtime.block_on(async {
            self.connect().await?;
            let Some(wire) = self.connection.load_full() else { return Err(UnsafeRedis::Silent) };
            let fit = timeout(CONNECT * 4, format::check(&mut (*wire).clone())).await;
            fit.map_err(|_| UnsafeRedis::Silent)?
        });
        match checked {
            Ok(()) => Ok(()),
            Err(away @ (UnsafeRedis::Silent | UnsafeRedis::Store(_))) => {
                log::warn!("The shared store does not answer yet: {away}.");
                Ok(())
            }
            Err(unfit) => Err(unfit),
        }
    }
}
