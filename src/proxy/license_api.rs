//! `POST /v1/licenses/{activate,validate,deactivate}`: for apps that were written for Lemon Squeezy's licence API and
//! whose base URL can be changed. Forms and JSON.

use bytes::Bytes;
use gatekeeper_filters::kernel::Credential;
use pingora_core::protocols::http::ServerSession;
use pingora_http::ResponseHeader;
use serde_json::{Value, json};

use super::routes::not_served;
use crate::{
    downstream::{
        body::{self, BodyError},
        client_ip, respond,
    },
    licenses::issued::{AppCall, AppQuestion, IssuedBook},
    runtime::snapshot::Snapshot,
};

/// Bytes of a body.
const LONGEST: u64 = 8 * 1024;
/// Characters of a name, and of an id.
const LONGEST_INSTANCE: usize = 255;
const LONGEST_KEY: usize = 256;

/// Answers; the status.
///
/// # Errors
/// 404 where it is not served.
pub async fn answer(
    call: AppCall,
    session: &mut ServerSession,
    snapshot: &Snapshot,
    request_id: &str,
) -> Result<u16, BodyError> {
    let request = session.req_header();
    let nowhere = not_served(&request.method, request.uri.path().as_bytes());
    let book = &snapshot.licenses;
    let serves = |issued: &&IssuedBook| issued.source.lemonsqueezy_api.is_some();
    let Some(issued) = book.issued.as_deref().filter(serves) else { return Err(nowhere.into()) };
    let address = client_ip::limited(session, &snapshot.settings.server);
    let kind = session.req_header().headers.get(http::header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default().to_owned();
    let body = body::read(session, LONGEST, &mut snapshot.buffered.share()).await?;
    let member = |name: &str| member(&kind, &body, name);
    let member = |name: &str| member(name).filter(|text| !text.trim().is_empty());
    let (second, is_needed) = match call {
        AppCall::Activate => ("instance_name", true),
        AppCall::Validate => ("instance_id", false),
        AppCall::Deactivate => ("instance_id", true),
    };
    let (key, instance) = (member("license_key"), member(second));
    let (status, answer) = match (&key, &instance) {
        (None, _) => missing("license_key"),
        (_, None) if is_needed => missing(second),
        (Some(key), _) if key.len() > LONGEST_KEY => missing("license_key"),
        (_, Some(instance)) if instance.chars().count() > LONGEST_INSTANCE => missing(second),
        (Some(key), _) => {
            let key = Credential::new(key.trim());
            let question = AppQuestion { call, key: &key, instance: instance.as_deref(), address };
            issued.answer_app(&book.sources, &question).await.ok_or(nowhere)?
        }
    };
    let body = Bytes::from(answer.to_string());
    let head = || -> pingora_core::Result<ResponseHeader> {
        let mut head = ResponseHeader::build_no_case(status, Some(6))?;
        head.insert_header("content-type", "application/json")?;
        head.insert_header("cache-control", "no-store")?;
        head.insert_header("x-request-id", request_id)?;
        if matches!(status, 429 | 503) {
            head.insert_header("retry-after", "60")?;
        }
        head.set_content_length(body.len())?;
        Ok(head)
    };
    let head = head().map_err(BodyError::Gone)?;
    respond::write(session, head, body).await.map_err(BodyError::Gone)?;
    Ok(status)
}

/// A member of a body, in whichever way its app writes it; the shop's own SDK says `application/vnd.api+json`.
fn member(kind: &str, body: &[u8], name: &str) -> Option<String> {
    if let Some((_, boundary)) = kind.split_once("boundary=") {
        return of_parts(boundary.split(';').next()?.trim_matches('"'), body, name);
    }
    if kind.contains("json") {
        let body: Value = serde_json::from_slice(body).ok()?;
        return body[name].as_str().map(str::to_owned);
    }
    let mut pairs = url::form_urlencoded::parse(body);
    pairs.find(|(known, _)| known == name).map(|(_, value)| value.into_owned())
}

/// A text of `multipart/form-data` (RFC 7578).
fn of_parts(boundary: &str, body: &[u8], name: &str) -> Option<String> {
    let (limit, wanted) = (format!("--{boundary}"), format!("; name=\"{name}\""));
    std::str::from_utf8(body).ok()?.split(&limit).find_map(|part| {
        let (head, value) = part.split_once("\r\n\r\n")?;
        head.contains(&wanted).then(|| value.strip_suffix("\r\n").unwrap_or(value).to_owned())
    })
}

/// As the shop says that a parameter is missing.
fn missing(name: &str) -> (u16, Value) {
    let message = format!("The {} field is required.", name.replace('_', " "));
    (422, json!({ "message": message, "errors": { name: [message] } }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_found_however_it_is_written() {
        let parts = "--x1\r\nContent-Disposition: form-data; name=\"license_key\"\r\n\r\nKEY 1\r\n--x1\r\n\
            Content-Disposition: form-data; name=\"other\"; filename=\"license_key\"\r\n\r\nno\r\n--x1--\r\n";
        for (kind, body) in [
            ("application/x-www-form-urlencoded", "a=b&license_key=KEY+1"),
            ("", "license_key=KEY%201"),
            ("application/json; charset=utf-8", r#"{"license_key":"KEY 1"}"#),
            ("application/vnd.api+json", r#"{"license_key":"KEY 1"}"#),
            ("multipart/form-data; boundary=x1", parts),
            ("multipart/form-data; boundary=\"x1\"; charset=utf-8", parts),
        ] {
            let found = member(kind, body.as_bytes(), "license_key");
            assert_eq!(found.as_deref(), Some("KEY 1"), "{kind}");
            assert_eq!(member(kind, body.as_bytes(), "license"), None, "{kind}");
        }
    }
}
