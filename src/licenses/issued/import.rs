//! Licences of another shop become our own: from a list, or when a key is first used.

use std::fmt::Write as _;

use gatekeeper_filters::kernel::{Code, LicenseId, UnixMs};

use super::{
    book::{IssueError, IssuedBook},
    record::{ImportedIds, IssuedKind, IssuedLicense, IssuedRecord, IssuedStatus},
};
use crate::{
    licenses::cache_entry::CachedLicense,
    shops::{LicenseVerdict, ShopLicense},
};

/// One licence of a list.
#[derive(Debug, Clone, Default)]
pub struct ImportRow {
    pub key: String,
    pub plan: String,
    pub until: Option<UnixMs>,
    pub status: IssuedStatus,
    pub max_devices: Option<u64>,
    pub ids: ImportedIds,
    pub created: Option<UnixMs>,
    pub activations: Vec<ImportedDevice>,
}

/// A device of a list: the id that its app keeps, and what its buyer calls it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImportedDevice {
    pub id: String,
    pub name: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImportOutcome {
    New,
    Changed,
    Same,
}

impl ImportOutcome {
    pub fn name(self) -> &'static str {
        match self {
            ImportOutcome::New => "new",
            ImportOutcome::Changed => "changed",
            ImportOutcome::Same => "unchanged",
        }
    }
}

impl IssuedBook {
    /// Takes a list in, all of it or nothing; what became, or would become, of each row.
    ///
    /// # Errors
    /// Nothing was taken in.
    pub async fn import(
        &self,
        rows: &[ImportRow],
        is_dry: bool,
    ) -> Result<Vec<(LicenseId, ImportOutcome)>, IssueError> {
        let _alone = self.alone_order(&self.order_record("import")).await?;
        let now = UnixMs::now();
        let (mut outcomes, mut changed) = (Vec::with_capacity(rows.len()), Vec::new());
        for row in rows {
            let id = self.key_id(&row.key);
            let slot = self.latest(&id).await?;
            let before = slot.as_ref().map(|slot| &slot.record);
            let issued = before.and_then(|record| record.issued.as_deref());
            let tag = self.validator.hasher.order("import", &text_of(row));
            let outcome = match issued.map(|issued| &issued.is) {
                Some(IssuedKind::License(known)) if known.order == tag => ImportOutcome::Same,
                // A key of a licence that was rotated, or that was erased, stays unchanged.
                Some(IssuedKind::Key { .. } | IssuedKind::Forgotten { .. }) => ImportOutcome::Same,
                Some(_) => ImportOutcome::Changed,
                None => ImportOutcome::New,
            };
            if outcome != ImportOutcome::Same {
                let record = self.imported(&id, row, tag, before, now);
                changed.push((id, record));
            }
            outcomes.push((id, outcome));
        }
        if is_dry || changed.is_empty() {
            return Ok(outcomes);
        }
        let ids: Vec<LicenseId> = changed.iter().map(|(id, _)| *id).collect();
        for (id, record) in changed {
            self.validator.memory_cache.update(id, |_| Some(record));
        }
        if !self.validator.disk_cache.put_all_now(&ids).await {
            return Err(IssueError::NotKept);
        }
        for id in ids {
            self.validator.share(id).await;
        }
        Ok(outcomes)
    }

    fn imported(
        &self,
        id: &LicenseId,
        row: &ImportRow,
        tag: String,
        before: Option<&CachedLicense>,
        now: UnixMs,
    ) -> CachedLicense {
        let mut record = before.cloned().unwrap_or_default();
        let known = record.issued.as_ref().and_then(|issued| issued.license()).cloned();
        let license = IssuedLicense {
            status: row.status,
            plan: row.plan.clone(),
            until: row.until,
            created: row.created.unwrap_or(now),
            origin: "import".into(),
            max_devices: row.max_devices,
            order: tag,
            shop: Some(row.ids.clone()),
            ..known.unwrap_or_default()
        };
        for activation in &row.activations {
            let device = self.validator.hasher.device(id, &activation.id);
            if record.device(&device).is_none() {
                record = record.with_device(&device, false, now);
            }
            if let Some(name) = &activation.name {
                record = record.with_device_name(&device, name);
            }
        }
        let next = IssuedRecord::next(record.issued.as_deref(), IssuedKind::License(license), now);
        record.issued = Some(Box::new(next));
        record
    }
}

/// All of a row: a list that is taken in again changes only what differs in it.
fn text_of(row: &ImportRow) -> String {
    let mut text = String::new();
    let _ = write!(
        text,
        "{}\n{:?}\n{}\n{:?}\n{:?}\n{:?}\n{:?}",
        row.plan,
        row.until,
        row.status.name(),
        row.max_devices,
        row.ids,
        row.created,
        row.activations
    );
    text
}

impl CachedLicense {
    /// After a word of the shop that this licence is adopted from: valid, it is our own from now on; refused, it ends
    /// here, too. What an operator did holds until the shop says something else than it said `before`.
    pub fn adopt_word(
        &mut self,
        facts: &ShopLicense,
        (before, verdict): (Option<&LicenseVerdict>, &LicenseVerdict),
        now: UnixMs,
    ) {
        let shop = facts.shop.name();
        let known = match self.issued.as_deref().map(|issued| &issued.is) {
            Some(IssuedKind::License(license)) if license.origin == shop => Some(license),
            Some(_) => return,
            None => None,
        };
        let mut license = match (known, verdict) {
            (Some(license), _) => license.clone(),
            (None, LicenseVerdict::Valid { .. }) => IssuedLicense {
                created: now,
                origin: shop.into(),
                shop: Some(ids_of(facts)),
                ..IssuedLicense::default()
            },
            (None, LicenseVerdict::Invalid(_)) => return,
        };
        if let LicenseVerdict::Valid { plan, .. } = verdict {
            license.plan = plan.name.to_string();
            license.max_devices = facts.activation_limit;
        }
        let is_new = known.is_none() || before != Some(verdict);
        match verdict {
            _ if !is_new => {}
            LicenseVerdict::Valid { .. } => {
                license.until = facts.until;
                license.status = IssuedStatus::Active;
            }
            LicenseVerdict::Invalid(Code::LicenseExpired) => license.status = IssuedStatus::Expired,
            LicenseVerdict::Invalid(Code::LicenseRefunded) => {
                license.status = IssuedStatus::Refunded;
            }
            LicenseVerdict::Invalid(Code::LicenseDisabled) => {
                license.status = IssuedStatus::Disabled;
            }
            LicenseVerdict::Invalid(_) => return,
        }
        if known != Some(&license) {
            let is = IssuedKind::License(license);
            self.issued = Some(Box::new(IssuedRecord::next(self.issued.as_deref(), is, now)));
        }
    }
}

fn ids_of(facts: &ShopLicense) -> ImportedIds {
    let number = |text: Option<&String>| text.and_then(|text| text.parse().ok());
    ImportedIds {
        store: facts.seller.parse().ok(),
        product: number(facts.product.as_ref()),
        variant: number(facts.variant.as_ref()),
        order: None,
    }
}
