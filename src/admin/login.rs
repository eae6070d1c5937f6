//! `POST /api/session` with `{"token": "..."}` begins a session, `POST /api/session/end` ends it.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use pingora_core::protocols::http::ServerSession;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::{
    AdminApp, answer,
    auth::{self, Caller},
    provider_keys::unread,
    sessions::{cookie_name, set_cookie},
};
use crate::{downstream::body, license_admin::ApiError, runtime::snapshot::Snapshot};

/// Path of the login; `/end` below it is the logout.
pub const PATH: &str = "/api/session";
/// Bytes of a body.
const LONGEST: u64 = 4 * 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LoginForm {
    token: String,
}

impl AdminApp {
    pub(super) async fn log_in(
        &self,
        session: &mut ServerSession,
        snapshot: &Snapshot,
    ) -> Result<Response<Bytes>, ApiError> {
        check(session, snapshot)?;
        let admin = &snapshot.settings.admin;
        if admin.token.is_none() {
            return Err(ApiError::invalid("No admin token is configured: no login is needed."));
        }
        let body = body::read(session, LONGEST, &mut snapshot.buffered.share()).await;
        let typed: LoginForm = serde_json::from_slice(&body.map_err(unread)?)
            .map_err(|_| ApiError::invalid("Send {\"token\": \"...\"}."))?;
        let typed = Zeroizing::new(typed.token);
        let caller = Caller::of(session, snapshot);
        let secret = self.access.log_in(admin, &typed, &caller)?;
        log::info!("A browser logged in to the dashboard.");
        Ok(with_cookie(Some(&secret), session, snapshot))
    }

    pub(super) async fn log_out(
        &self,
        session: &mut ServerSession,
        snapshot: &Snapshot,
    ) -> Result<Response<Bytes>, ApiError> {
        check(session, snapshot)?;
        body::read(session, LONGEST, &mut snapshot.buffered.share()).await.map_err(unread)?;
        self.access.sessions.end(&session.req_header().headers);
        Ok(with_cookie(None, session, snapshot))
    }
}

fn check(session: &ServerSession, snapshot: &Snapshot) -> Result<(), ApiError> {
    let (caller, admin) = (Caller::of(session, snapshot), &snapshot.settings.admin);
    auth::check_host(&caller, admin)?;
    auth::check_page(&caller, admin)?;
    auth::check_post(&session.req_header().method, &caller)
}

fn with_cookie(
    secret: Option<&str>,
    session: &ServerSession,
    snapshot: &Snapshot,
) -> Response<Bytes> {
    let is_tls = snapshot.settings.admin.tls.is_some()
        || session.get_header("x-forwarded-proto").is_some_and(|proto| proto == "https");
    let name = cookie_name(&session.req_header().headers, &snapshot.settings);
    let mut response = answer(StatusCode::NO_CONTENT, "", Bytes::new());
    if let Ok(mut cookie) = HeaderValue::from_str(&set_cookie(&name, secret, is_tls)) {
        cookie.set_sensitive(true);
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}
