//! What the conversations of one licence count: messages of a day, of a minute, and last turns that come again.
//!
//! A conversation takes 60 bytes a day: 8 for its number, 52 below. Numbers and turns are keyed hashes:
//! neither the app's name for a conversation nor its content is stored.

use gatekeeper_filters::kernel::{ConversationDemand, ConversationRefused, Limit, UnixMs};
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use super::windows::Windows;

/// How long a turn counts as the same one, from its first time on, in seconds.
pub const SAME_TURN: u64 = 600;
/// Turns of a conversation counted separately; the one that began first is dropped for a new one.
const TURNS: usize = 4;
/// How long the count of a day is kept after its beginning.
pub const KEPT_MS: u64 = 2 * 86_400_000;

/// One conversation. Moments are seconds since 1970.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConversationCounts {
    /// When the window of `messages` began.
    start: u32,
    messages: u32,
    /// When the window of `rate` began.
    rate_start: u32,
    rate: u32,
    turns: [u32; TURNS],
    /// When each of them came first.
    first: [u32; TURNS],
    times: [u8; TURNS],
}

const _: () = assert!(size_of::<ConversationCounts>() + size_of::<u64>() <= 64);

#[derive(Debug, Default)]
pub struct ConversationTable(FxHashMap<u64, ConversationCounts>);

fn seconds(at: UnixMs) -> u32 {
    u32::try_from(at.0 / 1000).unwrap_or(u32::MAX)
}

impl ConversationCounts {
    fn within(count: u32, start: u32, limit: Limit, windows: &Windows) -> u64 {
        if start == seconds(windows.of(limit.per).start) { u64::from(count) } else { 0 }
    }

    /// The place of a turn that still counts.
    fn place(&self, turn: u32, now: u32) -> Option<usize> {
        (0..TURNS).find(|at| {
            let is_same = self.times[*at] > 0 && self.turns[*at] == turn;
            is_same && u64::from(now.saturating_sub(self.first[*at])) < SAME_TURN
        })
    }

    fn fit(
        &self,
        demand: &ConversationDemand,
        now: UnixMs,
        windows: &Windows,
    ) -> Result<(), ConversationRefused> {
        let limits = &demand.limits;
        if let Some(limit) = limits.rate
            && Self::within(self.rate, self.rate_start, limit, windows) >= limit.count
        {
            let resets_at = windows.of(limit.per).end;
            return Err(ConversationRefused::Rate { limit, resets_at });
        }
        if let Some(limit) = limits.messages
            && Self::within(self.messages, self.start, limit, windows) >= limit.count
        {
            let resets_at = windows.of(limit.per).end;
            return Err(ConversationRefused::Messages { limit, resets_at });
        }
        let at = demand.turn.and_then(|turn| self.place(turn, seconds(now)));
        if let (Some(limit), Some(at)) = (limits.repeats, at)
            && u32::from(self.times[at]) >= limit
        {
            let resets_at = UnixMs((u64::from(self.first[at]) + SAME_TURN) * 1000);
            return Err(ConversationRefused::Repeats { limit, resets_at });
        }
        Ok(())
    }

    fn count(&mut self, demand: &ConversationDemand, now: UnixMs, windows: &Windows) {
        let add = |count: &mut u32, start: &mut u32, limit: Limit| {
            let current = seconds(windows.of(limit.per).start);
            if *start != current {
                (*start, *count) = (current, 0);
            }
            *count = count.saturating_add(1);
        };
        if let Some(limit) = demand.limits.rate {
            add(&mut self.rate, &mut self.rate_start, limit);
        }
        if let Some(limit) = demand.limits.messages {
            add(&mut self.messages, &mut self.start, limit);
        }
        if let Some(turn) = demand.turn.filter(|_| demand.limits.repeats.is_some()) {
            let now = seconds(now);
            let at = self.place(turn, now).unwrap_or_else(|| {
                let oldest = (0..TURNS).min_by_key(|at| (self.times[*at] > 0, self.first[*at]));
                let at = oldest.unwrap_or_default();
                (self.turns[at], self.first[at], self.times[at]) = (turn, now, 0);
                at
            });
            self.times[at] = self.times[at].saturating_add(1);
        }
    }
}

impl ConversationTable {
    /// # Errors
    /// Which limit of the conversation is reached.
    pub fn fit(
        &self,
        demand: &ConversationDemand,
        now: UnixMs,
        windows: &Windows,
    ) -> Result<(), ConversationRefused> {
        let fresh = ConversationCounts::default();
        self.0.get(&demand.id).unwrap_or(&fresh).fit(demand, now, windows)
    }

    pub fn count(&mut self, demand: &ConversationDemand, now: UnixMs, windows: &Windows) {
        self.0.entry(demand.id).or_default().count(demand, now, windows);
    }

