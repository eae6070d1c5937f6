//! What may come in: exact (method, path) pairs, unambiguous framing, one credential in one place.
//!
//! Everything here is decided on the bytes that were received; what passes is never copied to a
//! provider, it only selects a row of the table.

use gatekeeper_filters::kernel::{AskedTier, Code, Credential, Endpoint, Reject, Tier};
use http::{HeaderMap, HeaderValue, Method, Version};
use pingora_core::protocols::http::ServerSession;

/// A row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// Goes to a provider.
    Provider(Endpoint),
    Models,
    Me,
    Activate,
    Deactivate,
    LemonSqueezyWebhook,
    GumroadWebhook,
    Health,
}

/// What follows is the secret of Gumroad's ping, so only its beginning is ever shown.
pub const GUMROAD: &str = "/webhooks/gumroad/";

const TABLE: [(&str, &str, Entry); 10] = [
    ("POST", "/v1/chat/completions", Entry::Provider(Endpoint::Chat)),
    ("POST", "/chat", Entry::Provider(Endpoint::Chat)),
    ("POST", "/v1/responses", Entry::Provider(Endpoint::Responses)),
    ("POST", "/v1/embeddings", Entry::Provider(Endpoint::Embeddings)),
    ("GET", "/v1/models", Entry::Models),
    ("GET", "/v1/me", Entry::Me),
    ("POST", "/license/activate", Entry::Activate),
    ("POST", "/license/deactivate", Entry::Deactivate),
    ("POST", "/webhooks/lemonsqueezy", Entry::LemonSqueezyWebhook),
    ("GET", "/healthz", Entry::Health),
];

/// Finds the row; the query is ignored and goes nowhere.
///
/// # Errors
/// 404 for a path, 405 for a method that is not in the table.
pub fn enter(method: &Method, target: &[u8]) -> Result<Entry, Reject> {
    let path = target.split(|byte| *byte == b'?').next().unwrap_or_default();
    let mut allowed = None;
    if is_gumroad(path) {
        match *method {
            Method::POST => return Ok(Entry::GumroadWebhook),
            _ => allowed = Some("POST"),
        }
    }
    for (known, at, entry) in TABLE {
        if at.as_bytes() == path {
            if known == method.as_str() {
                return Ok(entry);
            }
            allowed = Some(known);
        }
    }
    Err(match allowed {
        Some(known) => {
            let message = format!("This address takes {known} requests only.");
            Reject { allow: Some(known), ..Reject::new(Code::MethodNotAllowed, message) }
        }
        None => Reject::new(Code::NotFound, "There is nothing at this address."),
    })
}

/// One more word after the fixed part, whatever it is: whether it is the secret is decided later.
fn is_gumroad(path: &[u8]) -> bool {
    path.strip_prefix(GUMROAD.as_bytes())
        .is_some_and(|secret| !secret.is_empty() && !secret.contains(&b'/'))
}

/// Refuses every message whose end two parsers could see in different places, and upgrades.
///
/// Pingora takes Content-Length out before any hook runs when Transfer-Encoding stands beside it,
/// so the raw bytes are scanned (RFC 9112 section 6.3).
///
/// # Errors
/// 400, with the connection to be closed.
pub fn check_framing(session: &ServerSession) -> Result<(), Reject> {
    let request = session.req_header();
    if request.headers.contains_key(http::header::UPGRADE) {
        return Err(unframed("upgrades are not served"));
    }
    let Some(http1) = session.as_http1() else { return Ok(()) };
    let framing = scan(&http1.get_headers_raw_bytes()).map_err(unframed)?;
    if request.version == Version::HTTP_11 && !request.headers.contains_key(http::header::HOST) {
        return Err(unframed("no Host header"));
    }
    if request.version == Version::HTTP_10 && (framing.lengths > 0 || framing.encodings > 0) {
        return Err(unframed("HTTP/1.0 with a body"));
    }
    match framing {
        Framing { lengths: 1.., encodings: 1.. } => {
            Err(unframed("Content-Length together with Transfer-Encoding"))
        }
        Framing { lengths: 2.., .. } => Err(unframed("more than one Content-Length")),
        Framing { encodings: 2.., .. } => Err(unframed("more than one Transfer-Encoding")),
        _ => Ok(()),
    }
}

