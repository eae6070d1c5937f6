//! An answer on its way to the app. Until the commit point another key may still take over; after
//! it, never: a stream that breaks ends in an error the SDKs show, not in a clean `[DONE]`.
//!
//! Bytes pass untouched, event by event. What is ready is taken together and written once.

use std::{
    future::Future,
    time::{Duration, Instant as Clock},
};

use bytes::{Bytes, BytesMut};
use gatekeeper_filters::{
    kernel::{Ask, Code, Delivery, Endpoint, Exchange, Outcome, Reject, ResponseHead},
    meter::{
        Reading, openai,
        sse::{Event, Splitter},
    },
};
use http::{HeaderName, HeaderValue};
use pingora_core::protocols::http::client::HttpSession;
use tokio::time::Instant;

use super::{
    attempt::{Stop, brief, ended, failed_answer, watch},
    classify::Failure,
    downstream::Downstream,
    watchdog::Watchdog,
};
use crate::{config::settings::Timeouts, proxy::respond, snapshot::Snapshot};

/// Bytes held back before the first event with output; then they are committed as they are.
const HELD: usize = 64 * 1024;
/// Chunks taken in one go, so that a fast provider can't keep the app waiting for the first of them.
const BATCH: usize = 32;

const MODEL: HeaderName = HeaderName::from_static("x-gatekeeper-model");
const ROUTE: HeaderName = HeaderName::from_static("x-gatekeeper-route");
const ATTEMPTS: HeaderName = HeaderName::from_static("x-gatekeeper-attempts");

const DELIVERED: Outcome = Outcome { status: 200, delivery: Delivery::Whole };

/// What an answer needs on its way.
pub struct Relay<'a, 'd> {
    pub down: &'a mut Downstream<'d>,
    pub watchdog: &'a mut Watchdog,
    pub exchange: &'a mut Exchange,
    pub ask: &'a Ask,
    pub snapshot: &'a Snapshot,
    pub timeouts: Timeouts,
    /// This attempt included.
    pub attempts: usize,
    pub first_output: &'a mut Option<Clock>,
    /// Time that passed waiting for the provider.
    pub waited: &'a mut Duration,
}

impl Relay<'_, '_> {
    /// Waits for the provider, with an eye on the app and the clock.
    ///
    /// # Errors
    /// The app left or a deadline passed.
    pub async fn wait<T>(
        &mut self,
        what: &str,
        future: impl Future<Output = T>,
    ) -> Result<T, Stop> {
        let began = Clock::now();
        let result = watch(self.down, self.watchdog, what, future).await;
        *self.waited += began.elapsed();
        result
    }

    /// The head the app sees, with what the filters add to it.
    fn head(&mut self) -> ResponseHead {
        let mut head = ResponseHead { status: 200, headers: Vec::with_capacity(8) };
        if let Some(target) = &self.exchange.served
            && let Ok(label) = HeaderValue::from_str(&target.label)
        {
            head.insert(MODEL, label);
        }
        if let Some(route) = &self.exchange.route {
            head.insert(ROUTE, HeaderValue::from_static(route.why));
        }
        head.insert(ATTEMPTS, self.attempts as u64);
        self.snapshot.chain.response(self.exchange, &mut head);
        head
    }

    fn commit(&mut self) {
        self.exchange.progress.delivered = true;
        self.watchdog.stop_comments();
        self.first_output.get_or_insert_with(Clock::now);
    }

    fn settle(&mut self, outcome: Outcome) {
        self.snapshot.chain.settle(self.exchange, &outcome);
    }
}

/// A JSON answer: read whole before anything is committed, so that a truncated one is a failure
/// like any other.
///
/// # Errors
/// Not JSON, or an error inside a 200; or the app left.
pub async fn whole(relay: &mut Relay<'_, '_>, body: Bytes) -> Result<(), Stop> {
    let reading = match openai::answer(relay.exchange.endpoint, &body) {
        Ok(reading) => reading,
        Err(_) => return Err(Failure::broken("an answer that is not JSON, or cut off").into()),
    };
    if reading.failed {
        return Err(failed_answer("an error inside a 200").into());
    }
    relay.snapshot.chain.chunk(relay.exchange, &reading);
    let head = relay.head();
    relay.commit();
    // In the journal before the last bytes leave: what was delivered is never free.
    relay.settle(DELIVERED);
    relay.down.whole(&head, body).await.map_err(|_| Stop::AppLeft)
}

/// A stream of events.
///
/// # Errors
/// Before the commit a failure that another key may mend; after it [`Stop::Broken`].
pub async fn stream(
    session: &mut HttpSession,
    relay: &mut Relay<'_, '_>,
    first_token: Instant,
) -> Result<(), Stop> {
    let mut events = Events::new(relay.exchange.endpoint, relay.ask.wants_usage);
    let mut committed = false;
    loop {
        if committed {
            relay.watchdog.expect_within(relay.timeouts.idle);
        } else {
            relay.watchdog.expect_before(first_token);
        }
        let batch = match read_batch(session, relay).await {
            Ok(batch) => batch,
            Err(stop) if committed => return Err(break_off(relay, stop, &mut events).await),
            Err(stop) => return Err(stop),
        };
        let end = batch.end;
        let readings = events.take(batch.chunks, end);
        for reading in &readings.list {
            relay.snapshot.chain.chunk(relay.exchange, reading);
        }
        if let Some(why) = readings.broken(end, &events) {
            let stop = Stop::Failed(failed_answer(why));
            return Err(if committed { break_off(relay, stop, &mut events).await } else { stop });
        }
        let commits = readings.list.iter().any(|reading| reading.commits || reading.done);
        if !committed && !commits && !end && events.out.len() <= HELD {
            continue;
        }
        let head = (!committed).then(|| relay.head());
        if !committed {
            relay.commit();
            committed = true;
        }
        if end || events.complete {
            relay.settle(DELIVERED);
        }
        let bytes = events.out.split().freeze();
        relay.down.stream(head.as_ref(), bytes, end).await.map_err(|_| Stop::AppLeft)?;
        relay.watchdog.heard();
        if end {
            return Ok(());
        }
    }
}

