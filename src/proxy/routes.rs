//! What may come in: exact (method, path) pairs, unambiguous framing, one credential in one place.
//!
//! Everything here is decided on the bytes that were received; what passes is never copied to a
//! provider, it only selects a row of the table.

use std::sync::Arc;

use gatekeeper_filters::kernel::{AskedTier, Code, Credential, Dialect, Endpoint, Rejection, Tier};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use pingora_core::protocols::http::ServerSession;

use crate::{
    dialect::parse_body::GeminiMethod,
    downstream::framing::is_host,
    prompts::PREFIX,
    shops::{self, Scheme, Shop},
};

mod not_served;
mod table;

use self::table::{OPTIONAL, TABLE};
pub use self::{
    not_served::{no_cors, not_served, shown_path},
    table::RouteEntry,
};

/// The name of a shop follows; for shops that sign nothing, a secret after it.
const WEBHOOKS: &[u8] = b"/webhooks/";

/// Gemini's paths name model and method after one of these; its SDK for Python takes the second.
const GENERATE: [&[u8]; 2] = [b"/v1beta/models/", b"/v1/models/"];

/// What Gemini's API does with a model, beside what is served here.
const GEMINI_METHODS: [&[u8]; 4] =
    [b"countTokens", b"embedContent", b"batchEmbedContents", b"predict"];

/// The name of a prompt follows.
const PROMPTS: &[u8] = b"/v1/prompts/";

/// One model's name follows.
const MODEL: &[u8] = b"/v1/models/";

// Looked up in every request: a name that is parsed already costs half.
const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const X_GOOG_API_KEY: HeaderName = HeaderName::from_static("x-goog-api-key");
const API_KEY: HeaderName = HeaderName::from_static("api-key");
static MESSAGE_ID: HeaderName = HeaderName::from_static("x-message-id");
static CONVERSATION_ID: HeaderName = HeaderName::from_static("x-conversation-id");
static INSTANCE_ID: HeaderName = HeaderName::from_static("x-instance-id");
static TIER: HeaderName = HeaderName::from_static("x-gatekeeper-tier");

/// Finds the row; the query is ignored and goes nowhere.
///
/// # Errors
/// 404 for a path, 405 for a method that is not in the table.
pub fn enter(method: &Method, target: &[u8]) -> Result<RouteEntry, Rejection> {
    let path = target.split(|byte| *byte == b'?').next().unwrap_or_default();
    let mut allowed = None;
    if let Some(shop) = webhook_of(path) {
        match *method {
            Method::POST => return Ok(RouteEntry::Webhook(shop)),
            _ => allowed = Some("POST"),
        }
    }
    if split_generate(path).is_some() {
        match *method {
            Method::POST => return Ok(RouteEntry::Provider(Endpoint::Generate)),
            _ => allowed = Some("POST"),
        }
    }
    if prompt_of(path).is_some() {
        match *method {
            Method::POST => return Ok(RouteEntry::Prompt),
            _ => allowed = Some("POST"),
        }
    }
    if allowed.is_none() && model_of(path).is_some() {
        match *method {
            Method::GET => return Ok(RouteEntry::Model),
            _ => allowed = Some("GET"),
        }
    }
    for (known, at, entry) in TABLE.into_iter().chain(OPTIONAL) {
        if at.as_bytes() == path {
            let is_head =
                matches!(entry, RouteEntry::Health | RouteEntry::Claim) && *method == Method::HEAD;
            if known == method.as_str() || is_head {
                return Ok(entry);
            }
            allowed = Some(known);
        }
    }
    Err(match allowed {
        Some(known) => {
            let message = format!("This address takes {known} requests only.");
            Rejection { allow: Some(known), ..Rejection::new(Code::MethodNotAllowed, message) }
        }
        None => not_served(method, path),
    })
}

/// The name of one model in its path, as it stands there.
pub fn model_of(target: &[u8]) -> Option<&[u8]> {
    let path = target.split(|byte| *byte == b'?').next().unwrap_or_default();
    path.strip_prefix(MODEL).filter(|name| !name.is_empty() && !is_of_gemini(path))
}

/// The name of a prompt in its path.
pub fn prompt_of(target: &[u8]) -> Option<&str> {
    let path = target.split(|byte| *byte == b'?').next().unwrap_or_default();
    let name = path.strip_prefix(PROMPTS)?;
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let fits = (1..=64).contains(&name.len()) && name.iter().all(plain);
    std::str::from_utf8(name).ok().filter(|_| fits)
}

/// Whether it names a model and something that Gemini's API does with one.
fn is_of_gemini(path: &[u8]) -> bool {
    let method = memchr::memrchr(b':', path).map(|colon| &path[colon + 1..]);
    split_generate(path).is_some() || method.is_some_and(|method| GEMINI_METHODS.contains(&method))
}

