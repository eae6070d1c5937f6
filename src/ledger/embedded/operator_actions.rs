//! Actions of operators in the ledger of one machine, and their rows in SQLite.

use std::borrow::Cow;

use gatekeeper_filters::kernel::{Balance, LicenseId, Limit, Period, StoreDown, UnixMs};

use super::EmbeddedLedger;
use crate::ledger::{
    account::Account,
    adjustment::{LimitChange, LimitChanges},
    journal::JournalFull,
    operator_action::{OperatorAction, OperatorActionKind},
    windows::Windows,
};

/// What an operator wants done about a licence; its limits are those of its plan now.
#[derive(Debug, Clone, Copy)]
pub struct AdjustRequest<'a> {
    pub license: LicenseId,
    /// An order that comes again under its id is carried out once.
    pub id: &'a str,
    pub note: &'a str,
    pub messages: Option<Limit>,
    pub tokens: Option<Limit>,
}

/// What an operator gave for one limit, in its current window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Adjustment {
    pub extra: u64,
    pub forgiven: u64,
}

/// Everything an operator sees of what a licence has used.
#[derive(Debug, Clone, Copy)]
pub struct UsageOverview {
    pub balance: Balance,
    pub messages: Adjustment,
    pub tokens: Adjustment,
    /// Requests in flight.
    pub open: u64,
}

impl AdjustRequest<'_> {
    /// The periods in whose windows messages and tokens count.
    pub fn periods(&self) -> [Period; 2] {
        periods(self.messages, self.tokens)
    }

    fn changes(&self, extra: [u64; 2], forgiven: [u64; 2]) -> LimitChanges {
        let [messages, tokens] = self.periods();
        LimitChanges {
            messages: LimitChange { period: messages, extra: extra[0], forgiven: forgiven[0] },
            tokens: LimitChange { period: tokens, extra: extra[1], forgiven: forgiven[1] },
        }
    }

    fn action(
        &self,
        kind: OperatorActionKind,
        detail: String,
        now: UnixMs,
    ) -> OperatorAction<'static> {
        OperatorAction {
            time: now,
            kind,
            license: self.license,
            id: Cow::Owned(self.id.to_owned()),
            detail: Cow::Owned(detail),
            note: Cow::Owned(self.note.to_owned()),
            changes: None,
        }
    }
}

/// `100 messages, 20 tokens`, without what is 0.
fn amounts([messages, tokens]: [u64; 2]) -> String {
    let parts = [(messages, "messages"), (tokens, "tokens")];
    let parts = parts.iter().filter(|(amount, _)| *amount > 0);
    parts.map(|(amount, what)| format!("{amount} {what}")).collect::<Vec<_>>().join(", ")
}

/// Without a limit the month counts.
pub fn periods(messages: Option<Limit>, tokens: Option<Limit>) -> [Period; 2] {
    [messages, tokens].map(|limit| limit.map_or(Period::Month, |limit| limit.per))
}

