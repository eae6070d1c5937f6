//! The body of a request: read with bounds.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use gatekeeper_filters::kernel::{Code, Reject};
use pingora_core::{
    Error, ErrorType,
    protocols::http::{ServerSession, v1::common::is_expect_continue_req},
};

use super::respond;

/// From the end of the head to the end of the body: even 10 MiB on a slow line come in time.
const BODY_TIME: Duration = Duration::from_secs(120);

/// What the operator is told where too much is held.
pub const FULL: &str = "`server.limits.buffered` is reached";

/// Why there is no body.
pub enum BodyError {
    Reject(Box<Reject>),
    /// The connection broke; nobody is there to read an answer.
    Gone(Box<pingora_core::Error>),
}

impl From<Reject> for BodyError {
    fn from(reject: Reject) -> Self {
        BodyError::Reject(Box::new(reject))
    }
}

/// Reads the whole body, `limit` bytes at most, counted as they come: a missing or false length
/// changes nothing.
///
/// # Errors
/// 413 above the limit, 415 when it is compressed, 400 when it does not come in time.
/// 503 when all requests together hold too much.
pub async fn read(
    session: &mut ServerSession,
    limit: u64,
    held: &mut Held,
) -> Result<Bytes, BodyError> {
    let headers = &session.req_header().headers;
    if headers
        .get_all(http::header::CONTENT_ENCODING)
        .iter()
        .any(|coding| !coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity"))
    {
        let message = "Send the body uncompressed.";
        return Err(Reject::new(Code::UnsupportedEncoding, message).into());
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
    let read = collect(session, limit, stated.unwrap_or(0) as usize, held);
    let body = tokio::time::timeout(BODY_TIME, read).await;
    session.set_close_on_response_before_downstream_finish(true);
    body.unwrap_or_else(|_| Err(late().into()))
}

fn late() -> Reject {
    Reject::new(Code::InvalidRequest, "The request body did not come in time.")
}

/// A read that failed: the app was too slow, its framing is broken, or it is gone.
fn unread(error: Box<Error>) -> BodyError {
    match error.etype() {
        ErrorType::ReadTimedout => late().into(),
        ErrorType::ConnectionClosed | ErrorType::ReadError => BodyError::Gone(error.into_down()),
        _ => Reject::new(Code::InvalidRequest, "The request body is not well-formed.").into(),
    }
}

async fn collect(
    session: &mut ServerSession,
    limit: u64,
    stated: usize,
    held: &mut Held,
) -> Result<Bytes, BodyError> {
    let mut first: Option<Bytes> = None;
    let mut rest = BytesMut::new();
    let mut length = 0u64;
    loop {
        let chunk = match session.read_request_body().await {
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
        if !held.grow(chunk.len()) {
            return Err(respond::too_busy(FULL).into());
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

/// Bytes of requests and answers that are held at one time, over all requests.
#[derive(Default)]
pub struct Buffered {
    used: AtomicU64,
    limit: AtomicU64,
}

/// One request's share; given back when dropped.
pub struct Held {
    of: Arc<Buffered>,
    body: u64,
    answer: u64,
}

impl Buffered {
    /// Sets the limit, in bytes. What is held already stays.
    pub fn resize(&self, limit: u64) {
        self.limit.store(limit, Relaxed);
    }

    pub fn share(self: &Arc<Self>) -> Held {
        Held { of: self.clone(), body: 0, answer: 0 }
    }

    /// Whether so many bytes more fit. They are counted in any case.
    fn take(&self, bytes: u64) -> bool {
        self.used.fetch_add(bytes, Relaxed) + bytes <= self.limit.load(Relaxed)
    }
}

impl Held {
    /// Whether so many bytes more of the body fit.
    fn grow(&mut self, bytes: usize) -> bool {
        self.body += bytes as u64;
        self.of.take(bytes as u64)
    }

    /// Sets how many bytes of an answer are held; whether they fit.
    pub fn set_answer(&mut self, bytes: usize) -> bool {
        let before = std::mem::replace(&mut self.answer, bytes as u64);
        match self.answer.checked_sub(before) {
            Some(0) => true,
            Some(more) => self.of.take(more),
            None => {
                self.of.used.fetch_sub(before - self.answer, Relaxed);
                true
            }
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.of.used.fetch_sub(self.body + self.answer, Relaxed);
    }
}

fn too_large(limit: u64) -> Reject {
    Reject::new(
        Code::BodyTooLarge,
        format!("This request is larger than {limit} bytes. Send fewer or smaller messages."),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_and_answers_share_one_limit_and_give_back_what_they_took() {
        let buffered = Arc::new(Buffered::default());
        buffered.resize(100);
        let (mut one, mut other) = (buffered.share(), buffered.share());
        assert!(one.grow(60) && other.set_answer(40));
        assert!(other.set_answer(40), "nothing more is nothing to refuse");
        assert!(!other.set_answer(41));
        assert!(other.set_answer(0) && one.set_answer(40));
        assert!(!other.grow(1));
        drop(one);
        assert!(other.grow(99) && !other.grow(1));
        drop(other);
        assert_eq!(buffered.used.load(Relaxed), 0);
    }
}
