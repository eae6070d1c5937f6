//! What an answer means: one pure table from (dialect, status, headers, body or event) to what the key
//! showed and what the request does next.
//!
//! Sources: the error references of OpenAI (with the billing codes of 2026), Groq, Gemini
//! (`google.rpc.ErrorInfo`, `QuotaFailure`, `RetryInfo`), Anthropic and OpenRouter.

use std::time::Duration;

use gatekeeper_filters::kernel::{
    Dialect,
    json::{Kind, Reader, Value},
};
use http::HeaderMap;

use super::{limits, scrub, watch::Stop};
use crate::pool::{health::Why, key::KeyNews, model_limits::Scope};

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
    /// The operator took the key away before the request was written.
    KeyGone,
}

impl Cause {
    /// Whether a provider that a request was written to may have worked on it. One that has no room, no
    /// money, no key or no such model for it has not.
    pub fn is_work(self) -> bool {
        matches!(
            self,
            Cause::Timeout | Cause::BrokenAnswer | Cause::ConnectError | Cause::ProviderError
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
        Self { cause, news, next, again: false, detail: detail.into() }
    }

    /// The same key may be asked once more where nothing else is left: what went wrong may have passed.
    #[must_use]
    pub fn again(mut self) -> Self {
        self.again = true;
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
}

/// Statuses of a provider's passing weakness.
const PASSING: [u16; 4] = [500, 502, 503, 529];

/// What a body says of its error, whatever the wrapping: an object, or Gemini's array of one.
#[derive(Debug, Default)]
struct Said {
    code: String,
    kind: String,
    message: String,
    param: String,
    /// `details[].reason` (Google), `details.error_code` (Anthropic).
    reason: String,
    retry: Option<Duration>,
    /// A quota of a day ran out (Google's `quotaId`, Groq's words).
    is_daily: bool,
    /// A filter of the provider's does not like what the app's user wrote (OpenRouter's "moderation errors").
    is_refused_content: bool,
    /// A quota of nothing at all: this account's tier does not have the model.
    is_zero: bool,
    /// What the quota holds for that ran out, where the answer says so.
    scope: Option<Scope>,
}

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
    let failed = |cause, news, next| {
        let detail = format!("HTTP {status} {} {}", plain(&said.kind), plain(&said.code));
        Judgement::Failed(Failure::new(cause, news, next, detail.trim_end()))
    };
    let refused = |cause, why| failed(cause, KeyNews::Refused(why), Next::Key);
    let stated = || limits::stated_pause(headers).or(said.retry);
    match status {
        401 => refused(Cause::BadCredential, Why::BadCredential),
        400 if said.reason == "API_KEY_INVALID" => {
            refused(Cause::BadCredential, Why::BadCredential)
        }
        402 => failed(Cause::NoMoney, NO_MONEY, Next::Key),
        400 | 403 | 429 if said.is_about_money() => failed(Cause::NoMoney, NO_MONEY, Next::Key),
        // The account lacks this model, and serves others.
        403 if said.is_about_the_model() => {
            failed(Cause::ModelMissing, KeyNews::Unfit, Next::Account)
        }
        // In the gateway's own words: what a 403 says is about the seller's account.
        403 if said.is_refused_content => Judgement::Relay(Relayed {
            status: 400,
            said: scrub::scrubbed(&scrub::Said::default()),
        }),
        403 => refused(Cause::NoPermission, Why::NoPermission),
        // Gemini: the account may not be used from here, or not without billing.
        400 if dialect != Dialect::Anthropic && said.kind == "FAILED_PRECONDITION" => {
            refused(Cause::NoPermission, Why::NoPermission)
        }
        429 if said.is_zero => failed(Cause::ModelMissing, KeyNews::Unfit, Next::Account),
        429 if said.is_daily => {
            let until = said.until_tomorrow(stated());
            let news = KeyNews::Spent(Why::DailyLimit, said.scope(), until);
            failed(Cause::DailyLimit, news, Next::Key)
        }
        429 => failed(Cause::RateLimited, KeyNews::Limited(said.scope(), stated()), Next::Key),
        // Groq: the request is larger than the account's tokens a minute; another account's may do.
        413 if said.is_about_rate() => failed(Cause::RateLimited, KeyNews::Unfit, Next::Account),
        404 => failed(Cause::ModelMissing, KeyNews::Unfit, Next::Target),
        400 if said.is_about_the_model() => {
            failed(Cause::ModelMissing, KeyNews::Unfit, Next::Target)
        }
        408 => failed(Cause::Timeout, KeyNews::Fault, Next::OneMoreKey),
        400 | 413 | 422 => {
            Judgement::Relay(Relayed { status, said: scrub::scrubbed(&said.words()) })
        }
        _ => match failed(Cause::ProviderError, KeyNews::Fault, Next::OneMoreKey) {
            Judgement::Failed(failure) if PASSING.contains(&status) => {
                Judgement::Failed(failure.again())
            }
            judgement => judgement,
        },
    }
}

/// Money is the account's, whatever the model.
const NO_MONEY: KeyNews = KeyNews::Spent(Why::NoMoney, Scope::Account, None);

/// Google wraps an error in a list.
fn first_of(root: Value<'_>) -> Option<Value<'_>> {
    if root.kind() == Kind::Array { root.items().next() } else { Some(root) }
}

/// Where an answer or an event says what is wrong. OpenAI's responses say it of the response, or, in an event of
/// type `error`, beside that type.
fn error_in(root: Value<'_>) -> Option<Value<'_>> {
    let is_error = |kind: Value<'_>| kind.as_str().is_some_and(|kind| kind == "error");
    let beside_its_type = || root.get("type").is_some_and(is_error).then_some(root);
    told(root, "error").or_else(|| told(told(root, "response")?, "error")).or_else(beside_its_type)
}

fn told<'a>(value: Value<'a>, name: &str) -> Option<Value<'a>> {
    value.get(name).filter(|value| !value.is_null())
}

/// A word of a provider's, fit for a line of the log.
fn plain(word: &str) -> String {
    let fits = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    word.chars().filter(fits).take(64).collect()
}

impl Said {
    fn read(body: &[u8]) -> Self {
        let mut reader = Reader::lenient();
        let Ok(root) = reader.parse(body) else { return Self::default() };
        let Some(error) = first_of(root).and_then(error_in) else { return Self::default() };
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
            said.read_detail(&detail);
        }
        if let Some(code) = error.get("details").and_then(|details| details.get("error_code")) {
            said.reason = word(&code);
        }
        said.read_message();
        said.is_refused_content =
            error.get("metadata").is_some_and(|more| more.get("flagged_input").is_some());
        said
    }

