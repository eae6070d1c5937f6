//! What an operator does about one buyer: sees all that is known, gives extra messages or tokens,
//! forgives what was used, takes a licence back. The admin listener and the command line carry out the
//! same orders here.

pub mod order;
mod show;

use std::sync::Arc;

use gatekeeper_filters::kernel::{Plan, UnixMs};
use http::StatusCode;
use serde_json::{Value, json};

use self::order::Order;
use crate::{
    ledger::{self, Done, Embedded, Full, Kind, NotDone, Shared},
    licenses::{
        ConfiguredLicenses,
        revocation::{LicenseReport, NotFound},
    },
};

pub struct Operator {
    pub store: Arc<Embedded>,
    /// Where several gateways count together.
    pub shared: Option<Arc<Shared>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    Show,
    Do(Kind),
}

impl Command {
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "show" => Some(Command::Show),
            _ => Kind::parse(name).map(Command::Do),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Command::Show => "show",
            Command::Do(kind) => kind.name(),
        }
    }
}

/// What an operator is told, in JSON.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub body: Value,
}

/// Why nothing was done.
#[derive(Debug)]
pub struct Failure {
    pub status: StatusCode,
    pub code: &'static str,
    pub message: String,
    /// Seconds.
    pub retry_after: Option<u64>,
}

impl Failure {
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), retry_after: None }
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", message)
    }

    pub fn answer(self) -> Answer {
        let body = json!({ "error": { "code": self.code, "message": self.message } });
        Answer { status: self.status, body }
    }
}

impl From<Full> for Failure {
    fn from(Full: Full) -> Self {
        let message = "The store takes nothing now (its disk may be full); nothing was changed.";
        Failure::new(StatusCode::SERVICE_UNAVAILABLE, "store_unavailable", message)
    }
}

impl From<NotDone> for Failure {
    fn from(why: NotDone) -> Self {
        match why {
            NotDone::Full => Full.into(),
            NotDone::StoreDown => Failure::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "store_unavailable",
                "The shared store does not answer, and it alone knows what all gateways have \
                 counted; nothing was changed. Try again when it is back.",
            ),
        }
    }
}

impl From<NotFound> for Failure {
    fn from(why: NotFound) -> Self {
        match why {
            NotFound::Key(code) => Failure::new(
                StatusCode::NOT_FOUND,
                "license_not_found",
                format!("No source knows this licence key ({}).", code.wire().1),
            ),
            NotFound::Id => Failure::new(
                StatusCode::NOT_FOUND,
                "license_not_found",
                "No licence of this id is known here; name it by its key.",
            ),
            NotFound::Unknown => Failure::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "license_check_unavailable",
                "This key is new here, and its shop can't be asked about it now. Try again soon.",
            ),
        }
    }
}

impl Operator {
    /// Carries out an order, written as JSON.
    pub async fn carry_out(
        &self,
        book: &ConfiguredLicenses,
        command: Command,
        body: &[u8],
    ) -> Answer {
        match self.try_carry_out(book, command, body).await {
            Ok(answer) => answer,
            Err(failure) => failure.answer(),
        }
    }

    async fn try_carry_out(
        &self,
        book: &ConfiguredLicenses,
        command: Command,
        body: &[u8],
    ) -> Result<Answer, Failure> {
        let order = Order::read(command, body)?;
        let mut known = book.find(&order.subject).await?;
        let Command::Do(kind) = command else {
            let shown = self.show(&known).await;
            return Ok(Answer { status: StatusCode::OK, body: Value::Object(shown) });
        };
        let id = match &order.id {
            Some(id) => id.clone(),
            None => random_id()?,
        };
        let plan = known.plan.as_deref();
        let wanted = ledger::Order {
            license: known.id,
            id: &id,
            note: &order.note,
            messages: plan.and_then(|plan| plan.messages),
            tokens: plan.and_then(|plan| plan.tokens),
        };
        let done = match kind {
            Kind::Grant => self.grant(&wanted, &order, &known).await?,
            Kind::Reset => self.reset(&wanted, &known).await?,
            Kind::Revoke | Kind::Restore => self.set_revoked(book, kind, &wanted).await?,
        };
        if done.is_new {
            self.log(kind, &wanted);
        }
        if let Ok(now) = book.find(&order.subject).await {
            known = now;
        }
        let told = self.shared.as_ref().map(|_| done.told);
        let mut shown = self.show(&known).await;
        let done = json!({
            "action": kind.name(), "id": id, "repeated": !done.is_new, "told": told,
        });
        shown.insert("done".into(), done);
        // Taken, and on its way to the other gateways.
        let status = if told == Some(false) { StatusCode::ACCEPTED } else { StatusCode::OK };
        Ok(Answer { status, body: Value::Object(shown) })
    }

    async fn grant(
        &self,
        wanted: &ledger::Order<'_>,
        order: &Order,
        known: &LicenseReport,
    ) -> Result<Done, Failure> {
        let plan = plan_of(known)?;
        let extra = [order.messages, order.tokens];
        if extra == [0, 0] {
            return Err(Failure::invalid("grant needs `messages` or `tokens` above 0"));
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
        wanted: &ledger::Order<'_>,
        known: &LicenseReport,
    ) -> Result<Done, Failure> {
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
        kind: Kind,
        wanted: &ledger::Order<'_>,
    ) -> Result<Done, Failure> {
        if self.store.is_done(kind, wanted) {
            let told = book.validator.share_again(wanted.license).await;
            return Ok(Done { is_new: false, told });
        }
        let said = book.validator.set_revoked(wanted.license, kind == Kind::Revoke).await;
        if !said.on_disk {
            return Err(Failure::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "store_unavailable",
                "It acts now, but the database did not take it: after a restart it may be gone. \
                 Look at the disk and do it again.",
            ));
        }
        let detail = if said.changed { "" } else { "it was so already" };
        let is_new = self.store.note(kind, wanted, detail, UnixMs::now())?;
        Ok(Done { is_new, told: said.told })
    }

    /// One line for each action, with neither key nor note.
    fn log(&self, kind: Kind, wanted: &ledger::Order<'_>) {
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

fn alone(is_new: bool) -> Done {
    Done { is_new, told: true }
}

fn plan_of(known: &LicenseReport) -> Result<&Plan, Failure> {
    known.plan.as_deref().ok_or_else(|| {
        let message = "This licence has no plan in the configuration, so it has no limits.";
        Failure::new(StatusCode::CONFLICT, "no_limit", message)
    })
}

fn unlimited(what: &str) -> Failure {
    let message = format!("There is no limit on {what}; nothing was changed.");
    Failure::new(StatusCode::CONFLICT, "no_limit", message)
}

/// An id for an order that came without one.
///
/// # Errors
/// There are no random bytes.
pub fn random_id() -> Result<String, Failure> {
    let mut bytes = [0; 12];
    getrandom::fill(&mut bytes).map_err(|error| {
        let message = format!("There are no random bytes: {error}.");
        Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
    })?;
    Ok(bytes.map(|byte| format!("{byte:02x}")).concat())
}
