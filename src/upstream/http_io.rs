//! HTTP/1 and HTTP/2 message I/O with a provider.

use std::time::Duration;

use bytes::Bytes;
use pingora_core::{Error, protocols::http::client::HttpSession};

/// Larger request bodies are written in slices, with a look for an early answer between them.
const SLICE: usize = 64 * 1024;

/// The connection was closed under the request.
pub fn is_peer_closed(error: &Error) -> bool {
    use pingora_core::ErrorType::{ConnectionClosed, ReadError, WriteError};
    matches!(error.etype(), ConnectionClosed | ReadError | WriteError) || was_refused(error)
}

/// HTTP/2: the provider says that it did nothing with the request, which Pingora decides: a refused stream, a
/// connection that was going away.
pub fn was_refused(error: &Error) -> bool {
    matches!(error.retry, pingora_core::RetryType::Decided(true))
}

/// Writes the body; whether all of it: an answer may come before.
///
/// # Errors
/// The connection failed and no answer had come.
pub async fn write_body(session: &mut HttpSession, pieces: &[Bytes]) -> pingora_core::Result<bool> {
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
///
/// # Errors
/// The connection failed, or what came is no answer.
pub async fn read_head(session: &mut HttpSession) -> pingora_core::Result<()> {
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

/// An error's kind and context, without the peer's printed options.
pub fn brief(error: &Error) -> String {
    let mut text = error.etype().as_str().to_owned();
    if let Some(cause) = error.root_cause().to_string().lines().next().filter(|c| !c.is_empty()) {
        text.push_str(": ");
        text.push_str(&cause.chars().take(160).collect::<String>());
    }
    text
}
