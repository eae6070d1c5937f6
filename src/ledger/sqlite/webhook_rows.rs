//! When each shop's last webhook came, for the dashboard after a restart.

use rusqlite::{Connection, params};

/// Times are RFC 3339, empty for never.
pub const TABLE: &str = "CREATE TABLE IF NOT EXISTS webhooks (
    shop    TEXT NOT NULL PRIMARY KEY,
    taken   TEXT NOT NULL,
    refused TEXT NOT NULL,
    why     TEXT NOT NULL
) STRICT, WITHOUT ROWID;";

pub fn keep(connection: &Connection, rows: &[(String, [String; 3])]) -> rusqlite::Result<()> {
    let query =
        "INSERT OR REPLACE INTO webhooks (shop, taken, refused, why) VALUES (?1, ?2, ?3, ?4)";
    let mut statement = connection.prepare_cached(query)?;
    for (shop, [taken, refused, why]) in rows {
        statement.execute(params![shop, taken, refused, why])?;
    }
    Ok(())
}

pub fn read(connection: &Connection) -> rusqlite::Result<Vec<(String, [String; 3])>> {
    let mut statement = connection.prepare("SELECT shop, taken, refused, why FROM webhooks")?;
    let rows = statement
        .query_map([], |row| Ok((row.get(0)?, [row.get(1)?, row.get(2)?, row.get(3)?])))?;
    rows.collect()
}
