//! Reads the error of a body, in any of the known wrappings.

use std::time::Duration;

use gatekeeper_filters::kernel::json::{JsonKind, Reader, Value};

use crate::{dialect::redact, pool::model_limits::Scope, upstream::rate_limit_headers};

/// The error of a body, in any of the known wrappings: an object, or Gemini's array of one.
#[derive(Debug, Default)]
pub(super) struct ErrorDetails {
    /// It is JSON, as the provider's own answers are.
    pub(super) is_json: bool,
    pub(super) code: String,
    pub(super) kind: String,
    pub(super) message: String,
    param: String,
    /// `details[].reason` (Google), `details.error_code` (Anthropic).
    pub(super) reason: String,
    /// Groq: the text that was to be a tool call.
    failed_generation: String,
    pub(super) retry: Option<Duration>,
    /// A quota of a day ran out (Google's `quotaId`, Groq's words).
    pub(super) is_daily: bool,
    /// A filter of the provider's does not like what the app's user wrote (OpenRouter's "moderation errors").
    pub(super) is_flagged: bool,
    /// A quota of nothing at all: this account's tier does not have the model.
    pub(super) is_zero: bool,
    /// The scope of the exhausted quota, where the answer states it.
    scope: Option<Scope>,
}

/// Google wraps an error in a list.
pub(super) fn first_of(root: Value<'_>) -> Option<Value<'_>> {
    if root.kind() == JsonKind::Array { root.items().next() } else { Some(root) }
}

/// The error in an answer or an event. OpenAI's responses put it into the response, or, in an event of type
/// `error`, beside that type.
pub(super) fn error_in(root: Value<'_>) -> Option<Value<'_>> {
    let is_error = |kind: Value<'_>| kind.as_str().is_some_and(|kind| kind == "error");
    let beside_its_type = || root.get("type").is_some_and(is_error).then_some(root);
    told(root, "error").or_else(|| told(told(root, "response")?, "error")).or_else(beside_its_type)
}

fn told<'a>(value: Value<'a>, name: &str) -> Option<Value<'a>> {
    value.get(name).filter(|value| !value.is_null())
}

/// A word of a provider's, fit for a line of the log.
pub(super) fn plain(word: &str) -> String {
    let fits = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    word.chars().filter(fits).take(64).collect()
}

impl ErrorDetails {
    pub(super) fn read(body: &[u8]) -> Self {
        let mut reader = Reader::lenient();
        let Ok(root) = reader.parse(body) else { return Self::default() };
        let is_json = first_of(root).is_some_and(|root| root.kind() == JsonKind::Object);
        let Some(error) = first_of(root).and_then(error_in) else {
            return Self { is_json, ..Self::default() };
        };
        if let Some(text) = error.as_str() {
            // xAI: its code is a sentence beside it.
            let code = root.get("code").map(|code| word(&code)).unwrap_or_default();
            let mut said = Self { is_json, code, message: text.into_owned(), ..Self::default() };
            said.read_message();
            return said;
        }
        let text = |name: &str| error.get(name).map(|value| word(&value)).unwrap_or_default();
        let mut said = Self {
            is_json,
            failed_generation: text("failed_generation"),
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
        said.is_flagged =
            error.get("metadata").is_some_and(|more| more.get("flagged_input").is_some());
        said
    }

    pub(super) fn words(&self) -> redact::ProviderMessage {
        redact::ProviderMessage {
            message: self.message.clone(),
            kind: self.kind.clone(),
            code: self.code.clone(),
            param: self.param.clone(),
            failed_generation: self.failed_generation.clone(),
        }
    }

    /// One of Google's details.
    fn read_detail(&mut self, detail: &Value<'_>) {
        if let Some(reason) = detail.get("reason") {
            self.reason = word(&reason);
        }
        if let Some(delay) = detail.get("retryDelay") {
            self.retry = rate_limit_headers::duration(&word(&delay));
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

    /// The scope of the limit. Providers limit by model (Groq, Gemini, OpenAI; Anthropic by family): the
    /// whole account cools only where the answer says so.
    pub(super) fn scope(&self) -> Scope {
        self.scope.unwrap_or_else(|| scope_in_words(&self.message))
    }

    /// Values that are only in the text: Groq's days and pauses, Gemini's pause where its details are
    /// missing.
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
            self.retry =
                after.and_then(|text| rate_limit_headers::duration(text.trim_end_matches('.')));
        }
    }

    /// The status that an error inside a 200 would have had.
    pub(super) fn status(&self) -> Option<u16> {
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
            _ if self.is_about_the_credential() => 401,
            _ if self.is_about_content() => 403,
            ("invalid_request_error" | "INVALID_ARGUMENT", _) => 400,
            _ if self.is_about_size() => 400,
            _ => return None,
        };
        Some(status)
    }

    /// The model is gone, or the account lacks it or has to accept something first: the configuration's matter.
    pub(super) fn is_about_the_model(&self) -> bool {
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
    pub(super) fn until_tomorrow(&self, stated: Option<Duration>) -> Option<Duration> {
        match self.kind.as_str() {
            "RESOURCE_EXHAUSTED" => {
                rate_limit_headers::until_pacific_midnight(jiff::Timestamp::now())
            }
            _ => stated,
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
        None if value.kind() == JsonKind::Number => {
            String::from_utf8_lossy(value.raw()).into_owned()
        }
        None => String::new(),
    }
}
