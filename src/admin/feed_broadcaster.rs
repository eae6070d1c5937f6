//! The events of all open feeds.
//!
//! An event is built once, at most four times a second, and shared by all open feeds. A reader that falls too
//! far behind is disconnected instead of buffered; browsers reconnect automatically.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use pingora_core::{server::ShutdownWatch, services::background::BackgroundService};
use serde_json::{Map, Value, json};
use tokio::{
    sync::broadcast::{Receiver, Sender},
    time::MissedTickBehavior,
};

use crate::{
    server::shutdown::Lifecycle,
    telemetry::{Telemetry, live_stats::Totals, recent_request::RecentRequest},
};

/// Between two events.
const TICK: Duration = Duration::from_millis(250);
/// Without news the totals are told all the same, which keeps the connection open and shows that somebody
/// is there.
const QUIET: Duration = Duration::from_secs(2);
/// Feeds at one time.
pub(super) const MOST: usize = 256;
/// Events a feed may lag behind before it is cut off.
const LAG: usize = 8;
/// All open feeds of this gateway.
pub struct FeedBroadcaster {
    pub(super) telemetry: Arc<Telemetry>,
    /// Gone when the process drains.
    events: Mutex<Option<Sender<FeedEvent>>>,
    open: Arc<AtomicUsize>,
}

/// What is told at one tick.
#[derive(Clone)]
pub(super) struct FeedEvent {
    pub bytes: Bytes,
    /// The same, for a feed that has just begun and told some of it already.
    pub requests: Arc<VecDeque<Arc<RecentRequest>>>,
    pub totals: Totals,
}

/// One feed's place among those that may be open.
pub(super) struct FeedSlot(Arc<AtomicUsize>);

impl Drop for FeedSlot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl FeedBroadcaster {
    pub fn new(telemetry: Arc<Telemetry>) -> Arc<Self> {
        let events = Mutex::new(Some(Sender::new(LAG)));
        Arc::new(Self { telemetry, events, open: Arc::default() })
    }

    pub(super) fn place(&self) -> Option<FeedSlot> {
        let place = FeedSlot(self.open.clone());
        (self.open.fetch_add(1, Relaxed) < MOST).then_some(place)
    }

    /// Everything that comes from now on; `None` when the process drains.
    pub(super) fn join(&self) -> Option<Receiver<FeedEvent>> {
        let events = self.events.lock();
        let events = events.as_ref()?;
        if events.receiver_count() == 0 {
            // Events that had no listener are not told later.
            self.telemetry.live.fresh();
        }
        Some(events.subscribe())
    }

    /// Tells what is new; whether anything was told.
    fn tick(&self, is_due: bool) -> bool {
        let events = self.events.lock();
        let Some(events) = events.as_ref().filter(|events| events.receiver_count() > 0) else {
            // The minutes of history go on.
            self.telemetry.live.collect(gatekeeper_filters::kernel::UnixMs::now());
            return true;
        };
        let (totals, requests) = self.telemetry.live.fresh();
        if requests.is_empty() && !is_due {
            return false;
        }
        let bytes = self.event(totals, requests.iter().map(|seen| seen.to_json()).collect());
        let _ = events.send(FeedEvent { bytes, requests: Arc::new(requests), totals });
        true
    }

    fn close(&self) {
        *self.events.lock() = None;
    }

    pub(super) fn event(&self, totals: Totals, requests: Vec<Value>) -> Bytes {
        let mut members = Map::new();
        members.insert("boot".into(), json!(self.telemetry.live.boot));
        totals.put_into(&mut members);
        members.insert("in_flight".into(), json!(self.telemetry.in_flight()));
        members.insert("requests".into(), requests.into());
        // JSON on one line: no name or model can end an event.
        format!("data: {}\n\n", Value::Object(members)).into()
    }
}

/// Makes the events, until the process drains.
pub struct FeedTicker {
    pub hub: Arc<FeedBroadcaster>,
    pub phase: Arc<Lifecycle>,
}

#[async_trait]
impl BackgroundService for FeedTicker {
    async fn start(&self, _shutdown: ShutdownWatch) {
        let mut ticks = tokio::time::interval(TICK);
        // After a pause there are no more than four a second either.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = Instant::now();
        while !self.phase.is_draining() {
            ticks.tick().await;
            self.hub.telemetry.failures.flush();
            self.hub.telemetry.failed_attempts.flush();
            if self.hub.tick(told.elapsed() >= QUIET) {
                told = Instant::now();
            }
        }
        self.hub.close();
    }
}
