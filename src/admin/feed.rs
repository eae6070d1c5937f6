//! `/feed`: server-sent events with the newest requests and the totals.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, Version, header};
use pingora_core::protocols::http::ServerSession;
use tokio::sync::broadcast::{Receiver, error::RecvError};

use super::{
    AdminApp,
    auth::{AuthMethod, Caller},
    feed_broadcaster::{FeedEvent, FeedSlot, MOST},
    reply::{answer, write_head},
};
use crate::{license_admin::ApiError, runtime::snapshot::Snapshot, upstream::socket_options};

/// How long a feed may take one event before it is cut off.
const WRITE_TIME: Duration = Duration::from_secs(5);
/// Bytes that the kernel keeps for a feed which is not read.
const SAVED_UP: usize = 128 * 1024;

/// What lets a feed begin.
pub struct FeedTicket {
    pass: AuthMethod,
    place: FeedSlot,
    events: Receiver<FeedEvent>,
}

impl AdminApp {
    /// # Errors
    /// Without authentication, or above the limit of feeds.
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

    /// Sends events until the reader leaves, the session ends or the process stops. The connection serves
    /// nothing else.
    pub(super) async fn feed(&self, mut session: ServerSession, ticket: FeedTicket) {
        let FeedTicket { pass, place, mut events } = ticket;
        session.set_keepalive(None);
        socket_options::set_cork(&session, SAVED_UP);
        let sent = match self.begin(&mut session).await {
            Ok(sent) => sent,
            Err(_) => return,
        };
        // The first two events may repeat requests of the initial event.
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
                self.without(&event, &sent)
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

    /// Sends the head and the initial event; returns the ids of its requests.
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

    /// An event without the requests that were sent before.
    fn without(&self, event: &FeedEvent, sent: &[u64]) -> Bytes {
        let rest = event.requests.iter().filter(|seen| !sent.contains(&seen.id));
        self.hub.event(event.totals, rest.map(|seen| seen.to_json()).collect())
    }
}
