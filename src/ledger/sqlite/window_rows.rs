//! Rows of windows that may still matter, of all licences or of one.

use gatekeeper_filters::kernel::{LicenseId, Period, UnixMs};
use rusqlite::{Connection, Row, params_from_iter};

use crate::ledger::account::Account;

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
