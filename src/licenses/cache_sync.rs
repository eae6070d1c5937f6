//! Keeps the tiers of the licence cache in step: memory, the disk of this machine, and the store that gateways
//! share. A record that one of them lacks is written back from the others.

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

/// Between two attempts at a shared store that does not answer.
const RETRY: Duration = Duration::from_millis(500);
/// How long records stay on the shared store after their last change.
const KEEP: Duration = Duration::from_secs(100 * 86_400);

impl LicenseValidator {
    /// The record of a licence, compared with the shared store where messages may have been lost.
    pub(super) async fn known(&self, id: &LicenseId) -> Option<Arc<CacheSlot>> {
        self.known_at(id, UnixMs::now()).await
    }

    /// The same, for a caller that has the time.
    pub(super) async fn known_at(&self, id: &LicenseId, now: UnixMs) -> Option<Arc<CacheSlot>> {
        let kept = self.entry(id, now);
        let Some(shared) = self.shared.as_ref().filter(|shared| shared.is_up()) else {
            return kept;
        };
        let stamp = shared.stamp();
        if kept.as_ref().is_some_and(|kept| kept.compared() == stamp.0) {
            return kept;
        }
        match shared.record(id).await {
            Ok(there) => Some(self.compare(*id, kept, there, stamp)?),
            Err(_) => kept,
        }
    }

    /// The entry in memory; repaired, if it was written while the clock was ahead.
    fn entry(&self, id: &LicenseId, now: UnixMs) -> Option<Arc<CacheSlot>> {
        let kept = self.records.get(id)?;
        if !kept.record.is_ahead(now) {
            return Some(kept);
        }
        let repaired = self.records.update(*id, |record| Some(record?.repaired(now)));
        self.shelf.put(*id);
        repaired
    }

    /// What is known after a look at the shared store; whichever of both lacks something gets it.
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
            self.unshared.notify_one();
        }
        // A change that was announced in between may not be in what was read.
        if self.shared.as_ref().is_some_and(|shared| shared.stamp() == stamp) {
            known.set_compared(stamp.0);
        }
        Some(known)
    }

    /// Takes in what the shared store knows; on this machine's disk it outlives both.
    pub(super) fn adopt(&self, id: LicenseId, record: &CachedLicense) -> Arc<CacheSlot> {
        let before = self.records.get(&id);
        let kept = self.records.adopt(id, record);
        if before.is_none_or(|before| before.record != kept.record) {
            self.shelf.put(id);
        }
        kept
    }

    /// The record of a licence as it is on the shared store now, where there is one.
    pub(super) async fn latest(
        &self,
        id: &LicenseId,
    ) -> Result<Option<Arc<CacheSlot>>, StoreUnavailable> {
        let kept = self.records.get(id);
        let Some(shared) = &self.shared else { return Ok(kept) };
        let stamp = shared.stamp();
        let there = shared.record(id).await?;
        Ok(self.compare(*id, kept, there, stamp))
    }

    /// Writes a changed record down, here and for the other gateways.
    pub(super) async fn keep(&self, id: LicenseId) {
        self.shelf.put(id);
        self.share(id).await;
    }

    /// As [`LicenseValidator::keep`]; whether it is on the disk.
    pub(super) async fn keep_now(&self, id: LicenseId) -> bool {
        let on_disk = self.shelf.put_now(id).await;
        self.share(id).await;
        on_disk
    }

    /// Merges a record into the shared store; whether it answered. If not, it is done later.
    pub(super) async fn share(&self, id: LicenseId) -> bool {
        let (Some(shared), Some(kept)) = (&self.shared, self.records.get(&id)) else { return true };
        let merge = async || {
            let merged = shared.merge(&id, &kept.record, KEEP).await?;
            if merged.revocation != Revocation::default() {
                shared.revoke(&id, merged.revocation).await?;
            }
            if let Some(moved) = &merged.moved {
                shared.tell_move(&id, moved).await?;
            }
            Ok::<_, StoreUnavailable>(merged)
        };
        let (mut merged, mut patience) = (merge().await, WaitBudget::of(MOMENT));
        // Others wait for it, and would ask the shop themselves.
        while merged.is_err() && !patience.is_over() && shared.store.is_back(&mut patience).await {
            patience.part(SILENCE);
            merged = merge().await;
        }
        match merged {
            Ok(merged) => {
                self.adopt(id, &merged);
                true
            }
            Err(_) => {
                self.unshared.notify_one();
                false
            }
        }
    }

    /// Receives the changes of other gateways.
    pub fn listener(self: &Arc<Self>) -> Subscriber {
        let validator = self.clone();
        let heard = move |_: &str, id: &str| {
            if id == REVOKED {
                validator.unheard.notify_one();
            }
            let Some(id) = LicenseId::from_hex(id) else { return };
            if let Some(shared) = &validator.shared {
                shared.notify_change();
            }
            match validator.records.get(&id) {
                Some(kept) => kept.set_compared(0),
                None => validator.issued.roster.hear(id),
            }
        };
        Subscriber { channel: CHANNEL, heard: Box::new(heard) }
    }

    /// What runs beside requests: the shared store, and a look around each minute.
    pub(super) async fn tend(self: Arc<Self>) {
        if let Some(shared) = &self.shared {
            let (validator, mut generations) = (self.clone(), shared.store.generations());
            tokio::spawn(async move {
                while generations.changed().await.is_ok() {
                    validator.unshared.notify_one();
                    validator.unheard.notify_one();
                    validator.issued.roster.lost();
                }
            });
            tokio::spawn(self.clone().write_back());
            tokio::spawn(self.clone().on_revocation_message(shared.clone()));
            tokio::spawn(self.clone().fetch_issued(shared.clone()));
        }
        tokio::spawn(self.clone().probe_failed());
        loop {
            tokio::time::sleep(Duration::from_secs(60)).await;
            self.assess(UnixMs::now());
        }
    }

    /// Reads revocations made at other gateways, whenever they may have changed: a revoked licence or a
    /// replaced key must be known before its next request.
    async fn on_revocation_message(self: Arc<Self>, shared: Arc<RedisCache>) {
        loop {
            self.unheard.notified().await;
            let (Ok(words), Ok(moves)) = (shared.revocations().await, shared.moves().await) else {
                tokio::time::sleep(RETRY).await;
                self.unheard.notify_one();
                continue;
            };
            for (id, moved) in moves {
                let moved = Some(moved);
                if self.records.get(&id).is_none_or(|kept| kept.record.moved < moved) {
                    self.adopt(id, &CachedLicense { moved, ..CachedLicense::default() });
                }
            }
            for (id, revocation) in words {
                let known = self.records.get(&id).map(|kept| kept.record.revocation);
                if known.unwrap_or_default() < revocation {
                    self.adopt(id, &CachedLicense { revocation, ..CachedLicense::default() });
                }
            }
        }
    }

    /// Brings everything known here to the shared store, each time it lost it, was away, or lacks
    /// something.
    pub(super) async fn write_back(self: Arc<Self>) {
        loop {
            self.unshared.notified().await;
            for (id, _) in self.records.all() {
                // One that was not taken asks for another round; no record holds up the others.
                if !self.share(id).await {
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }
}