    /// Puts back what was counted in the window that begins at `start`.
    pub fn restore(&mut self, id: u64, start: UnixMs, messages: u64) {
        let conversation = self.0.entry(id).or_default();
        let start = seconds(start);
        if conversation.start <= start {
            conversation.start = start;
            conversation.messages = u32::try_from(messages).unwrap_or(u32::MAX);
        }
    }

    /// All of it, for another process.
    pub fn all(&self) -> Vec<(u64, ConversationCounts)> {
        self.0.iter().map(|(id, conversation)| (*id, *conversation)).collect()
    }

    /// Takes in what another process had in memory; messages are on the disk.
    pub fn adopt(&mut self, id: u64, known: &ConversationCounts) {
        let conversation = self.0.entry(id).or_default();
        let (start, messages) = (conversation.start, conversation.messages);
        *conversation = ConversationCounts { start, messages, ..*known };
    }

    /// Forgets what no limit looks at any more.
    pub fn sweep(&mut self, now: UnixMs) {
        let since = seconds(UnixMs(now.0.saturating_sub(KEPT_MS)));
        self.0.retain(|_, known| {
            known.start.max(known.rate_start).max(latest(&known.first)) >= since
        });
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn latest(moments: &[u32]) -> u32 {
    moments.iter().copied().max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use gatekeeper_filters::kernel::{ConversationLimits, Period};

    use super::*;

    const NOON: UnixMs = UnixMs(1_796_212_800_000);

    fn limits(rate: u64, day: u64, repeats: u32) -> ConversationLimits {
        ConversationLimits {
            rate: Some(Limit { count: rate, per: Period::Minute }),
            messages: Some(Limit { count: day, per: Period::Day }),
            repeats: Some(repeats),
        }
    }

    fn later(seconds: u64) -> UnixMs {
        UnixMs(NOON.0 + seconds * 1000)
    }

    /// Counts one, unless it is refused.
    fn ask(
        all: &mut ConversationTable,
        (id, turn): (u64, u32),
        limits: ConversationLimits,
        now: UnixMs,
    ) -> Result<(), ConversationRefused> {
        let demand = ConversationDemand { id, turn: Some(turn), limits };
        let windows = Windows::at(now);
        all.fit(&demand, now, &windows)?;
        all.count(&demand, now, &windows);
        Ok(())
    }

    #[test]
    fn a_minute_a_day_and_others_beside_it() {
        let (mut all, limits) = (ConversationTable::default(), limits(3, 5, 9));
        for turn in 0..3 {
            ask(&mut all, (1, turn), limits, NOON).unwrap();
        }
        let refused = ask(&mut all, (1, 3), limits, NOON).unwrap_err();
        assert!(
            matches!(refused, ConversationRefused::Rate { resets_at, .. } if resets_at == later(60))
        );
        ask(&mut all, (2, 3), limits, NOON).unwrap();
        for turn in 3..5 {
            ask(&mut all, (1, turn), limits, later(60)).unwrap();
        }
        let refused = ask(&mut all, (1, 5), limits, later(61)).unwrap_err();
        let ConversationRefused::Messages { resets_at, .. } = refused else {
            panic!("{refused:?}")
        };
        assert_eq!(resets_at, later(12 * 3600));
        ask(&mut all, (1, 5), limits, later(12 * 3600)).unwrap();
    }

    #[test]
    fn the_same_turn_within_ten_minutes() {
        let (mut all, limits) = (ConversationTable::default(), limits(100, 100, 3));
        for nth in 0..3 {
            ask(&mut all, (1, 7), limits, later(nth * 100)).unwrap();
            ask(&mut all, (1, 8), limits, later(nth * 100)).unwrap();
        }
        let refused = ask(&mut all, (1, 7), limits, later(599)).unwrap_err();
        assert!(
            matches!(refused, ConversationRefused::Repeats { limit: 3, resets_at } if resets_at == later(600))
        );
        // Of another conversation, and of this one when its time is over.
        ask(&mut all, (2, 7), limits, later(599)).unwrap();
        ask(&mut all, (1, 7), limits, later(600)).unwrap();
        // More turns than are counted separately: the ones that began first are dropped.
        for turn in 20..30 {
            ask(&mut all, (1, turn), limits, later(601)).unwrap();
        }
    }

    #[test]
    fn the_day_outlives_a_restart_and_old_ones_are_forgotten() {
        let (mut all, limits) = (ConversationTable::default(), limits(100, 3, 9));
        let day = Windows::at(NOON).of(Period::Day).start;
        all.restore(1, day, 2);
        ask(&mut all, (1, 7), limits, NOON).unwrap();
        assert!(ask(&mut all, (1, 8), limits, NOON).is_err());
        all.sweep(later(86_400));
        assert!(!all.is_empty());
        all.sweep(later(3 * 86_400));
        assert!(all.is_empty());
    }
}
