//! The error envelopes of the dialects: an app's SDK shows the message of its own only. Details stand
//! inside `error`, where SDKs keep them for the app.

use bytes::Bytes;
use gatekeeper_filters::kernel::{Dialect, Rejection};
use serde_json::{Map, Value, json};

use crate::dialect::redact::ProviderMessage;

/// Our own refusal.
pub fn refusal(reject: &Rejection, dialect: Dialect, request_id: &str) -> Bytes {
    let (status, code) = reject.code.wire();
    let mut details = Map::new();
    if let Some(url) = &reject.upgrade_url {
        details.insert("upgrade_url".into(), json!(&**url));
    }
    if let Some(quota) = &reject.quota {
        details.insert("quota".into(), json!(quota.kind));
        details.insert("limit".into(), json!(quota.limit));
        details.insert("used".into(), json!(quota.used));
        details.insert("resets_at".into(), json!(&*quota.resets_at.to_rfc3339()));
    }
    let error =
        ErrorBody { message: &reject.message, kind: None, code, param: reject.param.as_deref() };
    error.written(status, dialect, details, request_id)
}

/// A provider's 4xx about the request itself, cleaned.
pub fn relayed(status: u16, said: &ProviderMessage, dialect: Dialect, request_id: &str) -> Bytes {
    let error = ErrorBody {
        message: &said.message,
        kind: Some(&said.kind),
        code: &said.code,
        param: Some(&*said.param).filter(|param| !param.is_empty()),
    };
    let mut details = Map::new();
    if !said.failed_generation.is_empty() {
        details.insert("failed_generation".into(), json!(said.failed_generation));
    }
    error.written(status, dialect, details, request_id)
}

/// An error as a stream's last event.
pub fn event(envelope: &[u8], dialect: Dialect) -> Bytes {
    let name: &[u8] = match dialect {
        Dialect::Anthropic => b"event: error\n",
        Dialect::OpenAi | Dialect::Gemini => b"",
    };
    Bytes::from([name, b"data: ", envelope, b"\n\n"].concat())
}

struct ErrorBody<'a> {
    message: &'a str,
    /// The provider's own, where it is one of this dialect.
    kind: Option<&'a str>,
    code: &'a str,
    param: Option<&'a str>,
}

impl ErrorBody<'_> {
    fn written(
        &self,
        status: u16,
        dialect: Dialect,
        mut details: Map<String, Value>,
        request_id: &str,
    ) -> Bytes {
        let whole = match dialect {
            Dialect::OpenAi => {
                details.insert("message".into(), json!(self.message));
                details.insert("type".into(), json!(self.kind.unwrap_or(openai_type(status))));
                details.insert("param".into(), json!(self.param));
                details.insert("code".into(), json!(self.code));
                json!({ "error": details })
            }
            Dialect::Anthropic => {
                details.insert("message".into(), json!(self.message));
                details.insert("type".into(), json!(self.kind.unwrap_or(anthropic_type(status))));
                details.insert("code".into(), json!(self.code));
                // Its SDK shows a message at the top, or else the whole body as text.
                json!({
                    "type": "error", "error": details, "request_id": request_id,
                    "message": self.message,
                })
            }
            Dialect::Gemini => {
                // `google.rpc.ErrorInfo`: reasons in capitals, metadata of strings. Google's own code
                // is but the status again.
                let is_number = self.code.bytes().all(|byte| byte.is_ascii_digit());
                let reason = if is_number { google_status(status) } else { self.code };
                let metadata: Map<String, Value> = details
                    .into_iter()
                    .map(|(name, value)| {
                        (name, json!(value.as_str().map_or(value.to_string(), Into::into)))
                    })
                    .collect();
                json!({ "error": {
                    "code": status,
                    "message": self.message,
                    "status": google_status(status),
                    "details": [{
                        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                        "reason": reason.to_ascii_uppercase(),
                        "domain": "gatekeeper",
                        "metadata": metadata,
                    }],
                }})
            }
        };
        Bytes::from(whole.to_string())
    }
}

fn openai_type(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        402 => "insufficient_quota",
        403 => "permission_error",
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        503 => "service_unavailable_error",
        _ => "upstream_error",
    }
}

/// As its reference lists them.
fn anthropic_type(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        503 => "overloaded_error",
        504 => "timeout_error",
        _ => "api_error",
    }
}

/// The name of a `google.rpc.Code`.
fn google_status(status: u16) -> &'static str {
    match status {
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 | 405 => "NOT_FOUND",
        402 | 429 => "RESOURCE_EXHAUSTED",
        400..=499 => "INVALID_ARGUMENT",
        503 => "UNAVAILABLE",
        504 => "DEADLINE_EXCEEDED",
        _ => "INTERNAL",
    }
}

#[cfg(test)]
mod tests {
    use gatekeeper_filters::kernel::{Code, QuotaDetail, UnixMs};

    use super::*;

    fn used_up(dialect: Dialect) -> Value {
        let reject = Rejection {
            quota: Some(QuotaDetail {
                kind: "messages",
                limit: 50,
                used: 50,
                resets_at: UnixMs(1_796_083_200_000),
            }),
            ..Rejection::new(Code::QuotaExceeded, "Used up.")
        }
        .upgrade_url(Some("https://example.com/upgrade".into()));
        serde_json::from_slice(&refusal(&reject, dialect, "req_1")).unwrap()
    }

    #[test]
    fn each_dialect_has_its_own_with_all_details() {
        assert_eq!(
            used_up(Dialect::OpenAi),
            json!({"error": {
                "message": "Used up.", "type": "insufficient_quota", "param": null,
                "code": "quota_exceeded", "upgrade_url": "https://example.com/upgrade",
                "quota": "messages", "limit": 50, "used": 50, "resets_at": "2026-12-01T00:00:00Z",
            }})
        );
        assert_eq!(
            used_up(Dialect::Anthropic),
            json!({"type": "error", "request_id": "req_1", "message": "Used up.", "error": {
                "message": "Used up.", "type": "billing_error",
                "code": "quota_exceeded", "upgrade_url": "https://example.com/upgrade",
                "quota": "messages", "limit": 50, "used": 50, "resets_at": "2026-12-01T00:00:00Z",
            }})
        );
        assert_eq!(
            used_up(Dialect::Gemini),
            json!({"error": {
                "code": 402, "message": "Used up.", "status": "RESOURCE_EXHAUSTED",
                "details": [{
                    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                    "reason": "QUOTA_EXCEEDED", "domain": "gatekeeper",
                    "metadata": {
                        "upgrade_url": "https://example.com/upgrade", "quota": "messages",
                        "limit": "50", "used": "50", "resets_at": "2026-12-01T00:00:00Z",
                    },
                }],
            }})
        );
    }
}
