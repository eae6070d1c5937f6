//! What an answer means: one pure table from (dialect, status, headers, body or event) to what the key
//! showed and what the request does next.
//!
//! Sources: the error references of OpenAI (with the billing codes of 2026), Groq, Gemini
//! (`google.rpc.ErrorInfo`, `QuotaFailure`, `RetryInfo`), Anthropic and OpenRouter.

use gatekeeper_filters::kernel::{Dialect, json::Reader};
use http::HeaderMap;

use self::said::{Said, error_in, first_of, plain};
use super::{limits, scrub, watch::Stop};
use crate::pool::{health::Why, key::KeyNews, model_limits::Scope};

mod said;
mod words;

/// Where the request goes from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
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
    /// No target of this provider can: nobody answers at its address.
    Provider,
    /// Another target, else another account of this one: a larger one may do.
    Larger,
    /// Once more, wherever: what came was neither's fault, and may not come again.
    Again,
}

/// The closed list of outcomes an attempt can have; a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
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
    /// An answer that ended well and said nothing.
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

impl Cause {
    /// Whether a provider that a request was written to may have worked on it. One that has no room, no
    /// money, no key or no such model for it has not.
    pub fn is_work(self) -> bool {
        matches!(
            self,
            Cause::Timeout
                | Cause::BrokenAnswer
                | Cause::EmptyAnswer
                | Cause::ToolUseFailed
                | Cause::ConnectError
                | Cause::ProviderError
        )
    }

    pub fn name(self) -> &'static str {
        match self {
            Cause::RateLimited => "rate_limited",
            Cause::DailyLimit => "daily_limit",
            Cause::NoMoney => "no_money",
            Cause::BadCredential => "bad_credential",
            Cause::NoPermission => "no_permission",
            Cause::ModelMissing => "model_missing",
            Cause::ProviderError => "provider_error",
            Cause::ConnectError => "connect_error",
            Cause::Timeout => "timeout",
            Cause::BrokenAnswer => "broken_answer",
            Cause::EmptyAnswer => "empty_answer",
            Cause::ToolUseFailed => "tool_use_failed",
            Cause::TooLarge => "too_large",
            Cause::ContentRefused => "content_refused",
            Cause::Firewall => "firewall",
            Cause::KeyGone => "key_gone",
        }
    }
}

/// A failed attempt: nothing of an answer reached the app.
#[derive(Debug, Clone)]
pub struct Failure {
    pub cause: Cause,
    pub news: KeyNews,
    pub next: Next,
    /// Where nothing else is left, the same key may be asked once more.
    pub again: bool,
    /// For the operator's log. Holds no secret and no text of the app.
    pub detail: String,
    /// What the app is told if no attempt comes after this one; else the gateway says that nothing could serve.
    pub instead: Option<Box<Relayed>>,
}

/// A provider's 4xx about the request itself, cleaned of what belongs to the account.
#[derive(Debug, Clone)]
pub struct Relayed {
    pub status: u16,
    pub said: scrub::Said,
}

/// Either the attempt failed, or the answer is the app's own fault and is relayed.
#[derive(Debug, Clone)]
pub enum Judgement {
    Failed(Failure),
    Relay(Relayed),
}

impl Failure {
    pub fn new(cause: Cause, news: KeyNews, next: Next, detail: impl Into<String>) -> Self {
        Self { cause, news, next, again: false, detail: detail.into(), instead: None }
    }

    /// The same key may be asked once more where nothing else is left: what went wrong may have passed.
    #[must_use]
    pub fn again(mut self) -> Self {
        self.again = true;
        self
    }

    /// The app is told so where nobody else can serve it.
    #[must_use]
    fn or_else(mut self, status: u16, said: scrub::Said) -> Self {
        self.instead = Some(Box::new(Relayed { status, said }));
        self
    }

    /// Nobody took the connection: no key of this address can help, but asking costs nothing.
    pub fn connect(detail: impl Into<String>) -> Self {
        Self::new(Cause::ConnectError, KeyNews::TimedOut, Next::Elsewhere, detail)
    }

    /// Nobody took the connection in time. Asking again would cost as much patience.
    pub fn connect_timeout(detail: impl Into<String>) -> Self {
        Self::new(Cause::ConnectError, KeyNews::TimedOut, Next::Provider, detail)
    }

    /// The connection was closed or reset before an answer was whole.
    pub fn reset(detail: impl Into<String>) -> Self {
        Self::new(Cause::ConnectError, KeyNews::Fault, Next::OneMoreKey, detail).again()
    }

    /// Nothing of an answer came in time. The provider may have worked on it all the while, so that no other
    /// key of the target is made to do the same.
    pub fn timeout(what: &str) -> Self {
        Self::new(Cause::Timeout, KeyNews::TimedOut, Next::Target, format!("no {what} in time"))
    }

