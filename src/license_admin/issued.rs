//! Operator actions on licences of our own: issue, list, rotate, extend, expire.

mod args;
pub mod command;
mod forget;
mod import;

use gatekeeper_filters::kernel::{LicenseId, UnixMs};
use http::StatusCode;
use serde_json::{Map, Value, json};

use self::{
    args::{ExpireArgs, ExtendArgs, IssueOrder, ListOrder, RotateArgs, Subject},
    command::IssuedCommand,
};
use super::{ApiError, ApiResponse, LicenseAdmin, random_id};
use crate::{
    ledger::{AdjustRequest, OperatorActionKind},
    licenses::{
        ConfiguredLicenses,
        issued::{
            IssueError, IssueRequest, IssuedBook, IssuedLicense, ListFilter, MintedKey,
            RotateRequest,
        },
        revocation::LicenseReport,
    },
    shops::issued::NAME,
};

/// Licences of one answer.
const MOST_LISTED: usize = 5_000;

impl From<IssueError> for ApiError {
    fn from(why: IssueError) -> Self {
        let (status, code) = match why {
            IssueError::StoreAway | IssueError::NotKept => {
                (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable")
            }
            IssueError::NotIssued | IssueError::OtherOrder => (StatusCode::CONFLICT, "not_issued"),
            IssueError::NoRandom | IssueError::Seal(_) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "internal")
            }
        };
        let mut message = why.to_string();
        if let Some(first) = message.get(..1) {
            message = format!("{}{}; nothing was changed.", first.to_uppercase(), &message[1..]);
        }
        ApiError::new(status, code, message)
    }
}

impl LicenseAdmin {
    pub(super) async fn issued(
        &self,
        book: &ConfiguredLicenses,
        command: IssuedCommand,
        body: &[u8],
    ) -> Result<ApiResponse, ApiError> {
        let issued = book.issued.as_ref().ok_or_else(|| {
            let message = "The configuration has no source `issued`, or its vault is not here: add \
                           `- issued: { prefix: ... }` to licenses.sources.";
            ApiError::new(StatusCode::CONFLICT, "not_configured", message)
        })?;
        let shown = match command {
            IssuedCommand::Issue => self.issue(book, issued, args::read(body)?).await?,
            IssuedCommand::List => self.list(issued, &args::read(body)?),
            IssuedCommand::Rotate => self.rotate(book, issued, args::read(body)?).await?,
            IssuedCommand::Extend => self.extend(book, issued, args::read(body)?).await?,
            IssuedCommand::Expire => self.expire(book, issued, args::read(body)?).await?,
            IssuedCommand::Import => self.import(issued, args::read(body)?).await?,
            IssuedCommand::Export => self.export(book, issued, args::read(body)?).await?,
            IssuedCommand::Forget => self.forget(book, issued, args::read(body)?).await?,
        };
        Ok(ApiResponse { status: StatusCode::OK, body: shown })
    }

    async fn issue(
        &self,
        book: &ConfiguredLicenses,
        issued: &IssuedBook,
        args: IssueOrder,
    ) -> Result<Value, ApiError> {
        let request = args.check(issued)?;
        let id = args.id.map_or_else(random_id, Ok)?;
        let note = args.note.unwrap_or_default();
        let license = IssuedLicense {
            plan: args.plan,
            until: request.until,
            created: UnixMs::now(),
            origin: "issue".into(),
            note: note.clone(),
            max_devices: args.max_devices,
            ..IssuedLicense::default()
        };
        let order = book.validator.hasher.order("operator", &id);
        let request = IssueRequest { order, count: request.count, license, is_shown: true };
        let (made, is_new) = issued.issue(&request).await?;
        for minted in &made {
            let until = minted.license.until.map(moment);
            let until = until.map(|until| format!(", until {until}")).unwrap_or_default();
            let detail = format!("plan {}{until}", minted.license.plan);
            self.record(OperatorActionKind::Issue, minted.id, (&id, &note), &detail)?;
        }
        if is_new {
            log::info!(
                "Operator: issued {} licences of plan {}. id={id}",
                made.len(),
                request.license.plan
            );
        }
        let licenses: Vec<Value> = made.iter().map(minted_json).collect();
        let done = json!({ "action": "issue", "id": id, "repeated": !is_new });
        Ok(json!({ "licenses": licenses, "done": done }))
    }