fn unframed(why: &str) -> Reject {
    Reject::new(Code::InvalidRequest, format!("This request is not well-formed: {why}."))
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Framing {
    lengths: usize,
    encodings: usize,
}

/// Counts the framing headers in a raw HTTP/1 head. Only `chunked` alone is a known encoding.
fn scan(head: &[u8]) -> Result<Framing, &'static str> {
    let mut framing = Framing::default();
    let mut rest = head;
    let mut first = true;
    while let Some(end) = memchr::memchr(b'\n', rest) {
        let Some(line) = rest[..end].strip_suffix(b"\r") else { return Err("a bare line feed") };
        rest = &rest[end + 1..];
        if std::mem::take(&mut first) {
            check_target(line)?;
            continue;
        }
        let Some(colon) = memchr::memchr(b':', line) else { continue };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            framing.lengths += 1;
            if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
                return Err("a Content-Length that is not a number");
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            framing.encodings += 1;
            if !value.eq_ignore_ascii_case(b"chunked") {
                return Err("a Transfer-Encoding other than chunked");
            }
        }
    }
    Ok(framing)
}

/// Only the origin form, in visible ASCII: what is compared with the table is what was sent.
fn check_target(line: &[u8]) -> Result<(), &'static str> {
    let mut words = line.split(|byte| *byte == b' ');
    let target = words.nth(1).unwrap_or_default();
    let version = words.next().unwrap_or_default();
    if !target.starts_with(b"/") || !target.iter().all(u8::is_ascii_graphic) {
        return Err("a request target that is not a plain path");
    }
    if words.next().is_some() || !version.starts_with(b"HTTP/1.") {
        return Err("a request line with extra words");
    }
    Ok(())
}

/// The licence key: one `Authorization: Bearer`, and nothing like a credential anywhere else.
///
/// # Errors
/// 401 when it is missing, doubled or not readable.
pub fn credential(headers: &HeaderMap) -> Result<Credential, Reject> {
    const ELSEWHERE: [&str; 3] = ["x-api-key", "x-goog-api-key", "api-key"];
    let mut bearer = headers.get_all(http::header::AUTHORIZATION).iter();
    let elsewhere = ELSEWHERE.iter().any(|name| headers.contains_key(*name));
    match (bearer.next(), bearer.next(), elsewhere) {
        (Some(value), None, false) => parse_bearer(value).ok_or_else(|| {
            missing("The Authorization header must be \"Bearer\" and your licence key.")
        }),
        (None, None, false) => Err(missing("Enter your licence key to use this app.")),
        (None, None, true) => {
            Err(missing("Send the licence key as \"Authorization: Bearer\" and nowhere else."))
        }
        _ => Err(missing("Send exactly one licence key, in one header.")),
    }
}

fn missing(message: &str) -> Reject {
    Reject::new(Code::LicenseMissing, message)
}

/// Longest licence key looked at, in bytes.
const LONGEST_KEY: usize = 256;

fn parse_bearer(value: &HeaderValue) -> Option<Credential> {
    let (scheme, key) = value.to_str().ok()?.split_once(' ')?;
    let key = key.trim();
    let plain = (1..=LONGEST_KEY).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic());
    (scheme.eq_ignore_ascii_case("bearer") && plain).then(|| Credential::new(key))
}

/// `x-message-id`: 1-64 of `[A-Za-z0-9_-]`; anything else is refused rather than ignored, because
/// the app would be charged twice without knowing.
///
/// # Errors
/// 400 naming the header.
pub fn message_id(headers: &HeaderMap) -> Result<Option<std::sync::Arc<str>>, Reject> {
    id(headers, "x-message-id")
}

/// `x-instance-id`: the device, as its activation named it.
///
/// # Errors
/// 400 naming the header.
pub fn instance_id(headers: &HeaderMap) -> Result<Option<std::sync::Arc<str>>, Reject> {
    id(headers, "x-instance-id")
}

