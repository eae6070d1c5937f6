//! Writes the response to the app: head, chunks, keep-alive comments, error events.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use gatekeeper_filters::kernel::{Dialect, LicenseId, Rejection, ResponseHead};
use http::{
    HeaderName, HeaderValue, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, TRANSFER_ENCODING},
};
use pingora_core::{
    Error,
    ErrorType::{self, InvalidHTTPHeader},
    OrErr,
    protocols::http::{HttpTask, ServerSession},
};
use pingora_http::ResponseHeader;

use super::attempt_error::AttemptError;
use crate::{
    dialect::{error_body, redact::ProviderMessage},
    downstream::respond::{self, within_write_time},
    runtime::{
        drain_slots::{DrainSlot, DrainSlots},
        replays::Recorder,
    },
};

const BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
const COMMENT: &[u8] = b": keep-alive\n\n";

/// How long the end of an app's connection may take; TLS has a last word.
const SHUTDOWN: Duration = Duration::from_secs(1);

/// Why an answer is read on whose app is gone.
enum Drain<'a> {
    /// For the provider's own count, within bounds.
    Counted(Box<DrainSlot<'a>>),
    /// For others that ask the same.
    Shared,
}

pub struct ClientResponse<'a> {
    session: &'a mut ServerSession,
    request_id: Arc<str>,
    dialect: Dialect,
    is_stream: bool,
    /// A 200 head of a stream was sent: a failure can only be reported in the stream.
    head_sent: bool,
    drains: &'a DrainSlots,
    /// Whose places among them are taken.
    license: LicenseId,
    /// The app is gone, and its answer is read on.
    drain: Option<Drain<'a>>,
    /// The answer is written down for others.
    recorder: Option<Recorder>,
    /// How long the app has kept writes waiting since the provider was last waited for.
    held_up: Duration,
}

impl<'a> ClientResponse<'a> {
    pub fn new(
        session: &'a mut ServerSession,
        request_id: Arc<str>,
        dialect: Dialect,
        is_stream: bool,
        drains: &'a DrainSlots,
        license: LicenseId,
        recorder: Option<Recorder>,
    ) -> Self {
        if let Some(recorder) = &recorder {
            recorder.is_for(is_stream);
        }
        Self {
            session,
            request_id,
            dialect,
            is_stream,
            head_sent: false,
            drains,
            license,
            drain: None,
            recorder,
            held_up: Duration::ZERO,
        }
    }

    /// What it answers comes event by event.
    pub fn make_stream(&mut self) {
        self.is_stream = true;
    }

    /// Whether anything was sent to the app.
    pub fn has_begun(&self) -> bool {
        self.head_sent
    }

    /// Whether others wait for the same answer.
    pub fn is_shared(&self) -> bool {
        self.recorder.as_ref().is_some_and(Recorder::has_followers)
    }

    /// Takes down for others what the app is about to get.
    pub fn record(&mut self, head: Option<&ResponseHead>, bytes: &Bytes, is_whole: bool) {
        if let Some(recorder) = &mut self.recorder {
            recorder.record(head, bytes, is_whole);
        }
    }

    /// How long the app has kept writes waiting since this was asked last.
    pub fn take_delay(&mut self) -> Duration {
        std::mem::take(&mut self.held_up)
    }

    pub fn is_stream(&self) -> bool {
        self.is_stream
    }

    /// Whether the app is gone and its answer is drained: nothing is written any more.
    pub fn is_gone(&self) -> bool {
        self.drain.is_some()
    }

    /// Lets the app go. Whether its answer may be drained from now on: not without a free place,
    /// and not a second time.
    pub async fn let_go(&mut self) -> bool {
        if self.is_gone() {
            return false;
        }
        self.drain = match self.is_shared() {
            true => Some(Drain::Shared),
            false => self.drains.begin(self.license).map(|slot| Drain::Counted(Box::new(slot))),
        };
        if self.is_gone() {
            self.session.set_keepalive(None);
            let _ = tokio::time::timeout(SHUTDOWN, self.session.shutdown()).await;
        }
        self.is_gone()
    }

    /// Counts bytes of the answer that were read, if the app is gone.
    ///
    /// # Errors
    /// They were more than may be drained.
    pub fn drained(&mut self, bytes: usize) -> Result<(), AttemptError> {
        let enough = match &mut self.drain {
            Some(Drain::Counted(slot)) => slot.take(bytes),
            Some(Drain::Shared) | None => true,
        };
        if enough { Ok(()) } else { Err(AttemptError::AppLeft) }
    }

    /// Resolves when the app has left, or sent bytes that belong to no request; once it is gone,
    /// when draining has to end. Cancel-safe; only valid after the body was read to its end.
    pub async fn left(&mut self) {
        match (&mut self.drain, &self.recorder) {
            (Some(Drain::Counted(slot)), _) => return slot.ended().await,
            (Some(Drain::Shared), Some(recorder)) => return recorder.deserted().await,
            _ => {}
        }
        tokio::select! {
            _ = self.session.read_body_or_idle(true) => {}
            () = self.drains.cut_off() => {}
        }
        // A byte may have been taken off the connection: its next request would start one late.
        self.session.set_keepalive(None);
    }

