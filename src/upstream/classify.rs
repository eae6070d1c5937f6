//! What an answer means: one pure table from (dialect, status, headers, body or event) to what the key
//! showed and what the request does next.
//!
//! Sources: the error references of OpenAI (with the billing codes of 2026), Groq, Gemini
//! (`google.rpc.ErrorInfo`, `QuotaFailure`, `RetryInfo`), Anthropic and OpenRouter.

mod error_details;
mod phrases;

use gatekeeper_filters::kernel::{Dialect, json::Reader};
use http::HeaderMap;

use self::error_details::{ErrorDetails, error_in, first_of, plain};
use super::rate_limit_headers;
use crate::{
    dialect::redact,
    pool::{health::QuarantineReason, key::AttemptFeedback, model_limits::Scope},
};

/// Where the request goes from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailoverScope {
    /// Another key of this provider, else the next target.
    Key,
    /// Another account of this provider, else the next target: this one can't serve this request.
    Account,
    /// The provider itself is at fault: one more of its keys, then the next target, then its other keys.
    OneMoreKey,
    /// The next target at once; its other keys when nothing else is left.
    Elsewhere,
    /// This target can't serve it, whatever the key.
    Target,
    /// No target of this provider can serve: its address does not answer.
    Provider,
    /// Another target, else another account of this one: a larger one may do.
    Larger,
    /// Once more, wherever: what came was neither's fault, and may not come again.
    Again,
}

/// The closed list of outcomes an attempt can have; a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureCause {
    RateLimited,
    DailyLimit,
    NoMoney,
    BadCredential,
    NoPermission,
    ModelMissing,
    ProviderError,
    ConnectError,
    Timeout,
    BrokenAnswer,
    /// An answer that ended properly without content.
    EmptyAnswer,
    /// The model wrote a tool call that its provider could not read.
    ToolUseFailed,
    /// More than this target, or this account, takes in one request.
    TooLarge,
    /// What the app's user wrote is not liked by a filter.
    ContentRefused,
    /// Something in front of the provider did not let the request through.
    Firewall,
    /// The operator took the key away before the request was written.
    KeyGone,
}

impl FailureCause {
    /// Whether a provider that a request was written to may have worked on it. One that has no room, no
    /// money, no key or no such model for it has not.
    pub fn is_work(self) -> bool {
        matches!(
            self,
            FailureCause::Timeout
                | FailureCause::BrokenAnswer
                | FailureCause::EmptyAnswer
                | FailureCause::ToolUseFailed
                | FailureCause::ConnectError
                | FailureCause::ProviderError
        )
    }

    pub fn name(self) -> &'static str {
        match self {
            FailureCause::RateLimited => "rate_limited",
            FailureCause::DailyLimit => "daily_limit",
            FailureCause::NoMoney => "no_money",
            FailureCause::BadCredential => "bad_credential",
            FailureCause::NoPermission => "no_permission",
            FailureCause::ModelMissing => "model_missing",
            FailureCause::ProviderError => "provider_error",
            FailureCause::ConnectError => "connect_error",
            FailureCause::Timeout => "timeout",
            FailureCause::BrokenAnswer => "broken_answer",
            FailureCause::EmptyAnswer => "empty_answer",
            FailureCause::ToolUseFailed => "tool_use_failed",
            FailureCause::TooLarge => "too_large",
            FailureCause::ContentRefused => "content_refused",
            FailureCause::Firewall => "firewall",
            FailureCause::KeyGone => "key_gone",
        }
    }
}

/// A failed attempt: nothing of an answer reached the app.
#[derive(Debug, Clone)]
pub struct Failure {
    pub cause: FailureCause,
    pub news: AttemptFeedback,
    pub next: FailoverScope,
    /// Where nothing else is left, the same key may be asked once more.
    pub again: bool,
    /// For the operator's log. Holds no secret and no text of the app.
    pub detail: String,
    /// Sent to the app if no further attempt is made; otherwise the gateway's own error.
    pub instead: Option<Box<ClientError>>,
}

/// A provider's 4xx about the request itself, cleaned of what belongs to the account.
#[derive(Debug, Clone)]
pub struct ClientError {
    pub status: u16,
    pub said: redact::ProviderMessage,
}

/// Either the attempt failed, or the answer is the app's own fault and is relayed.
#[derive(Debug, Clone)]
pub enum Classification {
    Failed(Failure),
    Relay(ClientError),
}

