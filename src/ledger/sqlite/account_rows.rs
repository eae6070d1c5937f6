//! What accounts are restored from: what was charged, rates, what operators gave, conversations.

use gatekeeper_filters::kernel::{LicenseId, Period, UnixMs};
use rusqlite::{Connection, Row, params_from_iter};

use super::{
    action_rows,
    columns::{license, moment},
    conversation_rows,
};
use crate::ledger::account::{Account, Rate};

/// Applies a row to the account of its licence.
pub type Apply<'a> = &'a mut dyn FnMut(LicenseId, &dyn Fn(&mut Account));

/// The rows of one kind of window that may still matter, of all licences or of one.
pub struct WindowRows<'a> {
    pub period: Period,
    pub now: UnixMs,
    pub only: Option<&'a LicenseId>,
}

impl WindowRows<'_> {
    /// Calls `each` with each row of `table`: windows of the period before, the current one, and any ahead
    /// of a clock that was set back. The current one comes last.
    pub fn for_each(
        &self,
        connection: &Connection,
        columns: &str,
        table: &str,
        mut each: impl FnMut(&Row<'_>) -> rusqlite::Result<()>,
    ) -> rusqlite::Result<()> {
        let current = self.period.window(self.now).start;
        let before = self.period.window(UnixMs(current.0.saturating_sub(1))).start;
        let whose = self.only.map_or("", |_| "AND license = ?4");
        let query = format!(
            "SELECT {columns} FROM {table} WHERE period = ?1 AND start >= ?2 {whose}
             ORDER BY start = ?3, start"
        );
        let bounds = [self.period.name().into(), before.to_rfc3339(), current.to_rfc3339()];
        let license = self.only.map(|license| license.to_hex().into());
        let bounds = bounds.into_iter().chain(license);
        let mut statement = connection.prepare_cached(&query)?;
        let mut rows = statement.query(params_from_iter(bounds))?;
        while let Some(row) = rows.next()? {
            each(row)?;
        }
        Ok(())
    }
}

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
