//! The body: read with bounds, checked as strict JSON, and what is asked for.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use gatekeeper_filters::{
    kernel::{
        Ask, Code, Endpoint, License, Members, Reject,
        json::{Document, Kind, Value},
    },
    meter::estimate,
};
use pingora_core::{
    Error, ErrorType,
    protocols::http::{ServerSession, v1::common::is_expect_continue_req},
};

use super::fields;

/// From the end of the head to the end of the body: even 10 MiB on a slow line come in time.
const BODY_TIME: Duration = Duration::from_secs(120);

/// Why there is no body.
pub enum BodyError {
    Reject(Box<Reject>),
    /// The connection broke; nobody is there to read an answer.
    Gone(Box<pingora_core::Error>),
}

impl From<Reject> for BodyError {
    fn from(reject: Reject) -> Self {
        BodyError::Reject(Box::new(reject))
    }
}

/// Reads the whole body, `limit` bytes at most, counted as they come: a missing or false length
/// changes nothing.
///
/// # Errors
/// 413 above the limit, 415 when it is compressed, 400 when it does not come in time.
/// 503 when all requests together hold too much.
pub async fn read(
    session: &mut ServerSession,
    limit: u64,
    held: &mut Held,
) -> Result<Bytes, BodyError> {
    let headers = &session.req_header().headers;
    if headers
        .get_all(http::header::CONTENT_ENCODING)
        .iter()
        .any(|coding| !coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity"))
    {
        let message = "Send the body uncompressed.";
        return Err(Reject::new(Code::UnsupportedEncoding, message).into());
    }
    let stated: Option<u64> = headers
        .get(http::header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse().ok());
    if stated.is_some_and(|length| length > limit) {
        return Err(too_large(limit).into());
    }
    if is_expect_continue_req(session.req_header()) {
        // Writing the 100 would switch keep-alive off while this is on.
        session.set_close_on_response_before_downstream_finish(false);
        session.write_continue_response().await.map_err(BodyError::Gone)?;
    }
    let read = collect(session, limit, stated.unwrap_or(0) as usize, held);
    let body = tokio::time::timeout(BODY_TIME, read).await;
    session.set_close_on_response_before_downstream_finish(true);
    body.unwrap_or_else(|_| Err(late().into()))
}

fn late() -> Reject {
    Reject::new(Code::InvalidRequest, "The request body did not come in time.")
}

/// A read that failed: the app was too slow, its framing is broken, or it is gone.
fn unread(error: Box<Error>) -> BodyError {
    match error.etype() {
        ErrorType::ReadTimedout => late().into(),
        ErrorType::ConnectionClosed | ErrorType::ReadError => BodyError::Gone(error.into_down()),
        _ => Reject::new(Code::InvalidRequest, "The request body is not well-formed.").into(),
    }
}

async fn collect(
    session: &mut ServerSession,
    limit: u64,
    stated: usize,
    held: &mut Held,
) -> Result<Bytes, BodyError> {
    let mut first: Option<Bytes> = None;
    let mut rest = BytesMut::new();
    let mut length = 0u64;
    loop {
        let chunk = match session.read_request_body().await {
            Ok(Some(chunk)) => chunk,
            Ok(None) => break,
            Err(error) => {
                // Where this body ends is unclear, so nothing after it can be a request.
                session.set_keepalive(None);
                return Err(unread(error));
            }
        };
        length += chunk.len() as u64;
        if length > limit {
            return Err(too_large(limit).into());
        }
        if !held.grow(chunk.len()) {
            return Err(too_busy().into());
        }
        match &first {
            None if rest.is_empty() => first = Some(chunk),
            _ => {
                if let Some(begun) = first.take() {
                    rest.reserve(stated.max(begun.len() + chunk.len()));
                    rest.extend_from_slice(&begun);
                }
                rest.extend_from_slice(&chunk);
            }
        }
        if session.is_body_done() {
            break;
        }
    }
    Ok(first.unwrap_or_else(|| rest.freeze()))
}

fn too_busy() -> Reject {
    Reject::new(Code::UpstreamExhausted, "The service is very busy. Please try again in a moment.")
        .internal("`server.limits.buffered` is reached")
        .retry_after(1)
}

/// Bytes of request bodies that are held at one time, over all requests.
#[derive(Default)]
pub struct Buffered {
    used: AtomicU64,
    limit: AtomicU64,
}

/// One request's share; given back when dropped.
pub struct Held {
    of: Arc<Buffered>,
    bytes: u64,
}

impl Buffered {
    /// Sets the limit, in bytes. What is held already stays.
    pub fn resize(&self, limit: u64) {
        self.limit.store(limit, Relaxed);
    }

    pub fn share(self: &Arc<Self>) -> Held {
        Held { of: self.clone(), bytes: 0 }
    }
}

impl Held {
    /// Whether so many bytes more fit.
    fn grow(&mut self, bytes: usize) -> bool {
        let bytes = bytes as u64;
        self.bytes += bytes;
        self.of.used.fetch_add(bytes, Relaxed) + bytes <= self.of.limit.load(Relaxed)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.of.used.fetch_sub(self.bytes, Relaxed);
    }
}

fn too_large(limit: u64) -> Reject {
    Reject::new(
        Code::BodyTooLarge,
        format!("This request is larger than {limit} bytes. Send fewer or smaller messages."),
    )
}

/// Checks the body and finds out what is asked. `extra` are members that some provider lets through
/// beside the listed ones.
///
/// # Errors
/// 400, naming the field at fault where one is.
pub fn parse(
    endpoint: Endpoint,
    body: Bytes,
    extra: &[Arc<str>],
    license: Option<&License>,
) -> Result<Ask, Reject> {
    let document = Document::parse(body.clone()).map_err(|invalid| {
        Reject::new(Code::InvalidRequest, format!("The body is not valid JSON: {invalid}."))
    })?;
    let root = document.root();
    if root.kind() != Kind::Object {
        return Err(Reject::new(Code::InvalidRequest, "The body must be a JSON object."));
    }
    let mut ask = Ask {
        model: Arc::from(""),
        stream: false,
        wants_usage: false,
        text_tokens: 0,
        images: 0,
        media: Vec::new(),
        output_cap: None,
        cap_field: None,
        thinking_budget: None,
        members: Members::new(body),
    };
    let mut weight = Weight::default();
    let mut has_model = false;
    for (name, value) in root.members() {
        let plain =
            if name.is_escaped() { "" } else { std::str::from_utf8(name.raw()).unwrap_or("") };
        fields::check(&name.decoded(), &value)?;
        has_model |= plain == "model";
        read_member(&mut ask, &mut weight, endpoint, plain, &value)?;
        let listed = fields::passes(endpoint, plain.as_bytes());
        if listed || extra.iter().any(|field| &**field == plain) {
            ask.members.push_source(name.raw_span(), value.span());
            ask.thinking_budget = ask.thinking_budget.max(fields::thinking_budget(plain, &value));
        }
    }
    if !has_model {
        return Err(Reject::field("model", "\"model\" is missing."));
    }
    ask.text_tokens = weight.tokens();
    ask.images = weight.images;
    ask.media = weight.media;
    finish(&mut ask, endpoint, license);
    Ok(ask)
}

fn read_member(
    ask: &mut Ask,
    weight: &mut Weight,
    endpoint: Endpoint,
    name: &str,
    value: &Value<'_>,
) -> Result<(), Reject> {
    match (endpoint, name) {
        (_, "model") => {
            let model = value.as_str().ok_or_else(|| must_be("model", "a string"))?;
            ask.model = Arc::from(&*model);
        }
        (Endpoint::Chat | Endpoint::Responses, "stream") if !value.is_null() => {
            ask.stream = value.as_bool().ok_or_else(|| must_be("stream", "true or false"))?;
        }
        (Endpoint::Chat, "stream_options") => {
            let wanted = value.get("include_usage").and_then(|wanted| wanted.as_bool());
            ask.wants_usage = wanted == Some(true);
        }
        (Endpoint::Chat, "max_tokens" | "max_completion_tokens")
        | (Endpoint::Responses, "max_output_tokens")
            if !value.is_null() =>
        {
            let field = cap_field(name);
            let cap = value.as_u64().filter(|cap| *cap > 0);
            let cap = cap.ok_or_else(|| must_be(field, "a whole number above 0"))?;
            ask.output_cap = Some(ask.output_cap.map_or(cap, |other| other.min(cap)));
            ask.cap_field = Some(field);
        }
        (Endpoint::Chat, "messages") => {
            if value.kind() != Kind::Array {
                return Err(must_be("messages", "a list"));
            }
            value.items().for_each(|message| weight.message(&message));
        }
        (Endpoint::Responses, "input") if value.kind() == Kind::Array => {
            value.items().for_each(|item| weight.message(&item));
        }
        (Endpoint::Embeddings, "input") if value.kind() == Kind::Array => {
            value.items().for_each(|item| weight.embedded(&item));
        }
        (_, "input" | "instructions") => weight.text(value),
        (_, "tools" | "functions" | "response_format" | "text") => weight.raw(value),
        _ => {}
    }
    Ok(())
}

fn must_be(field: &str, what: &str) -> Reject {
    Reject::field(field, format!("\"{field}\" must be {what}."))
}

fn cap_field(name: &str) -> &'static str {
    match name {
        "max_tokens" => "max_tokens",
        "max_output_tokens" => "max_output_tokens",
        _ => "max_completion_tokens",
    }
}

