//! The licence cache in memory.
//!
//! Every licence that a shop knows as ours stays here for the life of the process, so the number of records is the
//! number of buyers, whatever clients try. Unknown keys are cached elsewhere, in bounded maps.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use arc_swap::ArcSwap;
use gatekeeper_filters::kernel::{LicenseId, UnixMs};
use parking_lot::RwLock;
use rustc_hash::{FxHashMap, FxHashSet};

use super::cache_entry::CachedLicense;

const SHARDS: usize = 64;
/// How exact the moment of the last request is kept: writing it each time would cost every request
/// a cache line.
const SEEN_STEP: u64 = 10_000;

pub struct MemoryCache {
    shards: Vec<RwLock<FxHashMap<LicenseId, Arc<CacheSlot>>>>,
    /// Those that an operator took back; every request looks here, and there are hardly any.
    revoked: ArcSwap<FxHashSet<LicenseId>>,
    /// Whether an operator moved any licence to another key; without that no request looks for one.
    has_moves: AtomicBool,
}

/// A record and what only this process knows of the licence. Replaced when the record changes.
pub struct CacheSlot {
    pub record: CachedLicense,
    local: Arc<SlotState>,
}

/// Lives over all replacements, so that nothing written here is lost by one.
#[derive(Default)]
struct SlotState {
    /// The last request, in milliseconds; 0 for none since the start.
    seen: AtomicU64,
    /// The last attempt to ask the shop.
    tried: AtomicU64,
    /// The shared store's generation when the record was last compared with it; 0 for never.
    compared: AtomicU64,
}

impl CacheSlot {
    fn new(record: CachedLicense, before: Option<&CacheSlot>) -> Self {
        let local = before.map_or_else(Arc::default, |before| before.local.clone());
        // A new mark is a reason to ask at once.
        if before.is_some_and(|before| before.record.marked != record.marked) {
            local.tried.store(0, Relaxed);
        }
        Self { record, local }
    }

    pub fn see(&self, now: UnixMs) {
        if now.0.abs_diff(self.local.seen.load(Relaxed)) > SEEN_STEP {
            self.local.seen.store(now.0, Relaxed);
        }
    }

    pub fn seen(&self) -> UnixMs {
        UnixMs(self.local.seen.load(Relaxed))
    }

    /// Whether the last attempt is `pause` milliseconds ago; true for one caller only.
    pub fn try_again(&self, now: UnixMs, pause: u64) -> bool {
        let last = self.local.tried.load(Relaxed);
        now.0.abs_diff(last) >= pause
            && self.local.tried.compare_exchange(last, now.0, Relaxed, Relaxed).is_ok()
    }

    pub fn compared(&self) -> u64 {
        self.local.compared.load(Relaxed)
    }

    pub fn set_compared(&self, generation: u64) {
        self.local.compared.store(generation, Relaxed);
    }
}

impl Default for MemoryCache {
    fn default() -> Self {
        let shards = (0..SHARDS).map(|_| RwLock::default()).collect();
        Self { shards, revoked: ArcSwap::default(), has_moves: AtomicBool::new(false) }
    }
}

impl MemoryCache {
    fn shard(&self, id: &LicenseId) -> &RwLock<FxHashMap<LicenseId, Arc<CacheSlot>>> {
        &self.shards[usize::from(id.0[31]) % SHARDS]
    }

    pub fn get(&self, id: &LicenseId) -> Option<Arc<CacheSlot>> {
        self.shard(id).read().get(id).cloned()
    }

    /// Changes a record, or makes one; `None` from `change` leaves it as it is. The record as it
    /// then is, if it changed.
    pub fn update(
        &self,
        id: LicenseId,
        change: impl FnOnce(Option<&CachedLicense>) -> Option<CachedLicense>,
    ) -> Option<Arc<CacheSlot>> {
        let mut shard = self.shard(&id).write();
        let before = shard.get(&id);
        let record = change(before.map(|kept| &kept.record))?;
        let kept = Arc::new(CacheSlot::new(record, before.map(|kept| &**kept)));
        self.put(&mut shard, id, kept.clone());
        Some(kept)
    }

    /// Drops a record if it still fits; whether it is gone.
    pub fn remove_if(&self, id: &LicenseId, fits: impl FnOnce(&CachedLicense) -> bool) -> bool {
        let mut shard = self.shard(id).write();
        if shard.get(id).is_some_and(|kept| !fits(&kept.record)) {
            return false;
        }
        shard.remove(id);
        if self.is_revoked(id) {
            self.revoked.rcu(|known| {
                let mut revoked = FxHashSet::clone(known);
                revoked.remove(id);
                revoked
            });
        }
        true
    }

    /// Takes in what another place knows; the newer of both stays.
    pub fn adopt(&self, id: LicenseId, other: &CachedLicense) -> Arc<CacheSlot> {
        let mut shard = self.shard(&id).write();
        let before = shard.get(&id);
        let record = match before {
            Some(kept) => kept.record.merge(other),
            None => other.clone(),
        };
        let kept = Arc::new(CacheSlot::new(record, before.map(|kept| &**kept)));
        self.put(&mut shard, id, kept.clone());
        kept
    }

    /// Under the lock of its shard, so that the set of revoked ones says the same.
    fn put(
        &self,
        shard: &mut FxHashMap<LicenseId, Arc<CacheSlot>>,
        id: LicenseId,
        kept: Arc<CacheSlot>,
    ) {
        let is_revoked = kept.record.revocation.revoked;
        if kept.record.moved.is_some() {
            self.has_moves.store(true, Relaxed);
        }
        shard.insert(id, kept);
        if self.is_revoked(&id) != is_revoked {
            self.revoked.rcu(|known| {
                let mut revoked = FxHashSet::clone(known);
                match is_revoked {
                    true => revoked.insert(id),
                    false => revoked.remove(&id),
                };
                revoked
            });
        }
    }

    pub fn is_revoked(&self, id: &LicenseId) -> bool {
        let revoked = self.revoked.load();
        !revoked.is_empty() && revoked.contains(id)
    }

    pub fn has_moves(&self) -> bool {
        self.has_moves.load(Relaxed)
    }

    /// The record of a key that an operator moved, or moved a licence to.
    pub fn moved(&self, id: &LicenseId) -> Option<Arc<CacheSlot>> {
        if !self.has_moves() {
            return None;
        }
        self.get(id).filter(|kept| kept.record.moved.is_some())
    }

    /// Every record, shard by shard: what changes meanwhile is seen or not.
    pub fn all(&self) -> impl Iterator<Item = (LicenseId, Arc<CacheSlot>)> {
        self.shards.iter().flat_map(|shard| {
            let shard = shard.read();
            shard.iter().map(|(id, kept)| (*id, kept.clone())).collect::<Vec<_>>()
        })
    }
}
