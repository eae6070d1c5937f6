//! Answers of the admin listener.

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header};
use pingora_core::protocols::http::ServerSession;
use pingora_http::ResponseHeader;
use serde_json::Value;

use crate::license_admin::ApiError;

pub type AdminReply = Response<Bytes>;

pub fn check_get(session: &ServerSession) -> Result<(), ApiError> {
    let method = &session.req_header().method;
    if method == Method::GET || method == Method::HEAD {
        return Ok(());
    }
    let message = "This address takes GET requests only.";
    Err(ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message))
}

pub fn json_answer(status: StatusCode, value: &Value) -> AdminReply {
    let body = serde_json::to_vec(value).unwrap_or_default();
    answer(status, "application/json", body)
}

pub fn text(status: StatusCode, words: &'static str) -> AdminReply {
    answer(status, "text/plain; charset=utf-8", words)
}

/// With everything that keeps a browser from doing more with it than show it.
pub fn answer(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> AdminReply {
    const ALWAYS: [(&str, &str); 7] = [
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-embedder-policy", "require-corp"),
        ("cross-origin-resource-policy", "same-origin"),
    ];
    let body = body.into();
    let length = body.len();
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    for (name, value) in ALWAYS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let policy = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    if !kind.is_empty() {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(header::CONTENT_LENGTH, length.into());
    }
    answer
}

/// Writes the head of an answer that goes on.
pub async fn write_head(
    session: &mut ServerSession,
    head: Response<()>,
) -> pingora_core::Result<()> {
    let head: ResponseHeader = head.into_parts().0.into();
    session.write_response_header(Box::new(head)).await
}
