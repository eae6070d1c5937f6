//! Authentication of the admin listener: who may read and who may change.
//!
//! Where a token is configured, or the listener is off loopback, a request carries the token as a bearer
//! token, or a browser the cookie of a session. `Host` must be a known name, so that a page that rebinds its
//! name to this address (DNS rebinding) reads nothing. `Origin`, where a browser sends one, must be the page of
//! this listener, so that a page of another origin, even on another port of this machine, reads and changes
//! nothing.

use std::{net::IpAddr, path::Path, time::Instant};

use gatekeeper_filters::kernel::UnixMs;
use http::{HeaderMap, Method, StatusCode, header};
use pingora_core::protocols::http::ServerSession;
use secrecy::ExposeSecret;
use subtle::ConstantTimeEq;

use super::{
    login_throttle::{LoginAttempt, LoginThrottle},
    sessions::{Sessions, TokenDigest, print},
};
use crate::{
    config::settings, downstream::client_ip, license_admin::ApiError, runtime::snapshot::Snapshot,
};

pub struct AdminAuth {
    pub sessions: Sessions,
    tries: LoginThrottle,
}

/// What a token opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// `admin.token`: everything.
    Admin,
    /// `admin.read_token`: what GET shows.
    Reader,
}

/// The prints of the tokens that are configured, the admin's first.
struct Tokens {
    prints: [TokenDigest; 2],
    /// How many there are.
    count: usize,
}

impl Tokens {
    /// Without `admin.token` there is none: `read_token` goes with it only.
    fn of(admin: &settings::AdminSettings) -> Self {
        let mut tokens = Self { prints: Default::default(), count: 0 };
        for token in admin.token.iter().chain(admin.token.as_ref().and(admin.read_token.as_ref())) {
            tokens.prints[tokens.count] = print(token.expose_secret());
            tokens.count += 1;
        }
        tokens
    }

    fn prints(&self) -> &[TokenDigest] {
        &self.prints[..self.count]
    }

    /// The print of the token that is shown here. All are compared, whichever fits.
    fn find(&self, shown: &str) -> Option<TokenDigest> {
        let shown = print(shown);
        let mut found = None;
        for known in self.prints() {
            // Prints are equally long: how long a token is stays unknown, too.
            if bool::from(known.ct_eq(&shown)) {
                found = Some(*known);
            }
        }
        found
    }

    fn role(&self, print: &TokenDigest) -> Role {
        if self.prints().first() == Some(print) { Role::Admin } else { Role::Reader }
    }
}

