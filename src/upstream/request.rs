//! The upstream request: built, not copied.
//!
//! Method and path come from the route, headers from the list below, the one credential from the
//! key. What the app sent can't leak, because nothing is carried over by default.

use std::borrow::Cow;

use bytes::{BufMut, Bytes, BytesMut};
use gatekeeper_filters::kernel::{
    Dialect, Endpoint, Exchange, LicenseId, ModelRequest, RequestMembers, Target, json::Reader,
};
use http::{
    HeaderName, HeaderValue, Method, Uri, Version,
    header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HOST},
    request::Parts,
    uri::PathAndQuery,
};
use pingora_core::{ErrorType, OrErr};
use pingora_http::RequestHeader;

use super::provider_session::RequestHead;
use crate::{
    dialect::allowed_fields,
    pool::{
        ProviderPool,
        key::MasterKey,
        request_head::{self, CommonHead},
    },
};

/// `anthropic-version`, required by its reference.
const API_VERSION: HeaderName = HeaderName::from_static("anthropic-version");
/// For apps that send none: the one whose rules don't change.
const STEADY_VERSION: HeaderValue = HeaderValue::from_static("2023-06-01");

/// Room for the fields of a head that differ from request to request.
const OWN_FIELDS: usize = 512;

/// What one attempt asks of a provider.
pub struct UpstreamCall<'a> {
    /// The provider's.
    pub endpoint: Endpoint,
    /// The provider's name of the model.
    pub model: &'a str,
    pub is_stream: bool,
    pub api_version: Option<&'a str>,
}

/// The provider's endpoint: a route holds only targets that have one.
pub fn at(exchange: &Exchange, target: &Target) -> Endpoint {
    exchange.endpoint.at(target.dialect).unwrap_or(exchange.endpoint)
}

/// The head of one attempt.
///
/// # Errors
/// A configured base URL that makes no valid request target.
pub fn head(
    provider: &ProviderPool,
    key: &MasterKey,
    what: &UpstreamCall<'_>,
    length: usize,
    http2: bool,
) -> pingora_core::Result<RequestHead> {
    let common = &provider.heads[what.endpoint as usize];
    let mut uri = Cow::Borrowed(&common.parts.uri);
    if what.endpoint == Endpoint::Generate {
        let path = format!("{}{}", uri.path(), generate(what.model, what.is_stream));
        uri = Cow::Owned(path.parse().or_err(ErrorType::InvalidHTTPHeader, "upstream path")?);
    }
    let version = (what.endpoint == Endpoint::Messages).then(|| {
        let version = what.api_version.and_then(|version| HeaderValue::from_str(version).ok());
        (API_VERSION, version.unwrap_or(STEADY_VERSION))
    });
    let accept = if what.is_stream { "text/event-stream" } else { "application/json" };
    let accept = (ACCEPT, HeaderValue::from_static(accept));
    let length_field = (CONTENT_LENGTH, HeaderValue::from(length));
    // The one credential there is: the head is made from nothing.
    let own = [Some(&accept), Some(&length_field), Some(key.credential()), version.as_ref()];
    let own = own.into_iter().flatten();
    if http2 {
        let mut head = common.parts.clone();
        head.uri = uri.into_owned();
        head.headers.extend(own.cloned());
        return to_http2(head, provider);
    }
    let path = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let mut wire = BytesMut::with_capacity(OWN_FIELDS + path.len() + common.wire.len() + length);
    request_line(&mut wire, &common.parts.method, path);
    wire.put_slice(&common.wire);
    own.for_each(|(name, value)| request_head::put_field(&mut wire, name, value));
    wire.put_slice(b"\r\n");
    Ok(RequestHead::Http1(wire))
}

fn request_line(wire: &mut BytesMut, method: &Method, path: &str) {
    for part in [method.as_str(), " ", path, " HTTP/1.1\r\n"] {
        wire.put_slice(part.as_bytes());
    }
}

/// The end of Gemini's path.
fn generate(model: &str, is_stream: bool) -> String {
    let method = if is_stream { "streamGenerateContent?alt=sse" } else { "generateContent" };
    format!("/{model}:{method}")
}

/// Asks for the list of models: the same path and credential in every dialect.
///
/// # Errors
/// As [`head`].
pub fn model_list(
    provider: &ProviderPool,
    key: &MasterKey,
    http2: bool,
) -> pingora_core::Result<RequestHead> {
    let path = format!("{}/models", provider.settings.base.path);
    let head = CommonHead::new(&path, &provider.authority);
    let mut head = head.or_err(ErrorType::InvalidHTTPHeader, "upstream request")?.parts;
    head.method = Method::GET;
    head.headers.remove(CONTENT_TYPE);
    if provider.settings.dialect == Dialect::Anthropic {
        head.headers.insert(API_VERSION, STEADY_VERSION);
    }
    let (name, secret) = key.credential().clone();
    head.headers.insert(name, secret);
    if http2 {
        return to_http2(head, provider);
    }
    let mut wire = BytesMut::with_capacity(OWN_FIELDS);
    request_line(&mut wire, &head.method, &path);
    for (name, value) in &head.headers {
        request_head::put_field(&mut wire, name, value);
    }
    wire.put_slice(b"\r\n");
    Ok(RequestHead::Http1(wire))
}

