//! When many good licences turn bad at once, the mistake is the shop's or ours, not the buyers'.

use std::time::Duration;

use gatekeeper_filters::kernel::UnixMs;

use super::{
    record::passed,
    records::{Kept, Records},
};

/// How far back is looked.
const WINDOW: Duration = Duration::from_secs(600);
const FEWEST: usize = 10;
/// One in this many.
const SHARE: usize = 5;

/// At least ten, and more than a fifth of those that were seen.
pub fn is_sudden(turned: usize, seen: usize) -> bool {
    turned >= FEWEST && turned * SHARE > seen
}

/// Whether more turned bad in the last ten minutes than can be believed.
pub fn assess(records: &Records, now: UnixMs) -> bool {
    let (mut turned, mut seen) = (0, 0);
    for (_, kept) in records.all() {
        seen += usize::from(was_seen(&kept, now));
        turned += usize::from(
            kept.record.turned.is_some_and(|turned| passed(turned.first, now) < WINDOW),
        );
    }
    is_sudden(turned, seen)
}

pub fn was_seen(kept: &Kept, now: UnixMs) -> bool {
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
