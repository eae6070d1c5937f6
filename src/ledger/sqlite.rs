//! SQLite: what the next start begins with, and what an operator may query.

mod account_rows;
pub mod action_rows;
pub mod batch;
pub mod columns;
mod conversation_rows;
pub mod daily_usage;
pub mod license_rows;
mod webhook_rows;
mod window_rows;

use std::{
    fs::{OpenOptions, Permissions},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use gatekeeper_filters::kernel::{About, LicenseId, ModelTotals, Period, UnixMs};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction, params};
use zeroize::Zeroizing;

use super::{
    account::{Account, Rate},
    accounts::Accounts,
    distributed::AllowanceRow,
    journal::entry::{EntryExpectation, ReservedEntry},
    open_error::StoreOpenError,
    orphan::OrphanedReservation,
    sqlite::{
        batch::Batch,
        columns::{PRUNE_ROWS, SCHEMA, int, license, moment, readable},
        daily_usage::DAY_MS,
    },
};
use crate::progress::Progress;

/// How long windows of a minute or an hour are kept, and those of a day or a month.
const SHORT_MS: u64 = 7 * DAY_MS;
const LONG_MS: u64 = 400 * DAY_MS;
/// How long one connection waits for another.
const BUSY: Duration = Duration::from_secs(1);

pub struct Database {
    pub(super) connection: Connection,
    path: PathBuf,
}

impl Database {
    /// All rows of a licence, by table.
    pub fn export(
        &self,
        license: &LicenseId,
    ) -> rusqlite::Result<serde_json::Map<String, serde_json::Value>> {
        license_rows::export(&self.connection, &license.to_hex())
    }

    pub fn forget(&mut self, license: &LicenseId) -> rusqlite::Result<()> {
        license_rows::forget(&mut self.connection, &license.to_hex())
    }

    /// When a licence was last used, by its windows.
    pub fn last_use(&self, license: &LicenseId) -> rusqlite::Result<Option<UnixMs>> {
        action_rows::last_use(&self.connection, license)
    }

    pub fn open(path: &Path) -> Result<Self, StoreOpenError> {
        private(path).map_err(|source| StoreOpenError::File { path: path.to_owned(), source })?;
        let sqlite = |source| StoreOpenError::Sqlite { path: path.to_owned(), source };
        let _progress = Progress::of(format!("Opening the store {}", path.display()), "");
        let mut connection = Connection::open(path).map_err(sqlite)?;
        prepare(&connection).map_err(sqlite)?;
        match migrate(&mut connection).map_err(sqlite)? {
            SCHEMA => Ok(Self { connection, path: path.to_owned() }),
            found => Err(StoreOpenError::Newer { path: path.to_owned(), found, known: SCHEMA }),
        }
    }

    /// A second connection to the store, which only reads: it never waits for the one that writes.
    ///
    /// # Errors
    /// SQLite fails.
    pub fn reader(path: &Path) -> rusqlite::Result<Self> {
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.busy_timeout(BUSY)?;
        connection.set_prepared_statement_cache_capacity(32);
        let reader = Self { connection, path: path.to_owned() };
        // It opens its log with the first query: now, before a request waits for it.
        reader.applied()?;
        Ok(reader)
    }

    /// Sequence of the last journal entry that is in here.
    pub fn applied(&self) -> rusqlite::Result<u64> {
        let query = "SELECT value FROM meta WHERE key = 'applied'";
        let applied =
            self.connection.query_row(query, [], |row| row.get::<_, i64>(0)).optional()?;
        Ok(applied.unwrap_or(0) as u64)
    }

    /// All of the batch or nothing, together with the sequence it reaches.
    pub fn apply(&mut self, batch: &Batch<'_>) -> rusqlite::Result<()> {
        let tx = self.connection.transaction()?;
        write(&tx, batch)?;
        tx.commit()
    }

