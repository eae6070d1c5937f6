//! Who may look and who may act. `Host` must be one of ours, so that a web page that rebinds its name
//! to this address reads nothing; `Origin`, where a browser sends one, too, so that a page of somebody
//! else changes nothing.

use std::net::IpAddr;

use http::{HeaderMap, Method, StatusCode, header};
use secrecy::ExposeSecret;
use subtle::ConstantTimeEq;

use crate::{operator::Failure, snapshot::Snapshot};

/// # Errors
/// 401 without the token where one is needed, 403 for a foreign host.
pub fn may_look(headers: &HeaderMap, snapshot: &Snapshot) -> Result<(), Failure> {
    let settings = &snapshot.settings.admin;
    let bearer = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let token = settings.token.as_ref().map(|token| token.expose_secret());
    let trusted = match (token, bearer) {
        (Some(token), Some(bearer)) => bool::from(token.as_bytes().ct_eq(bearer.as_bytes())),
        _ => false,
    };
    if trusted {
        return Ok(());
    }
    if !settings.listen.ip().is_loopback() || bearer.is_some() {
        let message = "Send the admin token as a bearer token.";
        return Err(Failure::new(StatusCode::UNAUTHORIZED, "unauthorized", message));
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    if host.is_some_and(|host| is_our_host(host, snapshot)) {
        return Ok(());
    }
    let message = "This host name is not in admin.hosts.";
    Err(Failure::new(StatusCode::FORBIDDEN, "forbidden", message))
}

/// For everything that changes something or names a buyer.
///
/// # Errors
/// As [`may_look`]; 405 unless it is a POST, 415 unless it is JSON, 403 for a foreign origin.
pub fn may_act(method: &Method, headers: &HeaderMap, snapshot: &Snapshot) -> Result<(), Failure> {
    may_look(headers, snapshot)?;
    if method != Method::POST {
        let message = "This address takes POST requests only.";
        let status = StatusCode::METHOD_NOT_ALLOWED;
        return Err(Failure::new(status, "method_not_allowed", message));
    }
    if !headers.get_all(header::ORIGIN).iter().all(|origin| {
        let host = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        host.is_some_and(|(_, host)| is_our_host(host, snapshot))
    }) {
        let message = "Pages of other hosts may not do this.";
        return Err(Failure::new(StatusCode::FORBIDDEN, "forbidden", message));
    }
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        let message = "Send the body as content-type: application/json.";
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return Err(Failure::new(status, "unsupported_media_type", message));
    }
    Ok(())
}

fn is_our_host(host: &str, snapshot: &Snapshot) -> bool {
    let settings = &snapshot.settings.admin;
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let literal = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    name.eq_ignore_ascii_case("localhost")
        || literal.is_ok_and(|ip| ip.is_loopback() || ip == settings.listen.ip())
        || settings.hosts.iter().any(|known| known.eq_ignore_ascii_case(name))
}
