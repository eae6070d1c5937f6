//! What one licence uses: pure arithmetic, no I/O, no locks, no clock.

use gatekeeper_filters::kernel::{
    Balance, ConversationDemand, Demand, Denied, Limit, LimitUsage, Period, RateRefused,
    RateRequest, UnixMs,
};

use serde::{Deserialize, Serialize};

use super::{
    adjustment::{Adjustments, GivenAllowance},
    conversations::{ConversationCounts, ConversationTable, CountedMessage, FurtherTurns},
    journal::entry::ReservedEntry,
    message_ids::{ELSEWHERE, JoinPlan, KnownId, MessageEffect, MessageIds, TakenAt},
    windows::{WindowStarts, Windows},
};

/// Use in one window. Open amounts are held by requests in flight.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counter {
    pub start: UnixMs,
    pub messages: u64,
    pub tokens: u64,
    pub open_messages: u64,
    pub open_tokens: u64,
}

impl Counter {
    fn used_messages(&self) -> u64 {
        self.messages.saturating_add(self.open_messages)
    }

    fn is_open(&self) -> bool {
        self.open_messages > 0 || self.open_tokens > 0
    }

    fn is_used_since(&self, since: UnixMs) -> bool {
        self.start >= since && (self.messages > 0 || self.tokens > 0)
    }
}

/// The current window of one period kind and the one before it, so that a clock that steps back
/// over a boundary, or once into a far future, finds its counters again.
type WindowPair = [Counter; 2];

/// What a licence has settled here, and was given here, in the newest window of each kind.
#[derive(Debug, Clone, Copy, Default)]
pub struct LocalShare {
    /// Larger with each later one of the licence.
    pub sequence: u64,
    pub counters: [Counter; 4],
    pub given: Option<[GivenAllowance; 4]>,
}

#[derive(Debug, Default)]
pub struct Account {
    /// All four kinds are counted whatever the plan limits: a changed plan keeps what was used.
    counters: [WindowPair; 4],
    /// Two of a kind for the same reason.
    rates: [[Rate; 2]; 4],
    /// The minutes before those: SQLite has no counters of minutes, and a clock set back by less than five
    /// minutes returns to them.
    minutes: [Rate; 4],
    places: u32,
    ids: Option<Box<MessageIds>>,
    /// Only where the plan limits them.
    conversations: Option<Box<ConversationTable>>,
    /// Most licences are never given anything.
    adjustments: Option<Box<Adjustments>>,
    /// The last reservation since the start; 0 for none.
    pub seen: UnixMs,
    /// It was not used since the last sweep.
    unused: bool,
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Rate {
    pub start: UnixMs,
    pub count: u64,
}

/// A demand that fits, not yet applied.
#[derive(Debug, Clone, Copy)]
pub struct ReservationPlan {
    pub output: Option<u64>,
    join: Option<JoinPlan>,
    /// The conversation that counts it.
    pub conversation: Option<ConversationDemand>,
}

/// A request in flight.
#[derive(Debug, Clone, Copy)]
pub struct OpenRequest {
    pub taken: TakenAt,
    /// Input and output cap.
    pub tokens: u64,
    /// Group of its message id, 0 for none.
    pub group: u64,
}

impl ReservationPlan {
    /// A request whose message is paid elsewhere.
    pub fn covered(output: Option<u64>) -> Self {
        Self { output, join: Some(JoinPlan::Covered(ELSEWHERE, None)), conversation: None }
    }

