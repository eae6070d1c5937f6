//! An answer on its way to the app. Until the commit point another key may still take over; after
//! it, never: a stream that breaks ends in an error the SDKs show, not in a clean `[DONE]`.
//!
//! Bytes pass untouched, event by event, unless they have to be translated. What is ready is taken together
//! and written once.

use std::{
    future::Future,
    pin::{Pin, pin},
    time::{Duration, Instant as Clock},
};

use bytes::Bytes;
use gatekeeper_filters::{
    kernel::{
        Code, Delivery, Dialect, Endpoint, Exchange, Metered, ModelRequest, Outcome, Rejection,
        ResponseHead,
    },
    meter::{self, Reading},
};
use http::{HeaderName, HeaderValue};
use tokio::time::Instant;

use super::{
    attempt_error::AttemptError,
    classify::{self, Failure},
    client_response::ClientResponse,
    deadlines::Deadlines,
    provider_session::{ProviderSession, brief},
    socket_options,
    stream_events::{StreamError, StreamEvents},
    wait::{self, watch},
};
use crate::{
    config::settings::Timeouts,
    dialect::{dropped, translate},
    downstream::memory_budget::{FULL, MemoryPermit},
    pool::{key::AttemptFeedback, lease::KeyLease},
    runtime::snapshot::Snapshot,
};

/// Bytes held back before the first event with output; then they are committed as they are.
const HELD: usize = 64 * 1024;
/// Bytes of an answer that is read to its end before it is committed.
pub const WHOLE: usize = 8 * 1024 * 1024;
/// Chunks taken per batch, so that a fast provider can't delay the first of them.
const BATCH: usize = 64;
/// Minimum interval between two writes of one stream. A write is the most expensive step for a chunk;
/// bursts are collected into few writes, at the price of an imperceptible delay. The first output, and
/// output slower than this, is written at once.
const GATHER: Duration = Duration::from_millis(1);

const NOT_JSON: &str = "an answer that is not JSON, or cut off";

const MODEL: HeaderName = HeaderName::from_static("x-gatekeeper-model");
const ROUTE: HeaderName = HeaderName::from_static("x-gatekeeper-route");
const ATTEMPTS: HeaderName = HeaderName::from_static("x-gatekeeper-attempts");

const DELIVERED: Outcome = Outcome { status: 200, delivery: Delivery::Whole };

/// What an answer needs on its way.
pub struct Relay<'a, 'd> {
    pub down: &'a mut ClientResponse<'d>,
    pub watchdog: &'a mut Deadlines,
    pub exchange: &'a mut Exchange,
    pub ask: &'a ModelRequest,
    pub snapshot: &'a Snapshot,
    pub lease: &'a KeyLease,
    /// The target's.
    pub dialect: Dialect,
    /// The provider's.
    pub endpoint: Endpoint,
    pub timeouts: Timeouts,
    /// This attempt included.
    pub attempts: usize,
    pub first_output: &'a mut Option<Clock>,
    /// The provider's first output of this attempt, which a whole answer is held back for.
    pub first_said: &'a mut Option<Clock>,
    /// Time that passed waiting for the provider.
    pub waited: &'a mut Duration,
    /// When the last wait ended: the clock is read once a chunk.
    pub now: Instant,
    /// What had been counted when the app left: less is never charged for a part of an answer.
    pub floor: Option<Metered>,
    /// The request's share of `server.limits.buffered`.
    pub held: &'a mut Option<MemoryPermit>,
    /// An answer without output is handed on like any other.
    pub takes_hollow: bool,
}

impl Relay<'_, '_> {
    /// Waits for the provider, with an eye on the app and the clock.
    ///
    /// # Errors
    /// The app left and its answer is not drained, or a deadline passed.
    pub async fn wait<T>(
        &mut self,
        what: &'static str,
        future: Pin<&mut impl Future<Output = T>>,
    ) -> Result<T, AttemptError> {
        let began = self.now;
        let leaving = self.exchange.on_disconnect();
        let result = watch(self.down, self.watchdog, leaving, what, future).await;
        self.now = Instant::now();
        *self.waited += self.now - began;
        // What the app held up since the last wait is in it.
        self.down.take_delay();
        self.note_floor();
        result
    }

    /// Counts bytes of the answer that are held; so few as every open request may hold are free.
    ///
    /// # Errors
    /// All requests together hold too much.
    pub fn hold(&mut self, bytes: usize) -> Result<(), AttemptError> {
        let fits = match self.held {
            Some(held) => held.set_answer(bytes.saturating_sub(HELD)),
            None => true,
        };
        if fits { Ok(()) } else { Err(AttemptError::Crowded(FULL)) }
    }

    /// The target uses another dialect than the app.
    fn is_translated(&self) -> bool {
        self.endpoint != self.exchange.endpoint
    }

