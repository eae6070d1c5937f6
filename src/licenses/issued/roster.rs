//! Licences that other gateways issued: each gateway keeps all of them, so that a shared store that lost everything
//! is filled again by any.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use crate::licenses::{redis_cache::RedisCache, validator::LicenseValidator};

/// Between two attempts at a shared store that does not answer.
const RETRY: Duration = Duration::from_millis(500);

impl LicenseValidator {
    /// From now on licences that other gateways issue are kept here, too.
    pub fn follow_issued(&self) {
        if !self.issued.roster.is_kept.swap(true, Relaxed) {
            self.issued.roster.lost();
        }
    }

    /// Fetches what other gateways issued, each time there may be something.
    pub async fn fetch_issued(self: Arc<Self>, redis: Arc<RedisCache>) {
        loop {
            self.issued.roster.news.notified().await;
            if !self.issued.roster.is_kept.load(Relaxed) {
                continue;
            }
            let mut ids = std::mem::take(&mut *self.issued.roster.heard.lock());
            if self.issued.roster.is_lost.swap(false, Relaxed) {
                match redis.issued().await {
                    Ok(all) => ids.extend(all),
                    Err(_) => self.issued.roster.is_lost.store(true, Relaxed),
                }
            }
            let mut is_whole = !self.issued.roster.is_lost.load(Relaxed);
            for id in ids {
                if self.memory_cache.get(&id).is_some() {
                    continue;
                }
                match redis.record(&id).await {
                    Ok(Some(record)) if record.issued.is_some() => drop(self.adopt(id, &record)),
                    Ok(_) => {}
                    Err(_) => {
                        self.issued.roster.heard.lock().push(id);
                        is_whole = false;
                    }
                }
            }
            if !is_whole {
                tokio::time::sleep(RETRY).await;
                self.issued.roster.news.notify_one();
            }
        }
    }
}
