//! Messages of conversations on the current day: what a restart must not forget.

use gatekeeper_filters::kernel::{LicenseId, UnixMs};
use rusqlite::{Connection, Transaction, params, params_from_iter, types::Value};

use super::{
    batch::Batch,
    columns::{PRUNE_ROWS, int},
    window_rows::Apply,
};
use crate::ledger::conversations::KEPT_MS;

/// Numbers are keyed hashes. `start` is in milliseconds.
pub const TABLE: &str = "CREATE TABLE IF NOT EXISTS conversations (
    license      BLOB    NOT NULL,
    conversation INTEGER NOT NULL,
    start        INTEGER NOT NULL,
    messages     INTEGER NOT NULL,
    PRIMARY KEY (license, conversation, start)
) STRICT, WITHOUT ROWID;";

pub fn write(tx: &Transaction<'_>, batch: &Batch<'_>) -> rusqlite::Result<()> {
    if batch.conversations.is_empty() {
        return Ok(());
    }
    let mut add = tx.prepare_cached(
        "INSERT INTO conversations (license, conversation, start, messages) VALUES (?1, ?2, ?3, max(0, ?4))
         ON CONFLICT DO UPDATE SET messages = max(0, messages + ?4)",
    )?;
    for ((license, id, start), messages) in &batch.conversations {
        add.execute(params![&license.0[..], *id as i64, int(start.0), messages])?;
    }
    Ok(())
}

pub fn restore(
    connection: &Connection,
    only: Option<&LicenseId>,
    now: UnixMs,
    apply: Apply<'_>,
) -> rusqlite::Result<()> {
    let whose = only.map_or("", |_| "AND license = ?2");
    let query = format!(
        "SELECT license, conversation, start, messages FROM conversations WHERE start >= ?1 {whose}
         ORDER BY start"
    );
    let since = Value::from(int(now.0.saturating_sub(KEPT_MS)));
    let bounds = [since].into_iter().chain(only.map(|license| Value::from(license.0.to_vec())));
    let mut statement = connection.prepare_cached(&query)?;
    let mut rows = statement.query(params_from_iter(bounds))?;
    while let Some(row) = rows.next()? {
        let license = LicenseId(row.get(0)?);
        let [id, start, messages] = [row.get::<_, i64>(1)?, row.get(2)?, row.get(3)?];
        apply(license, &|account| {
            account.conversations().restore(id as u64, UnixMs(start as u64), messages as u64);
        });
    }
    Ok(())
}

/// How many rows of days that are over were deleted.
pub fn prune(connection: &Connection, now: UnixMs) -> rusqlite::Result<usize> {
    let query = "DELETE FROM conversations WHERE (license, conversation, start) IN
                 (SELECT license, conversation, start FROM conversations WHERE start < ?1 LIMIT ?2)";
    connection.execute(query, params![int(now.0.saturating_sub(KEPT_MS)), PRUNE_ROWS as i64])
}
