//! One attempt: a fresh upstream request on one key, up to its judgement or the end of its answer.

use std::{
    future::Future,
    pin::{Pin, pin},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use gatekeeper_filters::kernel::{Ask, Exchange, Metered, Target};
use pingora_core::{Error, protocols::http::client::HttpSession};
use tokio::time::Instant;

use super::{
    classify::{self, Cause, Failure, Judgement, Next, Relayed},
    downstream::Downstream,
    peer::{Connection, Connector},
    relay::{self, Relay},
    request, socket,
    watchdog::{Alarm, Watchdog},
};
use crate::{
    pool::{Provider, key::KeyNews, key::Lease},
    proxy::flight::Flight,
    snapshot::Snapshot,
};

/// Bytes of an error body that are read; enough for every provider's envelope.
const ERROR_BODY: usize = 64 * 1024;
/// Bytes of a JSON answer that are read whole before it is committed.
const WHOLE_ANSWER: usize = 8 * 1024 * 1024;
/// Larger request bodies are written in slices, with a look for an early answer between them.
const SLICE: usize = 64 * 1024;
/// How long an error body may take: it only decides where to go next.
const ERROR_BODY_TIME: Duration = Duration::from_secs(2);

/// Why an attempt did not deliver.
pub enum Stop {
    Failed(Failure),
    Relay(Relayed),
    /// The app left, or did not take its answer.
    AppLeft,
    /// The deadline over all attempts passed before anything was committed.
    Deadline,
    /// The answer broke after its first event; holds what to log.
    Broken(String),
}

impl Stop {
    /// Metric label, and what the key showed.
    pub fn account(&self) -> (&'static str, KeyNews) {
        match self {
            Stop::Failed(failure) => (failure.cause.name(), failure.news),
            Stop::Relay(_) => ("request_rejected", KeyNews::Good),
            Stop::AppLeft => ("app_left", KeyNews::None),
            Stop::Deadline => (Cause::Timeout.name(), KeyNews::Fault),
            Stop::Broken(_) => (Cause::BrokenAnswer.name(), KeyNews::Fault),
        }
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Stop::Failed(failure)
    }
}

/// Waits for something of the provider's, with an eye on the clock and, when it takes longer than a
/// moment, on the app. While output flows, the next write shows that an app has left.
///
/// The future is pinned by the caller: taken by value it would be stored twice, and what a request
/// stores, an open stream holds.
pub async fn watch<T>(
    down: &mut Downstream<'_>,
    watchdog: &mut Watchdog,
    what: &str,
    mut future: Pin<&mut impl Future<Output = T>>,
) -> Result<T, Stop> {
    let mut looking = false;
    loop {
        tokio::select! {
            biased;
            done = &mut future => return Ok(done),
            () = down.left(), if looking => return Err(Stop::AppLeft),
            alarm = watchdog.alarm() => match alarm {
                Alarm::Look => looking = true,
                Alarm::Quiet => down.keep_alive().await.map_err(|_| Stop::AppLeft)?,
                Alarm::Phase => return Err(Failure::timeout(what).into()),
                Alarm::Total => return Err(Stop::Deadline),
            },
        }
    }
}

pub struct Attempt<'a> {
    pub connector: &'a Connector,
    pub snapshot: &'a Snapshot,
    pub target: &'a std::sync::Arc<Target>,
    pub lease: &'a Lease,
}

