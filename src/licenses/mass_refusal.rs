//! Guard against mass refusals: when many valid licences turn invalid at once, the cause is the shop or the
//! configuration, not the buyers.

use std::sync::atomic::Ordering::Relaxed;

use gatekeeper_filters::kernel::UnixMs;

use super::{
    cache_entry::HELD,
    mass_refusal_rule::{is_going_on, is_in_use, is_sudden},
    shop_health::ShopStatus,
    sources::ConfiguredShops,
    validator::LicenseValidator,
};
use crate::shops::Shop;

impl LicenseValidator {
    /// Whether so many licences turned invalid at once that the shop's refusals are not applied.
    pub(super) fn is_holding(&self) -> bool {
        self.holding.load(Relaxed)
    }

    /// Looks again at how many turned bad; call after each that did.
    pub(super) fn assess(&self, now: UnixMs) {
        let was = self.is_holding();
        let any_turned = || self.memory_cache.all().any(|(_, kept)| kept.record.is_held(now));
        let holds = is_going_on(&self.memory_cache, now) || (was && any_turned());
        self.holding.store(holds, Relaxed);
        if holds && !was {
            log::error!(
                "licences: many valid licences turned \"not found\" or \"wrong product\" at once. They stay \
                 valid for up to 72 hours; check the shop and licenses.sources."
            );
        } else if was && !holds {
            log::info!("licences: the mass refusal is over.");
        }
    }

    /// Looks at what a new configuration would do to licences in use; if it would refuse many at
    /// once, it holds what was good.
    pub fn weigh(&self, sources: &ConfiguredShops) {
        let now = UnixMs::now();
        let (mut in_use, mut refused, mut foreign) = (0, 0, Vec::new());
        for (id, kept) in self.memory_cache.all() {
            let Some(facts) = &kept.record.facts else { continue };
            let is_in_use = is_in_use(&kept, now);
            in_use += usize::from(is_in_use);
            if kept.record.good.is_some() && sources.judge(facts, now).is_foreign() {
                refused += usize::from(is_in_use);
                foreign.push(id);
            }
        }
        if !is_sudden(refused, in_use) {
            return;
        }
        log::error!(
            "licences: the configuration refuses {refused} of {in_use} licences in use that were valid. \
             They are served for up to {} hours; check licenses.sources.",
            HELD.as_secs() / 3600
        );
        sources.hold();
        // All of them, or those that were not in use would be held for ever.
        for id in foreign {
            if self.memory_cache.update(id, |record| record?.turn(now)).is_some() {
                self.disk_cache.put(id);
            }
        }
    }

    /// Each shop of the configuration, for `/status` and the metrics.
    pub fn report(&self, sources: &ConfiguredShops) -> Vec<(&'static dyn Shop, ShopStatus)> {
        let of = |shop: &&'static dyn Shop| {
            let mut report = self.health(*shop).report();
            if self.is_holding() || sources.is_held() {
                let why = "many good licences were refused at once; their last good facts hold";
                report = ShopStatus { state: "holding", why: Some(why.into()), ..report };
            }
            (*shop, report)
        };
        sources.shops().iter().map(of).collect()
    }
}
