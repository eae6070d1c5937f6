//! The last requests and the running totals, for `/status`. In memory only, gone at restart: no
//! prompt, no key, no address; who asked is a number that means something until the next boot.

use std::{
    collections::VecDeque,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use gatekeeper_filters::kernel::{Delivery, Outcome, Record, UnixMs};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use crate::proxy::flight::{Attempted, Flight};

/// Requests kept.
const KEPT: usize = 50;

pub struct Live {
    since: UnixMs,
    total: AtomicU64,
    success: AtomicU64,
    failed: AtomicU64,
    refused: AtomicU64,
    salt: RandomState,
    recent: Mutex<VecDeque<Seen>>,
    others: Mutex<Others>,
}

/// What other gateways serve, where they share a store.
#[derive(Default)]
struct Others {
    /// The name of this one among them.
    own: String,
    live: Vec<Map<String, Value>>,
}

struct Seen {
    time: UnixMs,
    endpoint: &'static str,
    model: Arc<str>,
    served: Arc<str>,
    provider: Arc<str>,
    status: u16,
    tokens: u64,
    ttft_ms: Option<u64>,
    ms: u64,
    attempts: Vec<Attempted>,
    who: u32,
}

impl Default for Live {
    fn default() -> Self {
        Self::new()
    }
}

impl Live {
    pub fn new() -> Self {
        Self {
            since: UnixMs::now(),
            total: AtomicU64::new(0),
            success: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            salt: RandomState::new(),
            recent: Mutex::new(VecDeque::with_capacity(KEPT)),
            others: Mutex::default(),
        }
    }

    pub(super) fn finished(&self, flight: &Flight, outcome: Outcome, record: &Record) {
        self.total.fetch_add(1, Relaxed);
        let counter = match outcome.delivery {
            Delivery::Whole => Some(&self.success),
            Delivery::Broken | Delivery::Failed => Some(&self.failed),
            Delivery::Refused | Delivery::Relayed => Some(&self.refused),
            Delivery::Abandoned => None,
        };
        counter.inspect(|counter| {
            counter.fetch_add(1, Relaxed);
        });
        let first = flight.first_output.map(|at| at.duration_since(flight.arrived));
        let seen = Seen {
            time: record.time,
            endpoint: record.endpoint,
            model: record.model.clone(),
            served: record.served.clone(),
            provider: record.provider.clone(),
            status: outcome.status,
            tokens: record.usage.total(),
            ttft_ms: first.map(|wait| wait.as_millis() as u64),
            ms: record.ms,
            attempts: flight.attempts.clone(),
            who: record.license.map_or(0, |license| self.salt.hash_one(license) as u32),
        };
        let mut recent = self.recent.lock();
        if recent.len() == KEPT {
            recent.pop_back();
        }
        recent.push_front(seen);
    }

    /// Takes what other gateways say of themselves, by [`Live::own`] and `gateway`.
    pub fn hear(&self, own: &str, live: Vec<Map<String, Value>>) {
        *self.others.lock() = Others { own: own.to_owned(), live };
    }

    /// Totals and newest requests as members of `/status`: those of this gateway, and where several
    /// share a store the requests of all, and each one's totals.
    pub fn to_json(&self) -> Map<String, Value> {
        let mut status = self.own();
        let others = self.others.lock();
        if others.own.is_empty() {
            return status;
        }
        let mut own = status.clone();
        own.insert("gateway".into(), json!(others.own));
        let (mut requests, mut gateways) = (Vec::new(), Vec::new());
        for mut live in [own].into_iter().chain(others.live.iter().cloned()) {
            for mut request in take_requests(&mut live) {
                request["gateway"] = live["gateway"].clone();
                requests.push(request);
            }
            gateways.push(Value::Object(live));
        }
        // RFC 3339 in UTC sorts by time.
        requests.sort_by(|a, b| b["time"].as_str().cmp(&a["time"].as_str()));
        requests.truncate(KEPT);
        status.insert("requests".into(), json!(requests));
        status.insert("gateways".into(), json!(gateways));
        status
    }

    /// The totals of this gateway, and its newest requests first.
    pub fn own(&self) -> Map<String, Value> {
        let (success, failed) = (self.success.load(Relaxed), self.failed.load(Relaxed));
        let judged = success + failed;
        let rate = (judged > 0).then(|| success as f64 / judged as f64);
        let recent: Vec<Value> = self.recent.lock().iter().map(Seen::to_json).collect();
        let whole = json!({
            "since": &*self.since.to_rfc3339(),
            "total": self.total.load(Relaxed),
            "success": success,
            "failed": failed,
            "refused": self.refused.load(Relaxed),
            "success_rate": rate,
            "requests": recent,
        });
        match whole {
            Value::Object(members) => members,
            _ => Map::new(),
        }
    }
}

fn take_requests(live: &mut Map<String, Value>) -> Vec<Value> {
    match live.remove("requests") {
        Some(Value::Array(requests)) => requests,
        _ => Vec::new(),
    }
}

impl Seen {
    fn to_json(&self) -> Value {
        let attempts: Vec<Value> = self
            .attempts
            .iter()
            .map(|attempt| {
                json!({
                    "provider": &*attempt.provider, "key": &*attempt.key,
                    "outcome": attempt.outcome, "ms": attempt.ms,
                })
            })
            .collect();
        json!({
            "time": &*self.time.to_rfc3339(), "endpoint": self.endpoint, "model": &*self.model,
            "served": &*self.served, "provider": &*self.provider, "status": self.status,
            "tokens": self.tokens, "ttft_ms": self.ttft_ms, "ms": self.ms, "attempts": attempts,
            "who": format!("{:06x}", self.who & 0xff_ffff),
        })
    }
}
