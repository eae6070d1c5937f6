//! Moves as operators order them, and as shops make them by replacing a key ([`super::key_move`]).

use gatekeeper_filters::kernel::{LicenseId, UnixMs};

use super::{
    cache_entry::{CachedDevice, CachedLicense, merge_devices},
    key_move::{KeyMove, MoveOutcome, MoveRefusal, MoveTarget, Replacement},
    validator::LicenseValidator,
};
use crate::shops::ShopLicense;

/// Keys that replaced each other in a row.
const LONGEST_ROW: usize = 16;

impl LicenseValidator {
    /// The licence whose use a key counts on.
    pub fn account(&self, key: &LicenseId) -> LicenseId {
        let moved = self.memory_cache.moved(key);
        moved.and_then(|kept| kept.record.moved.as_ref()?.account).unwrap_or(*key)
    }

    /// Whether a key was used here, or a device of it activated.
    pub fn is_known(&self, key: &LicenseId) -> bool {
        let is_used = |record: &CachedLicense| {
            record.facts.is_some() || !record.devices.is_empty() || record.moved.is_some()
        };
        self.memory_cache.get(key).is_some_and(|kept| is_used(&kept.record))
    }

    /// What replaced a key.
    pub fn replacement(&self, key: &LicenseId) -> Option<Replacement> {
        self.memory_cache.moved(key)?.record.moved.as_ref()?.replaced.clone()
    }

    /// The key that the licence of `key` has now.
    pub fn newest(&self, key: LicenseId) -> LicenseId {
        let mut newest = key;
        for _ in 0..LONGEST_ROW {
            match self.replacement(&newest) {
                Some(replacement) => newest = replacement.by,
                None => break,
            }
        }
        newest
    }

    /// Keys that are known here of the licence that a shop names so: one, where it has any.
    pub async fn key_of(&self, reference: &str) -> Option<LicenseId> {
        self.licenses_of(reference).await.ok()?.into_iter().next()
    }

    /// Whether `old` may move to `new`; changes nothing.
    ///
    /// # Errors
    /// It may not.
    pub fn may_move(
        &self,
        old: &LicenseId,
        new: &MoveTarget,
        wanted: &Replacement,
    ) -> Result<MoveOutcome, MoveRefusal> {
        let account = self.account(old);
        let told = self.replacement(old);
        let is_same_target = |by: &LicenseId| *by == new.id || Some(*by) == new.pending;
        if new.id == *old {
            return Err(MoveRefusal::Same);
        }
        if told.as_ref().is_some_and(|told| !is_same_target(&told.by)) {
            return Err(MoveRefusal::ReplacedByAnother);
        }
        // Back to a key that it came from is a way, too.
        let goes_back = self.replacement(&new.id).is_some_and(|told| self.newest(told.by) == *old);
        if self.replacement(&new.id).is_some() && !goes_back {
            return Err(MoveRefusal::NewIsReplaced);
        }
        let continues = self.account(&new.id);
        if continues != new.id && continues != account {
            return Err(MoveRefusal::ContinuesAnother);
        }
        let is_told = told.is_some_and(|told| Replacement { by: wanted.by, ..told } == *wanted);
        let is_so = is_told && continues == account && !goes_back;
        Ok(if is_so { MoveOutcome::Already } else { MoveOutcome::Moved })
    }

    /// Has `new` continue the licence of `old`, which is replaced from then on. Whether it is on the disk; asked
    /// again, it goes on where it broke off.
    pub async fn move_key(&self, old: LicenseId, new: MoveTarget, wanted: Replacement) -> bool {
        let account = self.account(&old);
        let before = self.known(&old).await.map(|kept| kept.record.clone());
        // The new key first: none of the two is refused before the other is taken.
        let devices = before.as_ref().map(carried).unwrap_or_default();
        let taken = self.continue_with(new.id, account, &devices).await;
        let replaced = |record: Option<&CachedLicense>| {
            let record = record.cloned().unwrap_or_default();
            let known = record.moved.as_ref().and_then(|moved| moved.replaced.as_ref());
            (known != Some(&wanted)).then(|| {
                let account = record.moved.as_ref().and_then(|moved| moved.account);
                record.with_move(account, Some(wanted.clone()))
            })
        };
        self.memory_cache.update(old, replaced);
        let refused = self.disk_cache.put_now(old).await;
        self.share_again(old).await;
        taken && refused
    }

    async fn continue_with(
        &self,
        key: LicenseId,
        account: LicenseId,
        devices: &[CachedDevice],
    ) -> bool {
        let continues = (account != key).then_some(account);
        let change = |record: Option<&CachedLicense>| {
            let record = record.cloned().unwrap_or_default();
            let moved = record.moved.as_ref();
            let is_so =
                moved.is_some_and(|moved| moved.account == continues && moved.replaced.is_none());
            let merged = merge_devices(&record.devices, devices);
            if is_so && merged == record.devices {
                return None;
            }
            let next = if is_so { record } else { record.with_move(continues, None) };
            Some(CachedLicense { devices: merged, ..next })
        };
        self.memory_cache.update(key, change);
        let on_disk = self.disk_cache.put_now(key).await;
        self.share_again(key).await;
        on_disk
    }

    /// A key that was found at its shop for the first time: it goes on where an operator moved the shop's id of
    /// its licence to, or where the key was that the shop knew the same licence by before.
    pub(super) async fn continue_by_reference(&self, key: LicenseId, facts: &ShopLicense) {
        if self.account(&key) != key {
            return;
        }
        for reference in facts.references() {
            if self.continue_moved(key, reference).await {
                return;
            }
        }
        let Some(handle) = &facts.handle else { return };
        let reference = self.hasher.order(facts.shop.name(), &format!("license:{handle}"));
        let known = self.licenses_of(&reference).await.unwrap_or_default();
        if let Some(before) = known.into_iter().find(|known| *known != key) {
            let account = self.account(&before);
            let devices = self.memory_cache.get(&before).map(|kept| kept.record.devices.clone());
            self.continue_with(key, account, &devices.unwrap_or_default()).await;
        }
    }

    async fn continue_moved(&self, key: LicenseId, reference: &str) -> bool {
        if !self.memory_cache.has_moves() {
            return false;
        }
        let place = self.hasher.moved(reference);
        let Some(kept) = self.known(&place).await else { return false };
        let Some(KeyMove { account: Some(account), replaced: None, .. }) = kept.record.moved else {
            return false;
        };
        self.continue_with(key, account, &kept.record.devices).await;
        let found = |record: Option<&CachedLicense>| {
            let by = Replacement { by: key, accepted_until: UnixMs(0), say: String::new() };
            Some(record?.with_move(Some(account), Some(by)))
        };
        self.memory_cache.update(place, found);
        self.keep(place).await;
        true
    }
}

impl CachedLicense {
    fn with_move(&self, account: Option<LicenseId>, replaced: Option<Replacement>) -> Self {
        let last = self.moved.as_ref().map_or(0, |moved| moved.at.0);
        let at = UnixMs::now().max(UnixMs(last + 1));
        Self { moved: Some(KeyMove { at, account, replaced }), ..self.clone() }
    }
}

/// The devices of a licence as its next key has them.
fn carried(record: &CachedLicense) -> Vec<CachedDevice> {
    record.active().map(|device| CachedDevice { carried: true, ..device.clone() }).collect()
}