    /// The group the request will be in, 0 for none, and when the message it stands to be charged
    /// was taken; `None` when its group has been charged already.
    pub fn standing(&self, hold: u64, now: UnixMs) -> (u64, Option<UnixMs>) {
        match self.join {
            None => (0, Some(now)),
            Some(JoinPlan::First) => (hold, Some(now)),
            Some(JoinPlan::Again(group)) => (group, Some(now)),
            Some(JoinPlan::Covered(group, held)) => (group, held),
        }
    }
}

impl Account {
    /// Decides both limits; changes nothing.
    pub fn fit(&self, demand: &Demand, windows: &Windows) -> Result<ReservationPlan, Denied> {
        let id = demand.message_id.as_deref();
        let join =
            id.map(|id| self.ids.as_ref().map_or(JoinPlan::First, |i| i.join(id, demand.now)));
        // A conversation counts what the plan does: requests of one message once, and none that came back.
        let conversation =
            demand.conversation.filter(|_| !matches!(join, Some(JoinPlan::Covered(..))));
        if let (Some(asked), Some(known)) = (&conversation, &self.conversations) {
            known.fit(asked, demand.now, windows).map_err(Denied::Conversation)?;
        }
        if let Some(limit) = demand.messages
            && !matches!(join, Some(JoinPlan::Covered(..)))
        {
            let (used, limit) = self.messages(limit, windows);
            if used >= limit.count {
                let resets_at = windows.of(limit.per).end;
                return Err(Denied::Messages { limit, used, resets_at });
            }
        }
        let output = match demand.tokens {
            Some(limit) => self.fit_tokens(demand, limit, windows)?,
            None => demand.output,
        };
        Ok(ReservationPlan { output, join, conversation })
    }

    fn fit_tokens(
        &self,
        demand: &Demand,
        limit: Limit,
        windows: &Windows,
    ) -> Result<Option<u64>, Denied> {
        let (used, limit) = self.tokens(limit, windows);
        let unsettled = limit.count.saturating_sub(used);
        let left = unsettled.saturating_sub(self.counter(limit.per, windows).open_tokens);
        // An answer without a cap could cost anything: it gets whatever is left.
        let wanted = demand.output.unwrap_or(u64::MAX);
        // An embedding has no output to shrink; an answer needs at least one token.
        let floor = if wanted == 0 { 0 } else { demand.min_output.clamp(1, wanted) };
        let needed = demand.input.saturating_add(floor);
        if needed <= left {
            return Ok(Some(wanted.min(left - demand.input)));
        }
        if needed <= unsettled {
            return Err(Denied::Busy);
        }
        let resets_at = windows.of(limit.per).end;
        Err(Denied::Tokens { limit, used, left: unsettled, needed, resets_at })
    }

    /// Applies what [`Account::fit`] decided.
    pub fn hold(
        &mut self,
        demand: &Demand,
        fit: ReservationPlan,
        windows: &Windows,
        hold: u64,
    ) -> OpenRequest {
        let counted = fit.conversation.as_ref().map(|counted| {
            self.conversations.get_or_insert_default().count(counted, demand.now, windows)
        });
        let taken = TakenAt { at: demand.now, starts: windows.starts(), counted };
        let tokens = demand.input.saturating_add(fit.output.unwrap_or(0));
        let group = match (&demand.message_id, fit.join) {
            (_, Some(JoinPlan::Covered(ELSEWHERE, _))) => ELSEWHERE,
            (Some(id), Some(join)) => self.ids.get_or_insert_default().enter(id, join, hold, taken),
            _ => 0,
        };
        self.seen = self.seen.max(demand.now);
        let needs_message = !matches!(fit.join, Some(JoinPlan::Covered(..)));
        for counter in self.turn(windows) {
            counter.open_messages += u64::from(needs_message);
            counter.open_tokens = counter.open_tokens.saturating_add(tokens);
        }
        OpenRequest { taken, tokens, group }
    }

    /// Ends a request; returns what became of the message it stood on. Windows that are no longer kept
    /// here are the journal's business alone.
    pub fn settle(&mut self, open: &OpenRequest, message: bool, tokens: u64) -> MessageEffect {
        for counter in self.at(&open.taken.starts) {
            counter.open_tokens = counter.open_tokens.saturating_sub(open.tokens);
            counter.tokens = counter.tokens.saturating_add(tokens);
        }
        let outcome = match (&mut self.ids, open.group) {
            (_, ELSEWHERE) => MessageEffect::Untouched,
            (Some(ids), group) if group != 0 => ids.leave(group, message, open.taken),
            _ if message => MessageEffect::Charged(open.taken),
            _ => MessageEffect::Released(open.taken),
        };
        let (taken, charged) = match outcome {
            MessageEffect::Charged(taken) => (taken, true),
            MessageEffect::Released(taken) => (taken, false),
            MessageEffect::Untouched => return outcome,
        };
        for counter in self.at(&taken.starts) {
            counter.open_messages = counter.open_messages.saturating_sub(1);
            counter.messages += u64::from(charged);
        }
        if let (false, Some(counted), Some(known)) =
            (charged, &taken.counted, &mut self.conversations)
        {
            known.give_back(counted);
        }
        outcome
    }

