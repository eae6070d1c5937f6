//! HTTP/1 and HTTP/2 message I/O with a provider.

use std::{future::poll_fn, pin::pin};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName};
use pingora_core::{
    Error,
    ErrorType::{H2Error, WriteError},
    OrErr,
    protocols::{Stream, http::v2::client::Http2Session},
};
use pingora_http::RequestHeader;

use super::http1::Http1Session;

/// The head of a request as its connection needs it.
pub enum RequestHead {
    /// With its empty line.
    Http1(BytesMut),
    Http2(Box<RequestHeader>),
}

pub enum ProviderSession {
    Http1(Http1Session),
    Http2(Box<Http2Session>),
}

/// Fields of an answer's head, by their names in lower case.
pub trait ResponseHeaders {
    fn field(&self, name: &HeaderName) -> Option<&[u8]>;

    fn text(&self, name: &HeaderName) -> Option<&str> {
        std::str::from_utf8(self.field(name)?).ok()
    }
}

impl ResponseHeaders for HeaderMap {
    fn field(&self, name: &HeaderName) -> Option<&[u8]> {
        self.get(name).map(http::HeaderValue::as_bytes)
    }
}

impl ResponseHeaders for ProviderSession {
    fn field(&self, name: &HeaderName) -> Option<&[u8]> {
        match self {
            Self::Http1(session) => session.head()?.get(name.as_str()),
            Self::Http2(session) => session.response_header()?.headers.field(name),
        }
    }
}

impl ProviderSession {
    pub fn is_http2(&self) -> bool {
        matches!(self, Self::Http2(_))
    }

    /// The connection, where it is this session's alone.
    pub fn stream(&self) -> Option<&Stream> {
        match self {
            Self::Http1(session) => Some(session.stream()),
            Self::Http2(_) => None,
        }
    }

    /// Writes a request; whether all of it: an answer may come before.
    ///
    /// # Errors
    /// The connection failed and no answer had come.
    pub async fn write(&mut self, head: RequestHead, body: &[Bytes]) -> pingora_core::Result<bool> {
        match (self, head) {
            (Self::Http1(session), RequestHead::Http1(head)) => session.write(head, body).await,
            (Self::Http2(session), RequestHead::Http2(head)) => {
                write_http2(session, head, body).await
            }
            _ => Error::e_explain(
                pingora_core::ErrorType::InternalError,
                "a head of another version",
            ),
        }
    }

    /// Reads the final head: informational ones are passed over, a switch of protocols is no answer.
    ///
    /// # Errors
    /// The connection failed, or what came is no answer.
    pub async fn read_head(&mut self) -> pingora_core::Result<()> {
        match self {
            Self::Http1(session) => session.read_head().await,
            Self::Http2(session) if session.response_header().is_some() => Ok(()),
            Self::Http2(session) => session.read_response_header().await,
        }
    }

    /// Whether the connection can serve another request once this answer is read to its end.
    pub fn is_kept(&self) -> bool {
        match self {
            Self::Http1(session) => session.is_kept(),
            Self::Http2(_) => true,
        }
    }

    /// Whether any of an answer has come. HTTP/2 says nothing of informational heads.
    pub fn has_heard(&self) -> bool {
        match self {
            Self::Http1(session) => session.has_heard(),
            Self::Http2(session) => session.response_header().is_some(),
        }
    }

    /// The status, once the head was read.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Http1(session) => session.head().map(|head| head.status),
            Self::Http2(session) => session.response_header().map(|head| head.status.as_u16()),
        }
    }

    /// All fields of the head.
    pub fn headers(&self) -> HeaderMap {
        let headers = match self {
            Self::Http1(session) => session.head().map(super::http1::ResponseFields::to_map),
            Self::Http2(session) => session.response_header().map(|head| head.headers.clone()),
        };
        headers.unwrap_or_default()
    }

    /// The next bytes of the body; `None` at its end.
    ///
    /// # Errors
    /// The connection failed, or ended before the body.
    pub async fn read_body(&mut self) -> pingora_core::Result<Option<Bytes>> {
        match self {
            Self::Http1(session) => session.read_body().await,
            Self::Http2(session) => session.read_response_body().await,
        }
    }

    /// Whether the body has ended. HTTP/2 signals that separately, and may have failed.
    ///
    /// # Errors
    /// An HTTP/2 stream was reset.
    pub fn ended(&mut self) -> pingora_core::Result<bool> {
        match self {
            Self::Http1(session) => Ok(session.is_ended()),
            Self::Http2(session) => session.check_response_end_or_error(),
        }
    }
}

/// Writes a request with an eye on its answer, as HTTP/1 does: a provider that has refused may give no more room, and
/// one that resets the stream has perhaps answered before. A good answer that begins early gets the rest.
async fn write_http2(
    session: &mut Http2Session,
    head: Box<RequestHeader>,
    body: &[Bytes],
) -> pingora_core::Result<bool> {
    let last = body.iter().rposition(|piece| !piece.is_empty());
    session.write_request_header(head, last.is_none())?;
    let Some(mut writer) = session.take_request_body_writer() else { return Ok(true) };
    let mut sending = pin!(async {
        for (place, piece) in body.iter().enumerate() {
            let mut rest = piece.clone();
            while !rest.is_empty() {
                writer.reserve_capacity(rest.len());
                let Some(room) = poll_fn(|context| writer.poll_capacity(context)).await else {
                    return Error::e_explain(H2Error, "the stream ended under the request");
                };
                let room = room.or_err(H2Error, "while waiting for room for the request")?;
                let slice = rest.split_to(room.min(rest.len()));
                let is_last = rest.is_empty() && Some(place) == last;
                writer.send_data(slice, is_last).or_err(WriteError, "while writing the request")?;
            }
        }
        Ok(())
    });
    let sent = tokio::select! {
        biased;
        sent = &mut sending => sent,
        answered = session.read_response_header() => {
            answered?;
            if is_refused(session) {
                return Ok(false);
            }
            sending.await
        }
    };
    match sent {
        Ok(()) => Ok(true),
        Err(_) if session.response_header().is_some() => Ok(false),
        Err(error) => {
            let answer = tokio::time::timeout(EARLY_ANSWER, session.read_response_header());
            // What became of the stream is said there, too, and whether the request was looked at.
            answer.await.unwrap_or(Err(error)).map(|()| false)
        }
    }
}

fn is_refused(session: &Http2Session) -> bool {
    session.response_header().is_some_and(|head| head.status.as_u16() >= 300)
}

/// How long the answer may take that explains why a request could not be written.
const EARLY_ANSWER: std::time::Duration = std::time::Duration::from_secs(1);

/// The connection was closed under the request.
pub fn is_peer_closed(error: &Error) -> bool {
    use pingora_core::ErrorType::{ConnectionClosed, ReadError, WriteError};
    matches!(error.etype(), ConnectionClosed | ReadError | WriteError) || was_refused(error)
}

/// What came is no HTTP.
pub fn is_malformed(error: &Error) -> bool {
    use pingora_core::ErrorType::{InvalidH2, InvalidHTTPHeader};
    matches!(error.etype(), InvalidHTTPHeader | InvalidH2)
}

/// HTTP/2: the provider says that it did nothing with the request, which Pingora decides: a refused stream, a
/// connection that was going away.
pub fn was_refused(error: &Error) -> bool {
    matches!(error.retry, pingora_core::RetryType::Decided(true))
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
