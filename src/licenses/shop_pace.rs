//! Limits of a shop that are shorter or tighter than the budget all shops share: so many calls in any stretch
//! of so many milliseconds.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// How long a call waits for its place.
const PATIENCE: Duration = Duration::from_secs(8);
/// Calls that are remembered at most.
const LONGEST: usize = 10_000;

#[derive(Default)]
pub struct ShopPace(Mutex<VecDeque<Instant>>);

impl ShopPace {
    /// Waits until a call keeps all `limits`, each so many calls in so many milliseconds; false when there is no
    /// place in time.
    pub async fn wait(&self, limits: &[(usize, u64)]) -> bool {
        if limits.is_empty() {
            return true;
        }
        let now = Instant::now();
        match self.reserve(limits, now) {
            Some(at) => {
                tokio::time::sleep(at.saturating_duration_since(now)).await;
                true
            }
            None => false,
        }
    }

    /// When the call may be made; its place is taken from then on.
    fn reserve(&self, limits: &[(usize, u64)], now: Instant) -> Option<Instant> {
        let mut calls = self.0.lock();
        let longest = limits.iter().map(|(_, span)| *span).max().unwrap_or_default();
        while calls.front().is_some_and(|at| *at + Duration::from_millis(longest) <= now)
            || calls.len() > LONGEST
        {
            calls.pop_front();
        }
        let free = |(most, span): &(usize, u64)| {
            let place = calls.len().checked_sub((*most).max(1))?;
            Some(calls[place] + Duration::from_millis(*span))
        };
        // Never before one that has its place already.
        let last = calls.back().copied();
        let at = limits.iter().filter_map(free).chain(last).max().unwrap_or(now).max(now);
        if at > now + PATIENCE {
            return None;
        }
        calls.push_back(at);
        Some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_stretch_has_more_calls_than_it_may() {
        let (pace, start) = (ShopPace::default(), Instant::now());
        let at: Vec<_> = (0..12).filter_map(|_| pace.reserve(&[(3, 1_000)], start)).collect();
        assert_eq!(at.len(), 12);
        for window in at.windows(4) {
            assert!(window[3] - window[0] >= Duration::from_secs(1));
        }
    }

    #[test]
    fn a_call_that_would_wait_too_long_is_not_made() {
        let (pace, start) = (ShopPace::default(), Instant::now());
        assert!(pace.reserve(&[(1, 60_000)], start).is_some());
        assert!(pace.reserve(&[(1, 60_000)], start).is_none());
        assert!(pace.reserve(&[(1, 60_000)], start + Duration::from_secs(60)).is_some());
    }
}