    /// Reservations without an outcome, oldest first.
    pub fn orphans(&self) -> rusqlite::Result<Vec<OrphanedReservation>> {
        let query = "SELECT hold, license, time, input, grp, message, plan, model, provider, cost
                     FROM open ORDER BY hold";
        let mut statement = self.connection.prepare(query)?;
        let rows = statement.query_map([], |row| {
            let name = |column: usize| row.get::<_, String>(column).map(Arc::from);
            let about = About { plan: name(6)?, model: name(7)?, provider: name(8)? };
            let reserved = ReservedEntry {
                hold: row.get::<_, i64>(0)? as u64,
                license: license(&row.get::<_, String>(1)?),
                time: UnixMs(row.get::<_, i64>(2)? as u64),
                input: row.get::<_, i64>(3)? as u64,
                group: row.get::<_, i64>(4)? as u64,
                message: row.get::<_, Option<i64>>(5)?.map(|ms| UnixMs(ms as u64)),
            };
            Ok(OrphanedReservation { reserved, about, cost: row.get::<_, i64>(9)? as u64 })
        })?;
        rows.collect()
    }

    /// Restores all accounts.
    ///
    /// # Errors
    /// SQLite fails.
    pub fn restore(&self, accounts: &Accounts, now: UnixMs) -> rusqlite::Result<()> {
        account_rows::restore(&self.connection, None, now, &mut |license, change| {
            accounts.change(&license, change);
        })
    }

    /// The account of one licence.
    ///
    /// # Errors
    /// SQLite fails.
    pub fn account(&self, license: &LicenseId, now: UnixMs) -> rusqlite::Result<Account> {
        account_rows::read(&self.connection, license, now)
    }

    /// Restores what operators did.
    ///
    /// # Errors
    /// SQLite fails.
    pub fn restore_actions(&self, accounts: &Accounts) -> rusqlite::Result<()> {
        action_rows::restore_actions(&self.connection, accounts)
    }

    /// Messages and tokens settled in one window.
    pub fn used(
        &self,
        license: &LicenseId,
        period: Period,
        start: UnixMs,
    ) -> rusqlite::Result<(u64, u64)> {
        let query = "SELECT messages, tokens FROM usage
                     WHERE license = ?1 AND period = ?2 AND start = ?3";
        let mut statement = self.connection.prepare_cached(query)?;
        let key = params![license.to_hex(), period.name(), start.to_rfc3339()];
        let number = |row: &rusqlite::Row<'_>, place| row.get::<_, i64>(place).map(|n| n as u64);
        let used = statement.query_row(key, |row| Ok((number(row, 0)?, number(row, 1)?)));
        Ok(used.optional()?.unwrap_or_default())
    }

    pub fn keep_rates(&mut self, rates: &[(LicenseId, [Rate; 4])]) -> rusqlite::Result<()> {
        let tx = self.connection.transaction()?;
        let query = "INSERT OR REPLACE INTO rates (license, period, start, count)
                     VALUES (?1, ?2, ?3, ?4)";
        let mut statement = tx.prepare_cached(query)?;
        for (id, rates) in rates {
            // A minute is over before a restart is.
            for period in [Period::Hour, Period::Day, Period::Month] {
                let rate = rates[period as usize];
                let start = rate.start.to_rfc3339();
                statement.execute(params![id.to_hex(), period.name(), start, int(rate.count)])?;
            }
        }
        drop(statement);
        tx.commit()
    }

