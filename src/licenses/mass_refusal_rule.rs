//! When refusals count as a mass refusal.

use std::time::Duration;

use gatekeeper_filters::kernel::UnixMs;

use super::{
    clock::passed,
    memory_cache::{CacheSlot, MemoryCache},
};

/// Period in which refusals are counted.
const WINDOW: Duration = Duration::from_secs(600);
const DAY: Duration = Duration::from_secs(86_400);
/// Fewer are never a mass refusal.
const FEWEST: usize = 10;
/// A mass refusal hits more than one in this many licences in use.
const SHARE: usize = 5;

/// At least ten, and more than a fifth of those that were seen.
pub fn is_sudden(turned: usize, seen: usize) -> bool {
    turned >= FEWEST && turned * SHARE > seen
}

/// Whether more licences turned invalid in the last ten minutes than is plausible.
pub fn is_going_on(memory_cache: &MemoryCache, now: UnixMs) -> bool {
    let (mut turned, mut seen) = (0, 0);
    for (_, kept) in memory_cache.all() {
        seen += usize::from(was_seen(&kept, now));
        turned += usize::from(
            kept.record.turned.is_some_and(|turned| passed(turned.first, now) < WINDOW),
        );
    }
    is_sudden(turned, seen)
}

/// Whether that was so when the previous process ended, by the cached entries.
pub fn was_going_on(memory_cache: &MemoryCache, now: UnixMs) -> bool {
    let (mut turned, mut in_use) = (0, 0);
    for (_, kept) in memory_cache.all() {
        turned += usize::from(kept.record.is_held(now));
        in_use += usize::from(is_in_use(&kept, now));
    }
    is_sudden(turned, in_use)
}

/// Used in the last ten minutes; right after a start, checked in the last day.
pub fn is_in_use(kept: &CacheSlot, now: UnixMs) -> bool {
    match kept.seen().0 {
        0 => kept.record.good.is_some() && passed(kept.record.answered, now) < DAY,
        _ => was_seen(kept, now),
    }
}

fn was_seen(kept: &CacheSlot, now: UnixMs) -> bool {
    kept.seen().0 > 0 && passed(kept.seen(), now) < WINDOW
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
