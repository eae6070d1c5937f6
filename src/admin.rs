//! The admin listener: the dashboard's page and what it shows (`/status`, `/feed`, `/api/history`),
//! `/metrics`, `/healthz`, `/readyz`, and what an operator does about one buyer under `/api/licenses/`, one
//! master key under `/api/keys/`, or the configuration at `/api/reload`.
//!
//! Health and the page itself need no token; the rest does where one is configured (`access`).

mod app;
mod assets;
mod auth;
mod feed;
mod feed_broadcaster;
mod licenses;
mod live_config;
mod login;
mod login_throttle;
mod metrics;
mod provider_keys;
mod reload;
mod reply;
mod sessions;
mod status;
mod top_licenses;

pub use self::{
    app::AdminApp,
    assets::Assets,
    auth::AdminAuth,
    feed_broadcaster::{FeedBroadcaster, FeedTicker},
};

use std::sync::Arc;

use async_trait::async_trait;
use gatekeeper_filters::kernel::UnixMs;
use http::{HeaderValue, Method, StatusCode, header};
use pingora_core::{
    apps::{HttpPersistentSettings, HttpServerApp, ReusedHttpStream},
    protocols::http::ServerSession,
    server::ShutdownWatch,
};
use serde_json::Value;

use self::{
    assets::PreferredEncoding,
    auth::Caller,
    reply::{AdminReply, answer, check_get, json_answer, text},
};
use crate::{
    downstream::{connection::ClientConnection, respond, serve::KEEPALIVE},
    license_admin::{self, ApiError},
    runtime::snapshot::Snapshot,
    telemetry::peer_stats::GatewayFilter,
    upgrade::CallGuard,
};

/// How long a read of a request may take.
const READ_TIME: std::time::Duration = std::time::Duration::from_secs(10);

#[async_trait]
impl HttpServerApp for AdminApp {
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        if !matches!(session.read_request().await, Ok(true)) {
            // Logged where the connection is served (`downstream::serve`).
            return None;
        }
        let is_last = ClientConnection::of(&session).is_some_and(|connection| {
            connection.accept();
            connection.is_last()
        });
        session.set_read_timeout(Some(READ_TIME));
        session.set_write_timeout(Some(respond::WRITE_TIME));
        // Where Pingora switched it off, it stays off.
        if session.get_keepalive().is_some() {
            let stays = !*shutdown.borrow() && !is_last;
            session.set_keepalive(stays.then_some(KEEPALIVE));
        }
        let snapshot = self.snapshot.load_full();
        let is_feed = session.req_header().uri.path() == "/feed";
        let answered = match is_feed {
            true => match self.begin_feed(&session, &snapshot) {
                Ok(ticket) => {
                    drop(snapshot);
                    self.feed(session, ticket).await;
                    return None;
                }
                Err(failure) => Err(failure),
            },
            false => self.answer(&mut session, &snapshot).await,
        };
        // The rest of the body must not be parsed as the next request, and closing with unread bytes would
        // reset the connection.
        let is_over = answered.is_ok() || respond::take_what_is_here(&mut session);
        let answer = answered.unwrap_or_else(refusal);
        let (parts, body) = answer.into_parts();
        respond::write(&mut session, parts.into(), body).await.ok()?;
        if !is_over {
            respond::linger(&mut session).await;
        }
        let settings = HttpPersistentSettings::for_session(&session);
        let reusable = session.finish().await.ok().flatten()?;
        Some(ReusedHttpStream::from_reusable_stream(reusable, settings))
    }
}

