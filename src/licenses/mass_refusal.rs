//! Guard against mass refusals: when many valid licences turn invalid at once, the cause is the shop or the
//! configuration, not the buyers.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use gatekeeper_filters::kernel::UnixMs;

use super::{
    cache_entry::{HELD, passed},
    memory_cache::{CacheSlot, MemoryCache},
    shop_health::ShopStatus,
    sources::ConfiguredShops,
    validator::LicenseValidator,
};
use crate::shops::Shop;

/// How far back is looked.
const WINDOW: Duration = Duration::from_secs(600);
const DAY: Duration = Duration::from_secs(86_400);
const FEWEST: usize = 10;
/// One in this many.
const SHARE: usize = 5;

/// At least ten, and more than a fifth of those that were seen.
fn is_sudden(turned: usize, seen: usize) -> bool {
    turned >= FEWEST && turned * SHARE > seen
}

/// Whether more turned bad in the last ten minutes than can be believed.
fn is_going_on(records: &MemoryCache, now: UnixMs) -> bool {
    let (mut turned, mut seen) = (0, 0);
    for (_, kept) in records.all() {
        seen += usize::from(was_seen(&kept, now));
        turned += usize::from(
            kept.record.turned.is_some_and(|turned| passed(turned.first, now) < WINDOW),
        );
    }
    is_sudden(turned, seen)
}

/// Whether that was so when the process ended, as far as the records tell.
pub fn was_going_on(records: &MemoryCache, now: UnixMs) -> bool {
    let (mut turned, mut in_use) = (0, 0);
    for (_, kept) in records.all() {
        turned += usize::from(kept.record.is_held(now));
        in_use += usize::from(is_in_use(&kept, now));
    }
    is_sudden(turned, in_use)
}

/// Seen in the last ten minutes; right after a start, when nobody was seen, asked about in the last
/// day.
fn is_in_use(kept: &CacheSlot, now: UnixMs) -> bool {
    match kept.seen().0 {
        0 => kept.record.good.is_some() && passed(kept.record.answered, now) < DAY,
        _ => was_seen(kept, now),
    }
}

fn was_seen(kept: &CacheSlot, now: UnixMs) -> bool {
    kept.seen().0 > 0 && passed(kept.seen(), now) < WINDOW
}

impl LicenseValidator {
    /// Whether so many licences turned bad at once that the shop is not believed.
    pub(super) fn is_holding(&self) -> bool {
        self.holding.load(Relaxed)
    }

    /// Looks again at how many turned bad; call after each that did.
    pub(super) fn assess(&self, now: UnixMs) {
        let was = self.is_holding();
        let any_turned = || self.records.all().any(|(_, kept)| kept.record.is_held(now));
        let holds = is_going_on(&self.records, now) || (was && any_turned());
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
        for (id, kept) in self.records.all() {
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
            if self.records.update(id, |record| record?.turn(now)).is_some() {
                self.shelf.put(id);
            }
        }
    }

    /// Each shop of the configuration, as `/status` and the metrics tell it.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_and_more_than_a_fifth_are_too_many() {
        assert!(is_sudden(10, 49) && is_sudden(10, 10));
        assert!(!is_sudden(10, 50) && !is_sudden(9, 9) && !is_sudden(200, 1_000));
    }
}