    fn list(&self, issued: &IssuedBook, args: &ListOrder) -> Value {
        let filter = ListFilter { plan: args.plan.clone(), state: args.state.clone() };
        let listed = issued.list(&filter);
        let limit = args.limit.unwrap_or(MOST_LISTED).min(MOST_LISTED);
        let page: Vec<Value> = listed
            .iter()
            .skip(args.offset)
            .take(limit)
            .map(|listed| {
                let license = &listed.license;
                let used = self.store.last_use(&listed.id).ok().flatten();
                json!({
                    "license": listed.id.to_hex(),
                    "plan": listed.plan,
                    "state": listed.state,
                    "until": license.until.map(moment),
                    "created": moment(license.created),
                    "origin": license.origin,
                    "note": license.note,
                    "last_seen": listed.seen.max(used).map(moment),
                    "devices": listed.devices,
                    "shown": !listed.is_unseen,
                })
            })
            .collect();
        json!({ "licenses": page, "total": listed.len() })
    }

    async fn rotate(
        &self,
        book: &ConfiguredLicenses,
        issued: &IssuedBook,
        args: RotateArgs,
    ) -> Result<Value, ApiError> {
        let known = find(book, &args.subject).await?;
        let (id, note) = args.order.parts()?;
        let request = RotateRequest {
            order: book.validator.hasher.order("operator", &id),
            grace: args::grace(args.grace.as_deref())?,
        };
        let (minted, is_new) = issued.rotate(&known.id, &request).await?;
        let detail = match args.grace {
            Some(grace) => format!("the old key serves for {grace}"),
            None => "the old key is refused".into(),
        };
        self.record(OperatorActionKind::Rotate, known.id, (&id, &note), &detail)?;
        let mut shown = self.shown(book, &known, ("rotate", &id, is_new)).await;
        shown.insert("key".into(), json!(minted.expose()));
        Ok(Value::Object(shown))
    }

    async fn extend(
        &self,
        book: &ConfiguredLicenses,
        issued: &IssuedBook,
        args: ExtendArgs,
    ) -> Result<Value, ApiError> {
        let known = find(book, &args.subject).await?;
        let (id, note) = args.order.parts()?;
        let until = args.until(known.until)?;
        let is_new = !self.is_done(OperatorActionKind::Extend, known.id, &id);
        if is_new {
            issued.extend(&known.id, until).await?;
            let detail = format!("until {}", moment(until));
            self.record(OperatorActionKind::Extend, known.id, (&id, &note), &detail)?;
        }
        Ok(Value::Object(self.shown(book, &known, ("extend", &id, is_new)).await))
    }

    async fn expire(
        &self,
        book: &ConfiguredLicenses,
        issued: &IssuedBook,
        args: ExpireArgs,
    ) -> Result<Value, ApiError> {
        let known = find(book, &args.subject).await?;
        let (id, note) = args.order.parts()?;
        let is_new = !self.is_done(OperatorActionKind::Expire, known.id, &id);
        if is_new {
            issued.expire(&known.id).await?;
            self.record(OperatorActionKind::Expire, known.id, (&id, &note), "")?;
        }
        Ok(Value::Object(self.shown(book, &known, ("expire", &id, is_new)).await))
    }

    /// Writes an action down, once.
    pub(super) fn record(
        &self,
        kind: OperatorActionKind,
        license: LicenseId,
        (id, note): (&str, &str),
        detail: &str,
    ) -> Result<(), ApiError> {
        let order = AdjustRequest { license, id, note, messages: None, tokens: None };
        self.store.note(kind, &order, detail, UnixMs::now())?;
        Ok(())
    }

    fn is_done(&self, kind: OperatorActionKind, license: LicenseId, id: &str) -> bool {
        let order = AdjustRequest { license, id, note: "", messages: None, tokens: None };
        self.store.is_done(kind, &order)
    }

    /// What the licence is now, and what was done.
    async fn shown(
        &self,
        book: &ConfiguredLicenses,
        known: &LicenseReport,
        (action, id, is_new): (&str, &str, bool),
    ) -> Map<String, Value> {
        let now = book.find(&crate::licenses::revocation::LicenseRef::Id(known.id)).await;
        let mut shown = self.show(now.as_ref().unwrap_or(known)).await;
        let done = json!({ "action": action, "id": id, "repeated": !is_new });
        shown.insert("done".into(), done);
        shown
    }
}

/// A licence of ours.
async fn find(book: &ConfiguredLicenses, subject: &Subject) -> Result<LicenseReport, ApiError> {
    let known = book.find(&subject.reference()?).await?;
    match known.source == NAME {
        true => Ok(known),
        false => {
            let message = format!(
                "This licence comes from source `{}`, which alone gives it other keys or another end.",
                known.source
            );
            Err(ApiError::new(StatusCode::CONFLICT, "not_issued", message))
        }
    }
}

fn minted_json(minted: &MintedKey) -> Value {
    json!({
        "license": minted.id.to_hex(),
        "key": minted.expose(),
        "plan": minted.license.plan,
        "until": minted.license.until.map(moment),
    })
}

fn moment(at: UnixMs) -> String {
    at.to_rfc3339().to_string()
}
