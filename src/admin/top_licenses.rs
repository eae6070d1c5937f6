//! `GET /api/licenses`: the licences with the highest usage of this month, for the page. Read from the store's daily
//! rows on each request; contains ids only, no keys.

use std::{cmp::Reverse, collections::BTreeMap};

use http::StatusCode;
use pingora_core::protocols::http::ServerSession;
use serde_json::{Value, json};

use super::{AdminApp, AdminReply, auth::Caller, check_get, json_answer};
use crate::{
    ledger::{sqlite::daily_usage::DailyRow, usage_figures::UsageFigures},
    license_admin::ApiError,
    peer_sync::month,
    runtime::snapshot::Snapshot,
    telemetry::dollars,
};

pub const PATH: &str = "/api/licenses";

/// Licences that are listed.
const MOST: usize = 100;

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
        Ok(json_answer(StatusCode::OK, &listed(rows)))
    }
}

fn listed(rows: Vec<DailyRow>) -> Value {
    let mut sums: BTreeMap<String, Sum> = BTreeMap::new();
    for row in rows {
        sums.entry(row.license.clone()).or_default().add(row);
    }
    let all = sums.len();
    let mut sums: Vec<(String, Sum)> = sums.into_iter().collect();
    sums.sort_by_key(|(_, sum)| Reverse((sum.figures.cost, sum.figures.requests)));
    let listed: Vec<Value> = sums
        .into_iter()
        .take(MOST)
        .map(|(license, sum)| {
            json!({
                "license": license, "plan": sum.plan, "last_day": sum.last, "requests": sum.figures.requests,
                "messages": sum.figures.messages, "tokens": sum.figures.input + sum.figures.output,
                "cost": dollars(sum.figures.cost),
            })
        })
        .collect();
    json!({ "licenses": listed, "all": all })
}
