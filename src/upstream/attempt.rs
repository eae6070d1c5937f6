//! One attempt: a fresh upstream request on one key, up to its judgement or the end of its answer.

use std::{pin::pin, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use gatekeeper_filters::kernel::{Exchange, ModelRequest, OnDisconnect, RequestMembers, Target};
use pingora_core::Error;
use tokio::time::Instant;

use super::{
    attempt_error::AttemptError,
    classify::{self, Failure, FailureCause},
    client_response::ClientResponse,
    connector::{self, Connector, ProviderConnection},
    deadlines::Deadlines,
    provider_session::{
        ProviderSession, ResponseHeaders, brief, is_malformed, is_peer_closed, was_refused,
    },
    rate_limit_headers,
    relay::{self, Relay},
    request, stream_events,
    wait::{CONNECTION, FIRST_BYTE, watch},
};
use crate::{
    config::settings::Timeouts,
    pool::{ProviderPool, lease::KeyLease},
    runtime::{request_context::RequestContext, snapshot::Snapshot},
};

const REQUEST_TIMEOUT: u16 = 408;

/// Bytes of an error body that are read; enough for every provider's envelope.
const ERROR_BODY: usize = 64 * 1024;
/// How long an error body may take: it only decides where to go next.
const ERROR_BODY_TIME: Duration = Duration::from_secs(2);

pub struct Attempt<'a> {
    pub connector: &'a Arc<Connector>,
    pub snapshot: &'a Snapshot,
    pub target: &'a Arc<Target>,
    pub lease: &'a KeyLease,
    /// The request in the target's words, if those are not the app's.
    pub translated: Option<&'a RequestMembers>,
    pub timeouts: Timeouts,
    /// The clock as it was read for the selection.
    pub began: std::time::Instant,
    /// An answer without output is handed on like any other.
    pub takes_hollow: bool,
}

