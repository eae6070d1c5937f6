//! Starts the look-up of a licence at the shops, or joins the one under way.

use std::{sync::Arc, time::Duration};

use gatekeeper_filters::kernel::{LicenseId, LicenseQuery, UnixMs};

use super::{
    call_budget::CallPriority,
    call_queue::CallPermit,
    memory_cache::CacheSlot,
    shop_lookup::LookupRequest,
    single_flight::{FlightResult, Follower},
    sources::ConfiguredShops,
    validator::LicenseValidator,
};

/// How long a request waits for a shop.
const WAIT: Duration = Duration::from_secs(10);

impl LicenseValidator {
    pub(super) fn lookup_request(
        &self,
        sources: &Arc<ConfiguredShops>,
        id: LicenseId,
        asking: &LicenseQuery<'_>,
        class: CallPriority,
    ) -> LookupRequest {
        LookupRequest {
            sources: sources.clone(),
            id,
            spelling: self.spelling(sources, asking),
            key: asking.credential.clone(),
            instance: asking.instance.map(Arc::from),
            class,
            address: None,
            before: None,
        }
    }

    /// What a refusal is cached for: the key as typed, together with the device where a shop needs both.
    pub(super) fn spelling(
        &self,
        sources: &ConfiguredShops,
        asking: &LicenseQuery<'_>,
    ) -> LicenseId {
        let key = asking.credential.expose();
        match asking.instance {
            Some(instance) if !sources.activated_first(key).is_empty() => {
                self.hasher.spelling(&format!("{}\n{instance}", key.trim()))
            }
            _ => self.hasher.spelling(key),
        }
    }

    /// Looks up and waits. `before` is the entry that the caller knows: if it has changed since, no call is
    /// made.
    pub(super) async fn ask(
        self: &Arc<Self>,
        lookup: LookupRequest,
        before: Option<&Arc<CacheSlot>>,
    ) -> FlightResult {
        let Some(flight) = self.start(lookup, before, None) else { return Ok(()) };
        match tokio::time::timeout(WAIT, flight.result()).await {
            Ok(result) => result,
            Err(_) => Err("the shop did not answer in time"),
        }
    }

    /// Joins the flight of a licence, or starts it; with a call permit if the caller has one.
    pub(super) fn start(
        self: &Arc<Self>,
        mut lookup: LookupRequest,
        before: Option<&Arc<CacheSlot>>,
        permit: Option<CallPermit>,
    ) -> Option<Follower> {
        let (id, spelling) = (lookup.id, lookup.spelling);
        let is_known = before.is_some_and(|before| before.record.facts.is_some());
        let has_landed = || match (self.memory_cache.get(&id), before) {
            (Some(kept), Some(before)) => kept.record.answered > before.record.answered,
            (Some(kept), None) => kept.record.facts.is_some(),
            (None, _) => self.cached_refusal(&lookup.sources, &spelling, UnixMs::now()).is_some(),
        };
        // Until a key is known, a shop's answer applies to one spelling only.
        let joined = self.flights.join(if is_known { id } else { spelling }, has_landed);
        let Some((flight, Some(leader))) = joined else {
            self.give_back(permit);
            return joined.map(|(flight, _)| flight);
        };
        lookup.before = before.map(|kept| kept.record.clone());
        let validator = self.clone();
        self.runtime.spawn(async move { leader.finish(validator.look_up(lookup, permit).await) });
        Some(flight)
    }
}
