//! How many attempts a provider gets beyond the first of each request: second tries of a key, and tries
//! through an open circuit. Without a bound each outage would double the requests of its provider.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    time::Instant,
};

use parking_lot::Mutex;

use super::backoff::millis;

/// Seconds that are looked at: the present one and ten whole ones before it.
const SECONDS: u64 = 11;
/// Of the requests in that time, in percent.
const SHARE: u64 = 20;
/// Always allowed in that time.
const LEAST: u64 = 3;

#[derive(Debug, Default)]
pub struct RetryBudget {
    seconds: [Second; SECONDS as usize],
    /// Held while an attempt is granted, so that two can't take the last one.
    granting: Mutex<()>,
}

#[derive(Debug, Default)]
struct Second {
    /// Which second since the clock began, counted from one.
    turn: AtomicU64,
    requests: AtomicU32,
    granted: AtomicU32,
}

impl RetryBudget {
    /// A request came for the provider.
    pub fn count(&self, now: Instant) {
        self.second(now).requests.fetch_add(1, Relaxed);
    }

    /// Whether one more attempt is granted; it is counted.
    pub fn take(&self, now: Instant) -> bool {
        let _one = self.granting.lock();
        let is_granted = self.has_left(now);
        if is_granted {
            self.second(now).granted.fetch_add(1, Relaxed);
        }
        is_granted
    }

    /// Whether one more would be granted.
    pub fn has_left(&self, now: Instant) -> bool {
        let turn = millis(now) / 1000 + 1;
        let recent = |second: &&Second| second.turn.load(Relaxed) + SECONDS > turn;
        let (mut requests, mut granted) = (0, 0);
        for second in self.seconds.iter().filter(recent) {
            requests += u64::from(second.requests.load(Relaxed));
            granted += u64::from(second.granted.load(Relaxed));
        }
        granted < (requests * SHARE / 100).max(LEAST)
    }

    fn second(&self, now: Instant) -> &Second {
        let turn = millis(now) / 1000 + 1;
        let second = &self.seconds[(turn % SECONDS) as usize];
        // Two that come at once may lose a count between them, which changes nothing.
        if second.turn.load(Relaxed) != turn && second.turn.swap(turn, Relaxed) != turn {
            second.requests.store(0, Relaxed);
            second.granted.store(0, Relaxed);
        }
        second
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_fifth_of_the_last_ten_seconds_and_never_less_than_three() {
        super::super::backoff::start_clock();
        let (budget, start) = (RetryBudget::default(), Instant::now() + Duration::from_secs(100));
        let taken = |at: Instant| (0..1000).filter(|_| budget.take(at)).count();
        budget.count(start);
        assert_eq!(taken(start), 3);
        assert_eq!(taken(start + Duration::from_secs(9)), 0, "those are counted");
        let later = start + Duration::from_secs(20);
        for tenth in 0..100 {
            budget.count(later + Duration::from_millis(tenth * 100));
        }
        let end = later + Duration::from_secs(10);
        let (now, after) = (taken(end), taken(end + Duration::from_secs(1)));
        assert!((18..=20).contains(&now) && after == 0, "{now} and {after} of 100");
        assert_eq!(taken(end + Duration::from_secs(12)), 3);
    }
}
