//! Shares today's spending, by gateway and provider, for the budgets.

use std::collections::BTreeMap;

use gatekeeper_filters::kernel::UnixMs;
use redis::Cmd;

use super::PeerSync;
use crate::{ledger::sqlite::daily_usage, redis_store::StoreUnavailable};

const KEEP_SECONDS: u64 = 3 * 86_400;

impl PeerSync {
    pub(super) async fn publish_spend(&self) -> Result<(), StoreUnavailable> {
        let now = UnixMs::now();
        let key = format!("gk:spent:{}", daily_usage::date(now));
        let mut own = redis::pipe();
        for (provider, picodollars) in self.spending.here(now) {
            own.hset(&key, format!("{} {provider}", self.gateway), picodollars).ignore();
        }
        own.expire(&key, KEEP_SECONDS as i64).ignore();
        self.store.pipe(own).await?;
        let all: BTreeMap<String, u64> = self.store.run(Cmd::hgetall(&key)).await?;
        let mut others = BTreeMap::<&str, u64>::new();
        for (field, picodollars) in &all {
            let Some((gateway, provider)) = field.split_once(' ') else { continue };
            if gateway != self.gateway {
                let sum = others.entry(provider).or_default();
                *sum = sum.saturating_add(*picodollars);
            }
        }
        for (provider, picodollars) in others {
            self.spending.set_elsewhere(provider, picodollars, now);
        }
        Ok(())
    }
}