impl Failure {
    pub fn new(
        cause: FailureCause,
        news: AttemptFeedback,
        next: FailoverScope,
        detail: impl Into<String>,
    ) -> Self {
        Self { cause, news, next, again: false, detail: detail.into(), instead: None }
    }

    /// The same key may be asked once more where nothing else is left: what went wrong may have passed.
    #[must_use]
    pub fn again(mut self) -> Self {
        self.again = true;
        self
    }

    /// Sent to the app if no other target can serve.
    #[must_use]
    fn or_else(mut self, status: u16, said: redact::ProviderMessage) -> Self {
        self.instead = Some(Box::new(ClientError { status, said }));
        self
    }

    /// Connection refused: no key of this address can serve, but a retry is cheap.
    pub fn connect(detail: impl Into<String>) -> Self {
        Self::new(
            FailureCause::ConnectError,
            AttemptFeedback::TimedOut,
            FailoverScope::Elsewhere,
            detail,
        )
    }

    /// The connection timed out. A retry would take as long again.
    pub fn connect_timeout(detail: impl Into<String>) -> Self {
        Self::new(
            FailureCause::ConnectError,
            AttemptFeedback::TimedOut,
            FailoverScope::Provider,
            detail,
        )
    }

    /// The connection was closed or reset before an answer was whole.
    pub fn reset(detail: impl Into<String>) -> Self {
        Self::new(
            FailureCause::ConnectError,
            AttemptFeedback::Fault,
            FailoverScope::OneMoreKey,
            detail,
        )
        .again()
    }

    /// Nothing of an answer came in time. The provider may have worked on it all the while, so that no other
    /// key of the target is made to do the same.
    pub fn timeout(what: &str) -> Self {
        Self::new(
            FailureCause::Timeout,
            AttemptFeedback::TimedOut,
            FailoverScope::Target,
            format!("no {what} in time"),
        )
    }

    /// An answer began and brought no output in time: another target, else another account.
    pub fn stalled(what: &str) -> Self {
        Self::new(
            FailureCause::Timeout,
            AttemptFeedback::TimedOut,
            FailoverScope::Account,
            format!("no {what} in time"),
        )
    }

    /// Nothing was asked of the provider.
    pub fn key_gone() -> Self {
        Self::new(
            FailureCause::KeyGone,
            AttemptFeedback::None,
            FailoverScope::Key,
            "the key was taken away",
        )
    }

    /// A fault of the provider, reported in its answer.
    pub fn provider(detail: impl Into<String>) -> Self {
        Self::new(
            FailureCause::ProviderError,
            AttemptFeedback::Fault,
            FailoverScope::OneMoreKey,
            detail,
        )
    }

    pub fn broken(detail: impl Into<String>) -> Self {
        Self::new(
            FailureCause::BrokenAnswer,
            AttemptFeedback::Fault,
            FailoverScope::OneMoreKey,
            detail,
        )
    }

    /// The connection broke inside an answer.
    pub fn cut(detail: impl Into<String>) -> Self {
        Self::broken(detail).again()
    }

    /// It ended properly without content.
    pub fn hollow() -> Self {
        Self::new(
            FailureCause::EmptyAnswer,
            AttemptFeedback::Rejected,
            FailoverScope::Again,
            "an answer without output",
        )
    }

    /// Small requests of several licences were too dear for the account.
    pub fn out_of_money() -> Self {
        let detail = "HTTP 402: the account can't afford small requests of several licences either";
        Self::new(FailureCause::NoMoney, NO_MONEY, FailoverScope::Key, detail)
    }

    /// What is in front of the provider refuses this machine, whatever is asked.
    pub fn walled_off() -> Self {
        let detail = "the provider's firewall refuses this server (403, not the provider's JSON)";
        Self::new(FailureCause::Firewall, AttemptFeedback::Fault, FailoverScope::Target, detail)
    }
}

/// Statuses of a provider's passing weakness.
const PASSING: [u16; 4] = [500, 502, 503, 529];

/// Money is the account's, whatever the model.
const NO_MONEY: AttemptFeedback =
    AttemptFeedback::Spent(QuarantineReason::NoMoney, Scope::Account, None);