impl Attempt<'_> {
    fn provider(&self) -> &Provider {
        &self.snapshot.providers[self.target.provider]
    }

    /// # Errors
    /// Why nothing, or not all, was delivered.
    pub async fn run(
        &self,
        down: &mut Downstream<'_>,
        flight: &mut Flight,
        watchdog: &mut Watchdog,
    ) -> Result<(), Stop> {
        let (Some(exchange), Some(ask)) = (flight.exchange.as_deref_mut(), flight.ask.as_deref())
        else {
            return Err(Failure::broken("the request has no body").into());
        };
        exchange.served = Some(self.target.clone());
        // A buyer does not pay for what an attempt said that failed.
        exchange.metered = Metered::default();
        let body = request::body(ask, exchange, self.provider(), self.target);
        let began = Instant::now();
        let first_token = began + self.provider().settings.timeouts.first_token;
        let opened = self.open(exchange, ask, &body, down, watchdog).await;
        flight.waited += began.elapsed();
        let (mut connection, sent) = opened?;
        let result = match sent {
            Ok(()) => {
                let mut relay = Relay {
                    down,
                    watchdog,
                    exchange,
                    ask,
                    snapshot: self.snapshot,
                    timeouts: self.provider().settings.timeouts,
                    attempts: flight.attempts.len() + 1,
                    first_output: &mut flight.first_output,
                    now: Instant::now(),
                    waited: &mut flight.waited,
                };
                self.receive(&mut connection.session, &mut relay, first_token).await
            }
            Err(stop) => Err(stop),
        };
        if matches!(&result, Err(Stop::Failed(failure)) if failure.cause == Cause::Timeout) {
            Connector::distrust(&connection);
        }
        Box::pin(self.connector.release(connection)).await;
        result
    }

    /// A connection with the head of an answer, or what went wrong on it. A pooled connection that
    /// the provider had closed meanwhile says nothing about the provider: a fresh one is tried.
    async fn open(
        &self,
        exchange: &mut Exchange,
        ask: &Ask,
        body: &[Bytes],
        down: &mut Downstream<'_>,
        watchdog: &mut Watchdog,
    ) -> Result<(Box<Connection>, Result<(), Stop>), Stop> {
        let mut fresh = false;
        loop {
            let mut connection = self.connect(down, watchdog, fresh).await?;
            let sent = self.send(&mut connection, exchange, ask, body, down, watchdog).await;
            if connection.reused && matches!(sent, Err(Sending::Closed(_))) {
                self.connector.release(connection).await;
                fresh = true;
                continue;
            }
            return Ok((connection, sent.map_err(Stop::from)));
        }
    }

    async fn connect(
        &self,
        down: &mut Downstream<'_>,
        watchdog: &mut Watchdog,
        fresh: bool,
    ) -> Result<Box<Connection>, Stop> {
        let provider = self.provider();
        watchdog.expect_within(Instant::now(), provider.settings.timeouts.connect * 3);
        let connect = async {
            let mut detail = format!("{} has no address", provider.endpoint.host);
            for (place, peer) in provider.endpoint.peers().await {
                match self.connector.connect(&peer, fresh).await {
                    Ok(connection) => {
                        provider.endpoint.prefer(place);
                        return Ok(connection);
                    }
                    Err(error) => {
                        detail = format!("connect to {}: {}", peer._address, brief(&error));
                    }
                }
            }
            Err(detail)
        };
        match watch(down, watchdog, "connection", pin!(connect)).await? {
            Ok(connection) => Ok(connection),
            Err(detail) => Err(Failure::connect(detail).into()),
        }
    }

    /// Writes the request and reads the head of the answer.
    async fn send(
        &self,
        connection: &mut Connection,
        exchange: &mut Exchange,
        ask: &Ask,
        body: &[Bytes],
        down: &mut Downstream<'_>,
        watchdog: &mut Watchdog,
    ) -> Result<(), Sending> {
        let length = body.iter().map(Bytes::len).sum();
        let Connection { session, sent_whole, .. } = connection;
        let http2 = session.as_http2().is_some();
        let endpoint = exchange.endpoint;
        let head =
            request::head(self.provider(), self.lease.key(), endpoint, ask.stream, length, http2)
                .map_err(|error| Stop::from(Failure::broken(brief(&error))))?;
        watchdog.expect_within(Instant::now(), self.provider().settings.timeouts.first_byte);
        exchange.progress.sent = true;
        let talk = async {
            socket::cork(session, true);
            session.write_request_header(Box::new(head)).await?;
            *sent_whole = write_body(session, body).await?;
            socket::cork(session, false);
            read_head(session).await
        };
        match watch(down, watchdog, "first byte", pin!(talk)).await? {
            Ok(()) => Ok(()),
            Err(error) => {
                let failure = Failure::connect(format!("before an answer: {}", brief(&error)));
                Err(if was_closed(&error) {
                    Sending::Closed(failure)
                } else {
                    Sending::Stop(failure.into())
                })
            }
        }
    }

    /// Judges the head and hands the body to the relay, or reads what the error says.
    async fn receive(
        &self,
        session: &mut HttpSession,
        relay: &mut Relay<'_, '_>,
        first_token: Instant,
    ) -> Result<(), Stop> {
        let Some(head) = session.response_header() else {
            return Err(Failure::connect("no answer").into());
        };
        let status = head.status.as_u16();
        if !(200..300).contains(&status) {
            let headers = head.headers.clone();
            relay.watchdog.expect_within(Instant::now(), ERROR_BODY_TIME);
            let body = read_bounded(session, relay, ERROR_BODY).await;
            let body = match body {
                Ok((body, _)) => body,
                // What came of it is enough: the status alone decides most.
                Err(Stop::Failed(_)) => Bytes::new(),
                Err(stop) => return Err(stop),
            };
            return Err(match classify::judge(status, &headers, &body) {
                Judgement::Failed(failure) => Stop::Failed(failure),
                Judgement::Relay(relayed) => Stop::Relay(relayed),
            });
        }
        relay.exchange.progress.answered = true;
        let encoded = head.headers.get(http::header::CONTENT_ENCODING);
        if encoded.is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
            return Err(Failure::broken("a compressed answer though none was asked for").into());
        }
        let kind = head.headers.get(http::header::CONTENT_TYPE);
        let is_events = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
        match (relay.ask.stream, is_events) {
            (true, true) => return relay::stream(session, relay, first_token).await,
            // An SDK that waits for events would take a JSON answer for an empty stream.
            (true, false) => {
                return Err(Failure::broken("no events though a stream was asked for").into());
            }
            (false, _) => {}
        }
        relay.watchdog.expect_before(relay.now, first_token);
        match read_bounded(session, relay, WHOLE_ANSWER).await? {
            (body, true) => relay::whole(relay, body).await,
            (_, false) => Err(Failure::broken("an answer over 8 MiB").into()),
        }
    }
}