    fn words(&self) -> scrub::Said {
        scrub::Said {
            message: self.message.clone(),
            kind: self.kind.clone(),
            code: self.code.clone(),
            param: self.param.clone(),
        }
    }

    /// One of Google's details.
    fn read_detail(&mut self, detail: &Value<'_>) {
        if let Some(reason) = detail.get("reason") {
            self.reason = word(&reason);
        }
        if let Some(delay) = detail.get("retryDelay") {
            self.retry = limits::duration(&word(&delay));
        }
        for violation in detail.get("violations").iter().flat_map(Value::items) {
            let text = |name: &str| violation.get(name).map(|it| word(&it)).unwrap_or_default();
            self.is_daily |= text("quotaId").contains("PerDay");
            self.is_zero |= text("quotaValue") == "0";
            if !text("quotaId").is_empty() {
                let model = violation.get("quotaDimensions").and_then(|of| of.get("model"));
                let of_model = text("quotaId").contains("PerModel") || model.is_some();
                // Of several that ran out at once, the wider one counts.
                if self.scope != Some(Scope::Account) {
                    self.scope = Some(if of_model { Scope::Model } else { Scope::Account });
                }
            }
        }
    }

    /// Whose limit it is. Providers limit by model (Groq, Gemini, OpenAI; Anthropic by family): the whole
    /// account rests only where the answer says so.
    fn scope(&self) -> Scope {
        self.scope.unwrap_or_else(|| scope_in_words(&self.message))
    }

    /// What is said in words only: Groq's days and pauses, Gemini's pause where its details are missing.
    fn read_message(&mut self) {
        let message = self.message.as_str();
        self.is_daily |= message.contains("per day");
        // Not of 0.5; of 0 before a full stop.
        let is_number =
            |rest: &str| rest.trim_start_matches('.').starts_with(|c: char| c.is_ascii_digit());
        self.is_zero |= message.split("limit: 0").skip(1).any(|rest| !is_number(rest));
        if self.retry.is_none() {
            let after = ["try again in ", "retry in "].iter().find_map(|words| {
                let at = message.find(words)? + words.len();
                message[at..].split_whitespace().next()
            });
            self.retry = after.and_then(|text| limits::duration(text.trim_end_matches('.')));
        }
    }

