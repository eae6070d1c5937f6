//! A refusal becomes bytes: the only place that knows the error envelope.

use std::{future::Future, pin::pin, time::Duration};

use bytes::Bytes;
use gatekeeper_filters::kernel::{Code, Reject};
use pingora_core::{
    Error, ErrorType,
    protocols::http::{HttpTask, ServerSession},
};
use pingora_http::ResponseHeader;
use serde_json::{Map, Value, json};

/// Unread request bytes taken in after a refusal, so that closing does not reset the connection
/// before the app has read the answer.
const DRAIN_BYTES: usize = 16 * 1024 * 1024;
const DRAIN_TIME: Duration = Duration::from_secs(2);

/// The `type` of the OpenAI envelope.
fn kind(code: Code) -> &'static str {
    match code.status() {
        401 => "authentication_error",
        402 => "insufficient_quota",
        403 => "permission_error",
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        503 => "service_unavailable_error",
        _ => "upstream_error",
    }
}

/// The OpenAI error envelope. Details stand inside `error`, where SDKs keep them for the app.
pub fn envelope(reject: &Reject) -> Bytes {
    let (_, code) = reject.code.wire();
    let mut error = Map::new();
    error.insert("message".into(), json!(reject.message));
    error.insert("type".into(), json!(kind(reject.code)));
    error.insert("param".into(), json!(reject.param));
    error.insert("code".into(), json!(code));
    if let Some(url) = &reject.upgrade_url {
        error.insert("upgrade_url".into(), json!(&**url));
    }
    if let Some(quota) = &reject.quota {
        error.insert("quota".into(), json!(quota.kind));
        error.insert("limit".into(), json!(quota.limit));
        error.insert("used".into(), json!(quota.used));
        error.insert("resets_at".into(), json!(&*quota.resets_at.to_rfc3339()));
    }
    let mut whole = Map::new();
    whole.insert("error".into(), Value::Object(error));
    Bytes::from(Value::Object(whole).to_string())
}

/// An error as a stream's last event.
pub fn error_event(reject: &Reject) -> Bytes {
    Bytes::from([b"data: ", &envelope(reject)[..], b"\n\n"].concat())
}

/// Whether SDKs may send the same request again by themselves.
fn may_retry(reject: &Reject) -> bool {
    match reject.code.status() {
        429 | 502 | 503 | 504 => {
            reject.code != Code::UpstreamExhausted || reject.retry_after.is_some()
        }
        _ => false,
    }
}

fn head(reject: &Reject, request_id: &str, length: usize) -> pingora_core::Result<ResponseHeader> {
    let mut head = ResponseHeader::build_no_case(reject.code.status(), Some(8))?;
    head.insert_header("content-type", "application/json")?;
    head.insert_header("cache-control", "no-store")?;
    head.set_content_length(length)?;
    if !request_id.is_empty() {
        head.insert_header("x-request-id", request_id)?;
    }
    if let Some(seconds) = reject.retry_after {
        head.insert_header("retry-after", seconds)?;
    }
    if !may_retry(reject) {
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

/// Writes a refusal. Keeps the connection when the rest of the request is small and came in time,
/// otherwise closes it: bytes of a body are never taken for the next request.
///
/// # Errors
/// The app's connection failed.
pub async fn refuse(
    session: &mut ServerSession,
    reject: &Reject,
    request_id: &str,
) -> pingora_core::Result<()> {
    let body = envelope(reject);
    let head = head(reject, request_id, body.len())?;
    // Pingora reads on by itself before it uses a connection again, without end if it is let.
    session.set_total_drain_timeout(Some(DRAIN_TIME));
    let waits = session.response_written().is_none()
        && pingora_core::protocols::http::v1::common::is_expect_continue_req(session.req_header());
    // An app that waits for 100 sends nothing; reading would only wait for it.
    let http1 = !session.is_http2() && !waits;
    let over = !http1 || drain(session).await;
    if !over {
        session.set_keepalive(None);
    }
    write(session, head, body).await?;
    if http1 && !over {
        drain(session).await;
    }
    Ok(())
}

/// Reads on, bounded; whether the body has come to its end.
async fn drain(session: &mut ServerSession) -> bool {
    let mut taken = 0;
    let read = async {
        while !session.is_body_done() {
            match session.read_request_body().await {
                Ok(Some(chunk)) => taken += chunk.len(),
                Ok(None) => return true,
                Err(_) => return false,
            }
            if taken > DRAIN_BYTES {
                return false;
            }
        }
        true
    };
    tokio::time::timeout(DRAIN_TIME, read).await.unwrap_or(false)
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
    // An HTTP/2 writer would send the body of an answer to HEAD.
    let tasks = if session.req_header().method == http::Method::HEAD {
        vec![HttpTask::Header(Box::new(head), true)]
    } else {
        vec![HttpTask::Header(Box::new(head), false), HttpTask::Body(Some(body), true)]
    };
    within_write_time(session.response_duplex_vec(tasks)).await
}

/// A write must not take longer than [`WRITE_TIME`]. Almost every one is done at once, and then no
/// timer is made.
///
/// # Errors
/// The app's connection failed or did not take the bytes in time.
pub async fn within_write_time<T>(
    write: impl Future<Output = pingora_core::Result<T>>,
) -> pingora_core::Result<()> {
    use futures_util::FutureExt;
    let mut write = pin!(write);
    let written = match (&mut write).now_or_never() {
        Some(written) => written,
        None => match tokio::time::timeout(WRITE_TIME, write).await {
            Ok(written) => written,
            Err(_) => Err(Error::new_down(ErrorType::WriteTimedout)),
        },
    };
    written.map(|_| ())
}

/// Our own id of a request, for the operator's log.
pub const REQUEST_ID: http::HeaderName = http::HeaderName::from_static("x-request-id");

/// How long the app may take to accept one write.
pub const WRITE_TIME: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use gatekeeper_filters::kernel::{QuotaDetail, UnixMs};

    use super::*;

    #[test]
    fn the_envelope_has_all_four_members_and_the_details() {
        let reject = Reject {
            quota: Some(QuotaDetail {
                kind: "messages",
                limit: 50,
                used: 50,
                resets_at: UnixMs(1_796_083_200_000),
            }),
            ..Reject::new(Code::QuotaExceeded, "Used up.")
        }
        .upgrade_url(Some("https://example.com/upgrade".into()));
        let value: Value = serde_json::from_slice(&envelope(&reject)).unwrap();
        assert_eq!(
            value,
            json!({"error": {
                "message": "Used up.", "type": "insufficient_quota", "param": null,
                "code": "quota_exceeded", "upgrade_url": "https://example.com/upgrade",
                "quota": "messages", "limit": 50, "used": 50, "resets_at": "2026-12-01T00:00:00Z",
            }})
        );
    }

    #[test]
    fn sdks_are_told_not_to_repeat_what_can_not_succeed() {
        let retry = |code| may_retry(&Reject::new(code, ""));
        assert!(!retry(Code::QuotaExceeded) && !retry(Code::LicenseInvalid));
        assert!(!retry(Code::UpstreamExhausted));
        assert!(may_retry(&Reject::new(Code::UpstreamExhausted, "").retry_after(3)));
        assert!(retry(Code::RateLimited) && retry(Code::UpstreamError));
    }
}
