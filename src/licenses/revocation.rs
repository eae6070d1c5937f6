//! An operator's commands and report on a licence of any source.

use std::sync::Arc;

use gatekeeper_filters::kernel::{
    Code, Credential, LicenseId, LicenseQuery, LicenseStatus, Plan, UnixMs,
};

use super::{
    ConfiguredLicenses, STATIC, cache_entry::CachedLicense, devices::Devices, key_move::KeyMove,
    validator::LicenseValidator,
};
use crate::shops::{LicenseVerdict, issued, signed};

/// Attempts to sync before the operator is told that it happens later.
const TRIES: usize = 3;

/// All that is known of one licence.
#[derive(Debug, Clone)]
pub struct LicenseReport {
    /// What its use is counted under.
    pub id: LicenseId,
    /// What its buyer may call it by.
    pub public_id: String,
    /// The key it has now.
    pub key: LicenseId,
    /// The move of the named key, if an operator moved it.
    pub moved: Option<KeyMove>,
    pub source: &'static str,
    /// The plan it has, or had if it ended. `None` if unknown.
    pub plan: Option<Arc<Plan>>,
    /// Why it is not valid, apart from being revoked.
    pub refused: Option<Code>,
    pub until: Option<UnixMs>,
    /// Since when an operator has it revoked.
    pub revoked: Option<UnixMs>,
    /// When its shop was last asked.
    pub checked: Option<UnixMs>,
    /// The last request since the start of this gateway.
    pub seen: Option<UnixMs>,
    pub devices: Option<Devices>,
}

/// Why a licence is not found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotFound {
    /// No source knows the key.
    Key(Code),
    /// No licence of this id was used here.
    Id,
    /// The shop could not be asked.
    Unknown,
}

/// How an operator names a licence.
#[derive(Debug, Clone)]
pub enum LicenseRef {
    Key(Credential),
    Id(LicenseId),
}

/// What became of an operator's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RevocationOutcome {
    /// It was not so before.
    pub changed: bool,
    pub on_disk: bool,
    /// The other gateways know.
    pub told: bool,
}

impl LicenseValidator {
    pub fn is_revoked(&self, id: &LicenseId) -> bool {
        self.memory_cache.is_revoked(id)
    }

    /// Takes a licence back, or gives it again.
    pub async fn set_revoked(&self, id: LicenseId, revoked: bool) -> RevocationOutcome {
        // The new revocation must be later than one of another gateway that has not arrived here.
        let _ = self.latest(&id).await;
        let none = CachedLicense::default();
        let change =
            |there: Option<&CachedLicense>| there.unwrap_or(&none).revoke(revoked, UnixMs::now());
        let changed = self.memory_cache.update(id, change).is_some();
        // Written again if repeated: the first write may have failed.
        let on_disk = self.memory_cache.get(&id).is_none() || self.disk_cache.put_now(id).await;
        RevocationOutcome { changed, on_disk, told: self.share_again(id).await }
    }

    /// Sends the revocation to the other gateways; whether the store took it.
    pub async fn share_again(&self, id: LicenseId) -> bool {
        for _ in 1..TRIES {
            if self.share(id).await {
                return true;
            }
        }
        self.share(id).await
    }
}

impl ConfiguredLicenses {
    /// What is known of a licence. A key that is new here is asked about at its shop, as its first
    /// request would.
    ///
    /// # Errors
    /// Nothing is.
    pub async fn find(&self, subject: &LicenseRef) -> Result<LicenseReport, NotFound> {
        let id = match subject {
            LicenseRef::Key(key) => self.license_id(key).await,
            LicenseRef::Id(id) => *id,
        };
        if let LicenseRef::Key(key) = subject
            && let Some(report) = self.signed_report(id, key).await
        {
            return Ok(report);
        }
        if let Some(known) = self.known(id).await {
            return Ok(known);
        }
        let LicenseRef::Key(credential) = subject else { return Err(NotFound::Id) };
        let asking = LicenseQuery { credential, address: None, instance: None, now: UnixMs::now() };
        match self.identify(&asking).await {
            LicenseStatus::Valid(_) | LicenseStatus::OtherDevice(_) => {
                self.known(id).await.ok_or(NotFound::Unknown)
            }
            // A shop may know it and refuse it, which is worth a look as well.
            LicenseStatus::Invalid(code) => self.known(id).await.ok_or(NotFound::Key(code)),
            LicenseStatus::Replaced { .. } => {
                self.known(id).await.ok_or(NotFound::Key(Code::LicenseDisabled))
            }
            LicenseStatus::Unknown { .. } | LicenseStatus::TooMany { .. } => Err(NotFound::Unknown),
        }
    }

