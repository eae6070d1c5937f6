//! The table `daily`: what known licences did and what it cost, by day. Filled from the journal in
//! the transaction that holds the sequence it reaches, so it is exact whatever happens.

use std::{path::Path, sync::LazyLock, time::Duration};

use gatekeeper_filters::kernel::{LicenseId, ModelTotals, Period, UnixMs, UsageFigures};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, Transaction, params};

use super::{
    batch::Batch,
    columns::{SCHEMA, license},
};

pub const DAY_MS: u64 = 86_400_000;
/// Picodollars; two of them fit into SQLite's integers, so that an addition never overflows.
const MOST: u64 = (1 << 62) - 1;

/// Columns before the figures: day, licence, plan, model, provider.
const KEYS: usize = 5;

/// What one licence did on one day with one model at one provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DailyRow {
    /// `2026-11-15`, UTC.
    pub day: String,
    /// The licence's id in hex.
    pub license: String,
    pub plan: String,
    /// The public name asked for; empty when the request was refused before it was known.
    pub model: String,
    /// Empty when none was asked.
    pub provider: String,
    pub figures: UsageFigures,
}

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("there is no store yet: no gateway has run with this configuration")]
    Missing,
    #[error(
        "the store is of an older gatekeeper (schema {found}, this one reads {SCHEMA}): the next start \
         of the gateway brings it up to date"
    )]
    Older { found: i64 },
    #[error("the store is of a newer gatekeeper (schema {found}, this one reads {SCHEMA})")]
    Newer { found: i64 },
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
}