    /// An answer began and brought no output in time: another target, else another account.
    pub fn stalled(what: &str) -> Self {
        Self::new(Cause::Timeout, KeyNews::TimedOut, Next::Account, format!("no {what} in time"))
    }

    /// Nothing was asked of the provider.
    pub fn key_gone() -> Self {
        Self::new(Cause::KeyGone, KeyNews::None, Next::Key, "the key was taken away")
    }

    /// A fault of the provider's, told in its answer.
    pub fn provider(detail: impl Into<String>) -> Self {
        Self::new(Cause::ProviderError, KeyNews::Fault, Next::OneMoreKey, detail)
    }

    pub fn broken(detail: impl Into<String>) -> Self {
        Self::new(Cause::BrokenAnswer, KeyNews::Fault, Next::OneMoreKey, detail)
    }

    /// The connection broke inside an answer.
    pub fn cut(detail: impl Into<String>) -> Self {
        Self::broken(detail).again()
    }

    /// It ended well, and said nothing.
    pub fn hollow() -> Self {
        Self::new(Cause::EmptyAnswer, KeyNews::Heard, Next::Again, "an answer without output")
    }

    /// Small requests of several licences were too dear for the account.
    pub fn out_of_money() -> Self {
        let detail = "HTTP 402: the account can't afford small requests of several licences either";
        Self::new(Cause::NoMoney, NO_MONEY, Next::Key, detail)
    }

    /// What is in front of the provider refuses this machine, whatever is asked.
    pub fn walled_off() -> Self {
        let detail = "the provider's firewall refuses this server (403, not the provider's JSON)";
        Self::new(Cause::Firewall, KeyNews::Fault, Next::Target, detail)
    }
}

/// Statuses of a provider's passing weakness.
const PASSING: [u16; 4] = [500, 502, 503, 529];

/// Money is the account's, whatever the model.
const NO_MONEY: KeyNews = KeyNews::Spent(Why::NoMoney, Scope::Account, None);

/// Judges an answer that is not 2xx. `body` is what came of it, bounded.
pub fn judge(dialect: Dialect, status: u16, headers: &HeaderMap, body: &[u8]) -> Judgement {
    decide(dialect, status, headers, &Said::read(body))
}

/// Judges an error that came inside a 200: as a whole answer, or as an event before the commit. What it
/// says stands for the status that was not sent.
pub fn judge_inside(dialect: Dialect, body: &[u8]) -> Judgement {
    let said = Said::read(body);
    let status = said.status().unwrap_or(500);
    match decide(dialect, status, &HeaderMap::new(), &said) {
        // What the content causes is no fault of the provider's, however it is told.
        Judgement::Relay(relayed) if said.is_about_content() => {
            let detail = "an error inside a 200: the content is refused";
            let failure = Failure::new(Cause::ContentRefused, KeyNews::Heard, Next::Target, detail);
            Judgement::Failed(failure.or_else(relayed.status, relayed.said))
        }
        // Whoever sent 200 is not believed that it was the app's fault; another may see it otherwise.
        Judgement::Relay(_) => {
            let detail =
                format!("an error inside a 200: {} {}", plain(&said.kind), plain(&said.code));
            Judgement::Failed(Failure::provider(detail))
        }
        Judgement::Failed(mut failure) => {
            failure.detail = format!("an error inside a 200: {}", failure.detail);
            Judgement::Failed(failure)
        }
    }
}

/// Whether a body says that something is wrong, whatever its status.
pub fn says_error(body: &[u8]) -> bool {
    let mut reader = Reader::lenient();
    reader.parse(body).is_ok_and(|root| first_of(root).and_then(error_in).is_some())
}