    /// Deletes a little of what is too old; true when there may be more.
    pub fn prune(&mut self, now: UnixMs, keep: Duration) -> rusqlite::Result<bool> {
        let before = |ms: u64| readable(UnixMs(now.0.saturating_sub(ms)));
        // Rows lie about in the order of time, so old ones are found at once. Only about: a clock
        // that was wrong for a while must not keep what follows for ever.
        let requests = "DELETE FROM requests WHERE rowid IN
                        (SELECT rowid FROM requests WHERE time < ?1 LIMIT ?2)";
        let keep = u64::try_from(keep.as_millis()).unwrap_or(u64::MAX);
        let mut most =
            self.connection.execute(requests, params![before(keep), PRUNE_ROWS as i64])?;
        let usage = "DELETE FROM usage WHERE (license, period, start) IN
                     (SELECT license, period, start FROM usage
                      WHERE period = ?1 AND start < ?2 LIMIT ?3)";
        for period in Period::ALL {
            let short = matches!(period, Period::Minute | Period::Hour);
            let before = before(if short { SHORT_MS } else { LONG_MS });
            let rows = params![period.name(), before, PRUNE_ROWS as i64];
            most = most.max(self.connection.execute(usage, rows)?);
        }
        most = most.max(daily_usage::prune(&self.connection, &before(LONG_MS)[..10], PRUNE_ROWS)?);
        self.connection.execute("DELETE FROM rates WHERE start < ?1", [before(LONG_MS)])?;
        most = most.max(conversation_rows::prune(&self.connection, now)?);
        most = most.max(action_rows::prune_actions(&self.connection, &before(LONG_MS))?);
        Ok(most >= PRUNE_ROWS)
    }

    /// Picodollars of one day (UTC), by provider.
    pub fn spent(&self, day: UnixMs) -> rusqlite::Result<Vec<(String, u64)>> {
        daily_usage::spent(&self.connection, day)
    }

    /// What was used on one day (UTC), by model.
    pub fn by_model(&self, day: UnixMs) -> rusqlite::Result<Vec<ModelTotals>> {
        daily_usage::by_model(&self.connection, day)
    }

    /// Distinct licences over 1, 7 and 30 days, today included.
    pub fn active_licenses(&self, now: UnixMs) -> rusqlite::Result<[u64; 3]> {
        let over = |days| daily_usage::licenses_over(&self.connection, days, now);
        Ok([over(1)?, over(7)?, over(30)?])
    }

    pub fn secret(&self, key: &str) -> rusqlite::Result<Option<Zeroizing<[u8; 32]>>> {
        let query = "SELECT value FROM meta WHERE key = ?1";
        let value = self.connection.query_row(query, [key], |row| row.get::<_, [u8; 32]>(0));
        Ok(value.optional()?.map(Zeroizing::new))
    }

    /// On the disk when this returns: losing it would change every licence id.
    pub fn keep_secret(&self, key: &str, value: &[u8; 32]) -> rusqlite::Result<()> {
        let query = "INSERT INTO meta (key, value) VALUES (?1, ?2)";
        self.connection.execute(query, params![key, &value[..]])?;
        self.checkpoint()
    }

    /// A random id of this database, and a boot number that grows with each call. It is at least the time
    /// in seconds: a database restored from a copy must not reuse a boot number.
    pub fn identity(&self, now: UnixMs) -> rusqlite::Result<(String, u64)> {
        let mut own = [0; 8];
        // Without random bytes two gateways could have one name: then none.
        getrandom::fill(&mut own).map_err(|_| rusqlite::Error::InvalidQuery)?;
        let own = own.map(|byte| format!("{byte:02x}")).concat();
        let once = "INSERT OR IGNORE INTO meta (key, value) VALUES ('gateway', ?1)";
        self.connection.execute(once, [own])?;
        let boot = "INSERT INTO meta (key, value) VALUES ('boot', ?1)
                    ON CONFLICT DO UPDATE SET value = max(value + 1, excluded.value)";
        self.connection.execute(boot, [int(now.0 / 1000)])?;
        self.checkpoint()?;
        let of = "SELECT value FROM meta WHERE key = 'boot'";
        let boot = self.connection.query_row(of, [], |row| row.get::<_, i64>(0))?;
        Ok((self.gateway()?, boot as u64))
    }

    /// The name that [`Database::identity`] made.
    pub fn gateway(&self) -> rusqlite::Result<String> {
        let of = "SELECT value FROM meta WHERE key = 'gateway'";
        self.connection.query_row(of, [], |row| row.get(0))
    }