/// Why sending a request did not lead to an answer.
enum Sending {
    /// The connection was closed before a byte of an answer: on a pooled one, probably before the
    /// request came.
    Closed(Failure),
    Stop(Stop),
}

impl From<Stop> for Sending {
    fn from(stop: Stop) -> Self {
        Sending::Stop(stop)
    }
}

impl From<Sending> for Stop {
    fn from(sending: Sending) -> Self {
        match sending {
            Sending::Closed(failure) => failure.into(),
            Sending::Stop(stop) => stop,
        }
    }
}

fn was_closed(error: &Error) -> bool {
    use pingora_core::ErrorType::{ConnectionClosed, H2Error, ReadError, WriteError};
    matches!(error.etype(), ConnectionClosed | ReadError | WriteError | H2Error)
}

/// Writes the body; whether all of it: an answer may come before.
async fn write_body(session: &mut HttpSession, pieces: &[Bytes]) -> pingora_core::Result<bool> {
    let small = matches!(pieces, [piece] if piece.len() <= SLICE);
    let last = pieces.len().saturating_sub(1);
    for (index, piece) in pieces.iter().enumerate() {
        let mut rest = piece.clone();
        while !rest.is_empty() {
            let slice = rest.split_to(rest.len().min(SLICE));
            let end = index == last && rest.is_empty();
            if let Err(error) = session.write_request_body(slice, end).await {
                // It may have answered and closed without reading on: then that answer counts.
                return if answered_early(session).await { Ok(false) } else { Err(error) };
            }
            if !small && !end && peek_head(session)? {
                return Ok(false);
            }
        }
    }
    session.finish_request_body().await.map(|()| true)
}

/// Whether the head of an answer is here already.
fn peek_head(session: &mut HttpSession) -> pingora_core::Result<bool> {
    use futures_util::FutureExt;
    if session.as_http2().is_some() {
        // An early answer resets an HTTP/2 stream, which the next write reports.
        return Ok(false);
    }
    match tokio::task::unconstrained(read_head(session)).now_or_never() {
        Some(Ok(())) => Ok(true),
        Some(Err(error)) => Err(error),
        None => Ok(false),
    }
}

async fn answered_early(session: &mut HttpSession) -> bool {
    let read = tokio::time::timeout(Duration::from_secs(1), read_head(session));
    matches!(read.await, Ok(Ok(())))
}

/// The final head: informational ones are passed over, a switch of protocols is no answer.
async fn read_head(session: &mut HttpSession) -> pingora_core::Result<()> {
    loop {
        if session.response_header().is_some_and(|head| !head.status.is_informational()) {
            return Ok(());
        }
        session.read_response_header().await?;
        if session.response_header().is_some_and(|head| head.status.as_u16() == 101) {
            return Error::e_explain(
                pingora_core::ErrorType::InvalidHTTPHeader,
                "101 Switching Protocols",
            );
        }
    }
}

/// Whether the body has come to its end. HTTP/2 says so in its own way, and may have failed.
pub fn ended(session: &mut HttpSession) -> pingora_core::Result<bool> {
    match session {
        HttpSession::H2(http2) => http2.check_response_end_or_error(),
        other => Ok(other.response_done()),
    }
}

/// The body and whether it is whole; reading stops above `limit`.
async fn read_bounded(
    session: &mut HttpSession,
    relay: &mut Relay<'_, '_>,
    limit: usize,
) -> Result<(Bytes, bool), Stop> {
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    let broken = |error: Box<Error>| Failure::broken(format!("in the answer: {}", brief(&error)));
    loop {
        match relay.wait("answer", pin!(session.read_response_body())).await?.map_err(broken)? {
            None => break,
            Some(chunk) if first.is_empty() && rest.is_empty() => first = chunk,
            Some(chunk) => {
                if rest.is_empty() {
                    rest.extend_from_slice(&std::mem::take(&mut first));
                }
                rest.extend_from_slice(&chunk);
            }
        }
        if first.len() + rest.len() > limit {
            return Ok((if rest.is_empty() { first } else { rest.freeze() }, false));
        }
        if ended(session).map_err(broken)? {
            break;
        }
    }
    Ok((if rest.is_empty() { first } else { rest.freeze() }, true))
}

/// An error's kind and context, without the peer's printed options.
pub fn brief(error: &Error) -> String {
    let mut text = error.etype().as_str().to_owned();
    if let Some(cause) = error.root_cause().to_string().lines().next().filter(|c| !c.is_empty()) {
        text.push_str(": ");
        text.push_str(&cause.chars().take(160).collect::<String>());
    }
    text
}

/// The next target, whatever the key: for faults that belong to a target's answers.
pub fn failed_answer(detail: impl Into<String>) -> Failure {
    Failure::new(Cause::ProviderError, KeyNews::Fault, Next::OneMoreKey, detail)
}
