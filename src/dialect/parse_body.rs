//! What is asked for: the body checked as strict JSON, and the few members of it that are read here.

use std::sync::Arc;

use bytes::Bytes;
use gatekeeper_filters::kernel::{
    Code, Endpoint, Input, ModelRequest, Rejection, RequestMembers,
    json::{Document, JsonKind, Value},
};

use super::{
    allowed_fields, dropped,
    input_estimate::{self, InputEstimate},
};
/// What Gemini's paths contain beside the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GeminiMethod {
    pub model: Arc<str>,
    pub stream: bool,
}

/// Checks the body and extracts what is asked. `path` is what the path contains; `extra` are members that
/// some provider allows beside the listed ones.
///
/// # Errors
/// 400, naming the field at fault where one is.
pub fn parse(
    endpoint: Endpoint,
    body: Bytes,
    path: Option<GeminiMethod>,
    extra: &[Arc<str>],
) -> Result<ModelRequest, Rejection> {
    let document = Document::parse(body.clone()).map_err(|invalid| {
        Rejection::new(Code::InvalidRequest, format!("The body is not valid JSON: {invalid}."))
    })?;
    let root = document.root();
    if root.kind() != JsonKind::Object {
        return Err(Rejection::new(Code::InvalidRequest, "The body must be a JSON object."));
    }
    let model = path.as_ref().map_or_else(|| Arc::from(""), |path| path.model.clone());
    let mut ask = ModelRequest::new(model, RequestMembers::new(body));
    ask.stream = path.as_ref().is_some_and(|path| path.stream);
    let mut weight = InputEstimate::default();
    let mut has_model = path.is_some();
    for (name, value) in root.members() {
        let decoded = name.decoded();
        let plain = if name.is_escaped() { "" } else { &*decoded };
        allowed_fields::check(endpoint, &decoded, &value)?;
        has_model |= plain == "model";
        read_member(&mut ask, endpoint, plain, &value)?;
        let listed = allowed_fields::passes(endpoint, plain.as_bytes());
        if listed || extra.iter().any(|field| &**field == plain) {
            weigh(&mut weight, endpoint, plain, &value);
            ask.members.push_source(name.raw_span(), value.span());
            ask.thinking_budget =
                ask.thinking_budget.max(allowed_fields::thinking_budget(plain, &value));
        } else if !allowed_fields::changes_nothing(&value)
            && !allowed_fields::is_read_here(endpoint, plain)
        {
            dropped::name(&mut ask.dropped, &decoded);
        }
    }
    if !has_model {
        return Err(Rejection::field("model", "\"model\" is missing."));
    }
    weight.request();
    if let Some(refused) = weight.refused {
        return Err(refused);
    }
    ask.input = weight.input;
    if weight.media.len() > input_estimate::MOST_KINDS {
        let most = input_estimate::MOST_KINDS;
        let message = format!("There are too many kinds of content: at most {most} are served.");
        return Err(Rejection::new(Code::InvalidRequest, message));
    }
    ask.media = weight.media;
    if ask.media.iter().any(|kind| &**kind == input_estimate::ITEM_REFERENCE) {
        return Err(Rejection::field("input", NO_ITEMS_KEPT));
    }
    finish(&mut ask, endpoint);
    Ok(ask)
}

/// A request of a body that was written here, of members that pass and roles that are known: what [`parse`] would
/// read in it, without reading it.
pub fn made(
    endpoint: Endpoint,
    model: Arc<str>,
    members: RequestMembers,
    input: Input,
) -> ModelRequest {
    let mut ask = ModelRequest { input, ..ModelRequest::new(model, members) };
    keep_nothing(&mut ask, endpoint);
    ask
}

fn read_member(
    ask: &mut ModelRequest,
    endpoint: Endpoint,
    name: &str,
    value: &Value<'_>,
) -> Result<(), Rejection> {
    match (endpoint, name) {
        (Endpoint::Generate, "contents") if value.kind() != JsonKind::Array => {
            return Err(must_be("contents", "a list"));
        }
        (Endpoint::Generate, "generationConfig") => {
            if let Some(cap) = value.get("maxOutputTokens").filter(|cap| !cap.is_null()) {
                read_cap(ask, "generationConfig.maxOutputTokens", &cap)?;
            }
        }
        (Endpoint::Generate, _) => {}
        (_, "model") => {
            let model = value.as_str().ok_or_else(|| must_be("model", "a string"))?;
            ask.model = Arc::from(&*model);
        }
        (Endpoint::Chat | Endpoint::Responses | Endpoint::Messages, "stream")
            if !value.is_null() =>
        {
            ask.stream = value.as_bool().ok_or_else(|| must_be("stream", "true or false"))?;
        }
        (Endpoint::Chat, "stream_options") => {
            let wanted = value.get("include_usage").and_then(|wanted| wanted.as_bool());
            ask.wants_usage = wanted == Some(true);
        }
        (Endpoint::Chat, "max_tokens" | "max_completion_tokens")
        | (Endpoint::Messages, "max_tokens")
        | (Endpoint::Responses, "max_output_tokens")
            if !value.is_null() =>
        {
            read_cap(ask, cap_field(name), value)?;
        }
        (Endpoint::Chat | Endpoint::Messages, "messages") if value.kind() != JsonKind::Array => {
            return Err(must_be("messages", "a list"));
        }
        _ => {}
    }
    Ok(())
}