    fn note_floor(&mut self) {
        if self.down.is_gone() {
            self.floor.get_or_insert(self.exchange.metered);
        }
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
            head.insert(ROUTE, route.why.header());
        }
        head.insert(ATTEMPTS, self.attempts as u64);
        let has_extras = !self.snapshot.extra_fields.is_empty();
        let served = self.exchange.served.as_ref();
        let provider = served.and_then(|target| self.snapshot.providers.get(target.provider));
        let provider = provider.map(|provider| &provider.settings);
        let dropped = dropped::header(self.ask, self.exchange, self.endpoint, provider, has_extras);
        if let Some(names) = dropped {
            head.headers.push((dropped::HEADER, names));
        }
        self.snapshot.chain.response(self.exchange, &mut head);
        head
    }

    fn commit(&mut self) {
        if std::mem::replace(&mut self.exchange.progress.delivered, true) {
            return;
        }
        self.said();
        self.first_output.get_or_insert(self.now.into_std());
        self.lease.serves(self.now.into_std());
    }

    fn said(&mut self) {
        self.first_said.get_or_insert(self.now.into_std());
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
pub async fn whole(relay: &mut Relay<'_, '_>, body: Bytes) -> Result<(), AttemptError> {
    let reading = match meter::answer(relay.endpoint, &body) {
        Ok(reading) => reading,
        Err(_) => return Err(Failure::broken(NOT_JSON).into()),
    };
    if reading.failed {
        return Err(classify::judge_inside(relay.dialect, &body).into());
    }
    if !reading.commits {
        return Err(Failure::broken("a JSON answer without an answer").into());
    }
    relay.snapshot.chain.chunk(relay.exchange, &reading);
    if relay.down.is_gone() && !relay.down.is_shared() {
        // All of it was seen here.
        relay.exchange.written = None;
        return Ok(());
    }
    if reading.is_hollow() && !relay.takes_hollow {
        return Err(Failure::hollow().into());
    }
    let body = if relay.is_translated() {
        let created = relay.exchange.now.0 / 1000;
        let translated = translate::answer::answer(&body, reading.usage.as_ref(), created);
        translated.map_err(|_| Failure::broken(NOT_JSON))?
    } else {
        body
    };
    let head = relay.head();
    relay.commit();
    relay.settle(DELIVERED);
    relay.down.record(Some(&head), &body, true);
    if relay.down.is_gone() {
        return Ok(());
    }
    relay.down.whole(&head, body).await.map_err(|_| AttemptError::AppLeft)
}

/// A stream of events; `odd_type` where the head calls it something else.
///
/// # Errors
/// Before the commit a failure that another key may serve; after it [`AttemptError::Broken`].
pub async fn stream(
    session: &mut ProviderSession,
    relay: &mut Relay<'_, '_>,
    first_token: Instant,
    odd_type: bool,
) -> Result<(), AttemptError> {
    let mut events = StreamEvents::new(relay.endpoint, relay.ask.wants_usage)
        .taking_hollow(relay.takes_hollow)
        .of_odd_type(odd_type);
    if relay.is_translated() {
        events = events.translated(relay.exchange.now.0 / 1000);
    }
    let result = relay_events(session, relay, &mut events, first_token).await;
    if let (Err(_), false, Some(floor)) = (&result, events.is_finished(), relay.floor) {
        let input = relay.exchange.input_estimate();
        relay.exchange.metered.raise_to(floor, input);
    }
    result
}

async fn relay_events(
    session: &mut ProviderSession,
    relay: &mut Relay<'_, '_>,
    events: &mut StreamEvents,
    first_token: Instant,
) -> Result<(), AttemptError> {
    let mut written = None;
    let mut stirred = relay.now;
    let whole = relay.exchange.route.as_ref().is_some_and(|route| route.model.whole);
    loop {
        let committed = written.is_some();
        if events.take_stirred() {
            stirred = relay.now;
        }
        if let Some(patience) = events.patience() {
            let idle = relay.now + relay.timeouts.idle;
            relay.watchdog.expect_before(relay.now, idle.min(stirred + patience));
        } else if committed || events.commits {
            relay.watchdog.expect_within(relay.now, relay.timeouts.idle);
        } else {
            relay.watchdog.expect_before(relay.now, first_token);
        }
        let read = read_on(session, relay, events, written).await;
        let read = read.and_then(|()| relay.hold(events.held()));
        match read {
            Ok(()) => {}
            // Nothing more was to come of it.
            Err(AttemptError::Failed(_) | AttemptError::Deadline) if events.conclude() => {}
            Err(stop) if committed => return Err(break_off(relay, stop, events).await),
            Err(stop) => return Err(stop),
        }
        if let Some(broken) = events.broken() {
            let stop = match broken {
                StreamError::Told(event) => classify::judge_inside(relay.dialect, &event).into(),
                StreamError::Seen(why) => AttemptError::Failed(Failure::broken(why)),
                StreamError::Cut(why) => AttemptError::Failed(Failure::cut(why)),
                StreamError::Hollow => AttemptError::Failed(Failure::hollow()),
            };
            return Err(if committed { break_off(relay, stop, events).await } else { stop });
        }
        if !committed && whole && !events.complete {
            if events.commits {
                relay.said();
            }
            if events.out.len() > WHOLE {
                return Err(Failure::broken("an answer over 8 MiB").into());
            }
            continue;
        }
        if !committed && !events.commits && events.out.len() <= HELD {
            continue;
        }
        if committed && events.out.is_empty() && !events.complete {
            // Part of an event, or one that the app did not request: nothing was sent.
            continue;
        }
        hand_on(relay, events, committed).await?;
        if events.complete {
            return Ok(());
        }
        written = Some(relay.now);
    }
}

/// Writes to the app what has come for it; of an app that is gone, drops it.
async fn hand_on(
    relay: &mut Relay<'_, '_>,
    events: &mut StreamEvents,
    committed: bool,
) -> Result<(), AttemptError> {
    let bytes = events.out.take();
    if relay.down.is_gone() && !relay.down.is_shared() {
        return Ok(());
    }
    let head = (!committed).then(|| relay.head());
    relay.commit();
    if events.complete {
        // In the journal before the last bytes leave: what was delivered is never free.
        relay.settle(DELIVERED);
    }
    relay.down.record(head.as_ref(), &bytes, events.complete);
    if relay.down.is_gone() {
        return Ok(());
    }
    match relay.down.stream(head.as_ref(), bytes, events.complete).await {
        Ok(()) => relay.watchdog.wrote(relay.now),
        // It is settled: nothing is left to be counted.
        Err(_) if events.complete => return Err(AttemptError::AppLeft),
        Err(_) => {
            let leaving = relay.exchange.on_disconnect();
            Box::pin(wait::let_go(relay.down, relay.watchdog, leaving)).await?;
            relay.note_floor();
        }
    }
    Ok(())
}

/// Ends a committed stream so that no SDK takes it for whole.
async fn break_off(
    relay: &mut Relay<'_, '_>,
    stop: AttemptError,
    events: &mut StreamEvents,
) -> AttemptError {
    if relay.down.is_gone() {
        return stop;
    }
    let (detail, news) = match stop {
        AttemptError::Failed(failure) => (failure.detail, failure.news),
        AttemptError::Deadline => ("the whole answer took too long".into(), AttemptFeedback::Fault),
        AttemptError::Crowded(of) => (of.into(), AttemptFeedback::None),
        other => return other,
    };
    relay.settle(Outcome { status: 200, delivery: Delivery::Broken });
    let reject = Rejection::new(
        Code::UpstreamError,
        "The answer broke off. Please send your message again.",
    );
    events.out.push(relay.down.error_event(&reject));
    match relay.down.stream(None, events.out.take(), true).await {
        Ok(()) => AttemptError::Broken(detail, news),
        Err(_) => AttemptError::AppLeft,
    }
}

/// Waits for one chunk, then takes what is ready without waiting. When the last write, at `written`, was just
/// now, more is let come first: a stream is written once a millisecond at most.
async fn read_on(
    session: &mut ProviderSession,
    relay: &mut Relay<'_, '_>,
    events: &mut StreamEvents,
    written: Option<Instant>,
) -> Result<(), AttemptError> {
    use futures_util::FutureExt;
    let mut next = Some(relay.wait("event", pin!(session.read_body())).await?);
    let mut taken = 0;
    while let Some(read) = next {
        let (chain, exchange) = (&relay.snapshot.chain, &mut *relay.exchange);
        let mut watch = |reading: &Reading| chain.chunk(exchange, reading);
        let ended = match read {
            Ok(Some(chunk)) => {
                let length = chunk.len();
                events.take(chunk, &mut watch);
                relay.down.drained(length)?;
                session.ended()
            }
            Ok(None) => Ok(true),
            Err(error) => Err(error),
        };
        match ended {
            Ok(false) if events.is_over() => return Ok(()),
            Ok(false) => {}
            Ok(true) => {
                events.end(&mut watch);
                return Ok(());
            }
            Err(error) => {
                events.cut(format!("in the stream: {}", brief(&error)));
                return Ok(());
            }
        }
        taken += 1;
        if taken == BATCH {
            break;
        }
        if let (1, Some(written)) = (taken, written)
            && relay.now < written + GATHER
        {
            socket_options::gather(session, true);
            tokio::time::sleep_until(written + GATHER).await;
            socket_options::gather(session, false);
            // Lets the runtime poll for arrived data.
            tokio::task::yield_now().await;
        }
        next = tokio::task::unconstrained(session.read_body()).now_or_never();
    }
    Ok(())
}