/// HTTP/2 wants the authority in the URI, HTTP/1 in `Host`.
fn to_http2(mut head: Parts, provider: &ProviderPool) -> pingora_core::Result<RequestHead> {
    let path = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let authority = provider.authority.as_bytes();
    let uri = Uri::builder().scheme("https").authority(authority).path_and_query(path).build();
    head.uri = uri.or_err(ErrorType::InvalidHTTPHeader, "upstream URI")?;
    head.version = Version::HTTP_2;
    head.headers.remove(HOST);
    Ok(RequestHead::Http2(Box::new(RequestHeader::from(head))))
}

/// The body of one attempt, in pieces. Unchanged members are the app's own bytes, so two attempts at one
/// target send the same. `translated` where the target uses another dialect.
pub fn body(
    ask: &ModelRequest,
    translated: Option<&RequestMembers>,
    exchange: &Exchange,
    provider: &ProviderPool,
    target: &Target,
) -> Vec<Bytes> {
    let endpoint = at(exchange, target);
    let mut members = translated.unwrap_or(&ask.members).clone();
    let allowed = &provider.settings.allow_fields;
    members.retain(|name| {
        allowed_fields::passes(endpoint, name)
            || (name == b"store" && endpoint == Endpoint::Responses)
            || allowed.iter().any(|field| field.as_bytes() == name)
    });
    if endpoint != Endpoint::Generate {
        members.set("model", quoted(&target.model));
    }
    let required = endpoint == Endpoint::Messages && !members.contains("max_tokens");
    if let Some(cap) = exchange.output_cap.or(target.dialect.required_cap().filter(|_| required)) {
        set_cap(&mut members, endpoint, provider, cap);
    }
    if ask.stream && endpoint == Endpoint::Chat {
        members.set("stream_options", Bytes::from_static(br#"{"include_usage":true}"#));
    }
    identify(&mut members, endpoint, exchange, provider);
    members.to_pieces()
}

/// Names the buyer to the provider by the licence's hash, so that what the provider finds wrong with one of
/// them is not the whole account's. The app's own words would name its user.
fn identify(
    members: &mut RequestMembers,
    endpoint: Endpoint,
    exchange: &Exchange,
    provider: &ProviderPool,
) {
    let Some(license) = &exchange.license else { return };
    let field = provider.settings.identity_field(endpoint).filter(|_| provider.settings.identify);
    for name in ["user", "safety_identifier"] {
        if Some(name) != field && members.contains(name) {
            members.set(name, identity(&license.id, endpoint));
        }
    }
    if let Some(field) = field {
        members.set(field, identity(&license.id, endpoint));
    }
}

/// 32 hex digits: OpenAI takes at most 64 characters.
fn identity(license: &LicenseId, endpoint: Endpoint) -> Vec<u8> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let (before, after): (&[u8], &[u8]) = match endpoint {
        Endpoint::Messages => (b"{\"user_id\":\"", b"\"}"),
        _ => (b"\"", b"\""),
    };
    let mut json = Vec::with_capacity(before.len() + 32 + after.len());
    json.extend_from_slice(before);
    for byte in &license.0[..16] {
        json.extend([DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
    json.extend_from_slice(after);
    json
}

fn set_cap(members: &mut RequestMembers, endpoint: Endpoint, provider: &ProviderPool, cap: u64) {
    let fields: &[&'static str] = match endpoint {
        Endpoint::Chat => &["max_tokens", "max_completion_tokens"],
        Endpoint::Responses => &["max_output_tokens"],
        Endpoint::Messages => &["max_tokens"],
        Endpoint::Generate => return set_gemini_cap(members, cap),
        Endpoint::Embeddings => return,
    };
    let mut written = false;
    for field in fields.iter().filter(|field| members.contains(field)).collect::<Vec<_>>() {
        members.set(*field, cap.to_string());
        written = true;
    }
    match endpoint {
        _ if written => {}
        Endpoint::Chat => {
            let field = provider.settings.output_cap_field.to_string();
            members.set(field, cap.to_string());
        }
        _ => members.set(fields[0], cap.to_string()),
    }
}

/// The cap stands inside `generationConfig`, beside what the app put there.
fn set_gemini_cap(members: &mut RequestMembers, cap: u64) {
    let mut config = String::from("{");
    let mut reader = Reader::lenient();
    let known = members.get("generationConfig").and_then(|json| reader.parse(json).ok());
    for (name, value) in known.iter().flat_map(|config| config.members()) {
        if &*name.decoded() != "maxOutputTokens" {
            let (name, value) =
                (String::from_utf8_lossy(name.raw()), String::from_utf8_lossy(value.raw()));
            config.push_str(&format!("\"{name}\":{value},"));
        }
    }
    config.push_str(&format!("\"maxOutputTokens\":{cap}}}"));
    members.set("generationConfig", config);
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