/// Rows of the days from `first` to `last` (`2026-11-01`), both included. A gateway may be running on the
/// store; its last 200 ms may be missing.
///
/// # Errors
/// The store can't be read.
pub fn read(path: &Path, first: &str, last: &str) -> Result<Vec<DailyRow>, ReadError> {
    if !path.exists() {
        return Err(ReadError::Missing);
    }
    let connection = open(path)?;
    let found = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    match found {
        SCHEMA => {}
        ..SCHEMA => return Err(ReadError::Older { found }),
        _ => return Err(ReadError::Newer { found }),
    }
    let query = format!(
        "SELECT day, license, plan, model, provider, {} FROM daily WHERE day BETWEEN ?1 AND ?2
         ORDER BY day, license, plan, model, provider",
        UsageFigures::NAMES.join(", ")
    );
    let mut statement = connection.prepare(&query)?;
    let rows = statement.query_map([first, last], |row| {
        Ok(DailyRow {
            day: row.get(0)?,
            license: row.get(1)?,
            plan: row.get(2)?,
            model: row.get(3)?,
            provider: row.get(4)?,
            figures: figures(row, KEYS)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The figures of a row, which begin at this column.
fn figures(row: &Row<'_>, first: usize) -> rusqlite::Result<UsageFigures> {
    let mut values = [0; UsageFigures::NAMES.len()];
    for (place, value) in values.iter_mut().enumerate() {
        *value = row.get::<_, i64>(first + place)? as u64;
    }
    Ok(UsageFigures::of_values(values))
}

/// Nothing is written, not even beside the file: without a running gateway the file has to be opened as
/// immutable.
fn open(path: &Path) -> rusqlite::Result<Connection> {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let connection = match url::Url::from_file_path(std::path::absolute(path).unwrap_or_default()) {
        Ok(mut url) if !Path::new(&log).exists() => {
            url.set_query(Some("immutable=1"));
            Connection::open_with_flags(url.as_str(), flags | OpenFlags::SQLITE_OPEN_URI)?
        }
        _ => Connection::open_with_flags(path, flags)?,
    };
    connection.busy_timeout(Duration::from_secs(5))?;
    Ok(connection)
}

/// Adds figures to a row, each up to [`MOST`].
static ADD: LazyLock<String> = LazyLock::new(|| {
    let names = UsageFigures::NAMES;
    let places: Vec<_> = (1..=KEYS + names.len()).map(|place| format!("?{place}")).collect();
    let sums = names.map(|name| format!("{name} = min({name} + excluded.{name}, {MOST})"));
    format!(
        "INSERT INTO daily (day, license, plan, model, provider, {}) VALUES ({})
         ON CONFLICT DO UPDATE SET {}",
        names.join(", "),
        places.join(", "),
        sums.join(", ")
    )
});

pub(crate) fn write(tx: &Transaction<'_>, batch: &Batch<'_>) -> rusqlite::Result<()> {
    let mut add = tx.prepare_cached(&ADD)?;
    for (way, figures) in &batch.daily {
        let (day, license) = (date(way.day), way.license.to_hex());
        let keys: [&str; KEYS] = [&day, &license, way.plan, way.model, way.provider];
        for (place, key) in keys.into_iter().enumerate() {
            add.raw_bind_parameter(place + 1, key)?;
        }
        for (place, value) in figures.values().into_iter().enumerate() {
            add.raw_bind_parameter(KEYS + place + 1, money(value))?;
        }
        add.raw_execute()?;
    }
    Ok(())
}

/// Columns that older files lack, in the order of their making.
const ADDED: [(&str, &str, &str); 11] = [
    ("requests", "cost", "INTEGER NOT NULL DEFAULT 0"),
    ("requests", "cache_write", "INTEGER NOT NULL DEFAULT 0"),
    ("requests", "wasted", "INTEGER NOT NULL DEFAULT 0"),
    ("requests", "wasted_cost", "INTEGER NOT NULL DEFAULT 0"),
    ("daily", "cache_write", "INTEGER NOT NULL DEFAULT 0"),
    ("daily", "wasted", "INTEGER NOT NULL DEFAULT 0"),
    ("daily", "wasted_cost", "INTEGER NOT NULL DEFAULT 0"),
    ("open", "plan", "TEXT NOT NULL DEFAULT ''"),
    ("open", "model", "TEXT NOT NULL DEFAULT ''"),
    ("open", "provider", "TEXT NOT NULL DEFAULT ''"),
    ("open", "cost", "INTEGER NOT NULL DEFAULT 0"),
];

/// Gives the tables of an older file what they lack: nothing of it was known then.
pub(crate) fn add_columns(tx: &Transaction<'_>) -> rusqlite::Result<()> {
    for (table, column, kind) in ADDED {
        let has = |query: &str, name: &[&str]| {
            let found = tx.query_row(query, rusqlite::params_from_iter(name), |_| Ok(()));
            found.optional().map(|row| row.is_some())
        };
        let is_there = has("SELECT 1 FROM sqlite_schema WHERE name = ?1", &[table])?;
        let is_new = has("SELECT 1 FROM pragma_table_info(?1) WHERE name = ?2", &[table, column])?;
        if is_there && !is_new {
            tx.execute_batch(&format!("ALTER TABLE {table} ADD COLUMN {column} {kind}"))?;
        }
    }
    Ok(())
}

/// Fills the table of an older file from the requests it kept.
pub(crate) fn add_up(tx: &Transaction<'_>) -> rusqlite::Result<()> {
    tx.execute_batch(
        "INSERT INTO daily (day, license, plan, model, provider, requests, messages, input, output,
                            cached, cost)
         SELECT substr(time, 1, 10), license, plan, model, provider, count(*), sum(attempts > 0),
                sum(input), sum(output), sum(cached), sum(cost)
         FROM requests WHERE license IS NOT NULL AND NOT EXISTS (SELECT 1 FROM daily)
         GROUP BY 1, 2, 3, 4, 5",
    )
}

/// Deletes a little of what is before `day`; how many rows.
pub(crate) fn prune(connection: &Connection, day: &str, most: usize) -> rusqlite::Result<usize> {
    let query = "DELETE FROM daily WHERE (day, license, plan, model, provider) IN
                 (SELECT day, license, plan, model, provider FROM daily WHERE day < ?1 LIMIT ?2)";
    connection.execute(query, params![day, most as i64])
}

pub(crate) fn spent(connection: &Connection, day: UnixMs) -> rusqlite::Result<Vec<(String, u64)>> {
    let mut statement =
        connection.prepare("SELECT provider, cost FROM daily WHERE day = ?1 AND cost > 0")?;
    let mut rows = statement.query([date(day)])?;
    let mut spent = std::collections::BTreeMap::<String, u64>::new();
    while let Some(row) = rows.next()? {
        let sum = spent.entry(row.get(0)?).or_default();
        *sum = sum.saturating_add(row.get::<_, i64>(1)? as u64);
    }
    Ok(spent.into_iter().collect())
}

/// What licences wasted on one day.
pub(crate) fn wasted(
    connection: &Connection,
    day: UnixMs,
) -> rusqlite::Result<Vec<(LicenseId, u64)>> {
    let query = "SELECT license, wasted_cost FROM daily WHERE day = ?1 AND wasted_cost > 0";
    let mut statement = connection.prepare(query)?;
    let rows = statement.query_map([date(day)], |row| {
        Ok((license(&row.get::<_, String>(0)?), row.get::<_, i64>(1)? as u64))
    })?;
    rows.collect()
}

/// What was used on one day, by model.
pub(crate) fn by_model(connection: &Connection, day: UnixMs) -> rusqlite::Result<Vec<ModelTotals>> {
    let query = format!(
        "SELECT model, {} FROM daily WHERE day = ?1 AND model <> ''",
        UsageFigures::NAMES.join(", ")
    );
    let mut statement = connection.prepare(&query)?;
    let mut rows = statement.query([date(day)])?;
    let mut models = std::collections::BTreeMap::<String, UsageFigures>::new();
    while let Some(row) = rows.next()? {
        models.entry(row.get(0)?).or_default().add(&figures(row, 1)?);
    }
    let totals = |(model, figures): (String, _)| ModelTotals { model: model.into(), figures };
    Ok(models.into_iter().map(totals).collect())
}

pub(crate) fn licenses_over(
    connection: &Connection,
    days: u64,
    now: UnixMs,
) -> rusqlite::Result<u64> {
    let today = Period::Day.window(now).start.0;
    let first = UnixMs(today.saturating_sub(days.saturating_sub(1) * DAY_MS));
    let query = "SELECT count(DISTINCT license) FROM daily WHERE day BETWEEN ?1 AND ?2";
    let count: i64 =
        connection.query_row(query, [date(first), date(UnixMs(today))], |row| row.get(0))?;
    Ok(count as u64)
}

/// `2026-11-15`, UTC.
pub fn date(at: UnixMs) -> String {
    at.to_rfc3339().get(..10).unwrap_or_default().to_owned()
}

/// Picodollars as SQLite keeps them.
pub(crate) fn money(picodollars: u64) -> i64 {
    picodollars.min(MOST) as i64
}
