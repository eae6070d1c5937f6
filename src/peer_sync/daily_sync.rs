//! Shares each gateway's daily usage rows, for `gatekeeper usage` and the count of active licences.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use anyhow::Context;
use gatekeeper_filters::kernel::{UnixMs, UsageFigures};
use redis::Cmd;
use rustc_hash::FxHashMap;
use secrecy::ExposeSecret;

use super::PeerSync;
use crate::{
    config::settings::RedisSettings,
    ledger::sqlite::daily_usage::{self, DAY_MS, DailyRow},
    redis_store::{StoreUnavailable, one_shot, url::RedisUrl},
};

const KEEP_SECONDS: i64 = 400 * 86_400;
const ACTIVE_SECONDS: i64 = 40 * 86_400;
/// Fields of one command.
const BATCH: usize = 500;
/// The longest time that active licences are counted over.
const ACTIVE_DAYS: u64 = 30;
/// A day with more licences than this is read again after a while only.
const SMALL: u64 = 2_000;
const LARGE_EVERY: Duration = Duration::from_secs(60);

/// What has been sent.
#[derive(Default)]
pub struct DailySync {
    sent: FxHashMap<String, String>,
    /// The full table was sent once; from then on only the last two days change.
    whole: bool,
    active: ActiveLicenses,
}

impl DailySync {
    /// The store may have lost it.
    pub fn forget(&mut self) {
        *self = Self::default();
    }
}

impl PeerSync {
    pub(super) async fn publish_days(&self, days: &mut DailySync) -> Result<(), StoreUnavailable> {
        let now = UnixMs::now();
        let yesterday = daily_usage::date(UnixMs(now.0.saturating_sub(DAY_MS)));
        let first = if days.whole { yesterday.clone() } else { "0000-00-00".to_owned() };
        let database = self.database.clone();
        let rows =
            tokio::task::spawn_blocking(move || daily_usage::read(&database, &first, "9999-99-99"));
        let Ok(Ok(rows)) = rows.await else { return Err(StoreUnavailable) };
        let changed: Vec<(String, String, &DailyRow)> = rows
            .iter()
            .map(|row| (field(&self.gateway, row), value(row), row))
            .filter(|(field, value, row)| {
                days.sent.get(&format!("{} {field}", row.day)) != Some(value)
            })
            .collect();
        for some in changed.chunks(BATCH) {
            for (day, rows) in by_day(some) {
                self.tell_day(day, &rows).await?;
            }
            for (field, value, row) in some {
                if row.day >= yesterday {
                    days.sent.insert(format!("{} {field}", row.day), value.clone());
                }
            }
        }
        days.sent.retain(|of, _| of.get(..10).is_some_and(|day| day >= &*yesterday));
        days.whole = true;
        self.count_active(&mut days.active, now).await
    }

    async fn tell_day(
        &self,
        day: &str,
        rows: &[&(String, String, &DailyRow)],
    ) -> Result<(), StoreUnavailable> {
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

    /// Distinct licences of today, of 7 and of 30 days, at all gateways. The store is asked in small
    /// pieces: requests wait behind each.
    async fn count_active(
        &self,
        active: &mut ActiveLicenses,
        now: UnixMs,
    ) -> Result<(), StoreUnavailable> {
        let today = now.0 / DAY_MS;
        for day in today.saturating_sub(ACTIVE_DAYS - 1)..=today {
            let key = active_key(&daily_usage::date(UnixMs(day * DAY_MS)));
            if active.is_over(day, today) {
                continue;
            }
            let size: u64 = self.store.run(Cmd::scard(&key)).await?;
            if !active.is_due(day, size) {
                continue;
            }
            let mut cursor = 0;
            loop {
                let mut scan = redis::cmd("SSCAN");
                scan.arg(&key).arg(cursor).arg("COUNT").arg(BATCH);
                let (next, licenses): (u64, Vec<String>) = self.store.run(scan).await?;
                licenses.iter().for_each(|license| active.see(license, day));
                cursor = next;
                if cursor == 0 {
                    break;
                }
            }
            active.read.insert(day, (size, Instant::now()));
        }
        self.local.set_active_licenses(today, active.counts(today));
        Ok(())
    }
}

/// When licences were last active at any gateway, in days since 1970.
#[derive(Default)]
struct ActiveLicenses {
    /// By the first half of a licence's id.
    last: FxHashMap<u128, u64>,
    /// How many licences a day had when it was read last, and when that was.
    read: BTreeMap<u64, (u64, Instant)>,
}

impl ActiveLicenses {
    /// Only today and yesterday still change.
    fn is_over(&self, day: u64, today: u64) -> bool {
        day + 1 < today && self.read.contains_key(&day)
    }

    fn is_due(&self, day: u64, size: u64) -> bool {
        match self.read.get(&day) {
            None => true,
            Some((before, at)) => *before != size && (size <= SMALL || at.elapsed() >= LARGE_EVERY),
        }
    }