    /// What is known here of a key, without a call.
    pub async fn find_here(&self, key: LicenseId) -> Option<LicenseReport> {
        self.known_as(key).await
    }

    /// The licence of a key: of ours, the one that its keys share.
    async fn license_id(&self, key: &Credential) -> LicenseId {
        let now = UnixMs::now();
        let found = match &self.issued {
            Some(issued) => issued.id_of(key, now).await,
            None => None,
        };
        found.unwrap_or_else(|| self.id(key, now))
    }

    /// The report on a signed licence: its claims, and its revocation.
    async fn signed_report(&self, id: LicenseId, key: &Credential) -> Option<LicenseReport> {
        let license = self.verify(key.expose(), UnixMs::now())?.ok()?;
        let kept = self.validator.known(&id).await;
        let none = CachedLicense::default();
        let record = kept.as_ref().map_or(&none, |kept| &kept.record);
        Some(LicenseReport {
            id: self.validator.account(&id),
            public_id: self.validator.hasher.public_id(&self.validator.account(&id)),
            key: id,
            moved: record.moved.clone(),
            source: signed::NAME,
            refused: None,
            until: license.until,
            revoked: self.revoked_since(&id),
            checked: None,
            seen: None,
            devices: self.validator.devices_by(&license.plan, record),
            plan: Some(license.plan.clone()),
        })
    }

    /// Since when a key, or the licence that it continues, is revoked.
    fn revoked_since(&self, key: &LicenseId) -> Option<UnixMs> {
        let revoked = |id: &LicenseId| {
            let kept = self.validator.memory_cache.get(id)?;
            kept.record.revocation.revoked.then_some(kept.record.revocation.at)
        };
        revoked(&self.validator.account(key)).or_else(|| revoked(key))
    }

    /// What is known of the licence that a key stands for, under the key that it has now.
    async fn known(&self, named: LicenseId) -> Option<LicenseReport> {
        let newest = self.validator.newest(named);
        let mut report = None;
        if newest != named {
            report = self.known_as(newest).await;
        }
        let report = match report {
            Some(report) => report,
            None => self.known_as(named).await?,
        };
        let kept = self.validator.memory_cache.moved(&named);
        Some(LicenseReport { moved: kept.and_then(|kept| kept.record.moved.clone()), ..report })
    }

    async fn known_as(&self, id: LicenseId) -> Option<LicenseReport> {
        let now = UnixMs::now();
        let kept = self.validator.known(&id).await;
        let record = kept.as_ref().map(|kept| &kept.record);
        let revoked = self.revoked_since(&id);
        let listed = self.listed.get(&id);
        let facts = record.and_then(|record| record.facts.as_ref());
        let ours = self.issued.as_ref().zip(
            record.and_then(|record| record.issued.as_ref()).and_then(|issued| issued.license()),
        );
        let source = match (listed, facts) {
            (Some(_), _) => STATIC,
            (None, _) if ours.is_some() => issued::NAME,
            (None, Some(facts)) => facts.shop.name(),
            // Of a key that was in the file once, only the operator's word is left.
            (None, None) if revoked.is_some() => STATIC,
            (None, None) => return None,
        };
        let verdict = match (listed, record) {
            (Some(plan), _) => LicenseVerdict::Valid { plan: plan.clone(), until: None },
            (None, Some(_)) if source == issued::NAME => ours
                .map_or(LicenseVerdict::Invalid(Code::LicenseInvalid), |(book, license)| {
                    book.verdict(license, now)
                }),
            (None, Some(record)) => self.validator.verdict(&self.sources, record, now),
            (None, None) => LicenseVerdict::Invalid(Code::LicenseInvalid),
        };
        let (plan, until, refused) = match verdict {
            LicenseVerdict::Valid { plan, until } => (Some(plan), until, None),
            LicenseVerdict::Invalid(code) => {
                let good = record.and_then(|record| record.good.as_ref());
                let had = ours.and_then(|(book, license)| {
                    book.source.plan_of(license.price.as_deref(), &license.plan).ok()
                });
                let good = good.and_then(|name| self.sources.plan(name));
                (had.or(good).cloned(), None, Some(code))
            }
        };
        let none = CachedLicense::default();
        let moment = |at: UnixMs| (at.0 > 0).then_some(at);
        Some(LicenseReport {
            id: self.validator.account(&id),
            public_id: self.validator.hasher.public_id(&self.validator.account(&id)),
            key: id,
            moved: None,
            source,
            refused,
            until,
            revoked,
            checked: record.and_then(|record| moment(record.checked)),
            seen: kept.as_ref().and_then(|kept| moment(kept.seen())),
            devices: plan
                .as_ref()
                .and_then(|plan| self.validator.devices_by(plan, record.unwrap_or(&none))),
            plan,
        })
    }
}
