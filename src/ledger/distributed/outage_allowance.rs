//! How much a licence may spend while Redis is unavailable: pure arithmetic.
//!
//! Once for each window of its limits the smaller of 2 % of the limit and of what this gateway last saw
//! left, at least 1 if any was left; and for 60 s of each outage at most. So all gateways together
//! exceed a limit by at most their number times that. What is spent is journalled as all usage is, and
//! reaches the store after the outage. Configured by `on_store_down: lease`.

use std::time::{Duration, Instant};

use gatekeeper_filters::kernel::{Demand, Denied, Limit, UnixMs};

use serde::{Deserialize, Serialize};

use super::script_reply::LimitCount;
use crate::ledger::windows::Windows;

/// The allowance is the limit divided by this.
const SHARE: u64 = 50;
/// The allowance of one outage ends after this.
const LONGEST: Duration = Duration::from_secs(60);
/// A licence whose last decision is older than this gets no allowance; milliseconds.
const MAX_STATE_AGE: u64 = 24 * 3600 * 1000;

/// The last state of a licence in the store that this gateway has seen.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct LastStoreState {
    pub at: UnixMs,
    messages: WindowRemaining,
    tokens: WindowRemaining,
    /// When the limit resets that the last request was refused for; 0 if it was granted.
    #[serde(default)]
    refused_until: UnixMs,
    /// The refusal itself.
    #[serde(default)]
    refusal: Option<LastRefusal>,
}

/// The limit that a request was refused for, and its usage.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct LastRefusal {
    /// Of tokens; else of messages.
    of_tokens: bool,
    limit: u64,
    used: u64,
    /// Above 0 where the request was too large for the rest.
    left: u64,
}

/// What was left in the window that began at `start`; `None` without a limit.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct WindowRemaining {
    start: UnixMs,
    left: Option<u64>,
}

/// What was spent during outages in one window.
#[derive(Debug, Clone, Copy, Default)]
struct WindowSpent {
    start: UnixMs,
    /// In the whole window.
    total: u64,
    /// In the current outage.
    current: u64,
}

/// What a licence has spent during outages.
#[derive(Debug, Clone, Copy)]
pub struct OutageAllowance {
    /// The number of the outage.
    outage: u64,
    began: Instant,
    messages: WindowSpent,
    tokens: WindowSpent,
}

/// The amounts that one request takes from the allowance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllowanceUse {
    pub output: Option<u64>,
    pub tokens: u64,
}

impl LastStoreState {
    pub fn new(demand: &Demand, now: UnixMs, messages: LimitCount, tokens: LimitCount) -> Self {
        let windows = Windows::at(now);
        let left = |limit: Option<Limit>, count: LimitCount| WindowRemaining {
            start: limit.map_or(UnixMs(0), |limit| windows.of(limit.per).start),
            left: limit.map(|_| count.left()),
        };
        Self {
            at: now,
            messages: left(demand.messages, messages),
            tokens: left(demand.tokens, tokens),
            refused_until: UnixMs(0),
            refusal: None,
        }
    }

    /// The state after a refusal because a limit is used up, or too little of it is left; `None` for any other
    /// refusal.
    pub fn refused(demand: &Demand, now: UnixMs, denied: &Denied) -> Option<Self> {
        let (refusal, refused_until) = match *denied {
            Denied::Messages { limit, used, resets_at } => {
                let limit = limit.count;
                (LastRefusal { of_tokens: false, limit, used, left: 0 }, resets_at)
            }
            Denied::Tokens { limit, used, left, resets_at, .. } => {
                let limit = limit.count;
                (LastRefusal { of_tokens: true, limit, used, left }, resets_at)
            }
            _ => return None,
        };
        let nothing = LimitCount { used: 0, limit: 0 };
        let state = Self::new(demand, now, nothing, nothing);
        Some(Self { refused_until, refusal: Some(refusal), ..state })
    }

