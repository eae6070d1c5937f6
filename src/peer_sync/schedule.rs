//! When each kind of data is published to the other gateways.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::mpsc::UnboundedReceiver,
    time::{Interval, MissedTickBehavior},
};

use super::{PeerSync, daily_sync::DailySync, key_health};
use crate::{pool::health_events::HealthEvent, redis_store::pubsub::Subscriber};

/// A figure that a budget is checked against is at most two intervals old: one until another gateway sends
/// it, one until it is read here.
const SPENT_EVERY: Duration = Duration::from_millis(450);
const LIVE_EVERY: Duration = Duration::from_secs(1);
const HISTORY_EVERY: Duration = Duration::from_secs(10);
const DAYS_EVERY: Duration = Duration::from_secs(5);

impl PeerSync {
    /// Starts sending and receiving.
    pub fn start(self: Arc<Self>, events: UnboundedReceiver<HealthEvent>) {
        let store = self.store.clone();
        store.spawn(self.clone().publish_health_events(events));
        store.spawn(self.clone().run_spend());
        store.spawn(self.clone().run_live());
        store.spawn(self.clone().run_history());
        store.spawn(self.run_days());
    }

    /// Receives the health of keys, accounts and providers.
    pub fn subscriber(self: &Arc<Self>) -> Subscriber {
        let peer_sync = self.clone();
        let on_message = move |_: &str, text: &str| peer_sync.receive_health(text);
        Subscriber { channel: key_health::CHANNEL, heard: Box::new(on_message) }
    }

    /// Whether the store is up and no successor process has taken over this gateway's name.
    fn is_active(&self) -> bool {
        self.store.is_up() && self.local.is_here()
    }

    // Each task has its own interval: a year of days must not delay a budget. A failed update is repeated
    // by the next one, which always sends the full state.

    async fn run_spend(self: Arc<Self>) {
        let mut ticks = ticks(SPENT_EVERY);
        loop {
            ticks.tick().await;
            if self.is_active() {
                let _ = self.publish_spend().await;
            }
        }
    }

    async fn run_live(self: Arc<Self>) {
        let mut ticks = ticks(LIVE_EVERY);
        loop {
            ticks.tick().await;
            if self.is_active() {
                let _ = self.publish_live().await;
            }
        }
    }

    async fn run_history(self: Arc<Self>) {
        let mut ticks = ticks(HISTORY_EVERY);
        loop {
            ticks.tick().await;
            if self.is_active() {
                let _ = self.publish_history().await;
            }
        }
    }

    async fn run_days(self: Arc<Self>) {
        let mut days = DailySync::default();
        let mut losses = self.store.losses();
        // After each new subscription, too: earlier messages were missed.
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
            if self.is_active() {
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