/// What a request was let in by.
#[derive(Debug, Clone)]
pub enum AuthMethod {
    /// The listener is on loopback and no token is configured.
    Open,
    /// The token whose print this is.
    Bearer(TokenDigest),
    Session(TokenDigest),
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
            from: client_ip::of(session, &snapshot.settings.server.trusted_proxies),
            to: to.map(|address| address.ip().to_canonical()),
        }
    }

    fn bearer(&self) -> Option<&'a str> {
        let value = self.headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        // The scheme's case does not count (RFC 9110 section 11.1).
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token)
    }

    fn host(&self) -> Option<&'a str> {
        self.headers.get(header::HOST)?.to_str().ok()
    }

    fn has_our_host(&self, admin: &settings::AdminSettings) -> bool {
        self.host().is_some_and(|host| {
            let name = name_of(host);
            let literal = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
            // Unlike a name, a local address cannot be rebound by DNS.
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
    fn is_foreign(&self, admin: &settings::AdminSettings) -> bool {
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

fn is_listed(host: &str, admin: &settings::AdminSettings) -> bool {
    admin.hosts.iter().any(|known| known.eq_ignore_ascii_case(host))
}

fn forbidden(message: &str) -> ApiError {
    ApiError::new(StatusCode::FORBIDDEN, "forbidden", message)
}

fn unauthorized(message: &str) -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
}

impl AdminAuth {
    /// The access of a gateway whose store is at `store`: sessions are kept beside it.
    pub fn new(store: &Path) -> Self {
        Self { sessions: Sessions::beside(store), tries: LoginThrottle::default() }
    }

    /// # Errors
    /// 401 without the token where one is needed, 429 after several wrong ones, 403 for a foreign host
    /// or page.
    pub fn look(&self, caller: &Caller<'_>, snapshot: &Snapshot) -> Result<AuthMethod, ApiError> {
        self.enter(caller, &snapshot.settings.admin).map(|(pass, _)| pass)
    }

    fn enter(
        &self,
        caller: &Caller<'_>,
        admin: &settings::AdminSettings,
    ) -> Result<(AuthMethod, Role), ApiError> {
        let tokens = Tokens::of(admin);
        if let (Some(bearer), false) = (caller.bearer(), tokens.prints().is_empty()) {
            let token = self.compare(&tokens, bearer, caller)?;
            check_page(caller, admin)?;
            return Ok((AuthMethod::Bearer(token), tokens.role(&token)));
        }
        if caller.bearer().is_some() {
            return Err(unauthorized("No admin token is configured; send none."));
        }
        check_host(caller, admin)?;
        check_page(caller, admin)?;
        if tokens.prints().is_empty() {
            return Ok((AuthMethod::Open, Role::Admin));
        }
        let session = self.sessions.of(caller.headers, tokens.prints(), UnixMs::now());
        let message = "Send the admin token as a bearer token, or log in.";
        let (id, token) = session.ok_or_else(|| unauthorized(message))?;
        Ok((AuthMethod::Session(id), tokens.role(&token)))
    }

    /// Whether what was let in may stay: the token is as it was, the session has not ended.
    pub fn still_holds(&self, pass: &AuthMethod, snapshot: &Snapshot) -> bool {
        let tokens = Tokens::of(&snapshot.settings.admin);
        match pass {
            AuthMethod::Open => tokens.prints().is_empty(),
            AuthMethod::Bearer(was) => tokens.prints().contains(was),
            AuthMethod::Session(id) => self.sessions.holds(id, tokens.prints(), UnixMs::now()),
        }
    }

    /// For everything that changes something or names a buyer.
    ///
    /// # Errors
    /// As [`Self::look`]; 403 for the token that only reads, 405 unless it is a POST, 415 unless it is
    /// JSON.
    pub fn act(
        &self,
        method: &Method,
        caller: &Caller<'_>,
        snapshot: &Snapshot,
    ) -> Result<AuthMethod, ApiError> {
        let (pass, role) = self.enter(caller, &snapshot.settings.admin)?;
        if role == Role::Reader {
            let message = "`admin.read_token` only reads. Send `admin.token` to change something.";
            return Err(forbidden(message));
        }
        check_post(method, caller)?;
        Ok(pass)
    }

    /// A token that was typed into the page.
    ///
    /// # Errors
    /// 401 when it is wrong, 429 after several wrong ones.
    pub fn log_in(
        &self,
        admin: &settings::AdminSettings,
        typed: &str,
        caller: &Caller<'_>,
    ) -> Result<String, ApiError> {
        let token = self.compare(&Tokens::of(admin), typed, caller)?;
        let begun = self.sessions.begin(token, UnixMs::now());
        begun.ok_or_else(|| {
            let message = "This machine has no random numbers now.";
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "no_random", message)
        })
    }

    /// The print of the token that was shown.
    fn compare(
        &self,
        tokens: &Tokens,
        shown: &str,
        caller: &Caller<'_>,
    ) -> Result<TokenDigest, ApiError> {
        let found = tokens.find(shown);
        let wrong = match found {
            Some(token) => {
                self.tries.right(caller.from);
                return Ok(token);
            }
            None => self.tries.wrong(caller.from, Instant::now()),
        };
        match wrong {
            LoginAttempt::Wrong => Err(unauthorized("This is not the admin token.")),
            LoginAttempt::Wait(seconds) => Err(ApiError {
                retry_after: Some(seconds),
                ..ApiError::new(
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
pub fn check_host(caller: &Caller<'_>, admin: &settings::AdminSettings) -> Result<(), ApiError> {
    if caller.has_our_host(admin) {
        Ok(())
    } else {
        Err(forbidden("This host name is not in admin.hosts."))
    }
}

/// # Errors
/// 403 for a page of another host.
pub fn check_page(caller: &Caller<'_>, admin: &settings::AdminSettings) -> Result<(), ApiError> {
    if caller.is_foreign(admin) {
        Err(forbidden("Pages of other hosts may not do this."))
    } else {
        Ok(())
    }
}

/// # Errors
/// 405 unless it is a POST, 415 unless it is JSON: no form of another page sends that.
pub fn check_post(method: &Method, caller: &Caller<'_>) -> Result<(), ApiError> {
    if method != Method::POST {
        let message = "This address takes POST requests only.";
        let status = StatusCode::METHOD_NOT_ALLOWED;
        return Err(ApiError::new(status, "method_not_allowed", message));
    }
    let kind = caller.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        let message = "Send the body as content-type: application/json.";
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return Err(ApiError::new(status, "unsupported_media_type", message));
    }
    Ok(())
}
