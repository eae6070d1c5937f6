//! Limits calls to a shop: so many in any 60 seconds as its own limit allows ([`Shop::calls_per_minute`], `budget:` of
//! the source), in pools, so that no class of requests can use up the calls of another. Of each 50 calls:
//!
//! ```text
//! known   10   requests that wait for a licence that was valid before
//! behind  10   the same licences, revalidated in the background
//! clean   10   addresses without a refused key; 4 in any 24 s, so that a burst leaves some for
//!              the rest of the minute
//! shared  20   all: known and behind after their own, clean before its own, the rest only here
//! ```

use std::{collections::VecDeque, time::Duration};

#[cfg(doc)]
use crate::shops::Shop;

/// Whose call it is, in the order in which they are let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallPriority {
    /// A known licence whose request waits.
    Known,
    /// An unknown key from an address without a refused key in the last hour.
    Clean,
    /// Any other unknown key.
    Rest,
    /// A known licence that is served while it is checked.
    Behind,
}

impl CallPriority {
    pub const ALL: [CallPriority; 4] =
        [CallPriority::Known, CallPriority::Clean, CallPriority::Rest, CallPriority::Behind];

    /// The pools it may take from, by their place in [`POOLS`].
    pub fn pools(self) -> &'static [usize] {
        match self {
            CallPriority::Known => &[KNOWN, BEHIND, SHARED],
            CallPriority::Behind => &[BEHIND, SHARED],
            CallPriority::Clean => &[SHARED, CLEAN],
            CallPriority::Rest => &[SHARED],
        }
    }
}

/// At most `calls` in any stretch of time as long as `span`, for each pair, where the shop takes [`WHOLE`] a minute.
pub struct WindowLimit {
    pub name: &'static str,
    pub bounds: &'static [(usize, Duration)],
}

/// What all of [`POOLS`] are together.
const WHOLE: usize = 50;

impl WindowLimit {
    /// The pool's part of so many calls a minute.
    pub fn bounds_of(&self, per_minute: usize) -> impl Iterator<Item = (usize, Duration)> {
        let part = move |most: usize| (most.saturating_mul(per_minute) / WHOLE).max(1);
        self.bounds.iter().map(move |(most, span)| (part(*most), *span))
    }
}

/// The longest span of [`POOLS`].
pub const LONGEST_SPAN: Duration = Duration::from_secs(60);

const KNOWN: usize = 0;
const BEHIND: usize = 1;
const CLEAN: usize = 2;
const SHARED: usize = 3;
pub const POOLS: [WindowLimit; 4] = [
    WindowLimit { name: "known", bounds: &[(10, LONGEST_SPAN)] },
    WindowLimit { name: "behind", bounds: &[(10, LONGEST_SPAN)] },
    WindowLimit { name: "clean", bounds: &[(10, LONGEST_SPAN), (4, Duration::from_secs(24))] },
    WindowLimit { name: "shared", bounds: &[(20, LONGEST_SPAN)] },
];

/// The calls of one process to one shop.
#[derive(Default)]
pub struct CallBudget {
    /// When each call was let through, oldest first, in milliseconds of any clock.
    calls: [VecDeque<u64>; POOLS.len()],
}

/// A call that was let through; it can be given back when it is not made after all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallToken {
    pub pool: usize,
    pub at: u64,
}

impl CallBudget {
    /// A call of a class, where the shop takes so many a minute.
    ///
    /// # Errors
    /// Milliseconds until there may be room for one.
    pub fn take(
        &mut self,
        class: CallPriority,
        per_minute: usize,
        now: u64,
    ) -> Result<CallToken, u64> {
        let mut shortest = u64::MAX;
        for pool in class.pools().iter().copied() {
            match self.wait(pool, per_minute, now) {
                0 => {
                    self.calls[pool].push_back(now);
                    return Ok(CallToken { pool, at: now });
                }
                wait => shortest = shortest.min(wait),
            }
        }
        Err(shortest)
    }

    pub fn give_back(&mut self, call: &CallToken) {
        let calls = &mut self.calls[call.pool];
        if let Some(place) = calls.iter().rposition(|at| *at == call.at) {
            calls.remove(place);
        }
    }

