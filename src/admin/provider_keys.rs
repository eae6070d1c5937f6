//! `POST /api/keys/{pause,resume,probe}` with `{"provider": "groq", "key": "groq-1"}`: what an operator
//! does about one master key.

use std::time::Instant;

use http::StatusCode;
use pingora_core::protocols::http::ServerSession;
use serde::Deserialize;
use serde_json::json;

use super::{AdminApp, auth::Caller};
use crate::{
    downstream::body::{self, BodyError},
    license_admin::{ApiError, ApiResponse},
    runtime::snapshot::Snapshot,
    upstream::health_probe,
};

/// Bytes of a body.
const LONGEST: u64 = 4 * 1024;
/// Path of the commands.
pub const PATH: &str = "/api/keys/";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeySelector {
    provider: String,
    key: String,
}

impl AdminApp {
    pub(super) async fn keys(
        &self,
        command: &str,
        session: &mut ServerSession,
        snapshot: &Snapshot,
    ) -> Result<ApiResponse, ApiError> {
        self.access.act(&session.req_header().method, &Caller::of(session, snapshot), snapshot)?;
        let not_found = |message| ApiError::new(StatusCode::NOT_FOUND, "not_found", message);
        if !["pause", "resume", "probe"].contains(&command) {
            return Err(not_found("There is nothing here. Commands are pause, resume, probe."));
        }
        let body = body::read(session, LONGEST, &mut snapshot.buffered.share()).await;
        let body = body.map_err(unread)?;
        let which: KeySelector = serde_json::from_slice(&body)
            .map_err(|_| ApiError::invalid("Send {\"provider\": \"NAME\", \"key\": \"ID\"}."))?;
        let provider = snapshot.providers.iter().find(|known| **known.name() == *which.provider);
        let provider = provider.ok_or_else(|| not_found("There is no such provider."))?;
        let key = provider.keys().iter().find(|known| *known.id == *which.key);
        let key = key.ok_or_else(|| not_found("This provider has no such key."))?;
        // Another process has keys of its own. This one need not wait for a probe.
        drop(self.ledger_here().await?);
        let mut found = None;
        match command {
            "pause" => key.pause(),
            "resume" => key.resume(),
            _ => found = Some(health_probe::probe_key(&self.connector, provider, key).await.name()),
        }
        log::info!("Operator action: {command} key. provider={} key={}", provider.name(), key.id);
        let state = key.state(Instant::now()).name();
        let body = json!({
            "provider": &**provider.name(), "key": &*key.id, "state": state, "found": found,
        });
        Ok(ApiResponse { status: StatusCode::OK, body })
    }
}

/// A body that is not there.
pub(super) fn unread(error: BodyError) -> ApiError {
    match error {
        BodyError::Reject(reject) => {
            let (status, code) = reject.code.wire();
            ApiError::new(StatusCode::from_u16(status).unwrap_or_default(), code, reject.message)
        }
        BodyError::Gone(_) => ApiError::invalid("The body did not come."),
    }
}