    /// Sends the response head if needed, then an SSE comment as keep-alive.
    ///
    /// # Errors
    /// The app's connection failed.
    pub async fn keep_alive(&mut self) -> pingora_core::Result<()> {
        if self.is_gone() {
            return Ok(());
        }
        let mut tasks = Vec::with_capacity(2);
        if !self.head_sent {
            let head =
                self.stream_head(&ResponseHead { status: 200, ..ResponseHead::default() })?;
            tasks.push(head);
        }
        tasks.push(HttpTask::Body(Some(Bytes::from_static(COMMENT)), false));
        self.write(tasks).await
    }

    /// Sends bytes of a stream, with the head if it was not sent.
    ///
    /// # Errors
    /// The app's connection failed.
    pub async fn stream(
        &mut self,
        head: Option<&ResponseHead>,
        bytes: Bytes,
        end: bool,
    ) -> pingora_core::Result<()> {
        if self.drains.is_cut() && !end {
            return Err(Error::explain(ErrorType::ConnectionClosed, "the process ends"));
        }
        if self.head_sent && !end {
            let write = within_write_time(self.session.write_response_body(bytes, false));
            let (waited, written) = write.await;
            self.held_up += waited;
            return written;
        }
        let mut tasks = Vec::with_capacity(2);
        if let (Some(head), false) = (head, self.head_sent) {
            tasks.push(self.stream_head(head)?);
        }
        match (bytes.is_empty(), end) {
            (true, true) => tasks.push(HttpTask::Done),
            (true, false) => {}
            (false, end) => tasks.push(HttpTask::Body(Some(bytes), end)),
        }
        if tasks.is_empty() { Ok(()) } else { self.write(tasks).await }
    }

    /// Sends a whole answer with its length.
    ///
    /// # Errors
    /// The app's connection failed.
    pub async fn whole(&mut self, head: &ResponseHead, body: Bytes) -> pingora_core::Result<()> {
        let mut header = self.head(head, "application/json")?;
        header.set_content_length(body.len())?;
        let (waited, written) = respond::write_timed(self.session, header, body).await;
        self.held_up += waited;
        written
    }

    /// Sends the final failure: as an answer, or as the stream's last event.
    ///
    /// # Errors
    /// The app's connection failed.
    pub async fn reject(&mut self, reject: &Rejection) -> pingora_core::Result<()> {
        if self.head_sent {
            return self.stream(None, self.error_event(reject), true).await;
        }
        let id = self.request_id.clone();
        let began = Instant::now();
        let refused = respond::refuse(self.session, reject, self.dialect, &id).await;
        self.held_up += began.elapsed();
        refused
    }

    /// A refusal as the last event of a stream.
    pub fn error_event(&self, reject: &Rejection) -> Bytes {
        let envelope = error_body::refusal(reject, self.dialect, &self.request_id);
        error_body::event(&envelope, self.dialect)
    }

    /// A provider's own 4xx, cleaned; in a stream that has begun, its last event.
    ///
    /// # Errors
    /// The app's connection failed.
    pub async fn relay_error(
        &mut self,
        status: u16,
        said: &ProviderMessage,
    ) -> pingora_core::Result<()> {
        let body = error_body::relayed(status, said, self.dialect, &self.request_id);
        if self.head_sent {
            return self.stream(None, error_body::event(&body, self.dialect), true).await;
        }
        self.whole(&ResponseHead { status, ..ResponseHead::default() }, body).await
    }

    fn stream_head(&mut self, head: &ResponseHead) -> pingora_core::Result<HttpTask> {
        let mut header = self.head(head, "text/event-stream; charset=utf-8")?;
        // Reverse proxies in front of us must not collect events.
        header.insert_header(BUFFERING, "no")?;
        if !self.session.is_http2() {
            header.insert_header(TRANSFER_ENCODING, "chunked")?;
        }
        self.head_sent = true;
        Ok(HttpTask::Header(Box::new(header), false))
    }

    fn head(
        &self,
        head: &ResponseHead,
        kind: &'static str,
    ) -> pingora_core::Result<ResponseHeader> {
        // Directly into the map: these names are constants, and their case need not be kept.
        let (mut parts, ()) = http::Response::new(()).into_parts();
        parts.status = StatusCode::from_u16(head.status).or_err(InvalidHTTPHeader, "status")?;
        let headers = &mut parts.headers;
        headers.reserve(7 + head.headers.len());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        let id = HeaderValue::from_str(&self.request_id).or_err(InvalidHTTPHeader, "request id")?;
        if let Some(name) = respond::own_request_id(self.dialect) {
            headers.insert(name, id.clone());
        }
        headers.insert(respond::REQUEST_ID, id);
        for (name, value) in &head.headers {
            headers.insert(name, value.clone());
        }
        Ok(parts.into())
    }

    async fn write(&mut self, tasks: Vec<HttpTask>) -> pingora_core::Result<()> {
        let (waited, written) = within_write_time(self.session.response_duplex_vec(tasks)).await;
        self.held_up += waited;
        written
    }
}
