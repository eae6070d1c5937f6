//! Synchronises the tiers of the licence cache: memory, the disk of this machine, and Redis. A record that one of
//! them lacks is written back from the others.

use std::{sync::Arc, time::Duration};

use gatekeeper_filters::kernel::{LicenseId, UnixMs};

use super::{
    cache_entry::{CachedLicense, Revocation},
    memory_cache::CacheSlot,
    redis_cache::{CHANNEL, REVOKED, RedisCache},
    validator::LicenseValidator,
};
use crate::redis_store::{
    MOMENT, SILENCE, StoreUnavailable, pubsub::Subscriber, wait_budget::WaitBudget,
};

/// Between two attempts while Redis does not answer.
const RETRY: Duration = Duration::from_millis(500);
/// How long records stay in Redis after their last change.
const KEEP: Duration = Duration::from_secs(100 * 86_400);

impl LicenseValidator {
    /// The record of a licence, compared with Redis if messages from it may have been lost.
    pub(super) async fn known(&self, id: &LicenseId) -> Option<Arc<CacheSlot>> {
        self.known_at(id, UnixMs::now()).await
    }

    /// The same, for a caller that has the time.
    pub(super) async fn known_at(&self, id: &LicenseId, now: UnixMs) -> Option<Arc<CacheSlot>> {
        let kept = self.entry(id, now);
        let Some(redis) = self.redis_cache.as_ref().filter(|redis| redis.is_up()) else {
            return kept;
        };
        let stamp = redis.stamp();
        if kept.as_ref().is_some_and(|kept| kept.compared() == stamp.0) {
            return kept;
        }
        match redis.record(id).await {
            Ok(there) => Some(self.compare(*id, kept, there, stamp)?),
            Err(_) => kept,
        }
    }

    /// The entry in memory; repaired, if it was written while the clock was ahead.
    fn entry(&self, id: &LicenseId, now: UnixMs) -> Option<Arc<CacheSlot>> {
        let kept = self.memory_cache.get(id)?;
        if !kept.record.is_ahead(now) {
            return Some(kept);
        }
        let repaired = self.memory_cache.update(*id, |record| Some(record?.repaired(now)));
        self.disk_cache.put(*id);
        repaired
    }

    /// Merges the record in memory with the one read from Redis, and writes back what either of them lacks.
    pub(super) fn compare(
        &self,
        id: LicenseId,
        kept: Option<Arc<CacheSlot>>,
        there: Option<CachedLicense>,
        stamp: (u64, u64),
    ) -> Option<Arc<CacheSlot>> {
        let known = match &there {
            Some(record) => Some(self.adopt(id, record)),
            None => kept,
        }?;
        if there.as_ref() != Some(&known.record) {
            self.unsynced_entries.notify_one();
        }
        // A change that was announced since may not be part of the record that was read.
        if self.redis_cache.as_ref().is_some_and(|redis| redis.stamp() == stamp) {
            known.set_compared(stamp.0);
        }
        Some(known)
    }

    /// Merges a record of Redis or of another process into memory and disk.
    pub(super) fn adopt(&self, id: LicenseId, record: &CachedLicense) -> Arc<CacheSlot> {
        let before = self.memory_cache.get(&id);
        let kept = self.memory_cache.adopt(id, record);
        if before.is_none_or(|before| before.record != kept.record) {
            self.disk_cache.put(id);
        }
        kept
    }

    /// The current record of a licence in Redis, if Redis is configured.
    pub(super) async fn latest(
        &self,
        id: &LicenseId,
    ) -> Result<Option<Arc<CacheSlot>>, StoreUnavailable> {
        let kept = self.memory_cache.get(id);
        let Some(redis) = &self.redis_cache else { return Ok(kept) };
        let stamp = redis.stamp();
        let there = redis.record(id).await?;
        Ok(self.compare(*id, kept, there, stamp))
    }

    /// Writes a changed record to disk and to Redis.
    pub(super) async fn keep(&self, id: LicenseId) {
        self.disk_cache.put(id);
        self.share(id).await;
    }

    /// As [`LicenseValidator::keep`]; whether it is on the disk.
    pub(super) async fn keep_now(&self, id: LicenseId) -> bool {
        let on_disk = self.disk_cache.put_now(id).await;
        self.share(id).await;
        on_disk
    }

