//! `POST /api/reload`: reads the file again. `{"dry_run": true}` reports what would change; with `text`,
//! what another text in the file would change. `{"file": PATH}` is refused if the gateway runs with another
//! file.

use std::path::Path;

use http::StatusCode;
use pingora_core::protocols::http::ServerSession;
use serde::Deserialize;
use serde_json::json;

use super::{AdminApp, auth::Caller, provider_keys::unread};
use crate::{
    config::MAX_FILE,
    downstream::body,
    license_admin::{ApiError, ApiResponse},
    reload::{ReloadOutcome, Reloader},
    runtime::snapshot::Snapshot,
};

/// Bytes of a body: a whole file, every character of it escaped.
const LONGEST: u64 = 6 * MAX_FILE + 4 * 1024;
pub const PATH: &str = "/api/reload";

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ReloadRequest {
    dry_run: bool,
    /// The file that is meant.
    file: Option<String>,
    /// What would stand in it.
    text: Option<String>,
}

impl AdminApp {
    pub(super) async fn reload(
        &self,
        session: &mut ServerSession,
        snapshot: &Snapshot,
    ) -> Result<ApiResponse, ApiError> {
        self.access.act(&session.req_header().method, &Caller::of(session, snapshot), snapshot)?;
        let body = body::read(session, LONGEST, &mut snapshot.buffered.share()).await;
        let body = body.map_err(unread)?;
        let order: ReloadRequest = match body.is_empty() {
            true => ReloadRequest::default(),
            false => serde_json::from_slice(&body)
                .map_err(|_| ApiError::invalid("Send {} or {\"dry_run\": true}."))?,
        };
        if order.text.is_some() && !order.dry_run {
            return Err(ApiError::invalid("A `text` goes with \"dry_run\": true only."));
        }
        let no_file = |message: String| ApiError::new(StatusCode::CONFLICT, "no_file", &message);
        let reload = self.reload.clone();
        let reload = reload.ok_or_else(|| {
            no_file("This gateway runs with no file: there is nothing to read again.".into())
        })?;
        if let Some(file) = &order.file
            && !is_same(&reload.file, Path::new(file))
        {
            let runs = reload.file.display();
            return Err(no_file(format!("This gateway runs with {runs}, not with {file}.")));
        }
        let (dry_run, text) = (order.dry_run, order.text);
        let done =
            tokio::task::spawn_blocking(move || carry_out(&reload, dry_run, text.as_deref()));
        let outcome = done.await.map_err(|_| {
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            ApiError::new(status, "internal_error", "The file could not be read again.")
        })?;
        let body = json!({
            "ok": outcome.problems.is_empty(), "live": outcome.live, "changes": outcome.changes,
            "waits_for_restart": outcome.waits, "warnings": outcome.warnings,
            "problems": outcome.problems,
        });
        Ok(ApiResponse { status: StatusCode::OK, body })
    }
}

fn carry_out(reload: &Reloader, dry_run: bool, text: Option<&str>) -> ReloadOutcome {
    if dry_run {
        return reload.try_out(text);
    }
    log::info!("Operator action: reload.");
    reload.reload()
}

/// By whatever way the paths lead there.
fn is_same(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| path.canonicalize();
    one == other || real(one).is_ok_and(|one| real(other).is_ok_and(|other| one == other))
}
