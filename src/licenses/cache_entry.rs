//! What is kept of a licence that a shop once knew as ours, and what may be done with it when.
//!
//! ```text
//! checked ─── fresh ───► ─── stale ───► after that
//!   taken as it is      served, while   the request waits for the shop;
//!                       it is asked     without an answer: unknown
//! ```
//! A no that is explicit acts at once. "Not found" and "another product" about a licence that was
//! good could be the shop's mistake: they act after three in fifteen minutes or more.

mod repair;

use std::time::Duration;

use gatekeeper_filters::kernel::{Code, LicenseId, UnixMs};
use serde::{Deserialize, Serialize};

use super::{clock::passed, issued::IssuedRecord, key_move::KeyMove};
use crate::{
    config::settings::LicenseCacheSettings,
    shops::{LicenseVerdict, ShopLicense, ShopReply},
};

/// A "not found" about a licence that was good counts when it was said this often ...
const MISSES: u32 = 3;
/// ... over this long.
const MISSING: Duration = Duration::from_secs(15 * 60);
/// How long the last good facts hold against a sudden refusal of many.
pub(super) const HELD: Duration = Duration::from_secs(72 * 3600);
/// Longest a no is kept.
const LONGEST_NO: Duration = Duration::from_secs(300);
/// One webhook that is not signed, or comes again, causes one check in this time.
const MARK_EVERY: Duration = Duration::from_secs(60);
/// Characters of a device's name.
const LONGEST_NAME: usize = 255;
/// How long a device that gave its place back is remembered.
const GONE: Duration = Duration::from_secs(7 * 24 * 3600);

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)] // What an older version wrote is never thrown away for a member it lacks.
pub struct CachedLicense {
    /// `None` for licences of no shop (which have only devices here) and for those a shop forgot.
    pub facts: Option<ShopLicense>,
    /// The spelling under which the shop last knew the key, as 64 bits of its HMAC in hex.
    pub spelling: Option<String>,
    /// When the question was asked whose answer the facts are.
    pub checked: UnixMs,
    /// The same of the last answer of any kind, "not found" too.
    pub answered: UnixMs,
    /// A webhook asked for a check before the next use, from this moment on.
    pub marked: UnixMs,
    /// The shop said so by a signed webhook; its licence answers do not tell.
    pub refunded: bool,
    /// A no, said this often in a row.
    pub refusals: u32,
    /// The plan when it was last valid; `None` after an explicit no.
    pub good: Option<String>,
    pub turned: Option<Suspect>,
    pub devices: Vec<CachedDevice>,
    /// The operator's word, which outlives whatever a shop says.
    pub revocation: Revocation,
    /// What an operator moved: the key that replaced this one, the licence that this one continues.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub moved: Option<KeyMove>,
    /// What it is as a licence of our own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issued: Option<Box<IssuedRecord>>,
}

/// Whether an operator took the licence back, and since when it is so. Of two words the later one
/// holds, of two of one moment the one that refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Revocation {
    pub at: UnixMs,
    pub revoked: bool,
}

/// A good licence about which the shop has begun to say that it is not ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspect {
    pub first: UnixMs,
    pub times: u32,
}

/// An activated device: its id is hashed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CachedDevice {
    pub id: String,
    /// When it was last seen to have its place, or gave it back.
    pub checked: UnixMs,
    /// It gave its place back; remembered for a while, so that no older word brings it back.
    pub gone: bool,
    /// The buyer's name for it, only where the licence API that gives it back is served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// It was activated under the key that this one replaced: the shop of this one does not know it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub carried: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheQuery {
    No,
    /// In the background, while the answer is served.
    Behind,
    /// The request waits; the answer, if there is one, holds if the shop says nothing.
    First,
}

/// What to do with a request of this licence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheDecision {
    pub ask: CacheQuery,
    pub answer: Option<LicenseVerdict>,
}

impl CachedLicense {
    /// The record after a shop's answer to a question asked at `asked`. `judge` says what facts mean
    /// now; `holding` that too many turned at once to be believed.
    #[must_use]
    pub fn hear(
        &self,
        reply: &ShopReply,
        asked: UnixMs,
        judge: impl Fn(&ShopLicense) -> LicenseVerdict,
        holding: bool,
    ) -> CachedLicense {
        let mut next = self.clone();
        match reply {
            ShopReply::Unknown(_) | ShopReply::NeedsDevice => return next,
            // Overtaken by the answer to a later question.
            _ if asked < self.answered => return next,
            ShopReply::NotFound if self.good.is_some() => next.miss(asked, None, holding),
            ShopReply::NotFound => next.refusals = self.refusals.saturating_add(1),
            ShopReply::License(facts) => {
                let facts: &ShopLicense = facts;
                let verdict = judge(facts);
                if verdict.is_foreign() && self.good.is_some() {
                    next.miss(asked, Some(facts), holding);
                } else {
                    next.believe(facts, &verdict, asked);
                }
            }
        }
        next.answered = asked;
        next
    }

