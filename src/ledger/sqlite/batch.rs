//! Entries of the journal added up, so that SQLite sees one statement per counter and batch.

use std::collections::HashSet;

use rustc_hash::FxHashMap;

use gatekeeper_filters::kernel::{LicenseId, Period, UnixMs, UsageFigures};

use crate::ledger::{
    journal::entry::{
        EntryExpectation, EntryNames, JournalEntry, ReservedEntry, SettledEntry, UsageEntry,
    },
    operator_action::OperatorAction,
    windows::Windows,
};

/// What one licence did on one day on one way: a key of the table `daily`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DailyKey<'a> {
    /// Start of the day.
    pub day: UnixMs,
    pub license: LicenseId,
    pub plan: &'a str,
    /// The public name.
    pub model: &'a str,
    pub provider: &'a str,
}

/// Messages and tokens to add to one window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WindowDelta {
    pub messages: u64,
    pub tokens: u64,
}

#[derive(Default)]
pub struct Batch<'a> {
    pub sums: FxHashMap<(LicenseId, Period, UnixMs), WindowDelta>,
    /// Reservations that are open at the end of the batch and were not at its beginning.
    pub opened: FxHashMap<u64, (ReservedEntry, EntryExpectation<'a>)>,
    /// Holds that an earlier batch has left open.
    pub closed: Vec<u64>,
    /// Groups whose message has been charged: their open requests stand on none any more.
    pub charged: HashSet<u64>,
    pub requests: Vec<UsageEntry<'a>>,
    pub daily: FxHashMap<DailyKey<'a>, UsageFigures>,
    pub actions: Vec<OperatorAction<'a>>,
    /// Messages that conversations counted, less those given back, by licence, number and the beginning of the window.
    pub conversations: FxHashMap<(LicenseId, u64, UnixMs), i64>,
    /// Sequence of the last entry.
    pub reaches: u64,
    windows: Windows,
}

impl<'a> Batch<'a> {
    pub fn add(&mut self, sequence: u64, entry: JournalEntry<'a>) {
        self.reaches = sequence;
        match entry {
            JournalEntry::Reserved(reserved, expected) => {
                if let Some((id, start)) = expected.conversation {
                    *self.conversations.entry((reserved.license, id, start)).or_default() += 1;
                }
                self.opened.insert(reserved.hold, (reserved, expected));
            }
            JournalEntry::Settled(settled, names) => self.settle(&settled, names),
            JournalEntry::Request(request) => self.record(request),
            JournalEntry::Action(action) => {
                if let Some((messages, tokens)) = action.used() {
                    self.count(action.license, action.time, WindowDelta { messages, tokens });
                }
                self.actions.push(action);
            }
        }
    }

    pub fn record(&mut self, request: UsageEntry<'a>) {
        self.add_to_day(&request);
        self.requests.push(request);
    }

    /// A message counts in the row that `names` selects, on the day of its window.
    pub fn settle(&mut self, settled: &SettledEntry, names: Option<EntryNames<'a>>) {
        if self.opened.remove(&settled.hold).is_none() {
            self.closed.push(settled.hold);
        }
        let SettledEntry { license, time, tokens, group, message, returned, .. } = *settled;
        if let Some((id, start)) = returned {
            *self.conversations.entry((license, id, start)).or_default() -= 1;
        }
        match message {
            Some(at) if at == time => {
                self.count(license, time, WindowDelta { messages: 1, tokens })
            }
            Some(at) => {
                self.count(license, at, WindowDelta { messages: 1, tokens: 0 });
                self.count(license, time, WindowDelta { messages: 0, tokens });
            }
            None => self.count(license, time, WindowDelta { messages: 0, tokens }),
        }
        let Some(at) = message else { return };
        if group != 0 {
            self.charged.insert(group);
        }
        if let Some(names) = names {
            self.day(license, at, names).messages += 1;
        }
    }

    fn day(
        &mut self,
        license: LicenseId,
        time: UnixMs,
        names: EntryNames<'a>,
    ) -> &mut UsageFigures {
        let day = Period::Day.window(time).start;
        let EntryNames { plan, model, provider } = names;
        self.daily.entry(DailyKey { day, license, plan, model, provider }).or_default()
    }

    fn add_to_day(&mut self, request: &UsageEntry<'a>) {
        let Some(license) = request.license else { return };
        let [_, plan, model, _, provider, ..] = request.texts;
        let [input, output, cached, ..] = request.numbers;
        let sum = self.day(license, request.time, EntryNames { plan, model, provider });
        let waste_alone = request.numbers[5] == 0 && request.numbers[7] == 0;
        sum.add(&UsageFigures {
            // What proved to be wasted after its request had ended has a row of its own.
            requests: u64::from(!waste_alone),
            messages: u64::from(request.message),
            input,
            output,
            cached,
            cost: request.cost,
            cache_write: request.cache_write,
            wasted: request.wasted,
            wasted_cost: request.wasted_cost,
        });
    }

    fn count(&mut self, license: LicenseId, time: UnixMs, add: WindowDelta) {
        if add == WindowDelta::default() {
            return;
        }
        let starts = self.windows.turn(time).starts();
        for (period, start) in Period::ALL.into_iter().zip(starts) {
            let sum = self.sums.entry((license, period, start)).or_default();
            sum.messages += add.messages;
            sum.tokens = sum.tokens.saturating_add(add.tokens);
        }
    }
}
