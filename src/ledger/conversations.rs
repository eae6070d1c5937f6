//! What the conversations of one licence count: messages of a day, of a minute, and last turns that come again.
//!
//! A conversation takes 60 bytes a day: 8 for its number, 52 below. Numbers and turns are keyed hashes:
//! neither the app's name for a conversation nor its content is stored. A message that is returned to the plan
//! is returned here, too, from all three counts.

use gatekeeper_filters::kernel::{
    ConversationDemand, ConversationRefused, Limit, Period, UnixMs, Window,
};
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use super::windows::Windows;

/// How long a turn counts as the same one, from its first time on, in seconds.
pub const SAME_TURN: u32 = 600;
/// Turns of a conversation counted separately. Beyond them one of those that came least often is dropped, any
/// of them: a loop of more texts than these is found, too, only later.
const TURNS: usize = 8;
/// Bits of a turn's age in its place, in seconds up to [`SAME_TURN`]; the others are of its hash.
const AGE_BITS: u32 = 10;
/// How long the count of a day is kept after its beginning.
pub const KEPT_MS: u64 = 2 * 86_400_000;

/// One conversation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConversationCounts {
    /// When it last counted a message, in seconds since 1970: the windows of `messages` and `rate` are those of
    /// then.
    touched: u32,
    messages: u32,
    rate: u32,
    /// Hash of a turn, and its age at `touched`.
    turns: [u32; TURNS],
    /// How often it came; 0 for a place that is free.
    times: [u8; TURNS],
}

const _: () = assert!(size_of::<ConversationCounts>() + size_of::<u64>() <= 64);

/// A message that a conversation has counted: all that it takes to give it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountedMessage {
    pub id: u64,
    /// In seconds since 1970.
    at: u32,
    /// Where turns are counted.
    turn: Option<u32>,
    rate: Option<Period>,
    messages: Option<Period>,
}

#[derive(Debug, Default)]
pub struct ConversationTable(FxHashMap<u64, ConversationCounts>);

fn seconds(at: UnixMs) -> u32 {
    u32::try_from(at.0 / 1000).unwrap_or(u32::MAX)
}

fn moment(seconds: u32) -> UnixMs {
    UnixMs(u64::from(seconds) * 1000)
}

impl CountedMessage {
    fn new(demand: &ConversationDemand, now: UnixMs) -> Self {
        let limits = &demand.limits;
        Self {
            id: demand.id,
            at: seconds(now),
            turn: demand.turn.filter(|_| limits.repeats.is_some()),
            rate: limits.rate.map(|limit| limit.per),
            messages: limits.messages.map(|limit| limit.per),
        }
    }

    /// The beginning of the window in which it counts among `messages`.
    pub fn window(&self) -> Option<UnixMs> {
        self.messages.map(|per| per.window(moment(self.at)).start)
    }
}

impl ConversationCounts {
    fn is_in(&self, window: Window) -> bool {
        window.contains(moment(self.touched))
    }

    fn within(&self, count: u32, limit: Limit, windows: &Windows) -> u64 {
        if self.is_in(windows.of(limit.per)) { u64::from(count) } else { 0 }
    }

    fn age(&self, at: usize) -> u32 {
        self.turns[at] & ((1 << AGE_BITS) - 1)
    }

