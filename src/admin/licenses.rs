//! `POST /api/licenses/{show,reset,grant,revoke,restore,move,issue,list,rotate,extend,expire,import,export,forget}`.

use pingora_core::protocols::http::ServerSession;

use super::{AdminApp, auth::Caller};
use crate::{
    downstream::body,
    license_admin::{self, ApiError, LicenseCommand, issued::command::IssuedCommand},
    runtime::snapshot::Snapshot,
};

/// Bytes of a body.
const LONGEST: u64 = 16 * 1024;
/// The same of a list.
const LONGEST_LIST: u64 = 1024 * 1024;
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
                "There is nothing here. Commands are show, reset, grant, revoke, restore, move, issue, \
                 list, rotate, extend, expire, import, export, forget.";
            ApiError::new(http::StatusCode::NOT_FOUND, "not_found", message)
        })?;
        let is_list = command == LicenseCommand::Issued(IssuedCommand::Import);
        let longest = if is_list { LONGEST_LIST } else { LONGEST };
        let body = body::read(session, longest, &mut snapshot.buffered.share()).await;
        let body = body.map_err(super::provider_keys::unread)?;
        let _call = self.ledger_here().await?;
        Ok(self.operator.carry_out(&snapshot.licenses, command, &body).await)
    }
}
