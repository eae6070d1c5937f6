//! `/feed`: server-sent events with the newest requests and the totals.
//!
//! An event is made once, four times a second at most, whoever listens, and shared by all open feeds. A
//! reader that is too slow for them is cut off, not saved up for; a browser connects again by itself.

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
use http::{HeaderValue, Response, StatusCode, Version, header};
use parking_lot::Mutex;
use pingora_core::{
    protocols::http::ServerSession, server::ShutdownWatch, services::background::BackgroundService,
};
use serde_json::{Map, Value, json};
use tokio::{
    sync::broadcast::{Receiver, Sender, error::RecvError},
    time::MissedTickBehavior,
};

use super::{
    AdminApp, answer,
    auth::{AuthMethod, Caller},
    write_head,
};
use crate::{
    license_admin::ApiError,
    runtime::snapshot::Snapshot,
    server::shutdown::Lifecycle,
    telemetry::{Telemetry, live_stats::Totals, recent_request::RecentRequest},
    upstream::socket_options,
};

/// Between two events.
const TICK: Duration = Duration::from_millis(250);
/// Without news the totals are told all the same, which keeps the connection open and shows that somebody
/// is there.
const QUIET: Duration = Duration::from_secs(2);
/// Feeds at one time.
const MOST: usize = 256;
/// Events a feed may lag behind, and how long it may take one, before it is cut off.
const LAG: usize = 8;
const WRITE_TIME: Duration = Duration::from_secs(5);
/// Bytes that the kernel keeps for a feed which is not read.
const SAVED_UP: usize = 128 * 1024;

/// All open feeds of this gateway.
pub struct FeedBroadcaster {
    telemetry: Arc<Telemetry>,
    /// Gone when the process drains.
    events: Mutex<Option<Sender<FeedEvent>>>,
    open: Arc<AtomicUsize>,
}

/// What is told at one tick.
#[derive(Clone)]
struct FeedEvent {
    bytes: Bytes,
    /// The same, for a feed that has just begun and told some of it already.
    requests: Arc<VecDeque<Arc<RecentRequest>>>,
    totals: Totals,
}

/// One feed's place among those that may be open.
struct FeedSlot(Arc<AtomicUsize>);

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

    fn place(&self) -> Option<FeedSlot> {
        let place = FeedSlot(self.open.clone());
        (self.open.fetch_add(1, Relaxed) < MOST).then_some(place)
    }

    /// Everything that comes from now on; `None` when the process drains.
    fn join(&self) -> Option<Receiver<FeedEvent>> {
        let events = self.events.lock();
        let events = events.as_ref()?;
        if events.receiver_count() == 0 {
            // What nobody was there for is no news.
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

    fn event(&self, totals: Totals, requests: Vec<Value>) -> Bytes {
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

/// What lets a feed begin.
pub struct FeedTicket {
    pass: AuthMethod,
    place: FeedSlot,
    events: Receiver<FeedEvent>,
}

impl AdminApp {
    /// # Errors
    /// Who asks may not look, or there are too many feeds.
    pub(super) fn ticket(
        &self,
        session: &ServerSession,
        snapshot: &Snapshot,
    ) -> Result<FeedTicket, ApiError> {
        let pass = self.access.look(&Caller::of(session, snapshot), snapshot)?;
        let unavailable = |code, message| ApiError {
            retry_after: Some(5),
            ..ApiError::new(StatusCode::SERVICE_UNAVAILABLE, code, message)
        };
        let place = self.hub.place().ok_or_else(|| {
            let message = format!("{MOST} feeds are open; no more are served.");
            unavailable("too_many_feeds", message)
        })?;
        let events = self.hub.join().ok_or_else(|| {
            unavailable("shutting_down", "The gateway is about to end.".to_owned())
        })?;
        Ok(FeedTicket { pass, place, events })
    }

    /// Tells what happens until somebody has had enough: the reader, the session, the process. The
    /// connection serves nothing else.
    pub(super) async fn feed(&self, mut session: ServerSession, ticket: FeedTicket) {
        let FeedTicket { pass, place, mut events } = ticket;
        session.set_keepalive(None);
        socket_options::set_cork(&session, SAVED_UP);
        let told = match self.begin(&mut session).await {
            Ok(told) => told,
            Err(_) => return,
        };
        // What was told at the beginning may come once more in the next event, or the one after it.
        let mut repeats = 2;
        // The successor has a feed of its own.
        let handed_over = self.phase.is_handed_over();
        tokio::pin!(handed_over);
        let is_over = loop {
            let event = tokio::select! {
                biased;
                _ = session.read_body_or_idle(true) => break false,
                () = &mut handed_over => break true,
                event = events.recv() => event,
            };
            let event = match event {
                Ok(event) => event,
                Err(RecvError::Closed) => break true,
                Err(RecvError::Lagged(_)) => break false,
            };
            if !self.access.still_holds(&pass, &self.snapshot.load()) {
                break true;
            }
            let bytes = if repeats > 0 && !event.requests.is_empty() {
                repeats -= 1;
                self.without(&event, &told)
            } else {
                event.bytes
            };
            let write = session.write_response_body(bytes, false);
            match tokio::time::timeout(WRITE_TIME, write).await {
                Ok(Ok(())) => {}
                _ => break false,
            }
        };
        if is_over {
            let _ = tokio::time::timeout(WRITE_TIME, session.finish()).await;
        }
        drop(place);
    }

    /// The head and the first event; the ids of what it told.
    async fn begin(&self, session: &mut ServerSession) -> pingora_core::Result<Vec<u64>> {
        let head = answer(StatusCode::OK, "text/event-stream; charset=utf-8", Bytes::new());
        let (mut head, _): (_, Bytes) = head.into_parts();
        head.headers.remove(header::CONTENT_LENGTH);
        if session.req_header().version == Version::HTTP_11 {
            head.headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        // Reverse proxies in front of us must not collect events.
        head.headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
        let (totals, recent) = self.hub.telemetry.live.recent();
        let first = self.hub.event(totals, recent.iter().map(|seen| seen.to_json()).collect());
        write_head(session, Response::from_parts(head, ())).await?;
        let write = session.write_response_body(first, false);
        match tokio::time::timeout(WRITE_TIME, write).await {
            Ok(written) => written?,
            Err(_) => {
                return pingora_core::Error::e_explain(
                    pingora_core::ErrorType::WriteTimedout,
                    "the first event of a feed",
                );
            }
        }
        Ok(recent.iter().map(|seen| seen.id).collect())
    }

    /// An event without the requests that were told already.
    fn without(&self, event: &FeedEvent, told: &[u64]) -> Bytes {
        let rest = event.requests.iter().filter(|seen| !told.contains(&seen.id));
        self.hub.event(event.totals, rest.map(|seen| seen.to_json()).collect())
    }
}
