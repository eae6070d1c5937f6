//! What was used day by day: each gateway's own rows, for `gatekeeper usage` and the count of active
//! licences.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;
use gatekeeper_filters::kernel::UnixMs;
use redis::Cmd;
use rustc_hash::FxHashMap;
use secrecy::ExposeSecret;

use super::{DAY_MS, Fleet};
use crate::{
    config::settings::Redis,
    ledger::daily::{self, DailyRow},
    store::{Away, address::Address, read},
};

const KEEP_SECONDS: i64 = 400 * 86_400;
const ACTIVE_SECONDS: i64 = 40 * 86_400;
/// Fields of one command.
const BATCH: usize = 500;

/// What has been told.
#[derive(Default)]
pub struct Days {
    told: FxHashMap<String, String>,
    /// Everything was told once; from then on only the last two days change.
    whole: bool,
}

impl Days {
    /// The store may have lost it.
    pub fn forget(&mut self) {
        *self = Self::default();
    }
}

impl Fleet {
    pub(super) async fn tell_days(&self, days: &mut Days) -> Result<(), Away> {
        let now = UnixMs::now();
        let yesterday = daily::date(UnixMs(now.0.saturating_sub(DAY_MS)));
        let first = if days.whole { yesterday.clone() } else { "0000-00-00".to_owned() };
        let database = self.database.clone();
        let rows =
            tokio::task::spawn_blocking(move || daily::read(&database, &first, "9999-99-99"));
        let Ok(Ok(rows)) = rows.await else { return Err(Away) };
        let changed: Vec<(String, String, &DailyRow)> = rows
            .iter()
            .map(|row| (field(&self.gateway, row), value(row), row))
            .filter(|(field, value, row)| {
                days.told.get(&format!("{} {field}", row.day)) != Some(value)
            })
            .collect();
        for some in changed.chunks(BATCH) {
            for (day, rows) in by_day(some) {
                self.tell_day(day, &rows).await?;
            }
            for (field, value, row) in some {
                if row.day >= yesterday {
                    days.told.insert(format!("{} {field}", row.day), value.clone());
                }
            }
        }
        days.told.retain(|of, _| of.get(..10).is_some_and(|day| day >= &*yesterday));
        days.whole = true;
        self.count_active(now).await
    }

    async fn tell_day(&self, day: &str, rows: &[&(String, String, &DailyRow)]) -> Result<(), Away> {
        let key = format!("gk:day:{day}");
        let fields: Vec<(&str, &str)> =
            rows.iter().map(|(field, value, _)| (&**field, &**value)).collect();
        let _: () = self.store.run(Cmd::hset_multiple(&key, &fields)).await?;
        let _: () = self.store.run(Cmd::expire(&key, KEEP_SECONDS)).await?;
        let licenses: BTreeSet<&str> = rows.iter().map(|(_, _, row)| &*row.license).collect();
        let active = active_key(day);
        let _: () =
            self.store.run(Cmd::sadd(&active, licenses.into_iter().collect::<Vec<_>>())).await?;
        self.store.run(Cmd::expire(&active, ACTIVE_SECONDS)).await
    }

    /// Distinct licences of today, of 7 and of 30 days, at all gateways.
    async fn count_active(&self, now: UnixMs) -> Result<(), Away> {
        let mut counts = [0; 3];
        for (count, days) in counts.iter_mut().zip([1, 7, 30]) {
            let keys: Vec<String> = (0..days)
                .map(|back| active_key(&daily::date(UnixMs(now.0.saturating_sub(back * DAY_MS)))))
                .collect();
            let licenses: BTreeSet<String> = self.store.run(Cmd::sunion(keys)).await?;
            *count = licenses.len() as u64;
        }
        self.local.set_active_licenses(counts);
        Ok(())
    }
}

fn active_key(day: &str) -> String {
    format!("gk:{{active}}:{day}")
}

/// Names hold no spaces.
fn field(gateway: &str, row: &DailyRow) -> String {
    format!("{gateway} {} {} {} {}", row.license, row.plan, row.model, row.provider)
}

fn value(row: &DailyRow) -> String {
    let DailyRow { requests, messages, input, output, cached, cost, .. } = row;
    format!("{requests} {messages} {input} {output} {cached} {cost}")
}

fn by_day<'a>(
    rows: &'a [(String, String, &'a DailyRow)],
) -> BTreeMap<&'a str, Vec<&'a (String, String, &'a DailyRow)>> {
    let mut days = BTreeMap::<&str, Vec<_>>::new();
    for row in rows {
        days.entry(&row.2.day).or_default().push(row);
    }
    days
}

/// The rows of a month (`2026-11`) of all gateways, for a command that runs beside them.
///
/// # Errors
/// The store does not answer.
pub fn of_month(redis: &Redis, month: &str) -> anyhow::Result<Vec<DailyRow>> {
    let address = Address::parse(redis.url.expose_secret()).map_err(anyhow::Error::msg)?;
    let keys: Vec<String> = (1..=31).map(|day| format!("gk:day:{month}-{day:02}")).collect();
    let commands = keys.iter().map(Cmd::hgetall).collect();
    let days: Vec<BTreeMap<String, String>> =
        read::all(&address, commands).context("the shared store")?;
    let mut rows = BTreeMap::<(String, String), DailyRow>::new();
    for (key, fields) in keys.iter().zip(days) {
        let day = key.trim_start_matches("gk:day:");
        for (field, value) in fields {
            let Some((_, of)) = field.split_once(' ') else { continue };
            let Some(row) = parse(day, of, &value) else { continue };
            match rows.get_mut(&(day.to_owned(), of.to_owned())) {
                Some(sum) => add(sum, &row),
                None => drop(rows.insert((day.to_owned(), of.to_owned()), row)),
            }
        }
    }
    Ok(rows.into_values().collect())
}

fn parse(day: &str, of: &str, value: &str) -> Option<DailyRow> {
    let mut names = of.split(' ').map(str::to_owned);
    let mut numbers = value.split(' ').map(|number| number.parse::<u64>().ok());
    Some(DailyRow {
        day: day.to_owned(),
        license: names.next()?,
        plan: names.next()?,
        model: names.next()?,
        provider: names.next()?,
        requests: numbers.next()??,
        messages: numbers.next()??,
        input: numbers.next()??,
        output: numbers.next()??,
        cached: numbers.next()??,
        cost: numbers.next()??,
    })
}

fn add(sum: &mut DailyRow, row: &DailyRow) {
    for (to, from) in [
        (&mut sum.requests, row.requests),
        (&mut sum.messages, row.messages),
        (&mut sum.input, row.input),
        (&mut sum.output, row.output),
        (&mut sum.cached, row.cached),
        (&mut sum.cost, row.cost),
    ] {
        *to = to.saturating_add(from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_survives_the_store() {
        let row = DailyRow {
            day: "2026-11-24".into(),
            license: "ab".repeat(32),
            plan: "pro".into(),
            model: "fast|x".into(),
            provider: String::new(),
            requests: 7,
            messages: 6,
            input: 5,
            output: 4,
            cached: 3,
            cost: 2_000_000_000_001,
        };
        let (field, value) = (field("gateway", &row), value(&row));
        let (_, of) = field.split_once(' ').unwrap();
        assert_eq!(parse("2026-11-24", of, &value), Some(row));
    }
}
