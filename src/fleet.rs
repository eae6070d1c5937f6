//! What gateways that share a store tell each other beside licences and the ledger: what they have
//! spent, what was used day by day, which keys rest, and what they serve right now.
//!
//! ```text
//! gk:spent:DAY     picodollars of a day, by gateway and provider          hash, kept 3 days
//! gk:day:DAY       the rows of `daily`, by gateway                        hash, kept 400 days
//! gk:{active}:DAY  licences of a day                                      set, kept 40 days
//! gk:keys          keys and groups that rest, until when                  hash, kept a day
//! gk:live          totals and newest requests, by gateway                 hash
//! gk:keys          channel: a key or a group begins to rest
//! ```
//! Each gateway writes its own fields and nobody else's, and always the whole value: telling it twice
//! changes nothing. Nothing here holds a request up, and nothing is decided by it alone.

pub mod days;
mod keys;
mod live;
mod spent;

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::sync::mpsc::UnboundedReceiver;

use self::days::Days;
use crate::{
    ledger::Embedded,
    pool::{HealthBook, Rested},
    spending::Spending,
    store::{Store, listen::Listener},
    telemetry::Telemetry,
};

/// A budget is checked against a figure that is no older.
const SECOND: Duration = Duration::from_secs(1);
const DAYS_EVERY: u32 = 5;
const DAY_MS: u64 = 86_400_000;

pub struct Fleet {
    pub store: Arc<Store>,
    /// Who this gateway is, as the ledger calls it.
    pub gateway: String,
    pub local: Arc<Embedded>,
    pub database: PathBuf,
    pub spending: Arc<Spending>,
    pub health: Arc<HealthBook>,
    pub telemetry: Arc<Telemetry>,
}

impl Fleet {
    /// Tells and hears from now on.
    pub fn start(self: Arc<Self>, rested: UnboundedReceiver<Rested>) {
        let store = self.store.clone();
        store.spawn(self.clone().tell_rests(rested));
        store.spawn(self.tell());
    }

    /// Hears of keys that rest.
    pub fn listener(self: &Arc<Self>) -> Listener {
        let fleet = self.clone();
        let heard = move |_: &str, text: &str| fleet.hear_rest(text);
        Listener { channel: keys::CHANNEL, heard: Box::new(heard) }
    }

    async fn tell(self: Arc<Self>) {
        let mut days = Days::default();
        let mut losses = self.store.losses();
        let mut second = tokio::time::interval(SECOND);
        second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for turn in 0u32.. {
            second.tick().await;
            if !self.store.is_up() {
                continue;
            }
            if losses.has_changed().unwrap_or(false) {
                losses.mark_unchanged();
                days.forget();
                self.read_rests().await;
            }
            // What fails is told again next time: it is always the whole.
            let _ = self.tell_spent().await;
            let _ = self.tell_live().await;
            if turn % DAYS_EVERY == 0 {
                let _ = self.tell_days(&mut days).await;
            }
        }
    }
}