impl Attempt<'_> {
    fn provider(&self) -> &ProviderPool {
        &self.snapshot.providers[self.target.provider]
    }

    /// # Errors
    /// Why nothing, or not all, was delivered.
    pub async fn run(
        &self,
        down: &mut ClientResponse<'_>,
        ctx: &mut RequestContext,
        watchdog: &mut Deadlines,
    ) -> Result<(), AttemptError> {
        let (Some(exchange), Some(ask)) = (ctx.exchange.as_deref_mut(), ctx.ask.as_deref()) else {
            return Err(Failure::broken("the request has no body").into());
        };
        exchange.begin_attempt(self.target);
        exchange.served_key = Some(self.lease.key().id.clone());
        exchange.streamed = ask.stream;
        ctx.first_said = None;
        let body = request::body(ask, self.translated, exchange, self.provider(), self.target);
        let began = Instant::from_std(self.began);
        let opened = self.open(exchange, ask, &body, down, watchdog).await;
        let now = Instant::now();
        ctx.waited += now - began;
        let (mut connection, sent) = opened?;
        let result = match sent {
            Ok(()) => {
                let mut relay = Relay {
                    endpoint: request::at(exchange, self.target),
                    down,
                    watchdog,
                    exchange,
                    ask,
                    snapshot: self.snapshot,
                    lease: self.lease,
                    dialect: self.target.dialect,
                    timeouts: self.timeouts,
                    attempts: ctx.attempts.len() + 1,
                    first_output: &mut ctx.first_output,
                    first_said: &mut ctx.first_said,
                    now,
                    waited: &mut ctx.waited,
                    floor: None,
                    held: &mut ctx.held,
                    takes_hollow: self.takes_hollow,
                };
                self.receive(&mut connection.session, &mut relay).await
            }
            Err(stop) => Err(stop),
        };
        if matches!(&result, Err(AttemptError::Failed(failure)) if failure.cause == FailureCause::Timeout)
        {
            Connector::discard_pooled(&connection);
        }
        match &result {
            Ok(()) => Box::pin(self.connector.finish(connection)).await,
            Err(_) => Box::pin(self.connector.release(connection)).await,
        }
        if let (Err(_), Some(held)) = (&result, &mut ctx.held) {
            held.set_answer(0);
        }
        result
    }

    fn first_token(&self) -> Instant {
        Instant::from_std(self.began) + self.timeouts.first_token
    }

    /// The end of a wait before the head of an answer: without a head there was no token either.
    fn end_of(&self, now: Instant, limit: Duration) -> Instant {
        self.first_token().min(now + limit)
    }

    /// A connection with the head of an answer, or what went wrong on it. A pooled connection that
    /// the provider had closed meanwhile says nothing about the provider: a fresh one is tried, unless a byte of an answer
    /// had come: then the request was looked at. One that refused the stream has done nothing (RFC 9113, 8.7), and is
    /// tried anew once, fresh as it may be.
    async fn open(
        &self,
        exchange: &mut Exchange,
        ask: &ModelRequest,
        body: &[Bytes],
        down: &mut ClientResponse<'_>,
        watchdog: &mut Deadlines,
    ) -> Result<(Box<ProviderConnection>, Result<(), AttemptError>), AttemptError> {
        let (mut fresh, mut refused) = (false, false);
        loop {
            let mut connection = self.connect(down, watchdog, fresh).await?;
            // Connecting may take seconds, and a reload may have happened.
            if self.lease.key().is_withdrawn() {
                return Ok((connection, Err(Failure::key_gone().into())));
            }
            let sent = self.send(&mut connection, exchange, ask, body, down, watchdog).await;
            let again = match sent {
                Err(SendError::Closed(_)) => connection.reused && !connection.session.has_heard(),
                Err(SendError::Refused(_)) => {
                    connection.reused || !std::mem::replace(&mut refused, true)
                }
                _ => false,
            };
            // No retry for a client that is gone.
            if again && !down.is_gone() {
                self.connector.release(connection).await;
                fresh = true;
                continue;
            }
            return Ok((connection, sent.map_err(AttemptError::from)));
        }
    }

    async fn connect(
        &self,
        down: &mut ClientResponse<'_>,
        watchdog: &mut Deadlines,
        fresh: bool,
    ) -> Result<Box<ProviderConnection>, AttemptError> {
        let provider = self.provider();
        // The pooled connection before a fresh one may have used up any time.
        let now = if fresh { Instant::now() } else { Instant::from_std(self.began) };
        watchdog.expect_before(now, self.end_of(now, self.timeouts.connect * 3));
        let connect = async {
            let mut failure = None;
            for (place, peer) in provider.endpoint.peers().await {
                match self.connector.connect(&peer, fresh).await {
                    Ok(connection) => {
                        provider.endpoint.prefer(place);
                        return Ok(connection);
                    }
                    Err(error) if no_room(&error) => {
                        return Err(AttemptError::Crowded("too many files are open"));
                    }
                    Err(error) => {
                        let detail = format!("connect to {}: {}", peer._address, brief(&error));
                        failure = Some(match timed_out(&error) {
                            true => Failure::connect_timeout(detail),
                            false => Failure::connect(detail),
                        });
                    }
                }
            }
            let nowhere = || Failure::connect(format!("{} has no address", provider.endpoint.host));
            Err(failure.unwrap_or_else(nowhere).into())
        };
        let leaving = OnDisconnect::Cut;
        watch(down, watchdog, leaving, CONNECTION, pin!(connect)).await?
    }

    /// Writes the request and reads the head of the answer.
    async fn send(
        &self,
        connection: &mut ProviderConnection,
        exchange: &mut Exchange,
        ask: &ModelRequest,
        body: &[Bytes],
        down: &mut ClientResponse<'_>,
        watchdog: &mut Deadlines,
    ) -> Result<(), SendError> {
        let length = body.iter().map(Bytes::len).sum();
        let ProviderConnection { session, sent_whole, reused, .. } = connection;
        let reused = *reused;
        let what = request::UpstreamCall {
            endpoint: request::at(exchange, self.target),
            model: &self.target.model,
            is_stream: ask.stream,
            api_version: exchange.api_version.as_deref(),
        };
        let head =
            request::head(self.provider(), self.lease.key(), &what, length, session.is_http2())
                .map_err(|error| AttemptError::from(Failure::broken(brief(&error))))?;
        let connected = if reused { Instant::from_std(self.began) } else { Instant::now() };
        watchdog.expect_before(connected, self.end_of(connected, self.timeouts.first_byte));
        exchange.progress.sent = true;
        let write = async {
            *sent_whole = session.write(head, body).await?;
            Ok::<(), Box<Error>>(())
        };
        // A provider does not begin to answer half a request: nothing is there to be drained.
        watch(down, watchdog, OnDisconnect::Cut, FIRST_BYTE, pin!(write)).await??;
        exchange.written = Some(std::time::Instant::now()).filter(|_| *sent_whole);
        exchange.progress.written |= *sent_whole;
        {
            let (leaving, answer) = (exchange.on_disconnect(), pin!(session.read_head()));
            watch(down, watchdog, leaving, FIRST_BYTE, answer).await??;
        }
        if reused && session.status() == Some(REQUEST_TIMEOUT) && !session.is_http2() {
            // The server gave up an idle connection just before the request came (RFC 9110, 15.5.9).
            let failure = Failure::reset("a pooled connection timed out at the provider");
            return Err(SendError::Refused(failure));
        }
        Ok(())
    }

    /// Classifies the head and hands the body to the relay, or reads the error.
    async fn receive(
        &self,
        session: &mut ProviderSession,
        relay: &mut Relay<'_, '_>,
    ) -> Result<(), AttemptError> {
        let Some(status) = session.status() else {
            return Err(Failure::reset("no answer").into());
        };
        let left = rate_limit_headers::left(self.target.dialect, &*session);
        self.lease.allows(left, relay.now.into_std());
        if !(200..300).contains(&status) {
            // What is refused is not worked on.
            relay.exchange.written = None;
            let headers = session.headers();
            let body = read_error(session, relay).await?;
            return Err(classify::judge(self.target.dialect, status, &headers, &body).into());
        }
        relay.exchange.progress.answered = true;
        relay.exchange.headed = Some(relay.now.into_std());
        let encoded = session.field(&http::header::CONTENT_ENCODING);
        if encoded.is_some_and(|coding| !coding.eq_ignore_ascii_case(b"identity")) {
            return Err(Failure::broken("a compressed answer though none was asked for").into());
        }
        let kind = BodyType::of(session.field(&http::header::CONTENT_TYPE));
        match (relay.ask.stream, kind) {
            (true, BodyType::Events | BodyType::Unsure) => {
                let odd_type = kind == BodyType::Unsure;
                return relay::stream(session, relay, self.first_token(), odd_type).await;
            }
            // An SDK that expects events would take a JSON answer for an empty stream. Some providers send
            // errors that way.
            (true, BodyType::Other) => {
                let body = read_error(session, relay).await?;
                return Err(match classify::says_error(&body) {
                    true => classify::judge_inside(self.target.dialect, &body).into(),
                    false => Failure::broken(stream_events::NO_EVENTS).into(),
                });
            }
            (false, _) => {}
        }
        relay.watchdog.expect_before(relay.now, self.first_token());
        let mut body = BodyChunks::default();
        match read_bounded(session, relay, relay::WHOLE, &mut body).await? {
            true => relay::whole(relay, body.into_bytes()).await,
            false => Err(Failure::broken("an answer over 8 MiB").into()),
        }
    }
}

