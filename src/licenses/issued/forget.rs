//! Erases a buyer's data: only the fact remains that there was a licence, so that it is not created again.

use gatekeeper_filters::kernel::{LicenseId, UnixMs};
use serde_json::{Value, json};

use super::{
    book::{IssueError, IssuedBook},
    record::IssuedKind,
};

impl IssuedBook {
    /// What is kept of a licence; neither its key nor what opens one.
    pub async fn export(&self, id: &LicenseId) -> Value {
        let slot = self.known(id).await;
        let mut record =
            slot.and_then(|slot| serde_json::to_value(&slot.record).ok()).unwrap_or_default();
        if let Some(license) = record.pointer_mut("/issued/is/license") {
            for secret in ["sealed", "codes"] {
                if let Some(members) = license.as_object_mut() {
                    members.remove(secret);
                }
            }
        }
        json!(record)
    }

    /// Leaves a date and a kind of a licence, of its keys and of its order.
    ///
    /// # Errors
    /// Nothing was changed.
    pub async fn forget(&self, id: &LicenseId) -> Result<(), IssueError> {
        let _alone = self.alone(id).await?;
        let license = self.latest_license(id).await?;
        let now = UnixMs::now();
        let left = |kind: &str| IssuedKind::Forgotten { kind: kind.to_owned(), at: now };
        let mut records = vec![(*id, left("license"))];
        records.extend(license.later_keys.iter().map(|key| (*key, left("key"))));
        // An order of several licences stands for the others, too.
        let order_id = self.order_record(&license.order);
        if self.made_by(&order_id).await?.is_some_and(|made| made == [*id]) {
            records.push((order_id, left("order")));
        }
        self.write(records, now).await
    }
}
