//! Operator actions on licences: report, grant, reset, revoke, restore, move to another key. The admin API and the command line
//! share them.

mod api;
pub mod command;
pub mod issued;
mod key_moves;
mod license_command;
mod move_order;
mod report;

use std::sync::Arc;

use gatekeeper_filters::kernel::{Plan, UnixMs};
use http::StatusCode;
use serde_json::{Value, json};

pub use self::{
    api::{ApiError, ApiResponse},
    license_command::LicenseCommand,
};

use self::command::LicenseCommandArgs;
use crate::{
    ledger::{self, AdjustDone, DistributedLedger, EmbeddedLedger, OperatorActionKind},
    licenses::{ConfiguredLicenses, revocation::LicenseReport},
};

pub struct LicenseAdmin {
    pub store: Arc<EmbeddedLedger>,
    /// Where several gateways count together.
    pub shared: Option<Arc<DistributedLedger>>,
}

impl LicenseAdmin {
    /// Carries out an order, written as JSON.
    pub async fn carry_out(
        &self,
        book: &ConfiguredLicenses,
        command: LicenseCommand,
        body: &[u8],
    ) -> ApiResponse {
        match self.try_carry_out(book, command, body).await {
            Ok(answer) => answer,
            Err(failure) => failure.answer(),
        }
    }

    async fn try_carry_out(
        &self,
        book: &ConfiguredLicenses,
        command: LicenseCommand,
        body: &[u8],
    ) -> Result<ApiResponse, ApiError> {
        if command == LicenseCommand::Move {
            return self.move_keys(book, body).await;
        }
        if let LicenseCommand::Issued(command) = command {
            return self.issued(book, command, body).await;
        }
        let order = LicenseCommandArgs::read(command, body)?;
        let mut known = book.find(&order.subject).await?;
        let LicenseCommand::Do(kind) = command else {
            let shown = self.show(&known).await;
            return Ok(ApiResponse { status: StatusCode::OK, body: Value::Object(shown) });
        };
        let id = match &order.id {
            Some(id) => id.clone(),
            None => random_id()?,
        };
        let plan = known.plan.as_deref();
        let wanted = ledger::AdjustRequest {
            license: known.id,
            id: &id,
            note: &order.note,
            messages: plan.and_then(|plan| plan.messages),
            tokens: plan.and_then(|plan| plan.tokens),
        };
        let done = match kind {
            OperatorActionKind::Grant => self.grant(&wanted, &order, &known).await?,
            OperatorActionKind::Reset => self.reset(&wanted, &known).await?,
            OperatorActionKind::Revoke | OperatorActionKind::Restore => {
                let done = self.set_revoked(book, kind, &wanted).await?;
                // Revoked before it came to continue another licence.
                let is_restored = kind == OperatorActionKind::Restore;
                if is_restored && book.validator.is_revoked(&known.key) {
                    book.validator.set_revoked(known.key, false).await;
                }
                done
            }
            // Others have ways of their own, above.
            _ => return Err(ApiError::invalid("no such command")),
        };
        if done.is_new {
            self.log(kind, &wanted);
        }
        if let Ok(now) = book.find(&order.subject).await {
            known = now;
        }
        let told = self.shared.as_ref().map(|_| done.is_synced);
        let mut shown = self.show(&known).await;
        let done = json!({
            "action": kind.name(), "id": id, "repeated": !done.is_new, "told": told,
        });
        shown.insert("done".into(), done);
        // Taken, and on its way to the other gateways.
        let status = if told == Some(false) { StatusCode::ACCEPTED } else { StatusCode::OK };
        Ok(ApiResponse { status, body: Value::Object(shown) })
    }

    async fn grant(
        &self,
        wanted: &ledger::AdjustRequest<'_>,
        order: &LicenseCommandArgs,
        known: &LicenseReport,
    ) -> Result<AdjustDone, ApiError> {
        let plan = plan_of(known)?;
        let extra = [order.messages, order.tokens];
        if extra == [0, 0] {
            return Err(ApiError::invalid("grant needs `messages` or `tokens` above 0"));
        }
        for (what, limit, extra) in
            [("messages", plan.messages, extra[0]), ("tokens", plan.tokens, extra[1])]
        {
            if limit.is_none() && extra > 0 {
                return Err(unlimited(&format!("{what} of plan `{}`", plan.name)));
            }
        }
        Ok(match &self.shared {
            Some(shared) => shared.grant(wanted, extra).await?,
            None => alone(self.store.grant(wanted, extra, UnixMs::now())?),
        })
    }

    async fn reset(
        &self,
        wanted: &ledger::AdjustRequest<'_>,
        known: &LicenseReport,
    ) -> Result<AdjustDone, ApiError> {
        let plan = plan_of(known)?;
        if plan.messages.is_none() && plan.tokens.is_none() {
            return Err(unlimited(&format!("plan `{}`", plan.name)));
        }
        Ok(match &self.shared {
            Some(shared) => shared.reset(wanted).await?,
            None => alone(self.store.reset(wanted, UnixMs::now())?),
        })
    }

    async fn set_revoked(
        &self,
        book: &ConfiguredLicenses,
        kind: OperatorActionKind,
        wanted: &ledger::AdjustRequest<'_>,
    ) -> Result<AdjustDone, ApiError> {
        if self.store.is_done(kind, wanted) {
            let told = book.validator.share_again(wanted.license).await;
            return Ok(AdjustDone { is_new: false, is_synced: told });
        }
        let said =
            book.validator.set_revoked(wanted.license, kind == OperatorActionKind::Revoke).await;
        if !said.on_disk {
            return Err(ApiError::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "store_unavailable",
                "It acts now, but the database did not take it: after a restart it may be gone. \
                 Look at the disk and do it again.",
            ));
        }
        let detail = if said.changed { "" } else { "it was so already" };
        let is_new = self.store.note(kind, wanted, detail, UnixMs::now())?;
        Ok(AdjustDone { is_new, is_synced: said.told })
    }

    /// One line for each action, with neither key nor note.
    fn log(&self, kind: OperatorActionKind, wanted: &ledger::AdjustRequest<'_>) {
        let actions = self.store.actions(&wanted.license);
        let done = actions.iter().rev().find(|action| action.is_same(kind, wanted.id));
        let detail = match done.map(|action| &*action.detail) {
            None | Some("") => String::new(),
            Some(detail) => format!(" ({detail})"),
        };
        let hex = wanted.license.to_hex();
        let license = hex.get(..12).unwrap_or_default();
        log::info!("Operator: {}{detail}. license={license} id={}", kind.name(), wanted.id);
    }
}

fn alone(is_new: bool) -> AdjustDone {
    AdjustDone { is_new, is_synced: true }
}

fn plan_of(known: &LicenseReport) -> Result<&Plan, ApiError> {
    known.plan.as_deref().ok_or_else(|| {
        let message = "This licence has no plan in the configuration, so it has no limits.";
        ApiError::new(StatusCode::CONFLICT, "no_limit", message)
    })
}

fn unlimited(what: &str) -> ApiError {
    let message = format!("There is no limit on {what}; nothing was changed.");
    ApiError::new(StatusCode::CONFLICT, "no_limit", message)
}

/// An id for an order that came without one.
///
/// # Errors
/// There are no random bytes.
pub fn random_id() -> Result<String, ApiError> {
    let mut bytes = [0; 12];
    getrandom::fill(&mut bytes).map_err(|error| {
        let message = format!("There are no random bytes: {error}.");
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
    })?;
    Ok(bytes.map(|byte| format!("{byte:02x}")).concat())
}