/// The type of body that a provider declares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BodyType {
    Events,
    /// Some servers send proper events under such a type, or without one.
    Unsure,
    Other,
}

impl BodyType {
    /// Media types are compared without regard to case (RFC 9110, 8.3.1).
    fn of(said: Option<&[u8]>) -> Self {
        let Some(said) = said else { return BodyType::Unsure };
        let end = memchr::memchr(b';', said).unwrap_or(said.len());
        let is = |kind: &str| said[..end].trim_ascii().eq_ignore_ascii_case(kind.as_bytes());
        match () {
            () if is("text/event-stream") => BodyType::Events,
            () if is("text/plain") || is("application/x-ndjson") => BodyType::Unsure,
            () => BodyType::Other,
        }
    }
}

/// Whether it was this process that had no file descriptor left, or the machine.
fn no_room(error: &Error) -> bool {
    let raw = error.root_cause().downcast_ref::<std::io::Error>().and_then(|e| e.raw_os_error());
    let full = [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE].map(|e| e.raw_os_error());
    *error.etype() == connector::NO_ROOM || raw.is_some_and(|raw| full.contains(&raw))
}

fn timed_out(error: &Error) -> bool {
    use pingora_core::ErrorType::{ConnectTimedout, TLSHandshakeTimedout};
    matches!(error.etype(), ConnectTimedout | TLSHandshakeTimedout)
}

