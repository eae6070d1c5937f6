//! Operator adjustments of a licence in one window: pure arithmetic.
//!
//! Extras add up. A reset is a level: usage settled in the window up to it does not count. Of two levels
//! the higher one holds, so that a reset that arrives twice, or is made at two gateways at once, counts once.

use gatekeeper_filters::kernel::{Period, UnixMs};

use super::windows::{WindowStarts, Windows};

/// What was given in the window that begins at `start`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GivenAllowance {
    pub start: UnixMs,
    pub extra_messages: u64,
    pub extra_tokens: u64,
    pub forgiven_messages: u64,
    pub forgiven_tokens: u64,
}

/// What changes for one limit, in the current window of its period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitChange {
    pub period: Period,
    pub extra: u64,
    /// The level that is forgiven.
    pub forgiven: u64,
}

/// What one action changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitChanges {
    pub messages: LimitChange,
    pub tokens: LimitChange,
}

impl GivenAllowance {
    pub fn add(&mut self, more: &GivenAllowance) {
        self.extra_messages = self.extra_messages.saturating_add(more.extra_messages);
        self.extra_tokens = self.extra_tokens.saturating_add(more.extra_tokens);
        self.forgiven_messages = self.forgiven_messages.max(more.forgiven_messages);
        self.forgiven_tokens = self.forgiven_tokens.max(more.forgiven_tokens);
    }

    pub fn is_nothing(&self) -> bool {
        *self == GivenAllowance { start: self.start, ..GivenAllowance::default() }
    }
}

impl LimitChanges {
    /// What is given in which windows.
    pub fn given(&self, windows: &Windows) -> impl Iterator<Item = (Period, GivenAllowance)> {
        let LimitChanges { messages, tokens } = *self;
        let start = |period| windows.of(period).start;
        let of_messages = GivenAllowance {
            start: start(messages.period),
            extra_messages: messages.extra,
            forgiven_messages: messages.forgiven,
            ..GivenAllowance::default()
        };
        let of_tokens = GivenAllowance {
            start: start(tokens.period),
            extra_tokens: tokens.extra,
            forgiven_tokens: tokens.forgiven,
            ..GivenAllowance::default()
        };
        let both = [(messages.period, of_messages), (tokens.period, of_tokens)];
        both.into_iter().filter(|(_, given)| !given.is_nothing())
    }
}

/// What a licence was given: as its counters, the newest window of each period kind and the one
/// before it.
#[derive(Debug, Default)]
pub struct Adjustments([[GivenAllowance; 2]; 4]);

impl Adjustments {
    /// Windows have to come in the order of their starts.
    pub fn add(&mut self, period: Period, given: &GivenAllowance) {
        let pair = &mut self.0[period as usize];
        if pair[0].start != given.start {
            pair.swap(0, 1);
            if pair[0].start != given.start {
                pair[0] = GivenAllowance { start: given.start, ..GivenAllowance::default() };
            }
        }
        pair[0].add(given);
    }

    pub fn of(&self, period: Period, start: UnixMs) -> GivenAllowance {
        let kept = self.0[period as usize].iter().find(|given| given.start == start);
        kept.copied().unwrap_or(GivenAllowance { start, ..GivenAllowance::default() })
    }

    /// Of each kind the window that begins at `start`, or where nothing was given in it the last one
    /// in which something was.
    pub fn at(&self, starts: WindowStarts) -> [GivenAllowance; 4] {
        let of = |period: Period| {
            let given = self.of(period, starts[period as usize]);
            if given.is_nothing() { self.0[period as usize][0] } else { given }
        };
        Period::ALL.map(of)
    }

    /// Whether anything was given in a window that began at `since` or later.
    pub fn is_any_since(&self, since: &WindowStarts) -> bool {
        let mut pairs = self.0.iter().zip(since);
        pairs.any(|(pair, since)| pair.iter().any(|g| g.start >= *since && !g.is_nothing()))
    }
}