    fn believe(&mut self, facts: &ShopLicense, verdict: &LicenseVerdict, asked: UnixMs) {
        if self.facts.as_ref().and_then(ShopLicense::order) != facts.order() {
            self.refunded = false;
        }
        // Another shop took the key over, and knows nothing of its devices.
        if self.facts.as_ref().is_some_and(|before| before.shop != facts.shop) {
            self.devices.iter_mut().for_each(|device| device.carried = true);
        }
        self.facts = Some(facts.clone());
        self.checked = asked;
        self.turned = None;
        match verdict {
            LicenseVerdict::Valid { plan, .. } => {
                self.good = Some(plan.name.to_string());
                self.refusals = 0;
            }
            LicenseVerdict::Invalid(_) => {
                self.good = None;
                self.refusals = self.refusals.saturating_add(1);
            }
        }
    }

    fn miss(&mut self, asked: UnixMs, facts: Option<&ShopLicense>, holding: bool) {
        let turned = self.turned.get_or_insert(Suspect { first: asked, times: 0 });
        turned.times += 1;
        let since = passed(turned.first, asked);
        let held = holding && since < HELD;
        if turned.times >= MISSES && since >= MISSING && !held {
            self.facts = facts.cloned();
            self.checked = asked;
            self.good = None;
            self.turned = None;
            self.refusals = 1;
        }
    }

    /// The record after a webhook. One that is not sure to be new has its effect a minute after the
    /// last one.
    #[must_use]
    pub fn mark(&self, now: UnixMs, new: bool) -> CachedLicense {
        let mut next = self.clone();
        let pending = self.marked > now;
        next.marked = match (new, pending) {
            (true, _) => now,
            (false, true) => return next,
            (false, false) => now.max(self.marked.plus(MARK_EVERY)),
        };
        next
    }

    /// The record of a good licence that the configuration calls foreign from `now` on.
    #[must_use]
    pub fn turn(&self, now: UnixMs) -> Option<CachedLicense> {
        if self.turned.is_some() {
            return None;
        }
        let turned = Some(Suspect { first: now, times: 0 });
        Some(CachedLicense { turned, ..self.clone() })
    }

    /// Both records of one licence in one; which is merged into which makes no difference, nor how
    /// often. Facts are those of the later question, what was said since is that of the later
    /// answer, marks and refunds are kept from both, and of each device, and of the operator, the
    /// later word counts.
    #[must_use]
    pub fn merge(&self, other: &CachedLicense) -> CachedLicense {
        let facts = if self.checked >= other.checked { self } else { other };
        let said = if self.answered >= other.answered { self } else { other };
        let order = |record: &CachedLicense| {
            record.facts.as_ref().and_then(ShopLicense::order).map(str::to_owned)
        };
        let is_refunded = |record: &CachedLicense| record.refunded && order(record) == order(facts);
        let turned = match self.answered == other.answered {
            true => self.turned.or(other.turned),
            false => said.turned,
        };
        let issued = self.issued.as_ref().max(other.issued.as_ref()).cloned();
        let revocation = self.revocation.max(other.revocation);
        if issued.as_ref().is_some_and(|issued| issued.is_forgotten()) {
            return CachedLicense { issued, revocation, ..CachedLicense::default() };
        }
        CachedLicense {
            facts: facts.facts.clone(),
            spelling: facts.spelling.clone(),
            checked: facts.checked,
            answered: said.answered,
            marked: self.marked.max(other.marked),
            refunded: is_refunded(self) || is_refunded(other),
            refusals: said.refusals,
            good: facts.good.clone(),
            turned,
            devices: merge_devices(&self.devices, &other.devices),
            revocation,
            issued,
            moved: self.moved.as_ref().max(other.moved.as_ref()).cloned(),
        }
    }

    /// The record after an operator's word, which is later than any before; `None` when it says
    /// what is so already.
    #[must_use]
    pub fn revoke(&self, revoked: bool, now: UnixMs) -> Option<CachedLicense> {
        if self.revocation.revoked == revoked {
            return None;
        }
        let at = now.max(UnixMs(self.revocation.at.0 + 1));
        Some(CachedLicense { revocation: Revocation { at, revoked }, ..self.clone() })
    }

    /// It was forgotten so long ago that not even this is to be known any more.
    pub fn is_over(&self, now: UnixMs) -> bool {
        let kept = self.issued.as_ref().and_then(|issued| issued.kept_for(now));
        kept.is_some_and(|left| left.is_zero())
    }

    /// Most devices, where the licence itself says so.
    pub fn device_limit(&self) -> Option<u64> {
        match self.issued.as_ref().and_then(|issued| issued.license()) {
            Some(license) => license.max_devices,
            None => self.facts.as_ref()?.activation_limit,
        }
    }

