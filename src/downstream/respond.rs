//! Turns a refusal into bytes, in the error format of the app's API.

use std::{
    future::Future,
    pin::pin,
    time::{Duration, Instant},
};

use bytes::Bytes;
use gatekeeper_filters::kernel::{Code, Dialect, Rejection};
use pingora_core::{
    Error, ErrorType,
    protocols::http::{HttpTask, ServerSession},
};
use pingora_http::ResponseHeader;

use crate::{
    dialect::error_body,
    downstream::refusal::{LINGER, LINGER_BYTES},
};

/// The gateway itself is short of something, which `why` names for the operator.
pub fn too_busy(why: &str) -> Rejection {
    Rejection::new(
        Code::UpstreamExhausted,
        "The service is very busy. Please try again in a moment.",
    )
    .internal(why)
    .retry_after(1)
}

/// Whether SDKs may send the same request again by themselves.
fn may_retry(reject: &Rejection) -> bool {
    match reject.code.status() {
        429 | 502 | 503 | 504 => {
            reject.code != Code::UpstreamExhausted || reject.retry_after.is_some()
        }
        _ => false,
    }
}

/// The app's limit, in seconds, for the pause before its SDK retries.
const MAX_WAIT: &str = "x-max-wait";

/// Whether what it would have to wait is longer than the app wants its SDK to.
fn is_too_long(reject: &Rejection, headers: &http::HeaderMap) -> bool {
    let most =
        headers.get(MAX_WAIT).and_then(|most| most.to_str().ok()?.trim().parse::<f64>().ok());
    let most = most.filter(|most| *most >= 0.0);
    most.is_some_and(|most| reject.retry_after.is_some_and(|wait| wait as f64 > most))
}

fn head(
    reject: &Rejection,
    dialect: Dialect,
    request_id: &str,
    length: usize,
    may_retry: bool,
) -> pingora_core::Result<ResponseHeader> {
    let mut head = ResponseHeader::build_no_case(reject.code.status(), Some(8))?;
    head.insert_header("content-type", "application/json")?;
    head.insert_header("cache-control", "no-store")?;
    head.set_content_length(length)?;
    if !request_id.is_empty() {
        head.insert_header(REQUEST_ID, request_id)?;
        if let Some(name) = own_request_id(dialect) {
            head.insert_header(name, request_id)?;
        }
    }
    if let Some(seconds) = reject.retry_after {
        head.insert_header("retry-after", seconds)?;
    }
    if !may_retry {
        head.insert_header("x-should-retry", "false")?;
    }
    if reject.code == Code::LicenseMissing {
        head.insert_header("www-authenticate", "Bearer")?;
    }
    if let Some(method) = reject.allow {
        head.insert_header("allow", method)?;
    }
    Ok(head)
}

/// Writes a refusal. Keeps the connection if the rest of the request has arrived, otherwise closes it:
/// bytes of a body are never taken for the next request. What is still arriving is read for a short time
/// after the answer.
///
/// # Errors
/// The app's connection failed.
pub async fn refuse(
    session: &mut ServerSession,
    reject: &Rejection,
    dialect: Dialect,
    request_id: &str,
) -> pingora_core::Result<()> {
    let body = error_body::refusal(reject, dialect, request_id);
    let may_retry = may_retry(reject) && !is_too_long(reject, &session.req_header().headers);
    let head = head(reject, dialect, request_id, body.len(), may_retry)?;
    let is_over = take_what_is_here(session);
    write(session, head, body).await?;
    if !is_over {
        linger(session).await;
    }
    Ok(())
}

/// Reads what has come of the body already; whether that is all of it. Otherwise the connection is to be closed.
pub fn take_what_is_here(session: &mut ServerSession) -> bool {
    use futures_util::FutureExt;
    // Pingora reads on by itself before it uses a connection again, without end if it is let.
    session.set_total_drain_timeout(Some(LINGER));
    // An app that waits for 100 sends nothing; reading would only wait for it.
    let waits = session.response_written().is_none()
        && pingora_core::protocols::http::v1::common::is_expect_continue_req(session.req_header());
    let is_over = session.is_body_done() || !waits && drain(session).now_or_never() == Some(true);
    if !is_over {
        session.set_keepalive(None);
    }
    is_over
}

