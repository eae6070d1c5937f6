//! Decides what an error is about from its message, where the status code alone is ambiguous.
//!
//! A phrase must match at the beginning of a message, because the rest may quote text of the app. Only phrases whose
//! consequence costs no key and no buyer anything may match anywhere.

use super::error_details::ErrorDetails;

impl ErrorDetails {
    fn begins_with(&self, words: &[&str]) -> bool {
        words.iter().any(|words| self.message.starts_with(words))
    }

    /// The key itself is unknown: what other providers report by a 401.
    pub(super) fn is_about_the_credential(&self) -> bool {
        // Gemini's by its reason, where details are given; xAI by a 400 with text only.
        const WORDS: [&str; 2] = ["Incorrect API key provided", "API key not valid"];
        self.reason == "API_KEY_INVALID"
            || self.code == "invalid_api_key"
            || self.begins_with(&WORDS)
    }

    /// An account without credit cannot serve until it is paid for: OpenAI reports that by `type` (2023) or
    /// by one of the codes of 2026, Anthropic by a code of its limits or in the text only, xAI in the text.
    pub(super) fn is_about_money(&self) -> bool {
        const CODES: [&str; 6] = [
            "insufficient_quota",
            "credit_balance_exhausted",
            "billing_hard_limit_reached",
            "organization_spend_limit_exceeded",
            "project_spend_limit_exceeded",
            "organization_usage_limit_exceeded",
        ];
        const WORDS: [&str; 3] = [
            "Your credit balance is too low",
            "You have reached your specified API usage limits",
            "This organization has been disabled",
        ];
        CODES.contains(&&*self.code)
            || matches!(&*self.kind, "insufficient_quota" | "billing_error")
            || self.reason == "enforced_spend_limit_reached"
            || self.begins_with(&WORDS)
            || self.is_a_team_without_credits()
    }

    /// xAI: "Your team ... has either used all available credits or reached its monthly spending limit", "Your
    /// newly created team doesn't have any credits yet".
    fn is_a_team_without_credits(&self) -> bool {
        self.begins_with(&["Your team ", "Your newly created team"])
            && (self.message.contains("credits") || self.message.contains("spending limit"))
    }

    /// Tokens that an account's money still reaches for, where it does not for what was asked (OpenRouter): "This
    /// request requires more credits, or fewer max_tokens. You requested up to 65536 tokens, but can only afford 4012."
    pub(super) fn affordable(&self) -> Option<u64> {
        const WORDS: &str = "can only afford ";
        let number = &self.message[self.message.find(WORDS)? + WORDS.len()..];
        let digits = number.split(|c: char| !c.is_ascii_digit() && c != ',').next()?;
        digits.replace(',', "").parse().ok()
    }

    /// What a filter of the provider's does not like is what the app's user wrote.
    pub(super) fn is_about_content(&self) -> bool {
        const CODES: [&str; 4] = [
            "content_filter",
            "content_policy_violation",
            "data_inspection_failed",
            "moderation_blocked",
        ];
        // The second begins the name of a check: "Failed check: SAFETY_CHECK_TYPE_BIO".
        const WORDS: [&str; 2] = ["violates usage guidelines", "SAFETY_CHECK_TYPE_"];
        self.is_flagged
            || CODES.contains(&&*self.code)
            || WORDS.iter().any(|words| self.message.contains(words))
    }

    /// Google's words for a project that may not use its service: no request's content brings them about
    /// (`google.api.ErrorReason`).
    pub(super) fn is_about_the_project(&self) -> bool {
        const REASONS: [&str; 8] = [
            "API_KEY_HTTP_REFERRER_BLOCKED",
            "API_KEY_IP_ADDRESS_BLOCKED",
            "API_KEY_ANDROID_APP_BLOCKED",
            "API_KEY_IOS_APP_BLOCKED",
            "API_KEY_SERVICE_BLOCKED",
            "BILLING_DISABLED",
            "CONSUMER_SUSPENDED",
            "SERVICE_DISABLED",
        ];
        REASONS.contains(&&*self.reason)
    }

    /// More tokens in one request than the account may use in a minute.
    pub(super) fn is_about_one_request(&self, status: u16) -> bool {
        self.begins_with(&["Request too large"]) || (status == 413 && self.is_about_rate())
    }

    /// More tokens than the model takes: a fallback may take more.
    pub(super) fn is_about_size(&self) -> bool {
        const CODES: [&str; 3] = [
            "context_length_exceeded",
            // llama.cpp.
            "exceed_context_size_error",
            "request_too_large",
        ];
        const BEGINNINGS: [&str; 5] = [
            // Anthropic.
            "prompt is too long",
            "input length and `max_tokens` exceed context limit",
            // Gemini, Bedrock, Text Generation Inference.
            "The input token count",
            "Input is too long",
            "`inputs` tokens + `max_new_tokens` must be",
        ];
        // vLLM, OpenRouter, DeepSeek, Mistral, SGLang; xAI. To ask one more target costs little.
        const WORDS: [&str; 3] =
            ["maximum context length", "maximum prompt length", "available context size"];
        CODES.iter().any(|code| self.code == *code || self.kind == *code)
            || self.begins_with(&BEGINNINGS)
            || WORDS.iter().any(|words| self.message.contains(words))
    }

    fn is_about_rate(&self) -> bool {
        self.code == "rate_limit_exceeded" || self.kind == "tokens" || self.kind == "requests"
    }
}