    /// The devices that have a place.
    pub fn active(&self) -> impl Iterator<Item = &CachedDevice> {
        self.devices.iter().filter(|device| !device.gone)
    }

    /// Those of them that a shop's own list does not have.
    pub fn carried(&self) -> impl Iterator<Item = &CachedDevice> {
        self.active().filter(|device| device.carried)
    }

    pub fn device(&self, id: &str) -> Option<&CachedDevice> {
        self.active().find(|device| device.id == id)
    }

    /// Writes down that a device has its place, or gave it back.
    #[must_use]
    pub fn with_device(&self, id: &str, gone: bool, now: UnixMs) -> CachedLicense {
        let mut next = self.clone();
        let name = self.device(id).filter(|_| !gone).and_then(|known| known.name.clone());
        next.devices.retain(|known| known.id != id);
        next.devices.retain(|known| !known.gone || passed(known.checked, now) < GONE);
        let device = CachedDevice { id: id.to_owned(), checked: now, gone, name, carried: false };
        next.devices.push(device);
        next.devices.sort_by(|one, other| one.id.cmp(&other.id));
        next
    }

    /// Writes down what a device that has its place is called.
    #[must_use]
    pub fn with_device_name(mut self, id: &str, name: &str) -> CachedLicense {
        if let Some(device) = self.devices.iter_mut().find(|device| device.id == id && !device.gone)
        {
            device.name = Some(name.chars().take(LONGEST_NAME).collect());
        }
        self
    }

    /// What to do at `now`, where the facts mean `verdict`.
    pub fn decide(
        &self,
        verdict: LicenseVerdict,
        cache: &LicenseCacheSettings,
        id: &LicenseId,
        now: UnixMs,
    ) -> CacheDecision {
        let since = |at: UnixMs| passed(at, now);
        let served = since(self.answered) < cache.fresh + cache.stale;
        let known = |verdict: LicenseVerdict| served.then_some(verdict);
        if self.is_due(now) {
            return CacheDecision { ask: CacheQuery::First, answer: known(verdict) };
        }
        let age = match verdict.is_valid() && self.turned.is_none() {
            true => since(self.checked),
            false => since(self.answered),
        };
        let (fresh, lapsed) = match &verdict {
            LicenseVerdict::Valid { .. } if self.turned.is_some() => {
                (cache.fresh.min(LONGEST_NO), false)
            }
            LicenseVerdict::Valid { .. } => (shortened(cache.fresh, id), false),
            // It has ended since the shop was asked, and may have been renewed.
            LicenseVerdict::Invalid(Code::LicenseExpired) if self.good.is_some() => {
                return CacheDecision { ask: CacheQuery::First, answer: None };
            }
            LicenseVerdict::Invalid(_) => (no_for(cache, self.refusals), true),
        };
        let (ask, answer) = match (age < fresh, lapsed, served) {
            (true, ..) => (CacheQuery::No, Some(verdict)),
            (false, true, _) => (CacheQuery::First, known(verdict)),
            (false, false, true) => (CacheQuery::Behind, Some(verdict)),
            (false, false, false) => (CacheQuery::First, None),
        };
        CacheDecision { ask, answer }
    }

    /// A webhook's check that no answer has come to yet.
    pub fn is_due(&self, now: UnixMs) -> bool {
        self.marked.0 > 0 && self.answered <= self.marked && self.marked <= now
    }

    /// Whether it turned, and still holds against a refusal of many at once.
    pub fn is_held(&self, now: UnixMs) -> bool {
        self.turned.is_some_and(|turned| passed(turned.first, now) < HELD)
    }
}

pub(super) fn merge_devices(one: &[CachedDevice], other: &[CachedDevice]) -> Vec<CachedDevice> {
    fn rank(device: &CachedDevice) -> (UnixMs, bool, bool, Option<&str>) {
        (device.checked, device.gone, device.carried, device.name.as_deref())
    }
    let mut devices = one.to_vec();
    for theirs in other {
        match devices.iter_mut().find(|ours| ours.id == theirs.id) {
            // Of two words of one moment the one that gives no place away.
            Some(ours) if rank(theirs) > rank(ours) => ours.clone_from(theirs),
            Some(_) => {}
            None => devices.push(theirs.clone()),
        }
    }
    devices.sort_by(|one, other| one.id.cmp(&other.id));
    devices
}

/// How long a no is kept that was said `times` in a row.
pub fn no_for(cache: &LicenseCacheSettings, times: u32) -> Duration {
    let doubled = cache.negative.saturating_mul(1 << times.saturating_sub(1).min(8));
    doubled.min(LONGEST_NO.max(cache.negative))
}

/// Up to a tenth shorter, the same for each licence: those bought together are not checked together.
fn shortened(fresh: Duration, id: &LicenseId) -> Duration {
    fresh - fresh / 10 * u32::from(id.0[0]) / 255
}

#[cfg(test)]
mod tests;