    /// The refusal during an outage: the same one, in the same window, for a request that would not fit
    /// either.
    pub fn refusal(&self, demand: &Demand, now: UnixMs) -> Option<Denied> {
        let resets_at = Some(self.refused_until).filter(|until| *until > now)?;
        let LastRefusal { of_tokens, limit: count, used, left } = self.refusal?;
        let windows = Windows::at(now);
        let limit = if of_tokens { demand.tokens } else { demand.messages };
        let limit = limit.filter(|limit| windows.of(limit.per).end == resets_at)?;
        let limit = Limit { count, ..limit };
        if !of_tokens {
            return Some(Denied::Messages { limit, used, resets_at });
        }
        let least = demand.min_output.min(demand.output.unwrap_or(u64::MAX));
        let needed = demand.input.saturating_add(least);
        (needed > left).then_some(Denied::Tokens { limit, used, left, needed, resets_at })
    }

    /// Whether it is too old to grant an allowance on.
    pub fn is_old(&self, now: UnixMs) -> bool {
        now.0.saturating_sub(self.at.0) > MAX_STATE_AGE
    }
}

impl WindowSpent {
    fn in_window(self, start: UnixMs, same_outage: bool) -> WindowSpent {
        match self.start == start {
            true if same_outage => self,
            true => WindowSpent { current: 0, ..self },
            false => WindowSpent { start, total: 0, current: 0 },
        }
    }

    fn add(&mut self, amount: u64) {
        self.total = self.total.saturating_add(amount);
        self.current = self.current.saturating_add(amount);
    }

    fn give_back(&mut self, amount: u64) {
        self.total = self.total.saturating_sub(amount);
        self.current = self.current.saturating_sub(amount);
    }
}

/// What may still be spent. A window that began during the outage has its whole limit left.
fn available(limit: Limit, last: WindowRemaining, spent: WindowSpent) -> u64 {
    let left = match last.left {
        Some(left) if last.start == spent.start => left,
        _ => limit.count,
    };
    let share = (limit.count / SHARE).max(1);
    let left = left.saturating_sub(spent.current);
    share.saturating_sub(spent.total).min(left)
}

/// What was spent during outages in one window, as it is saved over a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AllowanceRow {
    pub start: UnixMs,
    pub spent: u64,
}

impl OutageAllowance {
    /// Messages and tokens.
    pub fn rows(&self) -> [AllowanceRow; 2] {
        [self.messages, self.tokens]
            .map(|spent| AllowanceRow { start: spent.start, spent: spent.total })
    }

    /// What an earlier process spent, in an outage that is over.
    pub fn restored(rows: [AllowanceRow; 2]) -> Self {
        let [messages, tokens] =
            rows.map(|row| WindowSpent { start: row.start, total: row.spent, current: 0 });
        Self { outage: u64::MAX, began: Instant::now(), messages, tokens }
    }

    /// Takes what a request needs; `None` if the allowance does not cover it.
    pub fn spend(
        allowance: &mut Option<OutageAllowance>,
        last: &LastStoreState,
        demand: &Demand,
        outage: u64,
        at: Instant,
    ) -> Option<AllowanceUse> {
        if last.is_old(demand.now) || demand.now < last.refused_until {
            return None;
        }
        let before = allowance.filter(|allowance| allowance.outage == outage);
        let began = before.map_or(at, |allowance| allowance.began);
        let is_limited = demand.messages.is_some() || demand.tokens.is_some();
        if is_limited && at.saturating_duration_since(began) >= LONGEST {
            return None;
        }
        let windows = Windows::at(demand.now);
        let spent = |of: fn(&OutageAllowance) -> WindowSpent, limit: Option<Limit>| {
            let start = limit.map_or(UnixMs(0), |limit| windows.of(limit.per).start);
            let known = allowance.as_ref().map(of).unwrap_or_default();
            known.in_window(start, before.is_some())
        };
        let mut messages = spent(|allowance| allowance.messages, demand.messages);
        let mut tokens = spent(|allowance| allowance.tokens, demand.tokens);
        if let Some(limit) = demand.messages
            && available(limit, last.messages, messages) == 0
        {
            return None;
        }
        let output = match demand.tokens {
            None => demand.output,
            Some(limit) => Some(fit(demand, available(limit, last.tokens, tokens))?),
        };
        let amount = demand.input.saturating_add(output.unwrap_or(0));
        messages.add(1);
        tokens.add(amount);
        *allowance = Some(OutageAllowance { outage, began, messages, tokens });
        Some(AllowanceUse { output, tokens: amount })
    }

