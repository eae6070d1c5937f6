//! Actions of operators in the ledger of one machine, and their rows in SQLite.

use std::borrow::Cow;

use gatekeeper_filters::kernel::{Balance, LicenseId, Limit, Period, UnixMs};
use rusqlite::{OptionalExtension, Transaction, params};

use super::EmbeddedLedger;
use crate::ledger::{
    account::Account,
    accounts::Accounts,
    adjustment::{GivenAllowance, LimitChange, LimitChanges},
    journal::JournalFull,
    operator_action::{OperatorAction, OperatorActionKind},
    sqlite::{Database, PRUNE_ROWS, int, license, moment, readable},
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
    /// The journal has no room.
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
        self.book.act(action, complete, &self.journal)
    }

    /// Forgives what was settled in the current windows; false when that was done before.
    ///
    /// # Errors
    /// The journal has no room.
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
        self.book.act(action, complete, &self.journal)
    }

    /// Writes down what was done elsewhere; false when that was done before.
    ///
    /// # Errors
    /// The journal has no room.
    pub fn note(
        &self,
        kind: OperatorActionKind,
        order: &AdjustRequest<'_>,
        detail: &str,
        now: UnixMs,
    ) -> Result<bool, JournalFull> {
        let action = order.action(kind, detail.to_owned(), now);
        self.book.act(action, |_, _, _| {}, &self.journal)
    }

    /// Whether this was done here before.
    pub fn is_done(&self, kind: OperatorActionKind, order: &AdjustRequest<'_>) -> bool {
        let done = self.book.actions(&order.license);
        done.iter().any(|action| action.is_same(kind, order.id))
    }

    /// What operators did about a licence here, oldest first.
    pub fn actions(&self, license: &LicenseId) -> Vec<OperatorAction<'static>> {
        self.book.actions(license)
    }

    pub fn overview(
        &self,
        license: &LicenseId,
        messages: Option<Limit>,
        tokens: Option<Limit>,
        now: UnixMs,
    ) -> UsageOverview {
        let balance = self.book.balance(license, messages, tokens, now);
        let ([of_messages, of_tokens], open) =
            self.book.standing(license, periods(messages, tokens), now);
        UsageOverview {
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
        }
    }

    /// When a licence was last used here. From before the start only windows are known: of a minute
    /// for a week, then of a day.
    ///
    /// # Errors
    /// SQLite fails.
    pub fn last_use(&self, license: &LicenseId) -> rusqlite::Result<Option<UnixMs>> {
        match self.book.last_use(license) {
            None => self.db.lock().last_use(license),
            seen => Ok(seen),
        }
    }
}

impl Database {
    pub(crate) fn restore_given(
        &self,
        book: &Accounts,
        period: Period,
        before: UnixMs,
        current: UnixMs,
    ) -> rusqlite::Result<()> {
        let query = "SELECT license, start, extra_messages, extra_tokens, forgiven_messages,
                            forgiven_tokens
                     FROM adjustments
                     WHERE period = ?1 AND start >= ?2 ORDER BY start = ?3, start";
        let mut statement = self.connection.prepare(query)?;
        let bounds = params![period.name(), before.to_rfc3339(), current.to_rfc3339()];
        let mut rows = statement.query(bounds)?;
        while let Some(row) = rows.next()? {
            let number = |place| row.get::<_, i64>(place).map(|number| number as u64);
            let given = GivenAllowance {
                start: moment(&row.get::<_, String>(1)?),
                extra_messages: number(2)?,
                extra_tokens: number(3)?,
                forgiven_messages: number(4)?,
                forgiven_tokens: number(5)?,
            };
            book.restore_given(license(&row.get::<_, String>(0)?), period, &given);
        }
        Ok(())
    }

    /// What operators did; they are few.
    pub(crate) fn restore_actions(&self, book: &Accounts) -> rusqlite::Result<()> {
        let query = "SELECT time, action, license, id, detail, note FROM actions ORDER BY rowid";
        let mut statement = self.connection.prepare(query)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let text = |place| row.get::<_, String>(place);
            let Some(kind) = OperatorActionKind::parse(&text(1)?) else { continue };
            book.restore_action(OperatorAction {
                time: moment(&text(0)?),
                kind,
                license: license(&text(2)?),
                id: Cow::Owned(text(3)?),
                detail: Cow::Owned(text(4)?),
                note: Cow::Owned(text(5)?),
                changes: None,
            });
        }
        Ok(())
    }

    /// Deletes a little of what is too old; how many rows that were.
    pub(crate) fn prune_actions(&self, before: &str) -> rusqlite::Result<usize> {
        let actions = "DELETE FROM actions WHERE rowid IN
                       (SELECT rowid FROM actions WHERE time < ?1 LIMIT ?2)";
        let deleted = self.connection.execute(actions, params![before, PRUNE_ROWS as i64])?;
        self.connection.execute("DELETE FROM adjustments WHERE start < ?1", [before])?;
        Ok(deleted)
    }

    fn last_use(&self, license: &LicenseId) -> rusqlite::Result<Option<UnixMs>> {
        let query = "SELECT max(start) FROM usage WHERE license = ?1 AND period = ?2";
        let mut statement = self.connection.prepare_cached(query)?;
        let mut last = None;
        for period in Period::ALL {
            let id = params![license.to_hex(), period.name()];
            let start: Option<String> =
                statement.query_row(id, |row| row.get(0)).optional()?.flatten();
            last = last.or(start.map(|start| moment(&start)));
        }
        Ok(last)
    }
}

/// Writes the rows of actions and what they changed.
pub(crate) fn write(tx: &Transaction<'_>, actions: &[OperatorAction<'_>]) -> rusqlite::Result<()> {
    if actions.is_empty() {
        return Ok(());
    }
    let mut row = tx.prepare_cached(
        "INSERT INTO actions (time, action, license, id, detail, note)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    let mut change = tx.prepare_cached(
        "INSERT INTO adjustments (license, period, start, extra_messages, extra_tokens,
                                  forgiven_messages, forgiven_tokens)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT DO UPDATE SET
             extra_messages = extra_messages + excluded.extra_messages,
             extra_tokens = extra_tokens + excluded.extra_tokens,
             forgiven_messages = max(forgiven_messages, excluded.forgiven_messages),
             forgiven_tokens = max(forgiven_tokens, excluded.forgiven_tokens)",
    )?;
    for action in actions {
        let (id, time) = (action.license.to_hex(), readable(action.time));
        row.execute(params![time, action.kind.name(), id, action.id, action.detail, action.note])?;
        let windows = Windows::at(action.time);
        for (period, given) in action.changes.iter().flat_map(|changes| changes.given(&windows)) {
            change.execute(params![
                id,
                period.name(),
                given.start.to_rfc3339(),
                int(given.extra_messages),
                int(given.extra_tokens),
                int(given.forgiven_messages),
                int(given.forgiven_tokens),
            ])?;
        }
    }
    Ok(())
}