/// What every request of an endpoint gets, whatever the app wrote.
fn finish(ask: &mut Ask, endpoint: Endpoint, license: Option<&License>) {
    if endpoint == Endpoint::Responses {
        // Left out, a provider would keep the answer, readable with any key of the account.
        ask.members.set("store", "false");
    }
    let Some(license) = license else { return };
    for field in ["user", "safety_identifier"] {
        if ask.members.contains(field) {
            // 32 hex digits: OpenAI takes at most 64 characters.
            ask.members.set(field, format!("\"{}\"", &license.id.to_hex()[..32]));
        }
    }
}

fn is(value: &Value<'_>, text: &str) -> bool {
    value.as_str().is_some_and(|value| value == text)
}

/// Adds up the input of a request.
#[derive(Default)]
struct Weight {
    millitokens: u64,
    images: u64,
    media: Vec<Arc<str>>,
}

impl Weight {
    fn tokens(&self) -> u64 {
        estimate::tokens(self.millitokens).saturating_add(estimate::REQUEST_TOKENS)
    }

    fn text(&mut self, value: &Value<'_>) {
        match value.as_str() {
            Some(text) => self.millitokens += estimate::text(&text),
            None => self.raw(value),
        }
    }

    /// Anything that is no plain text is weighed as it stands.
    fn raw(&mut self, value: &Value<'_>) {
        let text = String::from_utf8_lossy(value.raw());
        self.millitokens += estimate::text(&text);
    }

