//! The upstream request: built, not copied.
//!
//! Method and path come from the route, headers from the list below, the one credential from the
//! key. What the app sent can't leak, because nothing is carried over by default.

use bytes::Bytes;
use gatekeeper_filters::kernel::{Ask, Endpoint, Exchange, Target};
use http::{HeaderValue, Method, Uri, Version};
use pingora_core::{Error, ErrorType, OrErr};
use pingora_http::RequestHeader;

use crate::{pool::Provider, pool::key::Key, proxy::fields};

const USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("gatekeeper/", env!("CARGO_PKG_VERSION")));

/// The head of one attempt. HTTP/2 wants the authority in the URI, HTTP/1 in `Host`.
///
/// # Errors
/// A configured base URL that makes no valid request target.
pub fn head(
    provider: &Provider,
    key: &Key,
    endpoint: Endpoint,
    is_stream: bool,
    length: usize,
    http2: bool,
) -> pingora_core::Result<RequestHeader> {
    let target = &provider.paths[endpoint as usize];
    let mut head = RequestHeader::build_no_case(Method::POST, target.as_bytes(), Some(8))?;
    if http2 {
        let authority = provider.authority.as_bytes();
        let uri = Uri::builder().scheme("https").authority(authority).path_and_query(&**target);
        head.set_uri(uri.build().or_err(ErrorType::InvalidHTTPHeader, "upstream URI")?);
        head.set_version(Version::HTTP_2);
    } else {
        head.insert_header(http::header::HOST, provider.authority.clone())?;
        head.set_version(Version::HTTP_11);
    }
    head.insert_header(http::header::CONTENT_TYPE, "application/json")?;
    let accept = if is_stream { "text/event-stream" } else { "application/json" };
    head.insert_header(http::header::ACCEPT, accept)?;
    // Usage is read from the body, so it must come uncompressed.
    head.insert_header(http::header::ACCEPT_ENCODING, "identity")?;
    head.insert_header(http::header::USER_AGENT, USER_AGENT)?;
    head.insert_header(http::header::CONTENT_LENGTH, length)?;
    head.insert_header(http::header::AUTHORIZATION, key.authorization())?;
    if head.headers.get_all(http::header::AUTHORIZATION).iter().count() != 1 {
        return Error::e_explain(
            ErrorType::InternalError,
            "an upstream request needs one credential",
        );
    }
    Ok(head)
}

/// The body of one attempt, in pieces. Members that nobody changed are the app's own bytes, so two
/// attempts at one target send the same.
pub fn body(ask: &Ask, exchange: &Exchange, provider: &Provider, target: &Target) -> Vec<Bytes> {
    let mut members = ask.members.clone();
    let allowed = &provider.settings.allow_fields;
    members.retain(|name| {
        fields::passes(exchange.endpoint, name)
            || name == b"store"
            || allowed.iter().any(|field| field.as_bytes() == name)
    });
    members.set("model", quoted(&target.model));
    if let Some(cap) = exchange.output_cap {
        set_cap(&mut members, exchange.endpoint, provider, cap);
    }
    if ask.stream && exchange.endpoint == Endpoint::Chat {
        members.set("stream_options", Bytes::from_static(br#"{"include_usage":true}"#));
    }
    members.to_pieces()
}

fn set_cap(
    members: &mut gatekeeper_filters::kernel::Members,
    endpoint: Endpoint,
    provider: &Provider,
    cap: u64,
) {
    let fields: &[&'static str] = match endpoint {
        Endpoint::Chat => &["max_tokens", "max_completion_tokens"],
        Endpoint::Responses => &["max_output_tokens"],
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

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
