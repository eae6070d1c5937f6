//! Decides about one licence key: from the cache, else by a look-up at the shops.

use std::{sync::Arc, time::Duration};

use gatekeeper_filters::kernel::{Code, LicenseId, LicenseQuery, LicenseStatus, UnixMs};

use super::{
    address_throttle::{ClientPrefix, ThrottleDecision},
    cache_entry::CacheQuery,
    call_budget::CallPriority,
    memory_cache::CacheSlot,
    shop_lookup::LookupRequest,
    single_flight::FlightResult,
    sources::ConfiguredShops,
    validator::LicenseValidator,
    verdict::status,
};
use crate::shops::LicenseVerdict;

impl LicenseValidator {
    /// The status of a key that belongs to a shop.
    pub async fn check(
        self: &Arc<Self>,
        sources: &Arc<ConfiguredShops>,
        id: LicenseId,
        asking: &LicenseQuery<'_>,
    ) -> LicenseStatus {
        // Keys of no source are refused without a look-up in the shared store.
        if self.memory_cache.get(&id).is_none()
            && sources.questions(asking.credential.expose()).is_empty()
        {
            return self.refuse_unknown(&id, asking);
        }
        match self.known_at(&id, asking.now).await {
            Some(kept) if kept.record.facts.is_some() => {
                self.check_known(sources, id, &kept, asking).await
            }
            _ => self.check_unknown_key(sources, id, asking).await,
        }
    }

    async fn check_known(
        self: &Arc<Self>,
        sources: &Arc<ConfiguredShops>,
        id: LicenseId,
        kept: &Arc<CacheSlot>,
        asking: &LicenseQuery<'_>,
    ) -> LicenseStatus {
        let now = asking.now;
        kept.see(now);
        let verdict = self.verdict(sources, &kept.record, now);
        let decision = kept.record.decide(verdict, &sources.cache, &id, now);
        let cache = &self.telemetry.metrics.license_cache;
        match (decision.ask, decision.answer) {
            (CacheQuery::No, answer) => {
                let valid = answer.as_ref().is_some_and(LicenseVerdict::is_valid);
                if valid {
                    cache.fresh.inc()
                } else {
                    cache.negative.inc()
                }
                status(id, answer)
            }
            (CacheQuery::Behind, answer) => {
                cache.stale.inc();
                if kept.try_again(now, pause(sources)) {
                    let lookup = self.lookup_request(sources, id, asking, CallPriority::Behind);
                    self.revalidate_in_background(lookup, kept.clone());
                }
                status(id, answer)
            }
            (CacheQuery::First, answer) => {
                cache.miss.inc();
                // A look-up has just failed, and a cached answer still holds.
                let in_vain = !kept.try_again(now, pause(sources)) && !self.flights.is_open(&id);
                if in_vain && answer.is_some() {
                    return status(id, answer);
                }
                match self.validate_now(sources, id, kept, asking).await {
                    Ok(()) => self.cached_status(sources, id, None, now),
                    Err(_) if answer.is_some() => status(id, answer),
                    Err(why) => LicenseStatus::Unknown { why },
                }
            }
        }
    }

    /// Looks up a known licence and waits; a second time if a webhook arrived during the look-up that was
    /// joined.
    async fn validate_now(
        self: &Arc<Self>,
        sources: &Arc<ConfiguredShops>,
        id: LicenseId,
        kept: &Arc<CacheSlot>,
        asking: &LicenseQuery<'_>,
    ) -> FlightResult {
        let lookup = || self.lookup_request(sources, id, asking, CallPriority::Known);
        self.ask(lookup(), Some(kept)).await?;
        match self.memory_cache.get(&id) {
            Some(kept) if kept.record.is_due(UnixMs::now()) => {
                self.ask(lookup(), Some(&kept)).await
            }
            _ => Ok(()),
        }
    }

    /// Looks up while the request is served from the cache. The flight begins with the call, not with the
    /// wait for its permit: a request that can't be served must not join a wait of low priority.
    fn revalidate_in_background(self: &Arc<Self>, lookup: LookupRequest, kept: Arc<CacheSlot>) {
        let id = lookup.id;
        if !self.behind.lock().insert(id) {
            return;
        }
        let validator = self.clone();
        self.runtime.spawn(async move {
            let lookup = LookupRequest { before: Some(kept.record.clone()), ..lookup };
            if let Some(first) = validator.first_question(&lookup)
                && let Some(permit) = validator.permit(&first, CallPriority::Behind, None).await
            {
                validator.start(lookup, Some(&kept), Some(permit));
            }
            validator.behind.lock().remove(&id);
        });
    }

