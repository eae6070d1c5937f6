//! Rows of what operators did.

use std::borrow::Cow;

use gatekeeper_filters::kernel::{LicenseId, Period, UnixMs};
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::{
    columns::{PRUNE_ROWS, int, license, moment, readable},
    window_rows::{Apply, WindowRows},
};
use crate::ledger::{
    accounts::Accounts,
    adjustment::GivenAllowance,
    operator_action::{OperatorAction, OperatorActionKind},
    windows::Windows,
};

/// Restores what operators gave.
pub fn restore_given(
    connection: &Connection,
    rows: &WindowRows<'_>,
    apply: Apply<'_>,
) -> rusqlite::Result<()> {
    const COLUMNS: &str = "license, start, extra_messages, extra_tokens, forgiven_messages,
                           forgiven_tokens";
    rows.for_each(connection, COLUMNS, "adjustments", |row| {
        let number = |place| row.get::<_, i64>(place).map(|number| number as u64);
        let given = GivenAllowance {
            start: moment(&row.get::<_, String>(1)?),
            extra_messages: number(2)?,
            extra_tokens: number(3)?,
            forgiven_messages: number(4)?,
            forgiven_tokens: number(5)?,
        };
        let id = license(row.get_ref(0)?.as_str()?);
        apply(id, &|account| account.give(rows.period, &given));
        Ok(())
    })
}

/// What operators did; they are few.
pub fn restore_actions(connection: &Connection, accounts: &Accounts) -> rusqlite::Result<()> {
    let query = "SELECT time, action, license, id, detail, note FROM actions ORDER BY rowid";
    let mut statement = connection.prepare(query)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let text = |place| row.get::<_, String>(place);
        let Some(kind) = OperatorActionKind::parse(&text(1)?) else { continue };
        accounts.restore_action(OperatorAction {
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
pub fn prune_actions(connection: &Connection, before: &str) -> rusqlite::Result<usize> {
    let actions = "DELETE FROM actions WHERE rowid IN
                   (SELECT rowid FROM actions WHERE time < ?1 LIMIT ?2)";
    let deleted = connection.execute(actions, params![before, PRUNE_ROWS as i64])?;
    connection.execute("DELETE FROM adjustments WHERE start < ?1", [before])?;
    Ok(deleted)
}

pub fn last_use(connection: &Connection, license: &LicenseId) -> rusqlite::Result<Option<UnixMs>> {
    let query = "SELECT max(start) FROM usage WHERE license = ?1 AND period = ?2";
    let mut statement = connection.prepare_cached(query)?;
    let mut last = None;
    for period in Period::ALL {
        let id = params![license.to_hex(), period.name()];
        let start: Option<String> = statement.query_row(id, |row| row.get(0)).optional()?.flatten();
        last = last.or(start.map(|start| moment(&start)));
    }
    Ok(last)
}

/// Writes the rows of actions and what they changed.
pub fn write(tx: &Transaction<'_>, actions: &[OperatorAction<'_>]) -> rusqlite::Result<()> {
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
        for (period, given) in action.given(&windows) {
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