/// `x-gatekeeper-tier`. Nothing is refused here: only a smart model looks at it.
pub fn asked_tier(headers: &HeaderMap) -> AskedTier {
    let mut values = headers.get_all("x-gatekeeper-tier").iter();
    match (values.next().map(HeaderValue::as_bytes), values.next()) {
        (None, _) => AskedTier::None,
        (Some(b"simple"), None) => AskedTier::Tier(Tier::Simple),
        (Some(b"complex"), None) => AskedTier::Tier(Tier::Complex),
        _ => AskedTier::Unknown,
    }
}

/// Whether it could be the id of a device.
pub fn is_instance_id(id: &str) -> bool {
    (1..=64).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

fn id(headers: &HeaderMap, name: &'static str) -> Result<Option<std::sync::Arc<str>>, Reject> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    match value.to_str() {
        Ok(id) if is_instance_id(id) => Ok(Some(id.into())),
        _ => Err(Reject::field(name, format!("{name} must be 1-64 of A-Z a-z 0-9 _ -."))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exact_pairs_pass() {
        let entry = |method: Method, path: &str| enter(&method, path.as_bytes());
        assert_eq!(entry(Method::POST, "/chat").unwrap(), Entry::Provider(Endpoint::Chat));
        assert_eq!(entry(Method::GET, "/v1/me?x=1").unwrap(), Entry::Me);
        assert_eq!(entry(Method::GET, "/chat").unwrap_err().code, Code::MethodNotAllowed);
        assert_eq!(entry(Method::POST, "/webhooks/gumroad/x").unwrap(), Entry::GumroadWebhook);
        assert!(entry(Method::POST, "/webhooks/gumroad/").is_err());
        assert!(entry(Method::POST, "/webhooks/gumroad/x/y").is_err());
        for path in ["/chat/", "//chat", "/Chat", "/v1/../chat", "/v1/%63hat", "/", ""] {
            assert_eq!(entry(Method::POST, path).unwrap_err().code, Code::NotFound, "{path}");
        }
    }

    #[test]
    fn framing_that_two_parsers_could_read_differently_is_refused() {
        let head = |headers: &str| scan(format!("POST /chat HTTP/1.1\r\n{headers}\r\n").as_bytes());
        assert_eq!(head("Content-Length: 3\r\n"), Ok(Framing { lengths: 1, encodings: 0 }));
        assert_eq!(
            head("content-length: 3\r\nCONTENT-LENGTH: 3\r\nTransfer-Encoding: chunked\r\n"),
            Ok(Framing { lengths: 2, encodings: 1 })
        );
        assert!(head("Content-Length: +3\r\n").is_err());
        assert!(head("Transfer-Encoding: gzip, chunked\r\n").is_err());
        assert!(head("Host: a\nX: b\r\n").is_err());
        assert!(scan(b"POST http://a/chat HTTP/1.1\r\n\r\n").is_err());
        assert!(scan(b"POST /a b HTTP/1.1\r\n\r\n").is_err());
    }

    #[test]
    fn one_credential_in_one_place() {
        let headers = |list: &[(&'static str, &str)]| {
            let mut map = HeaderMap::new();
            for (name, value) in list {
                map.append(*name, value.parse().unwrap());
            }
            credential(&map).map(|credential| credential.expose().to_owned()).ok()
        };
        assert_eq!(headers(&[("authorization", "bearer  K-1 ")]).as_deref(), Some("K-1"));
        assert_eq!(headers(&[]), None);
        assert_eq!(headers(&[("authorization", "Basic K-1")]), None);
        assert_eq!(headers(&[("authorization", "Bearer a b")]), None);
        assert_eq!(headers(&[("authorization", "Bearer a"), ("authorization", "Bearer a")]), None);
        assert_eq!(headers(&[("authorization", "Bearer a"), ("x-api-key", "a")]), None);
        assert_eq!(headers(&[("x-api-key", "a")]), None);
    }
}