fn decide(dialect: Dialect, status: u16, headers: &HeaderMap, said: &Said) -> Judgement {
    let failure = |cause, news, next| {
        let detail = format!("HTTP {status} {} {}", plain(&said.kind), plain(&said.code));
        Failure::new(cause, news, next, detail.trim_end())
    };
    let failed = |cause, news, next| Judgement::Failed(failure(cause, news, next));
    let refused = |cause, why| failed(cause, KeyNews::Refused(why), Next::Key);
    let stated = || limits::stated_pause(headers).or(said.retry);
    match status {
        401 => refused(Cause::BadCredential, Why::BadCredential),
        400 | 403 if said.is_about_the_credential() => {
            refused(Cause::BadCredential, Why::BadCredential)
        }
        // OpenRouter: too little money for what this request may cost, and enough for others.
        402 if said.affordable().is_some_and(|tokens| tokens > 0) => {
            let mut failure = failure(Cause::TooLarge, KeyNews::TooDear, Next::Account);
            failure.detail.push_str(": the account can't afford so many tokens; it needs credit");
            Judgement::Failed(failure)
        }
        402 => failed(Cause::NoMoney, NO_MONEY, Next::Key),
        400 | 403 | 429 if said.is_about_money() => failed(Cause::NoMoney, NO_MONEY, Next::Key),
        403 => forbidden(said, &failure),
        // Gemini: the account may not be used from here, or not without billing.
        400 if dialect != Dialect::Anthropic && said.kind == "FAILED_PRECONDITION" => {
            refused(Cause::NoPermission, Why::NoPermission)
        }
        429 if said.is_zero => failed(Cause::ModelMissing, KeyNews::Unfit, Next::Account),
        // OpenAI, and Groq by a 413: larger than the account's tokens a minute. Waiting helps nobody.
        429 | 413 if said.is_about_one_request(status) => {
            let failure = failure(Cause::TooLarge, KeyNews::Unfit, Next::Larger);
            Judgement::Failed(failure.or_else(413, too_large()))
        }
        429 if said.is_daily => {
            let until = said.until_tomorrow(stated());
            let news = KeyNews::Spent(Why::DailyLimit, said.scope(), until);
            failed(Cause::DailyLimit, news, Next::Key)
        }
        429 => failed(Cause::RateLimited, KeyNews::Limited(said.scope(), stated()), Next::Key),
        404 => failed(Cause::ModelMissing, KeyNews::Unfit, Next::Target),
        400 if said.is_about_the_model() => {
            failed(Cause::ModelMissing, KeyNews::Unfit, Next::Target)
        }
        408 => failed(Cause::Timeout, KeyNews::Fault, Next::OneMoreKey),
        400 | 413 | 422 => about_the_request(status, said, &failure),
        _ => {
            let failure = failure(Cause::ProviderError, KeyNews::Fault, Next::OneMoreKey);
            Judgement::Failed(Failure { again: PASSING.contains(&status), ..failure })
        }
    }
}

/// A 403 is about a key, its account, the model, the content, or not of the provider at all.
fn forbidden(said: &Said, failure: &impl Fn(Cause, KeyNews, Next) -> Failure) -> Judgement {
    // The account lacks this model, and serves others.
    if said.is_about_the_model() {
        return Judgement::Failed(failure(Cause::ModelMissing, KeyNews::Unfit, Next::Account));
    }
    // In the gateway's own words: what a 403 says is about the seller's account.
    if said.is_about_content() {
        return Judgement::Relay(Relayed { status: 400, said: refused_content() });
    }
    if said.is_about_the_project() {
        let news = KeyNews::Refused(Why::NoPermission);
        return Judgement::Failed(failure(Cause::NoPermission, news, Next::Key));
    }
    // A page of something in front of the provider, which may not have liked a word of this one prompt.
    if !said.is_json {
        let mut failure = failure(Cause::Firewall, KeyNews::None, Next::Target);
        failure.detail.push_str(", not the provider's JSON: probably a firewall in front of it");
        return Judgement::Failed(failure.or_else(400, walled()));
    }
    // Perhaps of the key, perhaps of this request: a probe finds out.
    Judgement::Failed(failure(Cause::NoPermission, KeyNews::Doubtful, Next::Key))
}

/// A 400, 413 or 422 that is the app's fault, or that another target would not give.
fn about_the_request(
    status: u16,
    said: &Said,
    failure: &impl Fn(Cause, KeyNews, Next) -> Failure,
) -> Judgement {
    let words = || scrub::scrubbed(&said.words());
    // Groq: the model wrote a call that can't be read.
    if status == 400 && said.code == "tool_use_failed" {
        let failure = failure(Cause::ToolUseFailed, KeyNews::Heard, Next::Again);
        return Judgement::Failed(failure.or_else(status, words()));
    }
    if status == 413 || said.is_about_size() {
        let failure = failure(Cause::TooLarge, KeyNews::Heard, Next::Target);
        // A proxy's page says nothing that is worth relaying.
        let words = if said.is_json { words() } else { too_large() };
        return Judgement::Failed(failure.or_else(status, words));
    }
    Judgement::Relay(Relayed { status, said: words() })
}

fn own_words(message: &str, code: &str) -> scrub::Said {
    scrub::Said {
        message: message.into(),
        kind: "invalid_request_error".into(),
        code: code.into(),
        ..scrub::Said::default()
    }
}

fn too_large() -> scrub::Said {
    let message = "This message, with all that came before it, is too large for the AI service. \
                   Please shorten it or begin a new conversation.";
    own_words(message, "body_too_large")
}

fn refused_content() -> scrub::Said {
    let message = "The AI service declined this message because of its content. Please change it.";
    own_words(message, "invalid_request")
}

fn walled() -> scrub::Said {
    let message = "A firewall of the AI service did not let this message through. \
                   Please put it in other words.";
    own_words(message, "invalid_request")
}

impl From<Judgement> for Stop {
    fn from(judgement: Judgement) -> Self {
        match judgement {
            Judgement::Failed(failure) => Stop::Failed(failure),
            Judgement::Relay(relayed) => Stop::Relay(relayed),
        }
    }
}

#[cfg(test)]
mod tests;