    /// The place of a turn that still counts at `now`.
    fn place(&self, turn: u32, now: u32) -> Option<usize> {
        let passed = now.saturating_sub(self.touched);
        (0..TURNS).find(|at| {
            let is_same = self.times[*at] > 0 && self.turns[*at] >> AGE_BITS == hashed(turn);
            is_same && self.age(*at).saturating_add(passed) < SAME_TURN
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
            && self.within(self.rate, limit, windows) >= limit.count
        {
            let resets_at = windows.of(limit.per).end;
            return Err(ConversationRefused::Rate { limit, resets_at });
        }
        if let Some(limit) = limits.messages
            && self.within(self.messages, limit, windows) >= limit.count
        {
            let resets_at = windows.of(limit.per).end;
            return Err(ConversationRefused::Messages { limit, resets_at });
        }
        let at = demand.turn.and_then(|turn| self.place(turn, seconds(now)));
        if let (Some(limit), Some(at)) = (limits.repeats, at)
            && u32::from(self.times[at]) >= limit
        {
            let resets_at = moment(self.touched - self.age(at).min(self.touched) + SAME_TURN);
            return Err(ConversationRefused::Repeats { limit, resets_at });
        }
        Ok(())
    }

    fn count(&mut self, demand: &ConversationDemand, now: UnixMs, windows: &Windows) {
        let limits = &demand.limits;
        // What is not limited now is kept for a plan that limits it again.
        let next = |count: u32, limit: Option<Limit>, shortest: Period| {
            let is_current = self.is_in(windows.of(limit.map_or(shortest, |limit| limit.per)));
            let known = if is_current { count } else { 0 };
            known.saturating_add(u32::from(limit.is_some()))
        };
        let messages = next(self.messages, limits.messages, Period::Hour);
        let rate = next(self.rate, limits.rate, Period::Minute);
        (self.messages, self.rate) = (messages, rate);
        self.grow_older(seconds(now));
        if let Some(turn) = demand.turn.filter(|_| limits.repeats.is_some()) {
            let at = self.place(turn, self.touched).unwrap_or_else(|| self.make_room(turn));
            self.times[at] = self.times[at].saturating_add(1);
        }
    }

    /// Moves to `now`; turns that count no more make room.
    fn grow_older(&mut self, now: u32) {
        let passed = now.saturating_sub(self.touched);
        for at in 0..TURNS {
            let age = self.age(at).saturating_add(passed);
            if self.times[at] == 0 || age >= SAME_TURN {
                (self.turns[at], self.times[at]) = (0, 0);
            } else {
                self.turns[at] += passed;
            }
        }
        self.touched = now;
    }

    /// A place for a turn that comes for the first time.
    fn make_room(&mut self, turn: u32) -> usize {
        let fewest = self.times.iter().copied().min().unwrap_or_default();
        let rare = || (0..TURNS).filter(|at| self.times[*at] == fewest);
        // Any of them, so that no loop finds its turns gone each time: by a multiplicative hash (Knuth, 6.4) of
        // what came when.
        let mixed = ((hashed(turn).wrapping_add(self.touched) & 0xFFFF) * 40_503) & 0xFFFF;
        let nth = (mixed as usize * rare().count()) >> 16;
        let at = if fewest == 0 { rare().next() } else { rare().nth(nth) }.unwrap_or_default();
        (self.turns[at], self.times[at]) = (hashed(turn) << AGE_BITS, 0);
        at
    }

    fn give_back(&mut self, counted: &CountedMessage) {
        let is_in = |per: Option<Period>| {
            u32::from(per.is_some_and(|per| self.is_in(per.window(moment(counted.at)))))
        };
        let (rate, messages) = (is_in(counted.rate), is_in(counted.messages));
        self.rate = self.rate.saturating_sub(rate);
        self.messages = self.messages.saturating_sub(messages);
        // What began later than this message was counted has it not.
        let since = self.touched.saturating_sub(counted.at);
        let place = counted.turn.and_then(|turn| self.place(turn, self.touched));
        if let Some(at) = place.filter(|at| self.age(*at) >= since) {
            self.times[at] -= 1;
        }
    }
}

/// As much of a turn as stands beside its age.
fn hashed(turn: u32) -> u32 {
    turn & (u32::MAX >> AGE_BITS)
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

    pub fn count(
        &mut self,
        demand: &ConversationDemand,
        now: UnixMs,
        windows: &Windows,
    ) -> CountedMessage {
        self.0.entry(demand.id).or_default().count(demand, now, windows);
        CountedMessage::new(demand, now)
    }

    pub fn give_back(&mut self, counted: &CountedMessage) {
        if let Some(known) = self.0.get_mut(&counted.id) {
            known.give_back(counted);
        }
    }

    /// Puts back what was counted in the window that begins at `start`; windows have to come in the order of
    /// their starts.
    pub fn restore(&mut self, id: u64, start: UnixMs, messages: u64) {
        let conversation = self.0.entry(id).or_default();
        let messages = u32::try_from(messages).unwrap_or(u32::MAX);
        if conversation.touched <= seconds(start) {
            *conversation =
                ConversationCounts { touched: seconds(start), messages, ..Default::default() };
        }
    }

    /// All of it, for another process.
    pub fn all(&self) -> Vec<(u64, ConversationCounts)> {
        self.0.iter().map(|(id, conversation)| (*id, *conversation)).collect()
    }

    /// Takes in what another process had in memory, which is all that it counted.
    pub fn adopt(&mut self, id: u64, known: &ConversationCounts) {
        self.0.insert(id, *known);
    }

    /// Forgets what no limit looks at any more.
    pub fn sweep(&mut self, now: UnixMs) {
        let since = seconds(UnixMs(now.0.saturating_sub(KEPT_MS)));
        self.0.retain(|_, known| known.touched >= since);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
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
        // More turns than are told apart.
        for turn in 20..40 {
            ask(&mut all, (1, turn), limits, later(601)).unwrap();
        }
    }

    /// How many messages pass of a loop of so many texts, one every six seconds, before it is refused.
    fn passed(texts: u32) -> u64 {
        let (mut all, limits) = (ConversationTable::default(), limits(1000, 10_000, 3));
        (0..1000)
            .find(|nth| {
                let text = (*nth as u32 % texts).wrapping_mul(0x9E37_79B9);
                ask(&mut all, (1, text), limits, later(nth * 6)).is_err()
            })
            .unwrap_or(1000)
    }

    #[test]
    fn a_loop_of_some_texts_is_stopped() {
        for texts in 1..=8 {
            assert_eq!(passed(texts), 3 * u64::from(texts), "a loop of {texts}");
        }
        // More than are told apart: some of them are, and one is enough.
        for texts in 9..=16 {
            assert!(passed(texts) <= 100, "a loop of {texts} went on for {}", passed(texts));
        }
        // Texts of the beginning do not hide a loop that comes behind them.
        let (mut all, limits) = (ConversationTable::default(), limits(1000, 10_000, 3));
        for text in 100..116 {
            ask(&mut all, (1, text), limits, NOON).unwrap();
        }
        let mut refused = (0..30).map(|nth| ask(&mut all, (1, nth % 2), limits, later(6)));
        assert!(refused.any(|asked| asked.is_err()));
    }

    #[test]
    fn a_message_given_back_was_never_counted() {
        let (mut all, limits) = (ConversationTable::default(), limits(3, 3, 3));
        let demand = |turn| ConversationDemand { id: 1, turn: Some(turn), limits };
        let count = |all: &mut ConversationTable, turn, now| {
            let windows = Windows::at(now);
            all.fit(&demand(turn), now, &windows)?;
            Ok::<_, ConversationRefused>(all.count(&demand(turn), now, &windows))
        };
        for nth in 0..20 {
            let counted = count(&mut all, 7, later(nth)).unwrap();
            all.give_back(&counted);
        }
        let first = count(&mut all, 7, later(30)).unwrap();
        for nth in 1..3 {
            count(&mut all, 7, later(30 + nth)).unwrap();
        }
        assert!(count(&mut all, 7, later(40)).is_err());
        all.give_back(&first);
        count(&mut all, 7, later(40)).unwrap();
        assert!(count(&mut all, 8, later(40)).is_err());
        // Of a window that is over, and of a turn that began anew, nothing comes back.
        let (mut all, limits) = (ConversationTable::default(), limits);
        let old = ConversationDemand { id: 1, turn: Some(7), limits };
        let at = |now| Windows::at(now);
        let late = all.count(&old, NOON, &at(NOON));
        let now = later(86_400);
        all.count(&old, now, &at(now));
        all.give_back(&late);
        for nth in 1..3 {
            count(&mut all, 7, later(86_400 + nth)).unwrap();
        }
        assert!(count(&mut all, 7, later(86_403)).is_err());
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
