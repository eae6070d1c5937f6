//! Who may look and who may act.
//!
//! Where a token is configured, or the listener is off loopback, a request carries the token as a bearer
//! token or a browser the cookie of a session. `Host` must be one of ours, so that a web page that rebinds
//! its name to this address reads nothing; `Origin`, where a browser sends one, must be the very page of
//! this listener, so that a page of somebody else, were it on another port of this machine, gets and
//! changes nothing.

use std::{net::IpAddr, time::Instant};

use http::{HeaderMap, Method, StatusCode, header};
use pingora_core::protocols::http::ServerSession;
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

use super::{
    sessions::{Print, Sessions, print},
    tries::{Tried, Tries},
};
use crate::{config::settings, operator::Failure, proxy::address, snapshot::Snapshot};

#[derive(Default)]
pub struct Access {
    pub sessions: Sessions,
    tries: Tries,
}

/// What a request was let in by.
#[derive(Debug, Clone)]
pub enum Pass {
    /// The listener is on loopback and no token is configured.
    Open,
    /// The token whose print this is.
    Bearer(Print),
    Session(Print),
}

/// Where a request comes from and what it came to.
pub struct Caller<'a> {
    pub headers: &'a HeaderMap,
    /// Of the app, if that is known.
    from: Option<IpAddr>,
    /// The end of the connection that is ours.
    to: Option<IpAddr>,
}

impl<'a> Caller<'a> {
    pub fn of(session: &'a ServerSession, snapshot: &Snapshot) -> Self {
        let to = session.server_addr().and_then(|address| address.as_inet());
        Self {
            headers: &session.req_header().headers,
            from: address::of(session, &snapshot.settings.server.trusted_proxies),
            to: to.map(|address| address.ip().to_canonical()),
        }
    }

    fn bearer(&self) -> Option<&'a str> {
        let value = self.headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token)
    }

    fn host(&self) -> Option<&'a str> {
        self.headers.get(header::HOST)?.to_str().ok()
    }

    fn has_our_host(&self, admin: &settings::Admin) -> bool {
        self.host().is_some_and(|host| {
            let name = name_of(host);
            let literal = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
            // Nobody can make an address of ours theirs, other than a name.
            name.eq_ignore_ascii_case("localhost")
                || literal.is_ok_and(|ip| {
                    ip.is_loopback()
                        || ip == admin.listen.ip()
                        || Some(ip.to_canonical()) == self.to
                })
                || is_listed(host, admin)
                || is_listed(name, admin)
        })
    }

    /// Whether a browser sends this for a page that is not of this listener. A page that was navigated to
    /// may be linked from anywhere.
    fn is_foreign(&self, admin: &settings::Admin) -> bool {
        let is_own = |origin: &str| {
            let Some((_, origin)) = origin.split_once("://") else { return false };
            self.host().is_some_and(|host| host.eq_ignore_ascii_case(origin))
                || is_listed(origin, admin)
        };
        let text =
            |name: &str| self.headers.get(name).map(|value| value.to_str().unwrap_or_default());
        self.headers.get_all(header::ORIGIN).iter().any(|origin| !origin.to_str().is_ok_and(is_own))
            || text("sec-fetch-mode") != Some("navigate")
                && text("sec-fetch-site")
                    .is_some_and(|site| site != "same-origin" && site != "none")
                && !self.headers.contains_key(header::ORIGIN)
    }
}

