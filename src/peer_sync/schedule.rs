//! When each kind of data is published to the other gateways.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::mpsc::UnboundedReceiver,
    time::{Interval, MissedTickBehavior},
};

use super::{PeerSync, daily_sync::DailySync, key_health};
use crate::{pool::health_events::HealthEvent, redis_store::pubsub::Subscriber};

/// Two of these are how old a figure is at most that a budget is checked against: one until another
/// gateway tells it, one until it is read here.
const SPENT_EVERY: Duration = Duration::from_millis(450);
const LIVE_EVERY: Duration = Duration::from_secs(1);
const HISTORY_EVERY: Duration = Duration::from_secs(10);
const DAYS_EVERY: Duration = Duration::from_secs(5);

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
        let peer_sync = self.clone();
        let heard = move |_: &str, text: &str| peer_sync.hear_health(text);
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