/// Why sending a request did not lead to an answer.
enum SendError {
    /// The connection was closed before the head of an answer: on a pooled one that said nothing, probably before
    /// the request came.
    Closed(Failure),
    /// The provider says that it did not look at the request: of an HTTP/2 stream, or of a connection that it gave up
    /// or that went away.
    Refused(Failure),
    Stop(AttemptError),
}

impl From<Box<Error>> for SendError {
    fn from(error: Box<Error>) -> Self {
        let failure = Failure::reset(format!("before an answer: {}", brief(&error)));
        match () {
            () if was_refused(&error) => SendError::Refused(failure),
            () if is_peer_closed(&error) => SendError::Closed(failure),
            // It would come again.
            () if is_malformed(&error) => {
                SendError::Stop(Failure { again: false, ..failure }.into())
            }
            // A reset stream: its provider has seen the request.
            () => SendError::Stop(failure.into()),
        }
    }
}

impl From<AttemptError> for SendError {
    fn from(stop: AttemptError) -> Self {
        SendError::Stop(stop)
    }
}

impl From<SendError> for AttemptError {
    fn from(sending: SendError) -> Self {
        match sending {
            SendError::Closed(failure) | SendError::Refused(failure) => failure.into(),
            SendError::Stop(stop) => stop,
        }
    }
}

/// Reads an error body, bounded in size and time; a part of it is enough.
async fn read_error(
    session: &mut ProviderSession,
    relay: &mut Relay<'_, '_>,
) -> Result<Bytes, AttemptError> {
    relay.watchdog.expect_within(relay.now, ERROR_BODY_TIME);
    let mut body = BodyChunks::default();
    match read_bounded(session, relay, ERROR_BODY, &mut body).await {
        Ok(_) | Err(AttemptError::Failed(_)) => Ok(body.into_bytes()),
        Err(stop) => Err(stop),
    }
}

/// A body in the pieces in which it came: one is not copied.
#[derive(Default)]
struct BodyChunks {
    first: Bytes,
    rest: BytesMut,
}

impl BodyChunks {
    fn len(&self) -> usize {
        self.first.len() + self.rest.len()
    }

    /// `whole` is the declared length of the body.
    fn push(&mut self, chunk: Bytes, whole: usize) {
        if self.len() == 0 {
            self.first = chunk;
            return;
        }
        if self.rest.is_empty() {
            // At once as large as it will be, so that it is never held twice while it grows.
            self.rest.reserve(whole.max(self.first.len() + chunk.len()));
            self.rest.extend_from_slice(&std::mem::take(&mut self.first));
        }
        self.rest.extend_from_slice(&chunk);
    }

    fn into_bytes(self) -> Bytes {
        if self.rest.is_empty() { self.first } else { self.rest.freeze() }
    }
}

/// Reads a body; false when it is longer than `limit`.
///
/// # Errors
/// It breaks off or takes too long, or the app left. What came of it is in `body`.
async fn read_bounded(
    session: &mut ProviderSession,
    relay: &mut Relay<'_, '_>,
    limit: usize,
    body: &mut BodyChunks,
) -> Result<bool, AttemptError> {
    let broken = |error: Box<Error>| Failure::cut(format!("in the answer: {}", brief(&error)));
    let stated = session.text(&http::header::CONTENT_LENGTH);
    let stated = stated.and_then(|stated| stated.parse::<usize>().ok()).unwrap_or(0).min(limit);
    loop {
        let read = relay.wait("answer", pin!(session.read_body())).await?;
        let Some(chunk) = read.map_err(broken)? else { break };
        relay.down.drained(chunk.len())?;
        body.push(chunk, stated);
        relay.hold(body.len())?;
        if body.len() > limit {
            return Ok(false);
        }
        if session.ended().map_err(broken)? {
            break;
        }
    }
    Ok(true)
}
