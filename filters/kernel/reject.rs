//! A refusal: a code from the closed list, words for the buyer, other words for the operator.
//!
//! Only `src/downstream/respond.rs` turns one into bytes.

use std::sync::Arc;

use super::period::UnixMs;

/// Every way a request can be refused. The wire name is what apps match on: never rename one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    LicenseMissing,
    LicenseInvalid,
    LicenseExpired,
    LicenseDisabled,
    LicenseRefunded,
    LicenseWrongProduct,
    DeviceLimit,
    ModelNotAllowed,
    PromptRequired,
    ConversationLimited,
    QuotaExceeded,
    RateLimited,
    /// The same as [`Code::ConversationLimited`], and over within a minute.
    ConversationTooFast,
    InvalidRequest,
    ModelNotFound,
    NotFound,
    MethodNotAllowed,
    BodyTooLarge,
    UnsupportedEncoding,
    UpstreamError,
    UpstreamTimeout,
    UpstreamExhausted,
    LicenseCheckUnavailable,
    StoreUnavailable,
    ShuttingDown,
}

impl Code {
    /// In the order of their declaration.
    pub const ALL: [Code; 25] = [
        Code::LicenseMissing,
        Code::LicenseInvalid,
        Code::LicenseExpired,
        Code::LicenseDisabled,
        Code::LicenseRefunded,
        Code::LicenseWrongProduct,
        Code::DeviceLimit,
        Code::ModelNotAllowed,
        Code::PromptRequired,
        Code::ConversationLimited,
        Code::QuotaExceeded,
        Code::RateLimited,
        Code::ConversationTooFast,
        Code::InvalidRequest,
        Code::ModelNotFound,
        Code::NotFound,
        Code::MethodNotAllowed,
        Code::BodyTooLarge,
        Code::UnsupportedEncoding,
        Code::UpstreamError,
        Code::UpstreamTimeout,
        Code::UpstreamExhausted,
        Code::LicenseCheckUnavailable,
        Code::StoreUnavailable,
        Code::ShuttingDown,
    ];

    /// HTTP status and the `code` of the error envelope.
    pub fn wire(self) -> (u16, &'static str) {
        match self {
            Code::LicenseMissing => (401, "license_missing"),
            Code::LicenseInvalid => (403, "license_invalid"),
            Code::LicenseExpired => (403, "license_expired"),
            Code::LicenseDisabled => (403, "license_disabled"),
            Code::LicenseRefunded => (403, "license_refunded"),
            Code::LicenseWrongProduct => (403, "license_wrong_product"),
            Code::DeviceLimit => (403, "device_limit"),
            Code::ModelNotAllowed => (403, "model_not_allowed"),
            Code::PromptRequired => (403, "prompt_required"),
            Code::ConversationLimited => (403, "conversation_limited"),
            Code::ConversationTooFast => (429, "conversation_limited"),
            Code::QuotaExceeded => (402, "quota_exceeded"),
            Code::RateLimited => (429, "rate_limited"),
            Code::InvalidRequest => (400, "invalid_request"),
            Code::ModelNotFound => (404, "model_not_found"),
            Code::NotFound => (404, "not_found"),
            Code::MethodNotAllowed => (405, "method_not_allowed"),
            Code::BodyTooLarge => (413, "body_too_large"),
            Code::UnsupportedEncoding => (415, "unsupported_encoding"),
            Code::UpstreamError => (502, "upstream_error"),
            Code::UpstreamTimeout => (504, "upstream_timeout"),
            Code::UpstreamExhausted => (503, "upstream_exhausted"),
            Code::LicenseCheckUnavailable => (503, "license_check_unavailable"),
            Code::StoreUnavailable => (503, "store_unavailable"),
            Code::ShuttingDown => (503, "shutting_down"),
        }
    }

    pub fn status(self) -> u16 {
        self.wire().0
    }
}

/// Longest `retry-after` ever sent, in seconds: SDKs obey longer ones and hang the app.
pub const MAX_RETRY_AFTER: u64 = 60;

#[derive(Debug, Clone)]
pub struct Rejection {
    pub code: Code,
    /// For the buyer: what happened and what to do, no names of providers, keys or hosts.
    pub message: String,
    /// For the operator's log; empty when `message` is sufficient.
    pub internal: String,
    /// The request field at fault.
    pub param: Option<String>,
    /// Seconds, ≤ [`MAX_RETRY_AFTER`].
    pub retry_after: Option<u64>,
    pub upgrade_url: Option<Arc<str>>,
    pub quota: Option<QuotaDetail>,
    /// The value of `Allow` in a 405 (RFC 9110 section 15.5.6).
    pub allow: Option<&'static str>,
}

/// Details of a 402, and of a 403 of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaDetail {
    /// `messages` or `tokens`; of a conversation `conversation_rate`, `conversation_messages` or
    /// `conversation_repeats`.
    pub kind: &'static str,
    pub limit: u64,
    pub used: u64,
    pub resets_at: UnixMs,
}

impl Rejection {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            internal: String::new(),
            param: None,
            retry_after: None,
            upgrade_url: None,
            quota: None,
            allow: None,
        }
    }

    /// A 400 that names the field at fault.
    pub fn field(param: &str, message: impl Into<String>) -> Self {
        Self { param: Some(param.into()), ..Self::new(Code::InvalidRequest, message) }
    }

    /// As much of what an app named as an answer repeats: a name may be as long as the body.
    #[must_use]
    pub fn shown(name: &str) -> String {
        name.chars().take(64).collect()
    }

    #[must_use]
    pub fn internal(mut self, why: impl Into<String>) -> Self {
        self.internal = why.into();
        self
    }

    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds.clamp(1, MAX_RETRY_AFTER));
        self
    }

    #[must_use]
    pub fn upgrade_url(mut self, url: Option<Arc<str>>) -> Self {
        self.upgrade_url = url;
        self
    }
}