/// Without the port.
fn name_of(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

fn is_listed(host: &str, admin: &settings::Admin) -> bool {
    admin.hosts.iter().any(|known| known.eq_ignore_ascii_case(host))
}

fn forbidden(message: &str) -> Failure {
    Failure::new(StatusCode::FORBIDDEN, "forbidden", message)
}

fn unauthorized(message: &str) -> Failure {
    Failure::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
}

impl Access {
    /// # Errors
    /// 401 without the token where one is needed, 429 after several wrong ones, 403 for a foreign host
    /// or page.
    pub fn look(&self, caller: &Caller<'_>, snapshot: &Snapshot) -> Result<Pass, Failure> {
        let admin = &snapshot.settings.admin;
        if let (Some(token), Some(bearer)) = (&admin.token, caller.bearer()) {
            self.compare(token, bearer, caller)?;
            check_page(caller, admin)?;
            return Ok(Pass::Bearer(print(token.expose_secret())));
        }
        if caller.bearer().is_some() {
            return Err(unauthorized("No admin token is configured; send none."));
        }
        check_host(caller, admin)?;
        check_page(caller, admin)?;
        let Some(token) = &admin.token else {
            return Ok(Pass::Open);
        };
        let token = print(token.expose_secret());
        let session = self.sessions.of(caller.headers, &token, Instant::now());
        let message = "Send the admin token as a bearer token, or log in.";
        session.map(Pass::Session).ok_or_else(|| unauthorized(message))
    }

    /// Whether what was let in may stay: the token is as it was, the session has not ended.
    pub fn still_holds(&self, pass: &Pass, snapshot: &Snapshot) -> bool {
        let token = &snapshot.settings.admin.token;
        let token = token.as_ref().map(|token| print(token.expose_secret()));
        match (pass, token) {
            (Pass::Open, None) => true,
            (Pass::Bearer(was), Some(token)) => *was == token,
            (Pass::Session(id), Some(token)) => self.sessions.holds(id, &token, Instant::now()),
            _ => false,
        }
    }

    /// For everything that changes something or names a buyer.
    ///
    /// # Errors
    /// As [`Self::look`]; 405 unless it is a POST, 415 unless it is JSON.
    pub fn act(
        &self,
        method: &Method,
        caller: &Caller<'_>,
        snapshot: &Snapshot,
    ) -> Result<Pass, Failure> {
        let pass = self.look(caller, snapshot)?;
        check_post(method, caller)?;
        Ok(pass)
    }

    /// A token that was typed into the page.
    ///
    /// # Errors
    /// 401 when it is wrong, 429 after several wrong ones.
    pub fn log_in(
        &self,
        token: &SecretString,
        typed: &str,
        caller: &Caller<'_>,
    ) -> Result<String, Failure> {
        self.compare(token, typed, caller)?;
        let begun = self.sessions.begin(print(token.expose_secret()), Instant::now());
        begun.ok_or_else(|| {
            let message = "This machine has no random numbers now.";
            Failure::new(StatusCode::SERVICE_UNAVAILABLE, "no_random", message)
        })
    }

    fn compare(
        &self,
        token: &SecretString,
        shown: &str,
        caller: &Caller<'_>,
    ) -> Result<(), Failure> {
        // Prints are equally long: how long the token is stays unknown, too.
        let is_right = || bool::from(print(token.expose_secret()).ct_eq(&print(shown)));
        match self.tries.attempt(caller.from, Instant::now(), is_right) {
            Tried::Right => Ok(()),
            Tried::Wrong => Err(unauthorized("This is not the admin token.")),
            Tried::Wait(seconds) => Err(Failure {
                retry_after: Some(seconds),
                ..Failure::new(
                    StatusCode::TOO_MANY_REQUESTS,
                    "too_many_tries",
                    format!("Too many wrong tokens. Try again in {seconds} s."),
                )
            }),
        }
    }
}

/// # Errors
/// 403 for a host that is not ours.
pub fn check_host(caller: &Caller<'_>, admin: &settings::Admin) -> Result<(), Failure> {
    if caller.has_our_host(admin) {
        Ok(())
    } else {
        Err(forbidden("This host name is not in admin.hosts."))
    }
}

/// # Errors
/// 403 for a page of another host.
pub fn check_page(caller: &Caller<'_>, admin: &settings::Admin) -> Result<(), Failure> {
    if caller.is_foreign(admin) {
        Err(forbidden("Pages of other hosts may not do this."))
    } else {
        Ok(())
    }
}

/// # Errors
/// 405 unless it is a POST, 415 unless it is JSON: no form of another page sends that.
pub fn check_post(method: &Method, caller: &Caller<'_>) -> Result<(), Failure> {
    if method != Method::POST {
        let message = "This address takes POST requests only.";
        let status = StatusCode::METHOD_NOT_ALLOWED;
        return Err(Failure::new(status, "method_not_allowed", message));
    }
    let kind = caller.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        let message = "Send the body as content-type: application/json.";
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return Err(Failure::new(status, "unsupported_media_type", message));
    }
    Ok(())
}
