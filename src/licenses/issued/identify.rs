//! From a key to a licence of our own.

use std::sync::Arc;

use gatekeeper_filters::kernel::{Code, Credential, License, LicenseId, LicenseStatus, UnixMs};

use super::{
    book::IssuedBook,
    record::{IssuedKind, IssuedLicense},
};
use crate::{
    licenses::memory_cache::CacheSlot,
    shops::{
        LicenseVerdict,
        issued::{NAME, key_format::KeyReading},
    },
};

/// What a key is before anything was looked up.
pub enum KeyShape {
    /// Of our own form: the id of its one spelling.
    Ours(LicenseId),
    /// Of our own form, with a typing error in it.
    Mistyped,
    Other,
}

/// A licence that a key stands for.
pub struct Found {
    pub id: LicenseId,
    pub slot: Arc<CacheSlot>,
    /// The key was replaced and is no longer accepted.
    pub is_replaced: bool,
}

impl Found {
    pub fn license(&self) -> Option<&IssuedLicense> {
        self.slot.record.issued.as_ref().and_then(|issued| issued.license())
    }
}

impl IssuedBook {
    pub fn shape(&self, key: &str) -> KeyShape {
        match self.source.format.read(key) {
            KeyReading::Other => KeyShape::Other,
            KeyReading::Wrong => KeyShape::Mistyped,
            KeyReading::Good(normal) => KeyShape::Ours(self.validator.hasher.id(normal.as_str())),
        }
    }

    /// The id of a key, whatever its form.
    pub fn key_id(&self, key: &str) -> LicenseId {
        match self.shape(key) {
            KeyShape::Ours(id) => id,
            KeyShape::Mistyped | KeyShape::Other => self.validator.hasher.id(key),
        }
    }

    /// The licence of a key, by the key's id.
    pub async fn find(&self, key_id: LicenseId, now: UnixMs) -> Option<Found> {
        let slot = self.known(&key_id).await?;
        match &slot.record.issued.as_ref()?.is {
            IssuedKind::License(license) => {
                let is_replaced = license.first_key_until.is_some_and(|until| until <= now);
                Some(Found { id: key_id, is_replaced, slot })
            }
            IssuedKind::Key { license, until } => {
                let is_replaced = until.is_some_and(|until| until <= now);
                let slot = self.known(license).await?;
                let found = Found { id: *license, is_replaced, slot: slot.clone() };
                found.license().is_some().then_some(found)
            }
            IssuedKind::Order { .. } | IssuedKind::Sweep(_) | IssuedKind::Forgotten { .. } => None,
        }
    }

    pub fn verdict(&self, license: &IssuedLicense, now: UnixMs) -> LicenseVerdict {
        if license.test && self.source.is_live() {
            return LicenseVerdict::Invalid(Code::LicenseInvalid);
        }
        if let Some(code) = license.ended(now) {
            return LicenseVerdict::Invalid(code);
        }
        match self.source.plan_of(license.price.as_deref(), &license.plan) {
            Ok(plan) => LicenseVerdict::Valid { plan: plan.clone(), until: license.until },
            Err(code) => LicenseVerdict::Invalid(code),
        }
    }

    /// The licence of an issued key; `None` where other sources decide.
    pub async fn identify(&self, key_id: LicenseId, now: UnixMs) -> Option<LicenseStatus> {
        let Some(found) = self.find(key_id, now).await else {
            let slot = self.validator.memory_cache.get(&key_id)?;
            let issued = slot.record.issued.as_ref();
            // What was forgotten does not come back by a shop.
            let is_forgotten = issued.is_some_and(|issued| issued.is_forgotten());
            return is_forgotten.then_some(LicenseStatus::Invalid(Code::LicenseDisabled));
        };
        self.status(&found, now)
    }

    /// The status of a licence now, without a call.
    pub async fn status_now(&self, key_id: LicenseId, now: UnixMs) -> Option<LicenseStatus> {
        let found = self.find(key_id, now).await?;
        self.status(&found, now)
    }

    /// Whether the shop that a licence was adopted from may have news: after a webhook, or when it has
    /// expired.
    pub fn has_news(&self, key_id: &LicenseId, now: UnixMs) -> bool {
        let Some(slot) = self.validator.memory_cache.get(key_id) else { return false };
        let issued = slot.record.issued.as_ref().and_then(|issued| issued.license());
        let facts = slot.record.facts.as_ref();
        facts.zip(issued).is_some_and(|(facts, license)| {
            license.origin == facts.shop.name()
                && (slot.record.is_due(now) || license.ended(now) == Some(Code::LicenseExpired))
        })
    }

    fn status(&self, found: &Found, now: UnixMs) -> Option<LicenseStatus> {
        let metrics = &self.validator.telemetry.metrics;
        let license = found.license()?;
        let verdict = match found.is_replaced || self.validator.is_revoked(&found.id) {
            true => LicenseVerdict::Invalid(Code::LicenseDisabled),
            false if found.slot.record.refunded => LicenseVerdict::Invalid(Code::LicenseRefunded),
            false => self.verdict(license, now),
        };
        found.slot.see(now);
        metrics.license_checked(NAME, if verdict.is_valid() { "valid" } else { "invalid" });
        Some(match verdict {
            LicenseVerdict::Valid { plan, until } => {
                LicenseStatus::Valid(License { id: found.id, key: found.id, plan, until })
            }
            LicenseVerdict::Invalid(code) => LicenseStatus::Invalid(code),
        })
    }

    /// The licence that an operator means by a key.
    pub async fn id_of(&self, key: &Credential, now: UnixMs) -> Option<LicenseId> {
        self.find(self.key_id(key.expose()), now).await.map(|found| found.id)
    }
}
