//! `GET /claim`: the page on which a buyer finds the key, and `POST /license/claim`, where an app takes it.
//!
//! The checkout's `success_url` brings the session's id. It is spent at once for a cookie that only this page gets, so
//! that it stays in no history and no log, and reaches no third party.

mod page;

use bytes::Bytes;
use gatekeeper_filters::kernel::{Code, Rejection, UnixMs};
use http::header;
use pingora_core::protocols::http::ServerSession;
use pingora_http::ResponseHeader;
use serde_json::{Value, json};

use super::routes::not_served;
use crate::{
    downstream::{
        body::{self, BodyError},
        client_ip, respond,
    },
    licenses::issued::{
        IssuedBook,
        stripe::{Claim, ClaimError},
    },
    runtime::snapshot::Snapshot,
    shops::stripe::is_session,
};

/// Only over TLS, only to this host, not to scripts (RFC 6265bis, section 4.1.3.2).
const COOKIE: &str = "__Host-claim";
/// Seconds for which the cookie is good.
const COOKIE_TIME: u64 = 3600;
/// Bytes of a body.
const LONGEST: u64 = 4 * 1024;

/// The source that sells, where one does.
fn book<'a>(session: &ServerSession, snapshot: &'a Snapshot) -> Result<&'a IssuedBook, Rejection> {
    let issued = snapshot.licenses.issued.as_deref();
    let sells = issued.filter(|issued| issued.source.stripe.is_some());
    sells.ok_or_else(|| {
        not_served(&session.req_header().method, session.req_header().uri.path().as_bytes())
    })
}

/// The page; its status.
///
/// # Errors
/// 404 where nothing is sold, 429 and 503 as pages.
pub async fn answer(
    session: &mut ServerSession,
    snapshot: &Snapshot,
    request_id: &str,
) -> Result<u16, BodyError> {
    let book = book(session, snapshot)?;
    let query = session.req_header().uri.query().unwrap_or_default();
    let mut pairs = url::form_urlencoded::parse(query.as_bytes());
    let asked = pairs.find(|(name, _)| name == "session_id").map(|(_, id)| id.into_owned());
    if let Some(id) = asked {
        return match is_session(&id) {
            true => remember(session, book, &id, request_id).await,
            false => write(session, &page::broken_link(), (400, None), request_id).await,
        };
    }
    let id = cookie(session).and_then(|sealed| book.open_visit(&sealed, UnixMs::now()));
    let Some(id) = id else {
        return write(session, &page::no_visit(), (400, None), request_id).await;
    };
    let address = client_ip::limited(session, &snapshot.settings.server);
    let buy_url = snapshot.settings.licenses.buy_url.as_deref();
    let (status, wait, page) = match book.claim(&id, address).await {
        Ok(Claim::Ready(key)) => (200, None, page::key(&key)),
        Ok(Claim::Gone) => (200, None, page::gone()),
        Ok(Claim::Unpaid) => (200, None, page::unpaid()),
        Ok(Claim::Refunded) => (200, None, page::refunded(buy_url)),
        Ok(Claim::Ended(code)) => (200, None, page::ended(code, buy_url)),
        Ok(Claim::Unknown) => (404, None, page::unknown()),
        Err(ClaimError::TooMany(wait)) => (429, Some(wait), page::too_many(wait)),
        Err(ClaimError::Away) => (503, Some(5), page::away()),
    };
    write(session, &page, (status, wait), request_id).await
}

/// Puts the session into the cookie, and leads to the page without it.
async fn remember(
    session: &mut ServerSession,
    book: &IssuedBook,
    id: &str,
    request_id: &str,
) -> Result<u16, BodyError> {
    let Some(sealed) = book.seal_visit(id, UnixMs::now()) else {
        return write(session, &page::away(), (503, Some(5)), request_id).await;
    };
    let cookie =
        format!("{COOKIE}={sealed}; Path=/; Max-Age={COOKIE_TIME}; Secure; HttpOnly; SameSite=Lax");
    let head = || -> pingora_core::Result<ResponseHeader> {
        let mut head = plain_head(303, request_id)?;
        head.insert_header(header::LOCATION, "/claim")?;
        head.insert_header(header::SET_COOKIE, cookie)?;
        head.set_content_length(0)?;
        Ok(head)
    };
    let head = head().map_err(BodyError::Gone)?;
    respond::write(session, head, Bytes::new()).await.map_err(BodyError::Gone)?;
    Ok(303)
}