/// Judges an answer that is not 2xx. `body` is what came of it, bounded.
pub fn judge(dialect: Dialect, status: u16, headers: &HeaderMap, body: &[u8]) -> Classification {
    decide(dialect, status, headers, &ErrorDetails::read(body))
}

/// Classifies an error inside a 200: as a whole answer, or as an event before the commit. Its content
/// replaces the status that was not sent.
pub fn judge_inside(dialect: Dialect, body: &[u8]) -> Classification {
    let said = ErrorDetails::read(body);
    let status = said.status().unwrap_or(500);
    match decide(dialect, status, &HeaderMap::new(), &said) {
        // A refusal caused by the content is no fault of the provider, in whatever form it arrives.
        Classification::Relay(relayed) if said.is_about_content() => {
            let detail = "an error inside a 200: the content is refused";
            let failure = Failure::new(
                FailureCause::ContentRefused,
                AttemptFeedback::Rejected,
                FailoverScope::Target,
                detail,
            );
            Classification::Failed(failure.or_else(relayed.status, relayed.said))
        }
        // After a 200 the fault is not attributed to the app; another target may accept the request.
        Classification::Relay(_) => {
            let detail =
                format!("an error inside a 200: {} {}", plain(&said.kind), plain(&said.code));
            Classification::Failed(Failure::provider(detail))
        }
        Classification::Failed(mut failure) => {
            failure.detail = format!("an error inside a 200: {}", failure.detail);
            Classification::Failed(failure)
        }
    }
}

/// Whether a body reports an error, whatever its status.
pub fn says_error(body: &[u8]) -> bool {
    let mut reader = Reader::lenient();
    reader.parse(body).is_ok_and(|root| first_of(root).and_then(error_in).is_some())
}

fn decide(
    dialect: Dialect,
    status: u16,
    headers: &HeaderMap,
    said: &ErrorDetails,
) -> Classification {
    let failure = |cause, news, next| {
        let mut detail = format!("HTTP {status}");
        for word in [plain(&said.kind), plain(&said.code)].iter().filter(|word| !word.is_empty()) {
            detail += " ";
            detail += word;
        }
        if cause == FailureCause::ModelMissing {
            detail +=
                ": the provider does not offer this model; check `models` in the configuration";
        }
        Failure::new(cause, news, next, detail)
    };
    let failed = |cause, news, next| Classification::Failed(failure(cause, news, next));
    let refused = |cause, why| failed(cause, AttemptFeedback::Refused(why), FailoverScope::Key);
    let stated = || rate_limit_headers::stated_pause(headers).or(said.retry);
    match status {
        401 => refused(FailureCause::BadCredential, QuarantineReason::BadCredential),
        400 | 403 if said.is_about_the_credential() => {
            refused(FailureCause::BadCredential, QuarantineReason::BadCredential)
        }
        // OpenRouter: too little money for what this request may cost, and enough for others.
        402 if said.affordable().is_some_and(|tokens| tokens > 0) => {
            let mut failure =
                failure(FailureCause::TooLarge, AttemptFeedback::TooDear, FailoverScope::Account);
            failure.detail.push_str(": the account can't afford so many tokens; it needs credit");
            Classification::Failed(failure)
        }
        402 => failed(FailureCause::NoMoney, NO_MONEY, FailoverScope::Key),
        400 | 403 | 429 if said.is_about_money() => {
            failed(FailureCause::NoMoney, NO_MONEY, FailoverScope::Key)
        }
        403 => forbidden(said, &failure),
        // Gemini: the account may not be used from here, or not without billing.
        400 if dialect != Dialect::Anthropic && said.kind == "FAILED_PRECONDITION" => {
            refused(FailureCause::NoPermission, QuarantineReason::NoPermission)
        }
        429 if said.is_zero => {
            failed(FailureCause::ModelMissing, AttemptFeedback::Unfit, FailoverScope::Account)
        }
        // OpenAI, and Groq by a 413: larger than the account's tokens a minute. Waiting does not help.
        429 | 413 if said.is_about_one_request(status) => {
            let failure =
                failure(FailureCause::TooLarge, AttemptFeedback::Unfit, FailoverScope::Larger);
            Classification::Failed(failure.or_else(413, too_large()))
        }
        429 if said.is_daily => {
            let until = said.until_tomorrow(stated());
            let news = AttemptFeedback::Spent(QuarantineReason::DailyLimit, said.scope(), until);
            failed(FailureCause::DailyLimit, news, FailoverScope::Key)
        }
        429 => failed(
            FailureCause::RateLimited,
            AttemptFeedback::Limited(said.scope(), stated()),
            FailoverScope::Key,
        ),
        404 => failed(FailureCause::ModelMissing, AttemptFeedback::Unfit, FailoverScope::Target),
        400 if said.is_about_the_model() => {
            failed(FailureCause::ModelMissing, AttemptFeedback::Unfit, FailoverScope::Target)
        }
        408 => failed(FailureCause::Timeout, AttemptFeedback::Fault, FailoverScope::OneMoreKey),
        400 | 413 | 422 => about_the_request(status, said, &failure),
        _ => {
            let failure = failure(
                FailureCause::ProviderError,
                AttemptFeedback::Fault,
                FailoverScope::OneMoreKey,
            );
            Classification::Failed(Failure { again: PASSING.contains(&status), ..failure })
        }
    }
}

