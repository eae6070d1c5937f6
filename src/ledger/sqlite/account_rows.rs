//! What accounts are restored from: what was charged, rates, what operators gave, conversations.

use gatekeeper_filters::kernel::{LicenseId, Period, UnixMs};
use rusqlite::Connection;

use super::{
    action_rows,
    columns::{license, moment},
    conversation_rows,
    window_rows::{Apply, WindowRows},
};
use crate::ledger::account::{Account, Rate};

/// Restores every window that may still matter at `now`, of all licences or of one.
///
/// # Errors
/// SQLite fails; some rows may have been applied.
pub fn restore(
    connection: &Connection,
    only: Option<&LicenseId>,
    now: UnixMs,
    apply: Apply<'_>,
) -> rusqlite::Result<()> {
    for period in Period::ALL {
        let rows = WindowRows { period, now, only };
        restore_usage(connection, &rows, apply)?;
        restore_rates(connection, &rows, apply)?;
        action_rows::restore_given(connection, &rows, apply)?;
    }
    conversation_rows::restore(connection, only, now, apply)
}

/// The account of one licence, as a start would restore it.
///
/// # Errors
/// SQLite fails.
pub fn read(connection: &Connection, id: &LicenseId, now: UnixMs) -> rusqlite::Result<Account> {
    let mut account = Account::default();
    restore(connection, Some(id), now, &mut |_, change| change(&mut account))?;
    Ok(account)
}

fn restore_usage(
    connection: &Connection,
    rows: &WindowRows<'_>,
    apply: Apply<'_>,
) -> rusqlite::Result<()> {
    rows.for_each(connection, "license, start, messages, tokens", "usage", |row| {
        let start = moment(row.get_ref(1)?.as_str()?);
        let (messages, tokens) = (row.get::<_, i64>(2)? as u64, row.get::<_, i64>(3)? as u64);
        apply(license(row.get_ref(0)?.as_str()?), &|account| {
            account.restore(rows.period, start, messages, tokens);
        });
        Ok(())
    })
}

fn restore_rates(
    connection: &Connection,
    rows: &WindowRows<'_>,
    apply: Apply<'_>,
) -> rusqlite::Result<()> {
    rows.for_each(connection, "license, start, count", "rates", |row| {
        let start = moment(row.get_ref(1)?.as_str()?);
        let rate = Rate { start, count: row.get::<_, i64>(2)? as u64 };
        apply(license(row.get_ref(0)?.as_str()?), &|account| {
            account.restore_rate(rows.period, rate)
        });
        Ok(())
    })
}