    /// The conversation that counted the message a request stands on.
    pub fn counted(&self, open: &OpenRequest) -> Option<CountedMessage> {
        match (&self.ids, open.group) {
            (_, 0) => open.taken.counted,
            (Some(ids), group) => ids.counted(group),
            (None, _) => None,
        }
    }

    /// Opens again a request that goes on in another process, or did so when this account was read.
    pub fn adopt(
        &mut self,
        row: &ReservedEntry,
        tokens: u64,
        counted: Option<CountedMessage>,
    ) -> OpenRequest {
        let taken = |at: UnixMs| TakenAt { at, starts: Windows::at(at).starts(), counted };
        let own = taken(row.time);
        for counter in self.reach(&own.starts) {
            counter.open_tokens = counter.open_tokens.saturating_add(tokens);
        }
        let message = row.message.map(taken);
        let held = match row.group {
            0 => message,
            ELSEWHERE => None,
            group => self.ids.get_or_insert_default().adopt(group, message),
        };
        if let Some(held) = held {
            self.reach(&held.starts).for_each(|counter| counter.open_messages += 1);
        }
        OpenRequest { taken: own, tokens, group: row.group }
    }

    pub fn known_ids(&self, now: UnixMs) -> Vec<KnownId> {
        self.ids.as_ref().map(|ids| ids.known(now)).unwrap_or_default()
    }

    pub fn remember_ids(&mut self, known: &[KnownId]) {
        self.ids.get_or_insert_default().remember(known);
    }

    pub fn conversations(&mut self) -> &mut ConversationTable {
        self.conversations.get_or_insert_default()
    }

    pub fn known_conversations(&self) -> Vec<(u64, ConversationCounts)> {
        self.conversations.as_ref().map(|known| known.all()).unwrap_or_default()
    }

    pub fn known_further_turns(&self) -> Vec<(u64, FurtherTurns)> {
        self.conversations.as_ref().map(|known| known.all_further()).unwrap_or_default()
    }

    pub fn places(&self) -> u32 {
        self.places
    }

    pub fn open_places(&mut self, places: u32) {
        self.places += places;
    }

    /// Counts one request and opens one place, or does neither.
    pub fn enter(
        &mut self,
        pace: &RateRequest,
        now: UnixMs,
        windows: &Windows,
    ) -> Result<(), RateRefused> {
        if let Some(limit) = pace.concurrency
            && self.places >= limit
        {
            return Err(RateRefused::Concurrency { limit });
        }
        if let Some(limit) = pace.rate
            && self.rate(limit.per, windows) >= limit.count
        {
            let retry_after = now.seconds_until(windows.of(limit.per).end);
            return Err(RateRefused::Rate { limit, retry_after });
        }
        for period in Period::ALL {
            self.current_rate(period, windows.of(period).start).count += 1;
        }
        self.places += 1;
        Ok(())
    }

    pub fn leave(&mut self) {
        self.places = self.places.saturating_sub(1);
    }

    /// The newest window of each kind.
    pub fn newest(&self) -> [Counter; 4] {
        self.counters.map(|[newest, _]| newest)
    }

    /// Those of the newest windows.
    pub fn rates(&self) -> [Rate; 4] {
        self.rates.map(|[newest, _]| newest)
    }

    /// Windows have to come in the order of their starts.
    pub fn restore_rate(&mut self, period: Period, rate: Rate) {
        *self.current_rate(period, rate.start) = rate;
    }

    /// Moves the rate of the window that begins at `start` to the front.
    fn current_rate(&mut self, period: Period, start: UnixMs) -> &mut Rate {
        let pair = &mut self.rates[period as usize];
        if pair[0].start != start {
            pair.swap(0, 1);
        }
        if pair[0].start != start {
            let mut fresh = Rate { start, count: 0 };
            if period == Period::Minute {
                exchange(&mut self.minutes, pair[0], &mut fresh);
            }
            pair[0] = fresh;
        }
        &mut pair[0]
    }