/// A 403 is about a key, its account, the model, the content, or not of the provider at all.
fn forbidden(
    said: &ErrorDetails,
    failure: &impl Fn(FailureCause, AttemptFeedback, FailoverScope) -> Failure,
) -> Classification {
    // The account lacks this model, and serves others.
    if said.is_about_the_model() {
        return Classification::Failed(failure(
            FailureCause::ModelMissing,
            AttemptFeedback::Unfit,
            FailoverScope::Account,
        ));
    }
    // With the gateway's own text: a 403 describes the seller's account.
    if said.is_about_content() {
        return Classification::Relay(ClientError { status: 400, said: refused_content() });
    }
    if said.is_about_the_project() {
        let news = AttemptFeedback::Refused(QuarantineReason::NoPermission);
        return Classification::Failed(failure(
            FailureCause::NoPermission,
            news,
            FailoverScope::Key,
        ));
    }
    // A page of something in front of the provider, which may not have liked a word of this one prompt.
    if !said.is_json {
        let mut failure =
            failure(FailureCause::Firewall, AttemptFeedback::None, FailoverScope::Target);
        failure.detail.push_str(", not the provider's JSON: probably a firewall in front of it");
        return Classification::Failed(failure.or_else(400, walled()));
    }
    // Perhaps of the key, perhaps of this request: a probe finds out.
    Classification::Failed(failure(
        FailureCause::NoPermission,
        AttemptFeedback::Doubtful,
        FailoverScope::Key,
    ))
}

/// A 400, 413 or 422 that is the app's fault, or that another target would not give.
fn about_the_request(
    status: u16,
    said: &ErrorDetails,
    failure: &impl Fn(FailureCause, AttemptFeedback, FailoverScope) -> Failure,
) -> Classification {
    let words = || redact::scrubbed(&said.words());
    // Groq: the model wrote a call that can't be read.
    if status == 400 && said.code == "tool_use_failed" {
        let failure =
            failure(FailureCause::ToolUseFailed, AttemptFeedback::Rejected, FailoverScope::Again);
        return Classification::Failed(failure.or_else(status, words()));
    }
    if status == 413 || said.is_about_size() {
        let failure =
            failure(FailureCause::TooLarge, AttemptFeedback::Rejected, FailoverScope::Target);
        // An error page of a proxy is not relayed.
        let words = if said.is_json { words() } else { too_large() };
        return Classification::Failed(failure.or_else(status, words));
    }
    Classification::Relay(ClientError { status, said: words() })
}

fn own_words(message: &str, code: &str) -> redact::ProviderMessage {
    redact::ProviderMessage {
        message: message.into(),
        kind: "invalid_request_error".into(),
        code: code.into(),
        ..redact::ProviderMessage::default()
    }
}

fn too_large() -> redact::ProviderMessage {
    let message = "This message, with all that came before it, is too large for the AI service. \
                   Please shorten it or begin a new conversation.";
    own_words(message, "body_too_large")
}

fn refused_content() -> redact::ProviderMessage {
    let message = "The AI service declined this message because of its content. Please change it.";
    own_words(message, "invalid_request")
}

fn walled() -> redact::ProviderMessage {
    let message = "A firewall of the AI service did not let this message through. \
                   Please put it in other words.";
    own_words(message, "invalid_request")
}

#[cfg(test)]
mod tests;
