//! What the conversations of one licence count: messages of a day, of a minute, and last turns that come again.
//!
//! A conversation takes 60 bytes a day: 8 for its number, 52 below. Numbers and turns are keyed hashes:
//! neither the app's name for a conversation nor its content is stored. A message that is returned to the plan
//! is returned here, too, from all three counts.

mod turns;

use gatekeeper_filters::kernel::{
    ConversationDemand, ConversationRefused, Limit, Period, UnixMs, Window,
};
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

pub use self::turns::{FurtherTurns, SAME_TURN};

use self::turns::{KnownTurn, TurnList, TurnListMut};
use super::windows::Windows;

/// Turns of a conversation counted beside its messages; those beyond them are [`FurtherTurns`].
const TURNS: usize = 8;
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
pub struct ConversationTable {
    counts: FxHashMap<u64, ConversationCounts>,
    /// Of conversations with more turns than their counts hold, and only as long as those count.
    further: FxHashMap<u64, FurtherTurns>,
    /// How many of those make it time to look for some that count no more.
    crowd: usize,
}

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

    fn list(&self) -> TurnList<'_> {
        TurnList { touched: self.touched, turns: &self.turns, times: &self.times }
    }

    fn list_mut(&mut self) -> TurnListMut<'_> {
        TurnListMut { touched: &mut self.touched, turns: &mut self.turns, times: &mut self.times }
    }

    fn fit(
        &self,
        demand: &ConversationDemand,
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
        self.list_mut().grow_older(seconds(now));
    }

    fn give_back(&mut self, counted: &CountedMessage) {
        let is_in = |per: Option<Period>| {
            u32::from(per.is_some_and(|per| self.is_in(per.window(moment(counted.at)))))
        };
        let (rate, messages) = (is_in(counted.rate), is_in(counted.messages));
        self.rate = self.rate.saturating_sub(rate);
        self.messages = self.messages.saturating_sub(messages);
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
        self.counts.get(&demand.id).unwrap_or(&fresh).fit(demand, windows)?;
        if let (Some(limit), Some(turn)) = (demand.limits.repeats, demand.turn)
            && let Some(known) = self.known_turn(demand.id, turn, seconds(now))
            && known.times >= limit
        {
            let resets_at = moment(known.first.saturating_add(SAME_TURN));
            return Err(ConversationRefused::Repeats { limit, resets_at });
        }
        Ok(())
    }

    fn known_turn(&self, id: u64, turn: u32, now: u32) -> Option<KnownTurn> {
        let in_counts = self.counts.get(&id).and_then(|known| known.list().known(turn, now));
        in_counts.or_else(|| self.further.get(&id)?.list().known(turn, now))
    }

    pub fn count(
        &mut self,
        demand: &ConversationDemand,
        now: UnixMs,
        windows: &Windows,
    ) -> CountedMessage {
        let counted = CountedMessage::new(demand, now);
        self.counts.entry(demand.id).or_default().count(demand, now, windows);
        if let Some(turn) = counted.turn {
            self.count_turn(demand.id, turn, seconds(now));
        }
        counted
    }

    /// Counts a turn where it was counted before; else where there is room. The counts are as of now.
    fn count_turn(&mut self, id: u64, turn: u32, now: u32) {
        let mut list = self.counts.entry(id).or_default().list_mut();
        if list.again(turn) {
            return;
        }
        let mut further = self.further.get_mut(&id);
        if let Some(further) = &mut further {
            let mut further = further.list_mut();
            further.grow_older(now);
            if further.again(turn) {
                return;
            }
        }
        if list.begin(turn) {
            return;
        }
        if further.is_none() {
            self.make_room(now);
        }
        let further = self.further.entry(id).or_default();
        further.list_mut().grow_older(now);
        further.count(turn);
    }

    /// Drops further turns that count no more, each time there are twice as many.
    fn make_room(&mut self, now: u32) {
        if self.further.len() >= self.crowd {
            self.further.retain(|_, further| further.is_live(now));
            self.crowd = (2 * self.further.len()).max(16);
        }
    }

    pub fn give_back(&mut self, counted: &CountedMessage) {
        let Some(known) = self.counts.get_mut(&counted.id) else { return };
        known.give_back(counted);
        let Some(turn) = counted.turn else { return };
        if !known.list_mut().give_back(turn, counted.at)
            && let Some(further) = self.further.get_mut(&counted.id)
        {
            further.list_mut().give_back(turn, counted.at);
        }
    }

    /// Puts back what was counted in the window that begins at `start`; windows have to come in the order of
    /// their starts.
    pub fn restore(&mut self, id: u64, start: UnixMs, messages: u64) {
        let conversation = self.counts.entry(id).or_default();
        let messages = u32::try_from(messages).unwrap_or(u32::MAX);
        if conversation.touched <= seconds(start) {
            *conversation =
                ConversationCounts { touched: seconds(start), messages, ..Default::default() };
        }
    }

    /// All of it, for another process.
    pub fn all(&self) -> Vec<(u64, ConversationCounts)> {
        self.counts.iter().map(|(id, conversation)| (*id, *conversation)).collect()
    }

    /// The further turns of all of it.
    pub fn all_further(&self) -> Vec<(u64, FurtherTurns)> {
        self.further.iter().map(|(id, further)| (*id, further.clone())).collect()
    }

    /// Takes in what another process had in memory, which is all that it counted.
    pub fn adopt(&mut self, id: u64, known: &ConversationCounts) {
        self.counts.insert(id, *known);
    }

    pub fn adopt_further(&mut self, id: u64, further: &FurtherTurns) {
        self.further.insert(id, further.clone());
    }

    /// Forgets what no limit looks at any more.
    pub fn sweep(&mut self, now: UnixMs) {
        let since = seconds(UnixMs(now.0.saturating_sub(KEPT_MS)));
        self.counts.retain(|_, known| known.touched >= since);
        self.further.retain(|_, further| further.is_live(seconds(now)));
    }

    pub fn is_empty(&self) -> bool {
        self.counts.is_empty() && self.further.is_empty()
    }
}

#[cfg(test)]
mod tests;
