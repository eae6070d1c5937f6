//! Statistics of the other gateways that share the store.

use gatekeeper_filters::kernel::UnixMs;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    live_stats::{KEPT, Totals},
    stats::Stats,
    time_series,
};

/// One gateway, as it reports itself.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Peer {
    #[serde(skip)]
    pub gateway: String,
    /// Totals and newest requests, as members of `/status`.
    pub live: Map<String, Value>,
    pub figures: Stats,
}

#[derive(Default)]
pub struct PeerStats(Mutex<PeerReport>);

#[derive(Default)]
struct PeerReport {
    /// The name of this one among them; empty where no store is shared.
    own: String,
    others: Vec<Peer>,
    histories: Vec<(String, time_series::SharedSeries)>,
}

/// Whose figures are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GatewayFilter {
    Own,
    All,
    Other(String),
}

impl PeerStats {
    /// Records the reports of the other gateways, and the name of this one.
    pub fn set(&self, own: &str, others: Vec<Peer>) {
        let mut known = self.0.lock();
        own.clone_into(&mut known.own);
        known.others = others;
    }

    pub fn set_histories(&self, histories: Vec<(String, time_series::SharedSeries)>) {
        self.0.lock().histories = histories;
    }

    /// The gateway that `?gateway=` selects; `None` for an unknown name.
    pub fn whose(&self, name: &str) -> Option<GatewayFilter> {
        let known = self.0.lock();
        match name {
            "all" => Some(GatewayFilter::All),
            _ if !known.own.is_empty() && name == known.own => Some(GatewayFilter::Own),
            _ => {
                let known = known.others.iter().any(|other| other.gateway == name);
                known.then(|| GatewayFilter::Other(name.to_owned()))
            }
        }
    }

    /// The newest requests of all gateways, and each one's totals; `None` where no store is shared.
    pub fn together(&self, mut own: Map<String, Value>) -> Option<(Value, Value)> {
        let known = self.0.lock();
        if known.own.is_empty() {
            return None;
        }
        own.insert("gateway".into(), json!(known.own));
        let others = known.others.iter().map(|other| {
            let mut live = other.live.clone();
            live.insert("gateway".into(), json!(other.gateway));
            live
        });
        let (mut requests, mut gateways) = (Vec::new(), Vec::new());
        for mut live in [own].into_iter().chain(others) {
            for mut request in take_requests(&mut live) {
                request["gateway"] = live["gateway"].clone();
                requests.push(request);
            }
            gateways.push(Value::Object(live));
        }
        // RFC 3339 in UTC sorts by time.
        requests.sort_by(|a, b| b["time"].as_str().cmp(&a["time"].as_str()));
        requests.truncate(KEPT);
        Some((requests.into(), gateways.into()))
    }

    /// Totals, open requests and newest requests of another gateway, as members of `/status`.
    pub fn other(&self, name: &str) -> Option<Map<String, Value>> {
        let known = self.0.lock();
        known.others.iter().find(|other| other.gateway == name).map(|other| other.live.clone())
    }

    /// This gateway's totals and open requests, and those of all others added.
    pub fn total(&self, mut totals: Totals, mut in_flight: u64) -> (Totals, u64) {
        for Peer { live, .. } in &self.0.lock().others {
            let of = |name: &str| live.get(name).and_then(Value::as_u64).unwrap_or_default();
            for (to, name) in [
                (&mut totals.total, "total"),
                (&mut totals.success, "success"),
                (&mut totals.failed, "failed"),
                (&mut totals.refused, "refused"),
                (&mut in_flight, "in_flight"),
            ] {
                *to = to.saturating_add(of(name));
            }
        }
        (totals, in_flight)
    }

    pub fn figures(&self, own: impl FnOnce() -> Stats, whose: Option<&GatewayFilter>) -> Stats {
        let of = |name: &str| {
            let known = self.0.lock();
            known.others.iter().find(|other| other.gateway == name).map(|o| o.figures.clone())
        };
        match whose {
            None | Some(GatewayFilter::Own) => own(),
            Some(GatewayFilter::Other(name)) => of(name).unwrap_or_default(),
            Some(GatewayFilter::All) => {
                let mut all = own();
                for other in &self.0.lock().others {
                    all.add(&other.figures);
                }
                all
            }
        }
    }

    pub fn history(
        &self,
        own: impl FnOnce() -> time_series::SharedSeries,
        whose: Option<&GatewayFilter>,
    ) -> time_series::SharedSeries {
        let of = |name: &str| {
            let known = self.0.lock();
            known
                .histories
                .iter()
                .find(|(known, _)| known == name)
                .map(|(_, series)| series.clone())
        };
        match whose {
            None | Some(GatewayFilter::Own) => own(),
            Some(GatewayFilter::Other(name)) => of(name).unwrap_or_default(),
            Some(GatewayFilter::All) => {
                let mut all = own();
                for (_, other) in &self.0.lock().histories {
                    all.add(other);
                }
                all
            }
        }
    }
}

fn take_requests(live: &mut Map<String, Value>) -> Vec<Value> {
    match live.remove("requests") {
        Some(Value::Array(requests)) => requests,
        _ => Vec::new(),
    }
}

/// What this gateway reports to the others.
#[derive(Debug, Serialize, Deserialize)]
pub struct OwnReport {
    /// When, in milliseconds since 1970.
    pub at: u64,
    #[serde(flatten)]
    pub of: Peer,
}

impl OwnReport {
    /// Whether it is too old to be of a gateway that lives.
    pub fn is_older_than(&self, ms: u64, now: UnixMs) -> bool {
        now.0.abs_diff(self.at) > ms
    }
}