    /// Replaces what a request took by what it was charged.
    pub fn settle(&mut self, used: AllowanceUse, message: bool, tokens: u64) {
        self.messages.give_back(u64::from(!message));
        self.tokens.give_back(used.tokens);
        self.tokens.add(tokens);
    }
}

/// The output that fits, if any does.
fn fit(demand: &Demand, left: u64) -> Option<u64> {
    let room = left.checked_sub(demand.input)?;
    let wanted = demand.output.unwrap_or(room);
    let least = if wanted == 0 { 0 } else { demand.min_output.clamp(1, wanted.max(1)) };
    (room >= least).then(|| wanted.min(room))
}

#[cfg(test)]
mod tests {
    use gatekeeper_filters::kernel::{About, LicenseId, Period};
    use proptest::prelude::*;

    use super::*;

    const NOW: UnixMs = UnixMs(1_795_485_600_123);

    fn demand(messages: Option<u64>, tokens: Option<u64>) -> Demand {
        let month = |count| Limit { count, per: Period::Month };
        Demand {
            license: LicenseId([7; 32]),
            now: NOW,
            about: About::default(),
            input_cost: 0,
            messages: messages.map(month),
            tokens: tokens.map(month),
            input: 10,
            output: Some(40),
            min_output: 20,
            pace: None,
            message_id: None,
            conversation: None,
        }
    }

    fn seen(demand: &Demand, messages: u64, tokens: u64) -> LastStoreState {
        let count = |left: u64, limit: Option<Limit>| {
            let limit = limit.map_or(0, |limit| limit.count);
            LimitCount { used: limit - left.min(limit), limit }
        };
        LastStoreState::new(
            demand,
            NOW,
            count(messages, demand.messages),
            count(tokens, demand.tokens),
        )
    }

    fn spends(demand: &Demand, last: &LastStoreState) -> usize {
        let (mut allowance, at) = (None, Instant::now());
        (0..10_000)
            .take_while(|_| OutageAllowance::spend(&mut allowance, last, demand, 1, at).is_some())
            .count()
    }

    #[test]
    fn two_in_a_hundred_and_never_more_than_was_left() {
        for (limit, left, expected) in
            [(1_000, 1_000, 20), (1_000, 3, 3), (1_000, 0, 0), (50, 50, 1), (10, 10, 1), (1, 0, 0)]
        {
            let demand = demand(Some(limit), None);
            assert_eq!(spends(&demand, &seen(&demand, left, 0)), expected, "{limit} {left}");
        }
    }

    /// A licence last refused because its limit is used up has no allowance until that window ends.
    #[test]
    fn a_licence_refused_last_has_no_allowance_in_that_window() {
        let demand = demand(Some(1_000), None);
        let until = UnixMs(NOW.0 + 3_600_000);
        let limit = demand.messages.unwrap();
        let denied = Denied::Messages { limit, used: 1_000, resets_at: until };
        let refused = LastStoreState::refused(&demand, NOW, &denied).unwrap();
        assert_eq!(spends(&demand, &refused), 0);
        let last = Demand { now: UnixMs(until.0 - 1), ..demand.clone() };
        assert_eq!(spends(&last, &refused), 0);
        let granted = seen(&demand, 1_000, 0);
        assert_eq!(spends(&last, &granted), 20);
        let next = Demand { now: until, messages: None, ..demand };
        assert!(spends(&next, &refused) > 0);
    }

    /// A refusal for tokens stays one for tokens, and does not apply to a smaller request that might fit.
    #[test]
    fn a_refusal_is_repeated_where_it_still_holds() {
        let large = Demand { input: 900, ..demand(Some(1_000), Some(2_000)) };
        let limit = large.tokens.unwrap();
        let resets_at = Windows::at(NOW).of(limit.per).end;
        let denied = Denied::Tokens { limit, used: 1_500, left: 500, needed: 920, resets_at };
        let refused = LastStoreState::refused(&large, NOW, &denied).unwrap();
        assert_eq!(refused.refusal(&large, NOW), Some(denied.clone()));
        assert_eq!(refused.refusal(&Demand { input: 480, ..large.clone() }, NOW), None);
        assert_eq!(refused.refusal(&large, resets_at), None);
        let limit = Limit { count: 1_010, ..large.messages.unwrap() };
        let denied = Denied::Messages { limit, used: 1_010, resets_at };
        let refused = LastStoreState::refused(&large, NOW, &denied).unwrap();
        assert_eq!(refused.refusal(&large, NOW), Some(denied));
        assert!(LastStoreState::refused(&large, NOW, &Denied::Busy).is_none());
    }

