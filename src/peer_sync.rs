//! What gateways on one shared store exchange beside licences and the ledger: spending, daily usage, key
//! health, and live statistics.
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
//! Each gateway writes only its own fields, and always the whole value, so a repeated write changes
//! nothing. Requests never wait for it, and no decision rests on it alone.

pub mod daily_sync;
mod key_health;
mod live_stats;
pub mod month;
mod schedule;
mod spend;

use std::{path::PathBuf, sync::Arc};

use crate::{
    budget::SpendTracker, ledger::EmbeddedLedger, pool::HealthRegistry, redis_store::RedisStore,
    telemetry::Telemetry,
};

pub struct PeerSync {
    pub store: Arc<RedisStore>,
    /// This gateway's id, as in the ledger.
    pub gateway: String,
    pub local: Arc<EmbeddedLedger>,
    pub database: PathBuf,
    pub spending: Arc<SpendTracker>,
    pub health: Arc<HealthRegistry>,
    pub telemetry: Arc<Telemetry>,
}