    /// Merges a record into Redis; whether Redis answered. If not, it is done later.
    pub(super) async fn share(&self, id: LicenseId) -> bool {
        let (Some(redis), Some(kept)) = (&self.redis_cache, self.memory_cache.get(&id)) else {
            return true;
        };
        let merge = async || {
            let merged = redis.merge(&id, &kept.record, KEEP).await?;
            if merged.revocation != Revocation::default() {
                redis.revoke(&id, merged.revocation).await?;
            }
            if let Some(moved) = &merged.moved {
                redis.tell_move(&id, moved).await?;
            }
            Ok::<_, StoreUnavailable>(merged)
        };
        let (mut merged, mut patience) = (merge().await, WaitBudget::of(MOMENT));
        // Other gateways wait for it, and would ask the shop themselves.
        while merged.is_err() && !patience.is_over() && redis.store.is_back(&mut patience).await {
            patience.part(SILENCE);
            merged = merge().await;
        }
        match merged {
            Ok(merged) => {
                self.adopt(id, &merged);
                true
            }
            Err(_) => {
                self.unsynced_entries.notify_one();
                false
            }
        }
    }

    /// Receives the changes of other gateways.
    pub fn listener(self: &Arc<Self>) -> Subscriber {
        let validator = self.clone();
        let heard = move |_: &str, id: &str| {
            if id == REVOKED {
                validator.unsynced_revocations.notify_one();
            }
            let Some(id) = LicenseId::from_hex(id) else { return };
            if let Some(redis) = &validator.redis_cache {
                redis.notify_change();
            }
            match validator.memory_cache.get(&id) {
                Some(kept) => kept.set_compared(0),
                None => validator.issued.roster.hear(id),
            }
        };
        Subscriber { channel: CHANNEL, heard: Box::new(heard) }
    }

    /// Background tasks: sync with Redis, and the check for mass refusals every minute.
    pub(super) async fn tend(self: Arc<Self>) {
        if let Some(redis) = &self.redis_cache {
            let (validator, mut generations) = (self.clone(), redis.store.generations());
            tokio::spawn(async move {
                while generations.changed().await.is_ok() {
                    validator.unsynced_entries.notify_one();
                    validator.unsynced_revocations.notify_one();
                    validator.issued.roster.lost();
                }
            });
            tokio::spawn(self.clone().write_back());
            tokio::spawn(self.clone().on_revocation_message(redis.clone()));
            tokio::spawn(self.clone().fetch_issued(redis.clone()));
        }
        tokio::spawn(self.clone().probe_failed());
        loop {
            tokio::time::sleep(Duration::from_secs(60)).await;
            self.assess(UnixMs::now());
        }
    }

    /// Reads revocations made at other gateways, whenever they may have changed: a revoked licence or a
    /// replaced key must be known before its next request.
    async fn on_revocation_message(self: Arc<Self>, redis: Arc<RedisCache>) {
        loop {
            self.unsynced_revocations.notified().await;
            let (Ok(words), Ok(moves)) = (redis.revocations().await, redis.moves().await) else {
                tokio::time::sleep(RETRY).await;
                self.unsynced_revocations.notify_one();
                continue;
            };
            for (id, moved) in moves {
                let moved = Some(moved);
                if self.memory_cache.get(&id).is_none_or(|kept| kept.record.moved < moved) {
                    self.adopt(id, &CachedLicense { moved, ..CachedLicense::default() });
                }
            }
            for (id, revocation) in words {
                let known = self.memory_cache.get(&id).map(|kept| kept.record.revocation);
                if known.unwrap_or_default() < revocation {
                    self.adopt(id, &CachedLicense { revocation, ..CachedLicense::default() });
                }
            }
        }
    }

    /// Writes all records to Redis, each time Redis has lost data, was unavailable, or lacks a record.
    pub(super) async fn write_back(self: Arc<Self>) {
        loop {
            self.unsynced_entries.notified().await;
            for (id, _) in self.memory_cache.all() {
                // A record that failed is part of the next round; the others do not wait for it.
                if !self.share(id).await {
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }
}