    /// Milliseconds until a pool has room; 0 when it has.
    fn wait(&mut self, pool: usize, per_minute: usize, now: u64) -> u64 {
        self.forget(pool, now);
        let calls = &self.calls[pool];
        let of = |(most, span): (usize, Duration)| {
            // There is room when the call that is `most` back has left the span.
            let place = calls.len().checked_sub(most)?;
            Some((calls[place] + span.as_millis() as u64).saturating_sub(now))
        };
        POOLS[pool].bounds_of(per_minute).filter_map(of).max().unwrap_or(0)
    }

    fn forget(&mut self, pool: usize, now: u64) {
        let calls = &mut self.calls[pool];
        let span = LONGEST_SPAN.as_millis() as u64;
        while calls.front().is_some_and(|at| now.saturating_sub(*at) >= span) {
            calls.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn taken(budget: &mut CallBudget, class: CallPriority, now: u64) -> usize {
        taken_of(budget, class, WHOLE, now)
    }

    fn taken_of(budget: &mut CallBudget, class: CallPriority, all: usize, now: u64) -> usize {
        std::iter::from_fn(|| budget.take(class, all, now).ok()).count()
    }

    #[test]
    fn each_class_has_its_share() {
        let mut budget = CallBudget::default();
        assert_eq!(taken(&mut budget, CallPriority::Rest, 0), 20);
        assert_eq!(taken(&mut budget, CallPriority::Clean, 0), 4);
        assert_eq!(taken(&mut budget, CallPriority::Known, 0), 20);
        assert_eq!(budget.take(CallPriority::Behind, WHOLE, 1_000), Err(59_000));
        assert_eq!(budget.take(CallPriority::Clean, WHOLE, 1_000), Err(23_000));
        assert_eq!(taken(&mut budget, CallPriority::Clean, 30_000), 4, "for the second half");
        assert_eq!(taken(&mut budget, CallPriority::Clean, 55_000), 2);
        assert_eq!(taken(&mut budget, CallPriority::Rest, 59_999), 0);
        assert_eq!(taken(&mut budget, CallPriority::Rest, 60_000), 20);
    }

    #[test]
    fn what_is_served_meanwhile_leaves_calls_to_those_who_wait() {
        let mut budget = CallBudget::default();
        assert_eq!(taken(&mut budget, CallPriority::Behind, 0), 30);
        assert_eq!(taken(&mut budget, CallPriority::Known, 0), 10);
        assert_eq!(taken(&mut budget, CallPriority::Clean, 0), 4);
    }

    #[test]
    fn a_call_that_was_not_made_is_free_again() {
        let mut budget = CallBudget::default();
        assert_eq!(taken(&mut budget, CallPriority::Rest, 0), 20);
        budget.give_back(&CallToken { pool: SHARED, at: 0 });
        assert_eq!(taken(&mut budget, CallPriority::Rest, 1), 1);
    }

    #[test]
    fn a_shop_that_takes_more_is_asked_more_in_the_same_parts() {
        for (all, rest, clean) in [(400, 160, 32), (150, 60, 12), (5, 2, 1)] {
            let mut budget = CallBudget::default();
            assert_eq!(taken_of(&mut budget, CallPriority::Rest, all, 0), rest);
            assert_eq!(taken_of(&mut budget, CallPriority::Clean, all, 0), clean);
            // What a changed configuration allows holds at once.
            assert_eq!(taken_of(&mut budget, CallPriority::Rest, 2 * all, 0), rest);
        }
    }

    proptest! {
        #[test]
        fn no_minute_has_more_calls_than_the_shop_takes(
            steps in prop::collection::vec((0u64..3_000, 0usize..4), 1..400),
            all in 5usize..200,
        ) {
            let (mut budget, mut now, mut calls) = (CallBudget::default(), 0, Vec::new());
            for (step, class) in steps {
                now += step;
                calls.extend(budget.take(CallPriority::ALL[class], all, now).ok().map(|call| call.at));
            }
            for start in &calls {
                let within = calls.iter().filter(|at| **at >= *start && **at < start + 60_000);
                prop_assert!(within.count() <= all);
            }
        }
    }
}
