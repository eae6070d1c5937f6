//! `POST /api/licenses/{show,reset,grant,revoke,restore,move}`.

use pingora_core::protocols::http::ServerSession;

use super::{AdminApp, auth::Caller};
use crate::{
    downstream::body,
    license_admin::{self, ApiError, LicenseCommand},
    runtime::snapshot::Snapshot,
};

/// Bytes of a body.
const LONGEST: u64 = 16 * 1024;
/// Path of the commands.
pub const PATH: &str = "/api/licenses/";

impl AdminApp {
    pub(super) async fn licenses(
        &self,
        command: &str,
        session: &mut ServerSession,
        snapshot: &Snapshot,
    ) -> Result<license_admin::ApiResponse, ApiError> {
        self.access.act(&session.req_header().method, &Caller::of(session, snapshot), snapshot)?;
        let command = LicenseCommand::parse(command).ok_or_else(|| {
            let message =
                "There is nothing here. Commands are show, reset, grant, revoke, restore, move.";
            ApiError::new(http::StatusCode::NOT_FOUND, "not_found", message)
        })?;
        let body = body::read(session, LONGEST, &mut snapshot.buffered.share()).await;
        let body = body.map_err(super::provider_keys::unread)?;
        let _call = self.ledger_here().await?;
        Ok(self.operator.carry_out(&snapshot.licenses, command, &body).await)
    }
}