/// Ends a committed stream so that no SDK takes it for whole.
async fn break_off(relay: &mut Relay<'_, '_>, stop: Stop, events: &mut Events) -> Stop {
    let detail = match stop {
        Stop::Failed(failure) => failure.detail,
        Stop::Deadline => "the whole answer took too long".into(),
        other => return other,
    };
    relay.settle(Outcome { status: 200, delivery: Delivery::Broken });
    let reject =
        Reject::new(Code::UpstreamError, "The answer broke off. Please send your message again.");
    let mut last = events.out.split();
    last.extend_from_slice(&respond::error_event(&reject));
    match relay.down.stream(None, last.freeze(), true).await {
        Ok(()) => Stop::Broken(detail),
        Err(_) => Stop::AppLeft,
    }
}

struct Batch {
    chunks: Vec<Bytes>,
    end: bool,
}

/// Waits for one chunk, then takes what is ready without waiting.
async fn read_batch(session: &mut HttpSession, relay: &mut Relay<'_, '_>) -> Result<Batch, Stop> {
    use futures_util::FutureExt;
    let mut chunks = Vec::with_capacity(BATCH);
    let mut next = Some(relay.wait("event", session.read_response_body()).await?);
    while let Some(read) = next {
        match read {
            Ok(Some(chunk)) => chunks.push(chunk),
            Ok(None) => return Ok(Batch { chunks, end: true }),
            // What came before the break still goes out; the break shows with the next read.
            Err(_) if !chunks.is_empty() => return Ok(Batch { chunks, end: false }),
            Err(error) => {
                return Err(Failure::broken(format!("in the stream: {}", brief(&error))).into());
            }
        }
        match ended(session) {
            Ok(true) => return Ok(Batch { chunks, end: true }),
            Ok(false) => {}
            Err(error) => {
                return Err(Failure::broken(format!("in the stream: {}", brief(&error))).into());
            }
        }
        if chunks.len() >= BATCH {
            break;
        }
        next = tokio::task::unconstrained(session.read_response_body()).now_or_never();
    }
    Ok(Batch { chunks, end: false })
}

/// The events of one stream: what they say, and the bytes of those that go to the app.
struct Events {
    splitter: Splitter,
    endpoint: Endpoint,
    /// The app asked for the usage chunk itself.
    keep_usage: bool,
    out: BytesMut,
    /// The answer said that it is finished.
    finished: bool,
    /// Nothing that counts can follow: the end marker came.
    complete: bool,
}

struct Readings {
    list: Vec<Reading>,
    too_long: bool,
}

impl Readings {
    /// Why the stream can't go on, if it can't.
    fn broken(&self, end: bool, events: &Events) -> Option<&'static str> {
        if self.too_long {
            Some("an event over 1 MiB")
        } else if self.list.iter().any(|reading| reading.failed) {
            Some("an error inside the stream")
        } else if end && !events.finished && !events.complete {
            Some("the stream ended before the answer was finished")
        } else {
            None
        }
    }
}

impl Events {
    fn new(endpoint: Endpoint, wants_usage: bool) -> Self {
        Self {
            splitter: Splitter::default(),
            endpoint,
            keep_usage: wants_usage || endpoint != Endpoint::Chat,
            out: BytesMut::new(),
            finished: false,
            complete: false,
        }
    }

    fn take(&mut self, chunks: Vec<Bytes>, end: bool) -> Readings {
        let mut readings = Readings { list: Vec::with_capacity(chunks.len()), too_long: false };
        for chunk in chunks {
            self.splitter.push(chunk);
            while let Some(event) = self.splitter.next() {
                match event {
                    Ok(event) => readings.list.extend(self.read(&event)),
                    Err(_) => {
                        readings.too_long = true;
                        return readings;
                    }
                }
            }
        }
        if end && let Some(event) = self.splitter.finish() {
            readings.list.extend(self.read(&event));
        }
        readings
    }

    fn read(&mut self, event: &Event) -> Option<Reading> {
        let reading = event.data().map(|data| match self.endpoint {
            Endpoint::Responses => openai::responses_event(event.name(), data),
            Endpoint::Chat | Endpoint::Embeddings => openai::chat_event(data),
        });
        if let Some(reading) = &reading {
            self.finished |= reading.finished;
            self.complete |= reading.done;
            if reading.failed || (reading.usage_only && !self.keep_usage) {
                return Some(reading.clone());
            }
        }
        self.out.extend_from_slice(&event.raw);
        reading
    }
}