/// Reads what is still arriving, for a short time: closing would reset the connection before the app has
/// read the answer, and each further frame would count against an HTTP/2 connection.
pub async fn linger(session: &mut ServerSession) {
    let _ = tokio::time::timeout(LINGER, drain(session)).await;
}

/// Reads on, bounded in bytes; whether the body has ended.
async fn drain(session: &mut ServerSession) -> bool {
    let mut taken = 0;
    while !session.is_body_done() {
        match session.read_request_body().await {
            Ok(Some(chunk)) => taken += chunk.len(),
            Ok(None) => return true,
            Err(_) => return false,
        }
        if taken > LINGER_BYTES {
            return false;
        }
    }
    true
}

/// Writes a whole answer.
///
/// # Errors
/// The app's connection failed or did not take the answer in time.
pub async fn write(
    session: &mut ServerSession,
    head: ResponseHeader,
    body: Bytes,
) -> pingora_core::Result<()> {
    write_timed(session, head, body).await.1
}

/// The same, and how long the app kept it waiting.
pub async fn write_timed(
    session: &mut ServerSession,
    head: ResponseHeader,
    body: Bytes,
) -> (Duration, pingora_core::Result<()>) {
    // An HTTP/2 writer would send the body of an answer to HEAD.
    let tasks = if session.req_header().method == http::Method::HEAD {
        vec![HttpTask::Header(Box::new(head), true)]
    } else {
        vec![HttpTask::Header(Box::new(head), false), HttpTask::Body(Some(body), true)]
    };
    within_write_time(session.response_duplex_vec(tasks)).await
}

/// How long the app kept a write waiting, and what came of it. A write must not take longer than [`WRITE_TIME`]. Almost every one is done at once, and then no
/// timer is made.
pub async fn within_write_time<T>(
    write: impl Future<Output = pingora_core::Result<T>>,
) -> (Duration, pingora_core::Result<()>) {
    use futures_util::FutureExt;
    let mut write = pin!(write);
    if let Some(written) = (&mut write).now_or_never() {
        return (Duration::ZERO, written.map(|_| ()));
    }
    let began = Instant::now();
    let written = match tokio::time::timeout(WRITE_TIME, write).await {
        Ok(written) => written,
        Err(_) => Err(Error::new_down(ErrorType::WriteTimedout)),
    };
    (began.elapsed(), written.map(|_| ()))
}

/// Our own id of a request, for the operator's log.
pub const REQUEST_ID: http::HeaderName = http::HeaderName::from_static("x-request-id");

/// Where the SDK of a dialect looks for the id, if elsewhere.
pub fn own_request_id(dialect: Dialect) -> Option<http::HeaderName> {
    const ANTHROPIC: http::HeaderName = http::HeaderName::from_static("request-id");
    (dialect == Dialect::Anthropic).then_some(ANTHROPIC)
}

/// How long the app may take to accept one write.
pub const WRITE_TIME: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_may_bound_what_its_sdk_waits() {
        let too_long = |wait: Option<u64>, most: &str| {
            let mut reject = Rejection::new(Code::RateLimited, "");
            reject.retry_after = wait;
            let headers = [(http::HeaderName::from_static(MAX_WAIT), most.parse().unwrap())];
            is_too_long(&reject, &headers.into_iter().collect())
        };
        assert!(too_long(Some(20), "5") && too_long(Some(6), "5.5") && too_long(Some(1), "0"));
        assert!(!too_long(Some(5), "5") && !too_long(None, "5"));
        for odd in ["", "-1", "soon", "NaN"] {
            assert!(!too_long(Some(20), odd), "{odd}");
        }
    }

    #[test]
    fn sdks_are_told_not_to_repeat_what_can_not_succeed() {
        let retry = |code| may_retry(&Rejection::new(code, ""));
        assert!(!retry(Code::QuotaExceeded) && !retry(Code::LicenseInvalid));
        assert!(!retry(Code::UpstreamExhausted));
        assert!(may_retry(&Rejection::new(Code::UpstreamExhausted, "").retry_after(3)));
        assert!(retry(Code::RateLimited) && retry(Code::UpstreamError));
    }
}
