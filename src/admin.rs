//! The admin listener: `/metrics`, `/status`, `/healthz`, `/readyz`, and what an operator does about one
//! buyer under `/api/licenses/`, one master key under `/api/keys/`, or the configuration at `/api/reload`.
//!
//! Health needs no token; the rest does when the listener is off loopback (`access`).

mod access;
mod keys;
mod licenses;
mod metrics;
mod reload;
mod status;

use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use http::{Method, Response, StatusCode};
use pingora_core::{apps::http_app::ServeHttp, protocols::http::ServerSession};
use serde_json::Value;

use crate::{
    handover::{Call, Movable},
    operator::{Failure, Operator},
    proxy::deadline,
    reload::{History, Reload},
    server::phase::Phase,
    snapshot::Snapshot,
    upstream::peer::Connector,
};

pub struct Admin {
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    pub operator: Operator,
    pub phase: Arc<Phase>,
    pub ledger: Arc<Movable>,
    pub history: Arc<History>,
    /// Reads the file again, where there is one.
    pub reload: Option<Arc<Reload>>,
    /// For probes.
    pub connector: Arc<Connector>,
}

type Answer = Response<Vec<u8>>;

#[async_trait]
impl ServeHttp for Admin {
    async fn response(&self, session: &mut ServerSession) -> Answer {
        deadline::head_is_here();
        let request = session.req_header();
        let path = request.uri.path();
        let is_order = [licenses::PATH, keys::PATH].iter().any(|order| path.starts_with(order));
        // What is ordered here must be done while the ledger is here.
        let _call = match is_order {
            true => match self.ledger_here().await {
                Some(call) => Some(call),
                None => return taken_over(),
            },
            false => None,
        };
        let request = session.req_header();
        let path = request.uri.path();
        if let Some(command) = path.strip_prefix(licenses::PATH) {
            let command = command.to_owned();
            let snapshot = self.snapshot.load_full();
            let answered = self.licenses(&command, session, &snapshot).await;
            return json_answer(answered.status, &answered.body);
        }
        if let Some(command) = path.strip_prefix(keys::PATH) {
            let command = command.to_owned();
            let snapshot = self.snapshot.load_full();
            let answered = self.keys(&command, session, &snapshot).await;
            return json_answer(answered.status, &answered.body);
        }
        if path == reload::PATH {
            let snapshot = self.snapshot.load_full();
            let answered = self.reload(session, &snapshot).await;
            return json_answer(answered.status, &answered.body);
        }
        self.page(&request.method, path, &request.headers)
    }
}

impl Admin {
    /// `None` when another process has taken over.
    async fn ledger_here(&self) -> Option<Call<'_>> {
        match self.phase.way().await {
            None => self.ledger.call(),
            Some(_) => None,
        }
    }

    fn page(&self, method: &Method, path: &str, headers: &http::HeaderMap) -> Answer {
        if !["/healthz", "/readyz", "/metrics", "/status"].contains(&path) {
            return text(
                StatusCode::NOT_FOUND,
                "There is nothing here. Try /status or /metrics.\n",
            );
        }
        if method != Method::GET && method != Method::HEAD {
            return text(StatusCode::METHOD_NOT_ALLOWED, "This address takes GET requests only.\n");
        }
        match path {
            "/healthz" => return text(StatusCode::OK, "ok\n"),
            "/readyz" => return self.ready(),
            _ => {}
        }
        let snapshot = self.snapshot.load();
        if let Err(failure) = access::may_look(headers, &snapshot) {
            return text(failure.status, &format!("{}\n", failure.message));
        }
        match path {
            "/metrics" => self.metrics(&snapshot),
            _ => json_answer(StatusCode::OK, &Value::Object(self.status(&snapshot))),
        }
    }

    /// 503 only while starting or draining: a store outage must not take every gateway out.
    fn ready(&self) -> Answer {
        if self.phase.is_serving() {
            text(StatusCode::OK, "ready\n")
        } else {
            text(StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
        }
    }
}

fn taken_over() -> Answer {
    let message = "Another process has just taken over. Send this again.";
    let failure = Failure::new(StatusCode::SERVICE_UNAVAILABLE, "shutting_down", message).answer();
    json_answer(failure.status, &failure.body)
}

fn json_answer(status: StatusCode, value: &Value) -> Answer {
    let body = serde_json::to_vec(value).unwrap_or_default();
    answer(status, "application/json", body)
}

fn text(status: StatusCode, words: &str) -> Answer {
    answer(status, "text/plain; charset=utf-8", words.as_bytes().to_vec())
}

fn answer(status: StatusCode, kind: &str, body: Vec<u8>) -> Answer {
    let built = Response::builder()
        .status(status)
        .header(http::header::CONTENT_TYPE, kind)
        .header(http::header::CONTENT_LENGTH, body.len())
        .header(http::header::CACHE_CONTROL, "no-store")
        .header("x-content-type-options", "nosniff")
        .body(body);
    built.unwrap_or_default()
}