/// What an app speaks that asks for this: the envelope of its errors.
pub fn dialect(target: &[u8]) -> Dialect {
    let path = target.split(|byte| *byte == b'?').next().unwrap_or_default();
    let below = path.strip_prefix(b"/v1/messages");
    match below {
        // Also of what is not served here, such as counting tokens and batches.
        Some([] | [b'/', ..]) => Dialect::Anthropic,
        _ if path.starts_with(GENERATE[0]) || is_of_gemini(path) => Dialect::Gemini,
        _ => Dialect::OpenAi,
    }
}

/// `None` for other paths.
///
/// # Errors
/// A key in the address, where it would end in logs; a stream in another form than events.
pub fn generate(target: &[u8]) -> Result<Option<GeminiMethod>, Rejection> {
    let mut parts = target.splitn(2, |byte| *byte == b'?');
    let path = parts.next().unwrap_or_default();
    let Some((model, stream)) = split_generate(path) else { return Ok(None) };
    let query = parts.next().unwrap_or_default();
    let has = |wanted: &[u8]| query.split(|byte| *byte == b'&').any(|pair| pair == wanted);
    if query.split(|byte| *byte == b'&').any(|pair| pair.starts_with(b"key=")) {
        return Err(missing("Send the licence key as \"x-goog-api-key\", never in the address."));
    }
    if stream && !has(b"alt=sse") {
        return Err(Rejection::field("alt", "Streams are served as events: add \"?alt=sse\"."));
    }
    Ok(Some(GeminiMethod { model: String::from_utf8_lossy(model).into(), stream }))
}

/// The model and whether a stream is asked for. Names are plain words: nothing in them is escaped, and the
/// SDKs escape nothing.
fn split_generate(path: &[u8]) -> Option<(&[u8], bool)> {
    let rest = GENERATE.iter().find_map(|prefix| path.strip_prefix(*prefix))?;
    let colon = memchr::memrchr(b':', rest)?;
    let (model, method) = (&rest[..colon], &rest[colon + 1..]);
    let name = model.strip_prefix(PREFIX.as_bytes()).unwrap_or(model);
    let plain =
        |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b':');
    let stream = match method {
        b"generateContent" => false,
        b"streamGenerateContent" => true,
        _ => return None,
    };
    (!name.is_empty() && name.iter().all(plain)).then_some((model, stream))
}

/// `anthropic-version`, to be passed on.
///
/// # Errors
/// 400 unless it is a date.
pub fn api_version(headers: &HeaderMap, endpoint: Endpoint) -> Result<Option<Arc<str>>, Rejection> {
    const NAME: &str = "anthropic-version";
    if endpoint != Endpoint::Messages {
        return Ok(None);
    }
    let Some(value) = headers.get(NAME) else { return Ok(None) };
    let is_date = |text: &&str| {
        let digits = text.bytes().filter(u8::is_ascii_digit).count();
        text.len() == 10 && digits == 8 && text.bytes().all(|b| b.is_ascii_digit() || b == b'-')
    };
    match value.to_str().ok().filter(is_date) {
        Some(version) => Ok(Some(version.into())),
        None => Err(Rejection::field(NAME, format!("{NAME} must be a date like 2023-06-01."))),
    }
}

/// The shop whose webhooks come here. Where the address holds a secret, that is one more word, whatever it is:
/// whether it is the right one is decided later.
fn webhook_of(path: &[u8]) -> Option<&'static dyn Shop> {
    let below = path.strip_prefix(WEBHOOKS)?;
    let mut parts = below.splitn(2, |byte| *byte == b'/');
    let name = std::str::from_utf8(parts.next()?).ok()?;
    let shop = shops::by_name(name)?;
    let has_secret = shop.webhook()?.scheme() == Scheme::Path;
    let fits = match parts.next() {
        Some(secret) => has_secret && !secret.is_empty() && !secret.contains(&b'/'),
        None => !has_secret,
    };
    fits.then_some(shop)
}

/// What is wrong with the head of an HTTP/2 request that its codec lets pass. HTTP/1.1 was checked before, on the
/// bytes that were received (`downstream::framing`).
///
/// # Errors
/// 400, with the connection to be closed.
pub fn check_head(session: &ServerSession) -> Result<(), Rejection> {
    if session.is_http2() {
        let headers = &session.req_header().headers;
        if headers.contains_key(http::header::UPGRADE) {
            return Err(unframed("upgrades are not served"));
        }
        if headers.get_all(http::header::HOST).iter().any(|host| !is_host(host.as_bytes())) {
            return Err(unframed("a Host that is no host"));
        }
    }
    Ok(())
}