impl AdminApp {
    /// An operator's command has to complete while this process has the ledger. A hand-over waits for this
    /// guard, so it is taken only after the command has been read.
    ///
    /// # Errors
    /// Another process has taken over.
    async fn ledger_here(&self) -> Result<CallGuard<'_>, ApiError> {
        let call = match self.phase.way().await {
            None => self.ledger.call(),
            Some(_) => None,
        };
        call.ok_or_else(taken_over)
    }

    fn begin_feed(
        &self,
        session: &ServerSession,
        snapshot: &Snapshot,
    ) -> Result<feed::FeedTicket, ApiError> {
        check_get(session)?;
        if session.req_header().method == Method::HEAD {
            let message = "A feed has no end; ask for it with GET.";
            let status = StatusCode::METHOD_NOT_ALLOWED;
            return Err(ApiError::new(status, "method_not_allowed", message));
        }
        self.ticket(session, snapshot)
    }

    async fn answer(
        &self,
        session: &mut ServerSession,
        snapshot: &Snapshot,
    ) -> Result<AdminReply, ApiError> {
        let path = session.req_header().uri.path().to_owned();
        if path == top_licenses::PATH {
            return self.top_licenses(session, snapshot).await;
        }
        if let Some(command) = path.strip_prefix(licenses::PATH) {
            return self.licenses(command, session, snapshot).await.map(|answer| told(&answer));
        }
        if let Some(command) = path.strip_prefix(provider_keys::PATH) {
            return self.keys(command, session, snapshot).await.map(|answer| told(&answer));
        }
        if path == reload::PATH {
            return self.reload(session, snapshot).await.map(|answer| told(&answer));
        }
        match path.strip_prefix(login::PATH) {
            Some("") => return self.log_in(session, snapshot).await,
            Some("/end") => return self.log_out(session, snapshot).await,
            _ => self.show(&path, session, snapshot),
        }
    }

    /// What is looked at.
    fn show(
        &self,
        path: &str,
        session: &ServerSession,
        snapshot: &Snapshot,
    ) -> Result<AdminReply, ApiError> {
        let is_known = ["/", "/healthz", "/readyz", "/metrics", "/status", "/api/history"]
            .contains(&path)
            || path.starts_with(assets::ASSETS);
        if !is_known {
            return Err(nothing_here());
        }
        check_get(session)?;
        match path {
            "/healthz" => return Ok(text(StatusCode::OK, "ok\n")),
            "/readyz" => return Ok(self.ready()),
            _ => {}
        }
        let headers = &session.req_header().headers;
        let caller = Caller::of(session, snapshot);
        let prefers = assets::preferred(headers);
        let is_page = match path {
            "/" => prefers != PreferredEncoding::Json,
            "/status" => prefers == PreferredEncoding::Html,
            _ => false,
        };
        if is_page || path.starts_with(assets::ASSETS) {
            auth::check_host(&caller, &snapshot.settings.admin)?;
            let mut found = match path.strip_prefix(assets::ASSETS) {
                Some(name) => self.page.asset(name, headers),
                None => self.page.index(headers),
            }
            .ok_or_else(nothing_here)?;
            if is_page {
                found.headers_mut().insert(header::VARY, HeaderValue::from_static("accept"));
            }
            return Ok(found);
        }
        self.access.look(&caller, snapshot)?;
        match path {
            "/metrics" => Ok(self.metrics(snapshot)),
            "/api/history" => {
                let whose = self.whose(session, snapshot)?;
                let (live, now) = (&snapshot.telemetry.live, UnixMs::now());
                let history = live.neighbours.history(|| live.history(now), whose.as_ref());
                Ok(json_answer(StatusCode::OK, &history.to_json(now)))
            }
            _ => {
                let whose = self.whose(session, snapshot)?;
                let status = self.status(snapshot, whose.as_ref());
                let mut answer = json_answer(StatusCode::OK, &Value::Object(status));
                answer.headers_mut().insert(header::VARY, HeaderValue::from_static("accept"));
                Ok(answer)
            }
        }
    }

    /// Whose figures are asked for by `?gateway=`.
    fn whose(
        &self,
        session: &ServerSession,
        snapshot: &Snapshot,
    ) -> Result<Option<GatewayFilter>, ApiError> {
        let query = session.req_header().uri.query().unwrap_or_default();
        let mut pairs = url::form_urlencoded::parse(query.as_bytes());
        let Some((_, name)) = pairs.find(|(name, _)| name == "gateway") else { return Ok(None) };
        let whose = snapshot.telemetry.live.neighbours.whose(&name);
        whose.map(Some).ok_or_else(|| {
            let message = "No gateway of this name is here; /status names those that are.";
            ApiError::new(StatusCode::NOT_FOUND, "not_found", message)
        })
    }

    /// 503 only while starting or draining: a store outage must not take every gateway out.
    fn ready(&self) -> AdminReply {
        if self.phase.is_serving() {
            text(StatusCode::OK, "ready\n")
        } else {
            text(StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
        }
    }
}

fn taken_over() -> ApiError {
    let message = "Another process has just taken over. Send this again.";
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "shutting_down", message)
}

fn nothing_here() -> ApiError {
    let message = "There is nothing here. Try / or /status or /metrics.";
    ApiError::new(StatusCode::NOT_FOUND, "not_found", message)
}

fn told(answer: &license_admin::ApiResponse) -> AdminReply {
    json_answer(answer.status, &answer.body)
}

fn refusal(failure: ApiError) -> AdminReply {
    let (retry_after, is_unauthorized) =
        (failure.retry_after, failure.status == StatusCode::UNAUTHORIZED);
    let mut answer = told(&failure.answer());
    if is_unauthorized {
        answer.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if let Some(seconds) = retry_after {
        answer.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    answer
}