/// Adds a member that is sent on to what the request weighs.
fn weigh(weight: &mut InputEstimate, endpoint: Endpoint, name: &str, value: &Value<'_>) {
    match (endpoint, name) {
        (Endpoint::Chat, "messages") => {
            value.items().for_each(|message| weight.message(&message, input_estimate::CHAT_ROLES));
        }
        (Endpoint::Messages, "messages") => {
            value
                .items()
                .for_each(|message| weight.message(&message, input_estimate::MESSAGES_ROLES));
        }
        (Endpoint::Responses, "input") => match value.kind() {
            JsonKind::Array => value.items().for_each(|item| weight.item(&item)),
            JsonKind::Object => weight.item(value),
            _ => weight.text(value),
        },
        (Endpoint::Embeddings, "input") => match value.kind() {
            JsonKind::Array => value.items().for_each(|item| weight.embedded(&item)),
            _ => weight.text(value),
        },
        (Endpoint::Messages, "system") => weight.parts(value),
        (Endpoint::Generate, "contents") => {
            value.items().for_each(|content| weight.content(&content));
        }
        (Endpoint::Generate, "systemInstruction") => weight.content(value),
        // Replaced by what is ours, or numbers that are no part of a prompt.
        (_, "model" | "user" | "safety_identifier" | "logit_bias") => {}
        // Settings in one word or number.
        _ if matches!(value.kind(), JsonKind::Number | JsonKind::Bool | JsonKind::Null) => {}
        (Endpoint::Generate, "generationConfig") => {
            let told = |value: &Value<'_>| value.kind() != JsonKind::Number;
            let members = value.members().map(|(_, value)| value);
            members.filter(told).for_each(|value| weight.text(&value));
        }
        _ => weight.text(value),
    }
}

fn read_cap(
    ask: &mut ModelRequest,
    field: &'static str,
    value: &Value<'_>,
) -> Result<(), Rejection> {
    let cap = value.as_u64().filter(|cap| *cap > 0);
    let cap = cap.ok_or_else(|| must_be(field, "a whole number above 0"))?;
    ask.output_cap = Some(ask.output_cap.map_or(cap, |other| other.min(cap)));
    ask.cap_field = Some(field);
    Ok(())
}

/// An app that lets the provider keep its items sends their ids. Nothing is kept here: whole items are
/// needed, which is an option of the SDKs.
const NO_ITEMS_KEPT: &str = "Stored items are not supported: send the item itself instead of \"item_reference\". \
    Send whole items: set `store: false` (in the AI SDK `providerOptions: { openai: { store: false } }`).";

fn must_be(field: &str, what: &str) -> Rejection {
    Rejection::field(field, format!("\"{field}\" must be {what}."))
}

fn cap_field(name: &str) -> &'static str {
    match name {
        "max_tokens" => "max_tokens",
        "max_output_tokens" => "max_output_tokens",
        _ => "max_completion_tokens",
    }
}

/// Left out, a provider would keep the answer, readable with any key of the account.
fn keep_nothing(ask: &mut ModelRequest, endpoint: Endpoint) {
    if endpoint == Endpoint::Responses {
        ask.members.set("store", "false");
    }
}

/// What every request of an endpoint gets, whatever the app wrote.
fn finish(ask: &mut ModelRequest, endpoint: Endpoint) {
    keep_nothing(ask, endpoint);
    let mut dropped = std::mem::take(&mut ask.dropped);
    let mut name = |field: &str| dropped::name(&mut dropped, field);
    if endpoint == Endpoint::Generate
        && let Some(config) = ask
            .members
            .get("generationConfig")
            .and_then(|json| allowed_fields::generation_config(json, &mut name))
    {
        ask.members.set("generationConfig", config);
    }
    ask.dropped = dropped;
}

#[cfg(test)]
mod tests;
