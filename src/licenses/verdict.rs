//! What a cached licence or a cached refusal means under the live configuration.

use gatekeeper_filters::kernel::{Code, License, LicenseId, LicenseStatus, UnixMs};

use super::{
    cache_entry::{CachedLicense, no_for},
    clock::passed,
    sources::ConfiguredShops,
    validator::{LicenseValidator, refusal_code},
};
use crate::shops::{LicenseVerdict, ShopLicense};

impl LicenseValidator {
    /// The valid cached refusal of a spelling, here or at another gateway.
    pub(super) async fn refusal(
        &self,
        sources: &ConfiguredShops,
        spelling: &LicenseId,
        now: UnixMs,
    ) -> Option<Code> {
        if self.refused.contains_key(spelling) {
            return self.cached_refusal(sources, spelling, now);
        }
        let redis = self.redis_cache.as_ref().filter(|redis| redis.is_up())?;
        let why = redis.refusal(spelling).await.ok()??;
        refusal_code(&why)
    }

    /// The valid refusal of a spelling cached here, unless a changed configuration now accepts it.
    pub(super) fn cached_refusal(
        &self,
        sources: &ConfiguredShops,
        spelling: &LicenseId,
        now: UnixMs,
    ) -> Option<Code> {
        let refusal = self.refused.get(spelling)?;
        let is_accepted = |facts: &ShopLicense| !sources.judge(facts, now).is_foreign();
        let holds = passed(refusal.at, now) < no_for(&sources.cache, refusal.times);
        (holds && !refusal.facts.as_ref().is_some_and(is_accepted)).then_some(refusal.code)
    }

    /// The status by the cache, after a look-up.
    pub(super) fn cached_status(
        &self,
        sources: &ConfiguredShops,
        id: LicenseId,
        spelling: Option<&LicenseId>,
        now: UnixMs,
    ) -> LicenseStatus {
        match self.memory_cache.get(&id) {
            Some(kept) if kept.record.facts.is_some() => {
                kept.see(now);
                // The request may be older than the answer.
                let now = now.max(kept.record.answered);
                status(id, Some(self.verdict(sources, &kept.record, now)))
            }
            _ => match spelling.and_then(|spelling| self.refused.get(spelling)) {
                Some(refusal) => LicenseStatus::Invalid(refusal.code),
                None => LicenseStatus::Invalid(Code::LicenseInvalid),
            },
        }
    }

    /// The meaning of a cache entry at `now`.
    pub(super) fn verdict(
        &self,
        sources: &ConfiguredShops,
        record: &CachedLicense,
        now: UnixMs,
    ) -> LicenseVerdict {
        let Some(facts) = &record.facts else {
            return LicenseVerdict::Invalid(Code::LicenseInvalid);
        };
        // A refund acts even during a mass refusal.
        if record.refunded {
            return LicenseVerdict::Invalid(Code::LicenseRefunded);
        }
        let verdict = sources.judge(facts, now);
        if !verdict.is_foreign() {
            return verdict;
        }
        let good = record.good.as_ref().filter(|_| sources.is_held() && record.is_held(now));
        // The mass-refusal guard covers "not the seller's", not an end of the licence itself.
        if let (Some(_), Some(code)) = (good, facts.ended(now)) {
            return LicenseVerdict::Invalid(code);
        }
        match good.and_then(|name| sources.plan(name)) {
            Some(plan) => LicenseVerdict::Valid { plan: plan.clone(), until: None },
            None => verdict,
        }
    }
}

pub fn status(id: LicenseId, verdict: Option<LicenseVerdict>) -> LicenseStatus {
    match verdict {
        Some(LicenseVerdict::Valid { plan, until }) => {
            LicenseStatus::Valid(License { id, key: id, plan, until })
        }
        Some(LicenseVerdict::Invalid(code)) => LicenseStatus::Invalid(code),
        None => LicenseStatus::Unknown { why: "no shop could be asked" },
    }
}
