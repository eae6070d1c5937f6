//! The body of a request: read with bounds.

use std::{
    future::Future,
    pin::pin,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use gatekeeper_filters::kernel::{Code, Rejection};
use pingora_core::{
    Error, ErrorType,
    protocols::http::{ServerSession, v1::common::is_expect_continue_req},
};

use super::{memory_budget::MemoryPermit, respond};

/// From the end of the head to the end of the body: even 10 MiB on a slow line come in time.
const BODY_TIME: Duration = Duration::from_secs(120);

/// Why there is no body.
pub enum BodyError {
    Reject(Box<Rejection>),
    /// The connection broke; no answer can be sent.
    Gone(Box<pingora_core::Error>),
}

impl From<Rejection> for BodyError {
    fn from(reject: Rejection) -> Self {
        BodyError::Reject(Box::new(reject))
    }
}

/// Reads the whole body, `limit` bytes at most, counted as they come: a missing or false length
/// changes nothing.
///
/// # Errors
/// 413 above the limit, 415 when it is compressed, 400 when it does not come in time.
/// 503 when all requests together, or those of one licence or address, hold too much.
pub async fn read(
    session: &mut ServerSession,
    limit: u64,
    held: &mut MemoryPermit,
) -> Result<Bytes, BodyError> {
    read_at(session, limit, BodyPace::OF_APPS, held).await
}

/// The same at another pace.
///
/// # Errors
/// As [`read`].
pub async fn read_at(
    session: &mut ServerSession,
    limit: u64,
    pace: BodyPace,
    held: &mut MemoryPermit,
) -> Result<Bytes, BodyError> {
    let headers = &session.req_header().headers;
    if headers
        .get_all(http::header::CONTENT_ENCODING)
        .iter()
        .any(|coding| !coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity"))
    {
        let message = "Send the body uncompressed.";
        return Err(Rejection::new(Code::UnsupportedEncoding, message).into());
    }
    let stated: Option<u64> = headers
        .get(http::header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse().ok());
    if stated.is_some_and(|length| length > limit) {
        return Err(too_large(limit).into());
    }
    if is_expect_continue_req(session.req_header()) {
        // Writing the 100 would switch keep-alive off while this is on.
        session.set_close_on_response_before_downstream_finish(false);
        session.write_continue_response().await.map_err(BodyError::Gone)?;
    }
    let body = collect(session, limit, stated.unwrap_or(0) as usize, pace, held).await;
    session.set_close_on_response_before_downstream_finish(true);
    body
}

/// How fast a body has to come.
#[derive(Debug, Clone, Copy)]
pub struct BodyPace {
    /// Bytes a second.
    pub rate: u32,
    /// How long it may be slower, or silent, at a time.
    pub patience: Duration,
    /// From the end of the head to the end of the body.
    pub whole: Duration,
}

impl BodyPace {
    /// An app on the slowest line that still works.
    const OF_APPS: Self = Self { rate: 1024, patience: Duration::from_secs(8), whole: BODY_TIME };
}

/// When a body is too slow: later with each byte, but never further off than the patience. Begins with the first wait; a
/// body that has come already needs no clock.
struct BodyDeadline {
    pace: BodyPace,
    /// When it ends in any case, and when it is too slow.
    clock: Option<(Instant, Instant)>,
}

impl BodyDeadline {
    fn new(pace: BodyPace) -> Self {
        Self { pace, clock: None }
    }

    fn at(&mut self) -> Instant {
        let pace = self.pace;
        let clock = self.clock.get_or_insert_with(|| {
            let now = Instant::now();
            (now + pace.whole, now + pace.patience)
        });
        clock.0.min(clock.1)
    }

    fn came(&mut self, bytes: usize) {
        if let Some((_, due)) = &mut self.clock {
            let worth = Duration::from_micros(bytes as u64 * 1_000_000 / u64::from(self.pace.rate));
            *due = (*due + worth).min(Instant::now() + self.pace.patience);
        }
    }
}

fn late() -> Rejection {
    Rejection::new(Code::InvalidRequest, "The request body did not come in time.")
}

/// A read that failed: the app was too slow, its framing is broken, or it is gone.
fn unread(error: Box<Error>) -> BodyError {
    match error.etype() {
        ErrorType::ReadTimedout => late().into(),
        ErrorType::ConnectionClosed | ErrorType::ReadError => BodyError::Gone(error.into_down()),
        _ => Rejection::new(Code::InvalidRequest, "The request body is not well-formed.").into(),
    }
}

async fn collect(
    session: &mut ServerSession,
    limit: u64,
    stated: usize,
    pace: BodyPace,
    held: &mut MemoryPermit,
) -> Result<Bytes, BodyError> {
    let mut first: Option<Bytes> = None;
    let mut rest = BytesMut::new();
    let mut length = 0u64;
    let mut due = BodyDeadline::new(pace);
    loop {
        let read = in_time(session.read_request_body(), &mut due).await;
        let chunk = match read.ok_or_else(late)? {
            Ok(Some(chunk)) => chunk,
            Ok(None) => break,
            Err(error) => {
                // Where this body ends is unclear, so nothing after it can be a request.
                session.set_keepalive(None);
                return Err(unread(error));
            }
        };
        length += chunk.len() as u64;
        if length > limit {
            return Err(too_large(limit).into());
        }
        due.came(chunk.len());
        if let Err(why) = held.grow(chunk.len(), session.is_body_done()) {
            return Err(respond::too_busy(why).into());
        }
        match &first {
            None if rest.is_empty() => first = Some(chunk),
            _ => {
                if let Some(begun) = first.take() {
                    rest.reserve(stated.max(begun.len() + chunk.len()));
                    rest.extend_from_slice(&begun);
                }
                rest.extend_from_slice(&chunk);
            }
        }
        if session.is_body_done() {
            break;
        }
    }
    Ok(first.unwrap_or_else(|| rest.freeze()))
}

/// `None` when it is late. Almost always it is done at once, and then no clock is looked at.
async fn in_time<T>(read: impl Future<Output = T>, due: &mut BodyDeadline) -> Option<T> {
    let mut read = pin!(read);
    if let Some(done) = (&mut read).now_or_never() {
        return Some(done);
    }
    tokio::time::timeout_at(due.at().into(), read).await.ok()
}

fn too_large(limit: u64) -> Rejection {
    Rejection::new(
        Code::BodyTooLarge,
        format!("This request is larger than {limit} bytes. Send fewer or smaller messages."),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_body_is_due_when_its_patience_is_used_up() {
        let second = Duration::from_secs(1);
        let pace = BodyPace { rate: 1024, patience: 8 * second, whole: 60 * second };
        let mut due = BodyDeadline::new(pace);
        let began = Instant::now();
        let first = due.at();
        assert!(first >= began + 8 * second && first < began + 9 * second);
        due.came(1);
        assert!(due.at() < first + second / 100, "one byte is worth a thousandth of a second");
        due.came(1 << 20);
        let now = Instant::now();
        assert!(due.at() <= now + 8 * second, "a fast beginning buys no long pause");
        assert!(due.at() <= began + 61 * second);
    }
}