    /// What licences spent while the shared store was away: messages and tokens, each with the start
    /// of its window.
    pub fn keep_leases(
        &mut self,
        leases: &[(LicenseId, [AllowanceRow; 2])],
        now: UnixMs,
    ) -> rusqlite::Result<()> {
        let tx = self.connection.transaction()?;
        let query = "INSERT OR REPLACE INTO leases (license, kept, messages_start, messages,
                                                    tokens_start, tokens)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let mut statement = tx.prepare_cached(query)?;
        for (license, [messages, tokens]) in leases {
            statement.execute(params![
                license.to_hex(),
                now.to_rfc3339(),
                messages.start.to_rfc3339(),
                int(messages.spent),
                tokens.start.to_rfc3339(),
                int(tokens.spent),
            ])?;
        }
        drop(statement);
        let over = UnixMs(now.0.saturating_sub(40 * DAY_MS)).to_rfc3339();
        tx.execute("DELETE FROM leases WHERE kept < ?1", [over])?;
        tx.commit()
    }

    pub fn leases(&self) -> rusqlite::Result<Vec<(LicenseId, [AllowanceRow; 2])>> {
        let query = "SELECT license, messages_start, messages, tokens_start, tokens FROM leases";
        let mut statement = self.connection.prepare(query)?;
        let rows = statement.query_map([], |row| {
            let kept = |start: usize| -> rusqlite::Result<AllowanceRow> {
                let spent = row.get::<_, i64>(start + 1)? as u64;
                Ok(AllowanceRow { start: moment(&row.get::<_, String>(start)?), spent })
            };
            Ok((license(&row.get::<_, String>(0)?), [kept(1)?, kept(3)?]))
        })?;
        rows.collect()
    }

    /// What is known of targets, by label (`crate::budget::unseen_tokens`).
    pub fn keep_unseen(&mut self, known: &[(String, String)]) -> rusqlite::Result<()> {
        let tx = self.connection.transaction()?;
        for (target, known) in known {
            let keep = "INSERT OR REPLACE INTO unseen (target, known) VALUES (?1, ?2)";
            tx.prepare_cached(keep)?.execute(params![target, known])?;
        }
        tx.commit()
    }

    /// What [`Database::keep_unseen`] has kept.
    pub fn unseen(&self) -> rusqlite::Result<Vec<(String, String)>> {
        let mut statement = self.connection.prepare("SELECT target, known FROM unseen")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        rows.collect()
    }

    /// When each shop's webhooks came: what changed.
    pub fn keep_webhooks(&self, rows: &[(String, [String; 3])]) -> rusqlite::Result<()> {
        webhook_rows::keep(&self.connection, rows)
    }

    /// What [`Database::keep_webhooks`] has kept.
    pub fn webhooks(&self) -> rusqlite::Result<Vec<(String, [String; 3])>> {
        webhook_rows::read(&self.connection)
    }

    /// Picodollars that each licence wasted on one day (UTC).
    pub fn wasted(&self, day: UnixMs) -> rusqlite::Result<Vec<(LicenseId, u64)>> {
        daily_usage::wasted(&self.connection, day)
    }

    /// Moves everything into the one file, which can then be copied alone.
    pub fn checkpoint(&self) -> rusqlite::Result<()> {
        self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
    }

    /// Brings what was committed to the disk. `synchronous = NORMAL` leaves that to checkpoints,
    /// but the journal must outlast it. Only locks on the main file are SQLite's, so a second
    /// descriptor of the log does no harm.
    pub fn sync(&self) -> std::io::Result<()> {
        let mut log = self.path.clone().into_os_string();
        log.push("-wal");
        match std::fs::File::open(log) {
            Ok(file) => file.sync_data(),
            // Nothing was written since the last checkpoint.
            Err(problem) if problem.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(problem) => Err(problem),
        }
    }

    #[cfg(test)]
    pub fn connection(&self) -> &Connection {
        &self.connection
    }
}

/// SQLite makes its other files with the rights of the main one.
fn private(path: &Path) -> std::io::Result<()> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o600))
}

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(())
}

