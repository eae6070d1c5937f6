//! `POST /api/licenses/{show,reset,grant,revoke,restore}`.

use pingora_core::protocols::http::ServerSession;

use super::{Admin, access};
use crate::{
    operator::{self, Command, Failure},
    proxy::body,
    snapshot::Snapshot,
};

/// Bytes of a body.
const LONGEST: u64 = 16 * 1024;
/// Path of the commands.
pub const PATH: &str = "/api/licenses/";

impl Admin {
    pub(super) async fn licenses(
        &self,
        command: &str,
        session: &mut ServerSession,
        snapshot: &Snapshot,
    ) -> operator::Answer {
        match self.try_licenses(command, session, snapshot).await {
            Ok(answer) => answer,
            Err(failure) => {
                // What is left of the body is nobody's next request.
                session.set_keepalive(None);
                failure.answer()
            }
        }
    }

    async fn try_licenses(
        &self,
        command: &str,
        session: &mut ServerSession,
        snapshot: &Snapshot,
    ) -> Result<operator::Answer, Failure> {
        let head = session.req_header();
        access::may_act(&head.method, &head.headers, snapshot)?;
        let command = Command::parse(command).ok_or_else(|| {
            let message =
                "There is nothing here. Commands are show, reset, grant, revoke, restore.";
            Failure::new(http::StatusCode::NOT_FOUND, "not_found", message)
        })?;
        let body = body::read(session, LONGEST, &mut snapshot.buffered.share()).await;
        let body = body.map_err(super::keys::unread)?;
        Ok(self.operator.carry_out(&snapshot.licenses, command, &body).await)
    }
}