    #[test]
    fn tokens_shrink_to_what_may_be_spent() {
        let demand = demand(None, Some(2_000));
        let known = seen(&demand, 0, 2_000);
        let (mut allowance, at) = (None, Instant::now());
        let used = OutageAllowance::spend(&mut allowance, &known, &demand, 1, at).unwrap();
        // 2 % are 40: 10 of input leave 30.
        assert_eq!(used, AllowanceUse { output: Some(30), tokens: 40 });
        assert_eq!(OutageAllowance::spend(&mut allowance, &known, &demand, 1, at), None);
        allowance.as_mut().unwrap().settle(used, true, 5);
        let used = OutageAllowance::spend(&mut allowance, &known, &demand, 1, at).unwrap();
        assert_eq!(used.output, Some(25));
    }

    #[test]
    fn it_ends_after_a_minute_and_is_granted_once_a_window() {
        let demand = demand(Some(1_000), None);
        let known = seen(&demand, 1_000, 0);
        let (mut allowance, at) = (None, Instant::now());
        let mut spend = |outage, after: u64| {
            let at = at + Duration::from_secs(after);
            OutageAllowance::spend(&mut allowance, &known, &demand, outage, at).is_some()
        };
        assert!(spend(1, 0) && spend(1, 59));
        assert!(!spend(1, 60));
        // The next outage: what is left of the 20, in another minute.
        let more = (0..100).take_while(|_| spend(2, 100)).count();
        assert_eq!(more, 18);
        assert!(!spend(3, 200));
    }

    #[test]
    fn what_was_spent_outlives_a_restart() {
        let demand = demand(Some(1_000), None);
        let known = seen(&demand, 1_000, 0);
        let (mut allowance, at) = (None, Instant::now());
        for _ in 0..15 {
            assert!(OutageAllowance::spend(&mut allowance, &known, &demand, 1, at).is_some());
        }
        let mut allowance = Some(OutageAllowance::restored(allowance.unwrap().rows()));
        let more = (0..100)
            .take_while(|_| {
                OutageAllowance::spend(&mut allowance, &known, &demand, 1, at).is_some()
            })
            .count();
        assert_eq!(more, 5);
    }

    #[test]
    fn a_stale_state_grants_no_allowance_and_no_limit_needs_none() {
        let limited = demand(Some(1_000), None);
        let old =
            LastStoreState { at: UnixMs(NOW.0 - MAX_STATE_AGE - 1), ..seen(&limited, 1_000, 0) };
        assert_eq!(spends(&limited, &old), 0);
        let unlimited = demand(None, None);
        assert_eq!(spends(&unlimited, &seen(&unlimited, 0, 0)), 10_000);
    }

    proptest! {
        /// However requests end and whatever the number of outages: never more than 2 % (at least 1),
        /// never more than was left.
        #[test]
        fn the_bound_holds(
            limit in 1u64..5_000,
            left in 0u64..5_000,
            steps in prop::collection::vec((1u64..4, any::<bool>()), 1..400),
        ) {
            let demand = demand(Some(limit), None);
            let left = left.min(limit);
            let known = seen(&demand, left, 0);
            let (mut allowance, at) = (None, Instant::now());
            let (mut outage, mut charged) = (0, 0);
            for (step, keeps) in steps {
                outage = outage.max(step);
                if let Some(used) = OutageAllowance::spend(&mut allowance, &known, &demand, outage, at) {
                    allowance.as_mut().unwrap().settle(used, keeps, 50);
                    charged += u64::from(keeps);
                }
            }
            prop_assert!(charged <= (limit / SHARE).max(1));
            // The last seen state does not change in this test, as it would with a store.
            prop_assert!(charged <= left * 3);
        }
    }
}