/// Makes the tables of a new file; the version that is there in the end.
fn migrate(connection: &mut Connection) -> rusqlite::Result<i64> {
    // A former version neither writes nor misses them.
    connection.execute_batch(conversation_rows::TABLE)?;
    connection.execute_batch(webhook_rows::TABLE)?;
    let tx = connection.transaction()?;
    let found: i64 = tx.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if found < SCHEMA {
        daily_usage::add_columns(&tx)?;
        // Each table of the newest schema that an older file lacks.
        tx.execute_batch(include_str!("sqlite/schema.sql"))?;
        daily_usage::add_up(&tx)?;
        tx.pragma_update(None, "user_version", SCHEMA)?;
        tx.commit()?;
        return Ok(SCHEMA);
    }
    Ok(found)
}

fn write(tx: &Transaction<'_>, batch: &Batch<'_>) -> rusqlite::Result<()> {
    let mut usage = tx.prepare_cached(
        "INSERT INTO usage (license, period, start, messages, tokens) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT DO UPDATE SET messages = messages + excluded.messages,
                                   tokens = tokens + excluded.tokens",
    )?;
    for ((id, period, start), sum) in &batch.sums {
        let (messages, tokens) = (int(sum.messages), int(sum.tokens));
        usage.execute(params![id.to_hex(), period.name(), start.to_rfc3339(), messages, tokens])?;
    }
    write_open(tx, batch)?;
    write_requests(tx, batch)?;
    daily_usage::write(tx, batch)?;
    action_rows::write(tx, &batch.actions)?;
    conversation_rows::write(tx, batch)?;
    let applied = "INSERT OR REPLACE INTO meta (key, value) VALUES ('applied', ?1)";
    tx.prepare_cached(applied)?.execute([batch.reaches as i64])?;
    Ok(())
}

fn write_open(tx: &Transaction<'_>, batch: &Batch<'_>) -> rusqlite::Result<()> {
    let mut close = tx.prepare_cached("DELETE FROM open WHERE hold = ?1")?;
    for hold in &batch.closed {
        close.execute([*hold as i64])?;
    }
    let mut open = tx.prepare_cached(
        "INSERT OR REPLACE INTO open (hold, license, time, input, grp, message, plan, model, provider,
                                      cost)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )?;
    for (r, EntryExpectation { names, cost, .. }) in batch.opened.values() {
        let message = r.message.map(|at| int(at.0));
        let (hold, group) = (r.hold as i64, r.group as i64);
        open.execute(params![
            hold,
            r.license.to_hex(),
            int(r.time.0),
            int(r.input),
            group,
            message,
            names.plan,
            names.model,
            names.provider,
            daily_usage::money(*cost),
        ])?;
    }
    let mut charged = tx.prepare_cached("UPDATE open SET message = NULL WHERE grp = ?1")?;
    for group in &batch.charged {
        charged.execute([*group as i64])?;
    }
    Ok(())
}

fn write_requests(tx: &Transaction<'_>, batch: &Batch<'_>) -> rusqlite::Result<()> {
    let mut insert = tx.prepare_cached(
        "INSERT INTO requests (time, license, endpoint, plan, model, served, provider, \"key\",
                               source, input, output, cached, reasoning, charged, status, ms,
                               attempts, cost, cache_write, wasted, wasted_cost)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17,
                 ?18, ?19, ?20, ?21)",
    )?;
    for request in &batch.requests {
        let [endpoint, plan, model, served, provider, key, source] = &request.texts;
        let [input, output, cached, reasoning, charged, status, ms, attempts] =
            request.numbers.map(int);
        insert.execute(params![
            readable(request.time),
            request.license.map(LicenseId::to_hex),
            endpoint,
            plan,
            model,
            served,
            provider,
            key,
            source,
            input,
            output,
            cached,
            reasoning,
            charged,
            status,
            ms,
            attempts,
            daily_usage::money(request.cost),
            int(request.cache_write),
            int(request.wasted),
            daily_usage::money(request.wasted_cost),
        ])?;
    }
    Ok(())
}