fn unframed(why: &str) -> Rejection {
    Rejection::new(Code::InvalidRequest, format!("This request is not well-formed: {why}."))
}

/// The licence key: one `Authorization: Bearer`, or the header in which the SDKs of a dialect send a key,
/// and nothing like a credential anywhere else.
///
/// # Errors
/// 401 when it is missing, doubled or not readable.
pub fn credential(headers: &HeaderMap, dialect: Dialect) -> Result<Credential, Rejection> {
    static ELSEWHERE: [HeaderName; 3] = [X_API_KEY, X_GOOG_API_KEY, API_KEY];
    let own = match dialect {
        Dialect::OpenAi => None,
        Dialect::Anthropic => Some(&ELSEWHERE[0]),
        Dialect::Gemini => Some(&ELSEWHERE[1]),
    };
    let mut bearer = headers.get_all(http::header::AUTHORIZATION).iter();
    let mut plain = own.map(|own| headers.get_all(own).iter()).into_iter().flatten();
    let mut others = ELSEWHERE.iter().filter(|name| Some(*name) != own);
    let elsewhere = others.any(|name| headers.contains_key(name));
    let found = (bearer.next(), plain.next());
    let doubled = bearer.next().is_some() || plain.next().is_some();
    match (found, elsewhere) {
        ((Some(value), None), false) if !doubled => parse_bearer(value).ok_or_else(|| {
            let text = value.to_str().unwrap_or_default();
            let is_bearer = text.split_once(' ').is_some_and(|(scheme, key)| {
                scheme.eq_ignore_ascii_case("bearer") && !key.trim().is_empty()
            });
            missing(if is_bearer {
                "This does not look like a licence key: it has a space or another unusual character in it, or is \
                 too long. Please copy all of it, and nothing else."
            } else {
                "Enter your licence key to use this app. (For its developer: the Authorization header must be \
                 \"Bearer\" and the key.)"
            })
        }),
        ((None, Some(value)), false) if !doubled => {
            let key = value.to_str().ok().and_then(parse_key);
            key.ok_or_else(|| missing("The licence key can't be read."))
        }
        ((None, None), false) => Err(missing("Enter your licence key to use this app.")),
        ((None, None), true) => {
            let place = own.map_or("Authorization: Bearer", HeaderName::as_str);
            Err(missing(&format!("Send the licence key as \"{place}\" and nowhere else.")))
        }
        _ => Err(missing("Send exactly one licence key, in one header.")),
    }
}

fn missing(message: &str) -> Rejection {
    Rejection::new(Code::LicenseMissing, message)
}

/// Longest licence key looked at, in bytes: a signed one.
const LONGEST_KEY: usize = shops::signed::LONGEST;

fn parse_bearer(value: &HeaderValue) -> Option<Credential> {
    let (scheme, key) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| parse_key(key)).flatten()
}

fn parse_key(key: &str) -> Option<Credential> {
    let key = key.trim();
    let plain = (1..=LONGEST_KEY).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic());
    plain.then(|| Credential::new(key))
}

/// `x-message-id`: 1-64 of `[A-Za-z0-9_-]`; anything else is refused rather than ignored, because
/// the app would be charged twice without knowing.
///
/// # Errors
/// 400 naming the header.
pub fn message_id(headers: &HeaderMap) -> Result<Option<Arc<str>>, Rejection> {
    id(headers, &MESSAGE_ID)
}

/// `x-conversation-id`: keeps a conversation on its target.
///
/// # Errors
/// 400 naming the header.
pub fn conversation_id(headers: &HeaderMap) -> Result<Option<Arc<str>>, Rejection> {
    id(headers, &CONVERSATION_ID)
}

/// `x-instance-id`: the device, as its activation named it.
///
/// # Errors
/// 400 naming the header.
pub fn instance_id(headers: &HeaderMap) -> Result<Option<Arc<str>>, Rejection> {
    id(headers, &INSTANCE_ID)
}