fn cookie(session: &ServerSession) -> Option<String> {
    let cookies = session.req_header().headers.get_all(header::COOKIE);
    let mut values = cookies.iter().filter_map(|value| value.to_str().ok());
    values.find_map(|value| {
        let mut pairs = value.split(';').filter_map(|pair| pair.trim().split_once('='));
        pairs.find(|(name, _)| *name == COOKIE).map(|(_, value)| value.to_owned())
    })
}

/// Kept by no cache, shown in no frame, telling no other site where the reader came from.
fn plain_head(status: u16, request_id: &str) -> pingora_core::Result<ResponseHeader> {
    let mut head = ResponseHeader::build_no_case(status, Some(12))?;
    head.insert_header("cache-control", "no-store")?;
    head.insert_header("referrer-policy", "no-referrer")?;
    head.insert_header("x-content-type-options", "nosniff")?;
    head.insert_header("x-frame-options", "DENY")?;
    head.insert_header("x-robots-tag", "noindex")?;
    head.insert_header("x-request-id", request_id)?;
    Ok(head)
}

async fn write(
    session: &mut ServerSession,
    page: &page::Page,
    (status, retry_after): (u16, Option<u64>),
    request_id: &str,
) -> Result<u16, BodyError> {
    let body = Bytes::from(page.html());
    let head = || -> pingora_core::Result<ResponseHeader> {
        let mut head = plain_head(status, request_id)?;
        head.insert_header("content-type", "text/html; charset=utf-8")?;
        head.insert_header("content-security-policy", page::policy())?;
        if let Some(seconds) = page.reload {
            head.insert_header("refresh", seconds)?;
        }
        if let Some(seconds) = retry_after {
            head.insert_header("retry-after", seconds)?;
        }
        head.set_content_length(body.len())?;
        Ok(head)
    };
    let head = head().map_err(BodyError::Gone)?;
    respond::write(session, head, body).await.map_err(BodyError::Gone)?;
    Ok(status)
}

/// `{"code"}` → `{"key", "plan", "until"}`
///
/// # Errors
/// 403 for a code that was used or is over, 429 for too many tries.
pub async fn exchange(
    session: &mut ServerSession,
    snapshot: &Snapshot,
) -> Result<Value, BodyError> {
    let book = book(session, snapshot)?;
    let address = client_ip::limited(session, &snapshot.settings.server);
    let body = body::read(session, LONGEST, &mut snapshot.buffered.share()).await?;
    let body: Value = serde_json::from_slice(&body)
        .map_err(|_| Rejection::new(Code::InvalidRequest, "The body is not a JSON object."))?;
    let code = body["code"].as_str().unwrap_or_default().trim();
    if code.is_empty() || code.len() > 128 {
        return Err(Rejection::field("code", "code must be what the link carried.").into());
    }
    match book.exchange(code, address).await {
        Ok(Some(claimed)) => {
            use secrecy::ExposeSecret;
            Ok(json!({
                "key": claimed.key.expose_secret(),
                "plan": &*claimed.plan.name,
                "until": claimed.until.map(|at| at.to_rfc3339().to_string()),
            }))
        }
        Ok(None) => {
            let message = "This link was used already, or is older than 10 minutes. Please reload the page with \
                           your licence key and open the app from there.";
            Err(Rejection::new(Code::LicenseInvalid, message).into())
        }
        Err(ClaimError::TooMany(wait)) => {
            let message = "Too many tries. Please wait a minute.";
            Err(Rejection::new(Code::RateLimited, message).retry_after(wait).into())
        }
        Err(ClaimError::Away) => {
            let message = "The licence can't be looked up just now. Please try again in a moment.";
            Err(Rejection::new(Code::StoreUnavailable, message).retry_after(5).into())
        }
    }
}