    async fn check_unknown_key(
        self: &Arc<Self>,
        sources: &Arc<ConfiguredShops>,
        id: LicenseId,
        asking: &LicenseQuery<'_>,
    ) -> LicenseStatus {
        let now = asking.now;
        let cache = &self.telemetry.metrics.license_cache;
        let address = asking.address.map(ClientPrefix::from);
        let spelling = self.spelling(sources, asking);
        if let Some(code) = self.refusal(sources, &spelling, now).await {
            cache.negative.inc();
            if code != Code::DeviceLimit {
                self.record_refusal(address, now);
            }
            return LicenseStatus::Invalid(code);
        }
        cache.miss.inc();
        let class = match address.map(|address| self.address_throttle.admit(address, &id, now)) {
            Some(ThrottleDecision::TooMany { retry_after }) => {
                return LicenseStatus::TooMany { retry_after };
            }
            Some(ThrottleDecision::Clean) => CallPriority::Clean,
            Some(ThrottleDecision::Suspect) | None => CallPriority::Rest,
        };
        let lookup = LookupRequest { address, ..self.lookup_request(sources, id, asking, class) };
        let before = self.memory_cache.get(&id);
        if before.as_ref().is_some_and(|kept| kept.record.facts.is_some()) {
            // Another request's look-up has ended since this one found no entry.
            return self.cached_status(sources, id, Some(&spelling), now);
        }
        if let Err(why) = self.ask(lookup, before.as_ref()).await {
            return LicenseStatus::Unknown { why };
        }
        let status = self.cached_status(sources, id, Some(&spelling), now);
        match (&status, address) {
            (LicenseStatus::Valid(_), Some(address)) => {
                self.address_throttle.record_success(address, &id)
            }
            // The app has yet to activate its device: not a guessed key.
            (LicenseStatus::Invalid(Code::DeviceLimit), _) => {}
            (LicenseStatus::Invalid(_), address) => self.record_refusal(address, now),
            _ => {}
        }
        status
    }

    /// Whether a key is not known here although the shared store may know it.
    pub(super) fn is_new(&self, id: &LicenseId) -> bool {
        self.redis_cache.is_some() && self.memory_cache.get(id).is_none()
    }

    /// Refuses a new key of an address that has tried too many of them, before the shared store is asked about
    /// this one, so that made-up keys cost the store nothing. Counts the key otherwise.
    pub(super) fn refuse_guess(
        &self,
        id: &LicenseId,
        asking: &LicenseQuery<'_>,
    ) -> Option<LicenseStatus> {
        let address = asking.address.map(ClientPrefix::from)?;
        match self.address_throttle.admit(address, id, asking.now) {
            ThrottleDecision::TooMany { retry_after } => {
                Some(LicenseStatus::TooMany { retry_after })
            }
            ThrottleDecision::Clean | ThrottleDecision::Suspect => None,
        }
    }

    /// A new key was no guess: another gateway knew it.
    pub(super) fn record_known(&self, id: &LicenseId, asking: &LicenseQuery<'_>) {
        if let Some(address) = asking.address.map(ClientPrefix::from) {
            self.address_throttle.record_success(address, id);
        }
    }

    /// Refuses a key of no source. Addresses that try many are throttled, whatever the form of the keys.
    pub(super) fn refuse_unknown(
        &self,
        id: &LicenseId,
        asking: &LicenseQuery<'_>,
    ) -> LicenseStatus {
        let Some(address) = asking.address.map(ClientPrefix::from) else {
            return LicenseStatus::Invalid(Code::LicenseInvalid);
        };
        if let ThrottleDecision::TooMany { retry_after } =
            self.address_throttle.admit(address, id, asking.now)
        {
            return LicenseStatus::TooMany { retry_after };
        }
        self.address_throttle.record_failure(address, asking.now);
        LicenseStatus::Invalid(Code::LicenseInvalid)
    }

    fn record_refusal(&self, address: Option<ClientPrefix>, now: UnixMs) {
        if let Some(address) = address {
            self.address_throttle.record_failure(address, now);
        }
    }
}

/// Interval between two look-ups of a licence whose cached entry still serves, in milliseconds.
fn pause(sources: &ConfiguredShops) -> u64 {
    let pause = sources.cache.fresh / 24;
    pause.clamp(Duration::from_secs(1), Duration::from_secs(30)).as_millis() as u64
}
