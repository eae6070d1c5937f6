//! What gateways that share a store tell each other beside licences and the ledger: what they have
//! spent, what was used day by day, which keys rest, and what they serve right now.
//!
//! ```text
//! gk:spent:DAY     picodollars of a day, by gateway and provider          hash, kept 3 days
//! gk:day:DAY       the rows of `daily`, by gateway                        hash, kept 400 days
//! gk:{active}:DAY  licences of a day                                      set, kept 40 days
//! gk:keys          keys, accounts and providers that rest, until when      hash, kept a day
//! gk:live          totals, newest requests and figures, by gateway        hash
//! gk:history       an hour and a day of them, by gateway                   hash
//! gk:keys          channel: one of them begins to rest, or is sound again
//! ```
//! Each gateway writes its own fields and nobody else's, and always the whole value: telling it twice
//! changes nothing. Nothing here holds a request up, and nothing is decided by it alone.

pub mod daily_sync;
mod key_health;
mod live_stats;
pub mod month;
mod spend;

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    sync::mpsc::UnboundedReceiver,
    time::{Interval, MissedTickBehavior},
};

use self::daily_sync::DailySync;
use crate::{
    budget::SpendTracker,
    ledger::EmbeddedLedger,
    pool::{HealthRegistry, health_events::HealthEvent},
    redis_store::{RedisStore, pubsub::Subscriber},
    telemetry::Telemetry,
};

/// Two of these are how old a figure is at most that a budget is checked against: one until another
/// gateway tells it, one until it is read here.
const SPENT_EVERY: Duration = Duration::from_millis(450);
const LIVE_EVERY: Duration = Duration::from_secs(1);
const HISTORY_EVERY: Duration = Duration::from_secs(10);
const DAYS_EVERY: Duration = Duration::from_secs(5);

pub struct PeerSync {
    pub store: Arc<RedisStore>,
    /// Who this gateway is, as the ledger calls it.
    pub gateway: String,
    pub local: Arc<EmbeddedLedger>,
    pub database: PathBuf,
    pub spending: Arc<SpendTracker>,
    pub health: Arc<HealthRegistry>,
    pub telemetry: Arc<Telemetry>,
}

impl PeerSync {
    /// Tells and hears from now on.
    pub fn start(self: Arc<Self>, news: UnboundedReceiver<HealthEvent>) {
        let store = self.store.clone();
        store.spawn(self.clone().tell_health(news));
        store.spawn(self.clone().keep_telling_spent());
        store.spawn(self.clone().run_live());
        store.spawn(self.clone().keep_telling_history());
        store.spawn(self.run_days());
    }

    /// Hears how keys, accounts and providers are.
    pub fn listener(self: &Arc<Self>) -> Subscriber {
        let fleet = self.clone();
        let heard = move |_: &str, text: &str| fleet.hear_health(text);
        Subscriber { channel: key_health::CHANNEL, heard: Box::new(heard) }
    }

    /// Whether somebody listens, and no successor speaks for this gateway.
    fn speaks(&self) -> bool {
        self.store.is_up() && self.local.is_here()
    }

    // Each has its own pace: the days of a year must not hold a budget up. What fails is told again the
    // next time, for it is always the whole.

    async fn keep_telling_spent(self: Arc<Self>) {
        let mut ticks = ticks(SPENT_EVERY);
        loop {
            ticks.tick().await;
            if self.speaks() {
                let _ = self.publish_spend().await;
            }
        }
    }

    async fn run_live(self: Arc<Self>) {
        let mut ticks = ticks(LIVE_EVERY);
        loop {
            ticks.tick().await;
            if self.speaks() {
                let _ = self.publish_live().await;
            }
        }
    }

    async fn keep_telling_history(self: Arc<Self>) {
        let mut ticks = ticks(HISTORY_EVERY);
        loop {
            ticks.tick().await;
            if self.speaks() {
                let _ = self.tell_history().await;
            }
        }
    }

    async fn run_days(self: Arc<Self>) {
        let mut days = DailySync::default();
        let mut losses = self.store.losses();
        // Each time messages are listened to anew, too: what was said before was not heard.
        let mut generations = self.store.generations();
        let mut ticks = ticks(DAYS_EVERY);
        let mut is_read = false;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                changed = losses.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    days.forget();
                    is_read = false;
                }
                changed = generations.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    is_read = false;
                }
            }
            if !is_read {
                is_read = self.read_health().await.is_ok();
            }
            if self.speaks() {
                let _ = self.publish_days(&mut days).await;
            }
        }
    }
}

fn ticks(every: Duration) -> Interval {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