    fn see(&mut self, license: &str, day: u64) {
        let id = license.get(..32).and_then(|half| u128::from_str_radix(half, 16).ok());
        if let Some(id) = id {
            let last = self.last.entry(id).or_default();
            *last = day.max(*last);
        }
    }

    /// Of today, of 7 and of 30 days.
    fn counts(&mut self, today: u64) -> [u64; 3] {
        let first = today.saturating_sub(ACTIVE_DAYS - 1);
        self.last.retain(|_, day| *day >= first);
        self.read.retain(|day, _| *day >= first);
        [1, 7, ACTIVE_DAYS].map(|days| {
            let is_active = |day: &&u64| **day + days > today && **day <= today;
            self.last.values().filter(is_active).count() as u64
        })
    }
}

fn active_key(day: &str) -> String {
    format!("gk:{{active}}:{day}")
}

/// Names hold no spaces.
fn field(gateway: &str, row: &DailyRow) -> String {
    format!("{gateway} {} {} {} {}", row.license, row.plan, row.model, row.provider)
}

/// The figures, in an order that only grows at its end: gateways of an older version read the first ones.
fn value(row: &DailyRow) -> String {
    row.figures.values().map(|value| value.to_string()).join(" ")
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
pub fn of_month(redis: &RedisSettings, month: &str) -> anyhow::Result<Vec<DailyRow>> {
    let address = RedisUrl::parse(redis.url.expose_secret()).map_err(anyhow::Error::msg)?;
    let keys: Vec<String> = (1..=31).map(|day| format!("gk:day:{month}-{day:02}")).collect();
    let commands = keys.iter().map(Cmd::hgetall).collect();
    let days: Vec<BTreeMap<String, String>> =
        one_shot::all(&address, commands).context("the shared store")?;
    let mut rows = BTreeMap::<(String, String), DailyRow>::new();
    for (key, fields) in keys.iter().zip(days) {
        let day = key.trim_start_matches("gk:day:");
        for (field, value) in fields {
            let Some((_, of)) = field.split_once(' ') else { continue };
            let Some(row) = parse(day, of, &value) else { continue };
            match rows.get_mut(&(day.to_owned(), of.to_owned())) {
                Some(sum) => sum.figures.add(&row.figures),
                None => drop(rows.insert((day.to_owned(), of.to_owned()), row)),
            }
        }
    }
    Ok(rows.into_values().collect())
}

/// Figures of a row of the oldest version.
const FEWEST: usize = 6;

fn parse(day: &str, of: &str, value: &str) -> Option<DailyRow> {
    let mut names = of.split(' ').map(str::to_owned);
    let numbers = value.split(' ').map(str::parse).collect::<Result<Vec<u64>, _>>().ok()?;
    if numbers.len() < FEWEST {
        return None;
    }
    Some(DailyRow {
        day: day.to_owned(),
        license: names.next()?,
        plan: names.next()?,
        model: names.next()?,
        provider: names.next()?,
        figures: UsageFigures::of_values(numbers),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_licence_counts_from_its_last_day_on() {
        let (mut active, today) = (ActiveLicenses::default(), 20_000);
        let license = |nth: u64| format!("{nth:064x}").chars().rev().collect::<String>();
        for (nth, back) in [(1, 0), (1, 40), (2, 6), (2, 9), (3, 7), (4, 29), (5, 30)] {
            active.see(&license(nth), today - back);
        }
        active.see("nonsense", today);
        assert_eq!(active.counts(today), [1, 2, 4]);
        assert_eq!(active.counts(today + 1), [0, 1, 3]);
    }

    #[test]
    fn a_day_is_read_when_it_has_changed() {
        let (mut active, today) = (ActiveLicenses::default(), 20_000);
        assert!(active.is_due(today, 0), "it was never read");
        active.read.insert(today, (1, Instant::now()));
        assert!(!active.is_due(today, 1) && active.is_due(today, 2));
        assert!(!active.is_due(today, SMALL + 1), "a large one after a while");
        active.read.insert(today - 2, (1, Instant::now()));
        assert!(active.is_over(today - 2, today));
        assert!(!active.is_over(today - 1, today) && !active.is_over(today - 3, today));
    }

    #[test]
    fn a_row_survives_the_store() {
        let row = DailyRow {
            day: "2026-11-24".into(),
            license: "ab".repeat(32),
            plan: "pro".into(),
            model: "fast|x".into(),
            provider: String::new(),
            figures: UsageFigures {
                requests: 7,
                messages: 6,
                input: 5,
                output: 4,
                cached: 3,
                cost: 2_000_000_000_001,
                cache_write: 2,
                wasted: 1,
                wasted_cost: 1_000,
            },
        };
        let (field, value) = (field("gateway", &row), value(&row));
        let (_, of) = field.split_once(' ').unwrap();
        assert_eq!(parse("2026-11-24", of, &value), Some(row.clone()));
        let figures = UsageFigures { cache_write: 0, wasted: 0, wasted_cost: 0, ..row.figures };
        let former = DailyRow { figures, ..row };
        assert_eq!(parse("2026-11-24", of, "7 6 5 4 3 2000000000001"), Some(former));
    }
}