    /// One string, or one list of token numbers.
    fn embedded(&mut self, value: &Value<'_>) {
        match value.kind() {
            Kind::Array => self.millitokens += 1000 * value.items().count() as u64,
            Kind::Number => self.millitokens += 1000,
            _ => self.text(value),
        }
    }

    fn message(&mut self, message: &Value<'_>) {
        self.millitokens += 1000 * estimate::MESSAGE_TOKENS;
        if message.get("type").is_none() && message.get("role").is_none() {
            // An id alone names an item that is kept in the seller's account.
            self.other("item_reference");
        }
        for (name, value) in message.members() {
            match &*name.decoded() {
                // Both name state that is kept in the seller's account.
                "type" if is(&value, "item_reference") => self.other("item_reference"),
                "file_id" => self.other("file_id"),
                "role" | "type" | "id" | "status" => {}
                "content" | "output" if value.kind() == Kind::Array => {
                    value.items().for_each(|part| self.part(&part));
                }
                _ => self.text(&value),
            }
        }
    }

    fn part(&mut self, part: &Value<'_>) {
        let kind = part.get("type").and_then(|kind| kind.as_str());
        if part.get("file_id").is_some_and(|id| !id.is_null()) {
            self.other("file_id");
        }
        match kind.as_deref() {
            Some("image_url" | "input_image" | "image") => self.images += 1,
            Some("text" | "input_text" | "output_text" | "refusal" | "summary_text") => {
                let text = part.get("text").or_else(|| part.get("refusal"));
                text.iter().for_each(|text| self.text(text));
            }
            Some(other) => self.other(other),
            None => self.raw(part),
        }
    }

    fn other(&mut self, kind: &str) {
        if !self.media.iter().any(|known| &**known == kind) {
            self.media.push(Arc::from(kind));
        }
    }
}

#[cfg(test)]
mod tests;
