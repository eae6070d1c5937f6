//! `GET /api/licenses`: which licences used most this month, which were seen last, and which were refused, for the page.
//! The store's days are read when the page asks; no key, only ids.

use std::{cmp::Reverse, collections::BTreeMap};

use gatekeeper_filters::kernel::{LicenseId, UnixMs, UsageFigures};
use http::StatusCode;
use pingora_core::protocols::http::ServerSession;
use serde_json::{Value, json};

use super::{AdminApp, AdminReply, auth::Caller, check_get, json_answer};
use crate::{
    ledger::sqlite::daily_usage::DailyRow, license_admin::ApiError, peer_sync::month,
    runtime::snapshot::Snapshot, telemetry::dollars,
};

pub const PATH: &str = "/api/licenses";

/// Licences of each list.
const MOST: usize = 100;
/// Licences of the newest days of which it is looked up when exactly they were seen.
const LOOKED_UP: usize = 200;

#[derive(Default)]
struct Sum {
    plan: String,
    last: String,
    figures: UsageFigures,
}

impl Sum {
    fn add(&mut self, row: DailyRow) {
        self.figures.add(&row.figures);
        if row.day >= self.last {
            (self.last, self.plan) = (row.day, row.plan);
        }
    }
}

impl AdminApp {
    pub(super) async fn top_licenses(
        &self,
        session: &ServerSession,
        snapshot: &Snapshot,
    ) -> Result<AdminReply, ApiError> {
        check_get(session)?;
        self.access.look(&Caller::of(session, snapshot), snapshot)?;
        let store = snapshot.settings.store.clone();
        let read = tokio::task::spawn_blocking(move || month::of_this_month(&store)).await;
        let rows = read.map_err(anyhow::Error::from).flatten().map_err(|error| {
            let message = format!("The days of the store can't be read: {error:#}.");
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "store_unavailable", message)
        })?;
        let seen = |id: &LicenseId| self.operator.store.last_use(id).ok().flatten();
        let mut lists = listed(rows, seen);
        let (refused, unknown) = snapshot.telemetry.refused_licenses.to_json();
        (lists["refused"], lists["unknown_keys"]) = (refused.into(), unknown);
        Ok(json_answer(StatusCode::OK, &lists))
    }
}

/// `licenses`: the most expensive of the month; `seen`: those that asked last. `last_use` has the time
/// where it is later than the stored day.
fn listed(rows: Vec<DailyRow>, last_use: impl Fn(&LicenseId) -> Option<UnixMs>) -> Value {
    let mut sums: BTreeMap<String, Sum> = BTreeMap::new();
    for row in rows {
        sums.entry(row.license.clone()).or_default().add(row);
    }
    let mut sums: Vec<(String, Sum)> = sums.into_iter().collect();
    let moment = |license: &str, last_day: &str| {
        let seen = LicenseId::from_hex(license).and_then(|id| last_use(&id));
        let seen = seen.map(|at| at.to_rfc3339().to_string());
        seen.filter(|at| at.as_str() >= last_day)
    };
    let line = |license: &str, sum: &Sum, seen: Option<&str>| {
        json!({
            "license": license, "plan": sum.plan, "last_day": sum.last, "last_seen": seen,
            "requests": sum.figures.requests, "messages": sum.figures.messages,
            "tokens": sum.figures.input + sum.figures.output, "cost": dollars(sum.figures.cost),
        })
    };
    sums.sort_by(|(_, one), (_, other)| other.last.cmp(&one.last));
    let newest = sums.iter().take(LOOKED_UP);
    let mut newest: Vec<(String, &(String, Sum))> = newest
        .map(|entry| {
            (moment(&entry.0, &entry.1.last).unwrap_or_else(|| entry.1.last.clone()), entry)
        })
        .collect();
    newest.sort_by(|(one, _), (other, _)| other.cmp(one));
    let seen: Vec<Value> = newest
        .into_iter()
        .take(MOST)
        .map(|(at, (license, sum))| {
            line(license, sum, Some(&at).filter(|at| at.len() > 10).map(String::as_str))
        })
        .collect();
    sums.sort_by_key(|(_, sum)| Reverse((sum.figures.cost, sum.figures.requests)));
    let dearest: Vec<Value> = sums
        .iter()
        .take(MOST)
        .map(|(license, sum)| line(license, sum, moment(license, &sum.last).as_deref()))
        .collect();
    json!({ "licenses": dearest, "seen": seen, "all": sums.len() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(day: &str, license: u8, cost: u64) -> DailyRow {
        DailyRow {
            day: day.to_owned(),
            license: LicenseId([license; 32]).to_hex(),
            plan: "pro".to_owned(),
            model: "fast".to_owned(),
            provider: "groq".to_owned(),
            figures: UsageFigures {
                requests: 1,
                messages: 1,
                input: 10,
                output: 5,
                cost,
                ..UsageFigures::default()
            },
        }
    }

    #[test]
    fn the_dearest_and_those_that_were_seen_last() {
        let rows =
            vec![row("2026-11-02", 1, 900), row("2026-11-03", 2, 5), row("2026-11-03", 3, 1)];
        let noon = UnixMs(1_793_707_200_000);
        assert!(noon.to_rfc3339().starts_with("2026-11-03T"), "{}", &*noon.to_rfc3339());
        let lists = listed(rows, |id| (id.0[0] == 3).then_some(noon));
        let ids = |name: &str| -> Vec<String> {
            let list = lists[name].as_array().unwrap();
            list.iter().map(|one| one["license"].as_str().unwrap()[..2].to_owned()).collect()
        };
        assert_eq!(ids("licenses"), ["01", "02", "03"]);
        assert_eq!(ids("seen"), ["03", "02", "01"]);
        assert_eq!(lists["seen"][0]["last_seen"], *noon.to_rfc3339());
        assert_eq!((&lists["seen"][1]["last_seen"], &lists["all"]), (&Value::Null, &json!(3)));
    }
}
