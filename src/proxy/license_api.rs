//! `POST /v1/licenses/{activate,validate,deactivate}`: for apps that were written for Lemon Squeezy's licence API and
//! whose base URL can be changed. Form and JSON.

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
    let is_json = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    let body = body::read(session, LONGEST, &mut snapshot.buffered.share()).await?;
    let member = |name: &str| match is_json {
        true => serde_json::from_slice::<Value>(&body)
            .ok()
            .and_then(|body| body[name].as_str().map(str::to_owned)),
        false => url::form_urlencoded::parse(&body)
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.into_owned()),
    };
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

/// As the shop says that a parameter is missing.
fn missing(name: &str) -> (u16, Value) {
    let message = format!("The {} field is required.", name.replace('_', " "));
    (422, json!({ "message": message, "errors": { name: [message] } }))
}
