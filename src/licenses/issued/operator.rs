//! What an operator does about one licence of our own: another key, another end.

use std::time::Duration;

use gatekeeper_filters::kernel::{LicenseId, UnixMs};
use secrecy::SecretString;

use super::{
    book::{IssueError, IssuedBook},
    mint::MintedKey,
    record::{IssuedKind, IssuedLicense, IssuedStatus},
    seal,
};

/// Another key for a licence.
#[derive(Debug)]
pub struct RotateRequest {
    /// Hashed: identifies the command.
    pub order: String,
    /// How long the old key serves on.
    pub grace: Duration,
}

impl IssuedBook {
    /// A new key, which has the usage and the devices of the old one; whether the order is new.
    ///
    /// # Errors
    /// Nothing was changed.
    pub async fn rotate(
        &self,
        id: &LicenseId,
        request: &RotateRequest,
    ) -> Result<(MintedKey, bool), IssueError> {
        let _alone = self.alone(id).await?;
        let mut license = self.latest_license(id).await?;
        if license.sealed.as_ref().is_some_and(|sealed| sealed.order == request.order) {
            let again = self.minted(id, &request.order).await?;
            return again.map(|again| (again, false)).ok_or(IssueError::NotIssued);
        }
        let now = UnixMs::now();
        let (key_id, key) = self.new_key()?;
        let until = now.plus(request.grace);
        // Keys that were replaced before serve no longer than this one, whatever grace they had.
        let sooner = |known: Option<UnixMs>| known.map_or(until, |known| known.min(until));
        let mut records = Vec::new();
        license.first_key_until = Some(sooner(license.first_key_until));
        for later in &license.later_keys {
            let slot = self.latest(later).await?;
            let record = slot.as_ref().and_then(|slot| slot.record.issued.as_ref());
            let known = record.and_then(|record| match &record.is {
                IssuedKind::Key { until, .. } => *until,
                _ => None,
            });
            if known.is_none_or(|known| known > until) {
                let is = IssuedKind::Key { license: *id, until: Some(sooner(known)) };
                records.push((*later, is));
            }
        }
        license.later_keys.push(key_id);
        let mut sealed = seal::seal(&self.vault, id, &request.order, &key, now)?;
        sealed.shown = Some(now);
        license.sealed = Some(sealed);
        license.codes.clear();
        records.push((key_id, IssuedKind::Key { license: *id, until: None }));
        records.push((*id, IssuedKind::License(license.clone())));
        self.write(records, now).await?;
        Ok((MintedKey { id: *id, license, key: Some(SecretString::from(key.as_str())) }, true))
    }

    /// Another last day; one that had ended runs on.
    ///
    /// # Errors
    /// Nothing was changed.
    pub async fn extend(&self, id: &LicenseId, until: UnixMs) -> Result<bool, IssueError> {
        self.change(id, |license| {
            license.until = Some(until);
            license.status = IssuedStatus::Active;
        })
        .await
    }

    /// Ends a licence now.
    ///
    /// # Errors
    /// Nothing was changed.
    pub async fn expire(&self, id: &LicenseId) -> Result<bool, IssueError> {
        self.change(id, |license| license.status = IssuedStatus::Expired).await
    }

    /// Changes a licence; whether it is another one then.
    pub(super) async fn change(
        &self,
        id: &LicenseId,
        change: impl FnOnce(&mut IssuedLicense),
    ) -> Result<bool, IssueError> {
        let _alone = self.alone(id).await?;
        let before = self.latest_license(id).await?;
        let mut license = before.clone();
        change(&mut license);
        if license == before {
            return Ok(false);
        }
        self.write(vec![(*id, IssuedKind::License(license))], UnixMs::now()).await?;
        Ok(true)
    }
}