    /// Holds what requests in flight hold of a window that was put back.
    pub fn reopen(&mut self, period: Period, start: UnixMs, open: &OpenRequest) {
        if open.taken.starts[period as usize] != start {
            return;
        }
        let counter = current(&mut self.counters[period as usize], start);
        counter.open_messages += u64::from(open.group == 0);
        counter.open_tokens = counter.open_tokens.saturating_add(open.tokens);
    }

    /// Whether it has counters of this window.
    pub fn has(&self, period: Period, start: UnixMs) -> bool {
        self.counters[period as usize].iter().any(|counter| counter.start == start)
    }

    /// Puts back what was settled in a window; windows have to come in the order of their starts.
    pub fn restore(&mut self, period: Period, start: UnixMs, messages: u64, tokens: u64) {
        let counter = current(&mut self.counters[period as usize], start);
        (counter.messages, counter.tokens) = (messages, tokens);
    }

    pub fn balance(
        &self,
        messages: Option<Limit>,
        tokens: Option<Limit>,
        windows: &Windows,
    ) -> Balance {
        let spent = |limit: Option<Limit>, of: fn(&Account, Limit, &Windows) -> (u64, Limit)| {
            let counted = limit.unwrap_or(Limit { count: 0, per: Period::Month });
            let (used, allowed) = of(self, counted, windows);
            LimitUsage {
                used,
                limit: limit.map(|_| allowed.count),
                left: limit.map(|_| allowed.count.saturating_sub(used)),
                resets_at: limit.map(|limit| windows.of(limit.per).end),
            }
        };
        Balance {
            messages: spent(messages, Account::messages),
            tokens: spent(tokens, Account::tokens),
        }
    }

    /// Counts as settled now what was settled elsewhere.
    pub fn count(&mut self, windows: &Windows, messages: u64, tokens: u64) {
        for counter in self.turn(windows) {
            counter.messages = counter.messages.saturating_add(messages);
            counter.tokens = counter.tokens.saturating_add(tokens);
        }
    }

    /// Messages used and allowed, what the operator gave included.
    fn messages(&self, limit: Limit, windows: &Windows) -> (u64, Limit) {
        let given = self.given(limit.per, windows);
        let used = self.counter(limit.per, windows).used_messages();
        let count = limit.count.saturating_add(given.extra_messages);
        (used.saturating_sub(given.forgiven_messages), Limit { count, ..limit })
    }

    /// The same of settled tokens.
    fn tokens(&self, limit: Limit, windows: &Windows) -> (u64, Limit) {
        let given = self.given(limit.per, windows);
        let used = self.counter(limit.per, windows).tokens;
        let count = limit.count.saturating_add(given.extra_tokens);
        (used.saturating_sub(given.forgiven_tokens), Limit { count, ..limit })
    }

    /// What the operator gave in the current window of this kind.
    pub fn given(&self, period: Period, windows: &Windows) -> GivenAllowance {
        let start = windows.of(period).start;
        let nothing = GivenAllowance { start, ..GivenAllowance::default() };
        self.adjustments.as_ref().map_or(nothing, |adjustments| adjustments.of(period, start))
    }

    /// Windows have to come in the order of their starts.
    pub fn give(&mut self, period: Period, given: &GivenAllowance) {
        self.adjustments.get_or_insert_default().add(period, given);
    }

    /// What was given in the newest window of each kind, where that still counts: in windows that
    /// ended it does not.
    pub fn newest_given(&self) -> Option<[GivenAllowance; 4]> {
        let counters = self.newest();
        let given = self.adjustments.as_ref()?.at(counters.map(|counter| counter.start));
        let mut pairs = given.iter().zip(&counters);
        let counts =
            pairs.any(|(given, counter)| !given.is_nothing() && given.start >= counter.start);
        counts.then_some(given)
    }