/// `x-gatekeeper-tier`. Nothing is refused here: only a smart model looks at it.
pub fn asked_tier(headers: &HeaderMap) -> AskedTier {
    let mut values = headers.get_all(&TIER).iter();
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

fn id(headers: &HeaderMap, name: &'static HeaderName) -> Result<Option<Arc<str>>, Rejection> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    match value.to_str() {
        Ok(id) if is_instance_id(id) && values.next().is_none() => Ok(Some(id.into())),
        _ => Err(Rejection::field(
            name.as_str(),
            format!("{name} must be sent once, as 1-64 of A-Z a-z 0-9 _ -."),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exact_pairs_pass() {
        let entry = |method: Method, path: &str| enter(&method, path.as_bytes());
        assert_eq!(entry(Method::POST, "/chat").unwrap(), RouteEntry::Provider(Endpoint::Chat));
        assert_eq!(entry(Method::GET, "/v1/me?x=1").unwrap(), RouteEntry::Me);
        assert_eq!(entry(Method::GET, "/chat").unwrap_err().code, Code::MethodNotAllowed);
        assert_eq!(entry(Method::HEAD, "/healthz").unwrap(), RouteEntry::Health);
        assert_eq!(entry(Method::HEAD, "/v1/me").unwrap_err().code, Code::MethodNotAllowed);
        let webhook = |name| RouteEntry::Webhook(shops::by_name(name).unwrap());
        assert_eq!(entry(Method::POST, "/webhooks/gumroad/x").unwrap(), webhook("gumroad"));
        assert_eq!(entry(Method::POST, "/webhooks/polar").unwrap(), webhook("polar"));
        assert!(entry(Method::POST, "/webhooks/polar/x").is_err());
        assert!(entry(Method::POST, "/webhooks/gumroad/").is_err());
        assert!(entry(Method::POST, "/webhooks/gumroad/x/y").is_err());
        let gemini = |path: &str| entry(Method::POST, path).ok();
        for path in [
            "/v1beta/models/gemini-2.5:generateContent?alt=sse",
            "/v1beta/models/a:streamGenerateContent",
            "/v1beta/models/llama:8b:generateContent",
            "/v1/models/gemini-2.5:generateContent",
            "/v1/models/a:streamGenerateContent?alt=sse",
        ] {
            assert_eq!(gemini(path), Some(RouteEntry::Provider(Endpoint::Generate)), "{path}");
        }
        for path in [
            "a/b:generateContent",
            "a%2fb:generateContent",
            ":generateContent",
            "a:countTokens",
            "a",
        ] {
            assert_eq!(gemini(&format!("/v1beta/models/{path}")), None, "{path}");
        }
        assert_eq!(entry(Method::GET, "/v1/models/fast?x=1").unwrap(), RouteEntry::Model);
        assert_eq!(entry(Method::GET, "/v1/models/llama:8b").unwrap(), RouteEntry::Model);
        for (method, path) in [
            (Method::POST, "/v1/models/fast"),
            (Method::GET, "/v1/models/a:generateContent"),
            (Method::GET, "/v1/messages/count_tokens"),
        ] {
            assert_eq!(entry(method, path).unwrap_err().code, Code::MethodNotAllowed, "{path}");
        }
        for path in ["/v1/models/a:embedContent", "/v1/models/"] {
            assert_eq!(entry(Method::POST, path).unwrap_err().code, Code::NotFound, "{path}");
        }
        for path in ["/chat/", "//chat", "/Chat", "/v1/../chat", "/v1/%63hat", "/", ""] {
            assert_eq!(entry(Method::POST, path).unwrap_err().code, Code::NotFound, "{path}");
        }
    }

    #[test]
    fn one_credential_in_one_place() {
        let headers = |list: &[(&'static str, &str)]| {
            let mut map = HeaderMap::new();
            for (name, value) in list {
                map.append(*name, value.parse().unwrap());
            }
            credential(&map, Dialect::OpenAi).map(|credential| credential.expose().to_owned()).ok()
        };
        let plain = |name: &'static str, dialect| {
            let map = [(name.parse().unwrap(), "K-1".parse().unwrap())].into_iter().collect();
            credential(&map, dialect).is_ok()
        };
        assert!(plain("x-api-key", Dialect::Anthropic) && plain("x-goog-api-key", Dialect::Gemini));
        assert!(
            !plain("x-api-key", Dialect::Gemini) && !plain("x-goog-api-key", Dialect::Anthropic)
        );
        assert_eq!(headers(&[("authorization", "bearer  K-1 ")]).as_deref(), Some("K-1"));
        assert_eq!(headers(&[]), None);
        assert_eq!(headers(&[("authorization", "Basic K-1")]), None);
        assert_eq!(headers(&[("authorization", "Bearer a b")]), None);
        assert_eq!(headers(&[("authorization", "Bearer a"), ("authorization", "Bearer a")]), None);
        assert_eq!(headers(&[("authorization", "Bearer a"), ("x-api-key", "a")]), None);
        assert_eq!(headers(&[("x-api-key", "a")]), None);
    }

    #[test]
    fn a_key_in_the_wrong_place_is_told_the_right_one_for_its_sdk() {
        let told = |dialect| {
            let map = [("api-key".parse().unwrap(), "K-1".parse().unwrap())].into_iter().collect();
            credential(&map, dialect).unwrap_err().message
        };
        assert!(told(Dialect::OpenAi).contains("Authorization: Bearer"));
        assert!(told(Dialect::Anthropic).contains("\"x-api-key\""));
        assert!(told(Dialect::Gemini).contains("\"x-goog-api-key\""));
    }
}
