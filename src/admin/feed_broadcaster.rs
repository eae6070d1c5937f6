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
/// Without new requests the totals are sent at this interval, which keeps the connection open and shows
/// that the gateway is alive.
const QUIET: Duration = Duration::from_secs(2);
/// Maximum number of open feeds.
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

/// What one tick sends.
#[derive(Clone)]
pub(super) struct FeedEvent {
    pub bytes: Bytes,
    /// The same requests, for a feed whose initial event had some of them already.
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
            // Discards events that had no receiver.
            self.telemetry.live.fresh();
        }
        Some(events.subscribe())
    }

    /// Sends what is new; whether there was anything to send.
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
        // Still at most four a second after a pause.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last_sent = Instant::now();
        while !self.phase.is_draining() {
            ticks.tick().await;
            self.hub.telemetry.failures.flush();
            self.hub.telemetry.failed_attempts.flush();
            if self.hub.tick(last_sent.elapsed() >= QUIET) {
                last_sent = Instant::now();
            }
        }
        self.hub.close();
    }
}
