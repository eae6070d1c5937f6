//! Shares live statistics and time series between gateways, for `/status` and `/api/history`.

use std::collections::BTreeMap;

use gatekeeper_filters::kernel::UnixMs;
use redis::Cmd;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::PeerSync;
use crate::{
    redis_store::StoreUnavailable,
    telemetry::{
        peer_stats::{OwnReport, Peer},
        time_series,
    },
};

const LIVE: &str = "gk:live";
const HISTORY: &str = "gk:history";
/// A gateway without a report for so long counts as gone; milliseconds.
const GONE_MS: u64 = 10_000;
const HISTORY_GONE_MS: u64 = 60_000;

#[derive(Serialize, Deserialize)]
struct TimeSeriesSync {
    at: u64,
    history: time_series::SharedSeries,
}

impl PeerSync {
    pub(super) async fn publish_live(&self) -> Result<(), StoreUnavailable> {
        let now = UnixMs::now();
        let mut live = self.telemetry.live.own();
        live.insert("in_flight".into(), json!(self.telemetry.in_flight()));
        let figures = self.telemetry.live.figures(now);
        let of = Peer { gateway: String::new(), live, figures };
        let report = serde_json::to_string(&OwnReport { at: now.0, of }).unwrap_or_default();
        let mut others = Vec::new();
        for (gateway, report) in self.exchange(LIVE, report, 60).await? {
            let Ok(report) = serde_json::from_str::<OwnReport>(&report) else { continue };
            if report.is_older_than(GONE_MS, now) {
                let _: () = self.store.run(Cmd::hdel(LIVE, &gateway)).await?;
            } else if gateway != self.gateway {
                others.push(Peer { gateway, ..report.of });
            }
        }
        self.telemetry.live.neighbours.set(&self.gateway, others);
        Ok(())
    }

    pub(super) async fn publish_history(&self) -> Result<(), StoreUnavailable> {
        let now = UnixMs::now();
        let telling = TimeSeriesSync { at: now.0, history: self.telemetry.live.history(now) };
        let report = serde_json::to_string(&telling).unwrap_or_default();
        let mut histories = Vec::new();
        for (gateway, report) in self.exchange(HISTORY, report, 300).await? {
            let Ok(report) = serde_json::from_str::<TimeSeriesSync>(&report) else { continue };
            if now.0.abs_diff(report.at) > HISTORY_GONE_MS {
                let _: () = self.store.run(Cmd::hdel(HISTORY, &gateway)).await?;
            } else if gateway != self.gateway {
                histories.push((gateway, report.history));
            }
        }
        self.telemetry.live.neighbours.set_histories(histories);
        Ok(())
    }

    /// Writes this gateway's field of a hash, with a lifetime in seconds, and returns all fields.
    async fn exchange(
        &self,
        key: &str,
        report: String,
        seconds: i64,
    ) -> Result<BTreeMap<String, String>, StoreUnavailable> {
        let _: () = self.store.run(Cmd::hset(key, &self.gateway, report)).await?;
        let _: () = self.store.run(Cmd::expire(key, seconds)).await?;
        self.store.run(Cmd::hgetall(key)).await
    }
}
