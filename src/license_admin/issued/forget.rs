//! All that is known of one buyer, and its end.

use serde_json::{Value, json};

use super::{args::ExpireArgs, find};
use crate::{
    ledger::OperatorActionKind,
    license_admin::{ApiError, LicenseAdmin},
    licenses::{ConfiguredLicenses, issued::IssuedBook},
};

impl LicenseAdmin {
    pub(super) async fn export(
        &self,
        book: &ConfiguredLicenses,
        issued: &IssuedBook,
        args: ExpireArgs,
    ) -> Result<Value, ApiError> {
        let known = book.find(&args.subject.reference()?).await?;
        let shown = self.show(&known).await;
        let rows = self.store.export(&known.id).map_err(|error| {
            log::warn!("store: the rows of a licence can't be read: {error}");
            ApiError::from(crate::ledger::JournalFull)
        })?;
        let record = issued.export(&known.id).await;
        Ok(json!({
            "license": known.id.to_hex(), "known": shown, "record": record, "rows": rows,
        }))
    }

    pub(super) async fn forget(
        &self,
        book: &ConfiguredLicenses,
        issued: &IssuedBook,
        args: ExpireArgs,
    ) -> Result<Value, ApiError> {
        let known = find(book, &args.subject).await?;
        let (id, _) = args.order.parts()?;
        issued.forget(&known.id).await?;
        self.store.forget(&known.id).map_err(|error| {
            log::warn!("store: the rows of a licence can't be forgotten: {error}");
            ApiError::from(crate::ledger::JournalFull)
        })?;
        // The note is left out, as it could name the buyer.
        self.record(OperatorActionKind::Forget, known.id, (&id, ""), "")?;
        let done = json!({ "action": "forget", "id": id, "repeated": false });
        Ok(json!({ "license": known.id.to_hex(), "done": done }))
    }
}