    /// Drops message ids whose time is over; true when nothing here is worth its memory: no open
    /// place, no id, nothing in flight, nothing counted or given in a window that began at `since`
    /// or later.
    pub fn is_idle(&mut self, now: UnixMs, since: &WindowStarts) -> bool {
        if let Some(ids) = &mut self.ids {
            ids.expire(now);
            if ids.is_empty() {
                self.ids = None;
            }
        }
        if let Some(conversations) = &mut self.conversations {
            conversations.sweep(now);
            if conversations.is_empty() {
                self.conversations = None;
            }
        }
        let counted = self.counters.iter().zip(since).any(|(pair, since)| {
            pair.iter().any(|counter| counter.is_open() || counter.is_used_since(*since))
        });
        let is_paced = |rate: &Rate, since| rate.start >= since && rate.count > 0;
        let paced = self
            .rates
            .iter()
            .zip(since)
            .any(|(pair, since)| pair.iter().any(|rate| is_paced(rate, *since)));
        let given = self.adjustments.as_ref().is_some_and(|given| given.is_any_since(since));
        self.places == 0
            && self.ids.is_none()
            && self.conversations.is_none()
            && !counted
            && !paced
            && !given
    }

    /// Keeps the account through the next sweep.
    pub fn touch(&mut self) {
        self.unused = false;
    }

    /// Whether it was used since this was last asked.
    pub fn take_touch(&mut self) -> bool {
        !std::mem::replace(&mut self.unused, true)
    }

    /// Whether it has what is in memory alone, and can't be dropped: something open, an id, a conversation,
    /// or the rate of the minute that begins at `minute`. After [`Account::is_idle`].
    pub fn is_held(&self, minute: UnixMs) -> bool {
        self.places > 0
            || self.ids.is_some()
            || self.conversations.is_some()
            || self.counters.iter().flatten().any(Counter::is_open)
            || self.rates[Period::Minute as usize].iter().any(|rate| rate.start >= minute)
    }

    pub fn counter(&self, period: Period, windows: &Windows) -> Counter {
        let start = windows.of(period).start;
        let kept = self.counters[period as usize].iter().find(|counter| counter.start == start);
        kept.copied().unwrap_or(Counter { start, ..Counter::default() })
    }

    fn rate(&self, period: Period, windows: &Windows) -> u64 {
        let start = windows.of(period).start;
        let earlier = self.minutes.iter().filter(|_| period == Period::Minute);
        let mut kept = self.rates[period as usize].iter().chain(earlier);
        kept.find(|rate| rate.start == start).map_or(0, |rate| rate.count)
    }

    /// The counters of the current windows, made when missing.
    fn turn(&mut self, windows: &Windows) -> impl Iterator<Item = &mut Counter> {
        let starts = windows.starts();
        self.counters.iter_mut().zip(starts).map(|(pair, start)| current(pair, start))
    }

    /// The counters of windows that need not be the current ones, made where two newer ones are not
    /// kept.
    fn reach(&mut self, starts: &WindowStarts) -> impl Iterator<Item = &mut Counter> {
        for (pair, start) in self.counters.iter_mut().zip(*starts) {
            let fresh = Counter { start, ..Counter::default() };
            match pair {
                [newest, older] if newest.start == start || older.start == start => {}
                [newest, older] if newest.start < start => (*older, *newest) = (*newest, fresh),
                [_, older] if older.start < start => *older = fresh,
                _ => {}
            }
        }
        self.at(starts)
    }

    /// The counters of past windows, as far as they are still kept.
    fn at(&mut self, starts: &WindowStarts) -> impl Iterator<Item = &mut Counter> {
        let starts = *starts;
        self.counters
            .iter_mut()
            .zip(starts)
            .filter_map(|(pair, start)| pair.iter_mut().find(|counter| counter.start == start))
    }
}

/// Moves the window that begins at `start` to the front, in place of the older of the two.
fn current(pair: &mut WindowPair, start: UnixMs) -> &mut Counter {
    if pair[0].start != start {
        pair.swap(0, 1);
        if pair[0].start != start {
            pair[0] = Counter { start, ..Counter::default() };
        }
    }
    &mut pair[0]
}

/// Keeps `old` among earlier minutes, in place of `fresh` where that is one of them, else of the earliest.
fn exchange(minutes: &mut [Rate; 4], old: Rate, fresh: &mut Rate) {
    if let Some(kept) = minutes.iter_mut().find(|kept| kept.start == fresh.start) {
        (*fresh, *kept) = (*kept, old);
    } else if let Some(earliest) = minutes.iter_mut().min_by_key(|kept| kept.start)
        && earliest.start < old.start
    {
        *earliest = old;
    }
}