impl EmbeddedLedger {
    /// Gives extra messages and tokens; false when that was done before.
    ///
    /// # Errors
    /// The journal has no room, or SQLite can't be read.
    pub fn grant(
        &self,
        order: &AdjustRequest<'_>,
        extra: [u64; 2],
        now: UnixMs,
    ) -> Result<bool, JournalFull> {
        let action = order.action(OperatorActionKind::Grant, amounts(extra), now);
        let complete = |_: &Account, _: &Windows, action: &mut OperatorAction<'static>| {
            action.changes = Some(order.changes(extra, [0, 0]));
        };
        self.act(action, complete)
    }

    /// Forgives what was settled in the current windows; false when that was done before.
    ///
    /// # Errors
    /// The journal has no room, or SQLite can't be read.
    pub fn reset(&self, order: &AdjustRequest<'_>, now: UnixMs) -> Result<bool, JournalFull> {
        self.forgive(order, now, |account, windows| {
            let [messages, tokens] = order.periods().map(|per| account.counter(per, windows));
            [messages.messages, tokens.tokens]
        })
    }

    /// Forgives messages and tokens up to these levels.
    pub(crate) fn forgive(
        &self,
        order: &AdjustRequest<'_>,
        now: UnixMs,
        levels: impl FnOnce(&Account, &Windows) -> [u64; 2],
    ) -> Result<bool, JournalFull> {
        let action = order.action(OperatorActionKind::Reset, String::new(), now);
        let complete =
            |account: &Account, windows: &Windows, action: &mut OperatorAction<'static>| {
                let levels = levels(account, windows);
                action.detail = Cow::Owned(format!("{} messages, {} tokens", levels[0], levels[1]));
                action.changes = Some(order.changes([0, 0], levels));
            };
        self.act(action, complete)
    }

    /// Counts on a licence what another key of it had used before it was one; false when that was done before.
    ///
    /// # Errors
    /// The journal has no room, or SQLite can't be read.
    pub fn carry(
        &self,
        order: &AdjustRequest<'_>,
        used: [u64; 2],
        now: UnixMs,
    ) -> Result<bool, JournalFull> {
        let detail = format!("{} used with the new key before", amounts(used));
        let action = order.action(OperatorActionKind::Move, detail, now);
        let complete = |_: &Account, _: &Windows, action: &mut OperatorAction<'static>| {
            action.changes = Some(order.changes(used, [0, 0]));
        };
        self.act(action, complete)
    }

    /// Writes down what was done elsewhere; false when that was done before.
    ///
    /// # Errors
    /// The journal has no room, or SQLite can't be read.
    pub fn note(
        &self,
        kind: OperatorActionKind,
        order: &AdjustRequest<'_>,
        detail: &str,
        now: UnixMs,
    ) -> Result<bool, JournalFull> {
        let action = order.action(kind, detail.to_owned(), now);
        self.act(action, |_, _, _| {})
    }

    fn act(
        &self,
        action: OperatorAction<'static>,
        complete: impl FnOnce(&Account, &Windows, &mut OperatorAction<'static>),
    ) -> Result<bool, JournalFull> {
        self.load_blocking(&action.license, action.time).map_err(|StoreDown| JournalFull)?;
        self.accounts.act(action, complete, &self.journal)
    }

    /// Whether this was done here before.
    pub fn is_done(&self, kind: OperatorActionKind, order: &AdjustRequest<'_>) -> bool {
        let done = self.accounts.actions(&order.license);
        done.iter().any(|action| action.is_same(kind, order.id))
    }

    /// What operators did about a licence here, oldest first.
    pub fn actions(&self, license: &LicenseId) -> Vec<OperatorAction<'static>> {
        self.accounts.actions(license)
    }

    /// # Errors
    /// SQLite can't be read.
    pub fn overview(
        &self,
        license: &LicenseId,
        messages: Option<Limit>,
        tokens: Option<Limit>,
        now: UnixMs,
    ) -> Result<UsageOverview, StoreDown> {
        self.load_blocking(license, now)?;
        let balance = self.accounts.balance(license, messages, tokens, now);
        let ([of_messages, of_tokens], open) =
            self.accounts.standing(license, periods(messages, tokens), now);
        Ok(UsageOverview {
            balance,
            messages: Adjustment {
                extra: of_messages.extra_messages,
                forgiven: of_messages.forgiven_messages,
            },
            tokens: Adjustment {
                extra: of_tokens.extra_tokens,
                forgiven: of_tokens.forgiven_tokens,
            },
            open,
        })
    }

    /// All rows of a licence, by table.
    ///
    /// # Errors
    /// SQLite fails.
    pub fn export(
        &self,
        license: &LicenseId,
    ) -> rusqlite::Result<serde_json::Map<String, serde_json::Value>> {
        self.db.lock().export(license)
    }

    /// Takes a licence out of all rows; sums stay.
    ///
    /// # Errors
    /// SQLite fails.
    pub fn forget(&self, license: &LicenseId) -> rusqlite::Result<()> {
        self.db.lock().forget(license)
    }

    /// When a licence was last used here. From before the start only windows are known: of a minute
    /// for a week, then of a day.
    ///
    /// # Errors
    /// SQLite fails.
    pub fn last_use(&self, license: &LicenseId) -> rusqlite::Result<Option<UnixMs>> {
        match self.accounts.last_use(license) {
            None => self.db.lock().last_use(license),
            seen => Ok(seen),
        }
    }
}
