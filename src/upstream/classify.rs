//! What an answer means: one pure table from (status, headers, body) to what the key showed and
//! what the request does next.
//!
//! Sources: the error references of OpenAI, Groq and Gemini (OpenAI-compatible endpoints).

use std::time::Duration;

use bytes::Bytes;
use gatekeeper_filters::kernel::{
    Dialect,
    json::{Kind, Reader, Value},
};
use http::HeaderMap;

use super::{limits, scrub};
use crate::pool::{health::Why, key::KeyNews};

/// Where the request goes from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Another key of this provider, else the next target.
    Key,
    /// The provider itself is at fault: one more of its keys, then the next target.
    OneMoreKey,
    /// This target can't serve it, whatever the key.
    Target,
}

/// The closed list of outcomes an attempt can have; a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    RateLimited,
    NoMoney,
    BadCredential,
    NoPermission,
    ModelMissing,
    ProviderError,
    ConnectError,
    Timeout,
    BrokenAnswer,
}

impl Cause {
    pub fn name(self) -> &'static str {
        match self {
            Cause::RateLimited => "rate_limited",
            Cause::NoMoney => "no_money",
            Cause::BadCredential => "bad_credential",
            Cause::NoPermission => "no_permission",
            Cause::ModelMissing => "model_missing",
            Cause::ProviderError => "provider_error",
            Cause::ConnectError => "connect_error",
            Cause::Timeout => "timeout",
            Cause::BrokenAnswer => "broken_answer",
        }
    }
}

/// A failed attempt: nothing of an answer reached the app.
#[derive(Debug, Clone)]
pub struct Failure {
    pub cause: Cause,
    pub news: KeyNews,
    pub next: Next,
    /// For the operator's log. Holds no secret and no text of the app.
    pub detail: String,
}

/// A provider's 4xx about the request itself, cleaned of what belongs to the account.
#[derive(Debug, Clone)]
pub struct Relayed {
    pub status: u16,
    pub body: Bytes,
}

/// Either the attempt failed, or the answer is the app's own fault and is relayed.
#[derive(Debug, Clone)]
pub enum Judgement {
    Failed(Failure),
    Relay(Relayed),
}

impl Failure {
    pub fn new(cause: Cause, news: KeyNews, next: Next, detail: impl Into<String>) -> Self {
        Self { cause, news, next, detail: detail.into() }
    }

    pub fn connect(detail: impl Into<String>) -> Self {
        Self::new(Cause::ConnectError, KeyNews::Fault, Next::OneMoreKey, detail)
    }

    pub fn timeout(what: &str) -> Self {
        Self::new(Cause::Timeout, KeyNews::Fault, Next::OneMoreKey, format!("no {what} in time"))
    }

    /// A fault of the provider's, told in its answer.
    pub fn provider(detail: impl Into<String>) -> Self {
        Self::new(Cause::ProviderError, KeyNews::Fault, Next::OneMoreKey, detail)
    }

    pub fn broken(detail: impl Into<String>) -> Self {
        Self::new(Cause::BrokenAnswer, KeyNews::Fault, Next::OneMoreKey, detail)
    }
}

/// What a body says of its error, whatever the wrapping: an object, or Gemini's array of one.
#[derive(Debug, Default)]
struct Said {
    code: String,
    kind: String,
    message: String,
    param: String,
    reason: String,
    retry: Option<Duration>,
}

/// Judges an answer that is not 2xx. `body` is what came of it, bounded.
pub fn judge(_dialect: Dialect, status: u16, headers: &HeaderMap, body: &[u8]) -> Judgement {
    let said = Said::read(body);
    let failed = |cause, news, next| {
        let detail = format!("HTTP {status} {} {}", plain(&said.kind), plain(&said.code));
        Judgement::Failed(Failure::new(cause, news, next, detail.trim_end()))
    };
    let broken = |cause, why| failed(cause, KeyNews::Broken(why), Next::Key);
    match status {
        401 => broken(Cause::BadCredential, Why::BadCredential),
        402 => broken(Cause::NoMoney, Why::NoMoney),
        403 => broken(Cause::NoPermission, Why::NoPermission),
        400 if said.reason == "API_KEY_INVALID" => broken(Cause::BadCredential, Why::BadCredential),
        400 | 429 if said.is_about_money() => broken(Cause::NoMoney, Why::NoMoney),
        429 => {
            let stated = limits::stated_pause(headers).or(said.retry);
            failed(Cause::RateLimited, KeyNews::Limited(stated), Next::Key)
        }
        // Groq: the request is larger than the account's tokens a minute; another account's may do.
        413 if said.is_about_rate() => failed(Cause::RateLimited, KeyNews::Fault, Next::Key),
        404 => failed(Cause::ModelMissing, KeyNews::Fault, Next::Target),
        408 => failed(Cause::Timeout, KeyNews::Fault, Next::OneMoreKey),
        400 | 413 | 422 => {
            Judgement::Relay(Relayed { status, body: scrub::error(&said_body(&said)) })
        }
        _ => failed(Cause::ProviderError, KeyNews::Fault, Next::OneMoreKey),
    }
}

/// A word of a provider's, fit for a line of the log.
fn plain(word: &str) -> String {
    let fits = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    word.chars().filter(fits).take(64).collect()
}

fn said_body(said: &Said) -> scrub::Error<'_> {
    scrub::Error { message: &said.message, kind: &said.kind, code: &said.code, param: &said.param }
}

impl Said {
    fn read(body: &[u8]) -> Self {
        let mut reader = Reader::lenient();
        let Ok(root) = reader.parse(body) else { return Self::default() };
        let first = if root.kind() == Kind::Array { root.items().next() } else { Some(root) };
        let Some(error) = first.and_then(|root| root.get("error")) else { return Self::default() };
        if let Some(text) = error.as_str() {
            return Self { message: text.into_owned(), ..Self::default() };
        }
        let text = |name: &str| error.get(name).map(|value| word(&value)).unwrap_or_default();
        let mut said = Self {
            code: text("code"),
            kind: text("type"),
            message: text("message"),
            param: text("param"),
            ..Self::default()
        };
        if said.kind.is_empty() {
            said.kind = text("status");
        }
        for detail in error.get("details").iter().flat_map(Value::items) {
            if let Some(reason) = detail.get("reason") {
                said.reason = word(&reason);
            }
            if let Some(delay) = detail.get("retryDelay") {
                said.retry = limits::duration(&word(&delay));
            }
        }
        said
    }

    /// An account without money is of no use until somebody pays: OpenAI says so by `type` (2023)
    /// or by one of the codes of 2026.
    fn is_about_money(&self) -> bool {
        const CODES: [&str; 5] = [
            "insufficient_quota",
            "credit_balance_exhausted",
            "organization_spend_limit_exceeded",
            "project_spend_limit_exceeded",
            "organization_usage_limit_exceeded",
        ];
        CODES.contains(&&*self.code) || self.kind == "insufficient_quota"
    }

    fn is_about_rate(&self) -> bool {
        self.code == "rate_limit_exceeded" || self.kind == "tokens" || self.kind == "requests"
    }
}

/// A string, or a number as text (OpenRouter's `code`).
fn word(value: &Value<'_>) -> String {
    match value.as_str() {
        Some(text) => text.into_owned(),
        None if value.kind() == Kind::Number => String::from_utf8_lossy(value.raw()).into_owned(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests;