    /// The status that an error inside a 200 would have had.
    fn status(&self) -> Option<u16> {
        let status = match (self.kind.as_str(), self.code.as_str()) {
            (_, code) if code.len() == 3 && code.parse::<u16>().is_ok_and(|code| code >= 400) => {
                code.parse().ok()?
            }
            ("authentication_error", _) | (_, "invalid_api_key") => 401,
            ("billing_error", _) => 402,
            ("permission_error" | "PERMISSION_DENIED", _) => 403,
            ("not_found_error" | "NOT_FOUND", _) | (_, "model_not_found") => 404,
            ("request_too_large", _) => 413,
            ("rate_limit_error" | "RESOURCE_EXHAUSTED" | "tokens" | "requests", _)
            | (_, "rate_limit_exceeded") => 429,
            _ if self.is_about_money() => 429,
            ("invalid_request_error" | "INVALID_ARGUMENT", _) => 400,
            _ => return None,
        };
        Some(status)
    }

    /// An account without money is of no use until somebody pays: OpenAI says so by `type` (2023)
    /// or by one of the codes of 2026, Anthropic by a code of its limits or in words alone.
    fn is_about_money(&self) -> bool {
        const CODES: [&str; 6] = [
            "insufficient_quota",
            "credit_balance_exhausted",
            "billing_hard_limit_reached",
            "organization_spend_limit_exceeded",
            "project_spend_limit_exceeded",
            "organization_usage_limit_exceeded",
        ];
        // How a message begins is the provider's; what it quotes later may be an app's.
        const WORDS: [&str; 2] =
            ["Your credit balance is too low", "You have reached your specified API usage limits"];
        CODES.contains(&&*self.code)
            || matches!(&*self.kind, "insufficient_quota" | "billing_error")
            || self.reason == "enforced_spend_limit_reached"
            || WORDS.iter().any(|words| self.message.starts_with(words))
    }

    fn is_about_rate(&self) -> bool {
        self.code == "rate_limit_exceeded" || self.kind == "tokens" || self.kind == "requests"
    }

    /// The model is gone, or the account lacks it or has to accept something first: the configuration's matter.
    fn is_about_the_model(&self) -> bool {
        const CODES: [&str; 6] = [
            "model_not_found",
            "model_decommissioned",
            "model_not_active",
            "model_terms_required",
            // Groq's console, "model permissions".
            "model_permission_blocked_org",
            "model_permission_blocked_project",
        ];
        CODES.contains(&&*self.code)
    }

    /// Google's own hint is of seconds even where the quota is a day's; the day ends at midnight in
    /// California. Groq's days are windows, and what it states is true.
    fn until_tomorrow(&self, stated: Option<Duration>) -> Option<Duration> {
        match self.kind.as_str() {
            "RESOURCE_EXHAUSTED" => limits::until_pacific_midnight(jiff::Timestamp::now()),
            _ => stated,
        }
    }
}

impl From<Judgement> for Stop {
    fn from(judgement: Judgement) -> Self {
        match judgement {
            Judgement::Failed(failure) => Stop::Failed(failure),
            Judgement::Relay(relayed) => Stop::Relay(relayed),
        }
    }
}

/// OpenAI: "Rate limit reached for gpt-4o in organization org-x on tokens per min"; Groq: "for model `m` in
/// organization `o`"; Anthropic: "your organization's rate limit of 30,000 input tokens per minute (org: o, model: m)".
fn scope_in_words(message: &str) -> Scope {
    const WHOLE: [&str; 5] =
        ["organization", "your account", "your project", "your workspace", "your team"];
    let message = message.to_ascii_lowercase();
    let has = |words: &str| message.contains(words);
    let names_one = || {
        let named = message.split_once("reached for ").and_then(|(_, rest)| rest.split_once(' '));
        named.is_some_and(|(_, rest)| rest.starts_with("in organization"))
    };
    if has("all models") || has("any model") {
        Scope::Account
    } else if has("model") || names_one() || !WHOLE.iter().any(|words| has(words)) {
        Scope::Model
    } else {
        Scope::Account
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
